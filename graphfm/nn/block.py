"""One layer of the trunk: a carrier that cannot collapse, and a reader that learns from it."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from graphfm.nn.attention import neighbor_attention
from graphfm.nn.dropout import ByteDropout
from graphfm.nn.encodings import EdgeBias
from graphfm.nn.neighborhood import Neighborhood, Propagator
from graphfm.nn.norm import NodeNorm


def carry(
    own: Float[Tensor, "n d"], heard: Float[Tensor, "n d"], h0: Float[Tensor, "n d"], *, anchor: float
) -> Float[Tensor, "n d"]:
    """The carrier one layer on: anchored propagation by the lazy normalised adjacency; see `GraphBlock`.

    Parameters
    ----------
    own, heard
        The nodes' states, and their product with the normalised adjacency.
    h0
        Stem output of the nodes.
    anchor
        Its share.
    """
    return 0.5 * (1 - anchor) * (own + heard) + anchor * h0


class GraphBlock(nn.Module):
    r"""A graph-transformer layer whose states cannot collapse, at any depth and for any weights.

    The state of a node has two halves. The *carrier* :math:`z` is the low pass: the stem
    :math:`h_0` under an anchored propagation by the lazy normalised adjacency :math:`P = (I + A)/2`. Nothing in it is
    learned, and the theorem of ``graphfm/nn/README.md`` keeps every singular value of :math:`z_l` at or above
    :math:`a` times that of :math:`h_0`. The *reader* :math:`r` is the high pass: a residual branch that starts at zero,
    reads both halves of a node and of its neighbours, and is never averaged itself, so that what neighbours do not
    share stays.

    .. math::
        z' &= (1 - a) P z + a h_0 \\
        r' &= r + m \odot W_o \operatorname{ReLU}\big(\operatorname{norm}(W_1 x + \tilde A W_2 x)\big),
              \qquad x = z + r

    Attention enters as a deviation from the adjacency,

    .. math::
        \tilde A_{ij} = d_i \operatorname{softmax}_j\big(g\cos(q_i, k_j) + b_{ij} + \log A_{ij}\big),
        \qquad d_i = \sum_j A_{ij},

    with gain :math:`g` and bias :math:`b` at zero in a fresh block, where therefore :math:`\tilde A = A`. The norm is
    over a channel's nodes while training (batch norm) and a fixed scale and shift at inference: a cell's state
    depends on its neighbourhood alone. The mix :math:`m`, one number a channel, starts at
    :math:`1/\sqrt{2L}`.

    References: anchored propagation, APPNP, arXiv 1810.05997, and GCNII, 2007.02133; residual branches scaled with
    depth, 2003.04887; batch norm and residuals in deep GNNs, 2406.08993.

    Parameters
    ----------
    dim
        Width of the carrier, and of the reader.
    num_layers
        Depth of the stack.
    heads
        Attention heads, a divisor of `dim`; 0: the reader hears the plain mean, :math:`\tilde A = A`.
    anchor
        Share :math:`a` of the stem in each layer's carrier.
    dropout
        In the reader, while training.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_layers: int,
        heads: int = 8,
        anchor: float = 0.1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads, self.anchor = heads, anchor
        self.first_mix = 1 / math.sqrt(2 * num_layers)
        self.own = nn.Linear(dim, dim, bias=False)
        self.neighbors = nn.Linear(dim, dim, bias=False)
        if heads:
            self.query = nn.Linear(dim, dim, bias=False)
            self.key = nn.Linear(dim, dim, bias=False)
            self.edge_bias = EdgeBias(heads)
            self.gain = nn.Parameter(torch.empty(heads))
        self.norm = NodeNorm(dim)
        self.dropout = ByteDropout(dropout)
        self.contract = nn.Linear(dim, dim)
        self.mix = nn.Parameter(torch.empty(dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Random directions, attention at the adjacency, a small mix."""
        for module in self.children():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        if self.heads:
            nn.init.zeros_(self.gain)
        nn.init.constant_(self.mix, self.first_mix)

    def forward(
        self,
        z: Float[Tensor, "s d"],
        r: Float[Tensor, "s d"],
        h0: Float[Tensor, "n d"],
        neighborhood: Neighborhood | Propagator,
        messages: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        """Carrier and reader of ``n`` of ``s`` nodes, one layer on.

        Parameters
        ----------
        z, r
            Carrier and reader of the sources, the ``n`` nodes among them.
        h0
            Stem output of the nodes.
        neighborhood
            Incoming edges of the nodes, numbered as in `z`; without heads, whatever can propagate.
        messages
            `messages` of ``z + r``, where they are known: the same sources are heard by many tiles of nodes.
        """
        own_z, own_r = neighborhood.own(z), neighborhood.own(r)
        low = carry(own_z, neighborhood.propagate(z), h0, anchor=self.anchor)

        x = own_z + own_r
        heard = self._listen(x, neighborhood, *(messages or self.messages(x if len(z) == len(x) else z + r)))
        step = self.contract(self.dropout(F.relu(self.norm(self.own(x) + heard))))
        return low, own_r + self.mix * step

    def messages(self, x: Float[Tensor, "s d"]) -> tuple[Float[Tensor, "s e"], Float[Tensor, "s d"]]:
        """What nodes send, keys and values of all heads side by side; without heads the keys are empty."""
        if not self.heads:
            return x[:, :0], self.neighbors(x)
        keys = F.normalize(self.key(x).unflatten(1, (self.heads, -1)), dim=-1)
        return keys.flatten(1), self.neighbors(x)

    def _listen(self, x: Tensor, nb: Neighborhood | Propagator, keys: Tensor, values: Tensor) -> Tensor:
        if not self.heads:
            return nb.propagate(values)
        k, v = keys.unflatten(1, (self.heads, -1)), values.unflatten(1, (self.heads, -1))
        q, bias, mask = self._asked(x, nb)
        mean = neighbor_attention(q, k, v, nb.index, bias, mask).flatten(1)
        return torch.where(mask.any(1, keepdim=True), nb.weight.sum(1, keepdim=True) * mean, nb.own(values))

    def _asked(self, x: Tensor, nb: Neighborhood) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of the nodes; what is added to the scores of their edges; where there is an edge."""
        q = F.normalize(self.query(x).unflatten(1, (self.heads, -1)), dim=-1) * self.gain[:, None]
        bias = self.edge_bias(nb.relation, nb.distance) + nb.weight.clamp(min=1e-12).log().unsqueeze(-1)
        return q, bias, nb.weight > 0

    def attention(
        self, x: Float[Tensor, "n d"], keys: Float[Tensor, "s e"], neighborhood: Neighborhood
    ) -> Float[Tensor, "n k heads"]:
        """With what weights nodes listen to their neighbours, to be read: those of a head sum to 1.

        Parameters
        ----------
        x
            Sum of carrier and reader of the nodes.
        keys
            First of `messages`, of the sources.
        neighborhood
            Incoming edges of the nodes; the weights of a node without any are 0.
        """
        if not self.heads:
            return (neighborhood.weight / neighborhood.weight.sum(1, keepdim=True).clamp(min=1e-12)).unsqueeze(-1)
        q, bias, mask = self._asked(x, neighborhood)
        k = keys.unflatten(1, (self.heads, -1))[neighborhood.index]
        scores = torch.einsum("nhc,nkhc->nkh", q, k) + bias
        return scores.masked_fill(~mask.unsqueeze(-1), -torch.inf).softmax(1).nan_to_num(0.0)


class Readout(nn.Module):
    r"""What a stack of `GraphBlock` hands on: the carrier as it is, the reader at a size that depth does not change.

    .. math:: y = [z_L \,|\, \operatorname{norm}(r_L)]

    Parameters
    ----------
    dim
        Width of the carrier, and of the reader.
    gain
        First scale of the normalised reader.
    """

    def __init__(self, dim: int, gain: float = 1.0) -> None:
        super().__init__()
        self.first_gain = gain
        self.norm = NodeNorm(dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """All channels of the reader at the first scale."""
        self.norm.reset_parameters()
        nn.init.constant_(self.norm.weight, self.first_gain)

    def forward(self, z: Float[Tensor, "n d"], r: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """Carrier, then reader, ``c = 2 d``."""
        return torch.cat([z, self.norm(r)], dim=-1)
