"""The pipelines, shares, budgets and patch lengths are compared fairly, and their rows are those that the claims are judged from."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from tsfm_lib import checkpoints, claims
from tsfm_lib.data import as_series_set
from tsfm_lib.experiments.time_tracker import few_shot, full_shot, patch_season, pipeline, targets
from tsfm_lib.experiments.time_tracker.trials import SMALL
from tsfm_lib.synth import planted

PLANTED = targets.PLANTED


@pytest.fixture
def daily(monkeypatch):
    """Every benchmark is a noisy day here, of three channels."""
    rng, t = np.random.default_rng(0), np.arange(3000)
    values = np.sin(2 * np.pi * (t / 24 + rng.random((3, 1)))) + 0.3 * rng.standard_normal((3, 3000))
    found = replace(as_series_set(values, "daily"), card=replace(as_series_set(values, "daily").card, season=24))
    for module in (few_shot, full_shot, patch_season):
        monkeypatch.setattr(module, "target", lambda name, seed=0: found)
    return found


def follows(series, lag):
    """Highest correlation of the two followers with a driver, `lag` steps before."""
    z = (series - series.mean(-1, keepdims=True)) / series.std(-1, keepdims=True)
    late, early = z[:, 2:, lag:], z[:, :2, : z.shape[-1] - lag]
    return float((late[:, :, None] * early[:, None]).mean(-1).max(-1).mean())


# ---- targets ------------------------------------------------------------------------------------------------------------------------


def test_the_error_is_that_of_every_window_in_units_of_the_set():
    """A window of twice the spread counts four times as much as in the model's own loss."""
    model = checkpoints.build("time-tracker", SMALL, 0).eval()
    x = torch.randn(1, 1, SMALL.context + SMALL.horizon, generator=torch.Generator().manual_seed(0))
    own = model.loss(x)
    variance = x[..., : SMALL.context].var(correction=0)
    torch.testing.assert_close(targets.scaled_error(model, x), own * variance, rtol=1e-4, atol=0)
    torch.testing.assert_close(targets.scaled_error(model, 2 * x), 4 * own * variance, rtol=1e-4, atol=0)


def test_a_missing_step_has_no_error_and_no_gradient_that_is_missing():
    model = checkpoints.build("time-tracker", SMALL, 0)
    x = torch.randn(2, 1, SMALL.context + SMALL.horizon, generator=torch.Generator().manual_seed(0))
    x[0, 0, 100:110] = torch.nan
    targets.scaled_error(model, x).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_some_per_cent_are_the_earliest_windows_of_every_variate():
    found = as_series_set(np.arange(286.0) + 1000 * np.arange(3)[:, None])  # 200 steps to train on
    stream = targets.windows(found, 21, 0, share=10)
    train = found.series[0][:, :200]
    assert len(stream) == 18  # of 180
    kept = stream.series[0] * train.std(1, keepdims=True) + train.mean(1, keepdims=True)
    np.testing.assert_allclose(kept, train[:, : 18 + 20])
    assert len(targets.windows(found, 21, 0)) == 180 and len(targets.windows(found, 21, 0, together=False)) == 3 * 180


def test_the_planted_target_is_drawn_anew_under_one_law():
    one, two = (targets.target(PLANTED, seed).series[0][None] for seed in (0, 1))
    assert not np.array_equal(one, two)
    for series in (one, two):
        assert follows(series, 24) > 0.9 > 0.5 > follows(series, 30)


# ---- pipelines ----------------------------------------------------------------------------------------------------------------------


def test_pretraining_knows_the_law_of_the_target_only_where_it_is_shared():
    shared, own = (pipeline.groups(0, law) for law in ("shared", "own"))
    coupled = lambda batch: batch[: len(batch) // 2].numpy()
    at_24 = [np.mean([follows(coupled(stream(step)), 24) for step in range(12)]) for stream in (shared, own)]
    assert at_24[0] > 0.9 and at_24[1] < 0.5
    assert torch.equal(own(3), own(3)) and not torch.equal(own(3), own(4))
    law = planted.drivers(1, 300, rng=0, **targets.DRIVERS, **targets.TARGET_LAW)
    assert set(law.lags[law.graph]) == {24} and (law.weights[law.graph] > 0).all()


def test_four_orders_begin_from_two_starts_and_can_be_judged():
    rows = pd.DataFrame([{"seed": seed} | row for seed in (0, 1) for row in pipeline.arms(seed, PLANTED, "own", 2, 1, 4)])
    rows = rows.assign(experiment="pipelines", profile="quick", dataset=PLANTED)
    assert rows.groupby("seed")["variant"].agg(list).tolist() == [list(pipeline.ARMS)] * 2
    judged = claims.judge("T4", pd.concat([rows, rows.assign(experiment="pipelines_shared_law")]))
    assert [part.interval is not None for part in judged.parts] == [True] * 4
    again = pd.DataFrame(pipeline.arms(0, PLANTED, "own", 2, 1, 4))
    assert again["MSE"].tolist() == rows[rows["seed"] == 0]["MSE"].tolist()
    wide = rows.pivot(index="seed", columns="variant", values="MSE_before")
    assert (wide["apart-apart"] != wide["mixed-apart"]).all()


def test_blocks_that_may_not_mix_change_nothing_until_they_do():
    rows = pipeline.blocks(0, PLANTED, 1, 1, 4)
    assert [row["blocks"] for row in rows] == [0, 1, 2, 3, 4]
    start = pipeline.pretrained(False, 0, 1, deep=True)
    x = torch.from_numpy(targets.target(PLANTED, 0).series[0][None, :, :192]).float()
    apart, mixed = (start.mixed(independent_layers=2, mixed_layers=2, alpha=alpha).eval()(x) for alpha in (0.0, 1.0))
    assert torch.equal(apart, start.eval()(x)) and not torch.equal(mixed, apart)


def test_a_bias_far_below_zero_takes_the_shock_away():
    rise = {v: pipeline.shock(0, PLANTED, v, 2, 1, 4) for v in (-40, 2)}
    assert abs(rise[-40]["rise_full"]) < 1e-3 < abs(rise[2]["rise_full"])
    start = pipeline.pretrained(False, 0, 2)
    drawn = [pipeline.with_bias(start, "normal", seed).layers[1].attend.other for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


# ---- little data, all of it, and how it is cut -----------------------------------------------------------------------------------------


def test_pretrained_and_scratch_differ_in_their_start_alone(daily, monkeypatch):
    monkeypatch.setattr(few_shot, "pretrained", lambda seed, steps: checkpoints.build("time-tracker", SMALL, seed))
    pretrained, scratch = few_shot.few_shot(0, "daily", 10, 0, 2, 4)
    assert pretrained["MSE"] == scratch["MSE"] and {pretrained["variant"], scratch["variant"]} == {"pretrained", "scratch"}
    nothing = {row["variant"]: row["MSE"] for row in few_shot.zero_shot(0, "daily", 0, 4)}
    assert nothing["pretrained"] == nothing["random-weights"] > nothing["seasonal-naive"]
    assert few_shot.longer(0, "daily", 10, 2, 4)["MSE"] == scratch["MSE"]


def test_models_of_the_full_shot_table_see_the_same_windows(daily, monkeypatch):
    seen = {}

    def keep(variant, config, stream, *rest, **more):
        seen[variant] = stream(0)
        raise InterruptedError

    monkeypatch.setattr(full_shot.trials, "trained", keep)
    for variant in full_shot.VARIANTS:
        with pytest.raises(InterruptedError):
            full_shot.full_shot(0, "daily", 96, variant, 1, 2)
    ours = seen.pop("time-tracker")
    assert all(torch.equal(batch, seen["dlinear"]) for batch in seen.values())
    assert torch.equal(ours, seen["dlinear"][..., : 96 + 24]) and ours.shape[:2] == (targets.ROWS // 3, 3)


def test_full_shot_rows_can_be_judged(daily):
    cells = full_shot.grid("quick", (0,), ("a", "b"))
    rows = pd.DataFrame([cell | full_shot.full_shot(**cell | {"steps": 1, "count": 2}) for cell in cells])
    assert len(rows) == 2 * 2 * 4
    rows["MSE"] += (rows["dataset"] == "b") * 0.1  # two sets, so that there is an interval
    judged = claims.judge("T9", rows.assign(experiment="full_shot", profile="quick"))
    assert [part.interval is not None for part in judged.parts] == [True] * 6


def test_a_resampled_set_keeps_its_days_and_its_splits(daily):
    for period in patch_season.PERIODS:
        found = patch_season.resampled(daily, period)
        [values] = found.series
        power = np.abs(np.fft.rfft(values[:, : 50 * period] - values[:, : 50 * period].mean(1, keepdims=True)))
        assert power.argmax(1).tolist() == [50] * 3 and found.season == period
        days = {part: (found.split(part).stop - found.split(part).start) / period for part in ("train", "val", "test")}
        assert days == pytest.approx({"train": 2100 / 24, "val": 300 / 24, "test": 600 / 24}, abs=0.1)


def test_patch_lengths_read_the_same_steps_and_can_be_judged(daily):
    for patch in patch_season.PATCHES:
        config = patch_season.config(patch, "rolled")
        assert config.context % patch == 0 and 0 <= config.context - patch_season.LOOK_BACK < patch
        assert patch_season.config(patch, "direct").horizon == patch_season.HORIZON
    cells = [cell | {"steps": 1, "count": 2} for cell in patch_season.grid("quick", (0, 1), ("ETTh1",))["patch_season"]]
    cells = [cell for cell in cells if cell["period"] != 20]
    rows = patch_season.relative(pd.DataFrame([cell | patch_season.one(**cell) for cell in cells]))
    assert np.allclose(rows.groupby(["seed", "period", "head"])["relative_MSE"].mean(), 1)
    assert (rows["alignment"] == "multiple").eq(rows["patch"] % rows["period"] == 0).all()
    judged = claims.judge("T3", rows.assign(experiment="patch_season", profile="quick"))
    assert [part.interval is not None for part in judged.parts] == [True] * 2
