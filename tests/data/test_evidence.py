"""Gene profiles and evidence for pairs, against dense algebra and loops over sets."""

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp

from graphfm.data.evidence import EVIDENCE, pair_evidence
from graphfm.data.profiles import gene_profiles, shuffled


def expression(seed=0, cells=60, genes=12):
    rng = np.random.default_rng(seed)
    x = rng.poisson(rng.gamma(1, size=(cells, 3)) @ rng.gamma(1, size=(3, genes))).astype(np.float32)
    x[:, 4], x[:, 7] = 0, 2
    return sp.csr_matrix(x)


def test_profiles_are_damped_correlations():
    x = expression()
    h = gene_profiles(x, num_components=99, damping=2.0)
    assert h.dtype == np.float32 and not h[[4, 7]].any()
    varying = [g for g in range(12) if g not in (4, 7)]
    value, vector = np.linalg.eigh(np.corrcoef(x.toarray()[:, varying].T))
    value, vector = value[1:], vector[:, 1:]  # the solver leaves the least one out
    np.testing.assert_allclose(h[varying] @ h[varying].T, vector * (value / (value + 2)) @ vector.T, atol=1e-4)
    scaled = x @ sp.diags_array(np.arange(1.0, 13.0))
    np.testing.assert_allclose(
        gene_profiles(sp.csr_matrix(scaled)) @ np.ones(9), gene_profiles(x) @ np.ones(9), atol=1e-3
    )
    with pytest.raises(ValueError, match="at least 3 cells"):
        gene_profiles(x[:2])
    with pytest.raises(ValueError, match="at least 2 genes"):
        gene_profiles(x[:, [4, 5]])


def test_shuffled_keeps_each_genes_values_and_nothing_else():
    x = expression(1, cells=400)
    y = shuffled(x, seed=0)
    np.testing.assert_array_equal(np.sort(x.toarray(), axis=0), np.sort(y.toarray(), axis=0))
    assert np.array_equal(shuffled(x, seed=0).indices, y.indices) and (shuffled(x, seed=1) != y).nnz > 0
    varying = [g for g in range(12) if g not in (4, 7)]
    r = np.corrcoef(y.toarray()[:, varying].T) - np.eye(10)
    assert np.abs(r).max() < 0.25 < np.abs(np.corrcoef(x.toarray()[:, varying].T) - np.eye(10)).max()


def cosine(a, b):
    return len(a & b) / np.sqrt((len(a) + 5) * (len(b) + 5))


def log_share(pairs):
    pairs = list(pairs)
    return np.log1p(20 * sum(w * y for w, y in pairs) / (sum(w for w, _ in pairs) + 0.5))


def test_evidence_equals_loops_over_a_graph():
    rng, n, tfs = np.random.default_rng(0), 11, np.array([0, 2, 3, 8])
    known = np.zeros((n, n))
    known[tfs] = rng.random((4, n)) < 0.4
    np.fill_diagonal(known, 0)
    alike = sp.random_array((n, n), density=0.3, rng=rng, format="csr")
    context = rng.gamma(1, size=(4, n)).astype(np.float32)
    similarity, statistics = rng.random((4, n)).astype(np.float32), rng.normal(size=(n, 2)).astype(np.float32)
    given = (sp.csr_matrix(known), context, similarity, statistics, alike, tfs)
    found = pair_evidence(*given)
    assert found.shape == (4, n, len(EVIDENCE) + 4) and found.dtype == np.float32
    graph = nx.from_numpy_array(known, create_using=nx.DiGraph)
    out, into = ({g: set(f(g)) for g in graph} for f in (graph.successors, graph.predecessors))
    weight = alike.toarray()
    both = known + known.T

    def sim_both(a, b):
        return both[a] @ both[b] / np.sqrt((both[a] @ both[a] + 5) * (both[b] @ both[b] + 5)) if a != b else 0.0

    for a, i in enumerate(tfs):
        for j in range(n):
            expected = [
                np.log1p(len(out[i])),
                np.log1p(len(into[j])),
                np.log1p(len(out[j])),
                np.log1p(len(into[i])),
                known[j, i],
                log_share((cosine(out[i], out[k]), known[k, j]) for k in range(n) if k != i),
                log_share((cosine(into[j], into[k]), known[i, k]) for k in range(n) if k != j),
                log_share((sim_both(i, k), both[k, j]) for k in range(n)),
                sim_both(i, j),
                log_share((weight[i, k], known[k, j]) for k in range(n)),
                log_share((weight[j, k], known[i, k]) for k in range(n)),
                np.log1p(context[a, j]),
                similarity[a, j],
                *statistics[i],
                *statistics[j],
            ]
            np.testing.assert_allclose(found[a, j], expected, atol=1e-5, err_msg=str(EVIDENCE))
    pairs = np.array([[1, 4], [3, 0]])
    np.testing.assert_array_equal(pair_evidence(*given, pairs), found[pairs[:, 0], pairs[:, 1]])
    belief = np.random.default_rng(0).normal(size=found.shape[:2]).astype(np.float32)
    more = pair_evidence(*given, pairs, belief)
    np.testing.assert_array_equal(more[:, :-1], found[pairs[:, 0], pairs[:, 1]])
    np.testing.assert_array_equal(more[:, -1], belief[pairs[:, 0], pairs[:, 1]])
