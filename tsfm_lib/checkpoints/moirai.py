"""The authors' Moirai checkpoints (Salesforce/moirai-1.0-R-small, -base, -large and 1.1): their layout to ours.

Their weights were trained with masked mixture weights, so that quirk is always on. Masks and tables of positions are made by code and
need not be in the file; Moirai-MoE and Moirai 2 are other models.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tsfm_lib.checkpoints import fill
from tsfm_lib.errors import TsfmError
from tsfm_lib.models.moirai import Moirai, MoiraiConfig

COMPONENTS = ("0.df", "0.loc", "0.scale", "1.loc", "2.total_count", "2.logits", "3.loc", "3.scale")
HEAD = ("weights_logits", *(f"components.{name}" for name in COMPONENTS))


def is_official(config: Mapping[str, Any]) -> bool:
    return "patch_sizes" in config and "d_model" in config


def from_official(config: Mapping[str, Any], tensors: Mapping[str, Tensor], quirks: tuple[str, ...] = ()) -> Moirai:
    """A model with the authors' weights; `quirks` adds behaviours of their code."""
    ours = config_from_official(config, tensors, quirks)
    model = Moirai(ours)
    fill(model, state_from_official(ours, tensors), "the Moirai checkpoint")
    return model.eval()


def config_from_official(official: Mapping[str, Any], tensors: Mapping[str, Tensor], quirks: tuple[str, ...] = ()) -> MoiraiConfig:
    layers = {name.split(".")[2] for name in tensors if name.startswith("encoder.layers.")}
    missing = [name for name in HEAD if f"param_proj.proj.{name}.weight" not in tensors]
    if missing or "encoder.layers.0.ffn.fc_gate.weight" not in tensors or not official.get("scaling", True):
        raise TsfmError("expected a Moirai 1.0 or 1.1 with its mixture of four distributions and with scaling, got one with "
                        f"scaling={official.get('scaling', True)} and without {', '.join(missing) or 'these'} parameters")  # fmt: skip
    width, sizes = official["d_model"], tuple(official["patch_sizes"])
    return MoiraiConfig(
        patch=32 if 32 in sizes else sizes[len(sizes) // 2], patch_sizes=sizes, width=width, layers=len(layers),
        head_width=len(tensors["encoder.layers.0.self_attn.q_norm.weight"]), dropout=official.get("dropout_p") or 0.0,
        quirks=tuple(dict.fromkeys(("masked_weights", *quirks))),
    )  # fmt: skip


def state_from_official(config: MoiraiConfig, t: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state = {"mask_token": t["mask_encoding.weight"][0], "norm.weight": t["encoder.norm.weight"]}
    for part in ("weight", "bias"):
        state[f"values.{part}"] = t[f"in_proj.{part}"]
        state[f"head.{part}"] = torch.cat([t[f"param_proj.proj.{name}.{part}"] for name in HEAD], dim=1)
    for i in range(config.layers):
        ours, theirs = f"layers.{i}", f"encoder.layers.{i}"
        state |= {f"{ours}.attention.{name}.weight": t[f"{theirs}.self_attn.{name}_proj.weight"] for name in ("q", "k", "v", "out")}
        state |= {f"{ours}.attention.{name}.weight": t[f"{theirs}.self_attn.{name}.weight"] for name in ("q_norm", "k_norm")}
        state[f"{ours}.bias"] = t[f"{theirs}.self_attn.var_attn_bias.emb.weight"][..., None, None]
        names = {"mlp.up": "ffn.fc1", "mlp.gate": "ffn.fc_gate", "mlp.down": "ffn.fc2", "norm_attention": "norm1", "norm_mlp": "norm2"}
        state |= {f"{ours}.{a}.weight": t[f"{theirs}.{b}.weight"] for a, b in names.items()}
    return state
