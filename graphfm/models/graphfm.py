"""The trunk: stems, a stack of graph blocks, heads. Everything that is learned is in this file's one class."""

import itertools
import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from graphfm.models.inputs import CellGraph
from graphfm.nn import GeneStem, GraphBlock, NegativeBinomialHead, Neighborhood, Readout
from graphfm.nn.stem import GeneSpace

READER_GAIN = 0.1
"""Size of the reader beside the carrier before training: an untrained trunk is a filter of the stem, not noise."""


@dataclass(frozen=True)
class GraphFMConfig:
    """Shape of the trunk.

    Parameters
    ----------
    num_genes
        Rows of the gene vocabulary the embedding table belongs to.
    vocabulary
        Version of that vocabulary; weights made for another one are refused.
    dim
        Width of the carrier and of the reader, the two halves of a state; the embedding is twice as wide.
    num_layers
        Graph blocks.
    heads
        Attention heads; divides `dim`.
    anchor
        Share of the stem in each layer's carrier.
    """

    num_genes: int
    vocabulary: str
    dim: int = 64
    num_layers: int = 8
    heads: int = 8
    anchor: float = 0.1

    def __post_init__(self) -> None:
        if min(self.num_genes, self.dim, self.num_layers, self.heads) < 1:
            raise ValueError(f"num_genes, dim, num_layers and heads must be at least 1, got {self}")
        if self.dim % self.heads:
            raise ValueError(f"heads={self.heads} does not divide dim={self.dim}")
        if not 0 <= self.anchor <= 1:
            raise ValueError(f"anchor={self.anchor} is no share between 0 and 1")


def tiny(num_genes: int, vocabulary: str) -> GraphFMConfig:
    """For tests: seconds on one core.

    Parameters
    ----------
    num_genes, vocabulary
        See `GraphFMConfig`.
    """
    return GraphFMConfig(num_genes, vocabulary, dim=32, num_layers=2, heads=4)


def small(num_genes: int, vocabulary: str) -> GraphFMConfig:
    """The shipped weights: minutes on two cores.

    Parameters
    ----------
    num_genes, vocabulary
        See `GraphFMConfig`.
    """
    return GraphFMConfig(num_genes, vocabulary)


def base(num_genes: int, vocabulary: str) -> GraphFMConfig:
    """For a GPU: four times as wide, twice as deep.

    Parameters
    ----------
    num_genes, vocabulary
        See `GraphFMConfig`.
    """
    return GraphFMConfig(num_genes, vocabulary, dim=256, num_layers=16)


def _empty_like(states: Tensor, folder: str | Path | None) -> Tensor:
    """An array for states, in a nameless file that goes with it if a folder is given."""
    if folder is None:
        return torch.empty_like(states)
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            file.truncate(states.nbytes)
            if hasattr(os, "posix_fallocate"):  # takes the room: a disk that is full later would kill without a word
                os.posix_fallocate(file.fileno(), 0, states.nbytes)
        except OSError as error:
            raise OSError(f"scratch={str(folder)!r} has no room for {states.nbytes:,} bytes more ({error})") from error
        return torch.frombuffer(mmap.mmap(file.fileno(), states.nbytes), dtype=states.dtype).view(states.shape)


class GraphFM(nn.Module):
    """Graph transformer over cells and genes.

    Every node, whatever its type, is a row of one state matrix; every relation is part of one `Neighborhood`.

    Parameters
    ----------
    config
        Shape of the trunk.

    Attributes
    ----------
    seen
        Marks of the cells that it was trained on (`graphfm.data.seen`); None where that is not known.
    training_record
        Settings and data of its last pre-training, and under ``before`` of those before it, JSON; None without one.
    """

    def __init__(self, config: GraphFMConfig) -> None:
        super().__init__()
        self.config = config
        self.seen: Tensor | None = torch.zeros(0, dtype=torch.int64)
        self.training_record: str | None = None
        self.gene_space = GeneSpace(config.num_genes, config.dim)
        self.gene_stem = GeneStem(config.dim)
        self.blocks = nn.ModuleList(
            GraphBlock(config.dim, num_layers=config.num_layers, heads=config.heads, anchor=config.anchor)
            for _ in range(config.num_layers)
        )
        self.readout = Readout(config.dim, gain=READER_GAIN)
        self.expression_head = NegativeBinomialHead(2 * config.dim, config.dim)

    def place_genes(self, cells: CellGraph) -> Float[Tensor, "genes d"]:
        """Genes of a data set in the common space, so that ``(x - mean) @ placed`` is a cell's position.

        Raises
        ------
        ValueError
            The data were aligned to another gene vocabulary than the model's.
        """
        return self.gene_space(*self._genes(cells))

    def _genes(self, cells: CellGraph) -> tuple[Tensor, Tensor, Tensor | None]:
        """What `GeneSpace` asks of a data set."""
        if cells.vocabulary != self.config.vocabulary:
            raise ValueError(
                f"the model was trained on gene vocabulary {self.config.vocabulary}, this graphfm has "
                f"{cells.vocabulary}. Install the graphfm version it was made with, or pre-train again."
            )
        device = self.gene_space.embedding.weight.device
        outside = cells.outside(self.config.dim)
        return (
            cells.gene_rows.to(device),
            cells.loadings[:, : self.config.dim].to(device),
            None if outside is None else outside.to(device),
        )

    def stem_cells(self, cells: CellGraph) -> Float[Tensor, "n d"]:
        r"""First states of all cells of a data set, :math:`h_0 = s\,(x - \bar x) M`.

        These are the principal components of their log-normalised expression :math:`x`, turned into the common space
        by the placed genes :math:`M`, and a scale that gives them unit variance a channel on average. Not the depth of
        a cell: neighbours share it, so that training would write it into every carrier.
        """
        rotation = self.gene_space.rotation(*self._genes(cells)).float()
        scores = cells.scores[:, : len(rotation)].to(rotation.device) @ rotation
        return cells.scale * scores

    def stem_genes(self, cells: CellGraph) -> Float[Tensor, "genes d"]:
        """First states of the data set's genes, for graphs that hold genes too."""
        placed = self.place_genes(cells)
        rows = cells.gene_rows.to(placed.device)
        identity = self.gene_space.embedding(rows.clamp(min=0)) * (rows >= 0).unsqueeze(-1)
        placed = placed / placed.std().clamp(min=1e-12)
        return self.gene_stem(identity, cells.gene_statistics.to(placed.device), placed)

    def forward(self, h0: Float[Tensor, "n d"], neighborhood: Neighborhood) -> Float[Tensor, "n c"]:
        """Embedding of `n` nodes from their stem output, all in memory at once: carrier, then reader.

        Examples
        --------
        >>> import torch
        >>> from graphfm.models import GraphFM, GraphFMConfig
        >>> from graphfm.nn import Neighborhood
        >>> model = GraphFM(GraphFMConfig(num_genes=100, vocabulary="example", dim=32, num_layers=2))
        >>> edges = torch.tensor([[1, 2], [0, 2], [0, 1]])
        >>> graph = Neighborhood(edges, torch.full((3, 2), 0.5), torch.zeros_like(edges), torch.zeros(3, 2))
        >>> model(torch.randn(3, 32), graph).shape
        torch.Size([3, 64])
        """
        z, r = h0, torch.zeros_like(h0)
        for block in self.blocks:
            z, r = block(z, r, h0, neighborhood)
        return self.readout(z, r)

    def inference_bytes(
        self, num_cells: int, *, width: int, components: int, tile_size: int, mapped: bool = False
    ) -> int:
        """Memory that an embedding needs at its peak, beside the weights and the expression.

        Parameters
        ----------
        num_cells
            Cells.
        width
            Columns of the table of neighbours.
        components
            Principal components of the cells.
        tile_size
            Cells computed at a time.
        mapped
            The states of the layers are in files.
        """
        dim, heads, number = self.config.dim, self.config.heads, 4
        # twice the table, in the order of the data and of the tiles, and its edges without padding
        table = 2 * (8 + number + 8 + number) * width + 12 * width // 2
        # stem, carrier, reader and their successors, keys, values, one in passing; in the end the embedding, twice
        states = number * (components + (6 if mapped else 8) * dim)
        # scores, bias, and what makes them; the hidden layer of the reader
        tile = number * min(tile_size, num_cells) * (6 * width * heads + 8 * dim)
        return num_cells * (table + states) + tile

    @torch.no_grad()
    def layers(
        self,
        h0: Float[Tensor, "n d"],
        neighborhood: Neighborhood,
        *,
        tile_size: int,
        scratch: str | Path | None = None,
    ) -> Iterator[tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]]:
        """Exact inference in bounded memory: carrier and reader after each layer, computed tile by tile.

        What a node sends is computed once a layer, however many tiles hear it. `readout` makes the embedding of what
        is yielded, which the layer after the next overwrites.

        Parameters
        ----------
        h0
            Stem output of all nodes.
        neighborhood
            All edges.
        tile_size
            Nodes computed at a time; only speed and memory depend on it.
        scratch
            Folder for the states, which the system then keeps in memory as far as there is room; None: in memory.
        """
        z, r, next_z, next_r, keys, values = h0, *(_empty_like(h0, scratch) for _ in range(5))
        r.zero_()
        tiles = [slice(start, min(start + tile_size, len(h0))) for start in range(0, len(h0), tile_size)]
        parts = [neighborhood.part(tile.start, tile.stop) for tile in tiles]
        for block in self.blocks:
            for tile in tiles:
                keys[tile], values[tile] = block.messages(z[tile] + r[tile])
            for tile, part in zip(tiles, parts, strict=True):
                next_z[tile], next_r[tile] = block(z, r, h0[tile], part, (keys, values))
            yield next_z, next_r
            z, next_z = next_z, _empty_like(h0, scratch) if z is h0 else z
            r, next_r = next_r, r

    @torch.no_grad()
    def weighing(self, cells: CellGraph) -> Float[Tensor, "d d"]:
        r"""What makes carriers of weighted components of carriers, :math:`R^\top \operatorname{diag}(w) R`.

        The carrier is linear in the components :math:`x`: it is :math:`s\,T x R` with a filter :math:`T` of the graph
        and the rotation :math:`R` of the stem. Times this it is :math:`s\,T (x \operatorname{diag}(w)) R`, as if the
        components had been weighted by :math:`w` (`CellGraph.component_weight`) before the first layer.
        """
        rotation = self.gene_space.rotation(*self._genes(cells))
        weight = cells.component_weight[: len(rotation)].to(rotation)
        return (rotation.T @ (weight.unsqueeze(-1) * rotation)).float()

    @torch.no_grad()
    def attention(
        self, h0: Float[Tensor, "n d"], neighborhood: Neighborhood, layer: int, *, tile_size: int
    ) -> Float[Tensor, "n k"]:
        """With what weights nodes listen to their neighbours in a layer, mean of the heads.

        Parameters
        ----------
        h0
            Stem output of all nodes.
        neighborhood
            All edges.
        layer
            From 0.
        tile_size
            Nodes computed at a time.
        """
        before = itertools.islice(self.layers(h0, neighborhood, tile_size=tile_size), layer)
        *_, (z, r) = (h0, torch.zeros_like(h0)), *before
        block, x = self.blocks[layer], z + r
        keys, _ = block.messages(x)
        starts = range(0, len(h0), tile_size)
        parts = [(start, neighborhood.part(start, min(start + tile_size, len(h0)))) for start in starts]
        return torch.cat([block.attention(x[s : s + len(part)], keys, part).mean(-1) for s, part in parts])

    def remember(self, corpus: Sequence[CellGraph]) -> None:
        """Add the cells of a corpus to those that were seen.

        Parameters
        ----------
        corpus
            Data sets; if the marks of one are not known, it is no longer known what was seen.
        """
        marks = [self.seen, *(cells.marks for cells in corpus)]
        if any(mark is None for mark in marks):
            self.seen = None
        else:
            found = torch.cat([mark.flatten() for mark in marks]).unique()
            self.seen = found[found != 0]

    def save_pretrained(self, path: str | Path, *, metadata: dict[str, str] | None = None) -> Path:
        """Write weights and config to a safetensors file.

        Parameters
        ----------
        path
            File to write, or a folder, where it is called ``model.safetensors``.
        metadata
            Further strings to store.

        Returns
        -------
        Path of the file.
        """
        from graphfm.models.checkpoint import save_model

        return save_model(self, path, metadata=metadata or {})

    @classmethod
    def from_pretrained(cls, path: str | Path | None = None) -> "GraphFM":
        """Load a model; without `path` the weights that come inside the package.

        Parameters
        ----------
        path
            A safetensors file written by `save_pretrained` or by ``graphfm pretrain``, or a folder of one.

        Raises
        ------
        FileNotFoundError
            Nothing at `path`.
        ValueError
            The file is truncated, is no graphfm model, or belongs to another gene vocabulary.

        Examples
        --------
        >>> from graphfm.models import GraphFM
        >>> GraphFM.from_pretrained().config.dim
        64
        """
        from graphfm.models.checkpoint import load_model

        return load_model(path)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        license: str = "unknown",
        token: str | None = None,
        private: bool = False,
    ) -> str:
        """Upload weights and a model card to the Hugging Face Hub.

        Hashes of the cells' profiles and barcodes go with them; barcodes can be found again from their hash by trying
        all. Set ``model.seen = None`` before if they are not to be told.

        Parameters
        ----------
        repo_id
            ``"owner/name"``; created where it is not there.
        license
            Of the weights, as the Hub names licences: ``"bsd-3-clause"`` is that of graphfm, but the cells that were
            trained on have terms of their own.
        token
            Of the account; default: the one that is logged in.
        private
            Visible to its owner alone.

        Returns
        -------
        Address of the upload.

        Raises
        ------
        ImportError
            ``huggingface_hub`` is not installed.
        """
        from graphfm.models import hub

        return hub.push(self, repo_id, license=license, token=token, private=private)

    @classmethod
    def from_hub(cls, repo_id: str, *, revision: str | None = None, token: str | None = None) -> "GraphFM":
        """Load weights from the Hugging Face Hub; they are kept in its cache.

        Parameters
        ----------
        repo_id
            ``"owner/name"``.
        revision
            Branch, tag or commit; a commit always gives the same weights.
        token
            For what is private; default: that of the account that is logged in.

        Raises
        ------
        ImportError
            ``huggingface_hub`` is not installed.
        ValueError
            As in `from_pretrained`.
        """
        from graphfm.models import hub

        return hub.fetch(repo_id, revision=revision, token=token)

    def config_dict(self) -> dict:
        """Config as plain values."""
        return asdict(self.config)
