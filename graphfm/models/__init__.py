"""The trunk and its configurations."""

from graphfm.models.graphfm import GraphFM, GraphFMConfig, base, small, tiny

__all__ = ["GraphFM", "GraphFMConfig", "base", "small", "tiny"]
