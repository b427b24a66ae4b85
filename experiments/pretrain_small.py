"""Pre-train the weights that come with the package.

Command: ``python experiments/pretrain_small.py`` (``--smoke``: toy data, three steps)
Cost:    about twenty minutes on one core, 3 GB; broken off, it goes on where it was
Expect:  ``graphfm/weights/small.safetensors``; in the run's log a quarter of the loss of the stem (``null_loss``)

The corpus holds only data sets without cell-type or tissue labels, so that no labelled evaluation set was seen.
Left out although unlabelled: Kang's cells and the HER2 sections (their donors are in labelled sets), VeraFISH and CosMx
(their licences forbid commercial use, the weights' does not).
"""

import argparse
import tempfile
from pathlib import Path

from anndata import AnnData

import graphfm
from graphfm import datasets, tl
from graphfm.train import TrainConfig

CORPUS = (
    "citefuse_ctcl_hto500",
    "heart_1k_mouse",
    "intestine_moor_1383",
    "pbmc4k_soupx_2170",
    "pbmc_hao_speck1000",
    "scicar_a549_rna",
    "st_bcl_4layers",
    "st_pdac_a",
    "xenium_mouse_brain",
    "zeisel_500",
)
LIBRARY_KEY = {"st_bcl_4layers": "slice"}
MAX_CELLS = 10_000
WEIGHTS = Path(graphfm.__file__).parent / "weights" / "small.safetensors"


def region(adata: AnnData, max_cells: int = MAX_CELLS) -> AnnData:
    """A connected strip of a large section: the leftmost cells, so that no data set drowns the others."""
    if adata.n_obs <= max_cells:
        return adata
    leftmost = adata.obsm["spatial"][:, 0].argsort(kind="stable")[:max_cells]
    return adata[sorted(leftmost)].copy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="toy data, three steps, nothing is kept")
    parser.add_argument("--out", type=Path, default=Path("runs/small"), help="folder of the run")
    parser.add_argument("--steps", type=int, default=5000)
    options = parser.parse_args()
    if options.smoke:
        toy = {"toy": datasets.toy(num_cells=300, num_genes=200)}
        with tempfile.TemporaryDirectory() as folder:
            tl.pretrain(toy, folder, size="tiny", config=TrainConfig(steps=3), library_key="slide")
        print("smoke: ok")
        return
    data = {name: region(datasets.load(name)) for name in CORPUS}
    for name, adata in data.items():
        tl.build_graphs(adata, library_key=LIBRARY_KEY.get(name))
    model = tl.pretrain(data, options.out, config=TrainConfig(steps=options.steps))
    model.half().save_pretrained(WEIGHTS)
    print(f"{WEIGHTS}: {WEIGHTS.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
