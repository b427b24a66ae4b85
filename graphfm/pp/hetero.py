"""Cells and genes in one graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch
from anndata import AnnData

from graphfm import _keys, io
from graphfm._checks import check_unique_genes
from graphfm.data.convert import to_hetero
from graphfm.data.graph import NeighborTable, table_from_csr
from graphfm.io.matrix import Kind

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

CHUNK = 16384
"""Cells whose genes are sorted at a time."""
RELATIONS = ("knn", "spatial", "expressed_in", "expresses", "regulates", "coexpressed")


def hetero_graph(
    adata: AnnData,
    *,
    relations: Sequence[str] | None = None,
    peaks: AnnData | None = None,
    top_genes: int = 32,
    layer: str | None = None,
    kind: Kind = "counts",
    spatial_key: str = _keys.SPATIAL,
    regulatory_key: str = _keys.REGULATORY,
) -> HeteroData:
    """Cells, genes and open chromatin as one heterogeneous graph for torch_geometric.

    =============== ============================= ====================================================================
    relation        edge type (source to target)  weight, features
    =============== ============================= ====================================================================
    ``knn``         cell, knn, cell               ``obsp["connectivities"]``; distance
    ``spatial``     cell, spatial, cell           ``obsp["spatial_connectivities"]``; distance
    ``expressed_in`` gene, expressed_in, cell     log-normalised expression of the ``top_genes`` of each cell
    ``expresses``   cell, expresses, gene         its reverse
    ``regulates``   gene, regulates, gene         ``varp["regulatory_prior"]``, signed
    ``coexpressed`` gene, coexpressed, gene       ``varp["regulatory_coexpression"]``, signed
    =============== ============================= ====================================================================

    With `peaks` also ``peak, expressed_in, cell`` and ``cell, expresses, peak``, made as those of genes, and, where
    ``peaks.var["gene"]`` names a gene, ``peak, regulates, gene``: messages go between peaks, cells and genes.

    Parameters
    ----------
    adata
        With the graphs that :func:`knn_graph`, :func:`spatial_graph` and :func:`regulatory_graph` write (or a
        SpatialData or MuData with one table).
    relations
        Names from the table; default: all that are there.
    peaks
        Counts of open chromatin in the same cells, in the same order: cells x peaks. They follow `relations`:
        ``expressed_in``, ``expresses``, ``regulates``.
    top_genes
        Genes, and peaks, a cell is connected to: those it expresses with the largest tf-idf, that is log-normalised
        expression times ``log(1 + n_obs / cells that express the gene)``.
    layer, kind
        Where the expression is, and what it is: see :func:`graphfm.io.expression`.
    spatial_key
        Coordinates in ``obsm``; copied to ``data["cell"].pos`` where they exist.
    regulatory_key
        ``key_added`` of :func:`regulatory_graph`.

    Returns
    -------
    HeteroData
        Node types ``cell`` (``n_obs``), ``gene`` (``n_vars``) and, with `peaks`, ``peak``, in their order; per
        relation ``edge_index``, ``edge_weight`` and, for cell-cell relations, ``edge_attr``. See
        ``graphfm.data.from_hetero``.

    Raises
    ------
    KeyError
        If a relation that was asked for has not been computed.
    ValueError
        If a relation is unknown, none is asked for, or `peaks` are of other cells.
    """
    adata = io.as_anndata(adata)
    if top_genes < 1:
        raise ValueError(f"top_genes={top_genes} must be at least 1.")
    asked = RELATIONS if relations is None else tuple(relations)
    unknown = [name for name in asked if name not in RELATIONS]
    if unknown or not asked:
        raise ValueError(f"relations={list(asked)}: choose some of {', '.join(map(repr, RELATIONS))}.")
    stored = (
        _stored(adata, name, regulatory_key, needed=relations is not None)
        for name in asked
        if name not in ("expressed_in", "expresses")
    )
    tables = [table for table in stored if table is not None]
    data = to_hetero(tables, num_nodes={"cell": adata.n_obs, "gene": adata.n_vars})
    if {"expressed_in", "expresses"} & set(asked):
        top = _top_genes(io.expression(adata, layer=layer, kind=kind), top_genes)
        # set as edges, not by a table: a housekeeping gene has as many neighbours as there are cells
        _add_expression(data, top, asked, "gene")
    if peaks is not None:
        _add_peaks(data, adata, peaks, asked, top_genes)
    if spatial_key in adata.obsm:
        data["cell"].pos = torch.from_numpy(np.array(adata.obsm[spatial_key], dtype=np.float32))
    return data


def _place(relation: str, regulatory_key: str) -> tuple[str, str, str | None, str]:
    """Where a relation is stored: attribute, key, key of its distances, and the call that writes it."""
    spatial = (_keys.SPATIAL_CONNECTIVITIES, _keys.SPATIAL_DISTANCES)
    return {
        "knn": ("obsp", _keys.CONNECTIVITIES, _keys.DISTANCES, "graphfm.pp.knn_graph(adata)"),
        "spatial": ("obsp", *spatial, "graphfm.pp.spatial_graph(adata)"),
        "regulates": ("varp", f"{regulatory_key}_prior", None, "graphfm.pp.regulatory_graph(adata, prior=...)"),
        "coexpressed": ("varp", f"{regulatory_key}_coexpression", None, "graphfm.pp.regulatory_graph(adata)"),
    }[relation]


def _stored(adata: AnnData, relation: str, regulatory_key: str, *, needed: bool) -> NeighborTable | None:
    """Table of a relation that another function has written; None if it is absent and not needed."""
    attribute, key, distances, remedy = _place(relation, regulatory_key)
    mapping = getattr(adata, attribute)
    if key not in mapping:
        if not needed:
            return None
        found = ", ".join(map(repr, mapping)) or "none"
        raise KeyError(
            f"adata.{attribute} has no {key!r}. Run {remedy} first, or leave {relation!r} out of relations= "
            f"(found: {found})."
        )
    if attribute == "varp":
        # rows of varp are regulators, rows of a table are destinations
        return table_from_csr(sp.csr_matrix(mapping[key]).T, source="gene", relation=relation, target="gene")
    return table_from_csr(mapping[key], distances=mapping.get(distances), relation=relation)


def _top_genes(expression: sp.csr_matrix, count: int) -> sp.csr_matrix:
    """The entries of each row with the largest tf-idf, ties by the lower column."""
    cells_with = np.bincount(expression.indices, minlength=expression.shape[1])
    rarity = np.log1p(expression.shape[0] / np.maximum(cells_with, 1))
    parts = [expression[start : start + CHUNK] for start in range(0, expression.shape[0], CHUNK)]
    return sp.vstack([_top_of_rows(part, rarity, count) for part in parts], format="csr")


def _top_of_rows(expression: sp.csr_matrix, rarity: np.ndarray, count: int) -> sp.csr_matrix:
    score = expression.data * rarity[expression.indices]
    rows = np.repeat(np.arange(expression.shape[0]), np.diff(expression.indptr))
    order = np.lexsort((expression.indices, -score, rows))
    kept = order[np.arange(len(order)) - expression.indptr[rows] < count]
    place = (rows[kept], expression.indices[kept])
    return sp.csr_matrix((expression.data[kept], place), shape=expression.shape)


def _add_peaks(data: HeteroData, adata: AnnData, peaks: AnnData, asked: Sequence[str], top_peaks: int) -> None:
    """Peaks, with the cells that they are open in and the genes that they are named for."""
    if not peaks.obs_names.equals(adata.obs_names):
        raise ValueError("peaks.obs_names are not adata.obs_names. Pass the same cells in the same order.")
    data["peak"].num_nodes = peaks.n_vars
    _add_expression(data, _top_genes(io.expression(peaks), top_peaks), asked, "peak")
    if "regulates" in asked and "gene" in peaks.var:
        check_unique_genes(adata)
        genes = adata.var_names.get_indexer(peaks.var["gene"].astype(str))
        near = np.flatnonzero(genes >= 0)
        data["peak", "regulates", "gene"].edge_index = torch.from_numpy(np.stack([near, genes[near]]).astype(np.int64))
        data["peak", "regulates", "gene"].edge_weight = torch.ones(len(near))


def _add_expression(data: HeteroData, top: sp.csr_matrix, asked: Sequence[str], feature: str) -> None:
    for name, matrix in (("expressed_in", top), ("expresses", top.T.tocsr())):
        if name not in asked:
            continue
        matrix.sort_indices()
        rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        edge_type = (feature, name, "cell") if name == "expressed_in" else ("cell", name, feature)
        data[edge_type].edge_index = torch.from_numpy(
            np.stack([matrix.indices.astype(np.int64), rows.astype(np.int64)])
        )
        data[edge_type].edge_weight = torch.from_numpy(matrix.data.astype(np.float32))
