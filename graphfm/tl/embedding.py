"""An embedding of cells by a trained model."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from anndata import AnnData
from torch import Tensor
from tqdm import tqdm

from graphfm import _keys, io
from graphfm._checks import check_device, check_key_added, check_scratch, check_tile_size
from graphfm.allocator import give_back_freed_memory
from graphfm.genes import Organism, check_known
from graphfm.io.files import writable
from graphfm.io.matrix import Kind
from graphfm.memory import announced
from graphfm.models.graphfm import GraphFM
from graphfm.models.inputs import CHUNK, CellGraph
from graphfm.tl.graphs import build_graphs

TISSUE_SHARE, EXPRESSION_SHARE = 1.0, 0.1
"""Spread of the reader, in those of the carrier, with a tissue graph and without. Its training asks neighbours to
agree, which tells something of neighbours in tissue; neighbours in expression agree anyway."""

logger = logging.getLogger(__name__)


def embed(
    adata: AnnData,
    model: GraphFM | str | Path | None = None,
    *,
    key_added: str = _keys.X_GRAPHFM,
    relations: tuple[str, ...] | None = None,
    layer: str | None = None,
    kind: Kind = "counts",
    organism: Organism = "auto",
    tile_size: int = 8192,
    weigh: bool = True,
    scratch: str | Path | None = None,
    device: str = "cpu",
    copy: bool = False,
) -> AnnData | None:
    """Embed every cell with its graphs.

    The result does not depend on `tile_size` or on the number of threads: layers are computed one after the
    other for all cells.

    Parameters
    ----------
    adata
        Cells x genes, with counts in ``X`` or `layer` (or a SpatialData or MuData with one table). Gene names are
        aligned if that was not done: ``var["graphfm_gene"]``. A kNN graph is built with default settings if there
        is no cell graph at all: the keys of `graphfm.pp.knn_graph`. One that is there (``obsp["connectivities"]``, of
        scanpy, say) is taken as it is. Coordinates alone are not used: for a tissue, run `graphfm.tl.build_graphs`
        first, as the command line does. ``X``, the layers and ``obs`` are not changed.
    model
        A model, which is put into evaluation mode, or the path of one; default: the weights in the package.
    key_added
        Key in ``obsm`` for the embedding, float32 ``[n_obs, 2 * dim]``: carrier, then reader; its parameters go to
        ``uns``.
    relations
        Graphs to use: ``"knn"``, ``"spatial"``; default: all that are there.
    layer, kind
        Where the expression is and what it is; see `graphfm.io.expression`.
    organism
        ``"auto"`` keeps an alignment that is there, whatever its organism.
        ``"other"`` for genes that the vocabulary does not know; see `graphfm.genes.align_genes`.
    tile_size
        Cells computed at a time; bounds the memory.
    weigh
        Let components of the expression count in the carrier by what neighbours share of them, over the root of their
        spread (`CellGraph.component_weight`): noise goes, few large components do not drown the others, and what only
        tells slides apart does not count. Channels of the reader are standardised, and count as much as the carrier
        where there is a tissue graph, a tenth of it without. All this is of all cells together. False: the states as
        they are, which depend on a cell's neighbourhood alone.
    scratch
        Folder where the states of the layers may be put, 24 bytes a cell and channel, to be held in memory only as far
        as there is room; for more cells than fit. Only on the CPU.
    device
        Where to compute.
    copy
        Return a copy (in memory) instead of writing to `adata`.

    Returns
    -------
    None, or the copy.

    Raises
    ------
    KeyError
        A relation or layer that was asked for is missing.
    ValueError
        The expression is not what `kind` says, no gene was matched, the model belongs to another vocabulary, or an
        argument is out of range.
    FileNotFoundError
        No model at that path.

    Examples
    --------
    >>> import graphfm
    >>> adata = graphfm.datasets.toy(num_cells=300, num_genes=200)
    >>> graphfm.tl.embed(adata)
    >>> adata.obsm["X_graphfm"].shape
    (300, 128)
    """
    from graphfm.data.prepare import cell_graph, check_relations, relations_of, table_width

    adata = io.as_anndata(adata)
    check_relations(relations)
    check_key_added(key_added)
    check_tile_size(tile_size)
    check_device(device)
    check_scratch(scratch, device)
    if not isinstance(model, GraphFM):
        model = GraphFM.from_pretrained(model)
    adata = writable(adata, copy=copy)
    _warn_of_a_circle(adata)
    if relations is None and not relations_of(adata):
        check_known(adata, organism=organism)  # before a graph is built for nothing
        logger.info("no cell graph in adata.obsp: building one with graphfm.pp.knn_graph(adata)")
        build_graphs(adata, relations=("knn",), layer=layer, kind=kind)
    relations = relations or relations_of(adata)
    needed = model.inference_bytes(
        adata.n_obs,
        width=table_width(adata, relations),
        components=model.config.dim,
        tile_size=tile_size,
        mapped=scratch is not None,
    )
    with announced(f"embedding {adata.n_obs:,} cells", needed):
        cells = cell_graph(adata, relations=relations, layer=layer, kind=kind, organism=organism, with_expression=False)
        states = last_states(model, cells, tile_size=tile_size, device=device, scratch=scratch)
        if weigh:
            share = TISSUE_SHARE if "spatial" in relations else EXPRESSION_SHARE
            balance(states, model.weighing(cells).numpy(force=True), share)
        adata.obsm[key_added] = states
    adata.uns[key_added] = {
        "relations": list(relations),
        "layer": layer or "X",
        "kind": kind,
        "weigh": weigh,
        "num_layers": model.config.num_layers,
        "vocabulary": model.config.vocabulary,
    }
    return adata if copy else None


def _warn_of_a_circle(adata: AnnData) -> None:
    """Of a graph that is one of an embedding, as after ``sc.pp.neighbors(adata, use_rep="X_graphfm")``."""
    rep = adata.uns.get("neighbors", {}).get("params", {}).get("use_rep")
    if rep in (_keys.X_GRAPHFM, _keys.X_INTEGRATED):
        logger.warning(
            "adata.obsp['connectivities'] is a graph of %r, and is taken as the graph of the cells. If that is not "
            "meant: graphfm.pp.knn_graph(adata), and for scanpy's graph sc.pp.neighbors(..., key_added=...)",
            rep,
        )


def balance(states: np.ndarray, weighing: np.ndarray, share: float) -> None:
    """Let what carriers and readers tell count as it should in distances, in place.

    Carriers are multiplied by a matrix and scaled to the spread that they had. Channels of the reader, whose scale no
    objective asks for, are standardised and get `share` of that spread together; constant ones become 0.

    Parameters
    ----------
    states
        Of `last_states`.
    weighing
        Of `GraphFM.weighing`.
    share
        Root of the sum of the reader's variances, over that of the carrier's.
    """
    carrier, reader = states[:, : len(weighing)], states[:, len(weighing) :]
    before = _variances(carrier).sum()
    for start in range(0, len(carrier), CHUNK):
        carrier[start : start + CHUNK] = carrier[start : start + CHUNK] @ weighing
    carrier *= np.float32(np.sqrt(before / max(_variances(carrier).sum(), 1e-12)))
    variances = _variances(reader)
    told = variances > 1e-12
    gain = share * np.sqrt(before / max(told.sum(), 1) / np.where(told, variances, np.inf))
    reader -= reader.mean(axis=0, dtype=np.float64).astype(np.float32)
    reader *= gain.astype(np.float32)


def _variances(values: np.ndarray) -> np.ndarray:
    """Variance of each channel."""
    return np.array([channel.var(dtype=np.float64) for channel in values.T])


@torch.no_grad()
def last_states(
    model: GraphFM,
    cells: CellGraph,
    *,
    tile_size: int = 8192,
    device: str = "cpu",
    scratch: str | Path | None = None,
) -> np.ndarray:
    """States of all cells after the last block.

    Parameters
    ----------
    model
        The trunk.
    cells
        Cells of `graphfm.data.prepare.cell_graph`.
    tile_size, device, scratch
        As in `embed`.

    Returns
    -------
    float32 ``[n, 2 dim]``: carrier, reader.
    """
    _, place, states = _forward(model, cells, tile_size=tile_size, device=device, scratch=scratch)
    for z, r in states:
        last = z, r
    return model.readout(*last)[place].numpy(force=True)


@torch.no_grad()
def layer_states(model: GraphFM, cells: CellGraph, *, tile_size: int = 8192, device: str = "cpu"):
    """States of all cells before the first block and after each, one after the other.

    Parameters
    ----------
    model
        The trunk.
    cells
        Cells of `graphfm.data.prepare.cell_graph`.
    tile_size, device
        As in `embed`.

    Yields
    ------
    Tensor: ``[n, dim]`` before the first block, ``[n, 2 dim]`` (carrier, reader) after each.
    """
    h0, place, states = _forward(model, cells, tile_size=tile_size, device=device)
    yield h0[place]
    for z, r in states:
        yield model.readout(z, r)[place]


@torch.no_grad()
def _forward(
    model: GraphFM, cells: CellGraph, *, tile_size: int, device: str, scratch: str | Path | None = None
) -> tuple[Tensor, Tensor, Iterator[tuple[Tensor, Tensor]]]:
    """In an order for tiles: the stem's output, the place of each cell, carrier and reader after each layer."""
    from graphfm.data.tiles import locality_order

    model = model.to(device).eval()
    order = locality_order(cells.neighborhood).to(device)
    neighborhood = cells.neighborhood.to(device).reorder(order)
    h0 = model.stem_cells(cells)[order]
    give_back_freed_memory()  # pieces of what made the tables, too small for states
    layers = model.layers(h0, neighborhood, tile_size=tile_size, scratch=scratch)
    return h0, torch.argsort(order), tqdm(layers, total=len(model.blocks), desc="layers", disable=None)
