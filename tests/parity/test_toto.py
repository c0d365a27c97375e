"""Toto against the authors' code: every case file, whatever inputs, options and outputs it holds."""

import json
import re
from contextlib import ExitStack

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import tsfm_lib
from tests.parity.reference import files, near, read, stable_ranks, without
from tsfm_lib.checkpoints import toto
from tsfm_lib.errors import TsfmError
from tsfm_lib.models.toto import Toto
from tsfm_lib.nn.outputs import Mixture
from tsfm_lib.nn.patching import unpatch
from tsfm_lib.nn.sites import HeadSite

OFFICIAL = ("missing_is_zero", "variance_floor")
CASES = files("toto-")


def opened(path):
    case = read(path)
    with safe_open(str(path), "pt") as file:
        length = json.loads(file.metadata().get("forecast_len", json.dumps(case.config.get("forecast_len"))))
    return case, case.config.get("arch", case.config), length


def inputs_of(case):
    """Series with NaN where nothing was observed, and the group of each variate at each patch."""
    for name in sorted({key.split(".")[0] for key in case.given}):
        part = {key.removeprefix(f"{name}."): value for key, value in case.given.items() if key.startswith(f"{name}.")}
        assert not set(part) - {"series", "padding_mask", "id_mask"}, f"inputs this test does not know: {sorted(part)}"
        x = part["series"]
        if "padding_mask" in part:
            x = x.masked_fill(~part["padding_mask"].bool(), torch.nan)
        yield name, x, part.get("id_mask", torch.zeros_like(x)).long()


def parameters(mixture):
    """Parameters of each step on one axis of time, under the names of the files."""
    t = mixture.families[0]
    found = {"df": t.df, "mix_loc": t.loc, "mix_scale": t.scale, "mix_logits": mixture.logits}
    return {name: value.flatten(2, 3) for name, value in found.items()}


def sites_of(model, name):
    """Sites as the files name them: attn_l0_h1, mlp_l1, layer_l2; and which head of them, if one."""
    kind, layer, head = re.fullmatch(r"(attn|mlp|layer)_l(\d+)(?:_h(\d+))?", name).groups()
    wanted = {"attn": (True,), "mlp": (False,), "layer": (True, False)}[kind]
    here = [s for s in model.sites() if s.layer == int(layer) and isinstance(s, HeadSite) in wanted]
    assert here
    return here, None if head is None else int(head)


@pytest.mark.parametrize("path", CASES)
@torch.no_grad()
def test_toto_agrees_with_the_authors_code(path):
    case, arch, length = opened(path)
    model, out, checked, p = toto.from_official(arch, case.weights, OFFICIAL), case.expected, set(), arch["patch_size"]
    for name, x, ids in inputs_of(case):
        groups, blocks, last = ids[..., p - 1 :: p], {}, x.shape[-1] - p

        def same(part, value, name=name):
            if f"{name}.{part}" in out:
                checked.add(f"{name}.{part}")
                near(value, out[f"{name}.{part}"])

        z, seen, statistics = model.normalise(x)
        with ExitStack() as hooks:
            for i, layer in enumerate(model.layers):
                keep = lambda module, inputs, h, name=f"block{i}", blocks=blocks: blocks.__setitem__(name, h)
                hooks.callback(layer.register_forward_hook(keep).remove)
            states = model.encode(z, model.visible(seen), groups)
        mixture = model(z, model.visible(seen), groups)
        assert torch.equal(model.mixture(model.read_out(states)).logits, mixture.logits)
        loc, scale = (t.repeat_interleave(p, -1) for t in (statistics.loc, statistics.scale))
        same("loc", loc)
        same("scale", scale)
        same("scaled", unpatch(z))
        same("tokens", model.patches(z))
        for part, value in blocks.items():
            same(part, value.unflatten(0, x.shape[:2]))
        same("flat", model.unembed(states[:, :, -1]).unflatten(-1, (p, -1)))
        whole = parameters(mixture)
        for part, value in whole.items():
            same(part, value)
        mean = unpatch(mixture.mean())
        same("dist_mean_norm", mean)
        same("dist_mean", loc + scale * mean)
        for part in (k.removeprefix(f"{name}.") for k in out if k.startswith(f"{name}.dist_logprob_at_")):
            at = torch.full_like(loc, float(part.removeprefix("dist_logprob_at_").removesuffix("_norm")))
            if not part.endswith("_norm"):
                at = (at - loc) / scale
            # their weights are kept off zero and one before the logarithm, which the density of a far value feels
            weights = mixture.logits.softmax(-1)
            eps = torch.finfo(weights.dtype).eps
            at = at.to(weights).unflatten(-1, (-1, p))
            clamped = torch.logsumexp(weights.clamp(eps, 1 - eps).log() + mixture.families[0].log_prob(at[..., None]), -1)
            same(part, unpatch(clamped) - (0 if part.endswith("_norm") else scale.log()))
            torch.testing.assert_close(mixture.log_prob(at).exp(), clamped.exp(), atol=1e-4, rtol=1e-4)
        for key in sorted({k.split(".")[2] for k in out if k.startswith(f"{name}.ablate.")}):
            here, head = sites_of(model, key)
            with without(here, head):
                changed = parameters(model(z, model.visible(seen), groups))
            assert not torch.allclose(changed["mix_loc"], whole["mix_loc"], rtol=1e-3)
            for part, value in changed.items():
                same(f"ablate.{key}.{part}", value[:, :, last:])
        for of, decoded in (("mean", model.mean), ("median", model.median)):
            if f"{name}.{of}_forecast" in out:
                same(f"{of}_forecast", decoded(x, length or out[f"{name}.{of}_forecast"].shape[-1], groups))
        assert f"{name}.mix_loc" in checked
    heads = [s for s in model.sites() if isinstance(s, HeadSite)]
    if "srank" in out:
        checked.add("srank")
        near(torch.stack([stable_ranks(*site.qk()) for site in heads]), out["srank"])
    if "srank_contiguous_WRONG" in out:  # what comes of cutting the fused rows into contiguous heads: not what the model computes with
        checked.add("srank_contiguous_WRONG")
        cut = [case.weights[f"model.transformer.layers.{i}.attention.wQKV.weight"].unflatten(0, (3, s.n_heads, s.head_dim))
               for i, s in enumerate(heads)]  # fmt: skip
        wrong = torch.stack([stable_ranks(fused[0], fused[1]) for fused in cut])
        near(wrong, out["srank_contiguous_WRONG"])
        assert not torch.allclose(wrong, torch.stack([stable_ranks(*site.qk()) for site in heads]), rtol=0.01)
    assert set(out) == checked, f"not compared: {sorted(set(out) - checked)}"


@pytest.mark.parametrize("path", CASES)
@torch.no_grad()
def test_step_by_step_is_the_same_as_at_once(path):
    """Keys that are remembered give what reading everything anew gives, quirks or not."""
    case, arch, length = opened(path)
    for quirks in ((), OFFICIAL):
        model = toto.from_official(arch, case.weights, quirks)
        for _, x, ids in inputs_of(case):
            groups, path_, whole = ids[..., -1], model.window(x).double(), model.window(x).shape[-1]
            while path_.shape[-1] < whole + (length or 20):
                z, seen, statistics = model.normalise(path_, whole)
                mixture = model(z, model.visible(seen), groups).mean()[:, :, -1]
                path_ = torch.cat([path_, statistics.loc[..., -1:] + statistics.scale[..., -1:] * mixture], dim=-1)
            near(model.mean(x, length or 20, groups), path_[..., whole : whole + (length or 20)])


@pytest.mark.parametrize("path", CASES)
@torch.no_grad()
def test_official_checkpoint_folder_loads(path, tmp_path):
    """config.json and safetensors in the authors' layout, read back through the front door; our layout says the same again."""
    case, arch, _ = opened(path)
    wanted = toto.from_official(arch, case.weights)
    assert wanted.config.quirks == ("xpos_by_halves",)
    fused = {k.replace(".mlp.0.", ".mlp.0.w12.").replace(".mlp.2.", ".mlp.0.w3."): v for k, v in case.weights.items()}
    assert set(fused) != set(case.weights)
    for folder, weights in (("plain", case.weights), ("fused", fused)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(json.dumps(arch))
        save_file({k: v.clone() for k, v in weights.items()}, tmp_path / folder / "model.safetensors")
    loaded, other = (tsfm_lib.load(str(tmp_path / folder)) for folder in ("plain", "fused"))
    again = tsfm_lib.load(tsfm_lib.save(loaded, tmp_path / "ours"))
    assert isinstance(loaded, Toto) and again.config == loaded.config == other.config == wanted.config
    for _, x, _ in inputs_of(case):
        forecasts = [m.predict_quantiles(x, 2 * arch["patch_size"] + 1, (0.1, 0.5, 0.85), samples=10)
                     for m in (wanted, loaded, other, again)]  # fmt: skip
        assert all(torch.equal(forecasts[0], f) for f in forecasts[1:]) and forecasts[0].isfinite().all()


@pytest.mark.parametrize("path", CASES)
@torch.no_grad()
def test_a_head_is_what_its_value_rows_make(path):
    """Zeroing every n-th row of the fused values takes out the same head as zeroing its slice before the output projection."""
    case, arch, _ = opened(path)
    whole, head = toto.from_official(arch, case.weights), 1
    key = "model.transformer.layers.0.attention.wQKV"
    weights = dict(case.weights)
    for part in ("weight", "bias"):
        rows = weights[f"{key}.{part}"].clone().unflatten(0, (3, -1, arch["num_heads"]))
        rows[2, :, head] = 0
        weights[f"{key}.{part}"] = rows.flatten(0, 2)
    for _, x, _ in inputs_of(case):
        cut = toto.from_official(arch, weights).distribution(x)
        with without([s for s in whole.sites() if s.layer == 0 and isinstance(s, HeadSite)], head):
            taken = whole.distribution(x)
        assert isinstance(cut, Mixture)
        near(cut.families[0].loc, taken.families[0].loc)


def test_what_cannot_be_read_is_named():
    with pytest.raises(TsfmError, match="expected a Toto 1.0 with causal scaling per patch, .* got CausalStdMeanScaler"):
        toto.from_official({"patch_size": 8, "scaler_cls": "CausalStdMeanScaler", "spacewise_every_n_layers": 2}, {})
    with pytest.raises(TsfmError, match="patches of 8 every 4"):
        toto.from_official({"patch_size": 8, "stride": 4, "spacewise_every_n_layers": 2}, {})
