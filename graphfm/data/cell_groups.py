"""Groups of cells by graphs: abundant types, and small groups that may be populations."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, svds

RESOLUTIONS = (1.0, 3.0, 10.0, 30.0, 100.0)
NUM_COMPONENTS = 50
DEAL_CELLS = 100
"""Cells of like depth among which a gene's values are dealt."""
LINKS = 200_000
"""Links that are weighed at a time."""
REFERENCE_CELLS = 5000
"""Cells of each batch that neighbours are looked for among, at most."""


def group_numbers(obs: pd.DataFrame, key: str | None) -> np.ndarray:
    """Number of each cell's group, by the names in a column; 0 for all without one."""
    if key is None:
        return np.zeros(len(obs), dtype=np.int64)
    return np.unique(obs[key].astype(str), return_inverse=True)[1]


def order_of_names(obs: pd.DataFrame | pd.Series) -> np.ndarray:
    """Rows in the order of the cells' names, in which what is drawn does not depend on that of the file."""
    return np.argsort(obs.index.to_numpy(dtype=str), kind="stable")


def largest_rare(num_cells: int, max_fraction: float) -> float:
    """Cells of a population that is rare at most: two standard deviations of a draw above the largest share."""
    share = max_fraction * num_cells
    return share + 2 * share**0.5


def communities(graph: sp.csr_matrix, resolution: float, seed: int) -> np.ndarray:
    """Number of the community of each node of a weighted graph, by Leiden's algorithm.

    References
    ----------
    Traag, Waltman and van Eck 2019, doi:10.1038/s41598-019-41695-z.
    """
    import igraph

    half = sp.triu(graph, k=1).tocoo()
    links = igraph.Graph(graph.shape[0], np.column_stack([half.row, half.col]), edge_attrs={"weight": half.data})
    igraph.set_random_number_generator(random.Random(seed))
    try:
        found = links.community_leiden("modularity", weights="weight", resolution=resolution, n_iterations=3)
    finally:
        igraph.set_random_number_generator(random)
    return np.array(found.membership)


def knn_matrix(indices: np.ndarray, columns: int | None = None) -> sp.csr_matrix:
    """``[rows, columns]``, 1 where a row's neighbours are."""
    rows, k = indices.shape
    pointer = np.arange(rows + 1) * k
    return sp.csr_matrix((np.ones(rows * k, dtype=np.float32), indices.ravel(), pointer), shape=(rows, columns or rows))


def balanced_graph(values: np.ndarray, batches: np.ndarray, n_neighbors: int, seed: int) -> sp.csr_matrix:
    """Symmetric graph of nearest neighbours, as many of them from every batch.

    Parameters
    ----------
    values
        ``[cells, components]``.
    batches
        ``[cells]``, number of the batch.
    n_neighbors
        In all; at least 3 from a batch.
    seed
        Of the cells of large batches that may be neighbours.

    References
    ----------
    Polanski et al. 2020, doi:10.1093/bioinformatics/btz625.
    """
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(seed)
    each = max(3, -(-n_neighbors // (int(batches.max()) + 1)))
    graph = sp.csr_matrix((len(values), len(values)), dtype=np.float32)
    for batch in np.unique(batches):
        cells = np.flatnonzero(batches == batch)
        if len(cells) > REFERENCE_CELLS:
            cells = np.sort(rng.choice(cells, REFERENCE_CELLS, replace=False))
        search = NearestNeighbors(n_neighbors=min(each + 1, len(cells))).fit(values[cells])
        found = cells[search.kneighbors(values, return_distance=False)]
        itself = found == np.arange(len(values))[:, np.newaxis]
        itself[~itself.any(axis=1), -1] = True  # who is not in its list leaves out the farthest: all have as many
        graph = graph + knn_matrix(found[~itself].reshape(len(values), found.shape[1] - 1), len(values))
    return sp.csr_matrix(graph.maximum(graph.T))


def shared_neighbor_graph(indices: np.ndarray) -> sp.csr_matrix:
    """Weights between neighbours by the share of neighbours that they have in common (Jaccard's index).

    A cell that merely has its nearest neighbours in a large cluster shares few of them with it.

    Parameters
    ----------
    indices
        ``[cells, k]``, neighbours, the cell itself left out.
    """
    near = knn_matrix(np.column_stack([np.arange(len(indices)), indices]))
    links = sp.triu(near.maximum(near.T), k=1).tocoo()
    common = np.concatenate(
        [
            np.asarray(
                near[links.row[start : start + LINKS]].multiply(near[links.col[start : start + LINKS]]).sum(axis=1)
            )
            for start in range(0, len(links.row), LINKS)
        ]
    ).ravel()
    weight = common / (2 * near.sum(axis=1).max() - common)
    half = sp.csr_matrix((weight, (links.row, links.col)), shape=near.shape)
    return sp.csr_matrix(half + half.T)


def abundant_types(graph: sp.csr_matrix, min_cells: float, seed: int) -> np.ndarray:
    """Communities of at least `min_cells`; smaller ones go to the one that they are most linked to.

    Parameters
    ----------
    graph
        Symmetric, of cells.
    min_cells
        Of a type.
    seed
        Random state.

    Returns
    -------
    ``[cells]``, numbers from 0.
    """
    types = communities(graph, 1.0, seed)
    while True:
        types = np.unique(types, return_inverse=True)[1]
        sizes = np.bincount(types)
        smallest = sizes.argmin()
        if sizes[smallest] >= min_cells or len(sizes) == 1:
            return types
        links = np.bincount(types, np.asarray(graph[types == smallest].sum(axis=0)).ravel()) / sizes
        links[smallest] = -1.0
        types[types == smallest] = links.argmax()


def residual_components(
    expression: sp.csr_matrix, groups: np.ndarray, *, num_components: int = NUM_COMPONENTS, seed: int = 0
) -> np.ndarray:
    """Principal components of what is left of expression within groups, every cell scaled to length 1.

    Parameters
    ----------
    expression, groups, num_components, seed
        As for `components_within`.

    Returns
    -------
    float64 ``[cells, components]``.
    """
    scores = components_within(expression, groups, num_components=num_components, seed=seed)
    return scores / np.maximum(np.linalg.norm(scores, axis=1, keepdims=True), 1e-12)


def components_within(
    expression: sp.csr_matrix, groups: np.ndarray, *, num_components: int = NUM_COMPONENTS, seed: int = 0
) -> np.ndarray:
    """Principal components of expression that is standardised within groups.

    Each gene is standardised within each group, so that a gene that only a few cells of a group have counts for much.
    The matrix stays sparse: the groups' means are taken off in products.

    Parameters
    ----------
    expression
        ``[cells, genes]``, log-normalised.
    groups
        ``[cells]``, numbers from 0.
    num_components
        Fewer where the data do not have as many.
    seed
        Of the solver's first vector.

    Returns
    -------
    float64 ``[cells, components]``, in no order.
    """
    n, number = len(groups), int(groups.max()) + 1
    members = sp.csr_matrix((np.ones(n), (groups, np.arange(n))), shape=(number, n))
    sizes = np.maximum(np.bincount(groups, minlength=number)[:, None], 1)
    mean = (members @ expression).toarray() / sizes
    variance = np.maximum((members @ expression.multiply(expression)).toarray() / sizes - mean**2, 0.0)
    # twenty cells' worth of the variance that all groups have: a gene seen once in a small group says little
    pooled = (sizes * variance).sum(axis=0) / n
    spread = np.sqrt((sizes * variance + 20 * pooled) / (sizes + 20))
    scale = np.where(spread > 1e-9, 1 / np.maximum(spread, 1e-9), 0.0)
    entries = expression.tocoo()
    scaled = sp.csr_matrix(
        (entries.data * scale[groups[entries.row], entries.col], (entries.row, entries.col)), shape=expression.shape
    )
    centre, home = mean * scale, sp.csr_matrix(members.T)

    def times(v: np.ndarray) -> np.ndarray:
        return scaled @ v - home @ (centre @ v)

    def transposed_times(u: np.ndarray) -> np.ndarray:
        return scaled.T @ u - centre.T @ (members @ u)

    residual = LinearOperator(
        expression.shape,
        matvec=times,
        rmatvec=transposed_times,
        matmat=times,
        rmatmat=transposed_times,
        dtype=np.float64,
    )
    possible = min(num_components, min(expression.shape) - 1)
    first = np.random.default_rng(seed).standard_normal(min(expression.shape))
    left, strength, _ = svds(residual, k=possible, v0=first)
    return left * strength


def small_groups(
    indices: np.ndarray, *, min_cells: int, max_cells: float, seed: int
) -> Iterator[tuple[float, np.ndarray]]:
    """Communities of the shared-neighbour graph at several resolutions, of the sizes asked for.

    Parameters
    ----------
    indices
        ``[cells, k]``, nearest neighbours, the cell itself left out.
    min_cells, max_cells
        Of a group.
    seed
        Random state.

    Yields
    ------
    Closure (the share of the members' neighbours that are members, out of what its size allows), rows of the members.
    """
    graph = shared_neighbor_graph(indices)
    for resolution in RESOLUTIONS:
        labels = communities(graph, resolution, seed)
        inside = (labels[indices] == labels[:, None]).mean(axis=1)
        order, sizes = np.argsort(labels, kind="stable"), np.bincount(labels)
        for rows, size in zip(np.split(order, np.cumsum(sizes)[:-1]), sizes, strict=True):
            if min_cells <= size <= max_cells:
                yield float(inside[rows].mean() / min(1.0, (size - 1) / indices.shape[1])), rows


def deal_within(counts: sp.csr_matrix, groups: np.ndarray, depth: np.ndarray, *, seed: int) -> sp.csr_matrix:
    """Each gene's values dealt anew among cells of one group and of nearly the same depth: nothing rare is left.

    Parameters
    ----------
    counts
        ``[cells, genes]``.
    groups
        ``[cells]``, numbers of the groups.
    depth
        ``[cells]``.
    seed
        Random state.

    Returns
    -------
    csr_matrix
        As many values, the same ones for each gene and group; a cell's depth is kept nearly.
    """
    rng, n = np.random.default_rng(seed), len(groups)
    order = np.lexsort((depth, groups))
    new = np.concatenate([[True], np.diff(groups[order]) != 0])
    within = np.arange(n) - np.flatnonzero(new)[np.cumsum(new) - 1]
    starts = np.flatnonzero(new | (within % DEAL_CELLS == 0))
    sizes, block = np.diff(np.append(starts, n)), np.zeros(n, dtype=np.int64)
    block[starts[1:]] = 1
    block = np.cumsum(block)
    columns = counts[order].tocsc()
    columns.sort_indices()
    for start, stop in zip(columns.indptr, columns.indptr[1:], strict=False):
        blocks, number = np.unique(block[columns.indices[start:stop]], return_counts=True)
        places = [starts[b] + rng.permutation(sizes[b])[:k] for b, k in zip(blocks, number, strict=True)]
        if places:
            columns.indices[start:stop] = np.concatenate(places)
    columns.has_sorted_indices = False
    dealt = sp.csr_matrix(columns.tocsr()[np.argsort(order)])
    dealt.sort_indices()
    return dealt
