"""Table 4: its designs are what they say, it prints what was kept, and it takes up what is left."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

FOLDER = Path(__file__).parent.parent / "experiments"
sys.path.insert(0, str(FOLDER))

import _rare_designs as designs  # noqa: E402
import table4_rare as table4  # noqa: E402


@pytest.fixture
def made(monkeypatch):
    """Types of 400, 300, 200, 60 and 20 cells; the fourth is to be rare."""
    rng = np.random.default_rng(0)
    kinds = np.repeat(list("abcde"), [400, 300, 200, 60, 20])
    adata = AnnData(sp.csr_matrix(rng.poisson(2.0, (980, 12)).astype(np.float32)))
    adata.obs["kind"], adata.obs["run"] = kinds, rng.choice(["x", "y"], 980)
    monkeypatch.setattr(designs, "load", lambda dataset: adata)
    return designs.Made("anything", "kind", "d", "run", most=350)


def test_draws_have_the_prevalence_and_no_other_small_type(made):
    for prevalence in (0.05, 0.02, 0.005, 0.0):
        adata, truth = made.draw(prevalence, 0)
        assert truth.sum() == round(prevalence * (~truth).sum() / (1 - prevalence))
        sizes = adata.obs["kind"].value_counts()
        assert "e" not in sizes and sizes["a"] == 350 and sizes["b"] == 300
    adata, truth = made.draw(0.1, 0)
    assert truth.sum() == 60 and truth.mean() == pytest.approx(0.1, abs=0.002)
    again, other = made.draw(0.02, 0)[0], made.draw(0.02, 1)[0]
    assert again.obs_names.equals(made.draw(0.02, 0)[0].obs_names) and not again.obs_names.equals(other.obs_names)


def test_dealt_backgrounds_keep_types_and_batches(made):
    plain, dealt = made.draw(0.0, 0)[0], made.draw(0.0, 0, dealt=True)[0]
    assert plain.obs.equals(dealt.obs) and (plain.X != dealt.X).nnz > 0
    groups = plain.obs["kind"].astype(str) + plain.obs["run"].astype(str)
    for group in groups.unique():
        rows = (groups == group).to_numpy()
        np.testing.assert_allclose(plain.X[rows].sum(axis=0), dealt.X[rows].sum(axis=0))


def records():
    score = {"num_rare": 9, "num_cells": 99, "seconds": 2.0, "peak_mb": 1024.0, "auprc": 0.5}
    base = {"dataset": "paul15", "method": "graphfm", "seed": 0} | score
    power = [
        base
        | {"setting": "power", "design": share, "seed": seed, "f1": f1, "pooled_f1": f1 / 2, "num_populations": 1.0}
        for share, values in ((0.1, (0.2, 0.4)), (0.01, (0.8, 1.0)))
        for seed, f1 in enumerate(values)
    ]
    none = [
        base | {"setting": s, "design": 0.0, "false_discovery": v, "num_populations": v}
        for s, v in (("power", 1.0), ("dealt", 0.0))
    ]
    native = [
        base
        | {
            "dataset": "CD34+",
            "setting": "native",
            "design": None,
            "f1": 0.96,
            "pooled_f1": 0.5,
            "num_populations": 2.0,
        }
    ]
    scale = [base | {"dataset": "toy_100k", "setting": "scale", "design": 0.005, "f1": 1.0}]
    return power + none + native + scale


def test_tables_say_what_was_kept():
    kept = records()
    text = table4.everything(kept)
    assert "| `graphfm` | 0.30 | 0.90 | 0.600 | 0.300 | 1.00 | 0.00 | 2.0 | 2 |" in text
    assert (
        "CD34+ 9/99" in text and "| `graphfm` | 0.96 / 0.50 (2) |" in text and "| `graphfm` | 1.00 | 2 | 1.0 |" in text
    )
    summary = table4.power(kept)
    row = summary.loc[("paul15", "graphfm", 0.01)]
    assert row["draws"] == 2 and row["detected"] == 1 and row["low"] < row["f1"] < row["high"]
    other = [r | {"method": "fire", "f1": 0.1} for r in kept if r["setting"] == "power" and r["design"] == 0.1]
    area = table4.areas(table4.power(kept + other))
    # only the share that both were run at counts
    assert area.loc["graphfm", "paul15"] == pytest.approx(0.3) and area.loc["fire", "paul15"] == pytest.approx(0.1)
    assert table4.everything([]) == "" and "Does the graph help" not in text


def test_variants_are_compared_on_the_draws_that_all_have():
    ours = [r for r in records() if r["setting"] == "power"]
    # of the two draws of graphfm, with an F1 of 0.2 and 0.8 and of 0.4 and 1, the variant has the second
    variant = [r | {"method": "graphfm:no_graph", "f1": 0.1} for r in ours if r["seed"] == 1]
    text = table4.graph_table(ours + variant)
    assert "| `graphfm` | 0.700 |" in text and "| `graphfm:no_graph` | 0.100 |" in text and "paul15 2." in text
    assert "pca" not in text and table4.graph_table(ours) == ""


def test_jobs_are_told_apart():
    frame = pd.DataFrame(table4.jobs())
    assert not frame.duplicated(list(table4.KEYS)).any()
    assert set(frame["method"]) == set(table4.ROWS) and set(frame["setting"]) == set(table4.SETTINGS)


def test_a_second_run_adds_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table4, "PATH", tmp_path / "t.jsonl")
    monkeypatch.setattr(designs, "NUM_TOY", 600)
    monkeypatch.setattr(
        sys, "argv", ["t", "--dataset", "toy", "--method", "shuffled", "oracle", "local_outlier_factor", "--seed", "0"]
    )
    table4.main()
    first = table4._spine.read(tmp_path / "t.jsonl")
    oracle = [r for r in first if r["method"] == "oracle" and r["design"]]
    assert oracle and all(r["f1"] == r["pooled_f1"] == r["auprc"] == 1 for r in oracle)
    assert {r["false_discovery"] for r in first if r["design"] == 0 and r["method"] == "oracle"} == {0.0}
    table4.main()
    assert table4._spine.read(tmp_path / "t.jsonl") == first and "`oracle`" in capsys.readouterr().out


def test_readme_shows_the_records():
    kept, text = table4._spine.read(table4.PATH), (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert kept and all("dirty" not in record["commit"] for record in kept)
    block = text.split("<!-- table4 -->\n")[1].split("<!-- /table4 -->")[0]
    assert block == table4.everything(kept), "run: python experiments/table4_rare.py --readme"
