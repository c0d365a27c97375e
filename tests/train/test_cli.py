"""Training from the shell: a weights folder comes out, a second call goes on, a wrong name gets a sentence."""

import json

import numpy as np
import pytest

import tsfm_lib
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
    monkeypatch.setattr(cli, "evaluate", lambda model: {"suite": "embedded", "training": model.training})
    status, said, _ = go("patchtst-nano", "--steps", "5", "--pool", "64", "--device", "cpu")
    folder = tmp_path / "build" / "train" / "patchtst-nano"
    assert status == 0 and f"weights in {folder / 'weights'}" in said and "5 steps" in said
    card = json.loads((folder / "weights" / "card.json").read_text())
    assert card["recipe"]["steps"] == 5 and card["recipe"]["pool"] == 64 and card["data"]["kind"] == "generated"
    assert card["result"] == {"suite": "embedded", "training": False} and card["licence"]
    assert (folder / "weights" / "model.safetensors").stat().st_size < 0.55 * (folder / "model.safetensors").stat().st_size
    model = tsfm_lib.load(folder / "weights")
    assert tsfm_lib.forecast(model, np.sin(np.arange(200) / 4), 10).shape == (10, 9)

    before = (folder / "metrics.jsonl").read_text()
    assert go("patchtst-nano", "--steps", "5", "--pool", "64", "--device", "cpu", "--workers", "0")[0] == 0     # nothing left to train
    assert (folder / "metrics.jsonl").read_text() == before
    status, _, error = go("patchtst-nano", "--steps", "6", "--pool", "64", "--device", "cpu", "--no-evaluation")
    assert status == 2 and "another recipe (there / here: steps 5 / 6)" in error
    assert go("patchtst-nano", "--steps", "2", "--pool", "64", "--device", "cpu", "--no-evaluation", "--fresh")[0] == 0
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2


def test_recipes_are_listed_and_wrong_names_refused(go):
    status, said, _ = go("--list")
    assert status == 0 and all(name in said for name in RECIPES)
    status, _, error = go("patchtst-nan")
    assert status == 2 and "did you mean 'patchtst-nano'" in error and "Traceback" not in error
    assert "no recipe named, there are" in go()[2]


def test_the_recipes_models_can_be_built():
    from tsfm_lib import checkpoints

    for recipe in RECIPES.values():
        model = checkpoints.build(recipe.model, recipe.config, recipe.seed)
        assert model.config.context == recipe.context and model.config.horizon == recipe.horizon
