"""The authors' Kairos checkpoints (mldi-lab/Kairos_10m, 23m, 50m): their config.json and tensor names to ours."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tsfm_lib.checkpoints import fill
from tsfm_lib.models.kairos import Kairos, KairosConfig


def config_from_official(official: Mapping[str, Any]) -> KairosConfig:
    """config.json of mldi-lab/Kairos_*: the released code's behaviour where it matters for the numbers, ours where it is clean."""
    longest = official["input_patch_size"]
    activation = {"gelu_new": "gelu_tanh", "gelu": "gelu", "relu": "relu", "silu": "silu"}[official.get("dense_act_fn") or "relu"]
    shares = official.get("target_dist")
    return KairosConfig(
        context=official["context_length"], horizon=official["prediction_length"], forecast_tokens=official["num_decoder_segments"],
        patch_lengths=tuple(longest // 2**i for i in range(official["levels"])), null_experts=official["n_null_experts"],
        active_experts=official["n_activated_experts"], target_shares=tuple(shares) if shares else None,
        balance_rate=official["update_bias_rate"], width=official["d_model"], heads=official["num_heads"], head_width=official["d_kv"],
        hidden=official["d_ff"], encoder_layers=official["num_layers"],
        decoder_layers=official.get("num_decoder_layers") or official["num_layers"], activation=activation,
        gated=bool(official.get("is_gated_act", False)), norm_eps=official.get("layer_norm_epsilon", 1e-6),
        quantiles=tuple(official["quantiles"]), reg_token=official["use_reg_token"],
        rotary="instance" if official["position_embedding_type"] == "instance_wise_rope" else "half",
        spectral_bins=official.get("instance_rope_input_feature_dim", 128), cross_rotary=official.get("is_cross_attention_pe", True),
        step_weights=official.get("loss_weight_scheme", "none"), log_frequency_range=None,
        quirks=("reversed_cross_keys",) if official.get("cross_attention_pe_flip") else (),
    )  # fmt: skip


def is_official(config: Mapping[str, Any]) -> bool:
    return "num_decoder_segments" in config and "n_null_experts" in config


def from_official(config: Mapping[str, Any], tensors: Mapping[str, Tensor], quirks: Sequence[str] = ()) -> Kairos:
    """A model with the authors' weights; `quirks` adds behaviours of their code."""
    ours = config_from_official(config)
    model = Kairos(replace(ours, quirks=tuple(dict.fromkeys([*ours.quirks, *quirks]))))
    fill(model, state_from_official(ours, tensors), "the Kairos checkpoint")
    return model.eval()


def state_from_official(config: KairosConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the authors' tensors. Their size-specific maps are one array padded to the longest patch: values first, mask second."""
    t = tensors
    state = {"router.bias": t["patch.moe.gate.bias"], "router.score.weight": t["patch.moe.gate.weight"], "start": t["shared.weight"][0]}
    if config.reg_token:
        state["reg"] = t["shared.weight"][1]
    into, longest = "input_patch_embedding", config.patch_lengths[0]
    for level, p in enumerate(config.patch_lengths):
        both = torch.cat([t[f"{into}.hidden_layer.weight"][level], t[f"{into}.residual_layer.weight"][level]])
        state[f"patches.into.{level}.weight"] = torch.cat([both[:, :p], both[:, longest : longest + p]], dim=1)
        state[f"patches.into.{level}.bias"] = torch.cat([t[f"{into}.{part}_layer.bias"][level] for part in ("hidden", "residual")])
    names = {"spectrum_norm": "fft_norm", "patches.out": f"{into}.output_layer"}
    names |= {f"head.{ours}": f"output_patch_embedding.{theirs}_layer" for ours, theirs in
              (("hidden", "hidden"), ("out", "output"), ("skip", "residual"))}  # fmt: skip
    for ours, theirs in names.items():
        state |= {f"{ours}.{part}": t[f"{theirs}.{part}"] for part in ("weight", "bias")}
    for stack, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        state[f"{stack}_norm.weight"] = t[f"{stack}.final_layer_norm.weight"]
        blocks = {"self": ("attend", "SelfAttention"), "cross": ("cross", "EncDecAttention")}
        if stack == "encoder":
            del blocks["cross"]
        for i in range(layers):
            for j, (kind, (ours, theirs)) in enumerate(blocks.items()):
                source = f"{stack}.block.{i}.layer.{j}"
                state[f"{stack}.{i}.norm_{kind}.weight"] = t[f"{source}.layer_norm.weight"]
                for a, b in (("q", "q"), ("k", "k"), ("v", "v"), ("out", "o")):
                    state[f"{stack}.{i}.{ours}.attention.{a}.weight"] = t[f"{source}.{theirs}.{b}.weight"]
                if config.rotary == "instance":
                    rope = f"{source}.{theirs}.rotary_emb"
                    state[f"{stack}.{i}.{ours}.frequencies.log_theta"] = t[f"{rope}.log_freqs"]
                    for k in (0, 2, 4):
                        for part in ("weight", "bias"):
                            state[f"{stack}.{i}.{ours}.frequencies.mlp.{k}.{part}"] = t[f"{rope}.instance_wise_param_net.mlp.{k}.{part}"]
            source = f"{stack}.block.{i}.layer.{len(blocks)}"
            state[f"{stack}.{i}.norm_mlp.weight"] = t[f"{source}.layer_norm.weight"]
            ffn = (("gate", "wi_0"), ("up", "wi_1"), ("down", "wo")) if config.gated else (("up", "wi"), ("down", "wo"))
            state |= {f"{stack}.{i}.mlp.{a}.weight": t[f"{source}.DenseReluDense.{b}.weight"] for a, b in ffn}
    return state
