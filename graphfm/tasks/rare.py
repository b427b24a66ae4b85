"""Find a rare population."""

from __future__ import annotations

import numpy as np
import pandas as pd

from graphfm.metrics.rare import population_scores, rare_scores


def evaluate(prediction: pd.DataFrame, truth: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Score calls and scores.

    Parameters
    ----------
    prediction
        One row a cell. Column ``population`` (name of the called population, missing for other cells) or ``called``
        (bool), column ``score`` (float, higher = rarer), or both. The method sets its own cutoff: the true number of
        rare cells is never given.
    truth
        ``[cells]`` bool; all False where there is none.
    seed
        Not used: nothing is drawn.

    Returns
    -------
    dict
        ``f1``, ``precision``, ``recall`` of the calls, with ``population`` those of
        `graphfm.metrics.rare.population_scores`; ``auprc`` (average precision), ``auroc`` of the scores;
        ``prevalence``. Without a rare cell only what `population_scores` gives.

    Raises
    ------
    KeyError
        When these columns are missing.
    ValueError
        On other lengths, NaN, or one class only, unless there are populations.
    """
    del seed
    if not {"called", "population", "score"} & set(prediction.columns):
        raise KeyError(f"prediction needs 'population', 'called' or 'score' (found: {list(prediction.columns)}).")
    populations = population_scores(truth, prediction["population"]) if "population" in prediction else {}
    if populations and not np.any(truth):
        return populations
    columns = {name: prediction[name].to_numpy() for name in ("called", "score") if name in prediction}
    return (rare_scores(truth, **columns) if columns else {}) | populations


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
