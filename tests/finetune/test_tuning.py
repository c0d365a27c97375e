"""The one function for all methods is fair, keeps what it found best, and leaves alone what it must."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from tests.finetune.tiny import BACKBONES, BRIEF, MSFT, daily, made, tuned, waves
from tsfm_lib.data import as_series_set
from tsfm_lib.errors import TsfmError
from tsfm_lib.finetune import METHODS, Budget, Design, Target, choosing, fit, search, target, tuning
from tsfm_lib.finetune.adalora import AdaLoRA
from tsfm_lib.nn.lora import LoRA

TRAINED = [name for name in METHODS if name != "zero-shot"]


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_all_methods_see_the_same_windows_in_the_same_order_and_try_as_many_rates(monkeypatch):
    seen, real = {}, tuning.one_step
    data = daily()

    def watch(module, optimiser, parameters, batch, *rest):
        seen.setdefault(name, []).append(batch)
        return real(module, optimiser, parameters, batch, *rest)

    monkeypatch.setattr(tuning, "one_step", watch)
    for name in TRAINED:
        done = fit(made("units"), data, name, replace(BRIEF, rates=2), seed=3)
        assert done.facts["rates"] == 2 and len(METHODS[name].rates) == 3
    first = seen.pop("msft")
    assert len(first) == 2 * BRIEF.steps and all(torch.equal(a, b) for a, b in zip(first[: BRIEF.steps], first[BRIEF.steps :]))
    for name, batches in seen.items():
        assert all(torch.equal(a, b) for a, b in zip(first, batches, strict=True)), name
    assert not torch.equal(data.stream(4, 3)(0), data.stream(4, 4)(0))


@pytest.mark.parametrize("name", BACKBONES)
def test_what_is_frozen_stays_to_the_bit_and_what_is_handed_in_stays_whole(name):
    model, before = made(name), made(name)
    for method in TRAINED:
        done = fit(model, daily(), method, replace(BRIEF, patience=9)).model
        assert same(model, before)
        free = {n for n, p in done.model.named_parameters() if p.requires_grad}
        changed = {n for n, p in done.model.named_parameters() if not torch.equal(p, before.get_parameter(n))}
        assert changed <= free, method
        assert free == set(dict(model.named_parameters())) if method in ("full", "scratch") else all(
            n.startswith(("head.", "prompts.", "mask_tokens.")) for n in free), method  # fmt: skip


def test_zero_shot_is_the_model_itself():
    model = made("units")
    done = fit(model, daily(), "zero-shot", BRIEF)
    assert done.model is model and done.facts["trainable"] == done.facts["steps"] == 0 and np.isfinite(done.facts["val_MSE"])


def test_same_seed_same_bytes_and_another_seed_other_ones():
    one, two, other = (fit(made("moirai"), daily(), "msft", BRIEF, seed) for seed in (1, 1, 2))
    assert same(one.model, two.model) and one.curve.drop(columns="seconds").equals(two.curve.drop(columns="seconds"))
    assert not same(one.model, other.model)


def test_the_global_generator_is_left_where_it_was():
    before = torch.get_rng_state()
    fit(made("units", dropout=0.1), daily(), "msft", BRIEF)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("mixing", ["weighted loss", "stacked"])
def test_the_best_state_is_kept_and_its_error_is_the_one_reported(mixing):
    data, how = daily(), METHODS["msft"]._replace(design=replace(MSFT, mixing=mixing), rates=(0.3,))  # a rate that spoils everything
    done = fit(made("units"), data, how, replace(BRIEF, steps=12, patience=2))
    assert done.facts["best_step"] == 0 or done.facts["val_MSE"] < done.curve["val_MSE"].iloc[0]
    assert done.facts["val_MSE"] == done.curve["val_MSE"].min() == pytest.approx(data.val.scores(done.model)["MSE"], rel=1e-5)
    assert done.facts["steps"] <= 12 and done.curve["step"].is_monotonic_increasing
    assert [done.facts[f"w{i}"] for i in range(3)] == pytest.approx(done.model.weights.tolist(), abs=1e-5)


def test_it_stops_when_nothing_gets_better_and_the_best_rate_wins(monkeypatch):
    errors = iter([5.0, 4.0, 4.5, 4.6, 4.7, 9.0, 5.0, 3.0, 3.5, 3.6, 3.7, 9.0])
    monkeypatch.setattr(tuning, "validated", lambda module, data: {"val_MSE": next(errors)})
    done = fit(made("units"), daily(), "lora", Budget(steps=100, batch=2, rates=2, every=1, patience=3))
    assert done.facts["rate"] == METHODS["lora"].rates[1] and done.facts["best_step"] == 2
    assert done.facts["steps"] == 5 and done.facts["val_MSE"] == 3.0


def test_a_run_that_breaks_leaves_its_best_state():
    calls = []

    def loss(module, batch, generator):
        calls.append(1)
        return module.loss(batch) * (torch.nan if len(calls) == 3 else 1.0)

    done = search(lambda: tuned("units"), (1e-3,), daily(), replace(BRIEF, steps=9, every=1), 0, loss=loss)
    assert len(calls) == 3 and np.isfinite(done.facts["val_MSE"]) and all(p.isfinite().all() for p in done.model.parameters())


def test_with_seconds_runs_end_by_their_time():
    done = fit(made("units"), daily(), "lora", replace(BRIEF, seconds=0.25, patience=99))
    assert 0.25 <= done.facts["seconds"] < 1.5 and done.facts["steps"] > BRIEF.steps


@pytest.mark.parametrize("name", BACKBONES)
def test_a_daily_wave_is_learnt(name):
    before = fit(made(name), daily(), "zero-shot", BRIEF).facts["val_MSE"]
    how = METHODS["msft"]._replace(design=replace(MSFT, scales=1), rates=(2e-2,))
    after = fit(made(name), daily(), how, Budget(steps=30, batch=8, rates=1, every=30, count=8)).facts
    assert after["val_MSE"] < 0.8 * before and after["steps"] == 30


# ---- AdaLoRA


def test_adalora_ends_with_the_ranks_it_may_have_where_they_matter():
    model = made("units")
    plain = LoRA.of(model, ("q", "v"), rank=4, generator=torch.Generator().manual_seed(0))
    lora = AdaLoRA(plain, torch.Generator().manual_seed(0))
    assert [lora.kept(share) for share in (0.0, 0.05, 1.0)] == [6 * len(lora.names)] * 2 + [4 * len(lora.names)]
    assert all(b.abs().max() == 0 for b in lora.b) and lora.penalty() > 0
    for size in lora.size:
        torch.nn.init.ones_(size)
    target_name = lora.names[0]
    optimiser = torch.optim.SGD(lora.parameters(), 0.0)
    for share in (0.2, 0.5, 1.0):
        sum((b @ a).square().sum() * (100 if name == target_name else 1) for name, a, b in zip(lora.names, lora.a, lora.b)).backward()
        lora.adjust(share)
        optimiser.zero_grad()
    left = [int((size != 0).sum()) for size in lora.size]
    assert sum(left) == 4 * len(lora.names) and left[0] == 6


# ---- how many scales


def test_the_smallest_number_of_scales_that_is_nearly_the_best_is_chosen(monkeypatch):
    rng, data = np.random.default_rng(0), daily()
    truth = data.val.futures
    said = np.stack([truth + size * rng.standard_normal(truth.shape) for size in (1.0, 0.3, 50.0)])

    def points(module, contexts, batch=128):
        assert module.design.scales == 2  # the next one would leave less than two patches of context
        return said

    monkeypatch.setattr(choosing, "scale_points", points)
    assert choosing.choose_scales(made("units"), data) == 1
    assert fit(made("units"), data, replace(MSFT, scales=None), BRIEF).facts["scales"] == 1


def test_errors_by_scale_are_those_of_the_frozen_model():
    data = daily()
    found = choosing.scale_errors(made("units"), data, most=2)
    point = choosing.scale_points(tuned("units", Design(train="new")), data.val.contexts)[0]
    assert len(found) == 3 and found[0] == pytest.approx(((point[1::2] - data.val.futures[1::2]) ** 2).mean(), rel=1e-5)


# ---- what is trained on


def test_targets_keep_their_parts_apart_and_are_scaled_by_the_first():
    values = np.arange(200.0) + 1000 * np.arange(2)[:, None]
    one = target(values, 30, 10, count=None)
    raw = lambda x: x * one_std + one_mean
    one_mean, one_std = values[0, :140].mean(), values[0, :140].std()
    assert raw(one.train[0][0]).max() == pytest.approx(139)
    assert raw(one.val.futures[::2]).min() == pytest.approx(140) and raw(one.val.futures[::2]).max() == pytest.approx(159)
    assert raw(one.test.futures[::2]).min() == pytest.approx(160) and raw(one.test.futures[::2]).max() == pytest.approx(199)
    assert (one.val.contexts[..., -1] < one.val.futures[..., 0]).all() and one.val.contexts.shape == (22, 1, 30)
    assert target(values, 30, 10, together=True).val.contexts.shape == (11, 2, 30) and len(target(values, 30, 10, count=6).val) == 6


def test_collections_are_stopped_by_the_horizon_before_their_last():
    lists = [np.arange(60.0), 5 + np.arange(80.0)]
    days = lambda x: pd.date_range("2024-01-01", periods=len(x))
    found = as_series_set(pd.concat([pd.DataFrame({"unique_id": f"s{i}", "ds": days(x), "y": x}) for i, x in enumerate(lists)]))
    one = target(replace(found, card=replace(found.card, horizon=6)), 200, 6)
    assert [x.shape[1] for x in one.train] == [48, 68] and one.context == 62 and len(one.val) == len(one.test) == 2


def test_what_is_too_short_is_said():
    with pytest.raises(TsfmError, match="too few for a horizon of 80"):
        target(waves(100), 24, 80)
    with pytest.raises(TsfmError, match="a budget is one of quick, laptop, full, or a Budget, got 'quik'; did you mean 'quick'"):
        fit(made("units"), daily(), "lora", "quik")
    with pytest.raises(TsfmError, match="a method is one of .*did you mean 'lora'"):
        fit(made("units"), daily(), "lara")
    assert isinstance(daily(), Target)
