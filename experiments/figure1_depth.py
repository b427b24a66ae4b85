"""Figure 1: Table 1 as curves. Above, the score against depth on every graph; below, 64 layers seen one by one.

Command: ``python experiments/figure1_depth.py`` (``--smoke``: made-up records, nothing is kept)
Cost:    seconds, from the records of Table 1
Expect:  ``experiments/results/figure1_depth.png``
"""

from collections.abc import Sequence

import _spine
import numpy as np
import pandas as pd
import table1_depth as table1
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from graphfm import pl

PATH = _spine.RESULTS / "figure1_depth.png"
STYLES = {
    "graphfm": ("graphfm", pl.PALETTE[0], "o"),
    "gcnii": ("GCNII", pl.PALETTE[1], "s"),
    "appnp": ("APPNP", pl.PALETTE[2], "^"),
    "batchnorm_residual": ("GCN, batch norm, residual", pl.PALETTE[3], "D"),
    "prenorm": ("graph transformer, pre-norm", pl.PALETTE[4], "v"),
    "transformer": ("graph transformer, post-norm", pl.PALETTE[5], "P"),
    "gcn": ("GCN", pl.PALETTE[7], "X"),
}
OTHERS = "other remedies of Table 1"
METRICS = {"accuracy": "accuracy", "auroc": "AUROC", "macro_f1": "macro-F1"}
PROFILED = ("dlpfc_151673", "heterophilous_minesweeper", "planetoid_cora", "toy")  # the first two there are
INCHES, DPI = 12.0, 150
LEAST_GRADIENT = 1e-10  # what vanishes further is cut off


def curves(ax: Axes, part: pd.DataFrame, metric: str, title: str) -> None:
    """Mean and standard deviation over seeds against depth; ours on top, the unnamed remedies in grey."""
    order = sorted(part.index.unique("method"), key=lambda m: (m in STYLES, m == "graphfm"))
    for method in order:
        rows = part.loc[method].sort_index()
        label, color, marker = STYLES.get(method, (OTHERS, "#CCCCCC", ""))
        wide = 2.4 if method == "graphfm" else 1.2
        ax.plot(rows.index, rows[metric], color=color, marker=marker, ms=4.5, lw=wide, label=label)
        if method in STYLES:
            low, high = rows[metric] - rows[f"{metric}_sd"], rows[metric] + rows[f"{metric}_sd"]
            ax.fill_between(rows.index, low, high, color=color, alpha=0.15, lw=0)
    ax.set_xscale("log", base=2)
    depths = sorted(part.index.unique("num_layers"))
    ax.set(title=title, xlabel="layers", ylabel=METRICS[metric])
    ax.set_xticks(depths, [str(depth) for depth in depths])
    ax.spines[["top", "right"]].set_visible(False)


def draw(records: Sequence[dict], profiles: Sequence[dict]) -> Figure:
    """Panels of every graph that has records, and of the layers of the profiled ones."""
    import matplotlib.pyplot as plt

    summary = table1.summarize(records)
    summary = summary[~summary.index.get_level_values("method").isin(table1.CONTROLS)]
    depths = summary.reset_index().groupby(["dataset", "setting"])["num_layers"].nunique()
    known = set(depths[depths > 1].index)  # one depth is no curve
    panels = [(c, t) for c in (*table1.CASES, table1.SMOKE) for t in c.tracks if (c.dataset, t) in known]
    layers = pd.DataFrame(profiles)
    shown = [d for d in PROFILED if len(layers) and d in set(layers["dataset"])][:2]
    below = [(dataset, metric) for dataset in shown for metric in ("effective_rank", "gradient_norm")]
    rows = [part for part in (panels[:5], panels[5:], below) if part]
    figure = plt.figure(figsize=(INCHES, 0.8 + 2.9 * len(rows)), layout="constrained")
    strips = figure.subfigures(len(rows) + 1, 1, height_ratios=[1.0] * len(rows) + [0.2])
    drawn = [
        ax for strip, row in zip(strips, rows, strict=False) for ax in strip.subplots(1, len(row), squeeze=False)[0]
    ]
    for ax, (case, track) in zip(drawn, panels, strict=False):
        name = table1.TITLES.get(case.dataset, case.dataset).replace(", ", ",\n")
        title = name if track == "supervised" else f"{name},\n{track}"
        curves(ax, summary.loc[case.dataset, track], case.recipe.score, title)
    for ax, (dataset, metric) in zip(drawn[len(panels) :], below, strict=True):
        part = layers[(layers["dataset"] == dataset) & (layers["setting"] == "supervised")]
        part = part.drop_duplicates(["method", "layer"], keep="last").replace({np.nan: None})
        lines = {STYLES[m][0]: part[part["method"] == m].to_dict("records") for m in STYLES if m in set(part["method"])}
        pl.depth_profile(ax, lines, metric, log=metric == "gradient_norm")
        styles = {label: {"color": color, "marker": marker} for label, color, marker in STYLES.values()}
        for line in ax.get_lines():
            line.set(**styles[line.get_label()], markersize=4)
        ax.get_legend().remove()
        ax.set_title(f"{table1.TITLES.get(dataset, dataset).split(',')[0]},\n{table1.MAX_DEPTH} layers one by one")
        if metric == "gradient_norm":
            ax.set_ylim(bottom=max(ax.get_ylim()[0], LEAST_GRADIENT))
        ax.spines[["top", "right"]].set_visible(False)
    handles = {
        label: handle
        for ax in drawn[: len(panels)]
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    names = [label for label, *_ in STYLES.values() if label in handles] + [OTHERS] * (OTHERS in handles)
    strips[-1].legend([handles[name] for name in names], names, loc="center", ncols=4, frameon=False)
    return figure


def made_up() -> tuple[list[dict], list[dict]]:
    """Records, and profiles, of one block."""
    job = {"dataset": "toy", "setting": "supervised", "method": "gcn", "seed": 0}
    records = [{**job, "num_layers": depth, "macro_f1": 0.5, "accuracy": 0.5} for depth in (2, 4)]
    return records, [{**job, "layer": i, "effective_rank": 5.0, "gradient_norm": 0.1 if i else None} for i in (0, 1)]


def main() -> None:
    """Draw."""
    _spine.drive_figure(
        __doc__,
        PATH,
        DPI,
        draw=lambda data: draw(*data),
        kept=lambda: (_spine.read(table1.PATH), _spine.read(table1.PROFILES)),
        made_up=made_up,
    )


if __name__ == "__main__":
    main()
