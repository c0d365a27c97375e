"""Moirai against the authors' code: every case file, packed rows and, where a file has them, raw windows."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

import tsfm_lib
from tests.parity.reference import files, read
from tsfm_lib.checkpoints import moirai
from tsfm_lib.errors import TsfmError
from tsfm_lib.models.moirai import Packed, pack

OFFICIAL = ("missing_is_zero", "variance_floor")
FAMILIES = (("student_df", "student_loc", "student_scale"), ("normal_loc",), ("negbin_total_count", "negbin_logits"),
            ("lognormal_loc", "lognormal_scale"))  # fmt: skip
CASES = files("moirai-")


def packed_of(case):
    g = case.given
    ids = [g[name].long() for name in ("sample_id", "time_id", "variate_id")]
    return Packed(g["target"], g["observed_mask"].bool(), *ids, g["prediction_mask"].bool(), g["patch_size"].long())


def parameters(mixture):
    found = {"weights_logits": mixture.logits}
    for family, names in zip(mixture.families, FAMILIES):
        found |= {name: value[..., 0] for name, value in zip(names, vars(family).values())}
    return found


@pytest.mark.parametrize("path", CASES)
@torch.no_grad()
def test_moirai_agrees_with_the_authors_code(path):
    case, checked = read(path), set()
    model, packed, out = moirai.from_official(case.config, case.weights, OFFICIAL), packed_of(case), case.expected
    real = packed.sample > 0

    def same(name, value, tolerance=1e-4):
        checked.add(name)
        torch.testing.assert_close(value[real].to(out[name]), out[name][real], atol=tolerance, rtol=tolerance, msg=lambda m: f"{name}: {m}")

    z, statistics = model.normalise_packed(packed)
    same("loc", statistics.loc)
    same("scale", statistics.scale)
    tokens = model.embed_packed(z, packed)
    h = tokens.h
    same("embed", h)
    for i, layer in enumerate(model.layers):
        h = layer(h, tokens.aux)
        same(f"layer{i}", h)
    same("repr", model.norm(h))
    mixture = model(packed)
    for name, value in parameters(mixture).items():
        same(f"p.{name}", value)
    same("mean", mixture.mean())
    same("variance", mixture.variance())
    same("log_prob", mixture.log_prob(packed.target), 1e-3)
    checked.add("nll")
    torch.testing.assert_close(model.packed_loss(packed).reshape(1), out["nll"], atol=1e-3, rtol=1e-3, check_dtype=False)
    assert set(out) == checked, f"not compared: {sorted(set(out) - checked)}"


@pytest.mark.parametrize("path", CASES)
@torch.no_grad()
def test_windows_become_the_authors_tokens_and_give_their_distribution(path):
    case = read(path)
    if "raw.past_target" not in case.given:
        pytest.skip("this case was packed by hand")
    g, size, packed = case.given, case.config["patch_size"], packed_of(case)
    past, future = (torch.where(g[f"raw.{side}_observed"].bool(), g[f"raw.{side}_target"], torch.nan).mT for side in ("past", "future"))
    ours = pack(past, future, size, packed.target.shape[-1])
    real = packed.sample > 0
    for name in ("sample", "horizon", "size", "observed"):
        assert torch.equal(getattr(ours, name), getattr(packed, name)), name
    for name in ("time", "variate"):
        assert torch.equal(getattr(ours, name)[real], getattr(packed, name)[real]), name
    assert torch.equal(ours.target, packed.target)

    model = moirai.from_official(case.config, case.weights, OFFICIAL)
    mixture, (rows, variates), horizon = model.distribution(past, future.shape[-1], size), past.shape[:2], future.shape[-1]
    behind = variates * -(-horizon // size)
    window = lambda x: x[:, -behind:, :size].unflatten(1, (variates, -1)).flatten(2, 3)[:, :, :horizon]
    for name, value in parameters(mixture).items():
        torch.testing.assert_close(value, window(case.expected[f"p.{name}"]), atol=1e-4, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    torch.testing.assert_close(mixture.mean().float(), window(case.expected["mean"]), atol=1e-4, rtol=1e-4)
    assert rows == len(packed.sample)


@pytest.mark.parametrize("path", CASES)
@torch.no_grad()
def test_masked_mixture_weights_are_felt_in_shorter_patches_only(path):
    case = read(path)
    model, packed = moirai.from_official(case.config, case.weights, OFFICIAL), packed_of(case)
    clean = type(model)(replace(model.config, quirks=OFFICIAL))
    clean.load_state_dict(model.state_dict())
    quirky, plain, real = model(packed), clean(packed), packed.sample > 0
    differ = (quirky.logits - plain.logits).abs().amax((2, 3)) > 1e-3
    assert torch.equal(differ[real], packed.size[real] < max(model.config.patch_sizes))
    assert torch.equal(quirky.families[0].loc, plain.families[0].loc)


@pytest.mark.parametrize("path", CASES)
@torch.no_grad()
def test_official_checkpoint_folder_loads(path, tmp_path):
    """config.json and safetensors in the authors' layout, read back through the front door."""
    case = read(path)
    own = {name: case.config[name] for name in ("d_model", "num_layers", "patch_sizes", "max_seq_len", "scaling") if name in case.config}
    (tmp_path / "config.json").write_text(json.dumps(own | {"attn_dropout_p": 0.0, "dropout_p": 0.0}))
    save_file({k: v.clone() for k, v in case.weights.items()}, tmp_path / "model.safetensors")
    loaded = tsfm_lib.load(str(tmp_path))
    x = torch.sin(torch.arange(3 * 60.0)).reshape(1, 3, 60)
    q = loaded.predict_quantiles(x, 20, [0.1, 0.5])
    assert loaded.config.quirks == ("masked_weights",) and q.shape == (1, 3, 20, 2) and q.isfinite().all()
    again = tsfm_lib.load(tsfm_lib.save(loaded, tmp_path / "ours"))
    assert torch.equal(again.predict_quantiles(x, 20, [0.1, 0.5]), q) and again.config == loaded.config


def test_what_cannot_be_read_is_named():
    with pytest.raises(TsfmError, match="expected a Moirai 1.0 or 1.1 with its mixture of four distributions"):
        moirai.from_official({"d_model": 64, "patch_sizes": [8, 16]}, {"encoder.layers.0.self_attn.q_norm.weight": torch.ones(64)})
