"""What must hold of Moirai whatever its weights are."""

from dataclasses import replace

import pytest
import torch

from tests.train.toys import recipe
from tsfm_lib import checkpoints
from tsfm_lib.errors import TsfmError
from tsfm_lib.models.moirai import Moirai, MoiraiConfig, join, pack
from tsfm_lib.nn.lora import LoRA
from tsfm_lib.nn.outputs import pinball
from tsfm_lib.nn.scaling import standardise
from tsfm_lib.nn.tokens import deltas
from tsfm_lib.train import fit
from tsfm_lib.train.state import seed_for

LEVELS = [0.1, 0.5, 0.9]


def made(seed=0, **changes):
    """Random weights that make every part felt: the biases of the variates start at zero."""
    model = checkpoints.build("moirai", replace(MoiraiConfig.tiny(), **changes), seed).eval()
    g = torch.Generator().manual_seed(seed)
    for layer in model.layers:
        torch.nn.init.normal_(layer.bias, generator=g)
    return model


def series(samples=3, variates=2, steps=64, seed=0):
    return torch.randn(samples, variates, steps, generator=torch.Generator().manual_seed(seed)).cumsum(-1)


def mean_forecast(model, x, horizon=16, size=8, pairs=None, adapt=None):
    """A forecast put together from the parts that fine-tuning uses."""
    z, seen, statistics = model.normalise(x)
    tokens = model.embed_tokens(z, seen, horizon, size=size, adapt=adapt)
    h = tokens.h
    for i, layer in enumerate(model.layers):
        h = layer(h, tokens.aux, pairs[i] if pairs else None)
    return model.forecast(model.project(h, tokens, horizon), statistics).mean()


def by_packed_row(model, packed, horizon):
    """Means of the horizon of the last sample's variates, read off a packed row."""
    mean = model(packed).mean()[packed.horizon & (packed.sample == packed.sample.max())]
    steps = int(packed.size[packed.sample == packed.sample.max()][0])
    return mean[:, :steps].reshape(int(packed.variate[packed.sample == packed.sample.max()].max()) + 1, -1)[:, :horizon]


# ---- packed rows and windows


@torch.no_grad()
def test_windows_packed_rows_and_neighbours_in_a_row_give_the_same_numbers():
    """A block mask over one long row equals a list of sequences: this is what lets scales be a list."""
    model, x = made(), series()
    x[0, 0, 10:23] = torch.nan
    x[1, :, :19] = torch.nan
    first, future = series(1, 1, 40, seed=5), torch.full((1, 2, 13), torch.nan)
    for size in model.config.patch_sizes:
        windows = mean_forecast(model, x, 13, size)
        for row in range(3):
            alone = pack(x[row : row + 1], future, size, 16)
            joined = join(pack(first, future[:, :1], 4, 16), pack(series(1, 2, 30, seed=6), future, 16, 16), alone)
            assert joined.sample.max() == 3
            for packed in (alone, joined):
                torch.testing.assert_close(by_packed_row(model, packed, 13).to(windows), windows[row], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_statistics_of_packed_rows_are_those_of_each_series_alone():
    model, x, y = made(), series(1), 1e6 + series(1, 3, seed=1)
    x[..., 5:30] = torch.nan
    packed = join(pack(x, x[..., :8], 8, 16), pack(y, y[..., :20], 16, 16))
    found = model.normalise_packed(packed)[1]
    for sample, source in ((1, x), (2, y)):
        for variate in range(source.shape[1]):
            own = (packed.sample == sample) & (packed.variate == variate)
            expected = standardise(source[0, variate], ddof=1)[1]
            assert found.loc[own].unique().tolist() == [pytest.approx(expected.loc.item(), rel=1e-12)]
            assert found.scale[own].unique().tolist() == [pytest.approx(expected.scale.item(), rel=1e-9)]


@torch.no_grad()
def test_what_stands_in_the_horizon_and_in_other_samples_is_never_read():
    model, x = made(), series(1)
    rows = [join(pack(other, ahead, 8, 16), pack(x, ahead, 8, 16))
            for other, ahead in ((series(1, seed=1), series(1, 2, 16, 2)), (series(1, seed=3), 1e3 * series(1, 2, 16, 4)))]  # fmt: skip
    a, b = (by_packed_row(model, row, 16) for row in rows)
    assert torch.equal(a, b)


@torch.no_grad()
def test_time_has_no_origin_and_patches_before_the_first_observation_do_not_exist():
    model, x = made(), series()
    later = torch.nn.functional.pad(x, (48, 0), value=torch.nan)
    torch.testing.assert_close(mean_forecast(model, later), mean_forecast(model, x), atol=1e-4, rtol=1e-4)
    assert torch.equal(model.predict_quantiles(later, 5, LEVELS), model.predict_quantiles(x, 5, LEVELS))  # cut to the context


# ---- values


@torch.no_grad()
def test_everything_follows_scale_and_level_unless_the_variance_has_a_floor():
    x, small = series(), 1e-4
    for quirks in ((), ("variance_floor",)):
        model = made(quirks=quirks)
        follows = torch.allclose(mean_forecast(model, small * x) / small, mean_forecast(model, x), atol=1e-3, rtol=1e-3)
        assert follows == (not quirks)
    model = made()
    torch.testing.assert_close(mean_forecast(model, 3 * x + 100), 3 * mean_forecast(model, x) + 100, atol=2e-3, rtol=1e-4)


@torch.no_grad()
def test_gaps_are_the_mean_and_the_value_zero_only_under_the_quirk():
    x = series()
    x[..., 20:27] = torch.nan
    x[..., 40:48] = torch.nan  # a whole patch
    shifts = {quirks: mean_forecast(made(quirks=quirks), x + 50) - 50 - mean_forecast(made(quirks=quirks), x)
              for quirks in ((), ("missing_is_zero",))}  # fmt: skip
    assert shifts[()].abs().max() < 1e-3 < 1e-2 < shifts[("missing_is_zero",)].abs().max()


@torch.no_grad()
def test_a_constant_is_forecast_as_itself():
    found = made().predict_quantiles(torch.full((1, 1, 64), 4.2), 20, LEVELS)
    torch.testing.assert_close(found, torch.full_like(found, 4.2), atol=2e-3, rtol=0)


@torch.no_grad()
def test_quantiles_are_those_of_the_distribution():
    model, x = made(), series(1)
    draws = model.distribution(x, 9).sample(20_000, torch.Generator().manual_seed(0))  # n B V h
    quantiles, levels = model.predict_quantiles(x, 9, LEVELS), torch.tensor(LEVELS)
    share = lambda of: (draws[..., None] <= of).float().mean(0)
    assert (share(quantiles + 1e-3) > levels - 0.02).all() and (share(quantiles - 1e-3) < levels + 0.02).all()  # counts jump over levels


# ---- attention over variates


@torch.no_grad()
def test_variates_hear_each_other_and_the_biases_tell_own_from_other():
    model, x = made(), series()
    together, alone = (mean_forecast(model, v) for v in (x, x[:, :1]))
    assert not torch.allclose(together[:, :1], alone, atol=1e-2)
    for layer in model.layers:
        layer.bias[0] = -1e4
    torch.testing.assert_close(mean_forecast(model, x)[:, :1], alone, atol=1e-4, rtol=1e-4)


# ---- fine-tuning across scales


def test_low_rank_pairs_are_arguments_and_equal_changed_weights():
    model, x = made(), series()
    lora = LoRA.of(model, ("q", "k", "v", "out", "up", "gate", "down"), rank=2, generator=torch.Generator().manual_seed(0))
    plain = mean_forecast(model, x)
    assert torch.equal(mean_forecast(model, x, pairs=deltas(lora, 2)), plain)
    for b in lora.b:
        torch.nn.init.normal_(b, std=0.3, generator=torch.Generator().manual_seed(1))
    changed = mean_forecast(model, x, pairs=deltas(lora, 2))
    assert torch.equal(mean_forecast(model, x), plain) and not torch.allclose(changed, plain, atol=1e-2)
    merged = made()
    with torch.no_grad():
        for name, a, b in zip(lora.names, lora.a, lora.b):
            merged.get_submodule(name).weight += b @ a
    torch.testing.assert_close(changed, mean_forecast(merged, x), atol=1e-3, rtol=1e-3)


def test_scales_of_one_series_share_a_graph_and_nothing_else():
    model, x = made().requires_grad_(False), series()
    loras = [LoRA.of(model, ("q", "k", "v"), rank=2, generator=torch.Generator().manual_seed(i)) for i in range(3)]

    def loss(i):
        return mean_forecast(model, x.unflatten(-1, (-1, 2**i)).mean(-1), 24 // 2**i, 8, deltas(loras[i], 2)).square().mean()

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
        torch.testing.assert_close(a, b)


def test_an_adapter_acts_on_values_and_never_on_mask_tokens():
    model, x = made(), series()
    z, seen, _ = model.normalise(x)
    plain, adapted = (model.embed_tokens(z, seen, 16, adapt=f) for f in (None, lambda h: 5 * h))
    assert (plain.context, plain.horizon, plain.prefix) == (8, 2, 0) and plain.h.shape == (6, 10, 32)
    assert torch.equal(plain.h[:, 8:], adapted.h[:, 8:]) and torch.equal(5 * plain.h[:, :8], adapted.h[:, :8])


def test_rows_and_samples_of_one_variate_are_the_same():
    model, x = made(), series(3, 1)
    torch.testing.assert_close(mean_forecast(model, x[:, 0]), mean_forecast(model, x)[:, 0])


# ---- training


@torch.no_grad()
def test_the_loss_is_the_authors_packed_loss():
    """In their units and where every series counts: the mean over series of the mean over hidden steps."""
    x, share = series(4, 2, 60), torch.tensor([0.15, 0.27, 0.4, 0.5])
    x[1, 0, 3:17] = torch.nan
    x[2, :, -4:] = torch.nan
    model = made(loss_in="original")
    for size in model.config.patch_sizes:
        losses, taught = model.row_losses(x, share, size)
        n = -(-60 // size)
        ends = [60 - size * max(1, round(s.item() * n)) for s in share]
        assert taught.all()
        for row, end in enumerate(ends):
            packed = pack(x[row : row + 1, :, :end], x[row : row + 1, :, end:], size, 16)
            assert losses[row].mean().item() == pytest.approx(model.packed_loss(packed).item(), rel=1e-4, abs=1e-4)


@torch.no_grad()
def test_units_do_not_move_the_loss_unless_it_is_taken_in_them():
    x = series(8)
    loss = lambda model, x: model.loss(x, torch.Generator().manual_seed(0)).item()
    assert loss(made(), 100 * x) == pytest.approx(loss(made(), x), abs=1e-3)
    moved = loss(made(loss_in="original"), 100 * x) - loss(made(loss_in="original"), x)
    assert moved == pytest.approx(torch.tensor(100.0).log().item(), abs=1e-3)


def test_what_has_nothing_to_see_or_to_hit_teaches_nothing():
    model, x = made(), series(3, 1, 16)
    x[0], x[1, :, 4:], x[2, :, :12] = 7.0, torch.nan, torch.nan
    assert not model.row_losses(x, torch.full((3,), 0.5), 4)[1].any()
    assert model.loss(x[:1], torch.Generator().manual_seed(0)).item() == 0


def test_every_patch_size_that_fits_twice_is_drawn():
    model, x = made().train(), series(32, 1, 24)
    drawn = []
    model.row_losses, keep = (lambda x, share, size: drawn.append((size, share)) or keep(x, share, size)), model.row_losses
    model.loss(x, torch.Generator().manual_seed(0)).backward()
    assert sorted(size for size, _ in drawn) == [4, 8]
    shares = torch.cat([share for _, share in drawn])
    assert len(shares) == 32 and 0.15 <= shares.min() < 0.2 and 0.45 < shares.max() <= 0.5
    assert model.values.weight.grad[0].abs().max() > 0 and model.values.weight.grad[2].abs().max() == 0


class Waves:
    """Sines whose ends follow from their beginnings."""

    def __call__(self, step):
        phase = torch.rand(24, 1, 1, generator=torch.Generator().manual_seed(seed_for(0, step, "data")))
        return torch.sin(6.2832 * (torch.arange(64) / 8 + phase))


def test_a_tiny_model_learns_to_forecast():
    """Against quantiles of the context on waves it never saw."""
    model = made(patch_sizes=(4, 8), mask_ratio=(0.15, 0.3))
    run = fit(model, Waves(), recipe(steps=80, batch=24, warmup=5, ema=0.0, rate=5e-3, matrix_rate=1e-2), progress=False)
    x = Waves()(10**6)
    context, future = x[..., :52], x[..., 52:]
    learnt = pinball(run.model.predict_quantiles(context, 12, LEVELS), future, LEVELS)
    flat = pinball(context.quantile(torch.tensor(LEVELS), dim=-1).movedim(0, -1)[..., None, :].expand(*future.shape, 3), future, LEVELS)
    assert learnt < 0.5 * flat


# ---- sizes


def test_published_sizes_have_the_published_parameter_counts():
    with torch.device("meta"):
        sizes = (MoiraiConfig.small, MoiraiConfig.base, MoiraiConfig.large)
        counts = [sum(p.numel() for p in Moirai(config()).parameters()) for config in sizes]
    assert counts[0] == 13_827_528 and [round(count / 1e6) for count in counts[1:]] == [91, 311]


def test_configurations_and_patches_that_cannot_be_are_refused():
    for changes in ({"head_width": 12}, {"width": 30, "head_width": 6}, {"patch_sizes": (8, 4)}, {"patch": 5}, {"mask_ratio": (0.5, 0.2)},
                    {"loss_in": "units"}, {"quirks": ("bug",)}):  # fmt: skip
        with pytest.raises(ValueError):
            replace(MoiraiConfig.tiny(), **changes)
    with pytest.raises(TsfmError, match="patches of 4, 8, 16 steps, got 32"):
        made().predict_quantiles(series(), 5, LEVELS, size=32)
