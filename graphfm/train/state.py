"""Training states: model, optimiser and step in one safetensors file."""

import json
from pathlib import Path

import torch

from graphfm.models.checkpoint import commit, load_tensors, save_tensors
from graphfm.models.graphfm import GraphFM

STATE_FILE = "training.safetensors"


def save_state(out: Path, model: GraphFM, optimizer: torch.optim.Optimizer, step: int, fingerprint: dict) -> Path:
    """Write the state after `step` steps."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{name}": torch.as_tensor(value) for name, value in moments.items()}
    metadata = {
        "format": "graphfm-training",
        "step": str(step),
        "commit": commit(),
        "config": json.dumps(model.config_dict()),
        "training": json.dumps(fingerprint, sort_keys=True),
    }
    return save_tensors(out / STATE_FILE, tensors, metadata)


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
    model.load_state_dict({k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")})
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer/"):
            _, number, name = key.split("/")
            moments.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(metadata["step"])
