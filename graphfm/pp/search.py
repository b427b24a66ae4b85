"""Nearest-neighbour search for :func:`scanpy.pp.neighbors`: exact while that is quick, approximate beyond."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

RECALL_CELLS = 200
EXACT_CELLS = 50_000
"""Exact search takes 6 s for 36,000 cells on one core, less than compiling the approximate one."""


def nearest(values: np.ndarray, n_neighbors: int, *, seed: int) -> np.ndarray:
    """Rows of the nearest neighbours by Euclidean distance, nearest first, the cell itself left out.

    Parameters
    ----------
    values
        ``[cells, components]``.
    n_neighbors
        Of each.
    seed
        Of the approximate search, beyond `EXACT_CELLS`.

    Returns
    -------
    int ``[cells, n_neighbors]``.
    """
    from sklearn.neighbors import NearestNeighbors

    if len(values) <= EXACT_CELLS:
        return NearestNeighbors(n_neighbors=n_neighbors).fit(values).kneighbors(return_distance=False)
    search = ApproximateNeighbors(n_neighbors=n_neighbors + 1, metric="euclidean", seed=seed)
    return search.fit_transform(values).indices.reshape(len(values), n_neighbors)


class ApproximateNeighbors:
    """Search by nearest-neighbour descent, in the form scanpy takes as ``transformer``.

    scanpy's own wrapper of pynndescent fails on its sparse arrays (scanpy 1.11 with pynndescent 0.6), and keeps one
    neighbour more than exact search does.

    Parameters
    ----------
    n_neighbors
        Neighbours of a cell, itself included.
    metric
        Distance, by pynndescent's names.
    seed
        Random state.

    References
    ----------
    Dong, Moses and Li 2011, doi:10.1145/1963405.1963487.
    """

    def __init__(self, *, n_neighbors: int, metric: str, seed: int) -> None:
        metric = "manhattan" if metric == "cityblock" else metric  # scikit-learn knows both names, pynndescent one
        self._params = {"n_neighbors": n_neighbors, "metric": metric, "random_state": seed}
        self.recall = float("nan")
        """Share of the true neighbours that were found, of `RECALL_CELLS` cells drawn at random."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by scikit-learn's names."""
        return dict(self._params)

    def fit_transform(self, values: Any) -> sp.csr_matrix:
        """Distances ``[n, n]`` with ``n_neighbors - 1`` entries a row, nearest first, the cell itself left out."""
        from pynndescent import NNDescent

        n, k = values.shape[0], self._params["n_neighbors"]
        # the effort that UMAP spends, but at most 32 trees: each holds 120 bytes a cell
        trees, iterations = min(32, 5 + round(n**0.5 / 20)), max(5, round(np.log2(n)))
        indices, distances = NNDescent(values, n_trees=trees, n_iters=iterations, **self._params).neighbor_graph
        if (indices < 0).any():
            missing = int((indices < 0).any(axis=1).sum())
            raise ValueError(
                f"{missing} cells have fewer than n_neighbors={k} that can be reached: many may be in one place, "
                "such as cells without counts. Remove those first."
            )
        # the cell itself goes to the end (of many in one place it may not even be found), and then off
        itself = indices == np.arange(n)[:, None]
        order = np.argsort(itself, axis=1, kind="stable")[:, : k - 1]
        columns, lengths = (np.take_along_axis(array, order, axis=1).ravel() for array in (indices, distances))
        self.recall = self._recall(values, columns.reshape(n, k - 1))
        pointer = np.arange(0, n * (k - 1) + 1, k - 1)
        return sp.csr_matrix((lengths, columns, pointer), shape=(n, n))

    def _recall(self, values: Any, found: np.ndarray) -> float:
        from sklearn.neighbors import NearestNeighbors

        n, k = found.shape
        asked = np.random.default_rng(self._params["random_state"]).choice(n, size=min(RECALL_CELLS, n), replace=False)
        search = NearestNeighbors(n_neighbors=k + 1, algorithm="brute", metric=self._params["metric"]).fit(values)
        itself_or_farthest = search.kneighbors(values[asked], return_distance=False)
        true = [
            [other for other in row if other != cell][:k] for row, cell in zip(itself_or_farthest, asked, strict=True)
        ]
        return float(np.mean([np.isin(row, found[cell]).mean() for row, cell in zip(true, asked, strict=True)]))
