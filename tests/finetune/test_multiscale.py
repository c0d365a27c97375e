"""What must hold of multi-scale fine-tuning on every backbone before anything is trained."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.finetune.tiny import BACKBONES, CONTEXT, HORIZON, MSFT, made, series, tuned
from tsfm_lib import checkpoints
from tsfm_lib.errors import TsfmError
from tsfm_lib.finetune import Design, MultiScale, joined, matched, mixing, trainable
from tsfm_lib.finetune.scales import alignment, finer, pyramid
from tsfm_lib.nn.outputs import Mixture

LEVELS = (0.1, 0.5, 0.9)


@torch.no_grad()
def pretrained(model, x, horizon):
    """The model's own forecast in one pass, levels last."""
    if hasattr(model, "distribution"):
        return model.distribution(x, horizon).quantiles(LEVELS)
    point = model.go_on(x.flatten(0, 1), horizon).unflatten(0, x.shape[:2]) if hasattr(model, "go_on") else model(x, horizon)
    return point[..., None].expand(*point.shape, len(LEVELS))


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("changes", [{}, {"aggregate": "refine"}, {"aggregate": "c2f", "pooling": "max"},
                                     {"lora": "shared", "adapters": "shared"}])  # fmt: skip
def test_it_starts_as_zero_shot_at_every_scale(name, changes):
    module, x = tuned(name, replace(MSFT, **changes)), series()
    found = module.by_scale(x, LEVELS)
    coarse = pyramid(x, 2, True, module.design.pooling)
    for i, horizon in enumerate((16, 8, 4)):
        expected = finer(pretrained(module.model, coarse[i], horizon), 2**i, HORIZON, axis=-2)
        torch.testing.assert_close(found[i], expected.to(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(module.predict_quantiles(x, HORIZON, LEVELS), found.mean(0))


@pytest.mark.parametrize("name", BACKBONES)
def test_gradients_reach_every_part_of_every_scale(name):
    module = tuned(name, noise=0.05).train()
    module.loss(series(4, steps=CONTEXT + HORIZON)).backward()
    for scale, lora in enumerate(module.loras):
        for site, a, b in zip(lora.names, lora.a, lora.b):
            heard = not site.endswith(("variate.q", "variate.k"))  # with one variate there is nobody to choose between
            assert all((p.grad.abs().max() > 0) == heard for p in (a, b)), (scale, site)
    for part in (module.adapters, module.c2f, module.f2c):
        assert all(p.grad.abs().max() > 0 for p in part.parameters())
    assert module.theta.grad.abs().min() > 0 and all(p.grad.abs().max() > 0 for p in module.model.head.parameters())
    frozen = [n for n, p in module.model.named_parameters() if not n.startswith("head.") and (p.requires_grad or p.grad is not None)]
    assert not frozen


@torch.no_grad()
def test_a_list_of_scales_equals_one_row_with_a_block_mask():
    module, x = tuned("moirai", replace(MSFT, aggregate="none"), noise=0.3), series()
    found = [module.read(part, i) for i, part in enumerate(pyramid(x, 2, True))]
    as_list = module.encode(found)
    module.design = replace(module.design, attention="across")
    real, joined.join = joined.join, lambda model, parts, how, factor: real(model, parts, "within", factor)
    try:
        as_row = module.encode(found)
    finally:
        joined.join = real
    across = module.encode(found)
    for a, b, c in zip(as_list, as_row, across):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(a, c, atol=1e-2)
    module.design = replace(module.design, attention="aligned")
    assert not torch.allclose(module.encode(found)[0], across[0], atol=1e-3)


@torch.no_grad()
def test_only_fine_to_coarse_and_attention_across_carry_fine_news_to_coarse_scales():
    """An alternation is invisible in means of pairs: whether a coarse forecast moves says whether it was told."""
    x = series(2)
    news = x + 0.5 * torch.tensor([1.0, -1.0]).repeat(CONTEXT // 2)
    for changes, told in (({"aggregate": "none"}, False), ({"aggregate": "c2f"}, False), ({"aggregate": "refine"}, False),
                          ({"aggregate": "f2c"}, True), ({"aggregate": "both"}, True),
                          ({"aggregate": "none", "attention": "across"}, True)):  # fmt: skip
        module = tuned("moirai", replace(MSFT, **changes), noise=0.3)
        before, after = (module.by_scale(v, (0.5,)) for v in (x, news))
        assert not torch.allclose(before[0], after[0], atol=1e-3)
        for scale in (1, 2):
            assert torch.allclose(before[scale], after[scale], atol=1e-5) != told, (changes, scale)


@torch.no_grad()
@pytest.mark.parametrize("name", BACKBONES)
def test_coarse_news_reach_the_fine_scale_only_from_coarse_to_fine(name):
    for changes, told in (({"aggregate": "f2c"}, False), ({"aggregate": "c2f"}, True), ({"aggregate": "refine"}, True)):
        module, x = tuned(name, replace(MSFT, **changes), noise=0.3), series()
        before = module.by_scale(x, (0.5,))
        for adapter in module.adapters[1:]:
            adapter.bias += 1
        after = module.by_scale(x, (0.5,))
        assert torch.allclose(before[0], after[0], atol=1e-5) != told, changes


@torch.no_grad()
def test_neighbours_are_read_as_they_are_or_as_they_have_become():
    """Iterated, news of the coarsest scale come to the finest within one layer."""
    for iterated in (True, False):
        module, x = tuned("moirai", replace(MSFT, aggregate="c2f", iterated=iterated), noise=0.3), series()
        found = [module.read(part, i) for i, part in enumerate(pyramid(x, 2, True))]
        matches = [alignment(a.part, b.part) for a, b in zip(found, found[1:])]
        states = [one.tokens.h for one in found]
        moved = [*states[:2], states[2] + 1]
        change = (module.aggregate(0, moved, matches, [])[0] - module.aggregate(0, states, matches, [])[0]).abs().max()
        assert (change > 1e-3) == iterated


# ---- weights of the scales and losses


def test_the_published_weights_run_to_the_easier_scale_and_others_look_at_the_mixture():
    x = series(4, steps=CONTEXT + HORIZON)
    gradient = {}
    for how in ("weighted loss", "mixed loss"):
        for name in BACKBONES:
            module = tuned(name, replace(MSFT, mixing=how), noise=0.1)
            module.loss(x).backward()
            gradient[how, name] = module.theta.grad
            context, future = x[..., :CONTEXT], x[..., CONTEXT:]
            with torch.no_grad():
                losses = torch.stack([mixing.error(a, b) for a, b in zip(module(context), pyramid(future, 2, False))])
            if how == "weighted loss":
                expected = module.weights.detach() * (losses - losses.mean())
                torch.testing.assert_close(module.theta.grad, expected, atol=1e-4, rtol=1e-3)
    assert all(not torch.allclose(gradient["weighted loss", n], gradient["mixed loss", n], atol=1e-3) for n in BACKBONES)


def test_the_mixed_loss_moves_the_weights_and_nothing_else():
    x, gradients = series(4, steps=CONTEXT + HORIZON), []
    for how in ("mixed loss", "uniform"):
        module = tuned("moirai", replace(MSFT, mixing=how), noise=0.1)
        module.loss(x).backward()
        gradients.append([p.grad for p in module.adapters.parameters()])
        assert (module.theta.grad is None) == (how == "uniform")
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b)


@torch.no_grad()
def test_weights_sum_to_one_and_without_mixing_scale_0_speaks_alone():
    x = series()
    assert tuned("units", replace(MSFT, prior=9.0)).weights[0] > 0.999
    module = tuned("units", replace(MSFT, mixing="none"), noise=0.1)
    torch.testing.assert_close(module.predict_quantiles(x, HORIZON, LEVELS), module.by_scale(x, LEVELS)[0])
    batch = series(steps=CONTEXT + HORIZON)
    first = mixing.error(module(batch[..., :CONTEXT])[0], batch[..., CONTEXT:])
    torch.testing.assert_close(module.loss(batch), first)


@torch.no_grad()
def test_losses_are_those_of_the_forecast_in_units_of_the_data():
    batch = series(4, steps=CONTEXT + HORIZON)
    batch[0, 0, -5:] = torch.nan
    for name in BACKBONES:
        module = tuned(name, replace(MSFT, scales=0, aggregate="none"))
        one, future = module(batch[..., :CONTEXT])[0], batch[..., CONTEXT:]
        seen = future.isfinite()
        if isinstance(one.raw, Mixture):
            expected = -module.model.forecast(one.raw, one.statistics).log_prob(future.nan_to_num())[seen].mean()
        else:
            expected = (module.predict_quantiles(batch[..., :CONTEXT], HORIZON, (0.5,))[..., 0] - future)[seen].square().mean()
        torch.testing.assert_close(module.loss(batch).double(), expected.double(), atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_three_ways_to_pool_distributions_differ_in_width_as_they_must():
    g = torch.Generator().manual_seed(0)
    draws, w = torch.randn(3, 4000, generator=g) + torch.tensor([[0.0], [0.0], [3.0]]), torch.full((3,), 1 / 3)
    spread = {how: mixing.combine(draws, w, how).std().item() for how in ("sample mean", "quantile average", "linear pool")}
    assert spread["sample mean"] == pytest.approx(3**-0.5, abs=0.03) and spread["quantile average"] == pytest.approx(1, abs=0.05)
    assert spread["linear pool"] == pytest.approx((1 + 2) ** 0.5, abs=0.06)
    x = series()
    wide, narrow = (tuned("moirai", replace(MSFT, combine=how)).predict_quantiles(x, HORIZON, LEVELS)
                    for how in ("quantile average", "sample mean"))  # fmt: skip
    assert (narrow[..., 2] - narrow[..., 0]).mean() < 0.8 * (wide[..., 2] - wide[..., 0]).mean()


def test_stacked_weights_lie_on_the_simplex_and_beat_every_single_scale():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(200)
    forecasts = np.stack([truth + rng.standard_normal(200), 0.5 * truth, -truth])
    w = mixing.stacked(forecasts, truth)
    error = lambda v: ((v @ forecasts - truth) ** 2).mean()
    assert w.min() >= 0 and w.sum() == pytest.approx(1)
    assert error(w) <= min(map(error, np.eye(3))) and all(error(w) <= error(v) + 1e-9 for v in rng.dirichlet(np.ones(3), 300))
    same = mixing.stacked(np.ones((2, 5)), np.ones(5))
    assert same.sum() == pytest.approx(1) and (same >= 0).all()


# ---- sizes, lengths, values


@pytest.mark.parametrize("name", BACKBONES)
def test_parameters_are_those_of_the_parts(name):
    count = lambda **changes: trainable(tuned(name, replace(MSFT, **changes)))
    model = made(name)
    head, d, layers = trainable(model.head), model.config.width, len(model.layers)
    bare = {"adapters": "none", "lora": "none", "aggregate": "none", "mixing": "uniform"}
    assert count(**bare) == head and count(**{**bare, "train": "new"}) == 0
    assert count(**{**bare, "mixing": "weighted loss"}) == head + 3
    assert [count(**{**bare, "adapters": place}) - head for place in ("shared", "own")] == [d * d + d, 3 * (d * d + d)]
    assert [count(**{**bare, "aggregate": a}) - head for a in ("c2f", "f2c", "both", "refine")] == [n * 2 * (d * d + d) for n in
                                                                                               (layers, layers, 2 * layers, 1)]  # fmt: skip
    one, own = (count(**{**bare, "lora": place}) - head for place in ("shared", "own"))
    assert own == 3 * one > 0 and count(**{**bare, "lora": "shared", "rank": 4}) - head == 2 * one
    assert count(**{**bare, "train": "all"}) == trainable(model)
    big, small = (trainable(MultiScale(model, d, CONTEXT, HORIZON)) for d in (MSFT, matched(model, MSFT, CONTEXT, HORIZON)))
    assert abs(big / small - 1) < 0.1 and matched(model, MSFT, CONTEXT, HORIZON).scales == 0


@torch.no_grad()
@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize(("context", "horizon"), [(61, 13), (50, 7)])
def test_lengths_that_nothing_divides(name, context, horizon):
    head = "fresh" if name == "moment" else "own"
    module = tuned(name, replace(MSFT, head=head), context, horizon, noise=0.1)
    batch = series(2, 3, context + horizon)
    assert module.loss(batch).isfinite()
    for asked in (1, horizon, 2 * horizon + 3):
        assert module.predict_quantiles(batch[..., :context], asked, LEVELS).shape == (2, 3, asked, 3)


@torch.no_grad()
@pytest.mark.parametrize("name", BACKBONES)
def test_forecasts_follow_level_and_scale_and_survive_what_is_missing(name):
    module, x = tuned(name, noise=0.1), series(4)
    found = module.predict_quantiles(x, HORIZON, LEVELS)
    torch.testing.assert_close(module.predict_quantiles(3 * x + 50, HORIZON, LEVELS), 3 * found + 50, atol=2e-2, rtol=1e-3)
    x[0, 0, 5:40], x[1], x[2] = torch.nan, torch.nan, 4.2
    awkward = module.predict_quantiles(x, HORIZON, LEVELS)
    assert awkward.isfinite().all() and (awkward.diff(dim=-1) >= 0).all()
    torch.testing.assert_close(module.predict_quantiles(x[3:], HORIZON, LEVELS), awkward[3:], atol=1e-4, rtol=1e-4)
    batch = torch.cat([x, x[..., :HORIZON]], dim=-1)
    assert module.loss(batch).isfinite()


@torch.no_grad()
def test_variates_meet_only_when_asked_to():
    x = series(2, 3)
    other = x.clone()
    other[:, 1] += series(2, 1, seed=9)[:, 0]
    for together in (False, True):
        module = tuned("moirai", noise=0.1, together=together)
        a, b = (module.predict_quantiles(v, HORIZON, (0.5,))[:, 0] for v in (x, other))
        assert torch.equal(a, b) != together


@torch.no_grad()
def test_with_a_factor_of_one_all_scales_read_the_same_and_differ_by_their_pairs():
    module, x = tuned("units", replace(MSFT, factor=1, aggregate="none")), series()
    found = module.by_scale(x, (0.5,))
    assert torch.allclose(found[0], found[1], atol=1e-5)
    module = tuned("units", replace(MSFT, factor=1, aggregate="none"), noise=0.3)
    assert not torch.allclose(*module.by_scale(x, (0.5,))[:2], atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("name", BACKBONES)
def test_prompts_are_read_and_are_no_part_of_the_context(name):
    design = replace(MSFT, head="fresh", prompts=3)
    module, x = tuned(name, design, noise=0.1), series()
    before = module.by_scale(x, (0.5,))
    tokens = [module.prompts] if module.prompts is not None else list(module.model.prompts.values())
    assert all(t.requires_grad for t in tokens)
    for t in tokens:
        t += 1
    after = module.by_scale(x, (0.5,))
    assert all(not torch.allclose(a, b, atol=1e-4) for a, b in zip(before, after))
    part = module.read(x, 0).part
    assert part.context == 8 and part.prefix == (2 if name == "units" else 3)


def test_what_cannot_be_is_refused():
    with pytest.raises(TsfmError, match="needs moirai, moment, units, timesfm or chronos-bolt, got DLinear"):
        MultiScale(checkpoints.build("dlinear", {"context": 32, "horizon": 8}), Design(), 32, 8)
    with pytest.raises(TsfmError, match="attention across scales"):
        tuned("units", replace(MSFT, attention="aligned"))
    with pytest.raises(TsfmError, match="no reconstruction head"):
        MultiScale(made("moment", reconstruction=False, forecasts=((8, 16),)), Design(head="own"), 64, 16)
    with pytest.raises(TsfmError, match="prompts would push"):
        tuned("moment", replace(MSFT, prompts=2))
