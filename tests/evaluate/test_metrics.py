"""What a metric must do on every input, and agreement with utilsforecast and scoringrules."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tsfm_lib.errors import TsfmError
from tsfm_lib.evaluate import metrics
from tsfm_lib.evaluate.metrics import DECILES

PARTS = ("MASE", "WQL", "CRPS", "MSE", "MAE", "sMAPE", "MSIS", "coverage")


def numbers(shape):
    return hnp.arrays(np.float64, shape, elements=st.floats(-1e3, 1e3).map(lambda x: round(x, 3)))


@st.composite
def cases(draw):
    """Contexts that move, futures, sorted quantile forecasts."""
    b, v, t = draw(st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 6)))
    context = draw(numbers((b, v, 12))) + np.arange(12) ** 2 * 50
    return context, draw(numbers((b, v, t))), np.sort(draw(numbers((b, v, t, 9))), -1)


@settings(max_examples=40, deadline=None)
@given(cases(), st.floats(0.01, 1e4))
def test_mase_wql_and_smape_do_not_depend_on_the_unit_of_measurement(case, unit):
    context, target, forecast = case
    here = metrics.score(target, forecast, DECILES, metrics.seasonal_scale(context, 2))
    there = metrics.score(unit * target, unit * forecast, DECILES, metrics.seasonal_scale(unit * context, 2))
    for name in ("MASE", "WQL", "sMAPE", "MSIS"):
        np.testing.assert_allclose(here[name], there[name], rtol=1e-9, err_msg=name)
    np.testing.assert_allclose(there["MAE"], unit * here["MAE"], rtol=1e-9)
    np.testing.assert_allclose(there["MSE"], unit**2 * here["MSE"], rtol=1e-9)


@settings(max_examples=25, deadline=None)
@given(cases())
def test_a_perfect_forecast_has_no_error(case):
    context, target, _ = case
    found = metrics.score(target, np.repeat(target[..., None], 9, -1), DECILES, metrics.seasonal_scale(context, 2))
    assert found["coverage"].tolist() == [1.0] * len(target)
    for name in ("MASE", "CRPS", "MSE", "MAE", "sMAPE", "MSIS"):
        assert (found[name] == 0).all(), name
    assert (found["WQL"][found["abs_target"] > 0] == 0).all()


@settings(max_examples=25, deadline=None)
@given(cases())
def test_a_point_repeated_at_every_level_scores_its_absolute_error(case):
    context, target, forecast = case
    middle = metrics.point(forecast, DECILES)
    found = metrics.score(target, np.repeat(middle[..., None], 9, -1), DECILES, metrics.seasonal_scale(context, 1))
    np.testing.assert_allclose(found["CRPS"], found["MAE"], rtol=1e-9, atol=1e-9)
    size = np.abs(target).sum((1, 2))
    np.testing.assert_allclose(found["WQL"] * size, np.where(size > 0, np.abs(target - middle).sum((1, 2)), np.nan), rtol=1e-9, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(cases(), st.integers(0, 2**31))
def test_a_missing_step_counts_as_if_it_were_not_there(case, seed):
    context, target, forecast = case
    target, forecast, context = target[:1, :1], forecast[:1, :1], context[:1, :1]
    keep = np.random.default_rng(seed).random(target.shape[2]) < 0.6
    gone = np.where(keep, target, np.nan)
    scale = metrics.seasonal_scale(context, 2)
    with_gaps = metrics.score(gone, forecast, DECILES, scale)
    without = metrics.score(target[..., keep], forecast[..., keep, :], DECILES, scale)
    for name in (*PARTS, "quantile_loss", "abs_target"):
        np.testing.assert_allclose(with_gaps[name], without[name], rtol=1e-12, err_msg=name)
    assert np.isnan(with_gaps["MAE"]).all() == (not keep.any())


def test_left_padding_changes_no_scale_and_a_gap_costs_only_its_pairs():
    x = np.array([1.0, 5.0, 2.0, 7.0, 3.0, 9.0])
    padded = np.concatenate([np.full(4, np.nan), x])
    gap = np.array([1.0, 5.0, np.nan, 7.0, 3.0, 9.0])
    found = metrics.seasonal_scale(np.stack([np.concatenate([np.full(4, np.nan), gap]), padded])[:, None], 2)
    assert found[1, 0] == metrics.seasonal_scale(x[None, None], 2)[0, 0] == 1.5        # |2-1| |7-5| |3-2| |9-7|
    assert found[0, 0] == 2.0                                                          # only 5-7 and 7-9 are left


def test_scale_falls_back_to_season_one_and_then_to_none():
    short = np.array([[[1.0, 2.0, 4.0]]])                       # one pair at lag 2: too few
    repeats = np.array([[[1.0, 3.0, 1.0, 3.0, 1.0, 3.0]]])      # the seasonal naive makes no error
    constant = np.full((1, 1, 6), 7.1)
    assert metrics.seasonal_scale(short, 2)[0, 0] == 1.5
    assert metrics.seasonal_scale(short, 24)[0, 0] == 1.5
    assert metrics.seasonal_scale(repeats, 2)[0, 0] == 2.0
    assert np.isnan(metrics.seasonal_scale(constant, 2)[0, 0])
    assert np.isnan(metrics.mase(np.ones((1, 1, 2)), np.zeros((1, 1, 2)), metrics.seasonal_scale(constant, 2)))


def test_a_gap_in_the_forecast_is_not_forgiven():
    target, forecast = np.ones((1, 1, 3)), np.ones((1, 1, 3, 9))
    forecast[0, 0, 1] = np.nan
    found = metrics.score(target, forecast, DECILES, np.ones((1, 1)))
    assert all(np.isnan(found[name]).all() for name in (*PARTS, "quantile_loss"))


def test_levels_must_fit_the_forecast_and_rise():
    target, forecast = np.ones((1, 1, 3)), np.ones((1, 1, 3, 2))
    for levels, word in (((0.1, 0.5, 0.9), "3 levels"), ((0.9, 0.1), "rise"), ((0.0, 0.5), "between 0 and 1")):
        with pytest.raises(TsfmError, match=word):
            metrics.crps(target, forecast, levels)


def test_shapes_that_only_broadcast_are_refused_and_lag_24_may_be_written_as_a_float():
    """Without the runtime type checks of the test suite, as a user calls them."""
    free = lambda function: getattr(function, "__wrapped__", function)
    y, q = np.ones((4, 1, 3)), np.ones((4, 1, 3, 9))
    calls = [lambda: free(metrics.mse)(y, y[:1]), lambda: free(metrics.mae)(y[0], y[0]), lambda: free(metrics.smape)(y, y[..., :1]),
             lambda: free(metrics.mase)(y, y, np.ones((4, 3))), lambda: free(metrics.pinball)(y, q[:1], DECILES),
             lambda: free(metrics.pinball)(y, q[0], DECILES), lambda: free(metrics.coverage)(y, y, y[0]),
             lambda: free(metrics.crps_samples)(y, q[:1]), lambda: free(metrics.msis)(y, y, y, np.ones((1, 1)))]  # fmt: skip
    for number, call in enumerate(calls):
        with pytest.raises(TsfmError, match=r"should (have one shape \[B, V, T\]|be \[B, V\])"):
            pytest.fail(f"call {number} gave {call()}")
    context = np.random.default_rng(0).normal(size=(2, 1, 60))
    assert (free(metrics.seasonal_scale)(context, 24.0) == metrics.seasonal_scale(context, 24)).all()
    for season in (0, 2.5, "24", None):
        with pytest.raises(TsfmError, match="the season should be a whole number, 1 or more"):
            free(metrics.seasonal_scale)(context, season)


@pytest.mark.parametrize("levels", [0.5, "0.5", ("a", "b"), None, (), [0.1, np.nan], [[0.1, 0.5]]])
def test_levels_are_a_list_of_numbers_between_0_and_1(levels):
    with pytest.raises(TsfmError, match="list of numbers between 0 and 1, got"):
        metrics.checked(levels)


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(5)
    context, target = rng.gamma(2, 3, (4, 1, 60)), rng.gamma(2, 3, (4, 1, 7))
    return context, target, np.sort(rng.gamma(2, 3, (4, 1, 7, 9)), -1)


def test_agrees_with_utilsforecast(world):
    from utilsforecast import losses

    context, target, forecast = world
    ids, steps = np.repeat(np.arange(4), 7), np.tile(np.arange(60, 67), 4)
    frame = pd.DataFrame({"unique_id": ids, "ds": steps, "y": target.ravel()})
    levels = [f"q{i}" for i in range(9)]
    frame[levels] = forecast.reshape(-1, 9)
    frame = frame.assign(m=frame["q4"], **{"m-lo-80": frame["q0"], "m-hi-80": frame["q8"]})
    past = pd.DataFrame({"unique_id": np.repeat(np.arange(4), 60), "ds": np.tile(np.arange(60), 4), "y": context.ravel()})
    ours = metrics.score(target, forecast, DECILES, metrics.seasonal_scale(context, 12))
    q = np.array(DECILES)
    theirs = {
        "MSE": losses.mse(frame, ["m"]), "MAE": losses.mae(frame, ["m"]), "coverage": losses.coverage(frame, ["m"], 80),
        "MASE": losses.mase(frame, ["m"], 12, past), "WQL": losses.scaled_crps(frame, {"m": levels}, q),
    }  # fmt: skip
    for name, table in theirs.items():
        np.testing.assert_allclose(ours[name], table.sort_values("unique_id")["m"], rtol=1e-10, err_msg=name)
    np.testing.assert_allclose(ours["CRPS"] / 2, losses.mqloss(frame, {"m": levels}, q).sort_values("unique_id")["m"], rtol=1e-10)
    half = losses.smape(frame, ["m"]).sort_values("unique_id")["m"]                         # no factor 2 there
    np.testing.assert_allclose(ours["sMAPE"] / 2, half, rtol=1e-10)


def test_agrees_with_scoringrules(world):
    import scoringrules

    _, target, forecast = world
    samples = np.random.default_rng(1).normal(5, 3, (4, 1, 7, 50))
    q = np.array(DECILES)
    mean = lambda values: np.reshape(values, (4, -1)).mean(1)
    theirs = scoringrules.quantile_score(target, forecast[..., 2], 0.3)
    np.testing.assert_allclose(metrics.pinball(target, forecast, DECILES)[..., 2], theirs)
    theirs = scoringrules.crps_quantile(target, forecast, q, backend="numpy")
    np.testing.assert_allclose(metrics.crps(target, forecast, DECILES), mean(theirs))
    for fair, estimator in ((False, "nrg"), (True, "fair")):
        theirs = scoringrules.crps_ensemble(target, samples, estimator=estimator, backend="numpy")
        np.testing.assert_allclose(metrics.crps_samples(target, samples, fair), mean(theirs), rtol=1e-10)
    score = scoringrules.interval_score(target, forecast[..., 0], forecast[..., 8], 0.2, backend="numpy")
    np.testing.assert_allclose(metrics.msis(target, forecast[..., 0], forecast[..., 8], np.full((4, 1), 2.0), 0.2), mean(score) / 2)


def test_crps_by_dense_quantiles_is_the_crps():
    """For a normal forecast the closed form is known; deciles alone leave the tails out."""
    import scoringrules
    from scipy.stats import norm

    target = np.linspace(-2, 2, 9)[None, None]
    exact = scoringrules.crps_normal(target, 0.0, 1.0, backend="numpy").mean()
    at = lambda levels: metrics.crps(target, np.broadcast_to(norm.ppf(levels), (1, 1, 9, len(levels))).copy(), tuple(levels))[0]
    dense, coarse = (np.arange(2000) + 0.5) / 2000, np.array(DECILES)
    assert abs(at(dense) / exact - 1) < 1e-3
    assert 0.05 < abs(at(coarse) / exact - 1) < 0.15
