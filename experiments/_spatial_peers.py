"""Domains of a tissue by others' methods, each ``method(slide, n_domains, seed) -> embedding, labels``.

``slide.X`` is sparse and holds counts or (``uns["is_raw_counts"]`` False) other values on a linear scale, such as
volume-normalised ones; ``obsm["spatial"]`` is in any unit. The embedding is float32 ``[cells, dimensions]``; labels
come from the clusterer that the method's authors use, told how many domains there are. Two take mclust, a program in R,
with its model EEE: :func:`mixture` is that model. `METHODS` treat all slides alike; `SPOTS` has what authors do
otherwise on Visium, whose spots are 100 micrometres apart. The packages: ``pip install "graphfm[bench]"``, of which
scikit-misc is for slides of more than 2000 genes.
"""

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from os import devnull

import numpy as np
import scanpy as sc
import torch
from anndata import AnnData
from sklearn.neighbors import NearestNeighbors
from torch.nn.functional import elu, mse_loss
from torch_geometric.utils import softmax

Method = Callable[[AnnData, int, int], tuple[np.ndarray, np.ndarray]]

NOVAE_CELLS = 256  # a batch of Novae's; with fewer cells it has none to train on
SPACING = {"cells": 20.0, "visium": 100.0}  # micrometres between neighbours


@contextmanager
def quiet(seed: int) -> Iterator[None]:
    """Nothing printed, no warnings, and the three generators that the packages draw from begin at `seed`."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    with open(devnull, "w") as nowhere, warnings.catch_warnings(), redirect_stdout(nowhere), redirect_stderr(nowhere):
        warnings.simplefilter("ignore")
        yield


def scaled(slide: AnnData, *, total: float | None = None, log: bool = True, genes: int | None = None) -> AnnData:
    """A copy with every cell's total scaled to `total` (None: the median), of at most `genes` variable genes.

    Chosen as in the third version of Seurat (doi:10.1016/j.cell.2019.05.031), which reads counts; of other values as in
    the first, which reads their logarithms. A panel of no more than `genes` is kept whole.
    """
    data = AnnData(slide.X.astype(np.float32), slide.obs[[]].copy(), slide.var[[]].copy())
    data.obsm["spatial"] = np.asarray(slide.obsm["spatial"], dtype=np.float64)
    keep = np.ones(data.n_vars, dtype=bool)
    few = genes is not None and genes < data.n_vars
    if few and slide.uns.get("is_raw_counts", True):
        table = sc.pp.highly_variable_genes(data, n_top_genes=genes, flavor="seurat_v3", inplace=False)
        keep = table["highly_variable"].to_numpy()
    sc.pp.normalize_total(data, target_sum=total)
    if few and keep.all():
        table = sc.pp.highly_variable_genes(sc.pp.log1p(data, copy=True), n_top_genes=genes, inplace=False)
        keep = table["highly_variable"].to_numpy()
    if log:
        sc.pp.log1p(data)
    return data[:, keep].copy()


def mixture(values: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Gaussians of one covariance, which is mclust's model EEE (doi:10.32614/RJ-2016-021), by scikit-learn.

    The best of ten starts; mclust begins with a hierarchical clustering instead, and so needs no seed.
    """
    from sklearn.mixture import GaussianMixture

    found = GaussianMixture(number, covariance_type="tied", n_init=10, random_state=seed)
    return found.fit_predict(np.asarray(values, dtype=np.float64))


def banksy(
    slide: AnnData, n_domains: int, seed: int, *, share: float = 0.8, neighbors: int = 15, order: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """BANKSY (doi:10.1038/s41588-024-01664-3), its package, as in its tutorial of STARmap.

    https://github.com/prabhakarlab/Banksy_py, ``starmap_analysis.ipynb``: totals scaled to the median and no
    logarithm; a `share` (lambda) of .8 for the neighbours' mean and, of `order` 1, gradient; 20 principal components.
    At most 2000 variable genes, as in its tutorials of sequenced tissue. Leiden at the resolution with which the
    package's search ends: steps of .05 from .6, at most 25, so that there may be more or fewer than `n_domains`.
    """
    with quiet(seed):
        from banksy.cluster_methods import run_Leiden_partition
        from banksy.embed_banksy import generate_banksy_matrix
        from banksy.initialize_banksy import initialize_banksy
        from banksy_utils.umap_pca import pca_umap

        data = scaled(slide, log=False, genes=2000)
        data.X = data.X.toarray()
        plots = dict.fromkeys(("plt_edge_hist", "plt_nbr_weights", "plt_agf_angles", "plt_theta"), False)
        state = initialize_banksy(data, ("x", "y", "spatial"), neighbors, max_m=order, **plots)
        generate_banksy_matrix(data, state, [share], order, verbose=False)
        size = min(20, (order + 2) * data.n_vars, data.n_obs - 1)
        pca_umap(state, pca_dims=[size], plt_remaining_var=False)
        embedding = state["scaled_gaussian"][share]["adata"].obsm[f"reduced_pc_{size}"]
        search = {"num_nn": min(50, data.n_obs - 1), "partition_seed": seed, "match_labels": False}
        table, _ = run_Leiden_partition(state, [], max_labels=n_domains, **search)
    return np.asarray(embedding, dtype=np.float32), np.asarray(table["labels"].iloc[0].dense, dtype=int)


def graphst(
    slide: AnnData, n_domains: int, seed: int, *, epochs: int = 600, smoothed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """GraphST (doi:10.1038/s41467-023-36796-3), its package with its defaults, on a CPU.

    https://deepst-tutorials.readthedocs.io: 3000 variable genes, totals of 10^4, logarithms divided by their standard
    deviation and cut at 10. The package clusters 20 principal components of the genes that it reconstructs; they are
    the embedding. It takes mclust, which needs R: :func:`mixture` is in its place. `smoothed`: a label becomes the most
    frequent one of so many nearest neighbours; 50 in the authors' tutorial of the cortex on Visium, none (the
    package's default) elsewhere. Its matrices are of cells by cells. That of three neighbours a cell is made sparse
    before training: the same result to 1e-6 in a fourth of the time.
    """
    with quiet(seed):
        from GraphST.GraphST import GraphST
        from GraphST.utils import refine_label
        from sklearn.decomposition import PCA

        data = scaled(slide, total=1e4, genes=3000)
        sc.pp.scale(data, zero_center=False, max_value=10)
        data.var["highly_variable"] = True  # or the package chooses, for which a small panel is too small
        model = GraphST(data, device=torch.device("cpu"), epochs=epochs, random_seed=seed)
        model.adj = model.adj.to_sparse()
        trained = model.train()
        size = min(20, *data.shape)
        embedding = PCA(size, random_state=42).fit_transform(trained.obsm["emb"]).astype(np.float32)
        labels = mixture(embedding, n_domains, seed)
        if smoothed:
            trained.obs["domain"] = labels
            labels = np.array(refine_label(trained, smoothed, key="domain"), dtype=int)
    return embedding, labels


class AttentionAutoencoder(torch.nn.Module):
    """STAGATE's network: genes -> 512 -> 30 -> 512 -> genes, the second half with the first one's weights transposed.

    Both layers of 512 average over neighbours, with one attention that the encoder's layer computes; the others see a
    spot alone. Edges run from ``source`` to ``target``, each node's own among them.
    """

    def __init__(self, num_genes: int, hidden: int = 512, size: int = 30):
        super().__init__()
        shapes = {"outer": (num_genes, hidden), "inner": (hidden, size), "sends": (hidden, 1), "hears": (hidden, 1)}
        for name, shape in shapes.items():
            setattr(self, name, torch.nn.Parameter(torch.nn.init.xavier_normal_(torch.empty(shape), gain=2**0.5)))

    def forward(self, genes: torch.Tensor, source: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The embedding ``[spots, size]`` and what it reconstructs ``[spots, num_genes]``."""
        first = genes @ self.outer
        score = torch.sigmoid((first @ self.sends)[source] + (first @ self.hears)[target])
        attention = softmax(score, target, num_nodes=len(genes))

        def averaged(values: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(values).index_add(0, target, attention * values.index_select(0, source))

        embedding = elu(averaged(first)) @ self.inner
        return embedding, elu(averaged(embedding @ self.inner.T)) @ self.outer.T


def within_reach(coordinates: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Sources and targets of the pairs closer than 1.1 times the median distance to the sixth nearest, and of loops.

    This is the first ring of a hexagonal lattice, and about seven neighbours elsewhere.
    """
    nearest = NearestNeighbors().fit(coordinates)
    sixth = nearest.kneighbors(n_neighbors=min(6, len(coordinates) - 1))[0][:, -1]
    pairs = nearest.radius_neighbors_graph(coordinates, radius=1.1 * np.median(sixth)).tocoo()
    return torch.from_numpy(pairs.col.astype(np.int64)), torch.from_numpy(pairs.row.astype(np.int64))


def stagate(slide: AnnData, n_domains: int, seed: int, *, epochs: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """STAGATE (doi:10.1038/s41467-022-29439-6), written anew: it is on no package index.

    https://stagate.readthedocs.io, tutorials 1 and 9: 3000 variable genes, totals of 10^4, logarithms; a radius set by
    hand (5.8 neighbours on Visium, 6.5 on STARmap), here by :func:`within_reach` (5.8, 6.8); no pre-clustering.
    Attention is the paper's, with a sigmoid; training that of the authors' program for PyTorch: mean squared error,
    Adam with a rate of 1e-3 and a decay of 1e-4, gradients of a norm of at most 5. They take mclust, which needs R:
    :func:`mixture` is in its place.
    """
    with quiet(seed):
        data = scaled(slide, total=1e4, genes=3000)
        genes, edges = torch.from_numpy(data.X.toarray()), within_reach(data.obsm["spatial"])
        model = AttentionAutoencoder(data.n_vars)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
        for _ in range(epochs):
            optimizer.zero_grad()
            mse_loss(model(genes, *edges)[1], genes).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
        with torch.no_grad():
            embedding = model(genes, *edges)[0].numpy()
        return embedding, mixture(embedding, n_domains, seed)


def novae(
    slide: AnnData, n_domains: int, seed: int, *, technology: str | None = None, epochs: int = 20
) -> tuple[np.ndarray, np.ndarray]:
    """Novae (doi:10.1038/s41592-025-02899-6), its package with its defaults, trained from scratch on the slide alone.

    https://prism-oncology.github.io/novae: totals scaled to the median, logarithms, its choice of genes, a Delaunay
    graph (``technology="visium"``: the six nearest). It reads the lengths of edges in micrometres: coordinates are
    scaled such that their median is 20, its distance between cells (Visium: 100). Its published weights are not used.
    Domains are a level of the tree of its prototypes; every prototype in use, if they are fewer than `n_domains`.
    Cells without neighbours, which it leaves out, get what the nearest cell has that it does not.
    """
    with quiet(seed):
        import novae as package

        data = scaled(slide)
        package.spatial_neighbors(data, technology=technology, verbose=False)
        unit = SPACING[technology or "cells"] / np.median(data.obsp["spatial_distances"].data)
        data.obsm["spatial"] *= unit
        data.obsp["spatial_distances"] *= unit
        # in the order of the slide: the package's own order of genes is another one in every process
        model = package.Novae(data, var_names=data.var_names.tolist())
        model.fit(max_epochs=epochs, enable_progress_bar=False, enable_model_summary=False)
        model.compute_representations()
        number = min(n_domains, data.obs["novae_leaves"].nunique())
        names = data.obs[model.assign_domains(n_domains=number)]
        known = np.flatnonzero(data.obs["neighborhood_valid"])
        place = NearestNeighbors(n_neighbors=1).fit(data.obsm["spatial"][known])
        taken = known[place.kneighbors(data.obsm["spatial"], return_distance=False)[:, 0]]
        taken[known] = known
    return data.obsm["novae_latent"][taken].astype(np.float32), np.unique(names.iloc[taken], return_inverse=True)[1]


METHODS: dict[str, Method] = {"banksy": banksy, "graphst": graphst, "stagate": stagate, "novae": novae}
SPOTS: dict[str, Method] = {
    # https://github.com/prabhakarlab/Banksy_py, DLPFC_concatenate_multisample.ipynb: the six nearest, no gradient
    "banksy": partial(banksy, share=0.2, neighbors=6, order=0),
    "graphst": partial(graphst, smoothed=50),
    "novae": partial(novae, technology="visium"),
}
NEEDS = {"banksy": "banksy", "graphst": "GraphST", "novae": "novae"}
