"""How well an embedding, or predicted labels, agree with known labels."""

from __future__ import annotations

import logging

import numpy as np

from graphfm.metrics import _checks

logger = logging.getLogger(__name__)


def knn_accuracy(
    embedding: np.ndarray, labels: np.ndarray, *, k: int = 15, folds: int = 5, seed: int = 0
) -> dict[str, float]:
    """Accuracy of a k-nearest-neighbour vote under stratified cross-validation.

    Votes are weighted by 1/distance, so that a type with fewer than `k` cells can still win where its cells coincide.
    Cells of types with fewer than `folds` cells cannot be stratified and are left out (logged).

    Parameters
    ----------
    embedding
        ``[cells, features]``, Euclidean; finite.
    labels
        ``[cells]``.
    k
        Neighbours that vote; capped at the size of the training part.
    folds
        Parts of the cross-validation.
    seed
        Seed of the split.

    Returns
    -------
    dict
        ``accuracy`` and ``macro_f1`` (mean over types of F1) of the held-out predictions, fractions.

    Raises
    ------
    ValueError
        On other lengths, NaN, one class only, or fewer than two types with `folds` cells.
    """
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.model_selection import StratifiedKFold
    from sklearn.neighbors import KNeighborsClassifier

    if k < 1 or folds < 2:
        raise ValueError(f"k must be at least 1 and folds at least 2, got k={k} and folds={folds}.")
    y = _checks.codes(labels, name="labels")
    x = _checks.matrix(embedding, name="embedding", num_rows=len(y))
    _checks.several(y, name="labels")
    keep = np.bincount(y)[y] >= folds
    if not keep.all():
        logger.info("left out %d cells of types with fewer than %d cells", int((~keep).sum()), folds)
        x, y = x[keep], y[keep]
    if len(np.unique(y)) < 2:
        raise ValueError(f"labels has fewer than two classes with at least folds={folds} cells. Pass a smaller folds=.")
    predicted = np.empty_like(y)
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y):
        vote = KNeighborsClassifier(min(k, len(train)), weights="distance").fit(x[train], y[train])
        predicted[test] = vote.predict(x[test])
    return {"accuracy": float(accuracy_score(y, predicted)), "macro_f1": float(f1_score(y, predicted, average="macro"))}


def clustering_scores(embedding: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> dict[str, float]:
    """ARI and NMI of k-means (10 starts) at the TRUE number of classes.

    k-means is told the number and likes clusters of one size: a rare type seldom gets a cluster of its own.

    Parameters
    ----------
    embedding
        ``[cells, features]``, finite.
    labels
        ``[cells]``.
    seed
        Seed of the starts.

    Returns
    -------
    dict
        ``ari`` (Hubert & Arabie 1985, chance 0) and ``nmi`` (arithmetic mean of entropies).

    Raises
    ------
    ValueError
        On other lengths, NaN, or one class only.
    """
    from sklearn.cluster import KMeans

    y = _checks.codes(labels, name="labels")
    x = _checks.matrix(embedding, name="embedding", num_rows=len(y))
    _checks.several(y, name="labels")
    found = KMeans(len(np.unique(y)), n_init=10, random_state=seed).fit_predict(x)
    return agreement(found, y)


def silhouette(embedding: np.ndarray, labels: np.ndarray) -> float:
    """Average silhouette width (Euclidean) over cells, scaled from -1 to 1 to 0 to 1.

    Parameters
    ----------
    embedding
        ``[cells, features]``, finite.
    labels
        ``[cells]``.

    Raises
    ------
    ValueError
        On other lengths, NaN, or one class only.
    """
    from sklearn.metrics import silhouette_score

    y = _checks.codes(labels, name="labels")
    x = _checks.matrix(embedding, name="embedding", num_rows=len(y))
    _checks.several(y, name="labels")
    return float((silhouette_score(x, y) + 1) / 2)


def kept_scores(embedding: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> dict[str, float]:
    """How well types are kept apart: AvgBIO and its three parts.

    Parameters
    ----------
    embedding
        ``[cells, features]``, finite.
    labels
        ``[cells]``.
    seed
        Of k-means.

    Returns
    -------
    dict
        ``ari`` and ``nmi`` of k-means (`clustering_scores`), ``type_silhouette`` (`silhouette`), and their mean
        ``avgbio`` (Cui et al. 2024, doi:10.1038/s41592-024-02201-0).

    Raises
    ------
    ValueError
        On other lengths, NaN, or one class only.
    """
    clusters = clustering_scores(embedding, labels, seed=seed)
    kept = {"ari": clusters["ari"], "nmi": clusters["nmi"], "type_silhouette": silhouette(embedding, labels)}
    return {**kept, "avgbio": float(np.mean(list(kept.values())))}


def agreement(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """ARI, NMI, homogeneity and completeness of two labellings; the names of the clusters do not matter.

    Homogeneity: a cluster holds one class; completeness: a class lies in one cluster (Rosenberg & Hirschberg 2007).

    Parameters
    ----------
    predicted, labels
        ``[cells]``.

    Returns
    -------
    dict
        ``ari``, ``nmi``, ``homogeneity``, ``completeness``.

    Raises
    ------
    ValueError
        On other lengths, missing labels, or a truth of one class only.
    """
    from sklearn.metrics import (
        adjusted_rand_score,
        completeness_score,
        homogeneity_score,
        normalized_mutual_info_score,
    )

    y = _checks.codes(labels, name="labels")
    found = _checks.codes(predicted, name="predicted", num_rows=len(y))
    _checks.several(y, name="labels")
    return {
        "ari": float(adjusted_rand_score(y, found)),
        "nmi": float(normalized_mutual_info_score(y, found)),
        "homogeneity": float(homogeneity_score(y, found)),
        "completeness": float(completeness_score(y, found)),
    }


def label_accuracy(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy and macro F1 (over the classes of the truth) of predicted label names.

    Parameters
    ----------
    predicted, labels
        ``[cells]``, the same names in both.

    Returns
    -------
    dict
        ``accuracy``, ``macro_f1``.

    Raises
    ------
    ValueError
        On other lengths, missing labels, or a truth of one class only.
    """
    y = _checks.codes(labels, name="labels")
    _checks.codes(predicted, name="predicted", num_rows=len(y))
    _checks.several(y, name="labels")
    truth, guess = np.asarray(labels, dtype=object), np.asarray(predicted, dtype=object)
    hit = truth == guess
    scores = []
    for name in dict.fromkeys(truth):
        both = (truth == name).sum() + (guess == name).sum()
        scores.append(2 * (hit & (truth == name)).sum() / both)
    return {"accuracy": float(hit.mean()), "macro_f1": float(np.mean(scores))}


def linear_probe(
    embedding: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, folds: int = 5, seed: int = 0
) -> dict[str, float]:
    """Accuracy of a logistic regression on cells of groups that it was not fitted on.

    Groups are blocks of a tissue (`graphfm.metrics.spatial.tissue_blocks`), so that a cell is not judged by the cell
    beside it, or slides, to ask whether labels go from one slide to the next. Features are standardised on the fitted
    cells. A class that no fitted cell has is missed, and counts as such.

    Parameters
    ----------
    embedding
        ``[cells, features]``; finite.
    labels
        ``[cells]``.
    groups
        ``[cells]``, cells of one group are held out together.
    folds
        Parts of the cross-validation; at most as many as there are groups.
    seed
        Seed by which groups are dealt to folds.

    Returns
    -------
    dict
        ``accuracy`` and ``macro_f1`` of the held-out predictions, fractions.

    Raises
    ------
    ValueError
        On other lengths, NaN, one class only, fewer than two groups, or a fold whose other cells are of one class.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    y = _checks.codes(labels, name="labels")
    x = _checks.matrix(embedding, name="embedding", num_rows=len(y))
    group = _checks.codes(groups, name="groups", num_rows=len(y))
    _checks.several(y, name="labels")
    number = len(np.unique(group))
    if folds < 2 or number < 2:
        raise ValueError(f"groups and folds must be at least 2, got {number} groups and folds={folds}.")
    predicted = np.empty_like(y)
    for train, test in GroupKFold(min(folds, number), shuffle=True, random_state=seed).split(x, y, group):
        if len(np.unique(y[train])) < 2:
            raise ValueError("Without the cells of one fold labels has one class only. Pass more or smaller groups.")
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        predicted[test] = probe.fit(x[train], y[train]).predict(x[test])
    return label_accuracy(predicted, y)


def calibration_error(confidence: np.ndarray, hit: np.ndarray, *, bins: int = 10) -> float:
    r"""Expected calibration error: how far confidence and accuracy are apart, mean over cells.

    .. math:: \sum_b \frac{n_b}{n} \, \lvert \text{accuracy}_b - \text{confidence}_b \rvert

    over bins of equal width from 0 to 1 (Guo et al. 2017, arXiv:1706.04599).

    Parameters
    ----------
    confidence
        ``[cells]``, probability of the predicted label, 0 to 1.
    hit
        ``[cells]`` of bool, whether it was right.
    bins
        Number of bins.

    Raises
    ------
    ValueError
        On other lengths, no cells, or values outside 0 to 1.
    """
    values, right = np.asarray(confidence, dtype=np.float64), np.asarray(hit, dtype=np.float64)
    if values.ndim != 1 or values.shape != right.shape or not len(values):
        raise ValueError(f"confidence and hit must be of one length, got shapes {values.shape} and {right.shape}.")
    if not ((values >= 0) & (values <= 1 + 1e-6)).all():
        raise ValueError(f"confidence must lie between 0 and 1, got {values.min():.3g} to {values.max():.3g}.")
    place = np.minimum((values * bins).astype(int), bins - 1)
    apart = np.bincount(place, right - values, minlength=bins)
    return float(np.abs(apart).sum() / len(values))
