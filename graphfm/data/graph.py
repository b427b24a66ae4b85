"""Neighbour tables: a relation as a rectangle, which a trunk gathers from without scattering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch


@dataclass(frozen=True)
class NeighborTable:
    """One relation: for each of N destination nodes up to k source nodes.

    Canonical form, which every function here returns: the edges of a row are packed to the left and sorted by source,
    no edge twice, no edge of weight 0, and k is the largest degree (1 if there is no edge at all).

    Parameters
    ----------
    index
        int64 ``[N, k]``, rows of the source node type; 0 where masked.
    mask
        bool ``[N, k]``, True where an edge is.
    weight
        float32 ``[N, k]``, edge weight, may be signed; 0 where masked.
    edge_attr
        float32 ``[N, k, f]``, edge features such as a distance, or None; 0 where masked.
    num_sources
        Number of nodes of the source type.
    source, relation, target
        Names of the source node type, the relation and the destination node type.
    """

    index: torch.Tensor
    mask: torch.Tensor
    weight: torch.Tensor
    edge_attr: torch.Tensor | None
    num_sources: int
    source: str = "cell"
    relation: str = "knn"
    target: str = "cell"

    def __post_init__(self) -> None:
        shape = tuple(self.index.shape)
        if len(shape) != 2 or tuple(self.mask.shape) != shape or tuple(self.weight.shape) != shape:
            raise ValueError(
                "index, mask and weight must share one shape [N, k], got "
                f"{shape}, {tuple(self.mask.shape)} and {tuple(self.weight.shape)}."
            )
        if self.edge_attr is not None and (self.edge_attr.ndim != 3 or tuple(self.edge_attr.shape[:2]) != shape):
            raise ValueError(
                f"edge_attr must have shape [N, k, f] with [N, k] = {shape}, got {tuple(self.edge_attr.shape)}."
            )

    @property
    def num_targets(self) -> int:
        """Number of destination nodes, N."""
        return self.index.shape[0]

    @property
    def edge_type(self) -> tuple[str, str, str]:
        """``(source, relation, target)``, as torch_geometric names it."""
        return self.source, self.relation, self.target

    def edge_index(self) -> torch.Tensor:
        """Edges as int64 ``[2, E]``, source above destination, ordered by destination."""
        rows, slots = self.mask.nonzero(as_tuple=True)
        return torch.stack([self.index[rows, slots], rows])


def table_from_csr(
    adjacency: Any,
    *,
    distances: Any | Sequence[Any] | None = None,
    max_degree: int | None = None,
    mutual: bool | None = None,
    source: str = "cell",
    relation: str = "knn",
    target: str = "cell",
) -> NeighborTable:
    """Neighbour table of a sparse matrix whose rows are destinations and columns sources.

    Parameters
    ----------
    adjacency
        Sparse ``[N, num_sources]``; an entry of value 0 is no edge.
    distances
        Sparse matrix of the same shape, or several: the edge features, read at the edges of ``adjacency`` (0 where they
        have no entry, as for two cells in one place).
    max_degree
        Keep this many edges of a row at most: those of the largest absolute weight, then of the smallest first edge
        feature, then of the lowest source index.
    mutual
        What ``max_degree`` does. True: an edge stays if both its ends have it among their strongest, so that a
        symmetric relation stays symmetric. False: each row keeps its strongest. None: True if ``adjacency`` is
        symmetric.
    source, relation, target
        Names, see :class:`NeighborTable`.

    Raises
    ------
    ValueError
        If weights or features are not finite, shapes differ, or ``max_degree`` is below 1.
    """
    matrix = sp.csr_matrix(adjacency, dtype=np.float32, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    columns, weight = matrix.indices.astype(np.int64), matrix.data
    if distances is None:
        attributes = None
    else:
        layers = distances if isinstance(distances, Sequence) else [distances]
        attributes = np.stack([_values_at(layer, matrix) for layer in layers], axis=1)
    if max_degree is not None:
        if max_degree < 1:
            raise ValueError(f"max_degree={max_degree} must be at least 1, or None to keep every edge.")
        tie = attributes[:, 0] if attributes is not None else np.zeros_like(weight)
        kept = _strongest(rows, columns, weight, tie, max_degree)
        if mutual if mutual is not None else _is_symmetric(matrix):
            kept &= _reverse_kept(matrix, kept)
        rows, columns, weight = rows[kept], columns[kept], weight[kept]
        attributes = None if attributes is None else attributes[kept]
    names = (source, relation, target)
    return table_from_edges(rows, columns, weight, attributes, shape=matrix.shape, edge_type=names)


def table_from_edges(
    rows: np.ndarray,
    columns: np.ndarray,
    weight: np.ndarray,
    attributes: np.ndarray | None,
    *,
    shape: tuple[int, int],
    edge_type: tuple[str, str, str],
) -> NeighborTable:
    """Neighbour table of an edge list in any order.

    Parameters
    ----------
    rows, columns
        int ``[E]``, destination and source of each edge.
    weight
        ``[E]``; edges of weight 0 are dropped.
    attributes
        ``[E, f]`` edge features, or None.
    shape
        Number of destinations and of sources.
    edge_type
        ``(source, relation, target)``.

    Raises
    ------
    ValueError
        If a node is out of range, a value is not finite, or an edge comes twice.
    """
    if not np.isfinite(weight).all() or (attributes is not None and not np.isfinite(attributes).all()):
        raise ValueError(f"Relation {edge_type} has weights or edge features that are NaN or infinite.")
    for what, values, size in (("destination", rows, shape[0]), ("source", columns, shape[1])):
        if len(values) and not 0 <= values.min() <= values.max() < size:
            raise ValueError(
                f"Relation {edge_type} has a {what} outside 0 to {size - 1}: {values.min()}, {values.max()}."
            )
    order = np.argsort(rows * shape[1] + columns, kind="stable")  # linear in edges that are sorted already
    order = order[weight[order] != 0]
    rows, columns = rows[order], columns[order]
    if np.any((np.diff(rows) == 0) & (np.diff(columns) == 0)):
        raise ValueError(f"Relation {edge_type} has an edge twice. Sum or drop the duplicates first.")
    degree = np.bincount(rows, minlength=shape[0])
    mask = np.arange(max(1, degree.max(initial=0))) < degree[:, None]
    index, weights = np.zeros(mask.shape, dtype=np.int64), np.zeros(mask.shape, dtype=np.float32)
    index[mask], weights[mask] = columns, weight[order]
    edge_attr = None
    if attributes is not None:
        edge_attr = np.zeros((*mask.shape, attributes.shape[1]), dtype=np.float32)
        edge_attr[mask] = attributes[order]
        edge_attr = torch.from_numpy(edge_attr)
    arrays = (torch.from_numpy(array) for array in (index, mask, weights))
    return NeighborTable(*arrays, edge_attr, int(shape[1]), *edge_type)


def table_to_csr(table: NeighborTable) -> sp.csr_matrix:
    """Weights as a float32 matrix ``[N, num_sources]``, rows are destinations; inverse of :func:`table_from_csr`."""
    return _to_csr(table, table.weight)


def attributes_to_csr(table: NeighborTable) -> list[sp.csr_matrix]:
    """Edge features, one matrix each, with the entries of :func:`table_to_csr` (explicit zeros are kept)."""
    if table.edge_attr is None:
        return []
    return [_to_csr(table, feature) for feature in table.edge_attr.unbind(dim=-1)]


def symmetric_normalize(table: NeighborTable) -> NeighborTable:
    r"""Weights of :math:`D^{-1/2} A D^{-1/2}`, degrees taken from absolute weights.

    Where the relation is not symmetric, the degree of a destination is that of its row and the degree of a source that
    of its column; the spectral norm is at most 1 in either case. Rows without edges stay empty.
    """
    strength = table.weight.abs().double() * table.mask
    into = strength.sum(dim=1, keepdim=True)
    out = strength.new_zeros(table.num_sources).index_add_(0, table.index.flatten(), strength.flatten())
    scale = (into * out[table.index]).sqrt()
    weight = torch.where(table.mask & (scale > 0), table.weight.double() / scale.clamp(min=1e-300), 0.0)
    return replace(table, weight=weight.float())


def _to_csr(table: NeighborTable, values: torch.Tensor) -> sp.csr_matrix:
    mask = table.mask.numpy(force=True)
    pointer = np.concatenate([[0], np.cumsum(mask.sum(axis=1))])
    parts = (values.numpy(force=True)[mask], table.index.numpy(force=True)[mask], pointer)
    return sp.csr_matrix(parts, shape=(table.num_targets, table.num_sources))


def _values_at(matrix: Any, edges: sp.csr_matrix) -> np.ndarray:
    """Entries of a sparse matrix at the given edges, 0 where it has none."""
    values = sp.csr_matrix(matrix, copy=True)
    if values.shape != edges.shape:
        raise ValueError(f"distances have shape {values.shape}, adjacency has {edges.shape}.")
    values.sum_duplicates()
    values.eliminate_zeros()
    result = np.zeros(edges.nnz, dtype=np.float32)
    result[_numbered(edges).multiply(_pattern(values)).data - 1] = values.multiply(_pattern(edges)).data
    return result


def _pattern(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """One where there is an entry."""
    return sp.csr_matrix((np.ones(matrix.nnz, dtype=np.int8), matrix.indices, matrix.indptr), shape=matrix.shape)


def _numbered(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """The number of each entry, from 1."""
    return sp.csr_matrix((np.arange(1, matrix.nnz + 1), matrix.indices, matrix.indptr), shape=matrix.shape)


def _strongest(rows: np.ndarray, columns: np.ndarray, weight: np.ndarray, tie: np.ndarray, limit: int) -> np.ndarray:
    degree = np.bincount(rows, minlength=1)
    kept = degree[rows] <= limit
    crowded = np.flatnonzero(~kept)
    order = crowded[np.lexsort((columns[crowded], tie[crowded], -np.abs(weight[crowded]), rows[crowded]))]
    degree = np.where(degree > limit, degree, 0)
    start = np.cumsum(degree) - degree
    kept[order] = np.arange(len(order)) - start[rows[order]] < limit
    return kept


def _is_symmetric(matrix: sp.csr_matrix) -> bool:
    return matrix.shape[0] == matrix.shape[1] and (matrix != matrix.T).nnz == 0


def _reverse_kept(edges: sp.csr_matrix, kept: np.ndarray) -> np.ndarray:
    """Whether the opposite edge is among those kept."""
    if edges.shape[0] != edges.shape[1]:
        raise ValueError(f"mutual=True needs a square adjacency, got {edges.shape}. Use mutual=False.")
    among = sp.csr_matrix((kept.astype(np.int8), edges.indices, edges.indptr), shape=edges.shape).T.tocsr()
    among.eliminate_zeros()
    result = np.zeros(edges.nnz, dtype=bool)
    result[_numbered(edges).multiply(among).data - 1] = True
    return result
