"""Reading, writing and checking data: from whatever the user has to counts that a model may trust."""

from graphfm.io.files import annotate, as_anndata, cell_files, read, write
from graphfm.io.matrix import counts, expression, row_chunks, typical_sum
from graphfm.io.recover import recover_counts

__all__ = [
    "annotate",
    "as_anndata",
    "cell_files",
    "counts",
    "expression",
    "read",
    "recover_counts",
    "row_chunks",
    "typical_sum",
    "write",
]
