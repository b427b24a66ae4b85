"""Neighbour agreement: its loss against numpy, what it does not depend on, and that it learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfm.objectives import NeighborAgreement
from graphfm.train import TrainConfig, pretrain
from graphfm.train.log import read
from tests.conftest import make_cells, make_model


def states(seed: int, num_cells: int = 50, dim: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, num_cells, dim, generator=generator, dtype=torch.float64).unbind()


@given(seed=st.integers(0, 1000), redundancy=st.floats(0, 2))
@settings(max_examples=25, deadline=None)
def test_is_what_correlations_say(seed, redundancy):
    a, b = states(seed)
    dim = a.shape[1]
    correlation = np.corrcoef(a.numpy().T, b.numpy().T)[:dim, dim:]
    same = np.eye(dim, dtype=bool)
    slow = ((1 - correlation[same]) ** 2).sum() + redundancy * (correlation[~same] ** 2).sum()
    assert float(NeighborAgreement(redundancy=redundancy).disagreement(a, b)) == pytest.approx(slow, rel=1e-6)


@given(seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_order_scale_and_offset_do_not_matter(seed):
    a, b = states(seed)
    loss = NeighborAgreement().disagreement
    generator = torch.Generator().manual_seed(seed)
    rows, channels = torch.randperm(len(a), generator=generator), torch.randperm(a.shape[1], generator=generator)
    gain, offset = torch.rand(2, a.shape[1], generator=generator, dtype=torch.float64) + 0.5
    torch.testing.assert_close(loss(a[rows][:, channels], b[rows][:, channels]), loss(a, b))
    torch.testing.assert_close(loss(gain * a + offset, gain.flip(0) * b - offset), loss(a, b))


def test_nothing_to_disagree_about_and_nothing_that_agrees():
    a, _ = states(0, num_cells=4000)
    whitened = torch.linalg.qr(a - a.mean(0))[0]
    loss = NeighborAgreement().disagreement
    assert float(loss(whitened, whitened)) == pytest.approx(0, abs=1e-12)
    told_twice = whitened[:, :1].expand_as(whitened)
    assert float(loss(told_twice, told_twice)) == pytest.approx(5, abs=1e-6)  # 6 * 5 pairs, each a sixth
    constant = torch.ones_like(a)
    assert float(loss(constant, constant)) == 6  # collapse is as bad as channels of noise


@pytest.mark.parametrize("size", [1, 2, 120])
def test_gradients_are_finite_for_batches_of_any_size(size):
    model, cells = make_model(), make_cells()
    loss, _ = NeighborAgreement()(model, cells, torch.arange(size), torch.Generator().manual_seed(0))
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(g).all() for g in gradients)


def test_training_makes_neighbours_agree(tmp_path):
    config = TrainConfig(steps=60, tile_size=8, tiles_per_batch=15, checkpoint_every=60, objective=NeighborAgreement())
    pretrain(make_model(), [make_cells()], tmp_path, config=config)
    loss = [record["loss"] for record in read(tmp_path)]
    assert np.mean(loss[-10:]) < 0.8 * np.mean(loss[:10])


def test_runs_without_counts_of_its_own(tmp_path):
    """It reads the expression alone."""
    cells = replace(make_cells(), counts=None)
    NeighborAgreement()(make_model(), cells, torch.arange(30), torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "bad", [{"mask_share": 1.0}, {"neighbor_share": -0.1}, {"halo": -1.0}, {"redundancy": -1.0}], ids=str
)
def test_bad_settings(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        NeighborAgreement(**bad)
