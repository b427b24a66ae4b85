"""Batches in one embedding."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from graphfm import _keys, io
from graphfm._checks import check_column, check_device, check_key_added, check_tile_size
from graphfm.data.cell_groups import group_numbers, order_of_names
from graphfm.data.prepare import cell_graph, cell_neighborhood
from graphfm.genes import Organism
from graphfm.io.files import writable
from graphfm.io.matrix import Kind
from graphfm.memory import announced
from graphfm.models.graphfm import GraphFM
from graphfm.models.inputs import CellGraph
from graphfm.models.integration import Integration, integrate_components
from graphfm.nn.neighborhood import Neighborhood
from graphfm.pp.knn import N_NEIGHBORS, knn_graph
from graphfm.tl.embedding import last_states

logger = logging.getLogger(__name__)

FEW_PAIRED = 0.05


def integrate(
    adata: AnnData,
    *,
    batch_key: str,
    model: GraphFM | str | Path | None = None,
    layer: str | None = None,
    kind: Kind = "counts",
    organism: Organism = "auto",
    tile_size: int = 8192,
    device: str = "cpu",
    key_added: str = _keys.X_INTEGRATED,
    seed: int = 0,
    copy: bool = False,
) -> AnnData | None:
    """Bring the cells of several batches into one embedding.

    Cells of one kind in different batches find each other, and each batch moves as a smooth field over its own graph so
    that they meet (`graphfm.models.integration`). On the graph of all cells that results, the trunk's carrier makes the
    embedding. A type that one batch alone has moves with its batch; where two batches each have one of their own, what
    is between these may shrink. No label is needed, and nothing is trained.

    Parameters
    ----------
    adata
        Cells of all batches (or a SpatialData or MuData with one table). Gene names are aligned if that was not done.
        Its graphs and components are not changed. Of human and mouse together, genes must share columns: run
        `graphfm.genes.merge_genes` first.
    batch_key
        Column of ``obs`` that names the batch of each cell: a donor, a chip, a study.
    model
        A model, or the path of one; default: the weights in the package.
    layer, kind
        Where the expression is, and what it is: see `graphfm.io.expression`.
    organism
        See `graphfm.genes.align_genes`.
    tile_size, device
        As for `embed`.
    key_added
        Key of the results.
    seed
        Of all that is drawn.
    copy
        Return a changed copy instead of writing to `adata`.

    Returns
    -------
    None, or the copy. Written, with ``key_added="X_integrated"``:

    - ``obsm["X_integrated"]``: the embedding, float32 ``[cells, dim]``, for ``scanpy.pp.neighbors(use_rep=...)``;
    - ``obsm["X_integrated_pca"]``: principal components of all cells, moved, but each cell for itself;
    - ``uns["X_integrated"]``: DataFrame, a row a batch: ``batch``, ``size``, ``paired`` (share of its cells with a
      counterpart in another batch), ``shift`` (root mean square of how far they moved, in units of all components');
    - ``uns["X_integrated_params"]``: parameters.

    Raises
    ------
    KeyError
        `batch_key` or `layer` does not exist.
    ValueError
        There is one batch only, a cell has none, fewer than 3 cells, or the expression is not what `kind` says.
    FileNotFoundError
        No model at that path.

    Examples
    --------
    >>> import graphfm
    >>> adata = graphfm.datasets.toy(num_cells=600, num_genes=200)
    >>> graphfm.tl.integrate(adata, batch_key="slide")
    >>> adata.obsm["X_integrated"].shape
    (600, 64)
    """
    adata = io.as_anndata(adata)
    check_key_added(key_added)
    check_key_added(f"{key_added}_pca")
    check_tile_size(tile_size)
    check_device(device)
    names = batch_names(adata, batch_key)
    if not isinstance(model, GraphFM):
        model = GraphFM.from_pretrained(model)
    adata = writable(adata, copy=copy)
    needed = model.inference_bytes(
        adata.n_obs, width=2 * N_NEIGHBORS, components=model.config.dim, tile_size=tile_size, mapped=False
    )
    with announced(f"integrating {adata.n_obs:,} cells of {names.nunique()} batches", needed):
        cells = cell_graph(
            adata,
            neighborhood=Neighborhood.empty(adata.n_obs),
            layer=layer,
            kind=kind,
            organism=organism,
            with_expression=False,
        )
        before, batches = cells.scores.numpy(), group_numbers(adata.obs, batch_key)
        order = order_of_names(adata.obs)  # what is drawn is not to depend on that of the file
        found, place = integrate_components(before[order], batches[order], seed=seed), np.argsort(order)
        found = Integration(values=found.values[place], paired=found.paired[place])
        moved = (found.values - found.values.mean(axis=0)).astype(np.float32)
        adata.obsm[key_added] = carried(cells, moved, model, tile_size=tile_size, device=device, seed=seed)
    adata.obsm[f"{key_added}_pca"] = moved
    adata.uns[key_added] = _summary(names, before, found)
    adata.uns[f"{key_added}_params"] = {
        "batch_key": batch_key,
        "layer": layer or "X",
        "kind": kind,
        "seed": seed,
        "num_layers": model.config.num_layers,
        "vocabulary": model.config.vocabulary,
    }
    return adata if copy else None


def carried(
    cells: CellGraph, values: np.ndarray, model: GraphFM, *, tile_size: int = 8192, device: str = "cpu", seed: int = 0
) -> np.ndarray:
    """Carrier of the trunk on other components than the cells' own, and on the kNN graph that is in them.

    Parameters
    ----------
    cells
        Whose cells and genes they are.
    values
        Components instead of ``cells.scores``, centred, float32 ``[cells, components]``.
    model
        The trunk.
    tile_size, device
        As for `embed`.
    seed
        Of the graph.

    Returns
    -------
    float32 ``[cells, dim]``.
    """
    shell = AnnData(obsm={_keys.X_PCA: values})
    knn_graph(shell, n_neighbors=min(N_NEIGHBORS, len(values) - 1), seed=seed)
    neighborhood = cell_neighborhood(shell, relations=("knn",))
    moved = replace(cells, scores=torch.from_numpy(values), neighborhood=neighborhood)
    return np.hsplit(last_states(model, moved, tile_size=tile_size, device=device), 2)[0]


def batch_names(adata: AnnData, batch_key: str, *, otherwise: str = "use graphfm.tl.embed") -> pd.Series:
    """The batch of each cell; an error where there is no such column, or it misses cells or names one batch only."""
    check_column(adata.obs, batch_key, "batch_key", complete=True)
    batches = adata.obs[batch_key]
    names = batches.astype(str)
    if (number := names.nunique()) < 2:
        raise ValueError(
            f"batch_key={batch_key!r} names {number} batch{'es' * (number != 1)}, and two are needed: {otherwise}."
        )
    return names


def _summary(names: pd.Series, before: np.ndarray, found: Integration) -> pd.DataFrame:
    """A row a batch."""
    spread = np.square(before, dtype=np.float64).sum(axis=1).mean()
    cells = pd.DataFrame(
        {"paired": found.paired, "squares": np.square(found.values - before).sum(axis=1)}, index=names.index
    )
    groups = cells.groupby(names.to_numpy())
    table = pd.DataFrame({"size": groups.size(), "paired": groups["paired"].mean()})
    table["shift"] = np.sqrt(groups["squares"].mean() / max(spread, 1e-12))
    for name, share in table["paired"].items():
        if share < FEW_PAIRED:
            logger.warning(
                "batch %r: %.1f%% of its cells have a counterpart in another one. It may share no type with the "
                "others, and stays nearly where it is",
                name,
                100 * share,
            )
    return table.rename_axis("batch").reset_index()
