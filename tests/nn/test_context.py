"""Context scores against loops, and what must not change them."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfm.nn.context import context_likelihood, context_scores, similar_genes


def profiles(seed, size=14, width=7):
    h = np.random.default_rng(seed).normal(size=(size, width))
    h[3] = 0  # a constant gene
    return torch.from_numpy(h)


def slow_likelihood(h, rows, columns, scales):
    total = np.zeros((len(rows), len(columns)))
    for width in sorted({min(s, h.shape[1]) for s in scales}):
        length = np.linalg.norm(h[:, :width], axis=1)
        unit = h[:, :width] / np.where(length > 0, length, 1)[:, None]
        similarity = np.abs(unit @ unit.T)

        def standard(i, j, others, similarity=similarity):
            values = [similarity[i, k] for k in others if k != i]
            spread = np.std(values)
            return max((similarity[i, j] - np.mean(values)) / spread, 0) if spread > 1e-6 else 0.0

        for a, i in enumerate(rows):
            for b, j in enumerate(columns):
                if i != j:
                    total[a, b] += np.hypot(standard(i, j, columns), standard(j, i, rows))
    return total


def dense(graph):
    size = len(graph.pointer) - 1
    return torch.sparse_csr_tensor(graph.pointer, graph.column, graph.weight, size=(size, size)).to_dense().numpy()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 20))
def test_likelihood_equals_a_loop_whatever_the_chunk(seed, chunk):
    h, rows = profiles(seed), torch.tensor([1, 3, 4, 9])
    for columns in (torch.arange(14), torch.tensor([0, 1, 2, 9, 11])):
        found = torch.cat(list(context_likelihood(h, rows, columns, scales=(2, 5, 99), chunk=chunk)))
        expected = slow_likelihood(h.numpy(), rows.tolist(), columns.tolist(), (2, 5, 99))
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


def test_similar_genes_equal_a_loop():
    h = profiles(1)
    likelihood = slow_likelihood(h.numpy(), range(14), range(14), (2, 5, 99))
    edges = np.zeros((14, 14))
    for i in range(14):
        for j in np.argsort(-likelihood[i], kind="stable")[:3]:
            if likelihood[i, j] > 0:
                edges[i, j] = edges[j, i] = likelihood[i, j]
    edges[3, 3] = 1  # stands out to nobody
    degree = edges.sum(1)
    expected = edges / np.sqrt(degree[:, None] * degree)
    np.testing.assert_allclose(dense(similar_genes(h, n_neighbors=3, scales=(2, 5, 99))), expected, atol=1e-9)


def test_scores_are_carried_over_similar_genes():
    h, tfs = profiles(2), torch.tensor([0, 5, 6])
    own = torch.cat(list(context_likelihood(h, tfs, torch.arange(14)))).numpy()
    graph = dense(similar_genes(h, n_neighbors=4))
    expected = own
    for _ in range(2):
        expected = 0.4 * (expected + expected @ graph.T) + 0.2 * own
    expected[np.arange(3), tfs] = 0
    found = context_scores(h, tfs, n_neighbors=4, anchor=0.2, num_layers=2)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)
    plain = context_scores(h, tfs, num_layers=0).numpy()
    np.testing.assert_allclose(plain, own, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_order_rotation_and_scale_change_nothing(seed):
    rng, h, tfs = np.random.default_rng(seed), profiles(seed), np.array([0, 5, 6])
    order = rng.permutation(14)
    place = np.argsort(order)
    scores = context_scores(h, torch.from_numpy(tfs), scales=(7,)).numpy()
    moved = context_scores(h[order], torch.from_numpy(place[tfs]), scales=(7,)).numpy()[:, place]
    np.testing.assert_allclose(moved, scores, atol=1e-9)
    turn = torch.from_numpy(np.linalg.qr(rng.normal(size=(7, 7)))[0])
    np.testing.assert_allclose(
        context_scores(3 * h @ turn, torch.from_numpy(tfs), scales=(7,)).numpy(), scores, atol=1e-8
    )
