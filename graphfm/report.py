"""The demo: everything once on small data, told in one self-contained HTML page."""

import base64
import io as stdio
import logging
import os
import platform
import time
from pathlib import Path

import numpy as np
from anndata import AnnData

logger = logging.getLogger(__name__)

METRICS = ("accuracy", "ari", "nmi", "avgbio")
FEW_LABELS = 5
OURS = {"graphfm, shipped weights": "X_graphfm", "graphfm, pre-trained here": "X_graphfm_here"}


def demo(out: str | Path = "demo", *, steps: int = 300, seed: int = 0) -> Path:
    """Build graphs, pre-train, embed, compare with baselines, write ``report.html``.

    Blood cells come from the scanpy package and a tissue is simulated, so that no network is needed; a section of
    human cortex is added where it is in the cache, in ``GRAPHFM_DATA``, or can be made.

    Parameters
    ----------
    out
        Folder for the report, its figures and the run.
    steps
        Steps of pre-training.
    seed
        Of everything random.

    Returns
    -------
    Path of the report.
    """
    from graphfm import datasets, genes, tl
    from graphfm.train import TrainConfig
    from graphfm.train.log import read

    began, out = time.perf_counter(), Path(out)
    blood, tissue, cortex = blood_cells(), datasets.toy(num_cells=2000, num_genes=600, seed=seed), _cortex()
    report = genes.align_genes(blood)
    sections = {"PBMC": (blood, "bulk_labels"), "toy tissue": (tissue, "domain")}
    if cortex is not None:
        sections["DLPFC"] = (cortex, "layer")
    tl.build_graphs(blood)
    tl.build_graphs(tissue, library_key="slide")
    tl.infer_grn(blood, seed=seed)
    if cortex is not None:
        tl.build_graphs(cortex)

    run = out / f"run_{steps}_{seed}"
    model = tl.pretrain({"PBMC": blood, "toy tissue": tissue}, run, config=TrainConfig(steps=steps, seed=seed))
    for adata, _ in sections.values():
        tl.embed(adata)
        tl.embed(adata, model, key_added="X_graphfm_here")
    rows = [row for name, (adata, label) in sections.items() for row in compare(adata, label, data=name, seed=seed)]
    figures = _figures(sections, model, read(run), seed)
    return _write(
        out,
        rows=rows,
        figures=figures,
        metrics=METRICS,
        steps=steps,
        genes=str(report),
        intro="Three graphs from one AnnData, one graph transformer over them, and what plain PCA gives beside it.",
        provenance=f"{describe()}\nseconds: {time.perf_counter() - began:.0f}, seed: {seed}",
    )


def blood_cells() -> AnnData:
    """700 peripheral blood cells of ten sorted types, with counts, from the scanpy package (Zheng et al. 2017).

    The package stores log-normalised values of 765 genes; the counts are recovered exactly.
    """
    import scanpy as sc

    from graphfm.io import recover_counts

    stored = sc.datasets.pbmc68k_reduced()
    return AnnData(
        X=recover_counts(stored.raw.X), obs=stored.obs[["bulk_labels"]].copy(), var=stored.raw.var[[]].copy()
    )


def compare(adata: AnnData, label: str, *, data: str, seed: int = 0) -> list[dict]:
    """Label recovery from PCA, from PCA averaged over tissue neighbours, and from graphfm.

    Parameters
    ----------
    adata
        With ``X_pca`` and the embeddings in ``obsm``.
    label
        Column of ``obs``; cells without a label are left out.
    data
        Name for the rows.
    seed
        Of folds and k-means.
    """
    from graphfm.tasks import cell_types
    from graphfm.tl.evaluation import neighbor_mean

    known = adata.obs[label].notna().to_numpy()
    truth = adata.obs[label][known].astype(str).to_numpy()
    representations = {"PCA": adata.obsm["X_pca"]}
    if "spatial_connectivities" in adata.obsp:
        representations["PCA, mean over tissue neighbours"] = neighbor_mean(adata, ("spatial",))
    representations |= {name: adata.obsm[key] for name, key in OURS.items() if key in adata.obsm}
    return [
        {"data": data, "method": method, "ours": method in OURS, **cell_types.evaluate(x[known], truth, seed)}
        for method, x in representations.items()
    ]


def describe(path: str | Path | None = None) -> str:
    """Versions, machine, and what a weights file says of itself (default: the shipped one)."""
    import json
    from importlib.metadata import version

    import torch

    import graphfm
    from graphfm.genes import vocabulary
    from graphfm.models.checkpoint import commit, model_metadata, trained_on
    from graphfm.nn import attention_backend

    metadata = model_metadata(path)
    config = json.loads(metadata.get("config", "{}"))
    backend = attention_backend("cpu", torch.float32, config.get("dim", 64) // config.get("heads", 8))
    packages = ("torch", "torch-geometric", "anndata", "scanpy", "squidpy", "numpy")
    lines = {
        "graphfm": f"{graphfm.__version__} (commit {commit()})",
        "packages": ", ".join(f"{name} {version(name)}" for name in packages),
        "machine": f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} CPUs, "
        f"{torch.get_num_threads()} threads, CUDA {'yes' if torch.cuda.is_available() else 'no'}",
        "attention": {"torch": "torch (padded gather)", "numba": "numba (fused kernel)"}.get(backend, backend),
        "vocabulary": f"{vocabulary().version}, {len(vocabulary())} genes",
        "weights": str(path or "shipped with the package"),
        "config": ", ".join(f"{k}={v}" for k, v in config.items()),
        "trained on": trained_on(metadata.get("training")),
        "made at commit": metadata.get("trained_by", metadata.get("commit", "not said")),
    }
    return "\n".join(f"{key + ':':<16}{value}" for key, value in lines.items())


def _cortex() -> AnnData | None:
    from graphfm import datasets

    try:
        cortex = datasets.load("dlpfc_151673")
    except (OSError, KeyError, ValueError) as error:
        logger.info("the report comes without the cortex section: %s", error)
        return None
    return cortex[cortex.obs["layer"].astype(str) != "NA"].copy()


def _figures(sections: dict, model, log: list[dict], seed: int) -> list[dict]:
    import matplotlib.pyplot as plt

    from graphfm import pl, tl
    from graphfm.data.prepare import cell_graph
    from graphfm.metrics.smoothing import effective_rank

    blood = sections["PBMC"][0]
    figures = []

    def add(title: str, caption: str, figure) -> None:
        buffer = stdio.BytesIO()
        figure.savefig(buffer, dpi=150, bbox_inches="tight")
        plt.close(figure)
        figures.append({"title": title, "caption": caption, "png": base64.b64encode(buffer.getvalue()).decode()})

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2))
    for ax, (name, key) in zip(axes, {"PCA": "X_pca", "graphfm, shipped weights": "X_graphfm"}.items(), strict=True):
        pl.labelled_scatter(ax, _umap(blood.obsm[key], seed), blood.obs["bulk_labels"], title=f"UMAP of {name}")
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, markerscale=2, fontsize="small")
    add("Blood cells", "700 sorted blood cells, coloured by their sorting gate.", figure)

    add(*_few_labels(blood, "bulk_labels", _umap(blood.obsm["X_graphfm"], seed), seed))
    for name, (adata, label) in sections.items():
        if "spatial" in adata.obsm:
            add(*_tissue(adata, label, name, seed))

    figure, ax = plt.subplots(figsize=(7, 5.5))
    pl.grn(ax, blood)
    add(
        "A regulatory neighbourhood",
        "The transcription factor with the strongest inferred edges in these cells, its top targets. Blue: together, "
        "orange: opposed. What is inferred from expression is a hypothesis about regulation, not proof of it.",
        figure,
    )
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.8))
    pl.training_curve(axes[0], log)
    shipped = model.from_pretrained()
    profiles = {
        f"{name}, {kind}": [
            {"layer": layer, "effective_rank": effective_rank(h)}
            for layer, h in enumerate(tl.layer_states(m, cell_graph(adata)))
        ]
        for name, (adata, _) in sections.items()
        for kind, m in {"shipped": shipped, "trained here": model}.items()
    }
    pl.depth_profile(axes[1], profiles)
    add(
        "Training and depth",
        "Left: how much more alike than its first states the network makes a cell and its neighbours. Right: "
        "directions that the cells' states still fill after each layer; over-smoothing would pull this to 1.",
        figure,
    )
    return figures


def _few_labels(adata: AnnData, label: str, points: np.ndarray, seed: int) -> tuple:
    """Types of all cells from a few labelled ones, beside a lasso regression on genes."""
    import matplotlib.pyplot as plt
    from sklearn.linear_model import LogisticRegression

    from graphfm import io, pl, tl
    from graphfm.tasks import cell_types

    truth = adata.obs[label].astype(str).to_numpy()
    order = np.random.default_rng(seed).permutation(adata.n_obs)
    given = np.concatenate([order[truth[order] == kind][:FEW_LABELS] for kind in np.unique(truth)])
    told, cells = np.setdiff1d(order, given), adata.copy()
    cells.obs["given"] = np.where(np.isin(np.arange(adata.n_obs), given), truth, None)
    tl.annotate(cells, label_key="given", seed=seed)
    found = cells.obs["annotation"].astype(str).to_numpy()
    expression = io.expression(adata)
    lasso = LogisticRegression(l1_ratio=1, solver="saga", tol=1e-2, random_state=seed).fit(
        expression[given], truth[given]
    )
    ours, theirs = (
        cell_types.evaluate(guess[told], truth[told])["macro_f1"] for guess in (found, lasso.predict(expression))
    )
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2))
    pl.labelled_scatter(axes[0], points, cells.obs["given"], title=f"{FEW_LABELS} labelled cells of each type")
    pl.labelled_scatter(axes[1], points, found, title=f"what tl.annotate makes of them: macro-F1 {ours:.2f}")
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, markerscale=2, fontsize="small")
    caption = (
        f"The types of the others were told from these. A lasso regression on genes has a macro-F1 of {theirs:.2f}."
    )
    return "Cell types from few labels", caption, figure


def _tissue(adata: AnnData, label: str, name: str, seed: int) -> tuple:
    import matplotlib.pyplot as plt
    from sklearn.cluster import KMeans

    from graphfm import pl

    slide = adata.obs["slide"] if "slide" in adata.obs else np.zeros(adata.n_obs)
    here = np.asarray(slide == np.asarray(slide)[0])
    truth = adata.obs[label].astype("category")
    panels = {"truth": truth}
    for title, key in {"k-means of PCA": "X_pca", "k-means of graphfm, shipped": "X_graphfm"}.items():
        clusters = KMeans(truth.nunique(), n_init=10, random_state=seed).fit_predict(adata.obsm[key])
        panels[title] = _matched(clusters, truth)
    figure, axes = plt.subplots(1, 3, figsize=(11, 4))
    for ax, (title, labels) in zip(axes, panels.items(), strict=True):
        pl.labelled_scatter(ax, adata.obsm["spatial"][here], labels[here], title=title)
        ax.set_aspect("equal")
        ax.invert_yaxis()
    axes[0].legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncol=4, frameon=False, markerscale=3, fontsize="small")
    return f"Tissue: {name}", f"Domains of {name}; each cluster has the colour of the domain it fits best.", figure


def _matched(clusters: np.ndarray, truth) -> np.ndarray:
    """Clusters named after the labels they share most cells with, one to one."""
    import pandas as pd
    from scipy.optimize import linear_sum_assignment

    table = pd.crosstab(clusters, truth.to_numpy())
    rows, columns = linear_sum_assignment(-table.to_numpy())
    names = dict(zip(table.index[rows], table.columns[columns], strict=True))
    return pd.Categorical([names[c] for c in clusters], categories=truth.cat.categories)


def _umap(representation: np.ndarray, seed: int) -> np.ndarray:
    import scanpy as sc

    shell = AnnData(obsm={"X": np.asarray(representation)})
    sc.pp.neighbors(shell, use_rep="X", random_state=seed)
    sc.tl.umap(shell, random_state=seed)
    return shell.obsm["X_umap"]


def _write(out: Path, **content) -> Path:
    from importlib.resources import files

    from jinja2 import Template

    from graphfm.io.files import replacing

    template = Template((files("graphfm") / "report.html.jinja").read_text(), autoescape=True)
    out.mkdir(parents=True, exist_ok=True)
    pictures = [base64.b64decode(figure["png"]) for figure in content["figures"]]
    written = {f"figure{number}.png": picture for number, picture in enumerate(pictures, start=1)}
    written["report.html"] = template.render(**content).encode()
    for name, value in written.items():
        with replacing(out / name) as partial:
            partial.write_bytes(value)
    return out / "report.html"
