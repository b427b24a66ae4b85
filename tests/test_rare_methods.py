"""Table 4's methods: they find what is planted, do what their papers say, and give the same again."""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

FOLDER = Path(__file__).parent.parent / "experiments"
sys.path.insert(0, str(FOLDER))

import _rare_methods as rare_methods  # noqa: E402

from graphfm import datasets, io  # noqa: E402
from graphfm.metrics.rare import rare_scores  # noqa: E402

METHODS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name in rare_methods.NEEDS and find_spec(rare_methods.NEEDS[name]) is None,
            reason=f"needs the package {rare_methods.NEEDS.get(name)}",
        ),
    )
    for name in rare_methods.METHODS
]


@pytest.fixture(scope="module")
def toy():
    return datasets.toy(num_cells=600, num_genes=200, num_tfs=20, rare_fraction=0.03, seed=0)


@pytest.fixture(scope="module")
def planted():
    """15 cells of 480 with 12 genes of their own; the 60 genes of four common kinds are silent in them."""
    rng = np.random.default_rng(0)
    is_rare = np.arange(480) < 15
    rate = np.exp(rng.normal(size=400))[None].repeat(480, axis=0)
    rate[:, :60] = np.where(is_rare[:, None], 0.1, np.exp(rng.normal(size=(4, 60)))[np.arange(480) % 4])
    rate[:, 60:72] = np.where(is_rare[:, None], 12, 0.02)
    counts = sp.csr_matrix(rng.poisson(rate).astype(np.float32))
    return AnnData(counts, obs=pd.DataFrame({"rare": is_rare}, index=[f"cell{i}" for i in range(480)]))


def _check(found, adata):
    pd.testing.assert_index_equal(found.index, adata.obs_names)
    assert list(found.columns) == ["population", "score"]
    assert found["population"].dtype.kind == "O" and found["score"].dtype.kind == "f"
    assert all(name is None or isinstance(name, str) for name in found["population"])
    assert np.isfinite(found["score"]).all()


@pytest.mark.parametrize("kind", ["counts", "log1p"])
@pytest.mark.parametrize("name", METHODS)
def test_calls_have_their_shape_and_come_again(toy, name, kind):
    adata = toy if kind == "counts" else AnnData(io.expression(toy), obs=toy.obs)
    before = adata.X.copy()
    found = rare_methods.METHODS[name](adata, 1, kind)
    _check(found, adata)
    # so fine a grid has no cluster above the largest size
    assert found["population"].isna().any() or name == "leiden_4"
    pd.testing.assert_frame_equal(found, rare_methods.METHODS[name](adata, 1, kind))
    assert abs(adata.X - before).nnz == 0
    if name not in rare_methods.STOCHASTIC:
        other = rare_methods.METHODS[name](adata, 2, kind)["score"]
        np.testing.assert_allclose(other, found["score"], rtol=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_methods_find_what_is_planted(planted, name):
    if name in ("leiden_4", "isolation_forest"):
        pytest.skip("cuts everything into small clusters, or looks at one component at a time")
    found = rare_methods.METHODS[name](planted, 0, "counts")
    scores = rare_scores(planted.obs["rare"].to_numpy(), called=found["population"].notna(), score=found["score"])
    assert scores["auroc"] > 0.9
    if name not in ("fire", "local_outlier_factor"):  # whose own cutoffs are above these cells
        assert scores["f1"] > 0.9


@pytest.mark.parametrize("name", ["fire", "isolation_forest", "local_outlier_factor"])
def test_outliers_are_the_cells_of_the_highest_scores(planted, name):
    """And a cell with 200 genes of its own is one."""
    counts = planted.X.tolil()
    counts[7] = np.where(np.arange(400) < 200, 0, 30)
    found = rare_methods.METHODS[name](AnnData(counts.tocsr(), obs=planted.obs), 0, "counts")
    called = found["population"].notna()
    assert called["cell7"] and 0 < called.sum() < 10 and found["population"].nunique() == 1
    assert found["score"][called].min() > found["score"][~called].max()


@pytest.mark.parametrize("name", METHODS)
def test_many_genes_and_few_cells(name, monkeypatch):
    """Genes are chosen, and components and neighbours are no more than there are."""
    monkeypatch.setitem(rare_methods.sccad.__kwdefaults__, "trees", 20)
    for num_cells, num_genes in ((150, 2200), (12, 40)):
        adata = datasets.toy(num_cells, num_genes, num_tfs=20, rare_fraction=0.1, seed=0)
        _check(rare_methods.METHODS[name](adata, 0, "counts"), adata)


def test_small_clusters():
    labels = np.repeat([0, 1, 2], [40, 3, 57])
    found = rare_methods.small_clusters(pd.Index([f"c{i}" for i in range(100)]), labels)
    assert found["population"].tolist() == [None] * 40 + ["1"] * 3 + [None] * 57
    np.testing.assert_allclose(found["score"], -np.log(np.repeat([0.4, 0.03, 0.57], [40, 3, 57])))
    for size, called in ((16, 16), (17, 0)):
        at_most = rare_methods.small_clusters(pd.RangeIndex(100), np.repeat([0, 1], [size, 100 - size]))
        assert at_most["population"].notna().sum() == called


def slow_fire(values, genes, thresholds, weights):
    """-2 sum log(cells in the bucket / cells), a cell and a sketch at a time."""
    score = [0.0] * len(values)
    for sketch in range(len(genes)):
        buckets: dict[int, list[int]] = {}
        for cell, row in enumerate(values):
            key = 0
            for gene, threshold, weight in zip(genes[sketch], thresholds[sketch], weights[sketch], strict=True):
                if row[gene] > threshold:
                    key += int(weight)
            buckets.setdefault(key % 1017881, []).append(cell)
        for cells in buckets.values():
            for cell in cells:
                score[cell] -= 2 * np.log(len(cells) / len(values))
    return score


def test_fire_equals_a_loop(toy):
    found = rare_methods.fire(toy, 3, "counts")
    often = np.asarray((toy.X.toarray() > 2).sum(0) > 3)
    counts = toy.X.toarray()[:, often]
    totals = counts.sum(1, keepdims=True)
    values = np.log1p(counts / totals * np.median(totals)).astype(np.float32)
    genes, thresholds, weights = rare_methods.sketches(values, 3)
    assert genes.shape == thresholds.shape == weights.shape == (100, 50)
    assert values.min() <= thresholds.min() and thresholds.max() <= values.max()
    score = np.array(slow_fire(values.tolist(), genes, thresholds, weights))
    # a value beside a threshold may fall on its other side, as the two ways of scaling round differently
    assert np.isclose(found["score"], score, atol=1e-6).mean() > 0.95
    np.testing.assert_allclose(rare_methods.rareness(values, genes, thresholds, weights), score, atol=1e-9)
    low, high = np.percentile(found["score"], [25, 75])
    np.testing.assert_array_equal(found["population"].notna(), found["score"] > high + 1.5 * (high - low))


def test_fire_does_not_see_the_order_of_cells(toy):
    order = np.random.default_rng(0).permutation(toy.n_obs)
    shuffled = rare_methods.fire(toy[order].copy(), 0, "counts")
    pd.testing.assert_frame_equal(shuffled.loc[toy.obs_names], rare_methods.fire(toy, 0, "counts"))


@pytest.mark.slow
def test_fire_on_the_cells_of_its_authors(mirror):
    """40 Jurkat cells of 1,580, where an F1 of .714 is known of FiRE with its own rule."""
    adata = datasets.load("fire_jurkat_1580_lognorm")
    truth = (adata.obs["cell_type"] == "Jurkat").to_numpy()
    runs = [rare_methods.fire(adata, seed, "log1p") for seed in range(5)]
    f1 = [rare_scores(truth, called=run["population"].notna())["f1"] for run in runs]
    assert np.mean(f1) == pytest.approx(0.714, abs=0.05)


def test_clusters_are_decomposed_until_small(planted):
    values = rare_methods.log_normalized(planted, "counts").X
    start = rare_methods.louvain(values, 0)
    parts = rare_methods.decomposed(values, start, 40, 0)
    labels, before = rare_methods.labelled(parts), rare_methods.labelled(start)
    for i, cells in enumerate(parts):
        np.testing.assert_array_equal(np.flatnonzero(labels == i), cells)
        assert len(set(before[cells])) == 1
        assert len(cells) < 40 or len(rare_methods.louvain(values[cells], 0)) == 1
    assert sum(map(len, parts)) == planted.n_obs


def test_clusters_merge_as_if_centres_were_taken_anew(planted):
    values = rare_methods.log_normalized(planted, "counts").X
    labels = np.random.default_rng(0).integers(30, size=planted.n_obs)
    labels[:3] = 30
    found = rare_methods.merged(values, labels, 0.4)
    groups = [list(np.flatnonzero(labels == i)) for i in range(31)]
    dense = values.toarray().astype(np.float64)
    for _ in range(12):
        centres = [dense[cells].mean(0) for cells in groups]
        pairs = [(np.linalg.norm(centres[i] - centres[j]), i, j) for i in range(len(groups)) for j in range(i)]
        _, i, j = min(pairs)
        groups[j] += groups.pop(i)
    assert len(groups) == 19
    assert {frozenset(cells) for cells in groups} == {frozenset(np.flatnonzero(found == i)) for i in range(19)}


def test_isolated_reads_the_genes_whose_medians_differ_most(planted, monkeypatch):
    values = rare_methods.log_normalized(planted, "counts").X
    inside = planted.obs["rare"].to_numpy()
    assert rare_methods.isolated(values, inside, 0) == 1
    assert rare_methods.isolated(values, np.arange(480) % 20 == 0, 0) < 0.5
    seen = []
    import sklearn.ensemble

    class Spy(sklearn.ensemble.IsolationForest):
        def fit(self, table, *rest):
            seen.append(table)
            return super().fit(table, *rest)

    monkeypatch.setattr(sklearn.ensemble, "IsolationForest", Spy)
    rare_methods.isolated(values, inside, 0)
    # of the genes that the cluster's cells have at all
    tables = seen[0], values[:, values[inside].getnnz(axis=0) > 0].toarray()
    read, of_all = (np.abs(np.median(x[inside], axis=0) - np.median(x[~inside], axis=0)) for x in tables)
    np.testing.assert_array_equal(read, np.sort(of_all)[:-21:-1])
    assert rare_methods.isolated(sp.csr_matrix(np.eye(40)), np.arange(40) < 10, 0) == 0
