"""Pieces of a graph that are small enough to work on: contiguous tiles of a locality order."""

import math
from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import reverse_cuthill_mckee
from torch import Tensor

from graphfm.data.cell_groups import communities
from graphfm.nn.neighborhood import Neighborhood


def locality_order(neighborhood: Neighborhood, tile_size: int = 512) -> Tensor:
    """Order of the nodes in which neighbours stand close together, ``[n]``.

    The graph is cut into parts of about `tile_size` nodes with few edges between them, by METIS; within a part nodes go
    by reverse Cuthill-McKee. It needs no coordinates and serves every relation, or several at once. On tissue its tiles
    have as few neighbours outside as those of a space-filling curve, on expression as those of k-means.

    Parameters
    ----------
    neighborhood
        All edges; an edge counts in both directions.
    tile_size
        Nodes a part.

    References
    ----------
    Karypis and Kumar 1998, doi:10.1137/S1064827595287997; Cuthill and McKee 1969, doi:10.1145/800195.805928.
    """
    import pymetis

    n, pattern = len(neighborhood), _pattern(neighborhood)
    order = reverse_cuthill_mckee(pattern, symmetric_mode=True).astype(np.int64)
    if n > tile_size and pattern.nnz:
        options = pymetis.Options(seed=0)
        cut = pymetis.part_graph(math.ceil(n / tile_size), xadj=pattern.indptr, adjncy=pattern.indices, options=options)
        order = order[np.argsort(np.asarray(cut[1])[order], kind="stable")]
    return torch.from_numpy(order)


def _pattern(neighborhood: Neighborhood) -> sp.csr_matrix:
    """``[n, n]``, 1 where there is an edge in either direction, nodes with themselves left out."""
    n = len(neighborhood)
    index = neighborhood.index.numpy(force=True)
    edge = (neighborhood.weight > 0).numpy(force=True) & (index != np.arange(n)[:, None])
    columns = index[edge]
    pointer = np.concatenate([[0], np.cumsum(edge.sum(1))])
    pattern = sp.csr_matrix((np.ones(len(columns), dtype=np.int8), columns, pointer), shape=(n, n))
    return pattern.maximum(pattern.T).tocsr()


def rarity_weights(neighborhood: Neighborhood, exponent: float, tile_size: int) -> Tensor:
    """How often each node is wanted, ``[n]`` with mean 1: size of its community to the power of minus `exponent`.

    Communities are Leiden's of the graph itself, so that no labels are needed. One that is smaller than a tile counts
    as large as one, since a tile cannot hold less.

    Parameters
    ----------
    neighborhood
        All edges; an edge counts in both directions.
    exponent
        0: all alike; 1: all communities alike.
    tile_size
        Nodes a tile.
    """
    community = communities(_pattern(neighborhood), 1.0, seed=0)
    size = np.maximum(np.bincount(community), tile_size)[community]
    weight = (size / size.max()) ** -exponent
    return torch.from_numpy(weight / weight.mean())


def epoch_batches(
    order: Tensor, *, tile_size: int, tiles_per_batch: int, seed: int, epoch: int, weight: Tensor | None = None
) -> Iterator[Tensor]:
    """Random unions of tiles that cover each node once, or as often as it is wanted.

    The cut is shifted every epoch, so that no pair of neighbours is always apart, and everything follows from
    `seed` and `epoch` alone.

    Parameters
    ----------
    order
        Locality order of the nodes.
    tile_size
        Nodes a tile.
    tiles_per_batch
        Tiles a batch.
    seed, epoch
        Decide the cut and the unions.
    weight
        How often each node is wanted, ``[n]``. A tile comes as often as its nodes are wanted on average, rounded at
        random, and never twice in a batch.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    shift = int(torch.randint(len(order), (1,), generator=generator))
    tiles = order.roll(shift).split(tile_size)
    times = torch.ones(len(tiles))
    if weight is not None:
        wanted = torch.stack([weight[tile].mean() for tile in tiles])
        times = (wanted + torch.rand(len(tiles), generator=generator)).floor()
    for again in range(int(times.max())):
        left = torch.nonzero(times > again).ravel()
        chosen = left[torch.randperm(len(left), generator=generator)]
        for members in chosen.split(tiles_per_batch):
            yield torch.cat([tiles[i] for i in members.tolist()])
