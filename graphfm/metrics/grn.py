"""Scores of a ranked list of regulatory edges against a known network, after BEELINE.

Universe. All ordered pairs (tf, g) with tf a source in the truth, g a gene of the truth, tf != g; self-loops and
predictions outside the universe are dropped. (BEELINE's area under the curve is over all ordered pairs of genes, its
EPR over these.)

Scores. Pairs are ranked by ``|score|``, as BEELINE does: a score must grow with confidence away from zero, so pass
probabilities, not log-odds. A pair that is not predicted scores 0. Of a pair given twice the larger counts.

Ties. One threshold takes all pairs of equal score: curves have one point a distinct score, and for EPR ties at the
cutoff EXPAND the selection (BEELINE's rule; RegDiffusion's evaluator drops them).

Area under the precision-recall curve. ``auprc`` is average precision, a sum of steps, as RegDiffusion and GENELink have
it: a constant score gets the density. ``auprc_trapezoid`` is BEELINE's, which joins the points by straight lines; a
score of few distinct values, as a degree, can gain tenfold by it. Without ties the two hardly differ.

Source: Pratapa et al. 2020, doi:10.1038/s41592-019-0690-6; Davis and Goadrich 2006, doi:10.1145/1143844.1143874.
"""

from __future__ import annotations

import numpy as np
import pandas as pd


def grn_scores(
    prediction: pd.DataFrame, truth: pd.DataFrame, *, replicates: int = 0, seed: int = 0
) -> dict[str, float]:
    """Score predicted edges over the whole universe.

    Parameters
    ----------
    prediction
        Columns ``tf``, ``target``, ``score``, and optionally ``sign`` (otherwise the sign of the score).
    truth
        Columns ``tf``, ``target``, and optionally ``sign``: 0 or NaN where it is not known; an edge that is listed with
        both has none.
    replicates, seed
        As `pair_scores`.

    Returns
    -------
    dict
        As `pair_scores`. When the truth is signed also ``sign_accuracy`` and ``sign_balanced_accuracy`` (mean over the
        two signs, chance 0.5) over true edges predicted with a sign, NaN when there is none, and ``sign_coverage``:
        their share.

    Raises
    ------
    KeyError
        When a column is missing.
    ValueError
        On NaN scores, or a truth without edges or without non-edges.
    """
    result = pair_scores(*labelled_pairs(prediction, truth), replicates=replicates, seed=seed)
    if "sign" not in truth:
        return result
    truth, sources, genes = _universe(truth)
    score = prediction["score"].to_numpy(dtype=np.float64)
    sign = np.sign((prediction["sign"] if "sign" in prediction else prediction["score"]).to_numpy(dtype=np.float64))
    strongest = np.argsort(-np.abs(score), kind="stable")
    guessed = pd.Series(np.where(score == 0, 0, sign)[strongest], index=_pairs(prediction, sources, genes)[strongest])
    guessed = guessed[~guessed.index.duplicated()].reindex(_pairs(truth, sources, genes)).fillna(0).to_numpy()
    return result | _sign_scores(guessed, truth["sign"].to_numpy(dtype=np.float64))


def labelled_pairs(prediction: pd.DataFrame, truth: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every pair of the TF-to-gene universe, for `pair_scores`.

    Parameters
    ----------
    prediction, truth
        As `grn_scores`.

    Returns
    -------
    score, label, tf
        ``|score|`` (0 where not predicted), whether it is an edge, and a number for its regulator.
    """
    _check(prediction, truth)
    truth, sources, genes = _universe(truth)
    if len(truth) == len(sources) * (len(genes) - 1):
        raise ValueError("truth joins every pair of its universe, so there are no negatives. Pass a sparse network.")
    pair, score = _pairs(prediction, sources, genes), np.zeros(len(sources) * len(genes))
    np.maximum.at(score, pair[pair >= 0], np.abs(prediction["score"].to_numpy(dtype=np.float64)[pair >= 0]))
    label = np.zeros(len(score), dtype=bool)
    label[_pairs(truth, sources, genes)] = True
    itself = np.arange(len(sources)) * len(genes) + genes.get_indexer(sources)
    keep = np.ones(len(score), dtype=bool)
    keep[itself] = False
    return score[keep], label[keep], np.repeat(np.arange(len(sources)), len(genes))[keep]


def pair_scores(
    score: np.ndarray, label: np.ndarray, tf: np.ndarray, *, replicates: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Score labelled pairs, with confidence intervals that hold for other transcription factors.

    Parameters
    ----------
    score
        Of each pair, ``[n]``, larger for an edge; not its absolute value is taken.
    label
        Whether the pair is an edge, ``[n]``.
    tf
        Regulator of each pair, ``[n]``: pairs of one regulator are drawn together.
    replicates
        Bootstrap samples of the regulators; those without an edge or without a non-edge are left out.
    seed
        Of the samples.

    Returns
    -------
    dict
        ``auprc`` (average precision), ``auprc_ratio`` (over the density), ``auprc_trapezoid``, ``auroc``; ``epr``:
        precision among the top as many pairs as there are edges (zero scores never selected), over the density;
        ``prevalence``: that density; the central 95 % of the bootstrap as ``auprc_low``, ``auprc_high``,
        ``auroc_low``, ``auroc_high``, NaN without replicates.

    Raises
    ------
    ValueError
        If lengths differ, scores are not finite, or there are only edges or only non-edges.
    """
    score, label = np.asarray(score, dtype=np.float64), np.asarray(label, dtype=bool)
    if not len(score) == len(label) == len(tf):
        raise ValueError(f"score, label and tf must be equally long, got {len(score)}, {len(label)} and {len(tf)}.")
    if not np.isfinite(score).all():
        raise ValueError(f"score has {int((~np.isfinite(score)).sum())} NaN or infinite values.")
    if label.all() or not label.any():
        raise ValueError(f"label must hold edges and non-edges, got {int(label.sum())} edges of {len(label)} pairs.")
    order = np.argsort(-score, kind="stable")
    label, code = label[order], np.unique(np.asarray(tf, dtype=str), return_inverse=True)[1][order]
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))

    def areas(weight: np.ndarray) -> tuple[float, float, float]:
        """AUPRC, AUROC and AUPRC by straight lines, of weighted pairs; one point a distinct score."""
        hits, taken = np.cumsum(weight * label)[last], np.cumsum(weight)[last]
        recall = np.append(0.0, hits / hits[-1])
        false = np.append(0.0, (taken - hits) / (taken[-1] - hits[-1]))
        precision = np.divide(hits, taken, out=np.zeros_like(hits), where=taken > 0)
        lines = np.trapezoid(np.append(1.0, precision), recall)
        return float(np.diff(recall) @ precision), float(np.trapezoid(recall, false)), float(lines)

    auprc, auroc, trapezoid = areas(np.ones(len(label)))
    rng, number, drawn = np.random.default_rng(seed), int(code.max()) + 1, []
    for _ in range(replicates):
        weight = np.bincount(rng.integers(number, size=number), minlength=number)[code].astype(np.float64)
        if 0 < weight @ label < weight.sum():
            drawn.append(areas(weight))
    low, high = np.quantile(np.array(drawn), [0.025, 0.975], axis=0) if drawn else np.full((2, 3), np.nan)
    return {
        "auprc": auprc,
        "auprc_ratio": auprc / float(label.mean()),
        "auprc_trapezoid": trapezoid,
        "auroc": auroc,
        "epr": _epr(score[order], label),
        "prevalence": float(label.mean()),
        "auprc_low": float(low[0]),
        "auprc_high": float(high[0]),
        "auroc_low": float(low[1]),
        "auroc_high": float(high[1]),
    }


def _check(prediction: pd.DataFrame, truth: pd.DataFrame) -> None:
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


def _universe(truth: pd.DataFrame) -> tuple[pd.DataFrame, pd.Index, pd.Index]:
    """The network without self-loops and duplicates, its regulators, its genes."""
    truth = truth.loc[truth["tf"].astype(object) != truth["target"].astype(object)]
    if "sign" in truth:
        sign = np.sign(truth["sign"].astype(np.float64)).fillna(0.0)
        pair = [truth["tf"].astype(object), truth["target"].astype(object)]
        truth = truth.assign(sign=np.sign(sign.groupby(pair).transform("sum")))
    truth = truth.drop_duplicates(["tf", "target"])
    if truth.empty:
        raise ValueError(
            "truth has no edges besides self-loops. Pass the network that generated or describes the data."
        )
    genes = pd.Index(pd.unique(np.concatenate([_names(truth, "tf"), _names(truth, "target")])))
    return truth, genes[genes.isin(_names(truth, "tf"))], genes


def _names(frame: pd.DataFrame, column: str) -> np.ndarray:
    return frame[column].astype(object).to_numpy()


def _pairs(frame: pd.DataFrame, sources: pd.Index, genes: pd.Index) -> np.ndarray:
    """One integer per row; -1 outside of the universe."""
    tf, target = sources.get_indexer(_names(frame, "tf")), genes.get_indexer(_names(frame, "target"))
    inside = (tf >= 0) & (target >= 0) & (_names(frame, "tf") != _names(frame, "target"))
    return np.where(inside, tf.astype(np.int64) * len(genes) + target, -1)


def _epr(score: np.ndarray, label: np.ndarray) -> float:
    """Early precision ratio of scores that are sorted downwards; ties at the cutoff are all selected."""
    positive = np.count_nonzero(score > 0)
    if not positive:
        return 0.0
    chosen = score >= score[min(label.sum(), positive) - 1]
    return float(label[chosen].mean() / label.mean())


def _sign_scores(guessed: np.ndarray, sign: np.ndarray) -> dict[str, float]:
    known = (guessed != 0) & (sign != 0)
    right = guessed[known] == sign[known]
    groups = [right[sign[known] == s].mean() for s in (-1, 1) if (sign[known] == s).any()]
    return {
        "sign_accuracy": float(right.mean()) if known.any() else float("nan"),
        "sign_balanced_accuracy": float(np.mean(groups)) if groups else float("nan"),
        "sign_coverage": float(known.sum() / max(1, (sign != 0).sum())),
    }
