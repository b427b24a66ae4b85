"""What every experiment shares: which jobs are left, one whole line per record, where a record comes from.

A results file is JSON lines, flat records, only ever appended to. A run that was broken off goes on where it was, and
a finished one adds nothing. To redo a job, delete its lines.
"""

import argparse
import fcntl
import importlib.util
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from graphfm.memory import Peak

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Data = TypeVar("Data")
RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"
PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "anndata", "scanpy", "squidpy")


def read(path: Path) -> list[dict]:
    """Records of a file, none if there is no file; a last line that was cut off does not count."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]


def pending(path: Path, jobs: Sequence[dict]) -> list[dict]:
    """Jobs that no record of the file has: a record does a job if it agrees in all of the job's fields."""
    records = read(path)
    return [job for job in jobs if not any(all(r.get(key) == job[key] for key in job) for r in records)]


def append(path: Path, record: dict) -> None:
    """Add one whole line, by one write; what a broken-off write left at the end of the file is cut away first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode()
    with path.open("a+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # several runs may share a file
        file.seek(0)
        whole = (text := file.read()).rfind(b"\n") + 1
        if whole < len(text):
            file.truncate(whole)
        if file.write(line) != len(line):
            raise OSError(f"no room for a whole record in {path}. Make room and run again: it goes on from here.")
        os.fsync(file.fileno())


@cache
def provenance() -> dict[str, str]:
    """Commit, date, versions and hardware, taken once: everything that a process writes comes from one state.

    The commit ends in ``-dirty`` if the library or the experiments differ from it; results files do not count, for
    they change by running.
    """
    import torch

    import graphfm
    from graphfm.models.checkpoint import commit

    root, name = Path(graphfm.__file__).resolve().parent.parent, commit().removesuffix("-dirty")
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "status", "--porcelain", "--", "graphfm", "experiments"]
        command += [":(exclude)experiments/results", ":(exclude)experiments/*.md"]
        name += "-dirty" if subprocess.run(command, capture_output=True, check=True).stdout.strip() else ""
    packages = [f"{package} {version(package)}" for package in PACKAGES]
    return {
        "commit": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": ", ".join([f"python {platform.python_version()}", f"graphfm {graphfm.__version__}", *packages]),
        "hardware": f"{platform.machine()}, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads, "
        f"{torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU'}",
    }


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Fill a dict with ``seconds`` and ``peak_mb``, the most that the whole process held in the block."""
    cost: dict[str, float] = {}
    peak, began = Peak(), time.perf_counter()
    yield cost
    cost["seconds"] = round(time.perf_counter() - began, 3)
    cost["peak_mb"] = round(peak.bytes() / 2**20, 1)


def rounded(scores: Mapping[str, float]) -> dict[str, float]:
    """Six digits."""
    return {key: float(f"{value:.6g}") for key, value in scores.items()}


def frame(records: Sequence[dict], keys: Sequence[str], methods: Sequence[str], *settings: str) -> "pd.DataFrame":
    """Records of these settings, of each job (`keys`) the last, methods in this order."""
    import pandas as pd

    table = pd.DataFrame([record for setting in settings for record in records if record["setting"] == setting])
    if table.empty:
        return table
    table = table.drop_duplicates(list(keys), keep="last")
    return table.assign(method=pd.Categorical(table["method"], methods, ordered=True))


def interval(values: np.ndarray, rng: np.random.Generator, rounds: int = 10_000) -> tuple[float, float]:
    """95 % of the means of values that are drawn again."""
    low, high = np.quantile(rng.choice(values, (rounds, len(values))).mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def gap(values: np.ndarray, rng: np.random.Generator) -> str:
    """Mean of differences, its interval, and how many are above zero."""
    low, high = interval(values, rng)
    return f"{values.mean():+.3f} ({low:+.3f} to {high:+.3f}), above on {(values > 0).sum()} of {len(values)}"


def drive(
    doc: str,
    path: Path,
    *,
    jobs: Callable[[], list[dict]],
    smoke: Callable[[], list[dict]],
    run: Callable[[dict], Iterable[dict]],
    render: Callable[[Sequence[dict]], str],
    needs: Mapping[str, str] | None = None,
) -> None:
    """Command line of a table: run the jobs that are asked for and not done, print what the records say.

    Parameters
    ----------
    doc
        Of the program; its first line is shown.
    path
        Records; those of ``--smoke`` go into a folder of their own.
    jobs, smoke
        All jobs, and those of a quick run without real data.
    run
        Does a job and gives its records.
    render
        Markdown from records.
    needs
        Packages of methods that are left out where these are not installed.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="toy data, quick methods, into a file of its own")
    parser.add_argument("--readme", action="store_true", help="renew the README's block from the records, run nothing")
    fields = {"setting": str, "dataset": str, "method": str, "seed": int}
    for field, kind in fields.items():
        parser.add_argument(f"--{field}", nargs="*", type=kind, help="only these; several processes may share the file")
    options = parser.parse_args()
    if options.readme:
        return renew_readme(path.stem.partition("_")[0], render(read(path)))
    todo, path = (smoke(), Path(tempfile.mkdtemp()) / path.name) if options.smoke else (jobs(), path)
    for field in fields:
        if wanted := getattr(options, field):
            there = sorted({job[field] for job in todo})
            if wrong := sorted(set(wanted) - set(there)):
                parser.error(f"--{field} {wrong[0]}: there is none; choose from {', '.join(map(str, there))}")
            todo = [job for job in todo if job[field] in wanted]
    missing = {method for method, package in (needs or {}).items() if importlib.util.find_spec(package) is None}
    if left := missing & {job["method"] for job in todo}:
        print(f'left out, not installed: {", ".join(sorted(left))} (pip install "graphfm[bench]")')
    for job in todo:
        if job["method"] not in missing and pending(path, [job]):  # one by one: other processes run, too
            for record in run(job):
                append(path, record)
    print(render(read(path)))


def drive_gathered(
    doc: str, block: str, *, render: Callable[[Data], str], kept: Callable[[], Data], made_up: Callable[[], Data]
) -> None:
    """Command line of a table that is gathered from the records of others: print it, or renew the README's `block`.

    Parameters
    ----------
    doc
        Of the program; its first line is shown.
    block
        Name of the README's block.
    render
        Makes Markdown.
    kept, made_up
        Give what it is made from; the latter with ``--smoke``.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--readme", action="store_true", help="renew the README's block")
    parser.add_argument("--smoke", action="store_true", help="made-up records")
    options = parser.parse_args()
    text = render(made_up() if options.smoke else kept())
    if options.readme:
        return renew_readme(block, text)
    print(text)


def renew_readme(name: str, text: str, readme: Path = README) -> None:
    """Put `text` between ``<!-- name -->`` and ``<!-- /name -->``."""
    before, rest = readme.read_text(encoding="utf-8").split(f"<!-- {name} -->\n", 1)
    after = rest.split(f"<!-- /{name} -->", 1)[1]
    write_whole(readme, f"{before}<!-- {name} -->\n{text}<!-- /{name} -->{after}")


def write_whole(path: Path, text: str) -> None:
    """Write a file, or leave it as it was."""
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def drive_figure(
    doc: str,
    path: Path,
    dpi: int,
    *,
    draw: Callable[[Data], "Figure"],
    kept: Callable[[], Data],
    made_up: Callable[[], Data],
) -> None:
    """Command line of a figure: draw what is kept; with ``--smoke`` what is made up, into a temporary folder.

    Parameters
    ----------
    doc
        Of the program; its first line is shown.
    path, dpi
        Where to, and how many points an inch.
    draw
        Makes the figure.
    kept, made_up
        Give what it draws.
    """
    import matplotlib

    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="made-up records, nothing is kept")
    smoke = parser.parse_args().smoke
    matplotlib.use("Agg")
    out = Path(tempfile.mkdtemp()) / path.name if smoke else path
    partial = out.with_suffix(".tmp.png")
    # the same records give the same file, so no date or version goes into it
    draw(made_up() if smoke else kept()).savefig(partial, dpi=dpi, metadata={"Software": None})
    partial.replace(out)
    print(f"{out}: {out.stat().st_size / 1e3:.0f} kB")
