"""Mixtures of cell types under a field: equal to loops, blind to order, sharper than a blur."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import multivariate_normal

from graphfm.models import domains


def grid(width, height):
    """Symmetric graph of a grid's cells with the four beside each."""
    number = np.arange(width * height).reshape(height, width)
    pairs = np.concatenate(
        [
            np.column_stack([number[:, :-1].ravel(), number[:, 1:].ravel()]),
            np.column_stack([number[:-1].ravel(), number[1:].ravel()]),
        ]
    )
    half = sp.csr_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(number.size, number.size))
    return sp.csr_matrix(half + half.T)


@pytest.fixture
def tissue():
    """Two halves of a 30 x 30 grid with the same two types: one has two cells in three here, one in three there."""
    rng = np.random.default_rng(0)
    domain = np.repeat([0, 1], 15)[None].repeat(30, axis=0).ravel()
    kind = rng.random(900) < np.where(domain == 0, 1 / 3, 2 / 3)
    values = np.where(kind[:, None], 3.0, -3.0) + rng.normal(size=(900, 3))
    return values, domain, grid(30, 30)


def test_densities_are_those_of_the_mixture(tissue):
    values = tissue[0]
    found = domains.mixture_densities(values, 2, seed=0)
    means = np.array([values[found.argmax(axis=1) == k].mean(axis=0) for k in range(2)])
    spread = np.cov((values - means[found.argmax(axis=1)]).T, bias=True)
    slow = np.column_stack([multivariate_normal(mean, spread).pdf(values) for mean in means])
    ratio = np.log(found[:, 1] / found[:, 0])
    np.testing.assert_allclose(ratio, np.log(slow[:, 1] / slow[:, 0]), rtol=1e-3)
    assert (found.max(axis=1) == 1).all()


def test_one_round_equals_a_loop(tissue, monkeypatch):
    graph = tissue[2]
    monkeypatch.setattr(domains, "ROUNDS", 1)
    monkeypatch.setattr(domains, "SWEEPS", 1)
    rng = np.random.default_rng(1)
    types, start = rng.random((900, 4)), rng.dirichlet(np.ones(3), 900)
    found = domains.settle_domains(types, graph, start)
    overall = np.mean([row / row.sum() for row in types], axis=0)
    shares = np.zeros((3, 4))
    for k in range(3):
        counts = 5 * overall + sum(start[i, k] * types[i] / types[i].sum() for i in range(900))
        shares[k] = counts / counts.sum()
    slow, counts = np.zeros((900, 3)), np.tile(5 * overall, (3, 1))
    for i in range(900):
        near = graph.indices[graph.indptr[i] : graph.indptr[i + 1]]
        odds = [np.log(shares[k] @ types[i]) + found.strength * start[near, k].mean() for k in range(3)]
        new = np.exp(odds) / np.exp(odds).sum()
        slow[i] = (start[i] + new) / 2
        for k in range(3):
            counts[k] += slow[i, k] * shares[k] * types[i] / (shares[k] @ types[i])
    np.testing.assert_allclose(found.probability, slow, rtol=1e-9)
    np.testing.assert_allclose(found.shares, counts / counts.sum(axis=1, keepdims=True), rtol=1e-9)


def test_strength_is_that_of_the_largest_pseudo_likelihood():
    rng = np.random.default_rng(2)
    graph, truth = grid(20, 20), np.repeat([0, 1], 200)
    truth = np.where(rng.random(400) < 0.1, 1 - truth, truth)
    probability = np.eye(2)[truth]
    around = sp.diags_array(1 / np.asarray(graph.sum(axis=1)).ravel()) @ graph @ probability
    found = domains.field_strength(probability, around)

    def likelihood(strength):
        total = 0.0
        for i in range(400):
            weight = np.exp(strength * around[i])
            total += np.log(weight[truth[i]] / weight.sum())
        return total

    tried = np.linspace(0.0, 20.0, 401)
    assert found == pytest.approx(tried[np.argmax([likelihood(s) for s in tried])], abs=0.06)
    # where neighbours say nothing, there is no field
    assert domains.field_strength(probability, rng.permutation(around)) < 0.5


def test_a_border_stays_where_it_is(tissue):
    values, domain, graph = tissue
    types = domains.mixture_densities(values, 2, seed=0)
    near = sp.csr_matrix(((graph @ graph + graph) > 0).astype(float))
    near.setdiag(0)
    near.eliminate_zeros()
    blurred = (values + near @ values) / (1 + np.asarray(near.sum(axis=1)))
    start = domains.mixture_densities(blurred, 2, seed=0)
    found = domains.settle_domains(types, near, start / start.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found.probability.sum(axis=1), 1.0)
    np.testing.assert_allclose(found.shares.sum(axis=1), 1.0)

    def right(labels):
        return max((labels == domain).mean(), (labels != domain).mean())

    assert right(found.probability.argmax(axis=1)) > 0.9 > right(start.argmax(axis=1)) > 0.8
    np.testing.assert_allclose(found.shares.max(axis=1), 2 / 3, atol=0.1)


def test_neither_order_nor_units_nor_names_matter(tissue):
    graph = tissue[2]
    rng = np.random.default_rng(3)
    types, start = rng.random((900, 4)) ** 4, rng.dirichlet(np.ones(3), 900)
    found = domains.settle_domains(types, graph, start)
    cells, names = rng.permutation(900), rng.permutation(3)
    other = domains.settle_domains(
        types[cells] * rng.uniform(0.5, 2, (900, 1)), graph[cells][:, cells], start[cells][:, names]
    )
    np.testing.assert_allclose(other.probability, found.probability[cells][:, names], atol=1e-6)
    np.testing.assert_allclose(other.shares, found.shares[names], atol=1e-6)


def test_a_cell_without_neighbours_is_judged_by_itself():
    types = np.array([[1.0, 0.01], [0.01, 1.0]] * 50)
    start = np.where(types > 0.5, 0.9, 0.1)
    found = domains.settle_domains(types, sp.csr_matrix((100, 100)), start)
    assert np.isfinite(found.probability).all() and (found.probability.argmax(axis=1) == types.argmax(axis=1)).all()


def test_a_vote_names_domains_alike(tissue):
    rng = np.random.default_rng(4)
    truth = rng.dirichlet(np.full(4, 0.2), 300)
    runs = [truth[:, rng.permutation(4)] for _ in range(5)]
    mean = domains._vote(runs)
    assert any(np.allclose(mean, run) for run in runs)
    # one run in five is of chance: the others outvote it, and the mean is less sure
    mean = domains._vote([*runs[:4], rng.dirichlet(np.ones(4), 300)])
    assert (mean.max(axis=1) < 1).mean() > 0.9
    best = max(
        (mean[:, list(p)].argmax(axis=1) == truth.argmax(axis=1)).mean() for p in itertools.permutations(range(4))
    )
    assert best > 0.95


def test_runs_are_made_until_their_halves_agree(tissue):
    values, domain, graph = tissue
    near = sp.csr_matrix(((graph @ graph + graph) > 0).astype(float))
    blurred = (values + near @ values) / (1 + np.asarray(near.sum(axis=1)))
    asked = []

    def clear(seed):
        asked.append(seed)
        return domains.mixture_densities(values, 2, seed=seed)

    found = domains.vote_domains(clear, blurred, near, 2, seed=0)
    assert len(asked) == domains.NUM_STARTS and found.agreement >= domains.AGREED
    assert max((found.probability.argmax(axis=1) == k).astype(int) @ domain for k in range(2)) > 0.9 * domain.sum()
    np.testing.assert_allclose(found.probability.sum(axis=1), 1.0)

    asked.clear()
    rng = np.random.default_rng(6)

    def chance(seed):
        asked.append(seed)
        return rng.random((900, 4))

    found = domains.vote_domains(chance, rng.normal(size=(900, 2)), sp.csr_matrix((900, 900)), 4, seed=0)
    assert len(set(asked)) == domains.MOST_STARTS and found.agreement < domains.AGREED


def test_pseudo_likelihood_equals_a_loop(tissue):
    graph, rng = tissue[2], np.random.default_rng(5)
    types = rng.random((900, 4))
    found = domains.Domains(rng.dirichlet(np.ones(3), 900), rng.dirichlet(np.ones(4), 3), 1.7)
    slow = 0.0
    for i in range(900):
        near = graph.indices[graph.indptr[i] : graph.indptr[i + 1]]
        prior = np.exp(1.7 * found.probability[near].mean(axis=0))
        slow += np.log((prior / prior.sum()) @ found.shares @ types[i])
    assert domains._pseudo_likelihood(types, graph, found) == pytest.approx(slow)


def test_about_as_many_domains_are_chosen_as_there_are(tissue):
    values, _, graph = tissue
    near = sp.csr_matrix(((graph @ graph + graph) > 0).astype(float))
    blurred = (values + near @ values) / (1 + np.asarray(near.sum(axis=1)))
    chosen = domains.choose_number(domains.mixture_densities(values, 2, seed=0), blurred, near, seed=0)
    assert chosen in (2, 3)  # of up to 15; two are there


def test_levels_join_what_is_most_alike():
    shares = np.array([[0.5, 0.5, 0], [0.45, 0.55, 0], [0, 0.2, 0.8]])
    levels = domains.nested_levels(shares, np.array([50, 100, 30]))
    assert levels.tolist() == [[1, 1, 0], [1, 1, 1], [1, 2, 2]]
    # what is lost is the information between the domains and the types of their cells
    counts = shares[:2] * [[50], [100]]
    table = counts / counts.sum()
    expected = (
        150
        * (table * np.log(np.maximum(table, 1e-300) / np.maximum(np.outer(table.sum(1), table.sum(0)), 1e-300))).sum()
    )
    lost = sum(domains._told(row) for row in counts) - domains._told(counts.sum(axis=0))
    assert lost == pytest.approx(expected)
