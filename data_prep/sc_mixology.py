"""Lung cancer cell lines told apart by genotype, five batches (CEL-seq2, Drop-seq) -> sc_mixology.

    python data_prep/sc_mixology.py

Genes: the union over the batches, those in at least 10 cells. Doublets (``demuxlet`` DBL) stay in: drop them.
"""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from _tidy import Fetch, Recipe, github, run, tidy

COMMIT = "19667e111aac52abbfcaa6fff07da2fd05984709"
BATCHES = ["sc_celseq2", "sc_celseq2_5cl_p1", "sc_celseq2_5cl_p2", "sc_celseq2_5cl_p3", "sc_dropseq"]
MIN_CELLS = 10


def _url(batch: str, kind: str) -> str:
    return github("LuyiTian/sc_mixology", COMMIT, f"data/csv/{batch}.{kind}.csv.gz")


def convert_batch(batch: str, counts: Path, metadata: Path) -> ad.AnnData:
    """One batch: counts (genes x cells) and a table with cell_line and demuxlet_cls for each cell."""
    table = pd.read_csv(counts, index_col=0).T
    cells = pd.read_csv(metadata, index_col=0)
    cells.index = cells.index.astype(str)
    if missing := set(table.index.astype(str)) - set(cells.index):
        raise ValueError(f"{batch}: {len(missing)} cells have no metadata, e.g. {sorted(missing)[:3]}")
    cells = cells.loc[table.index.astype(str)]
    return tidy(
        table.to_numpy(),
        cells=[f"{batch}_{name}" for name in table.index],
        genes=table.columns,
        obs={"batch": [batch] * len(table), "cell_line": cells["cell_line"], "demuxlet": cells["demuxlet_cls"]},
    )


def join(batches: list[ad.AnnData], *, min_cells: int = MIN_CELLS) -> ad.AnnData:
    """All batches over the union of their genes, without genes in fewer than ``min_cells`` cells."""
    whole = ad.concat(batches, join="outer", fill_value=0)
    whole = whole[:, np.sort(whole.var_names)]
    whole = whole[:, np.asarray((whole.X > 0).sum(axis=0)).ravel() >= min_cells].copy()
    for column in ("batch", "cell_line", "demuxlet"):
        whole.obs[column] = whole.obs[column].astype(str).astype("category")
    whole.uns["is_raw_counts"] = True
    return whole


def recipe(fetch: Fetch) -> ad.AnnData:
    return join([convert_batch(name, fetch(_url(name, "count")), fetch(_url(name, "metadata"))) for name in BATCHES])


RECIPES: dict[str, Recipe] = {"sc_mixology": recipe}

if __name__ == "__main__":
    run(RECIPES, script=__file__, version=1)
