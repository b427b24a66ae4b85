"""neighbor_attention against a loop in numpy, and its backends against each other."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfm.nn import attention, attention_backend, neighbor_attention

COMPILER = pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler on a CPU")
BACKENDS = pytest.mark.parametrize("backend", ["torch", "numba"])
# heads and channels a head; each is compiled: vectors of part of a register up to two groups of vectors, odd ones
SHAPES = [(1, 4), (2, 8), (3, 16), (4, 32), (8, 4), (8, 16), (16, 32), (2, 1)]


@pytest.fixture(autouse=True)
def _no_choice_from_outside(monkeypatch):
    monkeypatch.delenv(attention.VARIABLE, raising=False)


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


def problem(seed, nodes=7, sources=9, width=4, heads=2, dk=4, dv=4, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)  # noqa: E731
    table = torch.randint(sources, (nodes, width), generator=g)
    mask = torch.rand(nodes, width, generator=g) < 0.7
    mask[:1] = False
    return (
        rand(nodes, heads, dk),
        rand(sources, heads, dk),
        rand(sources, heads, dv),
        table,
        rand(nodes, width, heads),
        mask,
    )


def with_gradients(q, k, v, table, bias, mask, **how) -> list[torch.Tensor]:
    """Output, and gradients of whatever floats there are, for a gradient that is different everywhere."""
    leaves = [x.detach().requires_grad_() for x in (q, k, v, bias) if x is not None]
    out = neighbor_attention(*leaves[:3], table, leaves[3] if bias is not None else None, mask, **how)
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return [out.detach(), *torch.autograd.grad(out, leaves, weight)]


@BACKENDS
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), width=st.integers(1, 6))
def test_equals_a_loop(backend, seed, width):
    q, k, v, table, bias, mask = problem(seed, width=width)
    out = neighbor_attention(q, k, v, table, bias, mask, backend=backend)
    np.testing.assert_allclose(out, slow(*(x.numpy() for x in (q, k, v, table, bias, mask))), atol=1e-12)


@COMPILER
@pytest.mark.slow
def test_compiled_gather_is_the_gather():
    """One compilation serves any number of nodes and neighbours; isolated nodes and no bias or mask included."""
    for seed, (nodes, width) in enumerate([(7, 4), (12, 3), (30, 6)]):
        q, k, v, table, bias, mask = problem(seed, nodes=nodes, width=width)
        for extra in ((bias, mask), (None, None)):
            expected = with_gradients(q, k, v, table, *extra, backend="torch")
            for ours, theirs in zip(with_gradients(q, k, v, table, *extra, backend="compiled"), expected, strict=True):
                torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


@BACKENDS
def test_isolated_node_gets_zeros_and_no_nan_gradient(backend):
    out, *gradients = with_gradients(*problem(0), backend=backend)
    assert (out[0] == 0).all() and all(torch.isfinite(g).all() for g in gradients)
    assert (gradients[0][0] == 0).all() and (gradients[3][0] == 0).all()


@BACKENDS
def test_nan_scores_stay_nan(backend):
    q, k, v, table, bias, mask = problem(0)
    q[3] = float("nan")
    mask[3] = True
    out = neighbor_attention(q, k, v, table, bias, mask, backend=backend)
    assert out[3].isnan().all() and not out[4].isnan().any()


@BACKENDS
@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_one_score_that_is_no_number(backend, score):
    q, k, v, table, bias, mask = problem(0)
    mask[3] = True
    bias[3, 1, 0] = score
    out = neighbor_attention(q, k, v, table, bias, mask, backend=backend)
    assert out[3, 0].isnan().all() == (score != float("-inf")) and not out[3, 1].isnan().any()
    bias[3, :, 0] = score
    assert neighbor_attention(q, k, v, table, bias, mask, backend=backend)[3, 0].isnan().all()


@BACKENDS
def test_scores_far_apart(backend):
    q, k, v, table, bias, mask = problem(0)
    bias *= 1000
    mask[3] = True
    for dtype in (torch.float32, torch.float64):
        q, k, v, bias = (x.to(dtype) for x in (q, k, v, bias))
        out = neighbor_attention(q, k, v, table, bias, mask, backend=backend)
        torch.testing.assert_close(out[3, 0], v[table[3, bias[3, :, 0].argmax()], 0])


@BACKENDS
def test_gradients(backend):
    q, k, v, table, bias, mask = problem(1)
    tensors = [t.requires_grad_(True) for t in (q, k, v, bias)]
    assert torch.autograd.gradcheck(
        lambda q, k, v, bias: neighbor_attention(q, k, v, table, bias, mask, backend=backend), tensors
    )


@BACKENDS
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_order_of_neighbours_does_not_matter(backend, seed):
    q, k, v, table, bias, mask = problem(seed)
    order = torch.randperm(table.shape[1], generator=torch.Generator().manual_seed(seed))
    a = neighbor_attention(q, k, v, table, bias, mask, backend=backend)
    b = neighbor_attention(q, k, v, table[:, order], bias[:, order], mask[:, order], backend=backend)
    torch.testing.assert_close(a, b)


@BACKENDS
def test_scatter_softmax_of_pyg_gives_the_same(backend):
    """The padded form equals torch_geometric's softmax over an edge list, with torch-scatter or without."""
    from torch_geometric.utils import scatter, softmax

    q, k, v, table, bias, mask = problem(2)
    target, slot = mask.nonzero(as_tuple=True)
    source = table[target, slot]
    score = (q[target] * k[source]).sum(-1) + bias[target, slot]
    weight = softmax(score, target, num_nodes=len(q))
    out = scatter(weight.unsqueeze(-1) * v[source], target, dim=0, dim_size=len(q), reduce="sum")
    torch.testing.assert_close(out, neighbor_attention(q, k, v, table, bias, mask, backend=backend))


def test_torch_scatter_gives_the_same_as_plain_torch():
    torch_scatter = pytest.importorskip("torch_scatter", reason="the extra graphfm[scatter] is not installed")
    q, _, v, table, _, mask = problem(3)
    target, slot = mask.nonzero(as_tuple=True)
    values = v[table[target, slot]]
    mine = torch.zeros(len(q), *v.shape[1:], dtype=v.dtype).index_add_(0, target, values)
    torch.testing.assert_close(torch_scatter.scatter(values, target, dim=0, dim_size=len(q), reduce="sum"), mine)


# the kernel against torch


@settings(max_examples=100, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    double=st.booleans(),
    nodes=st.integers(0, 12),
    sources=st.integers(1, 12),
    width=st.integers(1, 9),
    biased=st.booleans(),
    masked=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_backends_give_the_same(shape, double, nodes, sources, width, biased, masked, seed):
    dtype, (heads, dim) = torch.float64 if double else torch.float32, shape
    q, k, v, table, bias, mask = problem(seed, nodes, sources, width, heads, dim, dim, dtype)
    arguments = q / dim**0.5, k, v, table, bias if biased else None, mask if masked else None
    tolerance = 1e-12 if double else 1e-5
    for a, b in zip(*(with_gradients(*arguments, backend=name) for name in ("torch", "numba")), strict=True):
        # what cancels out exactly in one is rounding in the other
        size = max(1.0, float(a.abs().max())) if a.numel() else 0.0
        torch.testing.assert_close(b, a, rtol=tolerance, atol=tolerance * size)


def test_many_edges_of_one_source():
    q, k, v, table, bias, mask = problem(4, nodes=600, sources=3)
    for a, b in zip(*(with_gradients(q, k, v, table, bias, mask, backend=n) for n in ("torch", "numba")), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_threads_change_no_bit():
    arguments, before, found = problem(5, nodes=3000, sources=2500, dtype=torch.float32), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(with_gradients(*arguments, backend="numba"))
    finally:
        torch.set_num_threads(before)
    for results in zip(*found, strict=True):
        assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_memory_layout_does_not_matter():
    q, k, v, table, bias, mask = problem(6)
    turned = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in (q, k, v, table, bias, mask)]
    assert not turned[0].is_contiguous()
    expected = with_gradients(q, k, v, table, bias, mask, backend="numba")
    for a, b in zip(with_gradients(*turned, backend="numba"), expected, strict=True):
        assert torch.equal(a, b)
    leaf = q.clone().requires_grad_()
    neighbor_attention(leaf, k, v, table, bias, mask, backend="numba").sum().backward()  # its gradient has no strides
    assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("wanted", range(4))
def test_one_gradient_alone(wanted):
    q, k, v, table, bias, mask = problem(7)
    leaves = [x.detach().requires_grad_(i == wanted) for i, x in enumerate((q, k, v, bias))]
    neighbor_attention(*leaves[:3], table, leaves[3], mask, backend="numba").square().sum().backward()
    assert [leaf.grad is not None for leaf in leaves] == [i == wanted for i in range(4)]


def test_no_second_derivative():
    q, k, v, table, bias, mask = problem(8)
    q.requires_grad_()
    out = neighbor_attention(q, k, v, table, bias, mask, backend="numba")
    (gradient,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.sum().backward()


@BACKENDS
def test_a_table_that_points_nowhere(backend):
    q, k, v, table, bias, mask = problem(9)
    for row in (-1, len(k)):
        table[2, 1] = row
        with pytest.raises(IndexError):
            neighbor_attention(q, k, v, table, bias, mask, backend=backend)


def test_a_forked_process_has_threads_of_its_own():
    code = (
        "import os, torch; from graphfm.nn import neighbor_attention\n"
        "torch.set_num_threads(2)\n"
        "x, table = torch.ones(2000, 2, 4), torch.zeros(2000, 3, dtype=torch.long)\n"
        "call = lambda: neighbor_attention(x, x, x, table, backend='numba')\n"
        "call(); child = os.fork()\n"
        "if child == 0:\n    call(); os._exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "7", done.stderr


@pytest.mark.parametrize("name", ["torch", "numba"])
def test_bfloat16_storage(name):
    """Errors stay below 1 % of the largest value, for scores as the block has them (cosines, and a bias)."""
    q, k, v, table, bias, mask = problem(10, 300, 300, 15, 8, 16, 16, torch.float32)
    q, k = (torch.nn.functional.normalize(x, dim=-1) for x in (q, k))
    exact = with_gradients(q, k, v, table, bias, mask, backend="torch")
    rounded = with_gradients(q, k, v, table, bias, mask, backend=name, storage="bfloat16")
    error = [float((a - b).abs().max() / a.abs().max()) for a, b in zip(exact, rounded, strict=True)]
    assert min(error) > 0 and max(error) < 0.01, error


@BACKENDS
def test_bfloat16_arguments_are_what_is_stored(backend):
    """As autocast makes them: the same numbers, in float32."""
    q, k, v, table, bias, mask = problem(10, 50, 60, 5, 2, 8, 8, torch.float32)
    rounded = [x.bfloat16() for x in (q, k, v)]
    ours = with_gradients(*rounded, table, bias, mask, backend=backend, storage="bfloat16")
    theirs = with_gradients(*(x.float() for x in rounded), table, bias, mask, backend=backend, storage="bfloat16")
    assert ours[0].dtype == torch.float32 and [x.dtype for x in ours[1:4]] == [torch.bfloat16] * 3
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.float(), b, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(ours[0], theirs[0])


# which backend


def test_unsuited_sizes_fall_back_or_raise():
    cases = {
        "3 channels": problem(0, dk=3, dv=3),
        "v is": problem(0, dv=8),
        "float16": [x.half() if x.is_floating_point() else x for x in problem(0)],
    }
    for reason, arguments in cases.items():
        torch.testing.assert_close(neighbor_attention(*arguments), neighbor_attention(*arguments, backend="torch"))
        with pytest.raises(ValueError, match=f"backend='numba' .*{reason}.* Choose 'torch'"):
            neighbor_attention(*arguments, backend="numba")
    q, k, v, table, bias, mask = problem(0)
    with pytest.raises(ValueError, match=r"bias is torch.float32 .* needs torch.float64"):
        neighbor_attention(q, k, v, table, bias.float(), mask, backend="numba")
    with pytest.raises(ValueError, match="storage='bfloat16' is for float32"):
        neighbor_attention(q, k, v, table, bias, mask, backend="numba", storage="bfloat16")


def test_the_environment_chooses(monkeypatch):
    assert attention_backend("cpu", torch.float32, 8) == "numba"
    assert attention_backend("cpu", torch.float32, 12) == attention_backend("cuda", torch.float32, 8) == "torch"
    arguments = problem(0, dk=3, dv=3)
    monkeypatch.setenv(attention.VARIABLE, "numba")
    with pytest.raises(ValueError, match="GRAPHFM_ATTENTION='numba' cannot be"):
        neighbor_attention(*arguments)
    neighbor_attention(*arguments, backend="torch")
    monkeypatch.setenv(attention.VARIABLE, "torch")
    assert attention_backend("cpu", torch.float32, 8) == "torch"
    monkeypatch.setenv(attention.VARIABLE, "fast")
    with pytest.raises(ValueError, match="GRAPHFM_ATTENTION='fast': there is no such backend"):
        neighbor_attention(*arguments)


def test_without_numba(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    attention._numba_fails.cache_clear()
    try:
        assert attention_backend("cpu", torch.float32, 8) == "torch"
        with pytest.raises(ValueError, match="numba cannot be imported"):
            neighbor_attention(*problem(0), backend="numba")
    finally:
        attention._numba_fails.cache_clear()


def test_numba_is_imported_on_first_use():
    code = "import sys, graphfm.nn, graphfm.models; print({'numba', 'llvmlite'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "set()"
