"""Figure 6: Table 6 drawn. Cell types from few labels and from another batch; batches together.

Command: ``python experiments/figure6_zero_shot.py`` (``--smoke``: made-up records, nothing is kept)
Cost:    seconds, from the records of Table 6
Expect:  ``experiments/results/figure6_zero_shot.png``
"""

import _spine
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
TOGETHER = {
    "graphfm": "graphfm",
    "graphfm:components": "graphfm before the trunk",
    "harmony": "Harmony",
    "scvi": "scVI",
    "harmony:carrier": "Harmony, then our trunk",
    "pca": "principal components",
}
MARKERS = "os^Dv<"
SCORES = ("macro_f1", "avgbio", "avgbatch", "overall")


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


def dots(ax: Axes, wide: pd.DataFrame, labels: dict[str, str], order: str) -> None:
    """A row for each line of the table, a mark a method."""
    wide = wide.sort_values(order) if order in wide else wide
    place = np.arange(len(wide))
    shown = [method for method in labels if method in wide]
    ax.hlines(place, wide[shown].min(axis=1), wide[shown].max(axis=1), color="#cccccc", lw=1, zorder=1)
    for number, (method, label) in enumerate(labels.items()):
        if method in shown:
            size = 50 if method == "graphfm" else 24
            ax.scatter(
                wide[method], place, s=size, marker=MARKERS[number], color=pl.PALETTE[number], label=label, zorder=2
            )
    ax.set_yticks(place, wide.index, fontsize="small")


def pairs(ax: Axes, transfer: pd.DataFrame) -> None:
    """Macro-F1 of each pair."""
    dots(ax, transfer.pivot_table("macro_f1", "dataset", "method", observed=True), LABELS, "l1")
    ax.set(xlabel="macro-F1 of the other batch", title="from another batch, donor, condition or section")


def trade(ax: Axes, batches: pd.DataFrame) -> None:
    """Types kept against batches mixed, means over the mixtures that all methods have."""
    every = batches[batches["method"].isin(TOGETHER)]
    counts = every.groupby("dataset")["method"].nunique()
    every = every[every["dataset"].isin(counts.index[counts == counts.max()])]
    means = every.groupby(["method", "dataset"], observed=True)[["avgbio", "avgbatch"]].mean()
    means = means.groupby("method", observed=True).mean()
    for number, (method, label) in enumerate(TOGETHER.items()):
        if method in means.index:
            size = 110 if method == "graphfm" else 60
            x, y = means.loc[method, ["avgbatch", "avgbio"]]
            ax.scatter(x, y, s=size, marker=MARKERS[number], color=pl.PALETTE[number])
            ax.annotate(label, (x, y), xytext=(6, 5), textcoords="offset points", fontsize="small")
    ax.margins(0.3, 0.2)
    ax.set(xlabel="batches mixed (iLISI, silhouette, connectivity)", ylabel="types kept (ARI, NMI, silhouette)")
    ax.set_title(f"batches together, mean of {every['dataset'].nunique()} mixtures")


def mixtures(ax: Axes, batches: pd.DataFrame) -> None:
    """Overall score of each mixture."""
    dots(ax, batches.pivot_table("overall", "dataset", "method", observed=True), TOGETHER, "harmony")
    ax.set(xlabel="0.6 types kept + 0.4 batches mixed", title="every mixture of batches")
    ax.legend(frameon=False, fontsize="small", loc="lower right")


def figure(records: list[dict]) -> Figure:
    """Four panels."""
    picture = Figure(figsize=(INCHES, 9.6), layout="constrained")
    panels = picture.subplots(2, 2, width_ratios=(1, 1.1))
    curves(panels[0, 0], table6.frame(records, "few_shot"))
    pairs(panels[0, 1], table6.frame(records, "transfer"))
    together = table6.frame(records, "batches", table6.batches.ORDER)
    trade(panels[1, 0], together)
    mixtures(panels[1, 1], together)
    for ax in panels.flat:
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
    return picture


def made_up() -> list[dict]:
    """Random records of two seeds."""
    rng = np.random.default_rng(0)
    return [job | dict(zip(SCORES, rng.random(len(SCORES)), strict=True)) for job in table6.jobs() if job["seed"] < 2]


def main() -> None:
    """Draw."""
    _spine.drive_figure(__doc__, PATH, DPI, draw=figure, kept=lambda: _spine.read(table6.PATH), made_up=made_up)


if __name__ == "__main__":
    main()
