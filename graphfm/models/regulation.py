"""The gene side of the trunk: which gene regulates which, learned from edges that are known."""

from dataclasses import dataclass

import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from graphfm.nn import GraphBlock, NodeNorm, Readout
from graphfm.nn.dropout import ByteDropout
from graphfm.nn.neighborhood import SparseRows


@dataclass(frozen=True, eq=False)
class GeneGraph:
    """Directed graph of genes for the trunk's blocks: each hears the sources of its edges, symmetrically normalised.

    Parameters
    ----------
    rows
        Row hears column.
    """

    rows: SparseRows

    @classmethod
    def from_scipy(cls, matrix: sp.spmatrix, device: str | torch.device = "cpu") -> "GeneGraph":
        """Row hears column; a gene that hears nobody hears itself."""
        matrix = sp.csr_matrix(matrix, dtype="float32")
        out, into = (torch.from_numpy(matrix.sum(axis=axis)).flatten() for axis in (0, 1))
        row, column = (torch.from_numpy(index.astype("int64")) for index in matrix.tocoo().coords)
        weight = torch.from_numpy(matrix.tocoo().data) / (into[row] * out[column]).sqrt()
        alone = torch.nonzero(into == 0).squeeze(1)
        row, column = torch.cat([row, alone]).to(device), torch.cat([column, alone]).to(device)
        weight = torch.cat([weight, torch.ones(len(alone))]).to(device)
        return cls(SparseRows.from_entries(row, column, weight, matrix.shape))

    def __len__(self) -> int:
        return len(self.rows.pointer) - 1

    def own(self, h: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """All nodes are there."""
        return h

    def propagate(self, h: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """One product of the normalised adjacency with the states."""
        return self.rows @ h


class RegulationNet(nn.Module):
    r"""Logit of an edge from a regulator to a gene, and of its sign.

    Genes go through the trunk's blocks twice: hearing those that they regulate, which tells what a regulator does, and
    hearing those that regulate them, which tells what a target answers to. An edge is read off the product of the one's
    first state and the other's second, which is not symmetric, beside the evidence for the pair:

    .. math:: \ell_{ij} = w \cdot e_{ij} + \operatorname{MLP}([e_{ij} \,|\, W_q y^{out}_i \odot W_k y^{in}_j])

    Parameters
    ----------
    num_features
        Of a gene.
    num_evidence
        Of a pair.
    dim, num_layers
        Of the trunk.
    dropout
        While training.
    """

    def __init__(
        self, num_features: int, num_evidence: int, *, dim: int = 16, num_layers: int = 2, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(ByteDropout(dropout), nn.Linear(num_features, dim))
        block = {"num_layers": num_layers, "heads": 0, "dropout": dropout}
        self.regulating = nn.ModuleList(GraphBlock(dim, **block) for _ in range(num_layers))
        self.regulated = nn.ModuleList(GraphBlock(dim, **block) for _ in range(num_layers))
        self.read_regulating, self.read_regulated = Readout(dim), Readout(dim)
        self.query, self.key = (nn.Linear(4 * dim, dim) for _ in range(2))
        self.norm = NodeNorm(num_evidence)
        self.product_norm = NodeNorm(dim)
        self.linear = nn.Linear(num_evidence, 2)
        self.deep = nn.Sequential(
            nn.Linear(num_evidence + dim, 64),
            nn.ReLU(),
            ByteDropout(dropout),
            nn.Linear(64, 32),
            nn.ReLU(),
            nn.Linear(32, 2),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start at what the degrees of both ends say, which are the first two facts of the evidence."""
        nn.init.zeros_(self.linear.weight)
        with torch.no_grad():
            self.linear.weight[0, :2] = 1
        nn.init.zeros_(self.deep[-1].weight)

    def states(self, features: Float[Tensor, "n f"], targets: GeneGraph, regulators: GeneGraph) -> Float[Tensor, "n c"]:
        """Genes after both passes.

        Parameters
        ----------
        features
            Of the genes.
        targets, regulators
            Known edges: each gene hears those that it regulates, or those that regulate it.
        """
        h0, passes = self.stem(features), []
        for blocks, readout, graph in (
            (self.regulating, self.read_regulating, targets),
            (self.regulated, self.read_regulated, regulators),
        ):
            z, r = h0, torch.zeros_like(h0)
            for block in blocks:
                z, r = block(z, r, h0, graph)
            passes.append(readout(z, r))
        return torch.cat(passes, dim=1)

    def forward(
        self, states: Float[Tensor, "n c"], evidence: Float[Tensor, "m e"], pairs: Int[Tensor, "m 2"]
    ) -> Float[Tensor, "m 2"]:
        """Logits of an edge, and of a positive sign if there is one, for pairs of a regulator and a gene."""
        product = self.product_norm(self.query(states)[pairs[:, 0]] * self.key(states)[pairs[:, 1]])
        evidence = self.norm(evidence)
        return self.linear(evidence) + self.deep(torch.cat([evidence, product], dim=1))
