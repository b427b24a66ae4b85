"""`tl.find_rare` from counts to calls: what is rare is found, what only looks like it is not."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

import graphfm
from graphfm import tl
from graphfm.datasets import toy
from graphfm.metrics.rare import population_scores


@pytest.fixture(scope="module")
def found():
    adata = toy(1500, 500, num_tfs=40, rare_fraction=0.01, seed=0)
    tl.find_rare(adata, batch_key="batch")
    return adata


def test_what_is_planted_is_found(found):
    table, truth = found.uns["rare"], found.obs["is_rare"].to_numpy()
    scores = population_scores(truth, found.obs["rare_population"].astype(object))
    assert scores["pooled_f1"] > 0.9 and scores["num_populations"] == 1
    row = table.iloc[0]
    assert row["population"] == "rare 1" and row["size"] == (found.obs["rare_population"] == "rare 1").sum()
    assert row["fdr"] == 0 and row["stability"] > 0.7 and row["separation"] > 0.8 and row["batches"] == 2
    assert row["nearest"] in found.obs["rare_background"].cat.categories
    # a marker is expressed more in the population than in any abundant type
    logged = graphfm.io.expression(found)
    for gene in row["markers"].split(", "):
        values = pd.Series(logged[:, [found.var_names.get_loc(gene)]].toarray().ravel(), index=found.obs_names)
        others = values[~truth].groupby(found.obs["rare_background"][~truth], observed=True).mean()
        assert values[truth].mean() > others.max()
    assert found.obs["rare_score"].min() >= 0
    assert found.obs["rare_score"][truth].median() > found.obs["rare_score"][~truth].quantile(0.99)
    assert found.uns["rare_params"]["largest"] == int(150 + 2 * 150**0.5) and "X_graphfm" not in found.obsm


def test_neighbours_that_vouch_are_enough(monkeypatch):
    """Without any community as a candidate."""
    monkeypatch.setattr(graphfm.tl.rare, "TESTED_GROUPS", 0)
    adata = toy(1500, 500, num_tfs=40, rare_fraction=0.005, seed=0)
    tl.find_rare(adata, batch_key="batch", n_shuffles=0)
    truth = adata.obs["is_rare"].to_numpy()
    assert truth.sum() == 7 and population_scores(truth, adata.obs["rare_population"].astype(object))["f1"] > 0.8


def test_nothing_is_called_where_nothing_is_rare():
    adata = toy(1500, 500, num_tfs=40, rare_fraction=0.0, seed=0)
    tl.find_rare(adata, batch_key="batch", n_shuffles=0)
    assert adata.obs["rare_population"].isna().all() and adata.uns["rare"].empty
    assert list(adata.uns["rare"]) == list(graphfm.tl.rare.COLUMNS)


def test_the_same_seed_gives_the_same(found):
    again = toy(1500, 500, num_tfs=40, rare_fraction=0.01, seed=0)
    changed = tl.find_rare(again, batch_key="batch", key_added="r", copy=True)
    assert list(again.obs) == [c for c in found.obs if not c.startswith("rare_")]
    pd.testing.assert_frame_equal(changed.uns["r"], found.uns["rare"])
    np.testing.assert_array_equal(changed.obs["r_score"], found.obs["rare_score"])


def test_the_order_of_the_cells_does_not_matter():
    adata = toy(600, 200, num_tfs=20, rare_fraction=0.015, seed=3)
    shuffled = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    for made in (adata, shuffled):
        tl.find_rare(made, batch_key="batch", n_resamples=2)
    pd.testing.assert_frame_equal(adata.uns["rare"], shuffled.uns["rare"])
    for column in ("rare_population", "rare_background", "rare_score"):
        pd.testing.assert_series_equal(adata.obs[column], shuffled.obs[column][adata.obs_names])


def test_few_deep_cells_are_not_hidden_by_what_they_hold_of_their_type():
    adata = toy(1500, 500, num_tfs=40, rare_fraction=0.02, seed=1)
    truth = adata.obs["is_rare"].to_numpy()
    kinds = adata.obs["cell_type"].astype(str)
    counts = sp.csr_matrix(adata.X)
    deep = sp.diags_array(np.where(truth, 4.0, 1.0)) @ counts
    made = AnnData(sp.csr_matrix(deep.astype(np.float32)), adata.obs[["batch"]], adata.var[[]])
    small = kinds[~truth].value_counts().index[0]
    keep = truth | (kinds != small).to_numpy() | (np.cumsum(kinds == small) <= 150).to_numpy()
    made, truth = made[keep].copy(), truth[keep]
    tl.find_rare(made, batch_key="batch", n_shuffles=0)
    assert population_scores(truth, made.obs["rare_population"].astype(object))["f1"] > 0.8


def test_doublets_are_not_rare():
    adata = toy(1500, 500, num_tfs=40, rare_fraction=0.0, seed=1)
    counts, kinds = sp.csr_matrix(adata.X), adata.obs["cell_type"].astype(str).to_numpy()
    rng, (a, b) = np.random.default_rng(0), np.unique(kinds)[:2]
    both = counts[rng.choice(np.flatnonzero(kinds == a), 30)] + counts[rng.choice(np.flatnonzero(kinds == b), 30)]
    mixed = AnnData(sp.vstack([counts, both]).tocsr(), var=adata.var[[]])
    tl.find_rare(mixed, n_shuffles=0)
    called = mixed.obs["rare_population"].notna().to_numpy()
    assert called[-30:].mean() < 0.1


def test_what_a_batch_shifts_is_not_rare():
    """A small batch of one type, with a third of the genes at other rates: an island, unless the batch is known."""
    adata = toy(1500, 500, num_tfs=40, num_batches=1, rare_fraction=0.0, seed=2)
    counts, rng = sp.csr_matrix(adata.X).toarray(), np.random.default_rng(0)
    kinds = adata.obs["cell_type"].astype(str).to_numpy()
    shifted = rng.choice(np.flatnonzero(kinds == np.unique(kinds)[0]), 45, replace=False)
    genes = rng.choice(500, 150, replace=False)
    counts[np.ix_(shifted, genes)] += rng.poisson(3, (45, 150))
    made = AnnData(sp.csr_matrix(counts.astype(np.float32)), var=adata.var[[]])
    made.obs["batch"] = np.where(np.isin(np.arange(1500), shifted), "late", "early")
    blind = tl.find_rare(made, n_shuffles=0, copy=True)
    assert blind.obs["rare_population"].notna().to_numpy()[shifted].mean() > 0.8
    tl.find_rare(made, batch_key="batch", n_shuffles=0)
    assert made.obs["rare_population"].isna().all()


def test_logarithms_normalised_values_and_unknown_genes(found):
    truth = found.obs["is_rare"].to_numpy()
    made = AnnData(graphfm.io.expression(found), var=pd.DataFrame(index=[f"g{i}" for i in range(found.n_vars)]))
    made.layers["linear"] = sp.csr_matrix(made.X).expm1()
    for given in ({"kind": "log1p"}, {"kind": "normalized", "layer": "linear"}):
        tl.find_rare(made, n_shuffles=0, n_resamples=3, **given)
        assert population_scores(truth, made.obs["rare_population"].astype(object))["f1"] > 0.9


def test_a_representation_of_ones_own(found, monkeypatch):
    adata = found.copy()
    graphfm.pp.knn_graph(adata)
    tl.find_rare(adata, use_rep="X_pca", n_shuffles=0, n_resamples=0)
    assert adata.uns["rare_params"]["use_rep"] == "X_pca" and adata.uns["rare"]["stability"].isna().all()
    truth = adata.obs["is_rare"].to_numpy()
    assert population_scores(truth, adata.obs["rare_population"].astype(object))["f1"] > 0.9
    # a representation of the model's own name is one's own all the same
    adata.obsm["X_graphfm"] = adata.obsm["X_pca"]
    monkeypatch.setattr(graphfm.tl.rare._Embedding, "__call__", lambda *_: pytest.fail("embedded anew"))
    tl.find_rare(adata, use_rep="X_graphfm", n_shuffles=0, n_resamples=0)
    tl.rare_limit(adata, sizes=(30,))


def test_the_limit_is_that_of_types_left_out(found, monkeypatch):
    adata = found.copy()
    tl.rare_limit(adata, sizes=(5, 30))
    table = adata.uns["rare_limit"]
    assert len(table) == 2 * adata.obs["rare_background"].nunique() and set(table["size"]) == {5, 30}
    large = table[table["size"] == 30]
    assert (large["f1"] > 0.8).mean() > 0.7 and adata.uns["rare_params"]["limit"] in (0, 5, 30)
    # what does not come back is not called, and so not found
    monkeypatch.setattr(graphfm.tl.rare, "MIN_STABILITY", 1.1)
    tl.rare_limit(adata, sizes=(30,))
    assert (adata.uns["rare_limit"]["f1"] == 0).all() and adata.uns["rare_params"]["limit"] == 0
    with pytest.raises(ValueError, match="min_cells=5"):
        tl.rare_limit(adata, sizes=(4,))
    with pytest.raises(KeyError, match="find_rare"):
        tl.rare_limit(adata, key="other")


def test_results_survive_a_file(found, tmp_path):
    graphfm.io.write(found, tmp_path / "a.h5ad")
    back = graphfm.io.read(tmp_path / "a.h5ad")
    assert back.uns["rare"]["markers"].tolist() == found.uns["rare"]["markers"].tolist()
    assert back.obs["rare_population"].equals(found.obs["rare_population"])


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"batch_key": "sample"}, KeyError, "batch_key='sample'"),
        ({"batch_key": "incomplete"}, ValueError, "incomplete.*missing"),
        ({"use_rep": "X_umap"}, KeyError, "X_umap"),
        ({"layer": "raw"}, KeyError, "raw"),
        ({"max_fraction": 0.5}, ValueError, "max_fraction=0.5"),
        ({"min_cells": 2}, ValueError, "min_cells=2"),
        ({"n_shuffles": -1}, ValueError, "n_shuffles=-1"),
        ({"organism": "yeti"}, ValueError, "yeti"),
        ({"device": "abacus"}, ValueError, "abacus"),
    ],
)
def test_bad_arguments_are_named(found, given, error, text):
    adata = found[:200].copy()
    adata.obs["incomplete"] = adata.obs["batch"].where(np.arange(200) > 0)
    before = list(adata.obs)
    with pytest.raises(error, match=text):
        tl.find_rare(adata, **given)
    assert list(adata.obs) == before


def test_too_few_cells_and_cells_of_one_kind():
    adata = toy(300, 100, num_tfs=10)
    with pytest.raises(ValueError, match="40 cells"):
        tl.find_rare(adata[:40].copy())
    one = adata[adata.obs["cell_type"] == adata.obs["cell_type"].iloc[0]].copy()
    if one.n_obs >= 50:
        tl.find_rare(one, n_shuffles=0)
        assert one.obs["rare_population"].isna().all()
    same = AnnData(sp.csr_matrix(np.ones((100, 20), dtype=np.float32)))
    with pytest.raises(ValueError, match="var"):
        tl.find_rare(same)
