"""A Potts field over a graph: neighbours draw each other into one class."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.special import softmax

STEP = 0.5
"""How far a sweep goes: in whole steps two neighbours would change places for ever."""


def around(graph: sp.csr_matrix) -> sp.csr_matrix:
    """Operator of the mean over neighbours, ``[cells, cells]``; 0 without any.

    Parameters
    ----------
    graph
        Weights of neighbours, ``[cells, cells]``.
    """
    degree = np.asarray(graph.sum(axis=1)).ravel()
    return sp.csr_matrix(sp.diags_array(1 / np.maximum(degree, 1e-12)) @ graph)


def settle(own: np.ndarray, mean: sp.csr_matrix, start: np.ndarray, *, strength: float, sweeps: int) -> np.ndarray:
    r"""Mean-field sweeps, ``[cells, classes]``, rows sum to 1.

    .. math:: q_i \leftarrow \tfrac12 q_i + \tfrac12 \operatorname{softmax}\Big(u_i + \beta \sum_j M_{ij} q_j\Big)

    Parameters
    ----------
    own
        :math:`u`, log evidence of each cell itself, ``[cells, classes]``.
    mean
        :math:`M`, see `around`.
    start
        Probabilities to begin with.
    strength
        :math:`\beta`, nats by which a cell is drawn to the class that all its neighbours are in.
    sweeps
        Their number.
    """
    probability = start
    for _ in range(sweeps):
        probability = (1 - STEP) * probability + STEP * softmax(own + strength * (mean @ probability), axis=1)
    return probability
