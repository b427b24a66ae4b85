"""What an edge adds to the attention scores: its relation and its length."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from graphfm.nn.neighborhood import RELATIONS


class EdgeBias(nn.Module):
    r"""Bias per head from relation and distance.

    .. math:: b_{ij} = u_{R(ij)} + \sum_c w_{R(ij),c} \exp\big(-(d_{ij} - \mu_c)^2 / (2\sigma^2)\big)

    Only the length of an edge enters, so rotating or shifting a tissue changes nothing.

    Parameters
    ----------
    heads
        Attention heads.
    num_centers
        Radial basis functions, evenly over 0 to 3 mean edge lengths.
    """

    def __init__(self, heads: int, num_centers: int = 8) -> None:
        super().__init__()
        self.relation = nn.Embedding(len(RELATIONS), heads)
        self.distance = nn.Embedding(len(RELATIONS), num_centers * heads)
        self.heads = heads
        self.spacing = 3.0 / (num_centers - 1)
        self.register_buffer("centers", torch.linspace(0.0, 3.0, num_centers), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start without any bias."""
        nn.init.zeros_(self.relation.weight)
        nn.init.zeros_(self.distance.weight)

    def forward(self, relation: Int[Tensor, "n k"], distance: Float[Tensor, "n k"]) -> Float[Tensor, "n k heads"]:
        """Bias of each edge."""
        basis = torch.exp(-0.5 * ((distance.unsqueeze(-1) - self.centers) / self.spacing).square())
        bias = distance.new_zeros(*distance.shape, self.heads)
        # one small product a relation, instead of gathering a matrix of weights for every edge; counted rather than
        # sorted, which waits for other threads at every step
        for r in torch.bincount(relation.flatten(), minlength=len(RELATIONS)).nonzero().flatten().tolist():
            weight = self.distance.weight[r].view(-1, self.heads)
            edge = (relation == r).unsqueeze(-1)
            bias = bias + edge * (self.relation.weight[r] + (distance > 0).unsqueeze(-1) * (basis @ weight))
        return bias
