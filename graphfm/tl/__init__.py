"""Tools: from AnnData to AnnData with a trained model."""

from graphfm.tl.annotation import annotate
from graphfm.tl.attention import attention
from graphfm.tl.domains import niches, spatial_domains
from graphfm.tl.embedding import embed, layer_states
from graphfm.tl.evaluation import evaluate
from graphfm.tl.graphs import build_graphs
from graphfm.tl.imputation import impute
from graphfm.tl.integration import integrate
from graphfm.tl.knowledge import pretrain_grn
from graphfm.tl.leakage import Leakage, leakage
from graphfm.tl.networks import infer_grn
from graphfm.tl.rare import find_rare, rare_limit
from graphfm.tl.regulons import grn_to_networkx, regulon_activity
from graphfm.tl.slices import align_slices
from graphfm.tl.training import new_model, prepare, pretrain

__all__ = [
    "Leakage",
    "align_slices",
    "annotate",
    "attention",
    "build_graphs",
    "embed",
    "evaluate",
    "find_rare",
    "grn_to_networkx",
    "impute",
    "infer_grn",
    "integrate",
    "layer_states",
    "leakage",
    "new_model",
    "niches",
    "prepare",
    "pretrain",
    "pretrain_grn",
    "rare_limit",
    "regulon_activity",
    "spatial_domains",
]
