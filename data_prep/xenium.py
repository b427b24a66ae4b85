"""10x Genomics Xenium sample of the mouse brain -> xenium_mouse_brain.

    python data_prep/xenium.py

Gene probes only (controls go), cells with at least 20 counts, as in the tidy file that the table describes.
"""

from pathlib import Path

import pandas as pd
from _tidy import Fetch, Recipe, github, run, tidy
from anndata import AnnData

COMMIT = "3f497acdd98cedbb7e712b59f56bc8fbf9eacfd7"
FOLDER = "inst/extdata/10xXenium"
MIN_COUNTS = 20


def convert(matrix: Path, cells: Path) -> AnnData:
    """The cell-feature matrix (10x HDF5) with the centroids and areas of the cell table."""
    import scanpy as sc

    source = sc.read_10x_h5(matrix, gex_only=False)
    source = source[:, source.var["feature_types"] == "Gene Expression"]
    table = pd.read_csv(cells)
    table = table.set_index(table["cell_id"].astype(str)).loc[source.obs_names]
    keep = source.X.sum(axis=1).A1 >= MIN_COUNTS
    source, table = source[keep], table[keep]
    return tidy(
        source.X,
        cells=source.obs_names,
        genes=source.var_names,
        obs={"cell_area": table["cell_area"], "nucleus_area": table["nucleus_area"]},
        spatial=table[["x_centroid", "y_centroid"]].to_numpy(),
    )


def recipe(fetch: Fetch) -> AnnData:
    repository = "drighelli/SpatialExperiment"
    matrix = fetch(github(repository, COMMIT, f"{FOLDER}/cell_feature_matrix.h5"))
    return convert(matrix, fetch(github(repository, COMMIT, f"{FOLDER}/cells.csv.gz")))


RECIPES: dict[str, Recipe] = {"xenium_mouse_brain": recipe}

if __name__ == "__main__":
    run(RECIPES, script=__file__, version=1)
