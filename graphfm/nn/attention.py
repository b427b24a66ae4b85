"""Attention over a padded table of neighbours."""

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def neighbor_attention(
    q: Float[Tensor, "n heads dk"],
    k: Float[Tensor, "s heads dk"],
    v: Float[Tensor, "s heads dv"],
    table: Int[Tensor, "n k"],
    bias: Float[Tensor, "n k heads"] | None = None,
    mask: Bool[Tensor, "n k"] | None = None,
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

    Returns
    -------
    Tensor, ``[n, heads, dv]``.
    """
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
