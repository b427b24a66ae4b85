"""Shapes are checked at run time in every test; a small graph of cells for those that need no AnnData."""

import os
from pathlib import Path

# before torch: threads that spin stall a shared machine, and workers share it among them
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")  # numba sets OpenMP's for torch, too

from jaxtyping import install_import_hook

install_import_hook(["graphfm.nn", "graphfm.models"], "beartype.beartype")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import scipy.sparse as sp  # noqa: E402
import torch  # noqa: E402

from graphfm.models.graphfm import GraphFM, GraphFMConfig  # noqa: E402
from graphfm.models.inputs import CellGraph  # noqa: E402
from graphfm.nn.neighborhood import Neighborhood  # noqa: E402

VOCABULARY = "test"


@pytest.fixture(scope="session")
def mirror() -> Path:
    """Folder of the real data, where there is one."""
    folder = os.environ.get("GRAPHFM_DATA")
    if not folder:
        pytest.skip("GRAPHFM_DATA is not set: real data are not here")
    return Path(folder)


def make_neighborhood(num_nodes: int, width: int, seed: int = 0, isolated: int = 0) -> Neighborhood:
    """Random symmetric graph with normalised weights and two relations."""
    rng = np.random.default_rng(seed)
    dense = rng.random((num_nodes, num_nodes)) < width / num_nodes
    dense = np.triu(dense, 1)
    dense = dense | dense.T
    dense[:isolated], dense[:, :isolated] = False, False
    degree = np.maximum(dense.sum(1), 1)
    k = max(int(dense.sum(1).max()), 1)
    index, weight = np.zeros((num_nodes, k), dtype=np.int64), np.zeros((num_nodes, k), dtype=np.float32)
    for i in range(num_nodes):
        columns = np.flatnonzero(dense[i])
        index[i, : len(columns)] = columns
        weight[i, : len(columns)] = 1 / np.sqrt(degree[i] * degree[columns])
    relation = (index + np.arange(num_nodes)[:, None]) % 2
    distance = (1.0 + 0.1 * ((index + np.arange(num_nodes)[:, None]) % 5)) * (relation == 1) * (weight > 0)
    return Neighborhood(
        torch.from_numpy(index),
        torch.from_numpy(weight),
        torch.from_numpy(relation),
        torch.from_numpy(distance.astype(np.float32)),
    )


def make_cells(num_cells: int = 120, num_genes: int = 40, components: int = 10, seed: int = 0) -> CellGraph:
    """Counts with three groups of cells, a random graph, genes that the vocabulary knows."""
    rng = np.random.default_rng(seed)
    group = rng.integers(3, size=num_cells)
    rate = np.exp(rng.normal(size=(3, num_genes)))[group]
    counts = sp.csr_matrix(rng.poisson(rate).astype(np.float32))
    totals = np.maximum(np.asarray(counts.sum(1)).ravel(), 1)
    expression = sp.csr_matrix(sp.diags((1e4 / totals).astype(np.float32)) @ counts).astype(np.float32)
    expression.data = np.log1p(expression.data)
    dense = expression.toarray()
    _, _, axes = np.linalg.svd(dense - dense.mean(0), full_matrices=False)
    axes = axes[:components].T.astype(np.float32)
    return CellGraph(
        scores=torch.from_numpy((dense - dense.mean(0)) @ axes),
        expression=expression,
        counts=counts,
        totals=torch.from_numpy(totals.astype(np.float32)),
        gene_rows=torch.arange(num_genes),
        gene_names=np.array([f"gene{i}" for i in range(num_genes)]),
        loadings=torch.from_numpy(axes),
        neighborhood=make_neighborhood(num_cells, 6, seed),
        vocabulary=VOCABULARY,
    )


@pytest.fixture
def cells() -> CellGraph:
    """A small data set."""
    return make_cells()


def make_model(num_genes: int = 40, dim: int = 16, num_layers: int = 3, heads: int = 4, seed: int = 0) -> GraphFM:
    """A small model whose attention and branches do something (a fresh one is a plain filter)."""
    torch.manual_seed(seed)
    model = GraphFM(GraphFMConfig(num_genes, VOCABULARY, dim=dim, num_layers=num_layers, heads=heads))
    with torch.no_grad():
        for block in model.blocks:
            block.gain.normal_()
            block.mix.normal_()
            block.norm.running_mean.normal_()
            block.edge_bias.relation.weight.normal_()
            block.edge_bias.distance.weight.normal_()
    return model.eval()
