"""Splits hold what they promise: nothing in two parts, nothing of the held-out to learn from."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfm.metrics.grn import pair_scores
from graphfm.tasks.grn_splits import SETTINGS, degree_matched, split, without_reversed

GENES = np.array([f"g{i}" for i in range(60)])
TFS = GENES[:20]


def network(seed, density=0.12):
    """Some regulators with many targets, some with one; two listed factors without any."""
    rng = np.random.default_rng(seed)
    rate = density * rng.gamma(1, size=(18, 1)) * rng.gamma(1, size=60)
    pairs = [(TFS[i], GENES[j]) for i, j in np.argwhere(rng.random((18, 60)) < rate) if i != j]
    return pd.DataFrame(pairs, columns=["tf", "target"])


def as_set(frame):
    return set(frame[["tf", "target"]].itertuples(index=False, name=None))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(SETTINGS))
def test_parts_are_disjoint_and_true(seed, setting):
    truth = network(seed)
    parts = split(truth, GENES, TFS, setting=setting, seed=seed)
    edges, sets = as_set(truth), [as_set(part) for part in (parts.train, parts.validation, parts.test)]
    assert sum(map(len, sets)) == len(set.union(*sets)) == sum(map(len, (parts.train, parts.validation, parts.test)))
    everything = pd.concat([parts.train, parts.validation, parts.test])
    assert as_set(everything[everything["label"] == 1]) == edges
    assert not as_set(everything[everything["label"] == 0]) & edges
    assert (everything["tf"] != everything["target"]).all()
    assert as_set(parts.known()) == edges - as_set(parts.test)
    out = truth["tf"].value_counts()
    for tf, (edge, other) in parts.train.groupby("tf")["label"].agg(["sum", lambda y: (y == 0).sum()]).iterrows():
        assert other == edge if setting != "targets" and 2 * out[tf] < 59 else other <= edge
    again = split(truth.sample(frac=1, random_state=1), GENES, TFS, setting=setting, seed=seed)
    for name in ("train", "validation", "test"):
        pd.testing.assert_frame_equal(getattr(parts, name), getattr(again, name))


@pytest.mark.parametrize(("setting", "column"), [("tfs", "tf"), ("targets", "target")])
def test_held_out_nodes_are_not_seen(setting, column):
    truth = network(3)
    parts = split(truth, GENES, TFS, setting=setting, seed=0)
    held = set(parts.test[column])
    assert not held & set(pd.concat([parts.train, parts.validation])[column])
    assert len(held) == truth[column].nunique() // 3
    # all pairs of the held-out with the network's nodes are asked for
    nodes = set(truth["tf"]) | set(truth["target"]) if setting == "tfs" else set(truth["tf"])
    assert len(parts.test) == sum(len(nodes - {node}) for node in held)


def test_the_usual_protocol_leaks_degree():
    truth = network(5)
    parts = split(truth, GENES, TFS, setting="edges", seed=0)
    density = len(truth) / (len(TFS) * len(GENES))
    assert parts.test["label"].mean() == pytest.approx(density, rel=0.02)
    assert set(parts.test["tf"]) == set(TFS)  # listed factors without a single edge are among the non-edges
    degree = np.log1p(parts.known()["tf"].value_counts().reindex(TFS, fill_value=0))
    scores = pair_scores(degree[parts.test["tf"]], parts.test["label"], parts.test["tf"], replicates=50)
    assert scores["auroc"] > 0.65


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(SETTINGS), st.sampled_from((0.12, 0.2, 0.6)))
def test_degree_matched_asks_for_nothing_that_was_learned(seed, setting, density):
    truth = network(seed, density)
    parts = split(truth, GENES, TFS, setting=setting, seed=seed)
    test, known = degree_matched(parts, seed=seed), parts.known()
    edges, others = (test[test["label"] == label] for label in (1, 0))
    assert len(edges) == len(others) == len(as_set(edges)) == len(as_set(others))
    assert as_set(edges) <= as_set(parts.test[parts.test["label"] == 1])
    assert not as_set(others) & (as_set(truth) | as_set(parts.train) | as_set(parts.validation))
    assert (others["tf"] != others["target"]).all()
    kept, matched = ("target", "tf") if setting == "targets" else ("tf", "target")
    assert (edges[kept].to_numpy() == others[kept].to_numpy()).all()
    degree = known[matched].value_counts()
    of_edges, of_others = (1 + part[matched].map(degree).fillna(0).to_numpy() for part in (edges, others))
    assert (np.maximum(of_edges / of_others, of_others / of_edges) <= 1.25 + 1e-9).all()
    pd.testing.assert_frame_equal(test, degree_matched(parts, seed=seed))


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("density", [0.1, 0.4])
def test_degree_matched_leaves_nothing_to_degree(setting, density):
    truth, found, share = network(7, density), [], []
    for seed in range(8):
        parts = split(truth, GENES, TFS, setting=setting, seed=seed)
        test, known = degree_matched(parts, seed=seed), parts.known()
        share.append(test["label"].sum() / parts.test["label"].sum())
        degree = sum(np.log1p(test[c].map(known[c].value_counts()).fillna(0)) for c in ("tf", "target"))
        found.append(pair_scores(degree, test["label"], test["tf"], replicates=0)["auroc"])
    assert abs(np.mean(found) - 0.5) < 0.04
    assert np.mean(share) > 0.3


def test_without_reversed():
    known = pd.DataFrame({"tf": ["a", "b"], "target": ["b", "c"]})
    test = pd.DataFrame({"tf": ["b", "b", "c", "a"], "target": ["a", "d", "b", "c"], "label": [1, 1, 0, 0]})
    assert without_reversed(test, known)[["tf", "target"]].to_numpy().tolist() == [["b", "d"], ["a", "c"]]


def test_bad_input():
    truth = network(0)
    with pytest.raises(ValueError, match="'cells' is unknown"):
        split(truth, GENES, TFS, setting="cells", seed=0)
    with pytest.raises(ValueError, match="not in genes"):
        split(truth, GENES[:5], TFS, setting="edges", seed=0)
    with pytest.raises(ValueError, match="would be empty"):
        split(truth.head(1), GENES, TFS, setting="edges", seed=0)
