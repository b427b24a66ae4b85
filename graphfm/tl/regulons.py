"""Regulons: their activity in cells, and the network as a graph."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from graphfm import _keys, io
from graphfm.io.matrix import Kind

if TYPE_CHECKING:
    import networkx as nx


def regulon_activity(
    adata: AnnData,
    *,
    key: str = _keys.GRN,
    layer: str | None = None,
    kind: Kind = "counts",
) -> None:
    r"""How active each transcription factor's regulon is in each cell.

    .. math:: a_{ct} = \frac{\sum_g w_{tg} \, (x_{cg} - \bar x_g) / s_g}{\sum_g |w_{tg}|}

    with log-normalised expression :math:`x`, each gene's mean and standard deviation over the cells, and the score
    times sign of the regulon's edges as :math:`w`. The matrix is read a few thousand cells at a time.

    Parameters
    ----------
    adata
        With a network of `infer_grn` in ``uns[key]``.
    key
        Key of the network.
    layer, kind
        Where the expression is, and what it is: see `graphfm.io.expression`.

    Returns
    -------
    None. Written: ``obsm[key + "_activity"]``, DataFrame, cells x transcription factors that have a regulon.

    Raises
    ------
    KeyError
        There is no such network.
    """
    edges = _table(adata, key)
    edges = edges[edges["regulon"]]
    names = pd.Index(edges["tf"].astype(str).unique())
    place = (adata.var_names.get_indexer(edges["target"].astype(str)), names.get_indexer(edges["tf"].astype(str)))
    weight = sp.csc_matrix((edges["score"] * edges["sign"], place), shape=(adata.n_vars, len(names)), dtype=np.float64)
    total, squares = np.zeros(adata.n_vars), np.zeros(adata.n_vars)
    target_sum = io.typical_sum(adata, layer=layer, kind=kind)
    for _, logged in io.row_chunks(adata, layer=layer, kind=kind, target_sum=target_sum):
        total += np.asarray(logged.sum(axis=0, dtype=np.float64)).ravel()
        squares += np.asarray(logged.multiply(logged).sum(axis=0, dtype=np.float64)).ravel()
    mean = total / adata.n_obs
    spread = np.sqrt(np.maximum(squares / adata.n_obs - mean**2, 1e-12))
    weight = sp.diags_array(1 / spread) @ weight / np.maximum(np.asarray(abs(weight).sum(axis=0)).ravel(), 1e-300)
    weight = sp.csc_matrix(weight)
    again = io.row_chunks(adata, layer=layer, kind=kind, target_sum=target_sum)
    chunks = [logged @ weight for _, logged in again]
    activity = sp.vstack(chunks).toarray() - mean @ weight if len(names) else np.zeros((adata.n_obs, 0))
    adata.obsm[f"{key}_activity"] = pd.DataFrame(
        activity.astype(np.float32), index=adata.obs_names, columns=names.to_numpy(dtype=object)
    )


def grn_to_networkx(adata: AnnData, *, key: str = _keys.GRN, min_confidence: float = 0.9) -> "nx.DiGraph":
    """The network as a directed graph; edges point from transcription factor to target.

    Parameters
    ----------
    adata
        With a network of `infer_grn` in ``uns[key]``.
    key
        Key of the network.
    min_confidence
        Of an edge.

    Returns
    -------
    ``networkx.DiGraph`` with gene names as nodes and ``score``, ``sign``, ``confidence`` at the edges.

    Raises
    ------
    KeyError
        There is no such network.
    """
    import networkx as nx

    edges = _table(adata, key)
    edges = edges[edges["confidence"] >= min_confidence].astype({"tf": str, "target": str})
    attributes = ["score", "sign", "confidence"]
    return nx.from_pandas_edgelist(edges, "tf", "target", edge_attr=attributes, create_using=nx.DiGraph)


def _table(adata: AnnData, key: str) -> pd.DataFrame:
    if key not in adata.uns or "regulon" not in adata.uns[key]:
        raise KeyError(
            f"adata.uns has no network {key!r} (found: {sorted(adata.uns)}). Run graphfm.tl.infer_grn(adata)."
        )
    return adata.uns[key]
