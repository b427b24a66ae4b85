"""Cells and genes together: from a heterogeneous graph to the one table that the trunk reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import scipy.sparse as sp
import torch

from graphfm.data.graph import NeighborTable, symmetric_normalize, table_from_csr
from graphfm.data.prepare import MAX_DEGREE, join_tables, share_weights
from graphfm.nn.neighborhood import Neighborhood

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData


def hetero_neighborhood(data: HeteroData, *, max_degree: int = MAX_DEGREE) -> tuple[Neighborhood, dict[str, slice]]:
    """All relations of a heterogeneous graph as one neighbourhood, node types one after the other.

    Parameters
    ----------
    data
        As `graphfm.pp.hetero_graph` makes it.
    max_degree
        Strongest neighbours that a node keeps in each relation: a housekeeping gene is expressed in every cell.

    Returns
    -------
    neighborhood, rows
        The graph, and which of its rows are ``"cell"`` and ``"gene"``; stem outputs go in the same order.

    Examples
    --------
    >>> import graphfm, torch
    >>> from graphfm.data.prepare import cell_graph
    >>> adata = graphfm.datasets.toy(num_cells=200, num_genes=100)
    >>> graphfm.pp.knn_graph(adata)
    >>> graphfm.pp.regulatory_graph(adata)
    >>> graph, rows = hetero_neighborhood(graphfm.pp.hetero_graph(adata))
    >>> cells, model = cell_graph(adata, all_genes=True), graphfm.tl.new_model("tiny")
    >>> states = model(torch.cat([model.stem_cells(cells), model.stem_genes(cells)]), graph)
    >>> states[rows["gene"]].shape
    torch.Size([100, 64])
    """
    rows, end = {}, 0
    for node_type in data.node_types:
        rows[node_type] = slice(end, end + data[node_type].num_nodes)
        end = rows[node_type].stop
    normalized = [symmetric_normalize(_table(data, kind, max_degree)) for kind in data.edge_types]
    shared = dict(zip(data.edge_types, share_weights(normalized), strict=True))
    parts = []
    for node_type in data.node_types:
        kinds = [kind for kind in data.edge_types if kind[2] == node_type]
        tables = [shared[kind] for kind in kinds]
        if not tables:
            parts.append(_empty(data[node_type].num_nodes))
            continue
        joint = join_tables(tables)
        for kind, columns in zip(kinds, joint.index.split([t.index.shape[1] for t in tables], dim=1), strict=True):
            columns += rows[kind[0]].start
        parts.append(joint)
    width = max(part.index.shape[1] for part in parts)
    pad = torch.nn.functional.pad
    columns = (
        torch.cat([pad(getattr(part, name), (0, width - part.index.shape[1])) for part in parts])
        for name in ("index", "weight", "relation", "distance")
    )
    return Neighborhood(*columns), rows


def _table(data: HeteroData, kind: tuple[str, str, str], max_degree: int) -> NeighborTable:
    source, relation, target = kind
    edges = data[kind]
    shape = (data[target].num_nodes, data[source].num_nodes)
    place = (edges.edge_index[1].numpy(), edges.edge_index[0].numpy())
    weight = sp.csr_matrix((edges.edge_weight.numpy(), place), shape=shape)
    distances = None
    if "edge_attr" in edges:
        distances = sp.csr_matrix((edges.edge_attr[:, 0].numpy(), place), shape=shape)
    return table_from_csr(
        weight, distances=distances, max_degree=max_degree, source=source, relation=relation, target=target
    )


def _empty(num_nodes: int) -> Neighborhood:
    none = torch.zeros(num_nodes, 1)
    return Neighborhood(none.long(), none, none.long(), none)
