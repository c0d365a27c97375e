"""The authors' Chronos-T5 checkpoints (amazon/chronos-t5-tiny, mini, small, base, large): their config.json and tensor names to ours.

Also the parts of T5's layout that Chronos-Bolt shares. Tied copies of the embedding may be there or not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from tsfm_lib.checkpoints import fill
from tsfm_lib.errors import TsfmError
from tsfm_lib.models.chronos import END, MISSING, Chronos, ChronosConfig
from tsfm_lib.nn.t5 import T5Config

ACTIVATIONS = {"relu": ("relu", False), "gated-gelu": ("gelu_tanh", True), "gated-silu": ("silu", True), "gelu": ("gelu", False)}
COPIES = ("shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head")


def is_official(config: Mapping[str, Any]) -> bool:
    return "n_tokens" in (config.get("chronos_config") or {})


def from_official(config: Mapping[str, Any], tensors: Mapping[str, Tensor], quirks: Sequence[str] = ()) -> Chronos:
    """A model with the authors' weights; `quirks` adds behaviours of their code."""
    ours = config_from_official(config, quirks)
    model = Chronos(ours)
    fill(model, state_from_official(ours, tensors), "the Chronos-T5 checkpoint")
    return model.eval()


def t5_from_official(official: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `T5Config`; what a config.json leaves out is T5's default."""
    kind = official.get("feed_forward_proj", "relu")
    if kind not in ACTIVATIONS:
        raise TsfmError(f"feed_forward_proj is one of {', '.join(ACTIVATIONS)}, got {kind!r}")
    activation, gated = ACTIVATIONS[kind]
    return {
        "width": official["d_model"], "heads": official["num_heads"], "head_width": official["d_kv"], "hidden": official["d_ff"],
        "encoder_layers": official["num_layers"], "decoder_layers": official.get("num_decoder_layers") or official["num_layers"],
        "activation": activation, "gated": gated, "buckets": official.get("relative_attention_num_buckets", 32),
        "max_distance": official.get("relative_attention_max_distance", 128), "dropout": float(official.get("dropout_rate", 0.1)),
        "norm_eps": float(official.get("layer_norm_epsilon", 1e-6)),
    }  # fmt: skip


def config_from_official(official: Mapping[str, Any], quirks: Sequence[str] = ()) -> ChronosConfig:
    c = official["chronos_config"]
    limits = c.get("tokenizer_kwargs", {})
    wanted = {"tokenizer_class": "MeanScaleUniformBins", "model_type": "seq2seq", "pad_token_id": MISSING, "eos_token_id": END}
    if other := {field: c[field] for field, value in wanted.items() if c.get(field, value) != value}:
        raise TsfmError(f"this Chronos is of another kind: expected {wanted}, got {other}: take one of amazon/chronos-t5-*")
    return ChronosConfig(
        **t5_from_official(official), context=c["context_length"], horizon=c["prediction_length"], tokens=c["n_tokens"],
        low=float(limits.get("low_limit", -15)), high=float(limits.get("high_limit", 15)), specials=c.get("n_special_tokens", 2) + 1,
        end=c.get("use_eos_token", True), tied=official.get("tie_word_embeddings", True), samples=c.get("num_samples", 20),
        temperature=float(c.get("temperature", 1)), top_k=c.get("top_k") or 0, top_p=float(c.get("top_p", 1)), quirks=tuple(quirks),
    )  # fmt: skip


def state_from_official(config: ChronosConfig, t: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state = stacks_from_official(config, t)
    state["embedding.weight"] = shared(t, COPIES if config.tied else COPIES[:-1])
    return state if config.tied else state | {"head.weight": t["lm_head.weight"]}


def shared(t: Mapping[str, Tensor], copies: Sequence[str] = COPIES[:-1]) -> Tensor:
    """The embedding, under whichever of its names the file holds it."""
    found = next((t[f"{name}.weight"] for name in copies if f"{name}.weight" in t), None)
    if found is None:
        raise TsfmError(f"expected the embedding as {' or '.join(f'{name}.weight' for name in copies)}, found none: is the file whole?")
    return found


def stacks_from_official(config: T5Config, t: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Encoder and decoder. A layer's parts are numbered: self-attention, in the decoder cross-attention, feed-forward; the first layer of
    a stack keeps the bias of the distances for all."""
    state = {}
    ffn = (("gate", "wi_0"), ("up", "wi_1"), ("down", "wo")) if config.gated else (("up", "wi"), ("down", "wo"))
    attention = (("q", "q"), ("k", "k"), ("v", "v"), ("out", "o"))
    for stack, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        state[f"{stack}.bias.table.weight"] = t[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        state[f"{stack}.norm.weight"] = t[f"{stack}.final_layer_norm.weight"]
        parts = [("self", "attend", "SelfAttention", attention), ("mlp", "mlp", "DenseReluDense", ffn)]
        if stack == "decoder":
            parts.insert(1, ("cross", "cross", "EncDecAttention", attention))
        for i in range(layers):
            for j, (norm, ours, theirs, names) in enumerate(parts):
                state[f"{stack}.layers.{i}.norm_{norm}.weight"] = t[f"{stack}.block.{i}.layer.{j}.layer_norm.weight"]
                for a, b in names:
                    state[f"{stack}.layers.{i}.{ours}.{a}.weight"] = t[f"{stack}.block.{i}.layer.{j}.{theirs}.{b}.weight"]
    return state
