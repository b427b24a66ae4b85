"""Were these cells among those that a model was pre-trained on?"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from anndata import AnnData

from graphfm import io
from graphfm.genes import Organism
from graphfm.io.matrix import Kind
from graphfm.models.graphfm import GraphFM


class Leakage(NamedTuple):
    """What of a data set a model has seen; NaN where that cannot be told.

    Attributes
    ----------
    profiles
        Share of cells that express the same genes, of some thousand, as a cell that was trained on.
    barcodes
        Share of cells with the barcode of such a cell: a hint alone. Slides of one kind of array (Visium, Spatial
        Transcriptomics) have all barcodes in common, and chance gives one in seven after 100,000 droplets.
    comparable
        Share of cells with genes enough to be told by their profile; `profiles` is of these. Panels of less than some
        fifty genes have none.
    """

    profiles: float
    barcodes: float
    comparable: float

    @property
    def unknown(self) -> bool:
        """The model's file does not say, or most cells cannot be told by their profile."""
        return not self.comparable >= 0.5

    @property
    def seen(self) -> bool:
        """One profile in twenty."""
        return self.profiles >= 0.05

    def __str__(self) -> str:
        barcodes = f"{100 * self.barcodes:.1f} % of the barcodes"
        if np.isnan(self.profiles):
            return f"{barcodes} (no cell can be told by its profile)"
        return f"{100 * self.profiles:.1f} % of the profiles and {barcodes}"


def leakage(
    adata: AnnData,
    model: GraphFM | str | Path | None = None,
    *,
    layer: str | None = None,
    kind: Kind = "counts",
    organism: Organism = "auto",
) -> Leakage:
    """Tell whether a model was pre-trained on these cells: then no score on them says how it does on new ones.

    A model's file keeps a hash of which genes a cell expressed, where these are enough to tell it, and one of its
    barcode, where its name has one. Cells with all their genes are recognised by both; cut to variable genes they have
    at most their barcodes in common with what was seen.

    Parameters
    ----------
    adata
        Cells x genes, as in `embed`; not changed, and read a few thousand cells at a time.
    model
        A model, or the path of one; default: the weights in the package.
    layer, kind, organism
        As in `embed`.

    Raises
    ------
    KeyError, ValueError, FileNotFoundError
        As in `embed`.

    Examples
    --------
    >>> import graphfm
    >>> graphfm.tl.leakage(graphfm.datasets.toy(num_cells=300, num_genes=200))
    Leakage(profiles=0.0, barcodes=0.0, comparable=1.0)
    """
    from graphfm.data.prepare import cell_marks
    from graphfm.data.seen import shares

    adata = io.as_anndata(adata)
    if not isinstance(model, GraphFM):
        model = GraphFM.from_pretrained(model)
    if model.seen is None:
        return Leakage(np.nan, np.nan, np.nan)
    return Leakage(*shares(cell_marks(adata, layer=layer, kind=kind, organism=organism), model.seen.numpy()))
