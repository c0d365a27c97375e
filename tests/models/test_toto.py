"""What must hold of Toto whatever its weights are."""

from dataclasses import replace

import pytest
import torch

from tests.train.toys import recipe
from tsfm_lib import checkpoints
from tsfm_lib.models import toto
from tsfm_lib.models.toto import Toto, TotoConfig
from tsfm_lib.nn.lora import LoRA
from tsfm_lib.nn.outputs import Mixture, pinball
from tsfm_lib.nn.patching import patch
from tsfm_lib.nn.tokens import deltas
from tsfm_lib.train import fit
from tsfm_lib.train.state import seed_for

LEVELS = [0.1, 0.5, 0.9]


def made(seed=0, **changes):
    return checkpoints.build("toto", replace(TotoConfig.tiny(), **changes), seed).eval()


def series(samples=3, variates=2, steps=64, seed=0):
    return torch.randn(samples, variates, steps, generator=torch.Generator().manual_seed(seed)).cumsum(-1)


# ---- values


@torch.no_grad()
def test_each_patch_is_scaled_by_what_was_seen_up_to_its_end():
    model, x = made(), 5 + series()
    x[0, 0, 3:6], x[1, 0, :19] = torch.nan, torch.nan
    z, seen, found = model.normalise(x)
    for sample, variate, n in ((0, 0, 0), (0, 0, 5), (1, 0, 2), (1, 0, 7), (2, 1, 4)):
        past = x[sample, variate, : 8 * (n + 1)]
        past = past[past.isfinite()].double()
        assert found.loc[sample, variate, n].item() == pytest.approx(past.mean().item(), rel=1e-9)
        assert found.scale[sample, variate, n].item() == pytest.approx(past.std().item(), rel=1e-9)
        own = x[sample, variate, 8 * n : 8 * n + 8]
        expected = torch.where(own.isfinite(), (own - past.mean()) / past.std(), 0).float()
        torch.testing.assert_close(z[sample, variate, n], expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(seen[sample, variate, n], own.isfinite())


@torch.no_grad()
def test_scales_stay_near_that_of_the_whole_where_they_are_bounded():
    x = torch.cat([torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(0)), 1e3 * series(1, 1, 32)], dim=-1)
    free, bounded = (made(scale_range=e).statistics(x).scale for e in (None, 1.0))
    assert free[..., 0] < free[..., -1] / 100 and torch.equal(bounded[..., -1], free[..., -1])
    assert torch.equal(bounded, free.clamp_min(free[..., -1:] / 10))
    within = made(scale_range=1.0).statistics(x, 32).scale  # by the first 32 steps: what is said later has no part in it
    assert torch.equal(within, free.clamp_max(10 * free[..., 3:4]))


@torch.no_grad()
def test_everything_follows_scale_and_level_unless_the_variance_has_a_floor():
    x = series()
    for quirks in ((), ("variance_floor",)):
        model = made(quirks=quirks)
        follows = torch.allclose(model.mean(1e-3 * x, 20) / 1e-3, model.mean(x, 20), atol=1e-3, rtol=1e-3)
        assert follows == (not quirks)
    torch.testing.assert_close(made().mean(3 * x + 100, 20), 3 * made().mean(x, 20) + 100, atol=2e-3, rtol=1e-4)


@torch.no_grad()
def test_gaps_are_the_mean_and_the_value_zero_only_under_the_quirk():
    x = series()
    x[..., 20:27] = torch.nan
    x[..., 40:48] = torch.nan  # a whole patch
    for quirks in ((), ("missing_is_zero",)):
        model = made(quirks=quirks)
        shift = (model.mean(x + 50, 16) - 50 - model.mean(x, 16)).abs().max()
        assert shift > 0.05 if quirks else shift < 1e-3


@torch.no_grad()
def test_time_has_no_origin_and_padding_is_not_looked_at():
    x = series()
    later = torch.nn.functional.pad(x[..., 24:], (24, 0), value=torch.nan)
    for quirk in (None, "missing_is_zero", "xpos_by_halves"):
        model = made(quirks=() if quirk is None else (quirk,))
        short = model.distribution(x[..., 24:])
        same = torch.allclose(model.distribution(later).families[0].loc, short.families[0].loc, atol=1e-5)
        assert same == (quirk is None), quirk


@torch.no_grad()
def test_a_constant_is_forecast_as_itself():
    found = made().predict_quantiles(torch.full((1, 1, 64), 4.2), 20, LEVELS)
    torch.testing.assert_close(found, torch.full_like(found, 4.2), atol=1e-3, rtol=0)


# ---- time and space


@torch.no_grad()
def test_variates_hear_those_of_their_group_and_no_others():
    model, x = made(), series(2, 3)
    ids = torch.tensor([[0, 0, 1], [2, 0, 2]])
    apart, together = model.mean(x, 20, ids), model.mean(x, 20)
    torch.testing.assert_close(apart[0, :2], model.mean(x[:1, :2], 20)[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(apart[1, ::2], model.mean(x[1:, ::2], 20)[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(apart[0, 2:], model.mean(x[:1, 2:], 20)[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(apart, together, atol=1e-2)
    longer = ids[..., None].expand(-1, -1, 8)  # the same, patch by patch
    assert torch.equal(model.mean(x, 20, longer), apart)
    assert torch.equal(model.predict_quantiles(x, 9, LEVELS, groups=longer), model.predict_quantiles(x, 9, LEVELS, groups=ids))


def test_layers_look_where_the_configuration_says():
    kinds = lambda **changes: "".join(kind[0] for kind in replace(TotoConfig.tiny(), layers=6, **changes).kinds)
    assert kinds(space_every=3) == "ttstts" and kinds(space_every=3, space_first=True) == "sttstt"
    assert kinds(space_every=None) == "t" * 6 and kinds(space_every=1) == "s" * 6
    assert [s.name for s in made().sites()] == ["decoder.0.time", "decoder.0.mlp", "decoder.1.space", "decoder.1.mlp"]


@torch.no_grad()
def test_a_model_without_layers_across_takes_variates_one_by_one():
    model, x = made(space_every=None), series(2, 3)
    whole = model.predict_quantiles(x, 20, LEVELS)
    assert model.order_free and not made().order_free
    torch.testing.assert_close(model.predict_quantiles(x[:, 1:2], 20, LEVELS), whole[:, 1:2], atol=1e-3, rtol=1e-4)


def test_low_rank_pairs_are_arguments_and_equal_changed_weights():
    model, x = made(), series()
    names = ("q", "k", "v", "out", "up", "gate", "down")
    lora = LoRA.of(model, names, rank=2, generator=torch.Generator().manual_seed(0))
    for b in lora.b:
        torch.nn.init.normal_(b, std=0.3, generator=torch.Generator().manual_seed(1))
    pairs, merged = deltas(lora, 2), made()
    with torch.no_grad():
        for name, a, b in zip(lora.names, lora.a, lora.b):
            merged.get_submodule(name).weight += b @ a
        z, seen, _ = model.normalise(x)
        aux = model.looks(model.visible(seen), z.shape[2])
        h = model.patches(z).flatten(0, 1)
        for layer, pair in zip(model.layers, pairs):
            h = layer(h, aux, delta=pair)
        changed = merged.encode(z, merged.visible(seen)).flatten(0, 1)
        torch.testing.assert_close(h, changed, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(changed, model.encode(z, model.visible(seen)).flatten(0, 1), atol=1e-2)


# ---- forecasting


@torch.no_grad()
def test_the_context_is_read_once_and_every_new_patch_once():
    model, read = made(), []
    handle = model.layers[0].register_forward_hook(lambda module, inputs, out: read.append(tuple(out.shape[:2])))
    model.sample(series(3, 2), 17, samples=5)
    handle.remove()
    assert read == [(6, 8), (30, 1), (30, 1)]


@torch.no_grad()
@pytest.mark.parametrize("quirks", [(), tuple(toto.QUIRKS)])
def test_what_is_remembered_is_what_would_be_read_again(quirks):
    """The second patch of a path, by hand: the first is appended and everything is read anew."""
    model, x = made(quirks=quirks), series()
    x[0, 0, :19], x[1, 1, 30:34] = torch.nan, torch.nan
    path = model.mean(x, 24)
    longer = torch.cat([x.double(), path[..., :16]], dim=-1)
    z, seen, found = model.normalise(longer)
    visible = model.visible(seen)
    mean = model(z, visible).mean()[:, :, -1]
    torch.testing.assert_close(found.loc[..., -1:] + found.scale[..., -1:] * mean, path[..., 16:], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_draws_follow_the_mixture():
    """The share of the draws below each of its exact quantiles."""
    model, x = made(), series(2)
    exact = model.distribution(x).quantiles(LEVELS)
    draws = model.sample(x, 8, samples=2000)
    share = (draws.movedim(1, -1)[..., None] <= exact[..., None, :]).double().mean(-2)
    assert (share - torch.tensor(LEVELS)).abs().max() < 0.04
    near = model.predict_quantiles(x, 8, LEVELS, samples=2000)
    assert ((near - exact).abs() / (exact[..., 2:] - exact[..., :1])).max() < 0.15


@torch.no_grad()
def test_the_median_path_starts_with_medians_and_the_mean_path_with_means():
    model, x = made(), series()
    first = model.distribution(x)
    torch.testing.assert_close(model.mean(x, 8).float(), first.mean(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.median(x, 8).float(), first.quantiles([0.5])[..., 0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_same_generator_same_paths_however_many_rows_go_at_once(monkeypatch):
    model, x = made(), series(4)
    draw = lambda seed=None: model.sample(x, 20, 7, None if seed is None else torch.Generator().manual_seed(seed))
    whole = draw()
    assert torch.equal(draw(), whole) and torch.equal(draw(3), draw(3)) and not torch.allclose(draw(3), draw(4))
    assert whole.shape == (4, 7, 2, 20) and not torch.allclose(whole[:, 0], whole[:, 1], atol=1e-2)
    monkeypatch.setattr(toto, "ROWS_AT_ONCE", 1)
    torch.testing.assert_close(draw(), whole, atol=1e-3, rtol=1e-4)


# ---- training


@torch.no_grad()
def test_the_loss_is_the_negative_log_density_of_every_next_patch():
    model, x = made(), series(3)
    x[0, 0, 30:40], x[1, :, :19], x[2, 1] = torch.nan, torch.nan, torch.nan
    x[2, 0, :16] = 7.0  # no units yet
    total, count = 0.0, 0
    for sample in range(3):
        for n in range(1, 8):
            mixture = model.distribution(x[sample : sample + 1, :, : 8 * n])
            own = Mixture(mixture.families, mixture.logits)  # in units of the past
            target = x[sample, None, :, 8 * n : 8 * n + 8]
            z = ((target - mixture.loc) / mixture.scale).clamp(-100, 100)
            past = x[sample, :, : 8 * n]
            varies = torch.tensor([len(v[v.isfinite()].unique()) > 1 for v in past])
            wanted = target.isfinite() & varies[None, :, None]
            total += torch.where(wanted, own.log_prob(z.nan_to_num(0)), 0).sum().item()
            count += wanted.sum().item()
    assert model.loss(x).item() == pytest.approx(-total / count, rel=1e-4)
    assert model.loss(torch.full((2, 1, 64), 3.0)).item() == 0 == model.loss(torch.full((2, 1, 64), torch.nan)).item()


@torch.no_grad()
def test_units_do_not_move_the_loss_and_a_robust_part_is_mixed_in():
    x = series(4)
    loss = lambda x, share=0.0: made(robust_share=share, robust_width=0.5).loss(x).item()
    assert loss(1e3 * x + 5e3) == pytest.approx(loss(x), rel=1e-3)
    assert loss(x, 0.25) == pytest.approx(0.75 * loss(x) + 0.25 * loss(x, 1.0), rel=1e-4)
    model = made()
    z, seen, found = model.normalise(x)
    mean, scale = (found.loc[..., :-1, None], found.scale[..., :-1, None])
    target = (patch(x, 8)[:, :, 1:] - mean) / scale
    error = (target - model(z, model.visible(seen)).mean()[:, :, :-1]) / 0.5
    assert loss(x, 1.0) == pytest.approx((error.square() / 2).log1p().mean().item(), rel=1e-4)


class Waves:
    """Sines of any phase: what comes next follows from what was."""

    def __call__(self, step):
        phase = torch.rand(24, 1, 1, generator=torch.Generator().manual_seed(seed_for(0, step, "data")))
        return torch.sin(6.2832 * (torch.arange(80) / 12 + phase))


def test_a_tiny_model_learns_to_forecast_beyond_one_patch():
    """Against quantiles of the context, on waves it never saw, two patches ahead."""
    run = fit(made(space_every=None), Waves(), recipe(steps=150, batch=24, warmup=5, ema=0.0, rate=5e-3, matrix_rate=1e-2), progress=False)
    x = Waves()(10**6)
    context, future = x[..., :64], x[..., 64:]
    learnt = pinball(run.model.predict_quantiles(context, 16, LEVELS), future, LEVELS)
    flat = pinball(context.quantile(torch.tensor(LEVELS), dim=-1).movedim(0, -1)[..., None, :].expand(*future.shape, 3), future, LEVELS)
    assert learnt < 0.5 * flat


# ---- sizes


def test_the_published_size_has_the_published_parameter_count():
    with torch.device("meta"):
        model = Toto(TotoConfig.base())
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == 151
    assert model.config.kinds.count("time") == 11 and model.config.kinds[-1] == "space"


def test_configurations_that_cannot_be_are_refused():
    for changes in ({"context": 60}, {"heads": 3}, {"width": 18, "heads": 6}, {"space_every": 3}, {"space_every": 0}, {"components": 0},
                    {"samples": 0}, {"robust_share": 1.5}, {"robust_width": 0.0}, {"quirks": ("bug",)}):  # fmt: skip
        with pytest.raises(ValueError):
            replace(TotoConfig.tiny(), **changes)
