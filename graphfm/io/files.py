"""Containers and files: what users have, as an AnnData, and back to disk in one piece."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from anndata.io import read_elem, sparse_dataset, write_elem, write_h5ad, write_zarr
from anndata.utils import make_index_unique

from graphfm._checks import check_exists

ANNOTATIONS = ("obs", "var", "uns", "obsm", "varm", "obsp", "varp")
"""Parts of an AnnData that are small beside its matrices."""

CELLS = (".h5ad", ".zarr")

_OTHER_FORMATS = {
    ".h5": "scanpy.read_10x_h5",
    ".loom": "anndata.io.read_loom",
    ".h5mu": "mudata.read, then graphfm.io.as_anndata(mdata, modality=...)",
    ".zarr": "spatialdata.read_zarr if it is SpatialData's, then graphfm.io.as_anndata(sdata)",
    ".mtx": "scanpy.read_10x_mtx on its folder",
    ".csv": "scanpy.read_csv",
    ".tsv": "scanpy.read_text",
    ".txt": "scanpy.read_text",
}


def cell_files(paths: Iterable[str | Path], *, endings: tuple[str, ...] = CELLS) -> list[Path]:
    """Files of cells, those in folders among them.

    Parameters
    ----------
    paths
        Files, and folders that hold some: all of those, by name, but none in folders inside.
    endings
        Of what is a file of cells (a ``.zarr`` folder, for instance).

    Raises
    ------
    ValueError
        A folder holds none, or two have the same name but for the ending.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir() and path.suffix not in endings:
            inside = sorted(file for file in path.iterdir() if file.suffix in endings and file.name[0] != ".")
            if not inside:
                raise ValueError(f"{path} is a folder without {' or '.join(endings)}. Name one that holds such files.")
            found += inside
        else:
            found.append(path)
    numbers = Counter(path.stem for path in found)
    if twice := sorted(name for name, number in numbers.items() if number > 1):
        raise ValueError(f"files need different names, and several are called {', '.join(twice)}. Rename all but one.")
    return found


def as_anndata(data: Any, *, table_key: str | None = None, modality: str | None = None) -> AnnData:
    """The AnnData inside an scverse container, not copied.

    Parameters
    ----------
    data
        AnnData (returned as it is), SpatialData or MuData.
    table_key
        Table of a SpatialData; not needed if it has one only.
    modality
        Modality of a MuData; not needed if it has one only.

    Returns
    -------
    AnnData
        The very object inside ``data``: what is written to it is seen there.

    Raises
    ------
    TypeError
        If ``data`` is of another type.
    KeyError, ValueError
        If the table or modality does not exist, or several exist and none was named.
    """
    if isinstance(data, AnnData):
        return data
    if _is_a(data, "spatialdata", "SpatialData"):
        return _pick(dict(data.tables), table_key, argument="table_key", what="tables", container="SpatialData")
    if _is_a(data, "mudata", "MuData"):
        return _pick(dict(data.mod), modality, argument="modality", what="modalities", container="MuData")
    raise TypeError(
        f"data must be an AnnData, SpatialData or MuData, got {type(data).__module__}.{type(data).__name__}."
    )


def _is_a(data: Any, module: str, name: str) -> bool:
    # an instance can only exist if its module was imported already
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(data, getattr(loaded, name))


def _pick(choices: dict[str, AnnData], key: str | None, *, argument: str, what: str, container: str) -> AnnData:
    found = ", ".join(map(repr, choices)) or "none"
    if key is None:
        if len(choices) != 1:
            raise ValueError(f"The {container} has {len(choices)} {what} (found: {found}). Choose one by {argument}=.")
        return next(iter(choices.values()))
    if key not in choices:
        raise KeyError(f"The {container} has no {key!r} among its {what}. Pass another {argument}= (found: {found}).")
    return choices[key]


def writable(adata: AnnData, *, copy: bool = False) -> AnnData:
    """The AnnData that results are written to: ``adata`` itself, or a copy in memory.

    Parameters
    ----------
    adata
        In memory, a view, or backed by a file (annotations of which live in memory all the same).
    copy
        Whether to copy.

    Raises
    ------
    ValueError
        If ``adata`` is a view of a backed file, which anndata cannot write to, and is not to be copied.
    """
    if copy:
        return adata.to_memory(copy=True)
    if adata.isbacked and adata.is_view:
        raise ValueError(
            "adata is a view of a backed file and cannot be written to. Pass copy=True, or adata.to_memory()."
        )
    return adata


def read(path: str | os.PathLike[str], *, lazy: bool = False) -> AnnData:
    """Read an AnnData from an ``.h5ad`` file or a zarr folder.

    Parameters
    ----------
    path
        File (HDF5) or folder (zarr).
    lazy
        Leave ``X`` and the layers in the file, to be read a few cells at a time where they are needed; ``raw`` is left
        out. :func:`annotate` writes what is added to the rest. Files of anndata 0.7 and older are read whole.

    Returns
    -------
    AnnData
        In memory, or all but its matrices.

    Raises
    ------
    FileNotFoundError
        If nothing is there.
    ValueError
        If it is not, or no longer, an AnnData: another format, truncated, damaged.
    """
    path = Path(path)
    check_exists(path)
    if path.is_file() and not h5py.is_hdf5(path):
        hint = _OTHER_FORMATS.get(path.suffix.lower())
        step = f"Read it by {hint}." if hint else "It may be truncated or a failed download: fetch it again."
        raise ValueError(f"{path} ({path.stat().st_size} bytes) is not an .h5ad (HDF5) file. {step}")
    try:
        root = _open(path)
        missing = {"obs", "var"} - set(root) if "mod" not in root else {"X"}  # several AnnData, by MuData
        modern = "encoding-type" in root.attrs
        if not missing and lazy and modern:
            return _read_lazily(root)
        if path.is_file():
            root.close()
        if not missing:
            return anndata.read_zarr(path) if path.is_dir() else anndata.read_h5ad(path)
    # readers of a damaged file fail in as many ways as there are places to be damaged
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as an AnnData ({type(error).__name__}: {error}). It may be truncated, "
            "damaged, or of another kind: write or fetch it again."
        ) from error
    hint = _OTHER_FORMATS.get(path.suffix.lower(), "the tool that wrote it")
    what = "a zarr folder" if path.is_dir() else "an HDF5 file"
    raise ValueError(f"{path} is {what} but holds no AnnData (no {sorted(missing)}). Read it by {hint}.")


def _open(path: Path, mode: str = "r") -> Any:
    """The root group of an HDF5 file or a zarr folder."""
    if path.is_dir():
        import zarr

        # a summary of the metadata, if there is one, must not go stale
        return zarr.open_group(path, mode=mode, use_consolidated=None if mode == "r" else False)
    return h5py.File(path, mode)


def _read_lazily(root: Any) -> AnnData:
    parts = {name: read_elem(root[name]) for name in ANNOTATIONS if name in root}
    layers = {name: _lazy_matrix(root[f"layers/{name}"]) for name in root.get("layers", {})}
    return AnnData(X=_lazy_matrix(root["X"]) if "X" in root else None, layers=layers, **parts)


def _lazy_matrix(stored: Any) -> Any:
    """Sparse ones behind anndata's own class, dense ones as they are."""
    return sparse_dataset(stored) if "matrix" in str(stored.attrs.get("encoding-type")) else stored


def is_lazy(matrix: Any) -> bool:
    """Whether a matrix is (still) in a file."""
    return not isinstance(matrix, np.ndarray) and not sp.issparse(matrix)


def write(adata: AnnData, path: str | os.PathLike[str]) -> None:
    """Write an AnnData to ``.h5ad`` or ``.zarr``, whole or not at all.

    The data go to a temporary name in the same folder, which then takes the place of ``path``; ``adata`` is not
    changed. Strings stay strings; columns of which some are missing are stored as categories.

    Parameters
    ----------
    adata
        What to write.
    path
        Target; its suffix chooses the format. An existing one is replaced.

    Raises
    ------
    ValueError
        If the suffix is neither ``.h5ad`` nor ``.zarr``.
    OSError
        If the folder is missing, read-only or full. An older file at ``path`` is then still there.
    """
    adata = _with_storable_text(adata)
    with _replacing(Path(path)) as part:
        # not the method, after which a backed AnnData would be that of the temporary file
        (write_h5ad if part.suffix == ".h5ad" else write_zarr)(part, adata, convert_strings_to_categoricals=False)


def _with_storable_text(adata: AnnData) -> AnnData:
    """Itself, or a new one of the same arrays, of which the files' formats have all columns."""
    obs, var = _storable(adata.obs), _storable(adata.var)
    if obs is adata.obs and var is adata.var:
        return adata
    parts = {name: dict(getattr(adata, name)) for name in (*ANNOTATIONS[2:], "layers")}
    return AnnData(X=adata.X, obs=obs, var=var, **parts, raw=adata.raw)


def _storable(table: pd.DataFrame) -> pd.DataFrame:
    """Text without missing values as such, with them as categories; the table itself where no column needs it."""
    changed = {}
    for name, column in table.items():
        text = isinstance(column.dtype, pd.StringDtype)
        if text or (column.dtype == object and pd.api.types.infer_dtype(column, skipna=True) == "string"):
            if column.isna().any():
                changed[name] = pd.Categorical(column.astype(object))
            elif text:
                changed[name] = column.astype(object)
    return table.assign(**changed) if changed else table


def named_columns(values: np.ndarray, index: pd.Index, names: Iterable[str]) -> pd.DataFrame:
    """A table with columns by names of data, as files can hold it.

    Parameters
    ----------
    values
        ``[rows, columns]``.
    index
        Of the rows.
    names
        Of the columns; ``/`` becomes ``|``, and what is there already, or is the name of `index`, gets a number.
    """
    taken = [str(name).replace("/", "|") for name in (index.name or "", *names)]
    return pd.DataFrame(values, index=index, columns=make_index_unique(pd.Index(taken, dtype=object))[1:])


def annotate(source: str | os.PathLike[str], adata: AnnData, path: str | os.PathLike[str]) -> None:
    """Write a copy of a file with new annotations, whole or not at all; its matrices are copied as they are.

    Parameters
    ----------
    source
        File (or zarr folder) that `adata` was read from.
    adata
        Its annotations: ``obs``, ``var``, ``obsm``, ``varm``, ``obsp``, ``varp``, ``uns``. Matrices are not looked at.
    path
        Target, as in :func:`write`. Of another format than `source`: the matrices are read into memory.

    Raises
    ------
    FileNotFoundError
        There is no `source`.
    ValueError, OSError
        As :func:`write`; or `adata` has other cells or genes than `source`, or in another order.
    """
    source, path = Path(source), Path(path)
    check_apart(source, path)
    there = read(source, lazy=True)
    for name, own, others in (("cells", adata.obs_names, there.obs_names), ("genes", adata.var_names, there.var_names)):
        if not own.equals(others):
            raise ValueError(
                f"adata has other {name} than {source} ({len(own)} and {len(others)}), or in another order: its "
                "annotations do not fit the matrices there. Use graphfm.io.write(adata, path)."
            )
    del there
    with _replacing(path) as part:
        if source.is_dir() != (path.suffix == ".zarr"):
            whole = read(source)
            whole.obs, whole.var, whole.uns = adata.obs, adata.var, adata.uns
            for name in ("obsm", "varm", "obsp", "varp"):
                setattr(whole, name, dict(getattr(adata, name)))
            write(whole, part)
            return
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, part)
        for copied in (part, *part.rglob("*")):
            copied.chmod(copied.stat().st_mode | stat.S_IWUSR)
        root = _open(part, "r+")
        for name in ANNOTATIONS:
            value = getattr(adata, name)
            write_elem(root, name, _storable(value) if name in ("obs", "var") else dict(value))
        if path.suffix == ".h5ad":
            root.close()
        else:
            import zarr

            zarr.consolidate_metadata(part)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """`replacing` for an AnnData, by nothing but an AnnData where there is a folder."""
    if path.suffix not in (".h5ad", ".zarr"):
        raise ValueError(f"path={str(path)!r} must end in .h5ad or .zarr.")
    check_replaceable(path)
    try:
        # columns and indices of a data set that was read with them
        with replacing(path) as part, anndata.settings.override(allow_write_nullable_strings=True):
            yield part
    except RuntimeError as error:  # as h5py, too, reports a full disk
        raise _cannot_write(path, error) from error


def check_replaceable(path: Path) -> None:
    """Refuse to replace a folder that holds other things than an AnnData.

    Raises
    ------
    FileExistsError
        If it does.
    """
    if not path.is_dir() or not any(path.iterdir()):
        return
    try:
        is_anndata = {"obs", "var"} <= set(_open(path))
    except OSError:  # no zarr folder
        is_anndata = False
    if not is_anndata:
        raise FileExistsError(f"{path} is a folder with other things than an AnnData in it. Choose another name.")


def check_apart(source: Path, path: Path) -> None:
    """Refuse to write into a folder that is read, or over one.

    Raises
    ------
    ValueError
        If `path` is in `source`, or `source` in `path`.
    """
    one, other = source.resolve(), path.resolve()
    if one in other.parents or other in one.parents:
        raise ValueError(f"{path} is part of {source}, or this of that. Choose a name outside.")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name in a new folder beside `path`; what is there at the end, file or folder, takes the place of `path`."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The folder {path.parent} does not exist. Create it first.")
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        part = temporary / path.name
        yield part
        if path.is_dir() and not part.is_dir():
            raise IsADirectoryError(f"it is a folder, which {part.name} as a file would delete")
        if path.is_dir():
            # a folder cannot be replaced in one step: set the old one aside first
            os.replace(path, temporary / "old")
        os.replace(part, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        if (temporary / "old").exists() and not path.exists():
            os.replace(temporary / "old", path)
        shutil.rmtree(temporary, ignore_errors=True)


def _cannot_write(path: Path, error: Exception) -> OSError:
    code = getattr(error, "errno", None)
    hint = " Is the folder writable, with room left?" if code is not None or "errno" in str(error) else ""
    message = f"cannot write {path.name} in {path.parent} ({error}).{hint}"
    return OSError(code, message) if code is not None else OSError(message)
