"""Pools are the same bytes however they are made; batches are pure functions; augmentations do what they say."""

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsfm_lib.errors import TsfmError
from tsfm_lib.synth import families, mixture
from tsfm_lib.synth.mixture import Augmentation, Blend, Hiding, Mixture, Pool, augment, hide, make_pool

STEADY = Blend(together=(1.0,), resampled=0.0)


def pool_of(**series):
    series = {name: np.asarray(x, np.float16) for name, x in series.items()}
    return Pool(series, Mixture.only(**dict.fromkeys(series, 1.0)), next(iter(series.values())).shape[1], 0, "by hand")


@pytest.fixture(scope="module")
def pool():
    return make_pool(Mixture(), 600, 160, seed=3, progress=False)


def same(a, b):
    return a.series.keys() == b.series.keys() and all(a.series[k].tobytes() == b.series[k].tobytes() for k in a.series)


@pytest.mark.parametrize("name", mixture.MIXTURES)
def test_named_mixtures_share_out_every_series(name):
    mix = mixture.MIXTURES[name]
    assert sum(mix.weights.values()) == pytest.approx(1)
    for n in (1, 10, 1001):
        shares = mix.shares(n)
        assert sum(shares.values()) == n
        assert all(abs(shares.get(k, 0) - w * n) < 1 for k, w in mix.weights.items())


def test_the_default_mixture_is_the_recipe():
    w = Mixture().weights
    assert [w["gp"], w["seasonal"], w["templates"], w["arma"] + w["walks"], w["ets"], w["counts"], w["chaos"]] == pytest.approx(
        [0.10, 0.25, 0.36, 0.10, 0.13, 0.05, 0.01])


def test_bad_mixtures_are_refused():
    with pytest.raises(TsfmError, match="seasonal"):
        Mixture.only(seasonl=1)
    with pytest.raises(TsfmError, match="positive"):
        Mixture.only(gp=0)
    with pytest.raises(TsfmError, match="at least 0"):
        Mixture(gp=-1)


def test_fresh_draws_come_from_all_families_and_are_scaled():
    x = Mixture().draw(200, 128, np.random.default_rng(0))
    assert x.dtype == np.float32 and np.isfinite(x).all()
    assert np.abs(x.mean(1)).max() < 1e-2 and (np.abs(x.std(1) - 1) < 1e-2).mean() > 0.95


def test_a_pool_is_scaled_finite_and_shared_out(pool):
    assert len(pool) == 600 and {k: len(x) for k, x in pool.series.items()} == Mixture().shares(600)
    for x in pool.series.values():
        assert x.dtype == np.float16 and np.isfinite(x).all()
        assert np.abs(x.astype(np.float32).mean(1)).max() < 0.05 and (x.astype(np.float32).std(1) > 0.5).all()


def test_workers_do_not_change_the_bytes(pool):
    assert same(pool, make_pool(Mixture(), 600, 160, seed=3, workers=2, progress=False))


def test_a_small_pool_is_the_beginning_of_a_large_one():
    small, large = (make_pool(Mixture.only(ets=1), n, 64, seed=1, progress=False) for n in (100, 700))
    assert (small.series["ets"] == large.series["ets"][:100]).all()
    assert (large.series["ets"][256:512] == mixture.chunk("ets", 1, 64, 1)).all()
    assert not (large.series["ets"][:100] == make_pool(Mixture.only(ets=1), 100, 64, seed=2, progress=False).series["ets"]).all()


def test_a_kept_pool_is_read_again_and_a_damaged_one_is_made_anew(tmp_path, monkeypatch):
    make = lambda: make_pool(Mixture.only(ets=1, walks=1), 80, 64, seed=5, progress=False, folder=tmp_path)
    first = make()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [f"{k}-40x64-seed5-{mixture.version()}.npy" for k in ("ets", "walks")]
    with monkeypatch.context() as patch:
        patch.setitem(families.FAMILIES, "ets", None)                        # would fail if it were called
        assert same(make(), first)
    file = tmp_path / names[0]
    file.write_bytes(file.read_bytes()[:500])
    assert same(make(), first) and file.stat().st_size > 5000
    file.write_bytes(b"")
    assert same(make(), first) and sorted(p.name for p in tmp_path.iterdir()) == names


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(mixture.np, "save", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        make_pool(Mixture.only(ets=1), 10, 64, progress=False, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(mixture.os, "access", lambda *a: False)
    monkeypatch.setitem(families.FAMILIES, "ets", None)
    with pytest.raises(TsfmError, match="cannot be written"):
        make_pool(Mixture.only(ets=1), 10, 64, progress=False, folder=tmp_path)


def test_batches_are_pure_functions_of_pool_and_generator(pool):
    draw = lambda seed: pool.batch(50, 96, np.random.default_rng(seed))
    assert draw(0).tobytes() == draw(0).tobytes() != draw(1).tobytes()
    before = {k: x.tobytes() for k, x in pool.series.items()}
    draw(2)
    assert before == {k: x.tobytes() for k, x in pool.series.items()}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 160), st.integers(1, 40))
def test_batches_have_mean_zero_and_spread_one_or_are_all_zero(pool, seed, length, n):
    x = pool.batch(n, length, np.random.default_rng(seed))
    assert x.shape == (n, length) and x.dtype == np.float32 and np.isfinite(x).all()
    assert np.abs(x.mean(1)).max() < 1e-3
    assert ((np.abs(x.std(1) - 1) < 1e-2) | (x == 0).all(1) | (np.abs(x).max(1) > 29)).all()


def test_a_crop_longer_than_the_pool_is_refused(pool):
    with pytest.raises(TsfmError, match="from 2 to 160"):
        pool.batch(3, 161, np.random.default_rng(0))


def test_families_come_by_weight_whatever_their_number():
    p = Pool({"gp": np.tile(np.arange(50, dtype=np.float16), (5, 1)), "ets": -np.tile(np.arange(50, dtype=np.float16), (95, 1))},
             Mixture.only(gp=3, ets=1), 50, 0, "by hand")
    x, kind = p.batch_of(4000, 20, np.random.default_rng(0), STEADY)
    assert abs((kind == 0).mean() - 0.75) < 0.03 and ((x[:, -1] > x[:, 0]) == (kind == 0)).all()


def test_crops_reach_both_ends_of_the_series():
    spikes = np.zeros((2, 40), np.float16)
    spikes[0, 0] = spikes[1, 39] = 1
    x = pool_of(gp=spikes).batch(3000, 30, np.random.default_rng(0), STEADY)
    assert (x[:, 0] > 2).any() and (x[:, -1] > 2).any() and (x == 0).all(1).any()


def test_a_quarter_is_resampled_within_the_speeds():
    t = np.arange(1024)
    p = pool_of(gp=np.sin(2 * np.pi * t / 32)[None])
    x = p.batch(2000, 512, np.random.default_rng(0), Blend(together=(1.0,)))
    period = 512 / np.abs(np.fft.rfft(x, axis=1)).argmax(1)
    changed = np.abs(period / 32 - 1) > 0.04
    assert 0.17 < changed.mean() < 0.27 and period.min() > 32 / 1.75 and period.max() < 32 / 0.55


def test_mixtures_of_two_lie_between_their_parts():
    t = np.arange(64)
    p = pool_of(gp=np.cos(2 * np.pi * t / 4)[None], ets=np.cos(2 * np.pi * t / 16)[None])
    x = p.batch(3000, 48, np.random.default_rng(0), Blend(together=(0, 1), resampled=0, apart=()))
    power = np.abs(np.fft.rfft(x, axis=1)) ** 2
    share = power[:, 12] / power.sum(1)
    assert (np.abs(power[:, [3, 12]].sum(1) / power.sum(1) - 1) < 1e-2).all()
    assert 0.4 < ((share > 0.02) & (share < 0.98)).mean() < 0.55            # half the pairs are of two kinds
    one_of_three = p.batch(3000, 48, np.random.default_rng(0), Blend(together=(1,), resampled=0, apart=()))
    power = np.abs(np.fft.rfft(one_of_three, axis=1)) ** 2
    assert (power[:, [3, 12]].max(1) / power.sum(1) > 0.99).all()


def test_random_walks_are_never_mixed():
    ramp, zigzag = np.linspace(-1.5, 1.5, 64)[None], np.tile([1.0, -1.0], 32)[None]
    p = pool_of(walks=ramp, gp=zigzag)
    x, kind = p.batch_of(2000, 40, np.random.default_rng(0), Blend(together=(0, 0.5, 0.5), resampled=0))
    bend = np.abs(np.diff(x, n=2, axis=1)).max(1)
    assert (bend[kind == 0] < 0.02).all()
    assert np.allclose(np.abs(x[kind == 1]), 1, atol=1e-3)
    free, kind = p.batch_of(2000, 40, np.random.default_rng(0), Blend(together=(0, 1.0), resampled=0, apart=()))
    assert (np.abs(np.diff(free[kind == 0], n=2, axis=1)).max(1) > 0.1).mean() > 0.3


def test_a_pool_of_walks_alone_still_makes_batches():
    x = pool_of(walks=np.linspace(-1, 1, 32)[None]).batch(20, 16, np.random.default_rng(0))
    assert (np.diff(x) > 0).all()


# ---- augmentation ---------------------------------------------------------------------------------------------------------------

def only(**probabilities):
    return Augmentation(**(dict.fromkeys(asdict(Augmentation()), 0.0) | {"share": 1.0} | probabilities))


@pytest.fixture(scope="module")
def x(pool):
    return pool.batch(400, 120, np.random.default_rng(0))


def test_augmentation_is_pure_keeps_its_input_and_leaves_the_untouched_share_alone(x):
    before = x.tobytes()
    once, again = (augment(x, np.random.default_rng(4)) for _ in range(2))
    assert once.tobytes() == again.tobytes() and x.tobytes() == before
    assert once.dtype == np.float32 and np.isfinite(once).all()
    assert 0.35 < (once == x).all(1).mean() < 0.75
    assert (augment(x, np.random.default_rng(0), only(share=0.0, sign_flip=1.0)) == x).all()


def test_flips_are_exact(x):
    rng = np.random.default_rng(0)
    assert (augment(x, rng, only(sign_flip=1.0)) == -x).all()
    assert (augment(x, rng, only(time_flip=1.0)) == x[:, ::-1]).all()
    half = augment(x, rng, only(sign_flip=0.5))
    assert 0.4 < (half == -x).all(1).mean() < 0.6


def test_the_exponential_keeps_the_order_and_the_scale(x):
    y = augment(x, np.random.default_rng(0), only(exponential=1.0))
    row, z = x[0], y[0]
    assert (np.diff(z[np.argsort(row)]) >= 0).all() and np.abs(y.mean(1)).max() < 1e-3


def test_trends_are_lines_ramps_scale_and_shifts_are_steps(x):
    rng = np.random.default_rng(0)
    assert np.abs(np.diff(augment(x, rng, only(trend=1.0)) - x, n=2)).max() < 1e-4
    ramped = augment(x, rng, only(ramp=1.0))
    assert (np.sign(ramped) == np.sign(x)).all() and np.abs(ramped).max() <= 1.9001 * np.abs(x).max()
    shifted = augment(x, rng, only(level_shift=1.0)) - x
    assert ((np.abs(np.diff(shifted)) > 1e-4).sum(1) <= 1).all() and (np.abs(shifted[:, 0]) < 1e-6).all()


def test_noise_has_the_stated_size_and_spikes_are_few(x):
    rng = np.random.default_rng(0)
    sd = (augment(x, rng, only(noise=1.0)) - x).std(1)
    assert sd.min() > 0.007 and sd.max() < 0.65 and abs(np.median(np.log(sd)) - np.log(0.01 * 0.5) / 2) < 0.3
    spiked = (augment(x, rng, only(spikes=1.0)) != x).mean(1)
    assert spiked.max() < 0.08 and 0.005 < spiked.mean() < 0.02


def test_floors_and_ceilings_cut_at_an_observed_value_and_quantised_values_are_few(x):
    rng = np.random.default_rng(0)
    floor, ceiling = augment(x, rng, only(floor=1.0)), augment(x, rng, only(ceiling=1.0))
    assert (floor >= x).all() and (ceiling <= x).all()
    assert ((floor == floor.min(1, keepdims=True)).mean(1) >= 0.04).all()
    assert ((ceiling == ceiling.max(1, keepdims=True)).mean(1) >= 0.04).all()
    coarse = augment(x, rng, only(quantise=1.0))
    assert np.abs(coarse - x).max() <= 0.3001
    assert np.median([len(np.unique(row)) for row in coarse]) < 60


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 100))
def test_hiding_never_touches_the_target_and_leaves_something_to_see(x, seed, context):
    y = hide(x, context, np.random.default_rng(seed))
    assert (y[:, context:] == x[:, context:]).all()
    seen = np.isfinite(y[:, :context])
    assert (seen.sum(1) >= min(8, context)).all()
    assert (y[:, :context][seen] == x[:, :context][seen]).all() and np.isfinite(x).all()


def test_hiding_is_pure_and_by_the_stated_odds():
    x = np.ones((4000, 120), np.float32)
    y = hide(x, 100, np.random.default_rng(1))
    assert y.tobytes() == hide(x, 100, np.random.default_rng(1)).tobytes()
    missing = np.isnan(y[:, :100])
    padded = missing[:, 0] & (missing.argmin(1) > 3)
    assert abs(padded.mean() - 0.45) < 0.06
    first = np.where(missing.all(1), 100, missing.argmin(1))
    assert first.max() <= 100 - 20 + 80
    whole = hide(x, 100, np.random.default_rng(1), Hiding(share=0.0, short=0.0))
    assert np.isfinite(whole).all()
    some = np.isnan(hide(x, 100, np.random.default_rng(1), Hiding(share=1.0, points=1.0, block=0.0, short=0.0))).sum(1)
    assert some.max() < 45 and abs(some[some > 0].mean() - 15) < 1.5
    lengths = 100 - np.isnan(hide(x, 100, np.random.default_rng(1), Hiding(share=0.0, short=1.0))).sum(1)
    assert lengths.min() >= 20 and abs(np.log(lengths).mean() - (np.log(20) + np.log(100)) / 2) < 0.05


def test_a_context_longer_than_the_series_is_refused():
    with pytest.raises(TsfmError, match="context from 1 to the length 10"):
        hide(np.ones((1, 10), np.float32), 11, np.random.default_rng(0))
