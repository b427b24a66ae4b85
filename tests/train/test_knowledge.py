"""The head learns what tells edges from other pairs, and to do without knowledge."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits

from graphfm.models.knowledge import EVIDENCE, KnowledgeConfig, KnowledgeHead
from graphfm.train.knowledge import Episode, fit_knowledge

CONFIG = KnowledgeConfig(networks=("a", "b"), steps=80, edges=50, non_edges=100)


def episode(seed):
    """Edges of network a have paths and context, network b is not known here."""
    rng = np.random.default_rng(seed)
    evidence = rng.normal(size=(20, 30, len(EVIDENCE))).astype(np.float32)
    edge = (evidence[..., 4] + evidence[..., -1]) > 1.5
    return Episode(torch.from_numpy(evidence), [(np.argwhere(edge), np.argwhere(~edge)), None]), edge


def test_learns_the_same_from_the_same_seed():
    heads = []
    for _ in range(2):
        torch.manual_seed(0)
        heads.append(KnowledgeHead(2))
        fit_knowledge(heads[-1], [episode(0)[0], episode(1)[0]], config=CONFIG, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(*(h.state_dict().values() for h in heads), strict=True))
    test, edge = episode(2)
    with torch.no_grad():
        assert roc_auc_score(edge.ravel(), heads[0](test.evidence)[..., 0].ravel()) > 0.95


def test_falls_back_on_context_where_nothing_is_known():
    """Far from what was seen, a head that never met unknown genes does not read the context."""
    loss = {}
    for unknown in (0.0, 0.3):
        parts = [episode(seed) for seed in (0, 1, 2)]
        for part, _ in parts:
            part.evidence[..., :-1] += 6  # all that is known is far from nothing
        torch.manual_seed(0)
        head = KnowledgeHead(2)
        fit_knowledge(head, [parts[0][0], parts[1][0]], config=replace(CONFIG, unknown=unknown, steps=200), seed=3)
        test, edge = parts[2]
        test.evidence[..., :-1] = 0
        with torch.no_grad():
            logit = head(test.evidence)[..., 0]
        loss[unknown] = binary_cross_entropy_with_logits(logit, torch.from_numpy(np.float32(edge))).item()
        if unknown:
            assert roc_auc_score(edge.ravel(), logit.ravel()) > 0.8
    assert loss[0.3] < loss[0.0]


def test_training_leaves_the_evidence_alone():
    one, _ = episode(0)
    before = one.evidence.clone()
    fit_knowledge(KnowledgeHead(2), [one], config=CONFIG, seed=0)
    assert torch.equal(before, one.evidence)


def test_nothing_to_learn_from():
    with pytest.raises(ValueError, match="None of the data sets has a known network"):
        fit_knowledge(KnowledgeHead(2), [Episode(torch.zeros(2, 2, 7), [None, None])], config=CONFIG, seed=0)
