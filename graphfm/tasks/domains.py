"""Recover the spatial domains of a tissue."""

from __future__ import annotations

import numpy as np
import pandas as pd

from graphfm.metrics.spatial import domain_scores


def evaluate(prediction: np.ndarray, truth: pd.DataFrame, seed: int = 0) -> dict[str, float]:
    """Score predicted domains.

    Parameters
    ----------
    prediction
        ``[cells]`` domain of each cell, any names.
    truth
        One row a cell: ``domain``, coordinates ``x``, ``y`` (any unit) and optionally ``slide``.
    seed
        Not used: nothing is drawn.

    Returns
    -------
    dict
        ``ari``, ``nmi``, ``homogeneity``, ``completeness``, ``border_f1``; ``chaos`` and ``pas`` (lower is smoother; no
        bound from the controls: a smoother answer than the truth is possible).

    Raises
    ------
    KeyError
        When a column is missing.
    ValueError
        On other lengths, NaN, or one class only.
    """
    del seed
    missing = [name for name in ("domain", "x", "y") if name not in truth]
    if missing:
        raise KeyError(f"truth has no column {missing} (found: {list(truth.columns)}). Pass domain, x, y and slide.")
    slides = truth["slide"].to_numpy() if "slide" in truth else None
    return domain_scores(prediction, truth["domain"].to_numpy(), truth[["x", "y"]].to_numpy(), slides=slides)


def controls(truth: pd.DataFrame, seed: int = 0) -> dict[str, np.ndarray]:
    """Predictions that bracket every method: the truth, and the truth dealt to cells at random.

    Parameters
    ----------
    truth
        One row a cell, with ``domain``.
    seed
        Seed of the shuffle.

    Returns
    -------
    dict
        ``shuffled`` and ``oracle``, ``[cells]``.
    """
    oracle = truth["domain"].to_numpy().astype(object)
    return {"shuffled": np.random.default_rng(seed).permutation(oracle), "oracle": oracle}
