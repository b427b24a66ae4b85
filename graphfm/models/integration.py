"""Batches brought together: cells of one kind meet across batches, and what keeps them apart is smooth within each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, cg

from graphfm.data.cell_groups import knn_matrix

N_NEIGHBORS = 15
"""Of a cell within its batch, and in each other one."""
WEAKEST = 0.3
"""Share of the pairs that are left out: those that the fewest neighbours speak for."""
SMOOTHNESS, TOGETHER, RIDGE = 10.0, 0.3, 0.01
"""Against the weight of pairs: that of neighbours in a batch, of the batch as a whole, and of staying in place."""
ROUNDS = 2
"""Pairs are looked for again where the first ones have put the cells."""
MAX_CELLS, FOLLOWED = 50_000, 5
SUPPORT_CHUNK = 1000
"""Cells that are paired at most; the others move as these nearest of them do."""


@dataclass(frozen=True)
class Integration:
    """Cells of all batches in one space."""

    values: np.ndarray
    """``[cells, components]``."""
    paired: np.ndarray
    """``[cells]`` bool, whether a cell of another batch is its counterpart."""


def integrate_components(values: np.ndarray, batches: np.ndarray, *, seed: int = 0) -> Integration:
    r"""Move cells so that counterparts in different batches meet.

    Counterparts are cells of two batches that have each other among their 15 nearest of the other batch, by the angle
    between them (mutual nearest neighbours). A pair weighs as much as there are pairs between the neighbours of its
    cells, and the weakest three tenths are left out. How far a cell moves, :math:`d_i`, is then a field over the graph:
    pairs :math:`A` are to meet, neighbours within a batch :math:`W` are to move alike, a cell does not leave its batch
    without need, and no batch moves without need,

    .. math:: \min_d \tfrac12 \sum_{ij} A_{ij} |x_i + d_i - x_j - d_j|^2
              + \tfrac{\alpha}{2} \sum_{ij} W_{ij} |d_i - d_j|^2
              + \beta \sum_i |d_i - \bar d_{b(i)}|^2 + \varepsilon \sum_i |d_i|^2,

    with the batches' means :math:`\bar d_b`: one sparse linear system,
    :math:`(L_A + \alpha L_W + \beta (I - P) + \varepsilon I) d = -L_A x`, with the graphs' Laplacians and the
    projection :math:`P` on these means. There is no order of batches and no reference among them. A type that one
    batch alone has moves with its batch, though not quite untouched by what looks most like it elsewhere.

    Parameters
    ----------
    values
        ``[cells, components]``, centred, such as principal components.
    batches
        ``[cells]``, numbers from 0.
    seed
        Of the cells that are paired, where there are more than 50,000.

    Returns
    -------
    Integration

    References
    ----------
    Haghverdi et al. 2018, doi:10.1038/nbt.4091 (mutual nearest neighbours).
    """
    drawn = _draw(batches, seed)
    x, batch = values[drawn].astype(np.float64), batches[drawn]
    within = _scaled(_neighbors(_directions(x), batch))
    system = SMOOTHNESS * _laplacian(within) + (TOGETHER + RIDGE) * sp.identity(len(x))
    moved, paired = np.zeros_like(x), np.zeros(len(x), dtype=bool)
    for _ in range(ROUNDS):
        pairs = supported_pairs(x + moved, batch, within)
        paired |= pairs.getnnz(axis=1) > 0
        pull = _laplacian(_scaled(pairs))
        moved = _solve(sp.csr_matrix(system + pull), batch, -(pull @ x), moved)
    everywhere, counterpart = np.empty(values.shape), np.zeros(len(values), dtype=bool)
    everywhere[drawn], counterpart[drawn] = moved, paired
    others = np.setdiff1d(np.arange(len(values)), drawn)
    for number in np.unique(batches[others]):
        cells, near = others[batches[others] == number], batch == number
        nearest = _nearest(x[near], values[cells], min(FOLLOWED, int(near.sum())))
        everywhere[cells] = moved[near][nearest].mean(axis=1)
        counterpart[cells] = paired[near][nearest[:, 0]]
    return Integration(values=values + everywhere, paired=counterpart)


def supported_pairs(values: np.ndarray, batches: np.ndarray, within: sp.csr_matrix) -> sp.csr_matrix:
    """Counterparts across batches, symmetric ``[cells, cells]``, weighed by the pairs around them.

    Parameters
    ----------
    values
        ``[cells, components]``.
    batches
        ``[cells]``, numbers from 0.
    within
        Normalised graph within batches, ``[cells, cells]``.
    """
    directions, n = _directions(values), len(values)
    found = sp.csr_matrix((n, n))
    for number in np.unique(batches):
        cells, others = np.flatnonzero(batches == number), np.flatnonzero(batches != number)
        nearest = cells[_nearest(directions[cells], directions[others], min(N_NEIGHBORS, len(cells)))]
        rows = sp.csr_matrix((np.ones(len(others)), (others, np.arange(len(others)))), shape=(n, len(others)))
        found = found + rows @ knn_matrix(nearest, n)
    mutual = sp.csr_matrix(found.multiply(found.T))
    around = within + sp.identity(n)
    there = sp.csr_matrix(mutual > 0)  # a few rows at a time: the product has far more entries than pairs
    chunks = [slice(start, start + SUPPORT_CHUNK) for start in range(0, n, SUPPORT_CHUNK)]
    back = sp.csr_matrix(around.T)
    support = sp.vstack([(around[rows] @ mutual @ back).multiply(there[rows]) for rows in chunks], format="csr")
    support = sp.csr_matrix((support + support.T) / 2)  # the two sums of a pair differ by rounding
    if support.nnz:
        support.data[support.data < np.quantile(support.data, WEAKEST)] = 0
        support.eliminate_zeros()
    return support


def _draw(batches: np.ndarray, seed: int) -> np.ndarray:
    """Places of the cells that are paired, in order: all, or as many of every batch as there is room for."""
    if len(batches) <= MAX_CELLS:
        return np.arange(len(batches))
    order = np.random.default_rng(seed).permutation(len(batches))
    sizes, share = np.sort(np.bincount(batches)), 0
    for place, size in enumerate(sizes):  # small batches leave room to large ones
        share = (MAX_CELLS - int(sizes[:place].sum())) // (len(sizes) - place)
        if size > share:
            break
    return np.sort(np.concatenate([order[batches[order] == b][:share] for b in range(len(sizes))]))


def _directions(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def _nearest(values: np.ndarray, asked: np.ndarray, k: int) -> np.ndarray:
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=k).fit(values).kneighbors(asked, return_distance=False)


def _neighbors(values: np.ndarray, batches: np.ndarray) -> sp.csr_matrix:
    """Symmetric graph of nearest neighbours within batches."""
    from sklearn.neighbors import NearestNeighbors

    order, blocks = np.argsort(batches, kind="stable"), []
    for number in np.unique(batches):
        cells = np.flatnonzero(batches == number)
        k = min(N_NEIGHBORS, len(cells) - 1)
        if k:
            nearest = NearestNeighbors(n_neighbors=k).fit(values[cells]).kneighbors(return_distance=False)
        blocks.append(knn_matrix(nearest) if k else sp.csr_matrix((1, 1)))
    back = np.argsort(order)
    graph = sp.block_diag(blocks, format="csr")[back][:, back]
    return sp.csr_matrix(graph.maximum(graph.T))


def _scaled(graph: sp.csr_matrix) -> sp.csr_matrix:
    """Symmetrically normalised: no cell weighs more than 1 in all, however many neighbours it has."""
    degree = np.asarray(graph.sum(axis=1)).ravel()
    root = sp.diags_array(1 / np.sqrt(np.maximum(degree, 1e-12)) * (degree > 0))
    return sp.csr_matrix(root @ graph @ root)


def _laplacian(graph: sp.csr_matrix) -> sp.csr_matrix:
    return sp.csr_matrix(sp.diags_array(np.asarray(graph.sum(axis=1)).ravel()) - graph)


def _solve(system: sp.csr_matrix, batches: np.ndarray, right: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Solution for every column by conjugate gradients, of the system less what the batches' means are free of."""
    sizes = np.maximum(np.bincount(batches), 1)

    def times(column: np.ndarray) -> np.ndarray:
        means = np.bincount(batches, weights=column.ravel()) / sizes
        return system @ column.ravel() - TOGETHER * means[batches]

    operator = LinearOperator(system.shape, matvec=times, dtype=np.float64)
    inverse = sp.diags_array(1 / system.diagonal())
    columns = [
        cg(operator, column, x0=first, rtol=1e-8, atol=1e-10, maxiter=2000, M=inverse)[0]
        for column, first in zip(right.T, start.T, strict=True)
    ]
    return np.column_stack(columns)
