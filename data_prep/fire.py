"""40 Jurkat cells among 1,540 293T cells, log2 of 1,000 variable genes -> fire_jurkat_1580_lognorm.

    python data_prep/fire.py

Values are log-transformed and genes are named by number, as published. The rarer of the two labels is Jurkat.
"""

from pathlib import Path

import numpy as np
from _tidy import Fetch, Recipe, github, run, tidy
from anndata import AnnData

COMMIT = "226db18b2eba420ee6d8214fac1f9ce557abe2dc"
STEM = "data/{}_jurkat_two_species_1580.txt"


def convert(values: Path, labels: Path, genes: Path) -> AnnData:
    """Values (cells x genes, or the transpose: the labels tell) with labels and gene numbers."""
    matrix = np.loadtxt(values, ndmin=2)
    label = np.loadtxt(labels, dtype=str).ravel()
    names = np.loadtxt(genes, dtype=str).ravel()
    if matrix.shape[0] != len(label):
        matrix = matrix.T
    if matrix.shape != (len(label), len(names)):
        raise ValueError(f"values are {matrix.shape}, but there are {len(label)} labels and {len(names)} genes")
    kinds, counts = np.unique(label, return_counts=True)
    cell_type = np.where(label == kinds[counts.argmin()], "Jurkat", "293T")
    cells = [f"c{row}" for row in range(len(label))]
    return tidy(matrix, cells=cells, genes=names, obs={"cell_type": cell_type}, counts=False)


def recipe(fetch: Fetch) -> AnnData:
    paths = [STEM.format("preprocessedData") + ".gz", STEM.format("labels"), STEM.format("genesSel")]
    return convert(*(fetch(github("princethewinner/FiRE", COMMIT, path)) for path in paths))


RECIPES: dict[str, Recipe] = {"fire_jurkat_1580_lognorm": recipe}

if __name__ == "__main__":
    run(RECIPES, script=__file__, version=1)
