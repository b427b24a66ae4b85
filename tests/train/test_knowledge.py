"""The head learns what tells edges from other pairs, and to do without knowledge."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from graphfm.models.knowledge import EVIDENCE, KnowledgeConfig, KnowledgeHead
from graphfm.train.knowledge import Episode, fit_knowledge

CONFIG = KnowledgeConfig(networks=("a", "b"), steps=80, edges=50, non_edges=100)


def episode(seed):
    """Edges of network a have paths and context, network b is not known here."""
    rng = np.random.default_rng(seed)
    evidence = rng.normal(size=(20, 30, len(EVIDENCE))).astype(np.float32)
    edge = (evidence[..., 4] + evidence[..., -1]) > 1.5
    return Episode(torch.from_numpy(evidence), [(np.argwhere(edge), np.argwhere(~edge)), None]), edge


def test_learns_and_falls_back_on_context():
    heads = []
    for _ in range(2):
        torch.manual_seed(0)
        heads.append(KnowledgeHead(2))
        fit_knowledge(heads[-1], [episode(0)[0], episode(1)[0]], config=CONFIG, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(*(h.state_dict().values() for h in heads), strict=True))
    test, edge = episode(2)
    with torch.no_grad():
        assert roc_auc_score(edge.ravel(), heads[0](test.evidence)[..., 0].ravel()) > 0.95
        test.evidence[..., :-1] = 0
        logits = heads[0](test.evidence)[..., 0]
    assert roc_auc_score(edge.ravel(), logits.ravel()) > 0.8
    assert not test.evidence[..., :-1].any()


def test_training_leaves_the_evidence_alone():
    one, _ = episode(0)
    before = one.evidence.clone()
    fit_knowledge(KnowledgeHead(2), [one], config=CONFIG, seed=0)
    assert torch.equal(before, one.evidence)


def test_nothing_to_learn_from():
    with pytest.raises(ValueError, match="None of the data sets has a known network"):
        fit_knowledge(KnowledgeHead(2), [Episode(torch.zeros(2, 2, 7), [None, None])], config=CONFIG, seed=0)
