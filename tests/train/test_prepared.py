"""A prepared corpus trains the same weights, from files that are mapped."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import graphfm
from graphfm import datasets, io, tl
from graphfm.data import prepared
from graphfm.data.prepare import cell_graph
from graphfm.models.checkpoint import load_tensors
from graphfm.train import TrainConfig

ROOT = Path(__file__).parents[2]
CONFIG = TrainConfig(steps=6, checkpoint_every=3)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("cells")
    paths = []
    for seed in (0, 1):
        paths.append(folder / f"toy{seed}.h5ad")
        datasets.toy(num_cells=200 + 30 * seed, num_genes=150, seed=seed).write_h5ad(paths[-1])
    return paths


@pytest.fixture(scope="module")
def corpus(files, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("corpus")
    for path in files:
        tl.prepare(path, out, library_key="slide")
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_tensors(folder / "model.safetensors")[0]


def test_the_same_weights_to_the_bit(files, corpus, tmp_path):
    inputs = {
        "memory": {path.stem: io.read(path) for path in files},
        "file": {path.stem: io.read(path, lazy=True) for path in files},
        "prepared": {path.stem: corpus / f"{path.stem}.prepared" for path in files},
    }
    for name, data in inputs.items():
        tl.pretrain(data, tmp_path / name, size="tiny", config=CONFIG, library_key="slide")
    expected = weights(tmp_path / "memory")
    for name in ("file", "prepared"):
        assert all(torch.equal(tensor, expected[key]) for key, tensor in weights(tmp_path / name).items()), name


def test_settings_that_data_were_not_prepared_with_are_refused(corpus, tmp_path):
    data = {"toy0": corpus / "toy0.prepared"}
    for given in ({"library_key": "batch"}, {"layer": "spliced"}, {"organism": "other"}):
        with pytest.raises(ValueError, match=f"was prepared with {next(iter(given))}="):
            tl.pretrain(data, tmp_path / "run", size="tiny", config=CONFIG, **given)


def test_expression_is_gone_from_the_folder_while_training(files, tmp_path, monkeypatch):
    there = []
    train = graphfm.train.pretrain
    monkeypatch.setattr(
        graphfm.train, "pretrain", lambda *given, **more: there.extend(tmp_path.iterdir()) or train(*given, **more)
    )
    tl.pretrain({"a": io.read(files[0], lazy=True)}, tmp_path, size="tiny", config=CONFIG)
    assert not there and (tmp_path / "model.safetensors").exists()


def test_a_run_goes_on_with_what_was_prepared_meanwhile(files, corpus, tmp_path):
    """The state on disk knows its data by their content, not by where they came from."""
    data = {path.stem: io.read(path) for path in files}
    tl.pretrain(data, tmp_path, size="tiny", config=CONFIG, library_key="slide")
    before = weights(tmp_path)
    again = {path.stem: str(corpus / f"{path.stem}.prepared") for path in files}
    tl.pretrain(again, tmp_path, size="tiny", config=CONFIG)
    assert all(torch.equal(tensor, before[key]) for key, tensor in weights(tmp_path).items())


def test_everything_is_kept(files, corpus):
    cells = prepared.read(corpus / "toy1.prepared")
    adata = io.read(files[1])
    tl.build_graphs(adata, library_key="slide")
    made = cell_graph(adata, name="toy1")
    for name in (*prepared.ARRAYS[:-1], *prepared.SUMMARIES):
        assert torch.equal(getattr(cells, name), getattr(made, name)), name
    for name in prepared.COLUMNS:
        assert torch.equal(getattr(cells.neighborhood, name), getattr(made.neighborhood, name)), name
    for name in prepared.MATRICES:
        assert (getattr(cells, name) != getattr(made, name)).nnz == 0, name
        assert isinstance(getattr(cells, name).data, np.memmap), name
    assert (cells.digest, cells.scale, cells.name, cells.vocabulary) == (
        made.digest,
        made.scale,
        "toy1",
        made.vocabulary,
    )
    assert sorted(cells.order.tolist()) == list(range(cells.num_cells))
    np.testing.assert_array_equal(cells.gene_names, made.gene_names)


def test_what_is_there_is_left_and_what_changed_is_made_again(files, corpus, tmp_path):
    out = tmp_path / "corpus"
    source = shutil.copy(files[0], tmp_path)
    folder = tl.prepare(source, out)
    made = (folder / prepared.NOTE).stat().st_mtime_ns
    assert tl.prepare(source, out) == folder and (folder / prepared.NOTE).stat().st_mtime_ns == made
    tl.prepare(source, out, library_key="slide")
    assert (folder / prepared.NOTE).stat().st_mtime_ns > made
    made = (folder / prepared.NOTE).stat().st_mtime_ns
    datasets.toy(num_cells=210, num_genes=150).write_h5ad(source)
    tl.prepare(source, out, library_key="slide")
    assert prepared.read(folder).num_cells == 210
    assert [path.name for path in out.iterdir()] == ["toy0.prepared"]


def test_a_failure_leaves_what_was_there(files, tmp_path, monkeypatch):
    folder = tl.prepare(files[0], tmp_path)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        tl.prepare(files[0], tmp_path, organism="human")
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert prepared.read(folder).num_cells == 200


def test_bad_input(files, corpus, tmp_path):
    with pytest.raises(ValueError, match="name: give the data set a name"):
        tl.prepare(io.read(files[0]), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nothing\.h5ad does not exist"):
        tl.prepare(tmp_path / "nothing.h5ad", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nothing\.prepared does not exist"):
        tl.pretrain({"a": tmp_path / "nothing.prepared"}, tmp_path / "run", size="tiny", config=CONFIG)
    (tmp_path / "empty.prepared").mkdir()
    with pytest.raises(ValueError, match=r"data set 'a': .*Prepare the data again"):
        tl.pretrain({"a": tmp_path / "empty.prepared"}, tmp_path / "run", size="tiny", config=CONFIG)
    damaged = shutil.copytree(corpus / "toy0.prepared", tmp_path / "damaged.prepared")
    (damaged / "scores.npy").write_bytes(b"")
    with pytest.raises(ValueError, match="is damaged"):
        prepared.read(damaged)
    negative = datasets.toy(num_cells=50, num_genes=150)
    negative.X[0, 0] = -1
    with pytest.raises(ValueError, match="data set 'wrong': "):
        tl.prepare(negative, tmp_path, name="wrong")
    assert not list(tmp_path.glob("*wrong*"))


@pytest.mark.parametrize("where", [[], ["--workers", "2"]])
def test_many_files_here_or_on_dask(files, corpus, tmp_path, where):
    """The same arrays from one process and from Dask's workers; a bad file stops none of the others."""
    bad = tmp_path / "bad.h5ad"
    bad.write_bytes(b"no cells")
    script = [sys.executable, str(ROOT / "data_prep" / "corpus.py"), *map(str, [bad, *files]), "--out", "corpus"]
    done = subprocess.run([*script, "--library-key", "slide", *where], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "2 of 3 files are prepared in corpus" in done.stdout, done.stderr[-2000:]
    assert "bad.h5ad" in done.stderr and "Traceback" not in done.stderr
    for path in files:
        ours, theirs = (place / f"{path.stem}.prepared" for place in (tmp_path / "corpus", corpus))
        names = {file.relative_to(theirs) for file in theirs.rglob("*") if file.is_file()} - {Path(prepared.NOTE)}
        assert len(names) > 15
        for name in names:
            assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
