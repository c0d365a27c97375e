"""The authors' TimesFM 2.5 checkpoints (google/timesfm-2.5-200m-pytorch): their config.json and tensor names to ours."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from tsfm_lib.checkpoints import fill
from tsfm_lib.models.timesfm import TimesFM, TimesFMConfig

QUIRKS = ("small_is_flat",)  # what the weights were trained with
NORMS = {"norm_attention": "pre_attn_ln", "norm_attended": "post_attn_ln", "norm_mlp": "pre_ff_ln", "norm_changed": "post_ff_ln",
         "norm_q": "attn.query_ln", "norm_k": "attn.key_ln"}  # fmt: skip
BLOCK = {"hidden": "hidden_layer", "out": "output_layer", "skip": "residual_layer"}


def is_official(config: Mapping[str, Any]) -> bool:
    """Their module knows its sizes: a config.json may hold nothing but how it is compiled. The port to transformers is another layout."""
    said = json.dumps(config).lower()
    return "model_dims" in config or "torch_compile" in config or ("timesfm" in said and "hidden_size" not in config)


def from_official(config: Mapping[str, Any], tensors: Mapping[str, Tensor], quirks: Sequence[str] = ()) -> TimesFM:
    """A model with the authors' weights; `quirks` adds behaviours of their code."""
    ours = config_from_official(config, tensors, quirks)
    model = TimesFM(ours)
    fill(model, state_from_official(ours, tensors), "the TimesFM checkpoint")
    return model.eval()


def config_from_official(official: Mapping[str, Any], t: Mapping[str, Tensor], quirks: Sequence[str] = ()) -> TimesFMConfig:
    """What the tensors show is read from them."""
    standard, quantiles = TimesFMConfig.published(), official.get("quantiles")
    quantiles = standard.quantiles if quantiles is None else tuple(quantiles)
    width, head_width = len(t["tokenizer.output_layer.weight"]), len(t["stacked_xf.0.attn.query_ln.scale"])
    steps = lambda head: len(t[f"output_projection_{head}.output_layer.weight"]) // (len(quantiles) + 1)
    patch = t["tokenizer.hidden_layer.weight"].shape[1] // 2
    return TimesFMConfig(
        context=-(-official.get("max_context", standard.context) // patch) * patch, patch=patch, horizon=steps("point"),
        spread_horizon=steps("quantiles"), width=width, heads=width // head_width, hidden=len(t["stacked_xf.0.ff0.weight"]),
        layers=sum(name.endswith(".ff0.weight") for name in t), head_hidden=len(t["tokenizer.hidden_layer.weight"]), quantiles=quantiles,
        fed=official.get("decode_index"), quirks=tuple(dict.fromkeys([*QUIRKS, *quirks])),
    )  # fmt: skip


def state_from_official(config: TimesFMConfig, t: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values lie one below the other in their fused matrix, heads side by side in each."""
    state = {f"tokenizer.{a}.{part}": t[f"tokenizer.{b}.{part}"] for a, b in BLOCK.items() for part in ("weight", "bias")}
    for ours, theirs in (("head", "output_projection_point"), ("spread", "output_projection_quantiles")):
        state |= {f"{ours}.{a}.weight": t[f"{theirs}.{b}.weight"] for a, b in BLOCK.items()}
    for i in range(config.layers):
        ours, theirs = f"layers.{i}", f"stacked_xf.{i}"
        state |= {f"{ours}.{a}.weight": t[f"{theirs}.{b}.scale"] for a, b in NORMS.items()}
        fused = t.get(f"{theirs}.attn.qkv_proj.weight")
        parts = fused.chunk(3) if fused is not None else [t[f"{theirs}.attn.{name}.weight"] for name in ("query", "key", "value")]
        state |= {f"{ours}.attention.{name}.weight": part for name, part in zip("qkv", parts)}
        state[f"{ours}.attention.out.weight"] = t[f"{theirs}.attn.out.weight"]
        state[f"{ours}.channel_scale"] = t[f"{theirs}.attn.per_dim_scale.per_dim_scale"]
        state |= {f"{ours}.mlp.{a}.weight": t[f"{theirs}.{b}.weight"] for a, b in (("up", "ff0"), ("down", "ff1"))}
    return state
