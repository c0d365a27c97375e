"""What must hold of Mantis whatever its weights are, in both versions."""

import math
from dataclasses import replace

import pytest
import torch

from tests.train.toys import recipe
from tsfm_lib import checkpoints
from tsfm_lib.errors import TsfmError
from tsfm_lib.models.mantis import SIZES, Mantis, MantisConfig
from tsfm_lib.nn.objectives import info_nce
from tsfm_lib.train import fit
from tsfm_lib.train.state import seed_for

TINY = {1: MantisConfig.tiny(), 2: replace(MantisConfig.tiny(), version=2, kernel=5)}
both = pytest.mark.parametrize("version", TINY)


def made(version=1, seed=0, **changes):
    return checkpoints.build("mantis", replace(TINY[version], **changes), seed).eval()


def series(samples=3, variates=1, steps=64, seed=0):
    return torch.randn(samples, variates, steps, generator=torch.Generator().manual_seed(seed)).cumsum(-1)


@both
def test_variates_are_embedded_alone_and_laid_side_by_side(version):
    model, x = made(version), series(variates=3)
    alone = torch.cat([model.embed(x[:, [v]]) for v in range(3)], dim=-1)
    torch.testing.assert_close(model.embed(x), alone, atol=1e-5, rtol=1e-5)


@both
def test_missing_values_on_a_straight_line_change_nothing(version):
    model, x = made(version), series()
    x[:, :, 20:31] = torch.linspace(0, 1, 11)
    gappy = x.clone()
    gappy[:, :, 21:30] = torch.nan
    torch.testing.assert_close(model.embed(gappy), model.embed(x), atol=1e-3, rtol=1e-3)


@both
def test_padding_in_front_is_not_part_of_the_series(version):
    model, x = made(version), series(steps=40)
    padded = torch.nn.functional.pad(x, (24, 0), value=torch.nan)
    torch.testing.assert_close(model.embed(padded), model.embed(x), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(model.embed(torch.nn.functional.pad(x, (24, 0))), model.embed(x), atol=1e-2)


@both
def test_level_and_scale_are_seen_by_the_scalar_tokens_alone(version):
    model, x = made(version), series()
    assert not torch.allclose(model.embed(3 * x + 100), model.embed(x), atol=1e-2)
    with torch.no_grad():
        model.tokens.out.weight[:, 2 * model.config.width :] = 0
    torch.testing.assert_close(model.embed(3 * x + 100), model.embed(x), atol=2e-3, rtol=1e-3)


@both
def test_any_layer_and_both_readouts_can_be_asked_for(version):
    model, x = made(version), series()
    cls, mean, combined = (model.embed(x, readout=name) for name in ("cls", "mean", "both"))
    assert torch.equal(torch.cat([cls, mean], dim=-1), combined) and torch.equal(model.embed(x), cls)
    assert torch.equal(model.embed(x, layer=1), cls) and not torch.allclose(model.embed(x, layer=0), cls, atol=1e-2)
    configured = made(version, layer=0, readout="mean")
    configured.load_state_dict(model.state_dict())
    assert torch.equal(configured.embed(x), model.embed(x, 0, "mean"))
    for wrong in ({"readout": "max"}, {"layer": 2}, {"layer": -1}):
        with pytest.raises(TsfmError, match=f"{next(iter(wrong))} must"):
            model.embed(x, **wrong)


@both
def test_the_place_of_a_patch_matters(version):
    """Positions are there: the same patches in another order are another series to the class token."""
    model = made(version)
    with torch.no_grad():
        tokens = model.tokens(series()[:, 0])
        assert not torch.allclose(model.encode(tokens)[0], model.encode(tokens.flip(1))[0], atol=1e-3)
        if version == 1:
            model.positions.zero_()
            torch.testing.assert_close(model.encode(tokens)[0], model.encode(tokens.flip(1))[0], atol=1e-5, rtol=1e-5)


def test_small_changes_on_a_high_level_survive():
    """float32 sums are the released code's; here the shape of a series is the same at any level that float32 can hold."""
    x = torch.round(series(1)[0] * 64) / 64  # exact in float32 at both levels
    scalars_off = lambda model: model.tokens.out.weight.data[:, 2 * model.config.width :].zero_()
    error = {}
    for quirks in ((), ("float32_statistics",)):
        model = made(quirks=quirks)
        scalars_off(model)
        error[quirks] = (model.embed(x[None] + 2**17) - model.embed(x[None])).abs().max().item()
    assert error[()] < 1e-6 and error[("float32_statistics",)] > 1e-5


def test_published_sizes_have_the_published_parameter_counts():
    count = lambda config, head=True: sum(p.numel() for n, p in Mantis(config).named_parameters() if head or not n.startswith("head"))
    with torch.device("meta"):
        assert count(MantisConfig()) == 8_103_936 and count(MantisConfig(), head=False) == 8_037_632
        assert count(MantisConfig.v2()) == 4_188_672
        for name in SIZES:
            assert f"{count(MantisConfig.size(name)) / 1e6:.2f}m" == name


def test_the_loss_is_one_way_info_nce_of_two_crops():
    model, x = made(), series(6)
    one, other = model.views(x[:, 0], torch.Generator().manual_seed(5))
    with torch.no_grad():
        a, b = model.project(one), model.project(other)
        likeness = torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=-1) / model.config.temperature
        expected = torch.nn.functional.cross_entropy(likeness, torch.arange(6))
        assert model.loss(x, torch.Generator().manual_seed(5)).item() == pytest.approx(expected.item(), rel=1e-4)
        two_way = made(symmetric=True).loss(x, torch.Generator().manual_seed(5))
        assert two_way.item() == pytest.approx((expected.item() + info_nce(b, a, 0.1, symmetric=False).item()) / 2, rel=1e-4)
    assert not torch.equal(one, other)


def test_crops_are_one_for_the_batch_or_each_series_its_own():
    x = series(1)[:, 0].expand(8, -1)
    shared, own = (made(crop=crop).views(x, torch.Generator().manual_seed(0))[0] for crop in ("batch", "series"))
    assert (shared == shared[0]).all() and not torch.isclose(own, own[:1]).all(-1)[1:].any()


def test_series_without_observation_have_no_say_in_the_contrast():
    model, x = made(), series(5)
    more = torch.cat([x[:2], torch.full_like(x[:3], torch.nan), x[2:]])
    with torch.no_grad():
        losses = [model.loss(batch, torch.Generator().manual_seed(1)).item() for batch in (x, more)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    with pytest.raises(TsfmError, match="at least two series with observations, got 1"):
        model.loss(torch.cat([x[:1], more[2:5]]))


class Waves:
    """Two sines a series, at frequencies, phases and levels of their own."""

    def __init__(self, batch=32, length=64):
        self.batch, self.length = batch, length

    def __call__(self, step):
        g = torch.Generator().manual_seed(seed_for(0, step, "data"))
        f, phase, level = torch.rand(3, self.batch, 2, generator=g).unbind()
        t = torch.arange(self.length) / self.length
        return torch.sin(6.283 * ((1 + 7 * f[..., None]) * t + phase[..., None])).sum(1, keepdim=True) + level[:, :1, None]


@both
def test_a_tiny_model_learns_to_find_the_other_view(version):
    """On series it never saw; random weights cannot tell 64 series apart by more than chance would."""
    held_out = Waves(64)(10**6)
    model = made(version, crop="series")

    def left(model):
        with torch.no_grad():
            return model.eval().loss(held_out, torch.Generator().manual_seed(9)).item()

    before = left(model)
    run = fit(model, Waves(), recipe(steps=80, batch=32, warmup=5, ema=0.0), progress=False)
    assert before > 0.9 * math.log(64) and left(run.model) < 0.7 * before


def test_lengths_that_do_not_divide_are_refused_in_one_sentence():
    with pytest.raises(TsfmError, match="63 points do not divide into 8 patches"):
        made()(series(steps=63)[:, 0])


def test_configurations_that_cannot_be_are_refused():
    for changes in ({"version": 3}, {"context": 60}, {"patches": 64}, {"kernel": 4}, {"readout": "max"}, {"crop": "row"},
                    {"layer": 2}, {"crop_shares": (0.2, 0.1)}, {"quirks": ("bug",)}, {"version": 2, "heads": 3},
                    {"version": 2, "head_width": 4}):  # fmt: skip
        with pytest.raises(ValueError):
            replace(MantisConfig.tiny(), **changes)
    with pytest.raises(TsfmError, match="no size '8m'"):
        MantisConfig.size("8m")


def test_views_move_what_they_are_told_to_and_nothing_else():
    rows = series(samples=64)[:, 0]
    still = made(crop_shares=(0.0, 0.0), crop="series")
    draw = lambda model: model.views(rows, torch.Generator().manual_seed(0))
    assert all(torch.equal(view, rows) for view in draw(still))
    noisy = [view - rows for view in draw(made(crop_shares=(0.0, 0.0), noise=0.1))]
    share = torch.cat([(n.std(-1) / rows.std(-1)) for n in noisy])
    assert 0.03 < share.mean() < 0.07 and share.max() < 0.14 and noisy[0].mean().abs() < 0.05 * rows.std()
    moved = draw(made(crop_shares=(0.0, 0.0), jitter=0.5))[0]
    correlation = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(moved, rows)])
    assert correlation.median() > 0.7 and not torch.allclose(moved.std(-1), rows.std(-1), rtol=0.1)
    bent = draw(made(crop_shares=(0.0, 0.0), warp=0.3))[0]
    assert bent.amin(-1).ge(rows.amin(-1) - 1e-5).all() and bent.amax(-1).le(rows.amax(-1) + 1e-5).all() and not torch.equal(bent, rows)
    constant = torch.full((4, 64), 3.0)
    assert torch.equal(made(crop_shares=(0.0, 0.0), noise=0.1).views(constant)[0], constant)


def test_a_stride_reads_every_so_many_places_of_the_same_convolution():
    dense, sparse, x = made(), made(stride=4), series()[:, 0]
    seen = []
    for model in (dense, sparse):
        hook = model.tokens.norms[1].register_forward_hook(lambda _, __, out: seen.append(out))
        model.tokens(x)
        hook.remove()
    torch.testing.assert_close(seen[1], seen[0][:, ::4])
    with pytest.raises(ValueError, match="stride must divide a patch of 8 points, got 3"):
        replace(TINY[1], stride=3)


def test_a_hidden_layer_in_the_head_leaves_embeddings_alone():
    plain, deep, x = made(), made(head_hidden=24), series()
    assert [type(part).__name__ for part in deep.head] == ["LayerNorm", "Linear", "GELU", "Linear"]
    deep.load_state_dict({k: v for k, v in plain.state_dict().items() if not k.startswith("head")}, strict=False)
    assert torch.equal(deep.embed(x), plain.embed(x)) and deep.project(x[:, 0]).shape == plain.project(x[:, 0]).shape
