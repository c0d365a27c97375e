"""One process or many: what a rank needs to know, and the few words ranks exchange. `torchrun` starts the many."""

import atexit
import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tsfm_lib.errors import TsfmError


@dataclass(frozen=True)
class Ranks:
    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """Gradients become means over the ranks. Experts without a token have none, hence find_unused_parameters."""
        if self.size == 1:
            return module
        own = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=own, find_unused_parameters=True)

    def part(self, batch: Tensor) -> Tensor:
        """This rank's rows of a batch that every rank drew alike."""
        if len(batch) % self.size:
            raise TsfmError(f"a batch of {len(batch)} cannot be shared by {self.size} ranks: make it a multiple of {self.size}")
        own = len(batch) // self.size
        return batch[self.rank * own : (self.rank + 1) * own]

    def mean(self, x: Tensor) -> Tensor:
        if self.size > 1:
            dist.all_reduce(x)
            x /= self.size
        return x

    def agree(self, number: int) -> int:
        """The number that the first rank holds."""
        if self.size == 1:
            return number
        told = torch.tensor([number], device=self.device)
        dist.broadcast(told, src=0)
        return int(told)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def meet(self) -> None:
        if self.size > 1:
            dist.barrier()


def join(device: str | torch.device | None = None) -> Ranks:
    """Join the process group that torchrun's environment describes (nccl on GPUs, else gloo), or be alone.

    The group stays for the life of the process: a second one would meet the keys that the first left in torchrun's store.
    """
    many = dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) > 1 and "MASTER_ADDR" in os.environ and "RANK" in os.environ
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0")) if many else torch.cuda.current_device()
        device = torch.device("cuda", local if device.index is None else device.index)
        torch.cuda.set_device(device)
    if many and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)
    return Ranks(dist.get_rank(), dist.get_world_size(), device) if many else Ranks(0, 1, device)
