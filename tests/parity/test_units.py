"""UniTS against the authors' code: every case file, every task in it."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

import tsfm_lib
from tests.parity.reference import files, read
from tsfm_lib.checkpoints import units
from tsfm_lib.errors import TsfmError

OFFICIAL = ("fills_behind", "whole_horizons", "variance_floor")
CASES = files("units-")


def close(value, expected, name=""):
    torch.testing.assert_close(value.to(expected), expected, atol=1e-4, rtol=1e-4, msg=lambda m: f"{name}: {m}")


@pytest.mark.parametrize("path", CASES)
@torch.no_grad()
def test_units_agrees_with_the_authors_code(path):
    case, checked = read(path), set()
    model = units.from_official(case.config, case.weights, OFFICIAL)
    for i, (_, task) in enumerate(case.config["tasks"]):
        x, horizon = case.given[f"t{i}.x"].mT, task["pred_len"]

        def same(name, value, i=i):
            checked.add(f"t{i}.{name}")
            close(value, case.expected[f"t{i}.{name}"], f"task {i}, {name}")

        z, seen, statistics = model.normalise(x)
        same("means", statistics.loc.mT)
        same("stdev", statistics.scale.mT)
        tokens = model.embed_tokens(z, seen, horizon, dataset=task["dataset"])
        apart = lambda h, x=x: h.unflatten(0, x.shape[:2])
        h = tokens.h
        same("tokens", apart(h))
        for j, layer in enumerate(model.layers):
            after_time = layer.over_time(h)
            same(f"block{j}.after_seq_att", apart(after_time))
            same(f"block{j}.after_var_att", apart(layer.over_variates(after_time, tokens.aux)))
            h = layer(h, tokens.aux)
            same(f"block{j}", apart(h))
        steps = model.project(h, tokens)
        same("head_full", torch.nn.functional.pad(steps, (0, x.shape[-1] + horizon - steps.shape[-1])).mT)
        same("forecast", model(x, horizon, task["dataset"]).mT)
        same("forecast", model.predict_quantiles(x, horizon, [0.5], dataset=task["dataset"])[..., 0].mT)
    assert set(case.expected) == checked, f"not compared: {sorted(set(case.expected) - checked)}"


@pytest.mark.parametrize("path", CASES)
@torch.no_grad()
def test_ragged_lengths_are_done_right_unless_the_quirks_are_on(path):
    """Whole lengths are the same with and without; where the horizon is ragged, only the quirk leaves its tail at the mean."""
    case = read(path)
    model, clean = (units.from_official(case.config, case.weights, q) for q in (OFFICIAL, ("variance_floor",)))
    for i, (_, task) in enumerate(case.config["tasks"]):
        x, horizon, p = case.given[f"t{i}.x"].mT, task["pred_len"], model.config.patch
        theirs, ours = (m(x, horizon, task["dataset"]) for m in (model, clean))
        tail = (horizon + x.shape[-1] % -p) % p
        if tail:
            mean = x.mean(-1, keepdim=True).expand(*x.shape[:2], tail)
            close(theirs[..., -tail:], mean)
            assert ((ours[..., -tail:] - mean).abs() > 1e-3).float().mean() > 0.9
        if x.shape[-1] % p == 0:
            whole = horizon - tail
            close(*(m(x, whole, task["dataset"]) for m in (clean, model)))
            assert torch.equal(ours[..., :whole], theirs[..., :whole]) == (tail == 0)
    gap = -(x.shape[-1] - 1) % model.config.patch
    with pytest.raises(TsfmError, match="leaves no token for the 3 steps"):
        model(x[..., 1:], gap + 3, task["dataset"])
    assert clean(x[..., 1:], gap + 3, task["dataset"]).shape[-1] == gap + 3


@pytest.mark.parametrize("path", CASES)
@torch.no_grad()
def test_official_checkpoint_folder_loads(path, tmp_path):
    """config.json and safetensors in the authors' layout, as saved from several GPUs, read back through the front door."""
    case = read(path)
    task = case.config["tasks"][0][1]
    x, name = case.given["t0.x"].mT, task["dataset"]
    (tmp_path / "config.json").write_text(json.dumps(case.config))
    save_file({f"module.{k}": v.clone() for k, v in case.weights.items()}, tmp_path / "model.safetensors")
    loaded = tsfm_lib.load(str(tmp_path))
    forecast = loaded(x, task["pred_len"], name)
    assert torch.equal(forecast, units.from_official(case.config, case.weights)(x, task["pred_len"], name))
    again = tsfm_lib.load(tsfm_lib.save(loaded, tmp_path / "ours"))
    assert torch.equal(again(x, task["pred_len"], name), forecast) and again.config == loaded.config
    flat = units.config_from_official(case.config["args"], case.weights)
    assert replace(flat, context=loaded.config.context, horizon=loaded.config.horizon) == loaded.config


def test_what_cannot_be_read_is_named():
    with pytest.raises(TsfmError, match="patches that do not overlap, got 0 sets of prompts and patches of 16 every 8"):
        units.from_official({"prompt_num": 10, "patch_len": 16, "stride": 8}, {})
