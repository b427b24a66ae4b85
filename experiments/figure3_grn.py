"""Figure 3: Table 3 drawn. Networks from expression alone, what they cost, and edges predicted from known ones.

Command: ``python experiments/figure3_grn.py`` (``--smoke``: made-up records, nothing is kept)
Cost:    seconds, from the records of Table 3
Expect:  ``experiments/results/figure3_grn.png``
"""

from collections.abc import Sequence

import _spine
import pandas as pd
import table3_grn as table3
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from graphfm import pl

PATH = _spine.RESULTS / "figure3_grn.png"
INCHES, DPI = 12.0, 150
KINDS = ("STRING", "non-specific ChIP", "specific ChIP")
LABELS = {
    "random": "random",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "clr": "CLR",
    "ridge_partial": "partial correlation",
    "genie3": "GENIE3",
    "grnboost2": "GRNBoost2",
    "regdiffusion": "RegDiffusion",
    "graphfm": "graphfm",
}
ZERO_SHOT = {
    "degree_product": "zero-shot: degrees",
    "paths_of_three": "zero-shot: paths of three",
    "graphfm": "zero-shot: graphfm",
}
SETTINGS = {"edges": "other edges", "tfs": "new regulators", "targets": "new targets"}
MARKERS = "osD"
BASELINES = tuple(m for m in table3.LEARNED if m not in (*table3.CONTROLS, "graphfm", "graphfm:pretrained"))


def by_kind(ax: Axes, summary: pd.DataFrame, transferred: pd.DataFrame) -> None:
    """Early precision of each method, a marker a kind of network."""
    rows = [(part, m, names[m]) for part, names in ((summary, LABELS), (transferred, ZERO_SHOT)) for m in names]
    rows = [row for row in rows if len(row[0]) and row[1] in table3.complete(row[0].loc["all of BEELINE"]).index][::-1]
    for number, kind in enumerate(k for k in KINDS if k in summary.index.get_level_values("group")):
        values = [part.loc[(kind, method), "epr"] for part, method, _ in rows]
        ax.plot(values, range(len(rows)), MARKERS[number], color=pl.PALETTE[number], ms=7, label=kind)
    ax.axvline(1, color="#888888", lw=1, ls=":")
    ax.set_yticks(range(len(rows)), [label for *_, label in rows])
    ax.set(xlabel="early precision over chance (EPR)", title="From expression, and zero-shot")
    ax.legend(frameon=False, fontsize="small", loc="upper right", bbox_to_anchor=(1, 0.97))


def by_cost(ax: Axes, summary: pd.DataFrame) -> None:
    """Mean over all networks of BEELINE against seconds."""
    means = table3.complete(summary.loc["all of BEELINE"])
    for method in [m for m in LABELS if m in means.index and m != "random"]:
        ours = method == "graphfm"
        x, y = max(means.loc[method, "seconds"], 0.02), means.loc[method, "auprc_ratio"]
        ax.plot(x, y, "o", color=pl.PALETTE[3] if ours else "#666666", ms=9 if ours else 6)
        above = method != "spearman"
        ax.annotate(LABELS[method], (x, y), xytext=(6, 4 if above else -10), textcoords="offset points", fontsize=8)
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ax.set_xlim(low / 1.5, high * 8)
    ax.axhline(1, color="#888888", lw=1, ls=":")
    ax.set(xlabel="seconds a data set, one core", ylabel="AUPRC over chance", title="What it costs")


def against_baselines(ax: Axes, each: pd.DataFrame) -> None:
    """Where edges are known: ours against the best baseline of each network, one point each."""
    if each.empty:
        ax.text(0.5, 0.5, "not run yet", ha="center")
        ax.set_axis_off()
        return
    for number, (setting, label) in enumerate(SETTINGS.items()):
        if setting not in each.index.get_level_values("setting"):
            continue
        table = each.xs(setting, level="setting")["auprc"].unstack("method")
        if "graphfm" not in table:
            continue
        best = table[[m for m in BASELINES if m in table]].max(axis=1)
        there = table["graphfm"].notna() & best.notna()
        ax.plot(
            best[there],
            table["graphfm"][there],
            MARKERS[number],
            color=pl.PALETTE[number],
            ms=6,
            alpha=0.8,
            label=label,
        )
    ax.plot([0, 1], [0, 1], color="#888888", lw=1, ls=":")
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="AUPRC of the best baseline", ylabel="AUPRC of graphfm")
    ax.set_title("From known edges: each network")
    ax.legend(frameon=False, fontsize="small", loc="lower right")


def draw(records: Sequence[dict]) -> Figure:
    """Three panels."""
    import matplotlib.pyplot as plt

    summary = table3.summarize(records)
    figure, axes = plt.subplots(1, 3, figsize=(INCHES, 4.3), layout="constrained")
    by_kind(axes[0], summary, table3.summarize(records, "zero_shot"))
    by_cost(axes[1], summary)
    against_baselines(axes[2], table3.supervised(records))
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def made_up() -> list[dict]:
    """Records of no meaning."""
    scores = {"epr": 2.0, "auprc_ratio": 1.5, "auroc": 0.6, "sign_accuracy": None, "seconds": 1.0, "peak_mb": 1.0}
    jobs = [job for job in table3.jobs(table3.BEELINE, table3.SETTINGS) if job["seed"] == 0]
    return [{**job, **scores, "auprc": 0.3, "auprc_low": 0.2, "auprc_high": 0.4, "prevalence": 0.1} for job in jobs]


def main() -> None:
    """Draw."""
    _spine.drive_figure(__doc__, PATH, DPI, draw=draw, kept=lambda: _spine.read(table3.PATH), made_up=made_up)


if __name__ == "__main__":
    main()
