"""Multi-scale fine-tuning beyond encoders: a causal decoder stays causal at every scale, an encoder-decoder keeps its two sides apart."""

from dataclasses import replace

import pytest
import torch

from tests.finetune.tiny import BEYOND, BRIEF, CONFIGS, CONTEXT, HORIZON, MSFT, daily, made, series, tuned
from tsfm_lib import checkpoints, finetune
from tsfm_lib.errors import TsfmError
from tsfm_lib.finetune import MultiScale, joined, mixing, multiscale
from tsfm_lib.finetune.scales import alignment, finer, finished, pyramid
from tsfm_lib.nn.outputs import pinball
from tsfm_lib.nn.patching import left_pad

LEVELS = (0.1, 0.5, 0.9)
EVERY = replace(MSFT, supervise="every")


def read(module, x):
    return [module.read(part, i) for i, part in enumerate(pyramid(x, module.design.scales, True))]


@torch.no_grad()
@pytest.mark.parametrize("name", BEYOND)
@pytest.mark.parametrize("changes", [{}, {"aggregate": "refine"}, {"aggregate": "c2f", "pooling": "max"}])
def test_it_starts_as_zero_shot_at_every_scale(name, changes):
    module, x = tuned(name, replace(MSFT, **changes)), series()
    found = module.by_scale(x, LEVELS)
    for i, (coarse, horizon) in enumerate(zip(pyramid(x, 2, True, module.design.pooling), (16, 8, 4))):
        expected = finer(made(name).predict_quantiles(coarse, horizon, LEVELS), 2**i, HORIZON, axis=-2)
        torch.testing.assert_close(found[i], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(module.predict_quantiles(x, HORIZON, LEVELS), found.mean(0))


@torch.no_grad()
@pytest.mark.parametrize("name", BEYOND)
def test_without_a_further_scale_it_is_plain_lora(name):
    """The same numbers as the model itself with W + BA in the place of W."""
    module, merged, x = tuned(name, replace(MSFT, scales=0, adapters="none"), noise=0.3), made(name), series()
    [lora] = module.loras
    for site, a, b in zip(lora.names, lora.a, lora.b):
        merged.get_submodule(site.removeprefix("model.")).weight += b @ a
    expected = merged.predict_quantiles(x, HORIZON, LEVELS)
    torch.testing.assert_close(module.predict_quantiles(x, HORIZON, LEVELS), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(expected, made(name).predict_quantiles(x, HORIZON, LEVELS), atol=1e-2)


# ---- a causal decoder


def ends(module, x):
    return joined.ends_of([one.tokens for one in read(module, x)])


@torch.no_grad()
@pytest.mark.parametrize(("changes", "context"), [({}, 61), ({"iterated": False}, 64), ({"aggregate": "refine"}, 50),
                                                  ({"aggregate": "none", "attention": "across"}, 64),
                                                  ({"aggregate": "none", "attention": "aligned"}, 61)])  # fmt: skip
def test_the_future_of_any_scale_never_reaches_what_has_ended(changes, context):
    module, x = tuned("timesfm", replace(MSFT, **changes), context, noise=0.3), series(steps=context)
    found = read(module, x)
    before, at = torch.cat(module.encode(found), dim=1), ends(module, x)
    counts, heard = [one.tokens.h.shape[1] for one in found], 0
    for scale, one in enumerate(found):
        for token in range(counts[scale] - 1, -1, -2):
            moved = one.tokens.h.clone()
            moved[:, token] += 1
            others = [*found[:scale], one._replace(tokens=one.tokens._replace(h=moved)), *found[scale + 1 :]]
            change = (torch.cat(module.encode(others), dim=1) - before).abs().amax((0, 2))
            own = sum(counts[:scale]) + token
            assert not change[at < at[own]].any(), (scale, token)
            heard += int((change > 1e-6).sum())
    assert heard > sum(counts)  # something is told


@torch.no_grad()
@pytest.mark.parametrize("attention", ["within", "aligned"])
def test_behind_a_patch_it_says_what_it_would_say_of_a_series_that_ends_there(attention):
    """Where all scales end together; elsewhere coarse blocks of a shorter series lie elsewhere."""
    design = replace(EVERY, attention=attention, aggregate="both" if attention == "within" else "none")
    module, x = tuned("timesfm", design, noise=0.3), series()
    inner = [one.raw.in_units(one.statistics).values for one in module(x, every=True)]
    for back in (0, 1):  # four patches of the finest, two, one
        cut = left_pad(x[..., : CONTEXT - back * 32], CONTEXT)
        for i, one in enumerate(module(cut)):
            here = inner[i][..., -1 - back * 4 // 2**i, :, :]
            torch.testing.assert_close(here, one.raw.in_units(one.statistics).values, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_matched_as_in_an_encoder_half_of_the_tokens_hear_what_they_are_to_say(monkeypatch):
    x = series()
    later = x.clone()
    later[..., CONTEXT - 16 : CONTEXT] += 5  # the last two patches
    for how, leaks in ((finished, False), (alignment, True)):
        monkeypatch.setattr(multiscale, "finished", how)
        module = tuned("timesfm", EVERY, noise=0.3)
        a, b = (module(v, every=True)[0].raw.values[..., :6, :, :] for v in (x, later))
        assert torch.equal(a, b) != leaks
        at_the_end = [module(left_pad(v[..., : CONTEXT - 16], CONTEXT))[0].raw.values for v in (x, later)]
        assert torch.equal(*at_the_end)  # where the series ends nothing is later


@torch.no_grad()
def test_a_list_of_scales_equals_one_row_with_a_block_mask():
    module, x = tuned("timesfm", replace(MSFT, aggregate="none"), noise=0.3), series()
    x[0, 0, :20] = torch.nan
    found = read(module, x)
    as_list, tokens = module.encode(found), [one.tokens for one in found]
    for how, same in (("within", True), ("across", False), ("aligned", False)):
        row, scale = joined.join(module.model, tokens, how), joined.scale_of(tokens)
        h = row.h
        for number, layer in enumerate(module.model.layers):
            h = layer(h, row.aux, joined.token_pairs([own[number] for own in module.pairs()], scale))
        for a, b in zip(as_list[:2], joined.split(h, tokens)):
            assert torch.allclose(a, b, atol=1e-4) == same, how


def test_supervised_everywhere_the_loss_is_that_of_every_prefix():
    module, batch = tuned("timesfm", replace(EVERY, scales=0, aggregate="none", adapters="none")), series(steps=CONTEXT + HORIZON)
    model, losses = made("timesfm"), []
    for n in range(1, 9):
        values = model.forecast(batch[:, 0, : 8 * n], HORIZON)[:, None].float()
        losses.append(2 * pinball(values, batch[..., 8 * n : 8 * n + HORIZON], model.config.quantiles))
    torch.testing.assert_close(module.loss(batch).detach(), torch.stack(losses).mean(), atol=1e-4, rtol=1e-4)
    batch[0, 0, :20] = torch.nan
    assert module.loss(batch).isfinite()


# ---- an encoder-decoder


@torch.no_grad()
def test_patches_hear_of_patches_and_forecast_tokens_of_forecast_tokens():
    module, x = tuned("chronos-bolt", noise=0.3), series()
    seen, real = [], module.aggregate
    module.aggregate = lambda number, states, *rest: seen.append((number, states, real(number, states, *rest))) or seen[-1][2]
    found, after = read(module, x), []
    moved, module.moved = module.moved, lambda *all: after.append(moved(*all)) or after[-1]
    module.encode(found)
    part = found[0].part
    assert part == (1, 8, 1) and len(seen) == 4
    for number, states, _ in seen:
        finest = (after[3 * number] - states[0]).abs().amax((0, 2)) > 1e-6
        assert torch.equal(finest, part.only("context" if number < 2 else "horizon"))


@torch.no_grad()
def test_overlapping_patches_and_a_model_without_reg():
    model = checkpoints.build("chronos-bolt", replace(CONFIGS["chronos-bolt"], reg_token=False), 0).eval()
    module, x = MultiScale(model, MSFT, CONTEXT, HORIZON).eval(), series()
    torch.testing.assert_close(module.by_scale(x, LEVELS)[0], model.predict_quantiles(x, HORIZON, LEVELS), atol=1e-4, rtol=1e-4)
    with pytest.raises(TsfmError, match="patches that overlap"):
        MultiScale(checkpoints.build("chronos-bolt", replace(CONFIGS["chronos-bolt"], stride=4), 0), MSFT, CONTEXT, HORIZON)


# ---- both


@pytest.mark.parametrize(("name", "supervise"), [("timesfm", "end"), ("timesfm", "every"), ("chronos-bolt", "end")])
def test_gradients_reach_every_part_of_every_scale(name, supervise):
    module = tuned(name, replace(MSFT, supervise=supervise), noise=0.05).train()
    module.loss(series(4, steps=CONTEXT + HORIZON)).backward()
    alone = ("decoder.layers.0.attend.q", "decoder.layers.0.attend.k", "decoder.layers.1.attend.q", "decoder.layers.1.attend.k")
    for scale, lora in enumerate(module.loras):
        for site, a, b in zip(lora.names, lora.a, lora.b):  # a forecast token that looks at itself has no choice
            assert all((p.grad.abs().max() > 0) != site.endswith(alone) for p in (a, b)), (scale, site)
    assert all(p.grad.abs().max() > 0 for part in (module.adapters, module.c2f, module.f2c, module.model.head) for p in part.parameters())
    assert module.theta.grad.abs().min() > 0
    assert not [n for n, p in module.model.named_parameters() if ".head." not in n and p.grad is not None]


@pytest.mark.parametrize("name", BEYOND)
@pytest.mark.parametrize("mixing_", ["mixed loss", "stacked", "weighted loss"])
def test_it_is_tuned_saved_and_loaded_like_any_other(name, mixing_, tmp_path):
    done = finetune.fit(made(name), daily(), replace(MSFT, mixing=mixing_), BRIEF)
    again = finetune.load(finetune.save(done.model, tmp_path, done.facts), made(name))
    x = series(2, 2, 61)
    x[0, 0, 5:30], x[1, 0] = torch.nan, 4.2
    found = again.predict_quantiles(x, HORIZON + 5, LEVELS)
    assert torch.equal(found, done.model.predict_quantiles(x, HORIZON + 5, LEVELS)) and found.shape == (2, 2, HORIZON + 5, 3)
    assert found.isfinite().all() and (found.diff(dim=-1) >= 0).all()
    frozen = made(name).state_dict()
    assert all(torch.equal(p, frozen[n]) for n, p in again.model.model.state_dict().items() if not n.startswith("head."))


@torch.no_grad()
def test_the_weights_of_the_mixed_loss_are_judged_by_the_mixed_quantiles():
    module, batch = tuned("timesfm", noise=0.1), series(steps=CONTEXT + HORIZON)
    past, future = batch[..., :CONTEXT], batch[..., CONTEXT:]
    whole = [mixing.on_all_steps(one, 2**i, HORIZON) for i, one in enumerate(module(past))]
    levels = module.model.config.quantiles
    expected = 2 * pinball(torch.stack([one.raw.in_units(one.statistics).values for one in whole]).mean(0), future, levels)
    torch.testing.assert_close(mixing.mixed_error(whole, module.theta, future), expected)


def test_what_cannot_be_is_refused():
    for name, changes, words in (
        ("chronos-bolt", {"supervise": "every"}, "needs a causal decoder"),
        ("moirai", {"supervise": "every"}, "needs a causal decoder"),
        ("timesfm", {"supervise": "every", "mixing": "mixed loss"}, "needs a causal decoder"),
        ("timesfm", {"combine": "linear pool"}, "says quantiles"),
        ("chronos-bolt", {"attention": "across"}, "attention across scales"),
    ):
        with pytest.raises(TsfmError, match=words):
            tuned(name, replace(MSFT, **changes))
    with pytest.raises(TsfmError, match="one pass of this TimesFM says 16 steps, got a horizon of 20"):
        tuned("timesfm", horizon=20)
    known = checkpoints.build("timesfm", replace(CONFIGS["timesfm"], scaling="context"), 0)
    with pytest.raises(TsfmError, match="running statistics"):
        MultiScale(known, EVERY, CONTEXT, HORIZON)
