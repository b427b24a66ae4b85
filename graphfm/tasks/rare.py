"""Find a rare population."""

from __future__ import annotations

import numpy as np
import pandas as pd

from graphfm.metrics.rare import rare_scores


def evaluate(prediction: pd.DataFrame, truth: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Score calls and scores.

    Parameters
    ----------
    prediction
        Column ``called`` (bool), column ``score`` (float, higher = rarer), or both; one row a cell. The method sets its
        own cutoff: the true number of rare cells is never given.
    truth
        ``[cells]`` bool.
    seed
        Not used: nothing is drawn.

    Returns
    -------
    dict
        ``f1``, ``precision``, ``recall`` of the calls; ``auprc`` (average precision), ``auroc`` of the scores;
        ``prevalence``.

    Raises
    ------
    KeyError
        When both columns are missing.
    ValueError
        On other lengths, NaN, or one class only.
    """
    del seed
    if "called" not in prediction and "score" not in prediction:
        raise KeyError(f"prediction needs a column 'called' or 'score' (found: {list(prediction.columns)}).")
    columns = {name: prediction[name].to_numpy() for name in ("called", "score") if name in prediction}
    return rare_scores(truth, called=columns.get("called"), score=columns.get("score"))


def controls(truth: np.ndarray, seed: int = 0) -> dict[str, pd.DataFrame]:
    """Predictions that bracket every method: the truth, and as many calls and scores dealt to cells at random.

    Parameters
    ----------
    truth
        ``[cells]`` bool.
    seed
        Seed of the shuffle.

    Returns
    -------
    dict
        ``shuffled`` and ``oracle``: called, score.
    """
    rng = np.random.default_rng(seed)
    rare = np.asarray(truth, dtype=bool)
    dealt = rng.permutation(rare)
    # Scores that agree with the calls and are distinct within them.
    noise = rng.random(len(rare))
    return {
        "shuffled": pd.DataFrame({"called": dealt, "score": dealt + noise}),
        "oracle": pd.DataFrame({"called": rare, "score": rare + noise}),
    }
