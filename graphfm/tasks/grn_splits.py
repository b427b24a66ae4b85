"""Known edges of a network parted into those to learn from and those to predict, in ways that leak less and less.

``edges``: as GENELink does (Chen and Liu 2022, doi:10.1093/bioinformatics/btac559): two thirds of each transcription
factor's edges to train on, a fifth of these for validation; as many non-edges of the same factor beside them; tested
on the rest, among non-edges of ANY listed factor, at the density of the network. There the number of a node's training
edges alone is a strong predictor, because factors without edges are only in the test set.

``tfs``: a third of the factors is never seen as a regulator. ``targets``: a third of the genes is never seen as a
target. Tested on all pairs of the held-out with the network's genes (its factors).

Two further cuts of any test set: `degree_matched`, where each edge meets one non-edge whose nodes have about as many
training edges; `without_reversed`, which drops pairs whose reverse was trained on (most of STRING is there both ways).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

SETTINGS = ("edges", "tfs", "targets")
Setting = Literal["edges", "tfs", "targets"]


@dataclass(frozen=True)
class Split:
    """Pairs with columns ``tf``, ``target`` (names) and ``label`` (1 for an edge).

    Parameters
    ----------
    train, validation
        As many non-edges as edges.
    test
        Edges that are in neither, and non-edges.
    genes, tfs
        All that could be an end of an edge, and a start of one.
    setting
        How they were parted.
    """

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    genes: np.ndarray
    tfs: np.ndarray
    setting: Setting

    def known(self) -> pd.DataFrame:
        """Edges of training and validation: all that a method may know of the network when it is tested."""
        seen = pd.concat([self.train, self.validation], ignore_index=True)
        return seen.loc[seen["label"] == 1, ["tf", "target"]].reset_index(drop=True)


def split(truth: pd.DataFrame, genes: np.ndarray, tfs: np.ndarray, *, setting: Setting, seed: int) -> Split:
    """Part a network.

    Parameters
    ----------
    truth
        Columns ``tf``, ``target``.
    genes, tfs
        Names of all genes of the data, and of the transcription factors among them.
    setting
        One of `SETTINGS`; see the module.
    seed
        Of all that is drawn.

    Raises
    ------
    ValueError
        If the setting is unknown, the truth names other genes, or a part would hold no edge.
    """
    if setting not in SETTINGS:
        raise ValueError(f"setting={setting!r} is unknown. Choose from {SETTINGS}.")
    genes, tfs = np.asarray(genes, dtype=str), np.union1d(np.asarray(tfs, dtype=str), truth["tf"].astype(str))
    names = pd.Index(genes)
    rows, columns = names.get_indexer(truth["tf"].astype(str)), names.get_indexer(truth["target"].astype(str))
    if (rows < 0).any() or (columns < 0).any():
        raise ValueError(f"{int(((rows < 0) | (columns < 0)).sum())} edges of truth have ends that are not in genes.")
    pairs = np.unique(np.stack([rows, columns], axis=1)[rows != columns], axis=0)
    rng, free = np.random.default_rng(seed), ~np.eye(len(genes), dtype=bool)
    free[pairs[:, 0], pairs[:, 1]] = False
    positives = _each_regulator(pairs, rng) if setting == "edges" else _held_out(pairs, setting, rng)
    empty = [name for name, part in zip(("train", "validation", "test"), positives, strict=True) if not len(part)]
    if empty:
        raise ValueError(f"the {' and '.join(empty)} part of {len(pairs)} edges would be empty. Pass a larger network.")
    train, validation, test = positives
    if setting == "targets":
        # a non-edge to learn from must not end in a gene that is asked for
        validated, tested = (np.isin(np.arange(len(genes)), part[:, 1]) for part in (validation, test))
        negatives = [_beside(train, free & ~validated & ~tested, rng), _beside(validation, free & validated, rng)]
    else:
        negatives = [_beside(train, free, rng)]
        free[tuple(negatives[0].T)] = False
        negatives.append(_beside(validation, free, rng))
        free[tuple(negatives[1].T)] = False
    if setting == "edges":
        starts, ends = names.get_indexer(tfs), np.arange(len(genes))
        number = int(len(test) * len(tfs) * len(genes) / len(pairs)) - len(test)
    else:
        starts = np.unique((test if setting == "tfs" else pairs)[:, 0])
        ends = np.unique(pairs if setting == "tfs" else test[:, 1])
        number = None
    negatives.append(_anywhere(starts, ends, free, number, rng))
    frames = [
        pd.DataFrame(
            {
                "tf": genes[np.concatenate([yes[:, 0], no[:, 0]])],
                "target": genes[np.concatenate([yes[:, 1], no[:, 1]])],
                "label": np.repeat([1, 0], [len(yes), len(no)]),
            }
        )
        for yes, no in zip(positives, negatives, strict=True)
    ]
    return Split(*frames, genes=genes, tfs=tfs, setting=setting)


def _each_regulator(pairs: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Two thirds of each regulator's edges, a fifth of these, the rest; of two edges one, of one edge by lot."""
    parts: list[list[np.ndarray]] = [[], [], []]
    for tf in np.unique(pairs[:, 0]):
        own = rng.permutation(pairs[pairs[:, 0] == tf])
        cut = 2 * len(own) // 3 if len(own) > 2 else len(own) - 1 if len(own) == 2 else int(rng.random() < 0.5)
        fifth = cut // 5 if len(own) > 2 else 0
        for part, chosen in zip(parts, (own[fifth:cut], own[:fifth], own[cut:]), strict=True):
            part.append(chosen)
    return [np.concatenate(part) for part in parts]


def _held_out(pairs: np.ndarray, setting: Setting, rng: np.random.Generator) -> list[np.ndarray]:
    """Edges parted by the node they start at, or end in: a third of these to test, a sixth to validate."""
    node = pairs[:, 0] if setting == "tfs" else pairs[:, 1]
    nodes = rng.permutation(np.unique(node))
    third, sixth = max(len(nodes) // 3, 1), max(len(nodes) // 6, 1)
    test, validation = np.isin(node, nodes[:third]), np.isin(node, nodes[third : third + sixth])
    return [pairs[~test & ~validation], pairs[validation], pairs[test]]


def _beside(part: np.ndarray, free: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many non-edges of each regulator as it has edges in the part, as far as there are."""
    chosen = []
    for tf, count in zip(*np.unique(part[:, 0], return_counts=True), strict=True):
        others = rng.permutation(np.flatnonzero(free[tf]))[:count]
        chosen.append(np.stack([np.full(len(others), tf), others], axis=1))
    return np.concatenate(chosen)


def _anywhere(
    starts: np.ndarray, ends: np.ndarray, free: np.ndarray, number: int | None, rng: np.random.Generator
) -> np.ndarray:
    """Non-edges that start and end there: so many of them by lot, or all."""
    pairs = np.argwhere(free[np.ix_(starts, ends)])
    if number is not None:
        pairs = pairs[np.sort(rng.choice(len(pairs), min(number, len(pairs)), replace=False))]
    return np.stack([starts[pairs[:, 0]], ends[pairs[:, 1]]], axis=1)


def degree_matched(parts: Split, *, seed: int, caliper: float = 1.25) -> pd.DataFrame:
    """Test edges, each with a non-edge of its own, of the same factor, whose target has about as many known edges.

    With held-out targets it is the other way round: the same target, and a factor with about as many known edges. What
    was learned from is not asked for, and edges without such a partner are left out. Partners are those of the least
    sum of distances in log degree, for each node that is shared.

    Parameters
    ----------
    parts
        A split.
    seed
        Of the choice among equals.
    caliper
        Largest ratio of degrees, one added to both.

    Returns
    -------
    DataFrame
        As ``Split.test``: as many edges as non-edges, perhaps none.
    """
    known = parts.known()
    fixed, free = ("target", "tf") if parts.setting == "targets" else ("tf", "target")
    candidates = pd.Index(parts.tfs if free == "tf" else parts.genes)
    log_degree = np.log1p(known[free].value_counts().reindex(candidates, fill_value=0).to_numpy())
    edges = parts.test[parts.test["label"] == 1]
    used = pd.concat([parts.train, parts.validation, edges]).groupby(fixed)[free].apply(set)
    rng, kept = np.random.default_rng(seed), []
    for node, own in edges.groupby(fixed):
        own = own.iloc[rng.permutation(len(own))]
        others = rng.permutation(np.flatnonzero(~candidates.isin([*used[node], node])))
        distance = np.abs(np.subtract.outer(log_degree[candidates.get_indexer(own[free])], log_degree[others]))
        # one beyond the caliper costs more than all within it: as many as can be are matched
        row, column = linear_sum_assignment(np.where(near := distance <= np.log(caliper) + 1e-9, distance, 1e3))
        row, column = row[near[row, column]], column[near[row, column]]
        kept += [own.iloc[row], own.iloc[row].assign(label=0, **{free: candidates[others[column]]})]
    return pd.concat(kept, ignore_index=True).sort_values("label", ascending=False, kind="stable", ignore_index=True)


def without_reversed(test: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Test pairs whose reverse is no known edge.

    Parameters
    ----------
    test, known
        Columns ``tf``, ``target``.
    """
    reverse = pd.MultiIndex.from_arrays([known["target"], known["tf"]])
    return test[~pd.MultiIndex.from_frame(test[["tf", "target"]]).isin(reverse)].reset_index(drop=True)
