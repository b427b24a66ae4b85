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
import numpy as np
from graphfm.allocator import held_bytes, keep_freed_memory
keep_freed_memory()
before, x = held_bytes(), np.ones(10_000_000)
during = held_bytes()
del x
print(during - before, held_bytes() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone tells")
def test_freed_memory_is_told():
    printed = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True).stdout
    during, after = map(int, printed.split())
    assert abs(during) < 1e6 and after == pytest.approx(8e7, rel=0.05)


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert allocator.keep_freed_memory() is False
    assert allocator.held_bytes() == 0
