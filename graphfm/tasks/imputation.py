"""Predict genes of cells in which they were not measured."""

from __future__ import annotations

import numpy as np

from graphfm.metrics.imputation import gene_scores


def evaluate(prediction: np.ndarray, truth: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Score predicted expression.

    Parameters
    ----------
    prediction, truth
        ``[cells, genes]`` of the held-out cells and genes, log-normalised.
    seed
        Not used: nothing is drawn.

    Returns
    -------
    dict
        Medians over the genes that vary: ``spearman``; ``rmse`` in standard deviations of the gene. ``genes_above_0``:
        share of them whose correlation is positive.

    Raises
    ------
    ValueError
        On other shapes, NaN, fewer than 2 cells, or if no gene varies.
    """
    del seed
    scores = gene_scores(prediction, truth).dropna()
    if scores.empty:
        raise ValueError("truth has no gene that varies between cells. Hold out other genes.")
    return {
        "spearman": float(scores["spearman"].median()),
        "rmse": float(scores["rmse"].median()),
        "genes_above_0": float((scores["spearman"] > 0).mean()),
    }


def controls(truth: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Predictions that bracket every method: the truth, and the truth of other cells.

    Parameters
    ----------
    truth
        ``[cells, genes]``.
    seed
        Seed of the shuffle.

    Returns
    -------
    dict
        ``shuffled`` and ``oracle``, ``[cells, genes]``.
    """
    return {"shuffled": np.random.default_rng(seed).permutation(truth, axis=0), "oracle": np.asarray(truth)}
