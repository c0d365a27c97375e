"""TimesFM 2.5 against the authors' code: every case file, whatever inputs, options and outputs it holds."""

import json
import re
from contextlib import ExitStack

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import tsfm_lib
from tests.parity.reference import files, read, stable_ranks, without
from tsfm_lib.checkpoints import timesfm
from tsfm_lib.models.timesfm import TimesFM
from tsfm_lib.nn.sites import HeadSite, MLPSite

OFFICIAL = ("small_is_flat", "padding_in_scale", "unswapped_roll_out")
FLAGS = {"normalize_inputs": "normalise_inputs", "force_flip_invariance": "flip", "use_continuous_quantile_head": "long",
         "fix_quantile_crossing": "outwards", "infer_is_positive": "positive"}  # fmt: skip
DEFAULTS = dict.fromkeys(FLAGS, False) | {"force_flip_invariance": True, "infer_is_positive": True}  # of the authors' wrapper


def near(value, expected, size):
    """Relative 1e-4, and as much of the size of the data."""
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4 * size, check_dtype=False)


def sizes(x, mask=None):
    return x[x.isfinite() if mask is None else ~mask].abs().max().item()


def taken_out(model, name):
    """Without a head, an MLP or a layer, as the files name them: attn_l0_h1, mlp_l1, layer_l1."""
    kind, layer, head = re.fullmatch(r"(attn|mlp|layer)_l(\d+)(?:_h(\d+))?", name).groups()
    wanted = {"attn": HeadSite, "mlp": MLPSite, "layer": (HeadSite, MLPSite)}[kind]
    here = [site for site in model.sites() if site.layer == int(layer) and isinstance(site, wanted)]
    assert here
    return without(here, None if head is None else int(head))


def decode(model, x, horizon):
    """Everything that the files hold of one call, under their names."""
    c, found = model.config, {}
    with ExitStack() as hooks:
        for i, layer in enumerate(model.layers):
            hooks.callback(layer.register_forward_hook(lambda module, inputs, out, i=i: found.update({f"block{i}": out})).remove)
        z, seen, statistics = model.normalise(x)
        found["tokenizer_in"] = torch.cat([z, (~seen).float()], dim=-1)
        found["tokens"] = model.tokens(z, seen)
        found["point"] = model.restore(model.read_out(model.encode(found["tokens"], seen)), statistics)
    point, found["spread"] = model(x, horizon)
    point = point.unflatten(1, (-1, c.horizon))
    torch.testing.assert_close(point[:, 0], found["point"][:, -1], atol=1e-4 * sizes(x), rtol=1e-4)  # with and without a past
    return found | ({"ar": point[:, 1:]} if point.shape[1] > 1 else {})


@pytest.mark.parametrize("path", files("timesfm-"))
@torch.no_grad()
def test_timesfm_agrees_with_the_authors_code(path):
    case, checked = read(path), set()
    model, out = timesfm.from_official(case.config, case.weights, OFFICIAL), case.expected
    with safe_open(str(path), "pt") as file:
        flags = json.loads(file.metadata().get("flags", "{}"))

    def same(name, value, size):
        if name in out:
            checked.add(name)
            near(value, out[name], size)

    for call in sorted({name.split(".")[0] for name in case.given if "." in name}):
        values, mask = case.given[f"{call}.values"], case.given[f"{call}.masks"].bool()
        horizon, x, size = int(case.given[f"{call}.horizon"]), values.masked_fill(mask, torch.nan), sizes(values, mask)
        whole = decode(model, x, horizon)
        for part, value in whole.items():
            same(f"{call}.{part}", value, size if part in ("point", "spread", "ar") else value.abs().max().item())
        for name in sorted({key.split(".")[2] for key in out if key.startswith(f"{call}.ablate.")}):
            with taken_out(model, name):
                changed = decode(model, x, horizon)
            assert not torch.allclose(changed["point"][:, -1], whole["point"][:, -1], rtol=1e-3)
            changed["point"] = changed["point"][:, -1:]
            for part in ("point", "spread", "ar"):
                if part in changed:
                    same(f"{call}.ablate.{name}.{part}", changed[part], size)
    rows = [case.given[name] for name in sorted((n for n in case.given if n.startswith("raw")), key=lambda n: int(n[3:]))]
    for key in (k for k in out if k.startswith("forecast.")):
        _, variant, horizon = key.split(".")
        options = DEFAULTS | flags[variant]
        assert set(options) == set(FLAGS), f"options this test does not know: {set(options) - set(FLAGS)}"
        options = {FLAGS[name]: value for name, value in options.items()}
        for row, expected in zip(rows, out[key], strict=True):
            near(model.forecast(row[None], int(horizon[1:]), **options)[0], expected, sizes(row))
        checked.add(key)
    if "srank" in out:
        same("srank", torch.stack([stable_ranks(*site.qk()) for site in model.sites() if isinstance(site, HeadSite)]), 1.0)
    assert set(out) == checked, f"not compared: {sorted(set(out) - checked)}"
    assert any(name.endswith(".point") for name in checked)


@pytest.mark.parametrize("path", files("timesfm-"))
@torch.no_grad()
def test_official_checkpoint_folder_loads(path, tmp_path):
    """config.json and safetensors in the authors' layout, read back through the front door; our layout says the same again."""
    case = read(path)
    wanted = timesfm.from_official(case.config, case.weights)
    (tmp_path / "config.json").write_text(json.dumps(case.config))
    save_file({k: v.clone() for k, v in case.weights.items()}, tmp_path / "model.safetensors")
    loaded = tsfm_lib.load(str(tmp_path))
    again = tsfm_lib.load(tsfm_lib.save(loaded, tmp_path / "ours"))
    assert isinstance(loaded, TimesFM) and again.config == loaded.config == wanted.config
    for x in (case.given[name] for name in case.given if name.startswith("raw")):
        forecasts = [m.predict_quantiles(x[None, None], 3 * wanted.config.horizon + 1, (0.1, 0.5, 0.85)) for m in (wanted, loaded, again)]
        assert torch.equal(forecasts[0], forecasts[1]) and torch.equal(forecasts[0], forecasts[2])


def test_their_layouts_are_told_from_others():
    assert timesfm.is_official({"torch_compile": True}) and timesfm.is_official({"architectures": ["TimesFM_2p5_200M_torch"]})
    assert not timesfm.is_official({"model_type": "timesfm", "hidden_size": 1280})  # the port to transformers
    assert not timesfm.is_official({"architectures": ["T5ForConditionalGeneration"]})
