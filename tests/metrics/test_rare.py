import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfm.metrics.rare import rare_scores


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
