"""Table 2: time and memory against the number of cells, from the file to the embedding; one layer beside PyG's.

Command: ``python experiments/table2_scaling.py`` (``--smoke``: 300 cells, nothing is kept; ``--readme``: the README)
Cost:    half an hour and 20 GB of disk (``--scratch``) on two idle cores, most of it for the million cells
Expect:  a million cells from file to file in 262 s and 6.8 GB; a layer 6.9 times faster than PyG's

Cells:   synthetic counts in a file: 5,000 genes, 40 types, about 1,500 molecules of 700 genes a cell, as in early
         droplet experiments. Each number of cells has a process of its own.
Stages:  ``load`` opens the file; ``knn`` reads it twice for principal components, and finds neighbours; ``gather``
         reads it for the trunk and makes tables of the graph; ``tiles`` orders the cells; ``embed`` runs the trunk of
         the package; ``write`` copies the file with what was added; ``epoch``: pre-training on each cell once (up to
         100,000). Imports and compiling are not counted.
         ``seconds``, ``peak_mb`` (of the whole process), ``recall``: share of the true neighbours that were found,
         ``predicted_mb``: what `graphfm.tl.embed` would say before ``gather`` that the process will hold at most.
Layer:   forward and backward of one layer of attention on 20,000 nodes with 15 neighbours each: ``cpu_ms`` over all
         threads, the least of five in turns with the others. ``tuned``: freed memory stays in the process
         (`graphfm.allocator`). ``bfloat16``: queries, keys and values are stored so; ``autocast``: the projections are
         computed so, too; ``floor``: the projections without any attention; ``core``: attention without any projection.
         ``bound``: the time in which this machine copies as many bytes as the core must gather (keys and values of
         every edge forward, once more backward, then queries and gradients by the transposed table), at the speed for
         arrays of the size of one state matrix, which the caches hold, and ``bound:pair`` of two, keys and values.
Processes: ``torchrun`` with one and with two processes, each with one thread, on the same batches of two parts;
         ``seconds`` is the median of a step.

Read with care: one run each. The types have no structure inside, so that most cells have many neighbours almost as
near as the nearest, and an approximate search finds fewer of them than in real cells.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import _spine
import anndata
import h5py
import numpy as np
import pandas as pd
import psutil
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from tqdm import tqdm

import graphfm
from graphfm import io, pp, tl
from graphfm.allocator import give_back_freed_memory, keep_freed_memory
from graphfm.data.prepare import cell_graph, table_width
from graphfm.data.tiles import locality_order
from graphfm.genes import vocabulary
from graphfm.nn import neighbor_attention
from graphfm.pp.search import ApproximateNeighbors
from graphfm.train import TrainConfig, pretrain
from graphfm.train.log import read

PATH = _spine.RESULTS / "table2_scaling.jsonl"
CELLS = (1_000, 10_000, 100_000, 300_000, 1_000_000)
STAGES = ("load", "knn", "gather", "tiles", "embed", "write", "epoch")
EPOCH_CELLS = 100_000
GENES, TYPES, MOLECULES, CHUNK, TILE = 5_000, 40, 1_500, 10_000, 8192
NODES, NEIGHBORS = 20_000, 15
SHAPES = ((128, 8), (256, 8))
PROCESSES, TRAINED, STEPS = (1, 2), 5_000, 40
ALLOCATORS = {"default": {}, "tuned": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "34359738368"}}


def synthetic(path: Path, num_cells: int, num_genes: int, seed: int) -> None:
    """Write counts of cells of many types, a chunk at a time."""
    rng = np.random.default_rng(seed)
    abundance = rng.normal(0, 1.5, num_genes) + rng.normal(0, 0.8, (TYPES, num_genes))
    share = np.exp(abundance).cumsum(axis=1)
    share /= share[:, -1:]
    kinds, file = [], None
    for start in range(0, num_cells, CHUNK):
        size = min(CHUNK, num_cells - start)
        kind = np.sort(rng.integers(TYPES, size=size))
        totals = rng.poisson(MOLECULES * rng.lognormal(0, 0.4, size)) + 1
        ends = np.append(0, totals.cumsum())[np.bincount(kind, minlength=TYPES).cumsum()]
        drawn = np.split(rng.random(totals.sum()), ends[:-1])
        genes = np.concatenate([np.searchsorted(*pair) for pair in zip(share, drawn, strict=True)])
        rows = np.repeat(np.arange(size), totals)
        counts = sp.csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, genes)), shape=(size, num_genes))
        order = rng.permutation(size)
        counts, kind = counts[order], kind[order]
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
    tl.embed(graphfm.datasets.toy(300, 100), model)
    ApproximateNeighbors(n_neighbors=15, metric="euclidean", seed=0).fit_transform(
        np.random.default_rng(0).random((500, 50))
    )
    keep_freed_memory()

    def staged(stage: str, work: Callable[[], object], **facts: Callable[[], float]) -> object:
        with _spine.measured() as cost:
            result = work()
        report({"setting": stage, **cost, **{name: value() for name, value in facts.items()}})
        return result

    adata = staged("load", lambda: io.read(path, lazy=True))
    recall = lambda: adata.uns["neighbors"]["params"].get("recall", 1.0)  # noqa: E731
    staged("knn", lambda: pp.knn_graph(adata, seed=seed), recall=recall)
    width = table_width(adata, ("knn",))
    needed = model.inference_bytes(num_cells, width=width, components=model.config.dim, tile_size=TILE)
    give_back_freed_memory()
    predicted = round((psutil.Process().memory_info().rss + needed) / 2**20, 1)
    cells = staged("gather", lambda: cell_graph(adata, with_expression=False))
    order = staged("tiles", lambda: locality_order(cells.neighborhood))

    def embed() -> None:
        h0, neighborhood = model.stem_cells(cells)[order], cells.neighborhood.reorder(order)
        give_back_freed_memory()
        for z, r in model.layers(h0, neighborhood, tile_size=TILE):
            last = z, r
        adata.obsm["X_graphfm"] = model.readout(*last)[torch.argsort(order)].numpy(force=True)

    with torch.no_grad():
        staged("embed", embed, predicted_mb=lambda: predicted)
    staged("write", lambda: io.annotate(path, adata, scratch / f"embedded_{num_cells}_{seed}.h5ad"))
    if num_cells <= EPOCH_CELLS:
        cells = cell_graph(adata)
        steps = math.ceil(num_cells / 256)
        run = tempfile.mkdtemp(dir=scratch)
        staged("epoch", lambda: pretrain(tl.new_model("small"), [cells], run, config=TrainConfig(steps=steps)))


class Layer(nn.Module):
    """Projections and `neighbor_attention`, as `TransformerConv` has them; without a backend the projections alone.

    `autocast`: the projections compute in bfloat16.
    """

    def __init__(self, width: int, heads: int, table: Tensor, *, autocast: bool = False, **how: str) -> None:
        super().__init__()
        self.heads, self.table, self.how, self.autocast = heads, table, how, autocast
        self.query, self.key, self.value, self.skip = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            q, k, v, skip = (linear(x) for linear in (self.query, self.key, self.value, self.skip))
        if not self.how:
            return q + k + v + skip
        q, k, v = (part.unflatten(1, (self.heads, -1)) for part in (q / (x.shape[1] / self.heads) ** 0.5, k, v))
        return neighbor_attention(q, k, v, self.table, **self.how).flatten(1) + skip


class Core(nn.Module):
    """`neighbor_attention` alone, of the nodes' states themselves."""

    def __init__(self, heads: int, table: Tensor) -> None:
        super().__init__()
        self.heads, self.table = heads, table

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (x.detach().unflatten(1, (self.heads, -1)).requires_grad_() for _ in range(3))
        return neighbor_attention(q, k, v, self.table, backend="numba")


def copy_speed(num_bytes: int, repeats: int) -> float:
    """Bytes that are read a second, by all threads, while an array of some size is copied; the best of the repeats."""
    source = torch.randn(num_bytes // 4)
    target, best = torch.empty_like(source), math.inf
    for _ in range(10 * repeats):
        began = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - began)
    return num_bytes / best


def layers(width: int, heads: int, nodes: int, repeats: int) -> dict[str, dict[str, float]]:
    """CPU time and wall time of each layer in this process, in turns."""
    from torch_geometric.nn import GATv2Conv, TransformerConv

    torch.manual_seed(0)
    table, x = torch.randint(nodes, (nodes, NEIGHBORS)), torch.randn(nodes, width)
    edges = torch.stack([table.flatten(), torch.arange(nodes).repeat_interleave(NEIGHBORS)])
    made = {
        "graphfm": Layer(width, heads, table, backend="numba"),
        "graphfm:bfloat16": Layer(width, heads, table, backend="numba", storage="bfloat16"),
        "graphfm:autocast": Layer(width, heads, table, autocast=True, backend="numba", storage="bfloat16"),
        "graphfm:torch": Layer(width, heads, table, backend="torch"),
        "transformer_conv": TransformerConv(width, width // heads, heads=heads),
        "gatv2_conv": GATv2Conv(width, width // heads, heads=heads, add_self_loops=False),
        "floor": Layer(width, heads, table),
        "core": Core(heads, table),
    }

    def once(layer: nn.Module) -> tuple[float, float]:
        h, arguments = x.clone().requires_grad_(), () if isinstance(layer, Layer | Core) else (edges,)
        began = time.process_time(), time.perf_counter()
        layer(h, *arguments).sum().backward()
        return time.process_time() - began[0], time.perf_counter() - began[1]

    times = {name: [] for name in made}
    for turn in range(repeats + 1):
        for name, layer in made.items():
            cost = once(layer)
            if turn:  # the first compiles, and fills the caches
                times[name].append(cost)
    least = {
        name: [round(1e3 * min(column), 2) for column in zip(*costs, strict=True)] for name, costs in times.items()
    }
    states = 4 * nodes * width
    for name, size in (("bound", states), ("bound:pair", 2 * states)):
        bound = 1e3 * 3 * 2 * NEIGHBORS * states / copy_speed(size, repeats)
        least[name] = [round(bound * torch.get_num_threads(), 2), round(bound, 2)]
    return {name: {"cpu_ms": cpu, "wall_ms": wall} for name, (cpu, wall) in least.items()}


def training_speed(num_cells: int, scratch: Path) -> dict[str, float]:
    """Seconds of a step of this process and its fellows, where there are any."""
    adata = graphfm.datasets.toy(num_cells=num_cells, num_genes=500)
    pp.knn_graph(adata)
    config = TrainConfig(steps=STEPS, parts=max(PROCESSES), tiles_per_batch=4 * max(PROCESSES))
    pretrain(tl.new_model("small"), [cell_graph(adata)], scratch, config=config)
    seconds = sorted(record["seconds"] for record in read(scratch)[STEPS // 4 :])
    return {"seconds": seconds[len(seconds) // 2], "cells_per_step": config.tile_size * config.tiles_per_batch}


def jobs(cells: Sequence[int], nodes: int) -> list[dict]:
    """What identifies each process: a number of cells, or the shape of a layer and an allocator."""
    scaling = [
        {"dataset": "synthetic", "setting": "load", "method": "graphfm", "num_cells": n, "seed": 0} for n in cells
    ]
    layer = [
        {"dataset": "random_graph", "setting": f"layer_{name}", "method": "graphfm", "num_cells": nodes, "seed": 0}
        | {"width": width, "heads": heads}
        for width, heads in SHAPES
        for name in ALLOCATORS
    ]
    processes = [
        {"dataset": "toy", "setting": f"processes_{n}", "method": "graphfm", "num_cells": TRAINED, "seed": 0}
        for n in PROCESSES
    ]
    return layer + processes + scaling


def run(path: Path, job: dict, scratch: Path, options: Sequence[str]) -> None:
    """Do one job in a process of its own and keep what it prints."""
    allocator = ALLOCATORS.get(job["setting"].removeprefix("layer_"), {})
    many = job["setting"].startswith("processes_")
    scratch = Path(tempfile.mkdtemp(dir=scratch)) if many else scratch
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", job["setting"][-1]] if many else []
    command = [sys.executable, *launch, __file__, "--job", json.dumps(job), "--scratch", str(scratch), *options]
    done = subprocess.run(command, env=os.environ | allocator, stdout=subprocess.PIPE, text=True, check=True)
    records = [job | json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for record in reversed(records):  # the one that says that the job is done comes last
        _spine.append(path, record | {"data_sha256": "made"} | _spine.provenance())


def table(records: list[dict]) -> str:
    """Markdown from the records alone."""
    last = {(r["setting"], r["method"], r["num_cells"], r.get("width")): r for r in records}
    sizes = sorted({n for setting, _, n, _ in last if setting in STAGES})
    lines = [
        "| cells | "
        + " | ".join(f"{stage}, s" for stage in STAGES)
        + " | recall | peak, GB | embedding, GB | predicted |"
    ]
    lines.append("|---:|" + "---:|" * (len(STAGES) + 4))
    for n in sizes:
        stages = {stage: last.get((stage, "graphfm", n, None)) for stage in STAGES}
        seconds = [f"{r['seconds']:.1f}" if r else "" for r in stages.values()]
        peak = max(r.get("peak_mb", 0.0) for stage, r in stages.items() if r and stage != "epoch") / 1e3
        recall = stages["knn"]["recall"] if stages["knn"] else math.nan
        embedding = max(stages[stage]["peak_mb"] for stage in ("gather", "tiles", "embed")) / 1e3
        predicted = stages["embed"].get("predicted_mb", math.nan) / 1e3
        memory = f"{recall:.3f} | {peak:.1f} | {embedding:.2f} | {predicted:.2f}"
        lines.append(f"| {n:,} | " + " | ".join(seconds) + f" | {memory} |")
    for setting, width in sorted({(s, w) for s, _, _, w in last if w}, key=lambda key: (key[1], key[0])):
        chosen = {method: r for (s, method, _, w), r in last.items() if (s, w) == (setting, width)}
        lines += ["", f"One layer, width {width}, {setting.removeprefix('layer_')} allocator:", ""]
        lines += ["| layer | CPU ms | times faster than `transformer_conv` |", "|---|---:|---:|"]
        base = chosen["transformer_conv"]["cpu_ms"]
        lines += [f"| `{m}` | {r['cpu_ms']:.0f} | {base / r['cpu_ms']:.2f} |" for m, r in chosen.items()]
        if "bound" in chosen:
            one, two = (chosen["core"]["wall_ms"] / chosen[b]["wall_ms"] for b in ("bound", "bound:pair"))
            lines += ["", f"The core takes {one:.1f} times the bound, {two:.1f} times that of a pair of matrices."]
    steps = {setting[-1]: r["seconds"] for (setting, *_), r in last.items() if setting.startswith("processes_")}
    if steps:
        lines += ["", "| processes | step, s | times faster than one |", "|---:|---:|---:|"]
        lines += [f"| {n} | {seconds:.3f} | {steps['1'] / seconds:.2f} |" for n, seconds in sorted(steps.items())]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="300 cells, nothing is kept")
    parser.add_argument("--readme", action="store_true", help="renew the README's block from the records, run nothing")
    parser.add_argument("--cells", type=int, nargs="*", default=CELLS, help="only these numbers of cells")
    parser.add_argument("--scratch", type=Path, help="folder for the files of cells; default: a temporary one")
    parser.add_argument("--job", type=json.loads, help="measure in this process and print")
    options = parser.parse_args()
    if options.readme:
        return _spine.renew_readme("table2", table(_spine.read(PATH)))
    if options.job:
        job, nodes = options.job, options.job["num_cells"]
        if job["setting"].startswith("processes_"):
            cost = training_speed(nodes, options.scratch)
            if os.environ["RANK"] == "0":
                print(json.dumps(cost))
            return
        if job["setting"] != "load":
            for method, cost in layers(job["width"], job["heads"], nodes, 1 if options.smoke else 5).items():
                print(json.dumps({"method": method, **cost}))
            return
        genes = 200 if options.smoke else GENES
        measure(nodes, genes, job["seed"], options.scratch, lambda record: print(json.dumps(record), flush=True))
        return
    with tempfile.TemporaryDirectory() as temporary:
        scratch = options.scratch or Path(temporary)
        path = Path(temporary) / PATH.name if options.smoke else PATH
        arguments = ["--smoke"] if options.smoke else []
        cells, nodes = ((300,), 300) if options.smoke else (options.cells, NODES)
        todo = _spine.pending(path, jobs(cells, nodes))
        for job in tqdm([todo[0], *todo[-3:]] if options.smoke else todo, disable=None):
            run(path, job, scratch, arguments)
        print(table(_spine.read(path)))


if __name__ == "__main__":
    main()
