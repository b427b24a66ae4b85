"""The batch norms' statistics at inference."""

import numpy as np
import pytest
import torch
from torch import nn

from graphfm.nn import NodeNorm, calibrate


def make_stack(depth: int, dropout: float = 0.5) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [(nn.Linear(6, 6), NodeNorm(6), nn.ReLU(), nn.Dropout(dropout)) for _ in range(depth)]
    return nn.Sequential(*(part for layer in layers for part in layer)).double()


def train_a_little(stack: nn.Sequential, x: torch.Tensor) -> None:
    optimizer = torch.optim.Adam(stack.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        stack.train()(x).square().sum().backward()
        optimizer.step()


def test_one_pass_gives_the_statistics_of_a_pass_without_dropout():
    stack, x = make_stack(4), torch.randn(50, 6).double()
    train_a_little(stack, x)
    calibrate(stack, [lambda: stack(x)])
    h = x.numpy()
    for part in stack:
        if isinstance(part, nn.Linear):
            h = h @ part.weight.detach().numpy().T + part.bias.detach().numpy()
        elif isinstance(part, NodeNorm):
            np.testing.assert_allclose(part.running_mean, h.mean(0))
            np.testing.assert_allclose(part.running_var, h.var(0, ddof=1))
            gain, shift = part.weight.detach().numpy(), part.bias.detach().numpy()
            h = (h - h.mean(0)) / np.sqrt(h.var(0) + part.eps) * gain + shift
        elif isinstance(part, nn.ReLU):
            h = np.maximum(h, 0)
    np.testing.assert_allclose(stack.eval()(x).detach(), h, atol=0.2)  # dividing by n - 1 or n, layer for layer


def test_several_passes_give_their_mean():
    norm, batches = NodeNorm(6).double(), torch.randn(3, 20, 6).double()
    calibrate(norm, [lambda x=x: norm(x) for x in batches])
    np.testing.assert_allclose(norm.running_mean, batches.mean((0, 1)))
    np.testing.assert_allclose(norm.running_var, batches.var(1).mean(0))


def test_nothing_else_changes():
    stack, x = make_stack(2), torch.randn(9, 6).double()
    train_a_little(stack, x)
    before = {name: value.clone() for name, value in stack.named_parameters()}
    momenta = [part.momentum for part in stack if isinstance(part, NodeNorm)]
    stack[2].eval()
    modes = [part.training for part in stack.modules()]
    random = torch.get_rng_state()
    calibrate(stack, [lambda: stack(x)])
    assert [part.training for part in stack.modules()] == modes
    assert [part.momentum for part in stack if isinstance(part, NodeNorm)] == momenta
    assert all(torch.equal(value, before[name]) for name, value in stack.named_parameters())
    assert torch.equal(torch.get_rng_state(), random)


def test_a_pass_that_fails_leaves_the_modes():
    stack = make_stack(1)
    with pytest.raises(RuntimeError):
        calibrate(stack, [lambda: stack(torch.zeros(3, 5).double())])
    assert stack.training and stack[1].momentum == 0.1


def test_without_norms_nothing_is_computed():
    linear = nn.Linear(2, 2)
    calibrate(linear, [lambda: pytest.fail("computed")])
