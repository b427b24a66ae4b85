import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfm.metrics import smoothing
from graphfm.metrics.smoothing import dirichlet_energy, effective_rank, mean_average_distance, random_pairs


def graph(seed, n=15, d=4):
    rng = np.random.default_rng(seed)
    a = np.triu(rng.random((n, n)) * (rng.random((n, n)) < 0.3))
    a = a + a.T
    edges = np.stack(np.nonzero(a))
    return rng.normal(size=(n, d)), a, torch.from_numpy(edges), torch.from_numpy(a[tuple(edges)])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_energy_equals_the_laplacian_of_networkx(seed):
    h, a, edges, weight = graph(seed)
    laplacian = nx.normalized_laplacian_matrix(nx.from_numpy_array(a)).toarray()
    expected = np.trace(h.T @ laplacian @ h)
    got = dirichlet_energy(torch.from_numpy(h), edges, weight)
    assert got["dirichlet_energy"] == pytest.approx(expected)
    assert got["dirichlet_energy_normalized"] == pytest.approx(expected / (h**2).sum())
    assert 0 <= got["dirichlet_energy_normalized"] <= 2


def test_energy_of_one_directed_list_is_that_of_its_symmetric_part():
    h, a, *_ = graph(3)
    upper = np.triu(a)
    edges = np.stack(np.nonzero(upper))
    sym = (upper + upper.T) / 2
    both = np.stack(np.nonzero(sym))
    h = torch.from_numpy(h)
    one = dirichlet_energy(h, torch.from_numpy(edges), torch.from_numpy(upper[tuple(edges)]))
    assert one == pytest.approx(dirichlet_energy(h, torch.from_numpy(both), torch.from_numpy(sym[tuple(both)])))


def test_energy_in_small_chunks(monkeypatch):
    h, _, edges, weight = graph(1)
    h = torch.from_numpy(h)
    whole, distance = dirichlet_energy(h, edges, weight), mean_average_distance(h, edges)
    monkeypatch.setattr(smoothing, "_CHUNK_ELEMENTS", 12)
    assert dirichlet_energy(h, edges, weight) == pytest.approx(whole)
    assert mean_average_distance(h, edges) == pytest.approx(distance)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(2, 12))
def test_effective_rank_equals_an_svd(seed, n, d):
    h = np.random.default_rng(seed).normal(size=(n, d))
    s = np.linalg.svd(h - h.mean(axis=0), compute_uv=False)
    p = s[s > 1e-12] / s.sum()
    assert effective_rank(torch.from_numpy(h)) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-5)


def test_effective_rank_at_its_bounds():
    line = torch.arange(20.0)[:, None] * torch.tensor([[1.0, 2.0, -1.0]])
    assert effective_rank(line + 100) == pytest.approx(1.0, abs=1e-4)
    assert effective_rank(torch.full((50, 8), 0.1)) == 0.0
    q = torch.linalg.qr(torch.randn(100, 9) - 0.0).Q
    assert effective_rank(torch.cat([q, -q])) == pytest.approx(9.0, abs=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_distance_equals_a_slow_version(seed):
    h, a, edges, _ = graph(seed)
    h[0] = 0
    rows = []
    for i in range(len(h)):
        mine = [
            1 - h[i] @ h[j] / np.linalg.norm(h[i]) / np.linalg.norm(h[j])
            for j in np.flatnonzero(a[i])
            if h[i].any() and h[j].any()
        ]
        if mine:
            rows.append(np.mean(mine))
    assert mean_average_distance(torch.from_numpy(h), edges) == pytest.approx(
        np.mean(rows) if rows else np.nan, nan_ok=True
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 100))
def test_invariances(seed, scale):
    h, _, edges, weight = graph(seed)
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    order = rng.permutation(len(h))
    h, turned = torch.from_numpy(h), torch.from_numpy(scale * h[order] @ q)
    moved = torch.from_numpy(np.argsort(order))[edges]
    one, two = dirichlet_energy(h, edges, weight), dirichlet_energy(turned, moved, weight * 3)
    assert two["dirichlet_energy"] == pytest.approx(one["dirichlet_energy"] * scale**2)
    assert two["dirichlet_energy_normalized"] == pytest.approx(one["dirichlet_energy_normalized"])
    assert effective_rank(turned + 3) == pytest.approx(effective_rank(h), rel=1e-6)
    if edges.shape[1]:
        assert mean_average_distance(turned, moved) == pytest.approx(mean_average_distance(h, edges))


def test_random_pairs():
    pairs = random_pairs(5, num_pairs=1000, seed=1)
    assert pairs.shape == (2, 1000) and (pairs[0] != pairs[1]).all() and set(pairs.unique().tolist()) == set(range(5))
    assert torch.equal(pairs, random_pairs(5, num_pairs=1000, seed=1))
    assert len({tuple(p) for p in pairs.T.tolist()}) == 20


def test_bad_inputs():
    h, _, edges, weight = graph(0)
    h = torch.from_numpy(h)
    with pytest.raises(ValueError, match="one per edge"):
        dirichlet_energy(h, edges, weight[1:])
    with pytest.raises(ValueError, match="negative"):
        dirichlet_energy(h, edges, -weight)
    with pytest.raises(ValueError, match=r"outside of 0\.\.2"):
        dirichlet_energy(h[:3], edges)
    with pytest.raises(ValueError, match="shape"):
        mean_average_distance(h, edges.T)
    with pytest.raises(ValueError, match="NaN"):
        effective_rank(h * torch.nan)
    with pytest.raises(ValueError, match="floating point"):
        effective_rank(h[0])
    with pytest.raises(ValueError, match="at least 2"):
        random_pairs(1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_energy_within_components_equals_a_projection(seed):
    h, a, edges, weight = graph(seed)
    degree = a.sum(1)
    null = []  # one vector a component, the root of the degrees; a node without edges is its own
    for nodes in nx.connected_components(nx.from_numpy_array(a)):
        vector = np.zeros(len(a))
        vector[list(nodes)] = np.sqrt(degree[list(nodes)]) if len(nodes) > 1 else 1
        null.append(vector / np.linalg.norm(vector))
    rest = h - np.stack(null).T @ (np.stack(null) @ h)
    laplacian = nx.normalized_laplacian_matrix(nx.from_numpy_array(a)).toarray()
    got = dirichlet_energy(torch.from_numpy(h), edges, weight)["dirichlet_energy_within"]
    expected = np.trace(h.T @ laplacian @ h) / (rest**2).sum() if np.linalg.norm(rest) > 1e-9 else 0.0
    assert got == pytest.approx(expected)
    assert 0 <= got <= 2 + 1e-12


def test_states_that_are_equal_within_components_have_no_energy_left():
    edges = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])
    h = torch.tensor([[1.0], [1.0], [5.0], [5.0]], dtype=torch.float64)
    assert dirichlet_energy(h, edges) == dict.fromkeys(dirichlet_energy(h, edges), 0.0)
    h[0] += 1e-3
    energy = dirichlet_energy(h, edges)
    assert energy["dirichlet_energy_normalized"] < 1e-6 and energy["dirichlet_energy_within"] == pytest.approx(2)


def test_depth_profile_has_a_line_a_layer():
    h, _, edges, weight = graph(2)
    states = [torch.from_numpy(h), torch.from_numpy(np.concatenate([h, h], axis=1))]
    profile = smoothing.depth_profile(states, edges, weight)
    assert [line["layer"] for line in profile] == [0, 1]
    for state, line in zip(states, profile, strict=True):
        assert line["effective_rank"] == effective_rank(state)
        assert line["mad_neighbors"] == mean_average_distance(state, edges)
        assert line["mad_random"] == mean_average_distance(state, random_pairs(len(h)))
        assert dirichlet_energy(state, edges, weight).items() <= line.items()


def test_gradient_norms_equal_those_of_numpy():
    layers = [torch.nn.Linear(3, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1)]
    assert np.isnan(smoothing.gradient_norms(layers)).all()
    torch.nn.Sequential(*layers)(torch.ones(4, 3)).sum().backward()
    expected = [np.sqrt(sum((p.grad.numpy() ** 2).sum() for p in layer.parameters())) for layer in layers]
    got = smoothing.gradient_norms(layers)
    assert np.isnan(got[1]) and got[0] == pytest.approx(expected[0]) and got[2] == pytest.approx(expected[2])
