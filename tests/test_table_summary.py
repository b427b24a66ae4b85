"""The summary: the closest rival is found, and what is said of it is so."""

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "experiments"
sys.path.insert(0, str(FOLDER))

import figure_summary  # noqa: E402
import table_summary as summary  # noqa: E402
from table_summary import CONTESTS, Contest  # noqa: E402

CONTEST = Contest("told", "table6_zero_shot", "few", "f1", ("weak", "strong", "once"), ("peer",))


def records():
    scores = {"graphfm": (0.8, 0.9, 0.7, 0.8), "weak": (0.1, 0.1, 0.1, 0.1), "strong": (0.7, 0.8, 0.6, 0.7)}
    scores |= {"once": (0.99,), "peer": (0.9, 0.8, 0.9, 0.7)}
    return [
        {"dataset": str(unit), "method": method, "seed": 0, "f1": value, "setting": "few"}
        for method, values in scores.items()
        for unit, value in enumerate(values)
    ]


def test_the_closest_rival_is_of_those_with_enough_units():
    rival, table = summary.closest(CONTEST, CONTEST.simple, records())
    assert rival == "strong" and len(table) == 4
    assert summary.closest(CONTEST, ("nobody",), records()) is None


def test_a_row_says_who_is_above():
    (row,) = summary.rows([CONTEST], {"table6_zero_shot": records()})
    assert row == "| told | 0.800 / 0.700 `strong` | **above**, 4 of 4 | 0.800 / 0.825 `peer` | level, 2 of 4 |"


@pytest.mark.parametrize("contest", CONTESTS, ids=lambda contest: contest.task)
def test_every_contest_has_a_rival(contest):
    kept = summary._spine.read(summary._spine.RESULTS / f"{contest.table}.jsonl")
    rival, table = summary.closest(contest, contest.simple, kept)
    assert rival in contest.simple and len(table) >= 5


def test_smoke(monkeypatch, capsys):
    for module, name in ((summary, "table_summary.py"), (figure_summary, "figure_summary.py")):
        monkeypatch.setattr(sys, "argv", [name, "--smoke"])
        module.main()
    output = capsys.readouterr().out
    assert all(contest.task in output for contest in CONTESTS) and "figure_summary.png" in output


def test_the_figure_draws_every_outcome_where_it_is(monkeypatch):
    monkeypatch.setattr(figure_summary, "CONTESTS", [CONTEST])
    (ax,) = figure_summary.figure({"table6_zero_shot": records()}).axes
    means = {
        line.get_ydata()[0]: (line.get_xdata()[0], line.get_markerfacecolor())
        for line in ax.lines
        if line.get_marker() in ("o", "s") and len(line.get_xdata()) == 1
    }
    (above, filled), (below, empty) = (means[place] for place in sorted(means))
    assert above == pytest.approx(0.8 / 0.7 - 1) and below == pytest.approx(0.8 / 0.825 - 1)
    assert filled != "white" and empty == "white"
    assert [text.get_text() for text in ax.texts] == ["strong", "peer"]


def test_readme_is_of_the_records():
    text = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    block = text.split("<!-- summary -->\n")[1].split("<!-- /summary -->")[0]
    kept = {c.table: summary._spine.read(summary._spine.RESULTS / f"{c.table}.jsonl") for c in CONTESTS}
    assert block == summary.render(kept), "run: python experiments/table_summary.py --readme"
