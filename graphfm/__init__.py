"""graphfm: a graph foundation model for single-cell and spatial omics.

The usual path through the library::

    import graphfm

    adata = graphfm.datasets.toy()
    graphfm.pp.knn_graph(adata)
    graphfm.tl.embed(adata)          # -> adata.obsm["X_graphfm"]

Submodules are imported when they are first used, so ``import graphfm`` itself is quick.
"""

import importlib

__version__ = "0.1.0"

_SUBMODULES = (
    "allocator",
    "data",
    "datasets",
    "genes",
    "io",
    "metrics",
    "models",
    "nn",
    "objectives",
    "pl",
    "pp",
    "report",
    "tasks",
    "tl",
    "train",
)

__all__ = [*_SUBMODULES, "GraphFM", "__version__"]


def __getattr__(name: str):
    if name in _SUBMODULES:
        return importlib.import_module(f"graphfm.{name}")
    if name == "GraphFM":
        return importlib.import_module("graphfm.models.graphfm").GraphFM
    raise AttributeError(f"module 'graphfm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
