"""The model of abundant types against loops that follow its formulas."""

import numpy as np
import pytest
import scipy.sparse as sp

from graphfm.models import background as module
from graphfm.models.background import Background


@pytest.fixture(scope="module")
def data():
    """Three types, two batches of other efficiency for some genes, and eight cells with a programme of their own."""
    rng = np.random.default_rng(0)
    n, genes = 240, 60
    types, batches, depth = rng.integers(0, 3, n), rng.integers(0, 2, n), rng.uniform(0.5, 2, n)
    rates = rng.gamma(1.0, 2.0, (3, genes))[types] * np.where(batches[:, None] == 1, rng.uniform(0.7, 1.4, genes), 1.0)
    rare = np.zeros(n, dtype=bool)
    rare[rng.choice(n, 8, replace=False)] = True
    rates[np.ix_(rare, np.arange(6))] += 30
    return rng.poisson(rates * depth[:, None]).astype(float), types, batches, rare


def slow_background(x, types, batches, counted):
    """Sizes of the cells, dispersion, rates of types and of doublets, and what carries them over, from some cells."""
    s = x.sum(1) / np.median(x.sum(1))
    overall = x[counted].sum(0) / s[counted].sum() + 1e-12
    rate = np.zeros((3, 2, x.shape[1]))
    for t in range(3):
        of = counted & (types == t)
        whole = (x[of].sum(0) + 5 * overall) / (s[of].sum() + 5)
        for b in range(2):
            here = of & (batches == b)
            rate[t, b] = (x[here].sum(0) + 5 * whole) / (s[here].sum() + 5)
    chi = np.zeros(x.shape[1])
    for c in np.flatnonzero(counted):
        mean = s[c] * rate[types[c], batches[c]]
        chi += (x[c] - mean) ** 2 / mean
    phi = np.maximum(chi / counted.sum(), 1)
    content = [s[types == t].mean() for t in range(3)]
    every = [rate[t] for t in range(3)]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        w = content[a] / (content[a] + content[b])
        every.append(w * rate[a] + (1 - w) * rate[b])
    share = [s[batches == b].sum() / s.sum() for b in range(2)]
    over = lambda e: share[0] * e[0] + share[1] * e[1]  # noqa: E731
    effect = [np.median([rate[t, b] / over(rate[t]) for t in range(3)], axis=0) for b in range(2)]
    return s, phi, every, lambda e: [effect[b] * over(e) for b in range(2)]


def slow_odds(x, types, batches, members):
    """Log odds cell by cell, gene by gene, as the docstrings say."""
    s, phi, every, carried = slow_background(x, types, batches, ~members)
    like = lambda c, r: ((x[c] * np.log(r) - s[c] * r) / phi).sum()  # noqa: E731
    rows = np.flatnonzero(members)
    base = carried(every[int(np.argmax([sum(like(c, e[batches[c]]) for c in rows) for e in every]))])
    odds = np.zeros(len(x))
    for c in range(len(x)):
        others = [r for r in rows if r != c]
        pooled = x[others].sum(0)
        expected = sum(s[r] * base[batches[r]] for r in others)
        own = base[batches[c]] * (pooled + 2 * phi) / (expected + 2 * phi)
        abundant = max(like(c, e[batches[c]]) for e in (*every, base))
        odds[c] = like(c, own) - abundant + np.log(len(rows) / len(x))
    return odds


def test_what_neighbours_vouch_for_equals_a_loop(data, monkeypatch):
    x, types, batches, rare = data
    monkeypatch.setattr(module, "CHUNK", 100)
    rng = np.random.default_rng(3)
    neighbors = np.array([rng.choice(np.flatnonzero(rare if rare[c] else ~rare), 4) for c in range(len(x))])
    found = Background(sp.csr_matrix(x), types, batches).vouched(neighbors)
    s, phi, every, carried = slow_background(x, types, batches, np.ones(len(x), dtype=bool))
    like = lambda c, r: ((x[c] * np.log(r) - s[c] * r) / phi).sum()  # noqa: E731
    for c in range(len(x)):
        base = carried(every[types[c]])
        expected = sum(s[r] * base[batches[r]] for r in neighbors[c])
        own = base[batches[c]] * (x[neighbors[c]].sum(0) + 2 * phi) / (expected + 2 * phi)
        abundant = max(like(c, e[batches[c]]) for e in (*every, base))
        assert found[c] == pytest.approx(like(c, own) - abundant, abs=1e-6)
    assert found[rare].min() > np.quantile(found[~rare], 0.99)


def test_odds_equal_a_loop(data):
    x, types, batches, rare = data
    found = Background(sp.csr_matrix(x), types, batches).judge(rare)
    expected = slow_odds(x, types, batches, rare)
    clear = expected > module.IN_QUESTION + 5
    assert clear.sum() >= rare.sum()
    np.testing.assert_allclose(found.odds[clear], expected[clear], atol=1e-6)
    # what is out of the question has not been compared with everything
    assert (found.odds[~clear] >= expected[~clear] - 1e-6).all() and (found.odds[~clear] < 0).all()
    assert set(np.argsort(-found.excess)[:6]) == set(range(6)) and found.num_markers >= 5


def test_a_part_of_a_population_grows_into_it(data):
    x, types, batches, rare = data
    background = Background(sp.csr_matrix(x), types, batches)
    start = np.concatenate([np.flatnonzero(rare)[:4], np.flatnonzero(~rare)[:1]])
    found = background.settle(start, min_cells=5, max_cells=20.0)
    assert found is not None and (found.members == rare).all() and found.separation == 1
    assert background.settle(start, min_cells=9, max_cells=20.0) is None
    assert background.settle(start, min_cells=2, max_cells=4.0) is None
    assert np.median(background.agreement(np.flatnonzero(rare))) > 20
    assert np.median(background.agreement(np.flatnonzero(~rare)[:8])) < 0


def test_neither_order_of_cells_nor_of_genes_nor_names_of_types_matter(data):
    x, types, batches, rare = data
    rng = np.random.default_rng(1)
    plain = Background(sp.csr_matrix(x), types, batches)
    for _ in range(5):
        cells, genes, names = rng.permutation(len(x)), rng.permutation(x.shape[1]), rng.permutation(3)
        other = Background(sp.csr_matrix(x[cells][:, genes]), names[types[cells]], 1 - batches[cells])
        a, b = plain.judge(rare), other.judge(rare[cells])
        np.testing.assert_allclose(b.odds, a.odds[cells], atol=1e-8)
        np.testing.assert_allclose(b.excess, a.excess[genes], atol=1e-8)
        np.testing.assert_allclose(other.distances()[np.ix_(names, names)], plain.distances(), atol=1e-8)


def test_a_part_is_what_it_would_be_alone(data):
    x, types, batches, rare = data
    rows = np.random.default_rng(2).permutation(len(x))[:200]
    whole = Background(sp.csr_matrix(x), types, batches)
    part, alone = whole.subset(rows), Background(sp.csr_matrix(x[rows]), types[rows], batches[rows])
    alone.depth *= np.median(x[rows].sum(1)) / np.median(x.sum(1))
    alone._set(alone.counts, alone.depth, alone.types, alone.batches)
    np.testing.assert_allclose(part.judge(rare[rows]).odds, alone.judge(rare[rows]).odds, atol=1e-8)


def test_one_factor_on_all_values_changes_little(data):
    """Normalised values are counts times something; the dispersion takes that up."""
    x, types, batches, rare = data
    plain = Background(sp.csr_matrix(x), types, batches).judge(rare)
    scaled = Background(sp.csr_matrix(30 * x), types, batches).judge(rare)
    assert (plain.odds > 0).tobytes() == (scaled.odds > 0).tobytes()


def test_dispersed_genes_are_kept(data):
    x, types, batches, _ = data
    background = Background(sp.csr_matrix(x), types, batches, num_genes=10)
    assert background.counts.shape == (len(x), 10) and set(range(6)) <= set(background.genes)
