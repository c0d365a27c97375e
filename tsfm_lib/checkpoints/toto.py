"""The authors' Toto 1.0 checkpoint (Datadog/Toto-Open-Base-1.0): its layout to ours.

Rows of the fused projection are ordered (q | k | v, channel of a head, head), so those of one head lie apart; they are gathered here.
The weights were trained with decays laid out in halves, so that quirk is always on. Files saved with a fused feed-forward have other
names for the same two matrices; names may carry the prefix `model.`; tables of positions are made by code and need not be there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tsfm_lib.checkpoints import fill
from tsfm_lib.errors import TsfmError
from tsfm_lib.models.toto import Toto, TotoConfig

HEAD = ("df", "loc_proj", "scale_proj", "mixture_weights")
FUSED = {".mlp.0.w12.": ".mlp.0.", ".mlp.0.w3.": ".mlp.2."}
PARTS = ("weight", "bias")


def is_official(config: Mapping[str, Any]) -> bool:
    return "spacewise_every_n_layers" in config and "mlp_hidden_dim" in config


def from_official(config: Mapping[str, Any], tensors: Mapping[str, Tensor], quirks: Sequence[str] = ()) -> Toto:
    """A model with the authors' weights; `quirks` adds behaviours of their code."""
    ours = config_from_official(config, quirks)
    model = Toto(ours)
    fill(model, state_from_official(ours, tensors), "the Toto checkpoint")
    return model.eval()


def config_from_official(official: Mapping[str, Any], quirks: Sequence[str] = ()) -> TotoConfig:
    said = lambda name, default: str(official.get(name, default))
    scaler, outputs = said("scaler_cls", "CausalPatchStdMeanScaler"), said("output_distribution_classes", "MixtureOfStudentTsOutput")
    patch, stride = official["patch_size"], official.get("stride", official["patch_size"])
    if "CausalPatchStdMeanScaler" not in scaler or "MixtureOfStudentTsOutput" not in outputs or stride != patch:
        raise TsfmError("expected a Toto 1.0 with causal scaling per patch, a mixture of Student-t distributions and patches side by side, "
                        f"got {scaler}, {outputs} and patches of {patch} every {stride}")  # fmt: skip
    every = official["spacewise_every_n_layers"]
    return TotoConfig(
        context=64 * patch, patch=patch, width=official["embed_dim"], heads=official["num_heads"], layers=official["num_layers"],
        hidden=official["mlp_hidden_dim"], space_every=every if every > 0 else None, space_first=official.get("spacewise_first", False),
        components=(official.get("output_distribution_kwargs") or {}).get("k_components", 24),
        scale_range=official.get("scale_factor_exponent", 10.0) if official.get("stabilize_with_global", True) else None,
        dropout=official.get("dropout", 0.1), quirks=tuple(dict.fromkeys(("xpos_by_halves", *quirks))),
    )  # fmt: skip


def state_from_official(config: TotoConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    t = {}
    for name, tensor in tensors.items():
        for fused, plain in FUSED.items():
            name = name.replace(fused, plain)
        t[name.removeprefix("model.")] = tensor
    state = {f"patches.{part}": t[f"patch_embed.projection.{part}"] for part in PARTS}
    state |= {f"unembed.{part}": t[f"unembed.{part}"] for part in PARTS}
    state |= {f"head.{part}": torch.cat([t[f"output_distribution.{name}.{part}"] for name in HEAD]) for part in PARTS}
    for i in range(config.layers):
        ours, theirs = f"layers.{i}", f"transformer.layers.{i}"
        state |= {f"{ours}.norm_{a}.weight": t[f"{theirs}.{b}.scale"] for a, b in (("attention", "norm1"), ("mlp", "norm2"))}
        for part in PARTS:
            fused = t[f"{theirs}.attention.wQKV.{part}"].unflatten(0, (3, -1, config.heads))  # 3 K H ...
            for name, rows in zip("qkv", fused.transpose(1, 2).flatten(1, 2)):
                state[f"{ours}.attention.{name}.{part}"] = rows
            state[f"{ours}.attention.out.{part}"] = t[f"{theirs}.attention.wO.{part}"]
            state[f"{ours}.mlp.gate.{part}"], state[f"{ours}.mlp.up.{part}"] = t[f"{theirs}.mlp.0.{part}"].chunk(2)
            state[f"{ours}.mlp.down.{part}"] = t[f"{theirs}.mlp.2.{part}"]
    return state
