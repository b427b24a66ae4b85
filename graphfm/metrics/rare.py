"""How well a rare population was found."""

from __future__ import annotations

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
        found = _boolean(called, name="called", num_rows=len(rare))
        both = int((found & rare).sum())
        result["f1"] = 2 * both / int(found.sum() + rare.sum())
        result["precision"] = both / max(1, int(found.sum()))
        result["recall"] = both / int(rare.sum())
    if score is not None:
        from sklearn.metrics import average_precision_score, roc_auc_score

        values = np.asarray(score, dtype=np.float64)
        if values.shape != rare.shape:
            raise ValueError(f"score has shape {values.shape}, expected {rare.shape}. Pass the same cells to both.")
        _checks.matrix(values[:, None], name="score")
        result["auprc"] = float(average_precision_score(rare, values))
        result["auroc"] = float(roc_auc_score(rare, values))
    return result


def _boolean(values: np.ndarray, *, name: str, num_rows: int | None) -> np.ndarray:
    _checks.codes(values, name=name, num_rows=num_rows)
    array = np.asarray(values)
    if not np.isin(array, [0, 1]).all():
        raise ValueError(f"{name} must hold True and False only, got {array.dtype} values such as {array[0]!r}.")
    return array.astype(bool)
