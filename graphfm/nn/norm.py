"""The one norm of the trunk."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class NodeNorm(nn.BatchNorm1d):
    r"""Scale and shift of each channel: by the nodes at hand while training, fixed at inference.

    .. math:: y_{ic} = \gamma_c (x_{ic} - \mu_c) / \sqrt{\sigma_c^2 + \epsilon} + \beta_c

    A fixed shift removes nothing that tells two nodes apart, and no node's state depends on which others are computed
    with it. Batch norm as in arXiv 1502.03167, but a single training node, which has no spread, is treated as at
    inference instead of refused.
    """

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Row by row at inference."""
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)
