"""The known remedies against over-smoothing and ours: one table of layers, `BLOCKS`, under one network, `DeepNet`."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from graphfm.models.node_graph import NodeGraph, over_operator, pyg, recomputed, sparse_linear
from graphfm.nn import GraphBlock, Readout
from graphfm.nn.dropout import ByteDropout
from graphfm.nn.neighborhood import SparseRows

States = Float[Tensor, "n d"]


class ContraNorm(nn.Module):
    """``LayerNorm(h - 0.1 h softmax(u^T u))``, arXiv 2303.06562 in the dual form that needs no ``[n, n]`` matrix.

    ``u`` has the columns of ``h`` at length one, as the authors' code has the rows in the primal form: the plain
    ``h^T h`` of thousands of nodes has the identity for its softmax.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)

    def forward(self, h: States) -> States:
        """Normalised states."""
        unit = F.normalize(h, dim=0)
        return self.norm(h - 0.1 * h @ (unit.T @ unit).softmax(dim=1))


class GCN(nn.Module):
    """``ReLU(norm(P h W + b))``, arXiv 1609.02907; `norm` makes a layer from the width.

    As every block it is made of width, number of this layer (from 1), depth of the stack and share of dropout, and
    takes states, the stem's output and the graph to the next states.
    """

    def __init__(self, dim: int, layer: int, num_layers: int, dropout: float, norm: Callable = nn.Identity) -> None:
        super().__init__()
        self.dropout, self.norm = ByteDropout(dropout), norm(dim)
        self.conv = over_operator("GCNConv")(dim, dim, normalize=False)

    def forward(self, h: States, h0: States, graph: NodeGraph) -> States:
        return F.relu(self.norm(self.conv(self.dropout(h), graph.operator)))


class DropEdge(GCN):
    """GCN; in training each layer sees a fresh random half of the edges, arXiv 1907.10903."""

    def forward(self, h: States, h0: States, graph: NodeGraph) -> States:
        return super().forward(h, h0, graph.drop_edges(0.5) if self.training else graph)


class TunedGCN(GCN):
    """``dropout(ReLU(BatchNorm(P h W + h V + b)))``, arXiv 2406.08993."""

    def __init__(self, dim: int, layer: int, num_layers: int, dropout: float) -> None:
        super().__init__(dim, layer, num_layers, dropout, nn.BatchNorm1d)
        self.residual = nn.Linear(dim, dim)

    def forward(self, h: States, h0: States, graph: NodeGraph) -> States:
        return self.dropout(F.relu(self.norm(self.conv(h, graph.operator) + self.residual(h))))


class G2(GCN):
    """``(1 - t) h + t GCN(h)``, ``t = tanh(mean_j |x_i - x_j|^2)``, ``x`` a second GCN of ``h``, arXiv 2210.00513."""

    def __init__(self, dim: int, layer: int, num_layers: int, dropout: float) -> None:
        super().__init__(dim, layer, num_layers, dropout)
        self.gate = GCN(dim, layer, num_layers, dropout)

    def forward(self, h: States, h0: States, graph: NodeGraph) -> States:
        x, degree = self.gate(h, h0, graph), graph.degree.unsqueeze(1)
        x = x - x.mean(0).detach()  # keeps all differences, and the squares below from swallowing them
        sums, squares = (graph.adjacency @ torch.cat([x, x * x], dim=1)).chunk(2, dim=1)
        t = ((degree * x * x - 2 * x * sums + squares) / degree.clamp(min=1e-12)).clamp(min=0).tanh()
        return (1 - t) * h + t * super().forward(h, h0, graph)


class GAT(nn.Module):
    """``ELU(GAT(h))``, arXiv 1710.10903."""

    def __init__(self, dim: int, layer: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        heads = math.gcd(8, dim)
        self.dropout = ByteDropout(dropout)
        self.conv = pyg("GATConv", dim, dim // heads, heads=heads, add_self_loops=False)

    def forward(self, h: States, h0: States, graph: NodeGraph) -> States:
        return F.elu(self.conv(self.dropout(h), graph.looped))


class GCNII(nn.Module):
    """``ReLU((0.9 P h + 0.1 h0) ((1 - b) I + b W))``, ``b = log(0.5 / layer + 1)``, arXiv 2007.02133."""

    def __init__(self, dim: int, layer: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = ByteDropout(dropout)
        self.conv = over_operator("GCN2Conv")(dim, 0.1, 0.5, layer, normalize=False)

    def forward(self, h: States, h0: States, graph: NodeGraph) -> States:
        return F.relu(self.conv(self.dropout(h), h0, graph.operator))


class APPNP(nn.Module):
    """``0.9 P h + 0.1 h0``, arXiv 1810.05997: nothing to learn, nothing dropped."""

    def __init__(self, dim: int, layer: int, num_layers: int, dropout: float) -> None:
        super().__init__()

    def forward(self, h: States, h0: States, graph: NodeGraph) -> States:
        return 0.9 * (graph.operator @ h) + 0.1 * h0


class Transformer(nn.Module):
    """``LayerNorm(r h + f(h))`` for attention over the neighbours, arXiv 2009.03509, then for two dense layers."""

    residual = 1.0

    def __init__(self, dim: int, layer: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = ByteDropout(dropout)
        self.attention = pyg("TransformerConv", dim, dim // math.gcd(8, dim), heads=math.gcd(8, dim))
        self.dense = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))
        self.norms = nn.ModuleList([nn.LayerNorm(dim), nn.LayerNorm(dim)])

    def forward(self, h: States, h0: States, graph: NodeGraph) -> States:
        h = self.norms[0](self.residual * h + self.dropout(self.attention(h, graph.looped)))
        return self.norms[1](self.residual * h + self.dropout(self.dense(h)))


class PreNorm(Transformer):
    """``h + f(LayerNorm(h))`` for both, and a last LayerNorm at the end of the stack, arXiv 2002.04745."""

    def __init__(self, dim: int, layer: int, num_layers: int, dropout: float) -> None:
        super().__init__(dim, layer, num_layers, dropout)
        self.last = nn.LayerNorm(dim) if layer == num_layers else nn.Identity()

    def forward(self, h: States, h0: States, graph: NodeGraph) -> States:
        h = h + self.dropout(self.attention(self.norms[0](h), graph.looped))
        return self.last(h + self.dropout(self.dense(self.norms[1](h))))


class DeepNorm(Transformer):
    """``r = (2L)^(1/4)`` at depth ``L``; weights of branches start ``(8L)^(-1/4)`` as large, arXiv 2203.00555."""

    def __init__(self, dim: int, layer: int, num_layers: int, dropout: float) -> None:
        super().__init__(dim, layer, num_layers, dropout)
        self.residual, self.gain = (2 * num_layers) ** 0.25, (8 * num_layers) ** -0.25
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier's weights, scaled where they are not queries and keys."""
        for scaled in (self.attention.lin_value, self.attention.lin_skip, self.dense[0], self.dense[2]):
            nn.init.xavier_normal_(scaled.weight, gain=self.gain)
        for plain in (self.attention.lin_query, self.attention.lin_key):
            nn.init.xavier_normal_(plain.weight)


class Ours(nn.Module):
    """The trunk's `GraphBlock` with the plain mean for attention, and its `Readout` after the last layer.

    Between blocks the states are a pair, carrier and reader.
    """

    def __init__(self, dim: int, layer: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        self.block = GraphBlock(dim, num_layers=num_layers, heads=0, dropout=dropout)
        self.readout = Readout(dim, gain=0.1) if layer == num_layers else None

    def forward(
        self, h: States | tuple[States, States], h0: States, graph: NodeGraph
    ) -> tuple[States, States] | Float[Tensor, "n c"]:
        z, r = h if isinstance(h, tuple) else (h, torch.zeros_like(h))
        z, r = self.block(z, r, h0, graph)
        return (z, r) if self.readout is None else self.readout(z, r)


BLOCKS: dict[str, Callable[[int, int, int, float], nn.Module]] = {
    "gcn": GCN,
    "gat": GAT,
    "transformer": Transformer,
    "prenorm": PreNorm,
    "dropedge": DropEdge,
    "pairnorm": partial(GCN, norm=lambda dim: pyg("PairNorm")),
    "diffgroupnorm": partial(GCN, norm=lambda dim: pyg("DiffGroupNorm", dim, 10)),
    "graphnorm": partial(GCN, norm=lambda dim: pyg("GraphNorm", dim)),
    "contranorm": partial(GCN, norm=ContraNorm),
    "jknet": GCN,
    "appnp": APPNP,
    "gcnii": GCNII,
    "g2": G2,
    "deepnorm": DeepNorm,
    "batchnorm_residual": TunedGCN,
    "graphfm": Ours,
}
READOUTS: dict[str, Callable[[Iterable[Tensor]], Tensor]] = {
    "jknet": lambda states: pyg("JumpingKnowledge", "max")([*states][1:]),  # arXiv 1806.03536
}

READOUT_WIDTHS = {"graphfm": 2}
"""Of the last states, in units of the hidden width."""


def _last(states: Iterable[Tensor]) -> Tensor:
    return deque(states, maxlen=1).pop()


class DeepNet(nn.Module):
    """Stem, a stack of one of the `BLOCKS`, a linear readout.

    Parameters
    ----------
    in_channels, hidden_channels, out_channels
        Width of the input, of the states and of the logits.
    num_layers
        Depth of the stack.
    block
        A name of `BLOCKS`.
    dropout
        Share of dropout before the stem, in the blocks and before the readout.
    drop_nodes
        Share of nodes whose stem output is left out while training, arXiv 2005.11079.
    checkpoint
        Recompute each block in the backward pass: less memory, a third more time, the same gradients.

    Raises
    ------
    ValueError
        There is no such block, or no layer.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        *,
        num_layers: int,
        block: str,
        dropout: float,
        drop_nodes: float = 0.0,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if block not in BLOCKS or num_layers < 1:
            raise ValueError(f"block={block!r}, num_layers={num_layers}: give one of {', '.join(BLOCKS)}, and a layer")
        self.checkpoint, self.collect = checkpoint, READOUTS.get(block, _last)
        self.dropout, self.drop_nodes = ByteDropout(dropout), ByteDropout(drop_nodes)
        self.stem = nn.Linear(in_channels, hidden_channels)
        self.blocks = nn.ModuleList(
            BLOCKS[block](hidden_channels, layer, num_layers, dropout) for layer in range(1, num_layers + 1)
        )
        self.readout = nn.Linear(READOUT_WIDTHS.get(block, 1) * hidden_channels, out_channels)

    def reset_parameters(self) -> None:
        """Draw all parameters anew, those of a module after those of its parts."""
        for module in [*self.modules()][:0:-1]:
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()

    def parameter_groups(self, lr: float, weight_decay: float, block_weight_decay: float) -> list[dict]:
        """Adam's groups: stem and readout, then the blocks, each with its weight decay."""
        ends = [*self.stem.parameters(), *self.readout.parameters()]
        groups = ((ends, weight_decay), ([*self.blocks.parameters()], block_weight_decay))
        return [{"params": params, "lr": lr, "weight_decay": decay} for params, decay in groups]

    def states(self, x: Float[Tensor, "n f"] | SparseRows, graph: NodeGraph) -> list[Tensor]:
        """The stem's output and the states after every layer, ``num_layers + 1`` of ``[n, d]``."""
        return [torch.cat(h, dim=1) if isinstance(h, tuple) else h for h in self._walk(x, graph)]

    def forward(self, x: Float[Tensor, "n f"] | SparseRows, graph: NodeGraph) -> Float[Tensor, "n classes"]:
        """Logits of the nodes."""
        return self.read(self._walk(x, graph))

    def read(self, states: Iterable[Tensor]) -> Float[Tensor, "n classes"]:
        """Logits from what `states` returns."""
        return self.readout(self.dropout(self.collect(states)))

    def _walk(self, x: Tensor | SparseRows, graph: NodeGraph) -> Iterator[Tensor]:
        sparse = isinstance(x, SparseRows)
        stem = sparse_linear(x, self.stem, self.dropout) if sparse else self.stem(self.dropout(x))
        h0 = h = F.relu(stem) * self.drop_nodes(stem.new_ones(len(stem), 1))
        yield h
        for block in self.blocks:
            again = self.checkpoint and torch.is_grad_enabled()
            h = recomputed(block, h, h0, graph) if again else block(h, h0, graph)
            yield h
