"""A smaller model: heads and MLPs really removed, so that what `ablate` only silences is no longer computed.

    small = interpret.prune(model, plan)               # a copy; says what the ablated model says
    interpret.save_pruned(small, folder)               # plan.json beside config and weights
    again = interpret.load_pruned(folder)

Rows of q, k and v and columns of the output projection go; norms of q and k, rotary positions and scales are shared by the heads of a
layer and stay as they are; a bias that layers share (T5's table of relative positions) stays whole, and each layer takes the rows of
its own heads. A layer without heads keeps the bias of its output projection; a removed MLP says zero.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tsfm_lib import checkpoints
from tsfm_lib.errors import TsfmError
from tsfm_lib.interpret.plans import Plan, attention_of, sites
from tsfm_lib.nn.attention import Attention
from tsfm_lib.paths import read_json


class Nothing(nn.Module):
    """In place of an MLP."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return torch.zeros_like(x)


def prune(model: nn.Module, plan: Plan) -> nn.Module:
    """A copy without the parts of `plan`. Pruned models can be pruned again: head numbers are then those that are left.

    `small.pruned` is the plan in terms of the model as it once was."""
    parts = plan.resolve(model)
    small = copy.deepcopy(model)
    known, all_gone = sites(small), getattr(model, "pruned", Plan()) | Plan(mlps=parts.mlps)
    for name, gone in parts.heads.items():
        attention = attention_of(small, known[name])
        if not isinstance(attention, Attention):
            raise TsfmError(f"{name} belongs to a {type(attention).__name__}: heads of nn.Attention can be removed, `ablate` silences any")
        once = attention.kept or range(attention.n_heads)
        all_gone = all_gone | Plan(heads={name: [once[h] for h in gone]})
        keep_heads(attention, [h for h in range(attention.n_heads) if h not in gone])
    paths = {id(module): path for path, module in small.named_modules()}
    for name in parts.mlps:
        parent, _, last = paths[id(known[name].module)].rpartition(".")
        setattr(small.get_submodule(parent), last, Nothing())
    small.pruned = all_gone
    return small


def keep_heads(attention: Attention, kept: list[int]) -> None:
    """Cuts an attention down to these of its heads, in place."""
    width = attention.head_dim
    rows = torch.tensor([h * width + i for h in kept for i in range(width)], dtype=torch.long, device=attention.out.weight.device)
    for linear in (attention.q, attention.k, attention.v):
        linear.weight = nn.Parameter(linear.weight.detach()[rows], linear.weight.requires_grad)
        if linear.bias is not None:
            linear.bias = nn.Parameter(linear.bias.detach()[rows], linear.bias.requires_grad)
        linear.out_features = len(rows)
    out = attention.out
    out.weight, out.in_features = nn.Parameter(out.weight.detach()[:, rows], out.weight.requires_grad), len(rows)
    before = attention.kept or range(attention.n_heads)
    attention.kept, attention.n_heads = [before[h] for h in kept], len(kept)


def save_pruned(model: nn.Module, folder: str | Path) -> Path:
    """A folder as `checkpoints.save` writes it, with plan.json beside the weights; `load_pruned` reads it."""
    if not isinstance(getattr(model, "pruned", None), Plan):
        raise TsfmError("this model was not pruned: save it with checkpoints.save")
    folder = checkpoints.save(model, folder, {**getattr(model, "card", {}), "pruned": True})
    model.pruned.save(folder / "plan.json")
    return folder


def load_pruned(folder: str | Path, device: str | torch.device = "cpu") -> nn.Module:
    """The architecture of the folder's config, pruned by its plan, with its weights."""
    folder = Path(folder)
    config = read_json(folder / "config.json")
    if "model" not in config or not (folder / "plan.json").exists():
        raise TsfmError(f"{folder} holds no pruned model: expected plan.json, and a config.json with a field model")
    with checkpoints.readable(folder):
        model = prune(checkpoints.build(config["model"], config.get("config", {})), Plan.load(folder / "plan.json"))
        checkpoints.fill(model, checkpoints.read_tensors(folder / "model.safetensors"), folder)
    model.card = read_json(folder / "card.json")
    return model.to(device).eval()


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
