"""Files of cells -> a corpus for pre-training on many processes.

    python data_prep/corpus.py cells/*.h5ad --out corpus                    one after the other
    python data_prep/corpus.py cells/*.h5ad --out corpus --workers 8        on this machine's cores, by Dask
    python data_prep/corpus.py cells/*.h5ad --out corpus --scheduler tcp://head:8786     on a Dask cluster
    torchrun --nproc-per-node 8 -m graphfm pretrain corpus/*.prepared --out run

Each file is one call of `graphfm.tl.prepare`: neighbours, genes, expression and tiles, once for all processes of all
runs. Workers elsewhere need the same graphfm, and the files under the same paths. What is done already is left as it
is, so that a run that was broken off goes on; a file that fails does not stop the others, and is named at the end.
Dask comes with `pip install 'graphfm[prep]'`.
"""

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from graphfm import io, tl
from graphfm._checks import make_folder

logger = logging.getLogger("data_prep")

Done = tuple[Path, str | None]
"""A file, and why it failed."""


def attempt(path: Path, out: Path, options: dict) -> Done:
    """One file, on whichever machine this is."""
    try:
        tl.prepare(path, out, **options)
    except (KeyError, ValueError, OSError, MemoryError) as error:
        return path, str(error.args[0] if isinstance(error, KeyError) else error)
    return path, None


def on_dask(paths: Iterable[Path], out: Path, options: dict, *, workers: int, scheduler: str | None) -> Iterator[Done]:
    """As Dask's workers get to them; without a scheduler's address, on workers of this machine."""
    import dask
    from distributed import Client, as_completed

    # who reports once more while all is closing logs a stack of lines, here or in a worker; what fails comes back as
    # a result
    quiet = {"distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "critical"}
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    here = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
    with dask.config.set(quiet), Client(scheduler) if scheduler else Client(**here) as client:
        futures = [client.submit(attempt, path.resolve(), out.resolve(), options, pure=False) for path in paths]
        for future in as_completed(futures):
            yield future.result()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help=".h5ad or .zarr with raw counts, or folders of them")
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--layer", help="layer with the counts, if they are not in X")
    parser.add_argument("--organism", default="auto", choices=("auto", "human", "mouse", "other"))
    parser.add_argument("--library-key", help="column of obs that names the slide")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--workers", type=int, default=0, help="processes on this machine; default: none but this one")
    where.add_argument("--scheduler", help="address of a Dask scheduler")
    options = parser.parse_args(argv)
    try:
        files = io.cell_files(options.files)
    except ValueError as error:
        parser.error(str(error))
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    make_folder(options.out)
    settings = {"layer": options.layer, "organism": options.organism, "library_key": options.library_key}
    if options.workers or options.scheduler:
        done = on_dask(files, options.out, settings, workers=options.workers, scheduler=options.scheduler)
    else:
        done = (attempt(path, options.out, settings) for path in files)
    failed = {path: reason for path, reason in tqdm(done, total=len(files), unit="file") if reason}
    for path, reason in failed.items():
        logger.error("%s: %s", path, reason)
    print(f"{len(files) - len(failed)} of {len(files)} files are prepared in {options.out}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
