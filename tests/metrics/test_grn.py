import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfm.metrics.grn import grn_scores, pair_scores

GENES = list("abcdefg")


def slow(prediction, truth):
    """Sets, loops and scikit-learn over the whole universe."""
    from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

    edges = {(t, g): s for t, g, s in truth[["tf", "target", "sign"]].itertuples(index=False) if t != g}
    sources = {t for t, _ in edges}
    genes = sources | {g for _, g in edges}
    pairs = [(t, g) for t, g in itertools.product(sources, genes) if t != g]
    score, sign = {}, {}
    for t, g, s in prediction[["tf", "target", "score"]].itertuples(index=False):
        if abs(s) > score.get((t, g), 0):
            score[t, g], sign[t, g] = abs(s), np.sign(s)
    y, s = [p in edges for p in pairs], [score.get(p, 0) for p in pairs]
    precision, recall, _ = precision_recall_curve(y, s)
    ranked = sorted((score[p] for p in pairs if score.get(p, 0) > 0), reverse=True)
    epr = 0.0
    if ranked:
        cutoff = ranked[min(len(edges), len(ranked)) - 1]
        chosen = [p for p in pairs if score.get(p, 0) >= cutoff]
        epr = np.mean([p in edges for p in chosen]) / (len(edges) / len(pairs))
    known = [sign[p] == edges[p] for p in edges if p in sign]
    return {
        "auprc": average_precision_score(y, s),
        "auprc_trapezoid": auc(recall, precision),
        "auroc": roc_auc_score(y, s),
        "epr": epr,
        "prevalence": len(edges) / len(pairs),
        "sign_accuracy": np.mean(known) if known else np.nan,
        "sign_coverage": len(known) / len(edges),
    }


pair = st.tuples(st.sampled_from(GENES[:4]), st.sampled_from(GENES))
truths = st.dictionaries(pair, st.sampled_from([-1, 1]), min_size=3, max_size=10)
predictions = st.lists(
    st.tuples(st.sampled_from([*GENES, "x"]), st.sampled_from(GENES), st.integers(-5, 5)), max_size=40
)


def frames(edges, predicted):
    truth = pd.DataFrame([(t, g, s) for (t, g), s in edges.items()], columns=["tf", "target", "sign"])
    prediction = pd.DataFrame(predicted, columns=["tf", "target", "score"]).drop_duplicates(["tf", "target"])
    return prediction.astype({"score": float}), truth


@settings(max_examples=150, deadline=None)
@given(truths, predictions)
def test_equals_a_slow_version(edges, predicted):
    prediction, truth = frames(edges, predicted)
    try:
        fast = grn_scores(prediction, truth)
    except ValueError as error:
        assert "truth" in str(error)
        return
    expected = slow(prediction, truth)
    assert {k: fast[k] for k in expected} == pytest.approx(expected, nan_ok=True)
    assert fast["auprc_ratio"] == pytest.approx(fast["auprc"] / fast["prevalence"])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 10))
def test_order_scale_and_names_change_nothing(seed, scale):
    rng = np.random.default_rng(seed)
    pairs = list(itertools.permutations(GENES, 2))
    truth = pd.DataFrame(pairs, columns=["tf", "target"]).sample(10, random_state=seed)
    truth["sign"] = rng.choice([-1, 1], 10)
    prediction = pd.DataFrame(pairs, columns=["tf", "target"]).assign(score=rng.normal(size=len(pairs)))
    new = {g: f"gene {i}" for i, g in enumerate(rng.permutation(GENES))}
    other = prediction.sample(frac=1, random_state=seed).assign(score=lambda f: f["score"] * scale)
    renamed = [f.assign(tf=f["tf"].map(new), target=f["target"].map(new)) for f in (other, truth)]
    assert grn_scores(prediction, truth) == pytest.approx(grn_scores(*renamed), nan_ok=True)


def test_ties_at_the_cutoff_expand_the_selection():
    truth = pd.DataFrame({"tf": ["a", "a"], "target": ["b", "c"]})
    more = pd.DataFrame({"tf": ["d"], "target": ["e"]})
    truth = pd.concat([truth, more])  # 3 edges; universe a, d times 5 genes without self = 8
    prediction = pd.DataFrame({"tf": list("aadda"), "target": list("bcabd"), "score": [3.0, 2.0, 1.0, 1.0, 1.0]})
    assert grn_scores(prediction, truth)["epr"] == pytest.approx((2 / 5) / (3 / 8))


def test_a_constant_score_has_the_density():
    truth = pd.DataFrame({"tf": list("aab"), "target": list("bcd")})
    pairs = [(t, g) for t in "ab" for g in "abcd" if t != g]
    scores = grn_scores(pd.DataFrame(pairs, columns=["tf", "target"]).assign(score=1.0), truth)
    assert scores["auprc_ratio"] == scores["epr"] == 1 and scores["auroc"] == 0.5
    assert scores["auprc_trapezoid"] > 0.7  # why it is not the one that counts


def test_duplicates_take_the_larger_and_the_sign_column_wins():
    truth = pd.DataFrame({"tf": ["a", "b"], "target": ["b", "c"], "sign": [-1, 1]})
    prediction = pd.DataFrame({"tf": list("aab"), "target": list("bbc"), "score": [0.1, 0.9, 0.5], "sign": [1, -1, 1]})
    scores = grn_scores(prediction, truth)
    assert scores["sign_accuracy"] == scores["auprc"] == scores["auroc"] == 1.0
    named = prediction.astype({"tf": "category", "target": "category"})
    assert grn_scores(named, truth) == pytest.approx(scores, nan_ok=True)


def test_a_sign_that_is_not_known_is_not_scored():
    """NaN says the same as 0, and so does an edge that is listed with both, in whatever order."""
    truth = pd.DataFrame({"tf": list("aabb"), "target": list("bdcc"), "sign": [1, np.nan, -1, -1]})
    prediction = pd.DataFrame({"tf": list("aab"), "target": list("bdc"), "score": [0.9, 0.8, -0.5]})
    scores = grn_scores(prediction, truth)
    assert scores == pytest.approx(grn_scores(prediction, truth.fillna(0)), nan_ok=True)
    assert scores["sign_accuracy"] == scores["sign_coverage"] == 1.0
    both = pd.concat([truth, truth.iloc[:1].assign(sign=-1)])
    for rows in (both, both[::-1]):
        found = grn_scores(prediction, rows)
        assert found["sign_accuracy"] == found["sign_coverage"] == found["sign_balanced_accuracy"] == 1.0
        assert found["auprc"] == scores["auprc"]


def test_bad_inputs():
    truth = pd.DataFrame({"tf": ["a", "b"], "target": ["b", "c"]})
    good = truth.assign(score=1.0)
    with pytest.raises(KeyError, match="score"):
        grn_scores(truth, truth)
    with pytest.raises(ValueError, match="NaN"):
        grn_scores(good.assign(score=np.nan), truth)
    with pytest.raises(ValueError, match="self-loops"):
        grn_scores(good, pd.DataFrame({"tf": ["a"], "target": ["a"]}))
    with pytest.raises(ValueError, match="no negatives"):
        grn_scores(good, pd.DataFrame({"tf": ["a"], "target": ["b"]}))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans(), st.sampled_from("abcd")), min_size=4, max_size=60))
def test_pair_scores_equal_scikit_learn(pairs):
    from sklearn.metrics import average_precision_score, roc_auc_score

    score, label, tf = (np.array(column) for column in zip(*pairs, strict=True))
    if label.all() or not label.any():
        with pytest.raises(ValueError, match="edges and non-edges"):
            pair_scores(score, label, tf)
        return
    found = pair_scores(score, label, tf, replicates=200)
    assert found["auprc"] == pytest.approx(average_precision_score(label, score))
    assert found["auroc"] == pytest.approx(roc_auc_score(label, score))
    # the bootstrap, spelled out with copies of the pairs
    rng, names, drawn = np.random.default_rng(0), np.unique(tf), []
    for _ in range(200):
        chosen = np.concatenate([np.flatnonzero(tf == names[i]) for i in rng.integers(len(names), size=len(names))])
        if 0 < label[chosen].sum() < len(chosen):
            drawn.append(average_precision_score(label[chosen], score[chosen]))
    assert found["auprc_low"] == pytest.approx(np.quantile(drawn, 0.025))
    assert found["auprc_high"] == pytest.approx(np.quantile(drawn, 0.975))


def test_pair_scores_refuse():
    with pytest.raises(ValueError, match="equally long"):
        pair_scores([1.0], [1, 0], ["a", "b"])
    with pytest.raises(ValueError, match="NaN"):
        pair_scores([np.nan, 1.0], [1, 0], ["a", "b"])
