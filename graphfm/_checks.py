"""Arguments that would only fail, or do harm, after a long time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

from graphfm import _keys

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


def check_key_added(key: str, *columns: str | None) -> None:
    """Refuse to overwrite what graphs are made of or `columns` of obs, and names that files read as a path.

    Raises
    ------
    ValueError
        If an embedding of that name would.
    """
    if "/" in key:
        raise ValueError(f"key_added={key!r} has a slash, which files take for a path. Choose another name.")
    graphs = (_keys.CONNECTIVITIES, _keys.DISTANCES, _keys.SPATIAL_CONNECTIVITIES, _keys.SPATIAL_DISTANCES)
    if key in (_keys.X_PCA, _keys.SPATIAL, _keys.NEIGHBORS, _keys.SPATIAL_NEIGHBORS, _keys.GENES, *graphs):
        raise ValueError(f"key_added={key!r} would overwrite what the graphs are made of. Choose another name.")
    if key in columns:
        raise ValueError(f"key_added={key!r} would overwrite that column of obs, which is read. Choose another name.")


@contextmanager
def of_data(name: str) -> Iterator[None]:
    """Say in errors which of several data sets they are of."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        # not of a subclass, whose own arguments may be others
        kind = next(k for k in (KeyError, TypeError, ValueError) if isinstance(error, k))
        raise kind(f"{name}: {error.args[0] if error.args else error}") from error


def check_column(obs: pd.DataFrame, key: str, argument: str, *, complete: bool = False, name: str = "adata") -> None:
    """Refuse a column of `obs` that is not there.

    Parameters
    ----------
    obs
        Of the cells.
    key
        Of the column.
    argument
        That names it.
    complete
        Every cell must have a value.
    name
        Of the data set, for the message.

    Raises
    ------
    KeyError, ValueError
        There is no such column; values are missing where they must not.
    """
    if key not in obs:
        raise KeyError(f"{name}.obs has no column {argument}={key!r}. Pass one that is there: {list(obs.columns)}.")
    if complete and (missing := int(obs[key].isna().sum())):
        raise ValueError(f"{name}.obs[{key!r}] is missing for {missing} cells. Label them or drop them.")


def check_tile_size(tile_size: int) -> None:
    """Refuse what is no number of cells.

    Raises
    ------
    ValueError
        If it is not whole, or below 1.
    """
    if not isinstance(tile_size, Integral) or tile_size < 1:
        raise ValueError(f"tile_size must be a whole number of at least 1, got {tile_size!r}.")


def check_device(device: str) -> None:
    """Refuse a device that torch cannot compute on here.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    import torch

    try:
        torch.zeros(1, device=device)
    # without CUDA, torch fails by an assertion
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={device!r} cannot be used here ({reason}). Pass device='cpu'.") from error


def check_scratch(folder: str | Path | None, device: str) -> None:
    """Refuse a folder that states cannot be put into.

    Raises
    ------
    ValueError
        If it is not there, or the states are on a GPU.
    """
    if folder is None:
        return
    if not Path(folder).is_dir():
        raise ValueError(f"scratch={str(folder)!r} is no folder. Create it, or name another one.")
    if device != "cpu":
        raise ValueError(f"scratch is for states on the CPU, not on device={device!r}. Leave one of the two out.")


def check_exists(path: Path) -> None:
    """Refuse to read what is not there.

    Raises
    ------
    FileNotFoundError
        If nothing is.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist. Check the path (working directory: {Path.cwd()}).")


def check_unique_genes(adata: AnnData) -> None:
    """Refuse genes that a name does not tell apart.

    Raises
    ------
    ValueError
        If a name is there twice.
    """
    if not adata.var_names.is_unique:
        raise ValueError("adata.var_names are not unique. Run adata.var_names_make_unique() first.")


def make_folder(path: Path) -> None:
    """Make the folder of a run now, rather than after minutes of work.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"out: cannot make the folder {path} ({error.strerror}). Choose another one.") from error
