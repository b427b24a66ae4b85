"""Table 5's peers: they find planted domains, give the same again, and change nothing of what they were given."""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.metrics import adjusted_rand_score

FOLDER = Path(__file__).parent.parent / "experiments"
sys.path.insert(0, str(FOLDER))

import _spatial_peers as peers  # noqa: E402

from graphfm import datasets  # noqa: E402

# enough for this slide, whose domains are plain
EPOCHS = {"banksy": {}, "graphst": {"epochs": 100}, "stagate": {"epochs": 40}, "novae": {"epochs": 1}}
AT_LEAST = {"banksy": 0.6, "graphst": 0.2, "stagate": 0.4}  # Novae learns nothing in one epoch
METHODS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name in peers.NEEDS and find_spec(peers.NEEDS[name]) is None,
            reason=f"needs the package {peers.NEEDS.get(name)}",
        ),
    )
    for name in peers.METHODS
]


@pytest.fixture(scope="module")
def slide():
    return datasets.toy(600, 120, num_tfs=20, num_batches=1, depth=5.0, seed=0)


@pytest.mark.parametrize("name", METHODS)
def test_planted_domains_are_found_and_come_again(slide, name):
    before, truth = slide.copy(), slide.obs["domain"]
    run = lambda: peers.METHODS[name](slide, truth.nunique(), 1, **EPOCHS[name])  # noqa: E731
    embedding, labels = run()
    assert embedding.dtype == np.float32 and embedding.ndim == 2 and np.isfinite(embedding).all()
    assert labels.dtype.kind == "i" and embedding.shape[:1] == labels.shape == (600,)
    if name in AT_LEAST:
        values = peers.scaled(slide).X.toarray()
        left, strength, _ = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
        alone = peers.mixture(left[:, :15] * strength[:15], truth.nunique(), 0)
        assert adjusted_rand_score(truth, labels) > max(AT_LEAST[name], 0.1 + adjusted_rand_score(truth, alone))
    for first, second in zip((embedding, labels), run(), strict=True):
        np.testing.assert_array_equal(first, second)
    assert (slide.X != before.X).nnz == 0 and slide.obs.equals(before.obs) and slide.var.equals(before.var)
    np.testing.assert_array_equal(slide.obsm["spatial"], before.obsm["spatial"])
    for kept in ("uns", "obsm", "obsp", "layers"):
        assert getattr(slide, kept).keys() == getattr(before, kept).keys()


@pytest.mark.parametrize("name", METHODS)
def test_the_authors_settings_for_spots(slide, name):
    settings = EPOCHS[name] | {"epochs": 1} if EPOCHS[name] else {}
    embedding, labels = peers.SPOTS.get(name, peers.METHODS[name])(slide, 4, 0, **settings)
    assert len(embedding) == len(labels) == 600 and labels.min() >= 0


def test_stagate_takes_any_scale_of_the_tissue(slide):
    moved = slide.copy()
    moved.obsm["spatial"] = (0.01 * slide.obsm["spatial"][:, ::-1] + 7).astype(np.float32)
    first, second = (peers.stagate(data, 4, 0, epochs=2)[0] for data in (slide, moved))
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_reach_is_the_first_ring():
    """Of a hexagonal lattice whose coordinates were rounded, as pixels are."""
    row, column = np.divmod(np.arange(900), 30)
    spots = np.stack([np.round(137 * (column + row % 2 / 2)), np.round(137 * row * np.sqrt(3) / 2)], axis=1)
    source, target = (ends.numpy() for ends in peers.within_reach(spots))
    length = np.linalg.norm(spots[source] - spots[target], axis=1)
    degree = np.bincount(target)
    assert (length == 0).sum() == 900 and length[length > 0].min() > 130 and length.max() < 140
    assert degree.max() == 7 and (degree == 7).sum() == 28 * 28
    cells = np.random.default_rng(0).random((2000, 2))
    assert len(peers.within_reach(cells)[0]) / 2000 - 1 == pytest.approx(7, abs=0.7)


def test_autoencoder_equals_a_loop():
    torch.manual_seed(0)
    model, rng = peers.AttentionAutoencoder(6, 5, 3), np.random.default_rng(0)
    genes, edges = rng.random((8, 6)), peers.within_reach(rng.random((8, 2)))
    embedding, again = (x.detach().numpy() for x in model(torch.from_numpy(genes.astype(np.float32)), *edges))
    outer, inner, sends, hears = (x.detach().numpy().astype(float) for x in model.parameters())

    def elu(x):
        return np.where(x > 0, x, np.expm1(x))

    attention = np.zeros((8, 8))
    for source, target in zip(*(ends.tolist() for ends in edges), strict=True):
        score = genes[source] @ outer @ sends + genes[target] @ outer @ hears
        attention[target, source] = np.exp(1 / (1 + np.exp(-score.item())))
    assert (np.diag(attention) > 0).all()
    attention /= attention.sum(axis=1, keepdims=True)
    expected = elu(attention @ genes @ outer) @ inner
    np.testing.assert_allclose(embedding, expected, atol=1e-5)
    np.testing.assert_allclose(again, elu(attention @ expected @ inner.T) @ outer.T, atol=1e-5)


def test_panels_are_kept_whole_and_genes_chosen_of_counts_or_logarithms(slide):
    data = peers.scaled(slide, total=1e4, genes=3000)
    assert data.var_names.equals(slide.var_names) and not data.obs.columns.size
    np.testing.assert_allclose(np.expm1(data.X.toarray()).sum(axis=1), 1e4, rtol=1e-4)
    linear = peers.scaled(slide, log=False)
    totals = np.asarray(slide.X.sum(axis=1)).ravel()
    np.testing.assert_allclose(linear.X.sum(axis=1).A1, np.median(totals), rtol=1e-4)
    assert sp.issparse(linear.X) and linear.X.dtype == np.float32
    other = slide.copy()
    other.X, other.uns["is_raw_counts"] = slide.X * 0.37, False
    assert peers.scaled(other, genes=50).n_vars == 50
    if find_spec("skmisc") is not None:
        assert peers.scaled(slide, genes=50).n_vars == 50
