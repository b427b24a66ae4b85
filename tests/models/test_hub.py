"""To the Hub and back, against a stand-in that keeps files in a folder."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from graphfm.models.graphfm import GraphFM
from tests.conftest import make_model


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """What graphfm uses of ``huggingface_hub``; says what was asked of it."""
    asked = []

    class Api:
        def __init__(self, token=None):
            asked.append({"token": token})

        def create_repo(self, repo_id, *, private, exist_ok):
            asked[-1] |= {"repo_id": repo_id, "private": private, "exist_ok": exist_ok}

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, tmp_path / repo_id)
            return f"hub:{repo_id}"

    def download(repo_id, filename, *, revision, token):
        asked.append({"revision": revision, "token": token})
        return str(tmp_path / repo_id / filename)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=Api, hf_hub_download=download))
    return SimpleNamespace(asked=asked, root=tmp_path)


def test_there_and_back(hub):
    model = make_model()
    model.seen = torch.tensor([3, 7], dtype=torch.int32)
    model.training_record = '{"data": [["pbmc", 2700, 2000, "abc"]]}'
    assert model.push_to_hub("lab/large", license="cc-by-4.0", token="secret", private=True) == "hub:lab/large"
    assert hub.asked == [{"token": "secret", "repo_id": "lab/large", "private": True, "exist_ok": True}]
    card = Path(hub.root, "lab/large/README.md").read_text()
    assert "\nlicense: cc-by-4.0\n" in card
    assert "pbmc (2,700 cells)" in card and "dim 16" in card and "2 hashes" in card
    again = GraphFM.from_hub("lab/large", revision="v1")
    assert hub.asked[-1] == {"revision": "v1", "token": None}
    assert all(torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items())
    assert again.seen.tolist() == [3, 7] and again.training_record == model.training_record


def test_what_to_install_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"graphfm\[hub\]"):
        make_model().push_to_hub("lab/large")
