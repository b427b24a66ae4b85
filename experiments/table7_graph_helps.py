"""Table 7: does the graph help? One line a task: with its graph, without one, and with its edges dealt at random.

Command: ``python experiments/table7_graph_helps.py`` (``--smoke``: made-up records; ``--readme``: into the README)
Cost:    seconds, from the records of Tables 0, 3, 4, 5 and 6
Expect:  see the README

Every number is the mean over units (data sets, or draws from them) for which all columns of its line have a record,
seeds averaged first. Without a graph: the same tool where each cell stands alone (Tables 4 and 6) or the plain method
under it that has no graph: components, and for regulation how many edges each gene has, known from the same labels.
With dealt edges: as many neighbours for each cell, drawn at random. The gain is with less without, its interval from
10,000 draws of the units.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import _spine
import numpy as np
import pandas as pd

GRAPH, ALONE, DEALT = "with its graph", "without", "edges dealt"
COLUMNS = (GRAPH, ALONE, DEALT)


@dataclass(frozen=True)
class Line:
    """A task: which records say how it goes with a graph, without, and with a wrong one.

    Parameters
    ----------
    task, graph
        Names for people.
    table
        File of records.
    score
        Field of a record.
    methods
        Of each column.
    setting
        Of the records.
    unit
        Fields that make a unit.
    where
        Further fields and the value they must have.
    also
        The same of a column.
    """

    task: str
    graph: str
    table: str
    score: str
    methods: Mapping[str, str]
    setting: str
    unit: tuple[str, ...] = ("dataset",)
    where: Mapping[str, object] = field(default_factory=dict)
    also: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def wanted(self, column: str) -> dict[str, object]:
        """Fields of a column's records."""
        method = {"setting": self.setting, "method": self.methods[column]}
        return {**method, **self.where, **self.also.get(column, {})}


TRUNK = {GRAPH: "graphfm", ALONE: "graphfm:no_graph", DEALT: "graphfm:shuffled"}
LINES = (
    Line(
        "clusters of cell types, AvgBIO",
        "kNN",
        "table0_embedding",
        "avgbio",
        {GRAPH: "graphfm", ALONE: "pca"},
        "cell_types",
    ),
    Line(
        "clusters of tissue domains, AvgBIO",
        "kNN, tissue",
        "table0_embedding",
        "avgbio",
        {GRAPH: "graphfm", ALONE: "pca"},
        "domains",
    ),
    *(
        Line(
            f"cell types from {number} label{'s' if number > 1 else ''} a type, macro-F1",
            "kNN",
            "table6_zero_shot",
            "macro_f1",
            TRUNK,
            "few_shot",
            where={"num_labels": number},
        )
        for number in (1, 5, 10, 50)
    ),
    Line("cell types from another batch, macro-F1", "kNN", "table6_zero_shot", "macro_f1", TRUNK, "transfer"),
    Line(
        "rare populations by draws, F1",
        "kNN",
        "table4_rare",
        "f1",
        TRUNK | {DEALT: "graphfm:shuffled_graph"},
        "power",
        ("dataset", "design", "seed"),
    ),
    Line(
        "rare populations by nature, F1",
        "kNN",
        "table4_rare",
        "f1",
        TRUNK | {DEALT: "graphfm:shuffled_graph"},
        "native",
    ),
    Line(
        "tissue domains, ARI",
        "tissue",
        "table5_spatial",
        "ari",
        {GRAPH: "graphfm", ALONE: "pca", DEALT: "graphfm:shuffled"},
        "slide",
        also={GRAPH: {"clusterer": "own"}, ALONE: {"clusterer": "mixture"}, DEALT: {"clusterer": "own"}},
    ),
    Line(
        "regulation, edges held out, AUPRC ratio",
        "genes",
        "table3_grn",
        "auprc_ratio",
        {GRAPH: "graphfm", ALONE: "degree_product"},
        "edges:without_reversed",
        ("dataset", "network"),
    ),
)


def scores(line: Line, records: Sequence[dict]) -> pd.DataFrame:
    """Mean score of each unit (rows) in each column that the line has; only units with all of them."""
    found = {}
    for column in line.methods:
        wanted = line.wanted(column)
        mine = pd.DataFrame([r for r in records if line.score in r and all(r.get(k) == v for k, v in wanted.items())])
        if mine.empty:
            return pd.DataFrame(columns=list(line.methods))
        mine = mine.drop_duplicates([*line.unit, "seed"], keep="last")
        found[column] = mine.groupby(list(line.unit))[line.score].mean()
    return pd.DataFrame(found).dropna()


def made_up(line: Line) -> list[dict]:
    """Random records of three units."""
    rng = np.random.default_rng(0)
    return [
        {"seed": 0, **dict.fromkeys(line.unit, unit), **line.wanted(column), line.score: x}
        for column in line.methods
        for unit, x in enumerate(rng.random(3))
    ]


def made_up_scores() -> list[tuple[Line, pd.DataFrame]]:
    """Every line, from random records."""
    return [(line, scores(line, made_up(line))) for line in LINES]


def all_scores() -> list[tuple[Line, pd.DataFrame]]:
    """Every line that has records."""
    records = {line.table: _spine.read(_spine.RESULTS / f"{line.table}.jsonl") for line in LINES}
    made = [(line, scores(line, records[line.table])) for line in LINES]
    return [(line, table) for line, table in made if len(table)]


def render(made: Sequence[tuple[Line, pd.DataFrame]]) -> str:
    """Markdown."""
    lines = ["| task | graph | " + " | ".join(COLUMNS) + " | gain | units | from |"]
    lines.append("|---|---|---:|---:|---:|---|---:|---|")
    for line, table in made:
        means = [f"{table[column].mean():.3f}" if column in table else "" for column in COLUMNS]
        gains = (table[GRAPH] - table[ALONE]).to_numpy()
        low, high = _spine.interval(gains, np.random.default_rng(0))
        gain = f"{gains.mean():+.3f} ({low:+.3f} to {high:+.3f}), above on {(gains > 0).sum()}"
        number = line.table.removeprefix("table").split("_")[0]
        lines.append(f"| {line.task} | {line.graph} | {' | '.join(means)} | {gain} | {len(table)} | Table {number} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table, or put it into the README."""
    _spine.drive_gathered(__doc__, "table7", render=render, kept=all_scores, made_up=made_up_scores)


if __name__ == "__main__":
    main()
