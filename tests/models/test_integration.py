"""Batches brought together: the linear system is the one that is written, and turning or reordering changes nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfm.models import integration
from graphfm.models.integration import integrate_components

CENTRES = 4.0 * np.eye(4)


def batches(seed=0, size=40, kinds=((0, 1, 2), (0, 1, 3)), shift=2.0):
    """Blobs in two batches: some types are of both, some of one; the second batch lies elsewhere."""
    rng = np.random.default_rng(seed)
    types = np.concatenate([np.repeat(kind, size) for kind in kinds])
    batch = np.repeat([0, 1], [size * len(kind) for kind in kinds])
    far = shift * np.eye(6)[5]
    values = np.pad(CENTRES[types], ((0, 0), (0, 2))) + 0.6 * rng.normal(size=(len(types), 6)) + batch[:, None] * far
    return values - values.mean(axis=0), batch, types


def nearest(values, asked, k):
    """Rows of the nearest, cell by cell."""
    return [np.argsort(np.linalg.norm(values - one, axis=1), kind="stable")[:k] for one in asked]


def scaled(graph):
    degree = graph.sum(axis=1)
    root = np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, 1e-12)), 0)
    return root[:, None] * graph * root


def laplacian(graph):
    return np.diag(graph.sum(axis=1)) - graph


def slow(x, batch):
    """The same with dense matrices, loops and a direct solver."""
    n, k = len(x), integration.N_NEIGHBORS
    within = np.zeros((n, n))
    direction = x / np.linalg.norm(x, axis=1, keepdims=True)
    for i in range(n):
        others = np.array([j for j in np.flatnonzero(batch == batch[i]) if j != i])
        for j in others[nearest(direction[others], direction[[i]], k)[0]]:
            within[i, j] = within[j, i] = 1
    within, moved = scaled(within), np.zeros_like(x)
    own = np.eye(n) - (batch[:, None] == batch) / np.bincount(batch)[batch]
    for _ in range(integration.ROUNDS):
        here = x + moved
        direction = here / np.linalg.norm(here, axis=1, keepdims=True)
        near = np.zeros((n, n))
        for i in range(n):
            for b in set(batch) - {batch[i]}:
                cells = np.flatnonzero(batch == b)
                near[i, cells[nearest(direction[cells], direction[[i]], k)[0]]] = 1
        mutual = near * near.T
        around = within + np.eye(n)
        support = around @ mutual @ around.T * (mutual > 0)
        support[support < np.quantile(support[support > 0], integration.WEAKEST) - 1e-12] = 0
        pull = laplacian(scaled(support))
        system = pull + integration.SMOOTHNESS * laplacian(within)
        system += integration.TOGETHER * own + integration.RIDGE * np.eye(n)
        moved = np.linalg.solve(system, -pull @ x)
    return x + moved


@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_the_system_that_is_written(seed):
    x, batch, _ = batches(seed)
    np.testing.assert_allclose(integrate_components(x, batch).values, slow(x, batch), atol=1e-4)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000))
def test_order_of_cells_and_names_of_batches_do_not_matter(seed):
    x, batch, _ = batches(seed % 7)
    order = np.random.default_rng(seed).permutation(len(x))
    one, two = integrate_components(x, batch), integrate_components(x[order], 1 - batch[order])
    np.testing.assert_allclose(two.values, one.values[order], atol=1e-4)
    np.testing.assert_array_equal(two.paired, one.paired[order])


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 1000))
def test_turning_all_cells_turns_the_result(seed):
    x, batch, _ = batches(seed % 7)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))[0]
    np.testing.assert_allclose(
        integrate_components(x @ turn, batch).values, integrate_components(x, batch).values @ turn, atol=1e-4
    )


def test_shared_types_meet_and_others_stay_apart():
    x, batch, types = batches()
    found = integrate_components(x, batch)

    def centre(values, kind, number):
        return values[(types == kind) & (batch == number)].mean(axis=0)

    for kind in (0, 1):
        assert np.linalg.norm(centre(x, kind, 0) - centre(x, kind, 1)) > 1.8
        assert np.linalg.norm(centre(found.values, kind, 0) - centre(found.values, kind, 1)) < 1
    assert np.linalg.norm(centre(found.values, 2, 0) - centre(found.values, 3, 1)) > 1.8
    assert found.paired[types < 2].mean() > 0.7


def test_a_type_of_one_batch_moves_with_its_batch():
    x, batch, types = batches()
    moved = integrate_components(x, batch).values - x
    own, others = moved[types == 3].mean(axis=0), moved[(batch == 1) & (types < 3)].mean(axis=0)
    assert own @ others > 0.3 * others @ others


def test_without_a_batch_effect_little_moves():
    x, batch, _ = batches(kinds=((0, 1, 2), (0, 1, 2)), shift=0.0)
    moved = integrate_components(x, batch).values - x
    assert np.square(moved).sum() < 0.05 * np.square(x).sum()


def test_three_batches_and_one_of_a_single_cell():
    x, batch, _ = batches()
    batch = batch.copy()
    batch[7] = 2
    found = integrate_components(x, batch)
    assert np.isfinite(found.values).all() and found.values.shape == x.shape


def test_of_many_cells_some_are_paired_and_the_others_follow(monkeypatch):
    x, batch, types = batches(size=60)
    whole = integrate_components(x, batch).values
    monkeypatch.setattr(integration, "MAX_CELLS", 240)
    found = integrate_components(x, batch).values
    for kind in (0, 1):
        apart = [found[(types == kind) & (batch == b)].mean(axis=0) for b in (0, 1)]
        assert np.linalg.norm(apart[0] - apart[1]) < 1.2
    assert np.corrcoef((found - x).ravel(), (whole - x).ravel())[0, 1] > 0.9
    np.testing.assert_array_equal(found, integrate_components(x, batch).values)


def test_small_batches_leave_room_to_large_ones(monkeypatch):
    monkeypatch.setattr(integration, "MAX_CELLS", 100)
    sizes = np.bincount(
        np.repeat([0, 1, 2], [500, 20, 300])[integration._draw(np.repeat([0, 1, 2], [500, 20, 300]), 0)]
    )
    np.testing.assert_array_equal(sizes, [40, 20, 40])
