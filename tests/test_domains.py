"""`tl.spatial_domains` and `tl.niches`, from a tissue to its regions."""

import numpy as np
import pandas as pd
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
    values = tl.slices.slice_components(graphfm.io.expression(found), np.zeros(found.n_obs, dtype=int), 15, 0)
    own = adjusted_rand_score(truth, alone.fit_predict(values))
    assert adjusted_rand_score(truth, found.obs["spatial_domain"]) > max(0.6, own)
    table = found.uns["spatial_domain"]
    assert table["size"].is_monotonic_decreasing and table["size"].sum() == found.n_obs
    assert (found.obs["spatial_domain"].value_counts()[table["domain"]].to_numpy() == table["size"]).all()
    assert table["fraction"].sum() == pytest.approx(1) and (table["slides"] <= found.obs["slide"].nunique()).all()
    assert found.obs["spatial_domain_confidence"].between(0.2, 1).all()
    sure = found.obs["spatial_domain_confidence"] > 0.9
    match = table.set_index("domain").index.map(lambda name: truth[found.obs["spatial_domain"] == name].mode()[0])
    right = truth == found.obs["spatial_domain"].map(dict(zip(table["domain"], match, strict=True))).astype(str)
    assert right[sure].mean() > right[~sure].mean() + 0.1


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


def test_levels_are_nested(found):
    levels = found.uns["spatial_domain_levels"]
    number = len(levels)
    assert list(levels.columns) == [str(k) for k in range(1, number + 1)]
    assert (levels[str(number)] == levels.index).all() and levels["1"].nunique() == 1
    for fewer, more in zip(levels.columns[:-1], levels.columns[1:], strict=True):
        assert levels[fewer].nunique() == levels[more].nunique() - 1
        assert (levels.groupby(more, observed=True)[fewer].nunique() == 1).all()


def test_a_number_is_chosen(found):
    adata = found[found.obs["slide"] == found.obs["slide"].iloc[0]].copy()
    tl.spatial_domains(adata, key_added="own")
    assert 3 <= adata.uns["own_params"]["n_domains"] <= 7  # four are planted
    assert not adata.uns["own_params"]["n_domains_given"] and found.uns["spatial_domain_params"]["n_domains_given"]


def test_niches_are_where_types_are_mixed_alike(found):
    number = found.obs["domain"].nunique()
    adata = tl.niches(found, cell_type_key="cell_type", n_niches=number, library_key="slide", copy=True)
    assert "niche" not in found.obs
    assert adjusted_rand_score(adata.obs["domain"], adata.obs["niche"]) > 0.6
    types, composition = adata.uns["niche_types"], adata.obsm["niche_composition"]
    np.testing.assert_allclose(types.sum(axis=1), 1)
    np.testing.assert_allclose(composition.sum(axis=1), 1)
    assert list(types.columns) == list(composition.columns) == sorted(adata.obs["cell_type"].unique())
    # what a niche is said to hold is what its cells are, but for the pull to the whole tissue
    own = pd.crosstab(adata.obs["niche"], adata.obs["cell_type"], normalize="index")
    assert np.abs(own.loc[types.index, types.columns].to_numpy() - types.to_numpy()).max() < 0.1
    # composition of a cell by a loop over its 18 nearest of the slide, and those that have it among theirs
    slide = np.flatnonzero(adata.obs["slide"] == adata.obs["slide"].iloc[0])
    xy = adata.obsm["spatial"][slide]
    apart = np.linalg.norm(xy[:, None] - xy, axis=-1) + np.diag(np.full(len(xy), np.inf))
    near = np.argsort(apart, axis=1)[:, :18]
    around = [j for j in range(len(xy)) if j in near[0] or 0 in near[j]] + [0]
    expected = adata.obs["cell_type"].iloc[slide[around]].value_counts(normalize=True)
    np.testing.assert_allclose(composition.iloc[slide[0]][expected.index], expected)
    chosen = tl.niches(found, cell_type_key="cell_type", library_key="slide", copy=True)
    assert 2 <= chosen.uns["niche_params"]["n_niches"] <= 15


def test_niches_say_what_is_wrong(found):
    adata = found[:200].copy()
    with pytest.raises(KeyError, match=r"'leiden'.*cell_type"):
        tl.niches(adata, cell_type_key="leiden")
    with pytest.raises(ValueError, match="n_niches=1"):
        tl.niches(adata, cell_type_key="cell_type", n_niches=1)
    adata.obs["one"] = "a"
    with pytest.raises(ValueError, match="one type only"):
        tl.niches(adata, cell_type_key="one")
    adata.obs.loc[adata.obs_names[:3], "one"] = None
    with pytest.raises(ValueError, match="missing for 3 cells"):
        tl.niches(adata, cell_type_key="one")


def test_results_survive_a_file(found, tmp_path):
    graphfm.io.write(found, tmp_path / "a.h5ad")
    back = graphfm.io.read(tmp_path / "a.h5ad")
    assert back.uns["spatial_domain"].equals(found.uns["spatial_domain"])
    assert back.obs["spatial_domain"].equals(found.obs["spatial_domain"])
    assert back.uns["spatial_domain_levels"].equals(found.uns["spatial_domain_levels"])


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"n_domains": 1}, ValueError, "n_domains=1"),
        ({"n_domains": 500}, ValueError, "n_domains=500"),
        ({"n_domains": "4"}, ValueError, "n_domains='4': pass a whole number"),
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


def test_a_map_shows_every_cell_and_how_sure_it_is(found):
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    graphfm.pl.domains(ax, found, slide="slide_1", library_key="slide")
    shown, cells = ax.collections[0], (found.obs["slide"] == "slide_1").to_numpy()
    np.testing.assert_array_equal(shown.get_offsets(), found.obsm["spatial"][cells])
    opacity = found.obs["spatial_domain_confidence"].to_numpy()[cells]
    np.testing.assert_allclose(shown.get_facecolor()[:, 3], np.clip(opacity, 0.15, 1))
    assert [t.get_text() for t in ax.get_legend().get_texts()] == found.uns["spatial_domain"]["domain"].tolist()
    assert len(graphfm.pl.domains(Figure().subplots(), found).collections[0].get_offsets()) == found.n_obs
    with pytest.raises(KeyError, match="nothing"):
        graphfm.pl.domains(ax, found, key="nothing")
    with pytest.raises(KeyError, match="section"):
        graphfm.pl.domains(ax, found, slide="a", library_key="section")
    with pytest.raises(ValueError, match="slide='a' has no cell"):
        graphfm.pl.domains(ax, found, slide="a", library_key="slide")


def on_a_lattice(adata):
    """As spots of an array, where many neighbours are as far away as the next."""
    spots = adata.copy()
    side = int(np.ceil(np.sqrt(spots.n_obs)))
    spots.obsm["spatial"] = np.stack(np.divmod(np.arange(spots.n_obs), side), axis=1).astype(float)
    return spots


@pytest.mark.parametrize("lattice", [False, True])
def test_the_order_of_the_cells_does_not_matter(found, lattice):
    adata = on_a_lattice(found[:300]) if lattice else found[:300].copy()
    other = adata[np.random.default_rng(2).permutation(adata.n_obs)].copy()
    for cells in (adata, other):
        tl.spatial_domains(cells, n_domains=3, n_neighbors=6)
        tl.niches(cells, cell_type_key="cell_type", n_niches=3, n_neighbors=6)
    back = other[adata.obs_names]
    for name in ("spatial_domain", "niche"):
        assert adjusted_rand_score(adata.obs[name], back.obs[name]) == 1
        np.testing.assert_allclose(adata.obs[f"{name}_confidence"], back.obs[f"{name}_confidence"], atol=1e-5)


def test_slices_of_different_genes_are_refused(found):
    adata = found.copy()
    first = (adata.obs["slide"] == adata.obs["slide"].unique()[0]).to_numpy()
    x = adata.X.tolil()
    x[np.ix_(first, np.arange(100))] = 0
    x[np.ix_(~first, np.arange(100, 200))] = 0
    adata.X = x.tocsr()
    with pytest.raises(ValueError, match="slices have 0 genes in common"):
        tl.spatial_domains(adata, n_domains=3, library_key="slide")
    with pytest.raises(ValueError, match="has no cells"):
        tl.spatial_domains(adata[:0].copy())
    with pytest.raises(ValueError, match="key_added='slide' would overwrite"):
        tl.spatial_domains(adata, n_domains=2, library_key="slide", key_added="slide")
    with pytest.raises(ValueError, match="key_added='cell_type' would overwrite"):
        tl.niches(adata, cell_type_key="cell_type", key_added="cell_type")
    adata.X[:] = 1
    with pytest.raises(ValueError, match="Only 0 genes vary"):
        tl.spatial_domains(adata, n_domains=3)
