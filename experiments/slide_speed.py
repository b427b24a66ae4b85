"""How long one slide takes beside Novae, which cuts out a small graph for every cell: same graph, hops and width.

Command: ``pip install novae && python experiments/slide_speed.py`` (``--smoke``: toy tissue, nothing is kept)
Cost:    five minutes on two idle cores, 4 GB
Expect:  Novae takes 120 times as long for as many hops, 46 times as long for as many layers

Random weights on both sides: it is time that is compared, not what comes out. Both read the same AnnData, whose
Delaunay graph is there, and write ``obsm``; making the models and the principal components is not counted. Novae: its
defaults, 10 layers of GATv2 (8 heads of 128) on each cell's 2 hops. graphfm: ``2 hops``, as many layers, so that a cell
hears the same cells; ``10 layers``, as many layers as Novae has, and 10 hops. ``cpu_s`` over all threads, the least of
the repeats, in turns.
"""

import argparse
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import _spine
import torch
from anndata import AnnData
from tqdm import tqdm

from graphfm import GraphFM, datasets, pp, tl
from graphfm.genes import vocabulary
from graphfm.models import GraphFMConfig

PATH = _spine.RESULTS / "slide_speed.jsonl"
LAYERS = {"2 hops": 2, "10 layers": 10}
WIDTH, HEADS, HOPS, REPEATS = 128, 8, 2, 2


def novae_model(adata: AnnData):
    """Novae with random weights; it needs a note in `adata` that its own function made the graph."""
    import novae

    novae.spatial_neighbors(adata)
    model = novae.Novae(adata, n_hops_local=HOPS, hidden_size=WIDTH, heads=HEADS)
    model.mode.trained = True  # or it refuses to compute anything
    return model


def methods(adata: AnnData, *, with_novae: bool) -> dict:
    """Functions that embed `adata`, by setting and method."""
    torch.manual_seed(0)
    shape = {"num_genes": len(vocabulary()), "vocabulary": vocabulary().version, "dim": WIDTH, "heads": HEADS}
    made = {}
    for setting, num_layers in LAYERS.items():
        model = GraphFM(GraphFMConfig(**shape, num_layers=num_layers))
        made[setting, "graphfm"] = lambda model=model: tl.embed(adata, model, relations=("spatial",))
    if with_novae:
        theirs = adata.copy()
        model = novae_model(theirs)
        made["2 hops", "novae"] = lambda: model.compute_representations(theirs)
    return made


def table(records: list[dict]) -> str:
    """Markdown from the records alone."""
    lines = ["| slide | cells | | CPU s | s | cells/s | Novae's CPU time is |", "|---|---:|---|---:|---:|---:|---:|"]
    last = {(r["dataset"], r["setting"], r["method"]): r for r in records}
    for (dataset, setting, method), r in sorted(last.items()):
        novae = last.get((dataset, "2 hops", "novae"))
        ratio = f"{novae['cpu_s'] / r['cpu_s']:.1f} times" if novae else ""
        cost = f"{r['cpu_s']:.2f} | {r['seconds']:.2f} | {r['num_cells'] / r['seconds']:,.0f}"
        lines.append(f"| `{dataset}` | {r['num_cells']:,} | `{method}`, {setting} | {cost} | {ratio} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="toy tissue, nothing is kept; without Novae")
    parser.add_argument("--dataset", default="xenium_mouse_brain")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    dataset = "toy" if options.smoke else options.dataset
    adata = datasets.toy(num_cells=300, num_genes=200) if options.smoke else datasets.load(dataset)
    pp.spatial_graph(adata, kind="delaunay")
    pp.knn_graph(adata)  # for the principal components
    origin = "made" if options.smoke else datasets.info(dataset).files[0].sha256
    made, costs = methods(adata, with_novae=not options.smoke), {}
    for _ in tqdm(range(REPEATS), desc="repeats", disable=None):
        for key, embed in made.items():
            began = time.process_time(), time.perf_counter()
            embed()
            costs.setdefault(key, []).append((time.process_time() - began[0], time.perf_counter() - began[1]))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / PATH.name if options.smoke else PATH
        for (setting, method), taken in costs.items():
            cpu, wall = (round(min(column), 3) for column in zip(*taken, strict=True))
            record = {"dataset": dataset, "setting": setting, "method": method, "seed": 0, "num_cells": adata.n_obs}
            record |= {
                "data_sha256": origin,
                "num_layers": LAYERS[setting] if method == "graphfm" else 10,
                "width": WIDTH,
            }
            record |= {"peer": f"novae {version('novae')}"} if method == "novae" else {}
            _spine.append(path, record | {"cpu_s": cpu, "seconds": wall} | _spine.provenance())
        print(table(_spine.read(path)))


if __name__ == "__main__":
    main()
