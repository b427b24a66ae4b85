import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from graphfm.metrics.imputation import gene_scores


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(5, 40))
def test_equal_slow_versions(seed, cells):
    rng = np.random.default_rng(seed)
    truth = np.maximum(rng.normal(size=(cells, 4)), rng.normal())  # ties, as zeros of counts
    truth[0] += 1
    predicted = truth.round() + rng.normal(size=(cells, 4))
    scores = gene_scores(predicted, truth)
    for gene in range(4):
        expected = spearmanr(predicted[:, gene], truth[:, gene]).statistic
        assert scores["spearman"][gene] == pytest.approx(expected)
        error = np.mean((predicted[:, gene] - truth[:, gene]) ** 2) ** 0.5
        assert scores["rmse"][gene] == pytest.approx(error / truth[:, gene].std())


def test_order_of_cells_and_monotone_changes_do_not_matter():
    rng = np.random.default_rng(0)
    truth, predicted, order = rng.normal(size=(50, 3)), rng.normal(size=(50, 3)), rng.permutation(50)
    scores = gene_scores(predicted, truth)
    assert gene_scores(predicted[order], truth[order]).to_numpy() == pytest.approx(scores.to_numpy())
    assert gene_scores(np.exp(predicted), truth)["spearman"].to_numpy() == pytest.approx(scores["spearman"].to_numpy())


def test_the_mean_of_a_gene_has_error_1_and_no_correlation():
    truth = np.random.default_rng(0).poisson(2.0, (60, 3)).astype(float)
    truth[:, 2] = 5.0
    scores = gene_scores(np.tile(truth.mean(axis=0), (60, 1)), truth)
    assert scores["spearman"][:2].tolist() == [0.0, 0.0] and scores["rmse"][:2].to_numpy() == pytest.approx([1.0, 1.0])
    assert scores.loc[2].isna().all()


def test_bad_inputs():
    truth = np.ones((5, 2))
    with pytest.raises(ValueError, match=r"shape \(5, 1\), truth \(5, 2\)"):
        gene_scores(truth[:, :1], truth)
    with pytest.raises(ValueError, match="predicted has 4 rows"):
        gene_scores(truth[1:], truth)
    with pytest.raises(ValueError, match="predicted has NaN"):
        gene_scores(truth * np.nan, truth)
    with pytest.raises(ValueError, match="at least 2"):
        gene_scores(truth[:1], truth[:1])
