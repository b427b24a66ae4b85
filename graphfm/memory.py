"""What a run needs of memory, said before it begins, and what it took."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from graphfm.allocator import give_back_freed_memory

logger = logging.getLogger(__name__)

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """The most memory that the process holds from now on.

    On Linux exactly that; elsewhere, or where that file cannot be written, since the process began.
    """

    def __init__(self) -> None:
        try:
            _RESET.write_text("5")
        except OSError:
            logger.debug("%s cannot be written: peaks are since the process began", _RESET)

    def bytes(self) -> int:
        """Largest resident memory so far."""
        if _STATUS.exists():
            return next(int(line.split()[1]) for line in _STATUS.read_text().splitlines() if "VmHWM" in line) * 1024
        import resource
        import sys

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def announced(task: str, needed: int) -> Iterator[None]:
    """Log what a task will need beside what is in use, and afterwards what it took.

    Parameters
    ----------
    task
        Name for the log.
    needed
        Bytes at the peak, beside those in use.
    """
    give_back_freed_memory()  # else nobody knows how much of it will serve again
    used, free = psutil.Process().memory_info().rss, psutil.virtual_memory().available
    level = logging.WARNING if needed > free else logging.INFO
    text = "%s needs about %.2f GB beside the %.2f GB in use; %.2f GB are free"
    logger.log(level, text, task, needed / 1e9, used / 1e9, free / 1e9)
    peak, began = Peak(), time.perf_counter()
    yield
    took = (peak.bytes() - used) / 1e9
    logger.info("%s took %.1f s, and at most %.2f GB more", task, time.perf_counter() - began, took)
