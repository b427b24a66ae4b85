"""Table 8: what is done to the data is what it says, and the smoke run gives the rows."""

import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from graphfm import datasets

FOLDER = Path(__file__).parent.parent / "experiments"
sys.path.insert(0, str(FOLDER))

import figure8_robustness as figure8  # noqa: E402
import table8_robustness as table8  # noqa: E402


def test_thinning_keeps_the_share_of_molecules():
    adata = datasets.toy(num_cells=200, num_genes=100, num_tfs=10)
    thin = table8.thinned(adata, 0.25, np.random.default_rng(0))
    before = sp.csr_matrix(adata[thin.obs_names].X)
    assert thin.X.sum() == pytest.approx(0.25 * before.sum(), rel=0.02)
    assert (before - thin.X).min() >= 0 and np.array_equal(thin.X.data, thin.X.data.round())
    assert thin.obs["cell_type"].equals(adata.obs.loc[thin.obs_names, "cell_type"])


@pytest.mark.parametrize(("kept_genes", "number"), [(0.5, 50), (30.0, 30), (500.0, 100)])
def test_genes_are_a_subset(kept_genes, number):
    adata = datasets.toy(num_cells=100, num_genes=100, num_tfs=10)
    fewer = table8.fewer_genes(adata, kept_genes, np.random.default_rng(0))
    assert fewer.n_vars == number
    assert (fewer.X != adata[fewer.obs_names, fewer.var_names].X).nnz == 0


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_dealt_edges(share):
    rng = np.random.default_rng(1)
    graph = sp.random(300, 300, 0.05, format="csr", random_state=1)
    graph.setdiag(0)
    graph.eliminate_zeros()
    graph = graph.maximum(graph.T).tocsr()
    dealt = table8.deal_edges(graph, share, rng)
    assert abs(dealt - dealt.T).nnz == 0 and dealt.diagonal().sum() == 0
    same = ((graph > 0).multiply(dealt > 0)).nnz / graph.nnz
    assert same == pytest.approx(1 - 0.9 * share, abs=0.06)  # of dealt ones a tenth meets an edge that was there
    if not share:
        assert abs(dealt - graph).nnz == 0


def test_smoke(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["t", "--smoke", "--method", "pca", "pca:neighbor_mean"])
    table8.main()
    output = capsys.readouterr().out
    for setting, levels in table8.LEVELS.items():
        assert (f"| {table8.named(setting, levels[0])} |" in output) == (setting != "names")


def test_hidden_names_change_nothing_but_the_trunk():
    job = {"dataset": "toy", "level": 0.0, "seed": 0}
    (plain, _), (hidden, case) = (table8.disturbed({**job, "setting": name}) for name in ("clean", "names"))
    np.testing.assert_array_equal(plain.obsm["X_pca"], hidden.obsm["X_pca"])
    assert case.organism == "other" and not set(plain.var_names) & set(hidden.var_names)


def test_what_is_left_is_of_data_sets_that_have_both():
    records = [
        {"dataset": data, "setting": setting, "level": level, "method": "pca", "seed": 0, "avgbio": value}
        for data, setting, level, value in (
            ("a", "clean", 1.0, 0.5),
            ("b", "clean", 1.0, 0.9),
            ("a", "counts", 0.5, 0.4),
        )
    ]
    text = table8.render(records)
    assert "| as it is | 0.700 |" in text
    assert "| molecules kept: 50% | 0.400 (80%) |" in text


def test_figure_of_made_up_records():
    made = [job | {"avgbio": 0.5} for job in table8.jobs() if job["seed"] == 0]
    panels = figure8.figure(made).axes
    assert [len(ax.lines) for ax in panels] == [4, 4, 3, 3]
    assert [text.get_text() for text in panels[3].get_xticklabels()] == ["5", "10", "15", "30", "60"]


def test_readme_shows_the_records():
    kept, text = table8._spine.read(table8.PATH), (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert kept and all("dirty" not in record["commit"] for record in kept)
    block = text.split("<!-- table8 -->\n")[1].split("<!-- /table8 -->")[0]
    assert block == table8.render(kept), "run: python experiments/table8_robustness.py --readme"
