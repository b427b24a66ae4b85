"""The one norm of the trunk, and how its fixed scale is measured."""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class NodeNorm(nn.BatchNorm1d):
    r"""Scale and shift of each channel: by the nodes at hand while training, fixed at inference.

    .. math:: y_{ic} = \gamma_c (x_{ic} - \mu_c) / \sqrt{\sigma_c^2 + \epsilon} + \beta_c

    A fixed shift removes nothing that tells two nodes apart, and no node's state depends on which others are computed
    with it. Batch norm as in arXiv 1502.03167, but a single training node, which has no spread, is treated as at
    inference instead of refused. After training with dropout, `calibrate` measures what is fixed.
    """

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Row by row at inference."""
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


@torch.no_grad()
def calibrate(module: nn.Module, passes: Iterable[Callable[[], object]]) -> None:
    """Measure the statistics of all batch norms anew, as they are at inference.

    What a batch norm gathers while training was measured under dropout and lags behind the weights. Each layer of a
    deep stack then gets inputs of another spread than the one it divides by, and the errors add up (arXiv 1801.05134).
    Here all is as at inference but that the batch norms look at their batch.

    Parameters
    ----------
    module
        A network; all but the statistics is left as it was.
    passes
        Each computes the network on one batch. One that holds all nodes gives the exact statistics, several their mean.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d) and m.track_running_stats]
    if not norms:
        return
    modes = [(part, part.training) for part in module.modules()]
    momenta = [norm.momentum for norm in norms]
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
        norm.momentum = None  # the plain mean over the passes
    try:
        for compute in passes:
            compute()
    finally:
        for part, training in modes:
            part.training = training
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
