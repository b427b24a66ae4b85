"""Weights too large for the package: to and from the Hugging Face Hub, with ``pip install 'graphfm[hub]'``."""

import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from graphfm.models.checkpoint import MODEL_FILE, load_model, save_model, trained_on

if TYPE_CHECKING:
    from graphfm.models.graphfm import GraphFM

CARD = """---
library_name: graphfm
license: {license}
tags: [single-cell, spatial-omics, graph-transformer]
---

# {name}

Weights of a graph foundation model for single-cell and spatial omics.

- **Load**: `graphfm.GraphFM.from_hub("{name}")`
- **Shape**: {config}
- **Parameters**: {number:,}
- **Pre-trained on**: {corpus}
- **Cells it has seen**: {seen} hashes of their profiles and barcodes are in the file; `graphfm.tl.leakage` tells
  whether yours are among them
- **Gene vocabulary**: only weights of the vocabulary of the installed graphfm load
"""


def push(model: "GraphFM", repo_id: str, *, license: str, token: str | None, private: bool) -> str:
    """See `GraphFM.push_to_hub`."""
    api = _hub().HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, folder, metadata={})
        Path(folder, "README.md").write_text(card(model, repo_id, license), encoding="utf-8")
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Weights and card"))


def fetch(repo_id: str, *, revision: str | None, token: str | None) -> "GraphFM":
    """See `GraphFM.from_hub`."""
    return load_model(_hub().hf_hub_download(repo_id, MODEL_FILE, revision=revision, token=token))


def card(model: "GraphFM", repo_id: str, license: str) -> str:
    """Model card: shape, corpus and what is known of it."""
    return CARD.format(
        name=repo_id,
        license=license,
        config=", ".join(f"{key} {value}" for key, value in model.config_dict().items()),
        number=sum(parameter.numel() for parameter in model.parameters()),
        corpus=trained_on(model.training_record),
        seen="no" if model.seen is None else f"{len(model.seen):,}",
    )


def _hub():
    try:
        return import_module("huggingface_hub")
    except ImportError as error:
        raise ImportError("the Hugging Face Hub needs another package: pip install 'graphfm[hub]'") from error
