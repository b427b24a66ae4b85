"""Self-supervised objectives: ``objective(model, cells, batch, generator) -> loss, diagnostics``."""

from graphfm.objectives.masked_expression import MaskedExpression
from graphfm.objectives.neighbor_agreement import NeighborAgreement

Objective = MaskedExpression | NeighborAgreement
OBJECTIVES = {"masked_expression": MaskedExpression, "neighbor_agreement": NeighborAgreement}

__all__ = ["OBJECTIVES", "MaskedExpression", "NeighborAgreement", "Objective"]
