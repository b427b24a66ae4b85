"""The toy tissue: reproducible at every size, writable, with planted signal that is there but not given away."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from graphfm.datasets import toy
from graphfm.genes import vocabulary
from graphfm.metrics.grn import grn_scores
from graphfm.metrics.labels import agreement, clustering_scores, knn_accuracy
from graphfm.metrics.rare import rare_scores

SMALL = {"num_genes": 60, "num_tfs": 12}


@pytest.fixture(scope="module")
def adata():
    return toy()


@pytest.fixture(scope="module")
def log_values(adata):
    x = adata.X.toarray()
    return np.log1p(1e4 * x / x.sum(axis=1, keepdims=True))


@pytest.fixture(scope="module")
def pcs(log_values):
    from sklearn.decomposition import PCA

    return PCA(20, random_state=0).fit_transform(log_values)


def test_format(adata):
    assert adata.shape == (2000, 500)
    assert sparse.issparse(adata.X) and adata.X.format == "csr" and adata.X.dtype == np.float32
    assert adata.X.has_canonical_format and (adata.X.data > 0).all() and (adata.X.data % 1 == 0).all()
    assert set(adata.obs) == {"cell_type", "domain", "batch", "slide", "is_rare"}
    assert adata.obs["is_rare"].dtype == bool and adata.var["is_tf"].dtype == bool
    assert adata.obs_names.is_unique and adata.var_names.is_unique
    assert adata.obs["domain"].nunique() == 4 and adata.obs["batch"].nunique() == 2
    assert adata.obsm["spatial"].shape == (2000, 2)
    assert 0.2 < adata.X.nnz / np.prod(adata.shape) < 0.7


@pytest.mark.parametrize("organism", ["human", "mouse"])
def test_genes_come_from_the_vocabulary(organism):
    adata = toy(10, organism=organism, **SMALL)
    table = vocabulary().table.drop_duplicates(f"{organism}_symbol").set_index(f"{organism}_symbol")
    rows = table.loc[adata.var_names]
    assert (rows["tf"].to_numpy(bool) == adata.var["is_tf"].to_numpy()).all()
    assert (rows[f"{organism}_id"].to_numpy() == adata.var["gene_ids"].to_numpy()).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 600), st.integers(1, 600), st.integers(0, 3), st.integers(1, 3))
def test_first_cells_do_not_depend_on_the_number_of_cells(short, more, seed, num_batches):
    a = toy(short, seed=seed, num_batches=num_batches, **SMALL)
    b = toy(short + more, seed=seed, num_batches=num_batches, **SMALL)[:short]
    assert (a.X != b.X).nnz == 0
    pd.testing.assert_frame_equal(a.obs.astype(str), b.obs.astype(str))
    assert list(a.var_names) == list(b.var_names)


def test_seed_and_spatial_flag():
    a, b, c = toy(300, seed=1, **SMALL), toy(300, seed=1, spatial=False, **SMALL), toy(300, seed=2, **SMALL)
    assert (a.X != b.X).nnz == 0 and "spatial" not in b.obsm and "domain" not in b.obs
    assert list(a.var_names) != list(c.var_names)
    assert np.array_equal(a.obsm["spatial"], toy(300, seed=1, **SMALL).obsm["spatial"])


@pytest.mark.parametrize("rare_fraction", [0.02, 0.0])
def test_round_trip_through_h5ad(tmp_path, rare_fraction):
    a = toy(200, rare_fraction=rare_fraction, **SMALL)
    a.write_h5ad(tmp_path / "toy.h5ad")
    b = ad.read_h5ad(tmp_path / "toy.h5ad")
    assert (a.X != b.X).nnz == 0
    pd.testing.assert_frame_equal(a.obs, b.obs)
    truth, back = a.uns["toy_truth"], b.uns["toy_truth"]
    pd.testing.assert_frame_equal(
        truth["grn"].reset_index(drop=True), back["grn"].reset_index(drop=True), check_index_type=False
    )
    assert list(truth["rare_tfs"]) == list(back["rare_tfs"])
    assert truth["rare_type"] == back["rare_type"] and dict(truth["parameters"]) == dict(back["parameters"])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([(8, 3), (60, 12), (300, 40)]))
def test_network_is_sparse_signed_and_without_cycles(seed, size):
    import networkx as nx

    adata = toy(1, size[0], num_tfs=size[1], seed=seed)
    grn = adata.uns["toy_truth"]["grn"]
    assert not grn.duplicated(["tf", "target"]).any() and (grn["tf"] != grn["target"]).all()
    assert (np.sign(grn["weight"]) == grn["sign"]).all() and set(grn["sign"]) <= {-1, 1}
    assert adata.var["is_tf"][grn["tf"]].all() and grn["target"].isin(adata.var_names).all()
    assert nx.is_directed_acyclic_graph(nx.from_pandas_edgelist(grn, "tf", "target", create_using=nx.DiGraph))
    if size[1] >= 12:
        assert 0 < len(grn) < 0.3 * size[0] * size[1]


@settings(max_examples=10, deadline=None)
@given(st.integers(200, 1500), st.sampled_from([0.0, 0.01, 0.02, 0.1]))
def test_number_of_rare_cells(num_cells, fraction):
    adata = toy(num_cells, rare_fraction=fraction, **SMALL)
    rare = adata.obs["is_rare"]
    assert abs(rare.sum() - fraction * num_cells) <= 1 + 128 * fraction
    name = adata.uns["toy_truth"]["rare_type"]
    assert (rare == (adata.obs["cell_type"] == name)).all()
    assert (name == "") == (fraction == 0)


@pytest.mark.parametrize("num_domains", [1, 2, 3, 7])
def test_any_number_of_domains_of_similar_size(num_domains):
    share = toy(1500, num_domains=num_domains, **SMALL).obs["domain"].value_counts(normalize=True)
    assert len(share) == num_domains and share.min() > 0.5 / num_domains


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        ({"num_cells": 0}, "num_cells"),
        ({"num_tfs": 300}, "num_tfs"),
        ({"num_types": 2}, "num_types"),
        ({"rare_fraction": 0.6}, "rare_fraction"),
        ({"dropout": 1.0}, "dropout"),
        ({"depth": 0.0}, "depth"),
        ({"organism": "fly"}, "organism"),
        ({"num_genes": 10**6}, "vocabulary"),
    ],
)
def test_bad_arguments(bad, name):
    with pytest.raises(ValueError, match=name):
        toy(**({"num_cells": 10} | bad))


def test_types_can_be_recovered(adata, pcs):
    assert clustering_scores(pcs, adata.obs["cell_type"])["ari"] > 0.6
    assert 0.8 < knn_accuracy(pcs, adata.obs["cell_type"])["accuracy"] <= 1


def test_correlation_sees_the_network_but_not_all_of_it(adata, log_values):
    tf = np.flatnonzero(adata.var["is_tf"])
    correlation = np.corrcoef(log_values.T)[tf]
    names = adata.var_names.to_numpy(object)
    prediction = pd.DataFrame(
        {"tf": np.repeat(names[tf], len(names)), "target": np.tile(names, len(tf)), "score": correlation.ravel()}
    )
    scores = grn_scores(prediction, adata.uns["toy_truth"]["grn"])
    assert 1.5 < scores["auprc_ratio"] < 0.6 / scores["prevalence"]
    assert scores["sign_balanced_accuracy"] > 0.6


def neighborhood_mean(adata, values, k=18):
    from scipy.spatial import cKDTree

    result = np.empty_like(values)
    for slide in adata.obs["slide"].unique():
        rows = np.flatnonzero(adata.obs["slide"] == slide)
        xy = adata.obsm["spatial"][rows]
        near = cKDTree(xy).query(xy, k=k + 1)[1]
        result[rows] = values[rows][near].mean(axis=1) - values[rows].mean(axis=0)
    return result


def test_neighborhood_mean_beats_pca_for_domains(adata, log_values, pcs):
    from sklearn.decomposition import PCA

    smooth = PCA(15, random_state=0).fit_transform(neighborhood_mean(adata, log_values))
    plain = clustering_scores(pcs, adata.obs["domain"])["ari"]
    assert clustering_scores(smooth, adata.obs["domain"])["ari"] > plain + 0.2
    assert agreement(adata.obs["cell_type"], adata.obs["domain"])["ari"] < 0.5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rare_type_is_told_by_its_programme(seed):
    """The oracle knows the rare TFs: the mean of their targets sets the rare cells apart."""
    adata = toy(seed=seed)
    x = adata.X.toarray()
    x = np.log1p(1e4 * x / x.sum(axis=1, keepdims=True))
    grn = adata.uns["toy_truth"]["grn"]
    own = grn[grn["tf"].isin(adata.uns["toy_truth"]["rare_tfs"])]
    score = x[:, adata.var_names.get_indexer(own["target"].unique())].mean(axis=1)
    assert rare_scores(adata.obs["is_rare"], score=score)["auprc"] > 0.8


def test_batches_differ(adata, log_values):
    first = adata.obs["batch"] == "batch_0"
    flat = toy(batch_effect=0.0)
    x = flat.X.toarray()
    x = np.log1p(1e4 * x / x.sum(axis=1, keepdims=True))
    shift = np.abs(log_values[first].mean(axis=0) - log_values[~first].mean(axis=0)).mean()
    assert shift > 2 * np.abs(x[first].mean(axis=0) - x[~first].mean(axis=0)).mean()
