"""Tools: from AnnData to AnnData with a trained model."""

import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from anndata import AnnData
from torch import Tensor
from tqdm import tqdm

from graphfm import __version__, _keys, io
from graphfm._checks import check_device, check_key_added, check_scratch, check_tile_size, make_folder
from graphfm.allocator import give_back_freed_memory
from graphfm.io.files import is_lazy, replacing, writable
from graphfm.memory import announced
from graphfm.models.graphfm import GraphFM, GraphFMConfig
from graphfm.models.inputs import CellGraph

logger = logging.getLogger(__name__)


def embed(
    adata: AnnData,
    model: GraphFM | str | Path | None = None,
    *,
    key_added: str = _keys.X_GRAPHFM,
    relations: tuple[str, ...] | None = None,
    layer: str | None = None,
    kind: Literal["counts", "normalized", "log1p"] = "counts",
    organism: Literal["auto", "human", "mouse", "other"] = "auto",
    tile_size: int = 8192,
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
        is no cell graph at all: the keys of `graphfm.pp.knn_graph`. ``X``, the layers and ``obs`` are not changed.
    model
        A model, or the path of one; default: the weights in the package.
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
    if relations is None and not relations_of(adata):
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
        _, place, states = _forward(model, cells, tile_size=tile_size, device=device, scratch=scratch)
        for z, r in states:
            last = z, r
        adata.obsm[key_added] = model.readout(*last)[place].numpy(force=True)
    adata.uns[key_added] = {
        "relations": list(relations),
        "layer": layer or "X",
        "kind": kind,
        "num_layers": model.config.num_layers,
        "vocabulary": model.config.vocabulary,
    }
    return adata if copy else None


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


def build_graphs(
    adata: AnnData,
    *,
    relations: tuple[str, ...] | None = None,
    library_key: str | None = None,
    layer: str | None = None,
    kind: Literal["counts", "normalized", "log1p"] = "counts",
) -> None:
    """Build the cell graphs that are missing, with default settings.

    Spots on a lattice (Visium) have many neighbours at the same distance, and the default spatial kNN picks among
    them by rounding; there, `graphfm.pp.spatial_graph` with ``kind="grid"`` is the better graph.

    Cells with fewer companions than the default number of neighbours get as many as there are.

    Parameters
    ----------
    adata
        Written to, in place.
    relations
        Default: ``"knn"``, and ``"spatial"`` where ``obsm["spatial"]`` is there.
    library_key
        Column of ``obs`` that names the slide; cells of different slides never touch.
    layer, kind
        Expression for the kNN graph.
    """
    from graphfm import pp
    from graphfm.data.prepare import check_relations, relations_of
    from graphfm.pp.knn import N_NEIGHBORS

    adata = writable(io.as_anndata(adata))
    check_relations(relations)
    if relations is None:
        relations = ("knn", "spatial") if _keys.SPATIAL in adata.obsm else ("knn",)
    missing = set(relations) - set(relations_of(adata))
    if "knn" in missing:
        pp.knn_graph(adata, n_neighbors=min(N_NEIGHBORS, adata.n_obs - 1), layer=layer, kind=kind)
    if "spatial" in missing:
        pp.spatial_graph(adata, n_neighbors=_spatial_neighbors(adata, library_key), library_key=library_key)
    elif library_key is not None and "spatial" in relations:
        logger.info("the spatial graph in adata.obsp is used as it is: library_key=%r has no effect", library_key)


def _spatial_neighbors(adata: AnnData, library_key: str | None) -> int | None:
    """None for the default; fewer where a slide has not as many cells."""
    from graphfm.pp.spatial import DEFAULT_NEIGHBORS

    if library_key is None:
        smallest = adata.n_obs
    elif library_key in adata.obs:
        smallest = int(adata.obs[library_key].astype(str).value_counts().min())
    else:
        return None
    if smallest > DEFAULT_NEIGHBORS["knn"]:
        return None
    logger.warning("the smallest slide has %d cells: %d spatial neighbours a cell", smallest, max(smallest - 1, 1))
    return max(smallest - 1, 1)


def prepare(
    data: AnnData | str | Path,
    out: str | Path,
    *,
    name: str | None = None,
    layer: str | None = None,
    organism: Literal["auto", "human", "mouse", "other"] = "auto",
    library_key: str | None = None,
) -> Path:
    """Do once what `pretrain` would do with a data set before its first step, and in every process.

    Graphs, genes, expression and tiles go to a folder of arrays, which is mapped into memory: a corpus may be larger
    than that, and processes of one machine share it. Training on it gives the same weights. What is there already, of
    the same file and settings, is left as it is.

    Parameters
    ----------
    data
        AnnData with counts, or its ``.h5ad`` or ``.zarr`` file, whose matrix is never read as a whole.
    out
        Folder of the corpus.
    name
        Of the data set; default: that of the file.
    layer, organism, library_key
        As in `embed` and `build_graphs`.

    Returns
    -------
    ``<out>/<name>.prepared``, for `pretrain`.

    Raises
    ------
    KeyError, ValueError
        As in `embed`, with the name of the data set; or there is no name.
    OSError
        `data` is not there, or `out` cannot be written to.

    Examples
    --------
    >>> import tempfile
    >>> import graphfm
    >>> toy = graphfm.datasets.toy(num_cells=300, num_genes=200)
    >>> graphfm.tl.prepare(toy, tempfile.mkdtemp(), name="toy").name
    'toy.prepared'
    """
    from graphfm.data import prepared
    from graphfm.data.tiles import locality_order
    from graphfm.genes import vocabulary
    from graphfm.train import TrainConfig

    source = Path(data) if isinstance(data, str | Path) else None
    if name is None and source is None:
        raise ValueError("name: give the data set a name")
    name = name or Path(source).stem
    make_folder(Path(out))
    folder = Path(out) / f"{name}{prepared.SUFFIX}"
    about = {"settings": {"layer": layer, "organism": organism, "library_key": library_key}}
    about["settings"] |= {"vocabulary": vocabulary().version, "graphfm": __version__}
    if source is not None and source.exists():
        about["source"] = {"path": str(source), "bytes": _bytes(source), "changed": source.stat().st_mtime_ns}
        if folder.exists() and about.items() <= prepared.about(folder).items():
            logger.info("%s is there already", folder)
            return folder
    adata = data if source is None else io.read(source, lazy=True)
    with replacing(folder) as partial, _named(name):
        cells = _cells(io.as_anndata(adata), name, partial, layer=layer, organism=organism, library_key=library_key)
        tile_size = TrainConfig().tile_size
        order = locality_order(cells.neighborhood, tile_size)
        prepared.write(replace(cells, order=order, order_tile=tile_size), partial, about=about)
    return folder


def pretrain(
    data: Mapping[str, AnnData | str | Path],
    out: str | Path,
    *,
    model: GraphFM | None = None,
    size: Literal["tiny", "small", "base"] = "small",
    config=None,
    layer: str | None = None,
    organism: Literal["auto", "human", "mouse", "other"] = "auto",
    library_key: str | None = None,
    device: str = "cpu",
    shard: bool = False,
) -> GraphFM:
    """Pre-train on your own data, without labels.

    Parameters
    ----------
    data
        AnnData with counts, by name. Missing graphs are built (`build_graphs`) and written to them. Of those whose
        matrix is in a file (``graphfm.io.read(path, lazy=True)``, or backed), what is trained on stays in files too.
        Or folders that `prepare` made: nothing is then left to do, and almost nothing is in memory.
    out
        Folder of the run: training state, log, and at the end ``model.safetensors`` for `embed`. Started again
        with the same settings, a run that was broken off goes on where it was.
    model
        Start from these weights, for instance ``GraphFM.from_pretrained()``, and train them in place; default: new
        ones.
    size
        Size of a new model.
    config
        A `graphfm.train.TrainConfig`.
    layer, organism, library_key, device
        As in `embed` and `build_graphs`.
    shard
        As in `graphfm.train.pretrain`.

    Returns
    -------
    The trained model.

    Raises
    ------
    TypeError
        `data` is no mapping of names to AnnData, or `config` no `TrainConfig`.
    KeyError, ValueError
        As in `embed`, with the name of the data set; or `out` belongs to a run with other settings.
    OSError
        `out` cannot be written to.
    FloatingPointError
        Training diverged.

    Examples
    --------
    >>> import tempfile
    >>> import graphfm
    >>> from graphfm.train import TrainConfig
    >>> toy = graphfm.datasets.toy(num_cells=300, num_genes=200)
    >>> folder = tempfile.mkdtemp()
    >>> model = graphfm.tl.pretrain({"toy": toy}, folder, size="tiny", config=TrainConfig(steps=3))
    >>> graphfm.tl.embed(toy, model)
    """
    from graphfm import train

    if not isinstance(data, Mapping):
        raise TypeError(f"data must map names to AnnData, as {{'mine': adata}}, got {type(data).__name__}")
    config = train.TrainConfig() if config is None else config
    if not isinstance(config, train.TrainConfig):
        raise TypeError(f"config must be a graphfm.train.TrainConfig, got {type(config).__name__}")
    check_device(device)
    make_folder(Path(out))
    expression = Path(tempfile.mkdtemp(prefix="expression_", dir=out))  # each process has its own
    try:
        corpus = _corpus(data, expression, layer=layer, organism=organism, library_key=library_key)
        model = model or new_model(size, seed=config.seed)
        return train.pretrain(model, corpus, out, config=config, device=device, shard=shard)
    finally:
        shutil.rmtree(expression, ignore_errors=True)


def _corpus(
    data: Mapping[str, AnnData | str | Path],
    folder: Path,
    *,
    layer: str | None,
    organism: str,
    library_key: str | None,
) -> list[CellGraph]:
    """Graphs and expression of each data set; the latter in `folder` for those whose matrix is in a file."""
    from graphfm.data import prepared

    corpus = []
    for number, (name, source) in enumerate(data.items()):
        with _named(name):
            if isinstance(source, str | Path):
                corpus.append(prepared.read(Path(source), name=str(name)))
                continue
            adata = io.as_anndata(source)
            in_file = is_lazy(adata.X if layer is None else adata.layers.get(layer))
            cache = folder / str(number) if in_file else None
            corpus.append(_cells(adata, str(name), cache, layer=layer, organism=organism, library_key=library_key))
    return corpus


def _cells(
    adata: AnnData, name: str, cache: Path | None, *, layer: str | None, organism: str, library_key: str | None
) -> CellGraph:
    """Graphs and expression of a data set; the latter in the folder `cache`, if there is one."""
    from graphfm.data.prepare import cell_graph

    build_graphs(adata, library_key=library_key, layer=layer)
    return cell_graph(adata, layer=layer, organism=organism, cache=cache, name=name)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors say which data set they are about."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        kind = next(k for k in (KeyError, TypeError, ValueError) if isinstance(error, k))
        raise kind(f"data set {name!r}: {error.args[0] if error.args else error}") from error


def _bytes(path: Path) -> int:
    """Size of a file, or of all in a folder."""
    return path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def new_model(size: Literal["tiny", "small", "base"] = "small", *, seed: int = 0) -> GraphFM:
    """A model with random weights, for the vocabulary of this version.

    Parameters
    ----------
    size
        Name of a configuration in `graphfm.models`.
    seed
        Of the weights.
    """
    from graphfm import models
    from graphfm.genes import vocabulary

    configs = {"tiny": models.tiny, "small": models.small, "base": models.base}
    if size not in configs:
        raise ValueError(f"size={size!r} is unknown; choose from {sorted(configs)}")
    config: GraphFMConfig = configs[size](len(vocabulary()), vocabulary().version)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GraphFM(config)
