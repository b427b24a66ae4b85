"""Table 6: cell types from few labels, from another batch, types that no label names; batches together.

Command: ``python experiments/table6_zero_shot.py`` (``--smoke``: toy cells, no mirror; ``--readme``: renew the README);
         ``--setting``, ``--dataset``, ``--seed`` run a part, several processes may share the file
Cost:    four hours of one core and, for scVI, more than that; resumable
Expect:  see the README

Setting: ``few_shot``: 1, 5, 10 or 50 cells of each type are labelled (at most half of a type), the others are to be
         told. ``transfer``: labels of one batch, donor, condition or section (at most 300 cells of a type, for
         every method), to tell another's. ``unseen``: the same without one type: do its cells stand out?
         ``batches``: several batches in one embedding, no label seen.
Methods: ``l1``: lasso logistic regression on log-normalised genes (scikit-learn's penalty); ``pca``: logistic
         regression on 50 components; ``knn``: vote of 15 nearest labelled cells in these; ``celltypist``: the
         package's own training, no model of theirs (only beside scikit-learn below 1.8); ``graphfm``: `tl.annotate`.
Variant: ``graphfm:no_graph``: genes and components alone; ``graphfm:random``: an untrained trunk, a new one a seed;
         ``graphfm:shuffled``: neighbours dealt among cells; ``graphfm:unmoved``, where there are batches: these not
         brought together.
Batches: ``pca``; ``harmony``; ``scvi`` (counts only, one seed; full epochs); ``harmony:carrier``: the trunk on
         Harmony's components; ``graphfm``: `tl.integrate`; ``graphfm:components``: what it moves, before the trunk;
         ``graphfm:unmoved``: the trunk, no batch moved.
Scores:  of cells that were not labelled, and whose type some cell was: ``accuracy``, ``macro_f1``, ``ece`` (expected
         calibration error, ten bins). ``unseen``: ``auroc`` of the unseen type against all other cells by 1 - largest
         probability (graphfm: 1 - familiarity), ``called_unseen`` and ``called_known``: shares that
         ``tl.annotate(unknown=0.05)`` calls unknown. ``seconds``: without components, graph and embedding.
         ``batches``: `graphfm.tasks.integration`, by scIB's definitions, and types told by cells of other batches.

Read with care: how views are joined, and the strength of the field, were chosen with the first five data sets of
`FEW` and the first twelve pairs of `PAIRS` in view, how batches meet with the first six of `MIXES`. Labels of Kang's
blood and of MERFISH are by clusters of expression, which favours whatever smooths.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from inspect import signature

import _spine
import _zero_shot_batches as batches
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from _zero_shot_cells import FEW, LOOKED_AT, MIXES, PAIRS, SMOKE
from anndata import AnnData
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from graphfm import datasets
from graphfm.data.cell_groups import order_of_names
from graphfm.metrics.labels import calibration_error
from graphfm.models import GraphFM
from graphfm.models.annotation import Annotation, annotate_cells
from graphfm.pp import knn_graph
from graphfm.tasks import cell_types
from graphfm.tl.annotation import joint_cells, some_of_each, trunk_states, views_of

PATH = _spine.RESULTS / "table6_zero_shot.jsonl"
SEEDS = {"few_shot": (0, 1, 2, 3, 4), "transfer": (0, 1, 2), "unseen": (0,), "batches": (0, 1)}
LABELS = (1, 5, 10, 50)
KEYS = ("dataset", "setting", "method", "num_labels", "unseen", "seed")
CONTROLS = ("shuffled", "oracle")
PEERS_APART = {"celltypist": "celltypist", "harmony": "harmonypy", "harmony:carrier": "harmonypy", "scvi": "scvi"}
"""Methods of packages that come with ``graphfm[bench]``."""
METHODS = ("l1", "pca", "knn", "celltypist", "graphfm:no_graph", "graphfm:random", "graphfm:shuffled", "graphfm")
ORDER = ("shuffled", *METHODS, "oracle")
TRANSFER_ORDER = ("shuffled", *METHODS[:-1], "graphfm:unmoved", "graphfm", "oracle")
UNSEEN_TYPES, UNSEEN_SHARE = 3, 0.05
UNSEEN_SCORES = ["auroc", "called_unseen", "called_known"]


def jobs() -> list[dict]:
    """What identifies a record; seeds outermost, so that all is there once before it is there again."""
    few = [
        {"dataset": name, "setting": "few_shot", "method": method, "num_labels": number, "unseen": "", "seed": seed}
        for seed in SEEDS["few_shot"]
        for name in FEW
        for method in ORDER
        for number in LABELS
    ]
    transfer = [
        {"dataset": name, "setting": "transfer", "method": method, "num_labels": 0, "unseen": "", "seed": seed}
        for seed in SEEDS["transfer"]
        for name in PAIRS
        for method in TRANSFER_ORDER
    ]
    unseen = [
        {"dataset": name, "setting": "unseen", "method": method, "num_labels": 0, "unseen": number, "seed": seed}
        for seed in SEEDS["unseen"]
        for name in PAIRS
        for number in range(UNSEEN_TYPES)
        for method in ("l1", "pca", "graphfm")
    ]
    return few + transfer + unseen + batches.jobs(SEEDS["batches"])


@cache
def unseen_type(name: str, number: int) -> str:
    """A type of a pair that both sides have; which number is which type is drawn at random, once."""
    learned, told = (side.adata().obs["type"] for side in PAIRS[name])
    return str(np.random.default_rng(0).permutation(sorted(set(learned) & set(told)))[number])


def draw(types: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Cells that are labelled: so many of each type, at most half of it."""
    rng = np.random.default_rng(seed)
    cells = [rng.permutation(np.flatnonzero(types == kind)) for kind in np.unique(types)]
    return np.sort(np.concatenate([mine[: min(number, len(mine) // 2)] for mine in cells]))


@cache
def model(seed: int | None) -> GraphFM:
    """The weights of the package, or a trunk as it is before training."""
    trained = GraphFM.from_pretrained()
    if seed is None:
        return trained
    torch.manual_seed(seed)
    return GraphFM(trained.config).eval()


@lru_cache(maxsize=3)
def space(name: str, setting: str, unseen: str, draw_seed: int, model_seed: int | None) -> tuple[AnnData, np.ndarray]:
    """Cells of a case in one space, and which of them are learned from; `few_shot`: all may be."""
    if setting == "few_shot":
        cells = SMOKE if name == "toy" else FEW[name]
        sides, chosen = [(cells, cells.adata())], np.arange(0)
    else:
        sides = [(cells, cells.adata()) for cells in PAIRS[name]]
        labels = sides[0][1].obs["type"].astype(object)
        chosen = some_of_each(labels.where(labels != unseen), draw_seed)
        sides[0] = (sides[0][0], sides[0][1][chosen])
    joint = joint_cells([(adata, None, cells.kind, cells.organism) for cells, adata in sides], model(model_seed), 0)
    starts = np.cumsum([0, *(adata.n_obs for _, adata in sides)])
    place = [start + np.argsort(order_of_names(adata.obs)) for start, (_, adata) in zip(starts, sides, strict=False)]
    joint = joint[np.concatenate(place)].copy()
    joint.obs["type"] = np.concatenate([adata.obs["type"] for _, adata in sides])
    return joint, np.arange(joint.n_obs) < len(chosen)


def lasso(joint: AnnData, labelled: np.ndarray, types: np.ndarray, seed: int) -> np.ndarray:
    """Probabilities by genes."""
    fit = LogisticRegression(penalty="l1", solver="saga", tol=1e-2, random_state=seed).fit(
        joint.X[labelled], types[labelled]
    )
    return fit.predict_proba(joint.X)


def by_components(joint: AnnData, labelled: np.ndarray, types: np.ndarray, seed: int) -> np.ndarray:
    """Probabilities by principal components."""
    x = joint.obsm["X_pca"] / joint.obsm["X_pca"][:, 0].std()
    return LogisticRegression(max_iter=1000).fit(x[labelled], types[labelled]).predict_proba(x)


def by_neighbors(joint: AnnData, labelled: np.ndarray, types: np.ndarray, seed: int) -> np.ndarray:
    """Shares of types among the nearest labelled cells."""
    x = joint.obsm["X_pca"]
    vote = KNeighborsClassifier(min(15, len(labelled)), weights="distance")
    return vote.fit(x[labelled], types[labelled]).predict_proba(x)


def by_celltypist(joint: AnnData, labelled: np.ndarray, types: np.ndarray, seed: int) -> np.ndarray:
    """The package's training on the labelled cells, of totals of 10^4, and its probabilities, rows scaled to 1."""
    import celltypist
    import scanpy as sc

    adata = AnnData(joint.X.expm1(), obs=pd.DataFrame(index=joint.obs_names), var=pd.DataFrame(index=joint.var_names))
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    trained = celltypist.train(adata[labelled], labels=types[labelled], check_expression=False)
    found = celltypist.annotate(adata, model=trained)
    share = found.probability_matrix[np.unique(types[labelled])].to_numpy()
    return share / np.maximum(share.sum(axis=1, keepdims=True), 1e-12)


def annotated(joint: AnnData, labelled: np.ndarray, types: np.ndarray, seed: int, variant: str = "") -> Annotation:
    """What `tl.annotate` does with these cells."""
    codes = np.full(joint.n_obs, -1)
    codes[labelled] = np.unique(types[labelled], return_inverse=True)[1]
    graph = joint.obsp["connectivities"]
    if variant == "no_graph":
        views, graph = views_of(joint)[:2], sp.csr_matrix(graph.shape)
    else:
        views = views_of(joint)
    return annotate_cells(views, codes, graph, unknown=UNSEEN_SHARE, seed=seed)


PEERS: dict[str, Callable[[AnnData, np.ndarray, np.ndarray, int], np.ndarray]] = {
    "l1": lasso,
    "pca": by_components,
    "knn": by_neighbors,
    "celltypist": by_celltypist,
}


def dealt(joint: AnnData, learned: np.ndarray, seed: int) -> AnnData:
    """The same cells, each with the neighbours of another one of its side."""
    rng, order = np.random.default_rng(seed), np.arange(joint.n_obs)
    for side in (learned, ~learned):
        order[side] = rng.permutation(order[side])
    other = joint.copy()
    other.obsp["connectivities"] = joint.obsp["connectivities"][order][:, order].tocsr()
    other.obsm["X_graphfm"] = trunk_states(other, model(None))
    return other


def apart(joint: AnnData) -> AnnData:
    """The same cells, no batch moved: graph and states of their own components."""
    other = joint.copy()
    other.obsm["X_integrated"] = joint.obsm["X_pca"]
    knn_graph(other)
    other.obsm["X_graphfm"] = trunk_states(other, model(None))
    return other


def run(job: dict) -> list[dict]:
    """One record; none of CellTypist beside a scikit-learn that no longer has an argument it passes."""
    if job["setting"] == "batches":
        return [record | source(job["dataset"]) for record in batches.run(job)]
    if job["method"] == "celltypist" and "multi_class" not in signature(LogisticRegression).parameters:
        return []
    name, setting, method, seed = (job[key] for key in ("dataset", "setting", "method", "seed"))
    unseen = unseen_type(name, job["unseen"]) if setting == "unseen" else ""
    joint, learned = space(
        name,
        setting,
        unseen,
        seed if setting == "transfer" else 0,
        seed if method == "graphfm:random" else None,
    )
    types = joint.obs["type"].to_numpy().astype(str)
    labelled = draw(types, job["num_labels"], seed) if setting == "few_shot" else np.flatnonzero(learned)
    told = np.setdiff1d(np.arange(joint.n_obs), labelled)
    names = np.unique(types[labelled])
    given = joint
    if method == "graphfm:shuffled":
        given = dealt(joint, learned, seed)
    elif method == "graphfm:unmoved":
        given = apart(joint)
    facts = {"num_cells": joint.n_obs, "num_genes": joint.n_vars, "num_types": len(names), **source(name)}
    if method in CONTROLS:
        truth = types[told][np.isin(types[told], names)]
        scores = cell_types.evaluate(cell_types.controls(truth, seed, kind="labels")[method], truth, seed)
        return [{**job, **_spine.rounded(scores), **facts}]
    with _spine.measured() as cost, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of penalties' new names, and of solvers that stop before the last digit
        if method in PEERS:
            probability, found = PEERS[method](given, labelled, types, seed), None
        else:
            found = annotated(given, labelled, types, seed, method.partition(":")[2])
            probability = found.probability
    if setting == "unseen":
        told = told[np.isin(types[told], [unseen, *names])]  # other types that the learned side lacks are neither
        new = types[told] == unseen
        familiar = probability[told].max(axis=1) if found is None else found.familiar[told]
        scores = {"auroc": roc_auc_score(new, -familiar)}
        if found is not None:
            called = familiar < found.threshold
            scores |= {"called_unseen": called[new].mean(), "called_known": called[~new].mean()}
        return [{**job, "type": unseen, **_spine.rounded(scores | cost), **facts}]
    told = told[np.isin(types[told], names)]
    predicted = names[probability[told].argmax(axis=1)]
    scores = cell_types.evaluate(predicted, types[told], seed)
    scores["ece"] = calibration_error(probability[told].max(axis=1), predicted == types[told])
    return [{**job, **_spine.rounded(scores | cost), **facts}]


def source(name: str) -> dict:
    """Provenance and the checksum of the data."""
    first = FEW[name] if name in FEW else {**PAIRS, **MIXES}[name][0] if name != "toy" else SMOKE
    dataset = first.dataset
    known = "toy" if dataset == "toy" else datasets.info(dataset).files[0].sha256
    return {**_spine.provenance(), "data_sha256": known}


def frame(records: Sequence[dict], setting: str, order: Sequence[str] = ORDER) -> pd.DataFrame:
    """Records of a setting, the last of each job, methods in order."""
    return _spine.frame(records, KEYS, order, setting)


def few_table(records: Sequence[dict]) -> str:
    """Markdown: macro-F1 by number of labels, means over data sets; those that were not looked at once more."""
    table = frame(records, "few_shot")
    if table.empty:
        return ""
    aside = table[~table["dataset"].isin(LOOKED_AT)]
    parts = [table] if len(aside) == len(table) else [table, aside]
    told = f"{table['dataset'].nunique()} data sets (expected calibration error)"
    told += (
        f"; aside: of the {aside['dataset'].nunique()} whose data were not looked at before" if len(parts) > 1 else ""
    )
    lines = [f"**Few labels**: macro-F1 of the other cells, mean over {told}", ""]
    head = [f"{number} a type" for number in LABELS]
    lines += [
        "| method | " + " | ".join([*head, *(f"{h}, aside" for h in head[: len(parts) * 4 - 4])]) + " | seconds |"
    ]
    lines += ["|---|" + "---:|" * (4 * len(parts) + 1)]
    scores = ["macro_f1", "ece"]
    for method in table["method"].cat.remove_unused_categories().cat.categories:
        cells = []
        for part in parts:
            mine = part[part["method"] == method].reindex(columns=["dataset", "num_labels", *scores])
            mean = mine.groupby(["num_labels", "dataset"])[scores].mean().groupby("num_labels").mean()
            for number in LABELS:
                f1, error = mean.loc[number] if number in mean.index else (np.nan, np.nan)
                shown = f"{f1:.3f}" + (f" ({error:.2f})" if error == error and part is table else "")
                cells.append(shown if f1 == f1 else "")
        seconds = table[table["method"] == method].reindex(columns=["seconds"])["seconds"].mean()
        lines.append(f"| `{method}` | " + " | ".join(cells) + (f" | {seconds:.1f} |" if seconds >= 0 else " | |"))
    return "\n".join([*lines, *gaps(table)]) + "\n"


def gaps(table: pd.DataFrame) -> Iterator[str]:
    """What graphfm is above the lasso: mean difference, bootstrap over data sets; on how many it is above."""
    wide = table.pivot_table("macro_f1", ["num_labels", "dataset"], "method", observed=True)
    if not {"graphfm", "l1"} <= set(wide.columns):
        return
    told, rng = [], np.random.default_rng(0)
    for number, part in (wide["graphfm"] - wide["l1"]).dropna().groupby("num_labels"):
        of = f"{number} labels " if number else ""
        told.append(of + _spine.gap(part.to_numpy(), rng))
    yield from ("", "Macro-F1 of `graphfm` less that of `l1` (95 %, data sets drawn again): " + "; ".join(told) + ".")


def transfer_table(records: Sequence[dict]) -> str:
    """Markdown: macro-F1 of each pair."""
    table = frame(records, "transfer", TRANSFER_ORDER)
    if table.empty:
        return ""
    present = list(table["method"].cat.remove_unused_categories().cat.categories)
    wide = table.pivot_table("macro_f1", "dataset", "method", observed=True, sort=False)
    error = table.reindex(columns=["method", "ece"]).groupby("method", observed=True)["ece"].mean()
    lines = ["**From another batch**: macro-F1", "", "| from, to | " + " | ".join(f"`{m}`" for m in present) + " |"]
    lines += ["|---|" + "---:|" * len(present)]
    for name, row in wide.iterrows():
        lines.append(f"| {name} | " + " | ".join(f"{row[m]:.3f}" if row[m] == row[m] else "" for m in present) + " |")
    lines.append("| **mean** | " + " | ".join(f"{wide[m].mean():.3f}" for m in present) + " |")
    lines.append(
        "| calibration error | " + " | ".join(f"{error[m]:.3f}" if error[m] == error[m] else "" for m in present) + " |"
    )
    return "\n".join([*lines, "", "Data of all pairs were looked at before.", *gaps(table)]) + "\n"


def unseen_table(records: Sequence[dict]) -> str:
    """Markdown: do cells of a type that no label names stand out."""
    table = frame(records, "unseen").reindex(columns=["method", *UNSEEN_SCORES])
    if table.empty:
        return ""
    methods = table.groupby("method", observed=True)
    scores, number = methods[UNSEEN_SCORES].mean(), methods.size()
    lines = ["**A type that no label names**: mean over pairs and types", ""]
    lines += ["| method | AUROC | of its cells called unknown | of other cells | types |", "|---|---:|---:|---:|---:|"]
    for method, row in scores.iterrows():
        cells = [f"{value:.3f}" if value == value else "" for value in row]
        lines.append(f"| `{method}` | " + " | ".join(cells) + f" | {number[method]} |")
    return "\n".join(lines) + "\n"


def everything(records: Sequence[dict]) -> str:
    """All tables."""
    together = batches.table(frame(records, "batches", batches.ORDER))
    parts = (few_table(records), transfer_table(records), unseen_table(records), together)
    return "\n".join(part for part in parts if part)


def smoke_jobs() -> list[dict]:
    """Five labels a type, and two batches, on the toy."""
    few = [job for job in jobs() if job["dataset"] == "celegans_l2" and job["seed"] == 0 and job["num_labels"] == 5]
    mixes = [job for job in batches.jobs((0,)) if job["dataset"] == next(iter(MIXES))]
    return [job | {"dataset": "toy"} for job in few + mixes if job["method"] not in PEERS_APART]


def main() -> None:
    """Run what is asked for and not done, print the tables."""
    _spine.drive(__doc__, PATH, jobs=jobs, smoke=smoke_jobs, run=run, render=everything, needs=PEERS_APART)


if __name__ == "__main__":
    main()
