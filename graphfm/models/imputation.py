"""Genes from other genes: ridge regression that sees the expression only by its moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

PENALTIES = np.logspace(0, 5, 11)


@dataclass(frozen=True)
class LinearGenes:
    """Expression of genes as a linear function of features."""

    coefficients: np.ndarray
    """``[features, genes]``."""
    features: np.ndarray
    """``[features]``, means."""
    genes: np.ndarray
    """``[genes]``, means."""
    penalty: float
    """Chosen of `PENALTIES`."""

    def predict(self, features: np.ndarray, genes: slice = slice(None)) -> np.ndarray:
        """``[cells, genes]``, no less than 0, as logarithms of counts are."""
        predicted = (features - self.features) @ self.coefficients[:, genes] + self.genes[genes]
        return np.maximum(predicted, 0.0)


def fit_genes(features: np.ndarray, expression: sp.csr_matrix) -> LinearGenes:
    r"""Ridge regression of all genes on the features, with one penalty.

    The penalty is that of the least generalised cross-validation, summed over genes of unit variance:

    .. math:: \sum_g \frac{n \lVert y_g - \hat y_g \rVert^2}{\lVert y_g \rVert^2 (n - 1 - \operatorname{tr} H)^2}

    All of it follows from :math:`X^\top X`, :math:`X^\top Y` and :math:`\lVert y_g \rVert^2`: the matrix stays sparse.

    Parameters
    ----------
    features
        ``[cells, features]``. Their scales matter: one of small variance is held back.
    expression
        ``[cells, genes]``, log-normalised.

    References
    ----------
    Golub, Heath and Wahba 1979, doi:10.1080/00401706.1979.10489751.
    """
    n = len(features)
    centre, level = features.mean(axis=0), np.asarray(expression.mean(axis=0)).ravel()
    x = features - centre
    strength, basis = np.linalg.eigh(x.T @ x)
    strength = np.maximum(strength, 0.0)
    along = basis.T @ np.asarray((expression.T @ x).T)  # the features are centred, so that the genes need not be
    total = np.asarray(expression.multiply(expression).sum(axis=0)).ravel() - n * level**2
    varies = total > 1e-9 * n

    def error(penalty: float) -> float:
        inverse = 1 / (strength + penalty)
        told = (np.square(along) * (inverse * (2 - strength * inverse))[:, None]).sum(axis=0)
        freedom = n - 1 - (strength * inverse).sum()
        return float((1 - told[varies] / total[varies]).sum()) / max(freedom, 1e-9) ** 2

    penalty = min(PENALTIES, key=error)
    return LinearGenes(basis @ (along / (strength + penalty)[:, None]), centre, level, float(penalty))
