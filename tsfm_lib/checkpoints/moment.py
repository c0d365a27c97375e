"""The authors' MOMENT checkpoints (AutonLab/MOMENT-1-small, -base, -large, and what their code saves): their layout to ours.

The token embedding of the T5 is never used and left out. Two options of the authors' code that no published checkpoint uses are
expressed in our own parts: the learned scale and shift of their normalisation go into the layers beside it, and a model without
positions gets a table of zeros. Heads for classification are left out: read embeddings instead.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tsfm_lib.checkpoints import fill
from tsfm_lib.errors import TsfmError
from tsfm_lib.models.moment import Moment, MomentConfig
from tsfm_lib.nn.positions import sinusoidal

ACTIVATIONS = {"gelu": "gelu", "gated-gelu": "gelu_tanh", "gelu_new": "gelu_tanh", "relu": "relu", "silu": "silu"}
POSITIONS = "patch_embedding.position_embedding.pe"


def is_official(config: Mapping[str, Any]) -> bool:
    return "t5_config" in config and "patch_len" in config


def from_official(config: Mapping[str, Any], tensors: Mapping[str, Tensor], quirks: tuple[str, ...] = ()) -> Moment:
    """A model with the authors' weights; `quirks` adds behaviours of their code."""
    ours = config_from_official(config, tensors, quirks)
    model = Moment(ours)
    state = state_from_official(ours, tensors)
    if not config.get("add_positional_embedding", True):
        state["positions"] = torch.zeros(ours.positions, ours.width)
    fill(model, state, "the MOMENT checkpoint")
    return model.eval()


def config_from_official(official: Mapping[str, Any], tensors: Mapping[str, Tensor], quirks: tuple[str, ...] = ()) -> MomentConfig:
    t5, patch = official["t5_config"], official["patch_len"]
    if official.get("transformer_type", "encoder_only") != "encoder_only" or official.get("patch_stride_len", patch) != patch:
        raise TsfmError("expected an encoder-only MOMENT whose patches do not overlap, got "
                        f"{official.get('transformer_type')} with patches of {patch} every {official.get('patch_stride_len')}")  # fmt: skip
    kind = t5.get("feed_forward_proj", "gated-gelu")
    name = kind if kind in ACTIVATIONS else kind.removeprefix("gated-")
    if name not in ACTIVATIONS:
        raise TsfmError(f"feed_forward_proj is one of {', '.join(ACTIVATIONS)}, gated or not, got {kind!r}")
    context, task = official.get("seq_len", 512), official.get("task_name", "reconstruction")
    forecasts = ((context // patch, len(tensors["head.linear.bias"])),) if task == "forecasting" else ()
    return MomentConfig(
        context=context, patch=patch, width=official.get("d_model") or t5["d_model"], layers=t5["num_layers"], heads=t5["num_heads"],
        head_width=t5["d_kv"], hidden=t5["d_ff"], activation=ACTIVATIONS[name], gated=kind.startswith("gated-"),
        buckets=t5.get("relative_attention_num_buckets", 32), max_distance=t5.get("relative_attention_max_distance", 128),
        dropout=t5.get("dropout_rate", 0.1), norm_eps=t5.get("layer_norm_epsilon", 1e-6),
        value_bias="patch_embedding.value_embedding.bias" in tensors or "normalizer.affine_bias" in tensors,
        positions=tensors[POSITIONS].shape[1] if POSITIONS in tensors else max(512, context // patch),
        reconstruction=task == "reconstruction", forecasts=forecasts, mask_ratio=official.get("mask_ratio") or 0.3, quirks=tuple(quirks),
    )  # fmt: skip


def state_from_official(config: MomentConfig, t: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state = {
        "values.weight": t["patch_embedding.value_embedding.weight"], "mask_token": t["patch_embedding.mask_embedding"],
        "positions": t[POSITIONS][0] if POSITIONS in t else sinusoidal(config.positions, config.width),
        "norm.weight": t["encoder.final_layer_norm.weight"],
        "bias.table.weight": t["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"],
    }  # fmt: skip
    if config.value_bias:
        state["values.bias"] = t.get("patch_embedding.value_embedding.bias", torch.zeros(config.width))
    heads = ["head"] * config.reconstruction + [f"forecasts.{n}x{h}" for n, h in config.forecasts]
    state |= {f"{name}.{part}": t[f"head.linear.{part}"] for name in heads for part in ("weight", "bias")}
    for i in range(config.layers):
        attention, mlp = (f"encoder.block.{i}.layer.{j}" for j in range(2))
        state[f"layers.{i}.norm_attention.weight"], state[f"layers.{i}.norm_mlp.weight"] = (
            t[f"{part}.layer_norm.weight"] for part in (attention, mlp)
        )
        for ours, theirs in zip(("q", "k", "v", "out"), "qkvo"):
            state[f"layers.{i}.attention.{ours}.weight"] = t[f"{attention}.SelfAttention.{theirs}.weight"]
        names = (("gate", "wi_0"), ("up", "wi_1"), ("down", "wo")) if config.gated else (("up", "wi"), ("down", "wo"))
        state |= {f"layers.{i}.mlp.{ours}.weight": t[f"{mlp}.DenseReluDense.{theirs}.weight"] for ours, theirs in names}
    if "normalizer.affine_weight" in t:  # z' = w z + b in front, (y - b) / w behind
        w, b = (t[f"normalizer.affine_{part}"].flatten() for part in ("weight", "bias"))
        state["values.bias"] = state["values.bias"] + b * state["values.weight"].sum(1)
        state["values.weight"] = w * state["values.weight"]
        for name in heads:
            state[f"{name}.weight"], state[f"{name}.bias"] = state[f"{name}.weight"] / w, (state[f"{name}.bias"] - b) / w
    return state
