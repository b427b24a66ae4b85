"""The table of public data sets (``registry.json``), and loading one of them by its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

__all__ = ["DatasetFile", "DatasetInfo", "attributes", "fetch", "info", "load", "loader", "names"]


@dataclass(frozen=True)
class DatasetFile:
    """One file of a data set.

    ``path`` is relative to the mirror and to the cache; ``bytes`` and ``sha256`` are None for a tidy file that only
    `data_prep` makes (it is checked against the sum written beside it); ``url`` is None when no address is confirmed.
    """

    path: str
    bytes: int | None
    sha256: str | None
    url: str | None


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set: where it comes from, under which terms, what its labels are.

    ``shape`` is (cells, genes) or (nodes, features), None when unknown before the file is made; ``citation`` is a DOI,
    empty when there is no paper; ``script`` is the program of `data_prep` that makes the file, empty when none does.
    """

    name: str
    description: str
    kind: str
    reader: str
    files: tuple[DatasetFile, ...]
    organism: str = ""
    licence: str = ""
    citation: str = ""
    labels: tuple[str, ...] = ()
    shape: tuple[int, int] | None = None
    is_raw_counts: bool | None = None
    note: str = ""
    source: str = ""
    script: str = ""

    @property
    def bytes(self) -> int:
        """Size of all files together, without those whose size is not known."""
        return sum(file.bytes or 0 for file in self.files)

    @property
    def sha256(self) -> dict[str, str | None]:
        """Checksum of each file by its path."""
        return {file.path: file.sha256 for file in self.files}


def _url(path: str, commits: dict[str, str]) -> str | None:
    """Address of ``raw/<owner>/<repository>/<path>`` at the commit that the checksums belong to."""
    parts = PurePosixPath(path).parts
    if parts[0] != "raw":
        return None
    repository = "/".join(parts[1:3])
    return f"https://raw.githubusercontent.com/{repository}/{commits[repository]}/{quote('/'.join(parts[3:]))}"


@cache
def _table() -> dict[str, DatasetInfo]:
    raw = json.loads((Path(__file__).parent / "registry.json").read_text(encoding="utf-8"))
    table = {}
    for name, fields in raw["datasets"].items():
        files = tuple(DatasetFile(*file, url=_url(file[0], raw["commits"])) for file in fields.pop("files"))
        labels = tuple(fields.pop("labels", ()))
        shape = tuple(fields.pop("shape", ())) or None
        table[name] = DatasetInfo(name=name, files=files, labels=labels, shape=shape, **fields)
    return table


def names() -> list[str]:
    """Names of the data sets that :func:`load` knows, sorted."""
    return sorted(_table())


def attributes() -> list[str]:
    """Everything callable as ``graphfm.datasets.<name>``: the data sets and the families with arguments."""
    from . import _families

    return sorted({*_table(), *_families.__all__})


def info(name: str) -> DatasetInfo:
    """What is known of one data set.

    Parameters
    ----------
    name
        One of :func:`names`.

    Raises
    ------
    KeyError
        No data set has this name; the message has the nearest ones.
    """
    if name in _table():
        return _table()[name]
    import difflib

    near = difflib.get_close_matches(name, _table(), n=4) or ["see graphfm.datasets.names()"]
    raise KeyError(f"graphfm.datasets has no {name!r}. Nearest: {', '.join(near)}")


def fetch(name: str) -> Path | list[Path]:
    """Bring the files of a data set to this machine, checksums compared.

    Parameters
    ----------
    name
        One of :func:`names`.

    Returns
    -------
    The path of the file, or a list of paths, in the order of ``info(name).files``, when there are several.

    Raises
    ------
    KeyError
        No data set has this name.
    ValueError
        A file has the wrong checksum; the message has the file, the expected and the actual sum.
    FileNotFoundError
        The file is nowhere and cannot be downloaded; the message has the command that makes it.
    ConnectionError
        The download failed; the message says how to work offline.
    """
    from ._fetch import locate

    entry = info(name)
    paths = [locate(entry, file.path) for file in entry.files]
    return paths[0] if len(paths) == 1 else paths


def load(name: str) -> Any:
    """Load a public data set by its name.

    Parameters
    ----------
    name
        One of :func:`names`.

    Returns
    -------
    AnnData for expression, spatial data and network truths; ``torch_geometric.data.Data`` for node classification;
    a pandas table or list of names for priors. ``info(name)`` says what to expect.

    Raises
    ------
    KeyError, ValueError, FileNotFoundError, ConnectionError
        As :func:`fetch`.
    """
    from . import _fetch, _readers

    entry = info(name)
    return getattr(_readers, f"read_{entry.reader}")(entry, partial(_fetch.locate, entry))


def loader(name: str) -> Callable[..., Any]:
    """The function behind ``graphfm.datasets.<name>``: a family with arguments, or a loader of one data set.

    Raises
    ------
    KeyError
        No data set and no family has this name.
    """
    from . import _families

    if name in _families.__all__:
        return getattr(_families, name)
    entry = info(name)

    def function() -> Any:
        return load(entry.name)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = _docstring(entry)
    return function


def _docstring(entry: DatasetInfo) -> str:
    kind = {"node_classification": "torch_geometric.data.Data", "prior": "pandas table or list of names"}
    facts = {
        "Shape": " x ".join(map(str, entry.shape)) if entry.shape else "",
        "Organism": entry.organism,
        "Labels": ", ".join(entry.labels),
        "Licence": entry.licence,
    }
    lines = [entry.description + ".", "", "Returns", "-------", kind.get(entry.kind, "AnnData") + "."]
    lines += ["", "Raises", "------", "FileNotFoundError, ValueError, ConnectionError", "    As :func:`fetch`."]
    lines += ["", "Notes", "-----", entry.note] if entry.note else ["", "Notes", "-----"]
    lines += [f"{key}: {value}." for key, value in facts.items() if value]
    lines += ["", "References", "----------", f"https://doi.org/{entry.citation}" if entry.citation else entry.source]
    return "\n".join(lines)
