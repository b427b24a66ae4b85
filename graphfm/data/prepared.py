"""A data set as pre-training reads it, in a folder of arrays: made once, then mapped into memory by every process."""

import json
from pathlib import Path

import numpy as np
import torch

from graphfm._checks import check_exists
from graphfm.io.mapped import open_matrix
from graphfm.models.inputs import CellGraph
from graphfm.nn.neighborhood import Neighborhood

SUFFIX = ".prepared"
MATRICES = ("counts", "expression")
ARRAYS = ("scores", "totals", "gene_rows", "loadings", "marks", "order")
SUMMARIES = ("mean", "log_share", "log_inverse_dispersion")
"""What would take a pass over all counts."""
COLUMNS = {"index": torch.int32, "weight": torch.float32, "relation": torch.int8, "distance": torch.float32}
NOTE, FORMAT = "about.json", "graphfm cells 3"


def write(cells: CellGraph, folder: Path, *, about: dict) -> None:
    """Put everything but the matrices into a folder; those are there already (`cell_graph` with ``cache=folder``).

    Parameters
    ----------
    cells
        With counts and an order.
    folder
        That of the matrices.
    about
        Further plain values to keep.
    """
    for name in (*ARRAYS, *SUMMARIES):
        np.save(folder / f"{name}.npy", getattr(cells, name).numpy())
    for name, kind in COLUMNS.items():
        np.save(folder / f"{name}.npy", getattr(cells.neighborhood, name).to(kind).numpy())
    note = {
        "format": FORMAT,
        "name": cells.name,
        "vocabulary": cells.vocabulary,
        "genes": cells.gene_names.tolist(),
        "order_tile": cells.order_tile,
        "scale": cells.scale,
        "digest": cells.digest,
    }
    (folder / NOTE).write_text(json.dumps(note | about))


def about(folder: Path) -> dict:
    """Plain values that were kept of a data set.

    Raises
    ------
    FileNotFoundError
        If nothing is there.
    ValueError
        If it is no prepared data set.
    """
    check_exists(folder)
    try:
        found = json.loads((folder / NOTE).read_text())
        if found["format"] != FORMAT:
            raise ValueError(found["format"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder} is not what graphfm.tl.prepare writes ({error}). Prepare the data again."
        ) from error
    return found


def read(folder: Path, *, name: str | None = None) -> CellGraph:
    """A prepared data set, mapped into memory: what is not touched is not read.

    Parameters
    ----------
    folder
        What `graphfm.tl.prepare` made.
    name
        Of the data set; default: the one it was given then.

    Raises
    ------
    FileNotFoundError, ValueError
        As `about`; or a file of the folder is missing or damaged.
    """
    note = about(folder)

    def array(name: str) -> torch.Tensor:
        # copy on write: torch wants memory that could be written to
        return torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False))

    try:
        cells = CellGraph(
            **{name: array(name) for name in ARRAYS},
            **{name: open_matrix(folder / name, len(note["genes"])) for name in MATRICES},
            gene_names=np.array(note["genes"], dtype=str),
            neighborhood=Neighborhood(**{name: array(name) for name in COLUMNS}),
            vocabulary=note["vocabulary"],
            name=note["name"] if name is None else name,
            order_tile=note["order_tile"],
        )
        summaries = {name: array(name) for name in SUMMARIES} | {"scale": note["scale"], "digest": note["digest"]}
    except (OSError, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"{folder} is damaged ({error}). Prepare the data again.") from error
    vars(cells).update(summaries)  # where cached properties look first
    return cells
