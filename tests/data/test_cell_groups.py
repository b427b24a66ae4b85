"""Groups of cells against dense and slow versions."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from graphfm.data import cell_groups as module


@pytest.fixture(scope="module")
def points():
    """Three clouds of 100, and an island of 12."""
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0, 0], [12, 0, 0], [0, 12, 0], [0, 0, 20.0]])
    labels = np.repeat([0, 1, 2, 3], [100, 100, 100, 12])
    return centres[labels] + rng.normal(size=(312, 3)), labels


def neighbors(points, k=10):
    return NearestNeighbors(n_neighbors=k).fit(points).kneighbors(return_distance=False)


def test_shared_neighbors_are_jaccard_indices(points):
    indices = neighbors(points[0])
    graph = module.shared_neighbor_graph(indices).toarray()
    sets = [set(row) | {c} for c, row in enumerate(indices)]
    for a in range(0, 312, 7):
        for b in range(312):
            linked = a != b and (b in sets[a] or a in sets[b])
            assert graph[a, b] == pytest.approx(len(sets[a] & sets[b]) / len(sets[a] | sets[b]) if linked else 0)


def test_an_island_is_a_closed_group(points):
    groups = list(module.small_groups(neighbors(points[0]), min_cells=5, max_cells=20, seed=0))
    closure, rows = max(groups, key=lambda group: (group[0], len(group[1])))
    assert closure == pytest.approx(1.0) and set(points[1][rows]) == {3}
    assert all(5 <= len(rows) <= 20 for _, rows in groups)


def test_types_are_abundant_and_whole(points):
    graph = module.balanced_graph(points[0], np.zeros(312, dtype=int), 15, 0)
    types = module.abundant_types(graph, 40.0, 0)
    assert np.bincount(types).min() >= 40
    for label in range(4):
        assert len(np.unique(types[points[1] == label])) <= 2
    assert set(module.abundant_types(graph, 500.0, 0)) == {0}


def test_neighbors_come_from_every_batch():
    """As many as from one's own, however far a batch has shifted its cells."""
    rng = np.random.default_rng(0)
    labels, batches = np.repeat([0, 1], 100), np.tile([0, 1], 100)
    points = rng.normal(size=(200, 5)) * 0.3
    points[:, 0] += 8 * labels
    points[:, 1] += 1.2 * batches
    graph = module.balanced_graph(points, batches, 10, 0)
    assert (graph != graph.T).nnz == 0 and graph.diagonal().sum() == 0
    across = np.asarray(graph[batches == 0][:, batches == 1].sum(axis=1)).ravel()
    assert across.min() >= 5 and 0.3 < across.sum() / graph[batches == 0].sum() < 0.7
    plain = module.balanced_graph(points, 0 * batches, 10, 0)
    assert plain[batches == 0][:, batches == 1].sum() < 0.1 * plain[batches == 0].sum()
    # the only cell of a batch asks four of each other one, and is not linked to all
    alone = np.append(batches[:-1], 2)
    assert module.balanced_graph(points, alone, 10, 0)[[199]].nnz == 8
    # all ask as many of each batch: one with as many edges as can be has them all from itself and from the other
    far = np.where(np.arange(200) % 2 == 0, 0.0, 1e6)[:, np.newaxis] * np.eye(1, 5) + rng.normal(size=(200, 5))
    edges = module.balanced_graph(far, batches, 10, 0)
    own = edges[batches == 0][:, batches == 0]
    assert 500 <= own.nnz <= 1000 and edges[batches == 0][:, batches == 1].nnz <= 1000


def test_residuals_equal_a_dense_standardisation():
    rng = np.random.default_rng(0)
    x = sp.random_array((90, 30), density=0.4, rng=rng, format="csr")
    groups = rng.integers(0, 3, 90)
    found = module.residual_components(x, groups, num_components=29)
    dense, z = x.toarray(), np.zeros((90, 30))
    pooled = sum(((dense[groups == k] - dense[groups == k].mean(0)) ** 2).sum(0) for k in range(3)) / 90
    for k in range(3):
        of = groups == k
        spread = np.sqrt((of.sum() * dense[of].var(0) + 20 * pooled) / (of.sum() + 20))
        z[of] = (dense[of] - dense[of].mean(0)) / spread
    u, s, _ = np.linalg.svd(z, full_matrices=False)
    expected = u[:, :29] * s[:29]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-6)
    assert np.isfinite(module.residual_components(x, groups * 2)).all()  # a number without a cell


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_dealing_keeps_genes_groups_and_depth(seed):
    rng = np.random.default_rng(seed)
    groups, depth = rng.integers(0, 3, 350), rng.gamma(5, size=350)
    x = sp.csr_matrix(rng.poisson(np.outer(depth, rng.gamma(0.5, size=20)) * 0.2).astype(np.float32))
    dealt = module.deal_within(x, groups, depth, seed=seed)
    assert dealt.nnz == x.nnz and dealt.has_canonical_format
    for k in range(3):
        of = groups == k
        for gene in range(20):
            before, after = x[of][:, [gene]].data, dealt[of][:, [gene]].data
            np.testing.assert_array_equal(np.sort(before), np.sort(after))
    assert (module.deal_within(x, groups, depth, seed=seed) != dealt).nnz == 0
