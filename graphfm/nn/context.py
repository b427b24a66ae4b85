"""Which regulator stands out to a gene, and which gene to a regulator: scores of pairs that nothing was learned for."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from graphfm.nn.block import carry
from graphfm.nn.neighborhood import SparseRows

SCALES = (10, 30, 100)
"""Leading components that similarities are taken of: from programmes of many genes to single pairs."""
N_NEIGHBORS = 10
CHUNK = 2048


def context_likelihood(
    profiles: Float[Tensor, "g p"],
    rows: Int[Tensor, "r"],
    columns: Int[Tensor, "c"],
    *,
    scales: tuple[int, ...] = SCALES,
    chunk: int = CHUNK,
) -> Iterator[Float[Tensor, "n c"]]:
    r"""How far pairs of genes stand out from what is usual for either, a block of rows at a time.

    .. math:: c_{ij} = \sum_k \sqrt{\max(0, z^{(k)}_{ij})^2 + \max(0, z^{(k)}_{ji})^2}

    where :math:`z^{(k)}_{ij}` is the standard score of :math:`|\cos(h_i, h_j)|`, taken of the first :math:`k`
    components, among all pairs of :math:`i` with `columns`, and :math:`z^{(k)}_{ji}` among all of :math:`j` with
    `rows`. A gene with itself does not count and gets 0. Hubs thus need more than others.

    Parameters
    ----------
    profiles
        Genes by components, leading ones first; a gene of zeros stands out to nobody.
    rows, columns
        Which genes, each once.
    scales
        The numbers of components :math:`k`; those beyond `p` stand for all.
    chunk
        Rows of a block; nothing but memory depends on it.

    References
    ----------
    Faith et al. 2007, doi:10.1371/journal.pbio.0050008: of mutual information, and of one scale.
    """
    parts = []
    for width in sorted({min(scale, profiles.shape[1]) for scale in scales}):
        h = F.normalize(profiles[:, :width], dim=1)
        parts.append((h, _usual(h, rows, columns, chunk), _usual(h, columns, rows, chunk)))
    for start in range(0, len(rows), chunk):
        some = slice(start, start + chunk)
        total = profiles.new_zeros(len(rows[some]), len(columns))
        for h, (mean, spread), (mean_of_column, spread_of_column) in parts:
            similarity = _similarity(h, rows[some], columns)
            of_row = ((similarity - mean[some, None]) / spread[some, None]).clamp_(min=0)
            of_column = ((similarity - mean_of_column) / spread_of_column).clamp_(min=0)
            total += torch.hypot(of_row, of_column)
        yield total.masked_fill_(rows[some, None] == columns, 0)


def _similarity(h: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return (h[rows] @ h[columns].T).abs_()


def _usual(h: Tensor, rows: Tensor, columns: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """Mean and spread of each row's similarities with the columns but itself."""
    means, spreads = [], []
    for some in rows.split(chunk):
        itself = some[:, None] == columns
        similarity = _similarity(h, some, columns).masked_fill_(itself, 0)
        count = (len(columns) - itself.sum(1)).clamp(min=1)
        means.append(similarity.sum(1) / count)
        deviation = similarity.sub_(means[-1][:, None]).masked_fill_(itself, 0)
        spreads.append((deviation.square_().sum(1) / count).sqrt())
    spread = torch.cat(spreads)
    # where all are alike nothing stands out, whatever is left by rounding
    return torch.cat(means), torch.where(spread > 1e-6, spread, torch.inf)


def similar_genes(
    profiles: Float[Tensor, "g p"], *, n_neighbors: int = N_NEIGHBORS, scales: tuple[int, ...] = SCALES
) -> SparseRows:
    """Graph of the genes that stand out most to each other, symmetrically normalised.

    Parameters
    ----------
    profiles, scales
        See `context_likelihood`.
    n_neighbors
        Of a gene, before the edges of others to it are added. A gene that stands out to nobody is alone, and hears
        itself.
    """
    genes = torch.arange(len(profiles), device=profiles.device)
    count, pairs, weights, start = min(n_neighbors, len(genes) - 1), [], [], 0
    for block in context_likelihood(profiles, genes, genes, scales=scales):
        weight, column = block.topk(count, dim=1)
        row = genes[start : start + len(block), None].expand_as(column)
        kept = weight > 0
        pairs.append(torch.stack([row[kept], column[kept]]))
        weights.append(weight[kept])
        start += len(block)
    one_way, weight = torch.cat(pairs, dim=1), torch.cat(weights)
    both_ways = torch.cat([one_way, one_way.flip(0)], dim=1)
    place, first = torch.unique(both_ways[0] * len(genes) + both_ways[1], return_inverse=True)
    # the likelihood is symmetric: an edge that is found from both ends has one weight
    weight = weight.new_zeros(len(place)).index_copy_(0, first, weight.repeat(2))
    alone = genes[torch.bincount(place // len(genes), minlength=len(genes)) == 0]
    place, weight = (
        torch.cat([place, alone * (len(genes) + 1)]),
        torch.cat([weight, torch.ones_like(alone, dtype=weight.dtype)]),
    )
    row, column = place // len(genes), place % len(genes)
    degree = weight.new_zeros(len(genes)).index_add_(0, row, weight)
    weight = weight / (degree[row] * degree[column]).sqrt()
    return SparseRows.from_entries(row, column, weight, (len(genes), len(genes)), symmetric=True)


def context_scores(
    profiles: Float[Tensor, "g p"],
    regulators: Int[Tensor, "t"],
    *,
    scales: tuple[int, ...] = SCALES,
    n_neighbors: int = N_NEIGHBORS,
    anchor: float = 0.1,
    num_layers: int = 1,
    graph: SparseRows | None = None,
) -> Float[Tensor, "t g"]:
    r"""Score of every regulator with every gene, from expression alone.

    First state of a gene: its context likelihood with each regulator, as many channels as there are regulators. Genes
    then hear the genes that are most like them, by the trunk's anchored propagation: what regulates a gene's fellows
    may well regulate it.

    Parameters
    ----------
    profiles, scales
        See `context_likelihood`.
    regulators
        Rows of `profiles` that may regulate, ``[t]``.
    n_neighbors
        Similar genes a gene hears.
    anchor, num_layers
        Of the propagation; see `graphfm.nn.GraphBlock`.
    graph
        That of `similar_genes`, where it is known already; `n_neighbors` then has no effect.

    Returns
    -------
    Non-negative ``[t, g]``; 0 of a gene with itself.
    """
    genes = torch.arange(len(profiles), device=profiles.device)
    h0 = z = torch.cat(list(context_likelihood(profiles, genes, regulators, scales=scales)))
    if num_layers:
        graph = similar_genes(profiles, n_neighbors=n_neighbors, scales=scales) if graph is None else graph
        for _ in range(num_layers):
            z = carry(z, graph @ z, h0, anchor=anchor)
    return z.T.masked_fill(regulators[:, None] == genes, 0)
