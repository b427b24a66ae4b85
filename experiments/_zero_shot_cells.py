"""Labelled cells of Table 6: alone, in pairs of batches, and batches together."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData, concat

from graphfm import datasets, genes, io

NO_LABEL = ("nan", "NA", "unknown", "unclassified", "Ambiguous", "undetermined", "Excluded")
MIN_CELLS = 20
LOG_VALUES = ("kang_scgen_valid_lognorm",)


@dataclass(frozen=True)
class Cells:
    """Labelled cells of a data set: all, or those whose `column` is one of `values`."""

    dataset: str
    label: str
    column: str = ""
    values: tuple[str, ...] = ()

    @property
    def organism(self) -> str:
        """Whose genes."""
        return "other" if self.dataset.startswith("celegans") else "auto"

    @property
    def kind(self) -> str:
        """What the matrix holds."""
        if self.dataset in LOG_VALUES:
            return "log1p"
        return "counts" if load(self.dataset).uns.get("is_raw_counts", True) else "normalized"

    def of(self, *values: str) -> "Cells":
        """Some of them."""
        return replace(self, values=values)

    def adata(self) -> AnnData:
        """Cells with a label, ``obs["type"]``; types of fewer than 20 cells are left out."""
        adata = load(self.dataset)
        label = adata.obs[self.label].astype(str)
        kept = adata.obs[self.label].notna() & ~label.isin(NO_LABEL)
        if self.values:
            kept &= adata.obs[self.column].astype(str).isin(self.values)
        kept &= label.isin(label[kept].value_counts().loc[lambda sizes: sizes >= MIN_CELLS].index)
        cells = adata[kept.to_numpy()]
        return AnnData(sp.csr_matrix(cells.X), pd.DataFrame({"type": label[kept]}), cells.var[[]])


FEW = {
    name: Cells(name, label)
    for name, label in (
        ("celegans_l2", "cao_cell_type"),
        ("kang_pbmc_batch2_12k", "cell_type"),
        ("paul15_myeloid", "cell_type"),
        ("merfish_hypothalamus_2slices", "cell_type"),
        ("osmfish_ssctx", "cell_type"),
        ("celegans_embryo", "cell.type"),
        ("starmap_v1_1k", "cell_type"),
        ("starmap_mpfc_BZ9", "cell_type"),
        ("sc_mixology", "cell_line"),
        ("pbmc_facs_garnett800", "cell_type"),
        ("pbmc_facs_scn300", "cell_type"),
        ("kang_scgen_valid_lognorm", "cell_type"),
    )
}
LINES = Cells("sc_mixology", "cell_line", "batch")
LINE_BATCHES = ("sc_celseq2", "sc_celseq2_5cl_p1", "sc_celseq2_5cl_p2", "sc_celseq2_5cl_p3", "sc_dropseq")
INTERFERON = Cells("kang_pbmc_stim_1556", "cell_type", "condition")
SCGEN = Cells("kang_scgen_valid_lognorm", "cell_type", "condition")
DONORS = Cells("kang_pbmc_batch2_12k", "cell_type", "donor")
MERFISH = Cells("merfish_hypothalamus_2slices", "cell_type", "bregma")
EMBRYO = Cells("celegans_embryo", "cell.type", "batch")
BZ5, BZ9 = (Cells(f"starmap_mpfc_{name}", "cell_type") for name in ("BZ5", "BZ9"))
PAIRS: dict[str, tuple[Cells, Cells]] = {
    **{f"lines {b}": (LINES.of(b), LINES.of(*(o for o in LINE_BATCHES if o != b))) for b in LINE_BATCHES},
    "interferon, to stimulated": (INTERFERON.of("ctrl"), INTERFERON.of("stim")),
    "interferon, to control": (INTERFERON.of("stim"), INTERFERON.of("ctrl")),
    "seven types, to stimulated": (SCGEN.of("control"), SCGEN.of("stimulated")),
    "cortex BZ5 to BZ9": (BZ5, BZ9),
    "donor 101 to 1244": (DONORS.of("101"), DONORS.of("1244")),
    "hypothalamus, to 0.26": (MERFISH.of("0.21"), MERFISH.of("0.26")),
    "embryo 400 to 500 minutes": (EMBRYO.of("Waterston_400_minutes"), EMBRYO.of("Waterston_500_minutes_batch_2")),
    "seven types, to control": (SCGEN.of("stimulated"), SCGEN.of("control")),
    "cortex BZ9 to BZ5": (BZ9, BZ5),
    "donor 1015 to 1256": (DONORS.of("1015"), DONORS.of("1256")),
    "hypothalamus, to 0.21": (MERFISH.of("0.26"), MERFISH.of("0.21")),
    "embryo, batch 1 to 2": (EMBRYO.of("Waterston_500_minutes_batch_1"), EMBRYO.of("Waterston_500_minutes_batch_2")),
}
GARNETT, SORTED, K68 = (
    Cells("pbmc_facs_garnett800", "cell_type"),
    Cells("pbmc_facs_scn300", "cell_type"),
    Cells("pbmc68k_reduced", "bulk_labels"),
)
LAYERS = tuple(Cells(f"dlpfc_15167{number}", "layer") for number in (3, 4, 5))
TUMOURS = Cells("her2st_labelled8", "region", "patient")
MIXES: dict[str, tuple[Cells, ...]] = {
    "cell lines, 5 protocols": tuple(LINES.of(b) for b in LINE_BATCHES),
    "blood, interferon": (INTERFERON.of("ctrl"), INTERFERON.of("stim")),
    "blood, interferon, 7 types": (SCGEN.of("control"), SCGEN.of("stimulated")),
    "cortex, 2 mice": (BZ5, BZ9),
    "worm embryo, 4 times": tuple(
        EMBRYO.of(f"Waterston_{b}")
        for b in ("300_minutes", "400_minutes", "500_minutes_batch_1", "500_minutes_batch_2")
    ),
    "blood, 3 studies": (GARNETT, SORTED, SCGEN.of("control")),
    "blood, 8 donors": tuple(
        DONORS.of(donor) for donor in ("101", "107", "1015", "1016", "1039", "1244", "1256", "1488")
    ),
    "hypothalamus, 2 sections": (MERFISH.of("0.21"), MERFISH.of("0.26")),
    "worm embryo, 2 laboratories": (
        EMBRYO.of("Murray_r17", "Murray_b01", "Murray_b02"),
        EMBRYO.of(*(f"Waterston_{b}" for b in ("400_minutes", "500_minutes_batch_1", "500_minutes_batch_2"))),
    ),
    "blood, 3 other studies": (K68, SORTED, INTERFERON.of("ctrl")),
    "cortex layers, 3 sections": LAYERS,
    "tumours, 8 patients": tuple(TUMOURS.of(patient) for patient in "ABCDEFGH"),
}


def sharing(entries: dict[str, Cells] | dict[str, tuple[Cells, ...]], names: tuple[str, ...]) -> tuple[str, ...]:
    """Entries that have a data set in common with those of these names."""
    sets = {name: {cells.dataset for cells in (e if isinstance(e, tuple) else (e,))} for name, e in entries.items()}
    known = set().union(*(sets[name] for name in names))
    return tuple(name for name, mine in sets.items() if mine & known)


LOOKED_AT = (
    *sharing({**FEW, **PAIRS}, (*tuple(FEW)[:5], *tuple(PAIRS)[:12])),
    *sharing(MIXES, tuple(MIXES)[:6]),
)
"""Entries with cells of data sets that annotation, and integration, were made with in view."""
ONE_NAME = {
    "B cells": ("bcell_cd19", "B", "CD19+ B"),
    "CD4 T cells": (
        "tcell_cd4_helper",
        "CD4T",
        "CD4+/CD25 T Reg",
        "CD4+/CD45RO+ Memory",
        "CD4+/CD45RA+/CD25- Naive T",
    ),
    "CD8 T cells": ("tcell_cd8_cytotoxic", "CD8T", "CD8+ Cytotoxic T", "CD8+/CD45RA+ Naive Cytotoxic"),
    "NK cells": ("nkcell_cd56", "NK", "CD56+ NK"),
    "CD14+ Monocytes": ("monocytes_cd14", "CD14+Mono", "CD14+ Monocyte"),
    "CD34+": ("cd34",),
}
"""Names of the same type in other studies."""
SMOKE = Cells("toy", "cell_type")


@cache
def load(dataset: str) -> AnnData:
    """A data set of the registry, or the toy."""
    return datasets.toy(num_cells=400, num_genes=200, num_tfs=20) if dataset == "toy" else datasets.load(dataset)


@cache
def mixed(name: str) -> tuple[AnnData, str]:
    """Batches together, ``obs["type"]`` and ``obs["batch"]``, genes that all have; and what the expression is.

    Where not all hold counts, each batch is log-normalised first.
    """
    if name == "toy":
        adata = load("toy").copy()
        adata.obs = pd.DataFrame({"type": adata.obs["cell_type"].astype(str), "batch": adata.obs["slide"].astype(str)})
        return adata, "counts"
    parts = [(cells, cells.adata()) for cells in MIXES[name]]
    kind = "counts" if {cells.kind for cells, _ in parts} == {"counts"} else "log1p"
    for cells, adata in parts:
        if kind != "counts":
            adata.X = io.expression(adata, kind=cells.kind, target_sum=1e4)  # as those that come as logarithms
    joint = concat([adata for _, adata in parts], join="inner")
    joint.obs_names_make_unique()
    names = {other: one for one, others in ONE_NAME.items() for other in others}
    joint.obs["type"] = joint.obs["type"].replace(names)
    genes.align_genes(joint, organism=parts[0][0].organism)
    joint.obs["batch"] = np.repeat([f"batch {i}" for i in range(len(parts))], [adata.n_obs for _, adata in parts])
    return joint, kind
