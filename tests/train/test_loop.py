"""Pre-training: it learns, it resumes exactly, it refuses what does not belong together."""

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from graphfm.models.checkpoint import load_tensors
from graphfm.objectives import MaskedExpression
from graphfm.train import TrainConfig, loop, pretrain
from graphfm.train.log import read
from tests.conftest import make_cells, make_model, make_neighborhood

CONFIG = TrainConfig(steps=24, tile_size=8, tiles_per_batch=4, checkpoint_every=4)


def same(a: Path, b: Path) -> bool:
    x, y = load_tensors(a)[0], load_tensors(b)[0]
    return x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x)


def test_loss_beats_the_gene_means(tmp_path):
    # the graph of these cells is random: a neighbour's counts cannot be predicted, a cell's own can
    own = MaskedExpression(neighbor_share=0)
    pretrain(make_model(), [make_cells()], tmp_path, config=replace(CONFIG, steps=80, objective=own))
    log = read(tmp_path)
    assert [r["step"] for r in log] == list(range(80))
    last = log[-10:]
    assert sum(r["loss"] for r in last) < 0.97 * sum(r["null_loss"] for r in last)
    assert all(math.isfinite(r["gradient_norm"]) for r in log)


def test_same_seed_same_weights_on_any_number_of_threads(tmp_path):
    before = torch.get_num_threads()
    try:
        for name, threads in (("a", 1), ("b", 2)):
            torch.set_num_threads(threads)
            pretrain(make_model(), [make_cells()], tmp_path / name, config=CONFIG)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert same(tmp_path / "a/model.safetensors", tmp_path / "b/model.safetensors")


RUN = """
import sys
from tests.conftest import make_cells, make_model
from tests.train.test_loop import CONFIG
from graphfm.train import pretrain
from dataclasses import replace
pretrain(make_model(), [make_cells(), make_cells(seed=1)], sys.argv[1], config=replace(CONFIG, steps=400))
"""


def test_killed_run_resumes_to_the_same_weights(tmp_path):
    """SIGKILL in the middle, twice; the weights in the end are those of a run that was left alone."""
    root = Path(__file__).parents[2]
    start = lambda name: subprocess.Popen(  # noqa: E731
        [sys.executable, "-c", RUN, str(tmp_path / name)], cwd=root, stderr=subprocess.DEVNULL
    )
    whole = start("whole")
    killed_at = []
    for _ in range(2):
        process = start("killed")
        seen = len(read(tmp_path / "killed"))
        while len(read(tmp_path / "killed")) < seen + 30 and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed_at.append(len(read(tmp_path / "killed")))
    assert start("killed").wait() == 0 and whole.wait() == 0
    assert 0 < killed_at[0] < killed_at[1] < 400
    assert same(tmp_path / "whole/model.safetensors", tmp_path / "killed/model.safetensors")
    strip = lambda name: [{k: v for k, v in r.items() if k != "seconds"} for r in read(tmp_path / name)]  # noqa: E731
    assert strip("whole") == strip("killed")


def test_other_settings_do_not_go_on_in_the_same_folder(tmp_path):
    pretrain(make_model(), [make_cells()], tmp_path, config=CONFIG)
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="another run"):
        pretrain(make_model(), [make_cells()], tmp_path, config=replace(CONFIG, lr=1e-4))
    with pytest.raises(ValueError, match="another run"):
        pretrain(make_model(), [make_cells()], tmp_path, config=replace(CONFIG, objective=MaskedExpression()))
    cells = make_cells()
    graph = make_neighborhood(cells.num_cells, cells.neighborhood.index.shape[1], seed=99)
    for other in (
        make_cells(seed=1),
        replace(cells, neighborhood=graph),
        replace(cells, gene_rows=cells.gene_rows.flip(0)),
    ):
        with pytest.raises(ValueError, match="another run"):
            pretrain(make_model(), [other], tmp_path, config=CONFIG)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_data_without_counts_or_no_data(tmp_path):
    with pytest.raises(ValueError, match="no counts"):
        pretrain(make_model(), [replace(make_cells(), counts=None)], tmp_path, config=CONFIG)
    with pytest.raises(ValueError, match="corpus is empty"):
        pretrain(make_model(), [], tmp_path, config=CONFIG)


def test_infinite_loss_stops_and_keeps_the_last_state(tmp_path):
    model = make_model()
    with torch.no_grad():
        model.expression_head.dispersion.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 0"):
        pretrain(model, [make_cells()], tmp_path, config=replace(CONFIG, objective=MaskedExpression()))
    assert not (tmp_path / "model.safetensors").exists()


def test_infinite_gradient_stops_before_the_step(tmp_path):
    class Broken(MaskedExpression):
        def __call__(self, model, cells, core, generator):
            loss, diagnostics = super().__call__(model, cells, core, generator)
            return loss + (model.expression_head.project.weight * 0).sqrt().sum(), diagnostics

    model = make_model()
    with pytest.raises(FloatingPointError, match="gradient is nan at step 0"):
        pretrain(model, [make_cells()], tmp_path, config=replace(CONFIG, objective=Broken()))
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_an_interrupted_run_begins_again_from_its_first_weights(tmp_path, monkeypatch):
    """Also if the model of the second call is the one that the first has changed."""
    model, config = make_model(), replace(CONFIG, checkpoint_every=100)
    pretrain(make_model(), [make_cells()], tmp_path / "whole", config=config)
    clip = loop._clip
    steps = iter(range(7))
    monkeypatch.setattr(loop, "_clip", lambda *given: clip(*given) if next(steps) < 6 else _interrupt())
    with pytest.raises(KeyboardInterrupt):
        pretrain(model, [make_cells()], tmp_path / "broken", config=config)
    monkeypatch.undo()
    pretrain(model, [make_cells()], tmp_path / "broken", config=config)
    assert same(tmp_path / "whole/model.safetensors", tmp_path / "broken/model.safetensors")


def _interrupt():
    raise KeyboardInterrupt


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError):
        pretrain(make_model(), [make_cells()], tmp_path / "run", config=CONFIG)


@pytest.mark.parametrize(
    "bad",
    [
        {"steps": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"clip": 0.0},
        {"weight_decay": -1.0},
        {"tile_size": -1},
        {"rarity": 1.5},
    ],
)
def test_bad_settings(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        TrainConfig(**bad)


def test_log_tells_the_depth_profile_on_demand_and_training_is_the_same(tmp_path):
    for name, every in (("with", 6), ("without", 0)):
        pretrain(make_model(), [make_cells()], tmp_path / name, config=replace(CONFIG, steps=12, profile_every=every))
    log = read(tmp_path / "with")
    assert [r["step"] for r in log if "depth" in r] == [0, 6]
    profile = log[6]["depth"]
    assert [layer["layer"] for layer in profile] == [0, 1, 2, 3]
    assert profile[0]["gradient_norm"] is None and all(layer["gradient_norm"] > 0 for layer in profile[1:])
    assert all(layer["effective_rank"] > 0 and 0 <= layer["dirichlet_energy_within"] <= 2 for layer in profile)
    assert same(tmp_path / "with/model.safetensors", tmp_path / "without/model.safetensors")
