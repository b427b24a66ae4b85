"""Recover cell types, from an embedding or as labels."""

from __future__ import annotations

from typing import Literal

import numpy as np

from graphfm.metrics import _checks, labels


def evaluate(prediction: np.ndarray, truth: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Score an embedding (2-D) or predicted labels (1-D) against cell types.

    Parameters
    ----------
    prediction
        ``[cells, features]``: 15-nearest-neighbour vote in 5-fold cross-validation, k-means at the true number of
        types, silhouette; or ``[cells]`` with the names of types.
    truth
        ``[cells]`` cell types.
    seed
        Seed of folds and k-means.

    Returns
    -------
    dict
        ``accuracy``, ``macro_f1``, ``ari``, ``nmi``; of an embedding also ``type_silhouette`` and ``avgbio``.

    Raises
    ------
    ValueError
        On other lengths, NaN, or one class only.
    """
    if np.ndim(prediction) == 1:
        agreement = labels.agreement(prediction, truth)
        return labels.label_accuracy(prediction, truth) | {key: agreement[key] for key in ("ari", "nmi")}
    return labels.knn_accuracy(prediction, truth, seed=seed) | labels.kept_scores(prediction, truth, seed=seed)


def controls(
    truth: np.ndarray, seed: int = 0, *, kind: Literal["embedding", "labels"] = "embedding"
) -> dict[str, np.ndarray]:
    """Predictions that bracket every method: the truth, and the truth dealt to cells at random.

    Parameters
    ----------
    truth
        ``[cells]`` cell types.
    seed
        Seed of the shuffle.
    kind
        One-hot embeddings or labels.

    Returns
    -------
    dict
        ``shuffled`` and ``oracle``.

    Raises
    ------
    ValueError
        On missing labels or another `kind`.
    """
    if kind not in ("embedding", "labels"):
        raise ValueError(f"kind must be 'embedding' or 'labels', got {kind!r}.")
    codes = _checks.codes(truth, name="truth")
    oracle = np.eye(codes.max() + 1)[codes] if kind == "embedding" else np.asarray(truth, dtype=object)
    return {"shuffled": np.random.default_rng(seed).permutation(oracle), "oracle": oracle}
