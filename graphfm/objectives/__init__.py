"""Self-supervised objectives: ``objective(model, cells, batch, ...) -> loss, diagnostics``."""

from graphfm.objectives.masked_expression import masked_expression

__all__ = ["masked_expression"]
