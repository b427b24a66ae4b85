"""How well batches are mixed in an embedding, and cell types kept apart."""

from __future__ import annotations

import numpy as np

from graphfm.metrics import _checks

PERPLEXITY_STEPS = 50
LEAST_OF_TYPE, LEAST_OF_BATCH = 10, 100
"""Cells that a type needs in all, and a batch, to have a say in `scgraph`."""


def _cells(embedding: np.ndarray, types: np.ndarray, batches: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Checked: the embedding, the types and the batches as numbers."""
    kind = _checks.codes(types, name="types")
    batch = _checks.codes(batches, name="batches", num_rows=len(kind))
    return _checks.matrix(embedding, name="embedding", num_rows=len(kind)), kind, batch


def mixing(embedding: np.ndarray, batches: np.ndarray, *, k: int = 90) -> float:
    r"""iLISI: how many batches a cell's neighbours are of, scaled to 0 (one) to 1 (all alike).

    Neighbours are weighed by :math:`p_j \propto \exp(-\beta_i d_{ij})` with a perplexity of ``k // 3``; the inverse of
    :math:`\sum_b (\sum_{j \in b} p_j)^2` is the number of batches, its median over cells :math:`m`, the score
    :math:`(m - 1) / (B - 1)`. Batches of other sizes than each other cannot reach 1.

    Parameters
    ----------
    embedding
        ``[cells, features]``, Euclidean; finite.
    batches
        ``[cells]``.
    k
        Neighbours; capped at the cells there are.

    Raises
    ------
    ValueError
        On other lengths, NaN, or one batch only.

    References
    ----------
    Korsunsky et al. 2019, doi:10.1038/s41592-019-0619-0; Luecken et al. 2022, doi:10.1038/s41592-021-01336-8.
    """
    from sklearn.neighbors import NearestNeighbors

    batch = _checks.codes(batches, name="batches")
    x = _checks.matrix(embedding, name="embedding", num_rows=len(batch))
    _checks.several(batch, name="batches")
    distance, index = NearestNeighbors(n_neighbors=min(k, len(x) - 1)).fit(x).kneighbors()
    weight, number = _neighbor_weights(distance, max(distance.shape[1] // 3, 1)), batch.max() + 1
    shares = np.stack([(weight * (batch[index] == b)).sum(axis=1) for b in range(number)], axis=1)
    return float((np.median(1 / np.square(shares).sum(axis=1)) - 1) / (number - 1))


def _neighbor_weights(distance: np.ndarray, perplexity: int) -> np.ndarray:
    """Rows that sum to 1, of that perplexity, by bisection."""
    apart = distance - distance[:, :1]  # a shift changes no weight
    rate, low, high = np.ones(len(apart)), np.zeros(len(apart)), np.full(len(apart), np.inf)
    for _ in range(PERPLEXITY_STEPS):
        weight = np.exp(-apart * rate[:, None])
        total = weight.sum(axis=1)
        wide = np.log(total) + rate * (apart * weight).sum(axis=1) / total > np.log(perplexity)
        low, high = np.where(wide, rate, low), np.where(wide, high, rate)
        rate = np.where(np.isinf(high), 2 * rate, (low + np.where(np.isinf(high), 0, high)) / 2)
    weight = np.exp(-apart * rate[:, None])
    return weight / weight.sum(axis=1, keepdims=True)


def batch_silhouette(embedding: np.ndarray, types: np.ndarray, batches: np.ndarray) -> float:
    """1 - absolute silhouette width of the batches among cells of a type, mean over its cells, then over types.

    Types of one batch are left out; NaN if all are.

    Parameters
    ----------
    embedding
        ``[cells, features]``, Euclidean; finite.
    types, batches
        ``[cells]``.

    Raises
    ------
    ValueError
        On other lengths, NaN, or one type or batch only.

    References
    ----------
    Luecken et al. 2022, doi:10.1038/s41592-021-01336-8.
    """
    from sklearn.metrics import silhouette_samples

    x, kind, batch = _cells(embedding, types, batches)
    _checks.several(kind, name="types")
    _checks.several(batch, name="batches")
    mixed = []
    for one in range(kind.max() + 1):
        mine = kind == one
        if 1 < len(np.unique(batch[mine])) < mine.sum():
            mixed.append(1 - np.abs(silhouette_samples(x[mine], batch[mine])).mean())
    return float(np.mean(mixed)) if mixed else float("nan")


def connectivity(embedding: np.ndarray, types: np.ndarray, *, k: int = 15) -> float:
    """Share of a type's cells in its largest connected part of the kNN graph, mean over types.

    Parameters
    ----------
    embedding
        ``[cells, features]``, Euclidean; finite.
    types
        ``[cells]``.
    k
        Neighbours; parts are connected along edges of either direction.

    Raises
    ------
    ValueError
        On other lengths or NaN.

    References
    ----------
    Luecken et al. 2022, doi:10.1038/s41592-021-01336-8.
    """
    from scipy.sparse.csgraph import connected_components
    from sklearn.neighbors import NearestNeighbors

    kind = _checks.codes(types, name="types")
    x = _checks.matrix(embedding, name="embedding", num_rows=len(kind))
    graph = NearestNeighbors(n_neighbors=min(k, len(x) - 1)).fit(x).kneighbors_graph()
    parts = []
    for one in range(kind.max() + 1):
        mine = np.flatnonzero(kind == one)
        label = connected_components(graph[mine][:, mine], connection="weak")[1]
        parts.append(np.bincount(label).max() / len(mine))
    return float(np.mean(parts))


def across_batches(embedding: np.ndarray, types: np.ndarray, batches: np.ndarray, *, k: int = 15) -> float:
    """Macro-F1 of types told by the nearest cells of all other batches.

    Unlike measures of mixing, it falls when types are mixed: a batch is used if its cells get the right names.

    Parameters
    ----------
    embedding
        ``[cells, features]``, Euclidean; finite.
    types, batches
        ``[cells]``; cells of a type that no other batch has are not asked for.
    k
        Neighbours that vote.

    Raises
    ------
    ValueError
        On other lengths, NaN, one type or batch only, or no type that two batches have.
    """
    from sklearn.neighbors import KNeighborsClassifier

    from graphfm.metrics.labels import label_accuracy

    x, kind, batch = _cells(embedding, types, batches)
    _checks.several(kind, name="types")
    _checks.several(batch, name="batches")
    predicted = np.full(len(kind), -1)
    for one in range(batch.max() + 1):
        others = np.flatnonzero(batch != one)
        asked = np.flatnonzero((batch == one) & np.isin(kind, kind[others]))
        if len(asked):
            vote = KNeighborsClassifier(min(k, len(others))).fit(x[others], kind[others])
            predicted[asked] = vote.predict(x[asked])
    told = predicted >= 0
    if len(np.unique(kind[told])) < 2:
        raise ValueError("Fewer than two types are in more than one batch. Pass batches that share types.")
    return label_accuracy(predicted[told], kind[told])["macro_f1"]


def scgraph(
    embedding: np.ndarray, types: np.ndarray, batches: np.ndarray, components: np.ndarray, *, trim: float = 0.05
) -> float:
    r"""scGraph: does an embedding keep how far cell types are from each other in each batch's own components?

    Measures of mixing and separation are highest where types are islands in any order; this one then falls. With
    :math:`D` the distances between trimmed means of the types in the embedding, and :math:`C` the mean over batches of
    the same in their components, columns divided by their maximum, it is the correlation of the columns of :math:`D`
    and :math:`C`, weighted by :math:`1 / C`, mean over types. From -1 to 1.

    Parameters
    ----------
    embedding
        ``[cells, features]``, Euclidean; finite.
    types, batches
        ``[cells]``; types of fewer than 10 cells and batches of fewer than 100 are left out.
    components
        ``[cells, components]``, each batch's rows in its own space: its principal components, ten in the paper.
    trim
        Share of cells that each coordinate of a mean leaves out at either end.

    Returns
    -------
    The score; NaN if there are fewer than three such types or no such batch.

    Raises
    ------
    ValueError
        On other lengths or NaN.

    References
    ----------
    Wang, Leskovec and Regev 2025, doi:10.1038/s41587-025-02702-z ("Corr-Weighted").
    """
    x, kind, batch = _cells(embedding, types, batches)
    own = _checks.matrix(components, name="components", num_rows=len(kind))
    kept = np.flatnonzero(np.bincount(kind) >= LEAST_OF_TYPE)
    large = np.flatnonzero(np.bincount(batch) >= LEAST_OF_BATCH)
    if len(kept) < 3 or not len(large):
        return float("nan")
    each = np.stack([_type_distances(own[batch == one], kind[batch == one], kept, trim) for one in large])
    seen = np.isfinite(each).sum(axis=0)  # batches that have both types
    consensus = np.where(seen > 0, np.nansum(each, axis=0) / np.maximum(seen, 1), np.nan)
    found = _type_distances(x, kind, kept, trim)
    columns = [_weighted_correlation(*pair) for pair in zip(found.T, _by_column(consensus).T, strict=True)]
    told = np.isfinite(columns)
    return float(np.mean(np.array(columns)[told])) if told.any() else float("nan")


def _type_distances(x: np.ndarray, kind: np.ndarray, kept: np.ndarray, trim: float) -> np.ndarray:
    """Between trimmed means of the types that are kept, NaN where there is no cell of one; largest of a column 1."""
    from scipy.spatial.distance import cdist
    from scipy.stats import trim_mean

    absent = np.full(x.shape[1], np.nan)
    means = np.stack([trim_mean(x[kind == one], trim, axis=0) if (kind == one).any() else absent for one in kept])
    return _by_column(cdist(means, means))


def _by_column(distances: np.ndarray) -> np.ndarray:
    largest = np.nan_to_num(distances).max(axis=0)
    return distances / np.where(largest > 0, largest, np.nan)


def _weighted_correlation(found: np.ndarray, expected: np.ndarray) -> float:
    """Weighted by the inverse of what is expected, where that is not 0; NaN where nothing varies."""
    there = np.isfinite(found) & (expected > 0)
    if there.sum() < 2:
        return float("nan")
    weight = 1 / expected[there]
    x, y = (v[there] - np.average(v[there], weights=weight) for v in (found, expected))
    spread = (weight @ x**2) * (weight @ y**2)
    return float(weight @ (x * y) / np.sqrt(spread)) if spread > 0 else float("nan")
