"""One layer of the trunk: an anchored low-pass path and a gated high-pass branch."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from graphfm.nn.attention import neighbor_attention
from graphfm.nn.encodings import EdgeBias
from graphfm.nn.neighborhood import Neighborhood


class GraphBlock(nn.Module):
    r"""A graph-transformer layer that propagates without forgetting.

    With the normalised adjacency :math:`A`, attention enters as a deviation from it,

    .. math::
        \tilde A_{ij} = r_i \operatorname{softmax}_j\big(g\cos(q_i, k_j) + b_{ij} + \log A_{ij}\big),
        \qquad r_i = \sum_j A_{ij},

    where the gain :math:`g` and the bias :math:`b` start at zero, so that :math:`\tilde A = A` then. The low-pass
    path is GCNII's anchored propagation with identity mapping, by the lazy operator
    :math:`P = (I + \tilde A)/2`; the high-pass branch sees what neighbours do not share:

    .. math::
        z &= (1 - a) P h + a h_0 \\
        h' &= z + \beta_l z \Theta_l + m_l \odot \sigma(G n) \odot
              \operatorname{norm}\big(\operatorname{FFN}[n, (h - P h)/|h|]\big), \qquad n = \operatorname{norm}(h)

    with :math:`\beta_l = \log(1/(2l) + 1)`. :math:`\Theta_l` starts at zero and the mix :math:`m_l`, one number a
    channel, at :math:`0.1/\sqrt{2L}`: an untrained stack of any depth is a filter of the stem, not noise.

    References: GCNII, arXiv 2007.02133; gated attention output, arXiv 2505.06708; lazy propagation keeps every
    singular value of :math:`h_0` above :math:`a` times itself while the gain is zero.

    Parameters
    ----------
    dim
        Width of the states.
    layer
        Number of this layer, from 1.
    num_layers
        Depth of the stack.
    heads
        Attention heads; divides `dim`.
    anchor
        Share :math:`a` of the stem in each layer's output.
    """

    def __init__(self, dim: int, *, layer: int, num_layers: int, heads: int = 8, anchor: float = 0.1) -> None:
        super().__init__()
        self.heads, self.anchor = heads, anchor
        self.beta = math.log(0.5 / layer + 1)
        self.num_layers = num_layers
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.edge_bias = EdgeBias(heads)
        self.gain = nn.Parameter(torch.empty(heads))
        self.identity_map = nn.Linear(dim, dim, bias=False)
        self.gate = nn.Linear(dim, dim)
        self.expand = nn.Linear(2 * dim, 2 * dim)
        self.contract = nn.Linear(2 * dim, dim)
        self.mix = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as a pure filter of the stem (see above)."""
        for module in (self.query, self.key, self.gate, self.expand, self.contract):
            module.reset_parameters()
        self.edge_bias.reset_parameters()
        nn.init.zeros_(self.gain)
        nn.init.zeros_(self.identity_map.weight)
        nn.init.constant_(self.mix, 0.1 / math.sqrt(2 * self.num_layers))

    def forward(
        self,
        h: Float[Tensor, "s d"],
        h0: Float[Tensor, "n d"],
        neighborhood: Neighborhood,
    ) -> Float[Tensor, "n d"]:
        """States of the first ``n`` of ``s`` nodes, one layer on.

        Parameters
        ----------
        h
            States of the destinations, then of further sources.
        h0
            Stem output of the destinations.
        neighborhood
            Incoming edges of the ``n`` destinations, numbered as in `h`.
        """
        n = len(neighborhood)
        own, normed = h[:n], _rms_norm(h)
        smooth = 0.5 * (own + self._propagate(h, normed, neighborhood))
        z = (1 - self.anchor) * smooth + self.anchor * h0
        low = z + self.beta * self.identity_map(z)

        scale = own.square().mean(-1, keepdim=True).add(1e-6).rsqrt()
        features = torch.cat([normed[:n], (own - smooth) * scale], dim=-1)
        high = _rms_norm(self.contract(F.gelu(self.expand(features))))
        return low + self.mix * torch.sigmoid(self.gate(normed[:n])) * high

    def _propagate(self, h: Tensor, normed: Tensor, nb: Neighborhood) -> Tensor:
        n, mask = len(nb), nb.weight > 0
        q = F.normalize(self.query(normed[:n]).view(n, self.heads, -1), dim=-1) * self.gain[:, None]
        k = F.normalize(self.key(normed).view(len(h), self.heads, -1), dim=-1)
        bias = self.edge_bias(nb.relation, nb.distance) + nb.weight.clamp(min=1e-12).log().unsqueeze(-1)
        mean = neighbor_attention(q, k, h.view(len(h), self.heads, -1), nb.index, bias, mask).flatten(1)
        # an isolated node keeps its own state instead of fading towards zero
        return torch.where(mask.any(1, keepdim=True), nb.weight.sum(1, keepdim=True) * mean, h[:n])


def _rms_norm(x: Tensor) -> Tensor:
    return x * x.square().mean(-1, keepdim=True).add(1e-6).rsqrt()
