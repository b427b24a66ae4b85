"""Classes of nodes in a graph, from scores: what a network predicts for nodes whose label it was not shown."""

from __future__ import annotations

import numpy as np

from graphfm.metrics import _checks


def evaluate(prediction: np.ndarray, truth: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Score predicted class scores.

    Parameters
    ----------
    prediction
        ``[nodes, classes]``, larger is likelier: logits or probabilities of class 0, 1, ...
    truth
        ``[nodes]`` int classes.
    seed
        Not used: nothing is drawn.

    Returns
    -------
    dict
        ``accuracy``, ``macro_f1`` (mean over the classes that occur), ``rare_recall`` (recall of the smallest of them),
        and for two classes ``auroc`` of the difference of the scores.

    Raises
    ------
    ValueError
        On other lengths, NaN, classes without a score, or one class only.
    """
    from sklearn.metrics import f1_score, roc_auc_score

    truth = np.asarray(truth)
    scores = _checks.matrix(prediction, name="prediction", num_rows=len(truth))
    if not np.issubdtype(truth.dtype, np.integer) or truth.min() < 0 or truth.max() >= scores.shape[1]:
        raise ValueError(f"truth must be integers from 0 to {scores.shape[1] - 1}, one a column of prediction.")
    _checks.several(truth, name="truth")
    predicted, classes = scores.argmax(axis=1), np.unique(truth)
    rarest = min(classes, key=lambda c: (np.sum(truth == c), c))
    result = {
        "accuracy": float(np.mean(predicted == truth)),
        "macro_f1": float(f1_score(truth, predicted, labels=classes, average="macro", zero_division=0)),
        "rare_recall": float(np.mean(predicted[truth == rarest] == rarest)),
    }
    if scores.shape[1] == 2:
        result["auroc"] = float(roc_auc_score(truth, scores[:, 1] - scores[:, 0]))
    return result


def controls(truth: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Scores that bracket every method: the truth, and the truth dealt to nodes at random.

    Parameters
    ----------
    truth
        ``[nodes]`` int classes.
    seed
        Seed of the shuffle.

    Returns
    -------
    dict
        ``shuffled`` and ``oracle``, ``[nodes, classes]``.
    """
    oracle = np.eye(int(np.max(truth)) + 1)[np.asarray(truth)]
    return {"shuffled": np.random.default_rng(seed).permutation(oracle), "oracle": oracle}
