"""The demo report, on few steps: complete, self-contained, and its numbers are those of the tasks."""

import re
from pathlib import Path

import numpy as np
import pytest

from graphfm import report


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    report.demo(out, steps=3)
    return out


def test_report_is_one_file_with_figures_and_numbers(folder):
    html = (folder / "report.html").read_text()
    assert 'src="data:image/png;base64,' in html and not re.search(r"(src|href)=\"(http|/|figure)", html)
    assert {"PCA", "graphfm, shipped weights", "graphfm, pre-trained here"} <= set(
        re.findall(r"<td>([^<]+)</td>", html)
    )
    for number in range(1, 5):
        assert (folder / f"figure{number}.png").stat().st_size > 10_000
    assert not list(folder.rglob("*.tmp"))


def test_second_demo_does_not_train_again(folder):
    log = (folder / "run_3_0" / "log.jsonl").read_text()
    report.demo(folder, steps=3)
    assert (folder / "run_3_0" / "log.jsonl").read_text() == log


def test_blood_cells_have_whole_counts():
    adata = report.blood_cells()
    assert adata.shape == (700, 765) and (adata.X.data == np.round(adata.X.data)).all() and adata.X.max() > 50


def test_describe_names_versions_and_training(folder):
    text = report.describe(folder / "run_3_0" / "model.safetensors")
    assert "PBMC (700 cells)" in text and "torch" in text
