"""Learning to read known regulation: a data set's own edges are hidden, then asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from graphfm.models.knowledge import KnowledgeConfig, KnowledgeHead


@dataclass(frozen=True, eq=False)
class Episode:
    """A data set as it is met when nothing of its network is known.

    Parameters
    ----------
    evidence
        Of all its pairs, ``[t, n, e]``; see `graphfm.models.knowledge.EVIDENCE`.
    networks
        For each kind of network its edges and its other pairs, ``[m, 2]`` each, or None where it is not known.
    """

    evidence: Tensor
    networks: Sequence[tuple[np.ndarray, np.ndarray] | None]

    def learnable(self) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Kind, edges and other pairs of each network that has both."""
        return [
            (kind, *network)
            for kind, network in enumerate(self.networks)
            if network is not None and all(map(len, network))
        ]


def fit_knowledge(head: KnowledgeHead, episodes: Sequence[Episode], *, config: KnowledgeConfig, seed: int) -> None:
    """Train in place; the same seed gives the same weights.

    Parameters
    ----------
    head
        Changed in place; its standardisation is that of all episodes' pairs.
    episodes
        Data sets with known networks.
    config
        Steps and rates.
    seed
        Of the draws and of dropout.

    Raises
    ------
    ValueError
        No episode has an edge to learn from.
    """
    parts = [(episode.evidence, *network) for episode in episodes for network in episode.learnable()]
    if not parts:
        raise ValueError("None of the data sets has a known network that may be learned from.")
    moments = [(e.evidence.mean(dim=(0, 1)), e.evidence.square().mean(dim=(0, 1))) for e in episodes]
    mean, square = (torch.stack(part).mean(dim=0) for part in zip(*moments, strict=True))
    head.mean.copy_(mean)
    head.std.copy_((square - mean**2).clamp(min=1e-6).sqrt())
    rng, label = np.random.default_rng(seed), torch.zeros(config.edges + config.non_edges)
    label[: config.edges] = 1
    optimizer = torch.optim.AdamW(head.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=config.steps)
    head.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in tqdm(range(config.steps), desc="known regulation", disable=None):
            losses = []
            for evidence, kind, edges, others in parts:
                drawn = [
                    pairs[rng.integers(len(pairs), size=number)]
                    for pairs, number in ((edges, config.edges), (others, config.non_edges))
                ]
                row, column = torch.from_numpy(np.concatenate(drawn)).T
                facts = evidence[row, column]
                unknown = torch.from_numpy(rng.random(len(facts)) < config.unknown)
                facts[unknown, :-1] = 0  # all but the context
                losses.append(F.binary_cross_entropy_with_logits(head(facts)[:, kind], label))
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            optimizer.step()
            schedule.step()
    head.eval()
