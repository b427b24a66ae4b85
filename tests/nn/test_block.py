"""The block: what it computes, what it cannot do at any depth, what it is invariant to."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfm.data.graph import symmetric_normalize, table_from_csr
from graphfm.data.prepare import join_tables
from graphfm.nn import GraphBlock, Neighborhood, Readout
from graphfm.nn.stem import polar
from tests.conftest import make_model, make_neighborhood


def dense_operator(nb: Neighborhood) -> np.ndarray:
    dense = np.zeros((len(nb), len(nb)))
    for i in range(len(nb)):
        for j, w in zip(nb.index[i].tolist(), nb.weight[i].tolist(), strict=True):
            dense[i, j] += w
    return dense


def adversarial(dim: int, num_layers: int, seed: int, heads: int = 4) -> torch.nn.ModuleList:
    """A stack in double precision with weights of any size, as if training had gone astray."""
    torch.manual_seed(seed)
    blocks = torch.nn.ModuleList(GraphBlock(dim, num_layers=num_layers, heads=heads) for _ in range(num_layers))
    blocks.append(Readout(dim))
    with torch.no_grad():
        for parameter in blocks.parameters():
            parameter.normal_().mul_(10 ** float(torch.empty(()).uniform_(-2, 1)))
    return blocks.double().eval()


def run(blocks: torch.nn.ModuleList, h0: torch.Tensor, nb: Neighborhood) -> torch.Tensor:
    z, r = h0, torch.zeros_like(h0)
    for block in blocks[:-1]:
        z, r = block(z, r, h0, nb)
    return blocks[-1](z, r)


@pytest.mark.parametrize("heads", [0, 4])
def test_block_equals_a_dense_version(heads):
    nb, isolated = make_neighborhood(30, 5, isolated=2), 2
    torch.manual_seed(0)
    block = GraphBlock(16, num_layers=8, heads=heads, anchor=0.2).eval()
    with torch.no_grad():
        for name in ("weight", "bias", "running_mean"):
            getattr(block.norm, name).normal_()
        if heads:
            block.gain.normal_()
            block.edge_bias.relation.weight.normal_()
    first, second, h0 = torch.randn(3, 30, 16).unbind()
    w = {name: value.detach().double().numpy() for name, value in block.state_dict().items()}
    z, r = first.double().numpy(), second.double().numpy()
    a, x = dense_operator(nb), z + r
    a[:isolated, :isolated] = np.eye(isolated)
    low = 0.8 * 0.5 * (z + a @ z) + 0.2 * h0.double().numpy()
    values = x @ w["neighbors.weight"].T
    heard = a @ values
    if heads:
        unit = lambda m: m / np.linalg.norm(m, axis=1, keepdims=True)  # noqa: E731
        for head in range(heads):
            part = slice(4 * head, 4 * head + 4)
            q, k = (unit(x @ w[f"{name}.weight"].T[:, part]) for name in ("query", "key"))
            for i in range(isolated, 30):
                edge = nb.weight[i] > 0
                j = nb.index[i][edge].numpy()
                bias = w["edge_bias.relation.weight"][nb.relation[i][edge].numpy(), head]
                score = np.exp(w["gain"][head] * (k[j] @ q[i]) + bias) * nb.weight[i][edge].double().numpy()
                weight = nb.weight[i].sum().item() * score / score.sum()
                heard[i, part] = weight @ values[j, part]
    f = x @ w["own.weight"].T + heard
    f = (f - w["norm.running_mean"]) / np.sqrt(w["norm.running_var"] + block.norm.eps)
    f = np.maximum(f * w["norm.weight"] + w["norm.bias"], 0) @ w["contract.weight"].T + w["contract.bias"]
    for got, expected in zip(block(first, second, h0, nb), (low, r + w["mix"] * f), strict=True):
        np.testing.assert_allclose(got.detach(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("heads", [0, 4])
def test_a_fresh_reader_hears_the_plain_mean(heads):
    nb, block = make_neighborhood(30, 5), GraphBlock(16, num_layers=8, heads=heads)
    x, values = torch.randn(30, 16), torch.randn(30, 16)
    expected = torch.from_numpy(dense_operator(nb)).float() @ values
    torch.testing.assert_close(block._listen(x, nb, block.messages(x)[0], values), expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    num_layers=st.sampled_from([1, 2, 5, 17, 64]),
    width=st.floats(0.5, 12),
    few=st.booleans(),
)
def test_theorem_symmetric(seed, num_layers, width, few):
    """sigma_k(y) >= a sigma_k(h_0) and E(z) >= a^2 E(h_0), for weights of any size, at any depth, on any graph."""
    generator = torch.Generator().manual_seed(seed)
    nb, a = make_neighborhood(40, width, seed=seed, isolated=3 if few else 0), 0.1
    h0 = torch.randn(40, 8, generator=generator, dtype=torch.float64) @ torch.diag(10.0 ** -torch.arange(8.0).double())
    y = run(adversarial(8, num_layers, seed), h0, nb).detach()
    assert torch.isfinite(y).all()
    assert (torch.linalg.svdvals(y)[:8] >= a * torch.linalg.svdvals(h0) * (1 - 1e-5)).all()
    laplacian = torch.eye(40, dtype=torch.float64) - torch.from_numpy(dense_operator(nb))
    laplacian[:3, :3] -= torch.eye(3) if few else 0  # a node alone has no energy
    energy = lambda h: torch.trace(h.T @ laplacian @ h)  # noqa: E731
    assert energy(y[:, :8]) >= a**2 * energy(h0) * (1 - 1e-5)


def directed(num_nodes: int, seed: int) -> Neighborhood:
    """Random directed graph, normalised by row and column sums."""
    rng = np.random.default_rng(seed)
    weight = sp.random(num_nodes, num_nodes, density=0.15, random_state=rng, format="csr", dtype=np.float32)
    weight = sp.csr_matrix(weight + sp.diags(np.full(num_nodes, 1e-3, dtype=np.float32)))  # nobody without an edge
    return join_tables([symmetric_normalize(table_from_csr(weight))])


def floor(anchor: float, num_layers: int) -> float:
    """c_L: the least modulus of t_L on the circle, which is that of the disc where t_L has no zero in it."""
    w = (1 + np.exp(1j * np.linspace(0, 2 * np.pi, 4001))) / 2
    t = np.ones_like(w)
    for _ in range(num_layers):
        t = (1 - anchor) * w * t + anchor
    turns = (np.unwrap(np.angle(t))[-1] - np.angle(t[0])) / (2 * np.pi)
    return float(np.abs(t).min()) if round(turns) == 0 else 0.0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), num_layers=st.sampled_from([1, 3, 5, 8, 64]))
def test_theorem_directed(seed, num_layers):
    h0 = torch.randn(30, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    nb = directed(30, seed)
    assert np.linalg.norm(dense_operator(nb), 2) <= 1 + 1e-5
    y = run(adversarial(6, num_layers, seed, heads=2), h0, nb).detach()
    assert (torch.linalg.svdvals(y)[:6] >= floor(0.1, num_layers) * torch.linalg.svdvals(h0) * (1 - 1e-5)).all()


def test_floor_of_the_theorem_is_that_of_its_text():
    floors = [floor(0.1, depth) for depth in range(1, 129)]
    assert int(np.argmin(floors)) == 4 and round(min(floors), 3) == 0.043
    assert floors[-1] == pytest.approx(0.1, abs=1e-5)
    assert min(floor(0.04, depth) for depth in range(1, 129)) == 0


def test_without_the_anchor_the_bound_fails():
    """The property test can fail: plain propagation goes to rank one."""
    nb, h0 = make_neighborhood(40, 8), torch.randn(40, 8, dtype=torch.float64)
    blocks = adversarial(8, 64, 0)
    for block in blocks[:-1]:
        block.anchor = 0.0
        torch.nn.init.zeros_(block.mix)
    torch.nn.init.zeros_(blocks[-1].norm.weight)
    assert torch.linalg.svdvals(run(blocks, h0, nb))[-1] < 0.1 * torch.linalg.svdvals(h0)[-1]


def test_propagate_and_its_gradient_equal_a_dense_product(monkeypatch):
    nb = make_neighborhood(30, 5, isolated=2).part(0, 20)
    dense = torch.zeros(20, 30, dtype=torch.float64)
    for i in range(20):
        dense[i].index_add_(0, nb.index[i], nb.weight[i].double())
    dense[:2, :2] = torch.eye(2)
    h = torch.randn(30, 4, dtype=torch.float64, requires_grad=True)
    for mkl in (True, False):
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda mkl=mkl: mkl)
        torch.testing.assert_close(nb.propagate(h), dense @ h)
        assert torch.autograd.gradcheck(nb.propagate, h)


def test_one_node_alone_trains():
    block, readout = GraphBlock(8, num_layers=2, heads=2).train(), Readout(8).train()
    nb = Neighborhood(*(torch.zeros(1, 2, dtype=kind) for kind in (torch.long, torch.float, torch.long, torch.float)))
    assert torch.isfinite(readout(*block(*torch.randn(3, 1, 8).unbind(), nb))).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_permutation_of_nodes(seed):
    nb, model = make_neighborhood(25, 5, seed=seed, isolated=1), make_model(seed=seed)
    g = torch.Generator().manual_seed(seed)
    h0, order = torch.randn(25, 16, generator=g), torch.randperm(25, generator=g)
    torch.testing.assert_close(model(h0[order], nb.reorder(order)), model(h0, nb)[order], atol=1e-5, rtol=1e-5)


def test_padding_changes_nothing():
    nb, model, h0 = make_neighborhood(25, 5), make_model(), torch.randn(25, 16)
    pad = lambda x: torch.cat([x, torch.zeros_like(x)], dim=1)  # noqa: E731
    wide = Neighborhood(pad(nb.index), pad(nb.weight), pad(nb.relation), pad(nb.distance))
    torch.testing.assert_close(model(h0, wide), model(h0, nb), atol=1e-5, rtol=1e-5)


def test_every_parameter_learns():
    """After one step away from the start no parameter of the trunk is without a gradient."""
    model, nb, h0 = make_model(), make_neighborhood(25, 5), torch.randn(25, 16)
    model(h0, nb).square().sum().backward()
    silent = [n for n, p in model.blocks.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not silent


def test_polar_is_the_nearest_orthonormal_matrix():
    a = torch.randn(6, 16, dtype=torch.float64)
    u, _, vt = np.linalg.svd(a.numpy(), full_matrices=False)
    np.testing.assert_allclose(polar(a), u @ vt, atol=1e-8)


def edges(nb: Neighborhood, names: torch.Tensor) -> dict[tuple[int, int], tuple[float, int, float]]:
    """Weight, relation and length of each edge, by the names of its ends."""
    row, slot = (nb.weight > 0).nonzero(as_tuple=True)
    ends = zip(names[nb.start + row].tolist(), names[nb.index[row, slot]].tolist(), strict=True)
    values = (column[row, slot].tolist() for column in (nb.weight, nb.relation, nb.distance))
    return dict(zip(ends, zip(*values, strict=True), strict=True))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_pieces_of_a_graph_have_its_edges(seed):
    nb, names = make_neighborhood(40, 5, seed=seed, isolated=1), torch.arange(40)
    whole, generator = edges(nb, names), torch.Generator().manual_seed(seed)
    order = torch.randperm(40, generator=generator)
    assert edges(nb.reorder(order), order) == whole
    assert edges(nb.part(7, 19), names) == {ends: edge for ends, edge in whole.items() if 7 <= ends[0] < 19}
    assert edges(nb.part(7, 19).part(2, 5), names) == {ends: e for ends, e in whole.items() if 9 <= ends[0] < 12}

    nodes = order[:12]
    chosen = set(nodes.tolist())
    heard = {source for node, source in whole if node in chosen}
    assert nb.outside(nodes).tolist() == sorted(heard - chosen)
    inner = nb.induced(nodes)
    expected = {ends: edge[1:] for ends, edge in whole.items() if chosen.issuperset(ends)}
    assert {ends: edge[1:] for ends, edge in edges(inner, nodes).items()} == expected
    sums = inner.weight.sum(1)
    torch.testing.assert_close(sums[sums > 0], nb.weight[nodes].sum(1)[sums > 0])


@pytest.mark.parametrize("heads", [0, 4])
def test_a_part_of_the_nodes_is_computed_as_among_all(heads):
    nb, block = make_neighborhood(30, 5, isolated=2), GraphBlock(16, num_layers=8, heads=heads).eval()
    z, r, h0 = torch.randn(3, 30, 16).unbind()
    for messages in (None, block.messages(z + r)):
        for whole, part in zip(block(z, r, h0, nb), block(z, r, h0[1:9], nb.part(1, 9), messages), strict=True):
            torch.testing.assert_close(part, whole[1:9])
