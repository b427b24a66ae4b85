"""Table 3: its methods do what they are named after, it prints what was kept, and it takes up what is left."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

FOLDER = Path(__file__).parent.parent / "experiments"
sys.path.insert(0, str(FOLDER))

import _grn_methods as grn_methods  # noqa: E402
import _grn_supervised as grn_supervised  # noqa: E402
import table3_grn as table3  # noqa: E402

from graphfm.tasks import grn_splits  # noqa: E402


@pytest.fixture(scope="module")
def expression():
    """Gene 2 follows gene 0, gene 3 falls with gene 1, gene 4 is constant."""
    rng = np.random.default_rng(0)
    x = rng.gamma(2, size=(200, 8))
    x[:, 2] = x[:, 0] + 0.3 * x[:, 2]
    x[:, 3] = np.maximum(6 - x[:, 1], 0) + 0.3 * x[:, 3]
    x[:, 4] = 1.0
    return x


@pytest.mark.parametrize("name", ["pearson", "spearman", "clr", "ridge_partial", "genie3"])
def test_methods_find_what_is_planted(expression, name):
    tfs = np.array([0, 1, 5])
    scores = grn_methods.METHODS[name](expression, tfs, 0)
    assert scores.shape == (3, 8) and np.isfinite(scores).all()
    size = np.abs(scores)
    size[np.arange(3), tfs] = 0
    assert size[0].argmax() == 2 and size[1].argmax() == 3
    if name != "genie3":
        assert scores[0, 2] > 0 > scores[1, 3]
    order = np.random.default_rng(1).permutation(8)
    place = np.argsort(order)
    if name != "genie3":
        np.testing.assert_allclose(
            grn_methods.METHODS[name](expression[:, order], place[tfs], 0)[:, place], scores, atol=1e-9
        )


def test_what_pretraining_adds_is_of_the_same_splits():
    base = {"network": "STRING", "setting": "tfs"}
    made = [
        base | {"dataset": dataset, "method": method, "seed": seed, "auprc": 0.2 + more, "auroc": 0.5 + seed * 0.3}
        for dataset in ("a", "b")
        for seed in (0, 1)
        for method, more in (("graphfm", 0.4 * seed), ("graphfm:pretrained", 0.1))
        if seed == 0 or method == "graphfm"
    ]
    (_, told) = table3.pretrained(made, "tfs")
    assert "AUPRC +0.100 (+0.100 to +0.100), above on 2 of 2; AUROC +0.000" in told
    assert table3.pretrained(made, "edges") == [] == table3.pretrained(made[:1], "tfs")


def test_clr_equals_a_loop(expression):
    r = np.abs(np.nan_to_num(np.corrcoef(expression[:, [0, 1, 2, 3, 5, 6, 7]].T)))
    expected = np.zeros_like(r)
    for i in range(7):
        for j in range(7):
            z = []
            for a, b in ((i, j), (j, i)):
                others = [r[a, k] for k in range(7) if k != a]
                z.append(max((r[a, b] - np.mean(others)) / np.std(others), 0))
            expected[i, j] = np.hypot(*z) if i != j else 0
    found = np.abs(grn_methods.clr(expression[:, [0, 1, 2, 3, 5, 6, 7]], np.arange(7), 0))
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_supervised_baselines():
    rng = np.random.default_rng(0)
    genes, tfs = pd.Index([f"g{i}" for i in range(40)]), pd.Index([f"g{i}" for i in range(12)])
    rate = rng.gamma(1, size=(12, 1)) * rng.gamma(1, size=40) * 0.15
    truth = pd.DataFrame([(tfs[i], genes[j]) for i, j in np.argwhere(rng.random((12, 40)) < rate) if i != j])
    parts = grn_splits.split(truth.set_axis(["tf", "target"], axis=1), genes, tfs, setting="edges", seed=0)
    data = grn_supervised.Supervised(rng.gamma(2, size=(60, 40)), genes, pd.Index(parts.tfs), parts)
    known = parts.known()
    place = {name: i for i, name in enumerate(parts.tfs)}
    product = grn_supervised.degree_product(data, 0)
    for tf, target in (("g0", "g20"), ("g3", "g7")):
        expected = np.log1p((known["tf"] == tf).sum()) + np.log1p((known["target"] == target).sum())
        assert product[place[tf], genes.get_loc(target)] == pytest.approx(expected)
    for name, method in grn_supervised.SUPERVISED.items():
        short = {"epochs": 2} if name == "genelink" else {}
        scores = method(data, 0, **short)
        assert scores.shape == (len(parts.tfs), 40) and np.isfinite(scores).all()
        # the test part is not looked at
        blind = grn_splits.Split(parts.train, parts.validation, parts.test.assign(label=0), genes, parts.tfs, "edges")
        again = method(grn_supervised.Supervised(data.expression, genes, data.tfs, blind), 0, **short)
        np.testing.assert_array_equal(scores, again)


def test_table_of_records():
    rows = [("random", 1.0), ("graphfm", 3.0), ("shuffled", 1.0), ("oracle", 30.0)]
    records = [
        {"dataset": d, "network": n, "setting": "unsupervised", "method": m, "seed": s}
        | {"epr": v, "auprc_ratio": v / 2, "auroc": 0.5, "sign_accuracy": None, "seconds": 2.0, "peak_mb": 9.0}
        for d, n in (("beeline_mdc_500", "STRING"), ("beeline_mdc_500", "Specific"), ("toy", "reference"))
        for m, v in rows
        for s in (0, 1)
    ]
    text = table3.table(records)
    assert "**all of BEELINE**, 2 networks" in text and "**toy**, 1 networks" in text
    assert "| `graphfm` | **3.000** | **1.500** | **0.500** | 2.0 |" in text
    supervised = [
        {"dataset": d, "network": "STRING", "setting": "tfs", "method": m, "seed": 0, "auroc": 0.6, "auprc": v}
        | {"auprc_low": v, "auprc_high": v, "prevalence": 0.1, "seconds": 1.0}
        for d, m, v in (("beeline_mdc_500", "graphfm", 0.5), ("beeline_hhep_500", "graphfm", 0.3))
    ]
    assert "above on" not in table3.supervised_table(supervised)  # nothing to be above of
    weak = [
        r | {"method": "pearson", "auprc": v, "auprc_high": v} for r, v in zip(supervised, (0.3, 0.35), strict=True)
    ]
    said = table3.supervised_table(supervised + weak)
    assert "above on 1 of 2, by a quarter or more on 1, intervals apart on 1." in said
    assert "0.600 / **0.400**" in table3.supervised_table(supervised) and table3.supervised_table(records) == ""


def test_zero_shot_stands_beside_expression_alone():
    jobs = [("unsupervised", "clr", 2.0), ("unsupervised", "graphfm", 3.0), ("unsupervised", "oracle", 30.0)]
    jobs += [("zero_shot", "paths_of_three", 5.0), ("zero_shot", "graphfm", 6.0)]
    records = [
        {"dataset": "beeline_mdc_500", "network": "STRING", "setting": s, "method": m, "seed": 0}
        | {"epr": v, "auprc_ratio": v / 2, "auroc": 0.5, "sign_accuracy": None, "seconds": 2.0, "peak_mb": 9.0}
        for s, m, v in jobs
    ]
    text = table3.zero_shot_table(records)
    assert "| best unsupervised, metric by metric | 3.000 / 1.500 / 0.500 |" in text
    assert "| `graphfm` | 6.000 / 3.000 / 0.500 |" in text and "clr" not in text
    assert "`paths_of_three`" not in table3.table(records) and table3.zero_shot_table(records[:3]) == ""


def test_runs_are_taken_up(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table3, "PATH", tmp_path / "t.jsonl")
    monkeypatch.setattr(sys, "argv", ["x", "--dataset", "toy", "--method", "pearson", "degree_product", "--seed", "0"])
    table3.main()
    first = (tmp_path / "t.jsonl").read_bytes()
    settings = {record["setting"] for record in table3._spine.read(tmp_path / "t.jsonl")}
    assert settings == {"unsupervised"} | {s + v for s in grn_splits.SETTINGS for v in table3.VARIANTS}
    table3.main()
    assert (tmp_path / "t.jsonl").read_bytes() == first
    assert "`pearson`" in capsys.readouterr().out
