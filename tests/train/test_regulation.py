"""Learning from known edges: what is asked for is never seen, and what is planted is found."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfm.models.regulation import GeneGraph, RegulationNet
from graphfm.train.regulation import Fold, RegulationConfig, fit_regulation, make_folds

TFS = np.arange(12)


def network(seed, genes=40):
    """Two programmes: each regulator has its own targets, most of them."""
    rng = np.random.default_rng(seed)
    edge = np.zeros((genes, genes), dtype=np.float32)
    edge[TFS] = rng.random((12, genes)) < np.where((TFS[:, None] % 2) == (np.arange(genes) % 2), 0.6, 0.03)
    np.fill_diagonal(edge, 0)
    return sp.csr_matrix(edge)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_folds_hide_what_they_ask_for(seed):
    known, config = network(seed), RegulationConfig()
    folds = make_folds(known, TFS, config=config, seed=seed)
    assert len(folds) == 3 * config.folds
    for number, fold in enumerate(folds):
        asked, others = fold.pairs[fold.label == 1], fold.pairs[fold.label == 0]
        seen = fold.seen.toarray()
        assert not seen[asked[:, 0], asked[:, 1]].any()
        assert fold.seen.nnz + len(asked) == known.nnz and (seen <= known.toarray()).all()
        assert not known[others[:, 0], others[:, 1]].any() and (others[:, 0] != others[:, 1]).all()
        way = number // config.folds
        if way == 1:
            assert not seen[np.unique(asked[:, 0])].any() and set(others[:, 0]) <= set(asked[:, 0])
        if way == 2:
            assert not seen[:, np.unique(asked[:, 1])].any() and set(others[:, 1]) <= set(asked[:, 1])


def train(seed=0, signs=None, epochs=40):
    known, features = network(0), torch.from_numpy(np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32))
    config = RegulationConfig(epochs=epochs)
    hidden = make_folds(known, TFS, config=config, seed=5)[0]
    folds = make_folds(hidden.seen, TFS, config=config, seed=seed)
    facts = [np.zeros((len(fold.label), 2), dtype=np.float32) for fold in folds]  # the graph alone must tell
    of_edges = [np.where(fold.label == 1, 0 if signs is None else signs[fold.pairs[:, 0]], 0) for fold in folds]
    torch.manual_seed(seed)
    net = RegulationNet(16, 2)
    fit_regulation(net, features, folds, facts, of_edges, config=config, seed=seed)
    with torch.no_grad():
        states = net.states(features, GeneGraph.from_scipy(hidden.seen), GeneGraph.from_scipy(hidden.seen.T))
        pairs = torch.from_numpy(hidden.pairs)
        return hidden, net(states, torch.zeros(len(pairs), 2), pairs).numpy()


def test_trunk_alone_finds_planted_programmes():
    from sklearn.metrics import roc_auc_score

    hidden, logits = train()
    assert roc_auc_score(hidden.label, logits[:, 0]) > 0.7
    np.testing.assert_array_equal(train()[1], logits)  # the same seed, the same result


def test_signs_are_learned():
    signs = np.where(np.arange(40) % 3 == 0, -1, 1)
    hidden, logits = train(signs=signs)
    edges = hidden.label == 1
    right = (logits[edges, 1] > 0) == (signs[hidden.pairs[edges, 0]] > 0)
    assert right.mean() > 0.9


def test_gene_graph_propagates_as_dense_algebra():
    known = network(3)
    dense = known.toarray()
    scale = np.sqrt(np.maximum(dense.sum(1)[:, None] * dense.sum(0), 1))
    expected = dense / scale
    alone = dense.sum(1) == 0
    expected[alone, alone.nonzero()[0]] = 1
    h = torch.randn(40, 3)
    graph = GeneGraph.from_scipy(known)
    torch.testing.assert_close(graph.propagate(h), torch.from_numpy(expected).float() @ h, atol=1e-5, rtol=1e-5)
    assert len(graph) == 40 and graph.own(h) is h


def test_an_edge_that_is_seen_is_noticed():
    known = network(1)
    pairs = np.stack(known.nonzero(), axis=1)[:3]
    with pytest.raises(AssertionError, match="is seen"):
        Fold(pairs, np.float32([0, 0, 1]), known)
    Fold(np.array([[0, 0]]), np.float32([1]), known)
