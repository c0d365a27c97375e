"""What must hold of MOMENT whatever its weights are."""

from dataclasses import replace

import pytest
import torch

from tests.train.toys import recipe
from tsfm_lib import checkpoints
from tsfm_lib.errors import TsfmError
from tsfm_lib.models.moment import Moment, MomentConfig
from tsfm_lib.nn.lora import LoRA
from tsfm_lib.nn.patching import patch
from tsfm_lib.train import fit
from tsfm_lib.train.state import seed_for


def made(seed=0, **changes):
    model = checkpoints.build("moment", replace(MomentConfig.tiny(), **changes), seed).eval()
    torch.nn.init.normal_(model.mask_token, generator=torch.Generator().manual_seed(seed))  # zero before any training
    return model


def series(samples=3, variates=1, steps=64, seed=0):
    return torch.randn(samples, variates, steps, generator=torch.Generator().manual_seed(seed)).cumsum(-1)


def some(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.4


def raw_forecast(model, rows, horizon=16, head=None, deltas=None, adapt=None):
    """A forecast put together from the parts that fine-tuning uses."""
    z, seen, statistics = model.normalise(rows)
    tokens = model.embed_tokens(z, seen, 0 if head else horizon, adapt=adapt)
    h = tokens.h
    for i, layer in enumerate(model.layers):
        h = layer(h, tokens.aux, deltas[i] if deltas else None)
    return model.forecast(model.project(h, tokens, horizon, head), statistics)


@torch.no_grad()
def test_what_is_hidden_never_reaches_the_reconstruction():
    model, x, hidden = made(), series(variates=2), some(3, 2, 8)
    steps = hidden.repeat_interleave(8, dim=-1)
    other = torch.where(steps, 1e3 * series(variates=2, seed=1), x)
    assert torch.equal(model(x, hidden), model(other, hidden))
    assert not torch.allclose(model(x), model(other), atol=1e-2)


@torch.no_grad()
def test_hidden_patches_know_where_they_are():
    model, hidden = made(), torch.ones(1, 1, 8, dtype=torch.bool)
    hidden[..., 0] = False
    patches = patch(model(series(1), hidden)[0, 0], 8)[1:]
    assert torch.pdist(patches).min() > 1e-3


@torch.no_grad()
def test_statistics_are_handed_out_and_nothing_stays_on_the_model():
    model, x = made(), series()
    before = {name: value for name, value in vars(model).items() if not name.startswith("_")}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    _, _, first = model.normalise(x[:, 0])
    kept = first.loc.clone()
    model.normalise(100 * x[:, 0] + 5)
    alone = model(x)
    model(x[..., :32])
    assert torch.equal(first.loc, kept) and torch.equal(model(x), alone)
    assert {name: value for name, value in vars(model).items() if not name.startswith("_")} == before
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@torch.no_grad()
def test_everything_follows_scale_and_level():
    model, x, hidden = made(), series(variates=2), some(3, 2, 8)
    torch.testing.assert_close(model(3 * x + 100, hidden), 3 * model(x, hidden) + 100, atol=2e-3, rtol=1e-4)
    levels = (0.5,)
    moved = model.predict_quantiles(3 * x + 100, 30, levels)
    torch.testing.assert_close(moved, 3 * model.predict_quantiles(x, 30, levels) + 100, atol=5e-3, rtol=1e-4)
    torch.testing.assert_close(model.embed(3 * x + 100), model.embed(x), atol=1e-3, rtol=1e-3)


def test_small_changes_on_a_high_level_survive():
    x, error = torch.round(series()[:, 0] * 64) / 64, {}  # exact in float32 at both levels
    for quirks in ((), ("float32_statistics",)):
        model = made(quirks=quirks)
        error[quirks] = (model.normalise(x + 2**17)[0] - model.normalise(x)[0]).abs().max().item()
    assert error[()] < 1e-6 and error[("float32_statistics",)] > 1e-5


@torch.no_grad()
def test_a_constant_is_forecast_as_itself():
    forecast = made().predict_quantiles(torch.full((1, 1, 64), 4.2), 40, [0.5])
    torch.testing.assert_close(forecast, torch.full_like(forecast, 4.2), atol=1e-3, rtol=0)


@torch.no_grad()
def test_short_series_are_filled_in_front_and_long_ones_cut():
    model, x = made(), series(steps=100)
    short = torch.nn.functional.pad(x[..., -37:], (27, 0), value=torch.nan)
    assert torch.equal(model.embed(x[..., -37:]), model.embed(short))
    assert torch.equal(model.predict_quantiles(x, 9, [0.5]), model.predict_quantiles(x[..., -64:], 9, [0.5]))


@torch.no_grad()
def test_missing_variates_do_not_count_in_the_embedding():
    model, x = made(), series()
    torch.testing.assert_close(model.embed(torch.cat([x, torch.full_like(x, torch.nan)], dim=1)), model.embed(x))


@torch.no_grad()
def test_a_model_of_whole_patches_is_blind_to_a_series_with_a_gap_in_each():
    x = series()
    x[..., ::8] = torch.nan
    blind, clean = made(quirks=("whole_patches",)).embed(x), made().embed(x)
    assert torch.equal(blind, torch.zeros_like(blind))
    assert torch.pdist(clean).min() > 1e-3


def test_only_the_quirk_reads_what_stands_in_the_padding():
    x, mask = series(), torch.ones(3, 1, 64, dtype=torch.bool)
    mask[..., :16] = False
    other = torch.where(mask, x, 7.0)
    with torch.no_grad():
        for quirks in ((), ("padding_is_read",)):
            model = made(quirks=quirks)
            a, b = model(x, mask=mask), model(other, mask=mask)
            torch.testing.assert_close(a[..., 16:], b[..., 16:])  # nobody looks there
            assert torch.equal(a[..., :16], b[..., :16]) == (not quirks)


# ---- forecasting


@torch.no_grad()
def test_far_horizons_are_rolled_out_in_pieces_no_longer_than_what_training_hid():
    model, x = made(), series()  # 30 % of 8 patches: 2 patches of 8 steps
    forecast, context = model.predict_quantiles(x, 40, [0.5])[..., 0], x
    for start in range(0, 40, 16):
        step = min(16, 40 - start)
        by_hand = raw_forecast(model, context[:, 0, -64:], step)
        torch.testing.assert_close(forecast[:, 0, start : start + step], by_hand)
        context = torch.cat([context, by_hand[:, None]], dim=-1)


@torch.no_grad()
def test_the_forecast_by_masks_is_the_reconstruction_of_hidden_patches_ahead():
    """Same tokens, but for the statistics, which the oldest patches still belong to."""
    model, x = made(), series()
    rows, hidden = x[:, 0], torch.zeros(3, 8, dtype=torch.bool)
    z, seen, statistics = model.normalise(rows)
    hidden[:, -2:] = True
    ahead = torch.cat([z[:, 16:], torch.zeros(3, 16)], dim=1)
    tokens = model.embed_tokens(ahead, torch.ones_like(seen), hidden=hidden)
    by_hand = model.forecast(model.project(model.encode(tokens), tokens), statistics)[:, -16:]
    torch.testing.assert_close(model.predict_quantiles(x, 16, [0.5])[:, 0, :, 0], by_hand)


def test_a_forecasting_head_is_used_learnt_and_saved(tmp_path):
    model, x = made(), series()
    by_masks = model.predict_quantiles(x, 12, [0.1, 0.5])
    model.add_head(12, generator=torch.Generator().manual_seed(1))
    model.add_head(30, generator=torch.Generator().manual_seed(2))
    by_head = model.predict_quantiles(x, 12, [0.1, 0.5])
    assert not torch.allclose(by_masks, by_head, atol=1e-2) and torch.equal(by_head[..., 0], by_head[..., 1])
    torch.testing.assert_close(by_head[:, 0, :, 0], raw_forecast(model, x[:, 0], 12, model.forecasts["8x12"]).detach())
    torch.testing.assert_close(model.predict_quantiles(x, 9, [0.5]), by_head[..., :9, :1])  # the shortest that reaches
    far, near = (model.predict_quantiles(x, steps, [0.5]) for steps in (70, 30))
    assert torch.equal(far[:, :, :30], near)  # the longest, again and again
    back = checkpoints.load(checkpoints.save(model, tmp_path / "m"))
    assert back.config.forecasts == ((8, 12), (8, 30)) and torch.equal(back.predict_quantiles(x, 12, [0.1, 0.5]), by_head)
    raw_forecast(model, x[:, 0], 12, model.forecasts["8x12"]).sum().backward()
    assert model.forecasts["8x12"].weight.grad.abs().min() > 0 and model.head.weight.grad is None
    with pytest.raises(TsfmError, match="expected a new pair"):
        model.add_head(12)


def test_without_a_reconstruction_head_only_forecasting_heads_forecast():
    model, x = made(reconstruction=False, forecasts=((8, 10),)), series()
    assert model.predict_quantiles(x, 25, [0.5]).shape == (3, 1, 25, 1)
    with pytest.raises(TsfmError, match="no reconstruction head"):
        model(x)


def test_dropout_zeroes_steps_of_a_forecast_only_under_the_quirk():
    for quirks in ((), ("drops_forecast_steps",)):
        model, x = made(forecasts=((8, 12),), dropout=0.5, quirks=quirks).train(), series()
        statistics = model.normalise(x[:, 0])[2]
        with torch.random.fork_rng():
            forecast = raw_forecast(model, x[:, 0], 12, model.forecasts["8x12"])
        assert (statistics.apply(forecast).abs() < 1e-6).any() == bool(quirks)


def test_contexts_that_cannot_be_read_are_refused():
    model, rows = made(), series(steps=256)[:, 0]
    for too_long, horizon in ((rows, 0), (rows[:, :16], 16)):
        z, seen, _ = model.normalise(too_long)
        with pytest.raises(TsfmError, match="do not fit"):
            model.embed_tokens(z, seen, horizon)


# ---- fine-tuning across scales


def test_low_rank_pairs_are_arguments_and_equal_changed_weights():
    model, rows = made(), series()[:, 0]
    lora = LoRA.of(model, ("q", "k", "v", "out", "up", "gate", "down"), rank=2, generator=torch.Generator().manual_seed(0))
    deltas = lambda: [lora.delta(f"layers.{i}.attention") | lora.delta(f"layers.{i}.mlp") for i in range(2)]
    plain = raw_forecast(model, rows)
    assert torch.equal(raw_forecast(model, rows, deltas=deltas()), plain)
    for b in lora.b:
        torch.nn.init.normal_(b, std=0.3, generator=torch.Generator().manual_seed(1))
    changed = raw_forecast(model, rows, deltas=deltas())
    assert torch.equal(raw_forecast(model, rows), plain)  # the model itself is as it was
    merged = made()
    with torch.no_grad():
        for i in range(2):
            for part, names in (("attention", ("q", "k", "v", "out")), ("mlp", ("up", "gate", "down"))):
                for name in names:
                    a, b = lora.delta(f"layers.{i}.{part}")[name]
                    merged.get_submodule(f"layers.{i}.{part}.{name}").weight += b @ a
    torch.testing.assert_close(changed, raw_forecast(merged, rows), atol=1e-4, rtol=1e-4)


def test_scales_of_one_series_share_a_graph_and_nothing_else():
    """Three lengths with pairs and heads of their own in one backward pass: each scale gets its gradient, alone or together."""
    model, rows, scales = made().requires_grad_(False), series()[:, 0], (64, 32, 16)
    loras = [LoRA.of(model, ("q", "k", "v"), rank=2, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    heads = [model.add_head(length // 4, length, torch.Generator().manual_seed(length)) for length in scales]

    def loss(i):
        x = rows.unflatten(-1, (scales[i], -1)).mean(-1)
        deltas = [loras[i].delta(f"layers.{j}.attention") for j in range(2)]
        return raw_forecast(model, x, scales[i] // 4, heads[i], deltas).square().sum()

    def gradients():
        found = [[p.grad.clone() for p in lora.b] for lora in loras]
        for lora in loras:
            lora.zero_grad()
        return found

    sum(loss(i) for i in range(3)).backward()
    together = gradients()
    for i in range(3):
        loss(i).backward()
    assert all(g.abs().max() > 0 for scale in together for g in scale)
    for a, b in zip(together, gradients()):
        for g, h in zip(a, b):
            torch.testing.assert_close(g, h)


def test_an_adapter_acts_on_values_and_never_on_mask_tokens():
    model, rows = made(), series()[:, 0]
    torch.testing.assert_close(raw_forecast(model, rows, adapt=lambda h: h), raw_forecast(model, rows))
    z, seen, _ = model.normalise(rows)
    plain, adapted = (model.embed_tokens(z, seen, 16, adapt=f).h for f in (None, lambda h: 5 * h))
    assert torch.equal(plain[:, 6:], adapted[:, 6:]) and not torch.isclose(plain[:, :6], adapted[:, :6]).all()
    torch.testing.assert_close(adapted[:, :6] - model.positions[:6], 5 * (plain[:, :6] - model.positions[:6]), atol=1e-5, rtol=1e-5)


# ---- training


def test_the_loss_is_the_error_of_hidden_steps_in_units_of_what_is_visible():
    model, x = made(), series(4)
    x[0, 0, 30:35] = torch.nan
    with torch.no_grad():
        given = model.loss(x, torch.Generator().manual_seed(3)).item()
        hidden = torch.rand(4, 8, generator=torch.Generator().manual_seed(3)).argsort(1).argsort(1) < 2  # round(0.3 * 8) of each row
        steps, errors = hidden.repeat_interleave(8, dim=1), []
        out = model(x, hidden[:, None])[:, 0]
        for row in range(4):
            visible = x[row, 0][~steps[row] & x[row, 0].isfinite()]
            unit = visible.std(correction=0) + 1e-5
            wanted = steps[row] & x[row, 0].isfinite()
            target = ((x[row, 0, wanted] - visible.mean()) / unit).clamp(-12, 12)
            errors += ((out[row, wanted] - visible.mean()) / unit - target).square().tolist()
    assert given == pytest.approx(sum(errors) / len(errors), rel=1e-3)


def test_loud_series_own_the_loss_only_in_original_units():
    x = series(8)
    loss = lambda model, x: model.loss(x, torch.Generator().manual_seed(0)).item()
    with torch.no_grad():
        assert loss(made(), 100 * x) == pytest.approx(loss(made(), x), rel=1e-3)
        assert loss(made(loss_in="original"), 100 * x) == pytest.approx(1e4 * loss(made(loss_in="original"), x), rel=1e-3)


def test_series_of_which_nothing_is_left_to_see_teach_nothing():
    model = made()
    x = torch.full((2, 1, 64), torch.nan)
    x[0, 0, :8] = 1e6 * torch.arange(8)  # one patch, and it is the one to be hidden
    assert model.loss(x, torch.Generator().manual_seed(0)).item() == 0


class Waves:
    """Sines whose hidden parts follow from the visible ones."""

    def __call__(self, step):
        period, phase = torch.rand(2, 32, 1, 1, generator=torch.Generator().manual_seed(seed_for(0, step, "data"))).unbind()
        return torch.sin(6.283 * (torch.arange(64) / (16 + 16 * period) + phase))


def test_a_tiny_model_learns_to_fill_in_what_is_hidden():
    """The mean of the visible part has an error near 1: the model must do much better on waves it never saw."""
    model, held_out = made(), Waves()(10**6)
    run = fit(model, Waves(), recipe(steps=150, batch=32, warmup=5, ema=0.0, rate=5e-3, matrix_rate=1e-2), progress=False)
    rows = held_out[:, 0]
    with torch.no_grad():
        learnt = run.model.loss(held_out, torch.Generator().manual_seed(9)).item()
        hidden = torch.zeros(32, 8, dtype=torch.bool)
        hidden[:, 3:5] = True
        statistics = run.model.reconstruct(rows, hidden)[1]
        mean = run.model.masked_error(rows, torch.zeros_like(rows), statistics, hidden).item()
    assert mean > 0.8 and learnt < 0.5 * mean


def test_published_sizes_have_the_published_parameter_counts():
    """flan-T5's encoder without its token embedding (32,128 rows that MOMENT never uses), patches in and out, mask token."""
    with torch.device("meta"):
        count = sum(p.numel() for p in Moment(MomentConfig.small()).parameters())
        assert count == 18_891_976 and f"{(count + 32_128 * 512) / 1e6:.1f}" == "35.3"
        for config in (MomentConfig.base(), MomentConfig.large()):
            c = config
            layer = 4 * c.width * c.heads * c.head_width + 3 * c.width * c.hidden + 2 * c.width
            outside = 2 * c.patch * c.width + c.patch + 2 * c.width + c.buckets * c.heads
            assert sum(p.numel() for p in Moment(c).parameters()) == c.layers * layer + outside


def test_configurations_that_cannot_be_are_refused():
    for changes in ({"context": 60}, {"positions": 4}, {"mask_ratio": 1.0}, {"loss_in": "units"}, {"quirks": ("bug",)}):
        with pytest.raises(ValueError):
            replace(MomentConfig.tiny(), **changes)
