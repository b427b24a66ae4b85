"""Networks of data sets that were not learned from."""

import numpy as np
import pandas as pd
import pytest
import torch

from graphfm import datasets, tl
from graphfm.genes import vocabulary
from graphfm.models.knowledge import KnowledgeConfig, RegulatoryKnowledge
from graphfm.tasks import grn
from graphfm.tl import knowledge

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
    """A prior that holds a data set's own network, and a second data set with it, do not give it away."""
    met = []
    original = knowledge._episode

    def watched(data, seen, *rest):
        met.append((data, seen, original(data, seen, *rest)))
        return met[-1][-1]

    monkeypatch.setattr(knowledge, "_episode", watched)
    own = corpus["toy0"].uns["grn_truth"]["planted"]
    unseen = corpus["toy1"].var_names[::2]
    twice = {"toy0": corpus["toy0"], "again": corpus["toy0"], "toy1": corpus["toy1"]}
    groups = {"toy0": "x", "again": "y", "toy1": "z"}
    tl.pretrain_grn(twice, priors=[own], groups=groups, config=CONFIG, unseen=unseen)
    rows = vocabulary().rows
    edges = {
        name: set(zip(*(rows(a.uns["grn_truth"]["planted"][e]).tolist() for e in ("tf", "target")), strict=True))
        for name, a in twice.items()
    }
    hidden = set(rows(unseen).tolist())
    for (data, seen, episode), name in zip(met, twice, strict=True):
        seen = set(map(tuple, seen.tolist()))
        assert len(seen) > 30 and not seen & edges[name]
        asked = {(int(data.tfs[i]), int(data.genes[j])) for i, j in episode.networks[0][0]}
        others = {(int(data.tfs[i]), int(data.genes[j])) for i, j in episode.networks[0][1]}
        assert asked and asked <= edges[name] and not asked & others and not others & edges[name]
        assert not any(i in hidden and j in hidden for i, j in asked | others)
        if name == "toy1":
            assert len(asked) < len(edges[name])  # those among the unseen are not asked for
    assert any(edges["toy0"] & set(map(tuple, seen.tolist())) for _, seen, _ in met)  # where it may be seen, it is


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


def test_networks_learn_beside_what_is_known_of_the_genes(corpus):
    """Edges of a few regulators are given; what is known of the others tells the rest, where it is right."""
    adata = corpus["toy0"].copy()
    truth = adata.uns["toy_truth"]["grn"]
    factors = truth["tf"].unique()
    known, rest = (truth[truth["tf"].isin(part)] for part in (factors[:4], factors[4:]))
    rows = vocabulary().rows(adata.var_names)
    place = adata.var_names.get_indexer

    class Oracle(RegulatoryKnowledge):
        def probability(self, regulators, genes, context):
            right = torch.zeros(len(rows), len(rows))
            right[place(truth["tf"]), place(truth["target"])] = 1
            where = pd.Index(rows).get_indexer
            return right[where(regulators.numpy())][:, where(genes.numpy())]

    model = RegulatoryKnowledge.from_pretrained()
    oracle = Oracle(model.factors, model.head, model.config, model.density, model.vocabulary, {})
    options = {"mode": "fine_tune", "known": known[["tf", "target"]], "max_edges": None, "copy": True}
    given = set(zip(known["tf"], known["target"], strict=True))
    scores = {}
    for name, of in (("alone", None), ("beside", oracle)):
        edges = tl.infer_grn(adata, model=of, **options).uns["grn"].astype({"tf": str, "target": str})
        unknown = [pair not in given for pair in zip(edges["tf"], edges["target"], strict=True)]
        scores[name] = grn.evaluate(edges[unknown], rest)["auprc"]
    assert scores["beside"] > 2 * scores["alone"]


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
    with pytest.raises(TypeError, match=r"from_pretrained\(path\)"):
        tl.infer_grn(adata, mode="zero_shot", model="regulation.safetensors")
    old = RegulatoryKnowledge(model.factors, model.head, model.config, model.density, "0", {})
    with pytest.raises(ValueError, match="version 0 of the vocabulary"):
        tl.infer_grn(adata, mode="zero_shot", model=old)


def test_bad_corpora(corpus):
    adata, second = corpus["toy0"], corpus["toy1"]
    with pytest.raises(ValueError, match="No known edge is left"):
        tl.pretrain_grn({"toy": adata}, config=CONFIG)
    with pytest.raises(ValueError, match=r"'toy'\] has none of the networks .*found: planted"):
        tl.pretrain_grn({"toy": adata}, config=KnowledgeConfig(networks=("other",)))
    with pytest.raises(ValueError, match=r"groups lacks \['b'\]"):
        tl.pretrain_grn({"a": adata, "b": second}, groups={"a": "x"}, config=CONFIG)
    with pytest.raises(TypeError, match="must be a list of names"):
        tl.pretrain_grn({"a": adata, "b": second}, unseen="TP53", config=CONFIG)
    with pytest.raises(ValueError, match="none of the 2 genes is known"):
        tl.pretrain_grn({"a": adata, "b": second}, unseen=["g1", "g2"], config=CONFIG)
    nameless = pd.DataFrame({"source": ["TP53", np.nan], "target": ["MYC", "JUN"]})
    with pytest.raises(ValueError, match="without a name in source"):
        tl.pretrain_grn({"a": adata, "b": second}, priors=[nameless], config=CONFIG)
    wrong = second.copy()
    wrong.uns["tfs"] = [*wrong.uns["tfs"], "nobody"]
    with pytest.raises(ValueError, match=r"names 1 genes that are not in var_names"):
        tl.pretrain_grn({"a": adata, "b": wrong}, config=CONFIG)
    del wrong.uns["tfs"]
    with pytest.raises(KeyError, match="has no 'tfs'"):
        tl.pretrain_grn({"a": adata, "b": wrong}, config=CONFIG)
    # a data set whose genes are all unseen teaches nothing, and stops nobody
    tl.pretrain_grn({"a": adata, "b": second, "c": corpus["toy2"]}, unseen=second.var_names, config=CONFIG)


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
