"""Table 10: what pre-training is made of: sizes, cells, the objective's parts, the graphs, rarity, none at all.

Command: ``python experiments/table10_pretraining.py`` (``--smoke``: toy data, no mirror; ``--readme``: renew the
         README); ``--dataset``, ``--method`` run a part, several processes may share the file
Cost:    an hour and a half of one core, a quarter of it for ``base``, 2.3 GB; resumable, also within
         a run (``runs/pretraining``)
Expect:  see the README

Rows:    neighbour agreement on the corpus of the shipped weights (``small``), with one thing changed, 1000 steps each.
         Sizes: ``tiny`` 2 blocks of width 32, ``small`` 8 of 64, ``wide`` 8 of 128, ``base`` 16 of 256.
         ``cells:1/8`` to ``1/2``: part of every data set. ``own``, ``half``, ``neighbor``: share of cells that are to
         agree with a neighbour 0, 0.5, 1 (small: 0.9), the others with themselves. ``mask:0`` to ``60``: per cent of
         entries hidden (small: 30). ``knn``, ``spatial``: these graphs alone, the latter where there are coordinates.
         ``rarity``: small communities as often as large ones. ``expression``: hidden counts told from what is visible.
         ``untrained``.
Scores:  of cells that no row was trained on. ``loss``: a channel, by the objective of ``small`` for every row (1: its
         reader does not agree with a neighbour's, 0: in all, and no channel like another). ``avgbio`` of the embedding
         (`tl.embed`), ``reader`` of its learned half alone, ``carrier`` of the other half, as it is
         (``weigh=False``).
Cost:    ``seconds``, ``peak_mb`` of the training; ``num_parameters`` without gene embeddings.

Read with care: one seed, one corpus of 20,000 cells; nothing was chosen by this table.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import _spine
import numpy as np
import pandas as pd
import table0_embedding as table0
import torch
from anndata import AnnData
from pretrain_small import CORPUS, LIBRARY_KEY, region

from graphfm import datasets, tl
from graphfm.data.prepare import cell_graph
from graphfm.data.tiles import epoch_batches, locality_order
from graphfm.genes import vocabulary
from graphfm.models import GraphFM, GraphFMConfig
from graphfm.models.inputs import CellGraph
from graphfm.objectives import MaskedExpression, NeighborAgreement, Objective
from graphfm.tasks import cell_types
from graphfm.train import TrainConfig, pretrain

PATH = _spine.RESULTS / "table10_pretraining.jsonl"
RUNS = Path("runs/pretraining")
STEPS = 1000
KEYS = ("dataset", "setting", "method", "seed")
CONTROLS = ("shuffled", "oracle")


@dataclass(frozen=True)
class Variant:
    """What is changed of ``small``.

    Parameters
    ----------
    dim, num_layers
        Of the trunk.
    share
        Of the cells of each data set.
    relation
        The only graph, where a data set has it.
    rarity, objective
        Of the training.
    steps
        0: none.
    """

    dim: int = 64
    num_layers: int = 8
    share: float = 1.0
    relation: str | None = None
    rarity: float = 0.0
    objective: Objective = field(default_factory=NeighborAgreement)
    steps: int = STEPS


VARIANTS = {
    "untrained": Variant(steps=0),
    "tiny": Variant(dim=32, num_layers=2),
    "small": Variant(),
    "wide": Variant(dim=128),
    "base": Variant(dim=256, num_layers=16),
    "cells:1/8": Variant(share=1 / 8),
    "cells:1/4": Variant(share=1 / 4),
    "cells:1/2": Variant(share=1 / 2),
    "own": Variant(objective=NeighborAgreement(neighbor_share=0.0)),
    "half": Variant(objective=NeighborAgreement(neighbor_share=0.5)),
    "neighbor": Variant(objective=NeighborAgreement(neighbor_share=1.0)),
    "mask:0": Variant(objective=NeighborAgreement(mask_share=0.0)),
    "mask:15": Variant(objective=NeighborAgreement(mask_share=0.15)),
    "mask:60": Variant(objective=NeighborAgreement(mask_share=0.6)),
    "knn": Variant(relation="knn"),
    "spatial": Variant(relation="spatial"),
    "rarity": Variant(rarity=1.0),
    "expression": Variant(objective=MaskedExpression()),
}
CASES = tuple(
    case
    for case in table0.CASES
    if (case.dataset, case.setting)
    in {
        ("paul15_myeloid", "cell_types"),
        ("pbmc_facs_garnett800", "cell_types"),
        ("sc_mixology", "cell_types"),
        ("starmap_v1_1k", "cell_types"),
        ("dlpfc_151675", "domains"),
        ("her2st_labelled8", "domains"),
        ("starmap_mpfc_BZ9", "domains"),
    }
)
ORDER = ("shuffled", *VARIANTS, "oracle")


def jobs(cases: Sequence[table0.Case]) -> list[dict]:
    """What identifies a record; methods outermost, since each has one training."""
    return [
        {"dataset": case.dataset, "setting": case.setting, "method": method, "seed": 0}
        for method in ORDER
        for case in cases
    ]


def part(adata: AnnData, share: float) -> AnnData:
    """A strip of a section, cells drawn at random where there are no coordinates."""
    number = max(100, round(share * adata.n_obs))
    if "spatial" in adata.obsm or number >= adata.n_obs:
        return region(adata, number)
    return adata[np.sort(np.random.default_rng(0).permutation(adata.n_obs)[:number])].copy()


def corpus(variant: Variant, smoke: bool) -> list[CellGraph]:
    """Data sets to train on, with their graphs."""
    if smoke:
        data = {"toy": datasets.toy(num_cells=300, num_genes=200, seed=1)}
    else:
        data = {name: region(datasets.load(name)) for name in CORPUS}
    cells = []
    for name, adata in data.items():
        adata = part(adata, variant.share)
        there = {"knn", "spatial"} if "spatial" in adata.obsm else {"knn"}
        chosen = (variant.relation,) if variant.relation in there else None
        tl.build_graphs(adata, relations=chosen, library_key=LIBRARY_KEY.get(name))
        cells.append(cell_graph(adata, relations=chosen, name=name))
    return cells


@cache
def trained(method: str, smoke: bool) -> tuple[GraphFM, dict[str, float]]:
    """A row's weights, and what they cost."""
    variant = VARIANTS[method]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shape = {"dim": variant.dim, "num_layers": variant.num_layers}
        model = GraphFM(GraphFMConfig(len(vocabulary()), vocabulary().version, **shape)).eval()
    if not variant.steps:
        return model, {"seconds": 0.0}
    steps = 3 if smoke else variant.steps
    config = TrainConfig(steps=steps, rarity=variant.rarity, objective=variant.objective)
    data = corpus(variant, smoke)
    with tempfile.TemporaryDirectory() as scratch, _spine.measured() as cost:
        model = pretrain(model, data, scratch if smoke else RUNS / method.replace("/", "_"), config=config)
    return model, {**cost, "corpus_cells": sum(len(cells.totals) for cells in data)}


@torch.no_grad()
def loss(model: GraphFM, cells: CellGraph, batches: int = 8) -> float:
    """How far cells' readers are from their neighbours', a channel, on the same batches and masks for all."""
    order = locality_order(cells.neighborhood, 64)
    found = []
    for number, core in enumerate(epoch_batches(order, tile_size=64, tiles_per_batch=4, seed=0, epoch=0)):
        if number == batches:
            break
        _, told = NeighborAgreement()(model, cells, core, torch.Generator().manual_seed(number))
        found.append(told["loss"] / model.config.dim)
    return float(np.mean(found))


@cache
def labelled(case: table0.Case) -> tuple[AnnData, CellGraph | None]:
    """Cells of a case with their graphs, and what the objective reads of them, where there are counts."""
    adata = table0.load(case)
    relations = table0.RELATIONS[case.setting]
    tl.build_graphs(adata, relations=relations, library_key=case.library_key, kind=case.kind)
    counted = case.kind == "counts"
    return adata, cell_graph(adata, relations=relations, organism=case.organism) if counted else None


def run(job: dict, *, smoke: bool = False) -> list[dict]:
    """A record: a row on a labelled data set."""
    method, seed = job["method"], job["seed"]
    cases = table0.SMOKE if smoke else CASES
    case = next(c for c in cases if (c.dataset, c.setting) == (job["dataset"], job["setting"]))
    adata, cells = labelled(case)
    truth = adata.obs[case.label].astype(str).to_numpy()
    facts = {"num_cells": adata.n_obs, "num_genes": adata.n_vars, "num_classes": len(set(truth))}
    if method in CONTROLS:
        scores = cell_types.evaluate(cell_types.controls(truth, seed)[method], truth, seed)
    else:
        model, cost = trained(method, smoke)
        options = {"relations": table0.RELATIONS[case.setting], "kind": case.kind, "organism": case.organism}
        tl.embed(adata, model, **options)
        scores = cell_types.evaluate(adata.obsm["X_graphfm"], truth, seed)
        tl.embed(adata, model, weigh=False, **options)
        for name, half in zip(("carrier", "reader"), np.hsplit(adata.obsm["X_graphfm"], 2), strict=True):
            scores[name] = cell_types.evaluate(half, truth, seed)["avgbio"]
        if cells is not None:
            scores["loss"] = loss(model, cells)
        facts["num_parameters"] = sum(p.numel() for name, p in model.named_parameters() if "embedding" not in name)
        facts |= {"steps": VARIANTS[method].steps, **cost}
    sha256 = "toy" if case.dataset == "toy" else datasets.info(case.dataset).files[0].sha256
    return [{**job, **_spine.rounded(scores), **facts, **_spine.provenance(), "data_sha256": sha256}]


SCORES = {"loss": "loss", "avgbio": "AvgBIO", "carrier": "carrier alone", "reader": "reader alone"}


def whole(records: Sequence[dict]) -> pd.DataFrame:
    """The last record of each job, of the rows that have all data sets."""
    columns = [*KEYS, *SCORES, "num_parameters", "corpus_cells", "seconds"]
    found = pd.DataFrame(records, columns=columns).drop_duplicates(list(KEYS), keep="last")
    number = found.groupby("method")["dataset"].transform("size")
    return found[number == number.max()]


def table(records: Sequence[dict]) -> str:
    """Markdown: a row a variant, means over the labelled data sets of each kind."""
    found = whole(records)
    if found.empty:
        return ""
    settings = [setting for setting in table0.RELATIONS if setting in set(found["setting"])]
    number = found.groupby("setting")["dataset"].nunique()
    means = found.groupby(["method", "setting"])[list(SCORES)].mean()
    titles = [f"{title}, {setting.replace('_', ' ')}" for title in SCORES.values() for setting in settings]
    lines = ["| row | " + " | ".join(titles) + " | weights | cells | minutes |", "|---|" + "---:|" * (len(titles) + 3)]
    for method in [m for m in ORDER if m in set(found["method"])]:
        values = [means.loc[(method, setting), score] for score in SCORES for setting in settings]
        cells = [f"{value:.3f}" if value == value else "" for value in values]
        weights, trained_on, seconds = found.loc[
            found["method"] == method, ["num_parameters", "corpus_cells", "seconds"]
        ].mean()
        cells += [f"{value:,.0f}" if value == value else "" for value in (weights, trained_on)]
        lines.append(f"| `{method}` | " + " | ".join([*cells, f"{seconds / 60:.1f}" if seconds > 0 else ""]) + " |")
    told = ", ".join(f"{number[setting]} of {setting.replace('_', ' ')}" for setting in settings)
    return "\n".join([*lines, "", f"Means over data sets: {told}. One seed."]) + "\n"


def smoke_jobs() -> list[dict]:
    """Two rows and the controls, on the toy."""
    rows = ("shuffled", "untrained", "small", "oracle")
    return [job for job in jobs(table0.SMOKE) if job["method"] in rows]


def main() -> None:
    """Run what is asked for and not done, print the table."""
    _spine.drive(
        __doc__,
        PATH,
        jobs=lambda: jobs(CASES),
        smoke=smoke_jobs,
        run=lambda job: run(job, smoke=job["dataset"] == "toy"),
        render=table,
    )


if __name__ == "__main__":
    main()
