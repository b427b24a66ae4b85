"""Figures that scanpy and squidpy lack. Every function draws on an Axes and returns it."""

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from matplotlib.axes import Axes

from graphfm import _keys
from graphfm._checks import check_column

# Okabe and Ito's eight colours, safe for colour-blind readers, then four of Paul Tol's muted ones
PALETTE = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#000000",
    "#332288",
    "#AA4499",
    "#999933",
    "#88CCEE",
)
ACTIVATES, REPRESSES = PALETTE[0], PALETTE[5]
NODE_SIZE = 1500
ATTENTION_LABELS = {
    "breadth": "neighbours heard in effect, of the graph's",
    "shift": "share of attention that is not the graph's",
}


def _point_size(points: np.ndarray) -> float:
    """Area of a point, the less the more there are."""
    return float(np.clip(12000 / len(points), 1, 30))


def _look(code: int) -> dict[str, str]:
    """Colour and shape of a label's points, another one for each of 144 labels."""
    turn, place = divmod(code, len(PALETTE))
    return {"color": PALETTE[place], "marker": MARKERS[turn % len(MARKERS)]}


def labelled_scatter(
    ax: Axes, points: np.ndarray, labels: Sequence, *, title: str = "", size: float | None = None
) -> Axes:
    """Points by label, told apart by colour, and beyond twelve labels also by shape; a legend is for the caller.

    Parameters
    ----------
    ax
        To draw on.
    points
        ``[n, 2]``.
    labels
        ``[n]``; missing values are drawn in grey.
    title
        Above the panel.
    size
        Area of a point; by default it shrinks with their number.
    """
    import pandas as pd

    values = pd.Categorical(labels)
    size = size or _point_size(points)
    missing = values.codes < 0
    ax.scatter(*points[missing].T, s=size, c="#BBBBBB", linewidths=0)
    for code, name in enumerate(values.categories):
        chosen = values.codes == code
        ax.scatter(
            *points[chosen].T,
            s=size,
            **_look(code),
            linewidths=0,
            label=str(name),
        )
    ax.set(title=title, xticks=[], yticks=[])
    return ax


def training_curve(ax: Axes, log: Sequence[Mapping]) -> Axes:
    """How far the loss of a run, smoothed, is below that of what learns nothing (``null_loss``).

    Which is for `graphfm.objectives.MaskedExpression` each gene's mean, in nats a hidden count, and for
    `graphfm.objectives.NeighborAgreement` the states before the first block.

    Parameters
    ----------
    ax
        To draw on.
    log
        Records of `graphfm.train.log.read`.
    """
    import pandas as pd

    table = pd.DataFrame(log)
    window = max(len(table) // 20, 1)
    gain = (table["null_loss"] - table["loss"]).rolling(window, min_periods=1).mean()
    for number, (name, part) in enumerate(table.groupby("data", sort=True)):
        part_gain = (part["null_loss"] - part["loss"]).rolling(max(len(part) // 20, 1), min_periods=1).mean()
        ax.plot(part["step"], part_gain, color=PALETTE[number % len(PALETTE)], lw=1, label=str(name))
    if table["data"].nunique() > 1:
        ax.plot(table["step"], gain, color="black", lw=2, label="all")
    ax.axhline(0, color="grey", lw=1, ls="--")
    ax.set(xlabel="step", ylabel="loss below that of\nwhat learns nothing")
    ax.legend(frameon=False, fontsize="small")
    return ax


DEPTH_LABELS = {
    "effective_rank": "effective rank of the states",
    "dirichlet_energy": "Dirichlet energy",
    "dirichlet_energy_normalized": "Dirichlet energy per $|h|^2$",
    "dirichlet_energy_within": "Dirichlet energy per $|h|^2$,\nconstants of components left out",
    "mad_neighbors": "mean cosine distance\nof neighbours",
    "mad_random": "mean cosine distance\nof random pairs",
    "gradient_norm": "length of the gradient",
}
MARKERS = "os^DvPX*<>hd"


def depth_profile(
    ax: Axes,
    profiles: Mapping[str, Sequence[Mapping[str, float | None]]],
    metric: str = "effective_rank",
    *,
    log: bool = False,
) -> Axes:
    """What becomes of the states layer by layer, one line a model.

    Parameters
    ----------
    ax
        To draw on.
    profiles
        By name, the records of `graphfm.metrics.smoothing.depth_profile`, with ``layer`` and `metric`; where the metric
        is None the line has a gap.
    metric
        A key of the records.
    log
        Logarithmic scale.

    Raises
    ------
    KeyError
        The records do not have this metric.
    """
    for number, (name, profile) in enumerate(profiles.items()):
        missing = [record for record in profile if metric not in record]
        if missing:
            raise KeyError(f"profile {name!r} has no {metric!r} (found: {sorted(missing[0])}). Pass another metric=.")
        values = [np.nan if record[metric] is None else record[metric] for record in profile]
        ax.plot(
            [record["layer"] for record in profile],
            values,
            marker=MARKERS[number % len(MARKERS)],
            markevery=max(len(profile) // 8, 1),
            ms=5,
            color=PALETTE[number % len(PALETTE)],
            label=name,
        )
    ax.set(xlabel="layer (0: stem)", ylabel=DEPTH_LABELS.get(metric, metric))
    if log:
        ax.set_yscale("log")
    else:
        ax.set_ylim(0, None)
    ax.legend(frameon=False, fontsize="small")
    return ax


def grn(ax: Axes, adata: AnnData, tf: str | None = None, *, key: str | None = None, num_targets: int = 14) -> Axes:
    """A transcription factor and its strongest targets, with the edges among them.

    Blue arrows raise, orange bars lower expression; the width is the strength.

    Parameters
    ----------
    ax
        To draw on.
    adata
        With a network in ``varp[key]``, from `graphfm.tl.infer_grn` or `graphfm.pp.regulatory_graph`.
    tf
        Regulator; default: the one with the largest sum of absolute weights.
    key
        Key in ``varp``; default: ``"grn"`` if it is there, else ``"regulatory"``.
    num_targets
        Targets shown.

    Raises
    ------
    KeyError
        No such graph or gene.
    """
    import networkx as nx

    key = key or (_keys.GRN if _keys.GRN in adata.varp else _keys.REGULATORY)
    if key not in adata.varp:
        raise KeyError(f"adata.varp has no {key!r} (found: {sorted(adata.varp)}). Run graphfm.tl.infer_grn(adata).")
    graph = sp.csr_matrix(adata.varp[key])
    if tf is None:
        tf = str(adata.var_names[int(np.argmax(np.asarray(abs(graph).sum(axis=1)).ravel()))])
    if tf not in adata.var_names:
        raise KeyError(f"tf={tf!r} is not in adata.var_names")
    center = adata.var_names.get_loc(tf)
    row = graph[center]
    targets = row.indices[np.argsort(-np.abs(row.data), kind="stable")]
    targets = targets[targets != center][:num_targets]
    shown = [center, *targets]
    local = graph[shown][:, shown].tocoo()
    network = nx.DiGraph()
    network.add_nodes_from(adata.var_names[shown])
    for i, j, weight in zip(local.row, local.col, local.data, strict=True):
        if i != j:
            network.add_edge(adata.var_names[shown[i]], adata.var_names[shown[j]], weight=float(weight))
    # the regulator in the middle, targets around it
    angle = np.linspace(0, 2 * np.pi, len(targets), endpoint=False)
    position = dict(zip(adata.var_names[targets], np.stack([np.cos(angle), np.sin(angle)], axis=1), strict=True))
    position[tf] = np.zeros(2)
    strongest = max((abs(w) for *_, w in network.edges(data="weight")), default=1.0)
    for sign, color, style in ((1, ACTIVATES, "-|>"), (-1, REPRESSES, "-[")):
        edges = [(a, b) for a, b, w in network.edges(data="weight") if w * sign > 0]
        widths = [0.4 + 2.2 * abs(network.edges[e]["weight"]) / strongest for e in edges]
        alphas = [0.9 if a == tf else 0.25 for a, _ in edges]
        nx.draw_networkx_edges(
            network,
            position,
            edgelist=edges,
            width=widths,
            edge_color=color,
            alpha=alphas,
            arrowstyle=style,
            arrowsize=9,
            node_size=NODE_SIZE,
            ax=ax,
        )
    colors = [PALETTE[6] if name == tf else "#EEEEEE" for name in network]
    nx.draw_networkx_nodes(network, position, node_size=NODE_SIZE, node_color=colors, edgecolors="#555555", ax=ax)
    nx.draw_networkx_labels(network, position, font_size=7, ax=ax)
    ax.set_axis_off()
    ax.margins(0.15)
    return ax


def rare(ax: Axes, adata: AnnData, *, key: str = "rare") -> Axes:
    """Rare populations: how distinct each is, how many cells it has, and what marks it.

    Parameters
    ----------
    ax
        To draw on.
    adata
        With the results of `graphfm.tl.find_rare`.
    key
        Their ``key_added``.

    Raises
    ------
    KeyError
        No such results.
    """
    if key not in adata.uns or "distinctness" not in adata.uns[key]:
        raise KeyError(f"adata.uns has no {key!r} (found: {sorted(adata.uns)}). Run graphfm.tl.find_rare(adata).")
    table = adata.uns[key][::-1]
    ax.barh(range(len(table)), table["distinctness"], color=PALETTE[4], height=0.6)
    for place, row in enumerate(table.itertuples()):
        told = f" {row.size} cells ({100 * row.fraction:.2g} %): {row.markers}"
        ax.text(0.02, place, told, va="center", fontsize="small")
    ax.set_yticks(range(len(table)), table["population"])
    ax.set(xlabel="distance from abundant types (1: as theirs from each other)", title="Rare populations")
    ax.set_xlim(0, max(1.0, 1.05 * float(table["distinctness"].max()) if len(table) else 1.0))
    if not len(table):
        ax.text(0.5, 0.5, "none found", ha="center", transform=ax.transAxes)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


def domains(
    ax: Axes,
    adata: AnnData,
    *,
    key: str = "spatial_domain",
    slide: str | None = None,
    library_key: str | None = None,
    spatial_key: str = _keys.SPATIAL,
) -> Axes:
    """A slide's domains or niches: one colour each, beyond twelve also a shape, paler where the runs agree less.

    Parameters
    ----------
    ax
        To draw on.
    adata
        With the results of `graphfm.tl.spatial_domains` or `graphfm.tl.niches`.
    key
        Their ``key_added``.
    slide, library_key
        Draw the cells whose column `library_key` of ``obs`` is `slide`; without them all cells.
    spatial_key
        Key in ``obsm`` of the coordinates, of which the first two are drawn.

    Raises
    ------
    KeyError
        No such results, coordinates or column.
    ValueError
        No cell is of `slide`.
    """
    from matplotlib.colors import to_rgb

    if f"{key}_confidence" not in adata.obs:
        raise KeyError(f"adata.obs has no {key!r} with a confidence. Run graphfm.tl.spatial_domains(adata) first.")
    cells = _cells_of(adata, slide, library_key)
    labels, confidence = adata.obs[key].cat, adata.obs[f"{key}_confidence"].to_numpy()[cells]
    points, codes = _places(adata, spatial_key)[cells], labels.codes.to_numpy()[cells]
    looks = [_look(code) for code in range(len(labels.categories))]
    colors = np.column_stack([np.array([to_rgb(look["color"]) for look in looks])[codes], np.clip(confidence, 0.15, 1)])
    for marker in dict.fromkeys(look["marker"] for look in looks):
        mine = np.array([look["marker"] == marker for look in looks])[codes]
        ax.scatter(*points[mine].T, s=_point_size(points), c=colors[mine], marker=marker, linewidths=0)
    for name, look in zip(labels.categories, looks, strict=True):
        ax.scatter([], [], **look, label=str(name))
    ax.legend(fontsize="small", frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    ax.set(xticks=[], yticks=[], aspect="equal")
    return ax


def attention(
    ax: Axes,
    adata: AnnData,
    *,
    key: str = _keys.ATTENTION,
    measure: str = "breadth",
    slide: str | None = None,
    library_key: str | None = None,
    spatial_key: str = _keys.SPATIAL,
) -> Axes:
    """A slide's cells by how they listen to their neighbours, with a scale beside them.

    Parameters
    ----------
    ax
        To draw on.
    adata
        With the results of `graphfm.tl.attention`.
    key
        Its ``key_added``.
    measure
        ``"breadth"`` or ``"shift"``.
    slide, library_key, spatial_key
        As in `domains`.

    Raises
    ------
    KeyError
        No such results, coordinates or column.
    ValueError
        No cell is of `slide`.
    """
    from matplotlib import colormaps

    column = f"{key}_{measure}"
    if column not in adata.obs:
        raise KeyError(
            f"adata.obs has no {column!r} (found: {list(adata.obs)}). Run graphfm.tl.attention(adata) first."
        )
    cells = _cells_of(adata, slide, library_key)
    points = _places(adata, spatial_key)[cells]
    values = adata.obs[column].to_numpy(dtype=np.float64)
    limits = {"vmin": np.nanmin(values), "vmax": np.nanmax(values)}  # of all slides, to be compared
    colors = colormaps["cividis"].with_extremes(bad="#BBBBBB")
    drawn = ax.scatter(*points.T, s=_point_size(points), c=values[cells], cmap=colors, plotnonfinite=True, **limits)
    ax.figure.colorbar(drawn, ax=ax, label=ATTENTION_LABELS[measure], shrink=0.8)
    ax.set(xticks=[], yticks=[], aspect="equal")
    return ax


def _cells_of(adata: AnnData, slide: str | None, library_key: str | None) -> np.ndarray:
    """Which cells are of a slide; all without a column."""
    if library_key is None:
        if slide is not None:
            raise ValueError(f"slide={slide!r} needs library_key=, the column of adata.obs that names the slides.")
        return np.ones(adata.n_obs, dtype=bool)
    check_column(adata.obs, library_key, "library_key")
    cells = (adata.obs[library_key].astype(str) == str(slide)).to_numpy()
    if not cells.any():
        raise ValueError(
            f"slide={slide!r} has no cell. Choose from {sorted(adata.obs[library_key].astype(str).unique())}."
        )
    return cells


def _places(adata: AnnData, spatial_key: str) -> np.ndarray:
    """First two coordinates of all cells."""
    if spatial_key not in adata.obsm:
        raise KeyError(f"adata.obsm has no {spatial_key!r} (found: {list(adata.obsm)}). Pass spatial_key=.")
    return np.asarray(adata.obsm[spatial_key])[:, :2]
