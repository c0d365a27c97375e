"""Chronos-Bolt against the authors' code: every case file, whatever inputs and outputs it holds."""

import json

import pytest
import torch
from safetensors.torch import save_file

import tsfm_lib
from tests.parity.reference import files, near, read
from tests.parity.t5 import ranks_of, taken_out, watched
from tsfm_lib.checkpoints import chronos_bolt
from tsfm_lib.models.chronos_bolt import ChronosBolt

OFFICIAL = ("crossing_quantiles",)


@pytest.mark.parametrize("path", files("chronosbolt-"))
@torch.no_grad()
def test_chronos_bolt_agrees_with_the_authors_code(path):
    case, checked = read(path), set()
    model, out = chronos_bolt.from_official(case.config, case.weights, OFFICIAL), case.expected
    assert case.given

    def same(name, value):
        if name in out:
            checked.add(name)
            near(value.reshape(out[name].shape), out[name])

    for name, context in case.given.items():
        with watched(model) as seen:
            model(context)
        quantiles = model(context)
        z, some, statistics = model.normalise(context)
        tokens, mask = model.embed_patches(z, some)
        mask = torch.nn.functional.pad(mask, (0, 1), value=True) if model.reg is not None else mask
        parts = {"loc": statistics.loc, "scale": statistics.scale, "patch_embed": tokens, "attention_mask": mask.float(), **seen}
        parts["quantiles"] = quantiles.mT
        for layer, _ in enumerate(model.decoder.layers):
            parts[f"lens{layer}"] = model.read_out(model.decoder.norm(seen[f"dec_block{layer}"])).mT
        for part, value in parts.items():
            same(f"{name}.{part}", value)
        for key in (k for k in out if k.startswith(f"{name}.ablate.")):
            with taken_out(model, key.removeprefix(f"{name}.ablate.")):
                changed = model(context)
            assert not torch.allclose(changed, quantiles, rtol=1e-3)
            same(key, changed.mT)
        assert {f"{name}.quantiles", f"{name}.enc_final"} <= checked
        levels = model.config.quantiles  # the front door says the same as the network, [B V T] in and [B V h Q] out
        assert torch.equal(model.predict_quantiles(context[:, None], model.config.horizon, levels)[:, 0], quantiles.to(context.dtype))
    for key in (k for k in out if k.startswith("srank.")):
        same(key, ranks_of(model, *key.removeprefix("srank.").split("_")))
    assert set(out) == checked, f"not compared: {sorted(set(out) - checked)}"


@pytest.mark.parametrize("path", files("chronosbolt-"))
@torch.no_grad()
def test_official_checkpoint_folder_loads(path, tmp_path):
    """config.json and safetensors in the authors' layout, read back through the front door; tied copies may be absent."""
    case = read(path)
    official = {"architectures": ["ChronosBoltModelForForecasting"], "model_type": "t5", "dropout_rate": 0.1} | case.config
    (tmp_path / "config.json").write_text(json.dumps(official))
    save_file({k: v.clone() for k, v in case.weights.items() if "embed_tokens" not in k}, tmp_path / "model.safetensors")
    loaded, expected = tsfm_lib.load(str(tmp_path)), chronos_bolt.from_official(case.config, case.weights)
    again = tsfm_lib.load(tsfm_lib.save(loaded, tmp_path / "ours"))
    assert isinstance(loaded, ChronosBolt) and again.config == loaded.config == expected.config
    for context in case.given.values():
        wanted = expected.predict_quantiles(context[:, None], 3 * loaded.config.horizon + 1, (0.1, 0.5, 0.85))
        for model in (loaded, again):
            assert torch.equal(model.predict_quantiles(context[:, None], 3 * loaded.config.horizon + 1, (0.1, 0.5, 0.85)), wanted)


def test_chronos_2_is_not_mistaken_for_it():
    common = {"input_patch_size": 16, "context_length": 2048}
    assert chronos_bolt.is_official({"chronos_config": common | {"prediction_length": 64}})
    assert not chronos_bolt.is_official({"chronos_config": common | {"output_patch_size": 16, "max_output_patches": 64}})
