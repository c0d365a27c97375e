"""Baselines: known answers on series with known structure, and no series that breaks them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsfm_lib.models import BASELINES
from tsfm_lib.models.baselines import ETS, DLinearFit, Naive, RidgeLags, SeasonalNaive, Theta, season_of

LEVELS = [0.1, 0.5, 0.9]
ALL = {name: entry.model_class()(**entry.options) for name, entry in BASELINES.items()}


def tensor(x):
    return torch.as_tensor(np.asarray(x, dtype=float))[None, None]


def seasonal(n, m, noise=0.1, trend=0.0, seed=0):
    rng, t = np.random.default_rng(seed), np.arange(n)
    return 10 + trend * t + 3 * np.sin(2 * np.pi * t / m) + noise * rng.normal(size=n)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("x", [
    [3.0], [1.0, 2.0], [5.0] * 60, [0.0] * 60, np.arange(30.0), -np.arange(40.0) ** 2, [np.nan] * 10, [1e-9] * 3 + [1e9] * 3,
    np.where(np.arange(80) % 7 == 0, np.nan, seasonal(80, 12)), np.random.default_rng(0).poisson(0.2, 90).astype(float),
    1e12 + np.arange(50) % 5, np.r_[np.full(50, np.nan), 4.0],
], ids=["one", "two", "constant", "zeros", "line", "parabola", "missing", "jump", "gaps", "counts", "offset", "late"])  # fmt: skip
def test_no_series_breaks_a_baseline(name, x):
    q = ALL[name].predict_quantiles(tensor(x), 9, LEVELS)
    assert q.shape == (1, 1, 9, 3) and q.isfinite().all() and (q.diff(dim=-1) >= 0).all()
    if np.isnan(x).all():
        assert (q == 0).all()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(st.floats(-1e5, 1e5), st.just(float("nan"))), min_size=1, max_size=60), st.integers(1, 20))
def test_any_list_of_numbers_has_a_ridge_and_a_seasonal_forecast(values, horizon):
    for name in ("seasonal-naive-intervals", "ridge-lags", "dlinear-fit"):
        assert ALL[name].predict_quantiles(tensor(values), horizon, LEVELS).isfinite().all()


def test_naive_and_seasonal_naive_by_hand():
    x = tensor([1, 2, 3, 4, np.nan])
    assert Naive().predict_quantiles(x, 2, [0.5]).flatten().tolist() == [4, 4]
    assert SeasonalNaive(2).predict_quantiles(x, 5, [0.5]).flatten().tolist() == [4, 4, 4, 4, 4]  # the gap carries 4 on
    assert SeasonalNaive(3).predict_quantiles(tensor([1, 2, 3, 4, 5, 6]), 4, [0.5]).flatten().tolist() == [4, 5, 6, 4]


def test_seasonal_intervals_widen_with_the_root_of_the_season_and_cover():
    rng = np.random.default_rng(0)
    walks = np.cumsum(rng.normal(size=(300, 220)), axis=1)
    context, future = torch.as_tensor(walks[:, None, :200]), walks[:, 200:]
    q = SeasonalNaive(1, intervals=True).predict_quantiles(context, 20, LEVELS)[:, 0].numpy()
    width = (q[..., 2] - q[..., 0]).mean(0)
    np.testing.assert_allclose(width / width[0], np.sqrt(np.arange(1, 21)), rtol=1e-6)
    assert ((future > q[..., 0]) & (future < q[..., 2])).mean() == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize("model", [RidgeLags(12), ETS(12), Theta(12), DLinearFit(12)], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("level", [50, -100], ids=["positive", "negative"])
def test_a_trend_with_a_season_is_continued(model, level):
    truth = level + seasonal(180 + 12, 12, noise=0, trend=0.05)
    noisy = level + seasonal(180, 12, noise=0.2, trend=0.05)
    q = model.predict_quantiles(tensor(noisy), 12, LEVELS)[0, 0].numpy()
    baseline = SeasonalNaive(12).predict_quantiles(tensor(noisy), 12, [0.5])[0, 0, :, 0].numpy()
    assert np.abs(q[:, 1] - truth[180:]).mean() < 0.8 * np.abs(baseline - truth[180:]).mean()
    assert 0.2 < (q[:, 2] - q[:, 0]).mean() < 2.5


@pytest.mark.parametrize("name", ["ridge-lags", "ets", "theta", "dlinear-fit"])
def test_units_and_levels_do_not_matter(name):
    x = seasonal(120, 12)
    f = lambda v: ALL[name].for_season(12).predict_quantiles(tensor(v), 6, LEVELS)
    np.testing.assert_allclose(f(1000 * x), 1000 * f(x), rtol=2e-2)


def test_ets_agrees_with_statsmodels_own_intervals():
    import pandas as pd
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    x = seasonal(120, 12)
    z = pd.Series((x - x.mean()) / x.std())
    fit = ETSModel(z, error="add", trend="add", damped_trend=True, seasonal="add", seasonal_periods=12,
                   initialization_method="heuristic").fit(disp=False, maxiter=200)  # fmt: skip
    theirs = fit.get_prediction(120, 125).pred_int(alpha=0.2).to_numpy() * x.std() + x.mean()
    np.testing.assert_allclose(ETS(12).predict_quantiles(tensor(x), 6, [0.1, 0.9])[0, 0], theirs, rtol=1e-5)


def test_ridge_on_a_noiseless_recursion_is_nearly_exact():
    x = np.zeros(200)
    x[:2] = 1.0, 0.5
    for t in range(2, 200):
        x[t] = 1.9 * x[t - 1] - x[t - 2]
    q = RidgeLags(20, penalty=1e-9).predict_quantiles(tensor(x[:180]), 20, [0.5])[0, 0, :, 0]
    np.testing.assert_allclose(q, x[180:], atol=1e-3)


def test_the_closed_form_leave_one_out_error_is_the_honest_one():
    x, model = seasonal(70, 5, noise=0.5), DLinearFit(5, penalty=0.01)
    _, _, windows, targets, _ = model.windows(x, 3)
    inputs = model.features(windows)
    gram = inputs.T @ inputs + model.penalty * len(inputs) * np.eye(inputs.shape[1])
    full = targets - inputs @ np.linalg.solve(gram, inputs.T @ targets)
    leverage = (inputs @ np.linalg.inv(gram) * inputs).sum(1, keepdims=True)
    keep = np.arange(len(inputs)) != 7
    without = np.linalg.solve(gram - np.outer(inputs[7], inputs[7]), inputs[keep].T @ targets[keep])
    np.testing.assert_allclose((full / (1 - leverage))[7], targets[7] - inputs[7] @ without, rtol=1e-6)


def test_for_season_returns_a_copy():
    first = SeasonalNaive(intervals=True)
    second = first.for_season(7)
    assert (first.season, second.season, second.intervals) == (None, 7, True)
    assert not hasattr(Naive(), "for_season")


@pytest.mark.parametrize("season", [0, -12])
def test_a_season_that_is_no_number_of_points_is_refused(season):
    with pytest.raises(ValueError, match="the season should be a whole number, 1 or more"):
        Theta(season)


@pytest.mark.parametrize("m", [4, 7, 12, 24, 48])
def test_seasons_are_found_under_noise_and_trend(m):
    found = [season_of(seasonal(512, m, noise=1.0, trend=0.02, seed=s)) for s in range(20)]
    assert np.mean(np.abs(np.array(found) - m) <= m // 24) >= 0.9


def test_of_a_day_within_a_week_the_day_is_found():
    t, rng = np.arange(24 * 7 * 5), np.random.default_rng(0)
    x = np.sin(2 * np.pi * t / 24) * (1 + 0.3 * ((t // 24) % 7 > 4)) + 0.1 * rng.normal(size=len(t))
    assert season_of(x) == 24


def test_white_noise_has_no_season():
    rng = np.random.default_rng(0)
    assert all(season_of(rng.normal(size=300)) == 1 for _ in range(50))


def test_levels_outside_the_unit_interval_are_refused():
    with pytest.raises(ValueError, match="levels between 0 and 1"):
        Naive().predict_quantiles(tensor([1, 2]), 3, [0.0])
