"""Mini-batches of a graph: contiguous tiles of a locality order."""

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import reverse_cuthill_mckee
from torch import Tensor

from graphfm.nn.neighborhood import Neighborhood


def locality_order(neighborhood: Neighborhood) -> Tensor:
    """Order of the nodes in which neighbours stand close together (reverse Cuthill-McKee), ``[n]``.

    Source: Cuthill and McKee 1969; scipy's implementation, linear in the number of edges.
    """
    n = len(neighborhood)
    edge = (neighborhood.weight > 0).numpy()
    columns = neighborhood.index.numpy()[edge]
    pointer = np.concatenate([[0], np.cumsum(edge.sum(1))])
    pattern = sp.csr_matrix((np.ones(len(columns), dtype=np.int8), columns, pointer), shape=(n, n))
    return torch.from_numpy(reverse_cuthill_mckee(pattern, symmetric_mode=False).astype(np.int64))


def split_tiles(order: Tensor, tile_size: int) -> list[Tensor]:
    """Cut an order into tiles of `tile_size` nodes; the last one may be smaller.

    Raises
    ------
    ValueError
        `tile_size` below 1.
    """
    if tile_size < 1:
        raise ValueError(f"tile_size must be at least 1, got {tile_size}")
    return list(order.split(tile_size))


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
    tiles = split_tiles(order.roll(shift), tile_size)
    chosen = torch.randperm(len(tiles), generator=generator)
    for members in chosen.split(tiles_per_batch):
        yield torch.cat([tiles[i] for i in members.tolist()])
