"""What abundant cell types explain of a cell's counts, and what a small population explains better."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from graphfm.data.cell_groups import knn_matrix

NUM_GENES = 3000
PRIOR_CELLS = 5.0
"""Cells' worth of counts by which a rate is drawn to that of all cells, or of a type's other batches."""
PRIOR_COUNTS = 2.0
"""Counts, in units of a gene's dispersion, by which a fold change is drawn to 1."""
MARKER_EXCESS, MARKER_LOG_FOLD = 4.0, 1.0
"""Standard deviations, and log2, that a gene must have above every abundant type to mark a population."""
IN_QUESTION = -10.0
"""Log odds below which no further explanation of a cell is looked for."""
CHUNK = 256
"""Cells that are dense at a time."""


@dataclass(frozen=True)
class Population:
    """A small population that has settled: its cells are those that it explains better than anything abundant."""

    members: np.ndarray
    """``[cells]`` bool."""
    odds: np.ndarray
    """``[cells]``, log odds of belonging; a member's own counts are left out of the profile that it is judged by."""
    excess: np.ndarray
    """``[genes]``, counts beyond what any abundant type would have here, in standard deviations."""
    log_fold: np.ndarray
    """``[genes]``, log2 of the counts over the most that an abundant type would have here."""

    @property
    def size(self) -> int:
        """Cells."""
        return int(self.members.sum())

    @property
    def typical_odds(self) -> float:
        """Median over the members."""
        return float(np.median(self.odds[self.members]))

    @property
    def marked(self) -> np.ndarray:
        """Genes (their numbers) that are clearly above every abundant type."""
        return np.flatnonzero((self.excess > MARKER_EXCESS) & (self.log_fold > MARKER_LOG_FOLD))

    @property
    def num_markers(self) -> int:
        """How many these are."""
        return len(self.marked)

    @property
    def separation(self) -> float:
        """Share of clear members among all cells that might belong: 1 is an island, near 0 the end of a continuum."""
        return float((self.odds > -IN_QUESTION).sum() / max(1, (self.odds > IN_QUESTION).sum()))


class Background:
    r"""Rates of the genes in abundant types, and in doublets of two of them, batch by batch.

    A cell of depth :math:`s_c` has counts :math:`x_{cg}` with mean :math:`s_c r_g` and variance
    :math:`\phi_g s_c r_g`; its quasi-likelihood under rates :math:`r` is

    .. math:: \ell_c(r) = \sum_g \frac{x_{cg} \log r_g - s_c r_g}{\phi_g}

    Parameters
    ----------
    counts
        ``[cells, genes]``; or counts times one factor a data set, which the dispersion takes up.
    types
        ``[cells]``, number of the abundant type.
    batches
        ``[cells]``, number of the batch. A cell is compared with its own batch only, so that what a batch shifts is
        no population.
    num_genes
        Keep as many, the most dispersed within types.

    References
    ----------
    McCullagh and Nelder 1989, Generalized Linear Models, chapter 9 (quasi-likelihood).
    """

    def __init__(
        self, counts: sp.csr_matrix, types: np.ndarray, batches: np.ndarray, num_genes: int | None = NUM_GENES
    ) -> None:
        total = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
        depth = total / np.median(total[total > 0])
        self._set(sp.csr_matrix(counts, dtype=np.float64), depth, types, batches)
        self.genes = np.arange(counts.shape[1])
        """Columns of the counts that were kept."""
        if num_genes is not None and counts.shape[1] > num_genes:
            dispersion = self._dispersion(self._rates(self._sums), self._sums, len(depth))
            self.genes = np.sort(np.argsort(-dispersion, kind="stable")[:num_genes])
            self._set(sp.csr_matrix(self.counts[:, self.genes]), depth, types, batches)

    def _set(self, counts: sp.csr_matrix, depth: np.ndarray, types: np.ndarray, batches: np.ndarray) -> None:
        self.counts, self.depth, self.types, self.batches = counts, depth, types, batches
        self.num_types, self.num_batches = int(types.max()) + 1, int(batches.max()) + 1
        self._sums = self._sums_of(np.arange(len(depth)))

    @property
    def groups(self) -> np.ndarray:
        """``[cells]``, number of type and batch together."""
        return self.types * self.num_batches + self.batches

    def __len__(self) -> int:
        return len(self.depth)

    def subset(self, rows: np.ndarray) -> Background:
        """The same of some cells."""
        part = object.__new__(Background)
        part._set(self.counts[rows], self.depth[rows], self.types[rows], self.batches[rows])
        part.genes = self.genes
        return part

    def _sums_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Counts, squared counts over depth, and depth, of these cells, by type, batch and gene."""
        shape = self.num_types, self.num_batches
        place = self.groups[rows], np.arange(len(rows))
        members = sp.csr_matrix((np.ones(len(rows)), place), shape=(shape[0] * shape[1], len(rows)))
        counts, depth = self.counts[rows], np.maximum(self.depth[rows], 1e-12)
        squares = sp.diags_array(1 / depth) @ counts.multiply(counts)
        return (
            (members @ counts).toarray().reshape(*shape, -1),
            (members @ squares).toarray().reshape(*shape, -1),
            (members @ depth).reshape(shape),
        )

    def _rates(self, sums: tuple[np.ndarray, ...]) -> np.ndarray:
        """``[types, batches, genes]``."""
        counts, _, depth = sums
        all_cells = counts.sum(axis=(0, 1)) / depth.sum() + 1e-12
        by_type = (counts.sum(axis=1) + PRIOR_CELLS * all_cells) / (depth.sum(axis=1)[:, None] + PRIOR_CELLS)
        if self.num_batches == 1:
            return by_type[:, None]
        return (counts + PRIOR_CELLS * by_type[:, None]) / (depth[..., None] + PRIOR_CELLS)

    def _dispersion(self, rates: np.ndarray, sums: tuple[np.ndarray, ...], num_cells: int) -> np.ndarray:
        """``[genes]``, mean of (count - mean)^2 / mean over the cells, at least that of a Poisson count."""
        counts, squares, depth = sums
        chi = (squares / rates).sum(axis=(0, 1)) - 2 * counts.sum(axis=(0, 1)) + np.einsum("tb,tbg->g", depth, rates)
        return np.maximum(chi / num_cells, 1.0)

    @cached_property
    def _pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Each type with itself, then each with each: a doublet has the mean of two profiles, weighted by content."""
        kinds = np.arange(self.num_types)
        first, second = np.triu_indices(self.num_types, k=1)
        return np.concatenate([kinds, first]), np.concatenate([kinds, second])

    @cached_property
    def _share(self) -> np.ndarray:
        """``[pairs, 1, 1]``, part of the first type in a doublet."""
        content = self._sums[2].sum(axis=1) / np.maximum(np.bincount(self.types, minlength=self.num_types), 1)
        first, second = (content[side] for side in self._pairs)
        return (first / (first + second))[:, None, None]

    def _explanations(self, rates: np.ndarray) -> np.ndarray:
        """``[pairs, batches, genes]``, rates of types and of doublets."""
        first, second = self._pairs
        return self._share * rates[first] + (1 - self._share) * rates[second]

    @property
    def _batch_shares(self) -> np.ndarray:
        """``[batches]``, share of each in the depth of all cells."""
        depth = self._sums[2].sum(axis=0)
        return depth / depth.sum()

    def _batch_effect(self, rates: np.ndarray) -> np.ndarray:
        """``[batches, genes]``, what a batch does to most types: rates there over rates in all batches.

        Not what it does to one type: cells of a population that are still counted to that type raise it.
        """
        return np.median(rates / np.einsum("tbg,b->tg", rates, self._batch_shares)[:, None], axis=0)

    def _carried_over(self, rates: np.ndarray, effect: np.ndarray) -> np.ndarray:
        """``[batches, genes]``, rates of an explanation over all batches times what each of these does."""
        return effect * (self._batch_shares @ rates)

    @cached_property
    def _whole(self) -> tuple[np.ndarray, ...]:
        """Dispersion; rates of all explanations; their logs and sums, over the dispersion; what batches do.

        All cells are counted.
        """
        rates = self._rates(self._sums)
        dispersion = self._dispersion(rates, self._sums, len(self))
        every = self._explanations(rates)
        effect = self._batch_effect(rates)
        return dispersion, every, np.log(every) / dispersion, (every / dispersion).sum(axis=2), effect

    def distances(self) -> np.ndarray:
        """``[types, types]``, median log odds of a type's cells for it and against another; infinite with itself."""
        fit = self._fits(np.arange(len(self)))[:, : self.num_types]
        own = [np.median(fit[self.types == k, k, None] - fit[self.types == k], axis=0) for k in range(self.num_types)]
        both = np.array(own)
        both = (both + both.T) / 2
        np.fill_diagonal(both, np.inf)
        return both

    def agreement(self, cells: np.ndarray) -> np.ndarray:
        """Log odds of each of these cells that what the others of them share explains it, not types or doublets."""
        dispersion, every, _, _, effect = self._whole
        counts, depth = self.counts[cells].toarray(), self.depth[cells]
        fit = self._fits(cells)
        base = self._carried_over(every[fit.sum(axis=0).argmax()], effect)[self.batches[cells]]
        expected = depth[:, None] * base
        change = _log_fold(counts.sum(axis=0) - counts, expected.sum(axis=0) - expected, dispersion)
        return _explained(counts, depth, base, change, dispersion, fit)

    def vouched(self, neighbors: np.ndarray) -> np.ndarray:
        """``[cells]``, log odds that what a cell's `neighbors` share explains it, not types or doublets.

        Parameters
        ----------
        neighbors
            ``[cells, k]``, rows; a cell is none of its own.
        """
        dispersion, every, _, _, effect = self._whole
        of_type = self._batch_shares @ every[: self.num_types]
        near = knn_matrix(neighbors, len(self))
        depths = sp.csr_matrix((self.depth, (np.arange(len(self)), self.batches)), shape=(len(self), self.num_batches))
        odds = np.empty(len(self))
        for start in range(0, len(self), CHUNK):
            cells = np.arange(start, min(start + CHUNK, len(self)))
            # what is carried over is a rate of the type times what the batch does
            rates = of_type[self.types[cells]]
            expected = rates * ((near[cells] @ depths) @ effect)
            change = _log_fold((near[cells] @ self.counts).toarray(), expected, dispersion)
            base = rates * effect[self.batches[cells]]
            counts, depth = self.counts[cells].toarray(), self.depth[cells]
            odds[cells] = _explained(counts, depth, base, change, dispersion, self._fits(cells))
        return odds

    def _fits(self, cells: np.ndarray) -> np.ndarray:
        """``[cells, pairs]``, quasi-likelihood of each cell under each explanation, all cells counted."""
        _, _, logs, sums, _ = self._whole
        fit = np.empty((len(cells), len(sums)))
        for batch in np.unique(self.batches[cells]):
            here = self.batches[cells] == batch
            fit[here] = self.counts[cells[here]] @ logs[:, batch].T - self.depth[cells[here], None] * sums[:, batch]
        return fit

    def judge(self, members: np.ndarray) -> Population:
        """How much better the profile of these cells explains each cell than all that is abundant without them."""
        rows = np.flatnonzero(members)
        of_rows = self._sums_of(rows)
        sums = tuple(all_ - these for all_, these in zip(self._sums, of_rows, strict=True))
        rates = self._rates(sums)
        dispersion = self._dispersion(rates, sums, len(self) - len(rows))
        every = self._explanations(rates)
        counts, depth, batches = self.counts[rows].toarray(), self.depth[rows], self.batches[rows]
        pool, depths = of_rows[0].sum(axis=0), of_rows[2].sum(axis=0)
        fit = np.einsum("kbg,bg->k", np.log(every), pool / dispersion) - np.einsum(
            "kbg,b,g->k", every, depths, 1 / dispersion
        )
        base = self._carried_over(every[fit.argmax()], self._batch_effect(rates))
        pooled, expected = pool.sum(axis=0), depths @ base
        change = _log_fold(pooled, expected, dispersion)
        growth = (base * np.expm1(change) / dispersion).sum(axis=1)
        odds = self.counts @ (change / dispersion) - self.depth * growth[self.batches]
        # a member may not vouch for itself
        of_cell = base[batches]
        change = _log_fold(pooled - counts, expected - depth[:, None] * of_cell, dispersion)
        odds[rows] = ((counts * change - depth[:, None] * of_cell * np.expm1(change)) / dispersion).sum(axis=1)
        better = np.zeros(len(self))
        for explanations in (slice(self.num_types), slice(self.num_types, None)):
            asked = np.flatnonzero(odds - better > IN_QUESTION)
            better[asked] = np.maximum(better[asked], self._gain(asked, every[explanations], base, dispersion))
        odds -= better
        odds += np.log(len(rows) / len(self))
        most = np.einsum("tbg,b->tg", rates, depths).max(axis=0)
        excess = (pooled - most) / np.sqrt(dispersion * (most + PRIOR_COUNTS))
        return Population(members, odds, excess, np.log2((pooled + PRIOR_COUNTS) / (most + PRIOR_COUNTS)))

    def _gain(self, cells: np.ndarray, every: np.ndarray, base: np.ndarray, dispersion: np.ndarray) -> np.ndarray:
        """What the best of these explanations has over `base`, for each of the cells."""
        gain = np.zeros(len(cells))
        for batch in np.unique(self.batches[cells]) if len(every) else ():
            here = self.batches[cells] == batch
            rows = cells[here]
            logs = np.log(every[:, batch] / base[batch]) / dispersion
            sums = ((every[:, batch] - base[batch]) / dispersion).sum(axis=1)
            gain[here] = (self.counts[rows] @ logs.T - self.depth[rows, None] * sums).max(axis=1)
        return gain

    def settle(self, cells: np.ndarray, *, min_cells: int, max_cells: float, rounds: int = 10) -> Population | None:
        """Let a group of cells take in all that its profile explains best, and let go of the others, until it rests.

        Parameters
        ----------
        cells
            Rows to begin with.
        min_cells, max_cells
            Size; None is returned of what ends outside, or goes far beyond on the way.
        rounds
            At most.
        """
        members = np.zeros(len(self), dtype=bool)
        members[cells] = True
        found = None
        for _ in range(rounds):
            if not 2 <= members.sum() <= 1.5 * max_cells:
                return None
            found = self.judge(members)
            if (found.odds > 0).tobytes() == members.tobytes():
                break
            members = found.odds > 0
        if found is None or not min_cells <= members.sum() <= max_cells:
            return None
        return replace(found, members=members)


def _log_fold(counts: np.ndarray, expected: np.ndarray, dispersion: np.ndarray) -> np.ndarray:
    prior = PRIOR_COUNTS * dispersion
    return np.log((counts + prior) / (np.maximum(expected, 0.0) + prior))


def _explained(
    counts: np.ndarray,
    depth: np.ndarray,
    base: np.ndarray,
    change: np.ndarray,
    dispersion: np.ndarray,
    fit: np.ndarray,
) -> np.ndarray:
    """``[cells]``, log odds of rates `base` times the exponential of `change` against `base` and all explanations."""
    own = (counts * np.log(base) / dispersion).sum(axis=1) - depth * (base / dispersion).sum(axis=1)
    gain = (counts * change / dispersion).sum(axis=1) - depth * (base * np.expm1(change) / dispersion).sum(axis=1)
    return gain - np.maximum(fit.max(axis=1) - own, 0.0)
