"""Expression out of an AnnData: one format, float32 CSR, after the checks that catch the usual accidents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from anndata.abc import CSCDataset, CSRDataset

Kind = Literal["counts", "normalized", "log1p"]

MAX_TARGET_SUM = 1e4
# float32 holds every whole number up to here exactly
MAX_EXACT = 2**24
# log1p of a count of 1e13: nothing above is a logarithm of anything sequenced
MAX_LOG = 30.0
_CHUNK_VALUES = 2**24


def counts(adata: AnnData, *, layer: str | None = None) -> sp.csr_matrix:
    """Raw counts as a sparse matrix, checked.

    Dense, CSR and CSC matrices of any real dtype, views and backed files are accepted (files are read in chunks of
    rows). The result never shares memory with ``adata``. Cells and genes without a single count are kept.

    Parameters
    ----------
    adata
        Cells x genes.
    layer
        Layer that holds the counts; ``adata.X`` if None.

    Returns
    -------
    csr_matrix
        float32, shape ``[n_obs, n_vars]``, without explicit zeros, column indices sorted.

    Raises
    ------
    KeyError
        If the layer does not exist.
    TypeError
        If the values are not real numbers.
    ValueError
        If there are no cells or no genes, or the values are NaN, infinite, negative, not whole, or above 2**24
        (beyond which float32 would silently round them).
    """
    return stack(list(value_chunks(adata, layer=layer)))


def expression(
    adata: AnnData, *, layer: str | None = None, kind: Kind = "counts", target_sum: float | None = None
) -> sp.csr_matrix:
    """Log-normalised expression: ``log1p(target_sum * x / sum(x))`` per cell.

    Parameters
    ----------
    adata
        Cells x genes.
    layer
        Layer to read; ``adata.X`` if None.
    kind
        What the matrix holds. ``"counts"``: whole numbers; ``"normalized"``: non-negative values on a linear scale
        (such as volume-normalised MERFISH), which are size-normalised like counts; ``"log1p"``: values that are
        log-normalised already and are used as they are.
    target_sum
        What each cell is brought to; default: `typical_sum`. Without meaning for ``"log1p"``.

    Returns
    -------
    csr_matrix
        float32, shape ``[n_obs, n_vars]``. An empty cell gives an empty row.

    Raises
    ------
    KeyError, TypeError
        As :func:`counts`.
    ValueError
        If ``kind`` is unknown or the values cannot be of that kind, or ``target_sum`` is not positive.
    """
    chunks = list(value_chunks(adata, layer=layer, kind=kind))
    if kind == "log1p":
        return stack(chunks)
    target = _checked(target_sum) or _typical(map(_totals, chunks), kind)
    return stack([log_normalize(values, target) for values in chunks])


def typical_sum(adata: AnnData, *, layer: str | None = None, kind: Kind = "counts") -> float:
    """What cells are brought to before the logarithm: of counts their median total, at most 10^4; of others 10^4.

    So the 1 that is added before the logarithm is one molecule of a typical cell, as the noise of counts asks for. Of a
    panel of few genes 10^4 would make it a hundredth of one, and the logarithm little more than whether there is any.

    Parameters
    ----------
    adata, layer, kind
        As in :func:`expression`; empty cells do not count.

    References
    ----------
    Ahlmann-Eltze and Huber 2023, doi:10.1038/s41592-023-01814-1.
    """
    matrix, _ = located(adata, layer)
    in_file = isinstance(matrix, CSRDataset)
    return _typical(_totals_in_file(matrix) if in_file else map(_totals, value_chunks(adata, layer=layer)), kind)


def _totals_in_file(matrix: CSRDataset) -> Iterator[np.ndarray]:
    """Without reading which genes the values are of; they are checked where they are read with them."""
    stored, ends = matrix.group["data"], matrix.group["indptr"][:]
    size = max(1, _CHUNK_VALUES * len(ends) // (stored.shape[0] + 1))
    for start in range(0, len(ends) - 1, size):
        of_row = ends[start : start + size + 1]
        values = np.asarray(stored[of_row[0] : of_row[-1]])
        one_column = np.zeros(len(values), dtype=np.int32), of_row - of_row[0]
        yield _totals(sp.csr_matrix((values, *one_column), shape=(len(of_row) - 1, 1)))


def _checked(target_sum: float | None) -> float | None:
    if target_sum is not None and not 0 < target_sum < np.inf:
        raise ValueError(f"target_sum={target_sum} must be positive, or None for the median total of the cells.")
    return target_sum


def _typical(totals: Iterable[np.ndarray], kind: Kind) -> float:
    """Of the totals of some cells at a time, which are looked at where they are of counts."""
    if kind != "counts":
        return MAX_TARGET_SUM
    found = np.concatenate(list(totals))
    return min(float(np.median(found[found > 0])), MAX_TARGET_SUM) if found.any() else MAX_TARGET_SUM


def row_chunks(
    adata: AnnData, *, layer: str | None = None, kind: Kind = "counts", target_sum: float | None = None
) -> Iterator[tuple[sp.csr_matrix, sp.csr_matrix]]:
    """The matrix a few thousand cells at a time, checked: for data that do not fit into memory.

    Parameters
    ----------
    adata, layer, kind, target_sum
        As in :func:`expression`. Of a file that is stored by columns, the whole matrix is read.

    Yields
    ------
    values, logged
        float32 ``[cells, n_vars]``: what the matrix holds, and the same log-normalised.

    Raises
    ------
    KeyError, TypeError, ValueError
        As :func:`expression`, when the chunk is reached that has what is wrong.
    """
    target = _checked(target_sum) or typical_sum(adata, layer=layer, kind=kind)
    for values in value_chunks(adata, layer=layer, kind=kind):
        yield values, values if kind == "log1p" else log_normalize(values, target)


def value_chunks(adata: AnnData, *, layer: str | None = None, kind: Kind = "counts") -> Iterator[sp.csr_matrix]:
    """What the matrix holds, as :func:`row_chunks` without the logarithms."""
    if kind not in ("counts", "normalized", "log1p"):
        raise ValueError(f"kind={kind!r} is unknown. Use 'counts', 'normalized' or 'log1p'.")
    matrix, place = located(adata, layer)
    for values in _blocks(matrix, place):
        check_finite_nonnegative(values.data, place, adata)
        if kind == "counts":
            _check_counts(values.data, place, adata)
        elif kind == "log1p":
            _check_logarithms(values.data, place)
        yield as_float32(values)


def _check_counts(data: np.ndarray, place: str, adata: AnnData) -> None:
    fractional = float(np.mean(data != np.rint(data))) if data.size else 0.0
    if fractional > 0:
        raise ValueError(_not_counts(adata, place, float(data.max()), fractional))
    if data.size and data.max() > MAX_EXACT:
        raise ValueError(
            f"{place} holds {data.max():.0f}, above 2**24 = {MAX_EXACT}, which float32 cannot hold exactly. "
            "Counts of molecules are far smaller: check what this matrix is, or divide it by a constant first."
        )


def _check_logarithms(data: np.ndarray, place: str) -> None:
    if data.size and data.max() >= MAX_LOG:
        raise ValueError(
            f"{place} has a maximum of {data.max():.6g}, too large for kind='log1p' (expected < {MAX_LOG:g}). "
            "Pass kind='counts' for raw counts or kind='normalized' for normalised values on a linear scale."
        )
    if data.size and data.max() > 1 and (data == np.rint(data)).all():
        raise ValueError(f"{place} holds whole numbers only, which logarithms are not. Pass kind='counts'.")


def located(adata: AnnData, layer: str | None) -> tuple[Any, str]:
    """The matrix, and how it is called in messages; an error that says what to do where there is none."""
    if not isinstance(adata, AnnData):
        raise TypeError(f"adata must be an AnnData, got {type(adata).__name__}. Convert it by graphfm.io.as_anndata.")
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise ValueError(f"adata has {adata.n_obs} cells and {adata.n_vars} genes: nothing to work on.")
    if layer is None:
        if adata.X is None:
            raise ValueError(f"adata.X is None. Pass layer= (found: {_names(adata.layers)}).")
        return adata.X, "adata.X"
    if layer not in adata.layers:
        raise KeyError(
            f"adata.layers has no {layer!r}. Pass another layer= or None for adata.X (found: {_names(adata.layers)})."
        )
    return adata.layers[layer], f"adata.layers[{layer!r}]"


def _names(mapping: Any) -> str:
    return ", ".join(map(repr, mapping)) or "none"


def stored_values(adata: AnnData, *, layer: str | None = None) -> int:
    """Values that the matrix holds, in memory or in a file: zeros too, unless it is sparse."""
    matrix = adata.X if layer is None else adata.layers.get(layer)
    if isinstance(matrix, CSRDataset | CSCDataset):
        return int(matrix.group["data"].shape[0])
    return int(getattr(matrix, "nnz", None) or np.prod(adata.shape))


def read_matrix(matrix: Any, place: str) -> sp.csr_matrix:
    """Own copy as canonical CSR in the dtype it came in (whole numbers as float64)."""
    return stack(list(_blocks(matrix, place)))


def stack(chunks: list[sp.csr_matrix]) -> sp.csr_matrix:
    """Chunks of rows as one matrix."""
    return chunks[0] if len(chunks) == 1 else sp.vstack(chunks, format="csr")


def _blocks(matrix: Any, place: str) -> Iterator[sp.csr_matrix]:
    """Own copies of some rows at a time, as :func:`read_matrix`."""
    if np.ma.isMaskedArray(matrix) and np.ma.getmaskarray(matrix).any():
        raise ValueError(f"{place} is a masked array. Say what its masked values are (by its method filled) first.")
    dtype = np.dtype(getattr(matrix, "dtype", np.float64))
    if dtype.kind not in "fiub":
        raise TypeError(f"{place} has dtype {dtype}: real numbers are needed.")
    if isinstance(matrix, CSCDataset):
        matrix = matrix.to_memory()
    if sp.issparse(matrix):
        matrix = matrix.tocsr()
    elif not hasattr(matrix, "shape"):
        matrix = np.asarray(matrix)
    in_file = isinstance(matrix, CSRDataset)
    # sparse rows are mostly empty, so that more of them fit
    room = _CHUNK_VALUES * (4 if sp.issparse(matrix) or in_file else 1)
    size = max(1, room // max(1, matrix.shape[1]))
    wide = dtype if dtype.kind == "f" and dtype.itemsize in (4, 8) else np.dtype(np.float64)
    for start in range(0, matrix.shape[0], size):
        block = sp.csr_matrix(_block(matrix[start : start + size]), dtype=wide, copy=not in_file)
        block.sum_duplicates()
        block.eliminate_zeros()
        yield block


def _block(rows: Any) -> Any:
    """A chunk of rows in memory (lazy arrays are computed here, one chunk at a time)."""
    rows = in_memory(rows)
    if sp.issparse(rows):
        return rows
    return rows.astype(np.float32) if rows.dtype == np.float16 else rows


def in_memory(matrix: Any) -> Any:
    """A matrix, sparse or an array, that may be in a file or not yet computed."""
    for read in ("to_memory", "compute"):
        if hasattr(matrix, read):
            return getattr(matrix, read)()
    return matrix if sp.issparse(matrix) else np.asarray(matrix)


def as_float32(matrix: sp.csr_matrix) -> sp.csr_matrix:
    return matrix.astype(np.float32, copy=False)


def log_normalize(matrix: sp.csr_matrix, target_sum: float) -> sp.csr_matrix:
    total = _totals(matrix)
    factor = np.divide(target_sum, total, out=np.zeros_like(total), where=total > 0)
    data = np.log1p(matrix.data * np.repeat(factor, np.diff(matrix.indptr)))
    return sp.csr_matrix((data.astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)


def _totals(matrix: sp.csr_matrix) -> np.ndarray:
    return np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()


def check_finite_nonnegative(data: np.ndarray, place: str, adata: AnnData | None = None) -> None:
    if not np.isfinite(data).all():
        nan, inf = int(np.isnan(data).sum()), int(np.isinf(data).sum())
        raise ValueError(f"{place} holds {nan} NaN and {inf} infinite values. Remove those cells or genes first.")
    if data.size and data.min() < 0:
        found = None if adata is None else _where_counts(adata, place)
        raise ValueError(
            f"{place} holds {int((data < 0).sum())} negative values (minimum {data.min():.6g}): it was scaled, "
            "centred or batch-corrected. "
            + (f"Counts seem to be in {found}." if found else "Pass values from before that step.")
        )


def _not_counts(adata: AnnData, place: str, largest: float, fractional: float) -> str:
    logged = "they look log-normalised" if largest < MAX_LOG else "they look normalised"
    found = _where_counts(adata, place)
    if found:
        remedy = f"Counts seem to be in {found}."
    elif largest < MAX_LOG:
        remedy = (
            "If they are log1p(counts * size factor), adata.X = graphfm.io.recover_counts(adata.X) gives the counts "
            "back; otherwise pass kind='log1p' (of a reference: reference_kind) where the function has it."
        )
    else:
        remedy = (
            "Pass kind='normalized' (of a reference: reference_kind) where the function has it; "
            "corrected counts (SoupX, CellBender, RSEM) may be rounded to whole numbers."
        )
    return (
        f"{place} holds no counts: {fractional:.1%} of its nonzero values are not whole, its maximum is {largest:.6g}; "
        f"{logged}. {remedy}"
    )


def _where_counts(adata: AnnData, place: str) -> str | None:
    """The first other matrix of ``adata`` whose leading rows look like counts, and how to use it."""
    places = [("adata.X: pass layer=None", adata.X, "adata.X")]
    places += [(f"adata.layers[{k!r}]: pass layer={k!r}", v, f"adata.layers[{k!r}]") for k, v in adata.layers.items()]
    if adata.raw is not None:
        places.append(("adata.raw.X: pass adata.raw.to_adata()", adata.raw.X, "adata.raw.X"))
    for remedy, matrix, name in places:
        if matrix is None or name == place or np.dtype(matrix.dtype).kind not in "fiub":
            continue
        head = read_matrix(matrix[: min(256, matrix.shape[0])], name).data
        if head.size and np.isfinite(head).all() and head.min() > 0 and np.array_equal(head, np.rint(head)):
            return remedy
    return None


def as_dense(values) -> np.ndarray:
    """An embedding as an array, whether it is one, sparse or a DataFrame."""
    return values.toarray() if sp.issparse(values) else np.asarray(values)
