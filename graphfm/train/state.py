"""Training states: model, optimiser and step in one safetensors file."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from graphfm.models.checkpoint import SEEN, commit, load_tensors, save_tensors
from graphfm.models.graphfm import GraphFM
from graphfm.train.distributed import Team, shared_like, whole

STATE_FILE = "training.safetensors"


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Keep other runs out of a folder; the lock ends with the process, however that ends.

    Raises
    ------
    ValueError
        Another process is at work there.
    """
    out.mkdir(parents=True, exist_ok=True)
    folder = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ValueError(
            f"{out} is in use: another process trains there. Wait for it or end it, or choose another folder."
        ) from None
    finally:
        os.close(folder)


def save_state(
    out: Path, model: GraphFM, optimizer: torch.optim.Optimizer, step: int, fingerprint: dict, team: Team
) -> None:
    """Write the state after `step` steps: the first process does, and all must take part."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{name}": torch.as_tensor(value) for name, value in moments.items()}
    for name, tensor in tensors.items():  # one by one: no device ever holds more than one whole tensor
        gathered = whole(tensor)
        tensors[name] = gathered.cpu() if team.leads else tensor
    if not team.leads:
        return
    if model.seen is not None:
        tensors[SEEN] = model.seen
    metadata = {
        "format": "graphfm-training",
        "step": str(step),
        "commit": commit(),
        "config": json.dumps(model.config_dict()),
        "training": json.dumps(fingerprint, sort_keys=True),
    }
    save_tensors(out / STATE_FILE, tensors, metadata)


def load_state(out: Path, model: GraphFM, optimizer: torch.optim.Optimizer, fingerprint: dict) -> int:
    """Put a state from `out`, if there is one, into model and optimiser.

    Returns
    -------
    Steps done; 0 without a state.

    Raises
    ------
    ValueError
        The state belongs to a run with other settings, data or model.
    """
    path = out / STATE_FILE
    if not path.exists():
        return 0
    tensors, metadata = load_tensors(path)
    here = {"training": json.dumps(fingerprint, sort_keys=True), "config": json.dumps(model.config_dict())}
    for name, value in here.items():
        if metadata.get(name) != value:
            raise ValueError(
                f"{path} belongs to another run: its {name} settings are {metadata.get(name)}, now {value}. "
                "Choose another output folder, or delete that file to start anew."
            )
    model.load_state_dict(
        {name: shared_like(tensors[f"model/{name}"], own) for name, own in model.state_dict().items()}
    )
    model.seen = tensors.get(SEEN)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer/"):
            _, number, name = key.split("/")
            own = parameters[int(number)]
            moments.setdefault(int(number), {})[name] = (
                shared_like(tensor, own) if tensor.shape == own.shape else tensor
            )
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(metadata["step"])
