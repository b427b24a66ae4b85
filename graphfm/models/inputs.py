"""What the trunk reads of a data set: arrays and tensors, no AnnData."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from graphfm.data.profiles import gene_statistics
from graphfm.nn.neighborhood import RELATIONS, Neighborhood

CHUNK = 16384
"""Cells summed over at a time, where there may be more than fit into memory at once."""
LEAST_SHARED = 0.01
LEAST_PIECE = 50


def random_vectors(names: np.ndarray, dim: int) -> Float[Tensor, "genes d"]:
    """Normal random numbers for each gene, fixed by its name."""
    seeds = (int.from_bytes(hashlib.blake2b(str(n).encode(), digest_size=8).digest(), "little") for n in names)
    rows = [np.random.default_rng(seed).standard_normal(dim, dtype=np.float32) for seed in seeds]
    return torch.from_numpy(np.stack(rows))


def _sums(matrix: sp.csr_matrix) -> np.ndarray:
    """Sum of each column in double precision, a chunk of rows at a time, for the matrix may be in a file."""
    sums = np.zeros(matrix.shape[1])
    for start in range(0, matrix.shape[0], CHUNK):
        part = matrix[start : start + CHUNK]
        sums += np.bincount(part.indices, weights=part.data, minlength=matrix.shape[1])
    return sums


def pieces_of_tissue(neighborhood: Neighborhood) -> np.ndarray:
    """Number of the connected piece of tissue, such as a slide, that each cell lies in, ``[n]``.

    Cells of pieces too small for a mean of their own, or of none, are one piece together.
    """
    row, column = torch.nonzero(
        (neighborhood.weight > 0) & (neighborhood.relation == RELATIONS.index("spatial")), as_tuple=True
    )
    ends = row.numpy(), neighborhood.index[row, column].numpy()
    edges = sp.csr_matrix((np.ones(len(row), dtype=bool), ends), shape=(len(neighborhood), len(neighborhood)))
    _, piece = connected_components(edges, directed=False)
    large = np.bincount(piece) >= LEAST_PIECE
    return np.unique(np.where(large[piece], piece, -1), return_inverse=True)[1]


@dataclass(frozen=True)
class CellGraph:
    """Cells of one data set with their graphs, ready for the trunk.

    Only genes with a loading are kept: they are what the stem sees and what the objective predicts.

    Parameters
    ----------
    scores
        Principal components of the cells, centred: log-normalised expression times `loadings`.
    expression
        Log-normalised expression, sparse ``[n, genes]``; None where only cells are embedded.
    counts
        Counts of the same genes; None where the data have none (embedding needs none, pre-training does).
    totals
        All counts of each cell, ``[n]``, also of genes that are not kept.
    gene_rows
        Vocabulary row of each gene, -1 outside, ``[genes]``.
    gene_names
        Names, ``[genes]``.
    loadings
        Principal axes of the expression, orthonormal columns, ``[genes, p]``.
    neighborhood
        Cell-cell edges of all relations.
    vocabulary
        Version of the gene vocabulary that `gene_rows` refers to.
    name
        Of the data set, for logs.
    order, order_tile
        The cells in the order of tiles of that size, where it is known beforehand.
    marks
        By which the cells are known again (`graphfm.data.seen`); None where only cells are embedded.
    """

    scores: Float[Tensor, "n p"]
    expression: sp.csr_matrix | None
    counts: sp.csr_matrix | None
    totals: Tensor
    gene_rows: Tensor
    gene_names: np.ndarray
    loadings: Tensor
    neighborhood: Neighborhood
    vocabulary: str
    name: str = "data"
    order: Int[Tensor, "n"] | None = None
    order_tile: int = 0
    marks: Int[Tensor, "n 2"] | None = None

    @property
    def num_cells(self) -> int:
        """Cells."""
        return len(self.scores)

    @cached_property
    def digest(self) -> str:
        """Short hash of counts, genes and edges: the same name and shape are not yet the same data."""
        content = hashlib.blake2b(self.gene_rows.numpy().astype(np.int64).tobytes(), digest_size=8)
        for column, kind in ((self.neighborhood.index, np.int64), (self.neighborhood.relation, np.int8)):
            for start in range(0, self.num_cells, CHUNK):
                content.update(column[start : start + CHUNK].numpy().astype(kind).tobytes())
        for start in range(0, self.num_cells, CHUNK):
            counts = self.counts[start : start + CHUNK]
            for array in (counts.indptr, counts.indices):
                content.update(array.astype(np.int64))
            content.update(np.ascontiguousarray(counts.data))
        return content.hexdigest()

    @cached_property
    def component_weight(self) -> Float[Tensor, "p"]:
        r"""How much each component shall count in the embedding, :math:`I_c / \sqrt{\sigma_c}`.

        :math:`I_c = y_c^\top A y_c / x_c^\top x_c` (Moran's I) is what neighbours share of a component :math:`x_c`,
        none of noise, and at least 0.01. In :math:`y_c` each piece of tissue has its mean taken off: what only tells
        slides apart is shared by all neighbours, and says nothing of the tissue. The root of its spread
        :math:`\sigma_c` keeps a few large components from drowning those that tell small populations apart.
        """
        piece = pieces_of_tissue(self.neighborhood)
        sums = np.stack([np.bincount(piece, weights=component) for component in self.scores.numpy().T], axis=1)
        means = torch.from_numpy((sums / np.bincount(piece)[:, np.newaxis]).astype(np.float32))
        deviations = self.scores - means[torch.from_numpy(piece)]
        product, squares = np.zeros((2, self.scores.shape[1]))
        for start in range(0, self.num_cells, CHUNK):  # by numpy, whose sums do not depend on threads
            part = self.neighborhood.part(start, min(start + CHUNK, self.num_cells))
            own, heard = (x.double().numpy() for x in (part.own(deviations), part.propagate(deviations)))
            has_edge = (part.weight > 0).any(1).numpy()  # a cell without any hears itself
            product += (own * heard)[has_edge].sum(axis=0)
            squares += np.square(part.own(self.scores).double().numpy()).sum(axis=0)
        squares = np.maximum(squares, 1e-12)
        shared = np.maximum(product / squares, LEAST_SHARED)
        return torch.from_numpy((shared * (self.num_cells / squares) ** 0.25).astype(np.float32))

    @cached_property
    def scale(self) -> float:
        """Factor that gives projected cells unit variance a channel, for as many channels as components."""
        variance = sum(float(component.double().var(unbiased=False)) for component in self.scores.T)
        return (self.scores.shape[1] / max(variance, 1e-12)) ** 0.5

    @cached_property
    def mean(self) -> Float[Tensor, "genes"]:
        """Mean expression of each gene over the cells."""
        return torch.from_numpy((_sums(self.expression) / self.num_cells).astype(np.float32))

    @cached_property
    def log_share(self) -> Float[Tensor, "genes"]:
        """Log of each gene's share of all counts, with half a count added; needs counts."""
        sums = _sums(self.counts) + 0.5
        return torch.from_numpy(np.log(sums / max(float(self.totals.double().sum()), 1.0)).astype(np.float32))

    @cached_property
    def log_inverse_dispersion(self) -> Float[Tensor, "genes"]:
        r"""Log of each gene's :math:`\theta` where cells differ by library size alone; needs counts.

        By moments, with :math:`\mu_{ig} = n_i f_g`: :math:`1/\theta_g = \sum_i [(y_{ig} - \mu_{ig})^2 - \mu_{ig}] /
        \sum_i \mu_{ig}^2`, kept between 1e-3 and 100.
        """
        share, totals = self.log_share.double().exp().numpy(), self.totals.double().numpy()
        squares, products = np.zeros_like(share), np.zeros_like(share)
        for start in range(0, self.num_cells, CHUNK):
            counts = self.counts[start : start + CHUNK].astype(np.float64)
            products += counts.T @ totals[start : start + CHUNK]
            counts.data **= 2
            squares += np.asarray(counts.sum(axis=0)).ravel()
        expected = share**2 * (totals**2).sum()
        excess = squares - 2 * share * products + expected - share * totals.sum()
        dispersion = np.clip(excess / np.maximum(expected, 1e-12), 1e-3, 1e2)
        return torch.from_numpy(-np.log(dispersion).astype(np.float32))

    @cached_property
    def gene_statistics(self) -> Float[Tensor, "genes 3"]:
        """Mean, share of zeros and log dispersion of each gene, each standardised over the genes."""
        return torch.from_numpy(gene_statistics(self.expression))

    def outside(self, dim: int) -> Float[Tensor, "genes d"] | None:
        """Vectors for genes outside the vocabulary where it knows too few: pseudo-random, fixed by the name.

        Two known genes a component are enough for the others to take their place from co-expression alone; then
        this is None. With fewer, components without known genes would be lost.
        """
        known = int((self.gene_rows >= 0).sum())
        if known >= min(2 * self.loadings.shape[1], len(self.gene_rows)):
            return None
        return random_vectors(self.gene_names, dim)

    def center(self, placed: Float[Tensor, "genes d"]) -> Float[Tensor, "d"]:
        """Projection of the mean cell."""
        return (self.mean.to(placed.device).double() @ placed.double()).float()

    @staticmethod
    def product(sparse: sp.csr_matrix, dense: Float[Tensor, "genes d"]) -> Float[Tensor, "n d"]:
        """Sparse (scipy) times dense (torch), differentiable in the dense factor."""
        return _SparseProduct.apply(dense, sparse)


class _SparseProduct(torch.autograd.Function):
    """Product by scipy, whose row loop gives each row the same sum whatever other rows are there."""

    @staticmethod
    def forward(ctx, dense: Tensor, sparse: sp.csr_matrix) -> Tensor:
        ctx.sparse = sparse
        return torch.from_numpy(sparse @ dense.detach().cpu().numpy()).to(dense.device)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return torch.from_numpy(ctx.sparse.T @ gradient.cpu().numpy()).to(gradient.device), None
