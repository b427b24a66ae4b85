"""Figure 0: Table 0 as a dot plot, one row a data set, one panel a score.

Command: ``python experiments/figure0_embedding.py`` (``--smoke``: toy data, no mirror, nothing is kept)
Cost:    seconds, from the records of Table 0
Expect:  ``experiments/results/figure0_embedding.png``
"""

import tempfile
from pathlib import Path

import _spine
import pandas as pd
import table0_embedding as table0
from matplotlib.figure import Figure

from graphfm.pl import PALETTE

PATH = _spine.RESULTS / "figure0_embedding.png"
STYLES = {
    "pca": ("PCA", PALETTE[1], "s"),
    "pca:neighbor_mean": ("PCA, mean over neighbours", PALETTE[2], "^"),
    "graphfm:random": ("graphfm, random weights", PALETTE[4], "D"),
    "graphfm": ("graphfm, shipped weights", PALETTE[0], "o"),
}
TITLES = {"cell_types": "cell types", "domains": "tissue regions"}
SHOWN = ("accuracy", "avgbio", "avgbio_leiden")
INCHES, DPI = 9.0, 200


def rows(summary: pd.DataFrame) -> list[tuple[str, str]]:
    """(setting, data set) from top to bottom, within a setting by the accuracy of PCA."""
    accuracy = summary["accuracy"].unstack("method")["pca"]
    return [
        (setting, dataset)
        for setting in table0.RELATIONS
        if setting in accuracy.index
        for dataset in accuracy.loc[setting].sort_values(ascending=False, kind="stable").index
    ]


def draw(summary: pd.DataFrame) -> Figure:
    """Panels of means over seeds; the grey bar spans the two controls."""
    import matplotlib.pyplot as plt

    order = rows(summary)
    # a gap between settings, with their title in it
    height, places, titles = 0.0, {}, {}
    for setting, dataset in order:
        if setting not in titles:
            titles[setting], height = height, height - 1
        places[setting, dataset], height = height, height - 1
    figure, axes = plt.subplots(
        1, len(SHOWN), figsize=(INCHES, 1.1 + 0.31 * -height), sharey=True, layout="constrained"
    )
    for ax, metric in zip(axes, SHOWN, strict=True):
        wide = summary[metric].unstack("method").loc[order]
        y = [places[key] for key in order]
        left, right = wide["shuffled"], wide["oracle"]
        ax.barh(y, right - left, left=left, height=0.86, color="#EEEEEE", zorder=0, label="shuffled to true labels")
        for number, (method, (label, color, marker)) in enumerate(STYLES.items()):
            # side by side, so that none covers another
            shifted = [place + 0.3 - 0.2 * number for place in y]
            ax.scatter(wide[method], shifted, s=22, marker=marker, color=color, linewidth=0, zorder=2, label=label)
        ax.set(
            title=table0.METRICS[metric],
            xlim=(min(-0.02, float(wide["shuffled"].min()) - 0.02), 1.02),
            ylim=(height + 0.4, 0.6),
        )
        ax.tick_params(axis="y", length=0)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.grid(axis="x", color="#DDDDDD", lw=0.6, zorder=-1)
    names = [*titles.items(), *((dataset, y) for (_, dataset), y in places.items())]
    axes[0].set_yticks([y for _, y in names], [TITLES.get(name, name) for name, _ in names])
    for text in axes[0].get_yticklabels()[: len(titles)]:
        text.set_fontweight("bold")
    handles, texts = axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=3, frameon=False)
    return figure


def made_up() -> pd.DataFrame:
    """Scores of the toy."""
    path = Path(tempfile.mkdtemp()) / "toy.jsonl"
    for case in table0.SMOKE:
        table0.run(case, table0.jobs(case, table0.SEEDS[:1]), path)
    return table0.summarize(_spine.read(path))


def main() -> None:
    """Draw."""
    _spine.drive_figure(
        __doc__, PATH, DPI, draw=draw, kept=lambda: table0.summarize(_spine.read(table0.PATH)), made_up=made_up
    )


if __name__ == "__main__":
    main()
