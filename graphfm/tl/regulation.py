"""Scores of all pairs, learned from edges that are known."""

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.nn.functional import normalize

from graphfm.data.evidence import pair_evidence
from graphfm.models.inputs import random_vectors
from graphfm.models.regulation import GeneGraph, RegulationNet
from graphfm.nn.neighborhood import SparseRows
from graphfm.train.regulation import RegulationConfig, fit_regulation, make_folds

IDENTITY = 64
"""Random numbers that tell a gene from others, so that the trunk can count common neighbours."""
LEADING = 30
UNKNOWN_SIGN = 2
LEAST_SIGNED = 10
"""Known edges of either sign from which signs are learned."""
NETWORKS = 5
"""Networks from different seeds, whose probabilities are averaged."""


def learned_scores(
    names: np.ndarray,
    profiles: Tensor,
    graph: SparseRows,
    from_expression: Tensor,
    statistics: np.ndarray,
    regulators: np.ndarray,
    known: sp.csr_matrix,
    read: Callable[[Tensor], Tensor] | None = None,
    *,
    config: RegulationConfig,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Probability of each edge and of its positive sign, by networks that learned from the known edges.

    Parameters
    ----------
    names
        Of the genes, ``[n]``.
    profiles
        ``[n, p]``, see `graphfm.data.profiles`.
    graph
        Of the genes that are alike; see `graphfm.nn.context.similar_genes`.
    from_expression
        Context scores on that graph, ``[t, n]``.
    statistics
        Of the genes' expression, standardised, ``[n, s]``.
    regulators
        Rows that may regulate, ``[t]``.
    known
        Signs of the known edges, ``[n, n]``; `UNKNOWN_SIGN` where it is not known.
    read
        Gives the probability of each edge by what is known of the genes from other cells, from the context scores, both
        ``[t, n]``; None: nothing is known.
    config
        Of the training.
    seed
        Of all that is drawn.

    Returns
    -------
    probability, positive
        ``[t, n]``. The second is NaN if fewer than `LEAST_SIGNED` known edges have either sign. An edge's own presence
        among the known ones is not hidden from it.

    Raises
    ------
    ValueError
        There are too few known edges to hide some and keep others.
    """
    device, size = profiles.device, len(names)
    belief = None if read is None else read(from_expression).logit(eps=1e-6).numpy(force=True)
    context = from_expression.numpy(force=True)
    alike = sp.csr_matrix(
        tuple(part.numpy(force=True) for part in (graph.weight, graph.column, graph.pointer)), shape=(size, size)
    )
    direction, leading = normalize(profiles, dim=1), profiles[:, :LEADING]
    similarity = (direction[regulators] @ direction.T).abs().numpy(force=True)
    identity = random_vectors(names, IDENTITY).to(device)
    of_expression = torch.from_numpy(statistics).to(device)
    features = torch.cat([leading / leading.std().clamp(min=1e-12), of_expression, identity], dim=1)
    present = known.copy()
    present.data = np.ones_like(present.data, dtype=np.float32)
    place = np.full(size, -1)
    place[regulators] = np.arange(len(regulators))

    def facts(seen: sp.csr_matrix, pairs: np.ndarray | None = None) -> np.ndarray:
        if pairs is not None:
            pairs = np.stack([place[pairs[:, 0]], pairs[:, 1]], axis=1)
        return pair_evidence(seen, context, similarity, statistics, alike, regulators, pairs, belief)

    everything = facts(present)
    total, positive = np.zeros(context.shape, dtype=np.float64), np.zeros(context.shape, dtype=np.float64)
    for number in range(NETWORKS):
        folds = make_folds(present, regulators, config=config, seed=NETWORKS * seed + number)
        if not folds:
            raise ValueError(
                f"known has {present[regulators].nnz} edges from a transcription factor to a gene of the data; "
                "to learn from some and ask for others takes more. Use mode='prior' or 'unsupervised'."
            )
        evidence = [facts(fold.seen, fold.pairs) for fold in folds]
        signs = [_signs(known, fold.pairs) for fold in folds]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(NETWORKS * seed + number)
            net = RegulationNet(features.shape[1], everything.shape[-1]).to(device)
        fit_regulation(net, features, folds, evidence, signs, config=config, seed=NETWORKS * seed + number)
        edge, sign = _all_pairs(net, features, present, everything, regulators)
        total += edge
        positive += sign
    # edges were asked for among more non-edges than are drawn: back to the density of the known network
    odds = present[regulators].nnz / max(total.size - present[regulators].nnz, 1)
    mean = total / NETWORKS
    probability = mean * odds * config.non_edges / (1 - mean + mean * odds * config.non_edges)
    signed = min((known.data == 1).sum(), (known.data == -1).sum()) >= LEAST_SIGNED
    return probability, positive / NETWORKS if signed else np.full(context.shape, np.nan)


def _signs(known: sp.csr_matrix, pairs: np.ndarray) -> np.ndarray:
    """+1 or -1 where the sign of an edge is known, else 0."""
    values = np.asarray(known[pairs[:, 0], pairs[:, 1]]).ravel()
    return np.where(np.abs(values) == 1, values, 0)


@torch.no_grad()
def _all_pairs(
    net: RegulationNet, features: Tensor, present: sp.csr_matrix, evidence: np.ndarray, regulators: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of an edge and of a positive sign, one regulator at a time."""
    graphs = (GeneGraph.from_scipy(matrix, features.device) for matrix in (present, present.T))
    states = net.states(features, *graphs)
    size = len(features)
    edge, sign = np.empty((len(regulators), size)), np.empty((len(regulators), size))
    for i, regulator in enumerate(regulators):
        pairs = torch.stack([torch.full((size,), int(regulator)), torch.arange(size)], dim=1)
        logits = net(states, torch.from_numpy(evidence[i]).to(features.device), pairs.to(features.device)).sigmoid()
        edge[i], sign[i] = logits.double().numpy(force=True).T
    return edge, sign
