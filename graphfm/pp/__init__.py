"""The graphs of a data set: cells that look alike, cells that touch, genes that regulate each other."""

from graphfm.pp.hetero import hetero_graph
from graphfm.pp.knn import knn_graph
from graphfm.pp.regulatory import regulatory_graph
from graphfm.pp.spatial import spatial_graph

__all__ = ["hetero_graph", "knn_graph", "regulatory_graph", "spatial_graph"]
