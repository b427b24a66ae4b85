"""Table 4: rare populations, from which size on each method sees them, and what it sees where there are none.

Command: ``python experiments/table4_rare.py`` (``--smoke``: toy data, two methods; ``--readme``: renew the README);
         ``--dataset``, ``--setting``, ``--method``, ``--seed`` run a part, several processes may share the file
Cost:    about eight hours of one core for everything; resumable
Expect:  see the README

Setting: ``power``: a type of a labelled data set (cell line H838 of sc_mixology, B cells of Kang's blood, neutrophils
         of Paul's marrow), or the rare type of the toy, at 10 % to 0.1 % and at 0 % of the cells, ten draws each,
         three of scCAD, GiniClust3 and the variants, if two cells are left. ``dealt``: the same backgrounds without a
         rare type, each gene dealt among the cells of a type and batch, so that nothing can be rare. ``native``: types
         that are rare as they are. ``scale``: 100,000 simulated cells, 0.5 % rare.
Scores:  ``f1``, ``precision``, ``recall`` of the called population that matches the type best; ``pooled_*`` of all
         called cells; ``num_populations``; ``auprc`` of the score over cells; where nothing is rare
         ``false_discovery``, 1 if anything was called.
Rule:    each method calls by its own rule and defaults (`_rare_methods`, `graphfm.tl.find_rare`), the same for every
         data set; none is told how many cells are rare. graphfm is told the batches, its peers cannot be.
Variant: ``graphfm:pca`` instead of the trunk's embedding; ``graphfm:random_weights``; ``graphfm:no_graph``, each cell
         alone; ``graphfm:shuffled_graph``, neighbours drawn at random, as many for each cell.

Read with care: the backgrounds of Kang and Paul hold small populations that their labels do not name. graphfm's and the
clusters' rule is that a type of at most 10 % is rare. Many small clusters have one that matches by chance: see ``area,
all calls`` beside ``area``. graphfm's thresholds were chosen on other types (lines A549, H2228 and HCC827, monocytes
with FCGR3A, erythrocytes, a basophil cluster), on MERFISH and on the toy.
"""

from collections.abc import Sequence

import _rare_designs as designs
import _spine
import numpy as np
import pandas as pd
import scipy.sparse as sp
from _rare_methods import METHODS, NEEDS, SLOW, STOCHASTIC
from anndata import AnnData

from graphfm import datasets, pp, tl
from graphfm.genes import align_what_is_known
from graphfm.tasks import rare

PATH = _spine.RESULTS / "table4_rare.jsonl"
DRAWS, FEW_DRAWS = tuple(range(10)), tuple(range(3))
VARIANTS = ("graphfm:pca", "graphfm:random_weights", "graphfm:no_graph", "graphfm:shuffled_graph")
CONTROLS = ("shuffled", "oracle")
ROWS = ("shuffled", *METHODS, "graphfm", *VARIANTS, "oracle")
SETTINGS = ("power", "dealt", "native", "scale")
KEYS = ("dataset", "setting", "design", "method", "seed")
SCALE = 100_000


def jobs() -> list[dict]:
    """What identifies the records: ten draws where cells are drawn, three of what is slow; of cells as they are, three
    seeds of methods that draw, one of the others and of graphfm's variants."""
    draws = {method: FEW_DRAWS if method in (*SLOW, *VARIANTS) else DRAWS for method in ROWS}
    power = [
        {"dataset": dataset, "setting": "power", "design": prevalence, "method": method, "seed": seed}
        for dataset in (*designs.POWER, "toy")
        for method in ROWS
        for prevalence in designs.PREVALENCES
        for seed in draws[method]
    ]
    dealt = [
        {"dataset": dataset, "setting": "dealt", "design": 0.0, "method": method, "seed": seed}
        for dataset in designs.POWER
        for method in ROWS
        for seed in draws[method]
        if method not in VARIANTS
    ]
    native = [
        {"dataset": dataset, "setting": "native", "design": None, "method": method, "seed": seed}
        for dataset in designs.NATIVE
        for method in ROWS
        for seed in (FEW_DRAWS if method in (*STOCHASTIC, *CONTROLS, "graphfm") else (0,))
    ]
    scale = [
        {"dataset": "toy_100k", "setting": "scale", "design": 0.005, "method": method, "seed": 0}
        for method in ("isolation_forest", "leiden_1", "fire", "graphfm")
    ]
    return power + dealt + native + scale


def representation(variant: str, adata: AnnData, kind: str, seed: int) -> np.ndarray:
    """What a variant of graphfm reads instead of the trunk's embedding."""
    pp.knn_graph(adata, kind=kind, seed=seed)
    if variant == "pca":
        return adata.obsm["X_pca"]
    for key in ("connectivities", "distances"):
        graph = sp.csr_matrix(adata.obsp[key])
        if variant == "no_graph":
            graph = sp.csr_matrix(graph.shape, dtype=np.float32)
        elif variant == "shuffled_graph":
            # every cell keeps its number of neighbours, and is a neighbour as often as before
            graph.indices = np.random.default_rng(seed).permutation(graph.indices)
            graph.sum_duplicates()
        adata.obsp[key] = graph
    model = tl.new_model("small", seed=seed) if variant == "random_weights" else None
    align_what_is_known(adata)
    tl.embed(adata, model, kind=kind, weigh=False)
    return adata.obsm["X_graphfm"]


def predict(method: str, adata: AnnData, kind: str, batch_key: str | None, seed: int) -> pd.DataFrame:
    """Called populations and scores of the cells."""
    if method in METHODS:
        return METHODS[method](adata, seed, kind)
    given = {}
    if ":" in method:
        adata.obsm["X_variant"] = representation(method.split(":")[1], adata.copy(), kind, seed)
        given = {"use_rep": "X_variant"}
    # the null copies say how far to trust a call, they do not make it
    tl.find_rare(adata, batch_key=batch_key, kind=kind, n_shuffles=0, seed=seed, **given)
    return pd.DataFrame({"population": adata.obs["rare_population"].astype(object), "score": adata.obs["rare_score"]})


def run(job: dict) -> list[dict]:
    """One record; none where fewer than two cells would be rare, but are not meant to be none."""
    if job["setting"] == "scale":
        adata, truth = designs.toy(job["design"], job["seed"], SCALE)
        kind, batch_key = "counts", "batch"
    else:
        dealt = job["setting"] == "dealt"
        adata, truth, kind, batch_key = designs.draw(job["dataset"], job["design"], job["seed"], dealt=dealt)
    if job["design"] != 0 and truth.sum() < 2:
        return []
    method = job["method"]
    with _spine.measured() as cost:
        if method in CONTROLS:
            predicted = rare.controls(truth, job["seed"])[method]
            predicted["population"] = np.where(predicted["called"], "rare", None)
        else:
            predicted = predict(method, adata, kind, batch_key, job["seed"])
    scores = rare.evaluate(predicted[["population", "score"]], truth, job["seed"])
    name = job["dataset"]
    source = {**designs.POWER, **designs.NATIVE}.get(name)
    facts = {"num_cells": adata.n_obs, "num_genes": adata.n_vars, "num_rare": int(truth.sum())}
    known = "toy" if source is None else datasets.info(source.dataset).files[0].sha256
    return [{**job, **_spine.rounded(scores), **cost, **facts, **_spine.provenance(), "data_sha256": known}]


def frame(records: Sequence[dict], setting: str) -> pd.DataFrame:
    """Records of a setting, the last of each job."""
    table = _spine.frame(records, KEYS, ROWS, setting)
    if table.empty:
        return table
    columns = ["f1", "pooled_f1", "auprc", "false_discovery", "num_populations", "num_rare", "num_cells"]
    return table.reindex(columns=[*KEYS, *columns, "seconds", "peak_mb"])


def power(records: Sequence[dict]) -> pd.DataFrame:
    """Means over draws: a row a data set, method and prevalence; `low`, `high`: 95 % of the mean F1, by t."""
    from scipy.stats import t

    table = frame(records, "power")
    if table.empty:
        return table
    groups = table.groupby(["dataset", "method", "design"], sort=False, observed=True)
    result = groups[["f1", "pooled_f1", "auprc", "false_discovery", "num_populations", "seconds"]].mean()
    draws, deviation = groups["f1"].count(), groups["f1"].std()
    half = (t.ppf(0.975, np.maximum(draws - 1, 1)) * deviation / np.sqrt(draws)).fillna(0.0)
    detected = groups["f1"].apply(lambda values: (values >= 0.5).mean())
    return result.assign(detected=detected, low=result["f1"] - half, high=result["f1"] + half, draws=groups.size())


def areas(summary: pd.DataFrame, score: str = "f1") -> pd.DataFrame:
    """Mean of a score over the prevalences that all methods of a data set have: area under the power curve."""
    rows = {}
    for dataset, part in summary.groupby(level="dataset", sort=False):
        wide = part.droplevel("dataset")[score].unstack("design").drop(columns=0.0, errors="ignore")
        rows[dataset] = wide.dropna(axis=1).mean(axis=1)
    return pd.DataFrame(rows)


def table(records: Sequence[dict]) -> str:
    """Markdown: for each design F1 by prevalence, area, and what is called where nothing is rare."""
    summary, dealt, lines = power(records), frame(records, "dealt"), []
    if summary.empty:
        return ""
    area, pooled = areas(summary), areas(summary, "pooled_f1")
    for dataset, part in summary.groupby(level="dataset", sort=False):
        part = part.droplevel("dataset")
        shares = sorted((p for p in part.index.get_level_values("design").unique() if p > 0), reverse=True)
        lines += ["", f"**{dataset}**: F1 of the matching population, by share of rare cells; mean of the draws", ""]
        head = [f"{100 * share:g} %" for share in shares]
        head += ["area", "area, all calls", "called at 0 %", "called, dealt", "seconds", "draws"]
        lines += ["| method | " + " | ".join(head) + " |", "|---|" + "---:|" * len(head)]
        for method in [m for m in ROWS if m in part.index.get_level_values("method")]:
            mine = part.loc[method]
            cells = [f"{mine.loc[share, 'f1']:.2f}" if share in mine.index else "" for share in shares]
            none = f"{mine.loc[0.0, 'false_discovery']:.2f}" if 0.0 in mine.index else ""
            chosen = dealt[(dealt["dataset"] == dataset) & (dealt["method"] == method)] if len(dealt) else dealt
            null = f"{chosen['false_discovery'].mean():.2f}" if len(chosen) else ""
            time = "" if method in CONTROLS else f"{mine['seconds'].mean():.1f}"
            cells += [f"{area.loc[method, dataset]:.3f}", f"{pooled.loc[method, dataset]:.3f}", none, null, time]
            cells.append(f"{mine['draws'].max():.0f}")
            lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
    return "\n".join(lines[1:]) + "\n"


def native_table(records: Sequence[dict]) -> str:
    """Markdown: F1 of the matching population, all called cells, number of populations, for types rare by nature."""
    each = frame(records, "native")
    if each.empty:
        return ""
    means = each.groupby(["method", "dataset"], observed=True)[["f1", "pooled_f1", "num_populations"]].mean()
    names = [n for n in designs.NATIVE if n in means.index.get_level_values("dataset")]
    sizes = each.drop_duplicates("dataset").set_index("dataset")
    lines = ["**Rare by nature**: F1 of the matching population / of all called cells (populations called)", ""]
    lines += ["| method | " + " | ".join(f"{n} {sizes.num_rare[n]}/{sizes.num_cells[n]}" for n in names) + " |"]
    lines += ["|---|" + "---:|" * len(names)]
    for method in [m for m in ROWS if m in means.index.get_level_values("method")]:
        cells = []
        for name in names:
            if (method, name) in means.index:
                row = means.loc[(method, name)]
                cells.append(f"{row['f1']:.2f} / {row['pooled_f1']:.2f} ({row['num_populations']:.0f})")
            else:
                cells.append("")
        lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def graph_table(records: Sequence[dict]) -> str:
    """Markdown: does the graph help? Areas of graphfm and its variants over the draws that all of them have."""
    rows = ("graphfm", *VARIANTS)
    each = frame([r for r in records if r["method"] in rows], "power")
    each = each[each["design"] > 0] if len(each) else each
    if each.empty or each["method"].nunique() < 2:
        return ""
    wide = each.pivot_table("f1", ["dataset", "design", "seed"], "method", observed=True).dropna()
    draws, area = wide.groupby("dataset").size(), wide.groupby(["dataset", "design"]).mean().groupby("dataset").mean()
    lines = ["**Does the graph help?** Area of the matching population's F1, the same draws for each row", ""]
    lines += ["| what the first graph is built from | " + " | ".join(area.index) + " |"]
    lines += ["|---|" + "---:|" * len(area)]
    lines += [f"| `{m}` | " + " | ".join(f"{v:.3f}" for v in area[m]) + " |" for m in rows if m in area]
    lines += ["", "Draws and shares together: " + ", ".join(f"{name} {number}" for name, number in draws.items()) + "."]
    return "\n".join(lines) + "\n"


def scale_table(records: Sequence[dict]) -> str:
    """Markdown: time and memory for many cells."""
    each = frame(records, "scale")
    if each.empty:
        return ""
    lines = [f"**{SCALE:,} simulated cells**, 0.5 % rare", "", "| method | F1 | seconds | GB |", "|---|---:|---:|---:|"]
    for row in each.sort_values("method").itertuples():
        lines.append(f"| `{row.method}` | {row.f1:.2f} | {row.seconds:.0f} | {row.peak_mb / 1024:.1f} |")
    return "\n".join(lines) + "\n"


def everything(records: Sequence[dict]) -> str:
    """All tables."""
    parts = (table(records), graph_table(records), native_table(records), scale_table(records))
    return "\n".join(part for part in parts if part)


def smoke_jobs() -> list[dict]:
    """Quick methods on the toy."""
    quick = ("shuffled", "isolation_forest", "graphfm", "oracle")
    toy = [job for job in jobs() if job["dataset"] == "toy" and job["method"] in quick and job["seed"] == 0]
    return [job for job in toy if job["design"] in (0.02, 0.0)]


def main() -> None:
    """Run what is asked for and not done, print the tables."""
    _spine.drive(__doc__, PATH, jobs=jobs, smoke=smoke_jobs, run=run, render=everything, needs=NEEDS)


if __name__ == "__main__":
    main()
