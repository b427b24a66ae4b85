"""Figure 5: Table 5 drawn, and tissues side by side: known domains, the mean over neighbours, GraphST, graphfm.

Command: ``python experiments/figure5_spatial.py`` (``--smoke``: the toy and made-up records, nothing is kept)
Cost:    a minute; the maps are computed anew and need the slides, the scores come from the records
Expect:  ``experiments/results/figure5_spatial.png``. GraphST's domains are kept in ``figure5_peer.json`` beside it; to
         find them again, delete it and run this with GraphST (``graphfm[bench]``): ten minutes of one core
"""

import importlib.util
import json
from collections.abc import Sequence

import _spatial_slides as slides
import _spine
import numpy as np
import pandas as pd
import table5_spatial as table5
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score

from graphfm import pl

PATH = _spine.RESULTS / "figure5_spatial.png"
PEER = _spine.RESULTS / "figure5_peer.json"
INCHES, DPI = (13.5, 9.0), 150
MAPS = {
    "dlpfc_151674": "human cortex, Visium",
    "osmfish_ssctx": "mouse cortex, osmFISH",
    "starmap_mpfc_BZ9": "prefrontal cortex, STARmap",
    "her2st_G": "breast tumour (ST)",
}
MARKERS = {"mixture": "o", "field": "s", "own": "D"}
LABELS = {"pca": "PCA, no graph", "neighbor_mean": "mean of 18 neighbours", "linear": "the same, zero-shot"}
LABELS |= {"banksy": "BANKSY", "graphst": "GraphST", "stagate": "STAGATE", "novae": "Novae"}
LABELS |= {"graphfm:random": "graphfm, untrained trunk", "graphfm:trunk": "graphfm, trunk"}
LABELS |= {"graphfm:shuffled": "graphfm, shuffled", "graphfm": "graphfm"}


def scores(ax: Axes, records: Sequence[dict]) -> None:
    """Mean ARI over slides, a line a method, a mark a clusterer; small marks are the slides of the best."""
    table = table5.frame(records, "slide", "zero_shot")
    ari = table.groupby(["method", "clusterer", "dataset"], observed=True)["ari"].mean()
    present = [m for m in LABELS if m in ari.index.get_level_values("method")]
    for place, method in enumerate(reversed(present)):
        means = ari[method].groupby("clusterer", observed=True).mean()
        cloud = ari[method, means.idxmax()]
        ax.plot(cloud, np.full(len(cloud), place), ".", color="#BBBBBB", ms=4, zorder=1)
        for clusterer, mean in means.items():
            color = pl.PALETTE[list(MARKERS).index(clusterer)]
            ax.plot(mean, place, MARKERS[clusterer], color=color, ms=7, zorder=2)
    for number, (clusterer, marker) in enumerate(MARKERS.items()):
        ax.plot([], [], marker, color=pl.PALETTE[number], ls="", label=clusterer)
    numbers = table.groupby("method", observed=True)["dataset"].nunique()
    names = [f"{LABELS[m]} ({numbers[m]})" if numbers[m] < numbers.max() else LABELS[m] for m in present]
    ax.set_yticks(range(len(present)), names[::-1])
    ax.set(xlabel="ARI, mean (dots: slides)", title=f"Domains of {numbers.max()} slides")
    # beside the row of shuffled coordinates, where no slide has a score
    ax.legend(title="clusterer", fontsize="small", frameon=False, loc="center right", bbox_to_anchor=(1.0, 0.145))
    ax.grid(axis="x", color="#DDDDDD", lw=0.5)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def named_alike(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Number of the known domain that a cluster overlaps with the most, one to one; others get numbers of their own."""
    table = pd.crosstab(found, truth).to_numpy()
    cluster, domain = linear_sum_assignment(table, maximize=True)
    names = np.arange(table.shape[1], table.shape[1] + len(table))
    names[cluster] = domain
    return names[np.unique(found, return_inverse=True)[1]]


def of_peer(name: str, adata: AnnData, number: int) -> np.ndarray | None:
    """GraphST's own domains, as kept or, where the package is, found; else None."""
    kept = json.loads(PEER.read_text()) if PEER.exists() else {}
    if name not in kept:
        if importlib.util.find_spec("GraphST") is None:
            return None
        _, found = table5.represented(
            {"dataset": name, "setting": "slide", "method": "graphst", "seed": 0}, adata, number
        )
        kept[name] = np.asarray(found).tolist()
        _spine.write_whole(PEER, json.dumps(kept) + "\n")
    return np.array(kept[name])


def maps(axes: Sequence[Axes], name: str, title: str) -> None:
    """Known domains, those of the mean over neighbours, of GraphST and of graphfm; one seed."""
    adata = slides.load(name)
    truth, number = np.unique(adata.obs["domain"], return_inverse=True)[1], adata.obs["domain"].nunique()
    blurred = table5.clustered("mixture", slides.surroundings(adata, 0), adata, number, 0)
    panels = {title: truth, "mean of 18 neighbours": blurred, "GraphST": of_peer(name, adata, number)}
    panels["graphfm"] = table5.own_domains(adata, number, 0)
    for ax, (heading, found) in zip(axes, panels.items(), strict=True):
        if found is None:
            ax.set_axis_off()
            continue
        ari = "" if found is truth else f", ARI {adjusted_rand_score(truth, found):.2f}"
        pl.labelled_scatter(ax, adata.obsm["spatial"], named_alike(found, truth), title=heading + ari)
        ax.set_aspect("equal")
        ax.title.set_fontsize("medium")
        ax.invert_yaxis()


def figure(records: Sequence[dict], shown: dict[str, str]) -> Figure:
    """All panels."""
    drawing = Figure(figsize=INCHES, layout="constrained")
    left, right = drawing.subfigures(1, 2, width_ratios=(1, 2.4))
    scores(left.subplots(), records)
    for row, (name, title) in zip(right.subplots(len(shown), 4, squeeze=False), shown.items(), strict=True):
        maps(row, name, title)
    return drawing


def made_up() -> tuple[list[dict], dict[str, str]]:
    """Records of the toy, and what to show of it."""
    base = {"dataset": "toy", "setting": "slide", "clusterer": "own", "seed": 0}
    return [base | {"method": method, "ari": 0.5} for method in ("pca", "graphfm")], {"toy": "simulated"}


def main() -> None:
    """Draw."""
    _spine.drive_figure(
        __doc__,
        PATH,
        DPI,
        draw=lambda data: figure(*data),
        kept=lambda: (_spine.read(table5.PATH), MAPS),
        made_up=made_up,
    )


if __name__ == "__main__":
    main()
