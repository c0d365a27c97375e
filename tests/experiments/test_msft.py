"""The three experiments compare what they say they compare, and their rows are those that the claims are judged from."""

import inspect
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from tsfm_lib import checkpoints, claims, finetune
from tsfm_lib.experiments.msft import ablations, backbones, confounding, trials
from tsfm_lib.experiments.msft.mixer import MixerConfig, MultiscaleMixer
from tsfm_lib.finetune.scales import Part, alignment, pyramid

TINY = {"steps": 1, "batch": 2, "rates": 1, "every": 1, "patience": 1, "count": 4}
HERE = {"steps": 0, "tested": 4, "budget": TINY, "weights": ""}


@pytest.fixture(autouse=True)
def untrained(monkeypatch):
    """Starts without pretraining: what is trained here cannot be judged anyway."""
    def start(backbone, seed, steps):
        return checkpoints.build(backbone, replace(trials.SMALL[backbone], layers=1), seed).eval()

    for module in (trials, confounding, ablations, backbones):
        monkeypatch.setattr(module, "start", start)


def parts(claim, rows):
    return [part.interval is not None for part in claims.judge(claim, rows.assign(profile="quick")).parts]


def run(trial, cells):
    found = []
    for cell in cells:
        rows = trial(**cell)
        found += [cell | row for row in ([rows] if isinstance(rows, dict) else rows)]
    return pd.DataFrame(found)


# ---- 40 -------------------------------------------------------------------------------------------------------------------------------


def test_the_shortcut_and_the_mixing_can_be_judged():
    given = {"n": 8, **HERE}
    variants = ("full", "msft", "msft, uniform weights", "msft, mixed loss")
    rows = run(confounding.shortcut, [{"seed": seed, "variant": v, **given} for seed in (0, 1) for v in variants])
    rows = pd.concat([rows, run(confounding.oracle, [{"seed": seed, "tested": 4} for seed in (0, 1)])])
    assert parts("M1", rows) == [True] * 4 and parts("M5", rows) == [True] * 4
    scales = rows[(rows["experiment"] == "by_scale") & (rows["variant"] == "msft")]
    assert set(scales["scale"]) == {0, 1, 2} and set(scales["regime"]) == {"in distribution", "cue random", "cue reversed"}
    weights = rows[rows["experiment"] == "weights"]
    assert np.allclose(weights.groupby(["seed", "variant", "step"])["weight"].sum(), 1)
    assert set(rows.loc[rows["experiment"] == "mixing", "variant"]) == {"learned", "best single scale", "uniform", "stacked", "mixed loss"}
    mixed = rows[(rows["experiment"] == "mixing") & (rows["variant"] == "best single scale")]
    assert (mixed.merge(scales, on=["seed", "regime", "scale"]).pipe(lambda x: x["MSE_x"] - x["MSE_y"]) == 0).all()


def test_regimes_are_drawn_apart_and_differ_by_the_cue_alone():
    given, val = confounding.target(0, 50, 20), confounding.target(0, 50, 20).val
    assert len(given.train) == 50 and not np.isin(val.futures, np.stack(given.train)[..., 256:]).any()
    one, two = (confounding.windows(0, regime, 400, "test") for regime in ("in distribution", "cue reversed"))
    changed = np.flatnonzero((one.series != two.series).any(0))
    assert changed.tolist() == list(range(224, 256)) and (one.sign == two.sign).all() and (one.ramp == two.ramp).all()
    oracle = pd.DataFrame(confounding.oracle(0, 400))
    assert oracle["MSE"].nunique() == 1 and 0.9 < oracle["MSE"].mean() < 1.5


def test_closing_both_ways_leaves_coarse_scales_with_nothing_to_hear():
    """Two regimes with the same windows but for the sign of the alternation: coarse scales say the same."""
    on = confounding.target(0, 8, 4)
    done = trials.tuned("moirai", confounding.ARMS["msft, coarse to fine, uniform weights"], on, 0, 0, {**TINY, "steps": 3})
    made = confounding.windows(0, "in distribution", 6, "test")
    x = made.series[:, None, :256].astype(np.float64)
    other = x.copy()
    other[..., 224:] -= made.cue[:, None, None] * np.tile([1.0, -1.0], 16)
    a, b = (finetune.scale_points(done.model, v) for v in (x, other))
    np.testing.assert_allclose(a[1:], b[1:], atol=1e-4)
    assert np.abs(a[0] - b[0]).max() > 1e-3


def test_skill_by_scale_has_a_row_a_scale():
    rows = confounding.skill(0, "days alone", 96, 0, 8, "")
    assert [row["scale"] for row in rows] == [0, 1, 2, 3] and all(np.isfinite(row["MSE"]) and row["mean_MSE"] > 0 for row in rows)


def test_a_slower_alternation_is_seen_by_the_scales_whose_blocks_it_fills():
    scale = lambda block, i: [
        coarser_by(confounding.windows(0, regime, 6, "test", block).series, i) for regime in ("in distribution", "cue reversed")
    ]
    seen = {(block, i): np.abs(np.subtract(*scale(block, i))).max() > 0.1 for block in (1, 2, 4) for i in (0, 1, 2)}
    assert seen == {(block, i): 2**i <= block for block in (1, 2, 4) for i in (0, 1, 2)}
    same = confounding.windows(0, "in distribution", 6, "test")
    assert np.array_equal(same.series, confounding.windows(0, "in distribution", 6, "test", 1).series)


def coarser_by(series, halvings):
    return pyramid(torch.as_tensor(series[:, :256]), halvings, True)[-1].numpy()


def test_breaks_train_elsewhere_and_keep_out_of_the_judged_rows():
    cell = {"seed": 0, "n": 8, **HERE, "block": 4, "regime": "in distribution"}
    rows = run(confounding.breaks, [cell | {"variant": confounding.CLOSED}])
    assert set(rows["experiment"]) == {"breaks", "breaks_by_scale"} and set(rows["regime"]) == {"in distribution"}
    assert set(rows["test"]) == {"in distribution", "cue random", "cue reversed"}
    random = confounding.windows(0, "cue random", 50, "train")
    assert len(confounding.target(0, 50, 20, "cue random").train) == 50
    assert np.array_equal(np.stack(confounding.target(0, 50, 20, "cue random").train)[:, 0], random.series)


def test_weights_under_noise_are_reported_beside_those_that_would_be_best():
    rows = pd.DataFrame(confounding.drift(0, 0.3, n=8, **HERE))
    scales, mixed = rows[rows["experiment"] == "drift"], rows[rows["experiment"] == "drift_mixed"]
    assert np.isclose(scales["learned"].sum(), 1) and np.isclose(scales["stacked"].sum(), 1) and scales["loss"].notna().all()
    assert list(mixed["variant"]) == ["learned", "stacked", "uniform"] and (mixed["MSE"] < scales["MSE"].max() + 1e-9).all()
    calm, noisy = (confounding.season(0, noise, 20, "test") for noise in (0.0, 1.0))
    assert 0.9 < (noisy - calm).std() < 1.1 and np.abs(calm).max() <= 1


def test_losses_are_those_that_training_weighs():
    on = confounding.target(0, 8, 4)
    done = trials.tuned("moirai", confounding.ARMS["msft"], on, 0, 0, TINY)
    found, batch = confounding.losses(done.model, on.val), np.concatenate([on.val.contexts, on.val.futures], axis=-1)
    loss = done.model.loss(torch.as_tensor(batch)).item()
    assert np.isclose(loss, done.model.weights.detach().numpy() @ found, rtol=1e-4)


# ---- 41 -------------------------------------------------------------------------------------------------------------------------------


def test_methods_forgetting_and_pooling_can_be_judged():
    cell = {"backbone": "moirai", "dataset": trials.MADE[0], "horizon": 96, "others": list(trials.MADE), **HERE}
    variants = ("zero-shot", "probe", "lora", "full", "msft")
    rows = run(backbones.methods, [{"seed": seed, "variant": v, **cell} for seed in (0, 1) for v in variants])
    assert parts("M2", rows) == [True] * 3 and parts("M6", rows) == [True] * 4 and parts("M7", rows) == [True] * 2
    found = rows[rows["experiment"] == "methods"].groupby("variant")[["trainable", "tokens"]].mean()
    assert found.loc["zero-shot", "trainable"] == 0 < found.loc["probe", "trainable"] < found.loc["lora", "trainable"]
    assert found.loc["lora", "tokens"] == 16 + 6 and found.loc["msft", "tokens"] == 16 + 8 + 4 + 2 + 6 + 3 + 2 + 1
    assert set(rows.loc[rows["sets"] == "other", "dataset"]) == {trials.MADE[1]}


def test_moment_and_units_go_the_same_way():
    for backbone in ("moment", "units"):
        cell = {"backbone": backbone, "dataset": trials.MADE[1], "horizon": 96, "others": list(trials.MADE), **HERE}
        [row] = [r for r in backbones.methods(0, variant="msft", **cell) if r["experiment"] == "methods"]
        assert np.isfinite(row["MSE"]) and row["CRPS"] == row["MAE"] and row["trainable"] > 0


def test_models_from_scratch_can_be_judged_at_equal_time():
    timed = {**HERE, "budget": {**TINY, "seconds": 0.05, "patience": 99}}
    cells = [{"seed": seed, "dataset": trials.MADE[0], "horizon": 96, "variant": v, **timed}
             for seed in (0, 1) for v in ("msft", *backbones.RIVALS)]  # fmt: skip
    rows = run(backbones.equal_time, cells)
    assert parts("M8", rows) == [True] * 3 and (rows["seconds"] >= 0.05).all()


def test_the_mixer_reads_every_scale_and_learns():
    model = MultiscaleMixer(MixerConfig(context=64, horizon=16, kernel=9))
    x = torch.sin(torch.arange(80) / 8 * 6.2832 + torch.rand(16, 1, 1, generator=torch.Generator().manual_seed(0)) * 6.28)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = model.loss(x)
        loss.backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0] and model.predict_quantiles(x[..., :50], 20, (0.5,)).shape == (16, 1, 20, 1)
    with pytest.raises(ValueError, match="cannot be halved 3 times"):
        MixerConfig(context=60, horizon=8)


# ---- 42 -------------------------------------------------------------------------------------------------------------------------------


def test_components_and_scales_can_be_judged():
    cell = {"dataset": trials.MADE[0], "horizon": 96, **HERE}
    rows = run(ablations.variants, [{"seed": seed, "variant": v, **cell} for seed in (0, 1) for v in ablations.JUDGED])
    assert parts("M3", rows) == [True] * 3 and parts("M4", rows) == [True] * 3
    size = rows[rows["experiment"] == "scales"].groupby("variant")["trainable"].mean()
    assert abs(size[ablations.EQUAL] / size["msft"] - 1) < 0.1 and size["one scale"] < 0.6 * size["msft"]
    tables = rows[rows["variant"] == "msft"].groupby("experiment")["MSE"].agg(["count", "sum"])
    assert set(tables.index) == set(ablations.TABLES) and (tables == [2, tables["sum"].iloc[0]]).all(axis=None)
    assert np.allclose(rows[["w0", "w1", "w2", "w3"]].sum(axis=1), 1) and set(rows["K"]) == {0, 3}
    found = ablations.worth(rows[rows["experiment"] == "components"])
    by_hand = 100 * (1 - rows[rows["variant"] == "msft"]["MSE"].iloc[0] / rows[rows["variant"] == "no mixing"]["MSE"].iloc[0])
    assert list(found) == ["no aggregator", "shared lora", "no mixing"] and found["no mixing"].n == 2
    assert found["no mixing"].low <= by_hand <= found["no mixing"].high


def test_every_variant_runs_and_only_what_is_named_differs():
    cell = {"seed": 0, "dataset": trials.MADE[0], "horizon": 96, **HERE}
    for name in ablations.VARIANTS:
        for row in ablations.variants(variant=name, **cell) if name not in ablations.JUDGED else ():
            assert np.isfinite(row["MSE"]), name
    plain = vars(ablations.PLAIN.design)
    for name, found in ablations.VARIANTS.items():
        if found is not None and name != "zero-shot":
            changed = sum(value != plain[key] for key, value in vars(found.design).items())
            two = name.startswith(("one scale", "attention", "shared adapters and"))
            assert changed == (0 if found is ablations.PLAIN else 1 + two), name


def test_what_a_step_costs_is_measured_for_every_number_of_scales():
    rows = pd.DataFrame(ablations.costs(0, batch=2, rounds=1, steps=0, weights=""))
    as_list = rows[rows["variant"] == "list"].set_index("K")
    assert list(as_list.index) == [0, 1, 2, 3, 4] and (rows["ms"] > 0).all()
    assert as_list["tokens"].is_monotonic_increasing and as_list["trainable"].is_monotonic_increasing
    assert set(rows.loc[rows["K"] == 3, "tokens"]) == {as_list.loc[3, "tokens"]}


def test_tokens_counted_from_the_left_are_matched_with_other_times():
    even, ragged = (Part(0, 8, 4), Part(0, 4, 2)), (Part(2, 7, 3), Part(2, 4, 2))
    assert torch.equal(alignment(*even), ablations.from_the_left(*even))
    right, wrong = alignment(*ragged), ablations.from_the_left(*ragged)
    assert right.shape == wrong.shape and torch.equal(right[9:], wrong[9:]) and not right[:2].any() and not wrong[:2].any()
    assert (right != wrong).any(1)[2:9].sum() == 3  # every second token
    cell = {"seed": 0, "dataset": trials.MADE[0], "context": ablations.RAGGED, "horizon": 96, **HERE}
    both = [ablations.misaligned(variant=how, **cell)["MSE"] for how in ablations.COUNTED]
    assert np.isfinite(both).all()


# ---- what is run ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [confounding, backbones, ablations])
def test_cells_are_plain_values_that_their_trials_take(module):
    for profile in ("quick", "laptop", "full"):
        for name, cells in module.grid(profile, (0, 1), ("ETTh1", "ETTh2", "weather")).items():
            assert cells and json.loads(json.dumps(cells)) == cells
            inspect.signature(getattr(module, name)).bind(**cells[0])
            finetune.Budget(**cells[0].get("budget", {}))
    assert not set(trials.MADE) & {cell.get("dataset") for cell in module.grid("laptop", (0,), ("ETTh1",)).get("methods", [])}


def test_made_sets_have_the_seasons_they_are_called_by():
    for name, week in zip(trials.MADE, (True, False)):
        [values] = trials.source(name).series
        power = np.abs(np.fft.rfft(values[:, :3864])) ** 2  # 23 weeks
        assert ((power[:, 161] > 100 * np.median(power)) & ((power[:, 23] > 100 * np.median(power)) == week)).all()
    assert not np.array_equal(trials.source(name, 1).series[0], values)
