"""The authors' Mantis checkpoints (paris-noah/Mantis-8M, MantisPlus, MantisV2): their config.json and tensor names to ours.

V1 calls its transformer `vit_unit` or `transf_unit`, V2 always `transf_unit`; which version it is, and how many layers are left,
the tensors say. Keys of a config.json that are not about the model (device, pre_training, ...) are ignored.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tsfm_lib.checkpoints import fill
from tsfm_lib.errors import TsfmError
from tsfm_lib.models.mantis import Mantis, MantisConfig

READOUT = {"cls_token": "cls", "mean_token": "mean", "combined": "both"}


def is_official(config: Mapping[str, Any]) -> bool:
    return any(key in config for key in ("hidden_dim_scalar_enc", "epsilon_scalar_enc", "transf_depth", "transf_num_heads"))


def from_official(config: Mapping[str, Any], tensors: Mapping[str, Tensor], quirks: tuple[str, ...] = ()) -> Mantis:
    """A model with the authors' weights and, for V2, their layout of the decays; `quirks` adds behaviours of their code."""
    tensors = {name.removeprefix("module.").replace("vit_unit.", "transf_unit.", 1): t for name, t in tensors.items()}
    ours = config_from_official(config, tensors, quirks)
    model = Mantis(ours)
    fill(model, state_from_official(ours, tensors, model.state_dict()), "the Mantis checkpoint")
    return model.eval()


def config_from_official(official: Mapping[str, Any], tensors: Mapping[str, Tensor], quirks: tuple[str, ...] = ()) -> MantisConfig:
    """Sizes from the config.json where they are named, else the authors' defaults for this version."""
    layers = {name.split(".")[3] for name in tensors if name.startswith("transf_unit.transformer.layers.")}
    kernel = tensors.get("tokgen_unit.convs.0.conv.weight")
    if not layers or kernel is None:
        raise TsfmError("this config.json is Mantis' but the tensors are not: expected tokgen_unit.* with transf_unit.* or vit_unit.*")
    second = any(".wQKV." in name for name in tensors)
    get = lambda key, default: default if official.get(key) is None else official[key]
    layer, readout = get("return_transf_layer", -1), READOUT[get("output_token", "cls_token")]
    if second and readout == "both" and len(tensors.get("prj.0.weight", ())) == len(kernel):
        readout = "cls"  # V2's head never grew with its read-out: ask `embed` for both
    defaults = MantisConfig.v2() if second else MantisConfig()
    return MantisConfig(
        version=2 if second else 1, context=get("seq_len", 512), patches=get("num_patches", 32), kernel=kernel.shape[-1],
        width=get("hidden_dim", 256), layers=len(layers), heads=get("transf_num_heads", 8), hidden=get("transf_mlp_dim", 512),
        head_width=get("transf_dim_head", defaults.head_width), dropout=get("transf_dropout", 0.1),
        scales=tuple(float(s) for s in get("scalar_scales", defaults.scales)), scalar_width=get("hidden_dim_scalar_enc", 32),
        scalar_epsilon=get("epsilon_scalar_enc", 1.1), layer=layer if 0 <= layer < len(layers) else None, readout=readout,
        quirks=(*(("xpos_by_halves",) if second else ()), *quirks),
    )  # fmt: skip


def state_from_official(config: MantisConfig, t: Mapping[str, Tensor], fresh: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the tensors and splits what is fused; `fresh` lends what a checkpoint may lack: the head of the pretraining."""
    both = lambda ours, theirs: {f"{ours}.{part}": t[f"{theirs}.{part}"] for part in ("weight", "bias")}
    state = {"cls": t["transf_unit.cls_token"]}
    state |= both("tokens.out", "tokgen_unit.linear_encoder.linear") | both("tokens.out_norm", "tokgen_unit.linear_encoder.layer_norm")
    for i in range(2):
        state |= both(f"tokens.convolutions.{i}", f"tokgen_unit.convs.{i}.conv") | both(f"tokens.norms.{i}", f"tokgen_unit.layer_norms.{i}")
        state[f"tokens.convolutions.{i}.weight"] = t[f"tokgen_unit.convs.{i}.conv.weight"][:, 0]
        ours, theirs = f"tokens.scalars.{i}", f"tokgen_unit.scalar_encoders.{i}"
        state[f"{ours}.scales"] = t[f"{theirs}.scales"]
        for name, key in (("weight", "w"), ("bias", "b"), ("gain", "layer_norm.weight"), ("shift", "layer_norm.bias")):
            state[f"{ours}.{name}"] = torch.stack([t[f"{theirs}.encoders.{k}.{key}"].flatten() for k in range(len(config.scales))])
        state |= both(f"head.{i}", f"prj.{i}") if "prj.0.weight" in t else {n: fresh[n] for n in fresh if n.startswith(f"head.{i}.")}
    if config.version == 1:
        state["positions"] = t["transf_unit.pos_encoder.pe"].squeeze(1)
    layer = layer_v2 if config.version == 2 else layer_v1
    for i in range(config.layers):
        own = {name.removeprefix(f"transf_unit.transformer.layers.{i}."): tensor for name, tensor in t.items()
               if name.startswith(f"transf_unit.transformer.layers.{i}.")}  # fmt: skip
        state |= {f"blocks.{i}.{name}": tensor for name, tensor in layer(config, own).items()}
    return state


def layer_v1(config: MantisConfig, t: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """q, k and v are one matrix; one head of full width has no output projection."""
    state = {f"attention.{name}.weight": part for name, part in zip("qkv", t["0.fn.to_qkv.weight"].chunk(3))}
    state["attention.out.weight"] = t.get("0.fn.to_out.0.weight", torch.eye(config.width))
    state["attention.out.bias"] = t.get("0.fn.to_out.0.bias", torch.zeros(config.width))
    names = {"norm_attention": "0.norm", "norm_mlp": "1.norm", "mlp.up": "1.fn.net.0", "mlp.down": "1.fn.net.3"}
    return state | {f"{ours}.{part}": t[f"{theirs}.{part}"] for ours, theirs in names.items() for part in ("weight", "bias")}


def layer_v2(config: MantisConfig, t: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """In the fused projection heads vary fastest, behind it channels do; the gate is the first half of the feed-forward."""
    state = {"norm_attention.weight": t["norm1.scale"], "norm_mlp.weight": t["norm2.scale"]}
    for part in ("weight", "bias"):
        fused = t[f"attention.wQKV.{part}"].unflatten(0, (3, config.head_width, config.heads)).transpose(1, 2).flatten(1, 2)
        state |= {f"attention.{name}.{part}": own for name, own in zip("qkv", fused)}
        state[f"attention.out.{part}"], state[f"mlp.down.{part}"] = t[f"attention.wO.{part}"], t[f"mlp.2.{part}"]
        state[f"mlp.gate.{part}"], state[f"mlp.up.{part}"] = t[f"mlp.0.{part}"].chunk(2)
    return state
