"""Dropout that a deep stack can afford on a CPU."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ByteDropout(nn.Module):
    """Dropout by random bytes: the CPU's Bernoulli numbers take five times as long.

    Parameters
    ----------
    p
        Share of zeros, rounded to a multiple of 1/256; the rest is divided by exactly the share that is kept.

    Raises
    ------
    ValueError
        `p` is no share, or nothing would be kept.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.kept = round((1 - p) * 256)
        if not 1 <= self.kept <= 256:
            raise ValueError(f"p={p} is no share of zeros that leaves something; give 0 <= p < 0.998")

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """`x`; in training with zeros."""
        if not self.training or self.kept == 256:
            return x
        words = torch.empty(math.ceil(x.numel() / 8), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        mask = words.view(torch.uint8)[: x.numel()].view(x.shape) < self.kept
        return x * mask.to(x.dtype).mul_(256 / self.kept)
