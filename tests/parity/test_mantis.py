"""Mantis against the authors' code: every case file of both versions, whatever inputs and outputs it holds."""

import json
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import tsfm_lib
from tests.parity.reference import files, read
from tsfm_lib.checkpoints import mantis
from tsfm_lib.errors import TsfmError
from tsfm_lib.nn.objectives import info_nce
from tsfm_lib.nn.resampling import resample

OFFICIAL = ("float32_statistics",)  # the other quirk is read from the checkpoint
CASES = [*files("mantis-"), *files("mantisv2-")]


def header_of(path):
    with safe_open(str(path), "pt") as file:
        return file.metadata()


def close(value, expected, share=2e-5):
    """The tolerance of the case files: a share of the largest value."""
    torch.testing.assert_close(value, expected, atol=share * expected.abs().max().item(), rtol=0)


@pytest.mark.parametrize("path", CASES)
@torch.no_grad()
def test_mantis_agrees_with_the_authors_code(path):
    case, header, checked = read(path), header_of(path), set()
    model, x, out = mantis.from_official(case.config, case.weights, OFFICIAL), case.given["x"], case.expected

    def same(name, value):
        if name in out:
            checked.add(name)
            close(value, out[name].reshape(value.shape))

    rows = x[:, 0]
    same("tokens", model.tokens(rows))
    same("projection", model.project(rows))
    for name in out:
        if found := re.fullmatch(r"(?:embedding|layer(\d+))\.(cls_token|mean_token|combined)", name):
            layer, token = found.groups()
            same(name, model(rows, layer and int(layer), mantis.READOUT[token]))
    same("two_channel", torch.cat([model(rows), model(0.5 * rows.flip(-1))], dim=-1))
    crops = json.loads(header.get("crops", "[]"))
    views = [resample(rows, rows.shape[-1], *crop) for crop in crops]
    for i, view in enumerate(views, start=1):
        same(f"view{i}", view)
    if "infonce" in out:
        same("infonce", info_nce(*(model.project(v) for v in views), float(header["temperature"]), symmetric=False))
    assert {"tokens", "embedding.cls_token"} <= checked
    assert set(out) == checked, f"not compared: {sorted(set(out) - checked)}"


@pytest.mark.parametrize("name", ["transf_unit", "vit_unit"])
@pytest.mark.parametrize("path", CASES)
def test_official_checkpoint_folder_loads(path, name, tmp_path):
    """config.json and safetensors in the authors' layout with either name of the transformer, read back through the front door."""
    case = read(path)
    (tmp_path / "config.json").write_text(json.dumps(case.config | {"device": "cuda", "pre_training": False, "no_scalars": None}))
    tensors = {key.replace("transf_unit.", f"{name}.").replace("vit_unit.", f"{name}."): value for key, value in case.weights.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    loaded, expected, x = tsfm_lib.load(str(tmp_path)), mantis.from_official(case.config, case.weights), case.given["x"]
    assert (loaded.config.version == 2) == any("wQKV" in name for name in case.weights)
    assert torch.equal(loaded.embed(x), expected.embed(x))
    again = tsfm_lib.load(tsfm_lib.save(loaded, tmp_path / "ours"))
    assert torch.equal(again.embed(x), loaded.embed(x)) and again.config == loaded.config


@pytest.mark.parametrize("path", files("mantisv2-"))
@torch.no_grad()
def test_a_checkpoint_cut_behind_a_layer_and_without_its_head_embeds_as_that_layer_did(path):
    case = read(path)
    whole = mantis.from_official(case.config, case.weights)
    kept = {n: t for n, t in case.weights.items() if not n.startswith("prj.")}
    cut = mantis.from_official(case.config, {n: t for n, t in kept.items() if ".layers." not in n or ".layers.0." in n})
    assert cut.config.layers == 1 and torch.equal(cut.embed(case.given["x"]), whole.embed(case.given["x"], layer=0))


def test_a_config_without_its_tensors_is_named():
    with pytest.raises(TsfmError, match="the tensors are not: expected tokgen_unit"):
        mantis.from_official({"transf_depth": 2}, {"weight": torch.zeros(2)})
