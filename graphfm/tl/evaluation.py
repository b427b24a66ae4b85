"""How well embeddings keep your labels apart, and mix your batches."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData

from graphfm import _keys, io
from graphfm.metrics.labels import knn_accuracy
from graphfm.models.graphfm import GraphFM
from graphfm.tl.embedding import embed
from graphfm.tl.graphs import build_graphs
from graphfm.tl.integration import integrate
from graphfm.tl.leakage import leakage

logger = logging.getLogger(__name__)


def evaluate(
    adata: AnnData,
    *,
    label_key: str,
    batch_key: str | None = None,
    keys: Sequence[str] = (),
    model: GraphFM | str | Path | None = None,
    library_key: str | None = None,
    layer: str | None = None,
    kind: Literal["counts", "normalized", "log1p"] = "counts",
    organism: Literal["auto", "human", "mouse", "other"] = "auto",
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
        Fewer than two labels or batches, the model has seen these cells, or as in `embed`.

    Examples
    --------
    >>> import graphfm
    >>> adata = graphfm.datasets.toy(num_cells=400, num_genes=200)
    >>> scores = graphfm.tl.evaluate(adata, label_key="cell_type")
    >>> scores.index.tolist()
    ['shuffled', 'principal components', 'mean over neighbours', 'graphfm', 'oracle']
    """
    from graphfm.tasks import cell_types, integration

    adata = io.as_anndata(adata)
    for name in (label_key, *([batch_key] if batch_key else [])):
        if name not in adata.obs:
            raise KeyError(f"adata.obs has no {name!r} (found: {list(adata.obs)}).")
    for key in keys:
        if key not in adata.obsm:
            raise KeyError(f"adata.obsm has no {key!r} (found: {list(adata.obsm)}).")
    adata = adata[adata.obs[label_key].notna().to_numpy()].to_memory(copy=True)
    model = model if isinstance(model, GraphFM) else GraphFM.from_pretrained(model)
    found = leakage(adata, model, layer=layer, kind=kind, organism=organism)
    if found.seen and not allow_seen:
        raise ValueError(
            f"the model was pre-trained on these cells ({found} are among those it has seen), so that scores would say "
            "nothing of new ones. Pass other cells, a model that has not seen them, or allow_seen=True."
        )
    if found.barcodes >= 0.5 and not found.seen:
        logger.warning(
            "the model has seen %s: these may be cells it was pre-trained on, cut to fewer genes, "
            "or a slide of the same kind of array",
            found,
        )
    if found.unknown:
        logger.warning("the model's file does not say what it was pre-trained on: it may have seen these cells")
    build_graphs(adata, library_key=library_key, layer=layer, kind=kind)
    embed(adata, model, layer=layer, kind=kind, organism=organism)
    values = {
        "principal components": adata.obsm[_keys.X_PCA],
        "mean over neighbours": neighbor_mean(adata),
        **{key: np.asarray(adata.obsm[key]) for key in keys},
        "graphfm": adata.obsm[_keys.X_GRAPHFM],
    }
    truth = pd.DataFrame({"type": adata.obs[label_key].astype(str)})
    if batch_key:
        truth["batch"] = adata.obs[batch_key].astype(str)
        options = {"layer": layer, "kind": kind, "organism": organism, "seed": seed}
        integrate(adata, batch_key=batch_key, model=model, key_added="together", **options)
        values["graphfm, batches together"] = adata.obsm["together"]
    controls = integration.controls(truth, seed)
    rows = {}
    for name, x in {"shuffled": controls["shuffled"], **values, "oracle": controls["oracle"]}.items():
        types = truth["type"].to_numpy()
        if batch_key:
            mixed = integration.evaluate(x, truth, seed)  # how types are kept is among it
            mixed["macro_f1_across"] = mixed.pop("macro_f1")
            rows[name] = knn_accuracy(x, types, seed=seed) | mixed
        else:
            rows[name] = cell_types.evaluate(x, types, seed)
    return pd.DataFrame(rows).T


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
