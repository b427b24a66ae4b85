"""Memory that is predicted, and that is measured."""

import re
import subprocess
import sys

import psutil
import pytest

SCRIPT = """
import logging, sys
import numpy as np, scipy.sparse as sp
from anndata import AnnData
import graphfm
logging.basicConfig(level=logging.INFO, format="%(message)s")
graphfm.tl.embed(graphfm.datasets.toy(300, 200))
n, rng = int(sys.argv[1]), np.random.default_rng(0)
adata = AnnData(sp.random(n, 200, density=0.1, format="csr", dtype=np.float32, random_state=0).ceil())
adata.var_names = graphfm.datasets.toy(300, 200).var_names
steps = np.r_[1:12, -11:0]
rows, columns = np.repeat(np.arange(n), len(steps)), (np.arange(n)[:, None] + steps).ravel() % n
adata.obsp["connectivities"] = sp.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)))
adata.obsp["distances"] = adata.obsp["connectivities"].copy()
adata.varm["PCs"] = np.linalg.qr(rng.normal(size=(200, 50)))[0].astype(np.float32)
adata.obsm["X_pca"] = np.zeros((n, 50), dtype=np.float32)
graphfm.tl.embed(adata)
"""


HOLD = """
import logging, sys
import numpy as np
from graphfm import memory
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
before, peak = memory.Peak().bytes(), memory.Peak()
held = np.ones(2**25)
assert peak.bytes() >= before + 0.9 * held.nbytes
del held
if sys.platform == "linux":
    assert memory.Peak().bytes() < before + 2**27
with memory.announced("a task", int(sys.argv[1])):
    held = np.ones(2**25)
"""


def said(script: str, argument: int) -> str:
    """Log of a process of its own: one that has done other things may hold freed memory."""
    command = [sys.executable, "-W", "ignore", "-c", script, str(argument)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize(("needed", "level"), [(10, "INFO"), (2**50, "WARNING")])
def test_what_is_needed_and_taken_is_said(needed, level):
    text = said(HOLD, needed)
    assert f"{level} a task needs about {needed / 1e9:.2f} GB" in text
    free = float(re.search(r"([\d.]+) GB are free", text).group(1))
    assert 0 < free < psutil.virtual_memory().total / 1e9
    assert 0.25 < float(re.search(r"at most ([\d.]+) GB more", text).group(1)) < 0.35


@pytest.mark.slow
def test_prediction_is_within_a_fifth():
    text = said(SCRIPT, 150_000)
    needed = float(re.search(r"150,000 cells needs about (.+) GB beside", text).group(1))
    took = float(re.search(r"150,000 cells took .* at most (.+) GB more", text).group(1))
    assert 0.3 < needed == pytest.approx(took, rel=0.2)
