"""From AnnData to an embedding: what is written, what is left alone, and what it must not depend on."""

import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
import torch
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from graphfm import GraphFM, genes, io, pp, tl
from graphfm.data.prepare import cell_graph, cell_neighborhood
from graphfm.models.checkpoint import load_tensors
from graphfm.tl.embedding import balance
from graphfm.train import TrainConfig
from tests.small import dense, embedding, lively_model, make_graphs, make_toy

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@cache
def the_model():
    return lively_model()


@cache
def the_toy() -> AnnData:
    return make_graphs()


@cache
def reference() -> np.ndarray:
    """Embedding of the toy by the model."""
    return embedding(the_toy(), the_model())


@pytest.fixture
def toy() -> AnnData:
    return the_toy().copy()


@pytest.fixture
def threads():
    """Number of threads as it was, afterwards."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def snapshot(adata: AnnData) -> dict:
    """Everything that a user may have put into an AnnData, by place."""
    places = {("X", ""): adata.X}
    for name in ("obs", "var", "obsm", "varm", "obsp", "varp", "layers", "uns"):
        mapping = getattr(adata, name)
        places |= {(name, key): mapping[key] for key in mapping}
    return {
        place: dense(value).copy() if hasattr(value, "shape") else repr(value)
        for place, value in places.items()
        if not hasattr(value, "to_numpy") or place[0] in ("obs", "var")
    }


def assert_kept(before: dict, adata: AnnData) -> set:
    """What was there is unchanged; returns the places that are new."""
    after = snapshot(adata)
    for place, value in before.items():
        assert np.array_equal(value, after[place]) if isinstance(value, np.ndarray) else value == after[place], place
    return set(after) - set(before)


# what is written


def test_writes_the_documented_keys_and_nothing_else():
    adata = make_toy()
    adata.layers["mine"] = adata.X.copy()
    before, kind = snapshot(adata), type(adata.X)
    assert tl.embed(adata, the_model()) is None
    assert assert_kept(before, adata) == {
        ("obsm", "X_graphfm"),
        ("uns", "X_graphfm"),
        ("var", "graphfm_gene"),
        ("uns", "graphfm_genes"),
        ("obsm", "X_pca"),
        ("varm", "PCs"),
        ("obsp", "connectivities"),
        ("obsp", "distances"),
        ("uns", "neighbors"),
    }
    x = adata.obsm["X_graphfm"]
    assert type(adata.X) is kind and x.shape == (60, 64) and x.dtype == np.float32 and np.isfinite(x).all()
    assert adata.uns["X_graphfm"] == {
        "relations": ["knn"],
        "layer": "X",
        "kind": "counts",
        "weigh": True,
        "num_layers": 2,
        "vocabulary": genes.vocabulary().version,
    }


def test_copy_leaves_the_input_alone(toy):
    before = snapshot(toy)
    result = tl.embed(toy, the_model(), copy=True)
    assert assert_kept(before, toy) == set()
    assert assert_kept(before, result) == {
        ("obsm", "X_graphfm"),
        ("uns", "X_graphfm"),
        ("var", "graphfm_gene"),
        ("uns", "graphfm_genes"),
    }


def test_key_added(toy):
    tl.embed(toy, the_model())
    tl.embed(toy, lively_model(1), key_added="other")
    assert np.array_equal(toy.obsm["X_graphfm"], reference())
    assert np.abs(toy.obsm["other"] - reference()).max() > 0.1 and "other" in toy.uns
    for key in ("X_pca", "spatial", "neighbors"):
        before = snapshot(toy)
        with pytest.raises(ValueError, match=f"key_added='{key}' would overwrite"):
            tl.embed(toy, the_model(), key_added=key)
        assert assert_kept(before, toy) == set()


def test_result_and_parameters_survive_a_file(toy, tmp_path):
    tl.embed(toy, the_model(), relations=("knn",))
    io.write(toy, tmp_path / "a.h5ad")
    back = io.read(tmp_path / "a.h5ad")
    assert np.array_equal(back.obsm["X_graphfm"], toy.obsm["X_graphfm"])
    assert list(back.uns["X_graphfm"]["relations"]) == ["knn"]
    # and what was read is embedded as what was written, alignment and all
    assert np.array_equal(embedding(back, the_model()), reference())


def test_shipped_weights(toy):
    model = GraphFM.from_pretrained()
    tl.embed(toy)
    assert toy.obsm["X_graphfm"].shape == (60, 2 * model.config.dim)
    assert np.array_equal(toy.obsm["X_graphfm"], embedding(toy, model))
    assert toy.uns["X_graphfm"]["vocabulary"] == genes.vocabulary().version


def test_model_as_path_folder_or_object(toy, tmp_path):
    the_model().save_pretrained(tmp_path)
    for model in (tmp_path, str(tmp_path / "model.safetensors")):
        assert np.array_equal(embedding(toy, model), reference())


# what the input may look like

FORMS = {
    "csc": sp.csc_matrix,
    "dense": lambda x: x.toarray(),
    "int64": lambda x: x.toarray().astype(np.int64),
    "sparse int64": lambda x: x.astype(np.int64),
    "float16": lambda x: x.toarray().astype(np.float16),
    "float64": lambda x: x.astype(np.float64),
}


@pytest.mark.parametrize("form", FORMS)
def test_any_matrix_gives_the_same_result(form):
    adata = make_toy()
    adata.X = FORMS[form](adata.X)
    tl.build_graphs(adata, library_key="slide")
    before = snapshot(adata)
    tl.embed(adata, the_model())
    assert_kept(before, adata)
    assert np.array_equal(adata.obsm["X_graphfm"], reference())


def test_layer_beside_other_values(toy):
    toy.layers["counts"], toy.X = toy.X, io.expression(toy)
    assert np.array_equal(embedding(toy, the_model(), layer="counts"), reference())
    toy.X = None
    assert np.array_equal(embedding(toy, the_model(), layer="counts"), reference())


def test_log1p_and_normalized_kinds(toy):
    logged = toy.copy()
    logged.X = io.expression(toy)
    x = embedding(logged, the_model(), kind="log1p")
    # the library size is unknown, the rest is the same
    assert x.shape == reference().shape and np.isfinite(x).all()
    plain = tl.new_model("tiny")
    assert np.allclose(embedding(logged, plain, kind="log1p"), embedding(toy, plain), atol=1e-5)
    scaled = toy.copy()
    scaled.X = toy.X * 0.37
    logged.X = io.expression(toy, target_sum=1e4)
    assert np.allclose(embedding(scaled, plain, kind="normalized"), embedding(logged, plain, kind="log1p"), atol=1e-4)


def test_views_and_backed_files(toy, tmp_path):
    rows, columns = np.arange(0, 60, 2), np.arange(5, 40)
    part = make_toy()[rows][:, columns].copy()
    tl.embed(part, the_model())
    view = make_toy()[rows][:, columns]
    tl.embed(view, the_model())
    assert np.array_equal(view.obsm["X_graphfm"], part.obsm["X_graphfm"])
    whole = make_toy()
    before = snapshot(whole)
    assert np.array_equal(embedding(whole[rows][:, columns], the_model()), part.obsm["X_graphfm"])
    assert assert_kept(before, whole) == set()

    import anndata

    make_toy().write_h5ad(tmp_path / "a.h5ad")
    content = (tmp_path / "a.h5ad").read_bytes()
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    copied = tl.embed(backed[rows, columns], the_model(), copy=True)
    assert not copied.isbacked and np.array_equal(copied.obsm["X_graphfm"], part.obsm["X_graphfm"])
    with pytest.raises(ValueError, match=r"view of a backed file.*copy=True"):
        tl.embed(backed[rows], the_model())
    tl.build_graphs(backed, library_key="slide")
    tl.embed(backed, the_model())
    assert np.array_equal(backed.obsm["X_graphfm"], reference())
    backed.file.close()
    assert (tmp_path / "a.h5ad").read_bytes() == content


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_a_matrix_in_a_file_is_read_in_chunks_and_gives_the_same(suffix, tmp_path, monkeypatch):
    from graphfm import io
    from graphfm.train import TrainConfig

    monkeypatch.setattr("graphfm.io.matrix._CHUNK_VALUES", 100)  # 40 cells
    config = TrainConfig(steps=3, tile_size=8)
    memory, path = make_toy(num_cells=90), tmp_path / f"a{suffix}"
    io.write(memory, path)

    def whole(*arguments, **options):
        raise AssertionError("the whole matrix was read")

    monkeypatch.setattr("anndata._core.sparse_dataset.BaseCompressedSparseDataset.to_memory", whole)
    lazy = io.read(path, lazy=True)
    states = []
    for adata, out in ((lazy, "lazy"), (memory, "memory")):
        tl.pretrain({"a/b": adata}, tmp_path / out, size="tiny", config=config, library_key="slide")
        tl.embed(adata, tmp_path / out)
        states.append(adata.obsm["X_graphfm"])
    assert np.array_equal(*states)
    assert np.array_equal(lazy.obsm["X_pca"], memory.obsm["X_pca"])
    assert lazy.shape == (90, 40)


def test_containers(toy):
    from mudata import MuData
    from spatialdata import SpatialData
    from spatialdata.models import TableModel

    for container, inside in (
        (MuData({"rna": toy.copy()}), lambda c: c.mod["rna"]),
        (SpatialData(tables={"cells": TableModel.parse(toy.copy())}), lambda c: c.tables["cells"]),
    ):
        tl.embed(container, the_model())
        assert np.array_equal(inside(container).obsm["X_graphfm"], reference())
        assert isinstance(tl.embed(container, the_model(), copy=True), AnnData)
    two = MuData({"rna": toy.copy(), "atac": toy.copy()})
    for call in (lambda: tl.embed(two, the_model()), lambda: tl.build_graphs(two)):
        with pytest.raises(ValueError, match="2 modalities"):
            call()
    with pytest.raises(TypeError, match="DataFrame"):
        tl.embed(toy.obs, the_model())


def test_other_organism_and_alignment_that_is_there(toy, caplog):
    toy.var_names = [f"worm-{i}" for i in range(toy.n_vars)]
    del toy.var["gene_ids"]
    with pytest.raises(ValueError, match='organism="other"'):
        tl.embed(toy, the_model())
    tl.embed(toy, the_model(), organism="other")
    first = toy.obsm["X_graphfm"]
    assert (toy.var["graphfm_gene"] == -1).all() and np.linalg.matrix_rank(first - first.mean(0)) > 10
    # the names decide, not the order they come in
    flipped = toy[:, ::-1].copy()
    assert np.allclose(embedding(flipped, the_model(), organism="other"), first, atol=1e-5)
    # "auto" keeps what is there
    assert np.array_equal(embedding(toy, the_model()), first)


def test_stale_alignment_is_made_anew(toy):
    tl.embed(toy, the_model())
    rows = toy.var["graphfm_gene"].to_numpy()
    other = tl.embed(toy, the_model(), organism="other", copy=True)
    assert (other.var["graphfm_gene"] == -1).all() and other.uns["graphfm_genes"]["organism"] == "other"
    back = tl.embed(other, the_model(), organism="human", copy=True)
    assert np.array_equal(back.var["graphfm_gene"], rows) and np.array_equal(back.obsm["X_graphfm"], reference())
    older = toy.copy()
    older.var["graphfm_gene"] = np.arange(older.n_vars)
    older.uns["graphfm_genes"] = {**older.uns["graphfm_genes"], "vocabulary_version": "older"}
    unsaid = toy.copy()
    unsaid.var["graphfm_gene"] = np.where(np.arange(40) % 2, rows, np.nan)
    for adata in (older, unsaid):
        tl.embed(adata, the_model())
        assert np.array_equal(adata.var["graphfm_gene"], rows)
        assert np.array_equal(adata.obsm["X_graphfm"], reference())


def test_axes_that_lost_genes_are_made_anew(toy):
    part = toy[:, :25].copy()
    fresh = part.copy()
    del fresh.obsm["X_pca"], fresh.varm["PCs"]
    assert np.array_equal(embedding(part, the_model()), embedding(fresh, the_model()))
    empty = toy.copy()
    empty.varm["PCs"] = np.full_like(empty.varm["PCs"], np.nan)
    assert np.allclose(embedding(empty, the_model()), reference(), atol=1e-4)


# what it must not depend on


@given(st.integers(1, 70), st.sampled_from((1, 2, 4)))
@settings(max_examples=25, deadline=None)
def test_tiles_and_threads_change_nothing(tile_size, count):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count)
        result = embedding(the_toy(), the_model(), tile_size=tile_size)
    finally:
        torch.set_num_threads(before)
    assert np.abs(result - reference()).max() < 1e-6 * np.abs(reference()).max()


@given(st.randoms(use_true_random=False))
@settings(max_examples=10, deadline=None)
def test_permuting_cells_permutes_the_embedding(random):
    order = random.sample(range(the_toy().n_obs), the_toy().n_obs)
    assert np.abs(embedding(the_toy()[order].copy(), the_model()) - reference()[order]).max() < 1e-5


@given(st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_how_deeply_a_cell_was_sequenced_changes_nothing(seed):
    factors = sp.diags_array(np.random.default_rng(seed).integers(1, 10, the_toy().n_obs))
    deep, deeper = the_toy().copy(), the_toy().copy()
    deep.X = sp.csr_matrix(the_toy().X) * 1000  # so that both medians are above what totals are brought to
    deeper.X = sp.csr_matrix(factors @ deep.X)
    assert np.abs(embedding(deep, the_model()) - embedding(deeper, the_model())).max() < 1e-5


@given(st.randoms(use_true_random=False))
@settings(max_examples=10, deadline=None)
def test_order_of_genes_changes_nothing(random):
    order = random.sample(range(the_toy().n_vars), the_toy().n_vars)
    assert np.abs(embedding(the_toy()[:, order].copy(), the_model()) - reference()).max() < 1e-5


@given(st.floats(0, 6.3), st.booleans(), st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
@settings(max_examples=10, deadline=None)
def test_rotating_and_shifting_the_tissue_changes_nothing(angle, mirrored, dx, dy):
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    rotation[:, 0] *= -1 if mirrored else 1
    moved = the_toy().copy()
    moved.obsm["spatial"] = moved.obsm["spatial"] @ rotation.T + [dx, dy]
    pp.spatial_graph(moved, library_key="slide")
    assert np.abs(embedding(moved, the_model()) - reference()).max() < 1e-4


def test_same_result_in_another_process(tmp_path):
    the_toy().write_h5ad(tmp_path / "toy.h5ad")
    script = (
        "import sys, numpy as np\n"
        "from graphfm import io, tl\n"
        "from graphfm.train import TrainConfig\n"
        "from tests.small import embedding, lively_model\n"
        "adata = io.read(sys.argv[1] + '/toy.h5ad')\n"
        "np.save(sys.argv[1] + '/x.npy', embedding(adata, lively_model()))\n"
        "tl.pretrain({'toy': adata}, sys.argv[1] + '/run', size='tiny', config=TrainConfig(steps=3))\n"
    )
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path)],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert np.array_equal(np.load(tmp_path / "x.npy"), reference())
    tl.pretrain({"toy": the_toy().copy()}, tmp_path / "here", size="tiny", config=TrainConfig(steps=3))
    there, here = (load_tensors(tmp_path / run / "model.safetensors")[0] for run in ("run", "here"))
    assert there.keys() == here.keys() and all(torch.equal(there[name], here[name]) for name in here)


# graphs


def test_isolated_cells_see_nobody(toy):
    for key in ("connectivities", "spatial_connectivities"):
        kept = sp.diags((np.arange(60) >= 5).astype(np.float32))
        toy.obsp[key] = (kept @ toy.obsp[key] @ kept).tocsr()
    alone = toy.copy()
    for key in ("connectivities", "spatial_connectivities"):
        alone.obsp[key] = sp.csr_matrix((60, 60), dtype=np.float32)
    x, lonely = (embedding(adata, the_model(), weigh=False) for adata in (toy, alone))
    assert np.isfinite(x).all() and np.isfinite(lonely).all()
    assert np.abs(x[:5] - lonely[:5]).max() < 1e-6 < np.abs(x[5:] - lonely[5:]).min(axis=1).max()


def test_slides_are_never_joined():
    adata = make_toy(num_cells=90)
    # both slides in one frame, so that distance alone would join them
    adata.obsm["spatial"] = adata.obsm["spatial"] - adata.obsm["spatial"].min(0)
    tl.build_graphs(adata, library_key="slide")
    slide = adata.obs["slide"].cat.codes.to_numpy()
    assert len(set(slide)) == 2
    table = cell_neighborhood(adata, relations=("spatial",))
    edge = (table.weight > 0).numpy()
    rows = np.repeat(np.arange(90), edge.sum(1))
    assert edge.sum() > 8 * 90 and np.array_equal(slide[rows], slide[table.index.numpy()[edge]])
    # what is in one slide does not reach the other (lengths are in units of their mean over all slides: leave them out)
    del adata.obsp["spatial_distances"]
    x = embedding(adata, the_model(), relations=("spatial",), weigh=False)
    first = sp.diags((slide == 0).astype(np.float32))
    adata.obsp["spatial_connectivities"] = (first @ adata.obsp["spatial_connectivities"]).tocsr()
    changed = embedding(adata, the_model(), relations=("spatial",), weigh=False)
    assert np.abs(x - changed)[slide == 0].max() < 1e-6 and np.abs(x - changed)[slide == 1].max() > 1e-3


def test_relations_are_chosen(toy):
    both, knn, spatial = (embedding(toy, the_model(), relations=r) for r in (None, ("knn",), ["spatial"]))
    assert np.array_equal(both, reference())
    assert min(np.abs(both - knn).max(), np.abs(both - spatial).max(), np.abs(knn - spatial).max()) > 1e-2


def test_graphs_that_are_there_are_kept(toy, caplog):
    before = snapshot(toy)
    with caplog.at_level("INFO", logger="graphfm"):
        tl.build_graphs(toy, library_key="slide")
    assert assert_kept(before, toy) == set() and "library_key='slide' has no effect" in caplog.text


def test_a_graph_of_the_embedding_is_told_of(toy, caplog):
    sc.pp.neighbors(toy, n_neighbors=5)
    tl.embed(toy, key_added="X_graphfm")
    assert not [line for line in caplog.messages if "is a graph of" in line]
    sc.pp.neighbors(toy, use_rep="X_graphfm", n_neighbors=5)
    tl.embed(toy)
    assert [line for line in caplog.messages if "is a graph of 'X_graphfm'" in line]


def test_graphs_of_any_kind(toy):
    for change in (lambda c: c.toarray(), lambda c: c > 0, lambda c: c.astype(np.float64), lambda c: c.tocoo().tocsc()):
        other = toy.copy()
        other.obsp["connectivities"] = change(toy.obsp["connectivities"])
        assert np.isfinite(embedding(other, the_model())).all()


# sizes


@pytest.mark.parametrize("shape", [(3, 40), (3, 2), (3, 1), (10, 40), (60, 2), (60, 1)])
def test_tiny_data(shape, caplog):
    adata = make_toy()[: shape[0], : shape[1]].copy()
    tl.build_graphs(adata)
    tl.embed(adata, the_model())
    assert adata.obsm["X_graphfm"].shape == (shape[0], 64) and np.isfinite(adata.obsm["X_graphfm"]).all()
    # without components of their own in the data
    del adata.obsm["X_pca"], adata.varm["PCs"]
    assert np.isfinite(embedding(adata, the_model())).all()


def test_tiny_data_can_be_trained_on(tmp_path):
    parts = {"few": make_toy()[:3, :2].copy(), "one gene": make_toy()[:, :1].copy()}
    model = tl.pretrain(parts, tmp_path, size="tiny", config=TrainConfig(steps=2))
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_empty_cells_empty_and_constant_genes_duplicated_names():
    adata = make_toy()
    x = adata.X.toarray()
    x[4], x[:, 6], x[:, 7] = 0, 0, 2
    x[4, 7] = 0
    adata.X = sp.csr_matrix(x)
    names = adata.var_names.to_numpy().copy()
    names[3] = names[2]
    adata.var_names = names
    adata.obs_names = ["cell"] * 60
    tl.build_graphs(adata, library_key="slide")
    tl.embed(adata, the_model())
    assert np.isfinite(adata.obsm["X_graphfm"]).all() and list(adata.obs_names) == ["cell"] * 60
    assert adata.var["graphfm_gene"].iloc[2] == adata.var["graphfm_gene"].iloc[3] >= 0


def test_one_cell_type():
    rng = np.random.default_rng(0)
    source = make_toy()
    adata = AnnData(sp.csr_matrix(rng.poisson(2.0, size=(60, 40)).astype(np.float32)), var=source.var)
    tl.embed(adata, the_model())
    assert np.isfinite(adata.obsm["X_graphfm"]).all()


def test_identical_cells():
    adata = make_toy()
    adata.X = sp.csr_matrix(np.repeat(np.arange(6), 10)[:, None] + np.arange(40)[None], dtype=np.float32)
    tl.embed(adata, the_model())
    assert np.isfinite(adata.obsm["X_graphfm"]).all()


# states, models, training


def test_layer_states_end_in_the_embedding(toy):
    genes.align_genes(toy)
    states = list(tl.layer_states(the_model(), cell_graph(toy)))
    assert len(states) == 3 and np.array_equal(states[-1].numpy(), embedding(toy, the_model(), weigh=False))
    assert [state.shape[1] for state in states] == [32, 64, 64]  # the stem, then carrier and reader


def test_weighing_turns_the_carrier_and_standardises_the_reader(toy):
    plain, weighed = (embedding(toy, the_model(), weigh=weigh).astype(np.float64) for weigh in (False, True))
    spread = plain[:, :32].var(axis=0).sum()
    assert np.isclose(spread, weighed[:, :32].var(axis=0).sum())
    expected = plain[:, :32] @ the_model().weighing(cell_graph(toy, with_expression=False)).double().numpy()
    assert np.corrcoef(expected.ravel(), weighed[:, :32].ravel())[0, 1] > 1 - 1e-9
    standardised = StandardScaler().fit_transform(plain[:, 32:]) * np.sqrt(spread / 32)
    np.testing.assert_allclose(weighed[:, 32:], standardised, atol=1e-3)
    knn = embedding(toy, the_model(), relations=("knn",))
    assert np.isclose(knn[:, 32:].var(axis=0).sum(), 0.01 * knn[:, :32].var(axis=0).sum())
    assert not np.allclose(plain, weighed, atol=1e-2)


@pytest.mark.parametrize("silent", [0, 3, 8])
def test_channels_of_the_reader_that_tell_nothing_stay_nothing(silent):
    states = np.random.default_rng(0).normal(2.0, 1.0, (50, 16)).astype(np.float32)
    states[:, 8 : 8 + silent] = 1.25
    spread = states[:, :8].var(axis=0).sum()
    balance(states, np.eye(8, dtype=np.float32), 0.5)
    assert not states[:, 8 : 8 + silent].any()
    assert np.isclose(states[:, 8:].var(axis=0).sum(), spread / 4 if silent < 8 else 0.0, rtol=1e-4)


def test_new_model_follows_from_its_seed():
    state = torch.get_rng_state()
    first, again, other = tl.new_model("tiny", seed=3), tl.new_model("tiny", seed=3), tl.new_model("tiny", seed=4)
    assert torch.equal(state, torch.get_rng_state())
    pairs = list(zip(first.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs) and not all(torch.equal(a, c) for a, _, c in pairs)
    with pytest.raises(ValueError, match="size='huge'"):
        tl.new_model("huge")


def test_pretrain_then_embed(tmp_path):
    adata = make_toy()
    before = snapshot(adata)
    config = TrainConfig(steps=3, tile_size=16, tiles_per_batch=2)
    model = tl.pretrain({"mine": adata}, tmp_path / "run", size="tiny", config=config, library_key="slide")
    assert_kept(before, adata)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "log.jsonl",
        "model.safetensors",
        "training.safetensors",
    }
    assert np.array_equal(embedding(adata, model), embedding(adata, tmp_path / "run"))
    # the data decide nothing that their form does not: the same weights from any matrix, view or file
    for name, form in {"csc": sp.csc_matrix, "float16": FORMS["float16"]}.items():
        other = make_toy()
        other.X = form(other.X)
        again = tl.pretrain({"mine": other[:]}, tmp_path / name, size="tiny", config=config, library_key="slide")
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_pretrain_goes_on_from_given_weights(tmp_path):
    start = lively_model(5)
    model = tl.pretrain({"a": the_toy().copy()}, tmp_path, model=start, config=TrainConfig(steps=1, lr=1e-9))
    pairs = zip(model.parameters(), lively_model(5).parameters(), strict=True)
    assert model is start and all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)


@pytest.mark.slow
def test_tiles_and_threads_on_real_tissue(mirror, threads):
    adata = io.read(mirror / "h5ad" / "dlpfc_151673.h5ad")
    tl.build_graphs(adata)
    model = lively_model()
    torch.set_num_threads(1)
    expected, half = embedding(adata, model), model.config.dim
    plain = embedding(adata, model, weigh=False)
    gain = np.maximum(expected[:, half:].std(axis=0) / plain[:, half:].std(axis=0), 1)
    for tile_size, count in ((8192, 2), (8192, 4), (1000, 1), (257, 2), (64, 4)):
        torch.set_num_threads(count)
        difference = np.abs(embedding(adata, model, tile_size=tile_size) - expected)
        # the reader is scaled up, and its rounding with it
        assert difference[:, :half].max() < 1e-6 and (difference[:, half:] / gain).max() < 1e-6, (tile_size, count)
    order = np.random.default_rng(0).permutation(adata.n_obs)
    assert np.abs(embedding(adata[order].copy(), model) - expected[order]).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("celegans_l2", {"organism": "other"}),
        ("kang_scgen_valid_lognorm", {"kind": "log1p"}),
        ("merfish_hypothalamus_2slices", {"kind": "normalized"}),
        ("osmfish_ssctx", {}),
        ("celltypist_sample", {}),
        ("xenium_mouse_brain", {}),
    ],
)
def test_real_data(mirror, name, options):
    adata = io.read(mirror / "h5ad" / f"{name}.h5ad")[:1500].copy()
    tl.embed(adata, **options)
    assert np.isfinite(adata.obsm["X_graphfm"]).all()
