"""The kernels of ``_fused`` for torch: arrays, threads, gradients."""

import functools
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphfm.nn._fused import destination_kernel, edge_sort, forward_kernel, source_kernel
from graphfm.nn.attention import computed_in

GROUP_BYTES = 1024
"""Size of the largest vector; beyond it, registers and compile time run out."""

ROWS = 256
"""Rows that a thread takes at a time."""


class FusedAttention(torch.autograd.Function):
    """`neighbor_attention` by kernels; keeps its arguments and two numbers a row and head for the backward."""

    @staticmethod
    def forward(
        ctx,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None,
        table: Tensor,
        mask: Tensor | None,
        storage: torch.dtype | None,
    ) -> Tensor:
        n, heads, dim = q.shape
        table = table.long()
        if table.numel() and not 0 <= (rows := table.aminmax()).min <= rows.max < len(k):
            raise IndexError(f"table: k has the rows 0 to {len(k) - 1}, and table {rows.min} to {rows.max}.")
        if mask is None:
            mask = torch.ones(table.shape, dtype=torch.bool)
        wide = computed_in(q.dtype)
        out, stats = q.new_empty(q.shape, dtype=wide), q.new_empty(n, 2, heads, dtype=wide)
        ctx.group, ctx.sizes = (_head_group(heads, dim, wide.itemsize), dim), (heads * dim, table.shape[1])
        ctx.storage = storage
        q, k, v = (x if storage is None else x.to(storage) for x in (q, k, v))
        ctx.save_for_backward(q, k, v, table, bias, mask, stats)
        arrays = map(_flat, (q, k, v, table, _given(bias, stats), mask, out, stats))
        _run(forward_kernel(*ctx.group), n, *ctx.sizes, *arrays)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, table, bias, mask, stats = ctx.saved_tensors
        need_q, need_k, need_v, need_bias, *_ = ctx.needs_input_grad
        # of each edge and head: its share, and the gradient of its score
        weight, slope = (stats.new_empty(*table.shape, stats.shape[-1]) for _ in range(2))
        dq, dk, dv = (stats.new_empty(x.shape) for x in (q, k, v))
        grad = grad if ctx.storage is None else grad.to(ctx.storage)
        arrays = map(_flat, (q, k, v, table, _given(bias, stats), mask, stats, grad, weight, slope, dq))
        _run(destination_kernel(*ctx.group), len(q), *ctx.sizes, *arrays)
        if need_k or need_v:
            order = edge_sort()(_flat(table), _flat(mask), len(k))
            arrays = (_flat(q), _flat(grad), *order, *map(_flat, (weight, slope, dk, dv)))
            _run(source_kernel(*ctx.group), len(k), *ctx.sizes, *arrays)
        needed = zip((dq, dk, dv, slope), (need_q, need_k, need_v, need_bias), strict=True)
        return *(gradient if need else None for gradient, need in needed), None, None, None


def _head_group(heads: int, dim: int, itemsize: int) -> int:
    """Heads that make one vector: as many as it may hold, in groups of equal size."""
    most = max(GROUP_BYTES // (dim * itemsize), 1)
    return max(group for group in range(1, heads + 1) if heads % group == 0 and group <= most)


def _given(bias: Tensor | None, like: Tensor) -> Tensor:
    return like.new_empty(0) if bias is None else bias


def _flat(x: Tensor) -> np.ndarray:
    """The memory of a tensor; bfloat16, which numpy has not, as integers."""
    x = x.detach().contiguous().view(-1)
    return (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy()


def _run(kernel: Callable, rows: int, *args) -> None:
    """Compute all rows, in blocks that free threads take one after the other; this thread is one of them."""
    starts = deque(range(0, rows, ROWS))

    def work() -> None:
        while True:
            try:
                start = starts.popleft()
            except IndexError:
                return
            kernel(start, min(start + ROWS, rows), *args)

    helpers = min(torch.get_num_threads(), len(starts)) - 1
    waiting = [_pool(helpers).submit(work) for _ in range(helpers)]
    work()
    for future in waiting:
        future.result()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="graphfm-attention")


if hasattr(os, "register_at_fork"):
    # a forked process inherits the pool, but not its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
