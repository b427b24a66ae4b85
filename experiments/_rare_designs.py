"""Data of Table 4: a type made rarer and rarer among abundant ones, types that are rare by nature, simulated tissue."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from anndata import AnnData

from graphfm import datasets
from graphfm.data.cell_groups import deal_within, largest_rare
from graphfm.tl.rare import MAX_FRACTION

PREVALENCES = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0)
NUM_TOY = 3000


@dataclass(frozen=True)
class Made:
    """An abundant type of a labelled data set, of which few cells are kept, among types that are all abundant.

    Types that are rare by the rule leave the background: whatever is called where no cell of `rare` is left is no
    labelled type. That an unlabelled one is among it cannot be excluded; so there is also a background whose genes were
    dealt among the cells of each type (``dealt``), in which nothing can be rare.
    """

    dataset: str
    column: str
    rare: str
    batch_key: str | None = None
    most: int | None = None
    kept: Callable[[AnnData], np.ndarray] = field(default=lambda adata: np.ones(adata.n_obs, dtype=bool))

    def draw(self, prevalence: float, seed: int, *, dealt: bool = False) -> tuple[AnnData, np.ndarray]:
        """Cells, and which are rare; where a prevalence needs more rare cells than there are, a smaller background."""
        adata, rng = load(self.dataset), np.random.default_rng(seed)
        labels = np.where(self.kept(adata), adata.obs[self.column].astype(str), "")
        names, sizes = np.unique(labels[labels != ""], return_counts=True)
        size = {n: min(s, self.most or s) for n, s in zip(names, sizes, strict=True) if n != self.rare}
        abundant = [name for name in size if size[name] > largest_rare(sum(size.values()), MAX_FRACTION)]
        chosen = np.concatenate([rng.permutation(np.flatnonzero(labels == n))[: size[n]] for n in abundant])
        there = rng.permutation(np.flatnonzero(labels == self.rare))
        wanted = round(prevalence * len(chosen) / (1 - prevalence))
        if wanted > len(there):
            chosen, wanted = rng.permutation(chosen)[: round(len(there) * (1 - prevalence) / prevalence)], len(there)
        rows = np.sort(np.concatenate([chosen, there[:wanted]]))
        part = adata[rows].copy()
        if dealt:
            batches = labels if self.batch_key is None else adata.obs[self.batch_key].astype(str)
            names = [f"{label} {batch}" for label, batch in zip(labels[rows], batches[rows], strict=True)]
            groups = np.unique(names, return_inverse=True)[1]
            part.X = deal_within(part.X.tocsr(), groups, np.asarray(part.X.sum(axis=1)).ravel(), seed=seed)
        return part, labels[rows] == self.rare


@dataclass(frozen=True)
class Native:
    """A labelled type that is rare as it is."""

    dataset: str
    column: str
    rare: str
    batch_key: str | None = None
    kind: str = "counts"

    def draw(self) -> tuple[AnnData, np.ndarray]:
        """All cells that have a label, and which are rare."""
        adata = load(self.dataset)
        adata = adata[adata.obs[self.column].notna()].copy()
        return adata, (adata.obs[self.column].astype(str) == self.rare).to_numpy()


POWER = {
    "sc_mixology": Made(
        "sc_mixology", "cell_line", "H838", "batch", kept=lambda adata: (adata.obs["demuxlet"] == "SNG").to_numpy()
    ),
    "kang_pbmc": Made("kang_pbmc_batch2_12k", "cell_type", "B cells", "donor", most=1500),
    "paul15": Made("paul15_myeloid", "cell_type", "Neutrophils"),
}
NATIVE = {
    "AWC_ON": Native("celegans_embryo", "cell.type", "AWC_ON", "batch"),
    "myeloid_megakaryocytes": Native("paul15_myeloid", "cell_type", "Megakaryocytes"),
    "pbmc_megakaryocytes": Native("kang_pbmc_batch2_12k", "cell_type", "Megakaryocytes", "donor"),
    "CD34+": Native("pbmc68k_reduced", "bulk_labels", "CD34+"),
    "jurkat": Native("fire_jurkat_1580_lognorm", "cell_type", "Jurkat", kind="log1p"),
}


@cache
def load(dataset: str) -> AnnData:
    """A public data set, once."""
    return datasets.load(dataset)


def toy(prevalence: float, seed: int, num_cells: int = NUM_TOY) -> tuple[AnnData, np.ndarray]:
    """A simulated tissue of two batches, and which of its cells are rare."""
    adata = datasets.toy(num_cells, 500, num_tfs=40, rare_fraction=prevalence, seed=seed)
    return adata, adata.obs["is_rare"].to_numpy()


def draw(
    dataset: str, prevalence: float | None, seed: int, *, dealt: bool = False
) -> tuple[AnnData, np.ndarray, str, str | None]:
    """Cells, truth, kind of the matrix, column of the batches."""
    if dataset == "toy":
        return *toy(prevalence or 0.0, seed), "counts", "batch"
    if dataset in POWER:
        design = POWER[dataset]
        return *design.draw(prevalence or 0.0, seed, dealt=dealt), "counts", design.batch_key
    native = NATIVE[dataset]
    return *native.draw(), native.kind, native.batch_key
