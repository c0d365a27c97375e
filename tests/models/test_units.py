"""What must hold of UniTS whatever its weights are."""

from dataclasses import replace

import pytest
import torch

from tests.train.toys import recipe
from tsfm_lib import checkpoints
from tsfm_lib.errors import TsfmError
from tsfm_lib.models.units import Dynamic, UniTSConfig, stretched
from tsfm_lib.nn.lora import LoRA
from tsfm_lib.nn.tokens import deltas
from tsfm_lib.train import fit
from tsfm_lib.train.state import seed_for


def made(seed=0, **changes):
    """Random weights that make every part felt: mask tokens start at zero and prompts near it."""
    model = checkpoints.build("units", replace(UniTSConfig.tiny(), **changes), seed).eval()
    g = torch.Generator().manual_seed(seed)
    for tokens in [*model.prompts.values(), *model.mask_tokens.values()]:
        torch.nn.init.normal_(tokens, generator=g)
    return model


def series(samples=3, variates=2, steps=64, seed=0):
    return torch.randn(samples, variates, steps, generator=torch.Generator().manual_seed(seed)).cumsum(-1)


def by_parts(model, x, horizon=16, pairs=None, adapt=None, **options):
    """A forecast put together from the parts that fine-tuning uses."""
    z, seen, statistics = model.normalise(x)
    tokens = model.embed_tokens(z, seen, horizon, adapt=adapt, **options)
    h = tokens.h
    for i, layer in enumerate(model.layers):
        h = layer(h, tokens.aux, pairs[i] if pairs else None)
    return model.forecast(model.project(h, tokens, horizon), statistics)


# ---- linear maps along the tokens


@torch.no_grad()
def test_a_dynamic_map_is_a_plain_one_at_its_own_size_and_a_stretched_one_at_others():
    dynamic, x = Dynamic(9, 6, fixed=3), series(2, 4, 9)
    torch.testing.assert_close(dynamic(x, 6), x @ dynamic.weight.T + dynamic.bias)
    longer = torch.cat([x[..., :3], x[..., 3:].repeat_interleave(2, dim=-1)], dim=-1)
    expected = torch.cat([dynamic.weight[:, :3], stretched(dynamic.weight[:, 3:], 6, 12)], dim=1)
    torch.testing.assert_close(dynamic(longer, 6), longer @ expected.T + dynamic.bias)
    assert dynamic(longer, 11).shape == (2, 4, 11)


@torch.no_grad()
def test_each_prompt_keeps_its_column_whatever_the_number_of_tokens():
    dynamic = Dynamic(9, 6, fixed=3)
    for n in (4, 9, 20):
        unit = torch.eye(n)[:3]
        torch.testing.assert_close(dynamic(unit, 6) - dynamic.bias, dynamic.weight[:, :3].T)


# ---- lengths


@torch.no_grad()
def test_ragged_horizons_are_beginnings_of_whole_ones():
    model, x = made(), series()
    assert torch.equal(model(x, 9), model(x, 16)[..., :9])
    assert not torch.allclose(model(x, 16)[..., 9:], x.mean(-1, keepdim=True).expand(3, 2, 7), atol=1e-2)


@torch.no_grad()
def test_ragged_contexts_are_filled_in_front_and_long_ones_cut():
    model, x = made(), series(steps=100)
    ragged = torch.nn.functional.pad(x[..., -61:], (3, 0), value=torch.nan)
    assert torch.equal(model(x[..., -61:], 16), model(ragged, 16))
    assert torch.equal(model.predict_quantiles(x, 9, [0.5]), model.predict_quantiles(x[..., -64:], 9, [0.5]))


@torch.no_grad()
def test_far_horizons_are_rolled_out_in_pieces_as_long_as_training_asked_for():
    model, x = made(), series()
    forecast = model.predict_quantiles(x, 40, [0.5])[..., 0]
    for start in (0, 16, 32):
        piece = model(x[..., -64:], min(16, 40 - start))
        torch.testing.assert_close(forecast[..., start : start + 16], piece)
        x = torch.cat([x, piece], dim=-1)


def test_more_tokens_than_positions_are_refused():
    with pytest.raises(TsfmError, match="are 34 tokens, this UniTS reads at most 32"):
        made()(series(steps=256), 16)


# ---- values


@torch.no_grad()
def test_everything_follows_scale_and_level_unless_the_variance_has_a_floor():
    x, small = series(), 1e-4
    for quirks in ((), ("variance_floor",)):
        model = made(quirks=quirks)
        assert torch.allclose(model(small * x, 16) / small, model(x, 16), atol=1e-3, rtol=1e-3) == (not quirks)
    model = made()
    torch.testing.assert_close(model(3 * x + 100, 16), 3 * model(x, 16) + 100, atol=2e-3, rtol=1e-4)


@torch.no_grad()
def test_a_constant_is_forecast_as_itself():
    forecast = made().predict_quantiles(torch.full((1, 1, 64), 4.2), 40, [0.5])
    torch.testing.assert_close(forecast, torch.full_like(forecast, 4.2), atol=1e-3, rtol=0)


@torch.no_grad()
def test_patches_without_an_observation_are_mask_tokens():
    model, x = made(), series()
    x[..., 24:32] = torch.nan
    z, seen, _ = model.normalise(x)
    tokens = model.embed_tokens(z, seen).h[:, 3:] - model.positions[:8]
    torch.testing.assert_close(tokens[:, 3], model.mask_tokens["shared"][0].expand(6, -1))
    assert not torch.isclose(tokens[:, 2], model.mask_tokens["shared"][0]).all(-1).any()


# ---- variates and data sets


@torch.no_grad()
def test_variates_hear_each_other_but_not_those_that_know_nothing():
    model, x = made(), series()
    together, alone = model(x, 16), model(x[:, :1], 16)
    assert not torch.allclose(together[:, :1], alone, atol=1e-3)
    silent = torch.cat([x, torch.full_like(x, torch.nan)], dim=1)
    torch.testing.assert_close(model(silent, 16)[:, :2], together)


@torch.no_grad()
def test_prompts_belong_to_data_sets_and_their_variates():
    model, x = made(datasets=(("shared", 1), ("a", 2), ("b", 3))), series()
    assert not model.order_free and made().order_free
    shared, a = (model(x, 16, name) for name in (None, "a"))
    assert torch.equal(shared, model(x, 16, "shared")) and not torch.allclose(shared, a, atol=1e-3)
    model.prompts["a"][1] += 1
    assert not torch.allclose(model(x, 16, "a")[:, 1], a[:, 1], atol=1e-3)
    for name, said in (("b", r"b \(3 variates\), got data set b with 2 variates"), ("c", "got data set c")):
        with pytest.raises(TsfmError, match=said):
            model(x, 16, name)


def test_prompts_alone_can_be_trained():
    model, x = made().requires_grad_(False), series()
    model.prompts.requires_grad_(True)
    model.loss(torch.cat([x, x[..., :16]], dim=-1)).backward()
    assert model.prompts["shared"].grad.abs().min(dim=-1).values.max() > 0 and model.values.weight.grad is None


# ---- fine-tuning across scales


def test_low_rank_pairs_are_arguments_and_equal_changed_weights():
    model, x = made(), series()
    lora = LoRA.of(model.layers, ("q", "k", "v", "out", "down"), rank=2, generator=torch.Generator().manual_seed(0))
    assert {f"{part}.{name}" for part in ("time", "variate") for name in ("q", "k", "v", "out")} | {"down"} == set(deltas(lora, 2)[0])
    plain = by_parts(model, x)
    assert torch.equal(by_parts(model, x, pairs=deltas(lora, 2)), plain) and torch.equal(model(x, 16), plain)
    for b in lora.b:
        torch.nn.init.normal_(b, std=0.3, generator=torch.Generator().manual_seed(1))
    changed = by_parts(model, x, pairs=deltas(lora, 2))
    assert torch.equal(by_parts(model, x), plain)
    merged = made()
    for name, a, b in zip(lora.names, lora.a, lora.b):
        one = [(a, b) if n == name else (a, torch.zeros_like(b)) for n, a, b in zip(lora.names, lora.a, lora.b)]
        only = LoRA.of(model.layers, ("q", "k", "v", "out", "down"), rank=2)
        only.names, only.a, only.b = lora.names, *(torch.nn.ParameterList(side) for side in zip(*one))
        assert not torch.equal(by_parts(model, x, pairs=deltas(only, 2)), plain), name  # each is used
        with torch.no_grad():
            merged.layers.get_submodule(name).weight += b @ a
    torch.testing.assert_close(changed, by_parts(merged, x), atol=1e-4, rtol=1e-4)


def test_scales_of_one_series_share_a_graph_and_nothing_else():
    model, x = made().requires_grad_(False), series()
    loras = [LoRA.of(model, ("q", "k", "v"), rank=2, generator=torch.Generator().manual_seed(i)) for i in range(4)]

    def loss(i):  # the shortest has 8 steps, and 3 of horizon
        return by_parts(model, x.unflatten(-1, (-1, 2**i)).mean(-1), 24 // 2**i, deltas(loras[i], 2)).square().mean()

    def gradients():
        found = [[p.grad.clone() for p in lora.b] for lora in loras]
        for lora in loras:
            lora.zero_grad()
        return found

    sum(loss(i) for i in range(4)).backward()
    together = gradients()
    for i in range(4):
        loss(i).backward()
    assert all(g.abs().max() > 0 for scale in together for g in scale)
    for a, b in zip(together, gradients()):
        torch.testing.assert_close(a, b)


@torch.no_grad()
def test_an_adapter_acts_on_values_and_never_on_prompts_and_mask_tokens():
    model, x = made(), series()
    x[..., 24:32] = torch.nan
    z, seen, _ = model.normalise(x)
    plain, adapted = (model.embed_tokens(z, seen, 16, adapt=f) for f in (None, lambda h: 5 * h))
    assert (plain.prefix, plain.context, plain.horizon) == (3, 8, 2) and plain.h.shape == (6, 13, 16)
    assert torch.equal(plain.h[:, :3], adapted.h[:, :3]) and torch.equal(plain.h[:, 6], adapted.h[:, 6])
    torch.testing.assert_close(adapted.h[:, 3:6] - model.positions[:3], 5 * (plain.h[:, 3:6] - model.positions[:3]), atol=1e-5, rtol=1e-5)


# ---- training


def test_the_loss_is_the_error_of_the_last_steps_in_units_of_those_before():
    model, x = made(), series(4, 2, 80)
    x[0, 0, 70:75] = torch.nan
    x[1, 0, :64], x[2, 1, :64] = torch.nan, 3.0  # nothing to see, and a constant
    with torch.no_grad():
        given, errors = model.loss(x, torch.Generator().manual_seed(0)).item(), []
        forecast = model(x[..., :64], 16)
        for b, v in {(b, v) for b in range(4) for v in range(2)} - {(1, 0), (2, 1)}:
            context, future = x[b, v, :64], x[b, v, 64:]
            mean, unit = context.mean(), context.std(correction=0)
            wanted = future.isfinite()
            target = ((future - mean) / unit).clamp(-12, 12)
            errors += ((forecast[b, v] - mean) / unit - target)[wanted].square().tolist()
    assert given == pytest.approx(sum(errors) / len(errors), rel=1e-3)


def test_training_visits_shorter_windows_and_every_fitting_data_set():
    model, seen = made(scales=3, datasets=(("shared", 1), ("a", 2), ("b", 3))), set()
    embed = model.embed_tokens
    model.embed_tokens = lambda z, *rest, **options: seen.add((z.shape[-1], rest[1], options["dataset"])) or embed(z, *rest, **options)
    for step in range(40):
        model.loss(series(2, 2, 80), torch.Generator().manual_seed(step))
    assert seen == {(64 // cut, 16 // cut, name) for cut in (1, 2, 4) for name in ("shared", "a")}


class Waves:
    """Sines whose ends follow from their beginnings."""

    def __call__(self, step):
        period, phase = torch.rand(2, 24, 1, 1, generator=torch.Generator().manual_seed(seed_for(0, step, "data"))).unbind()
        return torch.sin(6.283 * (torch.arange(80) / (12 + 8 * period) + phase))


def test_a_tiny_model_learns_to_forecast():
    """Against the mean of the context, whose error is near 1 in these units, on waves it never saw."""
    run = fit(made(), Waves(), recipe(steps=150, batch=24, warmup=5, ema=0.0, rate=5e-3, matrix_rate=1e-2), progress=False)
    with torch.no_grad():
        assert run.model.loss(Waves()(10**6)).item() < 0.3


def test_configurations_that_cannot_be_are_refused():
    for changes in ({"heads": 3}, {"hidden": 30}, {"tokens": 3}, {"datasets": ()}, {"datasets": (("a", 0),)}, {"scales": 0},
                    {"quirks": ("bug",)}):  # fmt: skip
        with pytest.raises(ValueError):
            replace(UniTSConfig.tiny(), **changes)
