"""Genes that regulate each other: from a prior, from co-expression, or both."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from graphfm import _keys, io
from graphfm.io.files import writable
from graphfm.io.matrix import Kind
from graphfm.pp.correlation import strongest_correlations

logger = logging.getLogger(__name__)


def regulatory_graph(
    adata: AnnData,
    *,
    prior: pd.DataFrame | None = None,
    coexpression: bool | None = True,
    n_neighbors: int = 10,
    tfs: Sequence[str] | None = None,
    layer: str | None = None,
    kind: Kind = "counts",
    key_added: str = _keys.REGULATORY,
    copy: bool = False,
) -> AnnData | None:
    """Signed graph of regulators and their targets.

    Parameters
    ----------
    adata
        Cells x genes (or a SpatialData or MuData with one table).
    prior
        Known regulation, one row an edge: columns ``source`` (or ``tf``), ``target`` and, optionally, ``weight`` and
        ``sign`` (+1 or -1). Names are those of ``var_names``, in other upper and lower case where that is unambiguous.
        An edge given several times gets its mean weight; if that is 0, it is dropped.
    coexpression
        Whether each gene is also connected to the ``n_neighbors`` transcription factors with the largest absolute
        Pearson correlation of log-normalised expression. None means no.
    n_neighbors
        Transcription factors of a gene by co-expression.
    tfs
        Names of the transcription factors; default: ``var["is_tf"]``, else those that the vocabulary knows
        (``var["graphfm_gene"]``), else all genes. The prior is not restricted to them.
    layer, kind
        Where the expression is, and what it is: see :func:`graphfm.io.expression`.
    key_added
        Key of the result.
    copy
        Return a changed copy instead of writing to ``adata``.

    Returns
    -------
    AnnData or None
        Writes ``varp["regulatory"]`` (float32 CSR ``[n_vars, n_vars]``, row = regulator, column = target; the prior's
        value where both have an edge), its parts ``varp["regulatory_prior"]`` and ``varp["regulatory_coexpression"]``,
        and ``uns["regulatory"]`` (parameters, number of edges, genes that were not found).

    Raises
    ------
    ValueError
        If there is neither prior nor co-expression, no gene of the prior or of ``tfs`` is in the data, gene names are
        not unique, or values are missing.
    KeyError
        If the prior lacks a column.
    """
    adata = io.as_anndata(adata)
    if prior is None and not coexpression:
        raise ValueError("regulatory_graph needs prior= (a table of known regulation), coexpression=True, or both.")
    if n_neighbors < 1:
        raise ValueError(f"n_neighbors={n_neighbors} must be at least 1.")
    if not adata.var_names.is_unique:
        raise ValueError("adata.var_names are not unique. Run adata.var_names_make_unique() first.")
    parts: dict[str, sp.csr_matrix] = {}
    record: dict[str, object] = {"n_neighbors": n_neighbors, "kind": kind, "layer": layer or "X"}
    if prior is not None:
        parts["prior"], record["prior_unknown_genes"] = _prior_matrix(prior, adata.var_names)
    if coexpression:
        regulators, unknown = _regulators(adata, tfs)
        values = io.expression(adata, layer=layer, kind=kind)
        parts["coexpression"] = strongest_correlations(values, regulators, n_neighbors=n_neighbors)
        record |= {"n_tfs": len(regulators), "unknown_tfs": unknown}
    adata = writable(adata, copy=copy)
    for name in ("prior", "coexpression"):
        # a part of an earlier call must not outlive it
        adata.varp.pop(f"{key_added}_{name}", None)
    for name, matrix in parts.items():
        adata.varp[f"{key_added}_{name}"] = matrix
        record[f"{name}_edges"] = int(matrix.nnz)
    adata.varp[key_added] = _union(list(parts.values()))
    adata.uns[key_added] = record
    return adata if copy else None


def _union(parts: list[sp.csr_matrix]) -> sp.csr_matrix:
    """Entries of the first matrix, and of the next ones where the first has none."""
    result = parts[0].copy()
    for matrix in parts[1:]:
        result = result + (matrix - matrix.multiply(result != 0))
    result = sp.csr_matrix(result)
    result.eliminate_zeros()
    result.sort_indices()
    return result


def match_names(names: pd.Series, var_names: pd.Index) -> np.ndarray:
    """Row of ``var_names`` of each name, -1 where there is none; case is ignored where that is unambiguous."""
    names = names.astype(str)
    rows = var_names.get_indexer(names)
    upper = pd.Series(np.arange(len(var_names)), index=var_names.astype(str).str.upper())
    upper = upper[~upper.index.duplicated(keep=False)]
    fallback = names.str.upper().map(upper).fillna(-1).to_numpy(dtype=np.int64)
    return np.where(rows >= 0, rows, fallback)


def _prior_matrix(prior: pd.DataFrame, var_names: pd.Index) -> tuple[sp.csr_matrix, np.ndarray]:
    source = "source" if "source" in prior else "tf"
    for column in (source, "target"):
        if column not in prior:
            raise KeyError(
                f"prior has no column {'source (or tf)' if column == source else 'target'} (found: {list(prior)}). "
                "Rename its columns to source, target and, optionally, sign or weight."
            )
    if prior[[source, "target"]].isna().any(axis=None):
        raise ValueError(f"prior has rows without a name in {source} or target. Drop them first.")
    rows, columns = match_names(prior[source], var_names), match_names(prior["target"], var_names)
    missing = pd.concat([prior[source][rows < 0], prior["target"][columns < 0]]).astype(str)
    unknown = np.unique(missing.to_numpy(dtype=str))
    known = (rows >= 0) & (columns >= 0)
    if not known.any():
        raise ValueError(
            f"None of the {len(prior)} edges of prior has both its genes in adata.var_names (prior: "
            f"{', '.join(map(str, prior[source].head(3)))}; data: {', '.join(map(str, var_names[:3]))}). "
            "Check that both use the same names (symbols or Ensembl ids) and organism."
        )
    if len(unknown):
        logger.info("prior: %d of %d edges used, %d genes are not in the data", known.sum(), len(prior), len(unknown))
    weight = _prior_weights(prior)[known]
    pairs = rows[known] * len(var_names) + columns[known]
    unique, inverse = np.unique(pairs, return_inverse=True)
    mean = np.bincount(inverse, weights=weight) / np.bincount(inverse)
    size = len(var_names)
    matrix = sp.csr_matrix((mean.astype(np.float32), (unique // size, unique % size)), shape=(size, size))
    matrix.eliminate_zeros()
    return matrix, unknown


def _prior_weights(prior: pd.DataFrame) -> np.ndarray:
    columns = {}
    for name in ("weight", "sign"):
        if name in prior:
            columns[name] = pd.to_numeric(prior[name], errors="coerce").to_numpy(dtype=np.float64)
            bad = int((~np.isfinite(columns[name])).sum())
            if bad:
                raise ValueError(
                    f"prior[{name!r}] is no finite number in {bad} of {len(prior)} rows. Repair or drop them."
                )
    if "sign" in columns and not np.isin(columns["sign"], (-1, 1)).all():
        raise ValueError(
            f"prior['sign'] must be +1 or -1, found {sorted(set(columns['sign']))[:5]}. Use 'weight' instead."
        )
    if "weight" in columns and "sign" in columns:
        return columns["sign"] * np.abs(columns["weight"])
    return columns.get("weight", columns.get("sign", np.ones(len(prior))))


def _regulators(adata: AnnData, tfs: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the transcription factors, sorted, and the names among ``tfs`` that are not in the data."""
    if tfs is not None:
        if isinstance(tfs, str):
            raise TypeError(f"tfs={tfs!r} is a string: pass a list of names.")
        names = pd.Series(list(tfs), dtype=object)
        rows = match_names(names, adata.var_names)
        unknown = names[rows < 0].to_numpy(dtype=str)
        if (rows < 0).all():
            raise ValueError(
                f"None of the {len(names)} tfs is in adata.var_names (tfs: {', '.join(names[:3].astype(str))})."
            )
        if len(unknown):
            logger.info("tfs: %d of %d are not in the data", len(unknown), len(names))
        return np.unique(rows[rows >= 0]), unknown
    flags = np.zeros(adata.n_vars, dtype=bool)
    if _keys.IS_TF in adata.var:
        flags = adata.var[_keys.IS_TF].to_numpy(dtype=bool)
    elif _keys.GENE_ROW in adata.var:
        from graphfm import genes

        row = adata.var[_keys.GENE_ROW].to_numpy()
        flags = (row >= 0) & genes.vocabulary().table["tf"].to_numpy(dtype=bool)[np.maximum(row, 0)]
    if not flags.any():
        logger.info("no transcription factor is marked: taking all %d genes as possible regulators", adata.n_vars)
        flags[:] = True
    return np.flatnonzero(flags), np.array([], dtype=str)
