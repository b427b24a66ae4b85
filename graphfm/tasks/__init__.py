"""One task one file: ``evaluate(prediction, truth, seed)`` gives metrics, ``controls(truth, seed)`` their bounds."""

import importlib

__all__ = ["cell_types", "domains", "grn", "grn_splits", "imputation", "integration", "node_classes", "rare"]


def __getattr__(name: str):
    if name in __all__:
        return importlib.import_module(f"graphfm.tasks.{name}")
    raise AttributeError(f"module 'graphfm.tasks' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
