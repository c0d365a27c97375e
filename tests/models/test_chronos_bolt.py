"""What must hold of Chronos-Bolt whatever its weights are."""

from dataclasses import replace

import pytest
import torch

from tests.train.toys import recipe
from tsfm_lib import checkpoints
from tsfm_lib.models.chronos_bolt import ChronosBolt, ChronosBoltConfig
from tsfm_lib.nn.objectives import cut_rows
from tsfm_lib.train import fit
from tsfm_lib.train.state import seed_for

LEVELS = (0.1, 0.5, 0.9)


def made(seed=0, **changes):
    return checkpoints.build("chronos-bolt", replace(ChronosBoltConfig.tiny(), **changes), seed).eval()


def series(rows=3, steps=64, seed=0):
    return torch.randn(rows, steps, generator=torch.Generator().manual_seed(seed)).cumsum(1)


def test_forecasts_follow_scale_and_level():
    model, x = made(), series()
    a, b = (model.predict_quantiles(y[:, None], 20, LEVELS) for y in (x, 3 * x + 100))
    torch.testing.assert_close(b, 3 * a + 100, atol=2e-3, rtol=1e-4)


@torch.no_grad()
def test_a_missing_step_is_told_from_a_mean_one_and_padding_is_not_looked_at():
    model, x = made(), series()
    padded = torch.nn.functional.pad(x[:, 24:], (24, 0), value=torch.nan)
    x[:, 41] = torch.nan
    z, seen, _ = model.normalise(x)
    gap, mean = (model.embed_patches(z, mask)[0] for mask in (seen, torch.ones_like(seen)))
    assert not torch.isclose(gap[:, 5], mean[:, 5], atol=1e-3).all() and torch.equal(gap[:, :5], mean[:, :5])
    x[:, 41] = padded[:, 41]
    torch.testing.assert_close(model(padded), model(x[:, 24:]), atol=1e-4, rtol=1e-4)
    assert model.embed_patches(*model.normalise(padded)[:2])[1].tolist() == [[False] * 3 + [True] * 5] * 3


@torch.no_grad()
def test_only_the_last_steps_are_read_and_scaled():
    model, x = made(), series(3, 90)
    assert torch.equal(model(x), model(x[:, -64:]))


@torch.no_grad()
def test_a_constant_is_forecast_as_itself():
    model, x = made(), torch.full((1, 64), 7.0)
    torch.testing.assert_close(model(x), torch.full((1, 8, 9), 7.0, dtype=torch.float64), atol=1e-3, rtol=0)


@torch.no_grad()
def test_overlapping_patches_and_no_reg_token():
    z, seen, _ = made().normalise(series())
    assert made(stride=4).embed_patches(z, seen)[0].shape == (3, 15, 16)
    assert made().encode(z, seen).hidden.shape[1] == 9 and made(reg_token=False).encode(z, seen).hidden.shape[1] == 8


@torch.no_grad()
def test_the_decoders_self_attention_is_a_linear_map():
    """Its one token can look at nothing but itself: queries and keys do not matter."""
    model, x = made(), series()
    before = model(x)
    attention = model.decoder.layers[0].attend
    for linear in (attention.q, attention.k):
        linear.weight.mul_(-2)
    assert torch.equal(model(x), before)
    attention.v.weight.mul_(-2)
    assert not torch.allclose(model(x), before, atol=1e-3)


class Hesitant(ChronosBolt):
    """Forecasts the last value plus and minus a fixed doubt."""

    def forward(self, context):
        return context[:, -1, None, None].double() + torch.linspace(-1, 1, 9).expand(len(context), self.config.horizon, -1)


def test_doubt_is_kept_beyond_the_horizon_and_forgotten_under_the_quirk():
    x = torch.zeros(1, 1, 64)
    width = lambda *quirks: Hesitant(replace(ChronosBoltConfig.tiny(), quirks=quirks)).predict_quantiles(x, 40, LEVELS)[0, 0, ::8]
    grows, early = (w[:, 2] - w[:, 0] for w in (width(), width("median_roll_out")))
    assert (grows[1:] > 1.2 * grows[0]).all()
    torch.testing.assert_close(early, torch.full_like(early, 2.0))
    assert grows[0] == early[0]


@torch.no_grad()
def test_the_first_horizon_is_one_pass_and_the_next_one_pass_of_all_quantiles():
    model, rows = made(), []
    handle = model.encoder.register_forward_hook(lambda module, inputs, out: rows.append(len(out)))
    first, second = (model.predict_quantiles(series()[:, None], h, LEVELS) for h in (8, 16))
    handle.remove()
    assert rows == [3, 3, 27] and torch.equal(first, second[:, :, :8])


def test_quantiles_cross_only_under_the_quirk():
    levels = ChronosBoltConfig().quantiles
    crossing, sorted_ = (made(quirks=q).predict_quantiles(series()[:, None], 8, levels) for q in (("crossing_quantiles",), ()))
    assert (crossing.diff(dim=-1) < 0).any()
    assert torch.equal(crossing.sort(-1).values, sorted_)


# ---- training


@torch.no_grad()
def test_the_loss_is_the_quantile_loss_of_what_is_there():
    model, x = made(), series(4, 72)
    x[0, -3:] = torch.nan
    x[1, :64] = torch.nan  # no units
    x[2, -1] = 1e6
    total = 0.0
    for i in (0, 2, 3):
        mean, std = x[i, :64].mean(), x[i, :64].std(correction=0)
        forecast = model.read_out(model.decode(model.encode(*model.normalise(x[i : i + 1, :64])[:2])))[0]
        for t in range(5 if i == 0 else 8):
            e = ((x[i, 64 + t] - mean) / std).clamp(-12, 12) - forecast[t]
            q = torch.tensor(model.config.quantiles)
            total += (2 * (e * q).maximum(e * (q - 1))).mean().item()
    assert model.loss(x[:, None]).item() == pytest.approx(total / 3 / 8, rel=1e-4)
    assert model.loss(torch.full((2, 1, 72), torch.nan)).item() == 0


@pytest.mark.parametrize("changes", [{"cuts": 3}, {"asinh": True}, {"stride": 4}, {"reg_token": False}, {"scaled_scores": True},
                                     {"gated": True, "activation": "gelu_tanh"}, {"dropout": 0.1}])  # fmt: skip
def test_every_option_trains_and_forecasts(changes):
    model, batch = made(**changes).train(), series(4, 72)[:, None]
    with torch.random.fork_rng():
        loss = model.loss(batch, torch.Generator().manual_seed(0))
    loss.backward()
    assert loss.isfinite() and all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert (model.eval().predict_quantiles(batch, 30, LEVELS).diff(dim=-1) >= 0).all()


def test_cuts_are_earlier_ends_of_the_same_series():
    """Twenty steps behind ten missing ones: a context, of multiples of five steps, and the four steps behind it."""
    rows = torch.cat([torch.full((40, 10), torch.nan), torch.arange(20.0).expand(40, -1)], dim=1)
    found, weights = cut_rows(rows, 4, 3, 5, torch.Generator().manual_seed(0))
    lasts = found[:, -1].reshape(40, 3)
    assert torch.equal(found[::3].nan_to_num(-1), rows.nan_to_num(-1)) and (weights == 1).all()
    assert set(lasts.flatten().tolist()) == {19.0, 14.0, 9.0, 4.0}  # behind the last 0 alone is context
    assert all(len(set(row)) == 3 for row in lasts.tolist())
    for row in found:
        assert torch.equal(row[row.isfinite()], torch.arange(row[-1] + 1)) and row[:-4].isfinite().any()
    few, weights = cut_rows(rows[:1, :15], 4, 3, 5, torch.Generator().manual_seed(0))
    assert weights.tolist() == [1, 0, 0] and torch.equal(few.nan_to_num(-1), rows[:1, :15].expand(3, -1).nan_to_num(-1))


def test_scaled_scores_are_the_same_functions():
    model, other = made(), made(scaled_scores=True)
    up = lambda name: model.config.head_width**0.5 if name.endswith(".q.weight") else 1
    other.load_state_dict({name: tensor * up(name) for name, tensor in model.state_dict().items()})
    with torch.no_grad():
        torch.testing.assert_close(other(series()), model(series()), atol=1e-4, rtol=1e-5)


class Waves:
    """Sines of two periods with any phase: what comes next follows from what was."""

    def __call__(self, step):
        period, phase = torch.rand(2, 32, 1, 1, generator=torch.Generator().manual_seed(seed_for(0, step, "data"))).unbind()
        return torch.sin(6.283 * (torch.arange(72) / torch.where(period < 0.5, 8, 12) + phase))


def test_a_tiny_model_learns_what_comes_next():
    """Against the quantiles of the values themselves, which are the best that can be said without a context."""
    model, held_out = made(), Waves()(10**6)
    run = fit(model, Waves(), recipe(steps=150, batch=32, warmup=5, ema=0.0, rate=5e-3, matrix_rate=1e-2), progress=False)
    target = model.normalise(held_out[:, 0, :-8])[2].apply(held_out[:, 0, -8:])
    best = target.quantile(torch.tensor(model.config.quantiles)).expand(*target.shape, -1)
    with torch.no_grad():
        assert run.model.loss(held_out).item() < 0.7 * model.row_loss(best, target).mean().item() / 8


def test_published_sizes_have_the_published_parameter_counts():
    for size, millions in (("tiny", 9), ("mini", 21), ("small", 48), ("base", 205)):
        with torch.device("meta"):
            count = sum(p.numel() for p in ChronosBolt(ChronosBoltConfig.published(size)).parameters())
        assert round(count / 1e6) == millions


def test_configurations_that_cannot_be_are_refused():
    for changes in ({"context": 60}, {"stride": 3}, {"buckets": 6}, {"decoder_layers": 0}, {"quirks": ("bug",)}):
        with pytest.raises(ValueError):
            replace(ChronosBoltConfig.tiny(), **changes)
