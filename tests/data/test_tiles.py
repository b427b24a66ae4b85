"""Tiles: every node once, or as often as it is wanted; neighbours together."""

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfm.data.tiles import epoch_batches, locality_order, rarity_weights
from graphfm.nn import Neighborhood
from tests.conftest import make_cells


def neighborhood(graph: nx.Graph) -> Neighborhood:
    """Nodes 0 to n - 1 of a graph, all edges alike."""
    n, width = len(graph), max(degree for _, degree in graph.degree)
    index, weight = torch.zeros(n, width).long(), torch.zeros(n, width)
    for node in graph:
        for slot, other in enumerate(graph[node]):
            index[node, slot], weight[node, slot] = int(other), 1
    return Neighborhood(index, weight, torch.zeros(n, width).long(), torch.zeros(n, width))


def test_epoch_covers_every_cell_once_and_follows_from_the_seed():
    cells = make_cells()
    order = locality_order(cells.neighborhood)
    assert sorted(order.tolist()) == list(range(cells.num_cells))
    settings_ = {"tile_size": 7, "tiles_per_batch": 3, "seed": 5}
    first = [b.tolist() for b in epoch_batches(order, epoch=2, **settings_)]
    assert sorted(cell for batch in first for cell in batch) == list(range(cells.num_cells))
    assert first == [b.tolist() for b in epoch_batches(order, epoch=2, **settings_)]
    assert first != [b.tolist() for b in epoch_batches(order, epoch=3, **settings_)]


@pytest.mark.parametrize("tile_size", [32, 1000])
def test_locality_order_brings_neighbours_together(tile_size):
    """A shuffled lattice comes back in tiles with few neighbours outside; within one part its bandwidth is small."""
    shuffled = np.random.default_rng(0).permutation(1024)
    lattice = nx.relabel_nodes(nx.convert_node_labels_to_integers(nx.grid_2d_graph(32, 32)), dict(enumerate(shuffled)))
    nb = neighborhood(lattice)
    order = locality_order(nb, tile_size)
    assert sorted(order.tolist()) == list(range(1024))
    outside = np.mean([len(nb.outside(tile)) / len(tile) for tile in order.split(32)])
    scattered = np.mean([len(nb.outside(tile)) / len(tile) for tile in torch.arange(1024).split(32)])
    # rows of a lattice have 2 a node, 4 x 8 rectangles 0.75; scattered nodes about 4
    assert outside < (1.3 if tile_size == 32 else 2.2) and scattered > 3


@pytest.mark.parametrize("directed", [False, True])
def test_locality_order_takes_any_graph(directed):
    """Edges in one direction, self-loops, nodes alone, no edge at all."""
    index = torch.randint(300, (300, 3), generator=torch.Generator().manual_seed(0))
    weight = torch.ones(300, 3) if directed else torch.zeros(300, 3)
    weight[:20] = 0
    order = locality_order(Neighborhood(index, weight, torch.zeros(300, 3).long(), torch.zeros(300, 3)), 16)
    assert sorted(order.tolist()) == list(range(300))


def test_small_communities_are_wanted_more_often():
    """Three cliques of 60, 20 and 2: the weights are their sizes' powers, the last counted as a tile of 5."""
    cliques = nx.disjoint_union_all([nx.complete_graph(size) for size in (60, 20, 2)])
    size = np.repeat([60, 20, 5], [60, 20, 2])
    for exponent in (0.0, 0.5, 1.0):
        weight = rarity_weights(neighborhood(cliques), exponent, tile_size=5).numpy()
        np.testing.assert_allclose(weight, size**-exponent / (size**-exponent).mean(), rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(5, 60), tile_size=st.integers(1, 9), tiles_per_batch=st.integers(1, 4), seed=st.integers(0, 99))
def test_nodes_are_met_as_often_as_they_are_wanted(n, tile_size, tiles_per_batch, seed):
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    weight = torch.rand(n, generator=torch.Generator().manual_seed(seed + 1)) * 3
    given = {"tile_size": tile_size, "tiles_per_batch": tiles_per_batch, "seed": seed, "epoch": 1}
    batches = list(epoch_batches(order, weight=weight, **given))
    assert all(len(batch.unique()) == len(batch) <= tile_size * tiles_per_batch for batch in batches)
    # the same cuts as without weights, every tile as often as it is wanted, rounded up or down
    tiles = list(epoch_batches(order, **{**given, "tiles_per_batch": 1}))
    met = torch.bincount(torch.cat(batches), minlength=n) if batches else torch.zeros(n)
    for tile in tiles:
        times = met[tile].unique()
        assert len(times) == 1 and abs(float(times) - float(weight[tile].mean())) <= 1
    alike = [batch.tolist() for batch in epoch_batches(order, weight=torch.ones(n), **given)]
    assert sorted(node for batch in alike for node in batch) == list(range(n))
