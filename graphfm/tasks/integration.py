"""Bring batches together and keep cell types apart."""

from __future__ import annotations

import numpy as np
import pandas as pd

from graphfm.metrics import _checks, integration, labels


def evaluate(
    prediction: np.ndarray, truth: pd.DataFrame, seed: int = 0, *, components: np.ndarray | None = None
) -> dict[str, float]:
    """Score an embedding by how it keeps cell types and mixes batches.

    Parameters
    ----------
    prediction
        ``[cells, features]``.
    truth
        One row a cell: ``type`` and ``batch``.
    seed
        Seed of k-means.
    components
        ``[cells, components]``, each batch's principal components, for ``scgraph``.

    Returns
    -------
    dict
        ``ari``, ``nmi`` (k-means at the true number of types), ``type_silhouette`` and their mean ``avgbio``;
        ``ilisi``, ``batch_silhouette``, ``connectivity`` and their mean ``avgbatch``; ``overall``, 0.6 and 0.4 of the
        two means (Luecken et al. 2022); ``macro_f1`` of types told by cells of other batches; with `components`
        ``scgraph``, whether types are as far from each other as in single batches (`graphfm.metrics.integration`).

    Raises
    ------
    KeyError
        When a column is missing.
    ValueError
        On other lengths, NaN, or one type or batch only.
    """
    missing = [name for name in ("type", "batch") if name not in truth]
    if missing:
        raise KeyError(f"truth has no column {missing} (found: {list(truth.columns)}). Pass type and batch.")
    types, batches = truth["type"].to_numpy(), truth["batch"].to_numpy()
    kept = labels.kept_scores(prediction, types, seed=seed)
    mixed = {
        "ilisi": integration.mixing(prediction, batches),
        "batch_silhouette": integration.batch_silhouette(prediction, types, batches),
        "connectivity": integration.connectivity(prediction, types),
    }
    batch = float(np.mean(list(mixed.values())))
    return {
        **kept,
        **mixed,
        "avgbatch": batch,
        "overall": 0.6 * kept["avgbio"] + 0.4 * batch,
        "macro_f1": integration.across_batches(prediction, types, batches),
        **({} if components is None else {"scgraph": integration.scgraph(prediction, types, batches, components)}),
    }


def controls(truth: pd.DataFrame, seed: int = 0) -> dict[str, np.ndarray]:
    """Predictions that bracket every method: the types, and the types dealt to cells at random.

    Parameters
    ----------
    truth
        One row a cell, with ``type``.
    seed
        Of the shuffle, and of a little noise that keeps cells of a type from being in one place.

    Returns
    -------
    dict
        ``shuffled`` and ``oracle``.
    """
    rng, codes = np.random.default_rng(seed), _checks.codes(truth["type"].to_numpy(), name="truth['type']")
    oracle = np.hstack([np.eye(codes.max() + 1)[codes], 0.01 * rng.standard_normal((len(codes), 1))])
    return {"shuffled": rng.permutation(oracle), "oracle": oracle}
