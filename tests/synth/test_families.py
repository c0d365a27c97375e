"""Each family is what its name says: finite, of any length, reproducible, and with the statistics of the textbook."""

import numpy as np
import pytest
from statsmodels.tsa.arima_process import arma_acf

from tsfm_lib.errors import TsfmError
from tsfm_lib.synth import chaos, families, loops, shapes

EVERY = pytest.mark.parametrize("name", families.FAMILIES)


def correlation(x, lag):
    x = x - x.mean(1, keepdims=True)
    return (x[:, lag:] * x[:, :-lag]).mean(1) / (x ** 2).mean(1)


@EVERY
def test_same_seed_same_bytes(name):
    draw = lambda seed: families.FAMILIES[name](30, 200, np.random.default_rng(seed))
    assert draw(1).tobytes() == draw(1).tobytes() != draw(2).tobytes()


@EVERY
@pytest.mark.parametrize("length", [16, 37, 300])
def test_series_are_finite_at_any_length(name, length):
    for seed in range(8):
        x = families.FAMILIES[name](60, length, np.random.default_rng(seed))
        assert x.shape == (60, length) and x.dtype == np.float32 and np.isfinite(x).all()
        z = shapes.zscore(x)
        sd = z.std(1)
        assert np.isfinite(z).all() and ((np.abs(sd - 1) < 0.05) | (sd < 0.05) | (np.abs(z).max(1) == 30)).all()


@EVERY
def test_a_family_can_make_no_series_or_one(name):
    for n in (0, 1):
        assert families.FAMILIES[name](n, 64, np.random.default_rng(0)).shape == (n, 64)


def test_zscore_leaves_no_constant_and_no_nan():
    x = np.stack([np.full(50, 7.3), np.arange(50.0), 1e6 + np.sin(np.arange(50))])
    z = shapes.zscore(x)
    assert (z[0] == 0).all() and np.allclose(z[1:].mean(1), 0, atol=1e-5) and np.allclose(z[1:].std(1), 1, atol=1e-4)


@pytest.mark.parametrize("period", [7.0, 24.0, 50.5])
def test_seasonal_series_have_their_power_at_the_period_and_its_harmonics(period):
    n, length = 200, 2020
    x = families.seasonal_pattern(n, length, np.random.default_rng(0), np.full(n, period))
    power = np.abs(np.fft.rfft((x - x.mean(1, keepdims=True)) * np.hanning(length))) ** 2
    cycles = power.argmax(1) / length * period
    assert (np.abs(cycles - np.round(cycles)) < 0.1).mean() > 0.93
    assert (np.round(cycles) == 1).mean() > 0.4 and np.round(cycles).max() <= 6


def test_profiles_repeat_by_week_when_steady():
    n, period = 200, 12
    x = families.repeated_profile(n, 840, np.random.default_rng(1), np.ones(n, bool), np.full(n, period))
    x = x[x.std(1) > 0]                                          # a pulse narrower than a step can fall between the steps
    week = correlation(x, 7 * period)
    assert len(x) > 0.97 * n and np.median(week) > 0.85 and (week > correlation(x, 7 * period + 5)).mean() > 0.95


def test_repeats_come_back_after_their_cycle_and_no_sooner():
    x = families.repeats(300, 512, np.random.default_rng(3))
    alike = np.stack([correlation(x, lag) for lag in range(1, 65)]) > 0.8
    cycle = alike.argmax(0) + 1
    multiple = np.arange(1, 65)[:, None] % cycle == 0
    assert alike.any(0).all() and (x.std(1) > 0.9).all() and len(set(cycle)) > 40
    assert np.mean((alike == multiple).all(0)) > 0.9             # the others are smooth, and alike a step beside


def test_solar_series_have_exactly_zero_nights_that_come_back_every_day():
    x = families.solar(100, 1024, np.random.default_rng(0))
    dark = (x == 0).mean(1)
    assert (x >= 0).all() and (dark > 0.3).all() and (dark < 0.8).all() and (x.max(1) > 0).all()
    night = (x == 0).astype(float)
    best = np.max([correlation(night, period) for period in (24, 48, 96, 144, 288)], axis=0)
    assert (best > 0.6).all()


def test_templates_hold_almost_exact_cycles_and_exact_floors():
    x = families.templates(600, 1024, np.random.default_rng(2))
    z = shapes.zscore(x)
    weekly = np.min([((z[:, 7 * p:] - z[:, :-7 * p]) ** 2).mean(1) for p in (7, 12, 24, 48)], axis=0)
    assert (weekly < 0.01).mean() > 0.03
    assert ((x == 0).mean(1) > 0.2).mean() > 0.08


@pytest.mark.parametrize("phi, theta", [((0.8, 0.0), 0.0), ((1.2, -0.5), 0.4), ((0.3, 0.2), -0.6), ((0.0, 0.0), 0.7)])
def test_arma_recursion_has_the_autocorrelation_of_theory(phi, theta):
    n, length = 200, 2000
    shocks = np.random.default_rng(0).standard_normal((n, length + 200), np.float32)
    x = loops.filter_arma(shocks, np.tile(phi, (n, 1)), np.full(n, theta))[:, 200:]
    exact = arma_acf([1, -phi[0], -phi[1]], [1, theta], 6)
    assert np.allclose([correlation(x, lag).mean() for lag in range(1, 6)], exact[1:], atol=0.01)


def test_walks_have_unit_roots_and_arma_does_not():
    slow = lambda x: correlation(shapes.zscore(x), 1)
    steps = families.walks(400, 1000, np.random.default_rng(0))
    assert np.median(slow(steps)) > 0.98
    assert np.median(slow(families.arma(400, 1000, np.random.default_rng(0)))) < 0.96


def test_ets_without_shocks_is_line_plus_season():
    season = np.array([[1.0, -2.0, 1.0, 0.0]])
    quiet = loops.ets(np.zeros((1, 12), np.float32), *np.array([[0.5], [0.1], [0.2], [1.0]]), np.array([0.5]), season, np.array([4]))
    assert np.allclose(quiet[0], 0.5 * np.arange(1, 13) + np.tile(season[0], 3), atol=1e-6)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0])
def test_the_local_level_model_has_the_increments_of_theory(alpha):
    """y_t - y_{t-1} = e_t - (1 - alpha) e_{t-1}."""
    n, one = 100, np.ones(100)
    shocks = np.random.default_rng(0).standard_normal((n, 2000), np.float32)
    steps = np.diff(loops.ets(shocks, alpha * one, 0 * one, 0 * one, one, 0 * one, np.zeros((n, 1)), np.ones(n, np.int64)), axis=1)
    assert abs(steps.var() / (1 + (1 - alpha) ** 2) - 1) < 0.02
    assert abs(correlation(steps, 1).mean() + (1 - alpha) / (1 + (1 - alpha) ** 2)) < 0.01


def test_ets_seasons_return_at_their_period():
    x = shapes.zscore(np.diff(families.ets(600, 600, np.random.default_rng(0)), axis=1))
    strong = [correlation(x, m) for m in (4, 5, 7, 12, 24, 52)]
    assert (np.max(strong, axis=0) > 0.5).mean() > 0.4


def test_counts_are_whole_and_not_negative():
    x = families.counts(400, 500, np.random.default_rng(0))
    assert (x >= 0).all() and (x == np.round(x)).all()
    assert (x == 0).mean(1).max() > 0.8 and x.mean(1).max() > 30


def test_runge_kutta_errors_fall_with_the_fourth_power_of_the_step():
    start, usual = np.array([[1.0, 0.5, 0.0]]), np.array([chaos.SYSTEMS["van_der_pol"][1]])
    at = lambda substeps: chaos.trajectories("van_der_pol", start, usual, np.array([0.5]), 11, substeps)[0, -1, :2]
    errors = [np.abs(at(k) - at(1024)).max() for k in (8, 16, 32)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (np.abs(orders - 4) < 0.35).all()


def test_lorenz_keeps_to_its_two_wings():
    (step, usual), rng = chaos.SYSTEMS["lorenz"], np.random.default_rng(0)
    path = chaos.trajectories("lorenz", rng.normal(1, 0.5, (20, 3)), np.tile(usual, (20, 1)), np.full(20, step / 3), 2000)[:, 200:]
    assert np.abs(path[..., :2]).max() < 30 and path[..., 2].min() > 0 and path[..., 2].max() < 55
    assert 0.3 < (path[..., 0] > 0).mean() < 0.7


def test_an_unknown_system_is_refused_with_the_nearest():
    with pytest.raises(TsfmError, match="lorenz"):
        chaos.trajectories("lorentz", np.ones((1, 3)), np.ones((1, 3)), np.ones(1), 5)
