"""Pre-training, and what it reads."""

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from anndata import AnnData

from graphfm import __version__, io
from graphfm._checks import check_device, make_folder, of_data
from graphfm.genes import Organism
from graphfm.io.files import is_lazy, replacing
from graphfm.models.graphfm import GraphFM, GraphFMConfig
from graphfm.models.inputs import CellGraph
from graphfm.tl.graphs import build_graphs

logger = logging.getLogger(__name__)


def prepare(
    data: AnnData | str | Path,
    out: str | Path,
    *,
    name: str | None = None,
    layer: str | None = None,
    organism: Organism = "auto",
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
    with replacing(folder) as partial, of_data(f"data set {name!r}"):
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
    organism: Organism = "auto",
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
    # each process has its own, only until it is mapped: what is mapped goes with the process, however it ends
    with tempfile.TemporaryDirectory(prefix="expression_", dir=out, ignore_cleanup_errors=True) as folder:
        corpus = _corpus(data, Path(folder), layer=layer, organism=organism, library_key=library_key)
    model = model or new_model(size, seed=config.seed)
    return train.pretrain(model, corpus, out, config=config, device=device, shard=shard)


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
        with of_data(f"data set {name!r}"):
            if isinstance(source, str | Path):
                _check_settings(Path(source), layer=layer, organism=organism, library_key=library_key)
                corpus.append(prepared.read(Path(source), name=str(name)))
                continue
            adata = io.as_anndata(source)
            in_file = is_lazy(adata.X if layer is None else adata.layers.get(layer))
            cache = folder / str(number) if in_file else None
            corpus.append(_cells(adata, str(name), cache, layer=layer, organism=organism, library_key=library_key))
    return corpus


def _check_settings(folder: Path, **asked: str | None) -> None:
    """Refuse settings other than those that the data were prepared with; nothing is read anew."""
    from graphfm.data import prepared

    made = prepared.about(folder)["settings"]
    for name, value in asked.items():
        if value not in (None, "auto") and value != made[name]:
            raise ValueError(f"{folder} was prepared with {name}={made[name]!r}, not {value!r}. Prepare it again.")


def _cells(
    adata: AnnData, name: str, cache: Path | None, *, layer: str | None, organism: str, library_key: str | None
) -> CellGraph:
    """Graphs and expression of a data set; the latter in the folder `cache`, if there is one."""
    from graphfm.data.prepare import cell_graph

    build_graphs(adata, library_key=library_key, layer=layer)
    return cell_graph(adata, layer=layer, organism=organism, cache=cache, name=name)


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
