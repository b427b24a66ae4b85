"""The table of public data sets: resolution order, checks, readers; with the mirror, every entry of it."""

import csv
import hashlib
import io
import json
import os
import pickle
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from graphfm.datasets import _families, _fetch, _readers, _registry

MIRROR = os.environ.get("GRAPHFM_DATA")
# tidy files of the mirror; those without a checksum are made by a script
TIDY = [n for n in _registry.names() if _registry.info(n).reader == "h5ad" and _registry.info(n).files[0].sha256]


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """No mirror, an empty cache, no network."""
    monkeypatch.delenv("GRAPHFM_DATA", raising=False)
    monkeypatch.setenv("GRAPHFM_CACHE", str(tmp_path / "cache"))

    def refuse(*args, **kwargs):
        raise OSError("the network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tmp_path


def one_file(tmp_path: Path, content: bytes, *, url: str | None = None, sha256: str | None = None):
    """An entry with one file in a made-up mirror, and the path of that file there."""
    path = tmp_path / "mirror" / "folder" / "x.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    total = sha256 or hashlib.sha256(content).hexdigest()
    file = _registry.DatasetFile("folder/x.txt", len(content), total, url)
    return _registry.DatasetInfo("x", "An example", "prior", "tf_list", (file,)), path


def test_every_entry_is_complete():
    for name in _registry.names():
        entry = _registry.info(name)
        assert name.isidentifier() and entry.description and entry.files, name
        assert hasattr(_readers, f"read_{entry.reader}"), name
        assert entry.kind in {"expression", "spatial", "truth", "prior", "node_classification"}, name
        assert entry.licence, name
        for file in entry.files:
            assert not Path(file.path).is_absolute() and ".." not in file.path
            assert (file.sha256 is None) == (file.bytes is None)
            assert file.sha256 is None or len(file.sha256) == 64
            # a file without a checksum can only come from a script
            assert file.sha256 or entry.script, name
    paths = [file.path for name in _registry.names() for file in _registry.info(name).files]
    assert len(paths) == len(set(paths))


def test_what_was_promised_is_there():
    names = set(_registry.names())
    slices = [*range(151507, 151511), *range(151669, 151677)]
    assert {f"dlpfc_full_{number}" for number in slices} <= names
    cells = ["hesc", "hhep", "mdc", "mesc", "mhsc_e", "mhsc_gm", "mhsc_l"]
    assert {f"beeline_{cell}_{size}" for cell in cells for size in (500, 1000)} <= names
    assert sum(_registry.info(name).files[0].path.startswith("h5ad/") for name in names) >= 38


def test_loader_has_a_name_and_a_docstring():
    for name in _registry.attributes():
        function = _registry.loader(name)
        assert function.__name__ == name
        assert "Returns\n" in function.__doc__ and "Raises\n" in function.__doc__
        assert "References\n" in function.__doc__
    assert "no redistribution" in _registry.loader("dlpfc_151673").__doc__


def test_unknown_name_says_the_nearest():
    with pytest.raises(KeyError, match="dlpfc_151673"):
        _registry.info("dlpfc_15167")
    with pytest.raises(ValueError, match="hesc"):
        _families.beeline(cell_type="kidney")
    with pytest.raises(ValueError, match="num_genes"):
        _families.beeline(num_genes=100)
    with pytest.raises(ValueError, match="replicate"):
        _families.beeline_synthetic(replicate=10)


def test_mirror_comes_first(alone, monkeypatch):
    entry, path = one_file(alone, b"SOX2\nGATA1\n")
    monkeypatch.setenv("GRAPHFM_DATA", str(alone / "mirror"))
    assert _fetch.locate(entry, "folder/x.txt") == path
    assert _readers.read_tf_list(entry, lambda name: _fetch.locate(entry, name)) == ["GATA1", "SOX2"]


def test_wrong_checksum_names_file_expected_and_got(alone, monkeypatch):
    entry, path = one_file(alone, b"damaged", sha256="0" * 64)
    monkeypatch.setenv("GRAPHFM_DATA", str(alone / "mirror"))
    with pytest.raises(ValueError) as caught:
        _fetch.locate(entry, "folder/x.txt")
    for part in (str(path), "0" * 64, hashlib.sha256(b"damaged").hexdigest()):
        assert part in str(caught.value)


def test_a_file_that_changes_after_it_was_checked_is_checked_again(alone, monkeypatch):
    entry, path = one_file(alone, b"good")
    monkeypatch.setenv("GRAPHFM_DATA", str(alone / "mirror"))
    _fetch.locate(entry, "folder/x.txt")
    path.write_bytes(b"worse")
    with pytest.raises(ValueError, match="wrong checksum"):
        _fetch.locate(entry, "folder/x.txt")


def test_missing_says_the_command_or_that_there_is_none(alone):
    with pytest.raises(FileNotFoundError, match=r"python data_prep/banksy\.py dlpfc_151673") as caught:
        _registry.load("dlpfc_151673")
    assert "no redistribution" in str(caught.value) and "GRAPHFM_DATA" in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"python data_prep/beeline\.py beeline_hesc_500"):
        _families.beeline(cell_type="hESC")
    with pytest.raises(FileNotFoundError, match="No confirmed address"):
        _registry.load("paul15_myeloid")


def test_offline_is_one_clear_error_and_leaves_nothing(alone):
    with pytest.raises(ConnectionError, match="GRAPHFM_DATA") as caught:
        _families.tf_list("human")
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert "raw.githubusercontent.com/aertslab" in str(caught.value)
    assert not [path for path in (alone / "cache").rglob("*") if path.is_file()]


def _serve(monkeypatch, content: bytes, *, break_after: int | None = None):
    """Replaces pooch's downloader by one that gives these bytes, or stops in the middle."""
    import pooch

    def build(**options):
        def download(url, output_file, pooch_object):
            stream = open(output_file, "wb") if isinstance(output_file, str | Path) else output_file
            stream.write(content[:break_after])
            if stream is not output_file:
                stream.close()
            if break_after is not None:
                raise ConnectionResetError("connection reset by peer")

        return download

    monkeypatch.setattr(pooch, "HTTPDownloader", build)


def test_download_is_checked_and_kept(alone, monkeypatch):
    entry, _ = one_file(alone, b"SOX2\n", url="https://example.org/x.txt")
    _serve(monkeypatch, b"SOX2\n")
    target = _fetch.locate(entry, "folder/x.txt")
    assert target == alone / "cache" / "folder" / "x.txt" and target.read_bytes() == b"SOX2\n"
    _serve(monkeypatch, b"never asked again", break_after=0)
    assert _fetch.locate(entry, "folder/x.txt") == target


@pytest.mark.parametrize(("content", "break_after"), [(b"SOX", None), (b"SOX2\n", 2)])
def test_a_broken_download_leaves_no_partial_file(alone, monkeypatch, content, break_after):
    entry, _ = one_file(alone, b"SOX2\n", url="https://example.org/x.txt")
    _serve(monkeypatch, content, break_after=break_after)
    with pytest.raises(ConnectionError, match=r"https://example\.org/x\.txt"):
        _fetch.locate(entry, "folder/x.txt")
    assert not [path for path in (alone / "cache").rglob("*") if path.is_file()]


def test_a_tidy_file_counts_only_with_its_note(alone, monkeypatch):
    target = alone / "cache" / "h5ad" / "dlpfc_full_151507.h5ad"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"half")
    with pytest.raises(FileNotFoundError, match="humanpilot"):
        _registry.fetch("dlpfc_full_151507")
    note = {"recipe": "humanpilot.py:1", "sha256": hashlib.sha256(b"half").hexdigest()}
    _fetch.sidecar(target).write_text(json.dumps(note))
    assert _registry.fetch("dlpfc_full_151507") == target
    mirror = alone / "mirror"
    (mirror / "h5ad").mkdir(parents=True)
    for file in (target, _fetch.sidecar(target)):
        file.rename(mirror / "h5ad" / file.name)
    monkeypatch.setenv("GRAPHFM_DATA", str(mirror))
    target = mirror / "h5ad" / target.name
    assert _registry.fetch("dlpfc_full_151507") == target
    target.write_bytes(b"other")
    with pytest.raises(ValueError, match="wrong checksum"):
        _registry.fetch("dlpfc_full_151507")


class Shell:
    def __reduce__(self):
        return os.system, ("exit 3",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_unpickler_refuses_code(protocol):
    with pytest.raises(pickle.UnpicklingError, match="not allowed"):
        _readers.ArrayUnpickler(io.BytesIO(pickle.dumps(Shell(), protocol))).load()
    for forbidden in (eval, getattr, np.load, Path):
        with pytest.raises(pickle.UnpicklingError, match="not allowed"):
            _readers.ArrayUnpickler(io.BytesIO(pickle.dumps(forbidden, protocol))).load()


def test_beeline_is_matched_by_name(tmp_path):
    root = "raw/o/r/Dataset/Benchmark Dataset/{} Dataset/hHEP/TFs+500/{}"
    tables = {
        "raw/o/e/hHEP/TFs+500/BL--ExpressionData.csv.gz": pd.DataFrame(
            [[1.0, 0.0], [2.0, 3.0], [0.0, 4.0]], index=["B", "A", "C"], columns=["cell1", "cell2"]
        ),
        root.format("STRING", "BL--network.csv"): pd.DataFrame({"Gene1": ["A", "A", "Z"], "Gene2": ["B", "C", "A"]}),
        root.format("STRING", "TF.csv"): pd.DataFrame({"TF": ["A"], "index": [0]}),
        root.format("Specific", "BL--network.csv"): pd.DataFrame({"Gene1": ["B"], "Gene2": ["C"], "Score": [1]}),
        root.format("Specific", "TF.csv"): pd.DataFrame({"TF": ["B", "Z"], "index": [1, 2]}),
    }
    for path, table in tables.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(tmp_path / path, index="Expression" in path)
    files = tuple(_registry.DatasetFile(path, None, None, None) for path in tables)
    entry = _registry.DatasetInfo("x", "", "truth", "beeline", files)
    adata = _readers.read_beeline(entry, lambda path: tmp_path / path)
    assert adata.shape == (2, 3) and sp.issparse(adata.X) and adata.uns["is_raw_counts"] is False
    assert adata[:, "A"].X.toarray().ravel().tolist() == [2.0, 3.0]
    assert adata.uns["grn_truth"]["STRING"].to_numpy().tolist() == [["A", "B"], ["A", "C"]]
    assert list(adata.uns["grn_truth"]["Specific"].columns) == ["tf", "target"]
    assert adata.uns["tfs"].tolist() == ["A", "B"] and adata.var["is_tf"].tolist() == [True, True, False]


def test_truth_survives_writing(tmp_path):
    import anndata as ad

    entry = _registry.DatasetInfo("x", "", "truth", "beeline", ())
    truth = {"STRING": pd.DataFrame({"tf": ["A"], "target": ["B"]})}
    expression = pd.DataFrame([[1.0, 2.0]], index=["cell"], columns=["A", "B"])
    adata = _readers._with_truth(expression, truth, ["A"], entry)
    adata.write_h5ad(tmp_path / "x.h5ad")
    again = ad.read_h5ad(tmp_path / "x.h5ad").uns["grn_truth"]["STRING"]
    assert again.to_numpy().tolist() == [["A", "B"]]


@pytest.mark.slow
@pytest.mark.skipif(not MIRROR, reason="needs the mirror of public data: GRAPHFM_DATA is not set")
class TestMirror:
    """What the mirror holds is what the table says."""

    def test_manifest_and_table_agree(self):
        known = {file.path: file for name in _registry.names() for file in _registry.info(name).files}
        with open(Path(MIRROR) / "MANIFEST.tsv", encoding="utf-8") as handle:
            for row in csv.DictReader(handle, delimiter="\t"):
                file = known[row["file"]]
                assert (file.sha256, file.bytes) == (row["sha256"], int(row["bytes"])), row["file"]
                if row["file"].startswith("raw/"):
                    assert file.url == row["source"]

    def test_every_file_has_its_checksum(self):
        for name in _registry.names():
            entry = _registry.info(name)
            for file in entry.files:
                if file.sha256:
                    assert _fetch.locate(entry, file.path).stat().st_size == file.bytes

    @pytest.mark.parametrize("name", TIDY)
    def test_tidy_files_are_as_described(self, name):
        entry = _registry.info(name)
        adata = _registry.load(name)
        assert adata.shape == entry.shape and adata.uns["dataset"] == name
        assert bool(adata.uns["is_raw_counts"]) == entry.is_raw_counts
        assert set(entry.labels) <= set(adata.obs.columns)
        assert ("spatial" in adata.obsm) == (entry.kind == "spatial")
        if entry.is_raw_counts:
            assert (adata.X.data == np.round(adata.X.data)).all()

    def test_beeline(self):
        adata = _families.beeline(cell_type="hHEP", num_genes=500)
        assert adata.shape == (425, 948) and len(adata.uns["tfs"]) == 448
        sizes = {name: len(edges) for name, edges in adata.uns["grn_truth"].items()}
        assert sizes == {"STRING": 7523, "Non-Specific": 4129, "Specific": 9939}
        assert len(_families.beeline(cell_type="mESC").uns["grn_truth"]["Lofgof"]) == 4169
        for name in _registry.names():
            entry = _registry.info(name)
            if entry.reader == "beeline":
                adata = _registry.load(name)
                assert adata.shape == entry.shape
                for edges in adata.uns["grn_truth"].values():
                    assert edges.stack().isin(adata.var_names).all() and not edges.duplicated().any()

    def test_simulated(self):
        adata = _families.beeline_synthetic(network="dyn-LI", replicate=9, num_cells=2000)
        assert adata.shape == (2000, 7) and adata.obs["pseudotime_0"].notna().all()
        truth = adata.uns["grn_truth"]["reference"]
        assert set(truth["sign"]) == {-1, 1} and truth[["tf", "target"]].stack().isin(adata.var_names).all()
        assert [len(_families.dream4(number).uns["grn_truth"]["reference"]) for number in range(1, 6)] == [
            176, 249, 195, 211, 193,
        ]  # fmt: skip

    @pytest.mark.parametrize("name", ["cora", "citeseer"])
    def test_planetoid_is_as_pyg_reads_it(self, name):
        import torch
        from torch_geometric.io import read_planetoid_data
        from torch_geometric.utils import coalesce

        ours = _families.planetoid(name)
        theirs = read_planetoid_data(f"{MIRROR}/raw/kimiyoung/planetoid/data", name)
        assert torch.equal(ours.edge_index, coalesce(theirs.edge_index))
        for key in ("x", "y", "train_mask", "val_mask", "test_mask"):
            assert torch.equal(ours[key], theirs[key]), key

    @pytest.mark.parametrize("name", ["minesweeper", "tolokers"])
    def test_heterophilous(self, name):
        data = _families.heterophilous(name)
        assert tuple(data.x.shape) == _registry.info(f"heterophilous_{name}").shape
        assert data.train_mask.shape == (data.num_nodes, 10) and data.is_undirected()

    def test_priors(self):
        assert len(_families.tf_list("human")) == 1839 and "Sox2" in _families.tf_list("mouse")
        for name in ("collectri_human", "trrust_mouse", "cellchatdb_mouse", "cellphonedb_human", "liana_human"):
            table = _families.prior(name)
            assert list(table.columns[:3]) == ["source", "target", "sign"] and len(table) > 1000
            assert set(table["sign"]) <= {-1, 0, 1}
        assert "ortholog_id" in _families.prior("orthologs_human_mouse")
        assert not _families.prior("gene_list_human")["gene"].str.startswith("<").any()

    def test_dorothea_needs_rdata(self):
        pytest.importorskip("rdata", reason="rdata is not installed")
        table = _families.prior("dorothea_mouse")
        assert len(table) == 386758 and set(table["confidence"]) == set("ABCDE")
