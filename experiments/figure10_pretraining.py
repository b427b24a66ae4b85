"""Figure 10: Table 10 drawn. What more weights and more cells buy, and each part of the recipe.

Command: ``python experiments/figure10_pretraining.py`` (``--smoke``: made-up records, nothing is kept)
Cost:    seconds, from the records of Table 10
Expect:  ``experiments/results/figure10_pretraining.png``
"""

from collections.abc import Sequence

import _spine
import numpy as np
import pandas as pd
import table10_pretraining as table10
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from graphfm import pl

PATH = _spine.RESULTS / "figure10_pretraining.png"
INCHES, DPI = 12.0, 150
CURVES = {
    "num_parameters": ("weights without gene embeddings", ("tiny", "small", "wide", "base")),
    "corpus_cells": ("cells trained on", ("cells:1/8", "cells:1/4", "cells:1/2", "small")),
}
LINES = {"reader": ("reader alone", pl.PALETTE[0], "o"), "avgbio": ("embedding", pl.PALETTE[1], "s")}


def curve(ax: Axes, means: pd.DataFrame, column: str) -> Axes:
    """Scores against size or cells, untrained weights dotted; gives the axes of the loss."""
    title, rows = CURVES[column]
    part = means.reindex([row for row in rows if row in means.index])
    for score, (label, color, marker) in LINES.items():
        ax.plot(part[column], part[score], marker=marker, color=color, label=f"{label}, AvgBIO (left axes)")
        if "untrained" in means.index:
            ax.axhline(means.loc["untrained", score], color=color, ls=":", lw=1.2, label=f"{label}, untrained")
    other = ax.twinx()
    other.plot(part[column], part["loss"], marker="^", color=pl.PALETTE[2], label="loss (right axes)")
    ax.set(xlabel=title, xscale="log")
    ax.set_xticks(part[column], [EngFormatter(places=1, sep="")(value) for value in part[column]])
    ax.set_xticks([], minor=True)
    for side in (ax, other):
        side.spines["top"].set_visible(False)
    return other


def parts(ax: Axes, means: pd.DataFrame) -> None:
    """The reader's AvgBIO, a bar a row of the table."""
    rows = [row for row in table10.VARIANTS if row in means.index]
    colors = [pl.PALETTE[0] if row == "small" else "#BBBBBB" for row in rows]
    ax.barh(rows[::-1], means.loc[rows[::-1], "reader"], color=colors[::-1])
    ax.set(xlabel="AvgBIO of the reader alone")
    ax.spines[["top", "right"]].set_visible(False)


def figure(records: Sequence[dict]) -> Figure:
    """Two curves and the parts; means over the data sets of all rows that are whole."""
    columns = ["avgbio", "reader", "loss", "num_parameters", "corpus_cells"]
    means = table10.whole(records).groupby("method")[columns].mean().drop(list(table10.CONTROLS), errors="ignore")
    picture = Figure(figsize=(INCHES, 3.9), layout="constrained")
    left, middle, right = picture.subplots(1, 3)
    middle.sharey(left)
    others = [curve(ax, means, column) for ax, column in zip((left, middle), CURVES, strict=True)]
    losses = [value for ax in others for value in ax.lines[0].get_ydata() if value == value]
    for ax in others:
        ax.set_ylim(min(losses) - 0.1 * np.ptp(losses), max(losses) + 0.1 * np.ptp(losses))
    left.set_ylabel("AvgBIO")
    others[1].set_ylabel("loss a channel")
    handles = [*left.lines, *others[0].lines]
    picture.legend(handles, [line.get_label() for line in handles], loc="outside lower center", ncols=3, frameon=False)
    parts(right, means)
    return picture


def made_up() -> list[dict]:
    """Random records of a seed."""
    rng, found = np.random.default_rng(0), []
    for job in table10.jobs(table10.CASES):
        variant = table10.VARIANTS.get(job["method"], table10.VARIANTS["small"])
        scores = dict(zip(("avgbio", "reader", "loss"), rng.random(3), strict=True))
        found.append(job | scores | {"num_parameters": 50 * variant.dim**2, "corpus_cells": 20000 * variant.share})
    return found


def main() -> None:
    """Draw."""
    _spine.drive_figure(__doc__, PATH, DPI, draw=figure, kept=lambda: _spine.read(table10.PATH), made_up=made_up)


if __name__ == "__main__":
    main()
