"""The scripts of data_prep: each conversion on a small made-up input of the source's structure; no network."""

import gzip
import importlib
import json
import socket
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from graphfm.datasets import _readers, _registry, load

FOLDER = Path(__file__).parents[1] / "data_prep"


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """An empty cache, no mirror, no network; the scripts import each other by name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("GRAPHFM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GRAPHFM_DATA", raising=False)

    def refuse(*args, **kwargs):
        raise OSError("the network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    for path in FOLDER.glob("*.py"):
        sys.modules.pop(path.stem, None)


def script(name: str):
    return importlib.import_module(name)


def sparse_of_r(dense: np.ndarray, genes: list[str], cells: list[str]) -> SimpleNamespace:
    """A dgCMatrix (genes x cells) as `rdata` gives it."""
    columns = sp.csc_matrix(dense.astype(float))
    names = [np.array(genes), np.array(cells)]
    return SimpleNamespace(
        i=columns.indices, p=columns.indptr, x=columns.data, Dim=np.array(dense.shape), Dimnames=names
    )


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def small(name: str = "dlpfc_full_151507") -> ad.AnnData:
    return script("_tidy").tidy(np.eye(3), cells=list("abc"), genes=list("xyz"), obs={"layer": ["L1", None, "WM"]})


def test_tidy_form():
    adata = script("_tidy").tidy(
        np.array([[0, 2], [1, 0]]), cells=["a", "b"], genes=["G", "G"], obs={"n": [1, 2]}, spatial=np.ones((2, 2))
    )
    assert sp.issparse(adata.X) and adata.X.format == "csr" and adata.X.dtype == np.float32
    assert adata.var_names.is_unique and adata.obs["n"].tolist() == [1, 2]
    assert adata.obsm["spatial"].dtype == np.float32
    assert small().obs["layer"].tolist() == ["L1", "NA", "WM"]
    with pytest.raises(ValueError, match="not counts"):
        script("_tidy").tidy(np.array([[0.5]]), cells=["a"], genes=["g"])


def test_run_writes_once_and_load_finds_it(tmp_path):
    calls = []

    def recipe(fetch):
        calls.append(1)
        fetch.sums["https://example.org/raw"] = "0" * 64
        return small()

    run = script("_tidy").run
    options = {"script": "humanpilot.py", "argv": ["dlpfc_full_151507"]}
    run({"dlpfc_full_151507": recipe}, version=1, **options)
    run({"dlpfc_full_151507": recipe}, version=1, **options)
    assert len(calls) == 1
    adata = load("dlpfc_full_151507")
    assert adata.shape == (3, 3) and adata.uns["provenance"]["citation"] == "10.1038/s41593-020-00787-0"
    assert adata.uns["provenance"]["licence"] and "example.org" in adata.uns["provenance"]["sources"]["0"]
    run({"dlpfc_full_151507": recipe}, version=2, **options)
    assert len(calls) == 2
    (tmp_path / "cache/h5ad/dlpfc_full_151507.h5ad").write_bytes(b"damaged")
    run({"dlpfc_full_151507": recipe}, version=2, **options)
    assert len(calls) == 3 and len(files_of(tmp_path / "cache")) == 2


def test_other_shape_is_refused_unless_asked(tmp_path):
    write = script("_tidy").write_tidy
    adata = small()
    with pytest.raises(ValueError, match="allow-other-shape"):
        write(adata, "dlpfc_151673", recipe="x:1", sources={})
    assert not files_of(tmp_path)
    write(adata, "dlpfc_151673", recipe="x:1", sources={}, allow_other_shape=True)
    assert not load("dlpfc_151673").uns["provenance"]["shape_as_in_table"]
    del adata.obs["layer"]
    with pytest.raises(ValueError, match="layer"):
        write(adata, "dlpfc_151673", recipe="x:1", sources={}, allow_other_shape=True)


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def broken(self, path, **options):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(ad.AnnData, "write_h5ad", broken)
    with pytest.raises(OSError, match="disk full"):
        script("_tidy").write_tidy(small(), "dlpfc_full_151507", recipe="x:1", sources={})
    assert not files_of(tmp_path)


def test_raw_files_are_pinned_at_the_first_download(tmp_path, monkeypatch):
    import pooch

    module = script("_tidy")
    asked = []

    def retrieve(url, known_hash, fname, path, downloader):
        asked.append(known_hash)
        Path(path).mkdir(parents=True, exist_ok=True)
        (Path(path) / fname).write_bytes(b"raw")
        return str(Path(path) / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    first, second = module.Fetch(), module.Fetch()
    first("https://example.org/a.csv?download=1")
    second("https://example.org/a.csv?download=1")
    (total,) = first.sums.values()
    assert asked == [None, f"sha256:{total}"] and first.sums == second.sums
    assert json.loads((tmp_path / "cache/raw.lock.json").read_text()) == first.sums


def test_offline_is_one_clear_error():
    with pytest.raises(ConnectionError, match=r"could not fetch https://example\.org/a") as caught:
        script("_tidy").Fetch()("https://example.org/a")
    assert caught.value.__suppress_context__
    with pytest.raises(SystemExit, match="osmfish_ssctx: could not fetch"):
        script("_tidy").run(script("osmfish").RECIPES, script="osmfish.py", version=1, argv=[])


def test_every_name_of_the_table_is_made_by_its_script():
    for name in _registry.names():
        if path := _registry.info(name).script:
            assert name in script(Path(path).stem).RECIPES, name


class TestRObjects:
    def test_matrices(self):
        module, dense = script("_r_objects"), np.array([[0, 1, 2], [3, 0, 0]])
        values, genes, cells = module.matrix(sparse_of_r(dense, ["g1", "g2"], ["a", "b", "c"]))
        assert (values.toarray() == dense.T).all() and genes == ["g1", "g2"] and cells == ["a", "b", "c"]
        values, genes, cells = module.matrix(pd.DataFrame(dense, index=["g1", "g2"], columns=list("abc")))
        assert (values.toarray() == dense.T).all() and genes == ["g1", "g2"] and cells == list("abc")
        values, genes, cells = module.matrix(dense)
        assert (values.toarray() == dense.T).all() and genes is None and cells is None
        with pytest.raises(TypeError):
            module.matrix("text")

    @pytest.mark.parametrize("old", [False, True])
    def test_experiment(self, old):
        module, dense = script("_r_objects"), np.array([[0, 1], [3, 0]])
        listed = SimpleNamespace(listData={"counts": sparse_of_r(dense, ["g1", "g2"], ["a", "b"])})
        assays = SimpleNamespace(**{".xData": {"data": listed}}) if old else SimpleNamespace(data=listed)
        table = SimpleNamespace(listData={"cluster_id": np.array(["T", "B"])}, rownames=np.array(["a", "b"]))
        values, genes, cells = module.experiment(SimpleNamespace(assays=assays, colData=table))
        assert (values.toarray() == dense.T).all() and genes == ["g1", "g2"]
        assert cells.loc["b", "cluster_id"] == "B"

    def test_files_of_r(self, tmp_path):
        rdata = pytest.importorskip("rdata", reason="rdata is not installed")
        module = script("_r_objects")
        rdata.write_rda(tmp_path / "x.rda", {"x": {"expression": np.arange(6.0).reshape(2, 3)}})
        rdata.write_rds(tmp_path / "x.rds", np.arange(6.0).reshape(2, 3))
        assert module.read_r(tmp_path / "x.rda")["x"]["expression"].shape == (2, 3)
        assert module.matrix(module.read_r(tmp_path / "x.rds"))[0].shape == (3, 2)


def test_osmfish(tmp_path):
    with h5py.File(tmp_path / "x.loom", "w") as store:
        store["matrix"] = np.array([[1, 0], [2, 3], [0, 4]])
        store["row_attrs/Gene"] = np.array(["Gad2", "Apln", "Acta2"], dtype="S")
        for key, value in {"CellID": [778, 9], "ClusterID": [18, -1], "X": [1.0, 2.0], "Y": [3.0, 4.0]}.items():
            store[f"col_attrs/{key}"] = np.array(value)
        for key, value in {"ClusterName": ["Pyramidal", "Excluded"], "Region": ["Layer 4", "Excluded"]}.items():
            store[f"col_attrs/{key}"] = np.array(value, dtype="S")
    adata = script("osmfish").convert(tmp_path / "x.loom")
    assert adata.shape == (2, 3) and adata.obs_names.tolist() == ["cell_778", "cell_9"]
    assert adata.obs["region"].tolist() == ["Layer 4", "Excluded"]
    assert adata.X.toarray().tolist() == [[1, 2, 0], [0, 3, 4]] and adata.obsm["spatial"].tolist() == [[1, 3], [2, 4]]


def test_starmap_visual_cortex(tmp_path):
    source = ad.AnnData(np.arange(6.0).reshape(3, 2))
    source.obs_names, source.var_names = ["8", "9", "12"], ["A", "B"]
    source.write_h5ad(tmp_path / "x.h5ad")
    table = pd.DataFrame(
        {"cluster_name": ["eL4", "SST"], "x": [1.0, 2.0], "y": [3.0, 4.0], "smoothed_manual": ["L4", "cc"]},
        index=[12, 8],
    )
    table.to_csv(tmp_path / "x.csv")
    adata = script("starmap").convert_visual_cortex(tmp_path / "x.h5ad", tmp_path / "x.csv")
    assert adata.obs_names.tolist() == ["12", "8"] and adata.X.toarray().tolist() == [[4, 5], [0, 1]]
    assert adata.obs["domain"].tolist() == ["L4", "cc"]


def test_starmap_section():
    section = "20180417_BZ5_control"
    info = pd.DataFrame({"c": ["Smc", "SST"], "z": [1, 2], "x": [1.0, 2.0], "y": [3.0, 4.0]}, index=["a", "b"])
    counts = sparse_of_r(np.array([[1, 2], [0, 3], [5, 0]]), ["A", "B", "C"], ["a", "b"])
    objects = {"starmap_cnts": {section: counts}, "starmap_info": {section: info}}
    adata = script("starmap").convert_section(objects, section)
    assert adata.shape == (2, 3) and adata.obs["domain"].tolist() == ["1", "2"]
    assert adata[:, "B"].X.toarray().ravel().tolist() == [0, 3]


def test_her2st(tmp_path):
    module = script("her2st")
    pd.DataFrame([[1, 0, 2], [0, 3, 0], [9, 9, 9]], index=["10x13", "10x14", "1x1"], columns=["B", "A", "C"]).to_csv(
        tmp_path / "A1.tsv.gz", sep="\t"
    )
    spots = {"x": [10, 10], "y": [14, 13], "pixel_x": [5.0, 6.0], "pixel_y": [7.0, 8.0]}
    pd.DataFrame(spots).to_csv(tmp_path / "spots.tsv", sep="\t", index=False)
    labels = {"Row.names": ["p"], "x": [9.97], "y": [13.02], "label": ["invasive cancer"]}
    pd.DataFrame(labels).to_csv(tmp_path / "labels.tsv", sep="\t", index=False)
    one = module.convert_section("A1", tmp_path / "A1.tsv.gz", tmp_path / "spots.tsv", tmp_path / "labels.tsv")
    assert one.obs_names.tolist() == ["A1_10x13", "A1_10x14"]
    assert one.obs["region"].tolist() == ["invasive cancer", "undetermined"]
    assert one.obs["pixel_x"].tolist() == [6.0, 5.0] and one.obsm["spatial"].tolist() == [[10, 13], [10, 14]]
    two = module.convert_section("A2", tmp_path / "A1.tsv.gz", tmp_path / "spots.tsv", None)
    whole = module.join([one, two[:, ["B", "A"]].copy()], min_spots=2)
    assert whole.var_names.tolist() == ["A", "B"] and whole.n_obs == 4 and whole.X.format == "csr"
    assert set(two.obs["region"]) == {"NA"} and len(module.SECTIONS) == 36


def test_sc_mixology(tmp_path):
    module = script("sc_mixology")
    pd.DataFrame([[1, 0], [2, 3]], index=["E1", "E2"], columns=["c1", "c2"]).to_csv(tmp_path / "count.csv.gz")
    table = pd.DataFrame({"cell_line": ["A549", "H838"], "demuxlet_cls": ["SNG", "DBL"]}, index=["c2", "c1"])
    table.to_csv(tmp_path / "meta.csv.gz")
    one = module.convert_batch("sc_celseq2", tmp_path / "count.csv.gz", tmp_path / "meta.csv.gz")
    assert one.obs["cell_line"].tolist() == ["H838", "A549"] and one.X.toarray().tolist() == [[1, 2], [0, 3]]
    two = module.convert_batch("sc_dropseq", tmp_path / "count.csv.gz", tmp_path / "meta.csv.gz")
    whole = module.join([one, two[:, ["E2"]].copy()], min_cells=2)
    assert whole.shape == (4, 1) and whole.obs_names.is_unique
    table.iloc[:1].to_csv(tmp_path / "meta.csv.gz")
    with pytest.raises(ValueError, match="no metadata"):
        module.convert_batch("sc_celseq2", tmp_path / "count.csv.gz", tmp_path / "meta.csv.gz")


def write_10x(path: Path, counts: np.ndarray, barcodes: list[str], genes: list[str], kinds: list[str]) -> None:
    """A 10x HDF5 matrix, version 3."""
    columns = sp.csc_matrix(counts.T)
    with h5py.File(path, "w") as store:
        group = store.create_group("matrix")
        group["data"], group["indices"], group["indptr"] = columns.data, columns.indices, columns.indptr
        group["shape"] = np.array(columns.shape)
        group["barcodes"] = np.array(barcodes, dtype="S")
        group["features/id"] = np.array([f"ENSG{gene}" for gene in genes], dtype="S")
        group["features/name"] = np.array(genes, dtype="S")
        group["features/feature_type"] = np.array(kinds, dtype="S")
        group["features/genome"] = np.array(["x"] * len(genes), dtype="S")


def test_humanpilot(tmp_path):
    counts = np.array([[1, 0, 2], [0, 3, 0]])
    write_10x(tmp_path / "x.h5", counts, ["AAA-1", "CCC-1"], ["A", "B", "B"], ["Gene Expression"] * 3)
    (tmp_path / "pos.txt").write_text("CCC-1,1,5,6,50,60\nTTT-1,0,9,9,9,9\nAAA-1,1,3,4,30,40\n")
    (tmp_path / "layers.tsv").write_text("AAA-1\t151507\tL3\nCCC-1\t151508\tWM\n")
    adata = script("humanpilot").convert(
        tmp_path / "x.h5", tmp_path / "pos.txt", tmp_path / "layers.tsv", slice_id="151507", donor="Br5292"
    )
    assert adata.X.toarray().tolist() == counts.tolist() and adata.obs["layer"].tolist() == ["L3", "NA"]
    assert adata.obsm["spatial"].tolist() == [[40, 30], [60, 50]] and adata.obs["array_row"].tolist() == [3, 5]
    assert adata.var["symbol"].tolist() == ["A", "B", "B"] and len(set(adata.obs["donor"])) == 1


def test_xenium(tmp_path):
    kinds = ["Gene Expression", "Negative Control Probe", "Gene Expression"]
    write_10x(tmp_path / "x.h5", np.array([[15, 1, 5], [19, 9, 0]]), ["1", "2"], ["A", "Neg", "B"], kinds)
    cells = {"cell_id": [2, 1], "x_centroid": [2.0, 1.0], "y_centroid": [4.0, 3.0]}
    table = pd.DataFrame(cells | {"cell_area": [9.0, 8.0], "nucleus_area": [7.0, 6.0]})
    table.to_csv(tmp_path / "cells.csv.gz", index=False)
    adata = script("xenium").convert(tmp_path / "x.h5", tmp_path / "cells.csv.gz")
    assert adata.obs_names.tolist() == ["1"] and adata.var_names.tolist() == ["A", "B"]
    assert adata.obsm["spatial"].tolist() == [[1, 3]] and adata.obs["cell_area"].tolist() == [8.0]


def test_banksy(tmp_path):
    module = script("banksy")
    counts = sparse_of_r(np.array([[1, 2], [0, 3]]), ["ENSG1", "ENSG2"], ["AAA-1_151673", "CCC-1_151673"])
    place = pd.DataFrame({"sdimx": [1.0, 2.0], "sdimy": [3.0, 4.0]}, index=["AAA-1_151673", "CCC-1_151673"])
    (tmp_path / "layers.tsv").write_text("CCC-1\t151673\tL3\nAAA-1\t151507\tWM\n")
    objects = {"dlpfc151673": {"expression": counts, "locations": place}}
    adata = module.convert_slice(objects, tmp_path / "layers.tsv", slice_id="151673")
    assert adata.obs_names.tolist() == ["AAA-1", "CCC-1"] and adata.obs["layer"].tolist() == ["NA", "L3"]
    assert adata.obsm["spatial"].tolist() == [[1, 3], [2, 4]]
    counts.x = counts.x / 7
    with pytest.raises(ValueError, match="not counts"):
        module.convert_slice(objects, tmp_path / "layers.tsv", slice_id="151673")
    metadata = pd.DataFrame({"Cell_class": ["Astrocyte", "Inhibitory"], "Bregma": [0.26, 0.21]}, index=place.index)
    cells = {"hypothalamus": {"expression": counts, "locations": place, "metadata": metadata}}
    adata = module.convert_cells(cells, counts=False)
    assert adata.obs["cell_type"].tolist() == ["Astrocyte", "Inhibitory"] and not adata.uns["is_raw_counts"]


def test_muscat_kang():
    listed = SimpleNamespace(listData={"counts": sparse_of_r(np.eye(2), ["g1", "g2"], ["a", "b"])})
    columns = {"cluster_id": np.array(["B cells", "NK cells"]), "sample_id": np.array(["ctrl101", "stim101"])}
    table = SimpleNamespace(listData=columns, rownames=np.array(["a", "b"]))
    adata = script("muscat_kang").convert(SimpleNamespace(assays=SimpleNamespace(data=listed), colData=table))
    assert adata.obs["cell_type"].tolist() == ["B cells", "NK cells"] and "donor" not in adata.obs


@pytest.mark.parametrize("transposed", [False, True])
def test_fire(tmp_path, transposed):
    values = np.array([[0.5, 0.0], [1.5, 2.0], [0.0, 0.25]])
    with gzip.open(tmp_path / "values.txt.gz", "wt") as handle:
        np.savetxt(handle, values.T if transposed else values)
    (tmp_path / "labels.txt").write_text("1\n1\n2\n")
    (tmp_path / "genes.txt").write_text("14563\n31693\n")
    adata = script("fire").convert(tmp_path / "values.txt.gz", tmp_path / "labels.txt", tmp_path / "genes.txt")
    assert adata.obs["cell_type"].tolist() == ["293T", "293T", "Jurkat"] and adata.var_names[0] == "14563"
    np.testing.assert_allclose(adata.X.toarray(), values)


def test_beeline(tmp_path):
    genes = ["TF1", "TF2", "A", "B", "C"]
    expression = pd.DataFrame(np.arange(10.0).reshape(5, 2), index=genes, columns=["c1", "c2"])
    # TF2 does not vary, X is not expressed; of A, B, C the two of the highest variance stay
    ordering = pd.DataFrame(
        {"VGAMpValue": [1e-9, 0.5, 1e-9, 1e-9, 1e-9, 1e-9], "Variance": [0.1, 9, 1, 3, 2, 8]}, index=[*genes, "X"]
    )
    network = pd.DataFrame({"Gene1": ["TF1", "TF1", "TF1", "TF1", "TF2"], "Gene2": ["B", "B", "TF1", "A", "B"]})
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("BEELINE-data/inputs/scRNA-Seq/hESC/ExpressionData.csv", expression.to_csv())
        archive.writestr("BEELINE-data/inputs/scRNA-Seq/hESC/GeneOrdering.csv", ordering.to_csv())
    with zipfile.ZipFile(tmp_path / "nets.zip", "w") as archive:
        for name in ("STRING", "Non-Specific-ChIP-seq", "hESC-ChIP-seq"):
            archive.writestr(f"Networks/human/{name}-network.csv", network.to_csv(index=False))
        archive.writestr("human-tfs.csv", "TF\nTF1\nTF2\n")
    module = script("beeline")
    adata = module.convert_archives(tmp_path / "data.zip", tmp_path / "nets.zip", cell_type="hESC", num_genes=2)
    assert adata.var_names.tolist() == ["TF1", "B", "C"] and adata.uns["tfs"].tolist() == ["TF1"]
    assert adata.uns["grn_truth"]["STRING"].to_numpy().tolist() == [["TF1", "B"]]
    assert set(adata.uns["grn_truth"]) == {"STRING", "Non-Specific", "Specific"}
    script("_tidy").write_tidy(adata, "beeline_hesc_500", recipe="beeline.py:1", sources={})
    again = _registry.loader("beeline")(cell_type="hESC", num_genes=500)
    assert again.uns["grn_truth"]["Specific"].to_numpy().tolist() == [["TF1", "B"]] and again.var["is_tf"].sum() == 1


def test_node_graphs(tmp_path):
    module = script("node_graphs")
    buffer = tmp_path / "arxiv.zip"
    tables = {
        "raw/node-feat": "0.5,1\n0,2\n3,0\n",
        "raw/node-label": "4\n1\n4\n",
        "raw/edge": "0,1\n1,0\n2,1\n2,2\n",
        "split/time/train": "0\n",
        "split/time/valid": "1\n",
        "split/time/test": "2\n",
    }
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in tables.items():
            archive.writestr(f"arxiv/{name}.csv.gz", gzip.compress(text.encode()))
    adata = module.arxiv(buffer)
    assert adata.obs["split"].tolist() == ["train", "validation", "test"] and adata.obs["class"].tolist() == [4, 1, 4]
    # both directions, no loop, none twice
    assert adata.obsp["edges"].toarray().tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    path = tmp_path / "graph.h5ad"
    adata.write_h5ad(path)
    entry = SimpleNamespace(files=[SimpleNamespace(path="graph.h5ad")])
    data = _readers.read_node_graph(entry, lambda _: path)
    assert data.x.tolist() == [[0.5, 1], [0, 2], [3, 0]] and data.y.tolist() == [4, 1, 4]
    assert data.edge_index.T.tolist() == [[0, 1], [1, 0], [1, 2], [2, 1]]
    assert [mask.tolist() for mask in (data.train_mask, data.val_mask, data.test_mask)] == np.eye(
        3, dtype=bool
    ).tolist()


def test_datasheet_is_of_the_weights_and_the_registry():
    made = script("datasheet")
    assert made.PATH.read_text(encoding="utf-8") == made.sheet(), "run: python data_prep/datasheet.py"
    assert "20,365 cells of 10 data sets" in made.sheet()


@pytest.fixture
def census(monkeypatch):
    """The script, beside a client that holds three small data sets; remembers what was fetched."""
    rng = np.random.default_rng(0)
    names = np.repeat(["few", "some", "many"], [5, 40, 90])
    obs = pd.DataFrame({"soma_joinid": rng.permutation(135), "dataset_id": names})
    for column in ("cell_type", "tissue", "assay", "donor_id", "disease"):
        obs[column] = "x"
    counts, asked = sp.random(135, 30, 0.3, format="csr", random_state=0), []

    class Store(dict):
        def __enter__(self):
            return self

        def __exit__(self, *error):
            return False

    def get_obs(store, organism, *, value_filter, column_names):
        assert "is_primary_data == True and (tissue == 'x')" in value_filter
        return obs[column_names]

    def get_anndata(store, organism, *, obs_coords, obs_column_names, var_column_names):
        asked.append(len(obs_coords))
        rows = obs.index[obs["soma_joinid"].isin(obs_coords)]
        var = pd.DataFrame({"feature_id": [f"ENSG{i:011d}" for i in range(30)], "feature_name": "g"})
        var.index = var.index.astype(str)
        kept = obs.loc[rows, obs_column_names]
        return ad.AnnData(counts[rows], kept.set_index(kept.index.astype(str)), var[var_column_names])

    facts = pd.DataFrame({"label": ["census_build_date"], "value": ["2025-01-30"]})
    table = SimpleNamespace(read=lambda: SimpleNamespace(concat=lambda: SimpleNamespace(to_pandas=lambda: facts)))
    store = Store(census_info={"summary": table})
    client = SimpleNamespace(open_soma=lambda census_version: store, get_obs=get_obs, get_anndata=get_anndata)
    monkeypatch.setitem(sys.modules, "cellxgene_census", client)
    return importlib.import_module("census"), asked


def test_census_draws_cells_of_each_data_set(census, tmp_path, capsys):
    script, asked = census
    words = ["--organism", "human", "--filter", "tissue == 'x'", "--out", str(tmp_path), "--least", "10"]
    script.main([*words, "--cells", "50"])
    assert sorted(asked) == [40, 50] and "1 were too small" in capsys.readouterr().out
    first = ad.read_h5ad(tmp_path / "many.h5ad")
    assert first.var_names[0] == "ENSG00000000000" and first.X.dtype == np.float32
    assert first.obs_names.tolist() == first.obs["soma_joinid"].astype(str).tolist()
    assert set(first.obs["dataset_id"]) == {"many"} and "2025-01-30" in first.uns["provenance"]["source"]
    script.main([*words, "--cells", "50"])
    assert len(asked) == 2  # what is there is not fetched again
    with pytest.raises(SystemExit, match="another --out"):
        script.main([*words, "--cells", "30"])
    with pytest.raises(SystemExit, match="lower --least"):
        script.main([*words[:-1], "1000", "--cells", "50"])


def test_census_needs_its_client(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "cellxgene_census", None)
    with pytest.raises(SystemExit):
        importlib.import_module("census").main(["--organism", "human", "--out", str(tmp_path)])
    assert "pip install cellxgene-census" in capsys.readouterr().err
