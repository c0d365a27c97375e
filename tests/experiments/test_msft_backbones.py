"""Notebook 41's ways to fine-tune badly are what they are called, and its tables count what they say."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from tsfm_lib import checkpoints, finetune
from tsfm_lib.experiments.msft import backbones, trials

BUDGET = {"steps": 2, "batch": 2, "rates": 1, "every": 1, "patience": backbones.PATIENT, "count": 4}
HERE = {"seed": 0, "dataset": trials.MADE[1], "horizon": 96, "steps": 0, "tested": 4, "budget": BUDGET, "weights": ""}


@pytest.fixture(autouse=True)
def untrained(monkeypatch):
    """Starts without pretraining: what is trained here cannot be judged anyway."""
    start = lambda backbone, seed, steps: checkpoints.build(backbone, replace(trials.SMALL[backbone], layers=1), seed).eval()
    for module in (trials, backbones):
        monkeypatch.setattr(module, "start", start)


def test_a_learning_rate_is_tried_to_the_end_and_a_large_one_does_harm():
    small, large = (backbones.learning_rates(variant="full", rate=rate, **HERE) for rate in (1e-12, 10.0))
    assert small["first"] == large["first"] and abs(small["last"] / small["first"] - 1) < 1e-3
    assert large["steps"] == 2 and large["last"] > 2 * large["first"] and large["val_MSE"] <= large["first"]
    assert (small["rate"], large["rate"]) == (1e-12, 10.0)


def test_two_rules_watch_the_same_training():
    mixed, summed = (backbones.stopping(variant=variant, **HERE) for variant in ("mixed forecast", "weighted sum"))
    weights = lambda rows: [rows[0][f"w{i}"] for i in range(4)]
    assert weights(mixed) == weights(summed) and abs(sum(weights(mixed)) - 1) < 1e-6
    steps, watched = ([row[key] for row in summed[1:]] for key in ("step", "watched"))
    assert steps == [0, 1, 2] and watched != [row["watched"] for row in mixed[1:]]
    assert summed[0]["val_MSE"] == min(watched)


def test_the_weighted_sum_is_the_loss_that_is_trained():
    on = trials.cut(trials.MADE[1], 0, 96, 4, 4)
    module = finetune.MultiScale(trials.start("units", 0, 0), backbones.how("units", "msft").design, on.context, on.horizon).eval()
    whole = torch.as_tensor(np.concatenate([on.val.contexts, on.val.futures], -1), dtype=torch.float32)
    assert backbones.BySum(on.val.contexts, on.val.futures).scores(module) == {"MSE": module.loss(whole).item()}


def test_models_at_equal_time_are_stopped_by_the_clock_alone():
    cells = backbones.grid("laptop", (0, 1, 2, 3, 4), ("ETTh1", "ETTh2", "weather"))
    assert {cell["budget"]["patience"] for cell in cells["equal_time"]} == {backbones.PATIENT}
    assert {cell["budget"]["patience"] for cell in cells["methods"]} == {backbones.BUDGET["laptop"]["budget"]["patience"]}
    assert len({cell["seed"] for cell in cells["methods"]}) == len({cell["seed"] for cell in cells["equal_time"]}) == 5
    assert {cell["backbone"] for cell in cells["methods"]} == set(trials.BACKBONES)


def test_changes_are_paired_by_set_and_seed():
    rows = pd.DataFrame({"seed": [0, 0, 1, 1], "dataset": "d", "horizon": 1, "variant": ["zero-shot", "msft"] * 2,
                         "MSE": [1.0, 0.5, 2.0, 3.0]})  # fmt: skip
    assert backbones.relative(rows, "MSE")["change"].tolist() == [0, -50, 0, 50]
    assert backbones.relative(rows, "MSE", "msft")["change"].round(1).tolist() == [100, 0, -33.3, 0]
    assert backbones.spread(pd.Series([1.0])) == "1" and backbones.spread(pd.Series([1.0, 1.0, np.nan])) == "1 [1, 1]"


def test_what_is_quoted_is_the_digest_and_not_better_everywhere():
    said = pd.DataFrame(backbones.SAID)
    assert (said.loc["msft"] < said.loc["full"]).all() and said.loc["SimpleTM", "electricity"] < said.loc["msft", "electricity"]
    assert 100 * (1 - said.loc["msft", "ETTm1"] / said.loc["full", "ETTm1"]) == pytest.approx(9.8, abs=0.05)


def test_untrained_scales_are_the_frozen_model_at_each_scale():
    found = backbones.untrained("units", trials.MADE[1], 0, 0, count=4)
    on = trials.cut(trials.MADE[1], 0, 96, 4, 4)
    assert list(found) == ["scale 0", "scale 1", "scale 2", "all, equal weights"]
    assert found["scale 0"] == pytest.approx(on.val.scores(trials.start("units", 0, 0))["MSE"], rel=1e-4)
