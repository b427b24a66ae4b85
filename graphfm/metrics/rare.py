"""How well a rare population was found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphfm.metrics import _checks


def rare_scores(
    truth: np.ndarray, *, called: np.ndarray | None = None, score: np.ndarray | None = None
) -> dict[str, float]:
    """Score calls, scores, or both.

    Parameters
    ----------
    truth
        ``[cells]`` bool, True for cells of the rare population.
    called
        ``[cells]`` bool, cells reported as rare.
    score
        ``[cells]`` float, higher = rarer; ties are taken together.

    Returns
    -------
    dict
        With `called`: ``f1``, ``precision`` (0 when nothing was called), ``recall``. With `score`: ``auprc`` (average
        precision, the step-wise sum) and ``auroc``. Always ``prevalence``, the chance level of
        precision and auprc.

    Raises
    ------
    ValueError
        On other lengths, NaN, values that are not boolean, one class only, or neither `called` nor `score`.
    """
    rare = _boolean(truth, name="truth", num_rows=None)
    _checks.several(rare, name="truth")
    if called is None and score is None:
        raise ValueError("Pass called= or score=, or both.")
    result = {"prevalence": float(rare.mean())}
    if called is not None:
        result |= _calls(rare, _boolean(called, name="called", num_rows=len(rare)))
    if score is not None:
        from sklearn.metrics import average_precision_score, roc_auc_score

        values = np.asarray(score, dtype=np.float64)
        if values.shape != rare.shape:
            raise ValueError(f"score has shape {values.shape}, expected {rare.shape}. Pass the same cells to both.")
        _checks.matrix(values[:, None], name="score")
        result["auprc"] = float(average_precision_score(rare, values))
        result["auroc"] = float(roc_auc_score(rare, values))
    return result


def population_scores(truth: np.ndarray, population: Sequence) -> dict[str, float]:
    """Score called populations: the one that matches a rare type best, and all of them together.

    A method that finds further small groups is right about the type all the same; together with the pooled numbers and
    the number of populations, one that calls everything something does not get away with it.

    Parameters
    ----------
    truth
        ``[cells]`` bool, True for cells of the rare type; all False where there is none.
    population
        ``[cells]``, name of the population that a cell was called to belong to; missing for all others.

    Returns
    -------
    dict
        ``num_populations``, ``num_called`` (cells), ``prevalence``. With rare cells ``f1``, ``precision``, ``recall``
        of the population with the largest F1 (0 where nothing was called), and ``pooled_f1``, ``pooled_precision``,
        ``pooled_recall`` of all called cells; without, ``false_discovery``, 1 if anything was called.

    Raises
    ------
    ValueError
        On other lengths, NaN, or values that are not boolean.
    """
    import pandas as pd

    rare = _boolean(truth, name="truth", num_rows=None)
    codes, names = pd.factorize(pd.Series(list(population), dtype=object))
    if len(codes) != len(rare):
        raise ValueError(f"population has length {len(codes)}, expected {len(rare)}. Pass the same cells to both.")
    result = {
        "num_populations": float(len(names)),
        "num_called": float((codes >= 0).sum()),
        "prevalence": float(rare.mean()),
    }
    if not rare.any():
        return result | {"false_discovery": float(len(names) > 0)}
    each = [_calls(rare, codes == code) for code in range(len(names))] or [_calls(rare, codes >= 0)]
    pooled = {f"pooled_{name}": value for name, value in _calls(rare, codes >= 0).items()}
    return result | max(each, key=lambda scores: scores["f1"]) | pooled


def _calls(rare: np.ndarray, found: np.ndarray) -> dict[str, float]:
    both = int((found & rare).sum())
    return {
        "f1": 2 * both / int(found.sum() + rare.sum()),
        "precision": both / max(1, int(found.sum())),
        "recall": both / int(rare.sum()),
    }


def _boolean(values: np.ndarray, *, name: str, num_rows: int | None) -> np.ndarray:
    _checks.codes(values, name=name, num_rows=num_rows)
    array = np.asarray(values)
    if not np.isin(array, [0, 1]).all():
        raise ValueError(f"{name} must hold True and False only, got {array.dtype} values such as {array[0]!r}.")
    return array.astype(bool)
