"""Types of cells from labelled cells: regressions on several views of a cell vote, and neighbours settle the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from graphfm.models.field import around, settle

FOLDS = 5
STRENGTH, SWEEPS = 2.0, 10
"""Nats that a cell's neighbours weigh in all; sweeps of the field."""
PRIOR_CELLS = 10.0
"""Cells' worth of belief that all views count the same."""
SMOOTHINGS = 3
"""Means over neighbours of how much a cell is like the types that are known."""
FLOOR = 1e-4
"""Least probability that a view can give."""

Matrix = np.ndarray | sp.csr_matrix


@dataclass(frozen=True)
class View:
    """One way to look at a cell.

    Parameters
    ----------
    values
        ``[cells, features]``, of about unit size.
    penalty
        Inverse strength of the ridge.
    """

    values: Matrix
    penalty: float = 1.0


@dataclass(frozen=True)
class Annotation:
    """Types of all cells, the labelled ones included."""

    probability: np.ndarray
    """``[cells, types]``, rows sum to 1."""
    familiar: np.ndarray
    """``[cells]``, 0 to 1: how much a cell, and its neighbours, are like any type that is known."""
    threshold: float
    """Below this a cell is of a type that is not known; 0 if that was not asked, or no cell could be held out."""
    weights: np.ndarray
    """``[views]``, by which their log probabilities are added."""
    coefficients: np.ndarray
    """``[types, features]``, of the first view: what speaks for each type."""


def annotate_cells(
    views: Sequence[View], codes: np.ndarray, graph: sp.csr_matrix, *, unknown: float | None, seed: int
) -> Annotation:
    r"""Types of cells from those of some.

    A logistic regression of each view, in which all types count the same, gives every cell log probabilities. They are
    added with weights that make labelled cells which a regression has not seen most likely (stacking), and which
    thereby set how sure the sum may be. Then a Potts field over the graph (`graphfm.models.field`) lets each cell's
    neighbours have their say; labelled cells stay what they are.

    Whether a cell is of any type that is known is another question: of the first view, one regression a type against
    all others; the largest of their probabilities, averaged over neighbours, is lowest where none fits.

    Parameters
    ----------
    views
        The first of them judges which cells are of no known type.
    codes
        Number of each cell's type, from 0 on, each occurring; -1 for cells without a label.
    graph
        Symmetric ``[cells, cells]``, weights of neighbours.
    unknown
        Share of labelled cells, of which no regression knows, that the threshold may call unknown; None: no threshold.
    seed
        By which cells are dealt to folds.

    References
    ----------
    Wolpert 1992, doi:10.1016/S0893-6080(05)80023-1 (stacking).
    """
    labelled = np.flatnonzero(codes >= 0)
    truth = codes[labelled]
    fold = _folds(truth, seed)
    held = fold >= 0
    everyone = np.arange(len(codes))
    evidence = [_log_probabilities(view, labelled, truth, everyone) for view in views]
    coefficients, likeness = _likeness(views[0], labelled, truth, everyone)
    unseen = [np.empty((len(labelled), truth.max() + 1)) for _ in views]
    unseen_likeness = likeness.copy()
    for number in range(fold.max() + 1):
        out = fold == number
        learned = labelled[~out], truth[~out], labelled[out]
        for table, view in zip(unseen, views, strict=True):
            table[out] = _log_probabilities(view, *learned)
        if unknown is not None:
            unseen_likeness[labelled[out]] = _likeness(views[0], *learned)[1]
    weights = stack([table[held] for table in unseen], truth[held])
    own = log_softmax(np.tensordot(weights, np.stack(evidence), axes=1), axis=1)
    own[labelled] = np.log(np.maximum(np.eye(own.shape[1])[truth], 1e-12))
    mean = around(graph)
    probability = settle(own, mean, softmax(own, axis=1), strength=STRENGTH, sweeps=SWEEPS)
    threshold = 0.0
    if unknown is not None and held.any():
        threshold = float(np.quantile(_smoothed(unseen_likeness, mean)[labelled[held]], unknown))
    return Annotation(probability, _smoothed(likeness, mean), threshold, weights, coefficients)


def stack(tables: Sequence[np.ndarray], truth: np.ndarray) -> np.ndarray:
    r"""Weights by which log probabilities of several views are added, ``[views]``.

    .. math:: \max_{w \ge 0} \sum_i \log \operatorname{softmax}\Big(\sum_v w_v \log p_{vi}\Big)_{y_i}
              - \tfrac{n_0}{2} \sum_v (w_v - 1/V)^2

    where each type has the same say, whatever its number of cells. The sum of the weights is the sharpness: below 1
    the views are too sure of themselves.

    Parameters
    ----------
    tables
        Of each view ``[cells, types]``, log probabilities of cells that it was not fitted on; without cells, all views
        weigh the same.
    truth
        ``[cells]``, numbers of the types.
    """
    even = np.full(len(tables), 1 / len(tables))
    if not len(truth):
        return even
    logs, rows = np.stack(tables), np.arange(len(truth))
    sizes = np.bincount(truth)
    say = len(truth) / (np.count_nonzero(sizes) * sizes[truth])

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        total = np.tensordot(weights, logs, axes=1)
        found = log_softmax(total, axis=1)
        error = softmax(total, axis=1)
        error[rows, truth] -= 1
        slope = np.einsum("vic,ic,i->v", logs, error, say)
        apart = weights - even
        return float(-(say * found[rows, truth]).sum() + PRIOR_CELLS / 2 * apart @ apart), slope + PRIOR_CELLS * apart

    return minimize(loss, even, jac=True, bounds=[(0, None)] * len(tables), method="L-BFGS-B").x


def _folds(truth: np.ndarray, seed: int) -> np.ndarray:
    """A fold for each labelled cell, types dealt evenly; -1 for the only cell of a type, which is never held out."""
    rng, fold = np.random.default_rng(seed), np.full(len(truth), -1)
    for kind in range(truth.max() + 1):
        cells = rng.permutation(np.flatnonzero(truth == kind))
        if len(cells) > 1:
            fold[cells] = (np.arange(len(cells)) + rng.integers(FOLDS)) % FOLDS
    return np.unique(fold, return_inverse=True)[1] - (fold.min() < 0)


def _log_probabilities(view: View, cells: np.ndarray, truth: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Of the cells that are asked for, from a regression on others."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=view.penalty, class_weight="balanced", max_iter=1000)
    return np.log(model.fit(view.values[cells], truth).predict_proba(view.values[asked]) + FLOOR)


def _likeness(view: View, cells: np.ndarray, truth: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients ``[types, features]`` of one regression a type; the largest probability of each cell asked for."""
    from sklearn.linear_model import LogisticRegression

    models = [
        LogisticRegression(C=view.penalty, class_weight="balanced", max_iter=1000).fit(
            view.values[cells], truth == kind
        )
        for kind in range(truth.max() + 1)
    ]
    probability = np.stack([model.predict_proba(view.values[asked])[:, 1] for model in models])
    return np.concatenate([model.coef_ for model in models]), probability.max(axis=0)


def _smoothed(values: np.ndarray, mean: sp.csr_matrix) -> np.ndarray:
    """Half a cell's own value and half its neighbours', again and again; a cell without neighbours keeps its own."""
    alone = np.asarray(mean.sum(axis=1)).ravel() == 0
    for _ in range(SMOOTHINGS):
        values = 0.5 * (values + np.where(alone, values, mean @ values))
    return values
