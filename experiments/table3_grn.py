"""Table 3: gene-regulatory networks, every method through one evaluator.

Command: ``python experiments/table3_grn.py`` (``--smoke``: toy data, no mirror; ``--readme``: renew the README);
         peers: ``pip install "graphfm[bench]"``; a method that is not installed is left out and named
Cost:    five hours of one core (RegDiffusion three, GRNBoost2 one and a half; graphfm two minutes); resumable,
         ``--dataset``, ``--method``, ``--seed`` run a part, several processes may share the file
Expect:  see the README

Setting: ``unsupervised``: expression alone, every listed transcription factor with every gene.
Data:    BEELINE's cell types with the networks STRING, non-specific ChIP, cell-type-specific ChIP (mESC also loss and
         gain of function); BEELINE's simulated networks of 5 to 18 genes; DREAM4, 100 genes, multifactorial; the toy.
Scores:  of `graphfm.tasks.grn`: pairs of the network's factors with the network's genes; ``epr``, ``auprc`` (average
         precision), ``auprc_ratio``, ``auroc``, and the share of right signs where signs are known. ``auprc_low``,
         ``auprc_high``: 95 % over other transcription factors, by bootstrap.
Seeds:   five of the methods that draw; of simulated data also the replicate.
Seconds: scoring all pairs, one thread if OMP_NUM_THREADS=1 as it was here; graphfm's with confidence and regulons.

Read with care: STRING holds co-expression among its evidence, which favours whatever finds it. On
cell-type-specific ChIP all methods are at chance, ours too. The settings of graphfm were chosen on other data
(`experiments/LOG.md`), those of the peers are their defaults.
"""

import argparse
import importlib.util
from collections.abc import Sequence
from functools import cache

import _spine
import numpy as np
import pandas as pd
from anndata import AnnData
from grn_methods import METHODS, NEEDS, STOCHASTIC

from graphfm import datasets, tl
from graphfm.tasks import grn

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
    """Edges by one method."""
    kind = "log1p" if adata.uns.get("is_raw_counts") is False else "counts"
    if method == "graphfm":
        tl.infer_grn(adata, tfs=tfs, kind=kind, max_edges=None, seed=seed)
        return adata.uns["grn"]
    from graphfm import io

    rows = adata.var_names.get_indexer(tfs)
    scores = METHODS[method](io.expression(adata, kind=kind).toarray().astype(np.float64), rows, seed)
    tf, target = (codes.ravel() for codes in np.indices(scores.shape, dtype=np.int32))
    return pd.DataFrame(
        {
            "tf": pd.Categorical.from_codes(tf, tfs),
            "target": pd.Categorical.from_codes(target, adata.var_names),
            "score": scores.ravel(),
        }
    )


def run(dataset: str, method: str, seed: int) -> list[dict]:
    """A record for each known network of a data set."""
    adata, truths, tfs = load(dataset, seed if dataset in (*SYNTHETIC, "toy") else 0)
    with _spine.measured() as cost:
        edges = None if method in CONTROLS else infer(method, adata.copy(), tfs, seed)
    origin = "toy" if dataset == "toy" else datasets.info(dataset).files[0].sha256
    records = []
    for network, truth in truths.items():
        predicted = grn.controls(truth, seed)[method] if edges is None else edges
        scores = grn.evaluate(predicted, truth, seed)
        records.append(
            {
                **{"dataset": dataset, "network": network, "setting": "unsupervised", "method": method, "seed": seed},
                **{name: float(f"{value:.6g}") if np.isfinite(value) else None for name, value in scores.items()},
                **cost,
                **{"num_cells": adata.n_obs, "num_genes": adata.n_vars, "num_tfs": len(tfs)},
                **_spine.provenance(),
                "data_sha256": origin,
            }
        )
    return records


def jobs(cases: Sequence[str]) -> list[dict]:
    """What identifies the records: five seeds where anything is drawn, be it by the method or the data."""
    return [
        {"dataset": dataset, "network": network, "setting": "unsupervised", "method": method, "seed": seed}
        for method in ROWS
        for dataset in cases
        for network in NETWORKS.get(dataset, ("reference",))
        for seed in (SEEDS if method in (*STOCHASTIC, *CONTROLS) or dataset in (*SYNTHETIC, "toy") else (0,))
    ]


def summarize(records: Sequence[dict]) -> pd.DataFrame:
    """Means over seeds, then over the networks of a group: a row a group and method."""
    frame = pd.DataFrame(records).drop_duplicates(list(KEYS), keep="last")
    columns = [*METRICS, "sign_accuracy", "seconds", "peak_mb"]
    frame = frame.reindex(columns=[*KEYS, *columns]).astype(dict.fromkeys(columns, float))
    each = frame.groupby(["dataset", "network", "method"], sort=False)[columns].mean().reset_index()
    parts = {}
    for group, member in GROUPS.items():
        inside = each[each.apply(member, axis=1)]
        if len(inside):
            means = inside.groupby("method", sort=False)[columns].mean()
            parts[group] = means.assign(networks=inside.groupby("method").size()).reindex(
                [m for m in ROWS if m in means.index]
            )
    return pd.concat(parts, names=["group"])


def table(records: Sequence[dict]) -> str:
    """Markdown: for each group of networks a row a method."""
    summary, lines = summarize(records), []
    for group, part in summary.groupby(level=0, sort=False):
        part = part.droplevel(0)
        most = part["networks"].max()
        best = part[~part.index.isin(CONTROLS)][list(METRICS)].max()
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


def main() -> None:
    """Run what is asked for and not done, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="toy data, the quick methods, into a file of its own")
    parser.add_argument("--dataset", nargs="*", default=CASES)
    parser.add_argument("--method", nargs="*", default=ROWS, choices=ROWS)
    parser.add_argument("--seed", nargs="*", type=int, default=SEEDS)
    parser.add_argument("--readme", action="store_true", help="renew the README's block from the records, run nothing")
    options = parser.parse_args()
    if options.readme:
        return _spine.renew_readme("table3", table(_spine.read(PATH)))
    path = _spine.RESULTS / "smoke_table3_grn.jsonl" if options.smoke else PATH
    missing = [m for m, package in NEEDS.items() if m in options.method and importlib.util.find_spec(package) is None]
    if missing:
        print(f'left out, not installed: {", ".join(missing)} (pip install "graphfm[bench]")')
    slow = ("genie3", "grnboost2", "regdiffusion") if options.smoke else ()
    wanted = [m for m in options.method if m not in (*missing, *slow)]
    cases = ("toy",) if options.smoke else options.dataset
    seeds = (0,) if options.smoke else options.seed
    todo = [j for j in jobs(cases) if j["method"] in wanted and j["seed"] in seeds]
    for job in todo:
        if _spine.pending(path, [job]):  # a run does several networks, and other processes run too
            for record in run(job["dataset"], job["method"], job["seed"]):
                _spine.append(path, record)
    print(table(_spine.read(path)))


if __name__ == "__main__":
    main()
