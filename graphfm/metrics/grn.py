"""Scores of a ranked list of regulatory edges against a known network, after BEELINE.

Universe. All ordered pairs (tf, g) with tf a source in the truth, g a gene of the truth, tf != g; self-loops and
predictions outside the universe are dropped. ``universe="all"`` takes every ordered pair of genes of the truth instead
(what BEELINE uses for the area under the curve; its EPR always uses the first).

Scores. Pairs are ranked by ``|score|``, as BEELINE does: a score must grow with confidence away from zero, so pass
probabilities, not log-odds. A pair that is not predicted scores 0. Of a pair given twice the larger counts.

Ties. One threshold takes all pairs of equal score: curves have one point a distinct score, and for EPR ties at the
cutoff EXPAND the selection.

Source: Pratapa et al. 2020, doi:10.1038/s41592-019-0690-6.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd


def grn_scores(
    prediction: pd.DataFrame, truth: pd.DataFrame, *, universe: Literal["tf_gene", "all"] = "tf_gene"
) -> dict[str, float]:
    """Score predicted edges.

    Parameters
    ----------
    prediction
        Columns ``tf``, ``target``, ``score``, and optionally ``sign`` (otherwise the sign of the score).
    truth
        Columns ``tf``, ``target``, and optionally ``sign``.
    universe
        Pairs that count; see the module.

    Returns
    -------
    dict
        ``auprc`` (trapezoid), ``auprc_ratio`` (over the density), ``auroc``; ``epr``: precision among the top as many
        pairs as there are true edges (zero scores never selected), over the density; ``prevalence``: that density.
        When the truth is signed also ``sign_accuracy`` and ``sign_balanced_accuracy`` (mean over the two signs, chance
        0.5) over true edges predicted with a sign, NaN when there is none, and ``sign_coverage``: their share.

    Raises
    ------
    KeyError
        When a column is missing.
    ValueError
        On NaN scores, or a truth without edges or without non-edges.
    """
    _check(prediction, truth, universe)
    truth = truth.loc[truth["tf"].astype(object) != truth["target"].astype(object)].drop_duplicates(["tf", "target"])
    if truth.empty:
        raise ValueError(
            "truth has no edges besides self-loops. Pass the network that generated or describes the data."
        )
    genes = pd.Index(pd.unique(np.concatenate([_names(truth, "tf"), _names(truth, "target")])))
    sources = genes[genes.isin(_names(truth, "tf"))] if universe == "tf_gene" else genes
    total = len(sources) * (len(genes) - 1)
    if len(truth) == total:
        raise ValueError("truth joins every pair of its universe, so there are no negatives. Pass a sparse network.")

    pair = _pairs(prediction, sources, genes)
    score = prediction["score"].to_numpy(dtype=np.float64)
    order = np.argsort(-np.abs(score), kind="stable")
    order = order[pair[order] >= 0]
    order = order[np.sort(np.unique(pair[order], return_index=True)[1])]
    true_pair = _pairs(truth, sources, genes)
    hit = np.isin(pair[order], true_pair)
    result = _ranking(np.abs(score[order]), hit, len(truth), total)
    if universe == "all":
        tf_total = truth["tf"].nunique() * (len(genes) - 1)
        inside = prediction["tf"].isin(truth["tf"]).to_numpy()[order]
        result["epr"] = _epr(np.abs(score[order][inside]), hit[inside], len(truth), tf_total)
    if "sign" in truth:
        sign = np.sign((prediction["sign"] if "sign" in prediction else prediction["score"]).to_numpy(dtype=np.float64))
        sign = np.where(score == 0, 0, sign)
        guessed = pd.Series(sign[order][hit], index=pair[order][hit]).reindex(true_pair).fillna(0).to_numpy()
        result |= _sign_scores(guessed, np.sign(truth["sign"].to_numpy(dtype=np.float64)))
    return result


def _check(prediction: pd.DataFrame, truth: pd.DataFrame, universe: str) -> None:
    for name, frame, columns in (
        ("prediction", prediction, ("tf", "target", "score")),
        ("truth", truth, ("tf", "target")),
    ):
        missing = [c for c in columns if c not in frame]
        if missing:
            raise KeyError(
                f"{name} has no column {missing}; needed are {list(columns)} (found: {list(frame.columns)})."
            )
    bad = int((~np.isfinite(prediction["score"].to_numpy(dtype=np.float64))).sum())
    if bad:
        raise ValueError(
            f"prediction['score'] has {bad} NaN or infinite values. Drop these rows; missing pairs score 0."
        )
    if universe not in ("tf_gene", "all"):
        raise ValueError(f"universe must be 'tf_gene' or 'all', got {universe!r}.")


def _names(frame: pd.DataFrame, column: str) -> np.ndarray:
    return frame[column].astype(object).to_numpy()


def _pairs(frame: pd.DataFrame, sources: pd.Index, genes: pd.Index) -> np.ndarray:
    """One integer per row; -1 outside of the universe."""
    tf, target = sources.get_indexer(_names(frame, "tf")), genes.get_indexer(_names(frame, "target"))
    inside = (tf >= 0) & (target >= 0) & (_names(frame, "tf") != _names(frame, "target"))
    return np.where(inside, tf.astype(np.int64) * len(genes) + target, -1)


def _ranking(score: np.ndarray, hit: np.ndarray, num_true: int, total: int) -> dict[str, float]:
    """Scores of predicted pairs, sorted downwards; the other ``total - len(score)`` pairs are one tie at 0."""
    last = np.flatnonzero(np.append(score[1:] != score[:-1], True))[: len(score)]
    tp, taken = np.cumsum(hit)[last], last + 1
    if len(score) and score[-1] == 0:
        tp, taken = tp[:-1], taken[:-1]
    tp, taken = np.append(tp, num_true), np.append(taken, total)
    recall, precision = np.append(0.0, tp / num_true), np.append(1.0, tp / taken)
    fpr = np.append(0.0, (taken - tp) / (total - num_true))
    density = num_true / total
    auprc = float(np.trapezoid(precision, recall))
    return {
        "auprc": auprc,
        "auprc_ratio": auprc / density,
        "auroc": float(np.trapezoid(recall, fpr)),
        "epr": _epr(score, hit, num_true, total),
        "prevalence": density,
    }


def _epr(score: np.ndarray, hit: np.ndarray, num_true: int, total: int) -> float:
    positive = score > 0
    score, hit = score[positive], hit[positive]
    if not len(score):
        return 0.0
    chosen = score >= score[min(num_true, len(score)) - 1]
    return float(hit[chosen].mean() / (num_true / total))


def _sign_scores(guessed: np.ndarray, sign: np.ndarray) -> dict[str, float]:
    known = (guessed != 0) & (sign != 0)
    right = guessed[known] == sign[known]
    groups = [right[sign[known] == s].mean() for s in (-1, 1) if (sign[known] == s).any()]
    return {
        "sign_accuracy": float(right.mean()) if known.any() else float("nan"),
        "sign_balanced_accuracy": float(np.mean(groups)) if groups else float("nan"),
        "sign_coverage": float(known.sum() / max(1, (sign != 0).sum())),
    }
