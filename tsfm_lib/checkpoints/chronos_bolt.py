"""The authors' Chronos-Bolt checkpoints (amazon/chronos-bolt-tiny, mini, small, base): their config.json and tensor names to ours."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from tsfm_lib.checkpoints import fill
from tsfm_lib.checkpoints.chronos import shared, stacks_from_official, t5_from_official
from tsfm_lib.models.chronos_bolt import ChronosBolt, ChronosBoltConfig


def is_official(config: Mapping[str, Any]) -> bool:
    c = config.get("chronos_config") or {}
    return "input_patch_size" in c and "prediction_length" in c and "output_patch_size" not in c  # the last is Chronos-2, another network


def from_official(config: Mapping[str, Any], tensors: Mapping[str, Tensor], quirks: Sequence[str] = ()) -> ChronosBolt:
    """A model with the authors' weights; `quirks` adds behaviours of their code."""
    ours = config_from_official(config, quirks)
    model = ChronosBolt(ours)
    fill(model, state_from_official(ours, tensors), "the Chronos-Bolt checkpoint")
    return model.eval()


def config_from_official(official: Mapping[str, Any], quirks: Sequence[str] = ()) -> ChronosBoltConfig:
    c = official["chronos_config"]
    stride = c.get("input_patch_stride", c["input_patch_size"])
    return ChronosBoltConfig(
        **t5_from_official(official), context=c["context_length"], horizon=c["prediction_length"], patch=c["input_patch_size"],
        stride=None if stride == c["input_patch_size"] else stride, quantiles=tuple(c["quantiles"]),
        reg_token=c.get("use_reg_token", False), quirks=tuple(quirks),
    )  # fmt: skip


def state_from_official(config: ChronosBoltConfig, t: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The embedding has two rows: the decoder's start and [REG]."""
    state, rows = stacks_from_official(config, t), shared(t)
    state["start"] = rows[0]
    if config.reg_token:
        state["reg"] = rows[1]
    for ours, theirs in (("patches", "input_patch_embedding"), ("head.map", "output_patch_embedding")):
        for a, b in (("hidden", "hidden_layer"), ("out", "output_layer"), ("skip", "residual_layer")):
            state |= {f"{ours}.{a}.{part}": t[f"{theirs}.{b}.{part}"] for part in ("weight", "bias")}
    return state
