"""All twelve Visium slices of the human dorsolateral prefrontal cortex -> dlpfc_full_151507 ... dlpfc_full_151676.

    python data_prep/humanpilot.py [dlpfc_full_151673 ...]

Counts are the filtered matrices (10x HDF5) on the Lieber Institute's public storage; array and pixel positions and the
layers come from LieberInstitute/HumanPilot. Every gene stays, named by Ensembl id; ``var["symbol"]`` has the symbol.
The layer of a spot without a label is "NA". No checksum of these files was known when this was written: the first
download pins it. The position files of slices 151673 to 151676 are taken from the branch, the others at a commit.
"""

from pathlib import Path

import pandas as pd
from _tidy import Fetch, Recipe, github, run, tidy
from anndata import AnnData

DONORS = {"Br5292": range(151507, 151511), "Br5595": range(151669, 151673), "Br8100": range(151673, 151677)}
REPOSITORY = "LieberInstitute/HumanPilot"
POSITIONS_COMMIT = "39ed906fad38095e3d7005e1b47f48c00b846371"
LAYERS = github(REPOSITORY, "5dc52dc562893754c1db263479c573a3c3292609", "10X/barcode_level_layer_map.tsv")
MATRIX = "https://spatial-dlpfc.s3.us-east-2.amazonaws.com/h5/{}_filtered_feature_bc_matrix.h5"


def convert(matrix: Path, positions: Path, layers: Path, *, slice_id: str, donor: str) -> AnnData:
    """One slice: counts, positions by barcode, layers by barcode and slice."""
    import scanpy as sc

    source = sc.read_10x_h5(matrix)
    columns = ["barcode", "in_tissue", "array_row", "array_col", "pixel_row", "pixel_col"]
    table = pd.read_csv(positions, header=None, names=columns, index_col="barcode")
    table = table.loc[source.obs_names]
    names = pd.read_csv(layers, sep="\t", header=None, names=["barcode", "slice", "layer"], dtype=str)
    layer = names[names["slice"] == slice_id].set_index("barcode")["layer"].reindex(source.obs_names)
    adata = tidy(
        source.X,
        cells=source.obs_names,
        genes=source.var["gene_ids"],
        obs={
            "sample": [slice_id] * source.n_obs,
            "donor": [donor] * source.n_obs,
            "layer": layer,
            "array_row": table["array_row"],
            "array_col": table["array_col"],
        },
        spatial=table[["pixel_col", "pixel_row"]].to_numpy(),
    )
    adata.var["symbol"] = source.var_names.to_numpy()
    return adata


def _recipe(slice_id: str, donor: str) -> Recipe:
    def recipe(fetch: Fetch) -> AnnData:
        commit = "master" if donor == "Br8100" else POSITIONS_COMMIT
        positions = fetch(github(REPOSITORY, commit, f"10X/{slice_id}/tissue_positions_list.txt"))
        return convert(fetch(MATRIX.format(slice_id)), positions, fetch(LAYERS), slice_id=slice_id, donor=donor)

    return recipe


RECIPES: dict[str, Recipe] = {
    f"dlpfc_full_{number}": _recipe(str(number), donor) for donor, slices in DONORS.items() for number in slices
}

if __name__ == "__main__":
    run(RECIPES, script=__file__, version=1)
