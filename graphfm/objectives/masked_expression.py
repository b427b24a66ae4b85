"""Masked expression: hide counts of every cell, predict them from what the cell and its neighbours still show."""

from dataclasses import dataclass

import torch
from torch import Tensor

from graphfm.models.graphfm import GraphFM
from graphfm.models.inputs import CellGraph
from graphfm.nn.heads import negative_binomial_nll
from graphfm.objectives._views import batch_with_halo, check_batch, drawn_cells, visible_stem


@dataclass(frozen=True)
class MaskedExpression:
    """Negative binomial loss on hidden entries of a batch of cells.

    Some of the cells' direct neighbours come along (masked too), and the whole trunk runs on the graph among them. The
    cell graph itself was built from the unmasked data, so neighbours carry some of what is hidden: the loss
    measures denoising by the graph, not prediction of unseen cells.

    Parameters
    ----------
    mask_share
        Share of the (cell, gene) entries that are hidden, zeros as well as counts.
    genes_per_step
        Genes predicted in a step, drawn at random.
    halo
        Neighbours from outside the batch that come along, at most, per cell of the batch; drawn at random.
    neighbor_share
        Share of the cells that predict hidden counts of a random neighbour instead of their own. A cell's own
        sampling noise tells nothing about its neighbour, so this asks for the state of the neighbourhood.
    """

    mask_share: float = 0.3
    genes_per_step: int = 512
    halo: float = 2.0
    neighbor_share: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.mask_share < 1:
            raise ValueError(f"mask_share must lie between 0 and 1, got {self.mask_share}")
        check_batch(self.halo, self.neighbor_share)
        if self.genes_per_step < 1:
            raise ValueError(f"genes_per_step must be at least 1, got {self.genes_per_step}")

    def __call__(
        self, model: GraphFM, cells: CellGraph, core: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss of a batch.

        Parameters
        ----------
        model
            The trunk.
        cells
            A data set with counts.
        core
            Cells the loss is taken on, ``[n]``.
        generator
            Source of all randomness.

        Returns
        -------
        loss, diagnostics
            Mean loss of a hidden entry; `diagnostics` has it beside that of each gene's mean and dispersion over the
            data set, which know nothing of the cell but its size (``null_loss``).
        """
        nodes, local = batch_with_halo(cells, core, self.halo, generator)
        counts = cells.counts[nodes.numpy()]
        num_genes = counts.shape[1]
        hidden = torch.rand(len(nodes), num_genes, generator=generator) < self.mask_share

        placed = model.place_genes(cells)
        device = placed.device
        h0 = visible_stem(model, cells, nodes, hidden, placed, self.mask_share)
        h = model(h0, local.to(device))[: len(core)]

        genes = torch.randperm(num_genes, generator=generator)[: self.genes_per_step]
        predicted = drawn_cells(local.part(0, len(core)), self.neighbor_share, generator)
        target = torch.from_numpy(counts[predicted.numpy()][:, genes.numpy()].toarray()).to(device)
        log_size = cells.totals[nodes[predicted]].clamp(min=1).log().to(device)
        log_share = cells.log_share[genes].to(device)
        weight = hidden[predicted][:, genes].to(device)
        log_mean, log_theta = model.expression_head(h, placed[genes] / cells.scale, log_share, log_size)
        loss = (negative_binomial_nll(target, log_mean, log_theta) * weight).sum() / weight.sum().clamp(min=1)
        with torch.no_grad():
            flat = log_size.unsqueeze(-1) + log_share
            spread = cells.log_inverse_dispersion[genes].to(device)
            null = (negative_binomial_nll(target, flat, spread) * weight).sum() / weight.sum().clamp(min=1)
        return loss, {"loss": float(loss.detach()), "null_loss": float(null)}
