"""From AnnData to what the trunk reads."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from anndata import AnnData

from graphfm import _keys, genes, io
from graphfm.data import seen
from graphfm.data.graph import NeighborTable, symmetric_normalize, table_from_csr
from graphfm.data.prepared import MATRICES
from graphfm.io.mapped import GrowingMatrix
from graphfm.io.matrix import value_chunks
from graphfm.models.inputs import CellGraph
from graphfm.nn.neighborhood import RELATIONS, Neighborhood

logger = logging.getLogger(__name__)

MAX_DEGREE = 32
"""Neighbours a cell keeps in each relation: bounds the width of the table, hubs lose their weakest edges."""

CELL_RELATIONS = {
    "knn": (_keys.CONNECTIVITIES, _keys.DISTANCES),
    "spatial": (_keys.SPATIAL_CONNECTIVITIES, _keys.SPATIAL_DISTANCES),
}
NEGATIVE = {"regulates": "represses", "coexpressed": "anticoexpressed"}
"""Relation type that edges with a negative weight get."""

_BUILDERS = {"knn": "graphfm.pp.knn_graph(adata)", "spatial": "graphfm.pp.spatial_graph(adata)"}


def cell_graph(
    adata: AnnData,
    *,
    relations: tuple[str, ...] | None = None,
    neighborhood: Neighborhood | None = None,
    layer: str | None = None,
    kind: str = "counts",
    organism: str = "auto",
    all_genes: bool = False,
    with_expression: bool = True,
    cache: Path | None = None,
    name: str = "data",
) -> CellGraph:
    """Gather expression, genes and cell graphs of an AnnData for the trunk.

    The matrix is read in chunks of cells, and never is in memory as a whole: `adata` may be backed by a file.

    Parameters
    ----------
    adata
        With the graphs in ``obsp`` and, if `graphfm.pp.knn_graph` made them, the loadings in ``varm["PCs"]``.
        ``var["graphfm_gene"]`` is added where it is missing or belongs to another vocabulary or organism.
    relations
        ``"knn"``, ``"spatial"`` or both; default: all that are there.
    neighborhood
        Neighbours that are known already: then the graphs of `adata` are not read.
    layer, kind
        Where the expression is, and what it is; see `graphfm.io.expression`.
    organism
        See `graphfm.genes.align_genes`.
    all_genes
        Keep genes without a loading too, in the order of `adata`: for graphs that have genes as nodes.
    with_expression
        False: without the expression itself, which pre-training and genes as nodes need; an embedding does not.
    cache
        Folder to keep that expression in, to be read where it is needed; None: in memory.
    name
        Of the data set, for logs.

    Raises
    ------
    KeyError
        A relation that was asked for, or any at all, is missing.
    ValueError
        The expression is not what `kind` says, no gene varies or is known, or a relation is unknown.
    """
    check_relations(relations)
    _align(adata, organism=organism, layer=layer)
    loadings = _loadings(adata, layer=layer, kind=kind)
    kept = np.flatnonzero(np.abs(loadings).sum(axis=1) > 0) if not all_genes else np.arange(adata.n_vars)
    counts, expression = (GrowingMatrix(cache and cache / part) for part in MATRICES)
    rows = adata.var[_keys.GENE_ROW].to_numpy(dtype=np.int64)
    keys = seen.gene_keys(rows, adata.var_names) if with_expression else None
    totals, scores, profiles = [], [], []
    for values, logged in io.row_chunks(adata, layer=layer, kind=kind):
        totals.append(np.asarray(values.sum(axis=1)).ravel().astype(np.float32))
        scores.append(logged @ loadings)
        if keys is not None:
            profiles.append(seen.profile_marks(values, keys))
            expression.append(logged[:, kept])
            if kind == "counts":
                counts.append(values[:, kept])
    totals, scores = torch.from_numpy(np.concatenate(totals)), np.concatenate(scores)
    scores -= scores.mean(axis=0, dtype=np.float64).astype(np.float32)
    return CellGraph(
        scores=torch.from_numpy(scores),
        expression=expression.matrix() if with_expression else None,
        counts=counts.matrix() if with_expression and kind == "counts" else None,
        totals=totals,
        gene_rows=torch.from_numpy(rows[kept]),
        gene_names=adata.var_names.to_numpy(dtype=str)[kept],
        loadings=torch.from_numpy(loadings[kept]),
        neighborhood=cell_neighborhood(adata, relations=relations) if neighborhood is None else neighborhood,
        vocabulary=genes.vocabulary().version,
        name=name,
        marks=torch.from_numpy(seen.marks(profiles, adata.obs_names)) if with_expression else None,
    )


def _align(adata: AnnData, *, organism: str, layer: str | None) -> None:
    """Align the genes, unless that was done for this vocabulary and, if one is named, this organism."""
    if not genes.is_aligned(adata, organism=organism):
        logger.info("%s", genes.align_genes(adata, organism=organism, layer=layer))


def check_relations(relations: tuple[str, ...] | None) -> None:
    """Refuse relations that no cell graph has."""
    if relations is None:
        return
    if isinstance(relations, str) or not relations:
        raise ValueError(f"relations={relations!r}: pass a tuple such as ('knn',), of {sorted(CELL_RELATIONS)}")
    for relation in relations:
        if relation not in CELL_RELATIONS:
            raise ValueError(f"relations: unknown relation {relation!r}; choose from {sorted(CELL_RELATIONS)}")
    if len(set(relations)) < len(relations):
        raise ValueError(f"relations={relations!r} names one twice")


def relations_of(adata: AnnData) -> tuple[str, ...]:
    """Cell relations whose graph is there."""
    return tuple(relation for relation, (key, _) in CELL_RELATIONS.items() if key in adata.obsp)


def table_width(adata: AnnData, relations: tuple[str, ...]) -> int:
    """Columns that the table of these relations will have, nearly: it is made of edges in both directions."""
    width = 0
    for relation in relations:
        matrix = sp.csr_matrix(adata.obsp.get(CELL_RELATIONS[relation][0], (1, 1)))
        into, out = np.diff(matrix.indptr).max(), np.bincount(matrix.indices, minlength=1).max()
        width += max(1, min(MAX_DEGREE, int(max(into, out))))
    return width


def cell_neighborhood(adata: AnnData, *, relations: tuple[str, ...] | None = None) -> Neighborhood:
    """Cell-cell graphs of an AnnData as one neighbourhood; each relation has the same share of the weight."""
    if relations is None:
        relations = relations_of(adata)
        if not relations:
            raise KeyError(
                f"adata.obsp has no cell graph (found: {sorted(adata.obsp)}). Run graphfm.pp.knn_graph(adata) or "
                "graphfm.pp.spatial_graph(adata) first."
            )
    check_relations(relations)
    tables = []
    for relation in relations:
        connectivities, distances = CELL_RELATIONS[relation]
        if connectivities not in adata.obsp:
            raise KeyError(
                f"adata.obsp has no {connectivities!r} (found: {sorted(adata.obsp)}). "
                f"Run {_BUILDERS[relation]} first, or leave {relation!r} out of relations."
            )
        table = table_from_csr(
            _symmetric(adata.obsp[connectivities]),
            distances=_symmetric(adata.obsp[distances]) if distances in adata.obsp else None,
            max_degree=MAX_DEGREE,
            relation=relation,
        )
        tables.append(symmetric_normalize(table))
    return join_tables(share_weights(tables))


def neighborhood_to_csr(neighborhood: Neighborhood, values: torch.Tensor) -> sp.csr_matrix:
    """Numbers of edges ``[n, k]`` as a matrix ``[n, n]``, row hears column; a cell that two relations reach is one."""
    row, column = torch.nonzero(neighborhood.weight > 0, as_tuple=True)
    entries = (values[row, column].numpy(), (row.numpy(), neighborhood.index[row, column].numpy()))
    return sp.csr_matrix(entries, shape=(len(neighborhood), len(neighborhood)))


def cell_marks(adata: AnnData, *, layer: str | None = None, kind: str = "counts", organism: str = "auto") -> np.ndarray:
    """Marks of all cells (`graphfm.data.seen`), as `cell_graph` makes them; int64 ``[n_obs, 2]``.

    Parameters
    ----------
    adata, layer, kind, organism
        As in `cell_graph`; nothing is written.
    """
    known = {key: adata.uns[key] for key in [_keys.GENES] if key in adata.uns}
    one = AnnData(sp.csr_matrix(np.ones((1, adata.n_vars), dtype=np.float32)), var=adata.var.copy(), uns=known)
    _align(one, organism=organism, layer=None)
    keys = seen.gene_keys(one.var[_keys.GENE_ROW].to_numpy(), adata.var_names)
    chunks = value_chunks(adata, layer=layer, kind=kind)
    return seen.marks([seen.profile_marks(values, keys) for values in chunks], adata.obs_names)


def _symmetric(matrix: sp.spmatrix) -> sp.csr_matrix:
    """An edge counts for both its ends: kNN in space is one-sided, and the trunk's operator is to be symmetric."""
    matrix = sp.csr_matrix(matrix)
    return matrix.maximum(matrix.T).tocsr()


def share_weights(tables: list[NeighborTable]) -> list[NeighborTable]:
    r"""Scale normalised relations so that all of them together are still a contraction.

    An edge is multiplied by :math:`1/\sqrt{m_i n_j}`, with :math:`m_i` the relations that reach its destination and
    :math:`n_j` those that its source sends into. If each relation has spectral norm at most 1, so has the joint
    operator, and it stays symmetric where they are. A node that one relation does not reach listens to the others
    alone.
    """
    into: dict[str, torch.Tensor] = {}
    out: dict[str, torch.Tensor] = {}
    for table in tables:
        reached = table.mask.any(1)
        sends = torch.bincount(table.index[table.mask], minlength=table.num_sources) > 0
        into[table.target] = into.get(table.target, 0) + reached.long()
        out[table.source] = out.get(table.source, 0) + sends.long()
    return [
        replace(
            table,
            weight=table.weight
            / (into[table.target].unsqueeze(1) * out[table.source][table.index]).clamp(min=1).float().sqrt(),
        )
        for table in tables
    ]


def join_tables(tables: list[NeighborTable]) -> Neighborhood:
    """Relations into the same nodes, side by side."""
    parts = []
    for table in tables:
        length = torch.zeros_like(table.weight)
        if table.edge_attr is not None and table.mask.any():
            length = table.edge_attr[..., 0] / table.edge_attr[..., 0][table.mask].mean().clamp(min=1e-12)
        positive = RELATIONS.index(table.relation)
        negative = RELATIONS.index(NEGATIVE.get(table.relation, table.relation))
        kind = torch.where(table.weight < 0, negative, positive)
        parts.append((table.index, table.weight.abs(), kind, length))
    return Neighborhood(*(torch.cat(columns, dim=1) for columns in zip(*parts, strict=True)))


def _loadings(adata: AnnData, *, layer: str | None, kind: str) -> np.ndarray:
    """Principal axes, those that are there if they can be of these data."""
    loadings = np.asarray(adata.varm[_keys.PCS], dtype=np.float32) if _keys.PCS in adata.varm else None
    if loadings is None or _keys.X_PCA not in adata.obsm or not _orthonormal(loadings):
        from graphfm.pp.knn import principal_axes

        loadings = principal_axes(adata, layer=layer, kind=kind)
    return loadings


def _orthonormal(loadings: np.ndarray) -> bool:
    """False for axes that lost some of their genes: they are none of the data that are left."""
    product = loadings.T.astype(np.float64) @ loadings
    return len(product) > 0 and bool(np.abs(product - np.eye(len(product))).max() < 1e-2)
