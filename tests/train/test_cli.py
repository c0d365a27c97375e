"""Training from the shell: a weights folder comes out, a second call goes on, a wrong name gets a sentence."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tsfm_lib
from tsfm_lib.paths import ROOT
from tsfm_lib.train import __main__ as cli
from tsfm_lib.train.recipes import RECIPES


@pytest.fixture
def go(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, "BUILD", tmp_path / "build")

    def run(*arguments):
        status = cli.main([*arguments])
        return status, *capsys.readouterr()

    return run


def test_five_steps_give_a_model_that_forecasts(go, tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(cli, "evaluate", lambda model, task: measured.append(model.state_dict()) or {"training": model.training})
    status, said, _ = go("patchtst-nano", "--steps", "5", "--pool", "64", "--device", "cpu")
    folder = tmp_path / "build" / "train" / "patchtst-nano"
    assert status == 0 and f"weights in {folder / 'weights'}" in said and "5 steps" in said
    card = json.loads((folder / "weights" / "card.json").read_text())
    assert card["recipe"]["steps"] == 5 and card["recipe"]["pool"] == 64 and card["data"]["kind"] == "generated"
    assert card["result"] == {"training": False, "stored": "float16"} and card["licence"]
    assert (folder / "weights" / "model.safetensors").stat().st_size < 0.55 * (folder / "model.safetensors").stat().st_size
    model = tsfm_lib.load(folder / "weights")
    assert all(torch.equal(tensor, measured[0][name]) for name, tensor in model.state_dict().items())    # the file, not what it was made of
    assert any(not torch.equal(tensor, measured[0][name]) for name, tensor in load_file(folder / "model.safetensors").items())
    assert tsfm_lib.forecast(model, np.sin(np.arange(200) / 4), 10).shape == (10, 9)

    before = (folder / "metrics.jsonl").read_text()
    assert go("patchtst-nano", "--steps", "5", "--pool", "64", "--device", "cpu", "--workers", "0")[0] == 0     # nothing left to train
    assert (folder / "metrics.jsonl").read_text() == before
    assert go("patchtst-nano", "--steps", "5", "--pool", "64", "--device", "cpu", "--no-evaluation")[0] == 0
    assert json.loads((folder / "weights" / "card.json").read_text())["result"] == card["result"] and len(measured) == 2
    status, _, error = go("patchtst-nano", "--steps", "6", "--pool", "64", "--device", "cpu", "--no-evaluation")
    assert status == 2 and "another recipe (there / here: steps 5 / 6)" in error
    assert go("patchtst-nano", "--steps", "2", "--pool", "64", "--device", "cpu", "--no-evaluation", "--fresh")[0] == 0
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2


def test_an_encoder_is_judged_by_labels_and_a_seed_has_a_folder_of_its_own(go, tmp_path):
    status, said, _ = go("moment-nano", "--steps", "2", "--pool", "128", "--device", "cpu", "--seed", "3")
    card = json.loads((tmp_path / "build" / "train" / "moment-nano-seed3" / "weights" / "card.json").read_text())
    assert status == 0 and card["recipe"]["seed"] == 3 and card["data"]["name"].startswith("cauker, ")
    assert set(card["result"]) == {"dataset", "trained", "random weights", "stored"} and 0 < card["result"]["trained"]["forest"] <= 1


def test_recipes_are_listed_and_wrong_names_refused(go):
    status, said, _ = go("--list")
    assert status == 0 and all(name in said for name in RECIPES)
    status, _, error = go("patchtst-nan")
    assert status == 2 and "did you mean 'patchtst-nano'" in error and "Traceback" not in error
    assert "no recipe named, there are" in go()[2]


@pytest.mark.parametrize(("option", "value", "said"), [
    ("--threads", "0", "--threads should be at least 1, got 0"),
    ("--workers", "-1", "--workers should be at least 0, got -1"),
    ("--pool", "0", "pool should be above 0, got 0"),
    ("--steps", "0", "steps should be above 0, got 0"),
])  # fmt: skip
def test_impossible_numbers_are_refused_before_any_work(go, tmp_path, option, value, said):
    status, _, error = go("patchtst-nano", option, value)
    assert status == 2 and said in error and not (tmp_path / "build").exists()


@pytest.mark.parametrize("argument", ["--list", "--help", "patchtst-nan"])
def test_answers_that_need_no_training_do_not_wait_for_torch(argument):
    asked = f"""
import runpy, sys
sys.argv = ["train", {argument!r}]
try:
    runpy.run_module("tsfm_lib.train", run_name="__main__")
finally:
    print("heavy:", *{{"torch", "pandas", "scipy"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.endswith("heavy:\n") and "Traceback" not in done.stderr
    assert done.returncode == (2 if argument == "patchtst-nan" else 0)


def test_the_recipes_models_can_be_built():
    from tsfm_lib import checkpoints

    for recipe in RECIPES.values():
        model = checkpoints.build(recipe.model, recipe.config, recipe.seed)
        ahead = getattr(model.config, "horizon", recipe.horizon) * getattr(model.config, "forecast_tokens", 1)  # Kairos: J tokens of H
        assert model.config.context == recipe.context and ahead == recipe.horizon
