"""Neighbour tables to and from torch_geometric and networkx, without loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from graphfm.data.graph import NeighborTable, table_from_edges

if TYPE_CHECKING:
    import networkx as nx
    from torch_geometric.data import HeteroData


def to_hetero(tables: Iterable[NeighborTable], *, num_nodes: Mapping[str, int] | None = None) -> HeteroData:
    """Several relations as one heterogeneous graph of torch_geometric.

    Parameters
    ----------
    tables
        Relations, each ``(source, relation, target)`` once.
    num_nodes
        Number of nodes of each type; taken from the tables where absent.

    Returns
    -------
    HeteroData
        Per relation ``edge_index`` ``[2, E]`` (source, destination), ``edge_weight`` ``[E]`` and, where the table has
        features, ``edge_attr`` ``[E, f]``.

    Raises
    ------
    ValueError
        If a relation comes twice or the tables disagree on the number of nodes.
    """
    from torch_geometric.data import HeteroData

    tables = list(tables)
    data = HeteroData()
    for node_type, size in node_counts(tables, num_nodes).items():
        data[node_type].num_nodes = size
    for table in tables:
        store = data[table.edge_type]
        store.edge_index = table.edge_index()
        store.edge_weight = table.weight[table.mask]
        if table.edge_attr is not None:
            store.edge_attr = table.edge_attr[table.mask]
    return data


def from_hetero(data: HeteroData) -> list[NeighborTable]:
    """Neighbour tables of a heterogeneous graph, in the order of its edge types; inverse of :func:`to_hetero`.

    Edges without ``edge_weight`` weigh 1; a weight of 0 is no edge.

    Raises
    ------
    ValueError
        If the number of nodes of a type is unknown, or an edge comes twice.
    """
    tables = []
    for edge_type in data.edge_types:
        store, (source, _, target) = data[edge_type], edge_type
        sizes = []
        for node_type in (target, source):
            size = data[node_type].num_nodes if node_type in data.node_types else None
            if size is None:
                raise ValueError(f"data[{node_type!r}].num_nodes is unknown. Set it: isolated nodes need it.")
            sizes.append(int(size))
        columns, rows = store.edge_index.numpy(force=True)
        weight = store.edge_weight if "edge_weight" in store else torch.ones(len(rows))
        attributes = None
        if "edge_attr" in store:
            attributes = store.edge_attr.numpy(force=True).reshape(len(rows), *store.edge_attr.shape[1:])
            attributes = attributes[:, None] if attributes.ndim == 1 else attributes
        shape = (sizes[0], sizes[1])
        weights = weight.numpy(force=True)
        tables.append(table_from_edges(rows, columns, weights, attributes, shape=shape, edge_type=edge_type))
    return tables


def to_networkx(graph: NeighborTable | Iterable[NeighborTable] | HeteroData) -> nx.DiGraph:
    """One or more relations as a directed networkx graph; edges point from source to destination.

    Nodes are ``(type, index)`` with attributes ``type`` and ``index``. Edges have ``relation``, ``weight``, ``sign``
    (+1 or -1) and, where the table has features, ``edge_attr`` (a tuple). Several relations give a ``MultiDiGraph``
    (which is a ``DiGraph``) keyed by the name of the relation.
    """
    import networkx as nx

    if isinstance(graph, NeighborTable):
        tables = [graph]
    elif hasattr(graph, "edge_types"):
        tables = from_hetero(graph)
    else:
        tables = list(graph)
    sizes = node_counts(tables, None)
    if hasattr(graph, "node_types"):
        sizes = {node_type: int(graph[node_type].num_nodes) for node_type in graph.node_types}
    result = nx.DiGraph() if len(tables) == 1 else nx.MultiDiGraph()
    # what edges alone cannot tell: relations without edges, and whether features are there
    result.graph["relations"] = [
        (*table.edge_type, None if table.edge_attr is None else table.edge_attr.shape[-1]) for table in tables
    ]
    for node_type, size in sizes.items():
        result.add_nodes_from(((node_type, i), {"type": node_type, "index": i}) for i in range(size))
    for table in tables:
        result.add_edges_from(_networkx_edges(table, keyed=len(tables) != 1))
    return result


def from_networkx(graph: nx.DiGraph) -> list[NeighborTable]:
    """Neighbour tables of a graph as :func:`to_networkx` makes it (or one built by hand with the same attributes).

    Raises
    ------
    ValueError
        If nodes of a type are not numbered 0, 1, 2, ..., or an edge comes twice in a relation.
    KeyError
        If nodes lack ``type`` or ``index``, or edges lack ``relation``.
    """
    sizes: dict[str, int] = {}
    first: dict[tuple[str, int], object] = {}
    for node, attributes in graph.nodes(data=True):
        if "type" not in attributes or "index" not in attributes:
            raise KeyError(f"Node {node!r} lacks the attribute 'type' or 'index'.")
        place = (attributes["type"], attributes["index"])
        if first.setdefault(place, node) != node:
            raise ValueError(f"Nodes {first[place]!r} and {node!r} are both number {place[1]} of type {place[0]!r}.")
        sizes[attributes["type"]] = sizes.get(attributes["type"], 0) + 1
    for node, attributes in graph.nodes(data=True):
        if not 0 <= attributes["index"] < sizes[attributes["type"]]:
            raise ValueError(f"Node {node!r}: nodes of type {attributes['type']!r} must be numbered from 0 on.")
    found = {tuple(triple): ([], features) for *triple, features in graph.graph.get("relations", [])}
    for u, v, attributes in graph.edges(data=True):
        if "relation" not in attributes:
            raise KeyError(f"Edge {u!r} -> {v!r} lacks the attribute 'relation'.")
        edge_type = (graph.nodes[u]["type"], attributes["relation"], graph.nodes[v]["type"])
        features = len(attributes["edge_attr"]) if "edge_attr" in attributes else None
        edges, _ = found.setdefault(edge_type, ([], features))
        values = (attributes.get("weight", 1.0), attributes.get("edge_attr", ()))
        edges.append((graph.nodes[v]["index"], graph.nodes[u]["index"], *values))
    return [_table_of_edges(edges, features, sizes, edge_type) for edge_type, (edges, features) in found.items()]


def node_counts(tables: Iterable[NeighborTable], num_nodes: Mapping[str, int] | None) -> dict[str, int]:
    """Number of nodes of each type, in order of appearance; ValueError where tables disagree."""
    sizes = dict(num_nodes or {})
    seen = set()
    for table in tables:
        if table.edge_type in seen:
            raise ValueError(f"Relation {table.edge_type} comes twice.")
        seen.add(table.edge_type)
        for node_type, size in ((table.source, table.num_sources), (table.target, table.num_targets)):
            if sizes.setdefault(node_type, size) != size:
                raise ValueError(
                    f"Relation {table.edge_type} has {size} nodes of type {node_type!r}, not {sizes[node_type]}."
                )
    return sizes


def _networkx_edges(table: NeighborTable, *, keyed: bool) -> Iterable[tuple]:
    sources, targets = table.edge_index().tolist()
    weights = table.weight[table.mask].tolist()
    features = [None] * len(weights) if table.edge_attr is None else table.edge_attr[table.mask].tolist()
    for s, t, weight, feature in zip(sources, targets, weights, features, strict=True):
        attributes = {"relation": table.relation, "weight": weight, "sign": 1 if weight > 0 else -1}
        if feature is not None:
            attributes["edge_attr"] = tuple(feature)
        ends = ((table.source, s), (table.target, t))
        yield (*ends, table.relation, attributes) if keyed else (*ends, attributes)


def _table_of_edges(
    edges: list[tuple], features: int | None, sizes: Mapping[str, int], edge_type: tuple[str, str, str]
) -> NeighborTable:
    rows, columns = (np.array([edge[i] for edge in edges], dtype=np.int64) for i in (0, 1))
    weight = np.array([edge[2] for edge in edges], dtype=np.float32)
    attributes = None
    if features is not None:
        attributes = np.array([edge[3] for edge in edges], dtype=np.float32).reshape(len(edges), features)
    shape = (sizes.get(edge_type[2], 0), sizes.get(edge_type[0], 0))
    return table_from_edges(rows, columns, weight, attributes, shape=shape, edge_type=edge_type)
