"""Building blocks of the trunk: pure torch, no AnnData."""

from graphfm.nn.attention import attention_backend, neighbor_attention
from graphfm.nn.block import GraphBlock, Readout
from graphfm.nn.heads import NegativeBinomialHead
from graphfm.nn.neighborhood import RELATIONS, Neighborhood
from graphfm.nn.norm import NodeNorm, calibrate
from graphfm.nn.stem import GeneStem

__all__ = [
    "RELATIONS",
    "GeneStem",
    "GraphBlock",
    "NegativeBinomialHead",
    "Neighborhood",
    "NodeNorm",
    "Readout",
    "attention_backend",
    "calibrate",
    "neighbor_attention",
]
