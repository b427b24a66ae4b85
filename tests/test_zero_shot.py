"""Networks of data sets that were not learned from."""

import numpy as np
import pandas as pd
import pytest
import torch

from graphfm import datasets, tl
from graphfm.genes import vocabulary
from graphfm.models.knowledge import KnowledgeConfig, RegulatoryKnowledge
from graphfm.tasks import grn

CONFIG = KnowledgeConfig(size=8, networks=("planted",), steps=60, edges=50, non_edges=100)


def cells(seed):
    adata = datasets.toy(200, 150, num_tfs=15, seed=seed)
    adata.uns["grn_truth"] = {"planted": adata.uns["toy_truth"]["grn"][["tf", "target"]]}
    adata.uns["tfs"] = adata.var_names[adata.var["is_tf"]].tolist()
    return adata


@pytest.fixture(scope="module")
def corpus():
    return {f"toy{seed}": cells(seed) for seed in range(3)}


def same(a: RegulatoryKnowledge, b: RegulatoryKnowledge) -> bool:
    return all(
        torch.equal(x, y) for x, y in zip(a.head.state_dict().values(), b.head.state_dict().values(), strict=True)
    ) and (len(a.factors.genes) == len(b.factors.genes) and torch.equal(a.factors.regulated, b.factors.regulated))


def test_unseen_edges_are_not_used(corpus):
    """What a prior says of the unseen genes among themselves changes nothing; what it says of others does."""
    names = vocabulary().table["human_symbol"]
    names = (
        names[(names != "") & ~names.isin(np.concatenate([a.var_names for a in corpus.values()]))].head(40).to_numpy()
    )
    unseen, others = names[:20], names[20:]

    def learn(*edges, **given):
        prior = pd.DataFrame(edges, columns=["source", "target"])
        return tl.pretrain_grn(corpus, priors=[prior], config=CONFIG, unseen=unseen, **given)

    outside = [(others[i], others[(3 * i + 1) % 20]) for i in range(20)]
    inside = [(unseen[i], unseen[(7 * i + 2) % 20]) for i in range(20)]
    across = [(unseen[0], others[5])]
    plain = learn(*outside)
    assert same(plain, learn(*outside)) and same(plain, learn(*outside, *inside))
    assert not same(plain, learn(*outside, *across))
    assert same(plain, learn(*outside, *inside, *across, untouched=True))


def test_own_network_is_asked_for_and_never_seen(corpus, monkeypatch):
    from graphfm.tl import knowledge

    seen = []
    original = knowledge._episode
    monkeypatch.setattr(
        knowledge,
        "_episode",
        lambda data, factors, *rest: seen.append((data, factors)) or original(data, factors, *rest),
    )
    tl.pretrain_grn(corpus, groups={"toy0": "x", "toy1": "x", "toy2": "y"}, config=CONFIG)
    assert len(seen) == 3
    rows = {name: vocabulary().rows(adata.var_names) for name, adata in corpus.items()}
    truth = {name: vocabulary().rows(a.uns["grn_truth"]["planted"]["tf"]).tolist() for name, a in corpus.items()}
    for (data, factors), name in zip(seen, corpus, strict=True):
        others = {"toy0": ["toy2"], "toy1": ["toy2"], "toy2": ["toy0", "toy1"]}[name]
        sources = {row for other in others for row in truth[other]}
        has_targets = set(factors.genes[factors.num_targets > 0].tolist())
        assert has_targets <= sources and len(data.genes) == len(rows[name])


def test_on_a_data_set(corpus):
    """Toys share no network, so that only expression can tell: the head falls back on it."""
    model = tl.pretrain_grn({k: corpus[k] for k in ("toy0", "toy1")}, config=CONFIG)
    adata = corpus["toy2"].copy()
    tl.infer_grn(adata, mode="zero_shot", model=model, max_edges=None)
    assert adata.uns["grn_params"]["mode"] == "zero_shot" and adata.uns["grn"]["score"].between(0, 1).all()
    assert grn.evaluate(adata.uns["grn"], adata.uns["toy_truth"]["grn"])["auroc"] > 0.6
    order = np.random.default_rng(0).permutation(adata.n_vars)
    other = corpus["toy2"][:, order].copy()
    tl.infer_grn(other, mode="zero_shot", model=model, max_edges=None)
    a, b = (
        x.uns["grn"].astype({"tf": str, "target": str}).set_index(["tf", "target"])["score"] for x in (adata, other)
    )
    np.testing.assert_allclose(a, b.reindex(a.index), rtol=1e-5)


def test_shipped_knowledge_without_a_network(corpus):
    model = RegulatoryKnowledge.from_pretrained()
    assert model.vocabulary == vocabulary().version and len(model.factors.genes) > 10_000
    names = ["NFKB1", "STAT1", "GAPDH", "NFKBIA", "IRF1", "ACTB", "REL", "ISG15", "ALB", "HBB"]
    rng = np.random.default_rng(0)
    adata = corpus["toy0"][:, :10].copy()
    adata.X = rng.poisson(2, size=adata.shape).astype(np.float32)
    adata.var_names, adata.uns = names, {}
    tl.infer_grn(adata, mode="zero_shot", tfs=["NFKB1", "STAT1"], max_edges=None)
    table = adata.uns["grn"].set_index(["tf", "target"])["score"]
    assert table["NFKB1", "NFKBIA"] > 2 * table["NFKB1", "HBB"] and table["STAT1", "IRF1"] > 2 * table["STAT1", "ALB"]


def test_bad_input(corpus):
    adata = corpus["toy0"].copy()
    model = RegulatoryKnowledge.from_pretrained()
    with pytest.raises(ValueError, match=r"takes no model=\. Leave it out"):
        tl.infer_grn(adata, model=model)
    nameless = adata.copy()
    nameless.var = pd.DataFrame(index=[f"g{i}" for i in range(adata.n_vars)])
    with pytest.raises(ValueError, match="knows none of the 2 transcription factors"):
        tl.infer_grn(nameless, mode="zero_shot", tfs=["g0", "g1"])
    old = RegulatoryKnowledge(model.factors, model.head, model.config, model.density, "0", {})
    with pytest.raises(ValueError, match="version 0 of the vocabulary"):
        tl.infer_grn(adata, mode="zero_shot", model=old)
    with pytest.raises(ValueError, match="No known edge is left"):
        tl.pretrain_grn({"toy": adata}, config=CONFIG)
    prior = adata.uns["toy_truth"]["grn"][["tf", "target"]]
    with pytest.raises(ValueError, match="None of the data sets has a known network"):
        tl.pretrain_grn({"toy": corpus["toy1"]}, priors=[prior], config=KnowledgeConfig(networks=("other",)))


@pytest.mark.slow
def test_cell_type_that_was_left_out(mirror):
    """Blood stem cells of mice: better than expression alone, though no edge between their genes was seen."""
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parent.parent / "experiments"))
    import _grn_zero_shot as zero_shot

    adata = datasets.load("beeline_mhsc_l_500")
    found = {}
    for method in ("graphfm", "graphfm:no_expression", "degree_product"):
        edges = zero_shot.scores(method, "beeline_mhsc_l_500", adata.copy(), list(adata.uns["tfs"]), 0)
        found[method] = {name: grn.evaluate(edges, t)["auprc_ratio"] for name, t in adata.uns["grn_truth"].items()}
    tl.infer_grn(adata, tfs=list(adata.uns["tfs"]), kind="log1p", max_edges=None)
    alone = {name: grn.evaluate(adata.uns["grn"], t)["auprc_ratio"] for name, t in adata.uns["grn_truth"].items()}
    assert found["graphfm"]["Non-Specific"] > alone["Non-Specific"]
    for network in ("STRING", "Non-Specific"):  # expression alone does as well on this small STRING network
        assert found["graphfm"][network] > found["degree_product"][network] > 1
