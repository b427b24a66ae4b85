"""tl.infer_grn as its users meet it."""

import anndata as ad
import networkx as nx
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from matplotlib.figure import Figure

from graphfm import datasets, io, pl, tl
from graphfm.data.profiles import shuffled
from graphfm.tasks import grn


@pytest.fixture(scope="module")
def made():
    adata = datasets.toy(500, 120, num_tfs=15)
    tl.infer_grn(adata, max_edges=None)
    return adata


def by_name(adata, key="grn"):
    return adata.uns[key].astype({"tf": str, "target": str}).set_index(["tf", "target"])


def test_keys_and_their_agreement(made, tmp_path):
    table = made.uns["grn"]
    assert list(table) == ["tf", "target", "score", "sign", "confidence", "regulon"]
    assert (table["score"] > 0).all() and table["score"].is_monotonic_decreasing
    assert table["confidence"].is_monotonic_decreasing and table["confidence"].between(0, 1).all()
    assert set(table["sign"]) == {-1, 1} and (table["tf"].astype(str) != table["target"].astype(str)).all()
    assert set(table["tf"].astype(str)) <= set(made.var_names[made.var["is_tf"]])
    matrix = made.varp["grn"]
    rows, columns = (made.var_names.get_indexer(table[c].astype(str)) for c in ("tf", "target"))
    assert sp.issparse(matrix) and matrix.nnz == len(table) and matrix.dtype == np.float32
    np.testing.assert_allclose(np.asarray(matrix[rows, columns]).ravel(), table["score"] * table["sign"])
    made.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(
        back.uns["grn"].reset_index(drop=True),
        table,
        check_dtype=False,
        check_categorical=False,
        check_index_type=False,
    )
    pd.testing.assert_frame_equal(back.obsm["grn_activity"], made.obsm["grn_activity"])


def test_finds_the_planted_network(made):
    scores = grn.evaluate(made.uns["grn"], made.uns["toy_truth"]["grn"])
    assert scores["epr"] > 2.5 and scores["auroc"] > 0.65 and scores["sign_balanced_accuracy"] > 0.75
    assert scores["auprc_low"] <= scores["auprc"] <= scores["auprc_high"]
    graph = tl.grn_to_networkx(made, min_confidence=0.9)
    assert isinstance(graph, nx.DiGraph)
    assert graph.number_of_edges() == (made.uns["grn"]["confidence"] >= 0.9).sum() > 10
    assert {"score", "sign", "confidence"} == set(next(iter(graph.edges(data=True)))[2])


def test_noise_has_no_confidence(made):
    noise = made.copy()
    noise.X = shuffled(sp.csr_matrix(made.X), seed=3).tocsr()
    tl.infer_grn(noise, max_edges=None)
    assert noise.uns["grn"]["regulon"].sum() < 0.25 * made.uns["grn"]["regulon"].sum()
    assert (noise.uns["grn"]["confidence"] > 0.5).mean() < 0.02


def test_activity_equals_its_formula(made):
    x = io.expression(made).toarray().astype(np.float64)
    spread = x.std(0)
    z = (x - x.mean(0)) / np.where(spread > 0, spread, 1)
    regulon = made.uns["grn"][made.uns["grn"]["regulon"]]
    assert regulon.groupby("tf", observed=True).size().max() <= 50
    for tf in made.obsm["grn_activity"].columns[:3]:
        own = regulon[regulon["tf"] == tf]
        weight = (own["score"] * own["sign"]).to_numpy()
        expected = z[:, made.var_names.get_indexer(own["target"].astype(str))] @ weight / np.abs(weight).sum()
        np.testing.assert_allclose(made.obsm["grn_activity"][tf], expected, atol=1e-4)


def test_order_of_genes_and_copies(made):
    order = np.random.default_rng(0).permutation(made.n_vars)
    moved = made[:, order].copy()
    result = tl.infer_grn(moved, max_edges=None, copy=True, key_added="other")
    assert "other" not in moved.uns
    pd.testing.assert_frame_equal(by_name(result, "other").sort_index(), by_name(made).sort_index())
    some = tl.infer_grn(made, max_edges=100, copy=True)
    pd.testing.assert_frame_equal(
        some.uns["grn"].astype({"tf": str, "target": str}).drop(columns="regulon"),
        made.uns["grn"].head(100).astype({"tf": str, "target": str}).drop(columns="regulon"),
    )
    dense = made.copy()
    dense.X = made.X.toarray()
    tl.infer_grn(dense, max_edges=None)
    pd.testing.assert_frame_equal(dense.uns["grn"], made.uns["grn"])


def test_prior_mode_keeps_the_priors_edges_and_signs(made):
    truth = made.uns["toy_truth"]["grn"]
    prior = truth[["tf", "target", "sign"]].head(60)
    unknown = prior.assign(sign=np.where(np.arange(60) < 20, 0, -prior["sign"]))
    found = tl.infer_grn(made, mode="prior", prior=unknown, copy=True)
    table = by_name(found)
    assert set(table.index) <= set(map(tuple, prior[["tf", "target"]].to_numpy()))
    given = unknown[unknown["sign"] != 0].set_index(["tf", "target"])["sign"]
    both = table.index.intersection(given.index)
    assert len(both) > 20 and (table.loc[both, "sign"] == given[both]).all()
    free = by_name(made)["sign"]
    rest = table.index.difference(given.index)
    assert len(rest) > 5 and (table.loc[rest, "sign"] == free[rest]).all()
    heavy = tl.infer_grn(made, mode="prior", prior=prior.assign(weight=2.0).drop(columns="sign"), copy=True)
    np.testing.assert_allclose(by_name(heavy)["score"], 2 * table["score"].sort_values(ascending=False))


def test_prior_of_the_other_species():
    adata = datasets.toy(300, 80, num_tfs=10, organism="mouse")
    from graphfm.genes import vocabulary

    table = vocabulary().table.drop_duplicates("mouse_symbol").set_index("mouse_symbol")
    truth = adata.uns["toy_truth"]["grn"]
    human = truth.assign(**{c: table["human_symbol"].reindex(truth[c]).to_numpy() for c in ("tf", "target")})
    human = human[(human["tf"].fillna("") != "") & (human["target"].fillna("") != "")]
    tl.infer_grn(adata, mode="prior", prior=human)
    names = set(map(tuple, truth[["tf", "target"]].to_numpy()))
    assert len(adata.uns["grn"]) > 0.6 * len(human) and set(by_name(adata).index) <= names


def test_fine_tune_learns_from_known_edges(made):
    truth = made.uns["toy_truth"]["grn"]
    known = truth.sample(frac=0.7, random_state=0)
    rest = truth.drop(known.index)
    found = tl.infer_grn(made, mode="fine_tune", known=known[["tf", "target", "sign"]], max_edges=None, copy=True)
    table = by_name(found)
    seen = set(map(tuple, known[["tf", "target"]].to_numpy()))

    def on_the_rest(frame):
        return grn.evaluate(frame[~frame.index.isin(seen)].reset_index(), rest, 0)

    ours, blind = on_the_rest(table), on_the_rest(by_name(made))
    assert ours["auprc"] > blind["auprc"] and table["score"].between(0, 1).all()
    given = known.set_index(["tf", "target"])["sign"]
    both = table.index.intersection(given.index)
    assert (table.loc[both, "sign"] == given[both]).all()
    assert found.uns["grn"]["regulon"].any() and found.obsm["grn_activity"].shape[1] > 5
    again = tl.infer_grn(
        made[:, ::-1].copy(),
        mode="fine_tune",
        known=known.sample(frac=1)[["tf", "target", "sign"]],
        max_edges=None,
        copy=True,
    )
    pd.testing.assert_frame_equal(by_name(again).sort_index(), table.sort_index())


def test_signs_are_of_what_has_a_sign(made):
    """Unsigned weights, and known edges of one sign alone, leave the others' signs to the expression."""
    truth = made.uns["toy_truth"]["grn"]
    plain = by_name(made)["sign"]
    for mode, options in (
        ("prior", {"prior": truth[["tf", "target"]].assign(weight=0.7)}),
        ("fine_tune", {"known": truth.loc[truth["sign"] > 0, ["tf", "target", "sign"]]}),
    ):
        found = by_name(tl.infer_grn(made, mode=mode, max_edges=None, copy=True, **options))["sign"]
        free = found.index.intersection(plain.index)
        if mode == "fine_tune":
            free = free.difference(pd.MultiIndex.from_frame(truth[["tf", "target"]]))
        assert len(free) > 50 and (found[free] == plain[free]).all()


def test_evidence_of_unknown_sign_does_not_count_against_a_known_one(made):
    tf, target = made.uns["toy_truth"]["grn"].iloc[0][["tf", "target"]]
    found = {}
    for signs in ((-1,), (0, -1), (0, 0, -1), (1, -1)):
        prior = pd.DataFrame({"tf": tf, "target": target, "sign": signs})
        edge = tl.infer_grn(made, mode="prior", prior=prior, copy=True).uns["grn"].iloc[0]
        found[signs] = (edge["score"], edge["sign"])
    assert found[-1,] == found[0, -1] == found[0, 0, -1] and found[-1,][1] == -1
    assert found[1, -1][0] == found[-1,][0]  # contradicted, but an edge


def test_genes_that_no_cell_expresses_have_no_edges(made):
    adata = made.copy()
    x = adata.X.tolil()
    x[:, [1, 4]] = 0
    adata.X = x.tocsr()
    known = made.uns["toy_truth"]["grn"].sample(frac=0.5, random_state=0)
    for options in (
        {"mode": "fine_tune", "known": known[["tf", "target"]]},
        {"mode": "fine_tune", "known": known[["tf", "target", "sign"]]},
        {"mode": "zero_shot"},
    ):
        tl.infer_grn(adata, max_edges=None, **options)
        table = adata.uns["grn"]
        assert set(table["sign"]) == {-1, 1} and len(table) == np.count_nonzero(adata.varp["grn"].data)
        assert not set(adata.var_names[[1, 4]]) & set(table["target"].astype(str))


def test_bad_input(made):
    plain = made.copy()
    del plain.var["is_tf"]
    cases = [
        ({"tfs": ["NOT_A_GENE"]}, ValueError, "None of the 1 tfs"),
        ({"tfs": "NFYA"}, TypeError, "list of names"),
        ({"mode": "magic"}, ValueError, "'magic' is unknown"),
        ({"mode": "prior"}, ValueError, "needs prior="),
        ({"prior": pd.DataFrame({"tf": ["A"], "target": ["B"]})}, ValueError, "takes no prior="),
        ({"mode": "fine_tune"}, ValueError, "needs known="),
        ({"mode": "prior", "prior": pd.DataFrame({"tf": ["A1"], "target": ["B1"]})}, ValueError, "None of the 1 edges"),
        ({"mode": "prior", "prior": pd.DataFrame({"gene": ["A1"]})}, KeyError, "no column"),
        ({"mode": "fine_tune", "known": pd.DataFrame({"tf": ["A1"]})}, KeyError, "known has no column target"),
        ({"mode": "prior", "prior": "edges.csv"}, TypeError, "prior must be a DataFrame, got str"),
        ({"max_edges": 0}, ValueError, "max_edges=0"),
        ({"regulon_size": None}, ValueError, "regulon_size=None"),
        ({"min_confidence": 2}, ValueError, "min_confidence=2"),
        ({"layer": "none"}, KeyError, "none"),
    ]
    before = set(plain.uns)
    for options, error, message in cases:
        with pytest.raises(error, match=message):
            tl.infer_grn(plain, **options)
    assert set(plain.uns) - before <= {"graphfm_genes"}
    with pytest.raises(ValueError, match="at least 3 cells"):
        tl.infer_grn(made[:1].copy())
    one = made.uns["toy_truth"]["grn"][["tf", "target"]].head(1)
    with pytest.raises(ValueError, match="known has 1 edges"):
        tl.infer_grn(made, mode="fine_tune", known=one, copy=True)
    marked = made.copy()
    marked.var["is_tf"] = marked.var["is_tf"].astype(object).where(np.arange(marked.n_vars) > 3, np.nan)
    with pytest.raises(ValueError, match=r"adata\.var\['is_tf'\] must be True or False"):
        tl.infer_grn(marked)
    nobody = made[:, ~made.var["is_tf"]].copy()
    nobody.var_names = [f"thing{i}" for i in range(nobody.n_vars)]
    del nobody.var["is_tf"], nobody.var["graphfm_gene"]
    with pytest.raises(ValueError, match="None of the 105 genes is known as a transcription factor"):
        tl.infer_grn(nobody)
    constant = made[:60].copy()
    constant.X = sp.csr_matrix(np.ones(constant.shape, dtype=np.float32))
    with pytest.raises(ValueError, match="at least 2 genes that vary"):
        tl.infer_grn(constant)
    with pytest.raises(KeyError, match=r"Run graphfm\.tl\.infer_grn"):
        tl.grn_to_networkx(made, key="nothing")


def test_constant_genes_have_no_edges(made):
    adata = made.copy()
    x = adata.X.tolil()
    x[:, [0, 5]] = 0
    adata.X = x.tocsr()
    tl.infer_grn(adata, max_edges=None)
    names = set(adata.uns["grn"]["tf"].astype(str)) | set(adata.uns["grn"]["target"].astype(str))
    assert not names & set(adata.var_names[[0, 5]])


def test_picture(made):
    ax = Figure().add_subplot()
    pl.grn(ax, made)
    tf = made.uns["grn"]["tf"].astype(str).iloc[0]
    assert ax.texts and tf  # the neighbourhood of some factor, by name
    with pytest.raises(KeyError, match=r"not in adata\.var_names"):
        pl.grn(ax, made, "nobody")
    itself = made[:, :3].copy()
    itself.varp["grn"] = sp.csr_matrix([[9.0, 1, 2], [0, 0, 0], [0, 0, 0]])
    pl.grn(ax := Figure().add_subplot(), itself, str(itself.var_names[0]), num_targets=2)
    assert {text.get_text() for text in ax.texts} >= set(itself.var_names)  # what regulates itself takes no place
