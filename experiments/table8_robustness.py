"""Table 8: what is left of cell types in the embedding where the data are poorer than they were.

Command: ``python experiments/table8_robustness.py`` (``--smoke``: toy cells, no mirror; ``--readme``: the README);
         ``--setting``, ``--dataset``, ``--method``, ``--seed`` run a part, several processes may share the file
Cost:    a quarter of an hour of one core a seed; resumable
Expect:  see the README

Setting: ``counts``: each molecule is kept with this probability. ``genes``: this share of the genes is kept, or this
         number (a panel), drawn at random. ``edges``: this share of the kNN graph's edges leads to a cell drawn at
         random instead. ``neighbors``: so many neighbours instead of 15. ``names``: no gene has a name that the
         vocabulary knows. ``clean``: nothing of this.
Rows:    as in Table 0: ``pca``, ``pca:neighbor_mean``, ``graphfm:random``, ``graphfm``; its controls hold here, too.
         What does not look at a graph or at names has no record where only these change.
Scores:  as in Table 0, without Leiden; ``avgbio`` is what is shown. Data sets: those of Table 0 with cell types and
         counts. Components, graph and embedding are made anew from what is left.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import _spine
import numpy as np
import pandas as pd
import scipy.sparse as sp
import table0_embedding as table0
from anndata import AnnData

from graphfm import _keys, datasets, pp
from graphfm.tasks import cell_types

PATH = _spine.RESULTS / "table8_robustness.jsonl"
KEYS = ("dataset", "setting", "level", "method", "seed")
SEEDS = (0, 1, 2)
LEVELS: dict[str, tuple[float, ...]] = {
    "clean": (1.0,),
    "counts": (0.5, 0.25, 0.1),
    "genes": (0.5, 500.0, 200.0),
    "edges": (0.1, 0.3, 0.5),
    "neighbors": (5.0, 10.0, 30.0, 60.0),
    "names": (0.0,),
}
METHODS = ("pca", "pca:neighbor_mean", "graphfm:random", "graphfm")
SEES = {"edges": METHODS[1:], "neighbors": METHODS[1:], "names": METHODS[2:]}
CASES = {case.dataset: case for case in table0.CASES if case.setting == "cell_types" and case.kind == "counts"}
TITLES = {
    "clean": "as it is",
    "counts": "molecules kept",
    "genes": "genes kept",
    "edges": "edges dealt",
    "neighbors": "neighbours",
    "names": "gene names hidden",
}


def thinned(adata: AnnData, share: float, rng: np.random.Generator) -> AnnData:
    """Each molecule is kept with this probability."""
    counts = sp.csr_matrix(adata.X, copy=True)
    counts.data = rng.binomial(counts.data.astype(np.int64), share).astype(np.float32)
    counts.eliminate_zeros()
    adata = AnnData(counts, adata.obs, adata.var)
    return adata[counts.sum(axis=1).A1 > 0].copy()


def fewer_genes(adata: AnnData, kept: float, rng: np.random.Generator) -> AnnData:
    """A share of the genes, or a number of them; cells that then hold nothing are left out."""
    number = round(kept * adata.n_vars) if kept < 1 else min(int(kept), adata.n_vars)
    adata = adata[:, np.sort(rng.choice(adata.n_vars, number, replace=False))]
    return adata[sp.csr_matrix(adata.X).sum(axis=1).A1 > 0].copy()


def deal_edges(graph: sp.csr_matrix, share: float, rng: np.random.Generator) -> sp.csr_matrix:
    """The same number of edges and their weights; a share of them leads from one of its ends to any cell."""
    half = sp.triu(graph.maximum(graph.T), k=1).tocoo()
    dealt = rng.random(half.nnz) < share
    column = np.where(dealt, rng.integers(0, graph.shape[0], half.nnz), half.col)
    apart = column != half.row
    half = sp.coo_matrix((half.data[apart], (half.row[apart], column[apart])), shape=graph.shape).tocsr()
    return half.maximum(half.T)


def disturbed(job: dict) -> tuple[AnnData, table0.Case]:
    """Cells of a case with components and graph, after what the setting does to them."""
    case = table0.SMOKE[0] if job["dataset"] == "toy" else CASES[job["dataset"]]
    adata, rng, setting, level = table0.load(case), np.random.default_rng(job["seed"]), job["setting"], job["level"]
    change: Callable | None = {"counts": thinned, "genes": fewer_genes}.get(setting)
    if change is not None:
        adata = change(adata, level, rng)
    if setting == "names":
        adata.var_names = [f"unknown {number}" for number in range(adata.n_vars)]
        case = replace(case, organism="other")
    k = {"n_neighbors": min(int(level), adata.n_obs - 1)} if setting == "neighbors" else {}
    pp.knn_graph(adata, kind=case.kind, **k)
    if setting == "edges":
        adata.obsp[_keys.CONNECTIVITIES] = deal_edges(adata.obsp[_keys.CONNECTIVITIES], level, rng)
        del adata.obsp[_keys.DISTANCES]  # of edges that no longer are there
    return adata, case


def run(job: dict) -> list[dict]:
    """One record."""
    adata, case = disturbed(job)
    truth = adata.obs[case.label].astype(str).to_numpy()
    with _spine.measured() as cost:
        values, _ = table0.represent(adata, case, job["method"], truth, job["seed"])
    scores = cell_types.evaluate(values, truth, job["seed"])
    known = "toy" if job["dataset"] == "toy" else datasets.info(case.dataset).files[0].sha256
    facts = {"num_cells": adata.n_obs, "num_genes": adata.n_vars, **_spine.provenance(), "data_sha256": known}
    return [{**job, **_spine.rounded(scores | cost), **facts}]


def jobs() -> list[dict]:
    """What identifies a record; seeds outermost."""
    return [
        {"dataset": name, "setting": setting, "level": level, "method": method, "seed": seed}
        for seed in SEEDS
        for setting, levels in LEVELS.items()
        for level in levels
        for name in CASES
        for method in SEES.get(setting, METHODS)
        if not (setting == "genes" and level > 1 and datasets.info(name).shape[1] <= level)
    ]


def smoke_jobs() -> list[dict]:
    """The first level of each setting, on the toy."""
    mine = [job for job in jobs() if job["dataset"] == next(iter(CASES)) and job["seed"] == 0]
    return [job | {"dataset": "toy"} for job in mine if job["level"] == LEVELS[job["setting"]][0]]


def frame(records: Sequence[dict]) -> pd.DataFrame:
    """AvgBIO of each data set, mean over seeds: a row for each setting and level, and what is lost of the clean one."""
    table = _spine.frame(records, KEYS, METHODS, *LEVELS)
    if table.empty:
        return table
    means = table.groupby(["setting", "level", "method", "dataset"], observed=True)["avgbio"].mean().rename("avgbio")
    clean = means.loc["clean"].droplevel("level").rename("clean")
    return means.reset_index().merge(clean.reset_index(), on=["method", "dataset"])


def render(records: Sequence[dict]) -> str:
    """Markdown: mean AvgBIO, and the share of the clean one that is left, of the data sets that all methods have."""
    table = frame(records)
    if table.empty:
        return ""
    lines = ["| what is left | " + " | ".join(f"`{method}`" for method in METHODS) + " | data sets |"]
    lines.append("|---|" + "---:|" * (len(METHODS) + 1))
    for setting, levels in LEVELS.items():
        for level in levels:
            part = table[(table["setting"] == setting) & (table["level"] == level)]
            sets = part.groupby("dataset")["method"].nunique()
            part = part[part["dataset"].isin(sets.index[sets == part["method"].nunique()])]
            cells = []
            for method in METHODS:
                mine = part[part["method"] == method]
                left = mine["avgbio"].mean() / mine["clean"].mean() if len(mine) else np.nan
                shown = f"{mine['avgbio'].mean():.3f}" + ("" if setting == "clean" else f" ({left:.0%})")
                cells.append(shown if len(mine) else "")
            if len(part):
                lines.append(f"| {named(setting, level)} | " + " | ".join(cells) + f" | {part['dataset'].nunique()} |")
    seeds = len({record["seed"] for record in records})
    return (
        "\n".join([*lines, "", f"AvgBIO, mean over data sets; in brackets: of what it is as it is. Seeds: {seeds}."])
        + "\n"
    )


def named(setting: str, level: float) -> str:
    """A row's name."""
    if setting in ("clean", "names"):
        return TITLES[setting]
    share = setting != "neighbors" and level < 1
    return f"{TITLES[setting]}: {f'{level:.0%}' if share else f'{level:.0f}'}"


def main() -> None:
    """Run what is asked for and not done, print the table."""
    _spine.drive(__doc__, PATH, jobs=jobs, smoke=smoke_jobs, run=run, render=render)


if __name__ == "__main__":
    main()
