"""Rare populations by others' methods, each ``method(adata, seed, kind) -> calls``.

``adata.X`` is csr and ``kind`` what it holds, as for :func:`graphfm.io.expression`. Calls have a row a cell:
``population`` names the rare population that a cell was called to be of, None if of none; ``score`` is the higher the
rarer. No method is told how many cells are rare.
"""

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial

import networkx as nx
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData

from graphfm.data.cell_groups import largest_rare
from graphfm.io import counts, expression
from graphfm.tl.rare import MAX_FRACTION

Method = Callable[[AnnData, int, str], pd.DataFrame]

RESOLUTIONS = (0.5, 1, 2, 4)
BUCKETS = 1_017_881


def calls(cells: pd.Index, called: np.ndarray, names: np.ndarray | str, score: np.ndarray) -> pd.DataFrame:
    """The cells that were called, under their populations' names."""
    population = np.where(called, np.asarray(names, dtype=object), None)
    return pd.DataFrame({"population": population, "score": np.asarray(score, dtype=np.float64)}, index=cells)


def small_clusters(cells: pd.Index, labels: np.ndarray) -> pd.DataFrame:
    """Clusters of at most 10 % of the cells are populations; the score is minus the log share of the cell's cluster."""
    size = np.bincount(labels)[labels]
    return calls(
        cells, size <= largest_rare(len(labels), MAX_FRACTION), labels.astype(str), -np.log(size / len(labels))
    )


def log_normalized(adata: AnnData, kind: str) -> AnnData:
    """``log1p`` of counts scaled to the median total, genes of fewer than three cells left out: where recipes start."""
    if kind == "counts":
        data = AnnData(counts(adata))
        sc.pp.normalize_total(data)
        sc.pp.log1p(data)
    else:
        data = AnnData(expression(adata, kind=kind))
    sc.pp.filter_genes(data, min_cells=3)
    return data


def variable(data: AnnData, number: int) -> np.ndarray:
    """Whether a gene is among the most variable; all are where there are no more than `number`."""
    if data.n_vars <= number:
        return np.ones(data.n_vars, dtype=bool)
    return sc.pp.highly_variable_genes(data, n_top_genes=number, inplace=False)["highly_variable"].to_numpy()


def principal(data: AnnData, seed: int) -> AnnData:
    """50 principal components, fewer where there are fewer cells or genes."""
    sc.pp.pca(data, n_comps=min(50, min(data.shape) - 1), random_state=seed)
    return data


def recipe(adata: AnnData, seed: int, kind: str) -> AnnData:
    """scanpy's: 50 principal components of the 2000 most variable genes."""
    data = log_normalized(adata, kind)
    return principal(data[:, variable(data, 2000)].copy(), seed)


def communities(data: AnnData, seed: int, *, neighbors: int, resolution: float, use_rep: str) -> np.ndarray:
    """Leiden clusters (doi:10.1038/s41598-019-41695-z) of the graph of nearest neighbours."""
    sc.pp.neighbors(data, n_neighbors=min(neighbors, data.n_obs - 1), use_rep=use_rep, random_state=seed)
    sc.tl.leiden(data, resolution, flavor="igraph", n_iterations=2, directed=False, random_state=seed)
    return data.obs["leiden"].astype(int).to_numpy()


def leiden(adata: AnnData, seed: int, kind: str, *, resolution: float) -> pd.DataFrame:
    """scanpy's recipe (doi:10.1186/s13059-017-1382-0) with 15 neighbours and a resolution of a grid fixed beforehand.

    Called: clusters of at most 10 % of the cells.
    """
    labels = communities(recipe(adata, seed, kind), seed, neighbors=15, resolution=resolution, use_rep="X_pca")
    return small_clusters(adata.obs_names, labels)


def isolation_forest(adata: AnnData, seed: int, kind: str) -> pd.DataFrame:
    """Isolation forest (doi:10.1109/ICDM.2008.17) on 50 principal components, scikit-learn's defaults.

    Called, as one population: what it predicts to be outliers (``contamination="auto"``).
    """
    from sklearn.ensemble import IsolationForest

    points = recipe(adata, seed, kind).obsm["X_pca"]
    forest = IsolationForest(random_state=seed).fit(points)
    return calls(adata.obs_names, forest.predict(points) == -1, "outlier", -forest.score_samples(points))


def local_outlier_factor(adata: AnnData, seed: int, kind: str) -> pd.DataFrame:
    """Local outlier factor (doi:10.1145/335191.335388) on 50 principal components, scikit-learn's defaults.

    Called, as one population: what it predicts to be outliers (``contamination="auto"``).
    """
    from sklearn.neighbors import LocalOutlierFactor

    points = recipe(adata, seed, kind).obsm["X_pca"]
    factor = LocalOutlierFactor(n_neighbors=min(20, len(points) - 1))
    called = factor.fit_predict(points) == -1
    return calls(adata.obs_names, called, "outlier", -factor.negative_outlier_factor_)


def fire(adata: AnnData, seed: int, kind: str) -> pd.DataFrame:
    """FiRE (doi:10.1038/s41467-018-07234-6), written anew: 100 sketches of 50 genes each, 1,017,881 buckets.

    Of counts it takes genes with more than two in more than three cells, scales them, and keeps the 1000 of largest
    dispersion among genes of similar mean; the base of the logarithm changes no sketch. Called, as one population:
    scores more than 1.5 interquartile ranges above the third quartile. Needs a dense matrix of the 1000 genes.
    """
    if kind == "counts":
        often = (counts(adata) > 2).getnnz(axis=0) > 3
        adata = adata[:, often] if often.any() else adata
    data = log_normalized(adata, kind)
    if data.n_vars > 1000:
        # this flavour bins genes by quantiles of their means, and takes values that are not logged
        scaled = AnnData(data.X.expm1())
        table = sc.pp.highly_variable_genes(scaled, n_top_genes=1000, flavor="cell_ranger", inplace=False)
        data = data[:, table["highly_variable"].to_numpy()]
    values = data.X.toarray()
    score = rareness(values, *sketches(values, seed))
    low, high = np.quantile(score, [0.25, 0.75])
    return calls(adata.obs_names, score > high + 1.5 * (high - low), "rare", score)


def sketches(values: np.ndarray, seed: int, *, estimators: int = 100, genes: int = 50) -> tuple[np.ndarray, ...]:
    """Genes, thresholds and weights of FiRE's hash functions, each ``[estimators, genes]``.

    Thresholds lie between the least and the largest value of the whole matrix, as in the authors' program. Between
    those of each gene, nothing would be called in the authors' own data.
    """
    rng, shape = np.random.default_rng(seed), (estimators, genes)
    gene = rng.integers(values.shape[1], size=shape)
    return gene, rng.uniform(values.min(), values.max(), shape), rng.integers(BUCKETS, size=shape)


def rareness(values: np.ndarray, genes: np.ndarray, thresholds: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """FiRE's score ``[cells]``: ``-2 sum log`` of the shares of cells that fall into the cell's buckets."""
    score = np.zeros(len(values))
    for gene, threshold, weight in zip(genes, thresholds, weights, strict=True):
        bucket = (values[:, gene] > threshold) @ weight % BUCKETS
        _, place, size = np.unique(bucket, return_inverse=True, return_counts=True)
        score -= 2 * np.log(size[place] / len(values))
    return score


def giniclust3(adata: AnnData, seed: int, kind: str) -> pd.DataFrame:
    """GiniClust3 (doi:10.1186/s12859-020-3482-1) by its package with its defaults, clusters by scanpy to have a seed.

    Cells are clustered by genes of large Gini index (p < 1e-4, index from .6 on) and by variable genes; the consensus
    trusts the former on clusters below 0.8 % of the cells. Called: its clusters of at most 10 %; nothing where fewer
    than two Gini genes are found, which ends the package. Needs a dense matrix of all genes.
    """
    from sklearn.cluster import KMeans

    # the package prints, exits, and silences all warnings for good when imported
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        from giniclust3 import consensus, fano, gini

        data = AnnData(expression(adata, kind=kind, target_sum=1e4).expm1().toarray())
        sc.pp.filter_genes(data, min_cells=3)
        try:
            gini.calGini(data)
        except SystemExit:
            nothing = np.zeros(adata.n_obs, dtype=bool)
            return calls(adata.obs_names, nothing, "", nothing)
        skewed = AnnData(gini.arctanTransform(data[:, data.var["gini"]].X))
        by_gini = communities(skewed, seed, neighbors=5, resolution=0.1, use_rep="X")
        fano.calFano(data)  # takes the logarithm in place
        spread = data[:, data.var["highly_variable"]].copy()
        sc.pp.scale(spread)
        by_fano = communities(principal(spread, seed), seed, neighbors=15, resolution=0.1, use_rep="X_pca")
        both = {"giniCluster": by_gini, "fanoCluster": by_fano}
        consensus.generateMtilde(both)
        number = consensus.determinK(both["giniCellDict"], both["fanoCellDict"])
    # a row of Mtilde is a pair of clusters that share cells
    pairs = pd.MultiIndex.from_arrays([both["giniIndex"], both["fanoIndex"]])
    means = KMeans(min(number, len(pairs)), n_init=100, random_state=seed).fit(both["Mtilde"])
    place = pairs.get_indexer(pd.MultiIndex.from_arrays([both["overlap"], by_fano]))
    return small_clusters(adata.obs_names, means.labels_[place])


def sccad(
    adata: AnnData,
    seed: int,
    kind: str,
    *,
    merge_h: float = 0.3,
    overlap_h: float = 0.7,
    rare_h: float = 0.01,
    trees: int = 1000,
) -> pd.DataFrame:
    """scCAD (doi:10.1038/s41467-024-51891-9) with its defaults, written anew: it is a script and no package.

    Clusters are decomposed until they are smaller than ``rare_h`` of the cells (or 30), and ``merge_h`` of them merged
    again. Called: clusters from 10 cells on, of whose cells a share ``overlap_h`` are among the most isolated in the
    cluster's own genes; while there is none, ``rare_h`` grows to 6 %. The score is this share, 0 for other clusters.
    Louvain is networkx's; with that of python-louvain the calls on FiRE's cells are those of the script, seed by seed.
    """
    data = log_normalized(adata, kind)
    values = data.X[:, informative(data, seed, trees)]
    start = louvain(values, seed)
    while True:
        largest = max(int(rare_h * data.n_obs), 30)
        labels = merged(values, labelled(decomposed(values, start, largest, seed)), merge_h)
        size = np.bincount(labels)
        share = np.zeros(len(size))
        for i in np.flatnonzero((size >= 10) & (size <= min(largest, data.n_obs - 1))):
            share[i] = isolated(values, labels == i, seed)
        if (share >= overlap_h).any() or rare_h > 0.05:
            break
        rare_h = max(rare_h, 30 / data.n_obs) + 0.01
    score = share[labels]
    return calls(adata.obs_names, score >= overlap_h, labels.astype(str), score)


def informative(data: AnnData, seed: int, trees: int) -> np.ndarray:
    """Whether a gene is among the 2000 most variable, or the 2000 that tell clusters apart best in a random forest."""
    from sklearn.ensemble import RandomForestClassifier

    chosen = variable(data, 2000)
    if not chosen.all():
        forest = RandomForestClassifier(trees, bootstrap=False, random_state=seed)
        forest.fit(data.X, labelled(louvain(data.X, seed)))
        chosen[np.argsort(-forest.feature_importances_, kind="stable")[:2000]] = True
    return chosen


def louvain(values: sp.csr_matrix, seed: int) -> list[np.ndarray]:
    """The cells of each Louvain cluster (doi:10.1088/1742-5468/2008/10/P10008): 15 neighbours, 40 components."""
    from sklearn.decomposition import PCA
    from sklearn.neighbors import kneighbors_graph

    components = PCA(min(40, min(values.shape) - 1), svd_solver="arpack", random_state=seed)
    points = components.fit_transform(values)
    near = kneighbors_graph(points, min(15, len(points) - 1))
    graph = nx.from_scipy_sparse_array(near.maximum(near.T))
    return [np.array(sorted(part)) for part in nx.community.louvain_communities(graph, seed=seed)]


def labelled(parts: list[np.ndarray]) -> np.ndarray:
    """Which part a cell is in."""
    return np.repeat(np.arange(len(parts)), [len(part) for part in parts])[np.argsort(np.concatenate(parts))]


def decomposed(values: sp.csr_matrix, parts: list[np.ndarray], largest: int, seed: int) -> list[np.ndarray]:
    """Parts of the parts, each smaller than `largest` or left whole by Louvain."""
    pending, done = list(parts), []
    while pending:
        cells = pending.pop()
        smaller = louvain(values[cells], seed) if len(cells) >= largest else []
        if len(smaller) > 1:
            pending += [cells[part] for part in smaller]
        else:
            done.append(cells)
    return done


def merged(values: sp.csr_matrix, labels: np.ndarray, share: float) -> np.ndarray:
    """The two clusters with the closest centres made one, as many times as `share` of the number of clusters."""
    from scipy.spatial.distance import pdist, squareform

    size = np.bincount(labels).astype(np.float64)
    mean = sp.csr_matrix((1 / size[labels], (labels, np.arange(len(labels)))))
    distance = squareform(pdist((mean @ values).toarray(), "sqeuclidean"))
    np.fill_diagonal(distance, np.inf)
    label = np.arange(len(size))
    for _ in range(int(share * len(size))):
        a, b = np.unravel_index(distance.argmin(), distance.shape)
        w = size[a] / (size[a] + size[b])
        # Lance and Williams: squared distances to the mean of two centres, without the centres
        moved = w * distance[a] + (1 - w) * distance[b] - w * (1 - w) * distance[a, b]
        moved[a] = np.inf
        distance[a], distance[:, a], distance[b], distance[:, b] = moved, moved, np.inf, np.inf
        size[a] += size[b]
        label[label == b] = a
    return np.unique(label[labels], return_inverse=True)[1]


def isolated(values: sp.csr_matrix, inside: np.ndarray, seed: int) -> float:
    """Share of a cluster's cells among the as many most isolated in the 20 genes whose medians differ most."""
    from sklearn.ensemble import IsolationForest

    seen, elsewhere = values[inside].getnnz(axis=0), values[~inside].getnnz(axis=0)
    # the medians of all other genes are 0 on both sides, so that these few may be dense
    known = (seen > 0) & ((2 * seen >= inside.sum()) | (2 * elsewhere >= (~inside).sum()))
    table = values[:, known].toarray()
    difference = np.abs(np.median(table[inside], axis=0) - np.median(table[~inside], axis=0))
    best = np.argsort(-difference, kind="stable")[:20]
    best = best[difference[best] > 0]
    if not len(best):
        return 0.0
    score = IsolationForest(random_state=seed).fit(table[:, best]).score_samples(table[:, best])
    return float(inside[np.argsort(score, kind="stable")[: inside.sum()]].mean())


METHODS: dict[str, Method] = {
    "fire": fire,
    **{f"leiden_{resolution:g}": partial(leiden, resolution=resolution) for resolution in RESOLUTIONS},
    "sccad": sccad,
    "giniclust3": giniclust3,
    "isolation_forest": isolation_forest,
    "local_outlier_factor": local_outlier_factor,
}
STOCHASTIC = tuple(name for name in METHODS if name != "local_outlier_factor")
SLOW = ("sccad", "giniclust3")
NEEDS = {"giniclust3": "giniclust3"}
