"""Table 10: its rows are one change each, on the cells they say, and it shows what was kept."""

import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from graphfm import datasets
from graphfm.nn.neighborhood import RELATIONS

FOLDER = Path(__file__).parent.parent / "experiments"
sys.path.insert(0, str(FOLDER))

import _spine  # noqa: E402
import figure10_pretraining as figure10  # noqa: E402
import table0_embedding as table0  # noqa: E402
import table10_pretraining as table10  # noqa: E402


def test_rows_change_one_thing():
    recipe = asdict(table10.VARIANTS["small"])
    for name, variant in table10.VARIANTS.items():
        changed = {key for key, value in asdict(variant).items() if value != recipe[key]}
        assert changed == {"dim", "num_layers"} if name in ("tiny", "base") else len(changed) == (name != "small")


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_part_of_the_cells(share):
    tissue = datasets.toy(num_cells=400, num_genes=60, num_tfs=8)
    strip = table10.part(tissue, share)
    assert strip.n_obs == 400 * share
    left = tissue.obs_names.isin(strip.obs_names)
    x = tissue.obsm["spatial"][:, 0]
    assert share == 1 or x[left].max() <= x[~left].min()
    del tissue.obsm["spatial"]
    drawn = table10.part(tissue, share)
    assert drawn.n_obs == 400 * share and drawn.obs_names.is_unique
    assert share == 1 or not drawn.obs_names.equals(strip.obs_names)


@pytest.mark.parametrize(("relation", "used"), [("knn", {"knn"}), ("spatial", {"spatial"}), (None, {"knn", "spatial"})])
def test_corpus_has_the_graphs_that_are_named(relation, used):
    (cells,) = table10.corpus(table10.Variant(relation=relation), smoke=True)
    read = cells.neighborhood.relation[cells.neighborhood.weight > 0].unique()
    assert {RELATIONS[number] for number in read} == used


def test_loss_is_the_same_again_and_that_of_neighbours():
    case = table0.SMOKE[0]
    _, cells = table10.labelled(case)
    model, cost = table10.trained("untrained", True)
    first = table10.loss(model, cells)
    assert first == table10.loss(model, cells) and cost["seconds"] == 0
    order = torch.randperm(len(cells.neighborhood), generator=torch.Generator().manual_seed(0))
    strangers = replace(cells, neighborhood=replace(cells.neighborhood, index=order[cells.neighborhood.index]))
    assert 0 < first < 0.9 * table10.loss(model, strangers)


def test_table_is_of_the_records():
    base = {
        "seed": 0,
        "avgbio": 0.5,
        "carrier": 0.4,
        "reader": 0.3,
        "loss": 0.1,
        "num_parameters": 1000,
        "seconds": 90.0,
    }
    names = ("untrained", "small")
    records = [
        base | {"dataset": name, "setting": setting, "method": method, "avgbio": 0.5 + 0.1 * (method == "small")}
        for name, setting in (("a", "cell_types"), ("b", "cell_types"), ("c", "domains"))
        for method in names
    ]
    text = table10.table(records)
    assert "| `small` | 0.100 | 0.100 | 0.600 | 0.600 | 0.400 | 0.400 | 0.300 | 0.300 | 1,000 |  | 1.5 |" in text
    assert "2 of cell types, 1 of domains" in text
    assert "`small`" not in table10.table(records[:-1])  # a row that is not whole is not shown
    assert table10.table([]) == ""


def test_figure_is_of_the_rows_that_are_whole():
    made = figure10.made_up()
    left, middle, right, *_ = figure10.figure(made).axes
    assert [line.get_xdata().size for line in (left.lines[0], middle.lines[0])] == [4, 4]
    assert len(right.patches) == len(table10.VARIANTS)
    some = [record for record in made if record["method"] in ("untrained", "small", "tiny")]
    few = figure10.figure(some[:-1] + made[:0]).axes
    assert len(few[2].patches) < 4


def test_readme_shows_the_records():
    kept = _spine.read(table10.PATH)
    if not kept:
        pytest.skip(f"{table10.PATH.name} has no records yet")
    block = _spine.README.read_text().split("<!-- table10 -->\n")[1].split("<!-- /table10 -->")[0]
    assert block == table10.table(kept), "run: python experiments/table10_pretraining.py --readme"
