"""The one graph format that the trunk reads: a padded table of weighted, typed neighbours."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
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


class _Product(torch.autograd.Function):
    """Product whose backward is a product with the transpose, so that each row is summed by one thread."""

    @staticmethod
    def forward(ctx, h: Tensor, matrix: "SparseRows") -> Tensor:
        ctx.matrix, ctx.num_columns = matrix, len(h)
        return matrix.multiply(h.contiguous())

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        into_columns = _Product.apply(gradient, ctx.matrix.transpose)
        missing = ctx.num_columns - len(into_columns)
        return F.pad(into_columns, (0, 0, 0, missing)) if missing else into_columns, None


@dataclass(frozen=True, eq=False)
class SparseRows:
    """A sparse matrix row by row (CSR); ``matrix @ h`` is differentiable in the dense states ``h``.

    Parameters
    ----------
    pointer
        Where each row starts in the other two, and where the last one ends.
    column, weight
        Of each entry.
    symmetric
        The matrix is its own transpose.
    """

    pointer: Int[Tensor, "n_plus_1"]
    column: Int[Tensor, "e"]
    weight: Float[Tensor, "e"]
    symmetric: bool = False

    @classmethod
    def from_entries(
        cls, row: Tensor, column: Tensor, weight: Tensor, size: tuple[int, int], *, symmetric: bool = False
    ) -> "SparseRows":
        """Sort entries ``[e]`` by row, then by column; rows beyond `size` are added where they have an entry."""
        order = torch.argsort(row * size[1] + column, stable=True)
        pointer = F.pad(torch.bincount(row, minlength=size[0]).cumsum(0), (1, 0))
        return cls(pointer, column[order], weight[order], symmetric)

    def __matmul__(self, h: Float[Tensor, "s d"]) -> Float[Tensor, "n d"]:
        return _Product.apply(h, self)

    def multiply(self, h: Float[Tensor, "s d"]) -> Float[Tensor, "n d"]:
        """The product without a gradient."""
        if not (h.is_cuda or torch.backends.mkl.is_available()):
            weight = self.weight.to(h.dtype)
            return F.embedding_bag(self.column, h, self.pointer[:-1], mode="sum", per_sample_weights=weight)
        kind = (len(h), h.dtype)
        if kind not in self._matrices:
            size, weight = (len(self.pointer) - 1, len(h)), self.weight.to(h.dtype)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Sparse")  # torch calls CSR a beta feature
                matrix = torch.sparse_csr_tensor(self.pointer, self.column, weight, size=size, check_invariants=False)
            self._matrices[kind] = matrix
        return self._matrices[kind] @ h

    @cached_property
    def _matrices(self) -> dict[tuple[int, torch.dtype], Tensor]:
        """The same as torch's own matrices, by number of columns and precision."""
        return {}

    @cached_property
    def transpose(self) -> "SparseRows":
        """Its rows are this one's columns, as far as the last that has an entry."""
        if self.symmetric:
            return self
        num_rows = len(self.pointer) - 1
        row = torch.repeat_interleave(torch.arange(num_rows, device=self.column.device), self.pointer.diff())
        return SparseRows.from_entries(self.column, row, self.weight, (0, num_rows))


@runtime_checkable
class Propagator(Protocol):
    """What a block without heads asks of a graph: how many nodes it is for, and the normalised adjacency's product."""

    def __len__(self) -> int: ...

    def own(self, h: Float[Tensor, "s d"]) -> Float[Tensor, "n d"]:
        """Rows of the nodes themselves."""

    def propagate(self, h: Float[Tensor, "s d"]) -> Float[Tensor, "n d"]:
        """One product of the normalised adjacency with the states."""


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
    start
        Row of the first of the nodes among the sources; the others follow it.
    """

    index: Int[Tensor, "n k"]
    weight: Float[Tensor, "n k"]
    relation: Int[Tensor, "n k"]
    distance: Float[Tensor, "n k"]
    start: int = 0

    @classmethod
    def empty(cls, number: int) -> "Neighborhood":
        """So many nodes without an edge."""
        nothing = torch.zeros(number, 1)
        return cls(nothing.long(), nothing, nothing.long(), nothing)

    def __len__(self) -> int:
        return self.index.shape[0]

    def own(self, h: Float[Tensor, "s d"]) -> Float[Tensor, "n d"]:
        """Rows of the nodes themselves; all of them without a slice, whose backward would fill a whole matrix."""
        return h if len(h) == len(self) else h[self.start : self.start + len(self)]

    def propagate(self, h: Float[Tensor, "s d"]) -> Float[Tensor, "n d"]:
        """One product of the normalised adjacency with the states; a node without neighbours keeps its own.

        Differentiable in `h`; four times faster than gathering on a CPU, and no ``[n, k, d]`` is made.
        """
        return self.rows @ h

    @cached_property
    def rows(self) -> SparseRows:
        """The same edges without padding; nodes that have none are given themselves."""
        edge = self.weight > 0
        alone = ~edge.any(1)
        index, weight = self.index.clone(), self.weight.clone()
        edge[alone, 0], weight[alone, 0] = True, 1.0
        index[alone, 0] = self.start + torch.arange(len(self), device=index.device)[alone]
        pointer = F.pad(edge.sum(1).cumsum(0), (1, 0))
        return SparseRows(pointer, index[edge], weight[edge])

    def part(self, start: int, stop: int) -> "Neighborhood":
        """The nodes from `start` to before `stop`; a view, and sources are not renumbered."""
        return replace(self._each(lambda column: column[start:stop]), start=self.start + start)

    def to(self, device: torch.device | str) -> "Neighborhood":
        """Move every tensor to `device`."""
        return self._each(lambda column: column.to(device))

    def reorder(self, order: Int[Tensor, "n"]) -> "Neighborhood":
        """The same graph with node ``order[i]`` in place ``i``."""
        moved = self._each(lambda column: column[order])
        return replace(moved, index=torch.argsort(order)[moved.index] * (moved.weight > 0))

    def outside(self, nodes: Int[Tensor, "m"]) -> Int[Tensor, "o"]:
        """Sources of some nodes that are not among them, in ascending order."""
        index, weight = self.index[nodes], self.weight[nodes]
        reached = torch.zeros(len(self), dtype=torch.bool, device=index.device)
        reached[index[weight > 0]] = True
        reached[nodes] = False
        return reached.nonzero().squeeze(1)

    def induced(self, nodes: Int[Tensor, "m"]) -> "Neighborhood":
        """The graph among some nodes, numbered in their order; each row is scaled to the sum it had with all edges."""
        chosen = self._each(lambda column: column[nodes])
        number = torch.full((len(self),), -1, dtype=torch.long, device=nodes.device)
        number[nodes] = torch.arange(len(nodes), device=nodes.device)
        local = number[chosen.index]
        kept = chosen.weight * (local >= 0)
        scale = chosen.weight.sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp(min=1e-12)
        return replace(chosen, index=local.clamp(min=0), weight=kept * scale)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Neighborhood":
        columns = (self.index, self.weight, self.relation, self.distance)
        return Neighborhood(*map(change, columns), start=self.start)
