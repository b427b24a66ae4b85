"""What the scripts of this folder share: raw files by address, checks, one atomic tidy file a data set.

A script is a table ``name -> recipe``; a recipe takes a `Fetch` and returns the tidy AnnData. :func:`run` is its
command line. The tidy file goes to ``<cache>/h5ad/<name>.h5ad``, where ``graphfm.datasets.load(name)`` finds it, with
``<name>.h5ad.json`` beside it (sha256, recipe). A second run with the same recipe does nothing.

Checksums of raw files that are not known beforehand are written to ``<cache>/raw.lock.json`` at the first download and
must agree from then on: the first download itself is taken on trust, and its sum is logged.
"""

import argparse
import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.utils import make_index_unique

from graphfm.datasets._fetch import cache_dir, sidecar
from graphfm.datasets._registry import info

logger = logging.getLogger("data_prep")


def github(repository: str, commit: str, path: str) -> str:
    """Address of a file of a public repository at a commit."""
    return f"https://raw.githubusercontent.com/{repository}/{commit}/{quote(path)}"


def _write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


class Fetch:
    """Calls bring a raw file to the cache; ``sums`` remembers address and sha256 for the provenance."""

    def __init__(self) -> None:
        self.sums: dict[str, str] = {}

    def __call__(self, url: str, sha256: str | None = None) -> Path:
        """Path of the raw file; ValueError when it is not the one that was pinned."""
        import pooch

        lock = cache_dir() / "raw.lock.json"
        pins = json.loads(lock.read_text()) if lock.is_file() else {}
        known = sha256 or pins.get(url)
        name = f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{url.rsplit('/', 1)[1].split('?')[0]}"
        try:
            target = pooch.retrieve(
                url,
                known and f"sha256:{known}",
                fname=name,
                path=cache_dir() / "downloads",
                downloader=pooch.HTTPDownloader(progressbar=True, timeout=60),
            )
        except OSError as error:
            raise ConnectionError(f"could not fetch {url}: {str(error)[:300]}") from None
        self.sums[url] = known or _sha256(Path(target))
        if not known:
            logger.warning("first download of %s, taken on trust: sha256 %s (pinned in %s)", url, self.sums[url], lock)
            text = json.dumps(pins | {url: self.sums[url]}, indent=1, sort_keys=True)
            _write_atomically(lock, lambda path: path.write_text(text))
        return Path(target)


Recipe = Callable[[Fetch], ad.AnnData]


def tidy(
    matrix: np.ndarray | sp.spmatrix | sp.sparray,
    *,
    cells: object,
    genes: object,
    obs: dict[str, object] | None = None,
    spatial: np.ndarray | None = None,
    counts: bool = True,
) -> ad.AnnData:
    """AnnData in the project's form.

    Parameters
    ----------
    matrix
        Values, cells x genes.
    cells, genes
        Their names; genes that occur twice get a suffix.
    obs
        Columns of ``obs``; text becomes categorical, missing text ``"NA"``.
    spatial
        Coordinates [cells, 2] in the source's unit.
    counts
        Whether the values are integer counts, which is checked.
    """
    values = sp.csr_matrix(matrix, dtype=np.float32)
    values.eliminate_zeros()
    values.sort_indices()
    if counts and values.nnz and ((values.data < 0).any() or (values.data != np.round(values.data)).any()):
        raise ValueError("the values are not counts, although the recipe says so: the source has changed")
    adata = ad.AnnData(
        values,
        obs=pd.DataFrame(index=pd.Index(cells, dtype=str)),
        var=pd.DataFrame(index=make_index_unique(pd.Index(genes, dtype=str))),
    )
    for column, content in (obs or {}).items():
        series = pd.Series(np.asarray(content), index=adata.obs_names)
        is_number = pd.api.types.is_numeric_dtype(series)
        adata.obs[column] = series if is_number else series.fillna("NA").astype(str).astype("category")
    if spatial is not None:
        adata.obsm["spatial"] = np.ascontiguousarray(spatial, dtype=np.float32)
    adata.uns["is_raw_counts"] = counts
    return adata


def is_done(name: str, *, recipe: str) -> bool:
    """Whether the tidy file is in the cache, finished, and made by this recipe."""
    target = cache_dir() / "h5ad" / f"{name}.h5ad"
    if not (target.is_file() and sidecar(target).is_file()):
        return False
    note = json.loads(sidecar(target).read_text())
    return note["recipe"] == recipe and note["sha256"] == _sha256(target)


def write_tidy(
    adata: ad.AnnData, name: str, *, recipe: str, sources: dict[str, str], allow_other_shape: bool = False
) -> Path:
    """Check a data set against the table, write it with its provenance, then the note that it is finished.

    Raises
    ------
    ValueError
        Shape or labels differ from the table: the source is not the version that the table describes.
    """
    entry = info(name)
    missing = [label for label in entry.labels if label not in adata.obs]
    if missing or (entry.shape and adata.shape != entry.shape and not allow_other_shape):
        raise ValueError(
            f"{name}: made {adata.shape}, the table says {entry.shape}; labels missing: {missing}. The source may be "
            "another version. With --allow-other-shape a file of another shape is written and says so."
        )
    adata.uns["provenance"] = {
        "sources": {str(number): f"{url} sha256:{total}" for number, (url, total) in enumerate(sources.items())},
        "recipe": recipe,
        "licence": entry.licence,
        "citation": entry.citation,
        "shape_as_in_table": bool(entry.shape is None or adata.shape == entry.shape),
    }
    target = cache_dir() / "h5ad" / f"{name}.h5ad"
    sidecar(target).unlink(missing_ok=True)
    _write_atomically(target, lambda path: adata.write_h5ad(path, compression="gzip"))
    text = json.dumps({"recipe": recipe, "sha256": _sha256(target)})
    _write_atomically(sidecar(target), lambda path: path.write_text(text))
    return target


def run(recipes: dict[str, Recipe], *, script: str, version: int, argv: list[str] | None = None) -> None:
    """Command line of a script: make the named data sets, or all of the script's."""
    parser = argparse.ArgumentParser(description=f"Make tidy files: {', '.join(recipes)}")
    parser.add_argument("names", nargs="*", help="data sets; default all")
    parser.add_argument(
        "--allow-other-shape", action="store_true", help="write although the shape is not the known one"
    )
    options = parser.parse_args(argv)
    if unknown := set(options.names) - set(recipes):
        parser.error(f"this script does not make {sorted(unknown)}; it makes {sorted(recipes)}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    recipe = f"{Path(script).name}:{version}"
    for name in options.names or recipes:
        if is_done(name, recipe=recipe):
            logger.info("%s is there already", name)
            continue
        fetch = Fetch()
        try:
            adata = recipes[name](fetch)
        except ConnectionError as error:
            raise SystemExit(f"{name}: {error}") from None
        path = write_tidy(adata, name, recipe=recipe, sources=fetch.sums, allow_other_shape=options.allow_other_shape)
        logger.info("%s: %d x %d -> %s", name, *adata.shape, path)
