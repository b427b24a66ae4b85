"""Table 6's setting ``batches``: several batches in one embedding, no label seen."""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache

import _spine
import numpy as np
import pandas as pd
from _zero_shot_cells import LOOKED_AT, MIXES, mixed
from anndata import AnnData
from table0_embedding import scvi_latent

from graphfm.data.cell_groups import group_numbers
from graphfm.data.prepare import cell_graph
from graphfm.models import GraphFM
from graphfm.models.integration import integrate_components
from graphfm.nn.neighborhood import Neighborhood
from graphfm.pp.knn import write_components
from graphfm.tasks import integration
from graphfm.tl import integrate
from graphfm.tl.evaluation import components_by_batch
from graphfm.tl.integration import carried

CONTROLS = ("shuffled", "oracle")
SCORES = {
    "avgbio": "types kept",
    "avgbatch": "batches mixed",
    "overall": "overall",
    "macro_f1": "told by other batches",
    "scgraph": "scGraph",
}


def components(adata: AnnData, kind: str, seed: int) -> np.ndarray:
    """Fifty principal components of 2000 variable genes."""
    del seed
    made = adata.copy()
    write_components(made, kind=kind, seed=0)
    return made.obsm["X_pca"]


def harmony(adata: AnnData, kind: str, seed: int) -> np.ndarray:
    """Harmony on these, its defaults."""
    import harmonypy

    found = harmonypy.run_harmony(
        components(adata, kind, seed).astype(np.float64), adata.obs, "batch", random_state=seed, verbose=False
    )
    moved = np.asarray(found.Z_corr)
    return moved if len(moved) == adata.n_obs else moved.T


def harmony_carried(adata: AnnData, kind: str, seed: int) -> np.ndarray:
    """Harmony's components with a kNN graph in them and the trunk's carrier, as `tl.integrate` does with its own."""
    values = harmony(adata, kind, seed)
    return carried(bare(adata, kind), (values - values.mean(axis=0)).astype(np.float32), weights(), seed=seed)


def scvi(adata: AnnData, kind: str, seed: int) -> np.ndarray:
    """scVI on counts."""
    del kind
    return scvi_latent(adata, "batch", seed)


def ours(adata: AnnData, kind: str, seed: int) -> np.ndarray:
    """`tl.integrate`."""
    return integrate(adata, batch_key="batch", kind=kind, seed=seed, copy=True).obsm["X_integrated"]


def ours_moved(adata: AnnData, kind: str, seed: int) -> np.ndarray:
    """Its components, before the trunk."""
    before = bare(adata, kind).scores.numpy()
    return integrate_components(before, group_numbers(adata.obs, "batch"), seed=seed).values


def carried_alone(adata: AnnData, kind: str, seed: int) -> np.ndarray:
    """The trunk's carrier where no batch was moved."""
    cells = bare(adata, kind)
    return carried(cells, cells.scores.numpy(), weights(), seed=seed)


METHODS: dict[str, Callable[[AnnData, str, int], np.ndarray]] = {
    "pca": components,
    "harmony": harmony,
    "harmony:carrier": harmony_carried,
    "scvi": scvi,
    "graphfm:unmoved": carried_alone,
    "graphfm:components": ours_moved,
    "graphfm": ours,
}
ORDER = ("shuffled", *METHODS, "oracle")


@cache
def weights() -> GraphFM:
    """Those of the package."""
    return GraphFM.from_pretrained()


def bare(adata: AnnData, kind: str):
    """Cells for the trunk, without neighbours."""
    return cell_graph(adata.copy(), neighborhood=Neighborhood.empty(adata.n_obs), kind=kind, with_expression=False)


def jobs(seeds: Sequence[int]) -> list[dict]:
    """What identifies a record; scVI, which is slow, has one seed."""
    return [
        {"dataset": name, "setting": "batches", "method": method, "num_labels": 0, "unseen": "", "seed": seed}
        for seed in seeds
        for name in MIXES
        for method in ORDER
        if seed == seeds[0] or method != "scvi"
    ]


def run(job: dict) -> list[dict]:
    """One record; none of scVI where there are no counts."""
    adata, kind = mixed(job["dataset"])
    method, seed = job["method"], job["seed"]
    if method == "scvi" and kind != "counts":
        return []
    with _spine.measured() as cost:
        if method in CONTROLS:
            values = integration.controls(adata.obs, seed)[method]
        else:
            values = METHODS[method](adata, kind, seed)
    scores = integration.evaluate(values, adata.obs, seed, components=own_components(job["dataset"]))
    facts = {"num_cells": adata.n_obs, "num_genes": adata.n_vars, "num_types": adata.obs["type"].nunique()}
    return [{**job, **_spine.rounded(scores | cost), **facts, "num_batches": adata.obs["batch"].nunique()}]


@lru_cache(maxsize=2)
def own_components(name: str) -> np.ndarray:
    """Principal components of each batch alone."""
    adata, kind = mixed(name)
    return components_by_batch(adata, adata.obs["batch"], kind=kind)


def table(records: pd.DataFrame) -> str:
    """Markdown: means over mixtures, then every mixture; records as of `_spine.frame`."""
    if records.empty:
        return ""
    aside = ~records["dataset"].isin(LOOKED_AT)
    shown = {score: title for score, title in SCORES.items() if score in records}
    mean = records.groupby(["method", "dataset"], observed=True)[list(shown)].mean()
    fresh, number = set(records.loc[aside, "dataset"]), records["dataset"].nunique()
    lines = [
        f"**Batches together**: mean over {number} mixtures; aside: of the {len(fresh)} whose data were not looked at",
        "",
        "| method | " + " | ".join([*shown.values(), *(f"{title}, aside" for title in shown.values())]),
    ]
    lines[-1] += " | mixtures | seconds |"
    lines.append("|---|" + "---:|" * (2 * len(shown) + 2))
    for method, part in mean.groupby(level="method", observed=True):
        own = part[part.index.get_level_values("dataset").isin(fresh)]
        cells = [f"{value:.3f}" if value == value else "" for value in (*part.mean(), *own.mean())]
        mine = records[records["method"] == method]
        seconds = "" if method in CONTROLS else f"{mine['seconds'].mean():.1f}"
        lines.append(f"| `{method}` | " + " | ".join(cells) + f" | {len(part)} | {seconds} |")
    lines += ["", *gaps(mean), "", "<details>", "<summary>Overall score of every mixture</summary>", ""]
    wide = mean["overall"].unstack("method").reindex(records["dataset"].unique())
    lines += ["| mixture | " + " | ".join(f"`{method}`" for method in wide) + " |", "|---|" + "---:|" * wide.shape[1]]
    for name, row in wide.iterrows():
        mark = " *" if name in fresh else ""
        cells = (f"{value:.3f}" if value == value else "" for value in row)
        lines.append(f"| {name}{mark} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "\\* of data sets that were not looked at before.", "", "</details>"]) + "\n"


def gaps(mean: pd.DataFrame) -> list[str]:
    """What graphfm is above each rival, on the mixtures that both have: mean difference, bootstrap over mixtures."""
    told, rng = [], np.random.default_rng(0)
    wide = mean["overall"].unstack("method")
    for rival in ("pca", "harmony", "scvi"):
        if {rival, "graphfm"} <= set(wide):
            told.append(f"`{rival}` {_spine.gap((wide['graphfm'] - wide[rival]).dropna().to_numpy(), rng)}")
    return ["Overall of `graphfm` less that of the others (95 %, mixtures drawn again): " + "; ".join(told) + "."]
