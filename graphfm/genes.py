"""The gene vocabulary (human and mouse, one-to-one orthologs share a row) and the alignment of a data set to it.

The table ships with the package; ``data_prep/vocabulary.py`` rebuilds it and documents sources, licences and rules.
"""

import logging
from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.abc import CSCDataset, CSRDataset
from scipy import sparse

from graphfm import _keys
from graphfm._vocabulary import COPY, SPECIES, Matched, Vocabulary, has_rows, match, vocabulary
from graphfm.io.files import as_anndata, writable
from graphfm.io.matrix import Kind, stack, value_chunks

__all__ = ["GeneReport", "Vocabulary", "align_genes", "merge_genes", "vocabulary"]

Organism = Literal["auto", "human", "mouse", "other"]

logger = logging.getLogger(__name__)

# Columns of var that public data sets keep symbols or ids in, in lower case and singular.
GENE_COLUMNS = ("gene_symbol", "gene_id", "gene_name", "gene_short_name", "feature_name", "feature_id")
GENE_COLUMNS += ("ensembl_id", "ensembl", "symbol", "hgnc_symbol", "mgi_symbol", "gene")


@dataclass(frozen=True, eq=False)
class GeneReport:
    """What became of the genes of a data set.

    Attributes
    ----------
    organism
        "human", "mouse" or "other".
    id_kind
        "symbol" or "ensembl": what most names are.
    gene_key
        Where the names were read: "var_names" or a column of ``adata.var``.
    n_genes, n_matched, n_outside
        Variables in all, with a vocabulary row, without one (these stay in the data, with row -1).
    n_by_symbol, n_by_id, n_by_alias, n_by_ortholog
        How the matched ones were found; by ortholog means under a name of the other species.
    n_duplicated
        Matched variables beyond the first of their row. `merge_genes` adds them up.
    share_of_counts_matched
        Sum of ``X`` (or of the layer) over matched variables, as a fraction of all; absolute values where ``X`` has
        negative ones; NaN without any counts.
    vocabulary_version
        `Vocabulary.version`.
    table
        One line per variable: ``name``, ``row`` (int32), ``how`` ("symbol", "id", "alias", "ortholog", "outside").
    """

    organism: Literal["human", "mouse", "other"]
    id_kind: Literal["symbol", "ensembl"]
    gene_key: str
    n_genes: int
    n_matched: int
    n_by_symbol: int
    n_by_id: int
    n_by_alias: int
    n_by_ortholog: int
    n_outside: int
    n_duplicated: int
    share_of_counts_matched: float
    vocabulary_version: str
    table: pd.DataFrame

    def __str__(self) -> str:
        kind = {"symbol": "gene symbols", "ensembl": "Ensembl ids"}[self.id_kind]
        outside = self.table.loc[self.table["row"] < 0, "name"]
        examples = f" (such as {', '.join(outside[:3])})" if len(outside) else ""
        return "\n".join(
            (
                f"{self.n_matched:,} of {self.n_genes:,} genes are in the vocabulary, "
                f"with {self.share_of_counts_matched:.1%} of the counts.",
                f"  organism:      {self.organism}, {kind} from {self.gene_key}",
                f"  by name or id: {self.n_by_symbol + self.n_by_id:,}",
                f"  by alias:      {self.n_by_alias:,} (old symbols and synonyms)",
                f"  by ortholog:   {self.n_by_ortholog:,} (named as in the other species)",
                f"  duplicated:    {self.n_duplicated:,} (share a row with another gene; merge_genes adds them up)",
                f"  outside:       {self.n_outside:,}{examples}: kept, without pre-trained weights",
            )
        )

    def parameters(self) -> dict[str, Any]:
        """All but the table, as plain values that h5ad can store."""
        return {k: v for k, v in self.__dict__.items() if k != "table"}


def _best_match(adata: AnnData, organism: str, gene_key: str | None) -> Matched:
    """Match `gene_key`, or var_names and every usual column, of which the one with most matches is taken."""
    if gene_key is not None and gene_key != "var_names":
        if gene_key not in adata.var.columns:
            found = ", ".join(map(repr, adata.var.columns)) or "no columns"
            raise KeyError(f"adata.var has no {gene_key!r}. Pass gene_key=None for var_names, or one of: {found}.")
        return match(_texts(adata.var[gene_key]), organism, gene_key)
    matched = match(_texts(adata.var_names), organism)
    if gene_key is None:
        for column in adata.var.columns:
            if str(column).lower().removesuffix("s") in GENE_COLUMNS and not pd.api.types.is_numeric_dtype(
                adata.var[column]
            ):
                other = match(_texts(adata.var[column]), organism, column)
                matched = max(matched, other, key=lambda m: int((m.row >= 0).sum()))
    return matched


def _plausible(matched: Matched, organism: str) -> bool:
    """Whether anything was found; a few aliases alone (worm genes, any case) do not make a human or mouse data set."""
    known = matched.row >= 0
    if organism == "auto" and np.all(matched.how[known] == "alias"):
        return bool(known.mean() > 0.1) if len(known) else False
    return bool(known.any())


def _texts(values: pd.Series | pd.Index) -> list[str]:
    return ["" if missing else str(v).strip() for v, missing in zip(values.tolist(), values.isna(), strict=True)]


def _column_sums(matrix: Any, n_vars: int) -> np.ndarray:
    """Sum of absolute values per column, float64 [n_vars], a block at a time (sparse stays sparse)."""
    is_sparse = sparse.issparse(matrix) or isinstance(matrix, CSRDataset | CSCDataset)
    by_column = is_sparse and matrix.format == "csc"
    length = matrix.shape[1] if by_column else matrix.shape[0]
    step = 2048 if is_sparse else max(1, 2**23 // max(n_vars, 1))
    total = np.zeros(n_vars)
    for start in range(0, length, step):
        part = slice(start, min(start + step, length))
        block = abs((matrix[:, part] if by_column else matrix[part]).astype(np.float64))
        sums = np.asarray(block.sum(axis=0)).ravel()
        total[part if by_column else slice(None)] += sums
    return total


def _share(adata: AnnData, layer: str | None, known: np.ndarray) -> float:
    """Fraction of the counts in the known columns; NaN without X or counts."""
    if layer is not None and layer not in adata.layers:
        raise KeyError(f"adata.layers has no {layer!r}. Pass layer=None for X, or one of: {list(adata.layers)}.")
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        return float("nan")
    matrix = matrix.tocsr() if sparse.issparse(matrix) and matrix.format not in ("csr", "csc") else matrix
    sums = _column_sums(matrix, adata.n_vars)
    return float(sums[known].sum() / sums.sum()) if sums.sum() > 0 else float("nan")


@overload
def align_genes(
    adata: AnnData,
    *,
    organism: Organism = ...,
    gene_key: str | None = ...,
    layer: str | None = ...,
    copy: Literal[False] = ...,
) -> GeneReport: ...
@overload
def align_genes(
    adata: AnnData,
    *,
    organism: Organism = ...,
    gene_key: str | None = ...,
    layer: str | None = ...,
    copy: Literal[True],
) -> tuple[AnnData, GeneReport]: ...
def align_genes(
    adata: AnnData,
    *,
    organism: Organism = "auto",
    gene_key: str | None = None,
    layer: str | None = None,
    copy: bool = False,
) -> GeneReport | tuple[AnnData, GeneReport]:
    """Find the vocabulary row of every gene; genes outside the vocabulary stay in the data with row -1.

    Accepts symbols and Ensembl ids (with or without version), of human and mouse, in any case, old symbols and
    synonyms that name one gene only, genome prefixes (``hg19_GAPDH``), names changed by R (``HLA.A`` for ``HLA-A``,
    ``X0610007P14Rik``) or made unique (``GAPDH-1`` beside ``GAPDH``). Duplicated names share a row.

    Parameters
    ----------
    adata
        Cells x genes; in memory, a view (which becomes a copy of its own, as anndata does) or backed; sparse or dense.
    organism
        "auto" takes the species with more exact matches; "other" keeps every gene outside the vocabulary.
    gene_key
        Column of ``adata.var`` with the names, or "var_names". None: var_names, or a usual column such as
        ``gene_ids`` or ``feature_name`` if more of its names are known.
    layer
        Layer whose counts the share in the report refers to; None for ``X``.
    copy
        Leave `adata` as it is and return an annotated copy beside the report.

    Returns
    -------
    The report; ``(copy, report)`` with ``copy=True``. Written: ``adata.var["graphfm_gene"]`` (int32 vocabulary row, -1
    outside) and ``adata.uns["graphfm_genes"]`` (the report without its table).

    Raises
    ------
    ValueError
        If no gene is known, or `organism` is none of the four.
    KeyError
        If `gene_key` or `layer` is not there.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> adata = anndata.AnnData(np.ones((2, 3)), var=pd.DataFrame(index=["Gapdh", "Trp53", "Malat1"]))
    >>> report = align_genes(adata)
    >>> report.organism, report.n_matched, round(report.share_of_counts_matched, 2)
    ('mouse', 2, 0.67)
    """
    matched = _matched(adata, organism, gene_key)
    report = _report(matched, organism, _share(adata, layer, matched.row >= 0))
    target = writable(adata, copy=copy)
    target.var[_keys.GENE_ROW] = matched.row
    target.uns[_keys.GENES] = report.parameters()
    return (target, report) if copy else report


def merge_genes(
    adata: AnnData, *, layer: str | None = None, kind: Kind = "counts", organism: Organism = "auto"
) -> AnnData:
    """One column a gene: adds up those that the vocabulary knows as the same.

    Old and new symbols of a gene, and orthologs of human and mouse where cells of both were put together
    (``anndata.concat(..., join="outer")``), which no method could bring together in columns of their own.

    Parameters
    ----------
    adata
        Cells x genes (or a SpatialData or MuData with one table). It is not changed.
    layer, kind
        Where the expression is, and what it is: see `graphfm.io.expression`. What is added up are values before their
        logarithms.
    organism
        ``"auto"`` keeps an alignment that is there; see `align_genes`.

    Returns
    -------
    A new AnnData in memory: ``obs`` and ``obsm`` of `adata`, that expression alone, of the same kind, in ``X``, and the
    genes in the order of the first column of each, by the name of the first that was not made unique (``GAPDH-1``).

    Raises
    ------
    KeyError, ValueError
        As `graphfm.io.expression`.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd
    >>> adata = anndata.AnnData(np.ones((3, 4)), var=pd.DataFrame(index=["GAPDH", "TP53", "Gapdh", "Trp53"]))
    >>> merge_genes(adata).to_df().loc["0"].to_dict()
    {'GAPDH': 2.0, 'TP53': 2.0}
    """
    adata = as_anndata(adata)
    values = stack(list(value_chunks(adata, layer=layer, kind=kind)))
    obsm = {name: value.copy() for name, value in adata.obsm.items()}
    merged = AnnData(values, obs=adata.obs.copy(), var=adata.var.copy(), obsm=obsm)
    if is_aligned(adata, organism=organism):
        merged.uns[_keys.GENES] = dict(adata.uns[_keys.GENES])
    else:
        align_what_is_known(merged, organism=organism)
    code, _ = pd.factorize(gene_keys(merged))
    if code.max() + 1 == merged.n_vars:
        return merged
    found = merged.uns[_keys.GENES]
    names = merged.var_names if found["gene_key"] == "var_names" else merged.var[found["gene_key"]]
    plain_first = np.argsort([COPY.search(str(name)) is not None for name in names], kind="stable")
    kept = plain_first[np.unique(code[plain_first], return_index=True)[1]]
    columns = sparse.csr_matrix((np.ones(merged.n_vars, np.float32), (np.arange(merged.n_vars), code)))
    linear = values.expm1() if kind == "log1p" else values
    total = sparse.csr_matrix(linear @ columns)
    result = merged[:, kept].copy()
    result.X = total.log1p() if kind == "log1p" else total
    align_genes(result, organism=found["organism"], gene_key=found["gene_key"])  # what it says is of fewer genes now
    return result


def is_aligned(adata: AnnData, *, organism: str = "auto") -> bool:
    """Whether `align_genes` was run, by this vocabulary and, if one is named, for this organism.

    Not where `anndata.concat` has filled up the rows by NaN.
    """
    earlier = adata.uns.get(_keys.GENES, {})
    return (
        has_rows(adata.var)
        and str(earlier.get("vocabulary_version")) == vocabulary().version
        and organism in ("auto", str(earlier.get("organism")))
    )


def gene_keys(adata: AnnData) -> np.ndarray:
    """What a gene is called across data sets: its row of the vocabulary, or its name outside of it."""
    row, name = adata.var[_keys.GENE_ROW].to_numpy(), adata.var_names.to_numpy(dtype=str)
    return np.where(row >= 0, np.char.add("row ", row.astype(str)), np.char.add("name ", name))


def check_known(adata: AnnData, *, organism: Organism = "auto") -> None:
    """Raise what `align_genes` would, and write nothing; an alignment that is there will do, and no genes at all."""
    if adata.n_vars and not is_aligned(adata, organism=organism):
        _matched(adata, organism, None)


def _matched(adata: AnnData, organism: str, gene_key: str | None) -> Matched:
    """Rows of the genes, all -1 for another organism; an error if they are of none that is known."""
    if not isinstance(adata, AnnData):
        raise TypeError(f"adata must be an AnnData, got {type(adata).__name__}. See graphfm.io.as_anndata.")
    if organism not in ("auto", *SPECIES, "other"):
        raise ValueError(f"organism must be 'auto', 'human', 'mouse' or 'other', got {organism!r}.")
    matched = _best_match(adata, "human" if organism == "other" else organism, gene_key)
    if organism == "other":
        matched.row[:], matched.how[:] = -1, "outside"
    elif not _plausible(matched, organism):
        where = "var_names" if matched.key == "var_names" else f"var[{matched.key!r}]"
        examples = ", ".join(map(repr, matched.names[:3]))
        found = f"are not those of human or mouse genes (such as {examples})" if examples else "are none"
        raise ValueError(
            f"The {adata.n_vars} names in adata.{where} {found}. Run graphfm.genes.align_genes(adata, gene_key=<column "
            'of adata.var with symbols or Ensembl ids>) first, or pass organism="other" to keep every gene outside the '
            "vocabulary."
        )
    return matched


def align_what_is_known(adata: AnnData, *, organism: Organism = "auto") -> GeneReport:
    """As `align_genes`, in place; where the vocabulary knows none of the genes, all are kept outside it.

    Parameters
    ----------
    adata, organism
        As for `align_genes`. Only ``"auto"`` gives way to ``"other"``.
    """
    try:
        return align_genes(adata, organism=organism)
    except ValueError:
        if organism != "auto":
            raise
        logger.info("the vocabulary knows none of the genes: the model reads their graph alone")
        return align_genes(adata, organism="other")


def _report(matched: Matched, organism: str, share: float) -> GeneReport:
    row, count = matched.row, pd.Series(matched.how).value_counts()
    if organism != "other" and (row >= 0).mean() < 0.1:
        logger.warning(
            "Only %d of %d genes are known (%s): for another organism than human or mouse pass organism='other'.",
            (row >= 0).sum(),
            len(row),
            matched.organism,
        )
    return GeneReport(
        organism="other" if organism == "other" else matched.organism,
        id_kind="ensembl" if matched.n_ids * 2 > len(row) else "symbol",
        gene_key=matched.key,
        n_genes=len(row),
        n_matched=int((row >= 0).sum()),
        **{f"n_by_{k}": int(count.get(k, 0)) for k in ("symbol", "id", "alias", "ortholog")},
        n_outside=int((row < 0).sum()),
        n_duplicated=int((row >= 0).sum() - len(np.unique(row[row >= 0]))),
        share_of_counts_matched=share,
        vocabulary_version=vocabulary().version,
        table=pd.DataFrame({"name": matched.names, "row": row, "how": matched.how}),
    )
