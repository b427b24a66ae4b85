"""A graph of nodes, and what makes deep stacks on it affordable on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from graphfm.nn.neighborhood import SparseRows


@dataclass(frozen=True, eq=False)
class NodeGraph:
    """Undirected graph, made by `from_edges`; each matrix is built when it is first used.

    Parameters
    ----------
    edge_index
        Each edge in both directions, no self-loops.
    weight
        Weights of the edges; attention does not look at them.
    num_nodes
        Number of nodes.
    """

    edge_index: Int[Tensor, "2 e"]
    weight: Float[Tensor, " e"]
    num_nodes: int

    @classmethod
    def from_edges(cls, edge_index: Tensor, num_nodes: int, weight: Tensor | None = None) -> "NodeGraph":
        """Check edges ``[2, e]`` and their weights ``[e]`` (ones if missing), and make a graph of them.

        Raises
        ------
        ValueError
            There is a self-loop, an edge is there twice, or one direction is missing or of another weight.
        """
        weight = torch.ones(edge_index.shape[1], device=edge_index.device) if weight is None else weight
        (there, order), (back, back_order) = ((r * num_nodes + c).sort() for r, c in (edge_index, edge_index.flip(0)))
        once = (there.diff() > 0).all() and (edge_index[0] != edge_index[1]).all()
        if not (once and torch.equal(there, back) and torch.allclose(weight[order], weight[back_order])):
            raise ValueError("edge_index needs each edge once in both directions, of one weight, and no self-loops")
        return cls(edge_index, weight, num_nodes)

    @cached_property
    def degree(self) -> Tensor:
        """Sum of the weights of each node's edges, ``[n]``."""
        return self.weight.new_zeros(self.num_nodes).index_add(0, self.edge_index[0], self.weight)

    @cached_property
    def looped(self) -> Tensor:
        """The edges, then a self-loop for each node, ``[2, e + n]``."""
        own = torch.arange(self.num_nodes, device=self.edge_index.device)
        return torch.cat([self.edge_index, own.expand(2, -1)], dim=1)

    @cached_property
    def adjacency(self) -> SparseRows:
        """``A``, ``[n, n]``."""
        return self._matrix(self.edge_index, self.weight)

    @cached_property
    def operator(self) -> SparseRows:
        """``P = D^-1/2 (A + I) D^-1/2``, ``[n, n]``."""
        (row, col), scale = self.edge_index, (self.degree + 1).rsqrt()
        return self._matrix(self.looped, torch.cat([self.weight * (scale[row] * scale[col]), scale.square()]))

    def __len__(self) -> int:
        return self.num_nodes

    def own(self, h: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """All rows: a node hears nothing from outside the graph."""
        return h

    def propagate(self, h: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """``P h``: a `Propagator` for the trunk's block."""
        return self.operator @ h

    def drop_edges(self, p: float) -> "NodeGraph":
        """The graph without a random share `p` of its edges, both directions at once."""
        from torch_geometric.utils import dropout_edge

        edge_index, kept = dropout_edge(self.edge_index, p, force_undirected=True)
        return NodeGraph(edge_index, self.weight[kept], self.num_nodes)

    def _matrix(self, edge_index: Tensor, values: Tensor) -> SparseRows:
        return SparseRows.from_entries(*edge_index, values, (self.num_nodes,) * 2, symmetric=True)


def sparse_linear(x: SparseRows, linear: nn.Linear, dropout: nn.Module) -> Float[Tensor, "n d"]:
    """``linear(dropout(x))`` of features that are mostly zero.

    Parameters
    ----------
    x
        Features, ``[n, f]``.
    linear
        From `f` to `d` channels.
    dropout
        Of the features: dropping zeros changes nothing, so only the others are drawn for.
    """
    rows = linear.weight.T.contiguous()
    return linear.bias + F.embedding_bag(
        x.column, rows, x.pointer[:-1], mode="sum", per_sample_weights=dropout(x.weight)
    )


def pyg(name: str, *arguments: int | str, **options: int) -> nn.Module:
    """One of PyG's layers, which is imported only now."""
    import torch_geometric.nn

    return getattr(torch_geometric.nn, name)(*arguments, **options)


@cache
def over_operator(name: str) -> type[nn.Module]:
    """PyG's layer for `SparseRows`: with PyG's own product the whole layer takes 1.7 times as long.

    Parameters
    ----------
    name
        A layer of ``torch_geometric.nn`` that does nothing with the matrix but multiply by it.
    """
    import torch_geometric.nn

    def propagate(self, edge_index: SparseRows, *, x: Tensor, edge_weight: None = None) -> Tensor:
        return edge_index @ x

    return type(name, (getattr(torch_geometric.nn, name),), {"propagate": propagate})


@contextmanager
def _fixed_statistics(module: nn.Module) -> Iterator[None]:
    """Batch norms that do not count a batch for the second time."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d)]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)


def recomputed(block: nn.Module, *inputs: object) -> Tensor | tuple[Tensor, ...]:
    """``block(*inputs)``, computed again in the backward pass instead of stored; batch statistics count once.

    Parameters
    ----------
    block
        A layer.
    inputs
        What it takes.
    """
    return checkpoint(block, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _fixed_statistics(block)))
