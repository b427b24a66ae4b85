"""Figure 6: Table 6 drawn. Cell types from few labels, and from another batch.

Command: ``python experiments/figure6_zero_shot.py`` (``--smoke``: made-up records, nothing is kept)
Cost:    seconds, from the records of Table 6
Expect:  ``experiments/results/figure6_zero_shot.png``
"""

import argparse
import tempfile
from pathlib import Path

import _spine
import matplotlib
import numpy as np
import pandas as pd
import table6_zero_shot as table6
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from graphfm import pl

PATH = _spine.RESULTS / "figure6_zero_shot.png"
INCHES, DPI = 12.0, 150
LABELS = {
    "graphfm": "graphfm",
    "graphfm:no_graph": "graphfm without its graph",
    "l1": "lasso on genes",
    "pca": "logistic, 50 components",
    "knn": "15 nearest labelled cells",
    "celltypist": "CellTypist, own training",
}
MARKERS = "os^Dv<"


def curves(ax: Axes, few: pd.DataFrame) -> None:
    """Mean macro-F1 over data sets against the number of labels, a line a method."""
    means = few.groupby(["method", "num_labels", "dataset"], observed=True)["macro_f1"].mean()
    means = means.groupby(["method", "num_labels"], observed=True).mean()
    for number, (method, label) in enumerate(LABELS.items()):
        if method not in means.index.get_level_values("method"):
            continue
        mine, width = means.loc[method], 2.5 if method == "graphfm" else 1.2
        ax.plot(mine.index, mine, marker=MARKERS[number], ms=5, lw=width, color=pl.PALETTE[number], label=label)
    ax.set_xscale("log")
    ax.set_xticks(table6.LABELS, [str(n) for n in table6.LABELS])
    ax.minorticks_off()
    ax.set(xlabel="labelled cells a type", ylabel="macro-F1 of the other cells", ylim=(0, 1))
    ax.set_title(f"few labels, mean of {few['dataset'].nunique()} data sets")
    ax.legend(frameon=False, fontsize="small", loc="lower right")


def pairs(ax: Axes, transfer: pd.DataFrame) -> None:
    """Macro-F1 of each pair, a mark a method."""
    wide = transfer.pivot_table("macro_f1", "dataset", "method", observed=True)
    wide = wide.sort_values("l1") if "l1" in wide else wide
    place = np.arange(len(wide))
    shown = [method for method in LABELS if method in wide]
    ax.hlines(place, wide[shown].min(axis=1), wide[shown].max(axis=1), color="#cccccc", lw=1, zorder=1)
    for number, method in enumerate(LABELS):
        if method in shown:
            size = 50 if method == "graphfm" else 24
            ax.scatter(wide[method], place, s=size, marker=MARKERS[number], color=pl.PALETTE[number], zorder=2)
    ax.set_yticks(place, wide.index, fontsize="small")
    ax.set(xlabel="macro-F1 of the other batch", title="from another batch, donor, condition or section")


def figure(records: list[dict]) -> Figure:
    """Two panels."""
    matplotlib.use("Agg")
    picture = Figure(figsize=(INCHES, 5.2), layout="constrained")
    left, right = picture.subplots(1, 2, width_ratios=(1, 1.1))
    curves(left, table6.frame(records, "few_shot"))
    pairs(right, table6.frame(records, "transfer"))
    for ax in (left, right):
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
    return picture


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="made-up records, nothing is kept")
    options = parser.parse_args()
    if options.smoke:
        rng = np.random.default_rng(0)
        jobs = [job | {"macro_f1": rng.random()} for job in table6.jobs() if job["seed"] < 2]
        return _spine.save_figure(figure(jobs), Path(tempfile.mkdtemp()) / PATH.name, DPI)
    _spine.save_figure(figure(_spine.read(table6.PATH)), PATH, DPI)


if __name__ == "__main__":
    main()
