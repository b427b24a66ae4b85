"""Table 1: its smoke run, what its settings are chosen by, and that the numbers shown are those of the records."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from graphfm import datasets
from tests.test_experiments import FACTS, ROOT, _spine, command, figure1, kept, table1


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Records and output of a smoke run."""
    path = tmp_path_factory.mktemp("table1") / "toy.jsonl"
    return path, command("table1_depth.py", "--smoke", "--results", path)


@pytest.fixture(scope="module")
def records() -> list[dict]:
    """Records of the real Table 1."""
    return kept(table1.PATH)


def test_second_smoke_run_adds_nothing_and_prints_the_same(smoke):
    path, output = smoke
    before = path.read_bytes()
    assert command("table1_depth.py", "--smoke", "--results", path) == output
    assert path.read_bytes() == before
    assert output.endswith(table1.table(_spine.read(path)) + "\n")


def test_smoke_records_have_every_method_and_fact(smoke):
    toy = _spine.read(smoke[0])
    controls = [r for r in toy if r["method"] in table1.CONTROLS]
    assert {r["method"]: r["accuracy"] for r in controls}["oracle"] == 1 and len(controls) == 2
    toy = [r for r in toy if r not in controls]
    assert {(r["method"], r["num_layers"]) for r in toy} == {(m, d) for m in table1.METHODS for d in (2, 4)}
    assert "not between these" not in smoke[1]
    wanted = FACTS | {"accuracy", "macro_f1", "rare_recall", "effective_rank", "dirichlet_energy", "num_layers"}
    for record in toy:
        assert set(record) >= wanted | {"gradient_first", "dropout", "block_weight_decay", "seconds"}
        assert not any(isinstance(value, dict | list) for value in record.values())
        assert 0 <= record["accuracy"] <= 1
    assert max(r["accuracy"] for r in toy) > 0.9


def test_a_part_can_be_run(tmp_path):
    path = tmp_path / "part.jsonl"
    command("table1_depth.py", "--smoke", "--results", path, "--method", "appnp", "--depth", "4")
    assert [(r["method"], r["num_layers"]) for r in _spine.read(path)] == [("appnp", 4)]


def test_settings_are_those_with_the_best_validation_score():
    case, tried = table1.CASES[0], []
    for strength, score in zip(table1.STRENGTHS, (0.7, 0.9, 0.8, 0.85), strict=True):
        job = {
            "dataset": case.dataset,
            "setting": "supervised",
            "method": "gcn",
            "num_layers": 8,
            **strength,
        }
        # the test score says otherwise and must not count
        tried.append({**job, "validation_score": score, "accuracy": 1 - score})
    recipe = table1.recipe_of(case, "supervised", "gcn", 64, tried)
    assert {key: getattr(recipe, key) for key in table1.STRENGTHS[1]} == table1.STRENGTHS[1]
    assert table1.recipe_of(case, "supervised", "gcn", 4, tried) == case.recipe  # chosen at 4 layers, not at 8
    assert table1.recipe_of(case, "supervised", "gat", 64, tried) == case.recipe
    assert table1.recipe_of(case, "consistency", "gcn", 64, tried).consistency == 1


def test_splits_share_no_node_and_leave_no_class_out():
    y = torch.tensor([0] * 50 + [1] * 6 + [2] * 200)
    masks = torch.stack(table1.stratified(y, seed=3))
    assert (masks.sum(0) == 1).all()
    assert all(set(y[mask].tolist()) == {0, 1, 2} for mask in masks)
    assert not torch.equal(masks, torch.stack(table1.stratified(y, seed=4)))
    assert torch.equal(masks, torch.stack(table1.stratified(y, seed=3)))


def test_test_nodes_are_not_seen_in_training():
    """Other labels on the test nodes: the same network."""
    problem = table1.load(table1.SMOKE, 0)
    classes = int(problem.y.max()) + 1
    wrong = replace(problem, y=torch.where(problem.test, (problem.y + 1) % classes, problem.y))
    nets = []
    for data in (problem, wrong):
        torch.manual_seed(0)
        net = table1.DeepNet(data.x.shape[1], 8, classes, num_layers=2, block="graphfm", dropout=0.5, drop_nodes=0.5)
        table1.fit(net, data, table1.Recipe(epochs=6, consistency=1.0))
        nets.append(net)
    assert all(torch.equal(a, b) for a, b in zip(*(net.state_dict().values() for net in nets), strict=True))


def test_disagreement_of_two_passes_costs():
    problem = table1.load(table1.SMOKE, 0)
    a, b = torch.randn(2, len(problem.y), int(problem.y.max()) + 1).unbind()
    alone = table1.loss_of([a], problem, 1.0)
    assert table1.loss_of([a, a], problem, 0.0) == pytest.approx(float(alone))
    sharp = torch.softmax(a, 1).square()
    sharp = sharp / sharp.sum(1, keepdim=True)
    own = (a.softmax(1) - sharp).square().sum(1).mean()
    assert table1.loss_of([a, a], problem, 1.0) == pytest.approx(float(alone + own), rel=1e-5)
    assert table1.loss_of([a, b], problem, 5.0) > table1.loss_of([a, b], problem, 0.0)


def test_a_score_outside_of_the_controls_is_told(smoke):
    toy = [{**r, "accuracy": 0.01} if r["method"] == "gat" else r for r in _spine.read(smoke[0])]
    assert "not between these: `gat` at 2, `gat` at 4" in table1.table(toy)


def test_checkpointing_smoke():
    assert "`graphfm:checkpoint`" in command("checkpointing.py", "--smoke")


def test_figure_smoke_and_figure_of_records(smoke, tmp_path):
    assert "kB" in command("figure1_depth.py", "--smoke")
    figure = figure1.draw(_spine.read(smoke[0]), [])
    assert figure.axes[0].get_title() == "toy"
    figure.savefig(tmp_path / "figure.png")


def test_readme_shows_the_records(records):
    block = (ROOT / "README.md").read_text(encoding="utf-8").split("<!-- table1 -->\n")[1].split("<!-- /table1 -->")[0]
    assert block == table1.table(records), "run: python experiments/table1_depth.py --readme"


def test_records_are_of_committed_code_and_known_data(records):
    tuning, profiles = _spine.read(table1.TUNING), _spine.read(table1.PROFILES)
    jobs = [json.dumps([r[k] for k in ("dataset", "setting", "method", "num_layers", "seed")]) for r in records]
    assert len(set(jobs)) == len(jobs)
    for record in [*records, *tuning, *profiles]:
        assert set(record) >= FACTS
        assert "dirty" not in record["commit"]
        assert record["data_sha256"] == datasets.info(record["dataset"]).files[0].sha256
    for record in (r for r in records if r["method"] not in table1.CONTROLS):
        case = next(c for c in table1.CASES if c.dataset == record["dataset"])
        recipe = table1.recipe_of(case, record["setting"], record["method"], record["num_layers"], tuning)
        assert {key: getattr(recipe, key) for key in table1.CHOSEN} == {key: record[key] for key in table1.CHOSEN}


def test_harness_is_sound(records):
    """GCNII at 64 layers on Cora: 85.0 within 0.7, as is published (85.5)."""
    chosen = [
        r["accuracy"]
        for r in records
        if (r["dataset"], r["setting"], r["method"], r["num_layers"]) == ("planetoid_cora", "supervised", "gcnii", 64)
    ]
    if len(chosen) < 10:
        pytest.skip("not all seeds are there yet")
    assert np.mean(chosen) == pytest.approx(0.850, abs=0.007)
