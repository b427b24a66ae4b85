"""On planted truth the oracle scores 1 and the shuffled control scores chance, in each task.

Chance is a mean over 20 shuffles: it must lie within 4 standard errors of its expectation (1 in 16,000 for a fair one).
"""

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import graphfm.metrics
import graphfm.tasks
from graphfm.datasets import toy
from graphfm.tasks import cell_types, domains, grn, imputation, node_classes, rare

SEEDS = range(20)


@pytest.fixture(scope="module")
def adata():
    return toy(600, 200, num_tfs=20)


def assert_chance(scores, expected):
    table = pd.DataFrame(scores)
    for name, value in expected.items():
        error = table[name].std(ddof=1) / np.sqrt(len(table))
        assert error > 0, name
        assert abs(table[name].mean() - value) < 4 * error, f"{name}: {table[name].mean():.4f}, expected {value:.4f}"


@pytest.mark.parametrize("kind", ["embedding", "labels"])
def test_cell_types(adata, kind):
    truth = adata.obs["cell_type"].to_numpy()
    oracle = cell_types.evaluate(cell_types.controls(truth, 0, kind=kind)["oracle"], truth, 0)
    names = ["accuracy", "macro_f1", "ari", "nmi", *(["type_silhouette", "avgbio"] if kind == "embedding" else [])]
    assert oracle == pytest.approx(dict.fromkeys(names, 1.0))
    scores = [cell_types.evaluate(cell_types.controls(truth, s, kind=kind)["shuffled"], truth, s) for s in SEEDS]
    share = pd.Series(truth).value_counts(normalize=True)
    # Dealt labels agree by chance with sum(share^2). A vote among dealt one-hot codes tells nothing: some mix of the
    # types, never above the largest one by more than noise.
    expected = {"ari": 0.0} | ({"accuracy": (share**2).sum()} if kind == "labels" else {})
    assert_chance(scores, expected)
    table = pd.DataFrame(scores)
    assert table["accuracy"].mean() < share.max() + 4 * np.sqrt(share.max() / len(truth) / len(SEEDS))
    assert table["nmi"].mean() < 0.1 and table["macro_f1"].mean() < 0.3


def test_node_classes(adata):
    truth = np.unique(adata.obs["cell_type"].astype(str), return_inverse=True)[1]
    oracle = node_classes.evaluate(node_classes.controls(truth, 0)["oracle"], truth, 0)
    assert oracle == pytest.approx(dict.fromkeys(["accuracy", "macro_f1", "rare_recall"], 1.0))
    scores = [node_classes.evaluate(node_classes.controls(truth, s)["shuffled"], truth, s) for s in SEEDS]
    share = pd.Series(truth).value_counts(normalize=True)
    assert_chance(scores, {"accuracy": (share**2).sum(), "rare_recall": share.min()})
    two = (truth == 0).astype(int)
    assert node_classes.evaluate(node_classes.controls(two, 0)["oracle"], two)["auroc"] == 1
    assert_chance(
        [node_classes.evaluate(node_classes.controls(two, s)["shuffled"], two) for s in SEEDS], {"auroc": 0.5}
    )
    with pytest.raises(ValueError, match="integers from 0"):
        node_classes.evaluate(np.zeros((len(truth), 2)), truth)


def test_grn_with_sign(adata):
    truth = adata.uns["toy_truth"]["grn"]
    oracle = grn.evaluate(grn.controls(truth, 0)["oracle"], truth, 0)
    names = ("auprc", "auroc", "sign_accuracy", "sign_balanced_accuracy", "sign_coverage")
    assert {k: oracle[k] for k in names} == pytest.approx(dict.fromkeys(names, 1.0))
    assert oracle["epr"] == pytest.approx(oracle["auprc_ratio"]) == pytest.approx(1 / oracle["prevalence"])
    positive = (truth["sign"] == 1).mean()
    scores = [grn.evaluate(grn.controls(truth, s)["shuffled"], truth, s) for s in SEEDS]
    chance = {"auroc": 0.5, "epr": 1.0, "sign_balanced_accuracy": 0.5}
    assert_chance(scores, chance | {"sign_accuracy": positive**2 + (1 - positive) ** 2})
    # The area under the precision-recall curve of a random order lies a little above the density.
    assert 0.95 < pd.DataFrame(scores)["auprc_ratio"].mean() < 1.25
    assert grn.evaluate(grn.controls(truth, 0)["oracle"].head(0), truth)["auroc"] == 0.5


def test_rare(adata):
    truth = adata.obs["is_rare"].to_numpy()
    oracle = rare.evaluate(rare.controls(truth, 0)["oracle"], truth, 0)
    prevalence = oracle.pop("prevalence")
    assert prevalence == pytest.approx(truth.mean())
    assert oracle == pytest.approx(dict.fromkeys(["f1", "precision", "recall", "auprc", "auroc"], 1.0))
    # About a dozen cells: over 20 shuffles f1 may be 0 in most, so more shuffles, and a larger population too.
    for mask, seeds in ((truth, range(400)), (adata.obs["cell_type"] == "type_0", SEEDS)):
        mask = np.asarray(mask)
        scores = [rare.evaluate(rare.controls(mask, s)["shuffled"], mask, s) for s in seeds]
        assert_chance(scores, dict.fromkeys(["f1", "precision", "recall"], mask.mean()) | {"auroc": 0.5})
        # Average precision of a random order: prevalence plus about its harmonic excess, log(n) / n.
        excess = np.log(len(mask)) / len(mask) + 4 * pd.DataFrame(scores)["auprc"].std() / np.sqrt(len(seeds))
        assert abs(pd.DataFrame(scores)["auprc"].mean() - mask.mean()) < 2 * excess


def test_domains(adata):
    xy = pd.DataFrame(adata.obsm["spatial"], columns=["x", "y"], index=adata.obs_names)
    truth = adata.obs[["domain", "slide"]].join(xy)
    oracle = domains.evaluate(domains.controls(truth, 0)["oracle"], truth, 0)
    names = ("ari", "nmi", "homogeneity", "completeness", "border_f1", "smallest_recall")
    assert {k: oracle[k] for k in names} == pytest.approx(dict.fromkeys(names, 1.0))
    scores = [domains.evaluate(domains.controls(truth, s)["shuffled"], truth, s) for s in SEEDS]
    assert_chance(scores, {"ari": 0.0})
    table = pd.DataFrame(scores)
    assert table["nmi"].mean() < 0.05
    assert oracle["chaos"] < table["chaos"].min() and oracle["pas"] < 0.1 < table["pas"].min()
    assert domains.evaluate(adata.obs["domain"].to_numpy(), truth.drop(columns="slide").assign(slide=0))["ari"] == 1.0


def test_imputation(adata):
    truth = np.log1p(adata.X[:, :30].toarray())
    oracle = imputation.evaluate(imputation.controls(truth, 0)["oracle"], truth, 0)
    assert oracle == pytest.approx({"spearman": 1.0, "rmse": 0.0, "genes_above_0": 1.0})
    scores = [imputation.evaluate(imputation.controls(truth, s)["shuffled"], truth, s) for s in range(200)]
    # genes share a shuffle and hang together, so that only the mean over many shuffles is sure
    assert_chance(scores, {"spearman": 0.0})
    assert pd.DataFrame(scores)["rmse"].mean() == pytest.approx(2**0.5, rel=0.01)
    with pytest.raises(ValueError, match="no gene that varies"):
        imputation.evaluate(truth, np.ones_like(truth))


def test_controls_are_reproducible_and_tasks_flat(adata):
    truth = adata.obs["cell_type"].to_numpy()
    one, two = (cell_types.controls(truth, 3)["shuffled"] for _ in range(2))
    assert np.array_equal(one, two)
    assert all(isinstance(v, float) for v in cell_types.evaluate(one, truth, 0).values())


def test_bad_inputs(adata):
    with pytest.raises(KeyError, match="called"):
        rare.evaluate(pd.DataFrame({"x": [1]}), np.array([True]))
    with pytest.raises(ValueError, match="shape"):
        rare.evaluate(pd.DataFrame({"score": [1.0]}), np.array([True, False]))
    with pytest.raises(KeyError, match="domain"):
        domains.evaluate(np.zeros(3), pd.DataFrame({"x": [1, 2, 3]}))
    with pytest.raises(ValueError, match="kind"):
        cell_types.controls(np.array([0, 1]), kind="graph")
    with pytest.raises(ValueError, match="one class only"):
        cell_types.evaluate(np.zeros((10, 2)), np.zeros(10))


@pytest.mark.parametrize("package", [graphfm.metrics, graphfm.tasks])
def test_metrics_and_tasks_see_no_model_and_no_anndata(package):
    for path in Path(package.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text())
        imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        imported |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        assert not any(m.startswith(("anndata", "scanpy", "squidpy")) for m in imported)
        ours = {m for m in imported if m.startswith("graphfm")}
        assert all(m.split(".")[1] in ("metrics",) for m in ours), ours
