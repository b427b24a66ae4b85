"""Reading, writing and checking data: from whatever the user has to counts that a model may trust."""

from graphfm.io.files import as_anndata, read, write
from graphfm.io.matrix import counts, expression
from graphfm.io.recover import recover_counts

__all__ = ["as_anndata", "counts", "expression", "read", "recover_counts", "write"]
