"""The model behind `toy`: regulatory network, tissue layout, and the draw of one block of cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

BLOCK = 128
_ACTIVITY_NOISE = 0.5
_NICHE_EFFECT = 0.2
_HIDDEN_EFFECT = 0.4
_LIBRARY_SIGMA = 0.35


@dataclass(frozen=True)
class Network:
    """Signed regulatory network: TF to gene by `weights`, TF to TF by `parent`."""

    tf_columns: np.ndarray  # [K] column of each TF
    weights: sparse.csr_matrix  # [K, G] log-rate per unit of TF activity; TF columns are empty
    parent: np.ndarray  # [K] TF that drives this TF, always an earlier one; -1 = none
    parent_weight: np.ndarray  # [K]
    num_rare_tfs: int  # the last so many TFs belong to the rare type

    def table(self, names: np.ndarray) -> pd.DataFrame:
        """Edges as tf, target, sign, weight; sorted by tf, then target."""
        coo = self.weights.tocoo()
        child = np.flatnonzero(self.parent >= 0)
        tf = np.concatenate([self.tf_columns[coo.row], self.tf_columns[self.parent[child]]])
        target = np.concatenate([coo.col, self.tf_columns[child]])
        weight = np.concatenate([coo.data, self.parent_weight[child]])
        frame = pd.DataFrame({"tf": names[tf], "target": names[target], "sign": np.sign(weight).astype(np.int8)})
        frame["weight"] = weight.astype(np.float32)
        return frame.sort_values(["tf", "target"], ignore_index=True)


@dataclass(frozen=True)
class Plan:
    """Everything that holds for all cells."""

    seed: int
    network: Network
    base: np.ndarray  # [G] log-rate
    type_activity: np.ndarray  # [T, K]
    niche_activity: np.ndarray  # [D, K]
    hidden: np.ndarray  # [T, G] type effects that no listed TF explains
    batch_shift: np.ndarray  # [B, G]
    dispersion: np.ndarray  # [G] shape of the gamma
    composition: np.ndarray  # [D, number of common types], rows sum to 1
    rare_fraction: float
    dropout: float


def draw_network(rng: np.random.Generator, num_genes: int, tf_columns: np.ndarray, *, has_rare: bool) -> Network:
    """Draw hubs, signs, weights, the programme of the rare type and the cascade."""
    num_tfs = len(tf_columns)
    num_rare = max(1, num_tfs // 20) if has_rare else 0
    ordinary = num_tfs - num_rare
    others = np.setdiff1d(np.arange(num_genes), tf_columns)
    weights = np.zeros((num_tfs, num_genes), dtype=np.float32)

    targets = others[rng.random(len(others)) < 0.85]
    degree = np.minimum(1 + rng.poisson(1.2, len(targets)), ordinary)
    # Gumbel keys draw regulators without replacement, a few hubs more often than the rest.
    keys = -0.5 * np.log(1 + np.arange(ordinary)) + rng.gumbel(size=(len(targets), ordinary))
    gene, rank = np.nonzero(np.arange(ordinary) < degree[:, None])
    tf = np.argsort(-keys, axis=1)[gene, rank]
    role = np.where(rng.random(ordinary) < 0.3, -1.0, 1.0)
    sign = role[tf] * np.where(rng.random(len(tf)) < 0.15, -1.0, 1.0)
    weights[tf, targets[gene]] = sign * rng.uniform(0.2, 0.7, len(tf))
    for k in range(ordinary, num_tfs):
        marker = rng.choice(others, min(len(others), max(5, num_genes // 40)), replace=False)
        weights[k, marker] = rng.uniform(0.5, 0.9, len(marker))

    parent = np.full(num_tfs, -1)
    child = 1 + np.flatnonzero(rng.random(ordinary - 1) < 0.4)
    parent[child] = (rng.random(len(child)) * child).astype(int)
    parent_weight = rng.uniform(0.4, 0.8, num_tfs) * rng.choice([-1.0, 1.0], num_tfs)
    return Network(tf_columns, sparse.csr_matrix(weights), parent, parent_weight, num_rare)


def draw_plan(rng: np.random.Generator, network: Network, p: dict) -> Plan:
    """Draw what cells share: activities, base rates, batch shifts, composition; `p` are the arguments of `toy`."""
    num_tfs, num_genes = p["num_tfs"], p["num_genes"]
    common = p["num_types"] - (p["rare_fraction"] > 0)
    activity = rng.normal(size=(p["num_types"], num_tfs))
    hidden = rng.normal(scale=_HIDDEN_EFFECT, size=(p["num_types"], num_genes))
    hidden[:, network.tf_columns] = 0.0
    if network.num_rare_tfs:
        # The rare type is an abundant one plus a programme of its own, as in tissue.
        activity[-1], hidden[-1] = activity[0], hidden[0]
        activity[:, -network.num_rare_tfs :] = np.where(np.arange(p["num_types"])[:, None] == common, 2.5, -0.5)
    niche = rng.normal(scale=_NICHE_EFFECT, size=(p["num_domains"], num_tfs))
    if network.num_rare_tfs:
        niche[:, -network.num_rare_tfs :] = 0.0
    base = rng.normal(size=num_genes)
    base[network.tf_columns] = rng.normal(0.3, 0.5, num_tfs)
    rate = np.exp(base + hidden[:common] + _log_rates(network, activity[:common])).mean()
    centre = np.arange(p["num_domains"])[:, None] * common / p["num_domains"]
    composition = np.exp(1.2 * np.cos(2 * np.pi * (np.arange(common) - centre) / common))
    return Plan(
        seed=p["seed"],
        network=network,
        base=base + np.log(p["depth"] / rate),
        type_activity=activity,
        niche_activity=niche,
        hidden=hidden,
        batch_shift=rng.normal(scale=p["batch_effect"], size=(p["num_batches"], num_genes)),
        dispersion=rng.gamma(4.0, 1.0, num_genes) + 1.0,
        composition=composition / composition.sum(axis=1, keepdims=True),
        rare_fraction=p["rare_fraction"],
        dropout=p["dropout"],
    )


def _log_rates(network: Network, activity: np.ndarray) -> np.ndarray:
    """What the activities ``[n, K]`` add to the log-rates ``[n, G]``; TF genes show their own activity."""
    activity = activity.copy()
    for k in np.flatnonzero(network.parent >= 0):  # parents come first, so one pass settles the cascade
        activity[:, k] += network.parent_weight[k] * np.tanh(activity[:, network.parent[k]])
    rates = np.ascontiguousarray((network.weights.T @ activity.T).T)
    rates[:, network.tf_columns] = activity
    return rates


@dataclass(frozen=True)
class Layout:
    """Domains of each slide on the unit square: layers of a warped height, and a round region as the last domain."""

    num_domains: int
    phase: np.ndarray  # [B, 3]
    centre: np.ndarray  # [B, 2]
    cuts: np.ndarray  # [B, number of layers - 1]

    @classmethod
    def draw(cls, rng: np.random.Generator, num_batches: int, num_domains: int) -> Layout:
        """Draw one layout per slide, with layers of equal area."""
        phase, centre = rng.random((num_batches, 3)), rng.uniform(0.4, 0.6, (num_batches, 2))
        layers = num_domains - (num_domains >= 3)
        bare = cls(num_domains, phase, centre, np.zeros((num_batches, 0)))
        grid = (np.stack(np.meshgrid(np.arange(64), np.arange(64)), axis=-1).reshape(-1, 2) + 0.5) / 64
        cuts = np.zeros((num_batches, layers - 1))
        for slide in range(num_batches):
            where = np.full(len(grid), slide)
            height = bare._height(where, grid)[~bare._in_region(where, grid)]
            cuts[slide] = np.quantile(height, np.arange(1, layers) / layers)
        return cls(num_domains, phase, centre, cuts)

    def domain(self, slide: np.ndarray, xy: np.ndarray) -> np.ndarray:
        """Domain of points ``[n, 2]`` of the unit square."""
        layer = (self._height(slide, xy)[:, None] > self.cuts[slide]).sum(axis=1)
        return np.where(self._in_region(slide, xy), self.num_domains - 1, layer)

    def _height(self, slide: np.ndarray, xy: np.ndarray) -> np.ndarray:
        phase = self.phase[slide]
        wave = 0.10 * np.sin(2 * np.pi * (xy[:, 0] + phase[:, 0])) + 0.04 * np.sin(
            2 * np.pi * (2 * xy[:, 0] + phase[:, 1])
        )
        return xy[:, 1] + wave

    def _in_region(self, slide: np.ndarray, xy: np.ndarray) -> np.ndarray:
        if self.num_domains < 3:
            return np.zeros(len(xy), dtype=bool)
        dx, dy = (xy - self.centre[slide]).T
        lobes = 1 + 0.2 * np.cos(3 * np.arctan2(dy, dx) + 2 * np.pi * self.phase[slide, 2])
        return np.hypot(dx, dy) < lobes / np.sqrt(np.pi * self.num_domains)


def draw_block(plan: Plan, layout: Layout, block: int) -> tuple[dict[str, np.ndarray], sparse.csr_matrix]:
    """Draw cells ``block * BLOCK`` to ``(block + 1) * BLOCK``: their annotation and counts."""
    rng = np.random.default_rng([plan.seed, 1, block])
    cell = block * BLOCK + np.arange(BLOCK)
    num_batches, num_genes = plan.batch_shift.shape
    batch, nth = cell % num_batches, cell // num_batches
    # The R2 sequence fills the square evenly at every length, as cells fill a tissue.
    unit = (0.5 + nth[:, None] * np.array([0.7548776662466927, 0.5698402909980532])) % 1.0
    domain = layout.domain(batch, unit)
    cumulative = plan.composition.cumsum(axis=1)[domain]
    kind = np.minimum((rng.random(BLOCK)[:, None] > cumulative).sum(axis=1), cumulative.shape[1] - 1)
    ends = np.floor(np.array([block, block + 1]) * BLOCK * plan.rare_fraction + 0.5).astype(int)
    rare = np.isin(np.arange(BLOCK), rng.permutation(BLOCK)[: ends[1] - ends[0]])
    kind[rare] = plan.composition.shape[1]

    activity = plan.type_activity[kind] + plan.niche_activity[domain]
    activity += rng.normal(scale=_ACTIVITY_NOISE, size=activity.shape)
    eta = plan.base + _log_rates(plan.network, activity) + plan.hidden[kind] + plan.batch_shift[batch]
    library = rng.normal(-0.5 * _LIBRARY_SIGMA**2, _LIBRARY_SIGMA, BLOCK)
    mu = np.exp(np.minimum(eta + library[:, None], 10.0))
    counts = rng.poisson(mu * rng.gamma(plan.dispersion, 1 / plan.dispersion, (BLOCK, num_genes)))
    counts[rng.random((BLOCK, num_genes)) < plan.dropout / (1 + mu)] = 0
    obs = {"batch": batch, "domain": domain, "type": kind, "rare": rare, "unit": unit}
    return obs, sparse.csr_matrix(counts.astype(np.float32))
