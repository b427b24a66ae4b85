"""Figure 2: Table 2 drawn. Time of every stage and memory of the process against the number of cells.

Command: ``python experiments/figure2_scaling.py`` (``--smoke``: made-up records, nothing is kept)
Cost:    seconds, from the records of Table 2
Expect:  ``experiments/results/figure2_scaling.png``
"""

from collections.abc import Sequence

import _spine
import numpy as np
import pandas as pd
import table2_scaling as table2
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from graphfm import pl

PATH = _spine.RESULTS / "figure2_scaling.png"
MARKERS = "osD^vPX"
LABELS = {
    "knn": "components and neighbours",
    "gather": "tables of the graph",
    "tiles": "order for tiles",
    "embed": "embedding",
    "write": "writing",
    "load": "opening the file",
    "epoch": "an epoch of pre-training",
}
INCHES, DPI = 10.0, 150
PATH_STAGES = [stage for stage in table2.STAGES if stage != "epoch"]


def slope(cells: Sequence[float], values: Sequence[float]) -> float:
    """Growth, as the power of the number of cells: 1 is in proportion to it."""
    return float(np.polyfit(np.log(cells), np.log(values), 1)[0])


def draw(records: Sequence[dict]) -> Figure:
    """Seconds on the left, memory on the right, both on logarithmic axes."""
    import matplotlib.pyplot as plt

    frame = pd.DataFrame([r for r in records if r["setting"] in table2.STAGES])
    frame = frame.drop_duplicates(["setting", "num_cells"], keep="last").sort_values("num_cells")
    figure, (left, right) = plt.subplots(1, 2, figsize=(INCHES, 4.8), layout="constrained")
    for number, (stage, label) in enumerate(LABELS.items()):
        rows = frame[frame["setting"] == stage]
        left.plot(rows["num_cells"], rows["seconds"], color=pl.PALETTE[number], marker=MARKERS[number], label=label)
    path = frame[frame["setting"].isin(PATH_STAGES)].groupby("num_cells")
    total, peak = path["seconds"].sum(), path["peak_mb"].max() / 1e3
    large = total[total.index >= total.index.max() / 10]
    growth = f", slope {slope(large.index, large):.2f} over the last decade" if len(large) > 1 else ""
    left.plot(total.index, total, color="black", lw=2.4, label=f"from file to file{growth}")
    right.plot(peak.index, peak, color="black", lw=2.4, marker="o", label="from file to file")
    embedding = frame[frame["setting"].isin(["gather", "tiles", "embed"])].groupby("num_cells")
    needed, predicted = (embedding[column].max() / 1e3 for column in ("peak_mb", "predicted_mb"))
    number = list(LABELS).index("embed")
    right.plot(needed.index, needed, color=pl.PALETTE[number], marker=MARKERS[number], label="embedding")
    right.plot(predicted.index, predicted, "k--", lw=1, marker="x", label="embedding, as predicted before")
    right.legend(frameon=False)
    left.set(xlabel="cells", ylabel="seconds", xscale="log", yscale="log", title="Time")
    right.set(xlabel="cells", ylabel="GB", xscale="log", yscale="log", title="Memory of the process at its peak")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    right.set_yticks([1, 2, 3, 4, 6, 8])
    right.yaxis.set_major_formatter(ScalarFormatter())
    right.yaxis.set_minor_formatter(NullFormatter())
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25)
    return figure


def made_up() -> list[dict]:
    """Records of two sizes."""
    return [
        {"setting": stage, "num_cells": n, "seconds": n / 1e4, "peak_mb": 700 + n / 1e2, "predicted_mb": 800}
        for stage in table2.STAGES
        for n in (1_000, 10_000)
    ]


def main() -> None:
    """Draw."""
    _spine.drive_figure(__doc__, PATH, DPI, draw=draw, kept=lambda: _spine.read(table2.PATH), made_up=made_up)


if __name__ == "__main__":
    main()
