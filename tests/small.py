"""Small AnnData and a small model for tests of whole paths."""

import numpy as np
import scipy.sparse as sp
import torch
from anndata import AnnData

from graphfm import GraphFM, datasets, tl


def make_toy(num_cells: int = 60, num_genes: int = 40, **options) -> AnnData:
    """Counts of two slides, with coordinates, without graphs."""
    return datasets.toy(num_cells, num_genes, num_tfs=8, num_types=3, **options)


def make_graphs(num_cells: int = 60, num_genes: int = 40, **options) -> AnnData:
    """The same with a kNN graph and a spatial one."""
    adata = make_toy(num_cells, num_genes, **options)
    tl.build_graphs(adata, library_key="slide")
    return adata


def lively_model(seed: int = 0) -> GraphFM:
    """A tiny model whose attention, branches and biases do something (a fresh one is a plain filter)."""
    model = tl.new_model("tiny", seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for block in model.blocks:
            block.gain.normal_(generator=generator)
            block.mix.normal_(generator=generator)
            block.norm.running_mean.normal_(generator=generator)
            block.edge_bias.relation.weight.normal_(generator=generator)
            block.edge_bias.distance.weight.normal_(generator=generator)
    return model.eval()


def embedding(adata: AnnData, model, **options) -> np.ndarray:
    """Embedding of a copy."""
    result = tl.embed(adata, model, copy=True, **options)
    return result.obsm[options.get("key_added", "X_graphfm")]


def dense(matrix) -> np.ndarray:
    """As an array."""
    return matrix.toarray() if sp.issparse(matrix) else np.asarray(matrix)
