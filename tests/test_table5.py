"""Table 5: slides are what they say, simple recipes are right, it prints what was kept and takes up what is left."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA

import graphfm

FOLDER = Path(__file__).parent.parent / "experiments"
sys.path.insert(0, str(FOLDER))

import _spatial_slides as slides  # noqa: E402
import table5_spatial as table5  # noqa: E402


@pytest.fixture(scope="module")
def toy():
    return slides.load("toy")


def test_simple_recipes_equal_loops(toy):
    logged = graphfm.io.expression(toy).toarray()
    spread = logged.std(axis=0)
    kept = spread > 0
    standard = (logged[:, kept] - logged[:, kept].mean(axis=0)) / spread[kept]
    expected, found = PCA(15, svd_solver="full").fit_transform(standard), slides.components(toy, 0)
    for dimension in range(3):  # each axis up to its sign
        assert abs(np.corrcoef(expected[:, dimension], found[:, dimension])[0, 1]) > 0.999
    xy, means = toy.obsm["spatial"], slides.surroundings(toy, 0)
    apart = np.linalg.norm(xy[:, None] - xy, axis=-1) + np.diag(np.full(len(xy), np.inf))
    near = np.argsort(apart, axis=1)[:, :18]
    around = [j for j in range(len(xy)) if j in near[7] or 7 in near[j]] + [7]
    np.testing.assert_allclose(means[7], found[around].mean(axis=0), rtol=1e-5, atol=1e-6)


def test_a_gene_is_predicted_from_the_other_cells(toy):
    cells, genes = slides.hidden_genes(toy, 0)
    assert cells.sum() == toy.n_obs // 2 and 20 <= len(genes) <= 200
    for method in ("gene_mean", "knn_15", "neighbor_mean"):
        predicted = slides.imputed(method, toy, cells, genes, 0)
        assert predicted.shape == (cells.sum(), len(genes)) and np.isfinite(predicted).all()
    mean = slides.imputed("gene_mean", toy, cells, genes, 0)[0]
    known = graphfm.io.expression(toy[~cells], target_sum=1e4)[:, genes]
    np.testing.assert_allclose(mean, known.toarray().mean(axis=0), rtol=1e-5)


def test_ours_is_not_told_what_is_hidden(toy, monkeypatch):
    cells, genes = slides.hidden_genes(toy, 1)
    seen = {}
    monkeypatch.setattr(slides.tl, "impute", lambda panel, reference, **given: seen.update(panel=panel.copy(), **given))
    with pytest.raises(KeyError):
        slides.imputed("graphfm", toy, cells, genes, 1)
    assert not set(seen["panel"].var_names) & set(toy.var_names[genes])
    assert seen["panel"].n_obs == cells.sum() and seen["genes"] == list(toy.var_names[genes])


def test_zero_shot_components_are_of_other_tissues(toy, monkeypatch):
    made = {"a": toy, "b": toy[::2].copy(), "c": toy[1::2].copy()}
    tissues = {"a": "x", "b": "x", "c": "y"}
    monkeypatch.setattr(slides, "SLIDES", {name: slides.Slide(name, "domain", tissues[name]) for name in made})
    monkeypatch.setattr(slides, "load", made.get)
    found = slides.linear_zero_shot("a", toy, 0)
    assert found.shape == (toy.n_obs, 15)
    made["b"] = toy[:50].copy()  # of the same tissue: not read
    np.testing.assert_allclose(slides.linear_zero_shot("a", toy, 0), found)
    made["c"] = toy[:200].copy()
    assert np.abs(slides.linear_zero_shot("a", toy, 0) - found).max() > 0.1
    made["c"] = toy[:, :10].copy()  # too few genes in common
    assert slides.linear_zero_shot("a", toy, 0) is None


def records():
    base = {"seconds": 2.0, "peak_mb": 512.0, "num_cells": 99, "num_genes": 9, "nmi": 0.5, "border_f1": 0.4}
    base |= {"smallest_recall": 0.3, "chaos": 0.1, "pas": 0.2, "probe": 0.8}
    return [
        base | {"dataset": name, "setting": "slide", "method": method, "clusterer": clusterer, "seed": seed, "ari": ari}
        for name, gain in (("dlpfc_151673", 0.0), ("osmfish_ssctx", 0.1))
        for method, clusterer, level in (
            ("pca", "mixture", 0.2),
            ("pca", "field", 0.3),
            ("graphfm", "own", 0.5),
        )
        for seed, ari in enumerate((level + gain, level - gain))
    ]


def test_tables_say_what_was_kept():
    kept = records()
    text = table5.everything(kept)
    assert "| `pca` | 0.200 | 0.500 | 0.300 | 0.500 |  |  | 0.400 | 0.300 | 0.100 | 0.200 | 0.800 | 2.0 | 2 |" in text
    assert "- `pca` (field) all +0.200 (+0.200 to +0.200), above on 2 of 2\n" in text  # both were looked at
    assert "| osmfish_ssctx | 0.20 / 0.30 | 0.50 |" in text
    impute = {"dataset": "dlpfc_151673", "setting": "impute", "clusterer": "", "seed": 0, "seconds": 1.0}
    kept += [impute | {"method": m, "spearman": s, "rmse": 1 - s} for m, s in (("knn_15", 0.1), ("graphfm", 0.2))]
    kept.append(
        {"dataset": "x", "setting": "scale", "method": "graphfm", "clusterer": "own", "seed": 0}
        | {"seconds": 61.0, "peak_mb": 2048.0, "num_cells": 36554, "num_genes": 248}
    )
    repeat = {"setting": "repeat", "method": "graphfm", "clusterer": "own", "seed": 0}
    kept += [repeat | {"dataset": name, "ari": ari} for name, ari in (("dlpfc_151673", 0.9), ("osmfish_ssctx", 1.0))]
    text = table5.everything(kept)
    assert "mean over 2 slides: `graphfm` 0.950 (least 0.900).\n" in text
    assert "| `graphfm` | 0.200 / 0.800 | 1 |" in text and "36,554 cells (Xenium, 248 genes): 61 s, 2.0 GB." in text
    assert table5.everything([]) == ""


def test_jobs_are_told_apart():
    frame = pd.DataFrame(table5.jobs())
    assert not frame.duplicated().any() and set(frame["setting"]) == set(table5.METHODS)
    assert set(frame["method"]) <= set(table5.ORDER) and frame.query("setting == 'slide'")["dataset"].nunique() == 15


def test_a_second_run_adds_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table5, "PATH", tmp_path / "t.jsonl")
    job = {"dataset": "toy", "setting": "slide", "seed": 0}
    monkeypatch.setattr(table5, "jobs", lambda: [job | {"method": m} for m in ("shuffled", "pca", "oracle")])
    monkeypatch.setattr(sys, "argv", ["t"])
    table5.main()
    first = table5._spine.read(tmp_path / "t.jsonl")
    assert [(r["method"], r["clusterer"]) for r in first] == [
        ("shuffled", "own"),
        ("pca", "mixture"),
        ("pca", "field"),
        ("oracle", "own"),
    ]
    assert first[-1]["ari"] == first[-1]["border_f1"] == 1 and first[0]["ari"] < 0.05 < first[2]["ari"]
    table5.main()
    assert table5._spine.read(tmp_path / "t.jsonl") == first and "`oracle`" in capsys.readouterr().out


def test_readme_shows_the_records():
    kept, text = table5._spine.read(table5.PATH), (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert kept and all("dirty" not in record["commit"] for record in kept)
    block = text.split("<!-- table5 -->\n")[1].split("<!-- /table5 -->")[0]
    assert block == table5.everything(kept), "run: python experiments/table5_spatial.py --readme"
