"""Neighbour agreement: a cell and its neighbour, each seen in part, are told to be alike in every channel."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from graphfm.models.graphfm import GraphFM
from graphfm.models.inputs import CellGraph
from graphfm.objectives._views import batch_with_halo, check_batch, drawn_cells, visible_stem


@dataclass(frozen=True)
class NeighborAgreement:
    r"""What a reader tells of a cell, it tells of the cell's neighbours; and each of its channels tells something else.

    .. math:: \mathcal L = \sum_i (1 - C_{ii})^2 + \lambda \sum_{i \ne j} C_{ij}^2

    with the correlation :math:`C_{ij}`, over the cells of a batch, of channel :math:`i` of a cell's reader and channel
    :math:`j` of its neighbour's. Cell and neighbour come from two runs of the trunk, in which other counts were hidden:
    noise does not agree, states of a neighbourhood do. :math:`C_{ii}` is then much like Moran's I of a channel.

    Source: Zbontar et al., Barlow Twins, ICML 2021 (arXiv 2103.03230), with neighbours instead of distorted images and
    without a projector.

    Parameters
    ----------
    mask_share
        Share of the (cell, gene) entries that are hidden in each run.
    halo
        Neighbours from outside the batch that come along, at most, per cell of the batch; drawn at random.
    neighbor_share
        Share of the cells that are to agree with a random neighbour, the others with themselves.
    redundancy
        :math:`\lambda`, weight of what channels tell twice; None: one over their number, which makes both sums as
        large where nothing agrees and everything is told twice.
    """

    mask_share: float = 0.3
    halo: float = 2.0
    neighbor_share: float = 0.9
    redundancy: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.mask_share < 1:
            raise ValueError(f"mask_share must be from 0 to less than 1, got {self.mask_share}")
        check_batch(self.halo, self.neighbor_share)
        if self.redundancy is not None and self.redundancy < 0:
            raise ValueError(f"redundancy must not be negative, got {self.redundancy}")

    def __call__(
        self, model: GraphFM, cells: CellGraph, core: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss of a batch.

        Parameters
        ----------
        model
            The trunk.
        cells
            A data set.
        core
            Cells the loss is taken on, ``[n]``.
        generator
            Source of all randomness.

        Returns
        -------
        loss, diagnostics
            The loss; `diagnostics` has it beside that of the states before the first block (``null_loss``).
        """
        nodes, local = batch_with_halo(cells, core, self.halo, generator)
        partner = drawn_cells(local.part(0, len(core)), self.neighbor_share, generator)
        placed = model.place_genes(cells)
        first, read = [], []
        for _ in range(2):
            hidden = torch.rand(len(nodes), cells.expression.shape[1], generator=generator) < self.mask_share
            h0 = visible_stem(model, cells, nodes, hidden, placed, self.mask_share)
            first.append(h0)
            read.append(model(h0, local.to(h0.device))[:, model.config.dim :])
        loss = self.disagreement(read[0][: len(core)], read[1][partner])
        with torch.no_grad():
            null = self.disagreement(first[0][: len(core)], first[1][partner])
        return loss, {"loss": float(loss.detach()), "null_loss": float(null)}

    def disagreement(self, a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
        """The loss of states of cells and of their partners; constant channels correlate with nothing."""
        dim = a.shape[1]
        a, b = ((x - x.mean(0)) / x.var(0, correction=0).add(1e-12).sqrt() for x in (a, b))
        correlation = a.T @ b / len(a)
        same = torch.diagonal(correlation)
        redundancy = 1 / dim if self.redundancy is None else self.redundancy
        return (1 - same).square().sum() + redundancy * (correlation.square().sum() - same.square().sum())
