"""A network of a whole transcriptome: time and memory of `graphfm.tl.infer_grn`.

Command: ``python experiments/grn_scale.py`` (``--smoke``: small)
Cost:    see the record; one process, below 8 GB
Expect:  20,000 cells x 20,000 genes x 1,500 transcription factors below 8 GB

The data are simulated (`graphfm.datasets.toy`), so this is about cost alone. The whole process is measured, the data
in it (2 GB) included.
"""

import argparse
import tempfile
from pathlib import Path

import _spine

from graphfm import datasets, tl

PATH = _spine.RESULTS / "grn_scale.jsonl"


def main() -> None:
    """Make the data, infer, write a record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="small, into a file of its own")
    smoke = parser.parse_args().smoke
    cells, genes, tfs = (300, 200, 20) if smoke else (20_000, 20_000, 1_500)
    path = Path(tempfile.mkdtemp()) / PATH.name if smoke else PATH
    job = {"dataset": "toy", "method": "graphfm", "setting": "unsupervised", "seed": 0, "num_cells": cells}
    if _spine.pending(path, [job]):
        adata = datasets.toy(cells, genes, num_tfs=min(tfs, 1_400), organism="mouse")
        with _spine.measured() as cost:
            tl.infer_grn(adata, tfs=adata.var_names[:tfs].tolist())
        sizes = {"num_genes": genes, "num_tfs": tfs, "num_entries": int(adata.X.nnz), "edges": len(adata.uns["grn"])}
        _spine.append(path, {**job, **sizes, **cost, **_spine.provenance()})
    for record in _spine.read(path):
        print({key: record[key] for key in ("num_cells", "num_genes", "num_tfs", "edges", "seconds", "peak_mb")})


if __name__ == "__main__":
    main()
