"""Rare populations: which cells, how sure, by what marked, and from which size on they can be seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from tqdm import tqdm

from graphfm import _keys, io
from graphfm._checks import check_column, check_device, check_unique_genes
from graphfm.data.cell_groups import (
    abundant_types,
    balanced_graph,
    deal_within,
    group_numbers,
    largest_rare,
    order_of_names,
    residual_components,
    small_groups,
)
from graphfm.genes import Organism, align_what_is_known
from graphfm.io.files import writable
from graphfm.io.matrix import Kind, as_dense, log_normalize, stack, stored_values
from graphfm.memory import announced
from graphfm.models.background import Background, Population
from graphfm.models.graphfm import GraphFM
from graphfm.pp.search import nearest
from graphfm.tl.embedding import embed

MAX_FRACTION = 0.1
MIN_CELLS = 5
LEAST_CELLS = 50
N_TYPE_NEIGHBORS, N_NEIGHBORS = 15, 10
"""Neighbours in the graph that types are cut from, and in those of candidates."""
MIN_DISTINCTNESS, MIN_SEPARATION, MIN_MARKERS, MIN_STABILITY = 0.4, 0.6, 5, 0.7
MIN_YARDSTICK = 25.0
"""Log odds: types that are nearer to each other are parts of one, and no measure."""
TESTED_GROUPS, TESTED_BALLS, TESTED_CELLS = 3000, 300, 500
"""Most communities, and most cells with their neighbours, that are looked at; most cells of each that are asked."""
SETTLED_GROUPS = 300
"""Most communities that may take in cells."""
SAME, OVERLAP = 0.8, 0.3
"""Share of its cells in a population that has settled, above which a candidate is left out, or a population dropped."""
TAKEN = 0.15
"""Share of the counts of an abundant type that may be those of a rare population which was taken for the type."""
UNSETTLED = 0.1
"""Weight, in the score, of what a group says of its cells before it has shown how separate it is."""
COLUMNS = (
    "population",
    "size",
    "fraction",
    "distinctness",
    "separation",
    "stability",
    "fdr",
    "num_markers",
    "markers",
    "nearest",
    "batches",
)


def find_rare(
    adata: AnnData,
    *,
    batch_key: str | None = None,
    max_fraction: float = MAX_FRACTION,
    min_cells: int = MIN_CELLS,
    model: GraphFM | str | Path | None = None,
    use_rep: str | None = None,
    layer: str | None = None,
    kind: Kind = "counts",
    organism: Organism = "auto",
    n_shuffles: int = 1,
    n_resamples: int = 10,
    key_added: str = "rare",
    seed: int = 0,
    device: str = "cpu",
    copy: bool = False,
) -> AnnData | None:
    """Find small populations of cells that no abundant type, and no doublet of two, explains.

    1. The graph of the trunk's embedding, balanced over batches, is cut into abundant types.
    2. What types leave unexplained is gathered in a second graph, of neighbours that share neighbours; its small
       communities, and those of the first graph, are candidates (`graphfm.data.cell_groups`).
    3. Each candidate takes in the cells that its profile explains better than every abundant type and every doublet
       does, batch by batch, until it rests (`graphfm.models.background`).
    4. It is called rare if it is an island (``separation``), at least 0.4 times as far from the abundant types as
       most of those are from each other (``distinctness``), has 5 genes above every abundant type, and comes back
       when cells are left out (``stability``). The same settings serve every data set.

    Parameters
    ----------
    adata
        Cells x genes (or a SpatialData or MuData with one table).
    batch_key
        Column of ``obs``: samples, donors, runs. A cell is then compared with its own batch only.
    max_fraction
        Largest share of the cells that is rare (two standard deviations of a draw on top).
    min_cells
        Least size of a population.
    model
        A model, or the path of one; default: the weights in the package.
    use_rep
        Key in ``obsm`` of a representation to take instead of the model's embedding.
    layer, kind
        Where the expression is, and what it is: see `graphfm.io.expression`.
    organism
        See `graphfm.genes.align_genes`; where the vocabulary knows none of the genes, ``"other"`` is taken.
    n_shuffles
        Copies of the data in which each gene's values are dealt to other cells of the same type, batch and depth, and
        in which, therefore, nothing is rare: what is found there gives ``fdr``. Each costs one more run; 0 leaves it
        out.
    n_resamples
        Draws of 80 % of the cells for ``stability``.
    key_added
        Prefix of the results.
    seed
        Random state.
    device
        Where the model computes.
    copy
        Return a changed copy instead of writing to `adata`.

    Returns
    -------
    None, or the copy. Written, with ``key_added="rare"``:

    - ``obs["rare_population"]``: categorical, ``"rare 1"`` the most distinct; missing for all other cells;
    - ``obs["rare_score"]``: the log odds that the cell belongs to a small group rather than to anything abundant, times
      the group's ``separation`` (0.1 where it has not settled); the highest over all groups, called or not, 0 at
      least;
    - ``obs["rare_background"]``: categorical, the abundant type that the cell was counted to;
    - ``uns["rare"]``: DataFrame, a row a population: ``population``, ``size``, ``fraction``, ``distinctness``,
      ``separation`` (share of clear members among all cells that might belong), ``stability`` (mean Jaccard index
      with what comes back of half of its cells among 80 % of all), ``fdr`` (populations as distinct in a shuffled
      copy, over those in the data; the model embeds the copy even if `use_rep` is given), ``num_markers``,
      ``markers`` (the five genes most above every abundant type, comma-separated), ``nearest`` (abundant type most of
      the cells were counted to), ``batches`` (how many it is in);
    - ``uns["rare_params"]``: parameters, and ``largest``, the most cells of a population that could be called.

    Raises
    ------
    ValueError
        Names of genes are not unique, cells without a batch, fewer than 50 cells, fewer than 2 genes that vary, or an
        argument out of range.
    KeyError
        `batch_key`, `use_rep` or `layer` does not exist.

    Examples
    --------
    >>> import graphfm
    >>> adata = graphfm.datasets.toy(num_cells=1000, num_genes=200, rare_fraction=0.02)
    >>> graphfm.tl.find_rare(adata)
    >>> adata.uns["rare"]["size"].tolist()
    [20]
    """
    adata = io.as_anndata(adata)
    _check(adata, batch_key, use_rep, max_fraction, min_cells, n_shuffles, n_resamples)
    check_device(device)
    check_unique_genes(adata)
    adata = writable(adata, copy=copy)
    order = order_of_names(adata.obs)
    search = _Search(
        _Embedding(model, organism, device),
        adata.var,
        group_numbers(adata.obs, batch_key)[order],
        min_cells=min_cells,
        max_fraction=max_fraction,
        seed=seed,
    )
    # counts, their logarithms and squares, residuals and what the graphs take
    with announced(f"looking for rare cells among {adata.n_obs:,}", 80 * stored_values(adata, layer=layer)):
        target = io.typical_sum(adata, layer=layer, kind=kind)
        counts, logged = _matrices(adata, layer, kind, order, target)
        found = search(counts, logged, None if use_rep is None else as_dense(adata.obsm[use_rep])[order])
        called = _called(found, search, n_resamples)
        null: list[float] = []
        for number in range(n_shuffles):
            dealt = deal_within(counts, found.background.groups, found.background.depth, seed=seed + number)
            again = search(dealt, log_normalize(dealt, target))
            # these are not resampled, so that the estimate errs on the high side
            null += [again.distinctness(population) for population in _islands(again)]
    _write(adata, found, called, np.argsort(order), np.array(null), n_shuffles, key_added)
    adata.uns[f"{key_added}_params"] = {
        "batch_key": batch_key or "",
        "max_fraction": max_fraction,
        "min_cells": min_cells,
        "largest": int(search.max_cells),
        "use_rep": use_rep or "",
        "layer": layer or "X",
        "kind": kind,
        "organism": organism,
        "n_shuffles": n_shuffles,
        "n_resamples": n_resamples,
        "seed": seed,
    }
    return adata if copy else None


def rare_limit(
    adata: AnnData,
    *,
    sizes: Sequence[int] = (5, 10, 20, 40),
    n_draws: int = 1,
    model: GraphFM | str | Path | None = None,
    key: str = "rare",
    device: str = "cpu",
) -> None:
    """From which size on a population as distinct as your abundant types would be found in your data.

    Each abundant type in turn is taken out of the data, but for a few of its cells, and looked for. What is less
    distinct than an abundant type has a higher limit. Takes a run of `find_rare` for each type, size and draw.

    Parameters
    ----------
    adata
        With the results of `find_rare`, whose settings are taken.
    sizes
        Numbers of cells that are left.
    n_draws
        Draws of these cells.
    model
        As for `find_rare`.
    key
        Its ``key_added``.
    device
        Where the model computes.

    Returns
    -------
    None. Written:

    - ``uns["rare_limit"]``: DataFrame: ``type`` (of ``obs["rare_background"]``), ``size``, ``fraction`` of the cells
      then, ``draw``, ``f1`` of the called population that matches best, 0 where none was called;
    - ``uns["rare_params"]["limit"]``: smallest size from which on at least 80 % of types and draws are found with an F1
      of 0.5 or more; 0 if there is none.

    Raises
    ------
    KeyError
        `find_rare` was not run with that key.
    ValueError
        A size is below ``min_cells``.
    """
    adata = io.as_anndata(adata)
    params = adata.uns.get(f"{key}_params")
    if params is None or f"{key}_background" not in adata.obs:
        raise KeyError(f"adata.uns has no {key}_params (found: {sorted(adata.uns)}). Run graphfm.tl.find_rare(adata).")
    if not len(sizes) or min(sizes) < params["min_cells"]:
        raise ValueError(f"sizes={list(sizes)}: pass numbers of at least min_cells={params['min_cells']}.")
    order = order_of_names(adata.obs)
    counts, logged = _matrices(adata, None if params["layer"] == "X" else params["layer"], params["kind"], order)
    types = adata.obs[f"{key}_background"].astype(str).to_numpy()[order]
    batches = group_numbers(adata.obs, params["batch_key"] or None)[order]
    own = as_dense(adata.obsm[params["use_rep"]])[order] if params["use_rep"] else None
    embedding = _Embedding(model, str(params["organism"]), device)
    rows = []
    tasks = [(name, size, draw) for name in np.unique(types) for size in sizes for draw in range(n_draws)]
    for name, size, draw in tqdm(tasks, desc="types left out"):
        rng = np.random.default_rng((int(params["seed"]), draw, size))
        left = rng.permutation(np.flatnonzero(types == name))[:size]
        cells = np.sort(np.concatenate([np.flatnonzero(types != name), left]))
        search = _Search(
            embedding,
            adata.var,
            np.unique(batches[cells], return_inverse=True)[1],
            min_cells=int(params["min_cells"]),
            max_fraction=float(params["max_fraction"]),
            seed=int(params["seed"]),
        )
        found = search(counts[cells], logged[cells], None if own is None else own[cells])
        truth = np.isin(cells, left)
        called = _called(found, search, int(params["n_resamples"]))
        matches = [2 * (p.members & truth).sum() / (p.size + len(left)) for p, _ in called]
        rows.append((name, len(left), len(left) / len(cells), draw, float(max(matches, default=0.0))))
    table = pd.DataFrame(rows, columns=["type", "size", "fraction", "draw", "f1"])
    seen = (table["f1"] >= 0.5).groupby(table["size"]).mean() >= 0.8
    unseen = seen.index[~seen]
    good = [size for size in seen.index if len(unseen) == 0 or size > unseen.max()]
    adata.uns[f"{key}_limit"] = table
    adata.uns[f"{key}_params"]["limit"] = int(min(good, default=0))


def _matrices(
    adata: AnnData, layer: str | None, kind: str, order: np.ndarray, target_sum: float | None = None
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Counts, or what is proportional to them, and log-normalised expression, of the cells in this order."""
    parts = zip(*io.row_chunks(adata, layer=layer, kind=kind, target_sum=target_sum), strict=True)
    counts, logged = (stack(list(part))[order] for part in parts)
    return counts.expm1() if kind == "log1p" else counts, logged


@dataclass(frozen=True)
class _Embedding:
    """The trunk's, with a graph of nearest neighbours alone."""

    model: GraphFM | str | Path | None
    organism: str
    device: str

    @cached_property
    def trunk(self) -> GraphFM:
        """Read once, for all copies of the data."""
        return self.model if isinstance(self.model, GraphFM) else GraphFM.from_pretrained(self.model)

    def __call__(self, logged: sp.csr_matrix, var: pd.DataFrame) -> np.ndarray:
        shell = AnnData(logged, obs=pd.DataFrame(index=np.arange(logged.shape[0]).astype(str)), var=var.copy())
        align_what_is_known(shell, organism=self.organism)
        embed(shell, self.trunk, kind="log1p", weigh=False, device=self.device)
        return np.asarray(shell.obsm[_keys.X_GRAPHFM], dtype=np.float64)


@dataclass(frozen=True)
class _Found:
    """What a search came to."""

    background: Background
    populations: list[Population]
    names: np.ndarray
    score: np.ndarray
    yardstick: float

    def distinctness(self, population: Population) -> float:
        """Typical log odds of the members, in units of what tells abundant types apart."""
        return population.typical_odds / self.yardstick


@dataclass(frozen=True)
class _Search:
    """From counts to populations that have settled."""

    embedding: _Embedding
    var: pd.DataFrame
    batches: np.ndarray
    min_cells: int
    max_fraction: float
    seed: int

    @property
    def max_cells(self) -> float:
        """Largest size."""
        return largest_rare(len(self.batches), self.max_fraction)

    def __call__(self, counts: sp.csr_matrix, logged: sp.csr_matrix, values: np.ndarray | None = None) -> _Found:
        n = counts.shape[0]
        seen = np.flatnonzero(counts.getnnz(axis=0) >= self.min_cells)
        values = self.embedding(logged, self.var) if values is None else values
        graph = balanced_graph(values, self.batches, N_TYPE_NEIGHBORS, self.seed)
        background = Background(counts[:, seen], abundant_types(graph, self.max_cells, self.seed), self.batches)
        residual = residual_components(logged[:, seen][:, background.genes], background.groups, seed=self.seed)
        yardstick = _yardstick(background)
        score, populations = np.zeros(n), []
        for cells in self._candidates(background, (residual, values), yardstick, score):
            if any(p.members[cells].mean() > SAME for p in populations):
                continue
            population = background.settle(cells, min_cells=self.min_cells, max_cells=self.max_cells)
            if population is not None:
                populations.append(population)
                np.maximum(score, population.separation * population.odds, out=score)
        names = self.var.index.to_numpy(dtype=str)[seen][background.genes]
        return _Found(background, populations, names, score, yardstick)

    def _candidates(
        self, background: Background, spaces: tuple[np.ndarray, ...], yardstick: float, score: np.ndarray
    ) -> list[np.ndarray]:
        """Communities whose members vouch for each other, the surest first, and cells with neighbours that do.

        How much they do goes to `score`.
        """
        closed = {}
        near = [nearest(space, N_NEIGHBORS, seed=self.seed) for space in spaces]
        for indices in near:
            bounds = {"min_cells": self.min_cells, "max_cells": 1.2 * self.max_cells}
            closed |= {
                rows.tobytes(): (closure, rows) for closure, rows in small_groups(indices, **bounds, seed=self.seed)
            }
        groups = [cells for _, cells in sorted(closed.values(), key=lambda group: -group[0])[:TESTED_GROUPS]]
        # communities are too coarse for what has hardly more cells than a cell has neighbours
        few = near[0][:, : self.min_cells]
        balls = [np.append(few[cell], cell) for cell in np.argsort(-background.vouched(few))[:TESTED_BALLS]]
        least = MIN_DISTINCTNESS / 4 * yardstick
        surest = sorted(_vouching(background, groups, least, score), key=lambda group: -group[0])[:SETTLED_GROUPS]
        return [cells for _, cells in surest + _vouching(background, balls, least, score)]


def _vouching(
    background: Background, groups: list[np.ndarray], least: float, score: np.ndarray
) -> list[tuple[float, np.ndarray]]:
    """The groups whose members have typical odds above `least` by each other, and these odds."""
    vouching, depth = [], background.depth
    of_type = np.bincount(background.types, depth)
    for cells in tqdm(groups, desc="small groups", disable=len(score) < 20_000):
        asked = cells[:: -(-len(cells) // TESTED_CELLS)]
        odds = background.agreement(asked)
        # a group that makes up much of what was taken for a type cannot be told from it before it is taken out
        much = (np.bincount(background.types[cells], depth[cells], len(of_type)) > TAKEN * of_type).any()
        score[asked] = np.maximum(score[asked], UNSETTLED * odds)
        if much or np.median(odds) > least:
            vouching.append((np.median(odds), cells))
    return vouching


def _yardstick(background: Background) -> float:
    """The log odds by which three quarters of the abundant types, at most, are told from the type nearest to them.

    A type that was cut in two has its other half near; as long as most were not, that does not show.
    """
    if background.num_types == 1:
        return MIN_YARDSTICK
    return float(max(MIN_YARDSTICK, np.quantile(background.distances().min(axis=1), 0.75)))


def _islands(found: _Found) -> list[Population]:
    """Populations that are distinct, separate and marked, the most distinct first.

    Of two that overlap, that with the larger median of odds times square root of size: a part of a population may be
    a little more distinct than the whole, many cells that little sets apart must not hide a few that much does.
    """

    def weight(population: Population) -> float:
        return population.typical_odds * population.size**0.5

    kept: list[Population] = []
    for population in sorted(found.populations, key=weight, reverse=True):
        clear = (
            found.distinctness(population) >= MIN_DISTINCTNESS
            and population.separation >= MIN_SEPARATION
            and population.num_markers >= MIN_MARKERS
        )
        if clear and not any((population.members & other.members).sum() > OVERLAP * population.size for other in kept):
            kept.append(population)
    return sorted(kept, key=found.distinctness, reverse=True)


def _called(found: _Found, search: _Search, n_resamples: int) -> list[tuple[Population, float]]:
    """Islands that come back when cells are left out, and how well."""
    islands = _islands(found)
    if n_resamples == 0 or not islands:
        return [(population, float("nan")) for population in islands]
    numbers = tqdm(range(n_resamples), desc="resampling", disable=len(search.batches) < 20_000)
    agreement = zip(*(_agreement(islands, found.background, search, number) for number in numbers), strict=True)
    called = [(population, float(np.mean(each))) for population, each in zip(islands, agreement, strict=True)]
    return [(population, stability) for population, stability in called if stability >= MIN_STABILITY]


def _agreement(islands: list[Population], background: Background, search: _Search, number: int) -> list[float]:
    """Jaccard index of each population with what settles from half of its cells among 80 % of all."""
    rng = np.random.default_rng((search.seed, number))
    rows = np.sort(rng.choice(len(background), round(0.8 * len(background)), replace=False))
    part, state, agreement = background.subset(rows), rng.bit_generator.state, []
    for population in islands:
        rng.bit_generator.state = state  # what is drawn for one does not depend on the others
        there = population.members[rows]
        start = rng.permutation(np.flatnonzero(there))[: max(2, (there.sum() + 1) // 2)]
        again = part.settle(start, min_cells=2, max_cells=search.max_cells)
        both = 0 if again is None else (again.members & there).sum()
        agreement.append(0.0 if again is None else both / (again.members | there).sum())
    return agreement


def _write(
    adata: AnnData,
    found: _Found,
    called: list[tuple[Population, float]],
    place: np.ndarray,
    null: np.ndarray,
    shuffles: int,
    key: str,
) -> None:
    """Results of cells each of which is at its `place` in the search."""
    genes = found.names
    rows, codes = [], np.full(adata.n_obs, -1)
    for number, (population, stability) in enumerate(called, start=1):
        distinctness = found.distinctness(population)
        at_least = sum(found.distinctness(other) >= distinctness for other, _ in called)
        marks = population.marked[np.argsort(-population.excess[population.marked])]
        labelled = population.members & (codes < 0)
        codes[labelled] = number - 1
        rows.append(
            {
                "population": f"rare {number}",
                "size": int(labelled.sum()),
                "fraction": labelled.mean(),
                "distinctness": distinctness,
                "separation": population.separation,
                "stability": stability,
                "fdr": min(1.0, (null >= distinctness).sum() / shuffles / at_least) if shuffles else np.nan,
                "num_markers": len(marks),
                "markers": ", ".join(genes[marks[:5]]),
                "nearest": str(np.bincount(found.background.types[population.members]).argmax()),
                "batches": len(np.unique(found.background.batches[population.members])),
            }
        )
    adata.uns[key] = pd.DataFrame(rows, columns=COLUMNS)
    names = [row["population"] for row in rows]
    adata.obs[f"{key}_population"] = pd.Categorical.from_codes(codes[place], categories=pd.Index(names, dtype=object))
    adata.obs[f"{key}_score"] = found.score[place]
    adata.obs[f"{key}_background"] = pd.Categorical(found.background.types[place].astype(str))


def _check(
    adata: AnnData,
    batch_key: str | None,
    use_rep: str | None,
    max_fraction: float,
    min_cells: int,
    n_shuffles: int,
    n_resamples: int,
) -> None:
    if adata.n_obs < LEAST_CELLS:
        raise ValueError(
            f"adata has {adata.n_obs} cells: at least {LEAST_CELLS} are needed to tell rare from abundant."
        )
    if batch_key is not None:
        check_column(adata.obs, batch_key, "batch_key", complete=True)
    if use_rep is not None and use_rep not in adata.obsm:
        raise KeyError(f"adata.obsm has no {use_rep!r} (found: {list(adata.obsm)}). Compute it, or leave out use_rep=.")
    if use_rep is not None and not np.isfinite(as_dense(adata.obsm[use_rep])).all():
        raise ValueError(f"use_rep={use_rep!r}: adata.obsm has NaN or infinite values there. Remove those cells first.")
    if not 0 < max_fraction <= 0.25:
        raise ValueError(f"max_fraction={max_fraction} must be above 0 and at most 0.25.")
    if min_cells < 3:
        raise ValueError(f"min_cells={min_cells} must be at least 3: fewer cells are no population.")
    for name, value in (("n_shuffles", n_shuffles), ("n_resamples", n_resamples)):
        if value < 0:
            raise ValueError(f"{name}={value} must not be negative.")
