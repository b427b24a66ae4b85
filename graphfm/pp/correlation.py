"""The strongest correlations between genes, in bounded memory."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

_CHUNK_BYTES = 2**26


def strongest_correlations(
    expression: sp.csr_matrix, regulators: np.ndarray, *, n_neighbors: int, chunk_bytes: int = _CHUNK_BYTES
) -> sp.csr_matrix:
    """For each gene the regulators with the largest absolute Pearson correlation over cells.

    Parameters
    ----------
    expression
        ``[n_cells, n_genes]``.
    regulators
        Columns that may regulate, sorted.
    n_neighbors
        Regulators kept for a gene; ties go to the lower column. A gene does not regulate itself, and a gene that is
        the same in all cells has no edges.
    chunk_bytes
        Memory of one dense block of columns and its correlations, about.

    Returns
    -------
    csr_matrix
        float32 ``[n_genes, n_genes]``, row = regulator, column = target, signed correlations.

    Raises
    ------
    ValueError
        If there are fewer than 3 cells.
    """
    n_cells, n_genes = expression.shape
    if n_cells < 3:
        raise ValueError(
            f"Co-expression needs at least 3 cells, got n_obs={n_cells}. Pass coexpression=False and a prior."
        )
    columns = sp.csc_matrix(expression, dtype=np.float64)
    varies = (columns.max(axis=0).toarray() != columns.min(axis=0).toarray()).ravel()
    regulators = np.asarray(regulators)[varies[regulators]]
    mean = np.asarray(columns.mean(axis=0)).ravel()
    scale = _norms(columns, mean)
    factors = columns[:, regulators].T.tocsr()
    width = max(1, chunk_bytes // (8 * (n_cells + 4 * max(1, len(regulators)))))
    rows, targets, values = [], [], []
    for start in range(0, n_genes, width):
        chosen = np.arange(start, min(start + width, n_genes))
        # centring one side suffices: the mean of the other then cancels
        centred = columns[:, chosen].toarray() - mean[chosen]
        correlation = factors @ centred
        correlation /= np.maximum(scale[regulators][:, None] * scale[chosen], 1e-300)
        correlation[:, ~varies[chosen]] = 0
        correlation[regulators[:, None] == chosen] = 0
        best = _largest(np.abs(correlation), n_neighbors)
        found = np.take_along_axis(correlation, best, axis=0)
        rows.append(regulators[best].ravel())
        targets.append(np.broadcast_to(chosen, best.shape).ravel())
        values.append(found.ravel())
    data = np.clip(np.concatenate(values), -1, 1).astype(np.float32)
    place = (np.concatenate(rows), np.concatenate(targets))
    matrix = sp.csr_matrix((data, place), shape=(n_genes, n_genes))
    matrix.eliminate_zeros()
    return matrix


def _norms(columns: sp.csc_matrix, mean: np.ndarray) -> np.ndarray:
    """Root of the sum of squared deviations of each column; two passes, so that nothing cancels."""
    deviation = columns.copy()
    stored = np.diff(columns.indptr)
    deviation.data -= np.repeat(mean, stored)
    np.square(deviation.data, out=deviation.data)
    squares = np.asarray(deviation.sum(axis=0)).ravel()
    return np.sqrt(squares + (columns.shape[0] - stored) * mean**2)


def _largest(strength: np.ndarray, count: int) -> np.ndarray:
    """Rows of the largest entries of each column, ``[min(count, rows), columns]``, ties by the lower row."""
    count = min(count, strength.shape[0])
    if count == 0:
        return np.zeros((0, strength.shape[1]), dtype=np.int64)
    if count == strength.shape[0]:
        return np.argsort(-strength, axis=0, kind="stable")
    bound = -np.partition(-strength, count - 1, axis=0)[count - 1]
    # candidates at least as strong as the last one kept, in order of column, then row
    column, row = np.nonzero((strength >= bound).T)
    order = np.lexsort((row, -strength[row, column], column))
    start = np.searchsorted(column, np.arange(strength.shape[1]))
    return row[order][start + np.arange(count)[:, None]]
