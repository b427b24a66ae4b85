"""The Potts field: equal to loops, blind to order, still where there are no neighbours."""

import numpy as np
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from graphfm.models.field import around, settle


def case(seed, cells=12, classes=3):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((cells, cells)) * (rng.random((cells, cells)) < 0.3), 1)
    return rng.normal(size=(cells, classes)), upper + upper.T, rng.dirichlet(np.ones(classes), cells)


@given(st.integers(0, 10_000))
def test_sweeps_equal_a_loop(seed):
    own, graph, start = case(seed)
    found = settle(own, around(sp.csr_matrix(graph)), start, strength=1.7, sweeps=3)
    slow = start
    for _ in range(3):
        fresh = np.empty_like(slow)
        for i in range(len(own)):
            weight = graph[i].sum()
            near = sum(graph[i, j] * slow[j] for j in range(len(own))) / weight if weight else 0 * slow[i]
            odds = np.exp(own[i] + 1.7 * near)
            fresh[i] = (slow[i] + odds / odds.sum()) / 2
        slow = fresh
    np.testing.assert_allclose(found, slow, rtol=1e-9)
    order = np.random.default_rng(seed).permutation(len(own))
    moved = settle(own[order], around(sp.csr_matrix(graph[order][:, order])), start[order], strength=1.7, sweeps=3)
    np.testing.assert_allclose(moved, found[order], rtol=1e-9)


def test_without_neighbours_a_cell_ends_at_its_own_evidence():
    own = np.log([[0.7, 0.3]])
    found = settle(own, around(sp.csr_matrix((1, 1))), np.array([[0.0, 1.0]]), strength=9.0, sweeps=60)
    np.testing.assert_allclose(found, [[0.7, 0.3]], atol=1e-9)
