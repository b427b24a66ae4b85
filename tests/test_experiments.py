"""Experiments: their smoke runs, resuming, and that the numbers shown are those of the records."""

import ast
import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graphfm import datasets, tl
from graphfm.data.prepare import cell_neighborhood
from graphfm.tl.evaluation import neighbor_mean

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "experiments"
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if not path.name.startswith("_"))
FACTS = {"dataset", "method", "setting", "seed", "num_cells", "commit", "date", "versions", "hardware", "data_sha256"}

sys.path.insert(0, str(FOLDER))

import _spine  # noqa: E402
import figure0_embedding as figure0  # noqa: E402
import figure1_depth as figure1  # noqa: E402, F401
import pretrain_small  # noqa: E402
import table0_embedding as table0  # noqa: E402
import table1_depth as table1  # noqa: E402, F401


def command(name: str, *arguments: str | Path) -> str:
    """Output of an experiment in a process without real data."""
    environment = {key: value for key, value in os.environ.items() if key != "GRAPHFM_DATA"}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, FOLDER / name, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Records and output of a smoke run of Table 0."""
    path = tmp_path_factory.mktemp("table0") / "toy.jsonl"
    return path, command("table0_embedding.py", "--smoke", "--results", path)


def kept(path: Path) -> list[dict]:
    """Records of a table in the repository; without any, what shows them is skipped."""
    found = _spine.read(path)
    if not found:
        pytest.skip(f"{path.name} has no records yet")
    return found


@pytest.fixture(scope="module")
def records() -> list[dict]:
    """Records of the real Table 0."""
    return kept(table0.PATH)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_open_with_command_cost_and_expectation(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    for word in ("Command:", "Cost:", "Expect:", f"python experiments/{path.name}", "--smoke"):
        assert word in text, f"{path.name} does not say {word!r}"


def test_second_smoke_run_adds_nothing_and_prints_the_same(smoke: tuple[Path, str]) -> None:
    path, output = smoke
    before = path.read_bytes()
    assert command("table0_embedding.py", "--smoke", "--results", path) == output
    assert path.read_bytes() == before


def test_broken_off_run_resumes(smoke: tuple[Path, str], tmp_path: Path) -> None:
    lines = smoke[0].read_bytes().splitlines(keepends=True)
    path = tmp_path / "toy.jsonl"
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:40])
    missing = _spine.pending(path, [job for case in table0.SMOKE for job in table0.jobs(case, table0.SEEDS[:2])])
    assert [(job["method"], job["seed"]) for job in missing] == [("oracle", 1)]
    _spine.append(path, json.loads(lines[-1]))
    assert path.read_bytes() == smoke[0].read_bytes()


def test_smoke_records_are_flat_and_bracketed(smoke: tuple[Path, str]) -> None:
    toy = _spine.read(smoke[0])
    assert sum(record["method"] != table0.PEER for record in toy) == len(table0.SMOKE) * len(table0.METHODS) * 2
    for record in toy:
        assert set(record) >= FACTS | set(table0.METRICS) | {"effective_rank", "num_layers", "seconds"}
        assert not any(isinstance(value, dict | list) for value in record.values())
    assert table0.outside(table0.summarize(toy)) == []


def test_table_is_a_function_of_the_records(smoke: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    toy = _spine.read(smoke[0])
    kept = copy.deepcopy(toy)
    with monkeypatch.context() as patch:
        for name in ("open", "read_text", "read_bytes", "write_text", "write_bytes"):
            patch.setattr(Path, name, lambda *_, **__: pytest.fail("table() touched a file"))
        patch.setattr("builtins.open", lambda *_, **__: pytest.fail("table() touched a file"))
        text = table0.table(toy)
        assert table0.table(toy) == text
    assert toy == kept
    assert smoke[1].endswith(text + "\n")


def test_later_records_replace_earlier_ones_and_partial_cases_wait(smoke: tuple[Path, str]) -> None:
    toy = _spine.read(smoke[0])
    newer = [{**record, "accuracy": 0.5} for record in toy if record["method"] == "graphfm"]
    accuracy = table0.summarize([*toy, *newer])["accuracy"].unstack("method")
    assert np.allclose(accuracy["graphfm"], 0.5)
    partial = [r for r in toy if r["setting"] == "domains" or r["method"] != "graphfm"]
    assert set(table0.summarize(partial).index.get_level_values("setting")) == {"domains"}


def test_a_peer_stands_beside_graphfm_where_it_has_records_and_nowhere_else(smoke: tuple[Path, str]) -> None:
    toy = [r for r in _spine.read(smoke[0]) if r["method"] != table0.PEER]
    ours = np.mean([r["accuracy"] for r in toy if (r["setting"], r["method"]) == ("domains", "graphfm")])
    first = next(r for r in toy if r["setting"] == "domains")
    peer = {**first, "method": table0.PEER, "accuracy": ours - 0.1}
    (line,) = (row for row in table0.beside_peer([*toy, peer]) if row.startswith("| domains, 1 | kNN accuracy"))
    assert line.endswith(f"| {ours:.3f} | {ours - 0.1:.3f} | 1 better, 0 equal, 0 worse |")
    assert not any("cell_types" in row for row in table0.beside_peer([*toy, peer]))
    pd.testing.assert_frame_equal(table0.summarize([*toy, peer]), table0.summarize(toy))
    assert table0.beside_peer(toy) == []


def test_best_communities_find_types_that_are_apart() -> None:
    rng = np.random.default_rng(0)
    types = np.repeat([0, 1], [300, 60])
    x = rng.normal(size=(360, 5)) + 20 * np.eye(5)[types]
    assert table0.best_communities(x, types, 0) == pytest.approx(
        {"ari": 1.0, "nmi": 1.0, "homogeneity": 1.0, "completeness": 1.0}
    )
    assert table0.best_communities(x, rng.permutation(types), 0)["nmi"] < 0.2


def test_a_score_outside_of_its_controls_is_told(smoke: tuple[Path, str]) -> None:
    toy = [{**r, "nmi": -0.5} if r["method"] == "pca" else r for r in _spine.read(smoke[0])]
    assert len(table0.outside(table0.summarize(toy))) == len(table0.SMOKE)
    assert "Not between the controls" in table0.table(toy)


def test_figure_smoke_and_figure_of_records(smoke: tuple[Path, str], tmp_path: Path) -> None:
    assert "kB" in command("figure0_embedding.py", "--smoke")
    summary = table0.summarize(_spine.read(smoke[0]))
    assert figure0.rows(summary) == [("cell_types", "toy"), ("domains", "toy")]
    figure = figure0.draw(summary)
    assert len(figure.axes) == len(figure0.SHOWN)
    figure.savefig(tmp_path / "figure.png")


def test_pretraining_smoke() -> None:
    assert "smoke: ok" in command("pretrain_small.py", "--smoke")


def test_append_heals_and_reads_whole_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.jsonl"
    _spine.append(path, {"a": 1, "name": "é"})
    path.write_bytes(path.read_bytes() + '{"a": 2, "name": "é'.encode()[:-1])
    assert _spine.read(path) == [{"a": 1, "name": "é"}]
    _spine.append(path, {"a": 3})
    assert _spine.read(path) == [{"a": 1, "name": "é"}, {"a": 3}]
    assert _spine.pending(path, [{"a": 1}, {"a": 2}, {"a": 3}]) == [{"a": 2}]
    assert _spine.read(tmp_path / "missing.jsonl") == []
    with pytest.raises(ValueError, match="JSON"):
        _spine.append(path, {"a": float("nan")})


def test_cases_are_labelled_sets_that_the_weights_have_not_seen() -> None:
    for case in table0.CASES:
        assert case.label in datasets.info(case.dataset).labels
        assert case.dataset not in pretrain_small.CORPUS
    assert len({(case.dataset, case.setting) for case in table0.CASES}) == len(table0.CASES)


def test_neighbor_mean_equals_a_loop() -> None:
    adata = datasets.toy(num_cells=120, num_genes=100)
    relations = ("knn", "spatial")
    tl.build_graphs(adata, relations=relations, library_key="slide")
    around = cell_neighborhood(adata, relations=relations)
    x = adata.obsm["X_pca"]
    for cell in range(0, adata.n_obs, 7):
        means = []
        for number in (0, 1):
            chosen = around.index[cell][(around.weight[cell] > 0) & (around.relation[cell] == number)].numpy()
            means.append(np.vstack([x[cell], x[chosen]]).mean(axis=0))
        np.testing.assert_allclose(neighbor_mean(adata, relations)[cell], np.mean(means, axis=0), atol=1e-5)


def test_a_table_runs_what_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    todo = [{"setting": "a", "dataset": d, "method": m, "seed": 0} for d in ("x", "y") for m in ("ours", "theirs")]
    path = tmp_path / "table9_things.jsonl"

    def table(*arguments: str) -> list[dict]:
        monkeypatch.setattr("sys.argv", ["t", *arguments])
        needs = {"theirs": "no_such_package"}
        given = {"jobs": lambda: todo, "smoke": lambda: todo[:1], "needs": needs, "render": lambda r: f"{len(r)} rows"}
        _spine.drive("What it is.", path, run=lambda job: [job | {"score": 1}], **given)
        return _spine.read(path)

    assert table("--smoke") == [] and "1 rows" in capsys.readouterr().out
    assert [r["dataset"] for r in table("--dataset", "y")] == ["y"]
    assert "theirs" in capsys.readouterr().out
    assert [r["dataset"] for r in table()] == ["y", "x"] and table() == table("--method", "ours")
    with pytest.raises(SystemExit):
        table("--dataset", "z")
    assert "--dataset z: there is none; choose from x, y" in capsys.readouterr().err


def test_readme_block_is_renewed_in_place(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- table0 -->\nold\n<!-- /table0 -->\nafter\n", encoding="utf-8")
    _spine.renew_readme("table0", "new\n", readme)
    assert readme.read_text(encoding="utf-8") == "before\n<!-- table0 -->\nnew\n<!-- /table0 -->\nafter\n"


def test_readme_shows_the_records(records: list[dict]) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    if "<!-- table0 -->" not in text:
        pytest.skip("README.md has no block for Table 0")
    block = text.split("<!-- table0 -->\n")[1].split("<!-- /table0 -->")[0]
    assert block == table0.table(records), "run: python experiments/table0_embedding.py --readme"


def test_records_are_complete_and_of_committed_code(records: list[dict]) -> None:
    jobs = [(r["dataset"], r["setting"], r["method"], r["seed"], r["weights"]) for r in records]
    assert len(set(jobs)) == len(jobs)
    wanted = {(c.dataset, c.setting, m, s) for c in table0.CASES for m in table0.METHODS for s in table0.SEEDS}
    assert wanted <= {job[:4] for job in jobs}
    for record in records:
        assert set(record) >= FACTS
        assert "dirty" not in record["commit"]
        assert record["data_sha256"] == datasets.info(record["dataset"]).files[0].sha256


def test_records_are_of_the_shipped_weights(records: list[dict]) -> None:
    shipped = {job["weights"] for job in table0.jobs(table0.CASES[0], [0]) if job["method"] == "graphfm"}
    last = {(r["dataset"], r["setting"], r["seed"]): r["weights"] for r in records if r["method"] == "graphfm"}
    assert set(last.values()) == shipped, "weights changed: run python experiments/table0_embedding.py"
