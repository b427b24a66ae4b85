"""Several processes on one batch, as ``torchrun`` starts them; without it, one process that is alone."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

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
        dist.init_process_group("nccl" if on_gpu else "gloo")
        try:
            yield Team(dist.get_rank(), dist.get_world_size())
        finally:
            dist.destroy_process_group()
