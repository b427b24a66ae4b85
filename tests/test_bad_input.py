"""What is wrong with the data or the arguments is said in words, by every door: embedding, training, command line."""

import errno
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from anndata import AnnData
from safetensors.torch import save_file

from graphfm import io, pp, tl
from graphfm.__main__ import main
from graphfm.data.prepare import cell_neighborhood
from graphfm.io import mapped
from graphfm.train import TrainConfig
from tests.small import lively_model, make_toy

pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = TrainConfig(steps=2)


@pytest.fixture(scope="module")
def model():
    return lively_model()


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory):
    return model.save_pretrained(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def toy() -> AnnData:
    return make_toy()


def with_value(value):
    def change(adata):
        x = adata.X.toarray()
        x[3, 4] = value
        adata.X = sp.csr_matrix(x)

    return change


def log_normalised(adata):
    adata.X = io.expression(adata)


def log_normalised_beside_counts(adata):
    adata.layers["umi"] = adata.X.copy()
    adata.X = io.expression(adata)


def unknown_genes(adata):
    adata.var_names = [f"feature-{i}" for i in range(adata.n_vars)]
    del adata.var["gene_ids"]


def all_alike(adata):
    adata.X = sp.csr_matrix(np.ones(adata.shape, dtype=np.float32))


def no_counts_at_all(adata):
    adata.X = sp.csr_matrix(adata.shape, dtype=np.float32)


def no_matrix(adata):
    adata.X = None


def bad_graph(adata):
    pp.knn_graph(adata)
    adata.obsp["connectivities"].data[0] = np.nan


BAD = {
    "NaN": (with_value(np.nan), ValueError, r"adata.X holds 1 NaN .*Remove those"),
    "infinite": (with_value(np.inf), ValueError, r"adata.X holds 0 NaN and 1 infinite"),
    "negative": (with_value(-1), ValueError, r"1 negative values .*before that step"),
    "fractions": (with_value(50.5), ValueError, r"holds no counts: .*kind='normalized'.*rounded"),
    "logged": (log_normalised, ValueError, r"log-normalised.*recover_counts"),
    "logged, counts in a layer": (log_normalised_beside_counts, ValueError, r"pass layer='umi'"),
    "unknown genes": (unknown_genes, ValueError, r"not those of human or mouse.*feature-0.*organism=\"other\""),
    "all alike": (all_alike, ValueError, "No gene varies"),
    "no counts at all": (no_counts_at_all, ValueError, "No gene varies"),
    "no matrix": (no_matrix, ValueError, r"adata.X is None. Pass layer="),
    "graph with NaN": (bad_graph, ValueError, r"'knn'.*NaN or infinite"),
}


def test_unknown_genes_are_told_before_a_graph_is_built(toy, model):
    unknown_genes(toy)
    before = toy.copy()
    with pytest.raises(ValueError, match="align_genes"):
        tl.embed(toy, model)
    assert set(toy.obsm) == set(before.obsm) and not toy.obsp and set(toy.uns) == set(before.uns)
    assert list(toy.var) == list(before.var)


@pytest.mark.parametrize("name", BAD)
def test_bad_data(name, toy, model, weights, tmp_path, monkeypatch):
    change, error, text = BAD[name]
    change(toy)
    del toy.obsm["spatial"]
    toy.write_h5ad(tmp_path / "toy.h5ad")
    with pytest.raises(error, match=text):
        tl.embed(toy.copy(), model)
    with pytest.raises(error, match=rf"data set 'mine': .*{text}"):
        tl.pretrain({"mine": toy.copy()}, tmp_path / "run", size="tiny", config=STEPS)
    said = command(monkeypatch, "embed", tmp_path / "toy.h5ad", tmp_path / "out.h5ad", "--model", weights)
    assert said.startswith("graphfm: ") and "\n" not in said
    assert re.search(text, said)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "toy.h5ad"] and not list((tmp_path / "run").iterdir())


def command(monkeypatch, *arguments) -> str:
    """What the command line says when it gives up."""
    monkeypatch.setattr("sys.argv", ["graphfm", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code not in (0, None)
    return str(stop.value.code)


def test_failed_embedding_leaves_no_embedding(toy, model):
    with_value(np.nan)(toy)
    with pytest.raises(ValueError, match="NaN"):
        tl.embed(toy, model)
    assert set(toy.obsm) == {"spatial"} and not toy.obsp and "graphfm_gene" not in toy.var


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"layer": "nowhere"}, KeyError, r"adata.layers has no 'nowhere'"),
        ({"kind": "raw"}, ValueError, r"kind='raw' is unknown"),
        ({"organism": "rat"}, ValueError, r"organism must be .*'rat'"),
        ({"relations": "knn"}, ValueError, r"relations='knn': pass a tuple"),
        ({"relations": ()}, ValueError, r"relations=\(\): pass a tuple"),
        ({"relations": ("touching",)}, ValueError, r"unknown relation 'touching'; choose from \['knn', 'spatial'\]"),
        ({"relations": ("knn", "knn")}, ValueError, "names one twice"),
        ({"relations": ("knn",)}, KeyError, r"no 'connectivities' .*graphfm.pp.knn_graph\(adata\)"),
        ({"relations": ("spatial",)}, KeyError, r"no 'spatial_connectivities' .*graphfm.pp.spatial_graph\(adata\)"),
        ({"tile_size": 0}, ValueError, "tile_size must be .* got 0"),
        ({"tile_size": 1.5}, ValueError, r"tile_size must be .* got 1\.5"),
        ({"tile_size": None}, ValueError, "tile_size must be .* got None"),
        ({"scratch": "/nowhere"}, ValueError, "scratch='/nowhere' is no folder"),
        ({"device": "abacus"}, ValueError, r"device='abacus' cannot be used here .*device='cpu'"),
    ],
)
def test_bad_arguments(options, error, text, toy, model):
    with pytest.raises(error, match=text):
        tl.embed(toy, model, **options)
    assert "X_graphfm" not in toy.obsm


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_where_there_is_none(toy, model, tmp_path):
    with pytest.raises(ValueError, match=r"device='cuda' cannot be used here .*Pass device='cpu'"):
        tl.embed(toy, model, device="cuda")
    with pytest.raises(ValueError, match="device='cuda'"):
        tl.pretrain({"a": toy}, tmp_path, size="tiny", device="cuda")


@pytest.mark.parametrize("shape", [(0, 40), (1, 40), (2, 40), (2, 1), (60, 0)])
def test_too_little_data(shape, model):
    adata = make_toy()[: shape[0], : shape[1]].copy()
    for call in (lambda: tl.embed(adata, model), lambda: tl.build_graphs(adata)):
        with pytest.raises(ValueError, match=rf"adata has {shape[0]} cells"):
            call()


def test_more_neighbours_than_cells(toy):
    for call, number in ((pp.knn_graph, 60), (pp.knn_graph, 500), (pp.spatial_graph, 60)):
        with pytest.raises(ValueError, match=f"n_neighbors={number}"):
            call(toy, n_neighbors=number)
    assert not toy.obsp


def test_slides_smaller_than_the_neighbourhood(toy, model, caplog):
    toy.obs["slide"] = ["small"] * 5 + ["large"] * 55
    tl.build_graphs(toy, library_key="slide")
    assert np.diff(toy.obsp["spatial_connectivities"].indptr).tolist() == [4] * 5 + [8] * 55
    large = pp.spatial_graph(toy[5:], copy=True)
    for key in ("spatial_connectivities", "spatial_distances"):
        assert (toy.obsp[key][5:, 5:] != large.obsp[key]).nnz == 0 and toy.obsp[key][:5, 5:].nnz == 0
    tl.embed(toy, model)
    toy.obs["slide"] = ["single"] + ["large"] * 59
    del toy.obsp["spatial_connectivities"]
    with caplog.at_level("INFO", logger="graphfm"):
        tl.build_graphs(toy, library_key="slide")
    assert "1 of 60 cells have no neighbour" in caplog.text
    tl.embed(toy, model)
    del toy.obsp["spatial_connectivities"]
    with pytest.raises(KeyError, match=r"library_key='slice'.*'slide'"):
        tl.build_graphs(toy, library_key="slice")


def test_missing_coordinates(toy):
    del toy.obsm["spatial"]
    with pytest.raises(KeyError, match=r"adata.obsm has no 'spatial'"):
        tl.build_graphs(toy, relations=("spatial",))
    toy.obsm["spatial"] = np.full((60, 2), np.nan)
    with pytest.raises(ValueError, match="NaN or infinite for 60 cells"):
        tl.build_graphs(toy)


def test_a_graph_of_other_cells(toy):
    with pytest.raises(KeyError, match=r"no cell graph .*graphfm.pp.knn_graph"):
        cell_neighborhood(toy)
    with pytest.raises(ValueError, match="unknown relation"):
        cell_neighborhood(toy, relations=("regulates",))


def test_pretrain_arguments(toy, tmp_path):
    for data in (toy, [toy], None):
        with pytest.raises(TypeError, match=r"data must map names to AnnData, as \{'mine': adata\}"):
            tl.pretrain(data, tmp_path, size="tiny")
    with pytest.raises(TypeError, match="data set 'a': data must be an AnnData"):
        tl.pretrain({"a": toy.X}, tmp_path, size="tiny")
    with pytest.raises(TypeError, match=r"config must be a graphfm.train.TrainConfig, got dict"):
        tl.pretrain({"a": toy}, tmp_path, config={"steps": 3})
    with pytest.raises(ValueError, match="corpus is empty"):
        tl.pretrain({}, tmp_path, size="tiny")
    with pytest.raises(ValueError, match="size='huge'"):
        tl.pretrain({"a": toy}, tmp_path, size="huge")


# models


def test_model_that_is_none(toy, tmp_path, model, weights):
    truncated, foreign, folder = tmp_path / "cut.safetensors", tmp_path / "foreign.safetensors", tmp_path / "empty"
    truncated.write_bytes(weights.read_bytes()[:-100])
    save_file({"a": torch.zeros(2)}, foreign)
    folder.mkdir()
    toy.write_h5ad(tmp_path / "toy.h5ad")
    for path, error, text in (
        (tmp_path / "nothing.safetensors", FileNotFoundError, "no checkpoint at .*nothing"),
        (folder, FileNotFoundError, "no checkpoint at .*empty"),
        (truncated, ValueError, "cut.safetensors is no complete safetensors file"),
        (foreign, ValueError, "foreign.safetensors holds tensors but no graphfm model"),
        (tmp_path / "toy.h5ad", ValueError, "toy.h5ad is no complete safetensors file"),
    ):
        with pytest.raises(error, match=text):
            tl.embed(toy, path)
    # all that before any work on the data
    assert not toy.obsp


def test_model_of_another_vocabulary(toy, tmp_path, model, monkeypatch):
    from graphfm.models.graphfm import GraphFM, tiny

    other = GraphFM(tiny(100, "an older one"))
    with pytest.raises(ValueError, match=r"gene vocabulary an older one.*Install the graphfm version"):
        tl.embed(toy, other)


# files and folders


def test_files_that_are_none(toy, tmp_path, weights, monkeypatch):
    toy.write_h5ad(tmp_path / "whole.h5ad")
    content = (tmp_path / "whole.h5ad").read_bytes()
    (tmp_path / "cut.h5ad").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.h5ad").write_text("Dear all, please find attached")
    (tmp_path / "empty.h5ad").touch()
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    for name, text in {
        "nothing.h5ad": "does not exist",
        "cut.h5ad": "cannot be read as an AnnData",
        "text.h5ad": "is not an .h5ad",
        "empty.h5ad": "is not an .h5ad",
        "table.csv": "scanpy.read_csv",
    }.items():
        for arguments in (
            ("embed", tmp_path / name, tmp_path / "out.h5ad", "--model", weights),
            ("pretrain", tmp_path / name, "--out", tmp_path / "run", "--size", "tiny"),
        ):
            said = command(monkeypatch, *arguments)
            assert text in said and name in said
    assert not (tmp_path / "out.h5ad").exists() and not (tmp_path / "run").exists()


def test_output_that_cannot_be(toy, tmp_path, weights, monkeypatch):
    source = tmp_path / "toy.h5ad"
    toy.write_h5ad(source)
    content = source.read_bytes()
    (tmp_path / "link.h5ad").symlink_to(source)
    (tmp_path / "file").touch()
    # it is said before the data are read, let alone worked on
    monkeypatch.setattr("graphfm.io.read", lambda path: pytest.fail("too late"))
    for out, text in {
        "toy.h5ad": "is your input file",
        "link.h5ad": "is your input file",
        "out.csv": "must end in .h5ad or .zarr",
        "nowhere/out.h5ad": "nowhere is no folder that can be written to",
        "file/out.h5ad": "file is no folder that can be written to",
    }.items():
        assert text in command(monkeypatch, "embed", source, tmp_path / out, "--model", weights)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert "can be written to" in command(monkeypatch, "embed", source, tmp_path / "out.h5ad", "--model", weights)
    assert source.read_bytes() == content


def test_full_disk(toy, tmp_path, weights, monkeypatch):
    source, out = tmp_path / "toy.h5ad", tmp_path / "out.h5ad"
    tl.build_graphs(toy, relations=("knn",))
    toy.write_h5ad(source)
    out.write_text("what was there")

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("graphfm.io.files.write_elem", full)
    said = command(monkeypatch, "embed", source, out, "--model", weights, "--relations", "knn")
    assert "No space left on device" in said and "out.h5ad" in said and out.read_text() == "what was there"
    training = ("pretrain", source, "--out", tmp_path / "run", "--size", "tiny", "--steps", 1)
    with monkeypatch.context() as files:
        files.setattr(mapped, "_files", lambda folder: (Path("/dev/full"),) * 2)
        said = command(monkeypatch, *training)
        assert "No space left on device" in said and "/dev/full" in said
    assert not list((tmp_path / "run").iterdir())
    monkeypatch.setattr(Path, "write_bytes", full)
    said = command(monkeypatch, *training)
    assert "No space left on device" in said and "training.safetensors" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.h5ad", "run", "toy.h5ad"]
    assert not list((tmp_path / "run").iterdir())


def test_folder_that_is_a_file(toy, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OSError, match=r"cannot make the folder .*file"):
            tl.pretrain({"a": toy}, out, size="tiny")
    # before any work on the data
    assert not toy.obsp


def test_damaged_training_state(toy, tmp_path):
    tl.pretrain({"a": toy}, tmp_path, size="tiny", config=STEPS)
    state = tmp_path / "training.safetensors"
    whole = state.read_bytes()
    state.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"training\.safetensors is no complete safetensors file"):
        tl.pretrain({"a": toy}, tmp_path, size="tiny", config=STEPS)
    state.write_bytes(whole)
    with pytest.raises(ValueError, match="belongs to another run"):
        tl.pretrain({"a": toy}, tmp_path, size="tiny", config=TrainConfig(steps=3))


@pytest.mark.parametrize(
    ("objective", "what"),
    [("masked_expression", "loss is nan at step"), ("neighbor_agreement", "gradient is nan at step")],
)
def test_diverging_training_is_said(toy, tmp_path, monkeypatch, objective, what):
    tl.build_graphs(toy)
    toy.write_h5ad(tmp_path / "toy.h5ad")
    options = ("--out", tmp_path / "run", "--size", "tiny", "--lr", "1e9", "--objective", objective)
    said = command(monkeypatch, "pretrain", tmp_path / "toy.h5ad", *options)
    assert what in said and "try a lower lr" in said


def test_containers_in_pp(toy):
    from mudata import MuData

    one, two = MuData({"rna": toy.copy()}), MuData({"rna": toy.copy(), "atac": toy.copy()})
    for call in (pp.knn_graph, pp.spatial_graph, pp.regulatory_graph):
        call(one)
        with pytest.raises(ValueError, match="2 modalities"):
            call(two)
        with pytest.raises(TypeError, match="AnnData"):
            call(toy.X)
    assert {"connectivities", "spatial_connectivities"} <= set(one.mod["rna"].obsp)


@pytest.mark.parametrize("call", [pp.knn_graph, pp.spatial_graph, pp.regulatory_graph])
def test_graphs_of_views_and_backed_files(call, toy, tmp_path):
    import anndata

    copied = call(toy[:50], copy=True)
    assert not toy.obsp and not toy.varp
    toy.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    again = call(backed[:50], copy=True)
    for name in ("obsp", "varp"):
        mapping = getattr(copied, name)
        assert all((mapping[key] != getattr(again, name)[key]).nnz == 0 for key in mapping)
    with pytest.raises(ValueError, match="view of a backed file"):
        call(backed[:50])
    backed.file.close()
