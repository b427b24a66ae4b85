"""osmFISH of the mouse somatosensory cortex: loom (genes x cells) -> osmfish_ssctx.

    python data_prep/osmfish.py

All 6,471 cells with their region; the 1,632 of region "Excluded" stay in (drop them to compare with others).
"""

from pathlib import Path

import h5py
import numpy as np
from _tidy import Fetch, Recipe, github, run, tidy
from anndata import AnnData

LOOM = github(
    "drieslab/spatial-datasets",
    "9420eb5804eacd1dd8787d7977ccc4f21ba2ab8e",
    "data/2018_osmFISH_SScortex/raw_data/osmFISH_SScortex_mouse_all_cells.loom",
)


def convert(loom: Path) -> AnnData:
    """Tidy form of the loom file."""
    with h5py.File(loom) as store:
        cells = {key: store["col_attrs"][key][:] for key in ("CellID", "ClusterName", "ClusterID", "Region", "X", "Y")}
        genes = store["row_attrs"]["Gene"][:].astype(str)
        matrix = store["matrix"][:].T
    return tidy(
        matrix,
        cells=[f"cell_{text(name)}" for name in cells["CellID"]],
        genes=genes,
        obs={
            "cell_type": [text(name) for name in cells["ClusterName"]],
            "region": [text(name) for name in cells["Region"]],
            "ClusterID": [text(name) for name in cells["ClusterID"]],
        },
        spatial=np.column_stack([cells["X"], cells["Y"]]),
    )


def text(value: object) -> str:
    """Text of a value that HDF5 stores as bytes or as a number."""
    return value.decode() if isinstance(value, bytes) else str(value)


def recipe(fetch: Fetch) -> AnnData:
    return convert(fetch(LOOM))


RECIPES: dict[str, Recipe] = {"osmfish_ssctx": recipe}

if __name__ == "__main__":
    run(RECIPES, script=__file__, version=1)
