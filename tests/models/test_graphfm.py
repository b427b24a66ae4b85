"""Trunk on a data set: stem, exact tiled inference, files."""

import os
import subprocess
import sys
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfm.models.checkpoint import model_metadata
from graphfm.models.graphfm import GraphFM, GraphFMConfig
from graphfm.models.inputs import LEAST_PIECE, pieces_of_tissue
from tests.conftest import make_cells, make_model


def test_stem_is_a_rotation_of_the_principal_components(cells):
    h0 = make_model().stem_cells(cells).detach().numpy()
    dense = cells.expression.toarray()
    scores = (dense - dense.mean(0)) @ cells.loadings.numpy()
    np.testing.assert_allclose(h0 @ h0.T, cells.scale**2 * scores @ scores.T, rtol=1e-3, atol=1e-3)


def tissue_of(neighborhood):
    """Cells of each connected piece of tissue that is large enough, and all others."""
    graph = nx.Graph()
    graph.add_nodes_from(range(len(neighborhood)))
    for i, k in torch.nonzero((neighborhood.weight > 0) & (neighborhood.relation == 1)).tolist():
        graph.add_edge(i, int(neighborhood.index[i, k]))
    pieces = [sorted(piece) for piece in nx.connected_components(graph)]
    rest = [i for piece in pieces if len(piece) < LEAST_PIECE for i in piece]
    return [piece for piece in pieces if len(piece) >= LEAST_PIECE] + [rest] * bool(rest)


def two_slides(cells):
    """The same cells in space, as two halves without an edge from one to the other."""
    first = torch.arange(cells.num_cells) < cells.num_cells // 2
    own = cells.neighborhood
    within = own.weight * (first.unsqueeze(1) == first[own.index])
    return replace(cells, neighborhood=replace(own, weight=within, relation=torch.ones_like(own.relation)))


def without_neighbors(cells):
    """The same cells, of which half have no edge."""
    own = cells.neighborhood
    return replace(cells, neighborhood=replace(own, weight=own.weight * (torch.arange(len(own)) % 2).unsqueeze(1)))


@pytest.mark.parametrize("change", [lambda cells: cells, two_slides, without_neighbors])
def test_components_count_by_what_neighbors_share_within_tissue(cells, change):
    cells = change(cells)
    nb, x = cells.neighborhood, cells.scores.double().numpy()
    a = np.zeros((len(x), len(x)))
    for i in range(len(x)):
        for j, w in zip(nb.index[i].tolist(), nb.weight[i].tolist(), strict=True):
            a[i, j] += w
    y = x.copy()
    for piece in tissue_of(nb):
        y[piece] -= x[piece].mean(0)
    for c, weight in enumerate(cells.component_weight.tolist()):
        shared = max(y[:, c] @ a @ y[:, c] / (x[:, c] @ x[:, c]), 0.01)
        assert weight == pytest.approx(shared / np.sqrt(x[:, c].std()), rel=1e-4)


def test_pieces_of_tissue_are_its_connected_components(cells):
    slides = two_slides(cells).neighborhood
    found, expected = pieces_of_tissue(slides), tissue_of(slides)
    assert len(expected) >= 3
    assert {tuple(np.flatnonzero(found == p)) for p in set(found)} == {tuple(sorted(piece)) for piece in expected}
    without = replace(slides, relation=torch.zeros_like(slides.relation))
    assert set(pieces_of_tissue(without)) == {0}


def test_what_only_tells_slides_apart_does_not_count(cells):
    slides = two_slides(cells)
    shift = torch.zeros_like(cells.scores)
    shift[: cells.num_cells // 2, 3] = 1000.0
    shifted = replace(slides, scores=slides.scores + shift - shift.mean(0))
    no_tissue = replace(slides.neighborhood, relation=torch.zeros_like(slides.neighborhood.relation))
    spread = shifted.scores[:, 3].std(correction=0).sqrt()
    shared = [float(data.component_weight[3] * spread) for data in (shifted, replace(shifted, neighborhood=no_tissue))]
    assert shared[0] < 0.05  # the few cells in pieces too small are of both slides
    most = float(slides.neighborhood.weight.sum(1).mean())  # some of the cells have lost neighbours on the other slide
    assert shared[1] > 0.9 * most > 10 * shared[0]


def test_weighing_carriers_is_weighing_components_before_the_first_layer(cells):
    model = make_model()
    weighted = replace(cells, scores=cells.scores * cells.component_weight)
    carriers = []
    for data in (cells, weighted):
        *_, (z, _) = model.layers(model.stem_cells(data), data.neighborhood, tile_size=64)
        carriers.append(z / data.scale)
    torch.testing.assert_close(carriers[0] @ model.weighing(cells), carriers[1], rtol=1e-3, atol=1e-5)


def test_summaries_of_genes_are_sums_in_double_precision(cells, monkeypatch):
    monkeypatch.setattr("graphfm.models.inputs.CHUNK", 7)
    x = sp.csr_matrix(np.random.default_rng(0).uniform(6, 6.1, size=cells.expression.shape).astype(np.float32))
    data = replace(cells, expression=x)
    dense = x.toarray().astype(np.float64)
    np.testing.assert_allclose(data.mean, dense.mean(0), rtol=1e-7)
    table = np.stack([dense.mean(0), (dense == 0).mean(0), np.log1p(dense.var(0) / dense.mean(0))], axis=1)
    table = (table - table.mean(0)) / np.maximum(table.std(0), 1e-6)
    np.testing.assert_allclose(data.gene_statistics, table, atol=1e-3)
    sums = data.counts.toarray().sum(0) + 0.5
    np.testing.assert_allclose(data.log_share, np.log(sums / float(data.totals.sum())), rtol=1e-6)


def test_dispersion_is_that_of_the_definition(cells):
    y, totals = cells.counts.toarray().astype(float), cells.totals.double().numpy()
    mu = totals[:, None] * ((y.sum(0) + 0.5) / totals.sum())
    phi = np.clip(((y - mu) ** 2 - mu).sum(0) / (mu**2).sum(0), 1e-3, 1e2)
    np.testing.assert_allclose(cells.log_inverse_dispersion, -np.log(phi), rtol=1e-4, atol=1e-4)


def test_stem_does_not_depend_on_the_order_of_genes(cells):
    order = np.random.default_rng(0).permutation(cells.expression.shape[1])
    shuffled = replace(
        cells,
        expression=cells.expression[:, order],
        counts=cells.counts[:, order],
        gene_rows=cells.gene_rows[order],
        gene_names=cells.gene_names[order],
        loadings=cells.loadings[order],
    )
    model = make_model()
    torch.testing.assert_close(model.stem_cells(shuffled), model.stem_cells(cells), atol=1e-4, rtol=1e-4)


def test_genes_that_nobody_knows_still_give_the_principal_components(cells):
    unknown = replace(cells, gene_rows=torch.full_like(cells.gene_rows, -1))
    model = make_model()
    a, b = model.stem_cells(unknown).detach(), model.stem_cells(cells).detach()
    torch.testing.assert_close(a @ a.T, b @ b.T, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("known", [1, 5, 12])
def test_a_few_known_genes_lose_no_component(cells, known):
    rows = cells.gene_rows.clone()
    rows[known:] = -1
    a = make_model().stem_cells(replace(cells, gene_rows=rows)).detach()
    b = make_model().stem_cells(cells).detach()
    torch.testing.assert_close(a @ a.T, b @ b.T, atol=1e-2, rtol=1e-2)


def test_gradient_reaches_the_gene_embeddings(cells):
    model = make_model()
    model.stem_cells(cells)[:, 0].sum().backward()
    assert model.gene_space.embedding.weight.grad.abs().sum() > 0


@settings(max_examples=15, deadline=None)
@given(tile_size=st.integers(1, 200), seed=st.integers(0, 1000))
def test_tiled_inference_is_exact(tile_size, seed):
    cells, model = make_cells(seed=seed), make_model(seed=seed)
    with torch.no_grad():
        h0 = model.stem_cells(cells)
        full = model(h0, cells.neighborhood)
    order = torch.randperm(cells.num_cells, generator=torch.Generator().manual_seed(seed))
    for z, r in model.layers(h0[order], cells.neighborhood.reorder(order), tile_size=tile_size):
        last = model.readout(z, r)
    assert (last - full[order]).abs().max() < 1e-6


def test_states_in_files_are_the_same_and_leave_nothing(cells, tmp_path):
    model = make_model()
    h0 = model.stem_cells(cells).detach()
    kept = [[(z.clone(), r.clone()) for z, r in model.layers(h0, cells.neighborhood, tile_size=50, scratch=folder)]
            for folder in (None, tmp_path)]  # fmt: skip
    for (z, r), (mapped_z, mapped_r) in zip(*kept, strict=True):
        assert torch.equal(z, mapped_z) and torch.equal(r, mapped_r)
    assert not list(tmp_path.iterdir())


OWN = """
import re, sys
from pathlib import Path
import torch
from graphfm.models.graphfm import GraphFM, GraphFMConfig
from graphfm.models.inputs import LEAST_PIECE, pieces_of_tissue
from graphfm.nn import Neighborhood
n, model = 50_000, GraphFM(GraphFMConfig(10, "test", num_layers=3)).eval()
index = (torch.arange(n).unsqueeze(1) + torch.tensor([1, n - 1])) % n
ring = Neighborhood(index, torch.full((n, 2), 0.5), torch.zeros_like(index), torch.zeros(n, 2))
states = model.layers(torch.randn(n, 64), ring, tile_size=1000, scratch=Path(sys.argv[1]) if sys.argv[1:] else None)
status = (Path("/proc/self/status").read_text() for _ in states)
print(max(int(re.search(r"RssAnon:\\s+(\\d+)", text).group(1)) for text in status))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="what is in files is told apart on Linux only")
def test_states_in_files_are_not_in_memory(tmp_path):
    run = lambda *folder: subprocess.run([sys.executable, "-c", OWN, *folder], capture_output=True, check=True)  # noqa: E731
    in_memory, in_files = (int(run(*folder).stdout) * 1024 for folder in ((), (str(tmp_path),)))
    assert in_memory - in_files > 0.7 * 6 * 50_000 * 64 * 4


def test_save_and_load_give_the_same_model(tmp_path, cells):
    model = make_model()
    path = model.save_pretrained(tmp_path / "m", metadata={"trained_on": "toy"})
    loaded = GraphFM.from_pretrained(tmp_path / "m")
    assert loaded.config == model.config
    assert model_metadata(path)["trained_on"] == "toy" and model_metadata(path)["commit"]
    torch.testing.assert_close(loaded.stem_cells(cells), model.stem_cells(cells), atol=0, rtol=0)
    assert not [p for p in path.parent.iterdir() if p.suffix == ".tmp"]


@pytest.mark.parametrize("damage", ["truncated", "foreign", "text", "config"])
def test_damaged_or_foreign_checkpoint(tmp_path, damage):
    from safetensors.torch import save_file

    path = make_model().save_pretrained(tmp_path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "foreign":
        save_file({"x": torch.zeros(2)}, path)
    elif damage == "text":
        path.write_text("no tensors here")
    else:
        save_file({"x": torch.zeros(2)}, path, {"format": "graphfm-model", "config": "{}"})
    with pytest.raises(ValueError, match=path.name):
        GraphFM.from_pretrained(path)


def test_missing_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="graphfm pretrain"):
        GraphFM.from_pretrained(tmp_path / "nothing.safetensors")


def test_another_vocabulary_is_refused(cells):
    with pytest.raises(ValueError, match="gene vocabulary test"):
        make_model().stem_cells(replace(cells, vocabulary="other"))


def test_unwritable_folder_leaves_nothing(tmp_path):
    file = tmp_path / "file"
    file.write_text("a file, not a folder")
    with pytest.raises(OSError, match="cannot write"):
        make_model().save_pretrained(file / "model.safetensors")
    assert os.listdir(tmp_path) == ["file"]


def test_full_disk_leaves_nothing(tmp_path, monkeypatch):
    import errno
    from pathlib import Path

    def full(self, content):
        self.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        make_model().save_pretrained(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [{"heads": 5}, {"anchor": 2.0}, {"dim": 0}])
def test_bad_config(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        GraphFMConfig(10, "test", **bad)
