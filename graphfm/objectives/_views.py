"""What objectives share: a batch with some of its neighbours, seen without some of its counts."""

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from graphfm.models.graphfm import GraphFM
from graphfm.models.inputs import CellGraph
from graphfm.nn.neighborhood import Neighborhood


def check_batch(halo: float, neighbor_share: float) -> None:
    """Raise a ValueError if settings of `batch_with_halo` or `drawn_cells` are out of range."""
    if halo < 0:
        raise ValueError(f"halo must not be negative, got {halo}")
    if not 0 <= neighbor_share <= 1:
        raise ValueError(f"neighbor_share must lie between 0 and 1, got {neighbor_share}")


def batch_with_halo(
    cells: CellGraph, core: Tensor, halo: float, generator: torch.Generator
) -> tuple[Tensor, Neighborhood]:
    """Cells of a batch, then at most `halo` of their neighbours from outside for each; the graph among all of them."""
    outside = cells.neighborhood.outside(core)
    outside = outside[torch.randperm(len(outside), generator=generator)[: int(halo * len(core))]]
    nodes = torch.cat([core, outside])
    return nodes, cells.neighborhood.induced(nodes)


def visible_stem(
    model: GraphFM, cells: CellGraph, nodes: Tensor, hidden: Tensor, placed: Tensor, mask_share: float
) -> Tensor:
    """First states of cells from what is not hidden, scaled up so that its expectation is that of all (dropout)."""
    x = cells.expression[nodes.numpy()]
    rows = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr))
    visible = ~hidden.numpy()[rows, x.indices]
    kept = sp.csr_matrix((x.data * visible / np.float32(1 - mask_share), x.indices, x.indptr), shape=x.shape)
    scores = CellGraph.product(kept, placed) - cells.center(placed)
    return cells.scale * scores


def drawn_cells(local: Neighborhood, neighbor_share: float, generator: torch.Generator) -> Tensor:
    """For each cell a neighbour drawn by weight, or itself: some of them, and those without neighbours."""
    own = torch.arange(len(local))
    drawn = torch.multinomial(local.weight + 1e-9 * (local.weight == 0), 1, generator=generator)
    neighbor = local.index.gather(1, drawn).squeeze(1)
    connected = local.weight.gather(1, drawn).squeeze(1) > 0
    outward = torch.rand(len(local), generator=generator) < neighbor_share
    return torch.where(outward & connected, neighbor, own)
