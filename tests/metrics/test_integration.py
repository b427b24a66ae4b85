"""Mixing and separation against slow versions, and how they should answer."""

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from graphfm.metrics import integration, labels
from graphfm.tasks import integration as task


def cells(seed=0, number=90, shift=1.0):
    rng = np.random.default_rng(seed)
    types, batch = rng.integers(0, 3, number), rng.integers(0, 2, number)
    return rng.normal(size=(number, 3)) + 2 * np.eye(3)[types] + shift * batch[:, None], types, batch


def apart(x):
    return np.linalg.norm(x[:, None] - x, axis=-1)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.integers(6, 60))
def test_mixing_is_the_inverse_simpson_index(seed, k):
    x, _, batch = cells(seed)
    found = []
    for i, row in enumerate(apart(x)):
        near = [j for j in np.argsort(row) if j != i][:k]
        d = row[near] - row[near].min()

        def entropy(log_rate, d=d):
            p = np.exp(-d * np.exp(log_rate))
            p /= p.sum()
            return -(p * np.log(np.maximum(p, 1e-300))).sum() - np.log(k // 3)

        p = np.exp(-d * np.exp(brentq(entropy, -20, 20)))
        p /= p.sum()
        found.append(1 / sum(p[batch[near] == b].sum() ** 2 for b in (0, 1)))
    assert integration.mixing(x, batch, k=k) == pytest.approx(np.median(found) - 1, abs=1e-5)


def test_silhouettes_by_hand():
    x, types, batch = cells()

    def width(rows, groups):
        d, values = apart(x[rows]), []
        for i, own in enumerate(groups):
            mine = groups == own
            if mine.sum() == 1:
                values.append(0.0)
                continue
            a = d[i][mine].sum() / (mine.sum() - 1)
            b = min(d[i][groups == other].mean() for other in set(groups) - {own})
            values.append((b - a) / max(a, b))
        return np.array(values)

    assert labels.silhouette(x, types) == pytest.approx((width(np.arange(len(x)), types).mean() + 1) / 2)
    by_type = [1 - np.abs(width(np.flatnonzero(types == t), batch[types == t])).mean() for t in range(3)]
    assert integration.batch_silhouette(x, types, batch) == pytest.approx(np.mean(by_type))


def test_types_of_one_batch_say_nothing_of_mixing():
    x, _, batch = cells()
    assert np.isnan(integration.batch_silhouette(x, batch, batch))


@pytest.mark.parametrize("k", [2, 5])
def test_connectivity_by_networkx(k):
    x, types, _ = cells()
    graph = nx.Graph()
    graph.add_nodes_from(range(len(x)))
    for i, row in enumerate(apart(x)):
        graph.add_edges_from((i, j) for j in [j for j in np.argsort(row) if j != i][:k])
    shares = []
    for t in range(3):
        part = graph.subgraph(np.flatnonzero(types == t).tolist())
        shares.append(max(map(len, nx.connected_components(part))) / len(part))
    assert integration.connectivity(x, types, k=k) == pytest.approx(np.mean(shares))


def test_told_by_other_batches():
    x, types, batch = cells(number=60)
    types[:4], batch[:4] = 3, 0  # a type that the other batch lacks is not asked for
    types = pd.factorize(types)[0]  # of types with as many votes, the one that came first
    predicted, asked = [], [i for i in range(60) if types[i] in set(types[batch != batch[i]])]
    for i in asked:
        others = np.flatnonzero(batch != batch[i])
        near = others[np.argsort(np.linalg.norm(x[others] - x[i], axis=1))[:5]]
        predicted.append(np.bincount(types[near]).argmax())
    truth, f1 = types[asked], []
    for t in set(truth):
        hit = sum(p == t == y for p, y in zip(predicted, truth, strict=True))
        f1.append(2 * hit / (sum(p == t for p in predicted) + (truth == t).sum()))
    assert integration.across_batches(x, types, batch, k=5) == pytest.approx(np.mean(f1))


def test_a_shift_of_a_batch_is_seen():
    near, types, batch = cells(shift=0.0, number=400)
    far = near + 10 * batch[:, None]
    assert integration.mixing(near, batch) > 0.8 and integration.mixing(far, batch) < 0.05
    assert integration.batch_silhouette(near, types, batch) > 0.9
    assert integration.batch_silhouette(far, types, batch) < 0.3


@pytest.mark.parametrize("name", ["mixing", "batch_silhouette", "connectivity", "across_batches"])
def test_bad_input(name):
    x, types, batch = cells()
    given = {"mixing": (batch,), "connectivity": (types,)}.get(name, (types, batch))
    measure = getattr(integration, name)
    with pytest.raises(ValueError, match="rows"):
        measure(x[:-1], *given)
    broken = x.copy()
    broken[3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        measure(broken, *given)
    if name != "connectivity":
        with pytest.raises(ValueError, match="one class"):
            measure(x, *given[:-1], np.zeros(len(x)))


def test_types_that_no_two_batches_have():
    x, _, batch = cells()
    with pytest.raises(ValueError, match="share types"):
        integration.across_batches(x, batch, batch)


def test_the_task_and_its_controls():
    x, types, batch = cells(number=300)
    truth = pd.DataFrame({"type": types, "batch": batch})
    scores = task.evaluate(x, truth)
    assert scores["overall"] == pytest.approx(0.6 * scores["avgbio"] + 0.4 * scores["avgbatch"])
    bounds = {name: task.evaluate(values, truth) for name, values in task.controls(truth).items()}
    for key in ("avgbio", "overall", "macro_f1", "ari", "nmi", "type_silhouette"):
        assert bounds["shuffled"][key] < scores[key] < bounds["oracle"][key]
    with pytest.raises(KeyError, match="batch"):
        task.evaluate(x, truth[["type"]])


def batches_of_types(seed, number=400):
    rng = np.random.default_rng(seed)
    types, batch = rng.integers(0, 6, number), rng.integers(0, 3, number)
    place = rng.normal(size=(6, 4)) * 3
    types[(types == 5) & (batch == 0)] = 0  # a type that a batch lacks
    own = place[types] + rng.normal(size=(number, 4))
    return own + 5 * batch[:, None], own @ np.linalg.qr(rng.normal(size=(4, 4)))[0], types, batch


def slow_scgraph(x, types, batches, components, trim):
    kept = [t for t in np.unique(types) if (types == t).sum() >= 10]

    def apart(values, kinds):
        centres = {}
        for t in kept:
            ranked = np.sort(values[kinds == t], axis=0)
            cut = int(trim * len(ranked))
            centres[t] = (
                ranked[cut : len(ranked) - cut].mean(axis=0) if len(ranked) else np.full(values.shape[1], np.nan)
            )
        table = pd.DataFrame({a: {b: np.linalg.norm(centres[a] - centres[b]) for b in kept} for a in kept})
        return table / table.max()

    each = [
        apart(components[batches == b], types[batches == b]) for b in np.unique(batches) if (batches == b).sum() >= 100
    ]
    consensus = pd.concat(each).groupby(level=0).mean()
    consensus, found, scores = consensus / consensus.max(), apart(x, types), []
    for t in kept:
        pair = pd.DataFrame({"found": found[t], "expected": consensus[t]}).drop(t).dropna()
        both = np.cov(pair["found"], pair["expected"], aweights=1 / pair["expected"])
        scores.append(both[0, 1] / np.sqrt(both[0, 0] * both[1, 1]))
    return np.mean(scores)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.0, 0.05, 0.2]))
def test_scgraph_is_the_weighted_correlation_of_distances(seed, trim):
    x, own, types, batch = batches_of_types(seed)
    found = integration.scgraph(x, types, batch, own, trim=trim)
    assert found == pytest.approx(slow_scgraph(x, types, batch, own, trim), abs=1e-6)
    order = np.random.default_rng(seed).permutation(len(x))
    assert integration.scgraph(x[order], types[order], batch[order], own[order], trim=trim) == pytest.approx(found)


def test_scgraph_falls_where_types_are_islands():
    x, own, types, batch = batches_of_types(1)
    islands = np.eye(6)[types] + 0.01 * np.random.default_rng(0).normal(size=(len(x), 6))
    kept, mixed = (integration.scgraph(v, types, batch, own) for v in (own, x - 5 * batch[:, None]))
    assert mixed > 0.95 > 0.6 > integration.scgraph(islands, types, batch, own)
    assert kept > 0.9
    assert integration.batch_silhouette(islands, types, batch) > 0.9  # which other measures do not see


def test_scgraph_says_nothing_of_two_types_or_small_batches():
    x, own, types, batch = batches_of_types(2)
    assert np.isnan(integration.scgraph(x, types % 2, batch, own))
    assert np.isnan(integration.scgraph(x, types, np.arange(len(x)) % 10, own))
    with pytest.raises(ValueError, match="components"):
        integration.scgraph(x, types, batch, own[:-1])
