"""The summary drawn: how far graphfm is above or below the best simple method and the best peer of each task.

Command: ``python experiments/figure_summary.py`` (``--smoke``: made-up records, nothing is kept)
Cost:    seconds, from the records of the other tables
Expect:  ``experiments/results/figure_summary.png``
"""

from collections.abc import Mapping, Sequence

import _spine
import table_summary as summary
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from table_summary import CONTESTS, Outcome

PATH = _spine.RESULTS / "figure_summary.png"
INCHES, DPI = 12.0, 150
FURTHEST = 0.65
"""Differences beyond are drawn here, with an arrow and their factor."""
STYLES = (
    ("against the best simple method", -0.16, {"color": "#0072B2", "marker": "o"}),
    ("against the best peer", 0.16, {"color": "#D55E00", "marker": "s"}),
)


def figure(records: Mapping[str, Sequence[dict]]) -> Figure:
    """A row a task; filled where the interval leaves zero out."""
    picture = Figure(figsize=(INCHES, 0.5 * len(CONTESTS) + 1.4), layout="constrained")
    ax = picture.subplots()
    for place, contest in enumerate(CONTESTS):
        found = summary.outcomes(contest, records[contest.table])
        for outcome, (_, shift, style) in zip(found, STYLES, strict=True):
            if outcome is not None:
                _draw(ax, outcome, place + shift, **style)
    for label, _, style in STYLES:
        ax.plot([], [], ls="", ms=9, label=label, **style)
    ax.plot(
        [], [], ls="", color="#555555", marker="o", ms=9, mfc="white", mew=1.6, label="level: the interval holds zero"
    )
    ax.set_yticks(range(len(CONTESTS)), [contest.task for contest in CONTESTS], fontsize=11)
    ax.set(xlim=(-0.2, FURTHEST + 0.2), ylim=(len(CONTESTS) - 0.4, -0.6))
    ax.set_xlabel("score of graphfm above that of the other, with 95 % over data sets, networks, slides or seeds")
    ax.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    ax.axvline(0, color="#555555", lw=1, zorder=0)
    ax.grid(axis="x", color="#DDDDDD", lw=0.6, zorder=-1)
    ax.spines[["top", "right"]].set_visible(False)
    picture.legend(loc="outside lower center", ncols=3, frameon=False)
    return picture


def _draw(ax: Axes, found: Outcome, place: float, *, color: str, marker: str) -> None:
    """One comparison, in shares of the other's score."""
    gain, low, high = ((value / found.theirs) for value in (found.ours - found.theirs, found.low, found.high))
    fill = "white" if found.verdict == "level" else color
    if gain > FURTHEST:
        ax.plot(FURTHEST, place, ls="", color=color, marker=">", ms=9, clip_on=False)
        text = f"{found.ours / found.theirs:.1f} times {found.rival}"
        ax.text(FURTHEST + 0.012, place, text, va="center", fontsize=9)
        return
    ax.plot([low, min(high, FURTHEST)], [place, place], color=color, lw=2)
    ax.plot(gain, place, ls="", color=color, marker=marker, ms=9, mfc=fill, mew=1.6)
    ax.text(min(high, FURTHEST) + 0.012, place, found.rival, va="center", fontsize=9)


def main() -> None:
    """Draw."""
    _spine.drive_figure(__doc__, PATH, DPI, draw=figure, kept=summary.kept, made_up=summary.random_records)


if __name__ == "__main__":
    main()
