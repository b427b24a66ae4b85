"""Neighbour tables: canonical form, exact round trips, equivariance."""

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfm.data import (
    NeighborTable,
    attributes_to_csr,
    from_hetero,
    from_networkx,
    symmetric_normalize,
    table_from_csr,
    table_to_csr,
    to_hetero,
    to_networkx,
)

few = settings(max_examples=60, deadline=None)


def random_csr(seed: int, rows: int, columns: int, density: float, *, signed: bool = True) -> sp.csr_matrix:
    rng = np.random.default_rng(seed)
    mask = rng.random((rows, columns)) < density
    values = rng.uniform(0.1, 2, size=mask.shape) * np.where(rng.random(mask.shape) < 0.5, -1, 1) ** signed
    return sp.csr_matrix((values * mask).astype(np.float32))


def symmetric_csr(seed: int, n: int, density: float, *, distinct: bool = True) -> sp.csr_matrix:
    rng = np.random.default_rng(seed)
    dense = np.triu(rng.random((n, n)) < density, 1) * (rng.uniform(0.1, 1, (n, n)) if distinct else 1.0)
    return sp.csr_matrix((dense + dense.T).astype(np.float32))


@st.composite
def tables(draw, *, source: str = "cell", target: str = "cell", relation: str = "knn", sizes=None) -> NeighborTable:
    n = draw(st.integers(0, 9)) if sizes is None else sizes[0]
    m = (n if source == target else draw(st.integers(0, 9))) if sizes is None else sizes[1]
    density = draw(st.sampled_from([0.0, 0.1, 0.4, 1.0]))
    matrix = random_csr(draw(st.integers(0, 10**6)), n, m, density)
    features = draw(st.integers(0, 2))
    layers = []
    for _ in range(features):
        layer = matrix.copy()
        # a feature may be 0 on an edge
        layer.data = np.random.default_rng(len(matrix.data)).integers(0, 3, len(matrix.data)).astype(np.float32)
        layers.append(layer)
    names = {"source": source, "relation": relation, "target": target}
    return table_from_csr(matrix, distances=layers or None, **names)


def assert_same(a: NeighborTable, b: NeighborTable) -> None:
    assert a.edge_type == b.edge_type and a.num_sources == b.num_sources
    for name in ("index", "mask", "weight"):
        x, y = getattr(a, name), getattr(b, name)
        assert x.dtype == y.dtype and torch.equal(x, y), name
    assert (a.edge_attr is None) == (b.edge_attr is None)
    if a.edge_attr is not None:
        assert torch.equal(a.edge_attr, b.edge_attr)


def assert_canonical(table: NeighborTable) -> None:
    degree = table.mask.sum(1)
    assert table.index.shape[1] == max(1, int(degree.max()) if len(degree) else 0)
    assert torch.equal(table.mask, torch.arange(table.index.shape[1]) < degree[:, None])
    assert (table.index[~table.mask] == 0).all() and (table.weight[~table.mask] == 0).all()
    pair = table.mask[:, 1:]
    assert (table.index[:, 1:][pair] > table.index[:, :-1][pair]).all()


@given(tables(source="gene"))
@few
def test_csr_round_trip(table):
    assert_canonical(table)
    layers = attributes_to_csr(table) or None
    names = {"source": table.source, "relation": table.relation, "target": table.target}
    assert_same(table, table_from_csr(table_to_csr(table), distances=layers, **names))


@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0.0, 0.3, 1.0]))
@few
def test_table_holds_the_matrix(seed, n, m, density):
    matrix = random_csr(seed, n, m, density)
    table = table_from_csr(matrix, source="gene")
    assert (table_to_csr(table) != matrix).nnz == 0
    dense = matrix.toarray()
    edges = {(int(t), int(s)) for s, t in table.edge_index().T}
    assert edges == set(zip(*(x.tolist() for x in np.nonzero(dense)), strict=True))


@given(st.data())
@few
def test_hetero_round_trip(data):
    cells, genes = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 8))
    several = [
        data.draw(tables(sizes=(cells, cells))),
        data.draw(tables(relation="spatial", sizes=(cells, cells))),
        data.draw(tables(source="gene", relation="expressed_in", sizes=(cells, genes))),
        data.draw(tables(source="gene", relation="regulates", target="gene", sizes=(genes, genes))),
    ]
    for table, back in zip(several, from_hetero(to_hetero(several)), strict=True):
        assert_same(table, back)
    graph = to_networkx(several)
    assert isinstance(graph, nx.MultiDiGraph) and graph.number_of_nodes() == cells + genes
    for table, back in zip(several, from_networkx(graph), strict=True):
        assert_same(table, back)
    for table, back in zip(several, from_networkx(to_networkx(to_hetero(several))), strict=True):
        assert_same(table, back)


@given(tables())
@few
def test_networkx_round_trip_of_one_relation(table):
    graph = to_networkx(table)
    assert isinstance(graph, nx.DiGraph) and not graph.is_multigraph()
    assert graph.number_of_nodes() == table.num_targets
    assert_same(table, from_networkx(graph)[0])


def test_networkx_attributes_and_direction():
    matrix = sp.csr_matrix(np.array([[0, 0, -2.0], [0, 0, 0]], dtype=np.float32))
    graph = to_networkx(table_from_csr(matrix, distances=abs(matrix), source="tf", relation="regulates", target="gene"))
    assert list(graph.edges) == [(("tf", 2), ("gene", 0))]
    assert graph.edges[("tf", 2), ("gene", 0)] == {
        "relation": "regulates",
        "weight": -2.0,
        "sign": -1,
        "edge_attr": (2.0,),
    }
    assert graph.nodes["gene", 1] == {"type": "gene", "index": 1}


def test_networkx_built_by_hand():
    graph = nx.DiGraph()
    graph.add_nodes_from([("a", {"type": "gene", "index": 0}), ("b", {"type": "gene", "index": 1})])
    graph.add_edge("a", "b", relation="regulates")
    (table,) = from_networkx(graph)
    assert table_to_csr(table).toarray().tolist() == [[0, 0], [1, 0]]
    graph.nodes["b"]["index"] = 0
    with pytest.raises(ValueError, match="'a' and 'b' are both number 0 of type 'gene'"):
        from_networkx(graph)
    graph.nodes["b"]["index"] = 5
    with pytest.raises(ValueError, match="numbered"):
        from_networkx(graph)
    del graph.nodes["b"]["index"]
    with pytest.raises(KeyError, match="index"):
        from_networkx(graph)


def test_hetero_of_the_user():
    from torch_geometric.data import HeteroData

    data = HeteroData()
    data["cell"].num_nodes = 4
    data["cell", "knn", "cell"].edge_index = torch.tensor([[3, 1], [0, 0]])
    data["cell", "knn", "cell"].edge_attr = torch.tensor([0.5, 0.25])
    (table,) = from_hetero(data)
    assert table.index.tolist()[0] == [1, 3] and table.edge_attr[0, :, 0].tolist() == [0.25, 0.5]
    data["cell", "knn", "cell"].edge_index = torch.tensor([[1, 1], [0, 0]])
    with pytest.raises(ValueError, match="twice"):
        from_hetero(data)
    with pytest.raises(ValueError, match="comes twice"):
        to_hetero([table, table])
    with pytest.raises(ValueError, match="has 4 nodes"):
        to_hetero([table], num_nodes={"cell": 5})


@given(st.integers(0, 10**6), st.integers(2, 14), st.integers(1, 4))
@few
def test_mutual_max_degree(seed, n, limit):
    matrix = symmetric_csr(seed, n, 0.6)
    table = table_from_csr(matrix, max_degree=limit)
    result, dense = table_to_csr(table).toarray(), matrix.toarray()
    assert np.array_equal(result, result.T) and int(table.mask.sum(1).max()) <= limit
    assert_canonical(table)
    # slow reference
    best = [set(np.argsort(-row, kind="stable")[:limit]) for row in dense]
    for i in range(n):
        for j in range(n):
            expected = dense[i, j] if j in best[i] and i in best[j] else 0
            assert result[i, j] == expected


def test_directed_max_degree_and_ties():
    matrix = sp.csr_matrix(np.array([[0, 1, -3, 1], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=np.float32))
    table = table_from_csr(matrix, max_degree=2, source="gene")
    assert table_to_csr(table).toarray().tolist() == [[0, 1, -3, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    # equal weights: the nearer ones first
    lengths = sp.csr_matrix(np.array([[0, 9, 1, 2], [4, 3, 2, 1], [0, 0, 0, 0]], dtype=np.float32))
    table = table_from_csr(matrix, distances=lengths, max_degree=2, source="gene")
    assert table_to_csr(table).toarray().tolist() == [[0, 0, -3, 1], [0, 0, 1, 1], [0, 0, 0, 0]]
    assert table.edge_attr[1, :, 0].tolist() == [2, 1]
    square = sp.csr_matrix(np.array([[0, 2, 1], [0, 0, 1], [3, 0, 0]], dtype=np.float32))
    assert table_from_csr(square, max_degree=1).mask.sum() == 3
    assert table_from_csr(square, max_degree=1, mutual=True).mask.sum() == 0


@given(st.integers(0, 10**6), st.integers(2, 12), st.sampled_from([None, 1, 3]))
@few
def test_permutation_equivariance(seed, n, limit):
    matrix = symmetric_csr(seed, n, 0.5)
    order = np.random.default_rng(seed).permutation(n)
    table = symmetric_normalize(table_from_csr(matrix, max_degree=limit))
    moved = symmetric_normalize(table_from_csr(matrix[order][:, order], max_degree=limit))
    assert np.allclose(table_to_csr(moved).toarray(), table_to_csr(table).toarray()[order][:, order], atol=1e-7)


@given(st.integers(0, 10**6), st.integers(1, 10), st.sampled_from([0.0, 0.2, 0.8]))
@few
def test_symmetric_normalize(seed, n, density):
    dense = symmetric_csr(seed, n, density).toarray() * np.float32(-1)
    degree = np.abs(dense).sum(1)
    scale = np.divide(1, np.sqrt(degree), out=np.zeros(n), where=degree > 0)
    table = symmetric_normalize(table_from_csr(sp.csr_matrix(dense)))
    assert np.allclose(table_to_csr(table).toarray(), scale[:, None] * dense * scale, atol=1e-6)
    directed = symmetric_normalize(table_from_csr(random_csr(seed, n, n + 2, density), source="gene"))
    assert np.isfinite(directed.weight).all()
    assert np.linalg.norm(np.abs(table_to_csr(directed).toarray()), 2) <= 1 + 1e-5


def test_explicit_zeros_duplicates_and_errors():
    doubled = sp.coo_matrix(([1.0, 2.0, 0.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    assert table_to_csr(table_from_csr(doubled)).toarray().tolist() == [[0, 3], [0, 0]]
    assert doubled.nnz == 3
    with pytest.raises(ValueError, match="NaN"):
        table_from_csr(sp.csr_matrix(np.array([[np.nan]])))
    with pytest.raises(ValueError, match="max_degree=0"):
        table_from_csr(doubled, max_degree=0)
    with pytest.raises(ValueError, match="shape"):
        table_from_csr(doubled, distances=sp.csr_matrix((3, 3)))
    with pytest.raises(ValueError, match="square"):
        table_from_csr(sp.csr_matrix((2, 3)), max_degree=1, mutual=True)
    with pytest.raises(ValueError, match="share one shape"):
        NeighborTable(torch.zeros(2, 1, dtype=torch.long), torch.zeros(2, 2).bool(), torch.zeros(2, 1), None, 2)


def test_missing_distance_is_zero():
    adjacency = sp.csr_matrix(np.array([[0, 1.0], [1.0, 0]]))
    table = table_from_csr(adjacency, distances=sp.csr_matrix(np.array([[0, 0], [7.0, 0]])))
    assert table.edge_attr.flatten().tolist() == [0, 7]


def test_nothing_square_is_dense():
    n = 200_000
    chain = sp.diags([np.ones(n - 1), np.ones(n - 1)], [1, -1], format="csr")
    table = symmetric_normalize(table_from_csr(chain, max_degree=1))
    assert table.index.shape == (n, 1)
