"""What must hold of TimesFM whatever its weights are."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.train.toys import recipe
from tsfm_lib import checkpoints
from tsfm_lib.models.timesfm import TimesFM, TimesFMConfig, bridge
from tsfm_lib.nn.objectives import random_cuts
from tsfm_lib.nn.outputs import pinball
from tsfm_lib.train import fit
from tsfm_lib.train.optimise import split_parameters
from tsfm_lib.train.recipes import RECIPES
from tsfm_lib.train.state import seed_for

LEVELS = (0.1, 0.5, 0.9)
OURS = {"scaling": "context", "asinh": True, "gaps": "mask", "mean": False, "spread_horizon": None}


def made(seed=0, loud=True, **changes):
    model = checkpoints.build("timesfm", replace(TimesFMConfig.tiny(), **changes), seed).eval()
    if loud:  # heads with opinions, so that differences are seen
        with torch.no_grad():
            for head in filter(None, (model.head, model.spread)):
                head.out.weight.mul_(30)
    return model


def series(rows=3, steps=64, seed=0):
    return torch.randn(rows, steps, generator=torch.Generator().manual_seed(seed)).cumsum(1)


def near(a, b, atol=1e-5):
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-5, check_dtype=False)


# ---- reading


@torch.no_grad()
def test_every_patch_is_scaled_by_what_was_read_so_far():
    model, x = made(), series()
    x[0, :13] = torch.nan
    z, seen, statistics = model.normalise(x)
    for row in range(3):
        for n in range(1, 8):
            so_far = x[row, : 8 * (n + 1)].numpy()
            mean, std = np.nanmean(so_far), np.nanstd(so_far)
            near(statistics.loc[row, n], torch.tensor(mean))
            near(z[row, n], torch.where(seen[row, n], (x[row, 8 * n : 8 * n + 8] - mean) / std, 0))
    assert (z[0, 0] == 0).all() and statistics.scale[0, 0] == 0  # nothing was seen there


@torch.no_grad()
def test_one_scale_for_the_whole_context():
    model, x = made(**OURS), series()
    z, _, statistics = model.normalise(x)
    near(z.flatten(1), ((x - x.mean(1, keepdim=True)) / x.std(1, correction=0, keepdim=True)).asinh())
    assert statistics.loc.shape == (3, 1) and not model.causal and made().causal


def test_gaps_are_bridged_by_straight_lines():
    x = series(4, 40)
    x[torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.5] = torch.nan
    x[0, :5], x[1, -6:], x[2] = torch.nan, torch.nan, torch.nan
    at = np.arange(40)
    for row, found in zip(x.numpy(), bridge(x).numpy()):
        seen = np.isfinite(row)
        if not seen.any():
            assert np.isnan(found).all()
            continue
        start = seen.argmax()
        assert np.isnan(found[:start]).all()
        np.testing.assert_allclose(found[start:], np.interp(at, at[seen], row[seen])[start:], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_gaps_are_bridged_before_the_series_is_cut_and_masked_gaps_are_told_from_the_mean():
    model, x = made(context=16), series()
    x[:, 40:51] = torch.nan
    near(model.window(x)[:, :3], (x[:, 39:40] + (x[:, 51:52] - x[:, 39:40]) * torch.tensor([9, 10, 11]) / 12))
    masking, gap = made(**OURS), series()
    gap[:, 20] = torch.nan
    z, seen, _ = masking.normalise(masking.window(gap))
    assert not seen[:, 2, 4].any() and not torch.allclose(masking.tokens(z, seen)[:, 2], masking.tokens(z, torch.ones_like(seen))[:, 2])


@pytest.mark.parametrize("changes", [{}, OURS])
@torch.no_grad()
def test_padding_changes_nothing(changes):
    """Positions are counted from the first patch with an observation."""
    model, x = made(**changes), series(steps=40)
    padded = torch.nn.functional.pad(x, (24, 0), value=torch.nan)
    for a, b in zip(model(x, 20), model(padded, 20)):
        if a is not None:
            near(a, b)


@pytest.mark.parametrize("changes", [{}, OURS])
@torch.no_grad()
def test_reading_on_with_a_past_is_reading_everything_again(changes):
    model, x = made(**changes), series(steps=40)
    longer, _ = model(x, 24)
    median = model.config.median
    if model.config.scaling == "running":
        for step in (1, 2):
            x = torch.cat([x, longer[:, 8 * (step - 1) : 8 * step, median].float()], dim=1)
            near(model(x, 1).point, longer[:, 8 * step : 8 * step + 8], 1e-4)
    assert longer.shape == (3, 24, model.config.channels) and torch.equal(model(x[:, :40], 1).point, longer[:, :8])


def test_horizons_of_several_patches_come_back_as_several_patches():
    model, lengths = made(horizon=24), []
    handle = model.tokenizer.register_forward_hook(lambda module, inputs, out: lengths.append(out.shape[1]))
    with torch.no_grad():
        assert model(series(), 60).point.shape == (3, 72, 10)
    handle.remove()
    assert lengths == [8, 3, 3]


@torch.no_grad()
def test_fresh_scores_are_those_of_plain_attention_on_normed_queries_and_keys():
    layer, q = made().layers[0], torch.randn(1, 2, 5, 8)
    angles = torch.zeros(1, 1, 5, 4)
    turned, _ = layer.turned(angles)(q, q)
    near(turned, q / (q.square().mean(-1, keepdim=True) + 1e-6).sqrt() / 8**0.5)


@torch.no_grad()
def test_what_a_part_adds_has_one_length_whatever_heads_are_left():
    """Sandwich norms: without a head the others are heard louder, so heads are not additive."""
    model, added = made(), []
    layer = model.layers[0]
    z, seen, _ = model.normalise(series())
    second = torch.tensor([0.0, 1.0]).repeat_interleave(8)
    hooks = [layer.norm_attended.register_forward_hook(lambda module, inputs, out: added.append(out.norm(dim=-1)))]
    model.encode(model.tokens(z, seen), seen)
    hooks.append(layer.attention.out.register_forward_pre_hook(lambda module, inputs: (inputs[0] * second,)))
    model.encode(model.tokens(z, seen), seen)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(added[0], added[1], rtol=1e-2, atol=0)


# ---- forecasting


@pytest.mark.parametrize("changes", [{}, OURS])
def test_forecasts_follow_scale_and_level(changes):
    model, x = made(**changes), series()
    a, b = (model.predict_quantiles(y[:, None], 20, LEVELS) for y in (x, 3 * x + 100))
    torch.testing.assert_close(b, 3 * a + 100, atol=5e-3, rtol=1e-4)


@pytest.mark.parametrize("changes", [{}, OURS])
def test_a_constant_is_forecast_as_itself_and_nothing_as_zero(changes):
    model = made(**changes)
    assert (model.predict_quantiles(torch.full((1, 1, 64), 7.0), 20, LEVELS) == 7).all()
    assert (model.predict_quantiles(torch.full((1, 1, 64), torch.nan), 20, LEVELS) == 0).all()


def test_a_series_in_small_units_is_flat_under_the_quirk_alone():
    x = 1e-8 * series()
    wide = lambda **options: made(**options).predict_quantiles(x[:, None], 8, LEVELS).diff(dim=-1).max().item() / 1e-8
    usual = made().predict_quantiles(1e8 * x[:, None], 8, LEVELS).diff(dim=-1).max().item()
    assert wide() == pytest.approx(usual, rel=1e-3)
    assert abs(wide(quirks=("small_is_flat",)) - usual) > 0.05 * usual


def test_normalised_inputs_change_nothing_but_what_counts_as_flat():
    x = series(steps=50)
    for scale, quirks, alike in ((1, (), True), (1e-8, (), True), (1e-8, ("small_is_flat",), False)):
        model = made(quirks=quirks)
        a, b = (model.forecast(scale * x, 20, normalise_inputs=on) / scale for on in (False, True))
        assert torch.allclose(a, b, atol=1e-3, rtol=1e-3) == alike


def test_padding_enters_the_scale_of_normalised_inputs_under_the_quirk_alone():
    x = torch.cat([torch.full((1, 8), 5.0), 5 + 2e-6 * series(1, 24)], dim=1).double()
    plain, padded = (made(quirks=("small_is_flat", *more)).forecast(x, 8, normalise_inputs=True) for more in ((), ("padding_in_scale",)))
    assert (plain - padded).abs().max() > 1e-7


@pytest.mark.parametrize("horizon", [8, 20])
def test_flipped_forecasts_are_odd_functions_of_the_series(horizon):
    x = series()
    for quirks, odd in (((), True), (("unswapped_roll_out",), horizon <= 8)):
        model = made(quirks=quirks)
        a, b = (model.forecast(y, horizon, flip=True, long=False) for y in (x, -x))
        assert torch.allclose(b, -torch.cat([a[..., :1], a[..., 1:].flip(-1)], dim=-1), atol=1e-5) == odd
    plain = made()
    assert not torch.allclose(plain.forecast(-x, 8)[..., 5], -plain.forecast(x, 8)[..., 5], atol=1e-3)


def test_the_long_spread_stands_around_the_median_and_ends_with_its_last_step():
    model, x = made(), series()
    point, spread = (t.detach() for t in model(x, 32))
    around = model.forecast(x, 32)
    near(around[..., [0, 5]], point[..., [0, 5]])
    from_median = (around - around[..., 5:6])[..., 1:]
    near(from_median[:, :20], (spread - spread[..., 5:6])[..., 1:])
    near(from_median[:, 20:], from_median[:, 19:20].expand(-1, 12, -1))
    near(model.forecast(x, 32, long=False), point)


def test_crossing_quantiles_are_sorted_or_pushed_outwards():
    model, x = made(), series()
    raw = model.forecast(x, 8)
    assert (raw[..., 1:].diff(dim=-1) < 0).any()
    pushed = model.forecast(x, 8, outwards=True)
    by_hand = raw.clone()
    for i in (4, 3, 2, 1):
        by_hand[..., i] = torch.minimum(by_hand[..., i], by_hand[..., i + 1])
    for i in (6, 7, 8, 9):
        by_hand[..., i] = torch.maximum(by_hand[..., i], by_hand[..., i - 1])
    assert torch.equal(pushed, by_hand)
    levels = model.config.quantiles
    near(model.predict_quantiles(x[:, None], 8, levels)[:, 0], raw[..., 1:].sort(-1).values)
    near(model.predict_quantiles(x[:, None], 8, levels, outwards=True)[:, 0], pushed[..., 1:])


def test_rows_without_a_negative_value_can_be_kept_there():
    model, x = made(), series()
    x[0] = torch.arange(64) % 16 == 0  # a deviation of four means
    raw, kept = (model.forecast(x, 8, positive=on) for on in (False, True))
    assert (raw[0] < 0).any() and torch.equal(kept[0], raw[0].clamp_min(0)) and torch.equal(kept[1:], raw[1:])


# ---- training


@pytest.mark.parametrize("changes", [{}, OURS, {**OURS, "scaling": "running"}])
@torch.no_grad()
def test_the_loss_at_a_cut_is_that_of_the_forecast_from_what_lies_before_it(changes):
    """One end a series, the whole context or less: the same as cutting by hand and forecasting."""
    model = made(cuts=1, **changes)
    c, batch = model.config, torch.cat([series(6, 64), series(6, 8, seed=1)], dim=1)
    batch[0, -3:], batch[1, :20], batch[2, 30] = torch.nan, torch.nan, 1e6
    loss = model.loss(batch[:, None], torch.Generator().manual_seed(3))
    rows = bridge(batch[:, :64]) if c.gaps == "bridge" else batch[:, :64]
    first = rows.isfinite().float().argmax(1) // 8
    ends = random_cuts(first, 8, 1, torch.Generator().manual_seed(3))[0][:, 0].tolist()
    assert len(set(ends)) > 2
    whole = torch.cat([rows, batch[:, 64:]], dim=1)
    found = {"point": ([], []), "spread": ([], [])}
    for row, end in zip(whole, ends):
        z, seen, statistics = model.normalise(row[None, : 8 * end])
        h = model.encode(model.tokens(z.clamp(-12, 12), seen), seen)[:, -1]
        last = replace(statistics, loc=statistics.loc[:, -1:], scale=statistics.scale[:, -1:])
        for name, head in (("point", model.read_out), ("spread", model.read_spread)):
            if name == "point" or model.spread is not None:
                forecast = head(h)[0]
                target = torch.full((len(forecast),), torch.nan)
                future = row[8 * end :][: len(forecast)]
                target[: len(future)] = model.scaled(future[None, None], last)[0, 0].clamp(-12, 12)
                found[name][0].append(forecast)
                found[name][1].append(target)
    total = 0.0
    for forecasts, targets in (map(torch.stack, pair) for pair in found.values() if pair[0]):
        total += 2 * pinball(forecasts[..., c.mean :], targets, c.quantiles)
        if c.mean:
            total += (targets - forecasts[..., 0]).square()[targets.isfinite()].mean()
    near(loss, total, 1e-4)


@pytest.mark.parametrize("changes", [{}, OURS])
@torch.no_grad()
def test_ends_are_drawn_from_the_generator_and_what_has_no_scale_teaches_nothing(changes):
    model, batch = made(**changes), series(4, 72)[:, None]
    draw = lambda x, seed: model.loss(x, torch.Generator().manual_seed(seed))
    assert torch.equal(draw(batch, 0), draw(batch, 0)) and not torch.equal(draw(batch, 0), draw(batch, 1))
    for x in (torch.full((2, 1, 72), torch.nan), torch.cat([torch.ones(2, 1, 64), torch.full((2, 1, 8), 9.0)], dim=2)):
        assert draw(x, 0) == 0


@pytest.mark.parametrize("changes", [{}, OURS, {"asinh": True}, {"gaps": "mask"}, {"mean": False}, {"spread_horizon": None},
                                     {"scaling": "context"}, {"horizon": 16}, {"head_hidden": 40}, {"cuts": 1}, {"fed": 0}])  # fmt: skip
def test_every_option_trains_and_forecasts(changes):
    model = made(loud=False, **changes).train()
    batch = series(4, 64 + model.config.horizon)[:, None]
    loss = model.loss(batch, torch.Generator().manual_seed(0))
    loss.backward()
    assert loss.isfinite() and all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert (model.eval().predict_quantiles(batch, 30, LEVELS).diff(dim=-1) >= 0).all()


class Waves:
    """Sines of two periods with any phase: what comes next follows from what was."""

    def __call__(self, step):
        period, phase = torch.rand(2, 32, 1, 1, generator=torch.Generator().manual_seed(seed_for(0, step, "data"))).unbind()
        return torch.sin(6.283 * (torch.arange(72) / torch.where(period < 0.5, 8, 12) + phase))


@pytest.mark.parametrize("changes", [{}, OURS])
def test_a_tiny_model_learns_what_comes_next(changes):
    """Against the quantiles of the values themselves, which are the best that can be said without a context."""
    model, held_out = made(loud=False, **changes), Waves()(10**6)
    levels = torch.tensor(model.config.quantiles)
    run = fit(model, Waves(), recipe(steps=120, batch=32, warmup=5, ema=0.0, rate=5e-3, matrix_rate=1e-2), progress=False)
    target = held_out[:, 0, -8:]
    best = pinball(target.quantile(levels).expand(*target.shape, -1), target, levels)
    found = run.model.predict_quantiles(held_out[..., :-8], 8, levels.tolist())[:, 0]
    assert pinball(found, target, levels) < 0.6 * best


# ---- sizes


def test_the_published_size_is_the_200m_of_its_name():
    with torch.device("meta"):
        model = TimesFM(TimesFMConfig.published())
    assert round(sum(p.numel() for p in model.parameters()) / 1e8) == 2


def test_the_shipped_recipe_is_small_enough_and_its_matrices_go_to_muon():
    r = RECIPES["timesfm-nano"]
    model = checkpoints.build(r.model, r.config)
    muon, _ = split_parameters(model, r.matrices)
    assert len(muon) == 6 * model.config.layers
    assert sum(p.numel() for p in model.parameters()) * 2 <= 6e6 and model.config.head_width >= 16 and model.config.heads >= 8
    assert (r.context, r.horizon) == (model.config.context, model.config.horizon)


def test_configurations_that_cannot_be_are_refused():
    for changes in ({"context": 60}, {"horizon": 12}, {"heads": 3}, {"heads": 16}, {"quantiles": (0.5, 0.1)}, {"quantiles": ()},
                    {"fed": 10}, {"spread_horizon": 0}, {"gaps": "zero"}, {"scaling": "none"}, {"quirks": ("bug",)}):  # fmt: skip
        with pytest.raises(ValueError):
            replace(TimesFMConfig.tiny(), **changes)
