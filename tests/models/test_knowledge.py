"""Known regulation in numbers, against dense algebra and counting; files of it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfm import models
from graphfm.models.checkpoint import save_tensors
from graphfm.models.knowledge import EVIDENCE, GeneFactors, KnowledgeConfig, KnowledgeHead, RegulatoryKnowledge

ROWS = np.array([3, 5, 8, 13, 21, 34, 55, 89, 144, 233])


def network(seed, share=0.3):
    rng = np.random.default_rng(seed)
    edge = rng.random((10, 10)) < share
    np.fill_diagonal(edge, False)
    edge[0, 1] = True
    return edge, ROWS[np.argwhere(edge)]


def paths_of_three(edge):
    """Sum over paths i -> k <- l -> j of one over the root of what each of the three edges' ends have."""
    out, into = edge.sum(1) + 5, edge.sum(0) + 5
    size = len(edge)
    total = np.zeros((size, size))
    for i, k, m, j in np.ndindex(size, size, size, size):
        if edge[i, k] and edge[m, k] and edge[m, j]:
            total[i, j] += 1 / np.sqrt(out[i] * into[k] * out[m] * into[k] * out[m] * into[j])
    return total


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6))
def test_evidence_counts_degrees_and_paths(seed):
    edge, edges = network(seed)
    factors = GeneFactors.from_edges(edges, size=10, seed=0)
    tfs, genes = torch.tensor([5, 21, -1, 7]), torch.tensor([233, -1, 3, 5, 1000])
    found = factors.evidence(tfs, genes).numpy()
    assert found.shape == (4, 5, len(EVIDENCE) - 1)
    place = {int(row): i for i, row in enumerate(ROWS)}
    paths, out, into = paths_of_three(edge), edge.sum(1), edge.sum(0)
    for a, tf in enumerate(tfs.tolist()):
        for b, gene in enumerate(genes.tolist()):
            i, j = place.get(tf), place.get(gene)
            degrees = [0 if k is None else of[k] for k, of in ((i, out), (j, into), (j, out), (i, into))]
            path = 0 if i is None or j is None else paths[i, j]
            length = 0 if i is None or j is None else np.sqrt((out[i] + 5) * (into[j] + 5))
            expected = [*np.log1p(degrees), np.arcsinh(100 * path), np.arcsinh(10 * path * length)]
            np.testing.assert_allclose(found[a, b], expected, atol=1e-4)


def test_few_numbers_keep_most_of_the_paths():
    edge, edges = network(1)
    exact = paths_of_three(edge)
    value = np.linalg.svd(edge / np.sqrt(np.outer(edge.sum(1) + 5, edge.sum(0) + 5)), compute_uv=False)
    for size in (1, 3):
        factors = GeneFactors.from_edges(edges, size=size)
        whole = np.zeros((10, 10))
        have = np.searchsorted(ROWS, factors.genes.numpy())
        whole[np.ix_(have, have)] = (factors.regulating @ factors.regulated.T).numpy()
        # no matrix of that rank is nearer
        assert np.linalg.norm(whole - exact) == pytest.approx(np.sqrt((value[size:] ** 6).sum()), rel=1e-4)


def test_order_of_edges_does_not_matter():
    _, edges = network(2)
    one, other = (GeneFactors.from_edges(e, size=4) for e in (edges, edges[::-1]))
    for name in ("genes", "regulating", "regulated", "num_targets", "num_regulators"):
        assert torch.equal(getattr(one, name), getattr(other, name))


@pytest.fixture
def knowledge():
    torch.manual_seed(0)
    head = KnowledgeHead(2)
    torch.nn.init.normal_(head.deep[-1].weight)
    factors = GeneFactors.from_edges(network(3)[1], size=4)
    return RegulatoryKnowledge(factors, head, KnowledgeConfig(size=4), (0.1, 0.3), "abc", {"corpus": ["a"]})


def test_probability_is_each_pairs_own(knowledge, monkeypatch):
    rng = np.random.default_rng(0)
    tfs, genes = torch.from_numpy(rng.choice(300, 150)), torch.from_numpy(rng.choice(300, 20))
    context = torch.from_numpy(rng.gamma(1, size=(150, 20)).astype(np.float32))
    whole = knowledge.probability(tfs, genes, context)
    assert whole.shape == (150, 20) and ((whole >= 0) & (whole < 1)).all() and len(whole.unique()) > 1000
    monkeypatch.setattr(models.knowledge, "PAIRS", 50)  # two regulators at a time
    torch.testing.assert_close(knowledge.probability(tfs, genes, context), whole)
    some = torch.arange(0, 150, 7)
    torch.testing.assert_close(knowledge.probability(tfs[some], genes[5:9], context[some][:, 5:9]), whole[some][:, 5:9])


def test_density_is_that_of_the_networks(knowledge):
    """A head that says what share of its pairs are edges says what share of a network's are, kind by kind."""
    for parameter in knowledge.head.parameters():
        torch.nn.init.zeros_(parameter)
    knowledge.head.linear.bias.data[:] = float(np.log(knowledge.config.edges / knowledge.config.non_edges))
    found = knowledge.probability(torch.tensor([3]), torch.tensor([5]), torch.zeros(1, 1))
    assert found.item() == pytest.approx((0.1 + 0.3) / 2, abs=1e-6)


def test_no_gene_regulates_itself(knowledge):
    """Two columns may be one gene; of those outside the vocabulary that is not known."""
    rows = torch.tensor([3, 5, -1])
    zero = knowledge.probability(rows, torch.tensor([5, 5, 3, -1]), torch.ones(3, 4)) == 0
    assert zero.tolist() == [[False, False, True, False], [True, True, False, False], [False] * 4]


def test_files(knowledge, tmp_path):
    path = knowledge.save_pretrained(tmp_path / "r.safetensors")
    back = RegulatoryKnowledge.from_pretrained(path)
    assert (back.config, back.density, back.vocabulary, back.training) == (
        knowledge.config,
        knowledge.density,
        knowledge.vocabulary,
        knowledge.training,
    )
    rows, context = torch.from_numpy(ROWS), torch.rand(10, 10)
    expected = knowledge.probability(rows, rows, context)
    torch.testing.assert_close(back.probability(rows, rows, context), expected, atol=1e-3, rtol=1e-2)
    with pytest.raises(FileNotFoundError):
        RegulatoryKnowledge.from_pretrained(tmp_path / "none.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match="no complete safetensors"):
        RegulatoryKnowledge.from_pretrained(tmp_path / "cut.safetensors")
    save_tensors(tmp_path / "other.safetensors", {"a": torch.zeros(1)}, {"format": "graphfm-model"})
    with pytest.raises(ValueError, match="holds no known regulation"):
        RegulatoryKnowledge.from_pretrained(tmp_path / "other.safetensors")
    save_tensors(tmp_path / "old.safetensors", {"a": torch.zeros(1)}, {"format": "graphfm-regulation"})
    with pytest.raises(ValueError, match="another version"):
        RegulatoryKnowledge.from_pretrained(tmp_path / "old.safetensors")
