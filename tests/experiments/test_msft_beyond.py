"""Notebook 43 compares what it says it compares, and its predictions can be judged from its rows."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from tsfm_lib import checkpoints
from tsfm_lib.claims.verdict import judge_claim
from tsfm_lib.experiments.msft import beyond, trials
from tsfm_lib.finetune import joined, multiscale
from tsfm_lib.finetune.scales import finished

TINY = {"steps": 1, "batch": 2, "rates": 1, "every": 1, "patience": 1, "count": 4}


@pytest.fixture(autouse=True)
def untrained(monkeypatch):
    """Starts without pretraining: what is trained here cannot be judged anyway."""
    few = {"timesfm": {"layers": 1}, "chronos-bolt": {"encoder_layers": 1, "decoder_layers": 1}}
    start = lambda backbone, seed, steps: checkpoints.build(backbone, replace(trials.SMALL[backbone], **few[backbone]), seed).eval()
    for module in (trials, beyond):
        monkeypatch.setattr(module, "start", start)


def test_every_prediction_can_be_judged_from_the_rows_of_the_grid():
    grid, rows = beyond.grid("quick", (0, 1)), []
    for name, run in (("methods", beyond.methods), ("leaks", beyond.leaks)):
        for cell in grid[name]:
            json.dumps(cell)
            short = {"budget": TINY, "tested": 4, "steps": 0} if name == "methods" else {"batch": 2, "tested": 4, "steps": 1}
            found = run(**{**cell, **short})
            rows += [{"experiment": name, "profile": "quick", **cell, **one} for one in ([found] if isinstance(found, dict) else found)]
    table = pd.DataFrame(rows)
    for claim in beyond.PREDICTED:
        parts = judge_claim(claim, table).parts
        assert parts and all((part.interval is not None) != part.beside for part in parts), claim.id
    made = table[table["experiment"] == "methods"].groupby(["backbone", "variant"])[["trainable", "tokens"]].mean()
    assert made.loc[("timesfm", "lora"), "tokens"] == 16 and made.loc[("timesfm", "msft"), "tokens"] == 16 + 8 + 4 + 2
    assert made.loc[("chronos-bolt", "msft"), "tokens"] == 30 + 4 * 2 and made.loc[("timesfm", "zero-shot"), "trainable"] == 0
    assert {one["variant"] for one in grid["equal_time"]} == set(beyond.COMMON)
    assert multiscale.finished is finished and joined.heard(torch.tensor([-1.0, 0.0])).tolist() == [[True, False], [True, True]]


def test_a_triangle_hears_the_future_where_scales_stand_one_after_another():
    ends = torch.tensor([-3.0, -2.0, -1.0, 0.0, -2.0, 0.0, 0.0])  # four fine, two coarse, one coarsest
    later = ends > ends[:, None]
    counts = [int((mask & later).sum()) for mask in (joined.heard(ends), beyond.triangle(ends), beyond.triangle(ends, coarse_first=True))]
    assert counts == [0, 2, 3 + 2 + 2 + 1]
    full = beyond.triangle(ends, coarse_first=True)[:4]
    assert full[:, 4:].all() and torch.equal(full[:, :4], torch.ones(4, 4).tril().bool())


def test_the_floor_of_noise_and_what_hearing_it_is_worth():
    draws = np.random.default_rng(0).standard_normal(200_000)
    q = np.quantile(draws, beyond.DECILES)
    error = draws[:, None] - q
    loss = 2 * np.maximum(np.array(beyond.DECILES) * error, (np.array(beyond.DECILES) - 1) * error).mean()
    assert beyond.floor(0) == pytest.approx(loss, rel=5e-3) and beyond.floor(2) == pytest.approx(beyond.floor(0) / 2)
    assert beyond.ceiling(0) == 0 and beyond.ceiling(1) == pytest.approx(1 - 0.5**0.5) and beyond.ceiling(2) == pytest.approx(1 - 0.75**0.5)
