"""Scores of an embedding of your own cells."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

import graphfm
from graphfm.tasks import cell_types


@pytest.fixture(scope="module")
def cells():
    return graphfm.datasets.toy(300, 150, num_tfs=15)


def test_scores_lie_between_the_controls_and_are_those_of_the_task(cells):
    cells.obs["given"] = cells.obs["cell_type"].where(np.arange(300) % 10 > 0)
    cells.obsm["dealt"] = np.random.default_rng(0).normal(size=(300, 5))
    before = cells.copy()
    scores = graphfm.tl.evaluate(cells, label_key="given", batch_key="slide", library_key="slide", keys=("dealt",))
    assert list(scores.index) == [
        "shuffled",
        "principal components",
        "mean over neighbours",
        "dealt",
        "graphfm",
        "graphfm, batches together",
        "oracle",
    ]
    assert set(before.obsm) == set(cells.obsm) and not cells.obsp  # nothing is written to your cells
    known = cells[cells.obs["given"].notna()].copy()
    graphfm.tl.build_graphs(known, library_key="slide")
    graphfm.tl.embed(known)
    expected = cell_types.evaluate(known.obsm["X_graphfm"], known.obs["given"].to_numpy(), 0)
    assert scores.loc["graphfm", list(expected)].to_dict() == pytest.approx(expected)
    bound = scores[["avgbio", "accuracy", "overall", "macro_f1_across"]]
    assert (bound.loc["graphfm"] > bound.loc["shuffled"]).all() and (bound.loc["graphfm"] <= bound.loc["oracle"]).all()
    assert scores.loc["dealt", "avgbio"] < 0.3 < scores.loc["graphfm", "avgbio"]


def test_command(cells, tmp_path, capsys, monkeypatch):
    import sys

    from graphfm.__main__ import main

    cells.write_h5ad(tmp_path / "cells.h5ad")
    paths = {name: str(tmp_path / name) for name in ("cells.h5ad", "scores.csv")}
    words = ["evaluate", paths["cells.h5ad"], "--label-key", "cell_type", "--table", paths["scores.csv"]]
    monkeypatch.setattr(sys, "argv", ["graphfm", *words])
    main()
    table = pd.read_csv(tmp_path / "scores.csv", index_col=0)
    assert table.loc["oracle", "accuracy"] == 1 and "mean over neighbours" in capsys.readouterr().out


def test_bad_input(cells):
    with pytest.raises(KeyError, match="leiden"):
        graphfm.tl.evaluate(cells, label_key="leiden")
    with pytest.raises(KeyError, match="X_scVI"):
        graphfm.tl.evaluate(cells, label_key="cell_type", keys=("X_scVI",))
    for name in ("graphfm", "oracle"):
        with pytest.raises(ValueError, match=f"'{name}' is the name of a row"):
            graphfm.tl.evaluate(
                AnnData(cells.X, cells.obs, cells.var, obsm={name: cells.X}), label_key="cell_type", keys=name
            )
    cells.obs["one"], cells.obs["none"] = "a", np.nan
    with pytest.raises(ValueError, match="label_key='none' must tell at least two"):
        graphfm.tl.evaluate(cells, label_key="none")
    with pytest.raises(ValueError, match="names 1 batch, and two are needed"):
        graphfm.tl.evaluate(cells, label_key="cell_type", batch_key="one")
    cells.obs["few"] = ["a"] * (cells.n_obs - 3) + ["b"] * 3
    with pytest.raises(ValueError, match="label_key='few' must have at least two labels of 5 cells"):
        graphfm.tl.evaluate(cells, label_key="few")
    with pytest.raises(ValueError, match="fewer than two labels of label_key='cell_type' are in several batches"):
        graphfm.tl.evaluate(cells, label_key="cell_type", batch_key="cell_type")


def test_a_graph_of_another_embedding_will_do(cells):
    import scanpy as sc

    mine = cells.copy()
    mine.obsm["X_own"] = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    mine.obsm["X_sparse"] = sp.csr_matrix(mine.obsm["X_own"])
    sc.pp.neighbors(mine, use_rep="X_own")
    scores = graphfm.tl.evaluate(mine, label_key="cell_type", keys="X_own")
    assert {"X_own", "principal components"} <= set(scores.index) and "X_pca" not in mine.obsm
    sparse = graphfm.tl.evaluate(mine, label_key="cell_type", keys=["X_sparse"])
    assert sparse.loc["X_sparse"].to_dict() == scores.loc["X_own"].to_dict()


def test_an_embedding_of_yours_is_scored_whatever_its_name(cells):
    mine = cells.copy()
    mine.obsm["X_graphfm"] = np.random.default_rng(0).normal(size=(300, 5))
    scores = graphfm.tl.evaluate(mine, label_key="cell_type", keys=["X_graphfm"])
    assert scores.loc["X_graphfm", "avgbio"] < 0.3 < scores.loc["graphfm", "avgbio"]
