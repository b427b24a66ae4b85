"""`tl.align_slices`: surroundings of cells, the same from slice to slice."""

import numpy as np
import pytest

import graphfm
from graphfm import tl
from graphfm.datasets import toy
from graphfm.metrics.labels import linear_probe


@pytest.fixture(scope="module")
def adata():
    adata = toy(800, 200, num_tfs=20, seed=0)
    tl.align_slices(adata, library_key="slide")
    return adata


def test_means_equal_a_loop(adata):
    found = adata.obsm["X_tissue"]
    tl.align_slices(adata, library_key="slide", scales=(0,), key_added="cells")
    own, number = adata.obsm["cells"], adata.obsm["cells"].shape[1]
    assert found.shape == (800, 3 * number) and found.dtype == np.float32
    slide = np.flatnonzero(adata.obs["slide"] == adata.obs["slide"].iloc[0])
    xy = adata.obsm["spatial"][slide]
    apart = np.linalg.norm(xy[:, None] - xy, axis=-1) + np.diag(np.full(len(xy), np.inf))
    near = np.argsort(apart, axis=1)[:, :6]
    for i in range(5):
        around = [j for j in range(len(xy)) if j in near[i] or i in near[j]] + [i]
        np.testing.assert_allclose(found[slide[i], :number], own[slide[around]].mean(axis=0), rtol=1e-4, atol=1e-4)


def test_a_factor_of_a_slides_genes_is_taken_off_and_labels_go_across(adata):
    other = adata.copy()
    second = np.flatnonzero(other.obs["slide"] == other.obs["slide"].unique()[1])
    logged = graphfm.io.expression(other).toarray()
    logged[second] *= np.random.default_rng(0).uniform(0.5, 2, other.n_vars)
    other.layers["log"] = logged
    labels, slides = other.obs["domain"].to_numpy(), other.obs["slide"].to_numpy()
    tl.align_slices(other, library_key="slide", layer="log", kind="log1p")
    tl.align_slices(other, library_key="slide", layer="log", kind="log1p", scales=(0,), key_added="alone")
    across = linear_probe(other.obsm["X_tissue"], labels, slides)["accuracy"]
    assert across > 0.6 and across > linear_probe(other.obsm["alone"], labels, slides)["accuracy"] + 0.1


def test_neither_order_of_cells_nor_turn_of_a_slide_matters(adata):
    order = np.random.default_rng(1).permutation(adata.n_obs)
    turned = adata[order].copy()
    turned.obsm["spatial"] = turned.obsm["spatial"] @ np.array([[0.6, -0.8], [0.8, 0.6]]) - 3
    tl.align_slices(turned, library_key="slide")
    np.testing.assert_allclose(turned.obsm["X_tissue"], adata.obsm["X_tissue"][order], rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"scales": ()}, ValueError, "scales="),
        ({"scales": (-1,)}, ValueError, "scales="),
        ({"scales": (500,)}, ValueError, "scales=500"),
        ({"library_key": "section"}, KeyError, "section"),
        ({"spatial_key": "X_umap"}, KeyError, "X_umap"),
    ],
)
def test_bad_arguments_are_named(adata, given, error, text):
    part = adata[:200].copy()
    del part.obsm["X_tissue"]
    with pytest.raises(error, match=text):
        tl.align_slices(part, **given)
    assert "X_tissue" not in part.obsm
