"""Counts out of log-normalised values."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from graphfm.io.matrix import MAX_LOG, as_float32, check_finite_nonnegative, read_matrix


def recover_counts(matrix: Any, *, max_multiplier: int = 8) -> sp.csr_matrix:
    """Undo ``log1p(counts * size factor)``: the counts behind log-normalised values.

    Within a cell the smallest nonzero value belongs to its smallest count. That count is taken to be 1, or the
    smallest number up to ``max_multiplier`` that makes all values of the cell whole within what the precision of the
    stored values allows (float32, or the number of decimals that were kept). A factor common to all counts of a cell
    cannot be known and is lost.

    Parameters
    ----------
    matrix
        Log-normalised values (natural logarithm), cells x genes, dense or sparse.
    max_multiplier
        Largest smallest count of a cell to consider.

    Returns
    -------
    csr_matrix
        float32 whole numbers, the shape of ``matrix``.

    Raises
    ------
    ValueError
        If the values are not of that form, or are stored too coarsely to tell neighbouring counts apart.
    """
    if isinstance(matrix, AnnData):
        raise TypeError("matrix is an AnnData. Pass one of its matrices, such as adata.X.")
    logged = read_matrix(matrix, "matrix")
    check_finite_nonnegative(logged.data, "matrix")
    if logged.nnz == 0:
        return as_float32(logged)
    if logged.data.max() >= MAX_LOG:
        raise ValueError(f"matrix has a maximum of {logged.data.max():.6g}: these are not log1p values.")
    step = _storage_step(logged.data)
    values = logged.data.astype(np.float64)
    linear = np.expm1(values)
    # relative error of expm1(v) when v is off by the rounding of its storage
    error = step * np.exp(values) / linear
    rows = np.repeat(np.arange(logged.shape[0]), np.diff(logged.indptr))
    filled = np.flatnonzero(np.diff(logged.indptr))
    smallest = np.zeros(logged.shape[0])
    smallest[filled] = np.minimum.reduceat(linear, logged.indptr[filled])
    error_of_smallest = step * (1 + smallest[rows]) / smallest[rows]
    ratio = linear / smallest[rows]
    multiplier, residual = _fit_multiplier(ratio, error + error_of_smallest, rows, logged.shape[0], max_multiplier)
    failed = multiplier[filled] == 0
    if failed.any():
        raise ValueError(
            f"matrix is not log1p(counts * size factor): {failed.sum()} of {len(filled)} cells have values that are no "
            f"multiples of their smallest one (worst deviation from a whole number {residual:.3g}). The values may be "
            "scaled, batch-corrected, imputed, of another logarithm, or stored too coarsely. "
            "Look for the raw counts at the source, or use kind='log1p'."
        )
    data = np.rint(ratio * multiplier[rows]).astype(np.float32)
    return sp.csr_matrix((data, logged.indices.copy(), logged.indptr.copy()), shape=logged.shape)


def _fit_multiplier(
    ratio: np.ndarray, relative_error: np.ndarray, rows: np.ndarray, n_rows: int, largest: int
) -> tuple[np.ndarray, float]:
    """Smallest count of each row (0 where none fits) and the largest deviation of the rows that fit none."""
    multiplier = np.zeros(n_rows, dtype=np.int64)
    deviation = np.zeros(0)
    for candidate in range(1, largest + 1):
        scaled = ratio * candidate
        # beyond 0.45 rounding is a guess, whatever the precision
        allowed = 1e-3 + scaled * relative_error
        deviation = np.abs(scaled - np.rint(scaled))
        bad = np.bincount(rows, weights=(deviation > allowed) | (allowed > 0.45), minlength=n_rows)
        multiplier[(multiplier == 0) & (bad == 0)] = candidate
    unexplained = np.abs(ratio - np.rint(ratio))[multiplier[rows] == 0]
    return multiplier, float(unexplained.max(initial=0.0))


def _storage_step(values: np.ndarray) -> np.ndarray:
    """Largest rounding error of each stored value: half a decimal if decimals were cut, else two ulps of float32."""
    # arithmetic before storing was float32 at best, even where the values were widened afterwards
    ulp = 2.0 * np.spacing(values.astype(np.float32)).astype(np.float64)
    for decimals in range(1, 6):
        scaled = values.astype(np.float64) * 10**decimals
        if np.all(np.abs(scaled - np.rint(scaled)) <= ulp * 10**decimals):
            return np.maximum(0.5 * 10.0**-decimals, ulp)
    return ulp
