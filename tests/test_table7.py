"""Table 7: its numbers are means of the records, and only of what all columns have."""

import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "experiments"
sys.path.insert(0, str(FOLDER))

import figure7_graph_helps as figure7  # noqa: E402
import table7_graph_helps as table7  # noqa: E402
from table7_graph_helps import ALONE, DEALT, GRAPH, LINES, Line  # noqa: E402

LINE = Line("told", "kNN", "table6_zero_shot", "f1", table7.TRUNK, "few", where={"labels": 5})


def records():
    rows = [("a", "graphfm", 0, 0.8), ("a", "graphfm", 1, 0.6), ("a", "graphfm:no_graph", 0, 0.5)]
    rows += [("a", "graphfm:shuffled", 0, 0.1), ("b", "graphfm", 0, 0.9), ("b", "graphfm:no_graph", 0, 0.2)]
    rows += [("a", "graphfm:shuffled", 0, 0.3)]  # done again: the last counts
    made = [{"dataset": d, "method": m, "seed": s, "f1": x, "setting": "few", "labels": 5} for d, m, s, x in rows]
    return [*made, made[0] | {"labels": 1, "f1": 0.0}, made[0] | {"setting": "many", "f1": 0.0}]


def test_means_are_of_units_that_have_every_column():
    table = table7.scores(LINE, records())
    assert table.to_dict("index") == {"a": {GRAPH: pytest.approx(0.7), ALONE: 0.5, DEALT: 0.3}}
    text = table7.render([(LINE, table)])
    assert "| told | kNN | 0.700 | 0.500 | 0.300 | +0.200 (+0.200 to +0.200), above on 1 | 1 | Table 6 |" in text


def test_a_line_without_records_is_left_out():
    assert not len(table7.scores(LINE, []))


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.task)
def test_every_line_has_records_of_every_column(line):
    table = table7.scores(line, table7._spine.read(table7._spine.RESULTS / f"{line.table}.jsonl"))
    assert len(table) >= 5 and list(table) == list(line.methods) and np.isfinite(table.to_numpy()).all()


def test_smoke(monkeypatch, capsys):
    for module, name in ((table7, "table7_graph_helps.py"), (figure7, "figure7_graph_helps.py")):
        monkeypatch.setattr(sys, "argv", [name, "--smoke"])
        module.main()
    output = capsys.readouterr().out
    assert all(line.task in output for line in LINES) and "figure7_graph_helps.png" in output


def test_readme_is_of_the_records():
    text = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    block = text.split("<!-- table7 -->\n")[1].split("<!-- /table7 -->")[0]
    assert block == table7.render(table7.all_scores()), "run: python experiments/table7_graph_helps.py --readme"
