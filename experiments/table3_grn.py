"""Table 3: gene-regulatory networks, every method through one evaluator.

Command: ``python experiments/table3_grn.py`` (``--smoke``: toy data, no mirror; ``--readme``: renew the README);
         peers: ``pip install "graphfm[bench]"``; a method that is not installed is left out and named
Cost:    thirty hours of one core for five seeds of everything: GENELink, RegDiffusion, GENIE3 and GRNBoost2 nearly all
         of it, graphfm with known edges four, zero-shot one; resumable, ``--setting``, ``--dataset``, ``--method``,
         ``--seed`` run a part, several processes may share the file
Expect:  see the README

Setting: ``unsupervised``: expression alone, every listed transcription factor with every gene. ``edges``, ``tfs``,
         ``targets``: edges predicted from others of the same network, parted as in `graphfm.tasks.grn_splits`; each
         also ``:degree_matched`` and ``:without_reversed``. There the split is drawn by the seed. ``zero_shot``: by
         what was learned from networks of other cell types and from curated tables, all edges between two genes of the
         data set taken out (``graphfm:untouched``: all edges of its genes). ``graphfm:pretrained``: learns from the
         known edges as ``graphfm`` does, and reads what ``zero_shot`` knows.
Data:    BEELINE's cell types with the networks STRING, non-specific ChIP, cell-type-specific ChIP (mESC also loss and
         gain of function); BEELINE's simulated networks of 5 to 18 genes; DREAM4, 100 genes, multifactorial; the toy.
Scores:  of `graphfm.tasks.grn`: pairs of the network's factors with the network's genes; ``epr``, ``auprc`` (average
         precision), ``auprc_ratio``, ``auroc``, and the share of right signs where signs are known. ``auprc_low``,
         ``auprc_high``: 95 % over other transcription factors, by bootstrap.
Seeds:   five where anything is drawn, of simulated data also the replicate; `seeds` says where fewer.
Seconds: scoring all pairs, one thread if OMP_NUM_THREADS=1 as it was here; graphfm's with confidence and regulons.

Read with care: STRING holds co-expression among its evidence, which favours whatever finds it. On
cell-type-specific ChIP all methods are at chance, ours too. What graphfm reads from expression was chosen on other
data; how it learns from known edges on validation edges of seven of these networks, parted by another seed, so that
many of them are test edges here; and how it reads knowledge, zero-shot, while looking at these four cell types
(`experiments/LOG.md`). The settings of the peers are their defaults.
"""

from collections.abc import Sequence
from functools import cache, partial

import _grn_zero_shot as zero_shot
import _spine
import numpy as np
import pandas as pd
from _grn_methods import METHODS, NEEDS, STOCHASTIC, edge_table, kind_of
from _grn_supervised import SUPERVISED, Supervised
from anndata import AnnData

from graphfm import datasets, io, tl
from graphfm.metrics.grn import pair_scores
from graphfm.tasks import grn, grn_splits

PATH = _spine.RESULTS / "table3_grn.jsonl"
SEEDS = (0, 1, 2, 3, 4)
BEELINE = tuple(
    f"beeline_{name}"
    for name in ("hhep_500", "hhep_1000", "mdc_500", "mdc_1000", "mhsc_l_500", "mhsc_l_1000", "mesc_500")
)
SYNTHETIC = tuple(f"beeline_synthetic_dyn_{name}" for name in ("bf", "bfc", "cy", "li", "ll", "tf"))
DREAM4 = tuple(f"dream4_{number}" for number in range(1, 6))
SIMULATED = (*SYNTHETIC, *DREAM4, "toy")
CASES = (*BEELINE, *SIMULATED)
ROWS = ("shuffled", *METHODS, "graphfm", "oracle")
CONTROLS = ("shuffled", "oracle")
LEARNED = ("shuffled", *SUPERVISED, "graphfm:unsupervised", "graphfm", "graphfm:pretrained", "oracle")
TRANSFERRED = ("shuffled", *zero_shot.METHODS, "oracle")
ALL = tuple(dict.fromkeys((*ROWS, *TRANSFERRED, *LEARNED)))
WHOLE = ("unsupervised", "zero_shot")
"""Settings that are tested on whole networks; the others on a part of the edges."""
SETTINGS = (*WHOLE, *grn_splits.SETTINGS)
VARIANTS = ("", ":degree_matched", ":without_reversed")
KEYS = ("dataset", "network", "setting", "method", "seed")
GROUPS = {
    "STRING": lambda r: r["network"] == "STRING",
    "non-specific ChIP": lambda r: r["network"] == "Non-Specific",
    "specific ChIP": lambda r: r["network"] == "Specific",
    "mESC lof/gof": lambda r: r["network"] == "Lofgof",
    "all of BEELINE": lambda r: r["dataset"] in BEELINE,
    "BEELINE simulated": lambda r: r["dataset"] in SYNTHETIC,
    "DREAM4": lambda r: r["dataset"] in DREAM4,
    "toy": lambda r: r["dataset"] == "toy",
}
NETWORKS = dict.fromkeys(BEELINE, ("STRING", "Non-Specific", "Specific"))
NETWORKS["beeline_mesc_500"] += ("Lofgof",)
METRICS = {"epr": "EPR", "auprc_ratio": "AUPRC ratio", "auroc": "AUROC"}


@cache
def load(dataset: str, seed: int) -> tuple[AnnData, dict[str, pd.DataFrame], list[str]]:
    """Expression, known networks by name, names of the transcription factors."""
    if dataset == "toy":
        adata = datasets.toy(num_cells=600, num_genes=200, num_tfs=25, seed=seed)
        return adata, {"reference": adata.uns["toy_truth"]["grn"]}, adata.var_names[adata.var["is_tf"]].tolist()
    if dataset in SYNTHETIC:
        name = "dyn-" + dataset.rsplit("_", 1)[1].upper()
        adata = datasets.beeline_synthetic(network=name, replicate=seed)
    else:
        adata = datasets.load(dataset)
    return adata, dict(adata.uns["grn_truth"]), list(adata.uns["tfs"])


def infer(method: str, adata: AnnData, tfs: list[str], seed: int) -> pd.DataFrame:
    """Edges by one method, from expression alone."""
    kind = kind_of(adata)
    if method == "graphfm":
        tl.infer_grn(adata, tfs=tfs, kind=kind, max_edges=None, seed=seed)
        return adata.uns["grn"]
    rows = adata.var_names.get_indexer(tfs)
    scores = METHODS[method](io.expression(adata, kind=kind).toarray().astype(np.float64), rows, seed)
    return edge_table(scores, tfs, adata.var_names)


def run(dataset: str, setting: str, method: str, seed: int) -> list[dict]:
    """A record for each known network of a data set."""
    adata, truths, tfs = load(dataset, seed if dataset in (*SYNTHETIC, "toy") else 0)
    learned = setting == "zero_shot" and method not in CONTROLS
    if learned:
        zero_shot.without(dataset, method == "graphfm:untouched", seed)  # pre-training is not part of the time
    with _spine.measured() as cost:
        if method in CONTROLS:
            edges = None
        elif learned:
            edges = zero_shot.scores(method, dataset, adata.copy(), tfs, seed)
        else:
            edges = infer(method, adata.copy(), tfs, seed)
    records = []
    for network, truth in truths.items():
        predicted = grn.controls(truth, seed)[method] if edges is None else edges
        job = {"dataset": dataset, "network": network, "setting": setting, "method": method, "seed": seed}
        records.append(record(job, grn.evaluate(predicted, truth, seed), cost, adata, tfs))
    return records


def record(job: dict, scores: dict[str, float], cost: dict[str, float], adata: AnnData, tfs: list[str]) -> dict:
    """Job, scores of six digits, cost, sizes, provenance."""
    dataset = job["dataset"]
    return {
        **job,
        **{name: float(f"{value:.6g}") if np.isfinite(value) else None for name, value in scores.items()},
        **cost,
        **{"num_cells": adata.n_obs, "num_genes": adata.n_vars, "num_tfs": len(tfs)},
        **_spine.provenance(),
        "data_sha256": "toy" if dataset == "toy" else datasets.info(dataset).files[0].sha256,
    }


def run_supervised(job: dict) -> list[dict]:
    """A record for each way to look at the test part of one split."""
    adata, truths, tfs = load(job["dataset"], 0)
    setting, method, seed = job["setting"].split(":")[0], job["method"], job["seed"]
    parts = grn_splits.split(truths[job["network"]], adata.var_names, tfs, setting=setting, seed=seed)
    tfs, kind = list(parts.tfs), kind_of(adata)
    rows = adata.var_names.get_indexer(tfs)
    knowledge = zero_shot.without(job["dataset"], False, seed) if method == "graphfm:pretrained" else None
    with _spine.measured() as cost:
        if method in CONTROLS:
            edges = parts.test[parts.test["label"] == 1]
            scores = np.random.default_rng(seed).random((len(tfs), adata.n_vars))
            if method == "oracle":
                scores[:] = 0
                scores[pd.Index(tfs).get_indexer(edges["tf"]), adata.var_names.get_indexer(edges["target"])] = 1
        elif method in SUPERVISED:
            expression = io.expression(adata, kind=kind).toarray().astype(np.float64)
            scores = SUPERVISED[method](Supervised(expression, adata.var_names, pd.Index(tfs), parts), seed)
        else:
            learns = {"mode": "fine_tune", "known": parts.known(), "model": knowledge}
            known = {} if method == "graphfm:unsupervised" else learns
            found = tl.infer_grn(adata, tfs=tfs, kind=kind, max_edges=None, seed=seed, copy=True, **known)
            scores = np.abs(found.varp["grn"][rows].toarray())
    tests = {
        "": parts.test,
        ":degree_matched": grn_splits.degree_matched(parts, seed=seed),
        ":without_reversed": grn_splits.without_reversed(parts.test, parts.known()),
    }
    records = []
    for variant in VARIANTS:
        test = tests[variant]
        place = pd.Index(tfs).get_indexer(test["tf"]), adata.var_names.get_indexer(test["target"])
        values = pair_scores(scores[place], test["label"], test["tf"], replicates=200, seed=seed)
        values["test_edges"] = int(test["label"].sum())
        records.append(record(job | {"setting": setting + variant}, values, cost, adata, tfs))
    return records


def seeds(dataset: str, setting: str, method: str) -> tuple[int, ...]:
    """Five where anything is drawn, be it by the method, the data, or the split; fewer where runs are slow.

    The sets of 1000 genes, of the same cells as those of 500, have one; on cells, methods that take minutes have
    three, and one has GENELink, which takes hours, and what reads knowledge that is trained anew for each set.
    """
    if setting == "unsupervised":
        if method in (*CONTROLS, "random") or dataset in (*SYNTHETIC, "toy"):
            return SEEDS
        if method not in STOCHASTIC:
            return SEEDS[:1]
    if dataset in BEELINE and dataset.endswith("_1000"):
        return SEEDS[:1]
    slow = dict.fromkeys(("genie3", "grnboost2", "regdiffusion"), 3) | {"genelink": 1, "graphfm:pretrained": 1}
    if dataset not in BEELINE:
        return SEEDS
    return SEEDS[: slow.get(method, len(SEEDS))]


def jobs(cases: Sequence[str], settings: Sequence[str]) -> list[dict]:
    """What identifies the records."""
    unsupervised = [
        {"dataset": dataset, "network": network, "setting": "unsupervised", "method": method, "seed": seed}
        for method in ROWS
        for dataset in cases
        for network in NETWORKS.get(dataset, ("reference",))
        for seed in seeds(dataset, "unsupervised", method)
    ]
    transferred = [
        {"dataset": dataset, "network": network, "setting": "zero_shot", "method": method, "seed": seed}
        for seed in SEEDS
        for method in TRANSFERRED
        for dataset in cases
        for network in (NETWORKS[dataset] if dataset in BEELINE else ())
        if seed in seeds(dataset, "zero_shot", method)
    ]
    supervised = [
        {"dataset": dataset, "network": network, "setting": setting + variant, "method": method, "seed": seed}
        for seed in SEEDS
        for method in LEARNED
        for dataset in cases
        for network in NETWORKS.get(dataset, ("reference",) if dataset == "toy" else ())
        for setting in grn_splits.SETTINGS
        for variant in VARIANTS
        if seed in seeds(dataset, setting, method) and (method != "graphfm:pretrained" or dataset in BEELINE)
    ]
    return [job for job in unsupervised + transferred + supervised if job["setting"].split(":")[0] in settings]


def summarize(records: Sequence[dict], setting: str = "unsupervised") -> pd.DataFrame:
    """Means over seeds, then over the networks of a group: a row a group and method."""
    frame = pd.DataFrame(records).drop_duplicates(list(KEYS), keep="last")
    frame = frame[frame["setting"] == setting]
    columns = [*METRICS, "sign_accuracy", "seconds", "peak_mb"]
    frame = frame.reindex(columns=[*KEYS, *columns]).astype(dict.fromkeys(columns, float))
    each = frame.groupby(["dataset", "network", "method"], sort=False)[columns].mean().reset_index()
    parts = {}
    for group, member in GROUPS.items():
        inside = each[each.apply(member, axis=1)]
        if len(inside):
            means = inside.groupby("method", sort=False)[columns].mean()
            parts[group] = means.assign(networks=inside.groupby("method").size()).reindex(
                [m for m in ALL if m in means.index]
            )
    return pd.concat(parts, names=["group"]) if parts else pd.DataFrame()


def complete(part: pd.DataFrame) -> pd.DataFrame:
    """Methods that were run on all networks of a group: means over some only would mislead."""
    return part[part["networks"] == part["networks"].max()]


def zero_shot_table(records: Sequence[dict]) -> str:
    """Markdown: EPR and AUPRC ratio by group of networks, beside the best that expression alone gave."""
    parts, alone, columns = summarize(records, "zero_shot"), summarize(records), ["epr", "auprc_ratio", "auroc"]
    if parts.empty or alone.empty:
        return ""
    alone = alone.drop([*CONTROLS], level=1, errors="ignore")
    groups = [g for g in dict.fromkeys(parts.index.get_level_values(0)) if g in alone.index.get_level_values(0)]
    best = {group: complete(alone.loc[group])[columns].max() for group in groups}
    lines = ["**zero_shot**: EPR / AUPRC ratio / AUROC", "", "| method | " + " | ".join(groups) + " |"]
    lines += ["|---|" + "---:|" * len(groups)]
    rows = {
        f"`{m}`": {g: parts.loc[(g, m), columns] for g in groups}
        for m in TRANSFERRED
        if all((g, m) in parts.index for g in groups)
    }
    for name, row in {"best unsupervised, metric by metric": best, **rows}.items():
        lines.append(f"| {name} | " + " | ".join(" / ".join(f"{v:.3f}" for v in row[g]) for g in groups) + " |")
    return "\n".join(lines) + "\n"


def table(records: Sequence[dict]) -> str:
    """Markdown: for each group of networks a row a method."""
    summary, lines = summarize(records), []
    for group, part in summary.groupby(level=0, sort=False):
        part = part.droplevel(0)
        most = part["networks"].max()
        best = part[~part.index.isin(CONTROLS) & (part["networks"] == most)][list(METRICS)].max()
        signs = part["sign_accuracy"].notna().any()
        lines += ["", f"**{group}**, {most:.0f} networks", ""]
        lines += ["| method | " + " | ".join(METRICS.values()) + (" | signs right" if signs else "") + " | seconds |"]
        lines += ["|---|" + "---:|" * (len(METRICS) + 1 + signs)]
        for method, row in part.iterrows():
            cells = [f"**{row[m]:.3f}**" if row[m] == best[m] else f"{row[m]:.3f}" for m in METRICS]
            cells += (
                [f"{row['sign_accuracy']:.3f}" if row["sign_accuracy"] == row["sign_accuracy"] else ""] if signs else []
            )
            some = f" ({row['networks']:.0f} of {most:.0f})" if row["networks"] < most else ""
            time = "" if method in CONTROLS else f"{row['seconds']:.1f}"
            lines += [f"| `{method}`{some} | " + " | ".join(cells) + f" | {time} |"]
    return "\n".join(lines[1:]) + "\n"


def supervised(records: Sequence[dict]) -> pd.DataFrame:
    """Means over seeds in the supervised settings: a row a setting, network, data set and method."""
    keys = ["setting", "network", "dataset", "method"]
    frame = pd.DataFrame([r for r in records if r["setting"] not in WHOLE])
    if frame.empty:
        return frame
    frame = frame.drop_duplicates(list(KEYS), keep="last")
    return frame.groupby(keys, sort=False)[
        ["auroc", "auprc", "auprc_low", "auprc_high", "prevalence", "seconds"]
    ].mean()


def supervised_table(records: Sequence[dict]) -> str:
    """Markdown: AUPRC of each method in each setting, means over the data sets of a network."""
    each, lines = supervised(records), []
    if each.empty:
        return ""
    for setting, part in each.groupby(level=0, sort=False):
        means = part.groupby(level=["network", "method"], sort=False)[["auroc", "auprc"]].mean()
        there = set(means.index.get_level_values("network"))
        networks = [network for network in (*NETWORKS["beeline_mesc_500"], "reference") if network in there]
        lines += ["", f"**{setting}**: AUROC / AUPRC, means over data sets", ""]
        lines += ["| method | " + " | ".join(networks) + " |", "|---|" + "---:|" * len(networks)]
        count = part.index.get_level_values("method").value_counts()
        whole = [m for m in count.index[count == count.max()] if m not in CONTROLS]
        for method in [m for m in LEARNED if m in count.index]:
            cells = []
            for network in networks:
                if (network, method) not in means.index:
                    cells.append("")
                    continue
                auroc, auprc = means.loc[(network, method)]
                best = bool(auprc == means.loc[network].loc[whole, "auprc"].max())
                cells.append(f"{auroc:.3f} / {'**' * best}{auprc:.3f}{'**' * best}")
            some = f" ({count[method]} of {count.max()} networks)" if count[method] < count.max() else ""
            lines.append(f"| `{method}`{some} | " + " | ".join(cells) + " |")
        lines += [*verdict(part.droplevel(0)), *pretrained(records, setting)]
    return "\n".join(lines[1:]) + "\n"


def verdict(part: pd.DataFrame) -> list[str]:
    """In words: on how many networks graphfm is above the best baseline there, and by how much."""
    wide = part[["auprc", "auprc_low", "auprc_high"]].unstack("method")
    baselines = [m for m in wide["auprc"] if m not in (*CONTROLS, "graphfm", "graphfm:pretrained")]
    if "graphfm" not in wide["auprc"] or not baselines:
        return []
    wide = wide[wide["auprc"]["graphfm"].notna()]
    ours, best = wide["auprc"]["graphfm"], wide["auprc"][baselines].max(axis=1)
    high = wide["auprc_high"][baselines].max(axis=1)
    apart = (wide["auprc_low"]["graphfm"] > high).sum()
    return [
        "",
        f"`graphfm` against the best of the other rows, network by network: above on {(ours > best).sum()} of "
        f"{len(ours)}, by a quarter or more on {(ours >= 1.25 * best).sum()}, intervals apart on {apart}.",
    ]


def pretrained(records: Sequence[dict], setting: str) -> list[str]:
    """In words: what it adds to know the genes from other cells, on the splits that both learned from."""
    rows = [r for r in records if r["setting"] == setting and r["method"] in ("graphfm", "graphfm:pretrained")]
    if len({r["method"] for r in rows}) < 2:
        return []
    frame = pd.DataFrame(rows).drop_duplicates(list(KEYS), keep="last")
    both = frame.pivot(index=["dataset", "network", "seed"], columns="method", values=["auprc", "auroc"]).dropna()
    told = []
    for metric, title in (("auprc", "AUPRC"), ("auroc", "AUROC")):
        more = (both[metric, "graphfm:pretrained"] - both[metric, "graphfm"]).groupby(level=[0, 1]).mean()
        told.append(f"{title} {_spine.gap(more.to_numpy(), np.random.default_rng(0))}")
    return ["", f"`graphfm:pretrained` less `graphfm`, same splits (95 %, networks drawn again): {'; '.join(told)}."]


def everything(records: Sequence[dict]) -> str:
    """All tables."""
    return "\n".join([table(records), zero_shot_table(records), supervised_table(records)])


def smoke_jobs() -> list[dict]:
    """Quick methods on the toy."""
    slow = ("genie3", "grnboost2", "regdiffusion")
    return [job for job in jobs(("toy",), SETTINGS) if job["method"] not in slow and job["seed"] == 0]


def done(job: dict) -> list[dict]:
    """Records of a job; a run does all networks of a data set, or all tests of a split, at once."""
    if job["setting"] in WHOLE:
        return run(job["dataset"], job["setting"], job["method"], job["seed"])
    return run_supervised(job)


def main() -> None:
    """Run what is asked for and not done, print the table."""
    every = partial(jobs, CASES, SETTINGS)
    _spine.drive(__doc__, PATH, jobs=every, smoke=smoke_jobs, run=done, render=everything, needs=NEEDS)


if __name__ == "__main__":
    main()
