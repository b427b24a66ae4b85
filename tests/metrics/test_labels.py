import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfm.metrics.labels import (
    agreement,
    calibration_error,
    clustering_scores,
    kept_scores,
    knn_accuracy,
    label_accuracy,
    linear_probe,
)


def blobs(seed, n=120, d=4, scale=1.0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 3)
    return rng.normal(size=(3, d))[y] * 3 + rng.normal(size=(n, d)) * scale, y


def slow_knn(x, y, k, folds, seed):
    from sklearn.model_selection import StratifiedKFold

    hits = []
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y):
        for i in test:
            d = np.sqrt(((x[train] - x[i]) ** 2).sum(axis=1))
            near = np.argsort(d, kind="stable")[:k]
            votes = [sum(1 / d[j] for j in near if y[train[j]] == c) for c in range(y.max() + 1)]
            hits.append(np.argmax(votes) == y[i])
    return np.mean(hits)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_knn_accuracy_equals_a_slow_version(seed):
    x, y = blobs(seed)
    y = pd.factorize(y)[0]  # folds follow the order in which the types appear
    assert knn_accuracy(x, y, k=7, seed=1)["accuracy"] == pytest.approx(slow_knn(x, y, 7, 5, 1))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 100))
def test_rotation_shift_scale_and_names_change_nothing(seed, scale):
    x, y = blobs(seed)
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(4, 4)))[0]
    moved, renamed = (x @ q + 5) * scale, np.array(["c", "a", "b"])[y]
    assert knn_accuracy(x, y) == pytest.approx(knn_accuracy(moved, renamed))
    assert clustering_scores(x, y)["ari"] == pytest.approx(clustering_scores(moved, renamed)["ari"], abs=0.05)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_order_of_cells_changes_nothing_where_types_are_apart(seed):
    x, y = blobs(seed, scale=1e-3)
    order = np.random.default_rng(seed).permutation(len(y))
    assert knn_accuracy(x[order], y[order]) == knn_accuracy(x, y) == {"accuracy": 1.0, "macro_f1": 1.0}
    assert clustering_scores(x[order], y[order])["ari"] == pytest.approx(1.0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=4, max_size=40))
def test_label_scores_equal_scikit_learn(pairs):
    from sklearn.metrics import accuracy_score, f1_score

    y, guess = np.array(pairs).T
    if len(set(y)) < 2:
        return
    scores = label_accuracy(guess, y)
    assert scores["accuracy"] == pytest.approx(accuracy_score(y, guess))
    expected = f1_score(y, guess, average="macro", labels=np.unique(y), zero_division=0)
    assert scores["macro_f1"] == pytest.approx(expected)
    assert agreement(guess, y) == pytest.approx(agreement(10 - guess, y))
    assert agreement(guess, y)["ari"] == pytest.approx(agreement(guess[::-1], y[::-1])["ari"])


def test_types_kept_is_the_mean_of_its_parts():
    x, y = blobs(0)
    scores = kept_scores(x, y, seed=2)
    assert {key: scores[key] for key in ("ari", "nmi")} == {
        key: value for key, value in clustering_scores(x, y, seed=2).items() if key in ("ari", "nmi")
    }
    assert scores["avgbio"] == pytest.approx(sum(scores[key] for key in ("ari", "nmi", "type_silhouette")) / 3)
    assert scores["type_silhouette"] == pytest.approx(kept_scores(7 * x + 1, 2 - y)["type_silhouette"])
    assert kept_scores(x, np.random.default_rng(0).permutation(y))["avgbio"] < 0.3 < scores["avgbio"]


def test_small_types_are_left_out():
    x, y = blobs(0, scale=1e-3)
    y[:3] = 7
    assert knn_accuracy(x, y)["accuracy"] == 1.0


def test_bad_inputs():
    x, y = blobs(0)
    with pytest.raises(ValueError, match="119 rows"):
        knn_accuracy(x[1:], y)
    with pytest.raises(ValueError, match="one class only"):
        clustering_scores(x, np.zeros(len(y)))
    with pytest.raises(ValueError, match="folds"):
        knn_accuracy(x[:4], [0, 0, 1, 1])
    with pytest.raises(ValueError, match="missing for 1"):
        agreement(y, [None, *y[1:]])
    x[0, 0] = np.nan
    with pytest.raises(ValueError, match="embedding has NaN"):
        knn_accuracy(x, y)


def test_a_probe_judges_cells_of_groups_it_has_not_seen():
    x, y = blobs(0)
    names, groups = np.array(["a", "b", "c"])[y], np.arange(120) % 6
    known = linear_probe(x, names, groups)
    assert known["accuracy"] > 0.9 and known["macro_f1"] > 0.9
    assert linear_probe(x, names, groups) == known
    assert linear_probe(x * [1, 10, 100, 1000] + 5, names, groups)["accuracy"] == pytest.approx(
        known["accuracy"], abs=0.01
    )
    # a shift that tells the group, and in each group one class: learnt by heart, and of no use for the others
    own = np.arange(120) % 3
    leak = np.eye(3)[own] * 5 + np.random.default_rng(0).normal(size=(120, 3))
    assert linear_probe(leak, own, own)["accuracy"] == 0.0
    dealt = np.random.default_rng(1).permutation(names)
    assert linear_probe(x, dealt, groups)["accuracy"] < 0.5


def test_a_probe_equals_a_loop_over_slides():
    from sklearn.linear_model import LogisticRegression

    x, y = blobs(3, scale=3.0)
    slides = np.repeat(["one", "two"], 60)
    hits = []
    for held in ("one", "two"):
        fitted, test = slides != held, slides == held
        mean, spread = x[fitted].mean(axis=0), x[fitted].std(axis=0)
        model = LogisticRegression(max_iter=1000).fit((x[fitted] - mean) / spread, y[fitted])
        hits.extend(model.predict((x[test] - mean) / spread) == y[test])
    assert linear_probe(x, y, slides)["accuracy"] == pytest.approx(np.mean(hits))


def test_a_probe_says_what_is_wrong():
    x, y = blobs(0)
    with pytest.raises(ValueError, match="1 groups and folds=5"):
        linear_probe(x, y, np.zeros(120))
    with pytest.raises(ValueError, match="groups has length 3"):
        linear_probe(x, y, np.zeros(3))
    with pytest.raises(ValueError, match="one class only"):
        linear_probe(x, y > 0, np.where(y > 0, 1, 0))


def test_calibration_error_equals_a_loop():
    rng = np.random.default_rng(0)
    confidence, hit = rng.random(500), rng.random(500) < 0.6
    confidence[:3] = 1.0
    slow = 0.0
    for b in range(10):
        mine = [i for i in range(500) if b / 10 <= confidence[i] < (b + 1) / 10 or (b == 9 and confidence[i] == 1)]
        slow += abs(hit[mine].mean() - confidence[mine].mean()) * len(mine) / 500
    assert calibration_error(confidence, hit) == pytest.approx(slow)
    assert calibration_error(np.ones(4), np.ones(4, dtype=bool)) == 0
    for bad in (([0.5], [True, False]), ([], []), ([1.5], [True])):
        with pytest.raises(ValueError, match="confidence"):
            calibration_error(*bad)
