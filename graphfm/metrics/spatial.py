"""Spatial domains: agreement with known domains, and how smooth they lie in the tissue.

CHAOS and PAS follow Shang & Zhou 2022 (doi:10.1038/s41467-022-34879-1) in the form common to public code. Lower is
smoother, and both reward smoothing whether it is right or not: read them beside the agreement.
"""

from __future__ import annotations

import itertools

import numpy as np

from graphfm.metrics import _checks
from graphfm.metrics.labels import agreement


def domain_scores(
    predicted: np.ndarray, labels: np.ndarray, coordinates: np.ndarray, *, slides: np.ndarray | None = None
) -> dict[str, float]:
    """Agreement with known domains and smoothness of the predicted ones.

    Parameters
    ----------
    predicted, labels
        ``[cells]``.
    coordinates
        ``[cells, 2 or 3]``, any unit.
    slides
        ``[cells]`` slide of each cell; neighbours are sought within a slide, smoothness is averaged over cells.

    Returns
    -------
    dict
        ``ari``, ``nmi``, ``homogeneity``, ``completeness``, ``smallest_recall`` (all slides together), ``chaos``,
        ``pas``, ``border_f1``, and with several slides ``slide_divergence``.

    Raises
    ------
    ValueError
        On other lengths, NaN, one class only, or fewer than 2 cells on a slide.
    """
    y = _checks.codes(labels, name="labels")
    found = _checks.codes(predicted, name="predicted", num_rows=len(y))
    xy = _checks.matrix(coordinates, name="coordinates", num_rows=len(y))
    slide = np.zeros(len(y), dtype=int) if slides is None else _checks.codes(slides, name="slides", num_rows=len(y))
    parts = [np.flatnonzero(slide == s) for s in np.unique(slide)]
    result = agreement(found, y)
    share = np.array([len(p) for p in parts]) / len(y)
    result["chaos"] = float(share @ [chaos(found[p], xy[p]) for p in parts])
    result["pas"] = float(share @ [pas(found[p], xy[p]) for p in parts])
    true_border = np.concatenate([border(y[p], xy[p]) for p in parts])
    found_border = np.concatenate([border(found[p], xy[p]) for p in parts])
    size = true_border.sum() + found_border.sum()
    result["border_f1"] = float(2 * (true_border & found_border).sum() / size) if size else 1.0
    result["smallest_recall"] = smallest_recall(found, y)
    if len(parts) > 1:
        result["slide_divergence"] = slide_divergence(found, slide)
    return result


def smallest_recall(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Share of the smallest known domain that lies in the cluster that is assigned to it.

    Clusters are assigned to domains one to one, for the most cells in common (Kuhn 1955, doi:10.1002/nav.3800020109).
    Where several assignments are best, the kindest to the smallest domain counts; several smallest are averaged.

    Parameters
    ----------
    predicted, labels
        ``[cells]``.

    Returns
    -------
    float
        In [0, 1]; 0 where the smallest domain has no cluster.

    Raises
    ------
    ValueError
        On other lengths or missing labels.
    """
    from scipy.optimize import linear_sum_assignment

    y = _checks.codes(labels, name="labels")
    found = _checks.codes(predicted, name="predicted", num_rows=len(y))
    common = np.zeros((y.max() + 1, found.max() + 1), dtype=np.int64)
    np.add.at(common, (y, found), 1)
    size = common.sum(axis=1)
    recalls = []
    for smallest in np.flatnonzero(size == size.min()):
        worth = common * (len(y) + 1)
        worth[smallest] += common[smallest]
        domain, cluster = linear_sum_assignment(worth, maximize=True)
        recalls.append(common[domain, cluster][domain == smallest].sum() / size[smallest])
    return float(np.mean(recalls))


def slide_divergence(predicted: np.ndarray, slides: np.ndarray) -> float:
    """Mean Jensen-Shannon divergence of the domains' shares between two slides: 0 if all slides have the same.

    Slides of one tissue should have the same domains. It does not say that they are right: read it beside agreement.

    Parameters
    ----------
    predicted, slides
        ``[cells]``.

    Returns
    -------
    float
        In [0, 1] (base 2).

    Raises
    ------
    ValueError
        On other lengths, missing labels, or one slide only.

    References
    ----------
    Lin 1991, doi:10.1109/18.61115; for slides: Blampey et al. 2025, doi:10.1038/s41592-025-02899-6.
    """
    from scipy.spatial.distance import jensenshannon

    found = _checks.codes(predicted, name="predicted")
    slide = _checks.codes(slides, name="slides", num_rows=len(found))
    if slide.max() < 1:
        raise ValueError("slides has one slide only; a divergence needs two. Leave it out.")
    shares = [np.bincount(found[slide == s], minlength=found.max() + 1) for s in range(slide.max() + 1)]
    distances = [jensenshannon(a, b, base=2) for a, b in itertools.combinations(shares, 2)]
    return float(np.square(distances).mean())


def tissue_blocks(
    coordinates: np.ndarray, *, slides: np.ndarray | None = None, number: int = 20, seed: int = 0
) -> np.ndarray:
    """Compact blocks of each slide, to hold out together (`graphfm.metrics.labels.linear_probe`).

    Random cells would be judged by the cells beside them. Blocks are the k-means clusters of the coordinates.

    Parameters
    ----------
    coordinates
        ``[cells, 2 or 3]``.
    slides
        ``[cells]`` slide of each cell.
    number
        Blocks of a slide; a slide with fewer cells has as many as cells.
    seed
        Of k-means.

    Returns
    -------
    numpy.ndarray
        ``[cells]`` int, number of the block; none is in two slides.

    Raises
    ------
    ValueError
        On other lengths, NaN, or `number` below 1.
    """
    from sklearn.cluster import KMeans

    xy = _checks.matrix(coordinates, name="coordinates").astype(np.float64)
    slide = np.zeros(len(xy), dtype=int) if slides is None else _checks.codes(slides, name="slides", num_rows=len(xy))
    if number < 1:
        raise ValueError(f"number must be at least 1, got {number}.")
    blocks = np.empty(len(xy), dtype=np.int64)
    for s in np.unique(slide):
        part = slide == s
        blocks[part] = s * number + KMeans(min(number, part.sum()), n_init=1, random_state=seed).fit_predict(xy[part])
    return blocks


def chaos(labels: np.ndarray, coordinates: np.ndarray) -> float:
    """Mean distance to the nearest cell of the same cluster, in standard deviations of each coordinate.

    Coordinates are standardised one by one; clusters of one or two cells add nothing to the sum, yet all cells are
    counted in the mean.

    Parameters
    ----------
    labels
        ``[cells]``.
    coordinates
        ``[cells, 2 or 3]``.

    Returns
    -------
    float
        At least 0.

    Raises
    ------
    ValueError
        On other lengths or NaN.
    """
    from scipy.spatial import cKDTree

    y = _checks.codes(labels, name="labels")
    xy = _checks.matrix(coordinates, name="coordinates", num_rows=len(y)).astype(np.float64)
    spread = xy.std(axis=0)
    xy = (xy - xy.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    total = 0.0
    for cluster in np.unique(y):
        points = xy[y == cluster]
        if len(points) > 2:
            total += cKDTree(points).query(points, k=2)[0][:, 1].sum()
    return float(total / len(y))


def pas(labels: np.ndarray, coordinates: np.ndarray, *, k: int = 10) -> float:
    """Percentage of abnormal spots, as a fraction: cells of which more than half of the `k` nearest have another label.

    Parameters
    ----------
    labels
        ``[cells]``.
    coordinates
        ``[cells, 2 or 3]``.
    k
        Neighbours, the cell itself excluded; capped at the number of other cells.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        On other lengths, NaN, or a single cell.
    """
    y = _checks.codes(labels, name="labels")
    return float((_foreign(y, coordinates, k=k) > 0.5).mean())


def border(labels: np.ndarray, coordinates: np.ndarray, *, k: int = 6) -> np.ndarray:
    """Cells with at least one of the `k` nearest cells in another domain.

    Parameters
    ----------
    labels
        ``[cells]``.
    coordinates
        ``[cells, 2 or 3]``.
    k
        Neighbours, the cell itself excluded.

    Returns
    -------
    numpy.ndarray
        ``[cells]`` bool.

    Raises
    ------
    ValueError
        On other lengths, NaN, or a single cell.
    """
    return _foreign(_checks.codes(labels, name="labels"), coordinates, k=k) > 0


def _foreign(y: np.ndarray, coordinates: np.ndarray, *, k: int) -> np.ndarray:
    """Share of the k nearest cells with another label."""
    from scipy.spatial import cKDTree

    xy = _checks.matrix(coordinates, name="coordinates", num_rows=len(y)).astype(np.float64)
    if len(y) < 2:
        raise ValueError("A slide needs at least 2 cells to have neighbours, got 1. Drop this slide.")
    k = min(k, len(y) - 1)
    near = cKDTree(xy).query(xy, k=k + 1)[1]
    other = near != np.arange(len(y))[:, None]
    # Of cells at one and the same place the cell itself may be missing from its list: then drop the farthest.
    other[other.all(axis=1), -1] = False
    return (y[near[other].reshape(len(y), k)] != y[:, None]).mean(axis=1)
