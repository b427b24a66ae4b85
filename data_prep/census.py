"""Cells of the CELLxGENE Census -> a folder of files for pre-training, one for each of its data sets.

    python data_prep/census.py --organism human --filter "tissue_general == 'lung'" --cells 5000 --out lung
    graphfm pretrain lung/ --out run

Raw counts of all genes of the cells that pass, at most so many of each data set, drawn by `--seed`. Cells that the
Census holds twice come once (``is_primary_data``). A few thousand cells are in memory at a time, whatever passes. What
is there already is left as it is, so that a run that was broken off goes on. `--version` names a release of the
Census; ``stable`` is the newest long-term one, which changes: files say which it was.

Needs `pip install cellxgene-census` and the network. The Census is CC BY 4.0; its data sets' authors are named in
``uns["provenance"]`` by `dataset_id`, see https://cellxgene.cziscience.com.
"""

import argparse
import logging
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from tqdm import tqdm

from graphfm._checks import make_folder
from graphfm.io import read, write

ORGANISMS = {"human": "Homo sapiens", "mouse": "Mus musculus"}
OBS = ["dataset_id", "cell_type", "tissue", "assay", "donor_id", "disease"]


def chosen_cells(found: pd.DataFrame, cells: int, seed: int) -> dict[str, np.ndarray]:
    """Cells to fetch of each data set, at most so many, in order: the same whatever else passes."""
    chosen = {}
    for name, part in found.groupby("dataset_id", observed=True, sort=True):
        ids = np.sort(part["soma_joinid"].to_numpy())
        drawn = np.random.default_rng(seed).permutation(len(ids))[:cells]
        chosen[str(name)] = ids[np.sort(drawn)]
    return chosen


def fetch(census, organism: str, cells: np.ndarray, provenance: dict[str, str]) -> AnnData:
    """Counts of these cells, genes by Ensembl id."""
    import cellxgene_census

    adata = cellxgene_census.get_anndata(
        census,
        ORGANISMS[organism],
        obs_coords=cells.tolist(),
        obs_column_names=["soma_joinid", *OBS],
        var_column_names=["feature_id", "feature_name"],
    )
    adata.obs_names = adata.obs["soma_joinid"].astype(str).to_numpy()
    adata.var_names = adata.var["feature_id"].astype(str).to_numpy()
    adata.X = adata.X.astype(np.float32)
    adata.uns["provenance"] = provenance
    return adata


def is_there(path: Path, provenance: dict[str, str]) -> bool:
    """Whether the file was made before; ends the program if by other settings."""
    if not path.exists():
        return False
    if dict(read(path, lazy=True).uns.get("provenance", {})) != provenance:
        sys.exit(f"{path} is of another release, filter, number of cells or seed. Choose another --out.")
    return True


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--organism", choices=sorted(ORGANISMS), required=True)
    parser.add_argument("--filter", default="", help="of cells, as the Census takes it; default: all")
    parser.add_argument("--cells", type=int, default=5000, help="of a data set, at most; default: 5000")
    parser.add_argument("--least", type=int, default=200, help="data sets with fewer that pass are left out")
    parser.add_argument("--version", default="stable", help="release of the Census; default: stable")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder of the files")
    options = parser.parse_args(argv)
    if min(options.cells, options.least) < 1:
        parser.error("--cells and --least must be at least 1")
    try:
        import cellxgene_census
    except ImportError:
        parser.error("the Census is read by a package of its own: pip install cellxgene-census")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    make_folder(options.out)
    wanted = " and ".join(["is_primary_data == True", *([f"({options.filter})"] if options.filter else [])])
    with cellxgene_census.open_soma(census_version=options.version) as census:
        release = census["census_info"]["summary"].read().concat().to_pandas().set_index("label")["value"]
        provenance = {
            "source": f"CELLxGENE Census {release['census_build_date']}",
            "licence": "CC BY 4.0",
            "filter": wanted,
            "drawn": f"at most {options.cells}, seed {options.seed}",
        }
        names = ["soma_joinid", "dataset_id"]
        found = cellxgene_census.get_obs(census, ORGANISMS[options.organism], value_filter=wanted, column_names=names)
        chosen = chosen_cells(found, options.cells, options.seed)
        todo = {name: cells for name, cells in chosen.items() if len(cells) >= options.least}
        if not todo:
            sys.exit(f"no data set has {options.least} cells that pass {wanted!r}. Ask for more, or lower --least.")
        for name, cells in tqdm(todo.items(), unit="data set", disable=None):
            path, about = options.out / f"{name}.h5ad", provenance | {"dataset_id": name}
            if not is_there(path, about):
                write(fetch(census, options.organism, cells, about), path)
    number, small = sum(map(len, todo.values())), len(chosen) - len(todo)
    print(f"{len(todo)} data sets, {number:,} cells in {options.out}; {small} were too small")


if __name__ == "__main__":
    main()
