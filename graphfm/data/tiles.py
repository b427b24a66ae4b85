"""Pieces of a graph that are small enough to work on: contiguous tiles of a locality order."""

import math
from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import reverse_cuthill_mckee
from torch import Tensor

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

    n = len(neighborhood)
    index = neighborhood.index.numpy(force=True)
    edge = (neighborhood.weight > 0).numpy(force=True) & (index != np.arange(n)[:, None])
    columns = index[edge]
    pointer = np.concatenate([[0], np.cumsum(edge.sum(1))])
    pattern = sp.csr_matrix((np.ones(len(columns), dtype=np.int8), columns, pointer), shape=(n, n))
    pattern = pattern.maximum(pattern.T).tocsr()
    order = reverse_cuthill_mckee(pattern, symmetric_mode=True).astype(np.int64)
    if n > tile_size and pattern.nnz:
        options = pymetis.Options(seed=0)
        cut = pymetis.part_graph(math.ceil(n / tile_size), xadj=pattern.indptr, adjncy=pattern.indices, options=options)
        order = order[np.argsort(np.asarray(cut[1])[order], kind="stable")]
    return torch.from_numpy(order)


def epoch_batches(order: Tensor, *, tile_size: int, tiles_per_batch: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """Random unions of tiles that cover each node once.

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
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    shift = int(torch.randint(len(order), (1,), generator=generator))
    tiles = order.roll(shift).split(tile_size)
    chosen = torch.randperm(len(tiles), generator=generator)
    for members in chosen.split(tiles_per_batch):
        yield torch.cat([tiles[i] for i in members.tolist()])
