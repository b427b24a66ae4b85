"""Figure 8: Table 8 drawn. What is left of cell types where counts, genes, edges or neighbours are not what they were.

Command: ``python experiments/figure8_robustness.py`` (``--smoke``: made-up records, nothing is kept)
Cost:    seconds, from the records of Table 8
Expect:  ``experiments/results/figure8_robustness.png``
"""

from collections.abc import Sequence

import _spine
import numpy as np
import pandas as pd
import table8_robustness as table8
from figure0_embedding import STYLES
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PATH = _spine.RESULTS / "figure8_robustness.png"
INCHES, DPI = 12.0, 150
AXES = {
    "counts": "share of molecules kept",
    "genes": "genes kept",
    "edges": "share of edges dealt at random",
    "neighbors": "neighbours",
}
AS_IT_IS = {"counts": "all", "genes": "all", "edges": "none", "neighbors": "15"}


def panel(ax: Axes, table: pd.DataFrame, setting: str) -> None:
    """AvgBIO over the data sets that have every level, from what is as it is to the poorest."""
    part = table[table["setting"] == setting]
    levels = [level for level in table8.LEVELS[setting] if level in set(part["level"])]
    sizes = part.groupby("dataset").size()
    part = part[part["dataset"].isin(sizes.index[sizes == len(levels) * part["method"].nunique()])]
    names = [table8.named(setting, level).split(": ")[1] for level in levels]
    first = sum(level < 15 for level in levels) if setting == "neighbors" else 0
    names.insert(first, AS_IT_IS[setting])
    for method, (label, color, marker) in STYLES.items():
        mine = part[part["method"] == method]
        if len(mine):
            heights = [mine.loc[mine["level"] == level, "avgbio"].mean() for level in levels]
            heights.insert(first, mine.drop_duplicates("dataset")["clean"].mean())
            width = 2.5 if method == "graphfm" else 1.2
            ax.plot(names, heights, marker=marker, ms=5, lw=width, color=color, label=label)
    ax.set(xlabel=AXES[setting], title=f"{part['dataset'].nunique()} data sets")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#DDDDDD", lw=0.6, zorder=-1)


def figure(records: Sequence[dict]) -> Figure:
    """A panel for each of `AXES`."""
    picture = Figure(figsize=(INCHES, 3.9), layout="constrained")
    panels = picture.subplots(1, len(AXES), sharey=True)
    table = table8.frame(records)
    for ax, setting in zip(panels, AXES, strict=True):
        panel(ax, table, setting)
    panels[0].set_ylabel("AvgBIO (ARI, NMI, silhouette)")
    picture.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return picture


def made_up() -> list[dict]:
    """Random records of a seed."""
    rng = np.random.default_rng(0)
    return [job | {"avgbio": rng.random()} for job in table8.jobs() if job["seed"] == 0]


def main() -> None:
    """Draw."""
    _spine.drive_figure(__doc__, PATH, DPI, draw=figure, kept=lambda: _spine.read(table8.PATH), made_up=made_up)


if __name__ == "__main__":
    main()
