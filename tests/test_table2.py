"""Table 2: its cells, its layers, what it prints, what it takes up again."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from graphfm import io

FOLDER = Path(__file__).parent.parent / "experiments"
sys.path.insert(0, str(FOLDER))

import _spine  # noqa: E402
import figure2_scaling as figure2  # noqa: E402
import table2_scaling as table2  # noqa: E402


def test_synthetic_cells(tmp_path, monkeypatch):
    monkeypatch.setattr(table2, "CHUNK", 70)
    table2.synthetic(tmp_path / "a.h5ad", 200, 500, seed=0)
    adata = io.read(tmp_path / "a.h5ad")
    counts = io.counts(adata).toarray()
    assert adata.shape == (200, 500) and adata.obs_names.is_unique
    assert 1200 < np.median(counts.sum(1)) < 1800 and 0.1 < (counts > 0).mean() < 0.6
    types, profile = adata.obs["type"].to_numpy(), counts / counts.sum(1, keepdims=True)
    means = np.stack([profile[types == t].mean(0) for t in np.unique(types)])
    nearest = np.argmin(((profile[:, None] - means[None]) ** 2).sum(-1), axis=1)
    assert (np.unique(types)[nearest] == types).mean() > 0.9


def test_layer_does_the_work_of_pyg():
    from torch_geometric.nn import TransformerConv

    torch.manual_seed(0)
    table, x = torch.stack([torch.randperm(30)[:5] for _ in range(30)]), torch.randn(30, 16)
    edges = torch.stack([table.flatten(), torch.arange(30).repeat_interleave(5)])
    theirs = TransformerConv(16, 4, heads=4)
    for how in ({"backend": "torch"}, {"backend": "numba"}):
        ours = table2.Layer(16, 4, table, **how)
        for name in ("query", "key", "value", "skip"):
            getattr(ours, name).load_state_dict(getattr(theirs, f"lin_{name}").state_dict())
        torch.testing.assert_close(ours(x), theirs(x, edges), atol=1e-5, rtol=1e-5)


def records() -> list[dict]:
    """As they would be kept."""
    stages = [
        {**job, "setting": stage, "seconds": 2.0 + n, "peak_mb": 1500.0 + 100 * n, "recall": 0.9}
        | ({"predicted_mb": 1400.0 + 100 * n} if stage == "embed" else {})
        for n, job in enumerate(table2.jobs([1000, 2000], 50)[-2:])
        for stage in table2.STAGES
    ]
    layer = table2.jobs([], 50)[0]
    return stages + [{**layer, "method": m, "cpu_ms": ms} for m, ms in (("graphfm", 5.0), ("transformer_conv", 30.0))]


def test_table_is_a_function_of_the_records():
    text = table2.table(records())
    assert "| 1,000 | 2.0 |" in text and "| 2,000 | 3.0 |" in text and text.count("0.900 | 1.") == 2
    assert "| `graphfm` | 5 | 6.00 |" in text and "width 128, default allocator" in text
    later = [r | {"seconds": 9.0} for r in records() if r["setting"] == "load"]
    assert table2.table(records() + later).count("| 9.0 |") == 2


def test_a_process_that_was_broken_off_is_done_again(tmp_path):
    path = tmp_path / "records.jsonl"
    for record in records():
        if record["setting"] != "load" or record["num_cells"] == 1000:
            _spine.append(path, record)
    left = _spine.pending(path, table2.jobs([1000, 2000], 50))
    assert [job["num_cells"] for job in left if job["setting"] == "load"] == [2000]
    assert [job["width"] for job in left if "width" in job] == [128, 256, 256]
    assert [job["setting"] for job in left if "processes" in job["setting"]] == ["processes_1", "processes_2"]


def test_figure_shows_the_records():
    left, right = figure2.draw(records()).axes
    stages = {line.get_label(): line for line in left.get_lines()}
    assert stages["embedding"].get_xydata().tolist() == [[1000, 2.0], [2000, 3.0]]
    total = next(line for label, line in stages.items() if label.startswith("from file to file, slope 0.58"))
    assert total.get_ydata().tolist() == [2.0 * 6, 3.0 * 6]
    assert [line.get_ydata().tolist() for line in right.get_lines()] == [[1.5, 1.6], [1.5, 1.6], [1.4, 1.5]]
    assert figure2.slope([10, 100, 1000], [7, 70, 700]) == pytest.approx(1)


@pytest.mark.slow
def test_smoke_run():
    before = table2.PATH.read_bytes() if table2.PATH.exists() else None
    command = [sys.executable, FOLDER / "table2_scaling.py", "--smoke"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=FOLDER.parent).stdout
    assert "| 300 | " in printed and all(f"{stage}, s" in printed for stage in table2.STAGES)
    assert "`transformer_conv`" in printed and "`gatv2_conv`" in printed and "The core takes" in printed
    assert "| 2 | 0." in printed
    assert (table2.PATH.read_bytes() if table2.PATH.exists() else None) == before


def test_readme_shows_the_records():
    readme = _spine.README.read_text(encoding="utf-8")
    block = readme.split("<!-- table2 -->\n")[1].split("<!-- /table2 -->")[0]
    assert block == table2.table(_spine.read(table2.PATH)), "run: python experiments/table2_scaling.py --readme"


def test_kept_records_are_whole():
    for record in _spine.read(table2.PATH):
        assert "dirty" not in record["commit"] and record["data_sha256"] == "made"
        assert json.loads(json.dumps(record)) == record and record["num_cells"] in (
            *table2.CELLS,
            table2.NODES,
            table2.TRAINED,
        )
