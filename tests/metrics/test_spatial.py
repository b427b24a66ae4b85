import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfm.metrics.spatial import (
    border,
    chaos,
    domain_scores,
    pas,
    slide_divergence,
    smallest_recall,
    tissue_blocks,
)


def tissue(seed, n=60):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 4, n), rng.normal(size=(n, 2)) * [3, 1]


def distances(xy):
    return np.sqrt(((xy[:, None] - xy) ** 2).sum(axis=-1))


def slow_chaos(y, xy):
    d = distances((xy - xy.mean(axis=0)) / xy.std(axis=0))
    total = 0.0
    for c in set(y):
        members = [i for i in range(len(y)) if y[i] == c]
        if len(members) > 2:
            total += sum(min(d[i, j] for j in members if j != i) for i in members)
    return total / len(y)


def slow_foreign(y, xy, k):
    d = distances(xy) + np.diag(np.full(len(y), np.inf))
    return np.array([sum(y[j] != y[i] for j in np.argsort(d[i])[:k]) for i in range(len(y))])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 60))
def test_equal_slow_versions(seed, n):
    y, xy = tissue(seed, n)
    k = min(10, n - 1)
    assert chaos(y, xy) == pytest.approx(slow_chaos(y, xy))
    assert pas(y, xy) == pytest.approx(np.mean(slow_foreign(y, xy, k) > k / 2))
    assert np.array_equal(border(y, xy), slow_foreign(y, xy, min(6, n - 1)) > 0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 6.3), st.floats(0.01, 100))
def test_invariances(seed, angle, scale):
    y, xy = tissue(seed)
    truth = np.random.default_rng(seed + 1).integers(0, 4, len(y))
    got = domain_scores(y, truth, xy)
    order = np.random.default_rng(seed).permutation(len(y))
    names = np.array(["d", "b", "a", "c"])[y]
    assert domain_scores(names[order], truth[order], xy[order]) == pytest.approx(got)
    assert domain_scores(y, truth, xy * scale + 7) == pytest.approx(got)
    c, s = np.cos(angle), np.sin(angle)
    turned = domain_scores(y, truth, xy @ [[c, -s], [s, c]])
    # CHAOS standardises each axis by itself, so it alone may change under rotation.
    assert {**turned, "chaos": 0} == pytest.approx({**got, "chaos": 0})


def test_slides_are_kept_apart():
    y, xy = tissue(0)
    z, uv = tissue(1)
    both = domain_scores(np.r_[y, z], np.r_[z, y], np.r_[xy, uv], slides=np.repeat(["one", "two"], 60))
    assert both["chaos"] == pytest.approx((chaos(y, xy) + chaos(z, uv)) / 2)
    assert both["pas"] == pytest.approx((pas(y, xy) + pas(z, uv)) / 2)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 4))
def test_recall_of_the_smallest_equals_all_assignments_tried(seed, clusters, classes):
    rng = np.random.default_rng(seed)
    truth = np.r_[0, 0, np.repeat(np.arange(1, classes), rng.integers(3, 12, classes - 1))]
    found = rng.integers(0, clusters, len(truth))
    table = np.array([[np.sum((truth == t) & (found == f)) for f in range(clusters)] for t in range(truth.max() + 1)])
    most = max(table.shape)
    square = np.zeros((most, most))
    square[: table.shape[0], : table.shape[1]] = table
    sums = {p: square[np.arange(most), p].sum() for p in itertools.permutations(range(most))}
    best = [p for p, total in sums.items() if total == max(sums.values())]
    assert smallest_recall(found, truth) == max(square[0, p[0]] for p in best) / 2


def test_recall_of_the_smallest_by_example():
    truth = np.repeat(["large", "small"], [8, 4])
    assert smallest_recall(np.repeat([1, 0], [8, 4]), truth) == 1.0
    assert smallest_recall(np.repeat([0, 1], [9, 3]), truth) == 0.75
    assert smallest_recall(np.repeat([0, 1], [4, 8]), truth) == 1.0
    assert smallest_recall(np.zeros(12), truth) == 0.0


def test_divergence_of_slides_by_hand():
    found, slides = np.array([0, 0, 1, 1, 0, 0, 0, 0]), np.repeat(["a", "b"], 4)
    middle = np.array([0.75, 0.25])
    by_hand = 0.5 * (0.5 * np.log2(0.5 / middle)).sum() + 0.5 * np.log2(1 / 0.75)
    assert slide_divergence(found, slides) == pytest.approx(by_hand)
    assert slide_divergence(np.tile([0, 1], 4), slides) == pytest.approx(0)
    assert slide_divergence(np.repeat([0, 1], 4), slides) == pytest.approx(1)
    assert domain_scores(found, np.arange(8) % 2, np.random.default_rng(0).random((8, 2)), slides=slides)[
        "slide_divergence"
    ] == pytest.approx(by_hand)
    with pytest.raises(ValueError, match="one slide only"):
        slide_divergence(found, np.zeros(8))


def test_blocks_are_compact_and_of_one_slide():
    y, xy = tissue(0, 200)
    slides = np.repeat([0, 1], 100)
    blocks = tissue_blocks(xy, slides=slides, number=5)
    assert len(np.unique(blocks)) == 10
    assert all(len(np.unique(slides[blocks == b])) == 1 for b in np.unique(blocks))
    assert pas(blocks[:100], xy[:100]) < 0.2 < pas(y[:100], xy[:100])
    assert len(np.unique(tissue_blocks(xy[:3], number=5))) == 3
    with pytest.raises(ValueError, match="number must be at least 1"):
        tissue_blocks(xy, number=0)


def test_coinciding_cells():
    xy, y = np.zeros((30, 2)), np.arange(30) % 2
    assert chaos(y, xy) == 0.0 and 0 <= pas(y, xy) <= 1


def test_bad_inputs():
    y, xy = tissue(0)
    with pytest.raises(ValueError, match="coordinates has 59 rows"):
        pas(y, xy[1:])
    with pytest.raises(ValueError, match="labels has one class only"):
        domain_scores(y, np.zeros(60), xy)
    with pytest.raises(ValueError, match="predicted has length 3"):
        domain_scores(y[:3], y, xy)
    with pytest.raises(ValueError, match="coordinates has NaN"):
        chaos(y, np.where(xy > 0, np.nan, xy))
    with pytest.raises(ValueError, match="at least 2 cells"):
        pas([0], [[0.0, 1.0]])


@pytest.mark.slow
def test_published_values_on_osmfish(mirror):
    import anndata as ad

    adata = ad.read_h5ad(mirror / "h5ad" / "osmfish_ssctx.h5ad")
    adata = adata[adata.obs["region"] != "Excluded"]
    assert adata.n_obs == 4839
    expected = {
        "region": (0.019272193650500813, 0.010539367637941723),
        "cell_type": (0.06433440837277422, 0.7497416821657367),
    }
    for key, (chaos_value, pas_value) in expected.items():
        labels = adata.obs[key].to_numpy()
        assert chaos(labels, adata.obsm["spatial"]) == pytest.approx(chaos_value, rel=1e-12)
        assert pas(labels, adata.obsm["spatial"]) == pytest.approx(pas_value, rel=1e-12)
