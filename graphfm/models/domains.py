"""Domains of a tissue: each a mixture of cell types, under a field that draws neighbours into one domain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.special import logsumexp, softmax

MAX_STRENGTH = 20.0
"""Nats that a cell's neighbours may weigh in all."""
PRIOR_CELLS = 5.0
"""Cells' worth of types by which a domain is drawn to the whole tissue."""
NUM_STARTS = 10
"""Starts of a Gaussian mixture, of which the likeliest is kept."""
ROUNDS, SWEEPS, STEP = 5, 3, 0.5
"""Rounds; sweeps of the field in each; how far a sweep goes. Many more rounds drift from a good start."""


@dataclass(frozen=True)
class Domains:
    """What a tissue has settled into."""

    probability: np.ndarray
    """``[cells, domains]``, rows sum to 1."""
    shares: np.ndarray
    """``[domains, types]``, share of each cell type, rows sum to 1."""
    strength: float
    """Nats by which a cell is drawn to the domain that all its neighbours are in."""


def mixture_densities(values: np.ndarray, number: int, *, seed: int) -> np.ndarray:
    """``[cells, number]``: densities under Gaussians of one covariance, over each cell's largest; no weights.

    Parameters
    ----------
    values
        ``[cells, components]``.
    number
        Gaussians.
    seed
        Of the starts.
    """
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(
        number, covariance_type="tied", n_init=NUM_STARTS, reg_covar=1e-6 * values.var(), random_state=seed
    ).fit(values)
    white = values @ mixture.precisions_cholesky_
    centre = mixture.means_ @ mixture.precisions_cholesky_
    logs = white @ centre.T - 0.5 * np.square(centre).sum(axis=1)
    return np.exp(logs - logs.max(axis=1, keepdims=True))


def settle_domains(densities: np.ndarray, graph: sp.csr_matrix, start: np.ndarray) -> Domains:
    r"""Let cells, domains and the field between them settle, by mean-field variational inference.

    A cell :math:`i` of domain :math:`z_i` has type :math:`c` with probability :math:`\theta_{z_i c}`, and domains are
    a Potts field over the graph:

    .. math:: p(z) \propto \exp \sum_i \frac{\beta}{d_i} \sum_{j \sim i} [z_i = z_j]

    with no preference for large domains, which would swallow the small ones. The strength :math:`\beta` is that of
    the largest pseudo-likelihood. A cell's own values decide its type, those of its neighbours its domain: nothing
    is averaged, so that borders stay where the cells change.

    Parameters
    ----------
    densities
        ``[cells, types]``, of the cell's values under each type, each row up to a factor.
    graph
        Symmetric ``[cells, cells]``, weights of neighbours; a cell without neighbours feels no field.
    start
        ``[cells, domains]``, probabilities to begin with.

    References
    ----------
    Li and Zhou 2022, doi:10.1186/s13059-022-02734-7 (cell types within domains under a Potts field, by sampling).
    Besag 1975, doi:10.2307/2987782 (pseudo-likelihood).
    """
    degree = np.asarray(graph.sum(axis=1)).ravel()
    around = sp.diags_array(1 / np.maximum(degree, 1e-12)) @ graph
    types = densities / densities.sum(axis=1, keepdims=True)
    overall = types.mean(axis=0)
    probability, strength = start, 0.0
    shares = _drawn(probability.T @ types, overall)
    for _ in range(ROUNDS):
        likelihood = densities @ shares.T
        own, near = np.log(likelihood), around @ probability
        strength = field_strength(probability, near)
        for _ in range(SWEEPS):
            probability = (1 - STEP) * probability + STEP * softmax(own + strength * near, axis=1)
            near = around @ probability
        # of the cells of a domain, each counts to the types by how likely these are there
        shares = _drawn(shares * ((probability / likelihood).T @ densities), overall)
    return Domains(probability, shares, strength)


def _drawn(counts: np.ndarray, overall: np.ndarray) -> np.ndarray:
    """Shares of the types in each domain, drawn to those in the whole tissue."""
    counts = counts + PRIOR_CELLS * overall
    return counts / counts.sum(axis=1, keepdims=True)


def field_strength(probability: np.ndarray, around: np.ndarray) -> float:
    """The strength between 0 and `MAX_STRENGTH` of the largest expected pseudo-likelihood.

    Parameters
    ----------
    probability, around
        ``[cells, domains]``, of the cells and in the mean of each cell's neighbours.
    """
    from scipy.optimize import minimize_scalar

    agreement = (probability * around).sum()

    def loss(strength: float) -> float:
        return float(logsumexp(strength * around, axis=1).sum() - strength * agreement)

    return float(minimize_scalar(loss, bounds=(0.0, MAX_STRENGTH), method="bounded").x)
