"""Regressions that vote: stacking is the optimum, labels are kept, nothing held out is seen."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from graphfm.models import annotation
from graphfm.models.annotation import View, annotate_cells, stack


def cells(seed=0, number=120, types=3):
    """Blobs: two views of different use, a graph of cells that are near in the first."""
    rng = np.random.default_rng(seed)
    truth = np.arange(number) % types
    good = np.eye(types)[truth] * 2 + rng.normal(size=(number, types))
    noise = rng.normal(size=(number, 4))
    apart = np.linalg.norm(good[:, None] - good, axis=-1)
    near = apart <= np.sort(apart, axis=1)[:, [6]]
    np.fill_diagonal(near, False)
    codes = np.where(np.arange(number) < 60, truth, -1)
    return [View(sp.csr_matrix(good)), View(noise)], codes, sp.csr_matrix((near | near.T).astype(float)), truth


def test_stacking_is_the_optimum():
    rng = np.random.default_rng(1)
    truth = np.repeat([0, 1, 2], [40, 15, 5])
    tables = [log_softmax(rng.normal(size=(60, 3)) + strength * np.eye(3)[truth], axis=1) for strength in (2, 0.5, 0)]

    def loss(weights):
        total = sum(w * table for w, table in zip(weights, tables, strict=True))
        told = sum(log_softmax(total[truth == k], axis=1)[:, k].mean() for k in range(3)) * 60 / 3
        return -told + 5 * sum((w - 1 / 3) ** 2 for w in weights)

    slow = minimize(loss, np.full(3, 1 / 3), bounds=[(0, None)] * 3, method="Nelder-Mead", options={"xatol": 1e-7}).x
    found = stack(tables, truth)
    np.testing.assert_allclose(found, slow, atol=1e-3)
    assert found[0] > found[1] > found[2]


def test_without_held_out_cells_all_views_weigh_the_same():
    views, codes, graph, truth = cells()
    lone = np.full(len(codes), -1)
    lone[:3] = truth[:3]
    np.testing.assert_allclose(annotate_cells(views, lone, graph, unknown=0.05, seed=0).weights, [0.5, 0.5])


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 4))
def test_every_labelled_cell_is_held_out_once_but_the_only_one_of_a_type(seed, types):
    truth = np.concatenate([np.random.default_rng(seed).integers(0, types, 30), [types]])
    truth = np.unique(truth, return_inverse=True)[1]
    fold, sizes = annotation._folds(truth, seed), np.bincount(truth)
    assert ((fold == -1) == (sizes[truth] == 1)).all()
    for kind in np.flatnonzero(sizes > 1):
        assert len(np.unique(fold[truth == kind])) == min(sizes[kind], annotation.FOLDS)
    numbers = np.unique(fold[fold >= 0])
    np.testing.assert_array_equal(numbers, np.arange(len(numbers)))


def test_held_out_cells_are_unseen(monkeypatch):
    """What is stacked of a cell must not change with that cell's own label."""
    views, codes, graph, _ = cells()
    kept = []
    monkeypatch.setattr(annotation, "stack", lambda tables, truth: kept.append(tables) or np.array([0.5, 0.5]))
    monkeypatch.setattr(annotation, "_folds", lambda truth, seed: np.arange(len(truth)) % 5)
    annotate_cells(views, codes, graph, unknown=0.05, seed=0)
    other = codes.copy()
    other[7] = (codes[7] + 1) % 3
    annotate_cells(views, other, graph, unknown=0.05, seed=0)
    np.testing.assert_allclose(kept[0][0][7], kept[1][0][7])
    assert not np.allclose(kept[0][0][8], kept[1][0][8])


def test_equals_its_parts():
    views, codes, graph, truth = cells()
    found = annotate_cells(views, codes, graph, unknown=0.1, seed=0)
    labelled = codes >= 0
    logs = []
    for view in views:
        values = view.values.toarray() if sp.issparse(view.values) else view.values
        model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(values[labelled], truth[labelled])
        logs.append(np.log(model.predict_proba(values) + annotation.FLOOR))
    own = log_softmax(found.weights[0] * logs[0] + found.weights[1] * logs[1], axis=1)
    own[labelled] = np.log(np.maximum(np.eye(3)[truth[labelled]], 1e-12))
    dense = graph.toarray()
    mean, q = dense / dense.sum(axis=1, keepdims=True), np.exp(own)
    for _ in range(annotation.SWEEPS):
        q = (q + np.exp(log_softmax(own + annotation.STRENGTH * mean @ q, axis=1))) / 2
    np.testing.assert_allclose(found.probability, q, atol=1e-5)
    assert (found.probability[labelled].argmax(axis=1) == truth[labelled]).all()
    assert (found.probability[~labelled].argmax(axis=1) == truth[~labelled]).mean() > 0.8
    assert found.weights[0] > found.weights[1]


def test_order_of_cells_and_features_does_not_matter():
    views, codes, graph, _ = cells()
    labelled = np.flatnonzero(codes >= 0)
    order = np.concatenate([labelled, np.random.default_rng(0).permutation(np.flatnonzero(codes < 0))])
    one = annotate_cells(views, codes, graph, unknown=0.1, seed=0)
    moved = [View(views[0].values[order][:, [2, 0, 1]]), View(views[1].values[order][:, ::-1])]
    two = annotate_cells(moved, codes[order], graph[order][:, order], unknown=0.1, seed=0)
    np.testing.assert_allclose(two.probability, one.probability[order], atol=2e-3)
    np.testing.assert_allclose(two.familiar, one.familiar[order], atol=2e-3)


def test_a_type_without_labels_is_less_familiar():
    views, codes, graph, truth = cells(number=240)
    codes = np.where(truth == 2, -1, codes)
    far = View(sp.csr_matrix(views[0].values.toarray() * 2))
    found = annotate_cells([far, views[1]], codes, graph, unknown=0.05, seed=0)
    unlabelled = codes < 0
    assert found.familiar[unlabelled & (truth == 2)].mean() < found.familiar[unlabelled & (truth < 2)].mean() - 0.05


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_threshold_is_a_share_of_labelled_cells(share):
    views, codes, graph, _ = cells()
    low = annotate_cells(views, codes, graph, unknown=share, seed=0)
    high = annotate_cells(views, codes, graph, unknown=0.5, seed=0)
    assert low.threshold < high.threshold and (low.familiar >= 0).all() and (low.familiar <= 1).all()


def test_types_do_not_depend_on_whether_a_threshold_is_asked_for():
    views, codes, graph, _ = cells()
    without, asked = (annotate_cells(views, codes, graph, unknown=share, seed=0) for share in (None, 0.2))
    np.testing.assert_array_equal(without.probability, asked.probability)
    np.testing.assert_array_equal(without.familiar, asked.familiar)
    assert without.threshold == 0 < asked.threshold
