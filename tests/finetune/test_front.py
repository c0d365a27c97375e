"""In by the front door, out as two small files, and from the shell."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import tsfm_lib
from tests.finetune.tiny import BACKBONES, BRIEF, MSFT, daily, made, waves
from tsfm_lib import checkpoints, finetune
from tsfm_lib.errors import TsfmError
from tsfm_lib.finetune import __main__ as cli


@pytest.fixture
def frame():
    return pd.DataFrame(waves(300).T, columns=["a", "b"], index=pd.date_range("2024-01-01", periods=300, freq="h"))


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("method", ["msft", "full", "prompt", "adalora"])
def test_what_was_added_is_saved_alone_and_fits_its_model_only(name, method, tmp_path):
    model, how = made(name), finetune.METHODS[method]
    done = finetune.fit(model, daily(), how._replace(design=replace(how.design, scales=min(how.design.scales, 2))), BRIEF)
    folder = finetune.save(done.model, tmp_path / "adapters", done.facts)
    again = finetune.load(folder, made(name))
    x = torch.as_tensor(daily().test.contexts[:3]).float()
    assert torch.equal(again.predict_quantiles(x, 20, (0.1, 0.5)), done.model.predict_quantiles(x, 20, (0.1, 0.5)))
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in done.model.parameters()]
    told = json.loads((folder / "adapters.json").read_text())
    assert told["facts"]["val_MSE"] == done.facts["val_MSE"] and told["design"]["scales"] == done.model.design.scales
    assert {file.name for file in folder.iterdir()} == {"adapters.json", "adapters.safetensors"}
    if method != "full":
        saved = (folder / "adapters.safetensors").stat().st_size
        assert saved < 4 * sum(p.numel() for p in done.model.parameters() if p.requires_grad) + 20_000
        with pytest.raises(TsfmError, match="belongs to a .* with fingerprint"):
            finetune.load(folder, made(name, seed=1))


def test_the_front_door_tunes_a_frame_and_forecasts_it(frame):
    tuned = tsfm_lib.finetune(made("moirai"), frame, horizon=12, how=MSFT, budget=BRIEF, progress=False)
    assert tuned.facts["trainable"] > 0 and list(tuned.curve["step"]) == [0, 2, 4]
    found = tsfm_lib.forecast(tuned, frame, horizon=12, quantiles=[0.1, 0.5, 0.9])
    assert found.shape == (24, 5) and np.isfinite(found[["0.1", "0.5", "0.9"]]).all().all()
    assert str(found["ds"].iloc[0]) == "2024-01-13 12:00:00"


def test_what_the_front_door_refuses(frame):
    for call, words in (
        (lambda: tsfm_lib.finetune("seasonal-naive", frame, horizon=3), "fine-tuning needs moirai"),
        (lambda: tsfm_lib.finetune("kairos-nano", frame, horizon=3), "needs moirai, moment, units, timesfm or chronos-bolt, got Kairos"),
        (lambda: tsfm_lib.finetune(made("units"), frame), "nothing says how far to forecast"),
        (lambda: tsfm_lib.finetune(made("units"), frame, horizon=0.5), "the horizon should be a whole number"),
        (lambda: finetune.save(made("units"), "nowhere"), "expected a model that was fine-tuned"),
    ):
        with pytest.raises(TsfmError, match=words):
            call()


def test_from_the_shell_a_row_before_and_after(frame, tmp_path, capsys, monkeypatch):
    file, weights = tmp_path / "mine.csv", checkpoints.save(made("units"), tmp_path / "weights")
    frame.rename_axis("date").to_csv(file)
    monkeypatch.setitem(finetune.BUDGETS, "quick", BRIEF)
    arguments = ["--model", str(weights), "--data", str(file), "--horizon", "12", "--method", "lora,msft", "--scales", "2"]
    assert cli.main([*arguments, "--tested", "4", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "zero-shot" in said and "before (zero-shot)" in said and "z-scored by the training part" in said
    assert "msft: weights of the scales, finest first: 0.3" in said
    assert finetune.load(tmp_path / "out", made("units")).design.scales == 2
    refused = {"--method lara": "did you mean 'lora'", "--scales many": "--scales is a number from 0 up or auto",
               "--model patchtst": "or chronos-bolt, got PatchTST", "--budget all": "a budget is one of"}  # fmt: skip
    for wrong, words in refused.items():
        changed = dict(zip(arguments[::2], arguments[1::2])) | {"--method": "msft"} | dict([wrong.split()])
        assert cli.main([part for pair in changed.items() for part in pair]) == 2
        assert words in capsys.readouterr().err


def test_an_architecture_by_name_is_tried_tiny_and_untrained(frame, tmp_path, capsys, monkeypatch):
    frame.rename_axis("date").to_csv(tmp_path / "mine.csv")
    monkeypatch.setitem(finetune.BUDGETS, "quick", BRIEF)
    assert cli.main(["--model", "moment", "--data", str(tmp_path / "mine.csv"), "--horizon", "8", "--scales", "auto", "--tested", "4"]) == 0
    assert "a tiny one with random weights" in capsys.readouterr().err
