"""Marks of cells, and what a model remembers."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import graphfm
from graphfm.data import seen
from graphfm.data.prepare import cell_graph, cell_marks
from graphfm.models.checkpoint import trained_on
from graphfm.models.graphfm import GraphFM
from graphfm.train import TrainConfig
from tests.conftest import make_cells, make_model


@pytest.fixture(scope="module")
def toy():
    adata = graphfm.datasets.toy(400, 200, num_tfs=15)
    letters = np.random.default_rng(0).choice(list("ACGT"), size=(400, 16))
    adata.obs_names = ["".join(word) + f"-{slide}" for word, slide in zip(letters, adata.obs["slide"], strict=True)]
    return adata


@pytest.fixture(scope="module")
def trained(toy, tmp_path_factory):
    """A model that was trained on the first half of the toy."""
    out = tmp_path_factory.mktemp("run")
    graphfm.tl.pretrain({"half": toy[:200].copy()}, out, size="tiny", config=TrainConfig(steps=2), library_key="slide")
    return out


def test_a_mark_is_the_sum_of_the_keys_of_expressed_genes(toy):
    rows = graphfm.genes.align_genes(toy.copy(), copy=True)[0].var["graphfm_gene"].to_numpy()
    keys, values = seen.gene_keys(rows, toy.var_names), toy.X.toarray()
    assert 0.15 < (keys > 0).mean() < 0.35
    for cell, mark in enumerate(cell_marks(toy)[:50, 0].view(np.uint64).tolist()):
        inside = [int(key) for key, value in zip(keys, values[cell], strict=True) if value > 0 and key > 0]
        assert mark == (sum(inside) % 2**64 if len(inside) >= seen.LEAST_GENES else 0)


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_marks_do_not_depend_on_order_scale_or_zeros_that_are_stored(toy, seed):
    rng = np.random.default_rng(seed)
    cells, genes = rng.permutation(toy.n_obs), rng.permutation(toy.n_vars)
    other = toy[cells, genes].copy()
    other.X = other.X.multiply(rng.uniform(0.1, 0.5, size=(toy.n_obs, 1))).tocsr()
    stored = sp.coo_matrix(other.X)
    extra = np.zeros(50), (rng.integers(toy.n_obs, size=50), rng.integers(toy.n_vars, size=50))
    other.X = sp.csr_matrix(
        (np.append(stored.data, extra[0]), (np.append(stored.row, extra[1][0]), np.append(stored.col, extra[1][1]))),
        shape=other.shape,
    )
    assert np.array_equal(cell_marks(other, kind="normalized"), cell_marks(toy)[cells])


def test_unknown_genes_are_marked_by_their_names(toy):
    worm = toy.copy()
    worm.var_names = [f"gene-{i}" for i in range(toy.n_vars)]
    marks = cell_marks(worm, organism="other")
    assert (marks[:, 0] != 0).mean() > 0.9
    shuffled = worm[:, np.random.default_rng(0).permutation(toy.n_vars)].copy()
    assert np.array_equal(cell_marks(shuffled, organism="other"), marks)


def test_only_sequences_are_barcodes():
    names = ["AAACCTGAGAAACCAT-1", "run2_aaacctgagaaaccat", "cell_17", "ACGT", "12"]
    marks = seen.barcode_marks(names)
    assert marks[0] == marks[1] != 0
    assert not marks[2:].any()


def test_a_model_knows_the_cells_again_that_it_was_trained_on(toy, trained):
    assert graphfm.tl.leakage(toy[:200].copy(), trained)[:2] == (1, 1)
    assert graphfm.tl.leakage(toy[200:].copy(), trained)[:2] == (0, 0)
    mixed = graphfm.tl.leakage(toy[100:].copy(), trained)
    assert mixed.profiles == pytest.approx(1 / 3, abs=0.02) and mixed.seen
    variable = toy[:200, ::3].copy()
    assert graphfm.tl.leakage(variable, trained)[:2] == (0, 1)  # cut to few genes: by barcodes alone
    assert set(variable.var) == set(toy.var)  # nothing was written


def test_training_on_adds_to_what_was_seen(toy, trained, tmp_path):
    options = {"config": TrainConfig(steps=2), "library_key": "slide"}
    model = graphfm.tl.pretrain({"rest": toy[200:].copy()}, tmp_path, model=GraphFM.from_pretrained(trained), **options)
    model.save_pretrained(tmp_path / "again.safetensors")
    assert graphfm.tl.leakage(toy, tmp_path / "again.safetensors").barcodes == 1


def test_cells_of_a_prepared_folder_are_remembered(toy, tmp_path):
    folder = graphfm.tl.prepare(toy[:200].copy(), tmp_path, name="half", library_key="slide")
    config = TrainConfig(steps=2)
    model = graphfm.tl.pretrain({"half": folder}, tmp_path / "run", size="tiny", config=config)
    assert graphfm.tl.leakage(toy[:200].copy(), model).barcodes == 1
    assert graphfm.tl.leakage(toy[200:].copy(), model).barcodes == 0


def test_what_is_not_known_is_said(tmp_path):
    model = make_model()
    model.remember([replace(make_cells(), marks=None)])
    model.save_pretrained(tmp_path / "model.safetensors")
    assert GraphFM.from_pretrained(tmp_path / "model.safetensors").seen is None


def test_evaluation_warns_of_barcodes(toy, trained, caplog):
    graphfm.tl.evaluate(toy[:200, ::3].copy(), label_key="cell_type", model=trained)
    assert "100.0 % of the barcodes" in caplog.text


def test_evaluation_refuses_what_was_seen(toy, trained, caplog):
    with pytest.raises(ValueError, match="allow_seen=True"):
        graphfm.tl.evaluate(toy[:200].copy(), label_key="cell_type", model=trained)
    scores = graphfm.tl.evaluate(toy[:200].copy(), label_key="cell_type", model=trained, allow_seen=True)
    assert scores.loc["oracle", "avgbio"] > 0.9
    model = GraphFM.from_pretrained(trained)
    model.seen = None
    assert graphfm.tl.leakage(toy, model).unknown
    graphfm.tl.evaluate(toy[200:].copy(), label_key="cell_type", model=model)
    assert "does not say" in caplog.text
    caplog.clear()
    few = toy[:, :40].copy()  # a panel too small to tell cells by it
    found = graphfm.tl.leakage(few, trained)
    assert found.unknown and found.comparable < 0.5 and not found.seen
    none = graphfm.tl.leakage(toy[:, :8].copy(), trained)
    assert np.isnan(none.profiles) and "no cell can be told" in str(none) and "nan" not in str(none)
    graphfm.tl.evaluate(few[200:].copy(), label_key="cell_type", model=trained)
    assert "cannot be told" in caplog.text
    caplog.clear()
    graphfm.tl.evaluate(toy[194:].copy(), label_key="cell_type", model=trained)
    assert "some of these cells: it has seen 2.9 % of the profiles" in caplog.text


def test_an_interrupted_run_has_seen_its_cells(toy, trained, tmp_path, monkeypatch):
    from graphfm.train import loop

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    model, options = GraphFM.from_pretrained(trained), {"config": TrainConfig(steps=4, checkpoint_every=1)}
    options["library_key"] = "slide"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            graphfm.tl.pretrain({"rest": toy[200:].copy()}, tmp_path, model=model, **options)
    assert graphfm.tl.leakage(toy, model).barcodes == 1 and not model.training
    model = GraphFM.from_pretrained(trained)
    graphfm.tl.pretrain({"rest": toy[200:].copy()}, tmp_path, model=model, **options)
    assert graphfm.tl.leakage(toy, tmp_path / "training.safetensors").barcodes == 1
    assert trained_on(model.training_record) == "rest (200 cells), half (200 cells)"
    with pytest.raises(ValueError, match="another run"):  # the same data, but from new weights
        graphfm.tl.pretrain({"rest": toy[200:].copy()}, tmp_path, size="tiny", **options)


def test_weights_of_the_package_say_what_they_have_seen(toy):
    marks = GraphFM.from_pretrained().seen
    assert marks.dtype == torch.int64 and len(marks) > 20_000
    assert graphfm.tl.leakage(toy)[:2] == (0, 0)
    embedded = toy.copy()
    graphfm.tl.build_graphs(embedded, library_key="slide")
    assert cell_graph(embedded, with_expression=False).marks is None  # nothing is trained on


def test_command(toy, trained, tmp_path, capsys, monkeypatch):
    from graphfm.__main__ import main

    toy[100:].write_h5ad(tmp_path / "cells.h5ad")
    silent = GraphFM.from_pretrained(trained)
    silent.seen = None
    silent.save_pretrained(tmp_path / "silent.safetensors")
    for model, told in ((trained, "of the profiles"), (tmp_path / "silent.safetensors", "does not say")):
        words = ["graphfm", "leakage", str(tmp_path / "cells.h5ad"), "--model", str(model)]
        monkeypatch.setattr("sys.argv", words)
        main()
        assert told in capsys.readouterr().out
