"""Reading, checking and writing data."""

import os
import stat

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st

import graphfm
from graphfm import io
from graphfm.io.files import is_lazy
from graphfm.io.mapped import GrowingMatrix, open_matrix
from graphfm.io.matrix import stored_values


@pytest.fixture
def matrix():
    rng = np.random.default_rng(0)
    dense = rng.poisson(0.7, size=(30, 12)).astype(np.float32)
    dense[3], dense[:, 5] = 0, 0
    return dense


@pytest.mark.parametrize(
    "form",
    [
        np.asarray,
        sp.csr_matrix,
        sp.csc_matrix,
        sp.csr_array,
        sp.csc_array,
        lambda x: x.astype(np.int64),
        lambda x: x.astype(np.float16),
        lambda x: x.astype(np.float64),
        lambda x: sp.csr_matrix(x.astype(np.int64)),
        lambda x: sp.csc_matrix(x.astype(np.float64)),
        lambda x: np.asfortranarray(x),
    ],
)
def test_counts_of_every_form(matrix, form):
    adata = AnnData(form(matrix))
    before = adata.copy()
    result = io.counts(adata)
    assert isinstance(result, sp.csr_matrix) and result.dtype == np.float32 and result.shape == matrix.shape
    assert np.array_equal(result.toarray(), matrix) and result.has_canonical_format
    result.data[:] = -1
    x, y = adata.X, before.X
    assert type(x) is type(y) and x.dtype == y.dtype
    assert np.array_equal(x.toarray() if sp.issparse(x) else x, y.toarray() if sp.issparse(y) else y)
    rows, columns = [4, 2, 9], [0, 7]
    assert np.array_equal(io.counts(adata[rows][:, columns]).toarray(), matrix[rows][:, columns])


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize("chunk", [1, 25, 2**24])
def test_counts_of_backed_files(matrix, form, chunk, tmp_path, monkeypatch):
    from graphfm.io import matrix as module

    monkeypatch.setattr(module, "_CHUNK_VALUES", chunk)
    AnnData(form(matrix)).write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    assert np.array_equal(io.counts(backed).toarray(), matrix)
    assert np.array_equal(io.counts(backed[2:9]).toarray(), matrix[2:9])
    assert np.allclose(io.expression(backed).toarray(), io.expression(AnnData(matrix)).toarray())
    backed.file.close()


def test_explicit_zeros_and_duplicates_stay_in_the_data():
    x = sp.csr_matrix((np.array([1.0, 2.0, 0.0]), np.array([1, 1, 0]), np.array([0, 2, 3])), shape=(2, 2))
    adata = AnnData(x)
    assert io.counts(adata).toarray().tolist() == [[0, 3], [0, 0]]
    assert adata.X.nnz == 3


@pytest.mark.parametrize(("value", "word"), [(np.nan, "1 NaN"), (np.inf, "1 infinite"), (-1.0, "1 negative")])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
def test_bad_values(matrix, value, word, form):
    matrix[7, 2] = value
    adata = AnnData(np.zeros_like(matrix), layers={"mine": form(matrix)})
    for call in (io.counts, io.expression):
        with pytest.raises(ValueError, match=word) as error:
            call(adata, layer="mine")
        assert "adata.layers['mine']" in str(error.value)


def test_logged_data_where_counts_are_due(matrix):
    logged = io.expression(AnnData(matrix))
    adata = AnnData(logged)
    with pytest.raises(ValueError, match=r"log-normalised.*recover_counts.*kind='log1p'") as error:
        io.counts(adata)
    assert f"maximum is {logged.data.max():.6g}" in str(error.value) and "%" in str(error.value)
    with_layer = AnnData(logged, layers={"raw_counts": sp.csr_matrix(matrix)})
    with pytest.raises(ValueError, match="pass layer='raw_counts'"):
        io.counts(with_layer)
    with_raw = AnnData(logged)
    with_raw.raw = AnnData(matrix)
    with pytest.raises(ValueError, match=r"adata.raw.to_adata\(\)"):
        io.counts(with_raw)
    with pytest.raises(ValueError, match=r"adata.X: pass layer=None"):
        io.counts(AnnData(matrix, layers={"log": logged}), layer="log")
    scaled = AnnData(matrix - 0.5, layers={"counts": matrix})
    with pytest.raises(ValueError, match=r"negative.*pass layer='counts'"):
        io.counts(scaled)


def test_empty_missing_large_and_wrong(matrix):
    with pytest.raises(ValueError, match="0 cells"):
        io.counts(AnnData(np.zeros((0, 3))))
    with pytest.raises(ValueError, match="0 genes"):
        io.counts(AnnData(np.zeros((3, 0))))
    with pytest.raises(ValueError, match=r"adata.X is None"):
        io.counts(AnnData(obs=pd.DataFrame(index=list("ab")), var=pd.DataFrame(index=list("xy"))))
    with pytest.raises(KeyError, match="found: 'a'"):
        io.counts(AnnData(matrix, layers={"a": matrix}), layer="b")
    matrix = matrix.astype(np.float64)
    matrix[0, 0] = 2**24 + 1
    with pytest.raises(ValueError, match="2\\*\\*24"):
        io.counts(AnnData(matrix))
    with pytest.raises(TypeError, match="complex"):
        io.counts(AnnData(sp.csr_matrix(np.ones((2, 2), dtype=complex))))
    with pytest.raises(TypeError, match="as_anndata"):
        io.counts(matrix)
    assert io.counts(AnnData(np.zeros((2, 3)))).nnz == 0


def test_counts_are_no_logarithms(matrix):
    with pytest.raises(ValueError, match=r"whole numbers only.*kind='counts'"):
        io.expression(AnnData(np.minimum(matrix, 5)), kind="log1p")
    assert io.expression(AnnData(matrix > 0), kind="log1p").max() == 1  # whether there is any is what it is


def test_expression(matrix):
    total = matrix.sum(1, keepdims=True)
    typical = np.median(total[total > 0])
    share = matrix / np.where(total > 0, total, 1)
    expected = np.log1p(typical * share)
    result = io.expression(AnnData(matrix))
    assert io.typical_sum(AnnData(matrix)) == typical < 1e4
    assert np.allclose(result.toarray(), expected, rtol=1e-6) and result.dtype == np.float32
    assert np.isfinite(result.data).all() and result[3].nnz == 0
    deep = io.expression(AnnData(matrix * np.ceil(1e4 / typical)))
    given = io.expression(AnnData(matrix), target_sum=1e4)
    normalized = io.expression(AnnData(matrix * 0.37), kind="normalized")
    for found in (deep, given, normalized):
        assert np.allclose(found.toarray(), np.log1p(1e4 * share), rtol=1e-5)
    assert io.typical_sum(AnnData(0 * matrix)) == io.typical_sum(AnnData(matrix), kind="log1p") == 1e4
    again = io.expression(AnnData(result), kind="log1p")
    assert (again != result).nnz == 0
    with pytest.raises(ValueError, match="too large for kind='log1p'"):
        io.expression(AnnData(matrix * 100), kind="log1p")
    with pytest.raises(ValueError, match="kind='raw'"):
        io.expression(AnnData(matrix), kind="raw")
    for target in (0, -1, np.inf, np.nan):
        with pytest.raises(ValueError, match=f"target_sum={target} must be positive"):
            io.expression(AnnData(matrix), target_sum=target)


@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 25), st.floats(10, 1e5), st.integers(0, 1))
@settings(max_examples=80, deadline=None)
def test_recover_counts_round_trip(seed, cells, genes, target, decimals):
    rng = np.random.default_rng(seed)
    counts = rng.negative_binomial(1, 0.2, size=(cells, genes)) * (rng.random((cells, genes)) < 0.5)
    # a factor common to a whole cell is lost by any normalisation
    counts = counts // np.maximum(np.gcd.reduce(counts, axis=1, keepdims=True), 1)
    smallest = np.where(counts > 0, counts, 10**9).min(axis=1)
    counts[smallest > 8] = 0
    total = np.maximum(counts.sum(1, keepdims=True), 1)
    logged = np.log1p(counts / total * target).astype(np.float32 if decimals == 0 else np.float64)
    if decimals:
        logged = np.round(logged, 5)
        if target < 1e3:
            return
    result = io.recover_counts(sp.csr_matrix(logged))
    assert result.dtype == np.float32 and np.array_equal(result.toarray(), counts)


def test_recover_counts_refuses_what_is_not_so():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="is not log1p"):
        io.recover_counts(np.log1p(rng.gamma(1, 1, (20, 30))))
    with pytest.raises(ValueError, match="negative"):
        io.recover_counts(rng.normal(size=(5, 5)))
    with pytest.raises(ValueError, match="not log1p values"):
        io.recover_counts(np.array([[1.0, 50.0]]))
    coarse = np.round(np.log1p(rng.integers(1, 400, (5, 30)) * 0.3), 2)
    with pytest.raises(ValueError, match="too coarsely"):
        io.recover_counts(coarse)
    assert io.recover_counts(np.zeros((2, 3))).nnz == 0


def test_recover_counts_takes_a_matrix(matrix):
    with pytest.raises(TypeError, match=r"matrix is an AnnData.*adata\.X"):
        io.recover_counts(AnnData(matrix))


def test_recover_counts_of_pbmc68k():
    import scanpy as sc

    logged = sc.datasets.pbmc68k_reduced().raw.X
    result = io.recover_counts(logged)
    linear = np.expm1(logged.toarray().astype(np.float64))
    smallest = np.where(linear > 0, linear, np.inf).min(axis=1, keepdims=True)
    assert np.array_equal(result.toarray(), np.rint(linear / smallest))
    assert 0.1 < np.abs(linear / smallest - result.toarray()).max() < 0.12
    assert (result.min(axis=1).toarray() >= 0).all() and result.max() == 259


def test_as_anndata(matrix):
    from mudata import MuData
    from spatialdata import SpatialData
    from spatialdata.models import TableModel

    adata = AnnData(matrix)
    assert io.as_anndata(adata) is adata
    one = SpatialData(tables={"a": TableModel.parse(adata.copy())})
    assert io.as_anndata(one) is one.tables["a"]
    two = SpatialData(tables={"a": TableModel.parse(adata.copy()), "b": TableModel.parse(adata.copy())})
    with pytest.raises(ValueError, match=r"2 tables \(found: 'a', 'b'\)"):
        io.as_anndata(two)
    assert io.as_anndata(two, table_key="b") is two.tables["b"]
    with pytest.raises(KeyError, match="'c'"):
        io.as_anndata(two, table_key="c")
    multi = MuData({"rna": adata.copy(), "atac": adata.copy()})
    with pytest.raises(ValueError, match="modality="):
        io.as_anndata(multi)
    assert io.as_anndata(multi, modality="rna") is multi.mod["rna"]
    with pytest.raises(TypeError, match="DataFrame"):
        io.as_anndata(pd.DataFrame())


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_write_and_read(matrix, tmp_path, suffix):
    adata = AnnData(sp.csr_matrix(matrix), obs=pd.DataFrame({"type": ["a", "b"] * 15}, index=map(str, range(30))))
    adata.uns["parameters"] = {"k": 3}
    path = tmp_path / f"out{suffix}"
    for _ in range(2):
        io.write(adata, path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert not isinstance(adata.obs["type"].dtype, pd.CategoricalDtype)
    back = io.read(path)
    assert (back.X != adata.X).nnz == 0 and list(back.obs["type"]) == list(adata.obs["type"])
    assert back.uns["parameters"]["k"] == 3


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_failed_write_leaves_what_was_there(matrix, tmp_path, suffix, monkeypatch):
    path = tmp_path / f"out{suffix}"
    io.write(AnnData(matrix), path)

    def full(target, adata, **options):
        os.makedirs(target) if suffix == ".zarr" else open(target, "wb").write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"graphfm.io.files.write_{suffix[1:]}", full)
    with pytest.raises(OSError, match=r"No space left.*room left") as error:
        io.write(AnnData(matrix + 1), path)
    assert str(tmp_path) in str(error.value) and error.value.errno == 28
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert np.array_equal(io.counts(io.read(path)).toarray(), matrix)
    bad = AnnData(matrix)
    bad.uns["x"] = object()
    with pytest.raises(Exception, match="No method registered"):
        io.write(bad, path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_write_to_bad_places(matrix, tmp_path):
    with pytest.raises(ValueError, match=r".h5ad or .zarr"):
        io.write(AnnData(matrix), tmp_path / "a.csv")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        io.write(AnnData(matrix), tmp_path / "nowhere" / "a.h5ad")
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(OSError, match="locked"):
        io.write(AnnData(matrix), locked / "a.h5ad")


@pytest.fixture
def full(matrix) -> AnnData:
    """Something in every place of an AnnData."""
    adata = AnnData(sp.csr_matrix(matrix), layers={"columns": sp.csc_matrix(matrix), "dense": matrix})
    adata.raw = adata.copy()
    adata.obs["kind"] = np.where(np.arange(len(matrix)) % 2, "odd", "even")
    adata.obsp["graph"] = sp.csr_matrix((len(matrix),) * 2)
    adata.uns["parameters"] = {"k": 3, "names": ["a", "b"]}
    return adata


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_lazy_reading_leaves_the_matrices_in_the_file(full, matrix, tmp_path, suffix, monkeypatch):
    io.write(full, tmp_path / f"a{suffix}")
    lazy = io.read(tmp_path / f"a{suffix}", lazy=True)
    assert all(is_lazy(x) for x in (lazy.X, *lazy.layers.values())) and len(lazy.layers) == 2
    assert lazy.obs["kind"].tolist() == full.obs["kind"].tolist() and lazy.uns["parameters"]["k"] == 3
    assert all(stored_values(lazy, layer=layer) == stored_values(full, layer=layer) for layer in (None, *lazy.layers))
    monkeypatch.setattr("graphfm.io.matrix._CHUNK_VALUES", matrix.shape[1])
    for layer in (None, *lazy.layers):
        values, logged = zip(*io.row_chunks(lazy, layer=layer), strict=True)
        assert len(values) > 1 or layer is None
        assert np.array_equal(sp.vstack(values).toarray(), matrix)
        assert np.array_equal(sp.vstack(logged).toarray(), io.expression(full).toarray())
        assert io.typical_sum(lazy, layer=layer) == io.typical_sum(full)


@pytest.mark.parametrize("source", [".h5ad", ".zarr"])
@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_annotate_changes_annotations_alone(full, matrix, tmp_path, source, suffix, monkeypatch):
    io.write(full, tmp_path / f"a{source}")
    lazy = io.read(tmp_path / f"a{source}", lazy=True)
    lazy.obsm["X_new"], lazy.obs["score"] = np.ones((len(matrix), 2)), 1.0
    del lazy.obsp["graph"]
    out = tmp_path / f"b{suffix}"
    for _ in range(2):
        io.annotate(tmp_path / f"a{source}", lazy, out)
    back = io.read(out)
    assert np.array_equal(back.X.toarray(), matrix) and np.array_equal(back.raw.X.toarray(), matrix)
    assert np.array_equal(back.layers["columns"].toarray(), matrix) and np.array_equal(back.layers["dense"], matrix)
    assert back.obsm["X_new"].sum() == 2 * len(matrix) and list(back.obs) == ["kind", "score"]
    assert "graph" not in back.obsp and list(back.uns["parameters"]["names"]) == ["a", "b"]
    assert io.read(out, lazy=True).obs_names.tolist() == full.obs_names.tolist()

    read = io.read

    def broken(*arguments, **options):
        if options.get("lazy"):
            return read(*arguments, **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("graphfm.io.files.write_elem", broken)
    monkeypatch.setattr("graphfm.io.files.read", broken)
    with pytest.raises(OSError, match="No space left"):
        io.annotate(tmp_path / f"a{source}", lazy, out)
    monkeypatch.undo()
    assert io.read(out).obsm["X_new"].shape == (len(matrix), 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({f"a{source}", f"b{suffix}"})


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), cut=st.integers(0, 30), density=st.sampled_from([0.0, 0.1, 0.9]))
def test_a_matrix_in_files_is_the_matrix(tmp_path_factory, seed, cut, density):
    whole = sp.random(30, 7, density=density, format="csr", dtype=np.float32, random_state=seed)
    folder = tmp_path_factory.mktemp("matrix")
    for place in (None, folder, folder):  # the second time over what is there
        growing = GrowingMatrix(place)
        for chunk in (whole[:cut], whole[cut:]):
            growing.append(chunk)
        result = growing.matrix()
        assert np.array_equal(result.toarray(), whole.toarray())
        rows = np.random.default_rng(seed).integers(30, size=12)
        assert np.array_equal(result[rows].toarray(), whole[rows].toarray())
        if place and result.nnz:  # scipy has not copied it into memory
            assert all(isinstance(x, np.memmap) or isinstance(x.base, np.memmap) for x in (result.data, result.indices))


def test_read_what_is_not_an_anndata(matrix, tmp_path):
    import h5py

    with pytest.raises(FileNotFoundError, match=r"missing.h5ad"):
        io.read(tmp_path / "missing.h5ad")
    (tmp_path / "text.h5ad").write_text("not a file")
    with pytest.raises(ValueError, match=r"text.h5ad \(10 bytes\) is not an .h5ad"):
        io.read(tmp_path / "text.h5ad")
    (tmp_path / "table.csv").write_text("a,b")
    with pytest.raises(ValueError, match=r"scanpy.read_csv"):
        io.read(tmp_path / "table.csv")
    with h5py.File(tmp_path / "cells.h5", "w") as file:
        file["matrix"] = [1]
    with pytest.raises(ValueError, match="read_10x_h5"):
        io.read(tmp_path / "cells.h5")
    (tmp_path / "folder.zarr").mkdir()
    with pytest.raises(ValueError, match=r"folder.zarr"):
        io.read(tmp_path / "folder.zarr")
    zarr.open_group(tmp_path / "spatial.zarr", mode="w").create_group("images")
    for lazy in (False, True):
        with pytest.raises(ValueError, match=r"spatial.zarr is a zarr folder but holds no AnnData .*spatialdata"):
            io.read(tmp_path / "spatial.zarr", lazy=lazy)
    io.write(AnnData(matrix), tmp_path / "good.h5ad")
    whole = (tmp_path / "good.h5ad").read_bytes()
    for share in (0.2, 0.6, 0.95):
        (tmp_path / "cut.h5ad").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ValueError, match=r"cut.h5ad"):
            io.read(tmp_path / "cut.h5ad")


@pytest.mark.slow
def test_real_counts(mirror):
    adata = ad.read_h5ad(mirror / "h5ad" / "dlpfc_151673.h5ad")
    counts = io.counts(adata)
    assert (io.recover_counts(io.expression(adata)) != counts).nnz == 0


def test_annotations_of_other_cells_are_refused(tmp_path):
    adata = graphfm.datasets.toy(60, 40, num_tfs=5)
    io.write(adata, tmp_path / "a.h5ad")
    for other in (adata[::-1].copy(), adata[:30].copy(), adata[:, ::-1].copy()):
        with pytest.raises(ValueError, match="adata has other"):
            io.annotate(tmp_path / "a.h5ad", other, tmp_path / "b.h5ad")
    with pytest.raises(FileNotFoundError):
        io.annotate(tmp_path / "missing.h5ad", adata, tmp_path / "b.h5ad")
    assert not (tmp_path / "b.h5ad").exists()


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_a_copy_of_what_is_read_lazily(tmp_path, suffix):
    adata = graphfm.datasets.toy(60, 40, num_tfs=5)
    io.write(adata, tmp_path / f"a.{suffix}")
    lazy = io.read(tmp_path / f"a.{suffix}", lazy=True)
    found = graphfm.pp.knn_graph(lazy, n_neighbors=5, copy=True)
    assert (found.X != adata.X).nnz == 0 and "connectivities" in found.obsp and "connectivities" not in lazy.obsp


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_text_of_which_some_is_missing_is_written(tmp_path, suffix):
    adata = AnnData(np.ones((4, 2), dtype=np.float32))
    adata.obs["object"] = np.array(["T", np.nan, "B", "T"], dtype=object)
    adata.obs["string"] = pd.array(["T", None, "B", "T"], dtype="string")
    adata.obs["whole"] = pd.array(["a", "b", "a", "b"], dtype="string")
    adata.raw = adata.copy()
    before = adata.obs.copy()
    io.write(adata, tmp_path / f"a{suffix}")
    pd.testing.assert_frame_equal(adata.obs, before)
    back = io.read(tmp_path / f"a{suffix}")
    assert back.obs["object"].isna().tolist() == back.obs["string"].isna().tolist() == [False, True, False, False]
    assert back.obs["whole"].tolist() == ["a", "b", "a", "b"] and back.raw.shape == (4, 2)
    lazy = io.read(tmp_path / f"a{suffix}", lazy=True)
    lazy.obs["more"] = pd.array([None, "x", "y", "x"], dtype="string")
    io.annotate(tmp_path / f"a{suffix}", lazy, tmp_path / f"b{suffix}")
    assert io.read(tmp_path / f"b{suffix}").obs["more"].isna().sum() == 1


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_text_of_pandas_own_kind_is_written(tmp_path, suffix):
    adata = AnnData(np.ones((3, 2), dtype=np.float32))
    adata.obs_names = pd.Index(["a", "b", "c"], dtype="string")
    adata.obsm["table"] = pd.DataFrame({"x": pd.array(["u", None, "w"], dtype="string")}, index=adata.obs_names)
    adata.uns["table"] = adata.obsm["table"].reset_index()
    io.write(adata, tmp_path / f"a{suffix}")
    lazy = io.read(tmp_path / f"a{suffix}", lazy=True)
    io.annotate(tmp_path / f"a{suffix}", lazy, tmp_path / f"b{suffix}")
    back = io.read(tmp_path / f"b{suffix}")
    assert list(back.obs_names) == ["a", "b", "c"] and back.obsm["table"]["x"].isna().tolist() == [False, True, False]


def test_folders_that_hold_other_things_stay(matrix, tmp_path):
    io.write(AnnData(matrix), tmp_path / "a.zarr")
    store = tmp_path / "store.zarr"
    io.write(AnnData(matrix), tmp_path / "table.zarr")
    (store / "images").mkdir(parents=True)
    (store / "images" / "he").write_text("precious")
    (tmp_path / "table.zarr").rename(store / "table.zarr")
    lazy = io.read(store / "table.zarr", lazy=True)
    for write in (
        lambda path: io.write(AnnData(matrix), path),
        lambda path: io.annotate(tmp_path / "a.zarr", lazy, path),
    ):
        with pytest.raises(FileExistsError, match=r"store.zarr is a folder with other things"):
            write(store)
    for source, path in ((store / "table.zarr", store), (tmp_path / "a.zarr", tmp_path / "a.zarr" / "b.zarr")):
        with pytest.raises(ValueError, match="is part of"):
            io.annotate(source, lazy, path)
    assert (store / "images" / "he").read_text() == "precious" and not list(tmp_path.glob(".*"))


def test_a_folder_that_may_only_be_read_is_annotated(matrix, tmp_path):
    io.write(AnnData(matrix), tmp_path / "a.zarr")
    for path in (tmp_path / "a.zarr").rglob("*"):
        path.chmod(path.stat().st_mode & ~0o222)
    lazy = io.read(tmp_path / "a.zarr", lazy=True)
    lazy.obs["new"] = 1
    io.annotate(tmp_path / "a.zarr", lazy, tmp_path / "b.zarr")
    modes = [path.stat().st_mode & 0o200 for path in (tmp_path / "b.zarr").rglob("*")]
    assert all(modes) and (io.read(tmp_path / "b.zarr").obs["new"] == 1).all()


def test_a_backed_file_stays_its_own(tmp_path):
    io.write(AnnData(np.ones((3, 2), dtype=np.float32)), tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    io.write(backed, tmp_path / "b.h5ad")
    assert backed.filename == tmp_path / "a.h5ad" and np.array_equal(io.read(tmp_path / "b.h5ad").X, np.ones((3, 2)))
    backed.file.close()


def test_a_matrix_cut_short_is_refused(tmp_path):
    growing = GrowingMatrix(tmp_path / "m")
    growing.append(sp.random(50, 20, density=0.5, format="csr", dtype=np.float32, random_state=0))
    growing.matrix()
    data = tmp_path / "m" / "data.f32"
    data.write_bytes(data.read_bytes()[:400])
    with pytest.raises(ValueError, match="100 values, and should hold 500"):
        open_matrix(tmp_path / "m", 20)


def test_masked_values_are_no_values():
    masked = np.ma.masked_array(np.full((4, 3), 5.0), mask=np.eye(4, 3, dtype=bool))
    with pytest.raises(ValueError, match="masked array"):
        io.counts(AnnData(masked))
    assert io.counts(AnnData(np.ma.masked_array(np.full((4, 3), 5.0)))).sum() == 60


def test_several_anndata_in_a_file_are_not_one(tmp_path):
    with h5py.File(tmp_path / "a.h5mu", "w") as file:
        for name in ("obs", "var", "mod"):
            file.create_group(name)
    for lazy in (False, True):
        with pytest.raises(ValueError, match=r"mudata\.read"):
            io.read(tmp_path / "a.h5mu", lazy=lazy)
