"""Table 9: has the pre-training seen what the other tables are scored on?

Command: ``python experiments/table9_leakage.py`` (``--smoke``: toy cells, no mirror; ``--readme``: the README)
Cost:    a few minutes of one core, 1.1 GB
Expect:  nothing of any labelled data set; everything of the corpus

Setting: ``labelled``: the data sets of Tables 0, 5 and 6. ``corpus``: those that the weights were trained on, which
         must be found again, or the check is worth nothing.
Scores:  ``profiles``, ``barcodes`` and ``comparable``, what `graphfm.tl.leakage` reads from the weights' file. Data
         sets whose genes the vocabulary does not know are compared by the names of their genes. ``nearest``: Pearson's
         correlation of log-normalised expression with the most similar cell of the whole corpus, over the genes that
         both data sets have; the 99th percentile over 300 cells drawn at random, and ``alike``, the share of them with
         more than 0.98. ``nearest_in`` says which data set of the corpus that cell is of, most often. ``twins``: share
         of a corpus' data set whose profiles are in another one of the corpus, too.
"""

from collections.abc import Sequence
from functools import cache

import _spine
import numpy as np
import pandas as pd
import scipy.sparse as sp
import table0_embedding as table0
from _zero_shot_cells import FEW, MIXES, PAIRS, Cells
from anndata import AnnData
from pretrain_small import CORPUS, region

from graphfm import datasets, genes, io, tl
from graphfm.data.prepare import cell_marks

PATH = _spine.RESULTS / "table9_leakage.jsonl"
KEYS = ("dataset", "setting", "method", "seed")
SAMPLE, LEAST_SHARED, ALIKE = 300, 100, 0.98


CELLS: tuple[Cells, ...] = (*FEW.values(), *(c for group in (*PAIRS.values(), *MIXES.values()) for c in group))
LABELLED: dict[str, table0.Case | Cells] = {part.dataset: part for part in (*CELLS, *table0.CASES)}
"""What the other tables say of each labelled data set."""


def aligned(adata: AnnData, kind: str, organism: str) -> tuple[sp.csr_matrix, np.ndarray]:
    """Log-normalised expression of the genes that the vocabulary knows, and their rows; a row counts once."""
    genes.align_genes(adata, organism=organism)
    rows = adata.var["graphfm_gene"].to_numpy()
    known, place = np.unique(rows, return_index=True)
    place = place[known >= 0]
    return io.expression(adata, kind=kind, target_sum=1e4)[:, place], rows[place]  # the same for all that are compared


@cache
def trained_on(name: str) -> AnnData:
    """A data set of the corpus, as it was trained on."""
    return region(datasets.load(name))


@cache
def corpus() -> dict[str, tuple[sp.csr_matrix, np.ndarray]]:
    """Expression and genes of the data sets that the weights were trained on."""
    return {name: aligned(trained_on(name), "counts", "auto") for name in CORPUS}


@cache
def corpus_marks() -> dict[str, np.ndarray]:
    """Marks of the profiles of each of them."""
    return {name: cell_marks(trained_on(name))[:, 0] for name in CORPUS}


def correlations(x: sp.csr_matrix, y: sp.csr_matrix) -> np.ndarray:
    """Pearson's correlation of each row of `x` with each of `y`; 0 where one is constant."""
    n = x.shape[1]
    mean_x, mean_y = x.mean(axis=1).A, y.mean(axis=1).A.T
    deviation = [np.sqrt(np.maximum(m.multiply(m).mean(axis=1).A - m.mean(axis=1).A ** 2, 0)) for m in (x, y)]
    scale = deviation[0] @ deviation[1].T
    covariance = (x @ y.T).toarray() / n - mean_x @ mean_y
    return np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 1e-9)


def nearest(x: sp.csr_matrix, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest correlation of each cell with one of the corpus, and the data set of that one; NaN where none can be."""
    best, where = np.full(x.shape[0], -np.inf), np.zeros(x.shape[0], dtype=int)
    for number, (y, others) in enumerate(corpus().values()):
        _, mine, theirs = np.intersect1d(rows, others, return_indices=True)
        if len(mine) < LEAST_SHARED:
            continue
        found = correlations(x[:, mine].astype(np.float64), y[:, theirs].astype(np.float64)).max(axis=1)
        where, best = np.where(found > best, number, where), np.maximum(found, best)
    return np.where(np.isfinite(best), best, np.nan), where


def run(job: dict) -> list[dict]:
    """A data set's record."""
    name = job["dataset"]
    if job["setting"] == "corpus":
        adata, kind, organism = trained_on(name), "counts", "auto"
    elif name == "toy":
        adata, kind, organism = datasets.toy(num_cells=400, num_genes=200), "counts", "auto"
    else:
        adata, kind, organism = datasets.load(name), LABELLED[name].kind, LABELLED[name].organism
    with _spine.measured() as cost:
        found = tl.leakage(adata, kind=kind, organism=organism)
        scores, facts = found._asdict(), {"refused": found.seen}
        if job["setting"] == "corpus":
            others = np.concatenate([marks for other, marks in corpus_marks().items() if other != name])
            scores["twins"] = float(np.isin(corpus_marks()[name], others[others != 0]).mean())
        if name != "toy" and organism != "other":
            x, rows = aligned(adata, kind, organism)
            drawn = np.random.default_rng(0).choice(len(adata), min(SAMPLE, len(adata)), replace=False)
            values, where = nearest(x[drawn], rows)
            if np.isfinite(values).any():
                scores |= {"nearest": float(np.nanquantile(values, 0.99)), "alike": float(np.mean(values > ALIKE))}
                facts["nearest_in"] = list(corpus())[np.bincount(where).argmax()]
    known = _spine.rounded({key: value for key, value in scores.items() if not np.isnan(value)})
    return [{**job, **known, **facts, "num_cells": adata.n_obs, **cost, **_spine.provenance()}]


def jobs() -> list[dict]:
    """One for each data set."""
    sets = {"labelled": sorted(LABELLED), "corpus": list(CORPUS)}
    return [
        {"dataset": name, "setting": setting, "method": "graphfm", "seed": 0}
        for setting in sets
        for name in sets[setting]
    ]


def smoke_jobs() -> list[dict]:
    """The toy."""
    return [{"dataset": "toy", "setting": "labelled", "method": "graphfm", "seed": 0}]


def render(records: Sequence[dict]) -> str:
    """Markdown: a line a data set."""
    if not records:
        return ""
    table = pd.DataFrame(records).drop_duplicates(list(KEYS), keep="last")
    lines = [
        "| data set | | can be told | profiles seen | barcodes seen | twins | nearest cell of the corpus | alike | of |"
    ]
    lines.append("|---|---|---:|---:|---:|---:|---:|---:|---|")
    for row in table.sort_values(["setting", "dataset"], ascending=[False, True]).to_dict("records"):
        profiles = "" if pd.isna(row["profiles"]) else f"{row['profiles']:.1%}"
        shares = [f"{row['comparable']:.0%}", profiles, f"{row['barcodes']:.1%}"]
        shares.append("" if pd.isna(row.get("twins")) else f"{row['twins']:.1%}")
        near = ["", "", ""]
        if not pd.isna(row.get("nearest")):
            near = [f"{row['nearest']:.2f}", f"{row['alike']:.1%}", row["nearest_in"]]
        lines.append(f"| {row['dataset']} | {row['setting']} | {' | '.join([*shares, *near])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is asked for and not done, print the table."""
    _spine.drive(__doc__, PATH, jobs=jobs, smoke=smoke_jobs, run=run, render=render)


if __name__ == "__main__":
    main()
