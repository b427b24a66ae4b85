"""Which cells a model was pre-trained on: its file keeps hashes of their profiles and of their barcodes."""

import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np
import scipy.sparse as sp

from graphfm.genes import vocabulary

LEAST_GENES = 10
"""Expressed genes of the panel that a profile needs to be told from others."""
BARCODE = re.compile("[ACGT]{12,}")


def profile_marks(values: sp.csr_matrix, keys: np.ndarray) -> np.ndarray:
    """A hash of which genes of a panel, a random quarter of all, each cell expresses.

    Normalisation and the order of genes do not change it, a filter of the rarest genes does for few cells; to cut a
    file to its variable genes does for all.

    Parameters
    ----------
    values
        Expression, of any kind in which zero is zero, ``[n, genes]``.
    keys
        Of `gene_keys`, ``[genes]``.

    Returns
    -------
    uint64 ``[n]``, 0 where too few genes of the panel are expressed.
    """
    expressed = sp.csr_matrix((np.ones(values.nnz, np.uint64), values.indices, values.indptr), shape=values.shape)
    expressed.data *= values.data > 0
    enough = expressed @ (keys > 0).astype(np.uint64) >= LEAST_GENES
    return np.where(enough, expressed @ keys, np.uint64(0))  # the sum wraps around, as is meant


def marks(profiles: Sequence[np.ndarray], names: Iterable[str]) -> np.ndarray:
    """Marks of all cells, int64 ``[n, 2]``, 0 for none: chunks of `profile_marks` end to end, and `barcode_marks`."""
    return np.stack([np.concatenate(profiles), barcode_marks(names)], axis=1).view(np.int64)


def barcode_marks(names: Iterable[str]) -> np.ndarray:
    """A hash of the longest sequence of nucleotides in each name, 0 without one, uint64 ``[n]``."""
    found = (max(BARCODE.findall(str(name).upper()), key=len, default="") for name in names)
    hashes = (blake2b(barcode.encode(), digest_size=8).digest() if barcode else bytes(8) for barcode in found)
    return np.frombuffer(b"".join(hashes), dtype=np.uint64)


def shares(of: np.ndarray, seen: np.ndarray) -> tuple[float, float, float]:
    """What of some cells is among the marks of others.

    Parameters
    ----------
    of
        Of `marks`, ``[n, 2]``.
    seen
        Marks, ``[m]``.

    Returns
    -------
    Share of known profiles among cells that have a mark of theirs, NaN without one; share of known barcodes among all
    cells; share of cells with a mark of their profile.
    """
    known, marked = np.isin(of, seen) & (of != 0), of[:, 0] != 0
    profiles = known[marked, 0].mean() if marked.any() else np.nan
    return float(profiles), float(known[:, 1].mean()), float(marked.mean())


def gene_keys(gene_rows: np.ndarray, gene_names: Sequence[str]) -> np.ndarray:
    """A random number for each gene of the panel, 0 for others; by the name where the vocabulary knows no gene at all.

    Parameters
    ----------
    gene_rows
        Vocabulary row of each gene, -1 outside, ``[genes]``.
    gene_names
        Names, ``[genes]``.

    Returns
    -------
    uint64 ``[genes]``.
    """
    if (gene_rows < 0).all():
        hashes = (blake2b(str(name).encode(), digest_size=16).digest() for name in gene_names)
        keys, draws = np.frombuffer(b"".join(hashes), dtype=np.uint64).reshape(-1, 2).T
        return np.where(draws < 2**62, keys, 0)
    rng = np.random.default_rng(0)
    keys = rng.integers(1, 2**64, size=len(vocabulary()), dtype=np.uint64)
    keys = np.where(rng.random(len(keys)) < 0.25, keys, 0)
    return np.where(gene_rows < 0, 0, keys[gene_rows])
