"""How well genes that were held out are predicted."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from graphfm.metrics import _checks


def gene_scores(predicted: np.ndarray, truth: np.ndarray) -> pd.DataFrame:
    """Rank correlation and error of each gene over cells.

    Parameters
    ----------
    predicted, truth
        ``[cells, genes]``, both on one scale.

    Returns
    -------
    pandas.DataFrame
        A row a gene: ``spearman``, 0 where the prediction is the same for all cells, and ``rmse`` in standard
        deviations of the true values, so that the gene's mean has 1. Both are NaN for a gene whose truth is the same
        in all cells.

    Raises
    ------
    ValueError
        On other shapes, NaN, or fewer than 2 cells.
    """
    truth = _checks.matrix(truth, name="truth").astype(np.float64)
    predicted = _checks.matrix(predicted, name="predicted", num_rows=len(truth)).astype(np.float64)
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted has shape {predicted.shape}, truth {truth.shape}. Pass the same genes to both.")
    if len(truth) < 2:
        raise ValueError(f"truth has {len(truth)} cell. A correlation over cells needs at least 2.")
    varies = np.ptp(truth, axis=0) > 0
    deviation = np.where(varies, truth.std(axis=0), np.nan)
    rmse = np.sqrt(np.square(predicted - truth).mean(axis=0)) / deviation
    a, b = (ranks - ranks.mean(axis=0) for ranks in (rankdata(predicted, axis=0), rankdata(truth, axis=0)))
    length = np.sqrt(np.square(a).sum(axis=0) * np.square(b).sum(axis=0))
    spearman = (a * b).sum(axis=0) / np.where(length > 0, length, 1.0)
    return pd.DataFrame({"spearman": np.where(varies, spearman, np.nan), "rmse": rmse})
