"""Whom cells listen to: what is read is what the block computes with, whatever the tiles and the order of cells."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import graphfm
from graphfm.nn import GraphBlock
from tests.conftest import make_neighborhood


@pytest.fixture(scope="module")
def cells():
    adata = graphfm.datasets.toy(200, 120, num_tfs=10)
    graphfm.tl.build_graphs(adata, library_key="slide")
    return adata


def test_weights_are_those_of_the_block():
    torch.manual_seed(0)
    nb, block = make_neighborhood(50, 6, isolated=3), GraphBlock(16, num_layers=2, heads=4)
    torch.nn.init.normal_(block.gain)
    torch.nn.init.normal_(block.edge_bias.relation.weight)
    x = torch.randn(50, 16)
    keys, values = block.messages(x)
    weights = block.attention(x, keys, nb)
    heard = torch.einsum("nkh,nkhd->nhd", weights, values.unflatten(1, (4, -1))[nb.index]).flatten(1)
    expected = block._listen(x, nb, keys, values)
    has = (nb.weight > 0).any(1)
    torch.testing.assert_close(nb.weight.sum(1)[has, None] * heard[has], expected[has], rtol=1e-4, atol=1e-5)
    assert (weights[~has] == 0).all() and (weights[nb.weight == 0] == 0).all()


def test_without_heads_and_before_training_it_is_the_graph():
    nb = make_neighborhood(40, 5)
    plain = (nb.weight / nb.weight.sum(1, keepdim=True).clamp(min=1e-12)).unsqueeze(-1)
    for heads in (0, 2):
        block = GraphBlock(8, num_layers=2, heads=heads)
        x = torch.randn(40, 8)
        torch.testing.assert_close(block.attention(x, block.messages(x)[0], nb).mean(-1, keepdim=True), plain)


def test_what_is_written(cells):
    graphfm.tl.attention(cells)
    weights = cells.obsp["attention"]
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    breadth, shift = cells.obs["attention_breadth"], cells.obs["attention_shift"]
    assert shift.between(0.005, 1).all() and shift.mean() > 0.01 and breadth.between(0, 1.5).all()
    row = weights[[0]]
    graph = graphfm.data.prepare.cell_neighborhood(cells)
    plain = np.bincount(graph.index[0], graph.weight[0])
    plain = plain[plain > 0] / plain.sum()
    expected = np.zeros(cells.n_obs)
    expected[: len(np.bincount(graph.index[0]))] = np.bincount(graph.index[0], graph.weight[0])
    assert shift.iloc[0] == pytest.approx(abs(row.toarray()[0] - expected / expected.sum()).sum() / 2, rel=1e-3)
    entropy = [-(p * np.log(p)).sum() for p in (row.data, plain)]
    assert breadth.iloc[0] == pytest.approx(np.exp(entropy[0] - entropy[1]), rel=1e-3)
    untrained = graphfm.tl.new_model("small")
    fresh = graphfm.tl.attention(cells, untrained, layer_number=3, key_added="fresh", copy=True)
    assert fresh.obs["fresh_shift"].max() < 1e-5 and fresh.uns["fresh"]["layer_number"] == 3
    assert "fresh" not in cells.obsp


def test_tiles_and_order_change_nothing(cells):
    graphfm.tl.attention(cells)
    tiled = graphfm.tl.attention(cells, tile_size=37, copy=True)
    np.testing.assert_allclose(tiled.obsp["attention"].toarray(), cells.obsp["attention"].toarray(), atol=1e-6)
    order = np.random.default_rng(0).permutation(cells.n_obs)
    moved = graphfm.tl.attention(cells[order].copy(), copy=True)
    expected = cells.obsp["attention"][order][:, order].toarray()
    np.testing.assert_allclose(moved.obsp["attention"].toarray(), expected, atol=1e-4)


def test_figure_and_bad_input(cells):
    graphfm.tl.attention(cells)
    limits = []
    for slide in ("slide_0", "slide_1"):
        ax = Figure().subplots()
        graphfm.pl.attention(ax, cells, slide=slide, library_key="slide")
        assert len(ax.collections[0].get_offsets()) == (cells.obs["slide"] == slide).sum()
        limits.append(ax.collections[0].get_clim())
    assert limits[0] == limits[1]
    with pytest.raises(ValueError, match="key_added='connectivities'"):
        graphfm.tl.attention(cells, key_added="connectivities")
    with pytest.raises(KeyError, match=r"tl\.attention"):
        graphfm.pl.attention(ax, cells, measure="width")
    with pytest.raises(ValueError, match="8 blocks"):
        graphfm.tl.attention(cells, layer_number=8)


def test_a_cell_without_neighbours_has_no_measure():
    adata = graphfm.datasets.toy(100, 80, num_tfs=8)
    graphfm.tl.build_graphs(adata, relations=("knn",))
    for key in ("connectivities", "distances"):
        graph = adata.obsp[key].tolil()
        graph[0], graph[:, 0] = 0, 0
        adata.obsp[key] = graph.tocsr()
    graphfm.tl.attention(adata)
    assert np.isnan(adata.obs["attention_shift"].iloc[0]) and adata.obsp["attention"][[0]].nnz == 0
    assert adata.obs["attention_shift"].iloc[1:].notna().all()
