"""The authors' UniTS checkpoints (what their training code saves, as safetensors): their layout to ours.

config.json holds the arguments of their run (`prompt_num`, `patch_len`, `d_model`, ...), alone or as `args` beside `tasks`, a list of
[name, settings] with the lengths of each data set. Sizes that the tensors tell are read from them. The heads for classification and
two projections a block that nothing reads are left out.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tsfm_lib.checkpoints import fill
from tsfm_lib.errors import TsfmError
from tsfm_lib.models.units import UniTS, UniTSConfig

PROMPTS, MASKS = "prompt_tokens.", "mask_tokens."
LINEAR, DYNAMIC = {"weight": "weight", "bias": "bias"}, {"weight": "weights", "bias": "bias"}


def is_official(config: Mapping[str, Any]) -> bool:
    return "prompt_num" in config.get("args", config)


def from_official(config: Mapping[str, Any], tensors: Mapping[str, Tensor], quirks: tuple[str, ...] = ()) -> UniTS:
    """A model with the authors' weights; `quirks` adds behaviours of their code."""
    tensors = {name.removeprefix("module."): t for name, t in tensors.items()}
    ours = config_from_official(config, tensors, quirks)
    model = UniTS(ours)
    fill(model, state_from_official(ours, tensors), "the UniTS checkpoint")
    return model.eval()


def config_from_official(official: Mapping[str, Any], t: Mapping[str, Tensor], quirks: tuple[str, ...] = ()) -> UniTSConfig:
    args = official.get("args", official)
    datasets = tuple((name.removeprefix(PROMPTS), p.shape[1]) for name, p in sorted(t.items()) if name.startswith(PROMPTS))
    if not datasets or "prompt2forecat.weights" not in t or args.get("stride", args["patch_len"]) != args["patch_len"]:
        raise TsfmError("expected a UniTS with prompt tokens, prompt2forecat and patches that do not overlap, got "
                        f"{len(datasets)} sets of prompts and patches of {args['patch_len']} every {args.get('stride')}")  # fmt: skip
    lengths = [task for _, task in official.get("tasks", ()) if "pred_len" in task]
    longest = lambda key: max((task[key] for task in lengths), default=UniTSConfig.horizon)
    return UniTSConfig(
        context=longest("seq_len"), horizon=longest("pred_len"), patch=args["patch_len"], width=args["d_model"],
        layers=len({name.split(".")[1] for name in t if name.startswith("blocks.")}), heads=args["n_heads"],
        prompts=t[PROMPTS + datasets[0][0]].shape[2], hidden=len(t["blocks.0.dynamic_mlp.mlp.fc1.weight"]),
        head_hidden=len(t["forecast_head.mlp.fc1.weight"]), tokens=len(t["prompt2forecat.weights"]),
        positions=t["position_embedding.pe"].shape[2], datasets=datasets, dropout=args.get("dropout", 0.1), quirks=tuple(quirks),
    )  # fmt: skip


def state_from_official(config: UniTSConfig, t: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state = {"values.weight": t["patch_embeddings.value_embedding.weight"], "positions": t["position_embedding.pe"][0, 0]}

    def take(ours: str, theirs: str, names: Mapping[str, str] = LINEAR) -> None:
        state.update({f"{ours}.{a}": t[f"{theirs}.{b}"] for a, b in names.items()})

    for name, _ in config.datasets:
        state[f"prompts.{name}"], state[f"mask_tokens.{name}"] = t[PROMPTS + name][0], t[MASKS + name][0]
    take("to_horizon", "prompt2forecat", DYNAMIC)
    take("head.mix", "forecast_head.pos_proj", DYNAMIC)
    for ours, theirs in {"inwards": "proj_in", "mlp.up": "mlp.fc1", "mlp.down": "mlp.fc2", "out": "proj_out"}.items():
        take(f"head.{ours}", f"forecast_head.{theirs}")
    for i in range(config.layers):
        for ours, theirs, inner in (("time", "seq_att_block", "attn_seq"), ("variate", "var_att_block", "attn_var")):
            own, block = f"layers.{i}", f"blocks.{i}.{theirs}"
            state |= {f"{own}.{ours}.{n}.weight": w for n, w in zip("qkv", t[f"{block}.{inner}.qkv.weight"].chunk(3))}
            take(f"{own}.{ours}.out", f"{block}.{inner}.proj")
            take(f"{own}.norm_{ours}", f"{block}.norm1")
            take(f"{own}.gate_{ours}.open", f"{block}.ls1.gate")
        block = f"blocks.{i}.dynamic_mlp"
        for ours, theirs in {"norm_mlp": "norm2", "gate_mlp.open": "ls2.gate", "mlp.up": "mlp.fc1", "mlp.down": "mlp.fc2"}.items():
            take(f"{own}.{ours}", f"{block}.{theirs}")
        take(f"{own}.mlp.to_prompts", f"{block}.mlp.prompt_fc", DYNAMIC)
        take(f"{own}.mlp.to_samples", f"{block}.mlp.seq_fc", DYNAMIC)
    return state
