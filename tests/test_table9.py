"""Table 9: correlations are numpy's, the smoke run gives a line, the README is of the records."""

import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

FOLDER = Path(__file__).parent.parent / "experiments"
sys.path.insert(0, str(FOLDER))

import table9_leakage as table9  # noqa: E402


def test_correlations_are_those_of_numpy():
    x, y = (sp.random(n, 60, 0.3, format="csr", random_state=n) for n in (7, 5))
    y = sp.vstack([y, sp.csr_matrix((1, 60))], format="csr")
    found = table9.correlations(x, y)
    expected = [[np.corrcoef(a, b)[0, 1] for b in y.toarray()[:5]] for a in x.toarray()]
    np.testing.assert_allclose(found[:, :5], expected, atol=1e-12)
    assert (found[:, 5] == 0).all()


def test_nearest_cell_is_found_in_the_data_set_that_has_it(monkeypatch):
    rng = np.random.default_rng(0)
    parts = [sp.csr_matrix(rng.poisson(1.0, size=(20, 300)).astype(float)) for _ in range(2)]
    other = np.arange(50, 350)
    monkeypatch.setattr(table9, "corpus", lambda: {"a": (parts[0], np.arange(300)), "b": (parts[1], other)})
    values, where = table9.nearest(parts[1][:4], other)
    assert values == pytest.approx(1) and (where == 1).all()
    assert np.isnan(table9.nearest(parts[1][:4], np.arange(1000, 1300))[0]).all()


def test_smoke(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["table9_leakage.py", "--smoke"])
    table9.main()
    assert "| toy | labelled | 100% | 0.0% | 0.0% |" in capsys.readouterr().out


def test_readme_is_of_the_records_and_says_what_it_should():
    kept, text = table9._spine.read(table9.PATH), (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    block = text.split("<!-- table9 -->\n")[1].split("<!-- /table9 -->")[0]
    assert block == table9.render(kept), "run: python experiments/table9_leakage.py --readme"
    assert {(r["dataset"], r["setting"]) for r in kept} == {(j["dataset"], j["setting"]) for j in table9.jobs()}
    told = {record["dataset"] for record in kept if record["comparable"] >= 0.5}
    assert {record["dataset"] for record in kept} - told == {"osmfish_ssctx", "starmap_mpfc_BZ9"}  # panels
    assert all(record.get("twins", 0) == 0 for record in kept)
    assert all(record["refused"] == (record["setting"] == "corpus") for record in kept)
