"""`tl.impute`: genes that were not measured, and how far they are to be believed."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestNeighbors

import graphfm
from graphfm import tl
from graphfm.datasets import toy
from graphfm.models import imputation
from graphfm.tasks.imputation import evaluate


@pytest.fixture(scope="module")
def halves():
    adata = toy(1000, 200, num_tfs=20, seed=0)
    genes = list(adata.var_names[::5])
    order = np.random.default_rng(0).permutation(adata.n_obs)
    panel, reference = adata[np.sort(order[:500])].copy(), adata[np.sort(order[500:])].copy()
    truth = graphfm.io.expression(panel, target_sum=1e4)[:, panel.var_names.get_indexer(genes)].toarray()
    panel = panel[:, ~panel.var_names.isin(genes)].copy()
    tl.impute(panel, reference, library_key="slide")
    return panel, reference, genes, truth


def test_regression_equals_a_loop_over_penalties():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 6)) * [3, 2, 1, 1, 0.3, 0.1]
    y = sp.csr_matrix(np.maximum(x @ rng.normal(size=(6, 9)) + rng.normal(size=(80, 9)) * 4, 0))
    found, dense = imputation.fit_genes(x, y), y.toarray()
    errors = []
    for penalty in imputation.PENALTIES:
        centred = x - x.mean(axis=0)
        hat = centred @ np.linalg.solve(centred.T @ centred + penalty * np.eye(6), centred.T)
        z = dense - dense.mean(axis=0)
        told = ((z - hat @ z) ** 2).sum(axis=0) / (z**2).sum(axis=0)
        errors.append(told.sum() / (80 - 1 - np.trace(hat)) ** 2)
    assert found.penalty == imputation.PENALTIES[np.argmin(errors)]
    slow = Ridge(found.penalty).fit(x, dense)
    np.testing.assert_allclose(found.predict(x), np.maximum(slow.predict(x), 0), atol=1e-8)
    np.testing.assert_array_equal(found.predict(x, slice(2, 5)), found.predict(x)[:, 2:5])


def columns(adata, genes):
    """What was predicted of these genes."""
    return pd.DataFrame(adata.obsm["imputed"], columns=adata.uns["imputed"]["gene"])[genes].to_numpy()


def test_held_out_genes_are_better_than_by_neighbours(halves):
    panel, reference, genes, truth = halves
    assert sorted(panel.uns["imputed"]["gene"]) == sorted(genes) and panel.obsm["imputed"].shape == truth.shape
    ours = evaluate(columns(panel, genes), truth)
    known = graphfm.io.expression(reference, target_sum=1e4)
    target = known[:, reference.var_names.get_indexer(genes)].toarray()
    left = [g for g in reference.var_names if g not in genes]
    space = known[:, reference.var_names.get_indexer(left)].toarray()
    near = NearestNeighbors(n_neighbors=15).fit(space)
    indices = near.kneighbors(graphfm.io.expression(panel[:, left]).toarray(), return_distance=False)
    knn = evaluate(target[indices].mean(axis=1), truth)
    assert ours["spearman"] > knn["spearman"] and ours["rmse"] < min(1, knn["rmse"])


def test_confidence_foretells_what_is_right(halves):
    panel, _, genes, truth = halves
    table = panel.uns["imputed"].set_index("gene")
    assert table["confidence"].between(-1, 1).all()
    scores = graphfm.metrics.imputation.gene_scores(columns(panel, genes), truth)
    assert np.corrcoef(table.loc[genes, "confidence"], scores["spearman"])[0, 1] > 0.8
    assert table["confidence"].median() == pytest.approx(scores["spearman"].median(), abs=0.07)


def test_order_seed_and_named_genes_change_nothing(halves):
    panel, reference, genes, _ = halves
    cells = np.random.default_rng(2).permutation(panel.n_obs)
    again = tl.impute(
        panel[cells, list(panel.var_names[::-1])].copy(), reference, genes=genes[:5], library_key="slide", copy=True
    )
    assert again.uns["imputed"]["gene"].tolist() == genes[:5]
    np.testing.assert_allclose(again.obsm["imputed"], columns(panel, genes[:5])[cells], atol=0.02)
    whole = tl.impute(reference, reference, genes=genes[:5], copy=True)  # its own values are not used
    assert (
        evaluate(whole.obsm["imputed"], graphfm.io.expression(reference[:, genes[:5]], target_sum=1e4).toarray())[
            "rmse"
        ]
        > 0.5
    )


def test_without_coordinates_cells_speak_for_themselves(halves):
    panel, reference, genes, truth = halves
    reference = reference.copy()
    del reference.obsm["spatial"]
    found = tl.impute(panel, reference, copy=True)
    assert not found.uns["imputed_params"]["spatial"] and panel.uns["imputed_params"]["spatial"]
    assert evaluate(columns(found, genes), truth)["spearman"] > 0.1


def test_results_of_many_genes_survive_files(tmp_path):
    rng, names = np.random.default_rng(0), [f"SOME/GENE{i:05d}" for i in range(5000)]
    cells = AnnData(sp.csr_matrix(rng.poisson(0.5, (60, 5000)).astype(np.float32)), var=pd.DataFrame(index=names))
    panel = cells[:30, :100].copy()
    tl.impute(panel, cells[30:])
    for name in ("a.h5ad", "a.zarr"):
        graphfm.io.write(panel, tmp_path / name)
        back = graphfm.io.read(tmp_path / name)
        assert back.uns["imputed"].equals(panel.uns["imputed"]) and len(back.uns["imputed"]) == 4900
        np.testing.assert_array_equal(back.obsm["imputed"], panel.obsm["imputed"])


def test_bad_input_is_named(halves):
    panel, reference, genes, _ = halves
    with pytest.raises(KeyError, match=r"lacks 1 of the 2 genes.*NOPE"):
        tl.impute(panel, reference, genes=[genes[0], "NOPE"])
    with pytest.raises(ValueError, match="no gene that adata lacks"):
        tl.impute(reference, reference)
    with pytest.raises(ValueError, match="share 3 genes"):
        tl.impute(panel[:, :3].copy(), reference, genes=genes)
    with pytest.raises(ValueError, match="reference has 4 cells"):
        tl.impute(panel, reference[:4])
    with pytest.raises(KeyError, match="section"):
        tl.impute(panel, reference, library_key="section")
    for name, given in (("adata", 0), ("reference", 1)):
        parts = [panel.copy(), reference.copy()]
        parts[given].X = parts[given].X.astype(np.float32)
        parts[given].X.data[0] = np.nan
        with pytest.raises(ValueError, match=rf"^{name}: adata\.X .*NaN"):
            tl.impute(*parts, genes=genes)


def test_what_is_to_be_predicted_does_not_tell_of_itself():
    """A gene with a third of the counts, independent of all others, cannot be foretold by its share of the total."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(20, size=(400, 31)).astype(np.float32)
    counts[:, 0] = rng.poisson(rng.gamma(1, 400, size=400))
    adata = toy(400, 80)[:, :31].copy()
    adata.X = sp.csr_matrix(counts)
    panel, reference = adata[:200].copy(), adata[200:].copy()
    gene = adata.var_names[0]
    tl.impute(panel, reference, genes=[gene])
    truth = graphfm.io.expression(adata[:200], target_sum=1e4)[:, [0]].toarray()
    assert panel.uns["imputed"]["confidence"].abs().max() < 0.3
    assert abs(evaluate(panel.obsm["imputed"], truth)["spearman"]) < 0.3
    lacking = panel[:, 1:].copy()
    tl.impute(lacking, reference)
    np.testing.assert_allclose(lacking.obsm["imputed"], panel.obsm["imputed"], atol=1e-5)


def test_the_order_of_the_reference_does_not_matter(halves):
    panel, reference, genes, _ = halves
    other = panel.copy()
    tl.impute(other, reference[::-1].copy(), library_key="slide")
    ours, theirs = (x.uns["imputed"].set_index("gene").loc[genes, "confidence"] for x in (panel, other))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
