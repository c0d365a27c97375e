"""A training state as one safetensors file: tensors under slash-separated names, everything else as JSON in its header.

One file means one rename: a checkpoint is either the whole previous one or the whole new one, whenever the process dies.
"""

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tsfm_lib.errors import TsfmError


def seed_for(seed: int, step: int, purpose: str, rank: int = 0) -> int:
    """An independent 63-bit seed for one purpose at one step.

    >>> seed_for(0, 7, "data") == seed_for(0, 7, "data"), seed_for(0, 7, "data") == seed_for(0, 7, "loss")
    (True, False)
    """
    words = np.random.SeedSequence([seed, step, zlib.crc32(purpose.encode()), rank]).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def save_state(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write next to the target, flush to the disk, then rename."""
    partial = path.with_name(path.name + ".partial")
    header = {"facts": json.dumps(facts, allow_nan=False)}           # one key: the header then has one possible order
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, partial, metadata=header)
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            return {name: file.get_tensor(name).clone() for name in file.keys()}, facts  # noqa: SIM118 (not a dict)
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise TsfmError(f"{path} is not a checkpoint of this library ({error}): delete it to train from the beginning") from None


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and kept buffers; a tied weight appears under its first name only."""
    seen, tensors = set(), {}
    for name, tensor in model.state_dict().items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() == 0 or key not in seen:
            tensors[name] = tensor
            seen.add(key)
    return tensors


@torch.no_grad()
def copy_into(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    mine = model_tensors(model)
    check_names(mine, tensors)
    for name, tensor in mine.items():
        tensor.copy_(tensors[name])


def check_names(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    wrong = sorted(set(mine) ^ set(theirs)) or [n for n in mine if mine[n].shape != theirs[n].shape]
    if wrong:
        raise TsfmError(
            f"the checkpoint was written by another model (first difference: {wrong[0]}): train into another folder or with resume=False"
        )


def optimiser_tensors(optimisers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Moments and counters as "optimiser/parameter/name"; rates and the like are the recipe's and not stored.

    >>> weight = nn.Parameter(torch.ones(2)); weight.grad = torch.ones(2)
    >>> adam = torch.optim.AdamW([weight]); _ = adam.step()
    >>> list(optimiser_tensors([adam]))
    ['0/0/step', '0/0/exp_avg', '0/0/exp_avg_sq']
    """
    return {
        f"{o}/{p}/{name}": value if isinstance(value, Tensor) else torch.tensor(value)
        for o, optimiser in enumerate(optimisers)
        for p, entry in optimiser.state_dict()["state"].items()
        for name, value in entry.items()
    }


def restore_optimisers(optimisers: Sequence[torch.optim.Optimizer], tensors: Mapping[str, Tensor]) -> None:
    for o, optimiser in enumerate(optimisers):
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            which, parameter, name = key.split("/")
            if int(which) == o:
                state.setdefault(int(parameter), {})[name] = value
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def join_parts(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """One flat dictionary, "part:name".

    >>> list(join_parts({"model": {"weight": torch.zeros(1)}}))
    ['model:weight']
    """
    return {f"{part}:{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def split_parts(tensors: Mapping[str, Tensor], parts: Sequence[str]) -> list[dict[str, Tensor]]:
    """The inverse, one dictionary for each part asked for."""
    return [{name.partition(":")[2]: t for name, t in tensors.items() if name.partition(":")[0] == part} for part in parts]
