"""How well embeddings keep your labels apart, and mix your batches."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData

from graphfm import _keys, io
from graphfm._checks import check_column
from graphfm.genes import Organism
from graphfm.io.matrix import Kind, as_dense
from graphfm.metrics.integration import LEAST_OF_BATCH
from graphfm.metrics.labels import knn_accuracy
from graphfm.models.graphfm import GraphFM
from graphfm.pp.knn import write_components
from graphfm.tl.embedding import embed
from graphfm.tl.graphs import build_graphs
from graphfm.tl.integration import batch_names, integrate
from graphfm.tl.leakage import Leakage, leakage

logger = logging.getLogger(__name__)

LEAST_OF_TYPE = 5
"""Cells that a type must have to be judged: as many as there are folds."""
COMPONENTS, MEAN, OURS, TOGETHER = (
    "principal components",
    "mean over neighbours",
    "graphfm",
    "graphfm, batches together",
)
ROWS = ("shuffled", COMPONENTS, MEAN, OURS, TOGETHER, "oracle")


def evaluate(
    adata: AnnData,
    *,
    label_key: str,
    batch_key: str | None = None,
    keys: Sequence[str] = (),
    model: GraphFM | str | Path | None = None,
    library_key: str | None = None,
    layer: str | None = None,
    kind: Kind = "counts",
    organism: Organism = "auto",
    seed: int = 0,
    allow_seen: bool = False,
) -> pd.DataFrame:
    """Score the embedding of your cells beside principal components and between two controls, by your labels.

    Parameters
    ----------
    adata
        Cells x genes, as in `embed`; not changed. Graphs that are missing are built.
    label_key
        Column of ``obs`` with what the cells are; cells without it are left out.
    batch_key
        Column of ``obs`` that names batches: then `integrate` and how batches mix are scored, too.
    keys
        Other embeddings in ``obsm`` to be scored beside.
    model
        A model, or the path of one; default: the weights in the package.
    library_key, layer, kind, organism
        As in `build_graphs` and `embed`.
    seed
        Of folds, k-means and `integrate`.
    allow_seen
        Score cells that the model was pre-trained on, too (`leakage`).

    Returns
    -------
    DataFrame, a row a representation from ``shuffled`` to ``oracle``: ``accuracy`` and ``macro_f1`` of a vote of 15
    neighbours, ``ari``, ``nmi``, ``type_silhouette`` and their mean ``avgbio`` (`graphfm.tasks.cell_types`); with
    batches also those of `graphfm.tasks.integration` and ``macro_f1_across``, types told by cells of other batches.

    Raises
    ------
    KeyError
        There is no such column or embedding.
    ValueError
        Fewer than two labels or batches, one of `keys` is the name of another row, the
        model has seen these cells, or as in `embed`.

    Examples
    --------
    >>> import graphfm
    >>> adata = graphfm.datasets.toy(num_cells=400, num_genes=200)
    >>> scores = graphfm.tl.evaluate(adata, label_key="cell_type")
    >>> scores.index.tolist()
    ['shuffled', 'principal components', 'mean over neighbours', 'graphfm', 'oracle']
    """
    from graphfm.tasks import cell_types, integration

    adata, keys = io.as_anndata(adata), (keys,) if isinstance(keys, str) else keys
    check_column(adata.obs, label_key, "label_key")
    labelled = adata.obs[label_key].notna().to_numpy()
    if (number := adata.obs[label_key].nunique()) < 2:
        raise ValueError(f"label_key={label_key!r} must tell at least two kinds of cells apart, got {number}.")
    if (adata.obs[label_key].value_counts() >= LEAST_OF_TYPE).sum() < 2:
        raise ValueError(
            f"label_key={label_key!r} must have at least two labels of {LEAST_OF_TYPE} cells or more each."
        )
    if batch_key:
        batch_names(adata[labelled], batch_key, otherwise="leave batch_key out, to score labels alone")
        batches_of = adata.obs[labelled].groupby(label_key, observed=True)[batch_key].nunique()
        if (batches_of > 1).sum() < 2:
            raise ValueError(
                f"fewer than two labels of label_key={label_key!r} are in several batches of batch_key={batch_key!r}: "
                "leave batch_key out, or pass batches that share types."
            )
    for key in keys:
        if key not in adata.obsm:
            raise KeyError(f"keys: adata.obsm has no {key!r} (found: {list(adata.obsm)}).")
        if key in ROWS:
            raise ValueError(f"keys: {key!r} is the name of a row that is there anyway. Store yours by another name.")
    adata = adata[labelled].to_memory(copy=True)
    given = {key: as_dense(adata.obsm[key]) for key in keys}  # before embeddings of this call are written
    model = model if isinstance(model, GraphFM) else GraphFM.from_pretrained(model)
    _check_leakage(leakage(adata, model, layer=layer, kind=kind, organism=organism), allow_seen=allow_seen)
    build_graphs(adata, library_key=library_key, layer=layer, kind=kind)
    if _keys.X_PCA not in adata.obsm:  # the kNN graph is of something else
        write_components(adata, layer=layer, kind=kind)
    embed(adata, model, layer=layer, kind=kind, organism=organism)
    values = {
        COMPONENTS: adata.obsm[_keys.X_PCA],
        MEAN: neighbor_mean(adata),
        **given,
        OURS: adata.obsm[_keys.X_GRAPHFM],
    }
    truth = pd.DataFrame({"type": adata.obs[label_key].astype(str)})
    if batch_key:
        truth["batch"] = adata.obs[batch_key].astype(str)
        own = components_by_batch(adata, truth["batch"], layer=layer, kind=kind)
        options = {"layer": layer, "kind": kind, "organism": organism, "seed": seed}
        integrate(adata, batch_key=batch_key, model=model, key_added="together", **options)
        values[TOGETHER] = adata.obsm["together"]
    controls = integration.controls(truth, seed)
    rows = {}
    for name, x in {"shuffled": controls["shuffled"], **values, "oracle": controls["oracle"]}.items():
        types = truth["type"].to_numpy()
        if batch_key:
            mixed = integration.evaluate(x, truth, seed, components=own)  # how types are kept is among it
            mixed["macro_f1_across"] = mixed.pop("macro_f1")
            rows[name] = knn_accuracy(x, types, folds=LEAST_OF_TYPE, seed=seed) | mixed
        else:
            rows[name] = cell_types.evaluate(x, types, seed)
    return pd.DataFrame(rows).T


def components_by_batch(
    adata: AnnData,
    batches: pd.Series,
    *,
    layer: str | None = None,
    kind: Kind = "counts",
) -> np.ndarray:
    """Ten principal components of each batch alone, as scGraph asks for.

    Parameters
    ----------
    adata
        Cells x genes.
    batches
        ``[cells]``.
    layer, kind
        As in `embed`.

    Returns
    -------
    ``[cells, 10]``; 0 where a batch is too small to have as many, and for batches that scGraph leaves out.
    """
    found = np.zeros((adata.n_obs, 10), dtype=np.float32)
    for batch in batches.unique():
        rows = np.flatnonzero(batches == batch)
        if len(rows) >= LEAST_OF_BATCH:
            part = adata[rows].copy()
            write_components(part, n_pcs=10, layer=layer, kind=kind)
            values = part.obsm[_keys.X_PCA]
            found[rows, : values.shape[1]] = values
    return found


def _check_leakage(found: Leakage, *, allow_seen: bool) -> None:
    if found.seen and not allow_seen:
        raise ValueError(
            f"the model was pre-trained on these cells ({found} are among those it has seen), so that scores would say "
            "nothing of new ones. Pass other cells, a model that has not seen them, or allow_seen=True."
        )
    if found.profiles > 0:
        logger.warning("the model was pre-trained on some of these cells: it has seen %s", found)
    elif found.barcodes >= 0.5:
        logger.warning(
            "the model has seen %s: these may be cells it was pre-trained on, cut to fewer genes, "
            "or a slide of the same kind of array",
            found,
        )
    elif found.unknown:
        logger.warning(
            "it cannot be told whether the model was pre-trained on these cells: its file does not say, "
            "or they have too few genes"
        )


def neighbor_mean(adata: AnnData, relations: tuple[str, ...] | None = None) -> np.ndarray:
    """Mean of ``X_pca`` over a cell and its neighbours in each graph, then over the graphs.

    Parameters
    ----------
    adata
        With the graphs, and ``X_pca``.
    relations
        As in `embed`.

    Returns
    -------
    ``[cells, components]``.
    """
    from graphfm.data.prepare import cell_neighborhood, neighborhood_to_csr

    neighbors, x, means = cell_neighborhood(adata, relations=relations), adata.obsm[_keys.X_PCA], []
    for relation in torch.unique(neighbors.relation):
        step = neighborhood_to_csr(neighbors, (neighbors.relation == relation).double())
        step = step + sp.identity(adata.n_obs, format="csr")
        means.append(step @ x / step.sum(axis=1).A)
    return np.mean(means, axis=0)
