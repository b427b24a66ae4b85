"""The allocator is changed on demand, and only there."""

import platform
import subprocess
import sys

import pytest

from graphfm import allocator

FAULTS = """
import resource, sys
import numpy as np
from graphfm.allocator import keep_freed_memory
if {kept}:
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(10_000_000)
before = faults()
for _ in range(5):
    np.ones(10_000_000)
print(faults() - before)
"""


def faults(kept: bool) -> int:
    code = FAULTS.format(kept=kept)
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has these settings")
def test_freed_memory_is_used_again():
    assert faults(kept=True) < 50 < faults(kept=False)


HELD = """
import numpy as np, psutil
from graphfm.allocator import give_back_freed_memory, keep_freed_memory
keep_freed_memory()
rss = lambda: psutil.Process().memory_info().rss
before, x, y = rss(), np.ones(10_000_000), np.ones(10_000_000)
last = np.ones(1_000)
del x, y
kept = rss()
give_back_freed_memory()
print(kept - before, rss() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone keeps it")
def test_freed_memory_is_given_back_when_asked():
    printed = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True).stdout
    kept, left = map(int, printed.split())
    assert left < 1.6e8 / 10 < kept


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert allocator.keep_freed_memory() is False
    allocator.give_back_freed_memory()
