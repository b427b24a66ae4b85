"""The labelled slides of Table 5, and what simple recipes make of them."""

from collections.abc import Callable
from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from scipy.sparse.linalg import svds
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors

from graphfm import datasets, io, pp, tl
from graphfm.genes import align_what_is_known
from graphfm.models import GraphFM
from graphfm.tl.slices import neighborhood_mean, slice_components, tissue_neighbors

COMPONENTS, NEIGHBORS = 15, 18
UNKNOWN = ("NA", "Excluded", "undetermined")
Embedding = Callable[[AnnData, int], np.ndarray]


@dataclass(frozen=True)
class Slide:
    """A slide with known domains: one patient's, or section, if the data set has several."""

    dataset: str
    label: str
    tissue: str
    section: str | None = None
    cell_type: str | None = None
    visium: bool = False
    impute: bool = False


DLPFC = {"label": "layer", "tissue": "dlpfc", "visium": True, "impute": True}
HER2 = {"dataset": "her2st_labelled8", "label": "region", "tissue": "her2", "impute": True}
STARMAP = {"label": "domain", "cell_type": "cell_type"}
SLIDES: dict[str, Slide] = {
    **{name: Slide(name, **DLPFC) for name in ("dlpfc_151673", "dlpfc_151674", "dlpfc_151675")},
    "osmfish_ssctx": Slide("osmfish_ssctx", "region", "osmfish", cell_type="cell_type"),
    "starmap_v1_1k": Slide("starmap_v1_1k", tissue="starmap_v1", impute=True, **STARMAP),
    **{name: Slide(name, tissue="mpfc", **STARMAP) for name in ("starmap_mpfc_BZ5", "starmap_mpfc_BZ9")},
    **{f"her2st_{patient}": Slide(section=patient, **HER2) for patient in "ABCDEFGH"},
    "toy": Slide("toy", "domain", "toy", section="slide_0", cell_type="cell_type", impute=True),
}
TISSUES = ("dlpfc", "mpfc", "her2", "toy")  # with several slides


def load(name: str) -> AnnData:
    """A slide's labelled cells: ``obs["domain"]``, ``obs["slide"]``, perhaps ``obs["cell_type"]``, coordinates."""
    slide = SLIDES[name]
    adata = datasets.toy(800, 600, num_tfs=40, seed=0) if name == "toy" else datasets.load(slide.dataset)
    if slide.section:
        key = "slide" if name == "toy" else "patient"
        adata = adata[(adata.obs[key].astype(str) == slide.section).to_numpy()]
    known = adata.obs[slide.label].notna() & ~adata.obs[slide.label].astype(str).isin(UNKNOWN)
    adata = adata[known.to_numpy()].copy()
    columns = {"domain": adata.obs[slide.label].astype(str), "slide": name}
    if slide.cell_type:
        columns["cell_type"] = adata.obs[slide.cell_type].astype(str)
    result = AnnData(sp.csr_matrix(adata.X), pd.DataFrame(columns, index=adata.obs_names), adata.var[[]])
    result.obsm["spatial"] = np.asarray(adata.obsm["spatial"], dtype=np.float64)
    result.uns["is_raw_counts"] = bool(adata.uns.get("is_raw_counts", True))
    return result


def load_tissue(tissue: str) -> AnnData:
    """All slides of a tissue, with the genes that all have."""
    if tissue == "toy":
        adata = datasets.toy(800, 600, num_tfs=40, seed=0)
        return AnnData(adata.X, adata.obs[["domain", "slide"]], adata.var[[]], obsm={"spatial": adata.obsm["spatial"]})
    parts = {name: load(name) for name, slide in SLIDES.items() if slide.tissue == tissue}
    return ad.concat(parts, index_unique="-", join="inner")


def kind(adata: AnnData) -> str:
    """What the matrix holds, as for `graphfm.io.expression`."""
    return "counts" if adata.uns.get("is_raw_counts", True) else "normalized"


def components(adata: AnnData, seed: int) -> np.ndarray:
    """15 principal components of genes that are standardised slide by slide."""
    slides = np.unique(adata.obs["slide"].astype(str), return_inverse=True)[1]
    return slice_components(io.expression(adata, kind=kind(adata)), slides, COMPONENTS, seed)


def surroundings(adata: AnnData, seed: int) -> np.ndarray:
    """The components, averaged over a cell and its 18 nearest of the slide: the one recipe for all."""
    return neighborhood_mean(components(adata, seed), tissue_neighbors(adata, "slide", "spatial", NEIGHBORS))


def tissue_embedding(adata: AnnData, seed: int) -> np.ndarray:
    """`graphfm.tl.align_slices`."""
    tl.align_slices(adata, library_key="slide", kind=kind(adata), seed=seed)
    return adata.obsm["X_tissue"]


def trunk_embedding(adata: AnnData, seed: int) -> np.ndarray:
    """`graphfm.tl.embed` with the package's weights, over the cells that look alike and those that touch."""
    return embedded(adata, seed, GraphFM.from_pretrained())


def untrained_embedding(adata: AnnData, seed: int) -> np.ndarray:
    """The same with weights as they are before training, new ones a seed."""
    return embedded(adata, seed, tl.new_model("small", seed=seed).eval())


def embedded(adata: AnnData, seed: int, model: GraphFM) -> np.ndarray:
    """What users get."""
    pp.knn_graph(adata, kind=kind(adata), seed=seed)
    pp.spatial_graph(adata, library_key="slide")
    tl.embed(adata, model, kind=kind(adata))
    return adata.obsm["X_graphfm"]


EMBEDDINGS: dict[str, Embedding] = {
    "pca": components,
    "neighbor_mean": surroundings,
    "graphfm:random": untrained_embedding,
    "graphfm:trunk": trunk_embedding,
    "graphfm": tissue_embedding,
}


def linear_zero_shot(name: str, adata: AnnData, seed: int, cells: int = 1000) -> np.ndarray | None:
    """Components of the slides of all other tissues, put on this slide's standardised genes and averaged over 18.

    Genes that another slide lacks count as at their mean there. None where the others hold fewer than 20 of the genes.
    """
    rng = np.random.default_rng(seed)
    genes = known_genes(adata)
    blocks, seen = [], np.zeros(adata.n_vars, dtype=bool)
    for other, slide in SLIDES.items():
        if slide.tissue in (SLIDES[name].tissue, "toy"):
            continue
        foreign = load(other)
        foreign = foreign[np.sort(rng.permutation(foreign.n_obs)[:cells])]
        there = known_genes(foreign)
        shared = [gene for gene in genes if gene in there]
        here, place = [genes[gene] for gene in shared], [there[gene] for gene in shared]
        block = np.zeros((foreign.n_obs, adata.n_vars), dtype=np.float32)
        block[:, here] = standardized(io.expression(foreign, kind=kind(foreign))[:, place])
        blocks.append(block)
        seen[here] = True
    if seen.sum() < 20:
        return None
    stacked = np.vstack(blocks)[:, seen]
    loadings = svds(stacked, k=COMPONENTS, v0=rng.standard_normal(min(stacked.shape)))[2]
    own = standardized(io.expression(adata, kind=kind(adata))[:, np.flatnonzero(seen)]) @ loadings.T
    return neighborhood_mean(own.astype(np.float64), tissue_neighbors(adata, "slide", "spatial", NEIGHBORS))


def known_genes(adata: AnnData) -> dict[int, int]:
    """Where each gene of the vocabulary, which has human's and mouse's in one row, is among the slide's."""
    known = adata.copy()
    align_what_is_known(known)
    rows = known.var["graphfm_gene"].to_numpy()
    return {int(row): place for place, row in enumerate(rows) if row >= 0}


def standardized(logged: sp.csr_matrix) -> np.ndarray:
    """Genes of mean 0 and variance 1, dense: for a thousand cells, or one slide."""
    values = logged.toarray()
    spread = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def annotated_kmeans(adata: AnnData, number: int, seed: int) -> np.ndarray:
    """k-means of the shares of labelled cell types among a cell and its 18 nearest."""
    types = pd.get_dummies(adata.obs["cell_type"]).to_numpy(dtype=np.float64)
    shares = neighborhood_mean(types, tissue_neighbors(adata, "slide", "spatial", NEIGHBORS))
    return KMeans(number, n_init=10, random_state=seed).fit_predict(shares)


def hidden_genes(adata: AnnData, seed: int, most: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Half of the cells, and a fifth of the genes (at most 200) that 5 % of all cells have, which they shall lack."""
    rng = np.random.default_rng(seed)
    candidates = np.flatnonzero(np.asarray((adata.X > 0).mean(axis=0)).ravel() >= 0.05)
    genes = np.sort(rng.choice(candidates, min(most, len(candidates) // 5), replace=False))
    return rng.permutation(adata.n_obs) < adata.n_obs // 2, genes


def measured_genes(adata: AnnData, genes: np.ndarray) -> np.ndarray:
    """``[cells, genes]`` of totals of 10^4, as `tl.impute` predicts."""
    return io.expression(adata, kind=kind(adata), target_sum=1e4)[:, genes].toarray()


def imputed(method: str, adata: AnnData, cells: np.ndarray, genes: np.ndarray, seed: int) -> np.ndarray:
    """``[cells, genes]`` log-normalised expression of what the cells lack, by a method."""
    known = measured_genes(adata[~cells], genes)
    left = np.setdiff1d(np.arange(adata.n_vars), genes)
    if method == "gene_mean":
        return np.tile(known.mean(axis=0), (int(cells.sum()), 1))
    if method in ("knn_15", "knn_50"):
        values = components(adata[:, left].copy(), seed)
        return known[_nearest(values[~cells], values[cells], int(method.removeprefix("knn_")))].mean(axis=1)
    if method == "neighbor_mean":
        xy = adata.obsm["spatial"]
        return known[_nearest(xy[~cells], xy[cells], NEIGHBORS)].mean(axis=1)
    panel, names = adata[cells][:, left].copy(), list(adata.var_names[genes])
    tl.impute(panel, adata[~cells].copy(), genes=names, library_key="slide", kind=kind(adata), seed=seed)
    return panel.obsm["imputed"]


def _nearest(known: np.ndarray, asked: np.ndarray, number: int) -> np.ndarray:
    return NearestNeighbors(n_neighbors=min(number, len(known))).fit(known).kneighbors(asked, return_distance=False)
