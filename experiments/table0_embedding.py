"""Table 0: are the labels of cells and tissues in the embedding? Zero-shot, beside PCA. The example to follow.

Command: ``python experiments/table0_embedding.py`` (``--smoke``: toy data, no mirror; ``--readme``: renew the README;
         ``--setting``: one part)
Cost:    an hour of one core and, for scVI, two and a half, 2 GB (see experiments/README.md for glibc's settings)
Expect:  AvgBIO of ``graphfm`` .590 on 14 sets of cell types (PCA .567, untrained .598) and .450 on 9 of tissue
         regions (PCA .385, untrained .441, PCA averaged over neighbours .448)

Rows:    ``pca`` (2000 variable genes, 50 components), ``pca:neighbor_mean`` (the same, averaged once over the very
         neighbours that the trunk sees and the cell itself), ``graphfm:random`` (untrained trunk, a new one for each
         seed), ``graphfm`` (the weights of the package), and the controls ``shuffled`` and ``oracle``. Apart, where
         there are counts and the package (``graphfm[bench]``): ``scvi``, trained on the very cells, slides as batches.
Scores:  15-NN vote in 5 stratified folds (``accuracy``, ``macro_f1``); k-means at the true number of classes (``ari``,
         ``nmi``); their mean with the silhouette of the labels, ``avgbio``; ``avgbio_leiden``: the same with Leiden
         communities in place of k-means, at the best of 16 resolutions by NMI with the labels, as in scIB.
         Five seeds: folds, starts, communities, random weights (``graphfm`` has one run of pre-training, so
         its ± has no part for that). No method sees a label.
Graphs:  kNN in expression for ``cell_types``; that and the tissue graph, slide by slide, for ``domains``.
Seconds: ``pca``: components and graphs; every other row: what it takes on top of that.

Read with care: folds are random, so the tissue neighbours of a held-out spot vote for it, which favours whatever
smooths; the domains of STARmap were smoothed or drawn by authors of methods; the DLPFC sections share one donor.
Left out: the other Kang files (they overlap with the one used), sciCAR (its label is a time point, and the weights
were trained on it). Dropped cells: `CASES`.
"""

import argparse
import hashlib
import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import _spine
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from sklearn.neighbors import NearestNeighbors

import graphfm
from graphfm import datasets, tl
from graphfm.data.cell_groups import communities, shared_neighbor_graph
from graphfm.metrics.labels import agreement
from graphfm.metrics.smoothing import effective_rank
from graphfm.tasks import cell_types
from graphfm.tl.evaluation import neighbor_mean

PATH = _spine.RESULTS / "table0_embedding.jsonl"
METHODS = ("shuffled", "pca", "pca:neighbor_mean", "graphfm:random", "graphfm", "oracle")
CONTROLS = ("shuffled", "oracle")
PEER = "scvi"
RIVALS = ("pca", "pca:neighbor_mean", "graphfm:random")
SEEDED = ("shuffled", "graphfm:random")
METRICS = {
    "accuracy": "kNN accuracy",
    "ari": "ARI",
    "nmi": "NMI",
    "avgbio": "AvgBIO",
    "avgbio_leiden": "AvgBIO, Leiden",
}
RESOLUTIONS = tuple(np.geomspace(0.002, 2, 16))  # begins where two types stay two
RELATIONS = {"cell_types": ("knn",), "domains": ("knn", "spatial")}
SEEDS = (0, 1, 2, 3, 4)
HEAD = " | ".join(f"`{method}`" for method in METHODS)


@dataclass(frozen=True)
class Case:
    """A data set and one of its labels; cells with a (column, value) of `drop` are taken out before anything else."""

    dataset: str
    setting: str
    label: str
    drop: tuple[tuple[str, str], ...] = ()
    library_key: str | None = None
    kind: str = "counts"
    organism: str = "auto"


SMOKE = (Case("toy", "cell_types", "cell_type"), Case("toy", "domains", "domain", library_key="slide"))
CASES = (
    Case("celegans_embryo", "cell_types", "cell.type", organism="other"),
    Case("celegans_l2", "cell_types", "packer_cell_type", drop=(("packer_cell_type", "nan"),), organism="other"),
    Case("fire_jurkat_1580_lognorm", "cell_types", "cell_type", kind="log1p", organism="other"),
    Case("kang_pbmc_batch2_12k", "cell_types", "cell_type"),
    Case("paul15_myeloid", "cell_types", "cell_type"),
    Case("pbmc68k_reduced", "cell_types", "bulk_labels"),
    Case("pbmc_facs_garnett800", "cell_types", "cell_type"),
    Case("pbmc_facs_scn300", "cell_types", "cell_type"),
    Case("sc_mixology", "cell_types", "cell_line", drop=(("demuxlet", "DBL"),)),
    Case(
        "merfish_hypothalamus_2slices", "cell_types", "cell_type", drop=(("cell_type", "Ambiguous"),), kind="normalized"
    ),
    Case("osmfish_ssctx", "cell_types", "cell_type", drop=(("cell_type", "Excluded"),)),
    Case("starmap_mpfc_BZ5", "cell_types", "cell_type"),
    Case("starmap_mpfc_BZ9", "cell_types", "cell_type"),
    Case("starmap_v1_1k", "cell_types", "cell_type"),
    Case("dlpfc_151673", "domains", "layer", drop=(("layer", "NA"),), library_key="sample"),
    Case("dlpfc_151674", "domains", "layer", drop=(("layer", "NA"),), library_key="sample"),
    Case("dlpfc_151675", "domains", "layer", drop=(("layer", "NA"),), library_key="sample"),
    Case("her2st_labelled8", "domains", "region", drop=(("region", "undetermined"),), library_key="section"),
    Case("osmfish_ssctx", "domains", "region", drop=(("region", "Excluded"),)),
    Case("st_mob_rep8", "domains", "layer", drop=(("layer", "NA"),)),
    Case("starmap_mpfc_BZ5", "domains", "domain", library_key="sample"),
    Case("starmap_mpfc_BZ9", "domains", "domain", library_key="sample"),
    Case("starmap_v1_1k", "domains", "domain"),
)


def load(case: Case) -> AnnData:
    """The cells of a case, without graphs."""
    toy = case.dataset == "toy"
    adata = datasets.toy(num_cells=400, num_genes=200) if toy else datasets.load(case.dataset)
    keep = adata.obs[case.label].notna().to_numpy()
    for column, value in case.drop:
        keep &= (adata.obs[column] != value).to_numpy()
    return adata[keep].copy()


@cache
def trunk(seed: int | None) -> graphfm.GraphFM:
    """Untrained with the random weights of a seed, or with the weights of the package."""
    return graphfm.GraphFM.from_pretrained() if seed is None else tl.new_model("small", seed=seed)


def scvi_latent(adata: AnnData, batch_key: str | None, seed: int) -> np.ndarray:
    """scVI (doi:10.1038/s41592-018-0229-2) on counts of the 2000 most variable genes, its defaults and full epochs."""
    import scanpy as sc
    from scvi import settings
    from scvi.model import SCVI

    settings.seed = seed
    given = adata.copy()
    if given.n_vars > 2000:
        logged = sc.pp.log1p(sc.pp.normalize_total(given, target_sum=1e4, copy=True), copy=True)
        sc.pp.highly_variable_genes(logged, n_top_genes=2000)
        given = given[:, logged.var["highly_variable"]].copy()
    SCVI.setup_anndata(given, batch_key=batch_key)
    model = SCVI(given)
    model.train(accelerator="cpu", enable_progress_bar=False, logger=False)
    return model.get_latent_representation()


def represent(adata: AnnData, case: Case, method: str, truth: np.ndarray, seed: int) -> tuple[np.ndarray, int]:
    """Representation of the cells by one method, and the layers that made it; only the controls look at `truth`."""
    if method in CONTROLS:
        return cell_types.controls(truth, seed)[method], 0
    if method == "pca":
        return adata.obsm["X_pca"], 0
    if method == PEER:
        return scvi_latent(adata, case.library_key, seed), 0
    relations = RELATIONS[case.setting]
    if method == "pca:neighbor_mean":
        return neighbor_mean(adata, relations), 1
    model = trunk(seed if method == "graphfm:random" else None)
    tl.embed(adata, model, relations=relations, kind=case.kind, organism=case.organism)
    return adata.obsm["X_graphfm"], model.config.num_layers


def best_communities(x: np.ndarray, truth: np.ndarray, seed: int) -> dict[str, float]:
    """ARI and NMI of Leiden communities at the resolution with the highest NMI.

    In the graph of 15 neighbours, weighed by what they share (PhenoGraph, doi:10.1016/j.cell.2015.05.047).
    """
    near = NearestNeighbors(n_neighbors=15).fit(x).kneighbors(return_distance=False)
    graph = shared_neighbor_graph(near)
    scores = [agreement(communities(graph, resolution, seed), truth) for resolution in RESOLUTIONS]
    return max(scores, key=lambda found: found["nmi"])


def run(case: Case, todo: Sequence[dict], path: Path) -> None:
    """Do jobs of one case: what does not depend on the seed is computed once, then scored for every seed."""
    adata = load(case)
    truth = adata.obs[case.label].astype(str).to_numpy()
    with _spine.measured() as graphs:
        tl.build_graphs(adata, relations=RELATIONS[case.setting], library_key=case.library_key, kind=case.kind)
    facts = {"num_cells": adata.n_obs, "num_genes": adata.n_vars, "num_classes": len(set(truth))}
    origin = "toy" if case.dataset == "toy" else datasets.info(case.dataset).files[0].sha256
    known: dict[str, tuple] = {}
    for job in todo:
        method, seed = job["method"], job["seed"]
        if method not in known or method in SEEDED:
            with _spine.measured() as cost:
                x, layers = represent(adata, case, method, truth, seed)
            known[method] = (x, layers, graphs if method == "pca" else cost)
        x, layers, cost = known[method]
        scores = cell_types.evaluate(x, truth, seed)
        found = best_communities(x, truth, seed)
        scores["avgbio_leiden"] = np.mean([found["ari"], found["nmi"], scores["type_silhouette"]])
        scores["effective_rank"] = effective_rank(torch.as_tensor(np.asarray(x, dtype=np.float64)))
        record = {
            **job,
            **_spine.rounded(scores),
            "num_layers": layers,
            **facts,
            **cost,
            **_spine.provenance(),
            "data_sha256": origin,
        }
        _spine.append(path, record)


def latest(records: Sequence[dict]) -> pd.DataFrame:
    """Of repeated jobs (new weights, say) the last one."""
    return pd.DataFrame(records).drop_duplicates(["setting", "dataset", "method", "seed"], keep="last")


def summarize(records: Sequence[dict]) -> pd.DataFrame:
    """Mean and standard deviation over seeds of the cases that have every method."""
    keys = ["setting", "dataset", "method"]
    frame = latest(records)
    frame = frame[frame["method"].isin(METHODS)]
    frame = frame[frame.groupby(keys[:2])["method"].transform("nunique") == len(METHODS)]
    groups = frame.groupby(keys, sort=False)
    sizes = groups[["num_cells", "num_classes"]].first()
    mean, sd = groups[list(METRICS)].mean(), groups[list(METRICS)].std().fillna(0.0)
    return pd.concat([sizes, mean, sd.add_suffix("_sd")], axis=1)


def outside(summary: pd.DataFrame) -> list[str]:
    """Where a method's mean is not between the two controls."""
    found = []
    for (setting, dataset), part in summary.groupby(level=[0, 1], sort=False):
        part = part.droplevel([0, 1])
        for metric, title in METRICS.items():
            for method in part.index.intersection([m for m in METHODS if m not in CONTROLS], sort=False):
                low, value, high = (part.loc[name, metric] for name in ("shuffled", method, "oracle"))
                if not low <= value <= high:
                    found.append(
                        f"{dataset} ({setting}), {method}: {title} {value:.3f} is not in {low:.3f} to {high:.3f}"
                    )
    return found


def table(records: Sequence[dict]) -> str:
    """Markdown: means over data sets and paired wins, then every data set. A function of the records alone."""
    summary = summarize(records)
    lines = [f"| setting | score | {HEAD} | " + " | ".join(f"against `{rival}`" for rival in RIVALS) + " |"]
    lines.append("|---|---|" + "---:|" * len(METHODS) + "---|" * len(RIVALS))
    wide = {metric: summary[metric].unstack("method") for metric in METRICS}
    for setting in [s for s in RELATIONS if s in summary.index.get_level_values("setting")]:
        for metric, title in METRICS.items():
            part = wide[metric].loc[setting]
            means = _bold({m: part[m].mean() for m in METHODS}, {m: f"{part[m].mean():.3f}" for m in METHODS})
            wins = " | ".join(_wins(part["graphfm"], part[rival]) for rival in RIVALS)
            lines.append(f"| {setting} | {title} | {means} | {wins} |")
    counts = wide["accuracy"].groupby(level="setting").size()
    found = outside(summary)
    lines += [
        "",
        f"Means over data sets ({', '.join(f'{s}: {counts[s]}' for s in RELATIONS if s in counts)}) of means over "
        f"{len({record['seed'] for record in records})} seeds; bold: the best that is no control. "
        "Right: data sets on which `graphfm` is better, equal (three digits), worse. "
        + (f"Not between the controls: {'; '.join(found)}." if found else "Every score is between its controls."),
    ]
    lines += beside_peer(records)
    for metric, title in METRICS.items():
        lines += ["", "<details>", f"<summary>{title} of every data set, mean ± sd over seeds</summary>", ""]
        lines += [*_detail(summary, metric), "", "</details>"]
    return "\n".join(lines) + "\n"


def beside_peer(records: Sequence[dict]) -> list[str]:
    """Markdown: PCA, graphfm and the peer on the data sets where the peer has a record, seeds averaged."""
    means = latest(records).groupby(["setting", "dataset", "method"])[list(METRICS)].mean().unstack("method")
    if PEER not in means["accuracy"]:
        return []
    means = means[means["accuracy", PEER].notna()]
    shown = ("pca", "graphfm", PEER)
    head = " | ".join(f"`{method}`" for method in shown)
    lines = ["", f"| where there are counts | score | {head} | `graphfm` against it |", "|---|---|---:|---:|---:|---|"]
    for setting in [s for s in RELATIONS if s in means.index.get_level_values("setting")]:
        for metric, title in METRICS.items():
            part = means.loc[setting][metric]
            values = " | ".join(f"{part[method].mean():.3f}" for method in shown)
            lines.append(f"| {setting}, {len(part)} | {title} | {values} | {_wins(part['graphfm'], part[PEER])} |")
    return lines


def _wins(ours: pd.Series, theirs: pd.Series) -> str:
    gap = (ours.round(3) - theirs.round(3)).round(3)
    return f"{(gap > 0).sum()} better, {(gap == 0).sum()} equal, {(gap < 0).sum()} worse"


def _bold(values: Mapping[str, float], texts: Mapping[str, str]) -> str:
    best = max(round(value, 3) for method, value in values.items() if method not in CONTROLS)
    chosen = {m for m, value in values.items() if m not in CONTROLS and round(value, 3) == best}
    return " | ".join(f"**{text}**" if method in chosen else text for method, text in texts.items())


def _detail(summary: pd.DataFrame, metric: str) -> list[str]:
    lines = [f"| data set | setting | cells | classes | {HEAD} |", "|---|---|---:|---:|" + "---:|" * len(METHODS)]
    for (setting, dataset), part in summary.groupby(level=[0, 1], sort=False):
        part = part.droplevel([0, 1])
        texts = {m: f"{part.loc[m, metric]:.3f} ± {part.loc[m, f'{metric}_sd']:.3f}" for m in METHODS}
        sizes = f"{part['num_cells'].iloc[0]:,.0f} | {part['num_classes'].iloc[0]:.0f}"
        lines.append(f"| {dataset} | {setting} | {sizes} | {_bold(part[metric], texts)} |")
    return lines


@cache
def weights_hash() -> str:
    """Of the shipped weights themselves: what else their file says does not matter."""
    content = hashlib.sha256()
    for name, values in sorted(trunk(None).state_dict().items()):
        content.update(name.encode() + values.numpy().tobytes())
    return content.hexdigest()[:12]


def jobs(case: Case, seeds: Sequence[int]) -> list[dict]:
    """What identifies the records of a case; other weights make another job of `graphfm`."""
    weights = {"graphfm": weights_hash(), "graphfm:random": "random"}
    common = {"dataset": case.dataset, "setting": case.setting}
    here = [(m, s) for m in METHODS for s in seeds]
    if case.kind == "counts" and importlib.util.find_spec(PEER):
        here.append((PEER, seeds[0]))
    return [{**common, "method": m, "seed": s, "weights": weights.get(m, "none")} for m, s in here]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="toy data, two seeds; nothing is kept without --results")
    parser.add_argument("--setting", choices=RELATIONS, help="one of the two; both at a time may share the file")
    parser.add_argument("--results", type=Path, help=f"default: {PATH.relative_to(Path(__file__).parent.parent)}")
    parser.add_argument("--readme", action="store_true", help="run nothing, put the table into README.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path = options.results or (Path(scratch) / PATH.name if options.smoke else PATH)
        if options.readme:
            return _spine.renew_readme("table0", table(_spine.read(path)))
        for case in SMOKE if options.smoke else CASES:
            if options.setting not in (None, case.setting):
                continue
            if todo := _spine.pending(path, jobs(case, SEEDS[:2] if options.smoke else SEEDS)):
                run(case, todo, path)
        print(table(_spine.read(path)))


if __name__ == "__main__":
    main()
