"""Table 2: time and memory against the number of cells, from the file to the embedding and back.

Command: ``python experiments/table2_scaling.py`` (``--smoke``: 300 cells, nothing is kept; ``--readme``: renew the README)
Cost:    half an hour and 8 GB of disk on two idle cores, most of it for the million; ``--cells`` runs a part of it
Expect:  a million cells from the file to the embedding in less than 10 minutes and 8 GB

Cells:   synthetic counts in a file, 5,000 genes, 40 types of cells, 1,500 molecules and about 700 genes a cell, as many as
         an early droplet experiment has. Each number of cells is a process of its own.
Stages:  ``load`` opens the file; ``knn`` reads it for principal components, and finds neighbours; ``gather`` reads it for what
         the trunk sees, and makes tables of the graph; ``tiles`` orders the cells; ``embed`` runs the trunk of the package's
         size; ``write`` copies the file with what was added. ``epoch``: one epoch of pre-training, up to 100,000 cells.
Scores:  ``seconds``; ``peak_mb``, the most that the process held in the stage, and ``predicted_mb``, what `embed` said
         before it began; ``recall``, the share of true neighbours that were found.

Read with care: one run each, on a machine that may have had other work.
"""

import argparse
import json
import logging
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import _spine
import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

import graphfm
from graphfm import io, pp, tl
from graphfm.allocator import keep_freed_memory
from graphfm.data.prepare import cell_graph
from graphfm.data.tiles import locality_order
from graphfm.genes import vocabulary
from graphfm.train import TrainConfig, pretrain

PATH = _spine.RESULTS / "table2_scaling.jsonl"
CELLS = (1_000, 10_000, 100_000, 300_000, 1_000_000)
STAGES = ("load", "knn", "gather", "tiles", "embed", "write", "epoch")
EPOCH_CELLS = 100_000
GENES, TYPES, MOLECULES, CHUNK = 5_000, 40, 1_500, 10_000


def synthetic(path: Path, num_cells: int, num_genes: int, seed: int) -> None:
    """Write counts of cells of many types, a chunk at a time."""
    rng = np.random.default_rng(seed)
    abundance = rng.normal(0, 1.5, num_genes) + rng.normal(0, 0.8, (TYPES, num_genes))
    share = np.exp(abundance).cumsum(axis=1)
    share /= share[:, -1:]
    kinds, file = [], None
    for start in range(0, num_cells, CHUNK):
        size = min(CHUNK, num_cells - start)
        kind = rng.integers(TYPES, size=size)
        totals = rng.poisson(MOLECULES * rng.lognormal(0, 0.4, size)) + 1
        rows = np.repeat(np.arange(size), totals)
        drawn = rng.random(len(rows))
        genes = np.empty(len(rows), dtype=np.int32)
        for each in range(TYPES):
            chosen = kind[rows] == each
            genes[chosen] = np.searchsorted(share[each], drawn[chosen])
        counts = sp.csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, genes)), shape=(size, num_genes))
        kinds.append(kind)
        if file is None:
            names = vocabulary().table["human_id"].to_numpy(dtype=str)[:num_genes]
            anndata.AnnData(counts, var=pd.DataFrame(index=names)).write_h5ad(path)
            file = h5py.File(path, "r+")
        else:
            anndata.io.sparse_dataset(file["X"]).append(counts)
    index = [f"cell{i}" for i in range(num_cells)]
    anndata.io.write_elem(file, "obs", pd.DataFrame({"type": np.concatenate(kinds).astype(str)}, index=index))
    file.close()


def measure(num_cells: int, num_genes: int, seed: int, scratch: Path, report: Callable[[dict], None]) -> None:
    """Every stage in this process, one after the other; each is reported when it is done."""
    path = scratch / f"synthetic_{num_cells}_{seed}.h5ad"
    if not path.exists():
        synthetic(path.with_suffix(".part"), num_cells, num_genes, seed)
        path.with_suffix(".part").rename(path)
    model = graphfm.GraphFM.from_pretrained()
    keep_freed_memory()

    def staged(stage: str, work: Callable[[], object], **facts: Callable[[], float]) -> object:
        with _spine.measured() as cost:
            result = work()
        report({"setting": stage, **cost, **{name: value() for name, value in facts.items()}})
        return result

    adata = staged("load", lambda: io.read(path, lazy=True))
    recall = lambda: adata.uns["neighbors"]["params"].get("recall", 1.0)  # noqa: E731
    staged("knn", lambda: pp.knn_graph(adata, seed=seed), recall=recall)
    cells = staged("gather", lambda: cell_graph(adata, with_expression=False))
    order = staged("tiles", lambda: locality_order(cells.neighborhood))

    def embed() -> None:
        for z, r in model.layers(model.stem_cells(cells)[order], cells.neighborhood.reorder(order), tile_size=8192):
            last = z, r
        adata.obsm["X_graphfm"] = model.readout(*last)[torch.argsort(order)].numpy(force=True)

    with torch.no_grad():
        staged("embed", embed)
    staged("write", lambda: io.annotate(path, adata, scratch / f"embedded_{num_cells}_{seed}.h5ad"))
    if num_cells <= EPOCH_CELLS:
        cells = cell_graph(adata)
        steps = math.ceil(num_cells / 256)
        staged(
            "epoch", lambda: pretrain(tl.new_model("small"), [cells], scratch / "run", config=TrainConfig(steps=steps))
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, help="measure in this process and print")
    parser.add_argument("--scratch", type=Path)
    options = parser.parse_args()
    measure(options.cells, GENES, 0, options.scratch, lambda record: print(json.dumps(record), flush=True))


if __name__ == "__main__":
    main()
