"""DLinear, PatchTST and iTransformer: they learn, they take contexts of any length, their sites tell the truth."""

from dataclasses import replace

import pytest
import torch

from tsfm_lib.checkpoints import build
from tsfm_lib.models import MODELS
from tsfm_lib.models.scratch import DLinearConfig, PatchTSTConfig

NAMES = ("dlinear", "patchtst", "itransformer")


def tiny(name, seed=0, **changes):
    return build(name, replace(MODELS[name].config_class().tiny(), **changes), seed)


def waves(n, length, seed=0, variates=2):
    g = torch.Generator().manual_seed(seed)
    phase = torch.rand((n, variates, 1), generator=g) * 6.28
    return 5 + torch.sin(torch.arange(length) * 6.2832 / 16 + phase) + 0.05 * torch.randn((n, variates, length), generator=g)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("levels", [(0.1, 0.5, 0.9), ()])
def test_training_beats_the_mean_of_the_context(name, levels):
    model = tiny(name, levels=levels).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(60):
        optimiser.zero_grad()
        loss = model.loss(waves(16, 80, seed=step))
        loss.backward()
        optimiser.step()
    x = waves(32, 80, seed=999)
    median = model.eval().predict_quantiles(x[..., :64], 16, [0.5])[..., 0]
    error, naive = (median - x[..., 64:]).abs().mean(), (x[..., :64].mean(-1, keepdim=True) - x[..., 64:]).abs().mean()
    assert error < 0.4 * naive


@pytest.mark.parametrize("name", NAMES)
def test_contexts_are_cut_or_filled_in_front(name):
    model, x = tiny(name), waves(2, 100)
    torch.testing.assert_close(model.predict_quantiles(x, 5, [0.5]), model.predict_quantiles(x[..., -64:], 5, [0.5]))
    short = x[..., :20]
    padded = torch.cat((torch.full((2, 2, 44), torch.nan), short), dim=-1)
    assert torch.equal(model.predict_quantiles(short, 5, [0.5]), model.predict_quantiles(padded, 5, [0.5]))


@pytest.mark.parametrize("name", NAMES)
def test_a_longer_horizon_begins_like_a_shorter_one_and_goes_on_from_its_median(name):
    model, x = tiny(name), waves(1, 64)
    long, native = model.predict_quantiles(x, 40, [0.1, 0.5, 0.9]), model.predict_quantiles(x, 16, [0.1, 0.5, 0.9])
    assert long.shape == (1, 2, 40, 3)
    torch.testing.assert_close(long[:, :, :16], native)
    grown = torch.cat((x, native[..., 1]), dim=-1)
    torch.testing.assert_close(long[:, :, 16:32], model.predict_quantiles(grown, 16, [0.1, 0.5, 0.9]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_units_do_not_matter(name):
    model, x = tiny(name), waves(2, 64)
    scaled = model.predict_quantiles(1000 * x - 7, 16, [0.1, 0.9])
    torch.testing.assert_close(scaled, 1000 * model.predict_quantiles(x, 16, [0.1, 0.9]) - 7, atol=0.1, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_missing_targets_do_not_count_and_none_at_all_gives_zero(name):
    model, batch = tiny(name), waves(2, 80)
    batch[0, :, 70:] = torch.nan
    loss = model.loss(batch)
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    batch[..., 64:] = torch.nan
    assert model.loss(batch).item() == 0


def test_forecasting_leaves_the_mode_of_the_model_alone():
    model = tiny("patchtst", dropout=0.5).train()
    first, second = (model.predict_quantiles(waves(1, 64), 4, [0.5]) for _ in range(2))
    assert torch.equal(first, second) and model.training


def test_variates_are_independent_but_for_the_itransformer():
    x = waves(1, 64)
    changed = x.clone()
    changed[:, 1] = changed[:, 1].flip(-1) ** 2
    touched = {n: not torch.allclose(tiny(n).predict_quantiles(x, 8, [0.5])[:, 0], tiny(n).predict_quantiles(changed, 8, [0.5])[:, 0])
               for n in NAMES}  # fmt: skip
    assert touched == {"dlinear": False, "patchtst": False, "itransformer": True}


def test_dlinear_is_linear_in_the_normalised_window():
    model, z, w = tiny("dlinear"), waves(1, 64), waves(1, 64, seed=1)
    zero, seen = torch.zeros_like(z), torch.ones_like(z, dtype=torch.bool)
    f = lambda v: model(v, seen) - model(zero, seen)
    torch.testing.assert_close(f(z + 2 * w), f(z) + 2 * f(w), atol=1e-4, rtol=1e-4)


def test_patchtst_embeds_a_series_whatever_its_padding():
    model, x = tiny("patchtst"), waves(3, 64)
    assert model.embed(x).shape == (3, 16)
    assert model.embed(torch.full((1, 1, 64), torch.nan)).isfinite().all()
    torch.testing.assert_close(model.embed(x[:1]), model.embed(x)[:1])


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="patches of 16 every 8 do not fill a context of 60"):
        PatchTSTConfig(context=60)
    with pytest.raises(ValueError, match="odd kernel, got 24"):
        DLinearConfig(kernel=24)
    with pytest.raises(ValueError, match="before its 16 future steps"):
        tiny("dlinear").loss(torch.zeros(1, 1, 16))
