"""Attention over a padded table of neighbours: one function, three backends."""

import functools
import logging
import os
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

logger = logging.getLogger(__name__)

Backend = Literal["auto", "torch", "compiled", "numba"]
VARIABLE = "GRAPHFM_ATTENTION"
"""Environment variable that chooses the backend where the caller leaves it at "auto"."""

HEAD_DIMS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Channels a head that the kernel can compute."""


def neighbor_attention(
    q: Float[Tensor, "n heads dk"],
    k: Float[Tensor, "s heads dk"],
    v: Float[Tensor, "s heads dv"],
    table: Int[Tensor, "n k"],
    bias: Float[Tensor, "n k heads"] | None = None,
    mask: Bool[Tensor, "n k"] | None = None,
    *,
    backend: Backend = "auto",
    storage: Literal["bfloat16"] | None = None,
) -> Float[Tensor, "n heads dv"]:
    r"""Mean of each node's neighbours, weighted by a softmax over them.

    .. math::
        o_i = \sum_j \operatorname{softmax}_j(q_i \cdot k_j + b_{ij}) \, v_j

    Parameters
    ----------
    q, k, v
        Queries of the ``n`` destinations, keys and values of the ``s`` sources.
    table
        Source row of each neighbour.
    bias
        Added to the scores.
    mask
        True where an edge is; a node without any gets zeros.
    backend
        "torch" gathers keys and values and runs on any device. "numba" is a fused kernel for CPUs: several times
        faster, nothing of size ``[n, k, heads, dv]`` is made, result and gradients do not depend on the number of
        threads, and there is no second derivative; it is compiled on first use and kept in numba's cache. "compiled"
        is the gather under `torch.compile`, meant for GPUs, where it was never measured; on a CPU it needs a C++
        compiler. "auto" takes numba where it suits (`attention_backend`) and torch elsewhere, unless the environment
        variable ``GRAPHFM_ATTENTION`` names another.
    storage
        "bfloat16": queries, keys, values and the gradient of the result are rounded to it before they are read, which
        halves the memory traffic; sums stay in float32. For scores of a few units, result and gradients are off by
        less than 1 % of their largest value. Then `q`, `k` and `v` may be bfloat16 themselves (autocast), and the
        result is float32.

    Returns
    -------
    Tensor, ``[n, heads, dv]``.

    Raises
    ------
    ValueError
        If the kernel is asked for what it cannot do, or there is no such backend or storage.
    IndexError
        If `table` points beyond the sources.
    """
    if storage not in (None, "bfloat16"):
        raise ValueError(f"storage={storage!r}: choose None or 'bfloat16'.")
    rounded = torch.bfloat16 if storage else None
    chosen = _chosen(backend, lambda: _obstacle(q, rounded, k, v, table, bias, mask))
    if chosen == "numba":
        from graphfm.nn._fused_function import FusedAttention

        return FusedAttention.apply(q, k, v, bias, table, mask, rounded)
    if rounded:
        q, k, v = (x.to(rounded).to(computed_in(x.dtype)) for x in (q, k, v))
    return (_compiled() if chosen == "compiled" else _gathered)(q, k, v, table, bias, mask)


def attention_backend(device: torch.device | str, dtype: torch.dtype, head_dim: int) -> str:
    """What "auto" takes for such arguments, with regard to ``GRAPHFM_ATTENTION``.

    Parameters
    ----------
    device, dtype
        Of queries, keys and values.
    head_dim
        Channels of a head, of keys as of values.

    Raises
    ------
    ValueError
        If the environment variable asks for what cannot be, or for what there is not.
    """
    return _chosen("auto", lambda: _unsuited(torch.device(device), dtype, head_dim))


def _chosen(backend: str, obstacle: Callable[[], str | None]) -> str:
    """The backend that is to be used; an error where it must be the kernel, and cannot."""
    name, value = "backend", backend
    if backend == "auto":
        name, value = VARIABLE, os.environ.get(VARIABLE) or "auto"
    if value not in ("auto", "torch", "compiled", "numba"):
        raise ValueError(f"{name}={value!r}: there is no such backend. Choose 'auto', 'torch', 'compiled' or 'numba'.")
    if value in ("torch", "compiled"):
        return value
    reason = obstacle()
    if reason and value == "numba":
        raise ValueError(f"{name}='numba' cannot be: {reason}. Choose 'torch', or 'auto' for what suits.")
    return "numba" if reason is None else "torch"


def _obstacle(q: Tensor, rounded: torch.dtype | None, k: Tensor, v: Tensor, table: Tensor, bias, mask) -> str | None:
    """Why the kernel, which neither broadcasts nor converts, cannot compute this."""
    wide = computed_in(q.dtype) if rounded else q.dtype
    suited = {
        "k": (k, q.dtype, (len(k), *q.shape[1:])),
        "v": (v, q.dtype, (len(k), *q.shape[1:])),
        "table": (table, table.dtype, (len(q), table.shape[1])),
        "bias": (bias, wide, (*table.shape, q.shape[1])),
        "mask": (mask, torch.bool, tuple(table.shape)),
    }
    for name, (x, *needed) in suited.items():
        if x is not None and (found := [x.dtype, tuple(x.shape), x.device]) != [*needed, q.device]:
            is_, needs = (" ".join(map(str, kind)) for kind in (found, [*needed, q.device]))
            return f"{name} is {is_}, and the kernel needs {needs} beside this q"
    if rounded and wide != torch.float32:
        return f"q is {q.dtype}, and storage='bfloat16' is for float32"
    return _unsuited(q.device, wide, q.shape[-1])


def computed_in(dtype: torch.dtype) -> torch.dtype:
    """Precision of sums over numbers that are stored so."""
    return torch.float32 if dtype == torch.bfloat16 else dtype


def _unsuited(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    if device.type != "cpu":
        return f"q is on {device}, and the kernel is for CPUs"
    if dtype not in (torch.float32, torch.float64):
        return f"q is {dtype}, and the kernel is for float32 and float64"
    if head_dim not in HEAD_DIMS:
        return f"q has {head_dim} channels a head, and the kernel is for {HEAD_DIMS}"
    return _numba_fails()


@functools.cache
def _numba_fails() -> str | None:
    """Why numba cannot be used; it often does not know the newest numpy yet."""
    try:
        from numba import config
    except ImportError as error:
        logger.warning("attention runs on torch, several times slower: numba cannot be imported (%s)", error)
        return f"numba cannot be imported ({error})"
    return "NUMBA_DISABLE_JIT is set" if config.DISABLE_JIT else None


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(_gathered, dynamic=True)


def _gathered(q: Tensor, k: Tensor, v: Tensor, table: Tensor, bias: Tensor | None, mask: Tensor | None) -> Tensor:
    """The same with keys and values laid out for each neighbour."""
    n, width = table.shape
    flat = table.reshape(-1)
    # embedding, not fancy indexing: its backward is deterministic on the CPU
    keys = F.embedding(flat, k.flatten(1)).view(n, width, *k.shape[1:])
    values = F.embedding(flat, v.flatten(1)).view(n, width, *v.shape[1:])
    scores = (q.unsqueeze(1) * keys).sum(-1)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = scores.masked_fill(~mask.unsqueeze(-1), float("-inf"))
        # a row without neighbours has only -inf: softmax would be NaN, so its scores are made finite
        scores = scores.masked_fill(~mask.any(1)[:, None, None], 0.0)
    attention = scores.softmax(dim=1)
    if mask is not None:
        attention = attention * mask.unsqueeze(-1)
    return (attention.unsqueeze(-1) * values).sum(1)
