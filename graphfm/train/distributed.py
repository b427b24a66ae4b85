"""Several processes on one batch, as ``torchrun`` starts them; without it, one process that is alone."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

Item = TypeVar("Item")


@dataclass(frozen=True)
class Team:
    """The processes of a run, seen from one of them.

    Parameters
    ----------
    rank
        Number of this process; 0 writes and logs.
    size
        Number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """What this process is to do."""
        return items[self.rank :: self.size]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes; they need the same shapes everywhere."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def shard(self, modules: Iterable[nn.Module], device: torch.device | str) -> None:
        """Leave to each process a share of each module's weights (FSDP2).

        A module's weights are whole while it runs, and the sum of their gradients over the processes is shared out as
        they are. Every process must run every module equally often.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(torch.device(device).type, (self.size,))
        for module in modules:
            sharded = fully_shard(module, mesh=mesh)
            sharded.set_force_sum_reduction_for_comms(True)  # a sum, not the mean
            sharded.set_gradient_divide_factor(1.0)


def is_sharded(tensor: Tensor) -> bool:
    """Whether each process has a share of a tensor."""
    return isinstance(tensor, DTensor)


def whole(tensor: Tensor) -> Tensor:
    """A tensor from its shares; all processes must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shared_like(tensor: Tensor, model: Tensor) -> Tensor:
    """A whole tensor shared out as another one is."""
    return distribute_tensor(tensor, model.device_mesh, model.placements) if isinstance(model, DTensor) else tensor


def _meeting_place() -> dict:
    """Where processes find each other; torchrun's store outlives a restart, with the addresses of the dead in it."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return {}
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    attempt = dist.PrefixStore(f"attempt {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    return {"store": attempt, "rank": int(os.environ["RANK"]), "world_size": int(os.environ["WORLD_SIZE"])}


@contextmanager
def team(device: torch.device | str) -> Iterator[Team]:
    """Join the other processes, and leave them at the end.

    A group that the caller has made (``torch.distributed.init_process_group``) is used as it is.

    Parameters
    ----------
    device
        Where the tensors are that will be added up.
    """
    if dist.is_initialized():
        yield Team(dist.get_rank(), dist.get_world_size())
    elif int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Team()
    else:
        on_gpu = torch.device(device).type == "cuda"
        if on_gpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # what "cuda" is from now on
        # The first optimiser imports it in any case. If it does so while there is a group, the group's threads live on
        # into the end of Python, and stop the process with SIGABRT if they then still let go of a tensor.
        from torch import _dynamo  # noqa: F401

        dist.init_process_group("nccl" if on_gpu else "gloo", **_meeting_place())
        try:
            yield Team(dist.get_rank(), dist.get_world_size())
            dist.barrier()  # what the leader writes is there when any process goes on
        finally:
            dist.destroy_process_group()
