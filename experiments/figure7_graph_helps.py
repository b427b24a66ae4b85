"""Figure 7: Table 7 drawn. How much of each task's score is left without its graph, and with a wrong one.

Command: ``python experiments/figure7_graph_helps.py`` (``--smoke``: made-up records, nothing is kept)
Cost:    seconds, from the records of Tables 0, 3, 4, 5 and 6
Expect:  ``experiments/results/figure7_graph_helps.png``
"""

from collections.abc import Sequence

import _spine
import pandas as pd
import table7_graph_helps as table7
from matplotlib.figure import Figure
from table7_graph_helps import ALONE, DEALT, GRAPH, Line

PATH = _spine.RESULTS / "figure7_graph_helps.png"
INCHES, DPI = 12.0, 150
STYLES = {
    GRAPH: {"color": "#0072B2", "marker": "o", "ms": 9},
    ALONE: {"color": "#D55E00", "marker": "s", "ms": 8, "mfc": "white", "mew": 2},
    DEALT: {"color": "#000000", "marker": "x", "ms": 8, "mew": 2},
}


def figure(made: Sequence[tuple[Line, pd.DataFrame]]) -> Figure:
    """A line a task, from the score without its graph to that with it, which is 1."""
    picture = Figure(figsize=(INCHES, 0.42 * len(made) + 1.3), layout="constrained")
    ax = picture.subplots()
    for place, (_, table) in enumerate(made):
        mean = table.mean()
        ax.plot([mean[ALONE] / mean[GRAPH], 1], [place, place], color="#BBBBBB", lw=4, zorder=1)
        for column, style in STYLES.items():
            if column in mean:
                label = column if place == len(made) - 1 or column == DEALT else None
                ax.plot(mean[column] / mean[GRAPH], place, ls="", label=label, zorder=2, **style)
        ax.annotate(
            f"{mean[ALONE]:.2f} to {mean[GRAPH]:.2f}",
            (1, place),
            (1.02, place),
            ("data", "data"),
            va="center",
            fontsize=10,
        )
    ax.set_yticks(range(len(made)), [line.task for line, _ in made], fontsize=11)
    ax.set(xlabel="share of the score with its graph", ylim=(len(made) - 0.4, -0.6), xlim=(-0.02, 1.17))
    ax.axvline(1, color="#0072B2", lw=0.8, zorder=0)
    ax.grid(axis="x", color="#DDDDDD", lw=0.6, zorder=-1)
    ax.spines[["top", "right"]].set_visible(False)
    handles = dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
    picture.legend(
        [handles[name] for name in STYLES if name in handles],
        [name for name in STYLES if name in handles],
        loc="outside lower center",
        ncols=3,
        frameon=False,
    )
    return picture


def main() -> None:
    """Draw."""
    _spine.drive_figure(__doc__, PATH, DPI, draw=figure, kept=table7.all_scores, made_up=table7.made_up_scores)


if __name__ == "__main__":
    main()
