"""What 64 layers need: memory and time of a training step, with and without recomputing activations.

Command: ``python experiments/checkpointing.py`` (``--smoke``: a small grid, nothing is kept)
Cost:    two minutes on two cores
Expect:  a step needs 0.4 GB with and 1.0 GB without recomputing, and takes half as long again

A grid of 100 x 100 nodes, as many as Minesweeper has; width 64, 64 layers of the trunk's block.
Each number is of a process of its own, because the memory of a process does not shrink: ``peak_mb`` is its largest, of
which ``before_mb`` was there before the first step. It is taken with glibc's ``MALLOC_MMAP_THRESHOLD_=65536``, which
gives every freed tensor back at once; with the default, holes in the heap hide what recomputing saves (2.9 GB for
both). ``seconds``, with the default, is the median of three steps after one to warm up.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import _spine
import networkx as nx
import torch

from graphfm.models.baselines import DeepNet
from graphfm.models.node_graph import NodeGraph

PATH = _spine.RESULTS / "checkpointing.jsonl"
METHODS = {"graphfm": False, "graphfm:checkpoint": True}
WIDTH = 64
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}


def measure(method: str, side: int, num_layers: int) -> dict[str, float]:
    """Cost of a training step in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    edges = torch.tensor([*nx.grid_2d_graph(side, side).to_directed().edges()]) @ torch.tensor([side, 1])
    graph, x = NodeGraph.from_edges(edges.T.contiguous(), side * side), torch.randn(side * side, 7)
    options = {"num_layers": num_layers, "block": "graphfm", "dropout": 0.2, "checkpoint": METHODS[method]}
    net = DeepNet(7, WIDTH, 2, **options)
    optimizer, y = torch.optim.Adam(net.parameters()), torch.randint(2, (side * side,))

    def step() -> float:
        with _spine.measured() as cost:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x, graph), y).backward()
            optimizer.step()
        costs.append(cost)
        return cost["seconds"]

    costs: list[dict] = []
    with _spine.measured() as before:
        pass
    seconds = statistics.median([step() for _ in range(4)][1:])
    peak = max((cost.get("peak_mb", 0.0) for cost in costs), default=0.0)
    return {"seconds": seconds, "before_mb": before.get("peak_mb", 0.0), "peak_mb": peak}


def table(records: list[dict]) -> str:
    """Markdown from the records alone."""
    lines = ["| | seconds a step | memory of the step, MB | memory of the process, MB |", "|---|---:|---:|---:|"]
    for r in {r["method"]: r for r in records}.values():
        step = r["peak_mb"] - r["before_mb"]
        lines.append(f"| `{r['method']}` | {r['seconds']:.2f} | {step:,.0f} | {r['peak_mb']:,.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--method", choices=METHODS, help="measure in this process and print")
    options = parser.parse_args()
    side, num_layers = (10, 4) if options.smoke else (100, 64)
    if options.method:
        print(json.dumps(measure(options.method, side, num_layers)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / PATH.name if options.smoke else PATH
        sizes = {"dataset": f"grid_{side}x{side}", "setting": "training_step", "num_layers": num_layers, "seed": 0}
        for job in _spine.pending(path, [{**sizes, "method": method} for method in METHODS]):
            command = [sys.executable, __file__, "--method", job["method"], *(["--smoke"] if options.smoke else [])]
            cost = {}
            for names, environment in {("seconds",): {}, ("before_mb", "peak_mb"): GIVES_BACK}.items():
                done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
                cost |= {name: json.loads(done.stdout)[name] for name in names}
            facts = {"num_cells": side * side, "width": WIDTH, "data_sha256": "made"}
            _spine.append(path, {**job, **cost, **facts, **_spine.provenance()})
        print(table(_spine.read(path)))


if __name__ == "__main__":
    main()
