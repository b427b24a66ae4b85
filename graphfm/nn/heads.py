"""Output heads."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class NegativeBinomialHead(nn.Module):
    r"""Expected counts of genes in cells, with a negative binomial likelihood.

    .. math:: \log \mu_{ig} = \log n_i + \log f_g + \alpha\,(W h_i) \cdot M_g, \qquad
              \log \theta_g = c_0 + c_1 \log f_g

    :math:`n_i` is the number of counts seen in the cell, :math:`f_g` the gene's share of all counts,
    :math:`M_g` the gene placed in the common space. :math:`W` starts as the identity, so an untrained head
    reconstructs from principal components: the first `dim` channels of a state.

    Parameters
    ----------
    in_channels
        Width of the states.
    dim
        Dimension of the common space.
    """

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(in_channels, dim, bias=False)
        self.log_alpha = nn.Parameter(torch.zeros(()))
        self.dispersion = nn.Parameter(torch.tensor([1.0, 0.0]))
        nn.init.eye_(self.project.weight)

    def forward(
        self,
        h: Float[Tensor, "n c"],
        placed: Float[Tensor, "genes d"],
        log_share: Float[Tensor, "genes"],
        log_size: Float[Tensor, "n"],
    ) -> tuple[Float[Tensor, "n genes"], Float[Tensor, "genes"]]:
        """Log of the expected counts, log of the inverse dispersion."""
        deviation = self.log_alpha.exp() * self.project(h) @ placed.T
        # a bounded deviation: no cell is predicted at more than e^6 times the gene's mean
        log_mean = log_size.unsqueeze(-1) + log_share + 6 * torch.tanh(deviation / 6)
        return log_mean, self.dispersion[0] + self.dispersion[1] * log_share


def negative_binomial_nll(
    counts: Float[Tensor, "n genes"], log_mean: Float[Tensor, "n genes"], log_theta: Float[Tensor, "genes"]
) -> Float[Tensor, "n genes"]:
    r"""Negative log-likelihood of counts, elementwise.

    .. math:: -\log \frac{\Gamma(y+\theta)}{\Gamma(\theta)\,y!}
              \Big(\frac{\theta}{\theta+\mu}\Big)^\theta \Big(\frac{\mu}{\theta+\mu}\Big)^y
    """
    theta = log_theta.exp()
    log_total = torch.logaddexp(log_theta, log_mean)
    zero = -theta * (log_theta - log_total)
    binomial = torch.lgamma(counts + theta) - torch.lgamma(theta) - torch.lgamma(counts + 1)
    return zero - torch.where(counts > 0, binomial + counts * (log_mean - log_total), torch.zeros_like(counts))
