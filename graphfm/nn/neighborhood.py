"""The one graph format that the trunk reads: a padded table of weighted, typed neighbours."""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

RELATIONS = (
    "knn",
    "spatial",
    "expressed_in",
    "expresses",
    "regulates",
    "represses",
    "coexpressed",
    "anticoexpressed",
)
"""Relation types the trunk has parameters for; new ones are appended, so that old weights keep their meaning."""


@dataclass(frozen=True)
class Neighborhood:
    """Incoming neighbours of ``N`` nodes, all relations side by side along ``k``.

    Parameters
    ----------
    index
        Rows of the source states, 0 where there is no edge.
    weight
        Entry of the normalised adjacency matrix, non-negative; 0 says that there is no edge.
    relation
        Position in `RELATIONS`.
    distance
        Length of the edge in units of its relation's mean length; 0 where the relation has no length.
    """

    index: Int[Tensor, "n k"]
    weight: Float[Tensor, "n k"]
    relation: Int[Tensor, "n k"]
    distance: Float[Tensor, "n k"]

    def __len__(self) -> int:
        return self.index.shape[0]

    def take(self, rows: Tensor | slice) -> "Neighborhood":
        """Keep some destination rows; sources are not renumbered."""
        return Neighborhood(*(getattr(self, field.name)[rows] for field in fields(self)))

    def to(self, device: torch.device | str) -> "Neighborhood":
        """Move every tensor to `device`."""
        return Neighborhood(*(getattr(self, field.name).to(device) for field in fields(self)))

    def localize(self, rows: Tensor, halo: int = 1) -> tuple[Tensor, "Neighborhood"]:
        """Cut out the neighbourhood of some rows, with sources renumbered.

        Parameters
        ----------
        rows
            Destination rows, ``[n]``, without repeats.
        halo
            1: the rows and their sources (one layer is exact on it). 0: the rows alone; edges that leave
            them are dropped and what is left of each row is scaled to the row's former sum.

        Returns
        -------
        nodes, local
            Global ids of the sources, the `rows` first, and the rows' neighbourhood in this numbering.
        """
        part = self.take(rows)
        number = torch.full((len(self),), -1, dtype=torch.long, device=rows.device)
        number[rows] = torch.arange(len(rows), device=rows.device)
        if halo == 0:
            local = number[part.index]
            inside = (local >= 0) & (part.weight > 0)
            kept = part.weight * inside
            scale = part.weight.sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp(min=1e-12)
            return rows, replace(part, index=local.clamp(min=0), weight=kept * scale)
        sources = torch.unique(part.index[part.weight > 0])
        sources = sources[number[sources] < 0]
        number[sources] = torch.arange(len(rows), len(rows) + len(sources), device=rows.device)
        return torch.cat([rows, sources]), replace(part, index=number[part.index].clamp(min=0))
