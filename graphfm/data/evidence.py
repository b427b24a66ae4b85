"""What known edges and expression say about a pair of genes, before anything is learned."""

import itertools
from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp

EVIDENCE = (
    "out_degree",
    "in_degree",
    "out_degree_of_target",
    "in_degree_of_regulator",
    "reversed",
    "regulators_of_same_targets",
    "targets_of_same_regulators",
    "neighbors_of_same_neighbors",
    "shared_neighbors",
    "regulators_alike_in_expression",
    "targets_alike_in_expression",
    "context",
    "similarity",
)
"""What comes before the statistics of the two genes."""


def pair_evidence(
    known: sp.csr_matrix,
    context: np.ndarray,
    similarity: np.ndarray,
    statistics: np.ndarray,
    alike: sp.csr_matrix,
    regulators: np.ndarray,
    pairs: np.ndarray | None = None,
    belief: np.ndarray | None = None,
) -> np.ndarray:
    r"""Evidence for pairs of a regulator and a gene; a known edge itself is in the degrees and cosines.

    With the known edges :math:`A`, row regulates column: the degrees of both ends; :math:`A_{ji}`; how often regulators
    with similar targets have this one, :math:`(SA)_{ij} / \sum_k S_{ik}` with :math:`S_{ik}` the shrunken cosine of
    their rows; the same for targets with similar regulators, and for :math:`A + A^\top`; that cosine itself; how often
    regulators, or targets, that are alike in expression have the edge; the context score; the similarity; and the
    statistics of regulator and gene. Degrees and shares on a log scale.

    Parameters
    ----------
    known
        ``[n, n]``, 1 where there is an edge.
    context
        Scores from expression, ``[t, n]``.
    similarity
        Absolute similarity of the genes' expression, ``[t, n]``.
    statistics
        Of each gene's expression, ``[n, s]``.
    alike
        Graph of genes that are alike in expression, ``[n, n]``.
    regulators
        Rows of the ``t`` regulators.
    pairs
        Position among `regulators` and gene, ``[m, 2]``; None: all.
    belief
        Log odds of each edge by other knowledge, ``[t, n]``; None: there is none.

    Returns
    -------
    float32 ``[m, e]``, or ``[t, n, e]``, with ``e = len(EVIDENCE) + 2 s``, and one more with `belief`.
    """
    matrices = itertools.chain(
        _of_graph(known, alike, regulators, context.shape),
        (np.log1p(context), similarity),
        (np.broadcast_to(column[regulators, None], context.shape) for column in statistics.T),
        (np.broadcast_to(column, context.shape) for column in statistics.T),
        () if belief is None else (belief,),
    )
    chosen = (slice(None), slice(None)) if pairs is None else (pairs[:, 0], pairs[:, 1])
    return np.stack([matrix[chosen] for matrix in matrices], axis=-1, dtype=np.float32)


def _of_graph(
    known: sp.csr_matrix, alike: sp.csr_matrix, regulators: np.ndarray, shape: tuple[int, ...]
) -> Iterator[np.ndarray]:
    """One matrix ``[t, n]`` after the other, as `EVIDENCE` names them, up to the context."""
    known = sp.csr_matrix(known, dtype=np.float32)
    reversed_ = known.T.tocsr()
    both = known + reversed_
    out, into = (np.log1p(np.asarray(known.sum(axis=axis), dtype=np.float32).ravel()) for axis in (1, 0))
    yield np.broadcast_to(out[regulators, None], shape)
    yield np.broadcast_to(into, shape)
    yield np.broadcast_to(out, shape)
    yield np.broadcast_to(into[regulators, None], shape)
    yield reversed_[regulators].toarray()
    of_regulators = _alike(known, regulators)
    yield _share(of_regulators @ known, of_regulators.sum(axis=1, keepdims=True))
    # (A U) U^T instead of A (U U^T): no matrix of genes by genes
    targets = _unit_rows(reversed_)
    itself = np.asarray(targets.multiply(targets).sum(axis=1)).ravel()
    weighted = ((known[regulators] @ targets) @ targets.T).toarray() - known[regulators].multiply(itself).toarray()
    yield _share(weighted, targets @ np.asarray(targets.sum(axis=0)).ravel() - itself)
    of_both = _alike(both, regulators)
    yield _share(of_both @ both, of_both.sum(axis=1, keepdims=True))
    yield of_both
    yield _share((alike[regulators] @ known).toarray(), np.asarray(alike[regulators].sum(axis=1)).reshape(-1, 1))
    yield _share((known[regulators] @ alike.T).toarray(), np.asarray(alike.sum(axis=1)).reshape(1, -1))


def _unit_rows(matrix: sp.csr_matrix, prior: float = 5.0) -> sp.csr_matrix:
    """Rows divided by their length, as if each had `prior` more entries: few common ones are no proof."""
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel() + prior)
    return sp.csr_matrix(sp.diags_array((1 / length).astype(np.float32)) @ matrix)


def _alike(matrix: sp.csr_matrix, rows: np.ndarray) -> np.ndarray:
    """Shrunken cosine of some rows with all, 0 of a row with itself."""
    unit = _unit_rows(matrix)
    cosine = (unit[rows] @ unit.T).toarray()
    cosine[np.arange(len(rows)), rows] = 0
    return cosine


def _share(weighted: np.ndarray, total: np.ndarray) -> np.ndarray:
    """A weighted share, drawn to 0 where there is little weight, on a scale that tells small ones apart."""
    return np.log1p(20 * np.asarray(weighted) / (np.asarray(total) + 0.5)).astype(np.float32)
