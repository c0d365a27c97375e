"""One process or many: what a rank needs to know, and the few words ranks exchange. `torchrun` starts the many."""

import atexit
import gc
import importlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tsfm_lib.errors import TsfmError


@dataclass(frozen=True)
class Ranks:
    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    @torch.no_grad()
    def mean_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Every gradient becomes the mean over the ranks; one that no rank has (an expert without a token) stays absent.

        Done here in one message: DistributedDataParallel gives the buffers of the first rank to all and needs to be told of unused experts.
        """
        if self.size == 1:
            return
        parameters = list(parameters)
        present = torch.tensor([float(p.grad is not None) for p in parameters], device=self.device)
        flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])
        dist.all_reduce(present)
        self.mean(flat)
        for p, there, mean in zip(parameters, present.tolist(), flat.split([p.numel() for p in parameters])):
            p.grad = mean.view_as(p) if there else None

    @torch.no_grad()
    def mean_buffers(self, module: nn.Module) -> None:
        """Running statistics, too, are those of all rows."""
        moving = [b for b in module.buffers() if b.is_floating_point()] if self.size > 1 else []
        if moving:
            mean = self.mean(torch.cat([b.flatten() for b in moving]))
            for b, part in zip(moving, mean.split([b.numel() for b in moving])):
                b.copy_(part.view_as(b))

    def share(self, module: nn.Module) -> None:
        """All start from the first rank's weights."""
        if self.size > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, src=0)

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
        importlib.import_module("torch._dynamo")  # optimisers import it: once the group exists, its defaults keep the group's threads

        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(_leave)
    return Ranks(dist.get_rank(), dist.get_world_size(), device) if many else Ranks(0, 1, device)


def _leave() -> None:
    """End the group and its threads while there is an interpreter to end them in."""
    dist.destroy_process_group()
    gc.collect()
