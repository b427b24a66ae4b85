"""Over-smoothing of node states, layer by layer: Dirichlet energy, effective rank, mean average distance.

Read them together, and beside accuracy: the mean average distance alone stays high in a network of collapsed rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

_CHUNK_ELEMENTS = 1 << 24


def dirichlet_energy(h: Tensor, edge_index: Tensor, weight: Tensor | None = None) -> dict[str, float]:
    r"""Energy of the states under the symmetrically normalised Laplacian.

    .. math:: E = \mathrm{tr}(h^\top (I - D^{-1/2} A D^{-1/2}) h)
              = \tfrac12 \sum_{ij} A_{ij} \lVert h_i/\sqrt{d_i} - h_j/\sqrt{d_j} \rVert^2

    A list with edges in one direction only stands for ``(A + A^T) / 2``. Nodes without edges add nothing.

    Parameters
    ----------
    h
        ``[nodes, channels]``.
    edge_index
        ``[2, edges]`` int64.
    weight
        ``[edges]``, at least 0; 1 by default.

    Returns
    -------
    dict
        ``dirichlet_energy``; ``dirichlet_energy_normalized``, the same over ``|h|^2``; and
        ``dirichlet_energy_within``, the same over what is left of ``|h|^2`` without the part that has no energy: one
        vector, the root of the degrees, in each connected component. The last two are between 0 and 2, and 0 for h = 0;
        a state that is equal within components has the second near 0, while the third tells the pitch of the rest.

    Raises
    ------
    ValueError
        On other shapes, nodes out of range, NaN, or negative weights.

    References
    ----------
    Cai & Wang 2020, arXiv:2006.13318.
    """
    _check_states(h)
    edge_index = _check_pairs(edge_index, len(h), name="edge_index")
    if weight is None:
        weight = torch.ones(edge_index.shape[1], device=h.device)
    weight = weight.detach().double()
    if weight.shape != edge_index.shape[1:]:
        raise ValueError(f"weight has shape {tuple(weight.shape)}, expected ({edge_index.shape[1]},), one per edge.")
    if not bool((weight >= 0).all()):
        raise ValueError(
            "weight has negative values or NaN; the Laplacian needs weights of at least 0. Pass weight.abs()."
        )
    h = h.detach().double()
    degree = torch.zeros(len(h), dtype=torch.float64, device=h.device)
    for end in edge_index:
        degree.index_add_(0, end, weight / 2)
    scaled = h * torch.where(degree > 0, degree, 1.0).rsqrt()[:, None]
    energy = torch.zeros((), dtype=torch.float64, device=h.device)
    step = max(1, _CHUNK_ELEMENTS // max(1, h.shape[1]))
    for (i, j), w in zip(edge_index.split(step, dim=1), weight.split(step), strict=True):
        energy += 0.5 * (w * (scaled[i] - scaled[j]).square().sum(1)).sum()
    norm = h.square().sum()
    rest = _without_constants(h, edge_index[:, weight > 0], degree).square().sum()
    return {
        "dirichlet_energy": energy.item(),
        "dirichlet_energy_normalized": (energy / norm).item() if norm > 0 else 0.0,
        "dirichlet_energy_within": (energy / rest).item() if rest > 1e-24 * norm else 0.0,
    }


def _without_constants(h: Tensor, edge_index: Tensor, degree: Tensor) -> Tensor:
    """What is left of the states without the Laplacian's null space; nodes without edges are all in it."""
    ones, ends = np.ones(edge_index.shape[1]), edge_index.cpu().numpy()
    _, labels = connected_components(sp.csr_matrix((ones, (ends[0], ends[1])), shape=(len(h), len(h))), directed=False)
    component = torch.from_numpy(labels).long().to(h.device)
    total = torch.zeros_like(degree).index_add_(0, component, degree)[component]
    root = torch.where(degree > 0, (degree / total.where(total > 0, 1.0)).sqrt(), 1.0)[:, None]
    return h - root * torch.zeros_like(h).index_add_(0, component, root * h)[component]


def depth_profile(
    states: Sequence[Tensor], edge_index: Tensor, weight: Tensor | None = None, *, seed: int = 0
) -> list[dict[str, float]]:
    """All of these for each layer of a network.

    Parameters
    ----------
    states
        The stem's output, then the states after each layer, ``[nodes, channels]``; widths may differ.
    edge_index, weight
        As in `dirichlet_energy`.
    seed
        Of the random pairs.

    Returns
    -------
    list of dict
        ``layer`` (0: the stem), ``effective_rank``, the three energies, ``mad_neighbors``, ``mad_random``.
    """
    pairs = random_pairs(len(states[0]), seed=seed)
    return [
        {
            "layer": layer,
            "effective_rank": effective_rank(h),
            **dirichlet_energy(h, edge_index, weight),
            "mad_neighbors": mean_average_distance(h, edge_index),
            "mad_random": mean_average_distance(h, pairs),
        }
        for layer, h in enumerate(states)
    ]


def gradient_norms(layers: Iterable[nn.Module]) -> list[float]:
    """Length of the gradient of each layer's parameters; NaN for a layer that has none.

    Call it between ``backward()`` and the optimiser's step. A layer that is far behind the largest one hardly trains.

    Parameters
    ----------
    layers
        From the first to the last.
    """
    norms = []
    for layer in layers:
        squares = [p.grad.detach().double().square().sum() for p in layer.parameters() if p.grad is not None]
        norms.append(float(torch.stack(squares).sum().sqrt()) if squares else float("nan"))
    return norms


def effective_rank(h: Tensor) -> float:
    """Exponential of the entropy of the normalised singular values of the CENTRED states.

    Parameters
    ----------
    h
        ``[nodes, channels]``.

    Returns
    -------
    float
        Between 1 and min(nodes - 1, channels); 0 when all nodes are equal up to rounding.

    Raises
    ------
    ValueError
        On other shapes or NaN.

    References
    ----------
    Roy & Vetterli 2007, The effective rank: a measure of effective dimensionality, EUSIPCO.
    """
    _check_states(h)
    rounding = 4 * torch.finfo(h.dtype).eps * h.detach().double().norm()
    centred = h.detach().double()
    centred = centred - centred.mean(0)
    if centred.norm() <= rounding:
        return 0.0
    # With the small Gram matrix no copy of the states is decomposed; float64 leaves 1e-8 of the largest value.
    gram = centred.T @ centred if h.shape[0] >= h.shape[1] else centred @ centred.T
    values = torch.linalg.eigvalsh(gram / gram.diagonal().sum()).clamp(min=0).sqrt()
    share = values / values.sum()
    return float(torch.exp(-torch.special.xlogy(share, share).sum()))


def mean_average_distance(h: Tensor, pairs: Tensor) -> float:
    """Mean cosine distance of pairs, averaged over the partners of a node first, then over nodes (MAD).

    Pass the edges for the distance of neighbours and `random_pairs` for that of any two nodes. Pairs with a zero vector
    have no angle and are left out.

    Parameters
    ----------
    h
        ``[nodes, channels]``.
    pairs
        ``[2, pairs]`` int64.

    Returns
    -------
    float
        Between 0 and 2; NaN when no pair has an angle.

    Raises
    ------
    ValueError
        On other shapes, nodes out of range, or NaN.

    References
    ----------
    Chen et al. 2020, doi:10.1609/aaai.v34i04.5747.
    """
    _check_states(h)
    pairs = _check_pairs(pairs, len(h), name="pairs")
    states = h.detach().double()
    norm = states.norm(dim=1)
    unit = states / norm.where(norm > 0, 1.0)[:, None]
    pairs = pairs[:, (norm[pairs] > 0).all(0)]
    step = max(1, _CHUNK_ELEMENTS // max(1, h.shape[1]))
    # Half the squared distance of unit vectors is 1 - cos without its cancellation.
    parts = [0.5 * (unit[i] - unit[j]).square().sum(1) for i, j in pairs.split(step, dim=1)]
    distance = torch.cat(parts) if parts else unit.new_zeros(0)
    total = unit.new_zeros(len(h)).index_add_(0, pairs[0], distance)
    count = unit.new_zeros(len(h)).index_add_(0, pairs[0], torch.ones_like(distance))
    return float((total / count)[count > 0].mean())


def random_pairs(num_nodes: int, *, num_pairs: int = 10_000, seed: int = 0) -> Tensor:
    """Ordered pairs of different nodes, with replacement.

    Parameters
    ----------
    num_nodes
        At least 2.
    num_pairs
        Pairs to draw.
    seed
        Seed of the draw.

    Returns
    -------
    Tensor
        ``[2, num_pairs]`` int64.

    Raises
    ------
    ValueError
        When there are fewer than 2 nodes.
    """
    if num_nodes < 2:
        raise ValueError(f"num_nodes must be at least 2 to form pairs, got {num_nodes}.")
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(num_nodes, (num_pairs,), generator=generator)
    step = torch.randint(1, num_nodes, (num_pairs,), generator=generator)
    return torch.stack([first, (first + step) % num_nodes])


def _check_states(h: Tensor) -> None:
    if h.ndim != 2 or not h.is_floating_point() or h.numel() == 0:
        raise ValueError(f"h must be floating point [nodes, channels], not empty; got {h.dtype} {tuple(h.shape)}.")
    if not bool(torch.isfinite(h).all()):
        raise ValueError("h has NaN or infinite values.")


def _check_pairs(pairs: Tensor, num_nodes: int, *, name: str) -> Tensor:
    if pairs.ndim != 2 or pairs.shape[0] != 2:
        raise ValueError(f"{name} must have shape [2, pairs], got {tuple(pairs.shape)}.")
    if pairs.numel() and (int(pairs.min()) < 0 or int(pairs.max()) >= num_nodes):
        raise ValueError(f"{name} names nodes outside of 0..{num_nodes - 1}.")
    return pairs.long()
