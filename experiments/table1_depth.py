"""Table 1: depth without over-smoothing. Every known remedy at 2 to 64 layers, on citations, a puzzle and omics.

Command: ``python experiments/table1_depth.py`` (``--smoke``: toy graph, no mirror; ``--readme``: renew the README)
Cost:    many hours on two cores, resumable; ``--dataset``, ``--method``, ``--depth``, ``--track`` run a part of it
Expect:  at 64 layers the trunk's block keeps its scores where a GCN falls to chance; see the README for what is done

Rows:    the blocks of `graphfm.models.baselines` under one stem, readout and training; ``graphfm``: the trunk's block.
Tracks:  ``supervised``: cross-entropy on the labelled nodes. ``consistency``: moreover two passes, each with half of
         the nodes left out at the stem, shall agree on all nodes (random propagation, arXiv 2005.11079).
Scores:  of test nodes, at the epoch that is best on validation nodes (the least loss; for AUROC the score):
         ``accuracy``, ``macro_f1``, ``rare_recall``, ``auroc``. Of the states of that epoch: effective rank, Dirichlet
         energy. ``gradient_first``, ``gradient_last``: length of the loss's gradient in a layer, median over epochs.
Splits:  Cora and CiteSeer: the public one; Minesweeper: its ten. Blood progenitors and cortex: a tenth of each class
         to train, a tenth to validate, drawn by the seed.
Settings: one recipe a kind of graph. Learning rate, dropout, weight decay of the blocks and weight of the consistency
         are chosen for each method by its score on validation nodes, at 2, at 4, and at 8 layers for 8 and more,
         with seeds of their own (``--tune``).
Seeds:   ten at 2 and 64 layers and three between of five blocks (``RIVALS``); of the others three and one on citations,
         one elsewhere.
Features: of cells and spots the first 50 principal components of logarithms of totals of 10^4.

Read with care: the validation nodes of the public splits are 500 labels, more than are trained on. The tissue's test
spots lie between training spots, which favours smoothing.
"""

import argparse
import copy
import itertools
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import _spine
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from graphfm import datasets, io, tl
from graphfm.allocator import keep_freed_memory
from graphfm.data.prepare import cell_neighborhood
from graphfm.metrics.smoothing import depth_profile, gradient_norms
from graphfm.models.baselines import BLOCKS, DeepNet
from graphfm.models.node_graph import NodeGraph
from graphfm.nn import calibrate
from graphfm.nn.neighborhood import SparseRows
from graphfm.tasks import node_classes

PATH = _spine.RESULTS / "table1_depth.jsonl"
TUNING = _spine.RESULTS / "table1_depth_tuning.jsonl"
PROFILES = _spine.RESULTS / "table1_depth_profile.jsonl"
WIDTH = 64
CHECKPOINT_FROM = 1_000_000  # nodes times layers: recompute activations instead of storing them
DEPTHS = (2, 4, 8, 16, 32, 64)
ENDS, MAX_DEPTH = (2, 64), max(DEPTHS)
TUNING_DEPTHS = {2: (2,), 4: (4,), 8: (8, 16, 32, 64)}  # where settings are tried, for which depths
METHODS = tuple(BLOCKS)
RIVALS = ("gcn", "appnp", "gcnii", "batchnorm_residual", "graphfm")  # these have the most seeds, and both tracks
ROWS = {"supervised": METHODS, "consistency": RIVALS}
CONTROLS = ("shuffled", "oracle")
KEYS = ("dataset", "setting", "method", "num_layers", "seed")
GRADIENTS = ("gradient_first", "gradient_last")
SCORES = {
    "accuracy": "accuracy of test nodes",
    "auroc": "AUROC of test nodes",
    "macro_f1": "macro-F1 of test cells; recall of the rarest class",
}
NUMBERS = (
    *("accuracy", "macro_f1", "rare_recall", "auroc", "effective_rank", "stem_rank"),
    *("dirichlet_energy_normalized", "seconds", "peak_mb", *GRADIENTS),
)
TITLES = {
    "planetoid_cora": "Cora",
    "planetoid_citeseer": "CiteSeer",
    "heterophilous_minesweeper": "Minesweeper",
    "paul15_myeloid": "Blood progenitors, cell graph",
    "dlpfc_151673": "Cortex section, tissue graph",
}


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; the same for every method but for what is tuned."""

    lr: float = 0.03
    weight_decay: float = 3e-3
    block_weight_decay: float = 1e-2
    dropout: float = 0.6
    epochs: int = 200
    patience: int = 50
    every: int = 5
    cosine: bool = True
    score: str = "accuracy"
    consistency: float = 0.0


HOMOPHILOUS = Recipe()
PUZZLE = replace(HOMOPHILOUS, lr=0.01, weight_decay=0.0, block_weight_decay=0.0, dropout=0.2, every=10, score="auroc")
OMICS = replace(HOMOPHILOUS, lr=0.01, epochs=300, cosine=False, score="macro_f1")
# from little to so much that a block is left with what it does without weights
STRENGTHS = tuple(
    {"dropout": dropout, "block_weight_decay": decay}
    for dropout, decay in ((0.3, 5e-4), (0.6, 5e-4), (0.6, 1e-2), (0.6, 1.0))
)
FAST = tuple({"lr": 0.03} | strength for strength in STRENGTHS[1:])
SCARCE = (*({"lr": 0.01} | strength for strength in STRENGTHS[:2]), *FAST)
AGREEING = tuple(choice | {"consistency": weight} for choice in FAST for weight in (1.0, 2.0))  # for that track
RATES = ({"lr": 0.01}, {"lr": 0.03})
CHOSEN = ("lr", "dropout", "block_weight_decay", "consistency")


@dataclass(frozen=True)
class Case:
    """A graph with labelled nodes; `grid` is chosen from; `label` and `relation` for those that come from cells."""

    dataset: str
    recipe: Recipe = HOMOPHILOUS
    grid: tuple[dict[str, float], ...] = field(default=STRENGTHS, hash=False)
    tracks: tuple[str, ...] = ("supervised",)
    label: str = ""
    relation: str = ""


CASES = (
    Case("planetoid_cora", grid=SCARCE, tracks=("supervised", "consistency")),
    Case("planetoid_citeseer", grid=SCARCE, tracks=("supervised", "consistency")),
    Case("heterophilous_minesweeper", PUZZLE, RATES),
    Case("paul15_myeloid", OMICS, label="cell_type", relation="knn"),
    Case("dlpfc_151673", OMICS, label="layer", relation="spatial"),
)
# not in the table: for a machine with a network, by --dataset
LARGE = (Case("planetoid_pubmed", grid=SCARCE), Case("ogbn_arxiv", replace(HOMOPHILOUS, weight_decay=0.0, dropout=0.2)))
SMOKE = Case("toy", Recipe(lr=0.01, epochs=20, patience=20, every=2, cosine=False), label="cell_type", relation="knn")


@dataclass(frozen=True)
class Problem:
    """Features, classes and graph of a case, and one split of its nodes."""

    x: Tensor | SparseRows
    y: Tensor
    graph: NodeGraph
    train: Tensor
    validation: Tensor
    test: Tensor


def sparse_rows(x: Tensor) -> SparseRows:
    """Features that are mostly zero."""
    row, column = x.nonzero(as_tuple=True)
    return SparseRows.from_entries(row, column, x[row, column], tuple(x.shape))


@cache
def cell_problem(case: Case) -> tuple[Tensor, Tensor, NodeGraph]:
    """Principal components in units of the first one's spread, classes, graph without weights."""
    adata = datasets.toy(num_cells=300, num_genes=100) if case.dataset == "toy" else datasets.load(case.dataset)
    known = adata.obs[case.label].notna() & (adata.obs[case.label].astype(str) != "NA")
    adata = adata[known.to_numpy()].copy()
    adata.X = io.expression(adata, target_sum=1e4)
    tl.build_graphs(adata, relations=("knn", case.relation) if case.relation != "knn" else ("knn",), kind="log1p")
    nb = cell_neighborhood(adata, relations=(case.relation,))
    row, slot = torch.nonzero(nb.weight > 0, as_tuple=True)
    x = torch.from_numpy(np.asarray(adata.obsm["X_pca"], dtype=np.float32))
    y = torch.from_numpy(np.unique(adata.obs[case.label].astype(str), return_inverse=True)[1].astype(np.int64))
    return x / x[:, 0].std(), y, NodeGraph.from_edges(torch.stack([row, nb.index[row, slot]]), len(x))


def stratified(y: Tensor, seed: int, share: float = 0.1) -> tuple[Tensor, Tensor, Tensor]:
    """Masks of a tenth of each class to train, a tenth to validate (at least two of each), and the rest."""
    generator, masks = torch.Generator().manual_seed(seed), torch.zeros(3, len(y), dtype=torch.bool)
    for label in y.unique():
        nodes = torch.nonzero(y == label).squeeze(1)
        nodes, cut = nodes[torch.randperm(len(nodes), generator=generator)], max(round(share * len(nodes)), 2)
        for mask, part in zip(masks, nodes.tensor_split([cut, 2 * cut]), strict=True):
            mask[part] = True
    return tuple(masks)


@cache
def graph_problem(dataset: str) -> tuple[Tensor | SparseRows, Tensor, NodeGraph, tuple[Tensor, Tensor, Tensor]]:
    """A graph of the registry with its own splits."""
    data = datasets.load(dataset)
    x = data.x.float()
    if dataset.startswith("planetoid"):  # words: each paper's sum to 4
        x = sparse_rows(4 * x / x.sum(1, keepdim=True).clamp(min=1))
    graph = NodeGraph.from_edges(data.edge_index, data.num_nodes)
    return x, data.y, graph, (data.train_mask, data.val_mask, data.test_mask)


def load(case: Case, seed: int) -> Problem:
    """The split of a seed."""
    if case.label:
        x, y, graph = cell_problem(case)
        return Problem(x, y, graph, *stratified(y, seed))
    x, y, graph, masks = graph_problem(case.dataset)
    return Problem(x, y, graph, *(mask[:, seed % mask.shape[1]] if mask.ndim == 2 else mask for mask in masks))


def loss_of(passes: Sequence[Tensor], problem: Problem, weight: float) -> Tensor:
    """Cross-entropy, and the distance of each pass from their sharpened mean on all nodes."""
    loss = sum(F.cross_entropy(logits[problem.train], problem.y[problem.train]) for logits in passes) / len(passes)
    if len(passes) > 1:
        shares = [logits.softmax(1) for logits in passes]
        target = (sum(shares) / len(shares)).square()
        target = (target / target.sum(1, keepdim=True)).detach()
        loss = loss + weight * sum((share - target).square().sum(1).mean() for share in shares) / len(shares)
    return loss


def fit(net: DeepNet, problem: Problem, recipe: Recipe) -> tuple[dict[str, float], np.ndarray]:
    """Train, and leave the net at its best epoch: validation scores there, gradient norms ``[epochs, layers]``."""
    optimizer = torch.optim.Adam(net.parameter_groups(recipe.lr, recipe.weight_decay, recipe.block_weight_decay))
    best, kept, waited, norms = {"loss": math.inf, "score": -1.0}, copy.deepcopy(net.state_dict()), 0, []
    for epoch in range(recipe.epochs):
        ramp = min(1.0, epoch / 100)
        if recipe.cosine:
            share = epoch / recipe.epochs
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * min(1.0, 20 * share + 0.01) * 0.5 * (1 + math.cos(math.pi * share))
        net.train()
        optimizer.zero_grad()
        passes = [net(problem.x, problem.graph) for _ in range(2 if recipe.consistency else 1)]
        loss_of(passes, problem, ramp * recipe.consistency).backward()
        norms.append(gradient_norms(net.blocks))
        optimizer.step()
        if (epoch + 1) % recipe.every:
            continue
        now = validate(net, problem, recipe.score)
        # accuracy of 500 nodes has steps: the smooth loss chooses, but where only the order of the scores counts
        better = now["score"] > best["score"] if recipe.score == "auroc" else now["loss"] < best["loss"]
        if better:
            best, kept, waited = now | {"epoch": epoch}, copy.deepcopy(net.state_dict()), 0
        elif (waited := waited + recipe.every) >= recipe.patience:
            break
    net.load_state_dict(kept)
    return best, np.array(norms)


@torch.no_grad()
def validate(net: DeepNet, problem: Problem, score: str) -> dict[str, float]:
    """Loss and score of the validation nodes, with the batch norms' statistics as they are without dropout."""
    calibrate(net, [lambda: net(problem.x, problem.graph)])
    logits, truth = net.eval()(problem.x, problem.graph)[problem.validation], problem.y[problem.validation]
    if not torch.isfinite(logits).all():
        return {"loss": math.inf, "score": -1.0}
    scores = node_classes.evaluate(logits.numpy(), truth.numpy())
    return {"loss": float(F.cross_entropy(logits, truth)), "score": scores[score]}


def train(
    case: Case, method: str, num_layers: int, seed: int, recipe: Recipe
) -> tuple[DeepNet, Problem, dict, np.ndarray]:
    """A network of one seed."""
    problem = load(case, seed)
    torch.manual_seed(seed)
    width = problem.x.column.max() + 1 if isinstance(problem.x, SparseRows) else problem.x.shape[1]
    net = DeepNet(
        int(width),
        WIDTH,
        int(problem.y.max()) + 1,
        num_layers=num_layers,
        block=method,
        dropout=recipe.dropout,
        drop_nodes=0.5 if recipe.consistency else 0.0,
        checkpoint=num_layers * len(problem.y) > CHECKPOINT_FROM,
    )
    return net, problem, *fit(net, problem, recipe)


def recipe_of(case: Case, track: str, method: str, num_layers: int, tuning: Sequence[dict]) -> Recipe:
    """The case's recipe with what was best on validation nodes, as far as that was tried."""
    recipe = replace(case.recipe, consistency=1.0, epochs=300) if track == "consistency" else case.recipe
    scores: dict[tuple, list[float]] = {}
    for record in tuning:
        same = (record["dataset"], record["setting"], record["method"]) == (case.dataset, track, method)
        if same and num_layers in TUNING_DEPTHS[record["num_layers"]]:
            tried = tuple((key, record[key]) for key in CHOSEN if key in record)
            scores.setdefault(tried, []).append(record["validation_score"])
    return replace(recipe, **dict(max(scores, key=lambda tried: np.mean(scores[tried]), default=())))


def run(case: Case, job: dict, recipe: Recipe) -> tuple[dict, list[dict]]:
    """Record of one network, and of its layers."""
    if job["method"] in CONTROLS:
        problem = load(case, job["seed"])
        truth = problem.y[problem.test].numpy()
        scores = node_classes.evaluate(node_classes.controls(truth, job["seed"])[job["method"]], truth)
        return {**job, **{key: _number(value) for key, value in scores.items()}, **_facts(case, problem)}, []
    with _spine.measured() as cost:
        net, problem, best, norms = train(case, job["method"], job["num_layers"], job["seed"], recipe)
    with torch.no_grad():
        states = net.eval().states(problem.x, problem.graph)
        logits = torch.nan_to_num(net.read(states)[problem.test])
    scores = node_classes.evaluate(logits.numpy(), problem.y[problem.test].numpy(), job["seed"])
    whole = job["seed"] == 0 and job["num_layers"] == MAX_DEPTH
    shown = [torch.nan_to_num(h) for h in (states if whole else [states[0], states[-1]])]
    profile, gradient = depth_profile(shown, problem.graph.edge_index), np.median(norms, axis=0)
    facts = {
        "validation_loss": min(best["loss"], 1e9),
        "validation_score": best["score"],
        "epoch": best.get("epoch", -1),
        "epochs": len(norms),
        "stem_rank": profile[0]["effective_rank"],
        **{key: value for key, value in profile[-1].items() if key != "layer"},
        "gradient_first": gradient[0],
        "gradient_last": gradient[-1],
    }
    facts = {key: _number(value) for key, value in (scores | facts).items()}
    facts |= {key: getattr(recipe, key) for key in CHOSEN}
    shared = _facts(case, problem)
    layers = [
        {**job, **{key: _number(value) for key, value in layer.items()}, "gradient_norm": _number(norm), **shared}
        for layer, norm in zip(profile, [math.nan, *gradient], strict=whole)
    ]
    return {**job, **facts, **cost, **shared}, layers if whole else []


def _facts(case: Case, problem: Problem) -> dict:
    """Sizes and provenance."""
    sizes = {"num_cells": len(problem.y), "num_classes": int(problem.y.max()) + 1, "width": WIDTH}
    origin = "toy" if case.dataset == "toy" else datasets.info(case.dataset).files[0].sha256
    return {**sizes, **_spine.provenance(), "data_sha256": origin}


def _number(value: float) -> float | None:
    """Six digits; None where there is no number, as the gradient of a layer that has nothing to learn."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def jobs(case: Case) -> list[dict]:
    """What identifies the records of a case: the controls, then each block at each depth, as often as `seeds` says."""
    depths, most = ((2, 4), 1) if case.dataset == "toy" else (DEPTHS, 10)
    controls = [
        {"dataset": case.dataset, "setting": "supervised", "method": method, "num_layers": 0, "seed": seed}
        for method in CONTROLS
        for seed in range(most)
    ]
    return controls + [
        {"dataset": case.dataset, "setting": track, "method": method, "num_layers": depth, "seed": seed}
        for track, depth in itertools.product(case.tracks, depths)
        for method in ROWS[track]
        for seed in range(min(most, seeds(case, method, depth)))
    ]


def seeds(case: Case, method: str, num_layers: int) -> int:
    """Ten at both ends of depth, three between; of blocks that are no rival 3 and 1, or 1 where runs are slow."""
    quick = case.dataset in ("planetoid_cora", "planetoid_citeseer")
    ends, between = (10, 3) if method in RIVALS else (3, 1) if quick else (1, 1)
    return ends if num_layers in ENDS else between


def tuning_jobs(case: Case) -> list[dict]:
    """The grid for each method: three seeds where a run takes seconds, else one; none that the table has."""
    return [
        {"dataset": case.dataset, "setting": track, "method": method, "num_layers": depth, "seed": seed, **choice}
        for depth in TUNING_DEPTHS
        for track in case.tracks
        for method in ROWS[track]
        for choice in (AGREEING if track == "consistency" else case.grid)
        for seed in ((100, 101, 102) if depth < 8 and track == "supervised" else (100,))
    ]


def wanted(job: dict, options: argparse.Namespace) -> bool:
    """Whether a job is in the part that was asked for."""
    fields = {"dataset": "dataset", "method": "method", "depth": "num_layers", "track": "setting", "seed": "seed"}
    return all(not getattr(options, name) or job[field] in getattr(options, name) for name, field in fields.items())


def summarize(records: Sequence[dict]) -> pd.DataFrame:
    """Means, standard deviations and numbers of seeds, a row for each case, track, method and depth."""
    keys = list(KEYS[:-1])
    frame = pd.DataFrame(records).drop_duplicates(KEYS, keep="last")
    frame = frame.reindex(columns=[*KEYS, *NUMBERS]).astype(dict.fromkeys(NUMBERS, float))
    groups = frame.groupby(keys, sort=False)
    deviations = groups[list(NUMBERS)].std().fillna(0.0).add_suffix("_sd")
    return pd.concat([groups[list(NUMBERS)].mean(), deviations, groups.size().rename("seeds")], axis=1).sort_index()


def table(records: Sequence[dict]) -> str:
    """Markdown: for each graph and track the score by depth, then what the states at the deepest are like."""
    summary, lines = summarize(records), []
    for case in (*CASES, *LARGE, SMOKE):
        for track in case.tracks:
            if (case.dataset, track) in {key[:2] for key in summary.index if key[2] not in CONTROLS}:
                part, score = summary.loc[case.dataset, track], case.recipe.score
                controls = summary.loc[case.dataset, "supervised"].reindex([(name, 0) for name in CONTROLS])[score]
                part = part[~part.index.get_level_values("method").isin(CONTROLS)]
                lines += ["", f"**{TITLES.get(case.dataset, case.dataset)}**, {track}: {SCORES[score]}", ""]
                lines += _by_depth(part, score, rare=bool(case.label))
                lines += ["", _bracket(controls, part, score)]
    planned = {tuple(job[key] for key in KEYS) for case in CASES for job in jobs(case)}
    done = planned & {tuple(record[key] for key in KEYS) for record in records}
    if 0 < len(done) < len(planned):
        lines += ["", f"{len(done):,} of {len(planned):,} runs are done; what is empty is still to come."]
    return "\n".join(lines[1:]) + "\n"


def _bracket(controls: pd.Series, part: pd.DataFrame, score: str) -> str:
    """The controls, whatever is not between them, and how many seeds there are."""
    (low, high), seeds = controls, part["seeds"]
    outside = [f"`{m}` at {depth}" for (m, depth), row in part.iterrows() if not low <= row[score] <= high]
    told = f"not between these: {', '.join(outside)}" if outside else "every score is between these"
    told = "the controls are still to be run" if math.isnan(low + high) else told
    return f"Labels dealt at random {low:.3f}, true labels {high:.3f}; {told}. {seeds.min()} to {seeds.max()} seeds."


def _by_depth(part: pd.DataFrame, score: str, *, rare: bool) -> list[str]:
    """A line a block, a column a depth; best is what is within rounding of the best mean."""
    depths, present = sorted(part.index.unique("num_layers")), part.index.unique("method")
    shallow, deep = depths[0], depths[-1]
    head = [f"{depth} layers" for depth in depths] + ([f"rarest, {shallow} → {deep}"] if rare else [])
    head += [f"rank at {deep} (stem)", f"energy at {deep}", f"gradient at {deep}, first / last layer"]
    lines = ["| block | " + " | ".join(head) + " |", "|---|" + "---:|" * len(head)]
    best = {depth: part.xs(depth, level="num_layers")[score].round(3).max() for depth in depths}
    for method in [m for m in METHODS if m in present]:
        rows = {depth: part.loc[method, depth] for depth in depths if (method, depth) in part.index}
        cells = []
        for depth in depths:
            text = _mean(rows[depth], score) if depth in rows else ""
            cells.append(f"**{text}**" if depth in rows and round(rows[depth][score], 3) == best[depth] else text)
        if rare:
            cells.append(" → ".join(f"{rows[d]['rare_recall']:.2f}" if d in rows else "" for d in (shallow, deep)))
        lines.append(f"| `{method}` | " + " | ".join([*cells, *_states(rows.get(deep))]) + " |")
    return lines


def _mean(row: pd.Series, score: str) -> str:
    spread = f" ± {row[f'{score}_sd']:.3f}" if row["seeds"] > 1 else ""
    return f"{row[score]:.3f}{spread}"


def _states(row: pd.Series | None) -> list[str]:
    """Rank, energy and gradients of the deepest network."""
    if row is None:
        return ["", "", ""]
    gradients = ["none" if math.isnan(row[name]) else f"{row[name]:.0e}" for name in GRADIENTS]
    rank = f"{row['effective_rank']:.1f} ({row['stem_rank']:.1f})"
    return [rank, f"{row['dirichlet_energy_normalized']:.3f}", " / ".join(gradients)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="toy graph, two depths; nothing is kept without --results")
    parser.add_argument("--results", type=Path, help=f"default: {PATH.relative_to(Path(__file__).parent.parent)}")
    parser.add_argument("--readme", action="store_true", help="run nothing, put the table into README.md")
    parser.add_argument("--tune", action="store_true", help="run what the settings are chosen from")
    for name, kind in (("dataset", str), ("method", str), ("depth", int), ("track", str), ("seed", int)):
        parser.add_argument(f"--{name}", type=kind, nargs="*", help="only these")
    options = parser.parse_args()
    keep_freed_memory()  # a transformer of 16 layers and more trains several times faster for it
    torch.set_num_threads(1)  # layers this small are slower on two
    torch.set_flush_denormal(True)  # states that collapse become so small that each product takes a hundred cycles
    with tempfile.TemporaryDirectory() as scratch:
        kept = TUNING if options.tune else PATH
        path = options.results or (Path(scratch) / kept.name if options.smoke else kept)
        if options.readme:
            return _spine.renew_readme("table1", table(_spine.read(path)))
        tuning = [] if options.smoke else _spine.read(TUNING)
        for case in (
            (SMOKE,) if options.smoke else (*CASES, *(c for c in LARGE if c.dataset in (options.dataset or ())))
        ):
            every = tuning_jobs(case) if options.tune else jobs(case)
            todo = _spine.pending(path, [job for job in every if wanted(job, options)])
            for job in tqdm(todo, desc=case.dataset, disable=None):
                recipe = recipe_of(case, job["setting"], job["method"], job["num_layers"], tuning)
                recipe = replace(recipe, **{key: job[key] for key in CHOSEN if key in job})
                record, layers = run(case, job, recipe)
                for layer in layers if path == PATH else []:
                    _spine.append(PROFILES, layer)
                _spine.append(path, record)
        if not options.tune:
            print(table(_spine.read(path)))


if __name__ == "__main__":
    main()
