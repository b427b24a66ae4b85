"""Domains of a tissue: each a mixture of cell types, under a field that draws neighbours into one domain."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.special import logsumexp
from tqdm import tqdm

from graphfm.models.field import around, settle

MAX_STRENGTH = 20.0
"""Nats that a cell's neighbours may weigh in all."""
PRIOR_CELLS = 5.0
"""Cells' worth of types by which a domain is drawn to the whole tissue."""
NUM_STARTS, MOST_STARTS = 10, 60
"""Runs from different starts that vote: so many at a time, and in all."""
AGREED = 0.99
"""Adjusted Rand index of the votes of either half of the runs, at which no more are made."""
EM_STEPS = 10
"""Of a mixture. From here on they change little, and runs from another start tell more."""
MAX_DOMAINS, TRIED_STARTS = 15, 3
"""The search for their number: the most, and starts of each."""
ROUNDS, SWEEPS = 5, 3
"""Rounds; sweeps of the field in each. Many more rounds drift from a good start."""


@dataclass(frozen=True)
class Domains:
    """What a tissue has settled into."""

    probability: np.ndarray
    """``[cells, domains]``, rows sum to 1."""
    shares: np.ndarray
    """``[domains, types]``, share of each cell type, rows sum to 1."""
    strength: float
    """Nats by which a cell is drawn to the domain that all its neighbours are in."""
    agreement: float = 1.0
    """Adjusted Rand index of the votes of either half of the runs."""


def vote_domains(
    densities: Callable[[int], np.ndarray], blurred: np.ndarray, graph: sp.csr_matrix, number: int, *, seed: int
) -> Domains:
    """Domains on which runs from different starts agree.

    A run has types and first domains of its own and settles (`settle_domains`). The runs' domains are named alike, to
    overlap the most with the mean of all, and their probabilities averaged: where a run's outcome is luck, the mean
    says so. Ten runs at a time are made until both halves of them come to the same, as other seeds then do, or there
    are sixty.

    Parameters
    ----------
    densities
        Gives ``[cells, types]`` for a run's seed, of the cell's values under each type.
    blurred
        ``[cells, components]``, means over neighbourhoods, from which the first domains are.
    graph
        Symmetric ``[cells, cells]``, weights of neighbours.
    number
        Domains.
    seed
        Of the runs.

    References
    ----------
    Dimitriadou, Weingessel and Hornik 2002, doi:10.1142/S0218001402002052 (votes of clusterings).
    """
    from sklearn.metrics import adjusted_rand_score

    runs, agreement = [], 0.0
    seeds = np.random.default_rng(seed).integers(2**31, size=MOST_STARTS).tolist()
    for run_seed in tqdm(seeds, desc="runs that vote", leave=False, disable=None):
        types = densities(run_seed)
        settled = settle_domains(types, graph, _first(blurred, number, run_seed))
        runs.append(settled.probability.astype(np.float32))
        if len(runs) % NUM_STARTS == 0:
            agreement = adjusted_rand_score(*(_vote(half).argmax(axis=1) for half in (runs[::2], runs[1::2])))
            if agreement >= AGREED:
                break
    probability = _normalized(_vote(runs).astype(np.float64))
    strength = field_strength(probability, around(graph) @ probability)
    types = _normalized(types)
    shares = _drawn(probability.T @ types, types.mean(axis=0))
    return Domains(probability, shares, strength, float(agreement))


def _first(blurred: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Probabilities to begin with."""
    return _normalized(mixture_densities(blurred, number, seed=seed))


def _vote(runs: list[np.ndarray]) -> np.ndarray:
    """Mean of the runs after their domains are matched, each to the mean so far, begun with the most typical run."""
    common = np.zeros((len(runs), len(runs)))
    for a, b in itertools.combinations(range(len(runs)), 2):
        common[a, b] = common[b, a] = _matched(runs[a], runs[b])[0]
    mean = runs[int(common.sum(axis=0).argmax())]
    for _ in range(ROUNDS):
        mean = np.mean([run[:, _matched(mean, run)[1]] for run in runs], axis=0)
    return mean


def _matched(a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray]:
    """What two runs have in common, and the domain of `b` for each of `a`."""
    from scipy.optimize import linear_sum_assignment

    common = a.T @ b
    assigned = linear_sum_assignment(common, maximize=True)
    return float(common[assigned].sum()), assigned[1]


def choose_number(densities: np.ndarray, blurred: np.ndarray, graph: sp.csr_matrix, *, seed: int) -> int:
    """The number of domains from which on more of them tell little more of the cells.

    It is the knee of the log pseudo-likelihood over 1 to `MAX_DOMAINS`: the number that lies highest above the
    straight line between both ends. An information criterion would go on splitting, for within a domain, too,
    neighbours are alike.

    Parameters
    ----------
    densities
        ``[cells, types]``.
    blurred, graph, seed
        As in `vote_domains`.

    References
    ----------
    Satopaa et al. 2011, doi:10.1109/ICDCSW.2011.20 (the knee of a curve).
    """
    numbers = np.arange(1, min(MAX_DOMAINS, len(blurred) // 2) + 1)
    likelihood = np.empty(len(numbers))
    for place, number in enumerate(tqdm(numbers, desc="number of domains", leave=False, disable=None)):
        firsts = [_first(blurred, int(number), seed + start) for start in range(TRIED_STARTS)]
        runs = [settle_domains(densities, graph, first) for first in firsts]
        likelihood[place] = max(_pseudo_likelihood(densities, graph, run) for run in runs)
    line = np.interp(numbers, numbers[[0, -1]], likelihood[[0, -1]])
    return int(numbers[np.argmax(likelihood - line)])


def _pseudo_likelihood(densities: np.ndarray, graph: sp.csr_matrix, found: Domains) -> float:
    """Log probability of each cell's values given its neighbours' domains, summed."""
    odds = found.strength * (around(graph) @ found.probability)
    prior = odds - logsumexp(odds, axis=1, keepdims=True)
    return float(logsumexp(prior + np.log(densities @ found.shares.T), axis=1).sum())


def nested_levels(shares: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """``[domains, domains]``: which domains are one if there shall be fewer, a column for each number of domains.

    The two whose union loses the fewest nats of what the domains tell of the types become one, again and again.

    Parameters
    ----------
    shares
        ``[domains, types]``, rows sum to 1.
    sizes
        ``[domains]``, cells.

    Returns
    -------
    numpy.ndarray
        Column ``j``: for each domain the largest domain of its union, with ``j + 1`` unions in all.
    """
    number = len(sizes)
    counts = {k: sizes[k] * shares[k] for k in range(number)}
    levels = np.empty((number, number), dtype=np.int64)
    levels[:, -1] = np.arange(number)
    for column in range(number - 2, -1, -1):
        pairs = itertools.combinations(counts, 2)
        a, b = min(
            pairs,
            key=lambda pair: _told(counts[pair[0]]) + _told(counts[pair[1]]) - _told(counts[pair[0]] + counts[pair[1]]),
        )
        kept, lost = (a, b) if sizes[a] >= sizes[b] else (b, a)
        counts[kept] = counts[kept] + counts.pop(lost)
        levels[:, column] = np.where(levels[:, column + 1] == lost, kept, levels[:, column + 1])
    return levels


def _told(counts: np.ndarray) -> float:
    """Log likelihood of these numbers of types under their own shares."""
    return float((counts * np.log(np.maximum(counts, 1e-300) / max(counts.sum(), 1e-300))).sum())


def mixture_densities(values: np.ndarray, number: int, *, seed: int) -> np.ndarray:
    """``[cells, number]``: densities under Gaussians of one covariance, over each cell's largest; no weights.

    Parameters
    ----------
    values
        ``[cells, components]``.
    number
        Gaussians.
    seed
        Of the start.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    floor = 1e-6 * values.var()
    mixture = GaussianMixture(number, covariance_type="tied", reg_covar=floor, max_iter=EM_STEPS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(values)
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
    mean = around(graph)
    types = _normalized(densities)
    overall = types.mean(axis=0)
    probability, strength = start, 0.0
    shares = _drawn(probability.T @ types, overall)
    for _ in range(ROUNDS):
        likelihood = densities @ shares.T
        strength = field_strength(probability, mean @ probability)
        probability = settle(np.log(likelihood), mean, probability, strength=strength, sweeps=SWEEPS)
        # of the cells of a domain, each counts to the types by how likely these are there
        shares = _drawn(shares * ((probability / likelihood).T @ densities), overall)
    return Domains(probability, shares, strength)


def _normalized(densities: np.ndarray) -> np.ndarray:
    """Rows that sum to 1."""
    return densities / densities.sum(axis=1, keepdims=True)


def _drawn(counts: np.ndarray, overall: np.ndarray) -> np.ndarray:
    """Shares of the types in each domain, drawn to those in the whole tissue."""
    return _normalized(counts + PRIOR_CELLS * overall)


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
