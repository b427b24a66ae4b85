"""Recover a gene-regulatory network as a ranked list of signed edges."""

from __future__ import annotations

import numpy as np
import pandas as pd

from graphfm.metrics.grn import grn_scores

REPLICATES = 200


def evaluate(prediction: pd.DataFrame, truth: pd.DataFrame, seed: int = 0) -> dict[str, float]:
    """Score predicted edges over the TF-to-gene universe; see `graphfm.metrics.grn` for universe and ties.

    Parameters
    ----------
    prediction
        Columns ``tf``, ``target``, ``score``, optionally ``sign``.
    truth
        Columns ``tf``, ``target``, optionally ``sign``.
    seed
        Of the bootstrap.

    Returns
    -------
    dict
        As `graphfm.metrics.grn.grn_scores`; intervals of 95 % over transcription factors.

    Raises
    ------
    KeyError, ValueError
        As `graphfm.metrics.grn.grn_scores`.
    """
    return grn_scores(prediction, truth, replicates=REPLICATES, seed=seed)


def controls(truth: pd.DataFrame, seed: int = 0) -> dict[str, pd.DataFrame]:
    """Predictions that bracket every method: the true edges, and all pairs in random order with signs dealt at random.

    Parameters
    ----------
    truth
        Columns ``tf``, ``target``, optionally ``sign``.
    seed
        Seed of order and signs.

    Returns
    -------
    dict
        ``shuffled`` (every pair of the universe) and ``oracle``: tf, target, score, sign.
    """
    rng = np.random.default_rng(seed)
    tf_names = pd.unique(truth["tf"].astype(object))
    genes = pd.unique(np.concatenate([tf_names, truth["target"].astype(object)]))
    oracle = truth.loc[:, ["tf", "target"]].assign(score=1.0, sign=truth.get("sign", 1))
    tf, gene = (codes.ravel() for codes in np.indices((len(tf_names), len(genes)), dtype=np.int32))
    shuffled = pd.DataFrame(
        {
            "tf": pd.Categorical.from_codes(tf, tf_names),
            "target": pd.Categorical.from_codes(gene, genes),
            "score": 1.0 - rng.random(len(tf)),
            "sign": rng.choice(oracle["sign"].to_numpy(), len(tf)),
        }
    )
    return {"shuffled": shuffled, "oracle": oracle}
