"""The command line: what it prints, what it writes, and that it gives what Python gives."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

import graphfm
from graphfm import GraphFM, io, tl
from graphfm.__main__ import main
from graphfm.models.checkpoint import load_tensors
from graphfm.train.log import read
from tests.small import lively_model, make_graphs, make_toy

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command in this process; gives its exit code, output and error output."""

    def command(*arguments):
        monkeypatch.setattr("sys.argv", ["graphfm", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "80")
        # for the rest of the tests' process it would stay
        monkeypatch.setattr("graphfm.allocator.keep_freed_memory", lambda: False)
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        return (code, *capsys.readouterr())

    return command


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return lively_model().save_pretrained(tmp_path_factory.mktemp("weights"))


def process(*arguments, **options):
    """The same in a process of its own."""
    command = [sys.executable, "-m", "graphfm", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finish(*arguments, **options) -> str:
    child = process(*arguments, **options)
    out, error = child.communicate(timeout=600)
    assert child.returncode == 0, error
    return out + error


# help


COMMANDS = ("demo", "pretrain", "embed", "grn", "rare", "spatial", "annotate", "integrate", "info")


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_is_readable(command, run):
    code, text, error = run(*command, "--help")
    assert code == 0 and not error
    # no types of Python, no empty defaults, nothing wider than a terminal
    for noise in ("{None}", "None", "(default: )", "Path", "PATH PATH", "Literal", "Traceback"):
        assert noise not in text, noise
    lines = text.splitlines()
    assert max(map(len, lines[1:])) <= 80 and len(lines[0]) <= 100  # of the first, the list of commands is one word
    if command == ():
        assert all(name in text for name in COMMANDS)


def test_every_option_is_explained(run):
    for command in COMMANDS[:-1]:
        text = run(command, "--help")[1]
        text = re.sub(r"[\s│|+]+|[-─]{3,}", " ", text)
        options = re.findall(r" (--[a-z][a-z-]+)", text)
        assert len(options) >= 3
        for option in set(options) - {"--help"}:
            place = text.index(f" {option} ")
            assert len(text[place : place + 80].split()) > 4, option


def test_help_loads_nothing_heavy():
    script = (
        "import sys; sys.argv = ['graphfm', '--help']\n"
        "from graphfm.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'scanpy', 'anndata', 'squidpy', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


@pytest.mark.parametrize(
    "arguments",
    [(), ("fly",), ("embed",), ("embed", "a.h5ad"), ("embed", "a", "b", "--kind", "raw"), ("pretrain", "a.h5ad")],
)
def test_wrong_usage_says_where_help_is(arguments, run):
    code, text, error = run(*arguments)
    assert code == 2 and "--help" in text + error and "Traceback" not in text + error


# errors


def test_errors_are_one_line_without_a_stack(tmp_path, weights):
    child = process("embed", tmp_path / "nothing.h5ad", tmp_path / "out.h5ad", "--model", weights)
    out, error = child.communicate(timeout=120)
    assert child.returncode == 1 and out == "" and len(error.splitlines()) == 1
    assert error.startswith("graphfm: ") and "nothing.h5ad does not exist" in error


def test_stack_on_demand(run, monkeypatch):
    monkeypatch.setenv("GRAPHFM_DEBUG", "1")
    with pytest.raises(FileNotFoundError):
        run("embed", "nothing.h5ad", "out.h5ad")


def test_interruption_is_one_line(run, monkeypatch, tmp_path, weights):
    def interrupt(path, lazy):
        raise KeyboardInterrupt

    monkeypatch.setattr("graphfm.io.read", interrupt)
    (tmp_path / "a.h5ad").touch()
    assert run("embed", tmp_path / "a.h5ad", tmp_path / "b.h5ad", "--model", weights)[0] == "graphfm: interrupted"


def test_files_of_one_name(run, tmp_path):
    code, _, _ = run("pretrain", "a/x.h5ad", "b/x.h5ad", "--out", tmp_path / "run")
    assert "different names" in code and "called x" in code
    assert "name at least one .h5ad file" in run("pretrain", "--out", tmp_path / "run")[0]


def test_pretrain_on_a_folder(run, tmp_path):
    folder = tmp_path / "cells"
    folder.mkdir()
    assert "without .h5ad" in run("pretrain", folder, "--out", tmp_path / "run")[0]
    for seed in (0, 1):
        graphfm.datasets.toy(100, 60, num_tfs=8, seed=seed).write_h5ad(folder / f"toy{seed}.h5ad")
    (folder / "notes.txt").touch()
    for objective, name in (("masked_expression", "MaskedExpression"), ("neighbor_agreement", "NeighborAgreement")):
        out = tmp_path / objective
        assert run("pretrain", folder, "--out", out, "--size", "tiny", "--steps", 4, "--objective", objective)[0] == 0
        record = json.loads(graphfm.GraphFM.from_pretrained(out).training_record)
        assert [name for name, *_ in record["data"]] == ["toy0", "toy1"]
        assert record["train"]["objective"]["name"] == name


# info


def test_info(run, weights, tmp_path, monkeypatch):
    monkeypatch.delenv("GRAPHFM_ATTENTION", raising=False)
    code, text, _ = run("info")
    assert code == 0
    lines = dict(line.split(":", 1) for line in text.splitlines())
    assert graphfm.__version__ in lines["graphfm"] and f"torch {torch.__version__}" in lines["packages"]
    assert "dim=64" in lines["config"] and "cells" in lines["trained on"]
    assert lines["attention"].split() == ["numba", "(fused", "kernel)"]
    monkeypatch.setenv("GRAPHFM_ATTENTION", "torch")
    assert "torch (padded gather)" in run("info")[1]
    assert "dim=32" in run("info", weights)[1]
    weights.with_name("cut.safetensors").write_bytes(weights.read_bytes()[:-9])
    for path, text in ((weights.with_name("cut.safetensors"), "no complete"), (tmp_path / "none", "no checkpoint")):
        code, out, _ = run("info", path)
        assert code.startswith("graphfm: ") and text in code and not out


# embed


def test_embedding_is_that_of_python(tmp_path, weights):
    adata = make_toy()
    adata.write_h5ad(tmp_path / "in.h5ad")
    before = (tmp_path / "in.h5ad").read_bytes()
    text = finish(
        "embed",
        tmp_path / "in.h5ad",
        tmp_path / "out.h5ad",
        *("--model", weights, "--library-key", "slide", "--tile-size", 17),
        env={**os.environ, "PYTHONHASHSEED": "5"},
    )
    assert "obsm['X_graphfm'] (60, 64)" in text and "genes are in the vocabulary" in text
    for noise in ("Warning", "Traceback", "INFO", "Creating graph"):
        assert noise not in text
    tl.build_graphs(adata, library_key="slide")
    tl.embed(adata, GraphFM.from_pretrained(weights))
    result = io.read(tmp_path / "out.h5ad")
    np.testing.assert_allclose(result.obsm["X_graphfm"], adata.obsm["X_graphfm"], rtol=0, atol=1e-6)  # other tiles
    assert (result.X != adata.X).nnz == 0 and list(result.uns["X_graphfm"]["relations"]) == ["knn", "spatial"]
    assert (tmp_path / "in.h5ad").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.h5ad", "out.h5ad"]


def test_embed_options(run, tmp_path, weights):
    adata = make_toy()
    logged = adata.copy()
    logged.layers["log"], logged.X = io.expression(adata), None
    logged.write_h5ad(tmp_path / "log.h5ad")
    arguments = ("embed", tmp_path / "log.h5ad", tmp_path / "out.zarr", "--model", weights.parent)
    code, text, _ = run(
        *arguments,
        "--layer",
        "log",
        "--kind",
        "log1p",
        "--relations",
        "knn",
        "--key-added",
        "X_mine",
        "--organism",
        "other",
    )
    assert code == 0 and "X_mine" in text
    result = io.read(tmp_path / "out.zarr")
    assert (result.var["graphfm_gene"] == -1).all() and "spatial_connectivities" not in result.obsp
    tl.build_graphs(logged, relations=("knn",), layer="log", kind="log1p")
    tl.embed(logged, GraphFM.from_pretrained(weights), layer="log", kind="log1p", organism="other")
    assert np.array_equal(result.obsm["X_mine"], logged.obsm["X_graphfm"])


def test_embed_with_shipped_weights_and_a_graph_of_the_file(run, tmp_path):
    adata = make_graphs()
    adata.write_h5ad(tmp_path / "in.h5ad")
    (tmp_path / "out.h5ad").write_text("an older result is replaced")
    assert run("embed", tmp_path / "in.h5ad", tmp_path / "out.h5ad")[0] == 0
    tl.embed(adata)
    assert np.array_equal(io.read(tmp_path / "out.h5ad").obsm["X_graphfm"], adata.obsm["X_graphfm"])


# pretrain


def pretrain_arguments(data, out, steps=30):
    return ("pretrain", data, "--out", out, "--size", "tiny", "--steps", steps, "--checkpoint-every", 3)


def kill_in_the_middle(arguments, out, *, after: int):
    """Start, and kill by SIGKILL once the log has so many lines."""
    child = process(*arguments)
    until = time.monotonic() + 300
    while child.poll() is None and time.monotonic() < until:
        if len(read(out)) >= after:
            break
        time.sleep(0.01)
    assert child.poll() is None, child.communicate()
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL


def assert_resumes_exactly(data, folder, *, steps, after):
    kill_in_the_middle(pretrain_arguments(data, folder / "killed", steps), folder / "killed", after=after)
    assert not (folder / "killed" / "model.safetensors").exists()
    done = int(load_tensors(folder / "killed" / "training.safetensors")[1]["step"])
    assert 0 < done < steps
    finish(*pretrain_arguments(data, folder / "killed", steps))
    finish(*pretrain_arguments(data, folder / "whole", steps))
    for name in ("model.safetensors", "training.safetensors"):
        killed, whole = (load_tensors(folder / run / name) for run in ("killed", "whole"))
        assert killed[0].keys() == whole[0].keys()
        assert all(torch.equal(killed[0][key], whole[0][key]) for key in whole[0])
        assert all(killed[1][key] == whole[1][key] for key in whole[1] if key != "commit")
    losses = [[line["loss"] for line in read(folder / run)] for run in ("killed", "whole")]
    assert losses[0] == losses[1] and len(losses[0]) == steps


def test_killed_training_resumes_to_the_same_weights(tmp_path):
    # with its graphs in the file, so that training starts at once
    make_graphs(num_cells=200).write_h5ad(tmp_path / "toy.h5ad")
    assert_resumes_exactly(tmp_path / "toy.h5ad", tmp_path, steps=30, after=5)


@pytest.mark.slow
def test_killed_training_on_real_cells(mirror, tmp_path):
    assert_resumes_exactly(mirror / "h5ad" / "pbmc_facs_scn300.h5ad", tmp_path, steps=16, after=5)


def test_trained_weights_are_used(run, tmp_path):
    for seed, name in enumerate(("first", "second")):
        make_graphs(seed=seed).write_h5ad(tmp_path / f"{name}.h5ad")
    data, out = (tmp_path / "first.h5ad", tmp_path / "second.h5ad"), tmp_path / "run"
    code, text, _ = run("pretrain", *data, "--out", out, "--size", "tiny", "--steps", 2, "--seed", 3)
    assert code == 0 and str(out / "model.safetensors") in text
    trained = json.loads(load_tensors(out / "model.safetensors")[1]["training"])
    assert [name for name, *_ in trained["data"]] == ["first", "second"] and trained["train"]["seed"] == 3
    assert run("embed", data[0], tmp_path / "out.h5ad", "--model", out)[0] == 0
    # a second start finds it done
    before = load_tensors(out / "model.safetensors")[0]
    assert run("pretrain", *data, "--out", out, "--size", "tiny", "--steps", 2, "--seed", 3)[0] == 0
    after = load_tensors(out / "model.safetensors")[0]
    assert all(torch.equal(before[key], after[key]) for key in before)
    code, _, _ = run("pretrain", *data, "--out", out, "--size", "tiny", "--steps", 5, "--seed", 3)
    assert "belongs to another run" in code and "Choose another output folder" in code


def test_start_from(run, tmp_path, weights, monkeypatch):
    started = {}
    monkeypatch.setattr("graphfm.tl.pretrain", lambda data, out, *, model, **options: started.update({out.name: model}))
    make_toy().write_h5ad(tmp_path / "toy.h5ad")
    for name in ("new", "shipped", weights, weights.parent):
        code, _, _ = run(
            "pretrain", tmp_path / "toy.h5ad", "--out", tmp_path / str(name).replace("/", "_"), "--start-from", name
        )
        assert code == 0
    new, shipped, file, folder = started.values()
    assert new is None and shipped.config == GraphFM.from_pretrained().config
    assert all(torch.equal(a, b) for a, b in zip(file.parameters(), folder.parameters(), strict=True))
    code, _, _ = run("pretrain", tmp_path / "toy.h5ad", "--out", tmp_path / "x", "--start-from", "nowhere")
    assert "no checkpoint at nowhere" in code


# grn


def test_grn_equals_python(run, tmp_path):
    adata = make_toy(80, 40)
    adata.write_h5ad(tmp_path / "a.h5ad")
    factors = adata.var_names[adata.var["is_tf"]][:5].tolist()
    (tmp_path / "tfs.txt").write_text("\n".join(factors))
    code, text, error = run(
        "grn",
        tmp_path / "a.h5ad",
        tmp_path / "b.h5ad",
        "--tfs",
        tmp_path / "tfs.txt",
        "--table",
        tmp_path / "edges.csv",
    )
    assert code == 0, error
    tl.infer_grn(adata, tfs=factors)
    written = io.read(tmp_path / "b.h5ad")
    table = pd.read_csv(tmp_path / "edges.csv")
    assert f"{len(table):,} edges" in text and list(table) == list(adata.uns["grn"])
    for found in (written.uns["grn"].reset_index(drop=True), table):
        assert found["tf"].tolist() == adata.uns["grn"]["tf"].tolist()
        np.testing.assert_allclose(found["score"], adata.uns["grn"]["score"], rtol=1e-5)
    assert (written.varp["grn"] != adata.varp["grn"]).nnz == 0
    assert written.obsm["grn_activity"].shape == adata.obsm["grn_activity"].shape


def test_grn_with_known_edges_and_errors(run, tmp_path):
    adata = make_toy(80, 40)
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata.uns["toy_truth"]["grn"].to_csv(tmp_path / "edges.tsv", sep="\t", index=False)
    for option in ("--prior", "--known"):
        code, text, error = run("grn", tmp_path / "a.h5ad", tmp_path / f"{option}.h5ad", option, tmp_path / "edges.tsv")
        assert code == 0 and "transcription factors" in text, error
    both = "--zero-shot", "--known", tmp_path / "edges.tsv"
    assert run("grn", tmp_path / "a.h5ad", tmp_path / "both.h5ad", *both)[0] == 0
    alone, beside = (io.read(tmp_path / name).uns["grn"]["score"] for name in ("--known.h5ad", "both.h5ad"))
    assert len(alone) != len(beside) or not np.allclose(alone, beside)  # what the package knows is read
    code, _, error = run("grn", tmp_path / "a.h5ad", tmp_path / "z.h5ad", "--zero-shot")
    assert code == 0 and io.read(tmp_path / "z.h5ad").uns["grn_params"]["mode"] == "zero_shot", error
    wrong = {
        ("--prior", tmp_path / "edges.tsv", "--known", tmp_path / "edges.tsv"): "goes with neither",
        ("--zero-shot", "--prior", tmp_path / "edges.tsv"): "goes with neither",
        ("--prior", tmp_path / "nothing.csv"): "nothing.csv",
        ("--table", tmp_path / "no" / "x.csv"): "is no folder",
    }
    for options, message in wrong.items():
        code, _, _ = run("grn", tmp_path / "a.h5ad", tmp_path / "c.h5ad", *options)
        assert message in str(code) and not (tmp_path / "c.h5ad").exists()


def test_no_file_or_folder_of_yours_is_done_away_with(run, tmp_path):
    data, known, folder = tmp_path / "a.h5ad", tmp_path / "edges.csv", tmp_path / "results.zarr"
    adata = make_toy(80, 40)
    adata.write_h5ad(data)
    adata.uns["toy_truth"]["grn"].to_csv(known, index=False)
    folder.mkdir()
    (folder / "notes.txt").write_text("precious")
    (tmp_path / "plain.zarr").write_text("not zarr")
    store = tmp_path / "store.zarr"
    (store / "images").mkdir(parents=True)
    adata.write_zarr(store / "table.zarr")
    os.link(data, tmp_path / "link.h5ad")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    out = tmp_path / "b.h5ad"
    wrong = [
        ("evaluate", data, "--label-key", "cell_type", "--table", folder),
        ("evaluate", data, "--label-key", "cell_type", "--table", data),
        ("grn", data, out, "--known", known, "--table", known),
        ("grn", data, out, "--table", out),
        ("grn", data, tmp_path / "link.h5ad"),
        ("grn", data, tmp_path / "plain.zarr"),
        ("embed", store / "table.zarr", store),
        ("embed", store / "table.zarr", store / "table.zarr" / "more.zarr"),
        ("embed", data, folder),
        ("annotate", data, known.with_suffix(".h5ad"), "--label-key", "x", "--reference", known.with_suffix(".h5ad")),
    ]
    for words in wrong:
        code, _, _ = run(*words)
        assert any(name in str(code) for name in ("--table", "OUT")), words
        assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


# rare


def test_rare_equals_python(run, tmp_path):
    adata = graphfm.datasets.toy(600, 300, num_tfs=40, rare_fraction=0.02)
    adata.write_h5ad(tmp_path / "a.h5ad")
    given = ["--batch-key", "batch", "--shuffles", "0", "--table", tmp_path / "t.csv"]
    code, text, error = run("rare", tmp_path / "a.h5ad", tmp_path / "b.h5ad", *given)
    assert code == 0, error
    tl.find_rare(adata, batch_key="batch", n_shuffles=0)
    written, table = io.read(tmp_path / "b.h5ad"), pd.read_csv(tmp_path / "t.csv")
    assert written.obs["rare_population"].equals(adata.obs["rare_population"])
    assert table["size"].tolist() == adata.uns["rare"]["size"].tolist() and f"{len(table)} populations" in text
    code, _, _ = run("rare", tmp_path / "a.h5ad", tmp_path / "c.h5ad", "--batch-key", "nothing")
    assert "batch_key='nothing'" in code and not (tmp_path / "c.h5ad").exists()
    code, _, _ = run("rare", tmp_path / "a.h5ad", tmp_path / "c.h5ad", "--table", tmp_path / "no" / "t.csv")
    assert "--table" in code


# spatial


def test_spatial_equals_python(run, tmp_path):
    adata = graphfm.datasets.toy(400, 200, num_tfs=20)
    adata.write_h5ad(tmp_path / "a.h5ad")
    given = ["--n-domains", "4", "--library-key", "slide"]
    code, text, error = run("spatial", tmp_path / "a.h5ad", tmp_path / "b.h5ad", *given, "--table", tmp_path / "t.csv")
    assert code == 0, error
    tl.spatial_domains(adata, n_domains=4, library_key="slide")
    written, table = io.read(tmp_path / "b.h5ad"), pd.read_csv(tmp_path / "t.csv")
    assert written.obs["spatial_domain"].equals(adata.obs["spatial_domain"])
    assert table["size"].tolist() == adata.uns["spatial_domain"]["size"].tolist() and "4 regions of 400 cells" in text
    code, text, error = run("spatial", tmp_path / "a.h5ad", tmp_path / "c.h5ad", *given, "--cell-type-key", "cell_type")
    assert code == 0 and "niche 1: " in text, error
    assert {"niche_types", "niche_levels"} <= set(io.read(tmp_path / "c.h5ad").uns)
    code, _, _ = run("spatial", tmp_path / "a.h5ad", tmp_path / "d.h5ad", "--n-domains", "1")
    assert "n_domains=1" in code and not (tmp_path / "d.h5ad").exists()


# annotate


def test_annotate_equals_python(run, tmp_path):
    adata = graphfm.datasets.toy(400, 200, num_tfs=20)
    query, reference = adata[200:].copy(), adata[:200].copy()
    query.write_h5ad(tmp_path / "q.h5ad")
    reference.write_h5ad(tmp_path / "r.h5ad")
    given = ["--label-key", "cell_type", "--reference", tmp_path / "r.h5ad", "--unknown", "0.05"]
    code, text, error = run("annotate", tmp_path / "q.h5ad", tmp_path / "b.h5ad", *given, "--table", tmp_path / "t.csv")
    assert code == 0, error
    tl.annotate(query, reference, label_key="cell_type", unknown=0.05)
    written, table = io.read(tmp_path / "b.h5ad"), pd.read_csv(tmp_path / "t.csv")
    assert written.obs["annotation"].equals(query.obs["annotation"])
    assert table["markers"].tolist() == query.uns["annotation"]["markers"].tolist()
    assert f"200 cells, {(query.obs['annotation'] == 'unknown').sum()} of them unknown" in text
    code, _, _ = run("annotate", tmp_path / "q.h5ad", tmp_path / "c.h5ad", "--label-key", "nothing")
    assert "'nothing'" in code and not (tmp_path / "c.h5ad").exists()


# integrate


def test_integrate_equals_python(run, tmp_path):
    adata = graphfm.datasets.toy(400, 200, num_tfs=20)
    adata.write_h5ad(tmp_path / "a.h5ad")
    given = ["--batch-key", "slide", "--table", tmp_path / "t.csv"]
    code, text, error = run("integrate", tmp_path / "a.h5ad", tmp_path / "b.h5ad", *given)
    assert code == 0, error
    tl.integrate(adata, batch_key="slide")
    written = io.read(tmp_path / "b.h5ad")
    np.testing.assert_array_equal(written.obsm["X_integrated"], adata.obsm["X_integrated"])
    assert pd.read_csv(tmp_path / "t.csv")["batch"].tolist() == ["slide_0", "slide_1"]
    assert "slide_0: 200 cells" in text
    code, _, _ = run("integrate", tmp_path / "a.h5ad", tmp_path / "c.h5ad", "--batch-key", "nothing")
    assert "'nothing'" in code and not (tmp_path / "c.h5ad").exists()
