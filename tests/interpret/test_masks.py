"""Many ablations at once say what one after another says, and compute less."""

import pytest
import torch

from tests.interpret.models import ATTENTIVE, close, get, hooks, series, setting
from tsfm_lib import checkpoints, interpret
from tsfm_lib.errors import TsfmError
from tsfm_lib.interpret.plans import Plan, head_sites, layers
from tsfm_lib.nn.sites import MLPSite

MAE = lambda forecast, target: (forecast[..., 1] - target).abs().mean((1, 2))


def plans_for(model):
    mlps = [s.name for s in model.sites() if isinstance(s, MLPSite)]
    first, *_, last = head_sites(model)
    far = Plan(heads={first.name: [1], last.name: [0]}, mlps=mlps[-1:])
    return [Plan(), far, *interpret.single_heads(model), *(Plan(mlps=[m]) for m in mlps), *interpret.single_layers(model)]


def one_by_one(model, run, x, plans, **options):
    found = []
    for plan in plans:
        with torch.no_grad(), interpret.ablate(model, plan, **options):
            found.append(run(x))
    return torch.stack(found)


@pytest.mark.parametrize("name", ATTENTIVE)
def test_at_once_is_one_by_one(name):
    """However the batch is cut: all at once, some plans at a time, some series at a time."""
    model, run, x = setting(name)
    plans, clean, intact = plans_for(model), hooks(model), run(x)
    expected = one_by_one(model, run, x, plans)
    close(expected[0], intact)
    assert all(not torch.allclose(changed, intact, atol=1e-6) for changed in expected[1:])
    masks = interpret.HeadMask(model, plans)
    for rows in (128, 7, 2):
        close(masks.evaluate(run, x, rows), expected)
    assert hooks(model) == clean and torch.equal(run(x), intact)


@pytest.mark.parametrize("mode", ["mean", "mean-by-position", "resample"])
@pytest.mark.parametrize("name", ["chronos-bolt", "moirai", "time-tracker"])
def test_so_it_is_with_what_stands_in(name, mode):
    model, run, x = setting(name)
    known = interpret.calibrate(model, run, series(b=5, seed=3, name=name))
    options = {"mode": mode, "calibration": known}
    close(interpret.HeadMask(model, plans_for(model)).evaluate(run, x, **options), one_by_one(model, run, x, plans_for(model), **options))


def test_a_longer_roll_out_hears_of_the_ablation_in_its_second_pass():
    model, run, x = setting("chronos-bolt", horizon=20)
    plans = interpret.single_heads(model)
    close(interpret.HeadMask(model, plans).evaluate(run, x), one_by_one(model, run, x, plans))


def test_what_lies_in_front_is_not_computed_again():
    config = {**vars(get("moment").config), "layers": 4}
    model = checkpoints.build("moment", config, 0).eval()
    inside = {"mlp 0": model.layers[0].mlp.down, "q 2": model.layers[2].attention.q, "mlp 2": model.layers[2].mlp.down,
              "q 3": model.layers[3].attention.q}  # fmt: skip
    ran = dict.fromkeys(inside, 0)
    handles = [m.register_forward_hook(lambda *_, n=n: ran.update({n: ran[n] + 1})) for n, m in inside.items()]
    interpret.HeadMask(model, [Plan(heads={"encoder.2.self": [0]})]).evaluate(model.embed, series(length=64))
    assert ran == {"mlp 0": 1, "q 2": 1, "mlp 2": 2, "q 3": 2}  # an intact run, then what lies behind the mask
    interpret.HeadMask(model, [Plan(mlps=["encoder.2"])]).evaluate(model.embed, series(length=64))
    assert ran == {"mlp 0": 2, "q 2": 2, "mlp 2": 3, "q 3": 4}
    for handle in handles:
        handle.remove()


def test_losses_are_those_of_the_forecasts_series_by_series():
    model, run, x = setting("kairos", b=5)
    target = series(b=5, seed=1, length=7)
    masks = interpret.HeadMask(model, plans_for(model))
    expected = torch.stack([MAE(each, target) for each in masks.evaluate(run, x)])
    close(masks.losses(run, x, target, MAE, rows=2), expected)


def test_a_forward_that_splits_its_batch_is_refused_and_leaves_nothing_behind():
    model, run, x = setting("moment")
    in_parts = lambda x: torch.cat([run(part) for part in x.split(2)])
    with pytest.raises(TsfmError, match="splits or mixes its batch"):
        interpret.HeadMask(model, interpret.single_heads(model)).evaluate(in_parts, x)
    assert not any(any(each) for each in hooks(model))


def test_parts_that_never_run_cannot_be_judged():
    model = get("chronos-bolt")
    encoder = lambda x: model.embed(x)
    assert interpret.HeadMask(model, [Plan(layers=["encoder.0"])]).evaluate(encoder, series(length=64)).shape[0] == 1
    with pytest.raises(TsfmError, match="decoder.0.self was never run"):
        interpret.HeadMask(model, [Plan(heads={"decoder.0.self": [0]})]).evaluate(encoder, series(length=64))
    with pytest.raises(TsfmError, match="at least one plan"):
        interpret.HeadMask(model, [])
    assert list(layers(model)) == ["encoder.0", "decoder.0"]
