"""From expression to the first state of a node."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class GeneSpace(nn.Module):
    r"""The gene embedding table, and its meeting with one data set.

    A data set enters with the loadings :math:`V` (genes x components, orthonormal columns) of its own principal
    components. Its genes are placed in the common space by

    .. math:: M = V \operatorname{polar}(V^\top E),

    where polar is the nearest matrix with orthonormal rows: :math:`XM` is then an exact rotation of the data set's
    principal components into axes that all data sets share. A gene that the vocabulary does not know
    (:math:`E_g = 0`) takes its place from the genes it is co-expressed with, through :math:`V`.

    Parameters
    ----------
    num_genes
        Rows of the vocabulary.
    dim
        Width of the states.
    """

    def __init__(self, num_genes: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_genes, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Random directions: the map is then an arbitrary rotation."""
        nn.init.normal_(self.embedding.weight)

    def forward(
        self,
        rows: Int[Tensor, "genes"],
        loadings: Float[Tensor, "genes p"],
        names: Float[Tensor, "genes d"] | None = None,
    ) -> Float[Tensor, "genes d"]:
        """Place the genes of a data set; arguments as in `rotation`."""
        return (loadings.double() @ self.rotation(rows, loadings, names)).float()

    def rotation(
        self,
        rows: Int[Tensor, "genes"],
        loadings: Float[Tensor, "genes p"],
        names: Float[Tensor, "genes d"] | None = None,
    ) -> Float[Tensor, "p d"]:
        r"""Where each principal axis goes, :math:`\operatorname{polar}(V^\top E)`, in double precision.

        Parameters
        ----------
        rows
            Vocabulary row of each gene, -1 outside.
        loadings
            Orthonormal columns; at most as many as the states are wide.
        names
            Fixed vectors for genes outside the vocabulary (another organism); zeros if not given.
        """
        known = (rows >= 0).unsqueeze(-1)
        vectors = self.embedding(rows.clamp(min=0)) * known
        if names is not None:
            vectors = torch.where(known, vectors, names)
        # in double precision, so that the threads' order of summation does not show in the states
        return polar(loadings.double().T @ vectors.double())


def polar(a: Float[Tensor, "p d"], steps: int = 30) -> Float[Tensor, "p d"]:
    """Nearest matrix with orthonormal rows, by Newton-Schulz iteration (differentiable, matrix products only).

    Source: Higham, Functions of Matrices, 2008, chapter 8. Thirty steps lift singular values down to 1e-5 of the
    largest to 1; a smaller one stays below.
    """
    x = a / torch.linalg.matrix_norm(a, ord="fro").clamp(min=1e-12)
    for _ in range(steps):
        x = 1.5 * x - 0.5 * (x @ x.T) @ x
    return x


class GeneStem(nn.Module):
    r"""First state of a gene: who it is, how it is expressed, and with whom.

    .. math:: h_0 = W_e e_g + W_s [\text{mean}, \text{dropout}, \text{dispersion}] + W_m M_g

    Parameters
    ----------
    dim
        Width of the states.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.identity = nn.Linear(dim, dim, bias=False)
        self.statistics = nn.Linear(3, dim)
        self.placed = nn.Linear(dim, dim, bias=False)

    def forward(
        self,
        identity: Float[Tensor, "genes d"],
        statistics: Float[Tensor, "genes 3"],
        placed: Float[Tensor, "genes d"],
    ) -> Float[Tensor, "genes d"]:
        """Genes from embedding rows, standardised statistics and placed vectors (unit variance)."""
        return self.identity(identity) + self.statistics(statistics) + self.placed(placed)
