"""`tl.annotate`: references, few labels, other names and species, cells of no known type."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

import graphfm
from graphfm import tl
from graphfm.tl.annotation import MAX_CELLS_A_TYPE, joint_cells, some_of_each


@pytest.fixture(scope="module")
def toy():
    return graphfm.datasets.toy(800, 300, num_tfs=20, seed=0)


@pytest.fixture(scope="module")
def halves(toy):
    order = np.random.default_rng(0).permutation(toy.n_obs)
    return toy[np.sort(order[:400])].copy(), toy[np.sort(order[400:])].copy()


def right(adata, key="annotation"):
    return float((adata.obs[key].astype(str) == adata.obs["cell_type"].astype(str)).mean())


def test_types_of_a_reference(halves):
    reference, query = halves
    before = reference.copy()
    found = tl.annotate(query, reference, label_key="cell_type", copy=True)
    assert right(found) > 0.9 and "annotation" not in query.obs
    assert reference.obs.equals(before.obs) and set(reference.obsm) == set(before.obsm)
    probability = found.obsm["annotation_probability"]
    np.testing.assert_allclose(probability.sum(axis=1), 1)
    assert (probability.idxmax(axis=1).to_numpy() == found.obs["annotation"].to_numpy()).all()
    np.testing.assert_allclose(probability.max(axis=1), found.obs["annotation_confidence"])
    table = found.uns["annotation"]
    assert table["size"].sum() == 400 and table["labelled"].sum() == 400
    assert all(len(markers.split(", ")) == 10 for markers in table["markers"])
    assert set(", ".join(table["markers"]).split(", ")) <= set(reference.var_names)


def test_what_was_done_to_the_query_does_not_decide(halves):
    """Genes that a treatment turned up in all cells of one side: its cells meet their like of the other."""
    reference, query = halves
    factors = np.where(np.random.default_rng(0).random(query.n_vars) < 0.3, 8, 1)
    treated = query.copy()
    treated.X = sp.csr_matrix(sp.csr_matrix(query.X).multiply(factors))
    assert right(tl.annotate(treated, reference, label_key="cell_type", copy=True)) > 0.95
    parts = [(cells, None, "counts", "auto") for cells in (reference, treated)]
    joint = joint_cells(parts, graphfm.GraphFM.from_pretrained(), 0)
    apart = [np.linalg.norm(np.diff(np.split(joint.obsm[k], 2), axis=0).mean(1)) for k in ("X_pca", "X_integrated")]
    assert apart[1] < 0.2 * apart[0]
    alone = joint_cells(parts[:1], graphfm.GraphFM.from_pretrained(), 0)
    np.testing.assert_allclose(alone.obsm["X_integrated"], alone.obsm["X_pca"], atol=1e-5)


def test_few_labels_are_kept_and_spread(toy):
    few = toy.copy()
    labels = few.obs["cell_type"].astype(object)
    kept = labels.groupby(labels).head(5).index
    few.obs["mine"] = labels.where(few.obs_names.isin(kept))
    tl.annotate(few, label_key="mine")
    assert (few.obs.loc[kept, "annotation"].astype(str) == labels[kept]).all()
    assert right(few) > 0.85
    assert few.uns["annotation"]["labelled"].tolist() == [5] * labels.nunique()


def test_the_same_seed_gives_the_same(halves):
    reference, query = halves
    one, two = (tl.annotate(query, reference, label_key="cell_type", copy=True) for _ in range(2))
    assert one.obsm["annotation_probability"].equals(two.obsm["annotation_probability"])


def test_genes_in_another_order_and_more_of_them(halves):
    reference, query = halves
    rng = np.random.default_rng(0)
    more = AnnData(sp.random(query.n_obs, 20, 0.2, format="csr", rng=rng), obs=query.obs[[]])
    more.X.data = np.ceil(more.X.data * 3)
    more.var_names = [f"only_here_{i}" for i in range(20)]
    wide = AnnData(
        sp.csr_matrix(sp.hstack([query.X, more.X])),
        obs=query.obs,
        var=pd.DataFrame(index=[*query.var_names, *more.var_names]),
    )
    shuffled = wide[:, rng.permutation(wide.n_vars)].copy()
    tl.annotate(shuffled, reference, label_key="cell_type")
    assert right(shuffled) > 0.9 and shuffled.uns["annotation_params"]["shared_genes"] == reference.n_vars


def test_mouse_and_human_genes_meet(halves):
    reference, query = halves
    vocabulary = graphfm.genes.vocabulary()
    rows = vocabulary.table.query("human_symbol != '' and mouse_symbol != ''").head(300)
    human, mouse = reference.copy(), query.copy()
    human.var_names, mouse.var_names = rows["human_symbol"].to_list(), rows["mouse_symbol"].to_list()
    for adata in (human, mouse):
        adata.var = adata.var[[]]
    tl.annotate(mouse, human, label_key="cell_type")
    assert mouse.uns["annotation_params"]["shared_genes"] == 300 and right(mouse) > 0.9
    assert set(", ".join(mouse.uns["annotation"]["markers"]).split(", ")) <= set(mouse.var_names)


def test_cells_of_no_known_type(halves):
    reference, query = halves
    largest = reference.obs["cell_type"].value_counts().index[0]
    rest = reference[(reference.obs["cell_type"] != largest).to_numpy()].copy()
    found = tl.annotate(query, rest, label_key="cell_type", unknown=0.05, copy=True)
    new = (found.obs["cell_type"] == largest).to_numpy()
    familiar = found.obs["annotation_familiarity"].to_numpy()
    assert familiar[new].mean() < familiar[~new].mean()
    called = (found.obs["annotation"] == "unknown").to_numpy()
    assert called[new].mean() > 0.5 > called[~new].mean() + 0.2
    assert (familiar[called] < found.uns["annotation_params"]["threshold"]).all()
    quiet = tl.annotate(query, rest, label_key="cell_type", copy=True)
    assert "unknown" not in quiet.obs["annotation"].cat.categories


def test_a_reference_is_thinned_type_by_type():
    labels = pd.Series(["a"] * 1000 + ["b"] * 7 + [np.nan] * 5, dtype=object)
    chosen = some_of_each(labels, 0)
    assert labels.iloc[chosen].value_counts().to_dict() == {"a": MAX_CELLS_A_TYPE, "b": 7}
    assert (np.diff(chosen) > 0).all() and not np.array_equal(chosen, some_of_each(labels, 1))


def test_counts_and_their_logarithms_agree(halves):
    reference, query = halves
    logged = AnnData(graphfm.io.expression(reference), obs=reference.obs, var=reference.var)
    one = tl.annotate(query, reference, label_key="cell_type", copy=True)
    two = tl.annotate(query, logged, label_key="cell_type", reference_kind="log1p", copy=True)
    np.testing.assert_allclose(one.obsm["annotation_probability"], two.obsm["annotation_probability"], atol=1e-4)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"label_key": "nothing"}, KeyError, "'nothing'"),
        ({"unknown": 1.5}, ValueError, "unknown=1.5"),
        ({"key_added": "X_pca"}, ValueError, "key_added"),
        ({"reference_layer": "counts_of_ours"}, KeyError, "counts_of_ours"),
        ({"kind": "log1p"}, ValueError, "log1p"),
    ],
)
def test_bad_input(halves, change, error, says):
    reference, query = halves
    query = query.copy()
    with pytest.raises(error, match=says):
        tl.annotate(query, reference, **({"label_key": "cell_type"} | change))
    assert "annotation" not in query.obs and "annotation" not in query.uns


def test_bad_references(halves):
    reference, query = halves
    lone = reference.copy()
    lone.obs["cell_type"] = "T"
    with pytest.raises(ValueError, match="1 types"):
        tl.annotate(query, lone, label_key="cell_type")
    foreign = reference.copy()
    foreign.var = foreign.var[[]]
    foreign.var_names = [f"x{i}" for i in range(foreign.n_vars)]
    with pytest.raises(ValueError, match="0 genes in common"):
        tl.annotate(query, foreign, label_key="cell_type")
    lone.obs["score"] = np.linspace(0, 1, lone.n_obs)
    with pytest.raises(ValueError, match=r"label_key='score'.*measured numbers"):
        tl.annotate(query, lone, label_key="score")
    with pytest.raises(ValueError, match=r"every cell of query has a label.*Pass reference="):
        tl.annotate(query, label_key="cell_type")
    with pytest.raises(ValueError, match="cells"):
        tl.annotate(query[:2].copy(), reference, label_key="cell_type")
    broken = reference.copy()
    broken.X[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"^reference: adata\.X .*NaN"):
        tl.annotate(query, broken, label_key="cell_type")
    with pytest.raises(ValueError, match=r"^query: adata\.X .*NaN"):
        tl.annotate(broken, reference, label_key="cell_type")


def test_a_panel_is_told_by_a_whole_transcriptome(halves):
    """Sizes are those of the genes that both have: the answer is that of a reference cut to the panel."""
    reference, query = halves
    panel = query[:, ::8].copy()
    whole = tl.annotate(panel, reference, label_key="cell_type", copy=True)
    cut = tl.annotate(panel, reference[:, ::8].copy(), label_key="cell_type", copy=True)
    names = "annotation_probability"
    np.testing.assert_allclose(whole.obsm[names], cut.obsm[names], atol=1e-4)


@pytest.mark.parametrize("by_reference", [True, False])
def test_the_order_of_the_cells_does_not_matter(toy, by_reference):
    rng = np.random.default_rng(3)
    cells = toy.copy()
    cells.obs["mine"] = cells.obs["cell_type"].astype(object).where(rng.random(toy.n_obs) < 0.1)
    other = cells[rng.permutation(cells.n_obs)].copy()
    found = []
    for each in (cells, other):
        query = each.copy()
        tl.annotate(query, each if by_reference else None, label_key="mine")
        found.append(query.obsm["annotation_probability"].loc[cells.obs_names])
    np.testing.assert_allclose(*found, atol=2e-3)  # where the solver stops


def test_the_order_of_many_cells_does_not_matter(halves, monkeypatch):
    """Of more than fit, some are drawn: for the components, and to be paired."""
    monkeypatch.setattr("graphfm.models.integration.MAX_CELLS", 300)
    monkeypatch.setattr("graphfm.pp.knn.PCA_CELLS", 300)
    reference, query = halves
    thin = query.copy()
    thin.X = sp.csr_matrix(np.random.default_rng(0).binomial(query.X.toarray().astype(int), 0.05).astype(np.float32))
    other = thin[np.random.default_rng(1).permutation(thin.n_obs)].copy()
    found = [tl.annotate(each, reference, label_key="cell_type", copy=True) for each in (thin, other)]
    one, two = (each.obsm["annotation_probability"].loc[thin.obs_names] for each in found)
    np.testing.assert_allclose(one, two, atol=2e-3)
    found = [tl.integrate(each, batch_key="slide", copy=True) for each in (thin, other)]
    one, two = (pd.DataFrame(each.obsm["X_integrated"], each.obs_names).loc[thin.obs_names] for each in found)
    np.testing.assert_allclose(one, two, atol=1e-3)


def test_types_of_whole_numbers_keep_their_names(halves):
    reference, query = halves
    numbered = reference.copy()
    numbered.obs["leiden"] = numbered.obs["cell_type"].cat.codes.astype(int)
    numbered.obs["leiden"] = numbered.obs["leiden"].where(np.arange(numbered.n_obs) > 0)
    found = tl.annotate(query, numbered, label_key="leiden", copy=True)
    assert list(found.obs["annotation"].cat.categories) == ["0", "1", "2", "3", "4", "5"]


def test_names_that_look_like_rows_are_no_genes(toy):
    numbered = toy.copy()
    numbered.var_names = [str(i) for i in range(toy.n_vars)]
    numbered.var = numbered.var[[]]
    with pytest.raises(ValueError, match="0 genes in common"):
        tl.annotate(numbered, toy, label_key="cell_type")


def test_labels_are_not_overwritten_and_names_fit_into_files(toy, tmp_path):
    cells = toy[:200].copy()
    names = cells.obs["cell_type"].cat.rename_categories(lambda name: f"{name}/T Reg")
    cells.obs["annotation"] = names.where(np.arange(200) > 9)
    with pytest.raises(ValueError, match="key_added='annotation' would overwrite"):
        tl.annotate(cells, label_key="annotation")
    tl.annotate(cells, label_key="annotation", key_added="called")
    cells.write_zarr(tmp_path / "a.zarr")
    assert all("|T Reg" in name for name in cells.obsm["called_probability"])
    first, second = cells.obs["annotation"].cat.categories[:2]
    cells.obs["annotation"] = cells.obs["annotation"].cat.rename_categories({first: "A/B", second: "A|B"})
    cells.obs_names.name = "A|B"
    tl.annotate(cells, label_key="annotation", key_added="called")
    graphfm.io.write(cells, tmp_path / "a.h5ad")
    assert {"A|B-1", "A|B-2"} <= set(graphfm.io.read(tmp_path / "a.h5ad").obsm["called_probability"])
    tl.niches(cells, cell_type_key="called", n_niches=3, library_key="slide")
    graphfm.io.write(cells, tmp_path / "b.zarr")
    assert {"A|B", "A|B-1"} <= set(graphfm.io.read(tmp_path / "b.zarr").uns["niche_types"])
    with pytest.raises(ValueError, match="query has 1 cells to read"):
        tl.annotate(cells[:1].copy(), toy, label_key="cell_type")


def test_a_layer_of_the_query_alone(halves):
    reference, query = halves
    other = query.copy()
    other.layers["raw"] = other.X.copy()
    other.X = graphfm.io.expression(other)
    tl.annotate(other, reference, label_key="cell_type", layer="raw", reference_layer="X")
    assert right(other) > 0.9
