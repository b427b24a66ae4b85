"""The pre-training loop: one screen, resumable to the bit."""

import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from tqdm import tqdm

from graphfm.data.tiles import epoch_batches, locality_order, rarity_weights
from graphfm.metrics.smoothing import depth_profile, gradient_norms
from graphfm.models.graphfm import GraphFM
from graphfm.models.inputs import CellGraph
from graphfm.nn import NodeNorm
from graphfm.objectives import NeighborAgreement, Objective
from graphfm.train.distributed import Team, is_sharded, team, whole
from graphfm.train.log import append, truncate
from graphfm.train.state import alone_in, load_state, save_state

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainConfig:
    """How to pre-train.

    Parameters
    ----------
    steps
        Optimiser steps.
    tile_size, tiles_per_batch
        Cells a tile, tiles a batch; their product is the batch size.
    rarity
        Cells of small communities of the graph are met more often, by the community's size to the power of minus this;
        0: each cell once an epoch (`graphfm.data.tiles.rarity_weights`).
    lr
        Peak of the learning rate; it warms up over the first twentieth and falls to zero along a cosine.
    weight_decay
        On weight matrices.
    clip
        Largest gradient norm.
    parts
        Pieces that a batch is cut into, each a graph of its own. They are what processes share, so that the result
        depends on this number and not on that of the processes.
    seed
        Of initial weights, batches and masks.
    checkpoint_every
        Steps between training states on disk.
    profile_every
        Steps between profiles of the states in the log (effective rank, energies, gradients, layer by layer); 0: none.
    objective
        What is asked of the trunk (`graphfm.objectives`).
    """

    steps: int = 1000
    tile_size: int = 64
    tiles_per_batch: int = 4
    rarity: float = 0.0
    lr: float = 3e-3
    weight_decay: float = 1e-2
    clip: float = 1.0
    parts: int = 1
    seed: int = 0
    checkpoint_every: int = 100
    profile_every: int = 0
    objective: Objective = field(default_factory=NeighborAgreement)

    def __post_init__(self) -> None:
        for name in ("steps", "tile_size", "tiles_per_batch", "parts", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.rarity <= 1:
            raise ValueError(f"rarity must be from 0 to 1, got {self.rarity}")
        if self.profile_every < 0:
            raise ValueError(f"profile_every must be at least 0, got {self.profile_every}")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must not be negative, got {self.weight_decay}")
        for name in ("lr", "clip"):
            if not (value := getattr(self, name)) > 0:
                raise ValueError(f"{name} must be positive, got {value}")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Steps this small are 2.5 times faster on one thread than on two (and 50 times beside a busy neighbour), and the
    weights then do not depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def pretrain(
    model: GraphFM,
    corpus: Sequence[CellGraph],
    out: str | Path,
    *,
    config: TrainConfig | None = None,
    device: str | torch.device = "cpu",
    shard: bool = False,
) -> GraphFM:
    """Train a model without labels, going on from a training state in `out` if there is one.

    A run that was killed and started again ends with the same weights, bit for bit, as one that was not (same
    machine, any number of threads). Started by ``torchrun``, processes share the parts of each batch.

    Parameters
    ----------
    model
        Trained in place. Its initial weights are ignored where `out` holds a training state.
    corpus
        Data sets with counts.
    out
        Folder for ``training.safetensors`` (state), ``log.jsonl`` and, at the end, ``model.safetensors``. One run at a
        time.
    config
        Settings; those of the state in `out` must be the same.
    device
        Where to compute.
    shard
        Leave to each process a share of the blocks' weights, gradients and moments (FSDP2), for models that do not fit
        into one device; slower, and of no use to one process alone. The result is the same.

    Returns
    -------
    The trained model: `model` itself, unless its blocks are sharded.

    Raises
    ------
    ValueError
        No data, data without counts, more processes than parts, `out` is in use or belongs to a run with other settings
        or data, or profiles are asked of sharded blocks.
    FloatingPointError
        Loss or gradient are no longer finite; the last state that was saved stays in `out`.
    """
    with team(device) as processes, alone_in(Path(out)) if processes.leads else nullcontext():
        return _pretrain(
            model, corpus, Path(out), config=config or TrainConfig(), device=device, team=processes, shard=shard
        )


def _pretrain(
    model: GraphFM,
    corpus: Sequence[CellGraph],
    out: Path,
    *,
    config: TrainConfig,
    device: str | torch.device,
    team: Team,
    shard: bool = False,
) -> GraphFM:
    _check_corpus(corpus)
    shard = shard and team.size > 1
    if team.size > config.parts:
        raise ValueError(
            f"parts={config.parts} cannot be shared by {team.size} processes. Pass parts={team.size} or a multiple."
        )
    if shard and config.profile_every:
        raise ValueError(
            f"profile_every={config.profile_every} needs whole blocks. Pass profile_every=0 or shard=False."
        )
    fingerprint = {
        "train": asdict(config) | {"objective": {"name": type(config.objective).__name__, **asdict(config.objective)}},
        "data": [[cells.name, *cells.counts.shape, cells.digest] for cells in corpus],
    }
    if model.training_record:
        fingerprint["before"] = json.loads(model.training_record)
    model = model.to(device).train()
    for module in model.modules():
        if isinstance(module, NodeNorm):  # statistics of the last tenth of the run, over all data sets
            module.momentum = min(0.1, 10 / config.steps)
    if shard:
        team.shard(model.blocks, device)
    optimizer = torch.optim.AdamW(
        _parameter_groups(model, config.weight_decay), lr=config.lr, betas=(0.9, 0.98), foreach=False if shard else None
    )
    start = load_state(out, model, optimizer, fingerprint)
    model.remember(corpus)  # before the first step: an interrupted run has seen them, too
    if start == 0:  # an interrupted run begins again from these weights, not from those it has changed
        save_state(out, model, optimizer, 0, fingerprint, team)
    if team.leads:
        truncate(out, start)
    step = start
    quiet = None if team.leads else True
    progress = tqdm(total=config.steps, initial=start, desc="pre-training", unit="step", disable=quiet)
    try:
        for step, epoch, cells, core in _schedule(corpus, config, start):
            began = time.perf_counter()
            _set_lr(optimizer, config, step)
            optimizer.zero_grad(set_to_none=True)
            diagnostics = _gradients(model, cells, core, config, step, team)
            if not math.isfinite(diagnostics["loss"]):
                raise FloatingPointError(
                    f"loss is {diagnostics['loss']} at step {step} on {cells.name}; try a lower lr"
                )
            if team.leads and config.profile_every and step % config.profile_every == 0:
                diagnostics["depth"] = _profile(model, cells, core)
            norm = _clip(model, config.clip)
            if not math.isfinite(norm):
                raise FloatingPointError(f"the gradient is {norm} at step {step} on {cells.name}; try a lower lr")
            optimizer.step()
            if team.leads:
                place = {"step": step, "epoch": epoch, "data": cells.name}
                cost = {"lr": optimizer.param_groups[0]["lr"], "seconds": round(time.perf_counter() - began, 4)}
                append(out, place | diagnostics | {"gradient_norm": norm} | cost)
            progress.update()
            progress.set_postfix(loss=f"{diagnostics['loss']:.4f}", null=f"{diagnostics['null_loss']:.4f}")
            if (step + 1) % config.checkpoint_every == 0:
                save_state(out, model, optimizer, step + 1, fingerprint, team)
    except KeyboardInterrupt:
        # the step that was interrupted may be half done, so it is the last saved state that counts
        logger.warning("interrupted; run again with the same settings to go on from the last state in %s", out)
        raise
    finally:
        progress.close()
        model.eval()
    save_state(out, model, optimizer, config.steps, fingerprint, team)
    if shard:
        states, sharded = {name: whole(tensor) for name, tensor in model.state_dict().items()}, model
        model = GraphFM(model.config).to(device).eval()
        model.seen = sharded.seen
        model.load_state_dict(states)
    model.training_record = json.dumps(fingerprint)
    if team.leads:
        model.save_pretrained(out)
    return model


def _gradients(
    model: GraphFM, cells: CellGraph, core: torch.Tensor, config: TrainConfig, step: int, team: Team
) -> dict[str, float]:
    """Gradients and batch statistics of a batch, the means over its parts, whichever process computes which.

    Returns
    -------
    Diagnostics of the whole batch.
    """
    parameters = list(model.parameters())
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    running = {name: buffer for name, buffer in model.named_buffers() if "running" in name}
    after = {name: torch.zeros_like(buffer) for name, buffer in running.items()}
    scores, sums = ("loss", "null_loss"), torch.zeros(2, device=parameters[0].device)
    parts = [part for part in core.tensor_split(config.parts) if len(part)]
    work = [(number, part, len(part) / len(core)) for number, part in enumerate(parts)]
    if any(map(is_sharded, parameters)):  # whose processes must do equally many
        work += [(0, parts[0], 0.0)] * (-len(work) % team.size)
    for number, part, weight in team.share(work):
        for name, buffer in model.named_buffers():
            buffer.copy_(before[name])
        seed = (config.seed * 1_000_003 + step) * config.parts + number
        generator = torch.Generator().manual_seed(seed)
        loss, diagnostics = config.objective(model, cells, part, generator)
        (weight * loss).backward()
        sums += weight * sums.new_tensor([diagnostics[score] for score in scores])
        for name, buffer in running.items():
            after[name] += (weight > 0) * buffer / len(parts)
    parameters = [parameter for parameter in parameters if not is_sharded(parameter)]
    has_gradient = sums.new_tensor([float(p.grad is not None) for p in parameters])
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    team.add_up([sums, has_gradient, *after.values(), *gradients])
    for name, buffer in running.items():
        buffer.copy_(after[name])
    for parameter, has, gradient in zip(parameters, has_gradient.tolist(), gradients, strict=True):
        parameter.grad = gradient if has else None
    return dict(zip(scores, sums.tolist(), strict=True))


def _clip(model: GraphFM, limit: float) -> float:
    """Scale all gradients down to a norm of at most `limit`; the norm they had."""
    groups = [[p for p in model.parameters() if p.grad is not None and is_sharded(p) == shared] for shared in (0, 1)]
    norm = torch.hypot(*(whole(get_total_norm([p.grad for p in group])) for group in groups))
    for group in groups:
        clip_grads_with_norm_(group, limit, norm)
    return float(norm)


@torch.no_grad()
def _profile(model: GraphFM, cells: CellGraph, rows: torch.Tensor) -> list[dict[str, float]]:
    """Over-smoothing of some cells layer by layer, and the gradients that are there (None for the stem)."""
    training = model.training
    model.eval()
    h0 = model.stem_cells(cells)[rows]
    local = cells.neighborhood.induced(rows).to(h0.device)
    states = [h0, *(model.readout(z, r) for z, r in model.layers(h0, local, tile_size=len(rows)))]
    model.train(training)
    row, slot = torch.nonzero(local.weight > 0, as_tuple=True)
    profile = depth_profile(states, torch.stack([row, local.index[row, slot]]), local.weight[row, slot])
    norms = [None if math.isnan(norm) else norm for norm in gradient_norms(model.blocks)]
    return [{**layer, "gradient_norm": norm} for layer, norm in zip(profile, [None, *norms], strict=True)]


def _schedule(
    corpus: Sequence[CellGraph], config: TrainConfig, start: int
) -> Iterator[tuple[int, int, CellGraph, torch.Tensor]]:
    """Steps from `start` on: (step, epoch, data set, cells), a function of the settings alone."""
    orders = [
        cells.order
        if cells.order is not None and cells.order_tile == config.tile_size
        else locality_order(cells.neighborhood, config.tile_size)
        for cells in corpus
    ]
    weights = [
        rarity_weights(cells.neighborhood, config.rarity, config.tile_size) if config.rarity else None
        for cells in corpus
    ]
    step, epoch = 0, 0
    while True:
        batches = [
            (cells, core)
            for number, (cells, order, weight) in enumerate(zip(corpus, orders, weights, strict=True))
            for core in epoch_batches(
                order,
                tile_size=config.tile_size,
                tiles_per_batch=config.tiles_per_batch,
                seed=config.seed + 7919 * number,
                epoch=epoch,
                weight=weight,
            )
        ]
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
        for i in torch.randperm(len(batches), generator=generator).tolist():
            if step >= config.steps:
                return
            if step >= start:
                yield step, epoch, *batches[i]
            step += 1
        epoch += 1


def _set_lr(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int) -> None:
    warmup = max(config.steps // 20, 1)
    factor = min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / config.steps)))
    for group in optimizer.param_groups:
        group["lr"] = config.lr * factor


def _parameter_groups(model: GraphFM, weight_decay: float) -> list[dict]:
    decayed, free = [], []
    for name, parameter in model.named_parameters():
        (decayed if parameter.ndim > 1 and "embedding" not in name else free).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def _check_corpus(corpus: Sequence[CellGraph]) -> None:
    if not corpus:
        raise ValueError("corpus is empty: pass at least one data set")
    for cells in corpus:
        if cells.counts is None:
            raise ValueError(
                f"data set '{cells.name}' has no counts, which pre-training predicts. Pass layer= with counts."
            )
