"""Memory that is predicted, and that is measured."""

import logging
import re
import subprocess
import sys

import numpy as np
import psutil
import pytest

from graphfm import memory

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


def test_peak_is_of_the_time_since():
    before = memory.Peak().bytes()
    peak = memory.Peak()
    held = np.ones(2**25)
    assert peak.bytes() >= before + 0.9 * held.nbytes
    del held
    if sys.platform == "linux":
        assert memory.Peak().bytes() < before + 2**27


@pytest.mark.parametrize(("needed", "level"), [(10, logging.INFO), (2**50, logging.WARNING)])
def test_what_is_needed_and_taken_is_said(needed, level, caplog):
    caplog.set_level(logging.INFO)
    with memory.announced("a task", needed):
        held = np.ones(2**25)
    before, after = caplog.records
    assert before.levelno == level and f"a task needs about {needed / 1e9:.2f} GB" in before.getMessage()
    free = float(re.search(r"([\d.]+) GB are free", before.getMessage()).group(1))
    assert free == pytest.approx(psutil.virtual_memory().available / 1e9, abs=2)
    took = float(re.search(r"at most ([\d.]+) GB more", after.getMessage()).group(1))
    assert 0.2 < took < 0.6 and held.nbytes == 2**28


@pytest.mark.slow
def test_prediction_is_within_a_fifth():
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, "150000"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    needed = float(re.search(r"150,000 cells needs about (.+) GB beside", said).group(1))
    took = float(re.search(r"150,000 cells took .* at most (.+) GB more", said).group(1))
    assert 0.3 < needed == pytest.approx(took, rel=0.2)
