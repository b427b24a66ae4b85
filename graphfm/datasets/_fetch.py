"""Where the files of a data set are, and how one comes to this machine.

A file is looked for in this order: the mirror (``$GRAPHFM_DATA``), the cache folder (``$GRAPHFM_CACHE``, else the
user's cache), the public address when the table has one with a checksum. Nothing is read before its sha256 is right.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from functools import cache
from pathlib import Path

from ._registry import DatasetFile, DatasetInfo

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 60


def cache_dir() -> Path:
    """Folder of downloads and prepared files: ``$GRAPHFM_CACHE``, else the user's cache folder. It is not created."""
    if folder := os.environ.get("GRAPHFM_CACHE"):
        return Path(folder).expanduser()
    import pooch

    return Path(pooch.os_cache("graphfm"))


def sidecar(path: Path) -> Path:
    """The small JSON file (sha256, recipe) that `data_prep` writes beside a tidy file, last."""
    return path.with_name(path.name + ".json")


@cache
def _sha256(path: Path, size: int, modified_ns: int) -> str:
    # size and time are in the key so that a file is summed once, and again when it changed
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _check(path: Path, expected: str) -> Path:
    status = path.stat()
    got = _sha256(path, status.st_size, status.st_mtime_ns)
    if got != expected:
        raise ValueError(
            f"{path} has the wrong checksum: expected sha256 {expected}, got {got}. "
            "The file is damaged or another version: delete it and fetch it again."
        )
    return path


def _made_here(path: Path) -> str | None:
    """Checksum that `data_prep` recorded for a tidy file in the cache; None when there is no finished file."""
    if not (path.is_file() and sidecar(path).is_file()):
        return None
    return json.loads(sidecar(path).read_text(encoding="utf-8"))["sha256"]


def locate(entry: DatasetInfo, path: str) -> Path:
    """Path on this machine of one file of a data set, given its path in the table; the checksum is right.

    Raises
    ------
    ValueError, FileNotFoundError, ConnectionError
        As :func:`graphfm.datasets.fetch`.
    """
    file = next(file for file in entry.files if file.path == path)
    mirror = os.environ.get("GRAPHFM_DATA")
    mirrored = Path(mirror).expanduser() / file.path if mirror else None
    if mirrored and mirrored.is_file() and (known := file.sha256 or _made_here(mirrored)):
        return _check(mirrored, known)
    cached = cache_dir() / file.path
    if made := _made_here(cached):
        return _check(cached, made)
    if file.url is None or file.sha256 is None:
        raise FileNotFoundError(_how_to_get(entry, file))
    if cached.is_file():
        return _check(cached, file.sha256)
    return _download(entry, file, cached)


def _download(entry: DatasetInfo, file: DatasetFile, target: Path) -> Path:
    import pooch

    logger.info("fetching %s", file.url)
    try:
        # pooch writes to a temporary name, compares the checksum, then renames
        pooch.retrieve(
            file.url,
            known_hash=f"sha256:{file.sha256}",
            fname=target.name,
            path=target.parent,
            downloader=pooch.HTTPDownloader(timeout=_TIMEOUT_SECONDS),
        )
    except (OSError, ValueError) as error:
        # the cause is a long stack of urllib frames: its last line says all there is to know
        reason = str(error).strip().splitlines()[-1][:300] if str(error).strip() else type(error).__name__
        raise ConnectionError(
            f"could not fetch {entry.name!r} from {file.url}: {reason} Without a network, set GRAPHFM_DATA to a folder "
            f"that holds {file.path!r}, or run this once where there is one and copy the cache folder {cache_dir()}."
        ) from None
    return target


def _how_to_get(entry: DatasetInfo, file: DatasetFile) -> str:
    text = f"{entry.name!r} is not on this machine: looked for {file.path!r} under GRAPHFM_DATA"
    text += f" ({os.environ.get('GRAPHFM_DATA') or 'not set'}) and in the cache {cache_dir()}. "
    terms = f"its terms: {entry.licence or 'not stated'}"
    if entry.script:
        return text + (
            f"It is not downloaded ready-made ({terms}). With a network, make it from its public source by\n"
            f"    python {entry.script} {entry.name}\n"
            "or set GRAPHFM_DATA to a folder that has it, with its checksum beside it as that program writes it."
        )
    return text + (
        f"No confirmed address and no script make this file ({terms}; its origin: {entry.source or 'not confirmed'}). "
        "Set GRAPHFM_DATA to a folder that has it."
    )
