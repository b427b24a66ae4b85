"""Genes that regulate each other: from a prior, from co-expression, or both."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from graphfm import _keys, io
from graphfm._checks import check_unique_genes
from graphfm._vocabulary import has_rows, match, vocabulary
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
        Known regulation, one row an edge: columns ``source`` (or ``tf``), ``target`` and, optionally, ``sign`` (+1, -1,
        or 0 for unknown, which counts as +1) and ``weight``, whose own sign is taken where some are negative and there
        is no ``sign``. Names are looked up by :func:`match_names`. An edge given several times gets the mean size of
        its weights, and the sign of the sum of those whose sign is known.
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
    check_unique_genes(adata)
    parts: dict[str, sp.csr_matrix] = {}
    record: dict[str, object] = {"n_neighbors": n_neighbors, "kind": kind, "layer": layer or "X"}
    if prior is not None:
        parts["prior"], record["prior_unknown_genes"] = _prior_matrix(prior, adata.var)
    if coexpression:
        rows, unknown = regulators(adata, tfs)
        if not len(rows):
            logger.info("no transcription factor is marked: taking all %d genes as possible regulators", adata.n_vars)
            rows = np.arange(adata.n_vars)
        values = io.expression(adata, layer=layer, kind=kind)
        parts["coexpression"] = strongest_correlations(values, rows, n_neighbors=n_neighbors)
        record |= {"n_tfs": len(rows), "unknown_tfs": unknown}
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


def match_names(names: pd.Series, var: pd.DataFrame) -> np.ndarray:
    """Row of ``var`` of each name, -1 where there is none.

    Looked up as written, then in any case, then, if genes were aligned (``var["graphfm_gene"]``), by the vocabulary:
    Ensembl ids, synonyms, and orthologs of the other species. Each only where it names one gene.
    """
    codes, unique = pd.factorize(names.astype(str))
    rows = var.index.get_indexer(unique)
    lookups = [(var.index.astype(str).str.upper(), unique.str.upper())]
    if has_rows(var):
        known = var[_keys.GENE_ROW].where(var[_keys.GENE_ROW] >= 0)
        lookups.append((known, match(unique.tolist(), "auto").row))
    for of_var, of_names in lookups:
        place = pd.Series(np.arange(len(var)), index=of_var)
        place = place[place.index.notna() & ~place.index.duplicated(keep=False)]
        fallback = pd.Series(of_names).map(place).fillna(-1).to_numpy(dtype=np.int64)
        rows = np.where(rows >= 0, rows, fallback)
    return rows[codes]


def source_column(prior: pd.DataFrame, argument: str = "prior") -> str:
    """Name of the column with the regulators, after a check that both ends of every edge are named."""
    if not isinstance(prior, pd.DataFrame):
        raise TypeError(f"{argument} must be a DataFrame, got {type(prior).__name__}. Read a file with pandas first.")
    source = "source" if "source" in prior else "tf"
    for column in (source, "target"):
        if column not in prior:
            raise KeyError(
                f"{argument} has no column {'source (or tf)' if column == source else 'target'} (found: "
                f"{list(prior)}). Rename its columns to source, target and, optionally, sign or weight."
            )
    if prior[[source, "target"]].isna().any(axis=None):
        raise ValueError(f"{argument} has rows without a name in {source} or target. Drop them first.")
    return source


def prior_edges(prior: pd.DataFrame, var: pd.DataFrame, argument: str = "prior") -> tuple[pd.DataFrame, np.ndarray]:
    """Edges of a prior among the genes of a data set, and the names that are not in it; errors name the argument.

    Returns
    -------
    edges, unknown
        A row a pair, sorted: ``row`` and ``column`` (of ``var``), ``weight`` (signed, of unknown sign positive; the
        mean size of those given), ``sign`` (+1, -1, 0 for unknown, or where those given cancel).
    """
    source = source_column(prior, argument)
    rows, columns = match_names(prior[source], var), match_names(prior["target"], var)
    missing = pd.concat([prior[source][rows < 0], prior["target"][columns < 0]]).astype(str)
    unknown = np.unique(missing.to_numpy(dtype=str))
    known = (rows >= 0) & (columns >= 0)
    if not known.any():
        raise ValueError(
            f"None of the {len(prior)} edges of {argument} has both its genes in adata.var_names (prior: "
            f"{', '.join(map(str, prior[source].head(3)))}; data: {', '.join(map(str, var.index[:3]))}). "
            "Check that both use the same names (symbols or Ensembl ids); of the other species, run "
            "graphfm.genes.align_genes(adata) first."
        )
    if len(unknown):
        told = "%s: %d of %d edges used, %d genes are not in the data"
        logger.info(told, argument, known.sum(), len(prior), len(unknown))
    size, signed = _prior_weights(prior, argument)
    edges = pd.DataFrame({"row": rows[known], "column": columns[known], "weight": size[known], "sign": signed[known]})
    edges = edges.groupby(["row", "column"], as_index=False).mean()
    sign = np.sign(edges["sign"])
    return edges.assign(weight=edges["weight"] * np.where(sign < 0, -1, 1), sign=sign), unknown


def _prior_matrix(prior: pd.DataFrame, var: pd.DataFrame) -> tuple[sp.csr_matrix, np.ndarray]:
    edges, unknown = prior_edges(prior, var)
    place = (edges["row"], edges["column"])
    matrix = sp.csr_matrix((edges["weight"].astype(np.float32), place), shape=(len(var), len(var)))
    matrix.eliminate_zeros()
    return matrix, unknown


def _prior_weights(prior: pd.DataFrame, argument: str) -> tuple[np.ndarray, np.ndarray]:
    """Of each row the size of its weight, and the weight with its sign, 0 where that is not given."""
    columns = {}
    for name in ("weight", "sign"):
        if name in prior:
            columns[name] = pd.to_numeric(prior[name], errors="coerce").to_numpy(dtype=np.float64)
            bad = int((~np.isfinite(columns[name])).sum())
            if bad:
                raise ValueError(
                    f"{argument}[{name!r}] is no finite number in {bad} of {len(prior)} rows. Repair or drop them."
                )
    weight = columns.get("weight", np.ones(len(prior)))
    # weights that are all positive are how sure or how strong an edge is, and no sign
    sign = columns.get("sign", np.sign(weight) * (weight < 0).any())
    if not np.isin(sign, (-1, 0, 1)).all():
        raise ValueError(
            f"{argument}['sign'] must be +1, -1 or 0 (unknown), found {sorted(set(sign))[:5]}. Use 'weight' instead."
        )
    return np.abs(weight), sign * np.abs(weight)


def regulators(adata: AnnData, tfs: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the transcription factors, sorted, and the names among ``tfs`` that are not in the data.

    Without `tfs`: ``var["is_tf"]``, else what the vocabulary knows; no rows if neither marks one.
    """
    if tfs is not None:
        if isinstance(tfs, str):
            raise TypeError(f"tfs={tfs!r} is a string: pass a list of names.")
        names = pd.Series(list(tfs), dtype=object)
        rows = match_names(names, adata.var)
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
        marks = adata.var[_keys.IS_TF]
        if not marks.isin((True, False)).all():
            raise ValueError(
                f"adata.var[{_keys.IS_TF!r}] must be True or False for every gene, found {list(marks.unique()[:4])}. "
                "Fill what is missing, or pass tfs=."
            )
        flags = marks.to_numpy(dtype=bool)
    elif has_rows(adata.var):
        row = adata.var[_keys.GENE_ROW].to_numpy()
        flags = (row >= 0) & vocabulary().table["tf"].to_numpy(dtype=bool)[np.maximum(row, 0)]
    return np.flatnonzero(flags), np.array([], dtype=str)
