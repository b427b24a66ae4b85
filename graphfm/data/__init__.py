"""Graphs as tables of neighbours, and mini-batches of them."""

from graphfm.data.convert import from_hetero, from_networkx, to_hetero, to_networkx
from graphfm.data.graph import NeighborTable, attributes_to_csr, symmetric_normalize, table_from_csr, table_to_csr

__all__ = [
    "NeighborTable",
    "attributes_to_csr",
    "from_hetero",
    "from_networkx",
    "symmetric_normalize",
    "table_from_csr",
    "table_to_csr",
    "to_hetero",
    "to_networkx",
]
