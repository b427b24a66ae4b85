"""`tl.spatial_domains` from counts to domains."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

import graphfm
from graphfm import tl
from graphfm.datasets import toy


@pytest.fixture(scope="module")
def found():
    adata = toy(800, 200, num_tfs=20, seed=0)
    tl.spatial_domains(adata, n_domains=adata.obs["domain"].nunique(), library_key="slide")
    return adata


def test_what_is_planted_is_found(found):
    truth = found.obs["domain"]
    alone = GaussianMixture(truth.nunique(), covariance_type="tied", n_init=10, random_state=0)
    values = tl.domains._values(graphfm.io.expression(found), np.zeros(found.n_obs, dtype=int), 0)
    own = adjusted_rand_score(truth, alone.fit_predict(values))
    assert adjusted_rand_score(truth, found.obs["spatial_domain"]) > max(0.6, own)
    table = found.uns["spatial_domain"]
    assert table["size"].is_monotonic_decreasing and table["size"].sum() == found.n_obs
    assert (found.obs["spatial_domain"].value_counts()[table["domain"]].to_numpy() == table["size"]).all()
    assert table["fraction"].sum() == pytest.approx(1) and (table["slides"] <= found.obs["slide"].nunique()).all()
    assert found.obs["spatial_domain_confidence"].between(0.2, 1).all()


def test_neither_seed_nor_place_nor_turn_of_the_tissue_matters(found):
    turned = found.copy()
    xy = turned.obsm["spatial"]
    turned.obsm["spatial"] = 3 * xy @ np.array([[0.6, -0.8], [0.8, 0.6]]) + 1000
    again = tl.spatial_domains(
        turned, n_domains=turned.obs["domain"].nunique(), library_key="slide", key_added="d", copy=True
    )
    assert "d" not in turned.obs and again.obs["d"].equals(found.obs["spatial_domain"])
    tl.spatial_domains(turned, n_domains=turned.obs["domain"].nunique(), library_key="slide", key_added="d", seed=1)
    assert adjusted_rand_score(turned.obs["d"], found.obs["spatial_domain"]) > 0.9


def test_results_survive_a_file(found, tmp_path):
    graphfm.io.write(found, tmp_path / "a.h5ad")
    back = graphfm.io.read(tmp_path / "a.h5ad")
    assert back.uns["spatial_domain"].equals(found.uns["spatial_domain"])
    assert back.obs["spatial_domain"].equals(found.obs["spatial_domain"])


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"n_domains": 1}, ValueError, "n_domains=1"),
        ({"n_domains": 500}, ValueError, "n_domains=500"),
        ({"n_domains": 3, "library_key": "section"}, KeyError, "section.*slide"),
        ({"n_domains": 3, "spatial_key": "X_umap"}, KeyError, "X_umap.*spatial"),
        ({"n_domains": 3, "layer": "raw"}, KeyError, "raw"),
        ({"n_domains": 3, "n_neighbors": 0}, ValueError, "n_neighbors=0"),
        ({"n_domains": 3, "n_neighbors": 300}, ValueError, "n_neighbors=300"),
    ],
)
def test_bad_arguments_are_named(found, given, error, text):
    adata = found[:200].copy()
    before = list(adata.obs)
    with pytest.raises(error, match=text):
        tl.spatial_domains(adata, **given)
    assert list(adata.obs) == before


def test_a_matrix_without_variation_is_refused(found):
    adata = found[:100, :3].copy()
    adata.X = adata.X.multiply(0).tocsr()
    with pytest.raises(ValueError, match="genes vary"):
        tl.spatial_domains(adata, n_domains=2)
