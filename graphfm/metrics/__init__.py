"""Metrics over arrays and tables of predictions; none sees a model."""

import importlib

__all__ = ["grn", "imputation", "integration", "labels", "rare", "smoothing", "spatial"]


def __getattr__(name: str):
    if name in __all__:
        return importlib.import_module(f"graphfm.metrics.{name}")
    raise AttributeError(f"module 'graphfm.metrics' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
