"""All tables in one: graphfm beside the best simple method and the best peer of each task.

Command: ``python experiments/table_summary.py`` (``--smoke``: made-up records; ``--readme``: into the README)
Cost:    seconds, from the records of the other tables
Expect:  see the README

Best is the method that comes closest to graphfm, or is furthest above it, in the mean of differences over the units
(data sets, networks, slides) that both have, seeds averaged first; both means are of these units. Methods with less
than half of graphfm's units are left out. The interval is of
10,000 draws of the units; graphfm is above or below where it leaves zero out, else level.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import _spine
import numpy as np
import pandas as pd
from table7_graph_helps import Line, made_up, scores

GROUPS = ("simple", "peers")


@dataclass(frozen=True)
class Contest:
    """A task, the score of it that is shown, and who is in it."""

    task: str
    table: str
    setting: str
    score: str
    simple: tuple[str, ...]
    peers: tuple[str, ...] = ()
    unit: tuple[str, ...] = ("dataset",)
    where: Mapping[str, object] = field(default_factory=dict)

    def line(self, rival: str) -> Line:
        """The two sides of one comparison."""
        sides = {"graphfm": "graphfm", rival: rival}
        return Line(self.task, "", self.table, self.score, sides, self.setting, self.unit, self.where)


REGULATION = ("dataset", "network")
CONTESTS = (
    *(
        Contest(
            f"clusters of {name}, AvgBIO",
            "table0_embedding",
            setting,
            "avgbio",
            ("pca", "pca:neighbor_mean"),
            ("scvi",),
        )
        for setting, name in (("cell_types", "cell types"), ("domains", "tissue domains"))
    ),
    *(
        Contest(
            f"cell types from {number} labels a type, macro-F1",
            "table6_zero_shot",
            "few_shot",
            "macro_f1",
            ("l1", "pca", "knn"),
            ("celltypist",),
            where={"num_labels": number},
        )
        for number in (5, 10)
    ),
    Contest(
        "cell types from another batch, macro-F1",
        "table6_zero_shot",
        "transfer",
        "macro_f1",
        ("l1", "pca", "knn"),
        ("celltypist",),
    ),
    Contest("batches together, overall", "table6_zero_shot", "batches", "overall", ("pca",), ("harmony", "scvi")),
    Contest(
        "rare populations, F1 of those drawn",
        "table4_rare",
        "power",
        "f1",
        ("isolation_forest", "local_outlier_factor", "leiden_0.5", "leiden_1", "leiden_2", "leiden_4"),
        ("fire", "giniclust3", "sccad"),
        ("dataset", "design"),
    ),
    Contest(
        "tissue domains, one clusterer for all, ARI",
        "table5_spatial",
        "slide",
        "ari",
        ("pca", "neighbor_mean"),
        ("banksy", "graphst", "stagate", "novae"),
        where={"clusterer": "field"},
    ),
    Contest(
        "genes not measured, Spearman",
        "table5_spatial",
        "impute",
        "spearman",
        ("gene_mean", "knn_15", "knn_50", "neighbor_mean"),
    ),
    Contest(
        "regulation from expression, AUPRC ratio",
        "table3_grn",
        "unsupervised",
        "auprc_ratio",
        ("pearson", "spearman", "clr", "ridge_partial"),
        ("genie3", "grnboost2", "regdiffusion"),
        REGULATION,
    ),
    Contest(
        "regulation, edges held out, AUPRC ratio",
        "table3_grn",
        "edges:without_reversed",
        "auprc_ratio",
        ("tf_degree", "target_degree", "degree_product", "logistic_regression"),
        ("genelink",),
        REGULATION,
    ),
    Contest(
        "regulation, cell type held out, EPR",
        "table3_grn",
        "zero_shot",
        "epr",
        ("degree_product", "paths_of_three"),
        unit=REGULATION,
    ),
    *(
        Contest(
            f"{name}, 64 layers, {title}",
            "table1_depth",
            "supervised",
            score,
            ("gcn", "appnp", "batchnorm_residual"),
            (
                "gcnii",
                "transformer",
                "prenorm",
                "pairnorm",
                "graphnorm",
                "contranorm",
                "jknet",
                "g2",
                "gat",
                "deepnorm",
            ),
            ("seed",),
            {"num_layers": 64, "dataset": dataset},
        )
        for name, dataset, score, title in (
            ("citations", "planetoid_cora", "accuracy", "accuracy"),
            ("mines", "heterophilous_minesweeper", "auroc", "AUROC"),
            ("blood", "paul15_myeloid", "macro_f1", "macro-F1"),
        )
    ),
)


def closest(contest: Contest, rivals: Sequence[str], records: Sequence[dict]) -> tuple[str, pd.DataFrame] | None:
    """The rival that graphfm is least above, of those with half of its units or more, and the scores of both."""
    own = scores(contest.line("graphfm"), records)
    found = [(rival, scores(contest.line(rival), records)) for rival in rivals]
    found = [(rival, table) for rival, table in found if len(table) >= max(1, len(own) / 2)]
    return min(found, key=lambda pair: (pair[1]["graphfm"] - pair[1][pair[0]]).mean(), default=None)


@dataclass(frozen=True)
class Outcome:
    """Mean scores of graphfm and its closest rival, 95 % of the differences, and on how many units it is above."""

    rival: str
    ours: float
    theirs: float
    low: float
    high: float
    better: int
    units: int

    @property
    def verdict(self) -> str:
        """In a word."""
        return "above" if self.low > 0 else "below" if self.high < 0 else "level"


def outcomes(contest: Contest, records: Sequence[dict]) -> Iterator[Outcome | None]:
    """Against the closest of each group; None where a group has nobody."""
    for group in GROUPS:
        best = closest(contest, getattr(contest, group), records)
        if best is None:
            yield None
            continue
        rival, table = best
        gains = (table["graphfm"] - table[rival]).to_numpy()
        interval = _spine.interval(gains, np.random.default_rng(0))
        means = table["graphfm"].mean(), table[rival].mean()
        yield Outcome(rival, *means, *interval, int((gains > 0).sum()), len(gains))


def rows(contests: Sequence[Contest], records: Mapping[str, Sequence[dict]]) -> Iterator[str]:
    """Markdown, a row a contest."""
    for contest in contests:
        cells = []
        for found in outcomes(contest, records[contest.table]):
            if found is None:
                cells += ["", ""]
                continue
            verdict = f"**{found.verdict}**" if found.verdict == "above" else found.verdict
            cells.append(f"{found.ours:.3f} / {found.theirs:.3f} `{found.rival}`")
            cells.append(f"{verdict}, {found.better} of {found.units}")
        yield f"| {contest.task} | " + " | ".join(cells) + " |"


def render(records: Mapping[str, Sequence[dict]]) -> str:
    """Markdown."""
    head = "| task | graphfm / best simple method | above on | graphfm / best peer | above on |"
    return "\n".join([head, "|---|---|---|---|---|", *rows(CONTESTS, records)]) + "\n"


def kept() -> dict[str, list[dict]]:
    """Records of every table that a contest needs."""
    return {table: _spine.read(_spine.RESULTS / f"{table}.jsonl") for table in {contest.table for contest in CONTESTS}}


def random_records() -> dict[str, list[dict]]:
    """The same, made up."""
    records: dict[str, list[dict]] = {}
    for contest in CONTESTS:
        records.setdefault(contest.table, []).extend(made_up(contest.line(contest.simple[0])))
    return records


def main() -> None:
    """Print the table, or put it into the README."""
    _spine.drive_gathered(__doc__, "summary", render=render, kept=kept, made_up=random_records)


if __name__ == "__main__":
    main()
