"""neighbor_attention against a loop in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfm.nn import neighbor_attention


def slow(q, k, v, table, bias, mask):
    out = np.zeros((q.shape[0], q.shape[1], v.shape[2]))
    for i in range(q.shape[0]):
        for head in range(q.shape[1]):
            edges = np.flatnonzero(mask[i])
            if not len(edges):
                continue
            score = np.array([q[i, head] @ k[table[i, e], head] + bias[i, e, head] for e in edges])
            weight = np.exp(score - score.max())
            out[i, head] = (weight / weight.sum()) @ v[table[i, edges], head]
    return out


def problem(seed, nodes=7, sources=9, width=4, heads=2, dk=3, dv=5):
    g = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    table = torch.randint(sources, (nodes, width), generator=g)
    mask = torch.rand(nodes, width, generator=g) < 0.7
    mask[0] = False
    return (
        rand(nodes, heads, dk),
        rand(sources, heads, dk),
        rand(sources, heads, dv),
        table,
        rand(nodes, width, heads),
        mask,
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), width=st.integers(1, 6))
def test_equals_a_loop(seed, width):
    q, k, v, table, bias, mask = problem(seed, width=width)
    out = neighbor_attention(q, k, v, table, bias, mask)
    np.testing.assert_allclose(out, slow(*(x.numpy() for x in (q, k, v, table, bias, mask))), atol=1e-12)


def test_isolated_node_gets_zeros_and_no_nan_gradient():
    q, k, v, table, bias, mask = problem(0)
    q.requires_grad_(True)
    out = neighbor_attention(q, k, v, table, bias, mask)
    out.sum().backward()
    assert (out[0] == 0).all() and torch.isfinite(q.grad).all()


def test_nan_scores_stay_nan():
    q, k, v, table, bias, mask = problem(0)
    q[3] = float("nan")
    mask[3] = True
    assert neighbor_attention(q, k, v, table, bias, mask)[3].isnan().all()


def test_gradients():
    q, k, v, table, bias, mask = problem(1)
    tensors = [t.requires_grad_(True) for t in (q, k, v)]
    assert torch.autograd.gradcheck(lambda a, b, c: neighbor_attention(a, b, c, table, bias, mask), tensors)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_order_of_neighbours_does_not_matter(seed):
    q, k, v, table, bias, mask = problem(seed)
    order = torch.randperm(table.shape[1], generator=torch.Generator().manual_seed(seed))
    a = neighbor_attention(q, k, v, table, bias, mask)
    b = neighbor_attention(q, k, v, table[:, order], bias[:, order], mask[:, order])
    torch.testing.assert_close(a, b)


def test_scatter_softmax_of_pyg_gives_the_same():
    """The padded form equals torch_geometric's softmax over an edge list, with torch-scatter or without."""
    from torch_geometric.utils import scatter, softmax

    q, k, v, table, bias, mask = problem(2)
    target, slot = mask.nonzero(as_tuple=True)
    source = table[target, slot]
    score = (q[target] * k[source]).sum(-1) + bias[target, slot]
    weight = softmax(score, target, num_nodes=len(q))
    out = scatter(weight.unsqueeze(-1) * v[source], target, dim=0, dim_size=len(q), reduce="sum")
    torch.testing.assert_close(out, neighbor_attention(q, k, v, table, bias, mask))


def test_torch_scatter_gives_the_same_as_plain_torch():
    torch_scatter = pytest.importorskip("torch_scatter", reason="the extra graphfm[scatter] is not installed")
    q, _, v, table, _, mask = problem(3)
    target, slot = mask.nonzero(as_tuple=True)
    values = v[table[target, slot]]
    mine = torch.zeros(len(q), *v.shape[1:], dtype=v.dtype).index_add_(0, target, values)
    torch.testing.assert_close(torch_scatter.scatter(values, target, dim=0, dim_size=len(q), reduce="sum"), mine)
