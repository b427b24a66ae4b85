import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfm.metrics.rare import population_scores, rare_scores


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 5)), min_size=3, max_size=40))
def test_equals_a_slow_version(rows):
    truth, called, score = (np.array(column) for column in zip(*rows, strict=True))
    if truth.all() or not truth.any():
        with pytest.raises(ValueError, match="one class only"):
            rare_scores(truth, called=called)
        return
    got = rare_scores(truth, called=called, score=score)
    tp, fp, fn = (truth & called).sum(), (~truth & called).sum(), (truth & ~called).sum()
    assert got["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert got["precision"] == pytest.approx(tp / (tp + fp) if tp + fp else 0)
    assert got["recall"] == pytest.approx(tp / (tp + fn))
    area, before = 0.0, 0.0
    for cut in sorted(set(score), reverse=True):
        recall = truth[score >= cut].sum() / truth.sum()
        area, before = area + (recall - before) * truth[score >= cut].mean(), recall
    assert got["auprc"] == pytest.approx(area)
    wins = [(a > b) + 0.5 * (a == b) for a in score[truth] for b in score[~truth]]
    assert got["auroc"] == pytest.approx(np.mean(wins))
    order = np.random.default_rng(0).permutation(len(truth))
    again = rare_scores(truth[order], called=called[order], score=score[order] * 3.0 - 1)
    assert again == pytest.approx(got)


def test_bad_inputs():
    truth = np.array([True, False, False])
    with pytest.raises(ValueError, match="called="):
        rare_scores(truth)
    with pytest.raises(ValueError, match="length 2"):
        rare_scores(truth, called=truth[:2])
    with pytest.raises(ValueError, match="NaN"):
        rare_scores(truth, score=np.array([0, 1, np.nan]))
    with pytest.raises(ValueError, match="True and False"):
        rare_scores(truth, called=np.array([0.2, 0.5, 0.1]))
    with pytest.raises(ValueError, match="shape"):
        rare_scores(truth, score=np.zeros(2))


def test_populations_are_matched_and_pooled():
    truth = np.array([1, 1, 1, 0, 0, 0, 0, 0], dtype=bool)
    names = ["a", "a", None, "b", "b", None, np.nan, "a"]
    got = population_scores(truth, names)
    assert got["num_populations"] == 2 and got["num_called"] == 5 and got["prevalence"] == 3 / 8
    assert got["f1"] == pytest.approx(4 / 6) and got["precision"] == pytest.approx(2 / 3)
    assert got["pooled_f1"] == pytest.approx(4 / 8) and got["pooled_precision"] == pytest.approx(2 / 5)
    assert "false_discovery" not in got
    order = np.random.default_rng(0).permutation(8)
    assert population_scores(truth[order], [names[i] for i in order]) == pytest.approx(got)
    nothing = population_scores(truth, [None] * 8)
    assert nothing["f1"] == nothing["pooled_f1"] == nothing["num_populations"] == 0
    one = population_scores(truth, np.where(truth, "x", None))
    calls = rare_scores(truth, called=truth)
    assert {name: one[name] for name in ("f1", "precision", "recall")} == {
        n: calls[n] for n in ("f1", "precision", "recall")
    }


def test_where_nothing_is_rare_every_call_is_false():
    truth = np.zeros(4, dtype=bool)
    assert population_scores(truth, [None] * 4)["false_discovery"] == 0
    got = population_scores(truth, ["a", None, None, None])
    assert got["false_discovery"] == 1 and "f1" not in got
    with pytest.raises(ValueError, match="length 3"):
        population_scores(truth, [None] * 3)
