"""Table 5: domains of tissues, slides together, genes that were not measured, beside a blur and other methods.

Command: ``python experiments/table5_spatial.py`` (``--smoke``: toy tissue, no mirror; ``--readme``: renew the README);
         ``--setting``, ``--dataset``, ``--method``, ``--seed`` run a part, several processes may share the file
Cost:    two hours of one core for GraphST, STAGATE and Novae (see experiments/README.md for threads), one for all
         else; resumable
Expect:  see the README

Setting: ``slide``: each of 15 slides by itself. ``zero_shot``: principal components of the other tissues' slides.
         ``annotated``: methods that are told the cells' types. ``together``: the slides of a tissue at once.
         ``repeat``: each slide twice, by two seeds. ``impute``: half of a slide's cells lack a fifth of the genes, at
         most 200. ``scale``: 36,362 cells of Xenium.
Columns: every embedding by one clusterer, ``mixture`` (tied Gaussian mixture, best of ten starts, 15 principal
         components if it has more), by graphfm's, ``field`` (mixtures of 30 types of that embedding under a Potts
         field, ten to sixty runs that vote), and by each method's ``own``.
Scores:  of domains at the true number: ``ari``, ``nmi``, ``border_f1``, ``smallest_recall``, ...; of embeddings: a
         logistic regression on other blocks of the tissue (``probe``, ``probe_macro_f1``), ``together`` on other
         slides. Of genes: medians of ``spearman`` and ``rmse``.
Rule:    one recipe for all slides, fixed before the table: ``neighbor_mean`` is the mean over 18 of 15 components of
         genes standardised slide by slide. Peers: their packages' defaults, or their tutorials' for Visium, STAGATE
         written anew (`_spatial_peers`). Five seeds of graphfm and the simple recipes, fewer of what takes minutes or
         draws next to nothing (each record has its own).
Variant: ``graphfm:trunk``, the embedding of the package's weights; ``graphfm:random``, of untrained ones;
         ``graphfm:shuffled``, coordinates dealt among cells, which is a shuffled graph (its ``field`` lies on the true
         one); no graph is ``pca`` with ``mixture``.

Read with care: graphfm's clusterer was made with DLPFC 151673, osmFISH, STARmap V1, mPFC BZ5 and HER2 A, B in view; the
other slides were not looked at. DLPFC's sections share one donor; STARmap's labels were smoothed or drawn by authors of
methods. Blocks of the probe touch, so that cells at their edges help each other, which favours smoothing.
"""

from collections.abc import Iterator, Sequence

import _spatial_peers as peers
import _spatial_slides as slides
import _spine
import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.decomposition import PCA

from graphfm import datasets, tl
from graphfm.metrics.labels import agreement, linear_probe
from graphfm.metrics.spatial import tissue_blocks
from graphfm.models.domains import mixture_densities, vote_domains
from graphfm.tasks import domains, imputation
from graphfm.tl.domains import NUM_TYPES
from graphfm.tl.slices import tissue_neighbors

PATH = _spine.RESULTS / "table5_spatial.jsonl"
SEEDS = (0, 1, 2, 3, 4)
SEEN = ("dlpfc_151673", "osmfish_ssctx", "starmap_v1_1k", "starmap_mpfc_BZ5", "her2st_A", "her2st_B")
"""Slides in view of which graphfm's clusterer was made."""
KEYS = ("dataset", "setting", "method", "clusterer", "seed")
CONTROLS = ("shuffled", "oracle")
METHODS: dict[str, tuple[str, ...]] = {
    "slide": ("shuffled", *slides.EMBEDDINGS, "graphfm:shuffled", *peers.METHODS, "oracle"),
    "zero_shot": ("linear",),
    "annotated": ("kmeans", "graphfm"),
    "together": tuple(slides.EMBEDDINGS),
    "repeat": ("neighbor_mean", "graphfm"),
    "impute": ("shuffled", "gene_mean", "knn_15", "knn_50", "neighbor_mean", "graphfm", "oracle"),
    "scale": ("graphfm",),
}
ORDER = ("shuffled", "pca", "neighbor_mean", "linear", "banksy", "graphst", "stagate", "novae")
ORDER += ("kmeans", "gene_mean", "knn_15", "knn_50")
ORDER += ("graphfm:random", "graphfm:trunk", "graphfm:shuffled", "graphfm", "oracle")
OTHER_SCORES = ("border_f1", "smallest_recall", "chaos", "pas")
CLUSTERERS = ("mixture", "field", "own")
XENIUM = "xenium_mouse_brain"


def jobs() -> list[dict]:
    """What identifies a run; of domains it leaves a record for each clusterer."""
    real = [name for name in slides.SLIDES if name != "toy"]
    of = {
        "slide": real,
        "zero_shot": real,
        "annotated": [name for name in real if slides.SLIDES[name].cell_type],
        "together": [name for name in slides.TISSUES if name != "toy"],
        "repeat": real,
        "impute": [name for name in real if slides.SLIDES[name].impute],
        "scale": [XENIUM],
    }
    return [
        {"dataset": name, "setting": setting, "method": method, "seed": seed}
        for setting, names in of.items()
        for seed in (SEEDS if setting not in ("repeat", "scale") else (0,))
        for method in METHODS[setting]
        for name in names
    ]


def truth_of(adata: AnnData) -> pd.DataFrame:
    """What `graphfm.tasks.domains` asks for."""
    xy = adata.obsm["spatial"]
    return adata.obs[["domain", "slide"]].assign(x=xy[:, 0], y=xy[:, 1])


def clustered(clusterer: str, embedding: np.ndarray, adata: AnnData, number: int, seed: int) -> np.ndarray:
    """Labels of an embedding by one of the two clusterers that all get."""
    values = embedding
    if values.shape[1] > slides.COMPONENTS:
        values = PCA(slides.COMPONENTS, random_state=seed).fit_transform(values)
    values = values.astype(np.float64)
    if clusterer == "mixture":
        return peers.mixture(values, number, seed)
    near, types = tissue_neighbors(adata, "slide", "spatial", slides.NEIGHBORS), min(NUM_TYPES, len(values) // 2)

    def densities(run_seed: int) -> np.ndarray:
        return mixture_densities(values, types, seed=run_seed)

    return vote_domains(densities, values, near, number, seed=seed).probability.argmax(axis=1)


def own_domains(adata: AnnData, number: int, seed: int) -> np.ndarray:
    """Labels of `graphfm.tl.spatial_domains`."""
    found = tl.spatial_domains(
        adata, n_domains=number, library_key="slide", kind=slides.kind(adata), seed=seed, copy=True
    )
    return found.obs["spatial_domain"].to_numpy()


def represented(job: dict, adata: AnnData, number: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Embedding and own labels of a method; None where it has no such."""
    method, seed = job["method"], job["seed"]
    if job["setting"] == "annotated":
        if method == "kmeans":
            return None, slides.annotated_kmeans(adata, number, seed)
        tl.niches(adata, cell_type_key="cell_type", n_niches=number, library_key="slide", seed=seed)
        return None, adata.obs["niche"].to_numpy()
    if method == "linear":
        return slides.linear_zero_shot(job["dataset"], adata, seed), None
    if method == "novae" and adata.n_obs < peers.NOVAE_CELLS:
        return None, None
    if method in peers.METHODS:
        chosen = peers.SPOTS if slides.SLIDES[job["dataset"]].visium and method in peers.SPOTS else peers.METHODS
        return chosen[method](adata, number, seed)
    if method in ("graphfm", "graphfm:shuffled"):
        given = adata.copy()
        if method == "graphfm:shuffled":
            given.obsm["spatial"] = np.random.default_rng(seed).permutation(given.obsm["spatial"])
        return slides.tissue_embedding(given, seed), own_domains(given, number, seed)
    return slides.EMBEDDINGS[method](adata.copy(), seed), None


def run_domains(job: dict) -> Iterator[dict]:
    """A record for each clusterer."""
    setting, method, seed = job["setting"], job["method"], job["seed"]
    adata = slides.load_tissue(job["dataset"]) if setting == "together" else slides.load(job["dataset"])
    truth, number = truth_of(adata), adata.obs["domain"].nunique()
    facts = {"num_cells": adata.n_obs, "num_genes": adata.n_vars, "num_domains": number} | source(job["dataset"])
    if method in CONTROLS:
        scores = domains.evaluate(domains.controls(truth, seed)[method], truth, seed)
        yield {**job, "clusterer": "own", **_spine.rounded(scores), **facts}
        return
    with _spine.measured() as cost:
        embedding, own = represented(job, adata, number)
    if embedding is not None:
        blocks = tissue_blocks(adata.obsm["spatial"], seed=seed) if setting != "together" else adata.obs["slide"]
        probe = linear_probe(embedding, adata.obs["domain"].to_numpy(), np.asarray(blocks), folds=8, seed=seed)
        cost |= {"probe": probe["accuracy"], "probe_macro_f1": probe["macro_f1"]}
    for clusterer in CLUSTERERS:
        if (own if clusterer == "own" else embedding) is None:
            continue
        found = own if clusterer == "own" else clustered(clusterer, embedding, adata, number, seed)
        scores = domains.evaluate(found, truth, seed)
        yield {**job, "clusterer": clusterer, **_spine.rounded(scores | cost), **facts}


def run_repeat(job: dict) -> Iterator[dict]:
    """One record: how far two seeds come to the same."""
    adata = slides.load(job["dataset"])
    number = adata.obs["domain"].nunique()

    def found(seed: int) -> np.ndarray:
        if job["method"] == "graphfm":
            return own_domains(adata, number, seed)
        return clustered("mixture", slides.EMBEDDINGS[job["method"]](adata.copy(), seed), adata, number, seed)

    ari = agreement(found(job["seed"]), found(job["seed"] + 1))["ari"]
    facts = {"num_cells": adata.n_obs, "num_domains": number} | source(job["dataset"])
    yield {
        **job,
        "clusterer": "own" if job["method"] == "graphfm" else "mixture",
        **_spine.rounded({"ari": ari}),
        **facts,
    }


def run_imputation(job: dict) -> Iterator[dict]:
    """One record."""
    adata, method, seed = slides.load(job["dataset"]), job["method"], job["seed"]
    cells, genes = slides.hidden_genes(adata, seed)
    truth = slides.measured_genes(adata[cells], genes)
    with _spine.measured() as cost:
        if method in CONTROLS:
            predicted = imputation.controls(truth, seed)[method]
        else:
            predicted = slides.imputed(method, adata, cells, genes, seed)
    scores = imputation.evaluate(predicted, truth, seed)
    facts = {"num_cells": int(cells.sum()), "num_genes": len(genes)} | source(job["dataset"])
    yield {**job, "clusterer": "", **_spine.rounded(scores | cost), **facts}


def run_scale(job: dict) -> Iterator[dict]:
    """Time and memory; there is no truth."""
    adata = datasets.load(job["dataset"])
    with _spine.measured() as cost:
        tl.spatial_domains(adata, n_domains=10, seed=job["seed"])
    facts = {"num_cells": adata.n_obs, "num_genes": adata.n_vars} | source(job["dataset"])
    yield {**job, "clusterer": "own", **_spine.rounded(cost), **facts}


def source(name: str) -> dict:
    """Provenance and the checksum of a slide's, or a tissue's first, file."""
    of = [slide.dataset for key, slide in slides.SLIDES.items() if name in (key, slide.tissue)] or [name]
    known = "toy" if name == "toy" else datasets.info(of[0]).files[0].sha256
    return {**_spine.provenance(), "data_sha256": known}


def frame(records: Sequence[dict], *settings: str) -> pd.DataFrame:
    """Records of these settings, the last of each job, methods in order."""
    return _spine.frame(records, KEYS, ORDER, *settings)


def domain_table(records: Sequence[dict]) -> str:
    """Markdown: means over slides of means over seeds, by clusterer."""
    table = frame(records, "slide", "zero_shot")
    if table.empty:
        return ""
    each = table.groupby(["method", "clusterer", "dataset"], observed=True)
    means = each[["ari", "nmi", *OTHER_SCORES]].mean().groupby(["method", "clusterer"], observed=True).mean()
    number = each.size().groupby(["method", "clusterer"], observed=True).size()
    cost = table.reindex(columns=["method", "dataset", "probe", "seconds"]).groupby(
        ["method", "dataset"], observed=True
    )
    cost = cost.mean().groupby("method", observed=True).mean()
    head = [f"{title}, {clusterer}" for clusterer in CLUSTERERS for title in ("ARI", "NMI")]
    head += ["border F1", "smallest domain", "CHAOS", "PAS", "probe", "seconds", "slides"]
    lines = [
        "**Domains**, each slide by itself",
        "",
        "| method | " + " | ".join(head) + " |",
        "|---|" + "---:|" * len(head),
    ]
    for method in [m for m in ORDER if m in means.index.get_level_values("method")]:
        mine = means.loc[method]
        cells = [f"{mine.loc[c, score]:.3f}" if c in mine.index else "" for c in CLUSTERERS for score in ("ari", "nmi")]
        last = mine.loc["own" if "own" in mine.index else "field"]
        cells += [f"{last[score]:.3f}" for score in OTHER_SCORES]
        cells += [
            f"{cost.loc[method, c]:.{d}f}" if cost.loc[method, c] >= 0 else ""
            for c, d in (("probe", 3), ("seconds", 1))
        ]
        lines.append(f"| `{method}` | " + " | ".join([*cells, str(number.loc[method].max())]) + " |")
    lines += [
        "",
        "Border F1, smallest domain, CHAOS and PAS: of the method's own clusters, where it has none of `field`'s.",
    ]
    return "\n".join([*lines, *paired(table)]) + "\n"


def paired(table: pd.DataFrame) -> list[str]:
    """What graphfm's own domains are above each rival's best column: mean difference, bootstrap over slides."""
    ari = table.groupby(["method", "clusterer", "dataset"], observed=True)["ari"].mean()
    if ("graphfm", "own") not in ari.index:
        return []
    ours, rng, told = ari["graphfm", "own"], np.random.default_rng(0), []
    for method in [m for m in ORDER if m in ari.index.get_level_values("method") and "graphfm" not in m]:
        if method in CONTROLS:
            continue
        columns = {clusterer: (ours - ari[method, clusterer]).dropna() for clusterer in ari[method].index.unique(0)}
        best = min(columns, key=lambda clusterer: columns[clusterer].mean())
        unseen = columns[best].drop(list(SEEN), errors="ignore")
        parts = {"all": columns[best], "not looked at": unseen}
        gaps = [f"{which} {_spine.gap(gap.to_numpy(), rng)}" for which, gap in parts.items() if len(gap)]
        told.append(f"`{method}` ({best}) {'; '.join(gaps)}")
    head = "ARI of graphfm's own domains less that of the rival's best column (95 %, slides drawn again):"
    return ["", head, "", *(f"- {line}" for line in told)]


def slide_table(records: Sequence[dict]) -> str:
    """Markdown: ARI of every slide by the method's own clusters, or the field's, and the plain mixture's."""
    table = frame(records, "slide", "zero_shot")
    if table.empty:
        return ""
    ari = table.groupby(["dataset", "method", "clusterer"], observed=True)["ari"].mean()
    present = [m for m in ORDER if m in table["method"].unique()]
    lines = [
        "**ARI of every slide**: mixture / field / own",
        "",
        "| slide | " + " | ".join(f"`{m}`" for m in present) + " |",
    ]
    lines += ["|---|" + "---:|" * len(present)]
    for name in table["dataset"].unique():
        cells = []
        for method in present:
            values = [ari.get((name, method, clusterer)) for clusterer in CLUSTERERS]
            cells.append(" / ".join(f"{v:.2f}" for v in values if v is not None))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def other_tables(records: Sequence[dict]) -> Iterator[str]:
    """Markdown: annotated, together, imputation, scale."""
    annotated = frame(records, "annotated")
    if len(annotated):
        wide = annotated.pivot_table("ari", "method", "dataset", observed=True)
        lines = ["**With the cells' types given** (k-means of neighbourhoods; `tl.niches`): ARI", ""]
        lines += ["| method | " + " | ".join(wide.columns) + " |", "|---|" + "---:|" * wide.shape[1]]
        yield (
            "\n".join(
                lines + [f"| `{m}` | " + " | ".join(f"{v:.3f}" for v in row) + " |" for m, row in wide.iterrows()]
            )
            + "\n"
        )
    together = frame(records, "together")
    if len(together):
        lines = [
            "**Slides of a tissue together**: accuracy of labels from the other slides / ARI, field / ARI, own",
            "",
        ]
        names = list(together["dataset"].unique())
        lines += ["| method | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
        probe = together.groupby(["method", "dataset"], observed=True)["probe"].mean()
        ari = together.groupby(["method", "dataset", "clusterer"], observed=True)["ari"].mean()
        for method in together["method"].cat.remove_unused_categories().cat.categories:
            cells = []
            for name in names:
                values = [probe.get((method, name)), *(ari.get((method, name, c)) for c in ("field", "own"))]
                cells.append(" / ".join(f"{v:.3f}" for v in values if v is not None))
            lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
        yield "\n".join(lines) + "\n"
    repeat = frame(records, "repeat")
    if len(repeat):
        by_method = repeat.groupby("method", observed=True)["ari"]
        told = [f"`{method}` {ari.mean():.3f} (least {ari.min():.3f})" for method, ari in by_method]
        number = repeat["dataset"].nunique()
        yield f"**Two seeds**, ARI of their domains, mean over {number} slides: {', '.join(told)}.\n"
    impute = frame(records, "impute")
    if len(impute):
        groups = impute.assign(tissue=impute["dataset"].map(lambda n: slides.SLIDES[n].tissue))
        means = groups.groupby(["method", "tissue"], observed=True)[["spearman", "rmse"]].mean()
        names = list(groups["tissue"].unique())
        lines = ["**Genes that were not measured**: median Spearman / RMSE in standard deviations", ""]
        lines += ["| method | " + " | ".join(names) + " | slides won |", "|---|" + "---:|" * (len(names) + 1)]
        wide = impute.pivot_table("spearman", "dataset", "method", observed=True)
        best = wide.drop(columns=[c for c in CONTROLS if c in wide]).idxmax(axis=1)
        for method in impute["method"].cat.remove_unused_categories().cat.categories:
            cells = [f"{means.loc[(method, n), 'spearman']:.3f} / {means.loc[(method, n), 'rmse']:.3f}" for n in names]
            lines.append(f"| `{method}` | " + " | ".join(cells) + f" | {(best == method).sum()} |")
        yield "\n".join(lines) + "\n"
    for row in frame(records, "scale").itertuples():
        cost = f"{row.seconds:.0f} s, {row.peak_mb / 1024:.1f} GB"
        yield f"`tl.spatial_domains` of {row.num_cells:,} cells (Xenium, {row.num_genes} genes): {cost}.\n"


def everything(records: Sequence[dict]) -> str:
    """All tables."""
    return "\n".join(part for part in (domain_table(records), slide_table(records), *other_tables(records)) if part)


def smoke_jobs() -> list[dict]:
    """Simple methods on the toy tissue."""
    pairs = {"slide": ("shuffled", "pca", "neighbor_mean", "graphfm", "oracle"), "annotated": ("kmeans", "graphfm")}
    pairs |= {"together": ("neighbor_mean", "graphfm"), "impute": METHODS["impute"], "repeat": METHODS["repeat"]}
    return [{"dataset": "toy", "setting": s, "method": m, "seed": 0} for s, methods in pairs.items() for m in methods]


def run(job: dict) -> list[dict]:
    """Records of a job, all at once: a job that is half done would count as done."""
    others = {"repeat": run_repeat, "impute": run_imputation, "scale": run_scale}
    return list(others.get(job["setting"], run_domains)(job))


def main() -> None:
    """Run what is asked for and not done, print the tables."""
    _spine.drive(__doc__, PATH, jobs=jobs, smoke=smoke_jobs, run=run, render=everything, needs=peers.NEEDS)


if __name__ == "__main__":
    main()
