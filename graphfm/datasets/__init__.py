"""Data sets: `toy()` with planted truth, and public ones by name, e.g. ``graphfm.datasets.dlpfc_151673()``.

`names()` lists the public ones, `info(name)` tells licence, citation and traps of each.
"""

from graphfm.datasets import _registry
from graphfm.datasets._registry import fetch, info, load, names
from graphfm.datasets._toy import toy

__all__ = ["fetch", "info", "load", "names", "toy"]


def __getattr__(name: str):
    if not name.startswith("_") and name in _registry.attributes():
        return _registry.loader(name)
    raise AttributeError(f"graphfm.datasets has no data set {name!r}; graphfm.datasets.names() lists them")


def __dir__() -> list[str]:
    return sorted([*__all__, *_registry.attributes()])
