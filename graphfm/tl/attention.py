"""Whom cells listen to in a trained model."""

from pathlib import Path

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from scipy.special import entr

from graphfm import _keys, io
from graphfm._checks import check_device, check_key_added, check_tile_size
from graphfm.genes import Organism
from graphfm.io.files import writable
from graphfm.io.matrix import Kind
from graphfm.models.graphfm import GraphFM
from graphfm.tl.graphs import build_graphs


def attention(
    adata: AnnData,
    model: GraphFM | str | Path | None = None,
    *,
    layer_number: int = -1,
    key_added: str = _keys.ATTENTION,
    relations: tuple[str, ...] | None = None,
    layer: str | None = None,
    kind: Kind = "counts",
    organism: Organism = "auto",
    tile_size: int = 8192,
    device: str = "cpu",
    copy: bool = False,
) -> AnnData | None:
    r"""With what weights each cell listens to its neighbours, beside those that the graph has.

    Only the reader of a block attends; its carrier averages by the graph's weights whatever is learned
    (`graphfm.nn.GraphBlock`). In an untrained model the two are the same.

    Parameters
    ----------
    adata
        Cells x genes, as in `embed`; a kNN graph is built if there is no cell graph at all.
    model
        A model, or the path of one; default: the weights in the package.
    layer_number
        Which block, from 0; negative ones count from the last.
    key_added
        Key of the result.
    relations, layer, kind, organism, tile_size, device
        As in `embed`.
    copy
        Return a copy (in memory) instead of writing to `adata`.

    Returns
    -------
    None, or the copy. Written, with ``key_added="attention"``:

    - ``obsp["attention"]``: float32 CSR ``[n_obs, n_obs]``, row listens to column, mean of the heads; rows sum to 1,
      those of cells without neighbours to 0;
    - ``obs["attention_breadth"]``: :math:`e^{H_i}/e^{H_i^0}`, the number of neighbours that a cell listens to in
      effect (:math:`H` the entropy of its row) over that by the graph's weights: below 1, it picks;
    - ``obs["attention_shift"]``: :math:`\frac12\sum_j |A_{ij} - A^0_{ij}|`, the share of its attention that goes
      elsewhere than by the graph's weights; both NaN without neighbours;
    - ``uns["attention"]``: parameters.

    Raises
    ------
    KeyError
        A relation or layer that was asked for is missing.
    ValueError
        There is no such block, or as in `embed`.

    Examples
    --------
    >>> import graphfm
    >>> adata = graphfm.datasets.toy(num_cells=300, num_genes=200)
    >>> graphfm.tl.attention(adata)
    >>> bool(adata.obs["attention_shift"].between(0, 1).all())
    True
    """
    from graphfm.data.prepare import cell_graph, check_relations, neighborhood_to_csr, relations_of

    adata = io.as_anndata(adata)
    check_relations(relations)
    check_key_added(key_added)
    check_tile_size(tile_size)
    check_device(device)
    if not isinstance(model, GraphFM):
        model = GraphFM.from_pretrained(model)
    depth = len(model.blocks)
    if not -depth <= layer_number < depth:
        raise ValueError(
            f"layer_number={layer_number}: the model has {depth} blocks, so it goes from 0 to {depth - 1}."
        )
    adata = writable(adata, copy=copy)
    if relations is None and not relations_of(adata):
        build_graphs(adata, relations=("knn",), layer=layer, kind=kind)
    cells = cell_graph(adata, relations=relations, layer=layer, kind=kind, organism=organism, with_expression=False)
    graph, model = cells.neighborhood, model.to(device).eval()
    first = model.stem_cells(cells)
    heard = model.attention(first, graph.to(device), layer_number % depth, tile_size=tile_size).cpu()
    plain = graph.weight / graph.weight.sum(1, keepdim=True).clamp(min=1e-12)
    heard, plain = neighborhood_to_csr(graph, heard), neighborhood_to_csr(graph, plain)
    measures = {
        "breadth": np.exp(_entropy(heard) - _entropy(plain)),
        "shift": abs(heard - plain).sum(axis=1).A1 / 2,
    }
    adata.obsp[key_added] = heard
    for name, values in measures.items():
        adata.obs[f"{key_added}_{name}"] = np.where(np.diff(heard.indptr) > 0, values, np.nan)
    adata.uns[key_added] = {
        "relations": list(relations or relations_of(adata)),
        "layer": layer or "X",
        "kind": kind,
        "layer_number": layer_number % depth,
    }
    return adata if copy else None


def _entropy(weights: sp.csr_matrix) -> np.ndarray:
    """Of each row."""
    terms = weights.copy()
    terms.data = entr(terms.data)
    return terms.sum(axis=1).A1
