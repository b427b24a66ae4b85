"""Two processes train what one trains, and are killed without harm."""

import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from graphfm.models.checkpoint import load_tensors
from graphfm.objectives import MaskedExpression
from graphfm.train import TrainConfig, pretrain
from graphfm.train.distributed import Team, team
from graphfm.train.log import read
from graphfm.train.state import alone_in
from tests.conftest import make_cells, make_model

ROOT = Path(__file__).parents[2]
# an objective that sees every weight: where a gradient is zero but for its rounding, Adam makes whole steps of that
CONFIG = TrainConfig(
    steps=50, tile_size=8, tiles_per_batch=6, checkpoint_every=5, parts=2, objective=MaskedExpression()
)

RUN = """
import sys
from dataclasses import replace
from pathlib import Path
from tests.conftest import make_cells, make_model
from tests.train.test_distributed import CONFIG
from graphfm.train import pretrain
corpus = [make_cells(), make_cells(num_cells=49, seed=1)]
out, steps, how = sys.argv[1:]
model = pretrain(make_model(), corpus, out, config=replace(CONFIG, steps=int(steps)), shard=how == "sharded")
assert not any(hasattr(parameter, "full_tensor") for parameter in model.parameters())
threads = [name.read_text().strip() for name in Path("/proc/self/task").glob("*/comm")]  # none where there is no /proc
assert how == "sharded" or not any("gloo" in name for name in threads), threads  # a mesh keeps its group
"""


def start(
    tmp_path: Path, name: str, processes: int, *options: str, steps: int = 50, how: str = "whole"
) -> subprocess.Popen:
    """A run in the background."""
    script = tmp_path / "run.py"
    script.write_text(RUN)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), *options]
    command = [sys.executable, *(launch if processes > 1 else []), str(script), str(tmp_path / name), str(steps), how]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=(tmp_path / "said").open("w")
    )


def finished(tmp_path: Path, process: subprocess.Popen) -> None:
    """Wait for a run, and show what it said if it failed."""
    assert process.wait(timeout=300) == 0, (tmp_path / "said").read_text()[-3000:]


def kill(process: subprocess.Popen) -> None:
    """A run, and all that it started."""
    for each in [*psutil.Process(process.pid).children(recursive=True), process]:
        each.kill()
    process.wait()


def weights(tmp_path: Path, name: str) -> dict[str, torch.Tensor]:
    """Trained weights of a run."""
    return load_tensors(tmp_path / name / "model.safetensors")[0]


@pytest.mark.parametrize(("how", "steps", "close", "most"), [("whole", 50, 1e-4, 0), ("sharded", 10, 1e-3, 0.02)])
def test_two_processes_train_what_one_trains(tmp_path, how, steps, close, most):
    """Shares are summed in another order than whole tensors; of gradients that are rounding Adam makes whole steps."""
    finished(tmp_path, start(tmp_path, "two", 2, how=how, steps=steps))
    finished(tmp_path, start(tmp_path, "one", 1, how=how, steps=steps))
    one, two = read(tmp_path / "one"), read(tmp_path / "two")
    assert [r["step"] for r in two] == list(range(steps)) == [r["step"] for r in one]
    for a, b in zip(one, two, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4) and a["data"] == b["data"]
        assert a["gradient_norm"] == pytest.approx(b["gradient_norm"], rel=1e-3)
    trained = weights(tmp_path, "one")
    for name, tensor in weights(tmp_path, "two").items():
        off = ~torch.isclose(tensor, trained[name], atol=close, rtol=1e-3)
        assert off.double().mean() <= most, name
    assert one[0]["loss"] != one[-1]["loss"]


def test_a_sharded_run_goes_on_with_whole_weights(tmp_path):
    """Nothing in the state on disk says how many processes shared what."""
    finished(tmp_path, start(tmp_path, "whole", 1, steps=10))
    process = start(tmp_path, "mixed", 2, steps=10, how="sharded")
    while not (tmp_path / "mixed" / "training.safetensors").exists():
        assert process.poll() is None, (tmp_path / "said").read_text()[-3000:]
        time.sleep(0.02)
    kill(process)
    finished(tmp_path, start(tmp_path, "mixed", 1, steps=10))
    expected = weights(tmp_path, "whole")
    for name, tensor in weights(tmp_path, "mixed").items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-3, rtol=1e-3)


def test_parts_are_graphs_of_their_own(tmp_path):
    """Another number of parts is another training, and the same number is the same to the bit."""
    for name, parts in (("a", 2), ("b", 2), ("c", 3)):
        pretrain(make_model(), [make_cells()], tmp_path / name, config=replace(CONFIG, steps=8, parts=parts))
    a, b, c = (weights(tmp_path, name) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


@pytest.mark.slow
def test_twenty_kills_at_random(tmp_path):
    """Each costs the steps since the last state, no more; torchrun starts the rest of the team anew."""
    finished(tmp_path, start(tmp_path, "whole", 2, steps=250))
    rng, out = random.Random(0), tmp_path / "killed"
    for kills_of_one in (9, 9):
        process = start(tmp_path, "killed", 2, "--max-restarts", "9", steps=250)
        for turn in range(kills_of_one + 1):
            goal = len(read(out)) + rng.randint(1, 7)
            while len(read(out)) < goal:
                assert process.poll() is None, (tmp_path / "said").read_text()[-3000:]
                time.sleep(rng.uniform(0, 0.02))
            if turn < kills_of_one:
                children = psutil.Process(process.pid).children()
                rng.choice([child for child in children if "run.py" in " ".join(child.cmdline())]).kill()
                time.sleep(0.5)
            else:
                kill(process)
            state = out / "training.safetensors"
            kept = int(load_tensors(state)[1]["step"]) if state.exists() else 0
            assert len(read(out)) - kept <= CONFIG.checkpoint_every
    assert len(read(out)) < 250
    finished(tmp_path, start(tmp_path, "killed", 2, steps=250))
    expected = weights(tmp_path, "whole")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(tmp_path, "killed").items())
    strip = lambda name: [{k: v for k, v in r.items() if k != "seconds"} for r in read(tmp_path / name)]  # noqa: E731
    assert strip("whole") == strip("killed")


def test_one_run_a_folder(tmp_path):
    with (
        alone_in(tmp_path),
        pytest.raises(ValueError, match="in use: another process trains there"),
        alone_in(tmp_path),
    ):
        pass
    pretrain(make_model(), [make_cells()], tmp_path, config=replace(CONFIG, steps=1))


def test_too_many_processes(tmp_path):
    from graphfm.train.loop import _pretrain

    with pytest.raises(ValueError, match="parts=2 cannot be shared by 3 processes"):
        _pretrain(make_model(), [make_cells()], tmp_path, config=CONFIG, device="cpu", team=Team(0, 3))


def test_one_process_is_a_team(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with team("cpu") as alone:
        assert alone.leads and alone.share([1, 2, 3]) == [1, 2, 3]
        x = torch.ones(2)
        alone.add_up([x])
        assert x.tolist() == [1, 1]
    shares = [Team(rank, 3).share(range(7)) for rank in range(3)]
    assert sorted(i for share in shares for i in share) == list(range(7))
