"""Safetensors files: models to share, and training states to resume from."""

import json
import os
import subprocess
from dataclasses import fields
from importlib.resources import as_file, files
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save

import graphfm
from graphfm.models.graphfm import GraphFM, GraphFMConfig

MODEL_FILE = "model.safetensors"
SHIPPED = "small.safetensors"
SEEN = "seen"
"""Name of what is no weight: marks of the cells that were trained on."""


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> Path:
    """Write a safetensors file under a temporary name, then rename it: it is whole or not there.

    Raises
    ------
    OSError
        The folder cannot be written to or is full; names the file.
    """
    partial = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata)
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        if partial.exists():
            partial.unlink()
        raise OSError(f"cannot write {path}: {error}. Choose a folder that is writable and has room.") from error
    return path


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises
    ------
    FileNotFoundError, ValueError
        No such file; truncated or of another format.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}. `graphfm pretrain` writes one; see also save_pretrained.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is no complete safetensors file ({error}). Copy it again, or pass a file written by graphfm."
        ) from error


def save_model(model: GraphFM, path: str | Path, *, metadata: dict[str, str]) -> Path:
    """See `GraphFM.save_pretrained`."""
    path = Path(path)
    if path.suffix != ".safetensors":
        path = path / MODEL_FILE
    described = metadata | ({} if model.training_record is None else {"training": model.training_record})
    described |= {
        "format": "graphfm-model",
        "graphfm_version": graphfm.__version__,
        "commit": commit(),
        "config": json.dumps(model.config_dict()),
    }
    seen = {} if model.seen is None else {SEEN: model.seen}
    return save_tensors(path, model.state_dict() | seen, described)


def load_model(path: str | Path | None = None) -> GraphFM:
    """See `GraphFM.from_pretrained`."""
    return _build(*_open(path))


def model_metadata(path: str | Path | None = None) -> dict[str, str]:
    """What is written in a model file beside the weights (default: the shipped one)."""
    return _open(path)[2]


def _open(path: str | Path | None) -> tuple[Path, dict[str, torch.Tensor], dict[str, str]]:
    """Path, tensors and metadata of a model file, of the one in a folder, or of the shipped one."""
    if path is None:
        with as_file(files("graphfm.weights") / SHIPPED) as shipped:
            return _open(shipped)
    path = Path(path)
    path = path / MODEL_FILE if path.is_dir() else path
    tensors, metadata = load_tensors(path)
    if metadata.get("format") not in ("graphfm-model", "graphfm-training"):
        raise ValueError(f"{path} holds tensors but no graphfm model. Pass a file written by graphfm.")
    return path, tensors, metadata


def _build(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> GraphFM:
    model = GraphFM(read_config(path, metadata))
    model.seen, model.training_record = tensors.pop(SEEN, None), metadata.get("training")
    weights = {
        name.removeprefix("model/"): t.float() for name, t in tensors.items() if not name.startswith("optimizer/")
    }
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit its config ({error}). It is of another version.") from error
    return model.eval()


def read_config(path: Path, metadata: dict[str, str]) -> GraphFMConfig:
    """Config from a file's metadata, checked."""
    try:
        values = json.loads(metadata["config"])
        return GraphFMConfig(**{field.name: values[field.name] for field in fields(GraphFMConfig)})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} has no readable graphfm config ({error}). It is of another version.") from error


def commit() -> str:
    """Commit of the source tree, with '-dirty' where it was changed; 'release' outside of a checkout."""
    root = Path(graphfm.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return "release"
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # a checkout where git is not installed
        return "unknown"
    return result.stdout.strip() or "unknown"


def trained_on(record: str | None) -> str:
    """Data sets of a model's `training_record` and of those before it, with their sizes; "not said" without one."""
    found, training = [], json.loads(record or "{}")
    while training:
        found += [f"{name} ({cells:,} cells)" for name, cells, *_ in training.get("data", [])]
        training = training.get("before")
    return ", ".join(dict.fromkeys(found)) or "not said"
