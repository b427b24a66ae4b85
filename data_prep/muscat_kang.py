"""PBMC of lupus donors (Kang et al. 2018) as the R package muscat carried them -> kang_pbmc_*.

    python data_prep/muscat_kang.py [kang_pbmc_8684 kang_pbmc_batch2_12k kang_pbmc_stim_1556]

The files are SingleCellExperiments. Which file of the history is which data set is decided by the number of cells and
genes; without a match nothing is written. Needs the extra ``prep``.
"""

from typing import Any

from _r_objects import experiment, read_r
from _tidy import Fetch, Recipe, github, run, tidy
from anndata import AnnData

from graphfm.datasets import info

FILES = [
    ("7fbf4a3d7a1a6f20d5f64e1ddd122acfa977e62d", "data/example_sce.rda"),
    ("894ad198fbcedbf7e39c1c20e58cdc049b5f5d2c", "data/kang.rda"),
    ("4bf6f3d0200e053cb2f58287340c0aa5195f364b", "data/sce.rda"),
]
# column of the table <- columns of muscat, then of the original annotation
COLUMNS = {
    "cell_type": ("cluster_id", "cell"),
    "sample": ("sample_id",),
    "condition": ("group_id", "stim"),
    "donor": ("ind",),
}


def convert(experiment_object: Any) -> AnnData:
    """Counts with whatever of the known columns the object has."""
    values, genes, cells = experiment(experiment_object)
    obs = {}
    for name, candidates in COLUMNS.items():
        found = next((column for column in candidates if column in cells), None)
        if found:
            obs[name] = cells[found].to_numpy()
    return tidy(values, cells=cells.index, genes=genes, obs=obs)


def _recipe(name: str) -> Recipe:
    def recipe(fetch: Fetch) -> AnnData:
        seen = []
        for commit, path in FILES:
            for content in read_r(fetch(github("HelenaLC/muscat", commit, path))).values():
                adata = convert(content)
                if adata.shape == info(name).shape:
                    return adata
                seen.append((path, adata.shape))
        raise ValueError(f"no file is {name} ({info(name).shape}); found {seen}")

    return recipe


names = ("kang_pbmc_8684", "kang_pbmc_batch2_12k", "kang_pbmc_stim_1556")
RECIPES: dict[str, Recipe] = {name: _recipe(name) for name in names}

if __name__ == "__main__":
    run(RECIPES, script=__file__, version=1)
