"""Learning from known edges: each is hidden from the graph before it is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from graphfm.models.regulation import GeneGraph, RegulationNet


@dataclass(frozen=True)
class RegulationConfig:
    """How a network learns from known edges.

    Parameters
    ----------
    folds
        For each of the three ways to hide edges (single ones, all of a regulator, all of a target), how often.
    share
        Edges that are hidden at a time.
    non_edges
        Drawn for each hidden edge.
    epochs, lr, weight_decay
        Of AdamW, with a one-cycle rate.
    """

    folds: int = 3
    share: float = 0.25
    non_edges: int = 6
    epochs: int = 30
    lr: float = 3e-3
    weight_decay: float = 1.0


@dataclass(frozen=True)
class Fold:
    """A part of the edges to learn from, and what may be seen of the graph meanwhile.

    Parameters
    ----------
    pairs
        Regulator and gene, edges first, ``[m, 2]``.
    label
        1 for an edge, ``[m]``.
    seen
        The other edges, ``[n, n]``.
    """

    pairs: np.ndarray
    label: np.ndarray
    seen: sp.csr_matrix

    def __post_init__(self) -> None:
        asked = self.pairs[self.label == 1]
        assert not np.asarray(self.seen[asked[:, 0], asked[:, 1]]).any(), "an edge that is asked for is seen"


def make_folds(known: sp.csr_matrix, regulators: np.ndarray, *, config: RegulationConfig, seed: int) -> list[Fold]:
    """Hide edges in three ways: they ask for other edges of known genes, for new regulators, and for new targets.

    Non-edges are drawn among all pairs of a regulator (one of those hidden, where whole regulators are) and a gene (one
    of those hidden, where whole targets are) that are no known edge.

    Parameters
    ----------
    known
        ``[n, n]``, 1 where there is an edge; edges of other rows than `regulators` are seen, never asked for.
    regulators
        Rows that may regulate.
    config
        Number and size of the folds.
    seed
        Of all that is drawn.
    """
    rng, known = np.random.default_rng(seed), sp.csr_matrix(known, dtype=np.float32)
    edges = np.stack(known.nonzero(), axis=1)
    edges = edges[np.isin(edges[:, 0], regulators)]
    folds = []
    for way in ("edges", "regulators", "targets"):
        for _ in range(config.folds):
            if way == "edges":
                hidden = rng.random(len(edges)) < config.share
            else:
                end = edges[:, 0 if way == "regulators" else 1]
                nodes = rng.permutation(np.unique(end))
                hidden = np.isin(end, nodes[: max(1, round(config.share * len(nodes)))])
            if not hidden.any() or hidden.all():
                continue
            asked, number = edges[hidden], config.non_edges * int(hidden.sum())
            starts = np.unique(asked[:, 0]) if way == "regulators" else regulators
            ends = np.unique(asked[:, 1]) if way == "targets" else np.arange(known.shape[0])
            others = np.stack([rng.choice(starts, number), rng.choice(ends, number)], axis=1)
            free = (others[:, 0] != others[:, 1]) & (np.asarray(known[others[:, 0], others[:, 1]]).ravel() == 0)
            others = others[free]
            seen = known.tolil()
            seen[asked[:, 0], asked[:, 1]] = 0
            seen = seen.tocsr()
            seen.eliminate_zeros()
            label = np.repeat(np.float32([1, 0]), [len(asked), len(others)])
            folds.append(Fold(np.concatenate([asked, others]), label, seen))
    return folds


def fit_regulation(
    net: RegulationNet,
    features: Tensor,
    folds: Sequence[Fold],
    evidence: Sequence[np.ndarray],
    signs: Sequence[np.ndarray],
    *,
    config: RegulationConfig,
    seed: int,
) -> None:
    """Train on the folds in turn; the same seed gives the same weights.

    Parameters
    ----------
    net
        Changed in place.
    features
        Of the genes, ``[n, f]``.
    folds
        Of `make_folds`.
    evidence
        Of each fold's pairs, from the edges it sees, ``[m, e]``.
    signs
        Of each fold's pairs, +1, -1, or 0 where unknown or no edge.
    config
        Steps and rates.
    seed
        Of the order and of dropout.
    """
    parts = [
        (
            torch.from_numpy(fold.pairs),
            torch.from_numpy(fold.label).to(features.device),
            GeneGraph.from_scipy(fold.seen, features.device),
            GeneGraph.from_scipy(fold.seen.T, features.device),
            torch.from_numpy(facts).to(features.device),
            torch.from_numpy(np.float32(sign)).to(features.device),
        )
        for fold, facts, sign in zip(folds, evidence, signs, strict=True)
    ]
    optimizer = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=config.epochs * len(parts))
    generator = torch.Generator().manual_seed(seed)
    net.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in tqdm(range(config.epochs), desc="known edges", disable=None):
            for number in torch.randperm(len(parts), generator=generator).tolist():
                pairs, label, targets, regulators, facts, sign = parts[number]
                logits = net(net.states(features, targets, regulators), facts, pairs)
                loss = F.binary_cross_entropy_with_logits(logits[:, 0], label)
                if (sign != 0).any():
                    right = (sign[sign != 0] > 0).float()
                    loss = loss + F.binary_cross_entropy_with_logits(logits[sign != 0, 1], right)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    net.eval()
