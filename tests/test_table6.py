"""Table 6: nobody sees what is to be told, it prints what was kept and takes up what is left."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from graphfm import tl

FOLDER = Path(__file__).parent.parent / "experiments"
sys.path.insert(0, str(FOLDER))

import _zero_shot_cells as cells  # noqa: E402
import figure6_zero_shot as figure6  # noqa: E402
import table6_zero_shot as table6  # noqa: E402

SCORES = tuple(table6.batches.SCORES)


def job(**change):
    return {
        "dataset": "toy",
        "setting": "few_shot",
        "method": "graphfm",
        "num_labels": 5,
        "unseen": "",
        "seed": 0,
    } | change


def test_so_many_of_each_type_are_labelled():
    types = np.repeat(["a", "b", "c"], [100, 8, 30])
    drawn = table6.draw(types, 10, 0)
    assert dict(zip(*np.unique(types[drawn], return_counts=True), strict=True)) == {"a": 10, "b": 4, "c": 10}
    assert not np.array_equal(drawn, table6.draw(types, 10, 1))


def test_ours_is_the_tool():
    joint, learned = table6.space("toy", "few_shot", "", 0, None)
    assert not learned.any()
    types = joint.obs["type"].to_numpy().astype(str)
    labelled = table6.draw(types, 5, 3)
    adata = table6.SMOKE.adata()
    adata.obs["mine"] = pd.Series(types, index=adata.obs_names, dtype=object).where(
        np.isin(np.arange(len(types)), labelled)
    )
    tl.annotate(adata, label_key="mine", seed=3)
    found = table6.annotated(joint, labelled, types, 3).probability
    ours = adata.obsm["annotation_probability"].to_numpy()
    assert np.abs(found - ours).max() < 0.05 and (found.argmax(axis=1) == ours.argmax(axis=1)).mean() > 0.99


@pytest.mark.parametrize("method", ["l1", "pca", "knn", "graphfm:no_graph", "graphfm:shuffled", "graphfm"])
def test_labels_of_others_are_not_read(method):
    joint, _ = table6.space("toy", "few_shot", "", 0, None)
    types = joint.obs["type"].to_numpy().astype(str)
    labelled = table6.draw(types, 5, 0)
    hidden = np.full(len(types), "a name that is no type")
    hidden[labelled] = types[labelled]

    def told(names):
        if method in table6.PEERS:
            return table6.PEERS[method](joint, labelled, names, 0)
        return table6.annotated(joint, labelled, names, 0, method.partition(":")[2]).probability

    np.testing.assert_array_equal(told(types), told(hidden))


def test_a_shuffled_graph_has_the_same_degrees():
    joint, learned = table6.space("toy", "few_shot", "", 0, None)
    other = table6.dealt(joint, learned, 0)
    assert (other.obsp["connectivities"] != joint.obsp["connectivities"]).nnz
    degrees = [np.sort(np.diff(a.obsp["connectivities"].indptr)) for a in (joint, other)]
    np.testing.assert_array_equal(*degrees)
    assert (other.X != joint.X).nnz == 0 and not np.allclose(other.obsm["X_graphfm"], joint.obsm["X_graphfm"])


def records():
    scores = {"l1": 0.5, "graphfm": 0.6}
    few = [
        job(dataset=name, method=method, num_labels=number, macro_f1=f1, ece=0.1, seconds=2.0)
        for name in ("celegans_l2", "sc_mixology")
        for method, f1 in scores.items()
        for number in table6.LABELS
    ]
    moved = [
        job(dataset="cortex BZ9 to BZ5", setting="transfer", method=method, num_labels=0, macro_f1=f1, ece=0.2)
        for method, f1 in scores.items()
    ]
    new = {"auroc": 0.9, "called_unseen": 0.7, "called_known": 0.1}
    together = [
        job(dataset=name, setting="batches", method=method, num_labels=0, seconds=1.0, **dict.fromkeys(SCORES, value))
        for name, more in (("cortex, 2 mice", 0.0), ("blood, 8 donors", 0.1))
        for method, value in (("shuffled", 0.2), ("pca", 0.5 + more), ("harmony", 0.6), ("graphfm", 0.7 + more))
    ]
    return [*few, *moved, job(setting="unseen", unseen=0, num_labels=0, **new), *together]


def test_tables_are_of_the_records():
    text = table6.everything(records())
    assert "| `l1` |" in text and "| `graphfm` | 0.600 (0.10) |" in text
    assert "1 labels +0.100 (+0.100 to +0.100), above on 2 of 2" in text
    assert "| cortex BZ9 to BZ5 | 0.500 | 0.600 |" in text
    assert "| `graphfm` | 0.900 | 0.700 | 0.100 | 1 |" in text
    assert "| `graphfm` | " + 5 * "0.750 | " + "0.800 |" in text
    assert "`pca` +0.200 (+0.200 to +0.200), above on 2 of 2; `harmony` +0.150" in text
    assert "| blood, 8 donors * | 0.200 | 0.600 | 0.600 | 0.800 |" in text
    baseline = job(setting="unseen", method="l1", unseen=0, num_labels=0, auroc=0.9)
    assert "| `l1` | 0.900 |  |  | 1 |" in table6.everything([baseline])
    assert table6.everything([]) == "" and len(figure6.figure(records()).axes) == 4


def test_jobs_are_told_apart():
    frame = pd.DataFrame(table6.jobs())
    assert not frame.duplicated().any()
    assert set(frame["method"]) == {*table6.TRANSFER_ORDER, *table6.batches.ORDER}
    assert set(table6.LOOKED_AT) < set(frame["dataset"])


def test_another_batch_and_a_type_without_labels(monkeypatch):
    batches = cells.load("toy").obs["batch"].astype(str).unique()
    sides = [replace(table6.SMOKE, column="batch").of(batch) for batch in batches[:2]]
    monkeypatch.setitem(table6.PAIRS, "toy", tuple(sides))
    (moved,) = table6.run(job(setting="transfer", num_labels=0))
    assert moved["macro_f1"] > 0.9 > 0.3 > moved["ece"]
    kind = table6.unseen_type("toy", 0)
    joint, learned = table6.space("toy", "unseen", kind, 0, None)
    types = joint.obs["type"].to_numpy().astype(str)
    assert kind not in types[learned] and kind in types[~learned]
    (new,) = table6.run(job(setting="unseen", num_labels=0, unseen=0))
    assert new["type"] == kind and new["auroc"] > 0.7 and new["called_unseen"] > new["called_known"]
    (plain,) = table6.run(job(setting="unseen", num_labels=0, unseen=0, method="pca"))
    assert 0 <= plain["auroc"] <= 1 and "called_unseen" not in plain


@pytest.mark.parametrize("method", ["pca", "graphfm:unmoved", "graphfm:components", "graphfm"])
def test_batches_together_see_no_type(method):
    adata, kind = cells.mixed("toy")
    (found,) = table6.batches.run(job(setting="batches", method=method, num_labels=0))
    assert 0.5 < found["overall"] < 1 and found["num_batches"] == 2
    hidden = adata.copy()
    hidden.obs["type"] = "a name that is no type"
    values = [table6.batches.METHODS[method](cells_, kind, 0) for cells_ in (adata, hidden)]
    np.testing.assert_array_equal(*values)


def test_a_second_run_adds_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table6, "PATH", tmp_path / "t.jsonl")
    monkeypatch.setattr(table6, "jobs", lambda: [job(method=m) for m in ("shuffled", "pca", "graphfm", "oracle")])
    monkeypatch.setattr(sys, "argv", ["t", "--setting", "few_shot"])
    table6.main()
    first = table6._spine.read(tmp_path / "t.jsonl")
    assert [r["method"] for r in first] == ["shuffled", "pca", "graphfm", "oracle"]
    assert first[-1]["macro_f1"] == 1 and first[0]["macro_f1"] < 0.5 < first[2]["macro_f1"]
    table6.main()
    assert table6._spine.read(tmp_path / "t.jsonl") == first and "`oracle`" in capsys.readouterr().out


def test_readme_shows_the_records():
    kept, text = table6._spine.read(table6.PATH), (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert kept and all("dirty" not in record["commit"] for record in kept)
    block = text.split("<!-- table6 -->\n")[1].split("<!-- /table6 -->")[0]
    assert block == table6.everything(kept), "run: python experiments/table6_zero_shot.py --readme"
