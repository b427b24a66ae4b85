"""R objects as `rdata` gives them, turned into matrices and tables. Needs the extra ``prep`` (rdata)."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp


def read_r(path: Path) -> Any:
    """Objects of an ``.rda``/``.RData`` by name, or the one object of an ``.rds``."""
    try:
        import rdata
    except ImportError:
        raise ImportError("this source is an R file. Install the reader: pip install 'graphfm[prep]'") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes without a constructor become plain namespaces, which is what we read
        if path.suffix.lower() == ".rds":
            return rdata.read_rds(path)
        return {str(name): value for name, value in rdata.read_rda(path).items()}


def _texts(values: Any) -> list[str] | None:
    return None if values is None else [str(value) for value in np.asarray(values).ravel()]


def matrix(obj: Any) -> tuple[sp.csr_matrix, list[str] | None, list[str] | None]:
    """A genes x cells matrix of R as (cells x genes, genes, cells); names are None where R has none.

    Reads a column-compressed ``dgCMatrix``, a matrix with names (xarray), a data frame, or a bare array.
    """
    if hasattr(obj, "i") and hasattr(obj, "p") and hasattr(obj, "Dim"):
        shape = tuple(int(size) for size in obj.Dim)
        # a compressed column of genes x cells is a compressed row of cells x genes
        values = sp.csr_matrix((np.asarray(obj.x), np.asarray(obj.i), np.asarray(obj.p)), shape=shape[::-1])
        genes, cells = (_texts(names) for names in obj.Dimnames)
        return values, genes, cells
    if isinstance(obj, pd.DataFrame):
        return sp.csr_matrix(obj.to_numpy().T), _texts(obj.index), _texts(obj.columns)
    if hasattr(obj, "coords"):
        genes, cells = (_texts(obj.coords[dim].values) if dim in obj.coords else None for dim in obj.dims)
        return sp.csr_matrix(np.asarray(obj.values).T), genes, cells
    if isinstance(obj, np.ndarray) and obj.ndim == 2:
        return sp.csr_matrix(obj.T), None, None
    raise TypeError(f"not a matrix of R: {type(obj).__name__}")


def frame(obj: Any) -> pd.DataFrame:
    """A ``data.frame``, or the ``DFrame`` of Bioconductor, as a table."""
    if isinstance(obj, pd.DataFrame):
        return obj
    columns = {str(name): np.asarray(values) for name, values in obj.listData.items()}
    rows = _texts(getattr(obj, "rownames", None))
    return pd.DataFrame(columns, index=rows)


def experiment(obj: Any, *, assay: str = "counts") -> tuple[sp.csr_matrix, list[str], pd.DataFrame]:
    """A ``SingleCellExperiment`` as (cells x genes, genes, colData).

    Raises
    ------
    ValueError
        The object keeps its gene names where this reader does not look.
    """
    holder = getattr(obj.assays, "data", None)
    if holder is None:  # before Bioconductor 3.10 the list hides in an environment
        holder = vars(obj.assays)[".xData"]["data"]
    listed = getattr(holder, "listData", holder)
    values, genes, cells = matrix(listed[assay])
    table = frame(obj.colData)
    if cells is not None and isinstance(table.index, pd.RangeIndex):
        table.index = cells
    genes = genes or _texts(getattr(obj, "NAMES", None)) or _partition_names(obj)
    if not genes:
        raise ValueError("the SingleCellExperiment has no gene names in its assay, NAMES or rowRanges")
    return values, genes, table


def _partition_names(obj: Any) -> list[str] | None:
    ranges = getattr(obj, "rowRanges", None)
    return _texts(getattr(getattr(ranges, "partitioning", None), "NAMES", None))
