"""Networks from expression by others' methods, each ``method(expression, tfs, seed) -> scores``.

``expression`` is dense ``[cells, genes]``, ``tfs`` the columns that may regulate; scores are ``[tfs, genes]``, signed
where the method has a sign, and mean the more the larger they are in absolute value.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

Method = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def kind_of(adata: AnnData) -> str:
    """What the expression is."""
    return "log1p" if adata.uns.get("is_raw_counts") is False else "counts"


def edge_table(scores: np.ndarray, tfs: Sequence[str], genes: Sequence[str]) -> pd.DataFrame:
    """A row a pair of scores ``[tfs, genes]``."""
    tf, target = (codes.ravel() for codes in np.indices(scores.shape, dtype=np.int32))
    named = {"tf": pd.Categorical.from_codes(tf, tfs), "target": pd.Categorical.from_codes(target, genes)}
    return pd.DataFrame(named).assign(score=scores.ravel())


def random(expression: np.ndarray, tfs: np.ndarray, seed: int) -> np.ndarray:
    """Chance."""
    return np.random.default_rng(seed).random((len(tfs), expression.shape[1]))


def correlation(expression: np.ndarray) -> np.ndarray:
    """Pearson's, ``[genes, genes]``; 0 for genes that do not vary."""
    centred = expression - expression.mean(0)
    length = np.linalg.norm(centred, axis=0)
    unit = centred / np.where(length > 1e-9, length, np.inf)
    return unit.T @ unit


def pearson(expression: np.ndarray, tfs: np.ndarray, seed: int) -> np.ndarray:
    """Pearson's correlation."""
    return correlation(expression)[tfs]


def spearman(expression: np.ndarray, tfs: np.ndarray, seed: int) -> np.ndarray:
    """Spearman's correlation."""
    from scipy.stats import rankdata

    return correlation(rankdata(expression, axis=0))[tfs]


def clr(expression: np.ndarray, tfs: np.ndarray, seed: int) -> np.ndarray:
    """Context likelihood of relatedness (doi:10.1371/journal.pbio.0050008) of absolute correlations of all genes."""
    similarity = np.abs(correlation(expression))
    np.fill_diagonal(similarity, np.nan)
    spread = np.nanstd(similarity, axis=0)
    score = np.maximum((similarity - np.nanmean(similarity, axis=0)) / np.where(spread > 0, spread, np.inf), 0)
    return np.nan_to_num(np.hypot(score, score.T))[tfs] * np.sign(np.nan_to_num(correlation(expression)[tfs]))


def ridge_partial(expression: np.ndarray, tfs: np.ndarray, seed: int) -> np.ndarray:
    """Partial correlation, covariance shrunken as by Ledoit and Wolf (doi:10.1016/S0047-259X(03)00096-4)."""
    from sklearn.covariance import LedoitWolf

    spread = expression.std(0)
    precision = LedoitWolf().fit(expression / np.where(spread > 0, spread, 1)).precision_
    scale = np.sqrt(np.diag(precision))
    return (-precision / scale / scale[:, None])[tfs]


def genie3(expression: np.ndarray, tfs: np.ndarray, seed: int) -> np.ndarray:
    """GENIE3 (doi:10.1371/journal.pone.0012776) by scikit-learn's random forests: 100 trees, the paper has 1000."""
    from sklearn.ensemble import RandomForestRegressor

    scores, values = np.zeros((len(tfs), expression.shape[1])), expression.astype(np.float32)
    standard = (expression - expression.mean(0)) / np.maximum(expression.std(0), 1e-9)
    for gene in range(expression.shape[1]):
        others = tfs != gene
        forest = RandomForestRegressor(100, max_features="sqrt", random_state=seed, n_jobs=1)
        forest.fit(values[:, tfs[others]], standard[:, gene])
        scores[others, gene] = forest.feature_importances_
    return scores


def grnboost2(expression: np.ndarray, tfs: np.ndarray, seed: int) -> np.ndarray:
    """GRNBoost2 (doi:10.1093/bioinformatics/bty916) by arboreto's own core, without its Dask front end."""
    from arboreto.core import SGBM_KWARGS, infer_partial_network

    scores, names = np.zeros((len(tfs), expression.shape[1])), [str(tf) for tf in tfs]
    place = {name: i for i, name in enumerate(names)}
    for gene in range(expression.shape[1]):
        if (expression[:, gene] == expression[0, gene]).all():
            continue
        links = infer_partial_network(
            "GBM", SGBM_KWARGS, expression[:, tfs], names, str(gene), expression[:, gene], seed=seed
        )
        scores[links["TF"].map(place), gene] = links["importance"]
    return scores


def regdiffusion(expression: np.ndarray, tfs: np.ndarray, seed: int) -> np.ndarray:
    """RegDiffusion (doi:10.1007/978-1-0716-3989-4_1), its package with its defaults."""
    from regdiffusion import RegDiffusionTrainer

    varying = np.flatnonzero(expression.std(0) > 0)
    trainer = RegDiffusionTrainer(
        expression[:, varying].astype(np.float32),
        batch_size=min(128, len(expression)),
        device="cpu",
        seed=seed,
    )
    trainer.train()
    scores = np.zeros((expression.shape[1], expression.shape[1]))
    scores[np.ix_(varying, varying)] = trainer.get_adj()
    return scores[tfs]


METHODS: dict[str, Method] = {
    "random": random,
    "pearson": pearson,
    "spearman": spearman,
    "clr": clr,
    "ridge_partial": ridge_partial,
    "genie3": genie3,
    "grnboost2": grnboost2,
    "regdiffusion": regdiffusion,
}
STOCHASTIC = ("random", "genie3", "grnboost2", "regdiffusion")
NEEDS = {"grnboost2": "arboreto", "regdiffusion": "regdiffusion"}
