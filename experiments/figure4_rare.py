"""Figure 4: Table 4 drawn. How often each method finds a rare type, by the type's share of the cells.

Command: ``python experiments/figure4_rare.py`` (``--smoke``: made-up records, nothing is kept)
Cost:    seconds, from the records of Table 4
Expect:  ``experiments/results/figure4_rare.png``
"""

import _rare_designs as designs
import _spine
import numpy as np
import pandas as pd
import table4_rare as table4
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from graphfm import pl

PATH = _spine.RESULTS / "figure4_rare.png"
INCHES, DPI = 12.0, 150
TITLES = {
    "sc_mixology": "cell line among four others",
    "kang_pbmc": "B cells in blood",
    "paul15": "neutrophils in marrow",
    "toy": "simulated type",
}
LABELS = {
    "graphfm": "graphfm",
    "sccad": "scCAD",
    "leiden_1": "small Leiden clusters, resolution 1",
    "leiden_4": "the same, resolution 4",
    "fire": "FiRE",
    "giniclust3": "GiniClust3",
    "isolation_forest": "isolation forest",
    "local_outlier_factor": "local outlier factor",
}
SHORT = {
    "leiden_1": "Leiden, 1",
    "leiden_4": "Leiden, 4",
    "isolation_forest": "isol. forest",
    "local_outlier_factor": "LOF",
}
MARKERS = "os^Dv<>P"


def curves(ax: Axes, part: pd.DataFrame, title: str) -> None:
    """Mean F1 against prevalence, a line a method, with 95 % of the mean for graphfm."""
    for number, (method, label) in enumerate(LABELS.items()):
        if method not in part.index.get_level_values("method"):
            continue
        mine = part.loc[method].sort_index()
        mine = mine[mine.index > 0]
        style = {"lw": 2.5, "zorder": 3} if method == "graphfm" else {"lw": 1.2}
        ax.plot(mine.index, mine["f1"], marker=MARKERS[number], ms=5, color=pl.PALETTE[number], label=label, **style)
        if method == "graphfm":
            sure = mine[["low", "high"]].clip(0, 1)
            ax.fill_between(mine.index, sure["low"], sure["high"], color=pl.PALETTE[number], alpha=0.2, lw=0)
    shares = [p for p in designs.PREVALENCES if p > 0]
    ax.set_xscale("log")
    ax.set_xticks(shares, [f"{100 * p:g}" for p in shares], fontsize="small")
    ax.minorticks_off()
    ax.set(xlim=(0.12, 0.0009), ylim=(-0.03, 1.03), title=title, xlabel="share of rare cells, %")
    ax.axhline(0.8, color="#888888", lw=0.8, ls=":")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def false_calls(ax: Axes, records: list[dict], summary: pd.DataFrame) -> None:
    """Share of draws in which anything was called though nothing was rare: dealt genes, and real backgrounds."""
    dealt = table4.frame(records, "dealt")
    real = summary.xs(0.0, level="design").reset_index("method")
    methods = [m for m in LABELS if len(dealt) and m in set(dealt["method"]) & set(real["method"])]
    null, none = (
        [part[part["method"] == method]["false_discovery"].mean() for method in methods] for part in (dealt, real)
    )
    place = np.arange(len(methods))
    ax.barh(place + 0.2, null, 0.38, color=pl.PALETTE[0], label="genes dealt among a type's cells")
    ax.barh(place - 0.2, none, 0.38, color=pl.PALETTE[1], label="background as it is")
    ax.set_yticks(place, [SHORT.get(m, LABELS[m]) for m in methods])
    ax.set(xlim=(0, 1.02), xlabel="draws with a call", title="Nothing rare: is anything called?")
    ax.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.16))
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def figure(records: list[dict]) -> Figure:
    """A panel a design, and what is called where nothing is rare."""
    summary = table4.power(records)
    names = [n for n in TITLES if n in summary.index.get_level_values("dataset")]
    picture = Figure(figsize=(INCHES, 7.0), layout="constrained")
    axes = picture.subplots(2, 3).ravel()
    for ax, name in zip(axes, names, strict=False):
        curves(ax, summary.loc[name], TITLES[name])
    axes[0].set_ylabel("F1 of the matching population")
    if len(names) > 3:
        axes[3].set_ylabel("F1 of the matching population")
    false_calls(axes[len(names)], records, summary)
    handles, labels = axes[0].get_legend_handles_labels()
    for ax in axes[len(names) + 1 :]:
        ax.axis("off")
    axes[-1].legend(handles, labels, frameon=False, loc="center left")
    return picture


def made_up() -> list[dict]:
    """Random records of two seeds."""
    rng = np.random.default_rng(0)
    jobs = [j for j in table4.jobs() if j["setting"] in ("power", "dealt") and j["seed"] < 2]
    score = {"num_rare": 9, "num_cells": 99, "seconds": 1.0, "peak_mb": 1.0, "num_populations": 1.0}
    for job in jobs:
        job |= score | ({"f1": rng.random()} if job["design"] else {"false_discovery": float(rng.random() < 0.5)})
    return jobs


def main() -> None:
    """Draw."""
    _spine.drive_figure(__doc__, PATH, DPI, draw=figure, kept=lambda: _spine.read(table4.PATH), made_up=made_up)


if __name__ == "__main__":
    main()
