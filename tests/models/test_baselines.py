"""The remedies against over-smoothing: each against its formula, all of them at depth."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from graphfm.models.baselines import BLOCKS, DeepNet
from graphfm.models.node_graph import NodeGraph
from graphfm.nn.dropout import ByteDropout
from graphfm.nn.neighborhood import SparseRows

N, DIM = 24, 16


def make_graph(seed: int = 0, weighted: bool = False) -> NodeGraph:
    """Random edges in double precision; the last node has none."""
    g = torch.Generator().manual_seed(seed)
    upper = (torch.rand(N, N, generator=g) * (torch.rand(N, N, generator=g) < 0.2)).triu(1).double()
    upper[:, -1] = 0
    dense = upper + upper.T
    edge_index = dense.nonzero().T
    weight = dense[tuple(edge_index)]
    return NodeGraph.from_edges(edge_index, N, weight if weighted else torch.ones_like(weight))


def dense(graph: NodeGraph) -> tuple[np.ndarray, np.ndarray]:
    """The adjacency matrix and the operator, by their definitions."""
    a = np.zeros((N, N))
    a[tuple(graph.edge_index.numpy())] = graph.weight.numpy()
    scale = np.diag((a + np.eye(N)).sum(1) ** -0.5)
    return a, scale @ (a + np.eye(N)) @ scale


def matrix(rows: SparseRows) -> np.ndarray:
    return array(rows.multiply(torch.eye(N, dtype=torch.float64)))


def make_states(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.randn(2, N, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def make_block(name: str, layer: int = 3, num_layers: int = 8) -> nn.Module:
    """A block in double precision whose biases and statistics are not the trivial ones."""
    torch.manual_seed(0)
    block = BLOCKS[name](DIM, layer, num_layers, 0.5).double().eval()
    with torch.no_grad():
        for key, value in [*block.named_parameters(), *block.named_buffers()]:
            if key.endswith(("bias", "mean")):
                value.normal_()
            if key.endswith("var"):
                value.uniform_(0.5, 2)
    return block


def make_net(name: str, num_layers: int = 3, **options) -> DeepNet:
    torch.manual_seed(0)
    return DeepNet(7, DIM, 3, num_layers=num_layers, block=name, **{"dropout": 0.5} | options).double()


def make_input() -> torch.Tensor:
    return torch.randn(N, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def array(t: torch.Tensor) -> np.ndarray:
    return t.detach().numpy()


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def convolved(conv: nn.Module, h: np.ndarray, p: np.ndarray) -> np.ndarray:
    return p @ h @ array(conv.lin.weight).T + array(conv.bias)


def layer_norm(norm: nn.LayerNorm, x: np.ndarray) -> np.ndarray:
    x = x - x.mean(1, keepdims=True)
    return x / np.sqrt((x**2).mean(1, keepdims=True) + norm.eps) * array(norm.weight) + array(norm.bias)


# the formulas: block, states, stem, adjacency, operator


def gcn(block, h, h0, a, p):
    return relu(convolved(block.conv, h, p))


def appnp(block, h, h0, a, p):
    return 0.9 * p @ h + 0.1 * h0


def gcnii(block, h, h0, a, p):
    beta = np.log(0.5 / 3 + 1)
    z = 0.9 * p @ h + 0.1 * h0
    return relu((1 - beta) * z + beta * z @ array(block.conv.weight1))


def g2(block, h, h0, a, p):
    x = relu(convolved(block.gate.conv, h, p))
    tau = np.zeros_like(h)
    for i in range(N):
        for j in range(N):
            tau[i] += a[i, j] / max(a[i].sum(), 1e-12) * (x[i] - x[j]) ** 2
    tau = np.tanh(tau)
    return (1 - tau) * h + tau * relu(convolved(block.conv, h, p))


def pairnorm(block, h, h0, a, p):
    x = convolved(block.conv, h, p)
    x = x - x.mean(0)
    return relu(x / np.sqrt((x**2).sum(1).mean() + 1e-5))


def graphnorm(block, h, h0, a, p):
    x, norm = convolved(block.conv, h, p), block.norm
    x = x - array(norm.mean_scale) * x.mean(0)
    return relu(array(norm.weight) * x / np.sqrt((x**2).mean(0) + norm.eps) + array(norm.bias))


def contranorm(block, h, h0, a, p):
    x = convolved(block.conv, h, p)
    cosine = np.array([[i @ j / np.sqrt((i @ i) * (j @ j)) for j in x.T] for i in x.T])
    similarity = np.exp(cosine) / np.exp(cosine).sum(1, keepdims=True)
    return relu(layer_norm(block.norm.norm, x - 0.1 * x @ similarity))


def batchnorm_residual(block, h, h0, a, p):
    norm = block.norm
    x = convolved(block.conv, h, p) + h @ array(block.residual.weight).T + array(block.residual.bias)
    x = (x - array(norm.running_mean)) / np.sqrt(array(norm.running_var) + norm.eps)
    return relu(x * array(norm.weight) + array(norm.bias))


def attention(conv, h, a):
    """Dot-product attention over the neighbours and the node itself, head by head."""
    q, k, v, skip = (
        h @ array(getattr(conv, f"lin_{name}").weight).T + array(getattr(conv, f"lin_{name}").bias)
        for name in ("query", "key", "value", "skip")
    )
    width, out = DIM // conv.heads, np.empty_like(h)
    for i in range(N):
        seen = np.flatnonzero(a[i] + np.eye(N)[i])
        for c in (slice(s, s + width) for s in range(0, DIM, width)):
            weights = np.exp(k[seen, c] @ q[i, c] / np.sqrt(width))
            out[i, c] = weights @ v[seen, c] / weights.sum()
    return out + skip


def feed_forward(block, h):
    first, _, second = block.dense
    return relu(h @ array(first.weight).T + array(first.bias)) @ array(second.weight).T + array(second.bias)


def transformer(block, h, h0, a, p, residual=1.0):
    h = layer_norm(block.norms[0], residual * h + attention(block.attention, h, a))
    return layer_norm(block.norms[1], residual * h + feed_forward(block, h))


def deepnorm(block, h, h0, a, p):
    return transformer(block, h, h0, a, p, residual=16**0.25)


def prenorm(block, h, h0, a, p):
    h = h + attention(block.attention, layer_norm(block.norms[0], h), a)
    return h + feed_forward(block, layer_norm(block.norms[1], h))


FORMULAS = {
    "gcn": gcn,
    "dropedge": gcn,
    "jknet": gcn,
    "appnp": appnp,
    "gcnii": gcnii,
    "g2": g2,
    "pairnorm": pairnorm,
    "graphnorm": graphnorm,
    "contranorm": contranorm,
    "batchnorm_residual": batchnorm_residual,
    "transformer": transformer,
    "deepnorm": deepnorm,
    "prenorm": prenorm,
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", FORMULAS)
def test_block_is_its_formula(name, weighted):
    graph, block, (h, h0) = make_graph(weighted=weighted), make_block(name), make_states()
    expected = FORMULAS[name](block, array(h), array(h0), *dense(graph))
    np.testing.assert_allclose(array(block(h, h0, graph)), expected, atol=1e-9)


def test_ours_is_the_trunks_block_on_the_operator():
    graph, ours, (h, h0) = make_graph(weighted=True), make_block("graphfm"), make_states()
    block, norm, p = ours.block, ours.block.norm, dense(graph)[1]
    z, r = (array(half) for half in ours((h, h0), h0, graph))
    np.testing.assert_allclose(z, 0.9 * (array(h) + p @ array(h)) / 2 + 0.1 * array(h0), atol=1e-12)
    x = array(h + h0)
    x = x @ array(block.own.weight).T + p @ x @ array(block.neighbors.weight).T
    x = (x - array(norm.running_mean)) / np.sqrt(array(norm.running_var) + norm.eps)
    x = relu(x * array(norm.weight) + array(norm.bias)) @ array(block.contract.weight).T + array(block.contract.bias)
    np.testing.assert_allclose(r, array(h0) + array(block.mix) * x, atol=1e-12)


@pytest.mark.parametrize("name", BLOCKS)
def test_permutation_of_nodes(name):
    graph, block, (h, h0) = make_graph(), make_block(name), make_states()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    moved = NodeGraph.from_edges(torch.argsort(order)[graph.edge_index], N, graph.weight)
    one, two = block(h[order], h0[order], moved), block(h, h0, graph)
    for a, b in zip(one, two, strict=True) if isinstance(one, tuple) else [(one, two)]:
        torch.testing.assert_close(a, b[order])


@pytest.mark.parametrize("name", BLOCKS)
def test_64_layers_run_and_every_parameter_has_a_finite_gradient(name):
    graph, net = make_graph(), make_net(name, num_layers=64)
    assert len(net.states(make_input(), graph)) == 65
    net(make_input(), graph).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", BLOCKS)
def test_checkpointing_changes_no_bit(name):
    """Loss, gradients, running statistics, with dropout and dropped edges."""
    results = []
    for checkpoint in (False, True):
        net = make_net(name, checkpoint=checkpoint)
        loss = net(make_input(), make_graph()).square().sum()
        loss.backward()
        results.append([loss, *(p.grad for p in net.parameters()), *net.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("name", ["gcn", "appnp", "batchnorm_residual"])
def test_logits_read_the_last_states(name):
    graph, net = make_graph(), make_net(name).eval()
    states = net.states(make_input(), graph)
    torch.testing.assert_close(net(make_input(), graph), net.readout(states[-1]))
    torch.testing.assert_close(states[0], torch.relu(net.stem(make_input())))


def test_jumping_knowledge_reads_the_maximum_over_the_layers():
    graph, net = make_graph(), make_net("jknet").eval()
    top = np.max([array(s) for s in net.states(make_input(), graph)[1:]], axis=0)
    expected = top @ array(net.readout.weight).T + array(net.readout.bias)
    np.testing.assert_allclose(array(net(make_input(), graph)), expected, atol=1e-9)


def test_group_norm_adds_a_hundredth_of_the_normalised_groups():
    graph, block, (h, h0) = make_graph(), make_block("diffgroupnorm").train(), make_states()
    block.dropout.eval()
    with torch.no_grad():
        block.norm.norm.bias.zero_()
    x = convolved(block.conv, array(h), dense(graph)[1])
    share = np.exp(x @ array(block.norm.lin.weight).T)
    share /= share.sum(1, keepdims=True)
    groups = share[:, :, None] * x[:, None]
    groups = (groups - groups.mean(0)) / np.sqrt(groups.var(0) + 1e-5)
    np.testing.assert_allclose(array(block(h, h0, graph)), relu(x + 0.01 * groups.sum(1)), atol=1e-9)


def test_dropped_edges_leave_a_smaller_graph_with_its_own_norm():
    torch.manual_seed(0)
    graph = make_graph(weighted=True)
    half = graph.drop_edges(0.5)
    assert 0.3 < half.edge_index.shape[1] / graph.edge_index.shape[1] < 0.7
    (a, _), (b, expected) = dense(graph), dense(half)
    assert (b == b.T).all() and (b[b > 0] == a[b > 0]).all()
    np.testing.assert_allclose(matrix(half.operator), expected, atol=1e-12)
    block, (h, h0) = make_block("dropedge").train(), make_states()
    block.dropout.eval()
    assert not torch.equal(block(h, h0, graph), block(h, h0, graph))


def test_product_and_its_gradients():
    graph, (h, _) = make_graph(weighted=True), make_states()
    a, p = dense(graph)
    np.testing.assert_allclose(matrix(graph.adjacency), a)
    np.testing.assert_allclose(matrix(graph.operator), p)
    assert torch.autograd.gradcheck(lambda x: graph.operator @ x, h[:, :2].clone().requires_grad_())


def test_gate_sees_small_differences_between_large_states():
    """In single precision, where the squares of states near 1000 round to 0.06."""
    graph, block = make_graph(), make_block("g2").float()
    graph = NodeGraph(graph.edge_index, graph.weight.float(), N)
    h, h0 = (s.float() for s in make_states())
    with torch.no_grad():
        block.gate.conv.bias.fill_(1000.0)
        block.gate.conv.lin.weight.mul_(0.1)
    expected = g2(block, *(array(s).astype(float) for s in (h, h0)), *dense(graph))
    np.testing.assert_allclose(array(block(h, h0, graph)), expected, atol=1e-3)


@pytest.mark.parametrize(
    "edges", [[[0], [1]], [[0, 1, 1], [1, 0, 1]], [[0, 1, 0, 1], [1, 0, 1, 0]]], ids=["one way", "loop", "twice"]
)
def test_wrong_edges(edges):
    with pytest.raises(ValueError, match="each edge once in both directions"):
        NodeGraph.from_edges(torch.tensor(edges), 2)


def test_weights_of_the_two_directions_must_agree():
    with pytest.raises(ValueError, match="of one weight"):
        NodeGraph.from_edges(torch.tensor([[0, 1], [1, 0]]), 2, torch.tensor([1.0, 2.0]))


def test_branches_of_deepnorm_start_small():
    wide = BLOCKS["deepnorm"](256, 1, 1, 0.0)
    net = DeepNet(7, 256, 3, num_layers=1, block="deepnorm", dropout=0.0)
    net.reset_parameters()
    for attention in (wide.attention, net.blocks[0].attention):
        assert float(attention.lin_value.weight.detach().std()) == pytest.approx(8**-0.25 / 16, rel=0.02)
        assert float(attention.lin_key.weight.detach().std()) == pytest.approx(1 / 16, rel=0.02)


@pytest.mark.parametrize("name", BLOCKS)
def test_new_parameters_come_from_the_seed(name):
    net = make_net(name)
    draws = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        net.reset_parameters()
        draws.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_parameter_groups_hold_each_parameter_once():
    for name in ("gcn", "appnp"):
        net = make_net(name)
        ends, blocks = net.parameter_groups(0.01, 5e-4, 1e-2)
        assert (ends["weight_decay"], blocks["weight_decay"], ends["lr"], blocks["lr"]) == (5e-4, 1e-2, 0.01, 0.01)
        assert {*map(id, ends["params"])} == {*map(id, (*net.stem.parameters(), *net.readout.parameters()))}
        assert {*map(id, ends["params"] + blocks["params"])} == {*map(id, net.parameters())}
        torch.optim.Adam([ends, blocks]).step()


def test_unknown_block():
    with pytest.raises(ValueError, match=r"block='gnc'.*gcn, gat, .*batchnorm_residual"):
        make_net("gnc")
    with pytest.raises(ValueError, match="num_layers=0"):
        make_net("gcn", num_layers=0)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_share_and_mean(p):
    torch.manual_seed(0)
    dropout, x = ByteDropout(p), torch.ones(1001, 501, requires_grad=True)
    y = dropout(x)
    kept = round((1 - p) * 256) / 256
    assert set(y.unique().tolist()) == {0.0, float(np.float32(1 / kept))}
    assert float((y > 0).double().mean()) == pytest.approx(kept, abs=0.003)
    assert float(y.detach().double().mean()) == pytest.approx(1, abs=0.015)
    y.sum().backward()
    assert torch.equal(x.grad, y)


def test_dropout_follows_the_seed_and_stops_in_evaluation():
    dropout, x = ByteDropout(0.5), torch.randn(33, 7)
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(dropout(x))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert dropout.eval()(x) is x and ByteDropout(0.0)(x) is x
    for p in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"p={p}"):
            ByteDropout(p)


def test_import_waits_with_pyg():
    script = "import sys, graphfm.models.baselines; print('torch_geometric' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "False"


def test_sparse_features_give_what_dense_ones_give():
    x = torch.randn(N, 50) * (torch.rand(N, 50) < 0.2)
    csr = x.to_sparse_csr()
    rows = SparseRows(csr.crow_indices(), csr.col_indices(), csr.values())
    graph = NodeGraph.from_edges(make_graph().edge_index, N)
    net = DeepNet(50, DIM, 3, num_layers=2, block="gcn", dropout=0.0)
    torch.testing.assert_close(net(rows, graph), net(x, graph))
    gradients = [torch.autograd.grad(net(f, graph).square().sum(), net.stem.weight)[0] for f in (rows, x)]
    torch.testing.assert_close(*gradients)


def test_dropped_nodes_send_nothing_of_their_own():
    torch.manual_seed(0)
    net = DeepNet(8, DIM, 3, num_layers=1, block="gcn", dropout=0.0, drop_nodes=0.5).train()
    graph = NodeGraph.from_edges(make_graph().edge_index, N)
    with torch.no_grad():
        stem = net.states(torch.ones(N, 8), graph)[0]
        whole = net.eval().states(torch.ones(N, 8), graph)[0]
    gone = stem.abs().sum(1) == 0
    assert 0 < gone.sum() < N
    torch.testing.assert_close(stem[~gone], 2 * whole[~gone])
