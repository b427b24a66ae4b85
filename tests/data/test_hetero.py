"""The trunk on cells and genes together."""

import numpy as np
import pytest
import torch

import graphfm
from graphfm.data.hetero import hetero_neighborhood
from graphfm.data.prepare import cell_graph, cell_neighborhood
from graphfm.nn.neighborhood import RELATIONS


@pytest.fixture(scope="module")
def adata():
    toy = graphfm.datasets.toy(num_cells=150, num_genes=80)
    graphfm.tl.build_graphs(toy, library_key="slide")
    graphfm.pp.regulatory_graph(toy)
    graphfm.genes.align_genes(toy)
    return toy


def states(adata, relations=None):
    model = graphfm.tl.new_model("tiny")
    cells = cell_graph(adata, all_genes=True)
    graph, rows = hetero_neighborhood(graphfm.pp.hetero_graph(adata, relations=relations))
    h = model(torch.cat([model.stem_cells(cells), model.stem_genes(cells)]), graph).detach()
    return h[rows["cell"]], h[rows["gene"]]


def test_genes_reach_cells_and_cells_reach_genes(adata):
    cell_full, gene_full = states(adata)
    cell_alone, gene_alone = states(adata, ["knn", "spatial"])
    assert cell_full.shape == (150, 64) and gene_full.shape == (80, 64)
    assert (cell_full - cell_alone).abs().max() > 1e-3
    assert (gene_full - gene_alone).abs().max() > 1e-3


def test_peaks_reach_cells(adata):
    """Open chromatin takes part in message passing: without it the states of cells are others."""
    peaks = graphfm.datasets.toy(num_cells=150, num_genes=90, seed=5)
    peaks.obs_names, peaks.var["gene"] = adata.obs_names, adata.var_names[np.arange(90) % 80]
    model, cells = graphfm.tl.new_model("tiny"), cell_graph(adata, all_genes=True)
    stems = [
        model.stem_cells(cells),
        model.stem_genes(cells),
        torch.randn(90, 32, generator=torch.Generator().manual_seed(0)),
    ]
    graph, rows = hetero_neighborhood(graphfm.pp.hetero_graph(adata, peaks=peaks))
    without = hetero_neighborhood(graphfm.pp.hetero_graph(adata))[0]
    full, less = model(torch.cat(stems), graph).detach(), model(torch.cat(stems[:2]), without).detach()
    assert list(rows) == ["cell", "gene", "peak"] and len(full) == 150 + 80 + 90
    for kind in ("cell", "gene"):
        assert (full[rows[kind]] - less[rows[kind]]).abs().max() > 1e-3
    with pytest.raises(ValueError, match="same cells"):
        graphfm.pp.hetero_graph(adata, peaks=peaks[::-1].copy())
    twice = adata.copy()
    twice.var_names = [*adata.var_names[:-1], adata.var_names[0]]
    with pytest.raises(ValueError, match="var_names are not unique"):
        graphfm.pp.hetero_graph(twice, peaks=peaks)


def test_cell_relations_alone_are_the_cell_graph(adata):
    graph, rows = hetero_neighborhood(graphfm.pp.hetero_graph(adata, relations=["knn", "spatial"]))
    part = graph.part(0, 150)
    assert rows["cell"] == slice(0, 150)
    plain = cell_neighborhood(adata)
    assert (part.index[part.weight > 0] < 150).all()
    dense = lambda nb: torch.zeros(150, 150).scatter_add_(1, nb.index * (nb.weight > 0), nb.weight)  # noqa: E731
    # spatial kNN is one-sided in squidpy; only the cell graph makes it symmetric, so compare what both have
    both = (dense(part) > 0) & (dense(plain) > 0)
    assert both.sum() > 0.9 * (dense(part) > 0).sum()


def test_signs_become_relation_types(adata):
    graph, rows = hetero_neighborhood(graphfm.pp.hetero_graph(adata, relations=["coexpressed"]))
    part = graph.part(rows["gene"].start, rows["gene"].stop)
    kinds = {RELATIONS[r] for r in part.relation[part.weight > 0].tolist()}
    assert kinds == {"coexpressed", "anticoexpressed"}
    assert (graph.weight[rows["cell"]] == 0).all()


def test_relations_together_are_a_contraction(adata):
    """The depth theorem asks for it; between cells the operator is also symmetric."""
    for graph in (cell_neighborhood(adata), hetero_neighborhood(graphfm.pp.hetero_graph(adata))[0]):
        operator = torch.zeros(len(graph), len(graph), dtype=torch.float64)
        for column, weight in zip(graph.index.T, graph.weight.T, strict=True):
            operator[torch.arange(len(graph)), column] += weight.double()
        assert torch.linalg.matrix_norm(operator, ord=2) <= 1 + 1e-5
    cells = torch.zeros(150, 150).scatter_add_(1, (nb := cell_neighborhood(adata)).index, nb.weight)
    torch.testing.assert_close(cells, cells.T)
