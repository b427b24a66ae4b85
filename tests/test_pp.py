"""The graphs of a data set, against slow references."""

import logging

import anndata as ad
import networkx as nx
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfm import io, pp
from graphfm.data import from_hetero, table_to_csr
from graphfm.pp import knn, regulatory
from graphfm.pp.correlation import strongest_correlations
from graphfm.pp.search import ApproximateNeighbors

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    rate = np.exp(rng.normal(size=(3, 40)))[rng.integers(3, size=90)]
    data = AnnData(sp.csr_matrix(rng.poisson(rate).astype(np.float32)))
    data.obs_names = [f"c{i}" for i in range(90)]
    data.var_names = [f"Gene{i}" for i in range(40)]
    data.obsm["spatial"] = rng.uniform(0, 100, size=(90, 2))
    return data


def neighbor_sets(matrix) -> list[set[int]]:
    return [set(matrix[i].indices.tolist()) for i in range(matrix.shape[0])]


def nearest(points: np.ndarray, k: int) -> list[set[int]]:
    length = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(length, np.inf)
    return [set(np.argsort(row)[:k].tolist()) for row in length]


# knn


def test_knn_is_exact_and_leaves_the_rest_alone(adata):
    before = adata.copy()
    assert pp.knn_graph(adata, n_neighbors=7) is None
    assert (adata.X != before.X).nnz == 0 and set(adata.obsm) == {"spatial", "X_pca"}
    assert list(adata.obs) == [] and list(adata.var) == [] and not adata.layers
    # scanpy counts the cell itself
    assert neighbor_sets(adata.obsp["distances"]) == nearest(adata.obsm["X_pca"].astype(np.float64), 6)
    weights = adata.obsp["connectivities"]
    assert abs(weights - weights.T).max() < 1e-6 and weights.data.min() > 0 and weights.data.max() <= 1
    assert adata.uns["neighbors"]["params"]["n_neighbors"] == 7


def test_pca_is_that_of_log_expression(adata):
    pp.knn_graph(adata, n_pcs=5)
    dense = io.expression(adata).toarray().astype(np.float64)
    dense -= dense.mean(0)
    _, _, axes = np.linalg.svd(dense, full_matrices=False)
    assert np.allclose(np.abs(adata.obsm["X_pca"]), np.abs(dense @ axes[:5].T), atol=1e-3)
    assert np.allclose(dense @ adata.varm["PCs"], adata.obsm["X_pca"], atol=1e-3)


def test_knn_is_deterministic_and_takes_other_inputs(adata, caplog):
    one, two = (pp.knn_graph(adata, copy=True, seed=3) for _ in range(2))
    assert "connectivities" not in adata.obsp
    assert np.array_equal(one.obsm["X_pca"], two.obsm["X_pca"])
    assert (one.obsp["connectivities"] != two.obsp["connectivities"]).nnz == 0
    with caplog.at_level(logging.INFO):
        logged = AnnData(np.zeros(adata.shape), layers={"log": io.expression(adata)})
        pp.knn_graph(logged, layer="log", kind="log1p", seed=3)
    assert "n_pcs=50 is more than" in caplog.text
    assert np.allclose(logged.obsm["X_pca"], one.obsm["X_pca"], atol=1e-4)
    view = one[10:60].copy()
    del view.obsm["X_pca"]
    pp.knn_graph(one[10:60], key_added="mine", use_rep="spatial", n_neighbors=5)
    pp.knn_graph(one, key_added="mine", use_rep="spatial", n_neighbors=5)
    assert neighbor_sets(one.obsp["mine_distances"]) == nearest(one.obsm["spatial"], 4)
    assert one.uns["mine"]["connectivities_key"] == "mine_connectivities"


@pytest.mark.slow
def test_approximate_search(monkeypatch):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(400, 4))
    data = AnnData(np.zeros((400, 1)), obsm={"points": points})
    pp.knn_graph(data, use_rep="points", key_added="exact")
    monkeypatch.setattr(knn, "EXACT_CELLS", 10)
    monkeypatch.setattr("graphfm.pp.search.RECALL_CELLS", 400)
    for key in ("a", "b"):
        pp.knn_graph(data, use_rep="points", key_added=key)
    assert (data.obsp["a_connectivities"] != data.obsp["b_connectivities"]).nnz == 0
    assert (np.diff(data.obsp["a_distances"].indptr) == 14).all() and data.obsp["a_distances"].diagonal().sum() == 0
    approximate, exact = neighbor_sets(data.obsp["a_distances"]), neighbor_sets(data.obsp["exact_distances"])
    shared = [len(x & y) for x, y in zip(approximate, exact, strict=True)]
    assert np.mean(shared) > 13.5
    assert data.uns["a"]["params"]["recall"] == pytest.approx(np.mean(shared) / 14)


def test_recall_counts_what_was_found():
    points = np.random.default_rng(0).normal(size=(50, 3))
    points[:7] = 100  # all in one place
    found = np.array([[j for j in np.argsort(((points - x) ** 2).sum(1)) if j != i][:6] for i, x in enumerate(points)])
    search = ApproximateNeighbors(n_neighbors=7, metric="euclidean", seed=0)
    assert search._recall(points, np.sort(found)[:, ::-1]) == 1
    found[:, 3:] = np.arange(50)[:, None]
    assert search._recall(points, found) == pytest.approx(0.5, abs=0.05)


def test_variable_genes(caplog):
    rng = np.random.default_rng(0)
    wide = AnnData(sp.random(60, 2300, density=0.2, random_state=0, data_rvs=lambda n: rng.integers(1, 9, n)).tocsr())
    pp.knn_graph(wide)
    assert (np.abs(wide.varm["PCs"]).sum(1) > 0).sum() == 2000
    # all means alike: no bins to speak of
    odd = np.zeros((20, 2100))
    odd[np.arange(2100) % 20, np.arange(2100)] = 1
    odd = AnnData(sp.csr_matrix(odd))
    pp.knn_graph(odd, n_neighbors=4)
    assert odd.obsm["X_pca"].shape[0] == 20 and np.isfinite(odd.obsm["X_pca"]).all()


def test_tiny_and_empty(adata):
    dense = adata.X.toarray()
    for x in (dense[:4], dense[:5, :1], dense[:5, :2], np.vstack([dense[:6], np.zeros((3, 40))])):
        data = AnnData(x)
        pp.knn_graph(data, n_neighbors=3)
        assert np.isfinite(data.obsm["X_pca"]).all() and data.obsp["connectivities"].shape == (len(x), len(x))
    with pytest.raises(ValueError, match="No gene varies"):
        pp.knn_graph(AnnData(np.ones((6, 4))), n_neighbors=3)


def test_knn_errors(adata):
    with pytest.raises(ValueError, match=r"n_neighbors=90 .*n_obs=90.*n_neighbors=15"):
        pp.knn_graph(adata, n_neighbors=90)
    with pytest.raises(ValueError, match="n_neighbors=1 "):
        pp.knn_graph(adata, n_neighbors=1)
    with pytest.raises(KeyError, match=r"'X_none'.*found: 'spatial'"):
        pp.knn_graph(adata, use_rep="X_none")
    adata.obsm["bad"] = np.full((90, 2), np.nan)
    with pytest.raises(ValueError, match="NaN or infinite values in 90 cells"):
        pp.knn_graph(adata, use_rep="bad")
    with pytest.raises(ValueError, match="n_pcs=0"):
        pp.knn_graph(adata, n_pcs=0)
    pp.knn_graph(adata)
    with pytest.raises(ValueError, match="n_pcs=-1"):
        pp.knn_graph(adata, n_pcs=-1)
    with pytest.raises(KeyError, match="'spliced'"):
        pp.knn_graph(adata, layer="spliced")


# spatial


def test_spatial_knn_and_radius(adata):
    points = adata.obsm["spatial"]
    assert pp.spatial_graph(adata, n_neighbors=5) is None
    assert neighbor_sets(adata.obsp["spatial_connectivities"]) == nearest(points, 5)
    pp.spatial_graph(adata, kind="radius", radius=12, key_added="near")
    length = np.linalg.norm(points[:, None] - points[None], axis=-1)
    expected = (length <= 12) & ~np.eye(90, dtype=bool)
    assert np.array_equal(adata.obsp["near_connectivities"].toarray() > 0, expected)
    assert np.allclose(adata.obsp["near_distances"].toarray(), length * expected)
    assert adata.uns["near_neighbors"]["params"] == {"kind": "radius", "spatial_key": "spatial", "radius": 12.0}
    pp.spatial_graph(adata, kind="radius", radius=(5, 12), key_added="ring")
    assert np.array_equal(adata.obsp["ring_connectivities"].toarray() > 0, expected & (length >= 5))


def test_spatial_delaunay(adata):
    from scipy.spatial import Delaunay

    points = adata.obsm["spatial"]
    expected = np.zeros((90, 90), dtype=bool)
    for a, b, c in Delaunay(points).simplices:
        expected[[a, b, c, b, c, a], [b, c, a, a, b, c]] = True
    pp.spatial_graph(adata, kind="delaunay")
    assert np.array_equal(adata.obsp["spatial_connectivities"].toarray() > 0, expected)
    pp.spatial_graph(adata, kind="delaunay", radius=9.0)
    short = adata.obsp["spatial_connectivities"].toarray() > 0
    length = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert np.array_equal(short, expected & (length <= 9))


def test_spatial_grid():
    size = 6
    reference = nx.convert_node_labels_to_integers(nx.grid_2d_graph(size, size), ordering="sorted")
    points = np.array([(i, j) for i in range(size) for j in range(size)], dtype=float)
    data = AnnData(np.zeros((size**2, 1)), obsm={"spatial": points})
    pp.spatial_graph(data, kind="grid", n_neighbors=4)
    expected = nx.to_numpy_array(reference, nodelist=range(size**2)) > 0
    # squidpy cuts at 1.3 median distances, so that the border has fewer neighbours
    assert np.array_equal(data.obsp["spatial_connectivities"].toarray() > 0, expected)
    pp.spatial_graph(data, kind="grid", n_neighbors=4, n_rings=2)
    steps = dict(nx.all_pairs_shortest_path_length(reference, cutoff=2))
    rings = data.obsp["spatial_distances"].toarray()
    assert all(rings[i, j] == d for i in steps for j, d in steps[i].items())


@pytest.mark.parametrize("options", [{}, {"kind": "radius", "radius": 20}, {"kind": "delaunay"}, {"kind": "grid"}])
def test_slides_are_never_connected(adata, options):
    slide = np.array(["a", "b", "c"])[np.arange(90) % 3]
    adata.obs["slide"] = slide
    pp.spatial_graph(adata, library_key="slide", **options)
    for matrix in (adata.obsp["spatial_connectivities"], adata.obsp["spatial_distances"]):
        rows, columns = matrix.nonzero()
        assert len(rows) and (slide[rows] == slide[columns]).all()
    # each slide as if it were alone
    whole = adata.obsp["spatial_connectivities"].toarray()
    for name in "abc":
        part = pp.spatial_graph(adata[adata.obs["slide"] == name], copy=True, **options)
        assert np.array_equal(part.obsp["spatial_connectivities"].toarray(), whole[slide == name][:, slide == name])
    assert not isinstance(adata.obs["slide"].dtype, pd.CategoricalDtype)


def test_spatial_view_with_unused_slides(adata):
    adata.obs["slide"] = pd.Categorical(["a", "b", "c"] * 30)
    view = adata[adata.obs["slide"] != "b"]
    pp.spatial_graph(view, library_key="slide", n_neighbors=4)
    assert view.obsp["spatial_connectivities"].shape == (60, 60) and "spatial_connectivities" not in adata.obsp


def test_shared_and_isolated_places(adata):
    points = adata.obsm["spatial"]
    points[1] = points[2] = points[0]
    points[5] = 1e4
    for options in ({}, {"kind": "radius", "radius": 15.0}, {"kind": "delaunay", "radius": 50.0}):
        pp.spatial_graph(adata, **options)
        matrix = adata.obsp["spatial_connectivities"]
        assert matrix[0, 1] and matrix[2, 1] and np.isfinite(matrix.data).all(), options
        assert (matrix[5].nnz == 0) == ("radius" in options)
    assert np.array_equal(adata.obsm["spatial"], points)
    same = AnnData(np.zeros((12, 1)), obsm={"spatial": np.ones((12, 2))})
    pp.spatial_graph(same, n_neighbors=3)
    assert (np.diff(same.obsp["spatial_connectivities"].indptr) == 3).all()
    assert same.obsp["spatial_connectivities"].diagonal().sum() == 0


def test_many_cells_in_one_place_and_slides_of_another_scale():
    rng = np.random.default_rng(0)
    small, large = rng.uniform(0, 1e-3, (300, 2)), rng.uniform(0, 2e4, (300, 2))
    large[:200] = np.repeat(large[:10], 20, axis=0)
    small[1] = small[0]
    slide = np.repeat(["small", "large"], 300)
    adata = AnnData(np.zeros((600, 1)), obs={"slide": slide}, obsm={"spatial": np.vstack([small, large])})
    pp.spatial_graph(adata, kind="delaunay", library_key="slide")
    near, distance = adata.obsp["spatial_connectivities"], adata.obsp["spatial_distances"]
    assert np.diff(near.indptr).min() > 0
    assert near[0, 1] and distance[0, 1] < 0.01 * np.median(distance[:300].data)


def test_slides_that_were_not_named_are_told_of(adata, caplog):
    adata.obs["slide"] = slide = np.array(["a", "b"])[np.arange(90) % 2]
    adata.obs["sample"] = "one"
    pp.spatial_graph(adata, library_key="slide")
    assert not caplog.records
    pp.spatial_graph(adata)
    matrix = adata.obsp["spatial_connectivities"].tocoo()
    share = 100 * (slide[matrix.row] != slide[matrix.col]).mean()
    assert len(caplog.messages) == 1 and f"{share:.0f} % of the edges" in caplog.text
    assert "pass library_key='slide'" in caplog.text


def test_shared_places_far_from_the_origin():
    points = np.random.default_rng(0).uniform(0, 1000, (400, 2))
    points[:20] = points[20:40]
    adata = AnnData(np.zeros((400, 1)), obsm={"spatial": points})
    pp.spatial_graph(adata, kind="delaunay")
    near = adata.obsp["spatial_connectivities"].copy()
    adata.obsm["spatial"] = points + 1e6
    pp.spatial_graph(adata, kind="delaunay")
    far = adata.obsp["spatial_connectivities"]
    assert np.diff(far.indptr).min() > 0 and (far != near).nnz < 0.02 * near.nnz


def test_spatial_errors(adata):
    with pytest.raises(KeyError, match=r"obsm has no 'xy'.*spatial_key=.*found: 'spatial'"):
        pp.spatial_graph(adata, spatial_key="xy")
    with pytest.raises(KeyError, match="'slide'"):
        pp.spatial_graph(adata, library_key="slide")
    with pytest.raises(ValueError, match="radius is needed"):
        pp.spatial_graph(adata, kind="radius")
    with pytest.raises(ValueError, match="radius=3 has no meaning for kind='knn'"):
        pp.spatial_graph(adata, radius=3)
    with pytest.raises(ValueError, match="n_neighbors=4 has no meaning"):
        pp.spatial_graph(adata, kind="delaunay", n_neighbors=4)
    with pytest.raises(ValueError, match="kind='voronoi'"):
        pp.spatial_graph(adata, kind="voronoi")
    for radius in (0, -1.0, np.nan, (1, 2, 3)):
        with pytest.raises(ValueError, match="positive distance"):
            pp.spatial_graph(adata, kind="radius", radius=radius)
    adata.obs["slide"] = ["a"] * 87 + ["b"] * 3
    with pytest.raises(ValueError, match="'b' has 3"):
        pp.spatial_graph(adata, library_key="slide", n_neighbors=8)
    adata.obs["slide"] = ["a"] * 87 + [None] * 3
    with pytest.raises(ValueError, match="missing for 3 cells"):
        pp.spatial_graph(adata, library_key="slide")
    line = AnnData(np.zeros((9, 1)), obsm={"spatial": np.column_stack([np.arange(9.0), np.arange(9.0)])})
    with pytest.raises(ValueError, match="on one line"):
        pp.spatial_graph(line, kind="delaunay")
    adata.obsm["spatial"][3] = np.nan
    with pytest.raises(ValueError, match="infinite for 1 cells"):
        pp.spatial_graph(adata)
    adata.obsm["spatial"] = np.zeros((90, 5))
    with pytest.raises(ValueError, match="2 or 3 columns"):
        pp.spatial_graph(adata)


def test_spatial_data_container(adata):
    from spatialdata import SpatialData
    from spatialdata.models import TableModel

    container = SpatialData(tables={"table": TableModel.parse(adata)})
    pp.spatial_graph(container)
    assert "spatial_connectivities" in container.tables["table"].obsp


# regulatory


@given(
    st.integers(0, 10**6), st.integers(3, 20), st.integers(1, 12), st.integers(1, 5), st.sampled_from([1, 500, 2**26])
)
@settings(max_examples=60, deadline=None)
def test_correlations_are_those_of_numpy(seed, cells, genes, k, chunk_bytes):
    rng = np.random.default_rng(seed)
    dense = rng.poisson(1.0, size=(cells, genes)) * rng.uniform(0.5, 1, size=(cells, genes))
    dense[:, rng.random(genes) < 0.2] = 1.5
    regulators = np.flatnonzero(rng.random(genes) < 0.7)
    result = strongest_correlations(sp.csr_matrix(dense), regulators, n_neighbors=k, chunk_bytes=chunk_bytes).toarray()
    with np.errstate(invalid="ignore", divide="ignore"):
        full = np.corrcoef(dense.T).reshape(genes, genes)
    full[np.ptp(dense, axis=0) == 0] = 0
    full[:, np.ptp(dense, axis=0) == 0] = 0
    np.fill_diagonal(full, 0)
    allowed = np.zeros(genes, dtype=bool)
    allowed[regulators] = True
    full[~allowed] = 0
    rows, columns = np.nonzero(result)
    assert np.allclose(result[rows, columns], full[rows, columns], atol=1e-6)
    for target in range(genes):
        expected = np.sort(np.abs(full[:, target]))[::-1][:k]
        found = np.sort(np.abs(result[:, target]))[::-1][: len(expected)]
        assert np.allclose(found, expected, atol=1e-6)
        assert (result[:, target] != 0).sum() <= k


def test_planted_regulation(adata):
    rng = np.random.default_rng(1)
    rate = np.full((300, 12), 20.0)
    switch = rng.random(300) < 0.5
    rate[switch, 0], rate[switch, 3], rate[~switch, 4] = 60, 70, 70
    data = AnnData(rng.poisson(rate).astype(np.float32))
    data.var["is_tf"] = np.arange(12) < 3
    pp.regulatory_graph(data, n_neighbors=1)
    network = data.varp["regulatory"]
    assert network[0, 3] > 0.5 and network[0, 4] < -0.5
    assert set(network.nonzero()[0]) <= {0, 1, 2} and data.uns["regulatory"]["n_tfs"] == 3


def test_prior(adata, caplog):
    prior = pd.DataFrame(
        [
            ("GENE1", "Gene2", 1),
            ("Gene1", "gene3", -1),
            ("Gene1", "Nope", 1),
            ("Gene5", "Gene5", 1),
            ("Gene7", "Gene8", 1),
            ("Gene7", "Gene8", -1),
        ],
        columns=["tf", "target", "sign"],
    )
    with caplog.at_level(logging.INFO):
        pp.regulatory_graph(adata, prior=prior, coexpression=False)
    assert "1 genes are not in the data" in caplog.text
    network = adata.varp["regulatory"]
    assert network[1, 2] == 1 and network[1, 3] == -1 and network[5, 5] == 1 and network.nnz == 4
    assert list(adata.uns["regulatory"]["prior_unknown_genes"]) == ["Nope"]
    assert "regulatory_coexpression" not in adata.varp
    both = pp.regulatory_graph(adata, prior=prior, n_neighbors=3, copy=True)
    union, known, found = (
        both.varp[k].toarray() for k in ("regulatory", "regulatory_prior", "regulatory_coexpression")
    )
    assert np.array_equal(union, np.where(known != 0, known, found)) and (found != 0).sum() == 120
    pp.regulatory_graph(both)
    assert "regulatory_prior" not in both.varp
    weighted = prior.rename(columns={"tf": "source"}).drop(columns="sign").assign(weight=[0.5, -2, 1, 0, 3, 1])
    pp.regulatory_graph(adata, prior=weighted, coexpression=None, key_added="mine")
    assert adata.varp["mine"][1, 3] == -2 and adata.varp["mine"][7, 8] == 2 and adata.varp["mine"].nnz == 3


def test_case_fallback_only_where_unambiguous():
    rows = regulatory.match_names(
        pd.Series(["abc", "ABC", "Abc", "xy", "no"]), pd.DataFrame(index=["ABC", "abc", "XY"])
    )
    assert rows.tolist() == [1, 0, -1, 2, -1]


def test_tfs(adata, caplog):
    with caplog.at_level(logging.INFO):
        pp.regulatory_graph(adata, tfs=["gene3", "Gene4", "None1"], n_neighbors=5)
    assert set(adata.varp["regulatory"].nonzero()[0]) == {3, 4} and "1 of 3 are not" in caplog.text
    assert list(adata.uns["regulatory"]["unknown_tfs"]) == ["None1"]


def test_regulatory_errors(adata):
    prior = pd.DataFrame({"source": ["A"], "target": ["B"]})
    with pytest.raises(ValueError, match="None of the 1 edges"):
        pp.regulatory_graph(adata, prior=prior)
    with pytest.raises(KeyError, match="no column target"):
        pp.regulatory_graph(adata, prior=prior[["source"]])
    with pytest.raises(ValueError, match="or both"):
        pp.regulatory_graph(adata, coexpression=None)
    with pytest.raises(ValueError, match="None of the 2 tfs"):
        pp.regulatory_graph(adata, tfs=["A", "B"])
    with pytest.raises(TypeError, match="list of names"):
        pp.regulatory_graph(adata, tfs="Gene1")
    known = pd.DataFrame({"source": ["Gene1"], "target": ["Gene2"]})
    with pytest.raises(ValueError, match=r"\+1, -1 or 0"):
        pp.regulatory_graph(adata, prior=known.assign(sign=2))
    with pytest.raises(ValueError, match="no finite number in 1 of 1"):
        pp.regulatory_graph(adata, prior=known.assign(weight=np.nan))
    with pytest.raises(ValueError, match="without a name"):
        pp.regulatory_graph(adata, prior=known.assign(target=None))
    with pytest.raises(ValueError, match="at least 3 cells"):
        pp.regulatory_graph(adata[:2])
    adata.var_names = ["x"] * 40
    with pytest.raises(ValueError, match="var_names_make_unique"):
        pp.regulatory_graph(adata)


# hetero


def test_hetero_graph(adata):
    pp.knn_graph(adata)
    pp.spatial_graph(adata)
    prior = pd.DataFrame({"source": ["Gene1"], "target": ["Gene2"], "sign": [-1]})
    pp.regulatory_graph(adata, prior=prior)
    data = pp.hetero_graph(adata, top_genes=5)
    assert data["cell"].num_nodes == 90 and data["gene"].num_nodes == 40 and data["cell"].pos.shape == (90, 2)
    tables = {table.relation: table for table in from_hetero(data)}
    assert set(tables) == set(pp.hetero.RELATIONS)
    for name, key in (("knn", "connectivities"), ("spatial", "spatial_connectivities")):
        assert (table_to_csr(tables[name]) != adata.obsp[key]).nnz == 0
        assert tables[name].edge_attr is not None
    assert data["gene", "regulates", "gene"].edge_index.tolist() == [[1], [2]]
    assert data["gene", "regulates", "gene"].edge_weight.tolist() == [-1]
    expected = adata.varp["regulatory_coexpression"].T
    assert (table_to_csr(tables["coexpressed"]) != expected).nnz == 0
    data.validate()


def test_top_genes(adata):
    data = pp.hetero_graph(adata, relations=["expressed_in", "expresses"], top_genes=3)
    values = io.expression(adata).toarray()
    score = values * np.log1p(90 / np.maximum((values > 0).sum(0), 1))
    matrix = table_to_csr(from_hetero(data)[0]).toarray()
    for i in range(90):
        best = [j for j in np.argsort(-score[i], kind="stable")[:3] if score[i, j] > 0]
        assert set(np.flatnonzero(matrix[i])) == set(best)
        assert np.allclose(matrix[i, best], values[i, best])
    assert np.array_equal(table_to_csr(from_hetero(data)[1]).toarray(), matrix.T)


def test_hetero_errors(adata):
    assert [name for _, name, _ in pp.hetero_graph(adata).edge_types] == ["expressed_in", "expresses"]
    with pytest.raises(KeyError, match=r"'spatial_connectivities'.*graphfm.pp.spatial_graph\(adata\) first"):
        pp.hetero_graph(adata, relations=["spatial"])
    with pytest.raises(KeyError, match=r"'regulatory_prior'.*prior="):
        pp.hetero_graph(adata, relations=["regulates"])
    with pytest.raises(ValueError, match="'touches'"):
        pp.hetero_graph(adata, relations=["touches"])
    with pytest.raises(ValueError, match="top_genes=0"):
        pp.hetero_graph(adata, top_genes=0)


def test_all_results_can_be_written(adata, tmp_path):
    pp.knn_graph(adata)
    pp.spatial_graph(adata, kind="radius", radius=(1, 9))
    pp.regulatory_graph(adata, prior=pd.DataFrame({"tf": ["Gene1", "Q"], "target": ["Gene2", "Gene2"]}))
    io.write(adata, tmp_path / "a.h5ad")
    back = io.read(tmp_path / "a.h5ad")
    assert (back.varp["regulatory"] != adata.varp["regulatory"]).nnz == 0
    assert list(back.uns["regulatory"]["prior_unknown_genes"]) == ["Q"]


@pytest.mark.slow
def test_real_slice(mirror):
    adata = io.read(mirror / "h5ad" / "dlpfc_151673.h5ad")
    pp.knn_graph(adata)
    pp.spatial_graph(adata, kind="grid")
    assert neighbor_sets(adata.obsp["distances"][:50]) == [
        set(row)
        for row in np.argsort(
            np.linalg.norm(adata.obsm["X_pca"][:50, None].astype(float) - adata.obsm["X_pca"][None], axis=-1)
        )[:, 1:15].tolist()
    ]
    # spots of Visium stand in a hexagon
    assert 5.5 < adata.obsp["spatial_connectivities"].nnz / adata.n_obs <= 6


def test_a_layer_that_is_not_read_is_not_said_to_be(adata, caplog):
    adata.layers["other"] = adata.X.copy()
    pp.knn_graph(adata, layer="other")
    assert adata.uns["neighbors"]["params"]["layer"] == "other" and "not read" not in caplog.text
    pp.knn_graph(adata, layer="other")
    assert "layer='other' is not read: the graph is of adata.obsm['X_pca']" in caplog.text
    assert "layer" not in adata.uns["neighbors"]["params"]


def test_the_expression_itself_from_a_file(adata, tmp_path):
    io.write(adata, tmp_path / "a.h5ad")
    pp.knn_graph(adata, use_rep="X")
    for stored in (io.read(tmp_path / "a.h5ad", lazy=True), ad.read_h5ad(tmp_path / "a.h5ad", backed="r")):
        pp.knn_graph(stored, use_rep="X")
        assert (stored.obsp["connectivities"] != adata.obsp["connectivities"]).nnz == 0
