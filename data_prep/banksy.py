"""Data sets that the R package Banksy carried: three DLPFC slices, MERFISH hypothalamus, VeraFISH hippocampus.

    python data_prep/banksy.py [dlpfc_151673 merfish_hypothalamus_2slices ...]

Each ``.rda`` is a list: ``expression`` (genes x cells), ``locations`` (a table of positions), for MERFISH ``metadata``.
Layers come from LieberInstitute/HumanPilot by barcode. The terms of these files are academic, non-commercial, without
redistribution. Needs the extra ``prep``. The files changed several times in the repository's history: a version with
other genes is refused (see ``--allow-other-shape``).
"""

from pathlib import Path

import pandas as pd
from _r_objects import frame, matrix, read_r
from _tidy import Fetch, Recipe, github, run, tidy
from anndata import AnnData
from humanpilot import LAYERS

COMMITS = {
    "dlpfc_151673": ("74d245a2e8b3d05f7c04982db9f77bd0078fb3d5", "data/dlpfc151673.rda"),
    "dlpfc_151674": ("2276ad331791d3894b055abf3478857dc69f5133", "data/dlpfc151674.rda"),
    "dlpfc_151675": ("2276ad331791d3894b055abf3478857dc69f5133", "data/dlpfc151675.rda"),
    "merfish_hypothalamus_2slices": ("f63fa0c245ed1072d363cdaa4a50808c867f1175", "data/hypothalamus.rda"),
    "verafish_hippocampus": ("0b1f1e5f671fe1e75e0b32ae9d91c6a4b9531bad", "data/hippocampus.rda"),
}
# how Banksy and Moffitt et al. name what the table calls by its own names
METADATA = {"Cell_class": "cell_type", "Neuron_cluster_ID": "neuron_cluster", "Bregma": "bregma"}


def _parts(objects: dict) -> tuple:
    (stored,) = objects.values()
    values, genes, cells = matrix(stored["expression"])
    locations = frame(stored["locations"])
    return stored, values, genes, cells or [str(name) for name in locations.index], locations


def convert_slice(objects: dict, layers: Path, *, slice_id: str) -> AnnData:
    """A DLPFC slice with its layers, matched by barcode."""
    _, values, genes, cells, locations = _parts(objects)
    barcodes = [name.removesuffix(f"_{slice_id}") for name in cells]
    names = pd.read_csv(layers, sep="\t", header=None, names=["barcode", "slice", "layer"], dtype=str)
    layer = names[names["slice"] == slice_id].set_index("barcode")["layer"].reindex(barcodes)
    obs = {"sample": [slice_id] * len(cells), "donor": ["Br8100"] * len(cells), "layer": layer}
    return tidy(values, cells=barcodes, genes=genes, obs=obs, spatial=locations.iloc[:, :2].to_numpy(float))


def convert_cells(objects: dict, *, counts: bool) -> AnnData:
    """Cells with their positions, and their metadata where the list has some."""
    stored, values, genes, cells, locations = _parts(objects)
    obs = {}
    if "metadata" in stored:
        table = frame(stored["metadata"])
        obs = {new: table[old].to_numpy() for old, new in METADATA.items() if old in table}
    return tidy(values, cells=cells, genes=genes, obs=obs, spatial=locations.iloc[:, :2].to_numpy(float), counts=counts)


def _recipe(name: str) -> Recipe:
    def recipe(fetch: Fetch) -> AnnData:
        objects = read_r(fetch(github("prabhakarlab/Banksy", *COMMITS[name])))
        if name.startswith("dlpfc"):
            return convert_slice(objects, fetch(LAYERS), slice_id=name.removeprefix("dlpfc_"))
        return convert_cells(objects, counts=not name.startswith("merfish"))

    return recipe


RECIPES: dict[str, Recipe] = {name: _recipe(name) for name in COMMITS}

if __name__ == "__main__":
    run(RECIPES, script=__file__, version=1)
