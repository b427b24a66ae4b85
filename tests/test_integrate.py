"""`tl.integrate`: batches meet, the input stays, errors name what is wrong."""

import logging

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import graphfm
from graphfm import tl
from graphfm.tasks import integration


@pytest.fixture(scope="module")
def toy():
    """Two batches of which one counts a third of the genes three times."""
    adata = graphfm.datasets.toy(600, 200, num_tfs=20, seed=0)
    factor = np.ones((adata.n_obs, adata.n_vars), dtype=np.float32)
    factor[np.ix_(adata.obs["slide"] == "slide_1", np.arange(0, adata.n_vars, 3))] = 3
    adata.X = sp.csr_matrix(adata.X.multiply(factor))
    return adata


def scores(adata, values):
    truth = adata.obs[["cell_type", "slide"]].set_axis(["type", "batch"], axis=1)
    return integration.evaluate(values, truth)


def test_batches_meet_and_types_stay(toy):
    before = toy.copy()
    found = tl.integrate(toy, batch_key="slide", copy=True)
    assert set(toy.obsm) == set(before.obsm) and set(toy.uns) == set(before.uns) and not toy.obsp
    assert not found.obsp and "X_pca" not in found.obsm
    alone = scores(found, tl.embed(toy, copy=True).obsm["X_graphfm"])
    moved, ours = (scores(found, found.obsm[f"X_integrated{end}"]) for end in ("_pca", ""))
    assert alone["ilisi"] < 0.2 and moved["ilisi"] > 0.6 and ours["ilisi"] > 0.6
    assert ours["avgbio"] > alone["avgbio"] - 0.02 and ours["macro_f1"] >= alone["macro_f1"]
    assert found.obsm["X_integrated"].dtype == np.float32


def test_the_table_tells_who_met_whom(toy):
    table = tl.integrate(toy, batch_key="slide", copy=True).uns["X_integrated"]
    assert table["batch"].tolist() == ["slide_0", "slide_1"] and table["size"].tolist() == [300, 300]
    assert ((table["paired"] > 0.5) & (table["paired"] <= 1)).all() and (table["shift"] > 0.1).all()


def test_the_same_again_and_in_other_tiles(toy):
    one, two = (
        tl.integrate(toy, batch_key="slide", tile_size=size, copy=True).obsm["X_integrated"] for size in (8192, 100)
    )
    np.testing.assert_array_equal(one, tl.integrate(toy, batch_key="slide", copy=True).obsm["X_integrated"])
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_order_of_cells_does_not_matter(toy):
    order = np.random.default_rng(0).permutation(toy.n_obs)
    one, two = (tl.integrate(a, batch_key="slide", copy=True).obsm["X_integrated_pca"] for a in (toy, toy[order]))
    gram, other = one[order] @ one[order].T, two @ two.T  # components may change signs
    np.testing.assert_allclose(gram, other, atol=0.02 * np.abs(gram).max())


def test_other_keys_and_saving(toy, tmp_path):
    found = tl.integrate(toy, batch_key="slide", key_added="X_mine", copy=True)
    assert {"X_mine", "X_mine_pca"} <= set(found.obsm) and {"X_mine", "X_mine_params"} <= set(found.uns)
    found.write_h5ad(tmp_path / "a.h5ad")
    again = graphfm.io.read(tmp_path / "a.h5ad")
    assert again.uns["X_mine"].equals(found.uns["X_mine"])


def test_bad_input(toy):
    with pytest.raises(KeyError, match="'donor'"):
        tl.integrate(toy, batch_key="donor")
    one = toy[toy.obs["slide"] == "slide_0"].copy()
    with pytest.raises(ValueError, match="names 1 batch, and two are needed"):
        tl.integrate(one, batch_key="slide")
    some = toy.copy()
    some.obs["slide"] = some.obs["slide"].astype(object).where(np.arange(some.n_obs) > 4)
    with pytest.raises(ValueError, match="missing for 5 cells"):
        tl.integrate(some, batch_key="slide")
    with pytest.raises(ValueError, match="key_added='X_pca'"):
        tl.integrate(toy, batch_key="slide", key_added="X_pca")
    with pytest.raises(ValueError, match="key_added='X_pca' would overwrite"):
        tl.integrate(toy, batch_key="slide", key_added="X")
    with pytest.raises(ValueError, match="key_added='a/b' has a slash"):
        tl.integrate(toy, batch_key="slide", key_added="a/b")
    assert set(toy.obsm) == {"spatial"}


def test_a_batch_without_counterparts_is_named(toy, caplog):
    """Cells that share no gene with the others."""
    strange = toy.copy()
    mine = strange.obs["slide"].to_numpy() == "slide_1"
    values = strange.X.toarray()
    half = strange.n_vars // 2
    values[mine, :half], values[~mine, half:] = 0, 0
    strange.X = sp.csr_matrix(values)
    with caplog.at_level(logging.WARNING):
        table = tl.integrate(strange, batch_key="slide", copy=True).uns["X_integrated"]
    named = [record.args[0] for record in caplog.records if "counterpart" in record.msg]
    assert named == table.loc[table["paired"] < 0.05, "batch"].tolist()


def test_human_and_mouse_cells_meet_in_the_columns_of_their_orthologs():
    adata = graphfm.datasets.toy(400, 200, num_tfs=20, num_batches=2)
    table = graphfm.genes.vocabulary().table.set_index("human_symbol")["mouse_symbol"]
    batch = adata.obs["batch"].astype(str)
    human, mouse = (adata[batch == name].copy() for name in sorted(batch.unique()))
    known = [name for name in mouse.var_names if table.get(name, "")]
    mouse = mouse[:, known].copy()
    mouse.var_names = table[known].to_numpy(dtype=str)
    for part in (human, mouse):
        part.var = part.var[[]]
    both = ad.concat([human, mouse], join="outer", label="species", fill_value=0)
    assert both.n_vars == human.n_vars + mouse.n_vars
    merged = graphfm.genes.merge_genes(both)
    assert merged.n_vars == human.n_vars
    for cells in (both, merged):
        graphfm.tl.integrate(cells, batch_key="species")
    assert merged.uns["X_integrated"]["paired"].mean() > 0.5
    assert merged.uns["X_integrated"]["shift"].max() < 0.6 * both.uns["X_integrated"]["shift"].max()
