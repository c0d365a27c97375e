"""MOMENT against the authors' code: every case file, whatever inputs and outputs it holds."""

import json

import pytest
import torch
from safetensors.torch import save_file

import tsfm_lib
from tests.parity.reference import files, read
from tsfm_lib.checkpoints import moment
from tsfm_lib.errors import TsfmError
from tsfm_lib.nn.positions import sinusoidal

OFFICIAL = ("whole_patches", "padding_is_read", "float32_statistics")
UNUSED = ("encoder.embed_tokens.weight",)


def close(value, expected, share=2e-5):
    """The tolerance of the case files: a share of the largest value."""
    torch.testing.assert_close(value, expected, atol=share * expected.abs().max().item(), rtol=0)


@pytest.mark.parametrize("path", files("moment-"))
@torch.no_grad()
def test_moment_agrees_with_the_authors_code(path):
    case, checked = read(path), set()
    model, x, out = moment.from_official(case.config, case.weights, OFFICIAL), case.given["x"], case.expected
    mask = case.given["input_mask"].bool()[:, None].expand(x.shape)
    hidden = ~case.given["mask"].bool().unflatten(-1, (-1, model.config.patch)).all(-1)[:, None].expand(*x.shape[:2], -1)

    def same(name, value):
        if name in out:
            checked.add(name)
            close(value, out[name].reshape(value.shape))

    for suffix, seen in (("", mask), ("_nopad", torch.ones_like(mask))):
        reconstruction = model(x, hidden, seen)
        same(f"reconstruction{suffix}", reconstruction)
        missed = hidden.repeat_interleave(model.config.patch, dim=-1)
        same(f"masked_mse{suffix}", (reconstruction - x)[missed].square().mean())
        same(f"reconstruct_unmasked{suffix}", model(x, mask=seen))
        states, whole = model.states(x, seen)
        same(f"embedding_none{suffix}", states)
        same(f"embedding_mean{suffix}", model.pool(states, whole))
    assert {"reconstruction", "embedding_mean"} <= checked
    assert set(out) == checked, f"not compared: {sorted(set(out) - checked)}"


@pytest.mark.parametrize("path", files("moment-"))
@torch.no_grad()
def test_the_loss_in_original_units_is_the_authors_masked_error(path):
    case = read(path)
    model, x = moment.from_official(case.config | {"revin_affine": False}, case.weights, OFFICIAL), case.given["x"]
    hidden = ~case.given["mask"].bool().unflatten(-1, (-1, model.config.patch)).all(-1)
    rows, each = x.flatten(0, 1), hidden.repeat_interleave(x.shape[1], dim=0)
    raw, statistics = model.reconstruct(rows, each)
    model.config = type(model.config)(**(vars(model.config) | {"loss_in": "original"}))
    close(model.masked_error(rows, raw, statistics, each).reshape(1), case.expected["masked_mse_nopad"])


@pytest.mark.parametrize("path", files("moment-"))
@torch.no_grad()
def test_official_checkpoint_folder_loads(path, tmp_path):
    """config.json and safetensors in the authors' layout, read back through the front door; what is never used may be absent."""
    case = read(path)
    (tmp_path / "config.json").write_text(json.dumps(case.config))
    save_file({k: v.clone() for k, v in case.weights.items() if k not in UNUSED}, tmp_path / "model.safetensors")
    loaded, expected, x = tsfm_lib.load(str(tmp_path)), moment.from_official(case.config, case.weights), case.given["x"]
    assert torch.equal(loaded(x), expected(x)) and torch.equal(loaded.embed(x), expected.embed(x))
    again = tsfm_lib.load(tsfm_lib.save(loaded, tmp_path / "ours"))
    assert torch.equal(again.embed(x), loaded.embed(x)) and again.config == loaded.config
    assert loaded.predict_quantiles(x, 20, [0.5]).isfinite().all()


@pytest.mark.parametrize("path", files("moment-"))
@torch.no_grad()
def test_options_of_the_authors_normalisation_and_positions_are_read(path):
    """A learned scale and shift of the normalised series equal the same done by hand; without positions the table is zero."""
    case = read(path)
    w, b = torch.tensor([1.7]), torch.tensor([-0.4])
    plain = moment.from_official(case.config, case.weights)
    affine = {"normalizer.affine_weight": w.reshape(1, 1, 1), "normalizer.affine_bias": b.reshape(1, 1, 1)}
    model, rows = moment.from_official(case.config, case.weights | affine), case.given["x"].flatten(0, 1)
    z, seen, statistics = plain.normalise(rows)
    tokens = plain.embed_tokens(w * z + b, seen)
    close(model.reconstruct(rows)[0], (plain.project(plain.encode(tokens), tokens) - b) / w)
    assert (moment.from_official(case.config | {"add_positional_embedding": False}, case.weights).positions == 0).all()
    without = {n: t for n, t in case.weights.items() if n != moment.POSITIONS}
    assert torch.equal(moment.from_official(case.config, without).positions, sinusoidal(512, model.config.width))


@pytest.mark.parametrize("path", files("moment-"))
def test_a_checkpoint_fine_tuned_for_forecasting_brings_its_head(path):
    case, horizon = read(path), 12
    n = case.config["seq_len"] // case.config["patch_len"]
    g = torch.Generator().manual_seed(0)
    head = {"head.linear.weight": torch.randn(horizon, n * case.config["t5_config"]["d_model"], generator=g) / 100,
            "head.linear.bias": torch.zeros(horizon)}  # fmt: skip
    model = moment.from_official(case.config | {"task_name": "forecasting", "forecast_horizon": horizon}, case.weights | head)
    assert model.head is None and model.config.forecasts == ((n, horizon),)
    assert torch.equal(model.forecasts[f"{n}x{horizon}"].weight, head["head.linear.weight"])
    assert model.predict_quantiles(case.given["x"], 30, [0.5]).isfinite().all()


def test_what_cannot_be_read_is_named():
    with pytest.raises(TsfmError, match="encoder-only MOMENT whose patches do not overlap, got encoder_only with patches of 8 every 4"):
        moment.from_official({"t5_config": {}, "patch_len": 8, "patch_stride_len": 4, "transformer_type": "encoder_only"}, {})
