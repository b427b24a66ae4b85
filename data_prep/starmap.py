"""STARmap: visual cortex with 1,020 genes (h5ad + table), medial prefrontal cortex with 166 genes (RData).

    python data_prep/starmap.py [starmap_v1_1k starmap_mpfc_BZ5 starmap_mpfc_BZ9]

The layers of the visual cortex are the column ``smoothed_manual``, drawn by hand and then smoothed by their authors.
The RData needs the extra ``prep``.
"""

from pathlib import Path

import anndata as ad
import pandas as pd
from _r_objects import frame, matrix, read_r
from _tidy import Fetch, Recipe, github, run, tidy

BANKSY_PY = "prabhakarlab/Banksy_py"
CELLS_H5AD = github(BANKSY_PY, "318b3dce6b1d734916cc35257da9f592ab28d2f4", "data/starmap/starmap_BY3_1k.h5ad")
CELLS_TABLE = github(
    BANKSY_PY, "6712bc68917f34489c87ccd3b98ebe09303bfc0e", "data/starmap/Starmap_BY3_1k_meta_annotated_18oct22.csv"
)
CORTEX_RDATA = github("zhengli09/BASS-Analysis", "829d10c5addeb411ad5deb4dea9f3ff3e8d79d97", "data/starmap_mpfc.RData")
SECTIONS = {"starmap_mpfc_BZ5": "20180417_BZ5_control", "starmap_mpfc_BZ9": "20180419_BZ9_control"}


def convert_visual_cortex(h5ad: Path, table: Path) -> ad.AnnData:
    """Counts of the h5ad with the labels of the table, matched by the name of the cell."""
    source = ad.read_h5ad(h5ad)
    labels = pd.read_csv(table, index_col=0)
    labels.index = labels.index.astype(str)
    if missing := set(labels.index) - set(source.obs_names):
        raise ValueError(f"{len(missing)} labelled cells are not in the h5ad, e.g. {sorted(missing)[:3]}")
    cells = source[labels.index]
    return tidy(
        cells.X,
        cells=cells.obs_names,
        genes=cells.var_names,
        obs={"cell_type": labels["cluster_name"], "domain": labels["smoothed_manual"]},
        spatial=labels[["x", "y"]].to_numpy(),
    )


def convert_section(objects: dict, section: str) -> ad.AnnData:
    """One section of ``starmap_cnts`` (genes x cells) and ``starmap_info`` (c, z, x, y a cell)."""
    values, genes, cells = matrix(objects["starmap_cnts"][section])
    table = frame(objects["starmap_info"][section])
    return tidy(
        values,
        cells=cells,
        genes=genes,
        obs={"sample": [section] * len(table), "cell_type": table["c"], "domain": table["z"].astype(str)},
        spatial=table[["x", "y"]].to_numpy(),
    )


def _section(name: str) -> Recipe:
    return lambda fetch: convert_section(read_r(fetch(CORTEX_RDATA)), SECTIONS[name])


def _visual_cortex(fetch: Fetch) -> ad.AnnData:
    return convert_visual_cortex(fetch(CELLS_H5AD), fetch(CELLS_TABLE))


RECIPES: dict[str, Recipe] = {"starmap_v1_1k": _visual_cortex} | {name: _section(name) for name in SECTIONS}

if __name__ == "__main__":
    run(RECIPES, script=__file__, version=1)
