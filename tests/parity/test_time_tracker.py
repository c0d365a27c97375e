"""The parts of Time Tracker that relatives with public code share, against their authors' code. The model itself has none.

timerxl-attn   any-variate attention (Timer-XL), gathered and dense
timemoe-moe    execution of experts (Time-MoE), one by one and grouped
dsv3-gate      a bias that selects and never weighs (DeepSeek-V3)
"""

import math

import pytest
import torch
from torch import nn

from tests.parity.reference import files, read
from tsfm_lib.models.time_tracker import Router, TimeTrackerConfig
from tsfm_lib.nn.feedforward import FeedForward
from tsfm_lib.nn.graph import VariateAttention, connect
from tsfm_lib.nn.moe import run_experts, top_k_gates

close = lambda a, b, atol: torch.testing.assert_close(a, b, atol=atol, rtol=0)


def attention_of(case, dense, prescale):
    """Their projections and biases. "prescale": their eager code scales the bias together with the scores."""
    c = case.config
    low, high = c.get("partial_rotary", (0.0, 0.5))
    layer = VariateAttention(c["d_model"], c["n_heads"], dense=dense, rope_base=c.get("rope_base", 10000), rope_fraction=high - low)
    for mine, theirs in (("q", "query"), ("k", "key"), ("v", "value"), ("out", "out")):
        weights = {part: case.weights[f"{theirs}_projection.{part}"] for part in ("weight", "bias")}
        getattr(layer.attention, mine).load_state_dict(weights)
    other, same = case.weights["inner_attention.attn_bias.emb.weight"] / (math.sqrt(c["head_dim"]) if prescale else 1)
    layer.same.data, layer.other.data = same, other
    return layer


def positions_of(ids, batch, variates, tokens):
    """temporal: time within the variate, ours | flat: the number of the token in the flattened sequence, their released code's."""
    at = torch.arange(variates * tokens, dtype=torch.float32).reshape(variates, tokens)
    return (at if ids == "flat" else at % tokens).repeat(batch, 1)  # R N


@pytest.mark.parametrize("dense", [False, True], ids=["gathered", "dense"])
@pytest.mark.parametrize("path", files("timerxl-attn-"))
@torch.no_grad()
def test_any_variate_attention_agrees_with_the_authors_code(path, dense):
    case, checked = read(path), set()
    batch, variates, tokens = (case.config[n] for n in ("B", "n_vars", "n_tokens"))
    x, out = case.given["x"].reshape(batch * variates, tokens, -1), case.expected
    graphs = {"adj": case.given["adj"].bool(), "full": torch.ones(batch, variates, variates, dtype=torch.bool)}
    seen, biases = torch.ones(batch * variates, tokens, dtype=torch.bool), []
    for name in (n for n in out if n.startswith("y.")):
        _, ids, graph, scaling = name.split(".")
        layer = attention_of(case, dense, scaling == "prescale")
        y = layer(x, seen, connect(graphs[graph]), positions_of(ids, batch, variates, tokens))
        close(y.reshape(out[name].shape), out[name], 2e-5)
        checked.add(name)
    layer = attention_of(case, dense, False)
    for name in (n for n in out if n[1:6] == "_rot."):
        turned = layer.rope(*(layer.attention.split(linear(x)) for linear in (layer.attention.q, layer.attention.k)),
                            positions_of(name.split(".")[1], batch, variates, tokens))  # fmt: skip
        mine = turned["qk".index(name[0])].unflatten(0, (batch, variates)).transpose(1, 2).flatten(2, 3)  # B H (V N) K
        close(mine, out[name], 2e-5)
        checked.add(name)
    if "bias" in out:
        handle = layer.attention.register_forward_pre_hook(lambda m, a, kwargs: biases.append(kwargs["bias"]), with_kwargs=True)
        layer(x, seen, connect(graphs["full"]))
        handle.remove()
        if dense:
            close(biases[0], out["bias"], 0)
        else:  # the keys of a variate's own slot, then those of the others, are what its row of the full table holds
            first = out["bias"][0, :, 0]  # H (V N): the queries of variate 0
            close(biases[0][0, :, 0], first, 0)
        checked.add("bias")
    assert any(n.startswith("y.") for n in checked)
    assert not set(out) - checked, f"not compared: {sorted(set(out) - checked)}"


def expert_of(weights, prefix):
    width, hidden = weights[f"{prefix}.down_proj.weight"].shape
    expert = FeedForward(width, hidden, "silu", gated=True, bias=False)
    expert.load_state_dict({f"{name}.weight": weights[f"{prefix}.{name}_proj.weight"] for name in ("up", "gate", "down")})
    return expert


@pytest.mark.parametrize("grouped", [False, True], ids=["loop", "grouped"])
@pytest.mark.parametrize("path", files("timemoe-moe-"))
@torch.no_grad()
def test_experts_agree_with_the_authors_code(path, grouped):
    case, checked = read(path), set()
    c, w, x = case.config, case.weights, case.given["x"].flatten(0, -2)
    logits = x @ w["gate.weight"].mT
    indices, gates = top_k_gates(logits, c["top_k"], renormalise=c.get("norm_topk_prob", False))
    experts = nn.ModuleList(expert_of(w, f"experts.{e}") for e in range(c["n_experts"]))
    y = run_experts(x, experts, indices, gates, grouped)
    if "shared_expert_gate.weight" in w:
        y = y + torch.sigmoid(x @ w["shared_expert_gate.weight"].mT) * expert_of(w, "shared_expert")(x)
    for name, value in (("router_logits", logits), ("topk_weight", gates), ("topk_index", indices), ("y", y)):
        if name in case.expected:
            checked.add(name)
            close(value.reshape(case.expected[name].shape), case.expected[name], 1e-5)
    assert "y" in checked
    assert not set(case.expected) - checked, f"not compared: {sorted(set(case.expected) - checked)}"


@pytest.mark.parametrize("path", files("dsv3-gate-"))
@torch.no_grad()
def test_the_bias_selects_and_never_weighs_as_in_the_authors_code(path):
    case, checked = read(path), set()
    c, x, w, out = case.config, case.given["x"], case.weights, case.expected
    logits, score = x @ w["weight"].mT, c["score_func"]
    for kind in {name.split(".")[0] for name in out}:
        bias = w["bias"] if kind == "bias" else None
        indices, gates = top_k_gates(logits, c["top_k"], bias, where="selection", score=score, renormalise=score == "sigmoid")
        same_set_and_weights(indices, c.get("route_scale", 1.0) * gates, out, kind)
        checked |= {f"{kind}.indices", f"{kind}.weights"}
        if bias is not None and score == "sigmoid":  # the model's own router, token by token
            router = Router(TimeTrackerConfig(width=c["d"], private_experts=c["n_experts"], active_experts=c["top_k"], routing="token"))
            router.load_state_dict({"clusters": w["weight"], "bias": w["bias"]})
            routing = router(x[None], torch.ones(1, len(x), dtype=torch.bool))
            same_set_and_weights(routing.indices, c.get("route_scale", 1.0) * routing.gates, out, kind)
    if {"bias.indices", "nobias.indices"} <= set(out):  # or the case would show nothing
        assert not torch.equal(out["bias.indices"].sort(-1).values, out["nobias.indices"].sort(-1).values)
    assert set(out) == checked, f"not compared: {sorted(set(out) - checked)}"


def same_set_and_weights(indices, weights, out, kind):
    mine, theirs = indices.sort(-1), out[f"{kind}.indices"].sort(-1)
    assert torch.equal(mine.values, theirs.values)
    close(weights.gather(-1, mine.indices), out[f"{kind}.weights"].gather(-1, theirs.indices), 1e-6)
