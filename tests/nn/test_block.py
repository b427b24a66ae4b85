"""The block: what it is at the start, what it is invariant to."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfm.nn import GraphBlock, Neighborhood
from graphfm.nn.stem import polar
from tests.conftest import make_model, make_neighborhood


def dense_operator(nb: Neighborhood) -> np.ndarray:
    dense = np.zeros((len(nb), len(nb)))
    for i in range(len(nb)):
        for j, w in zip(nb.index[i].tolist(), nb.weight[i].tolist(), strict=True):
            dense[i, j] += w
    return dense


def test_fresh_block_is_anchored_lazy_propagation():
    nb = make_neighborhood(30, 5, isolated=2)
    block = GraphBlock(16, layer=3, num_layers=8, heads=4, anchor=0.2)
    torch.nn.init.zeros_(block.mix)
    h, h0 = torch.randn(30, 16), torch.randn(30, 16)
    a = dense_operator(nb)
    a[:2, :2] = np.eye(2)  # isolated nodes keep their state
    expected = 0.8 * 0.5 * (h + torch.from_numpy(a).float() @ h) + 0.2 * h0
    torch.testing.assert_close(block(h, h0, nb), expected, atol=1e-5, rtol=1e-5)


def test_fresh_stack_keeps_singular_values_above_the_anchor():
    """At every depth, while the gain is zero: sigma_k(h_L) >= a sigma_k(h_0)."""
    nb, a = make_neighborhood(60, 6), 0.1
    h0 = torch.randn(60, 16)
    h, before = h0, torch.linalg.svdvals(h0)
    for layer in range(1, 65):
        block = GraphBlock(16, layer=layer, num_layers=64, heads=4, anchor=a)
        torch.nn.init.zeros_(block.mix)
        h = block(h, h0, nb)
        assert (torch.linalg.svdvals(h) >= a * before - 1e-4).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_permutation_of_nodes(seed):
    nb, model = make_neighborhood(25, 5, seed=seed, isolated=1), make_model(seed=seed)
    g = torch.Generator().manual_seed(seed)
    h0, order = torch.randn(25, 16, generator=g), torch.randperm(25, generator=g)
    inverse = torch.argsort(order)
    moved = nb.take(order)
    moved = Neighborhood(inverse[moved.index], moved.weight, moved.relation, moved.distance)
    torch.testing.assert_close(model(h0[order], moved), model(h0, nb)[order], atol=1e-5, rtol=1e-5)


def test_padding_changes_nothing():
    nb, model, h0 = make_neighborhood(25, 5), make_model(), torch.randn(25, 16)
    pad = lambda x: torch.cat([x, torch.zeros_like(x)], dim=1)  # noqa: E731
    wide = Neighborhood(pad(nb.index), pad(nb.weight), pad(nb.relation), pad(nb.distance))
    torch.testing.assert_close(model(h0, wide), model(h0, nb), atol=1e-5, rtol=1e-5)


def test_every_parameter_learns():
    """After one step away from the start no parameter of the trunk is without a gradient."""
    model, nb, h0 = make_model(), make_neighborhood(25, 5), torch.randn(25, 16)
    model(h0, nb).square().sum().backward()
    silent = [n for n, p in model.blocks.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not silent


def test_polar_is_the_nearest_orthonormal_matrix():
    a = torch.randn(6, 16, dtype=torch.float64)
    u, _, vt = np.linalg.svd(a.numpy(), full_matrices=False)
    np.testing.assert_allclose(polar(a), u @ vt, atol=1e-8)


def test_localize_finds_the_same_edges():
    nb = make_neighborhood(40, 5)
    rows = torch.tensor([3, 17, 8, 30])
    nodes, local = nb.localize(rows)
    assert nodes[:4].tolist() == rows.tolist() and len(set(nodes.tolist())) == len(nodes)
    edge = nb.weight[rows] > 0
    assert torch.equal(nodes[local.index][edge], nb.index[rows][edge])
    inner_nodes, inner = nb.localize(rows, halo=0)
    assert torch.equal(inner_nodes, rows)
    sums = inner.weight.sum(1)
    kept = sums > 0
    torch.testing.assert_close(sums[kept], nb.weight[rows].sum(1)[kept])
