"""Forecasts against what happened: the rows, the batches, the long-horizon protocol, the aggregation."""

import numpy as np
import pandas as pd
import pytest
import torch

from tsfm_lib import data, paths
from tsfm_lib.errors import TsfmError
from tsfm_lib.evaluate import aggregate, forecasting
from tsfm_lib.evaluate.suites import Windows


class Last:
    """The season of points before the forecast, again and again, plus and minus a spread."""

    probabilistic = True

    def __init__(self, season=1, spread=1.0):
        self.season, self.spread, self.batches = season, spread, []

    def for_season(self, season):
        return Last(season, self.spread)

    def predict_quantiles(self, context, horizon, levels):
        self.batches.append(len(context))
        filled = torch.as_tensor(pd.DataFrame(context.reshape(-1, context.shape[-1]).numpy().T).ffill().fillna(0.0).to_numpy().T.copy())
        last = filled[:, -self.season :][:, torch.arange(horizon) % self.season].reshape(*context.shape[:2], horizon, 1)
        return last + self.spread * (torch.tensor(levels) - 0.5)


class Network(torch.nn.Module):
    """A model with weights: forecasts its bias; dropout would show a forgotten eval()."""

    probabilistic = False

    def __init__(self):
        super().__init__()
        self.bias, self.drop = torch.nn.Parameter(torch.ones(1)), torch.nn.Dropout(0.5)

    def predict_quantiles(self, context, horizon, levels):
        assert context.dtype == torch.float32
        return self.drop(self.bias).expand(*context.shape[:2], horizon, len(levels))


def toy(n=10, v=1, horizon=6, seed=0) -> Windows:
    rng = np.random.default_rng(seed)
    contexts = rng.normal(5, 1, (n, v, 40))
    contexts[: n // 2, :, :25] = np.nan
    return Windows(f"toy{seed}", contexts, rng.normal(5, 1, (n, v, horizon)), 4, tuple("abcdefghij"[:n]), np.arange(n))


def test_rows_are_tidy_and_right_by_hand():
    task = Windows("hand", np.array([[[1.0, 3.0, 1.0, 5.0]]]), np.array([[[4.0, 6.0]]]), 1, ("a",), np.array([4]))
    [row] = forecasting.evaluate(Last(spread=0.0), task, variant="last", progress=False).to_dict("records")
    keys = ("variant", "dataset", "horizon", "unit", "series", "start", "seed")
    assert [row[key] for key in keys] == ["last", "hand", 2, "a@4", "a", 4, 0]
    assert row["MAE"] == 1.0 and row["MSE"] == 1.0 and row["MASE"] == pytest.approx(1 / (8 / 3)) and row["WQL"] == pytest.approx(0.2)
    assert row["quantile_loss"] == pytest.approx(2.0) and row["abs_target"] == 10.0 and row["seconds"] > 0


@pytest.mark.parametrize("batch", [1, 3, 10, 64])
def test_batch_size_changes_nothing_but_the_time(batch):
    run = lambda b: forecasting.evaluate(Last(), [toy(seed=0), toy(v=2, seed=1)], batch=b, progress=False).drop(columns="seconds")
    pd.testing.assert_frame_equal(run(batch), run(64))
    assert len(run(batch)) == 20


def test_the_season_of_each_task_reaches_the_model():
    direct = forecasting.predict(Last(4), toy().contexts, 6)
    rows = forecasting.evaluate(Last(1), toy(), progress=False)
    expected = np.abs(toy().targets - direct[..., 4]).mean((1, 2))
    np.testing.assert_allclose(rows["MAE"], expected)


def test_a_model_with_weights_gets_its_own_precision_and_is_evaluated_in_eval_mode():
    network = Network().train()
    forecast = forecasting.predict(network, toy().contexts, 3, batch=4)
    assert (forecast == 1).all() and forecast.dtype == np.float64 and network.training
    rows = forecasting.evaluate(network, toy(), progress=False)
    assert not rows["probabilistic"].any() and set(rows["variant"]) == {"Network"}


def test_a_wrong_or_broken_forecast_is_refused():
    class Flat(Last):
        def predict_quantiles(self, context, horizon, levels):
            return super().predict_quantiles(context, horizon, levels)[:, 0]

    class Broken(Last):
        def predict_quantiles(self, context, horizon, levels):
            return super().predict_quantiles(context, horizon, levels).log()

    with pytest.raises(TsfmError, match=r"returned \[10, 6, 9\], expected \[10, 1, 6, 9\]"):
        forecasting.predict(Flat(), toy().contexts, 6)
    with pytest.raises(TsfmError, match="missing or infinite"):
        forecasting.predict(Broken(), -toy().contexts, 6)
    with pytest.raises(TsfmError, match="predict_quantiles"):
        forecasting.evaluate(object(), toy())
    for tasks, got in (("ucr", "'ucr'"), ("nile", "'nile'"), (data.load("nile"), "SeriesSet")):
        with pytest.raises(TsfmError, match=f"got {got}: a data set becomes windows by last_windows"):
            forecasting.evaluate(Last(), tasks)
    with pytest.raises(TsfmError, match="did you mean 'local'"):
        forecasting.evaluate(Last(), "locla")


def test_long_horizon_protocol_drops_no_window_and_scales_by_train_only():
    rng = np.random.default_rng(0)
    values = rng.normal(3, 2, (2, 200)).cumsum(1)
    found = data.as_series_set(pd.DataFrame(values.T, columns=["a", "b"]))
    [windows] = forecasting.rolling(found, context=24, horizon=10)
    test = found.split("test")
    assert len(windows) == (test.stop - test.start) - 10 + 1
    z = (values - values[:, :140].mean(1, keepdims=True)) / values[:, :140].std(1, keepdims=True)
    np.testing.assert_allclose(windows.contexts[0], z[:, test.start - 24 : test.start])
    np.testing.assert_allclose(windows.targets[-1], z[:, -10:])
    counts = {b: len(forecasting.evaluate(Last(), windows, batch=b, progress=False)) for b in (1, 7, 32)}
    assert set(counts.values()) == {len(windows)}
    apart = forecasting.rolling(found, 24, 10, joint=False)
    assert [w.series[0] for w in apart] == ["a", "b"] and np.array_equal(apart[1].contexts, windows.contexts[:, 1:])
    both = forecasting.evaluate(Last(), apart, progress=False)["MSE"].mean()
    assert both == pytest.approx(forecasting.evaluate(Last(), windows, progress=False)["MSE"].mean())


def test_rolling_options_thin_the_same_windows():
    found = data.as_series_set(np.arange(100.0))
    every = forecasting.rolling(found, 8, 4, scale=False)[0]
    assert np.array_equal(forecasting.rolling(found, 8, 4, stride=3, scale=False)[0].starts, every.starts[::3])
    few = forecasting.rolling(found, 8, 4, count=3, scale=False)[0]
    assert few.starts.tolist() == [every.starts[0], every.starts[len(every) // 2], every.starts[-1]]
    assert np.array_equal(few.targets[:, 0, 0], few.starts) and np.array_equal(few.contexts[:, 0, -1], few.starts - 1.0)
    long = forecasting.rolling(found, 95, 4, scale=False)[0]
    assert np.isnan(long.contexts[0, 0, :15]).all() and long.contexts[0, 0, 15] == 0
    with pytest.raises(TsfmError, match="fewer than the horizon"):
        forecasting.rolling(found, 8, 40)


@pytest.mark.skipif(paths.data_folder() is None, reason="TSFM_DATA is not set: no benchmark series here")
def test_etth1_has_the_windows_of_the_literature():
    [windows] = forecasting.rolling(data.load("ETTh1"), 96, 96)
    assert windows.contexts.shape == (2785, 7, 96) and windows.contexts.base is not None


def test_last_windows_lie_back_to_back_and_keep_what_can_be_judged():
    ragged = data.as_series_set([np.arange(30.0), np.arange(7.0), np.r_[np.arange(20.0), [np.nan] * 4]])
    found = forecasting.last_windows(ragged, horizon=4, context=10, count=2)
    assert len(found) == 4                              # 2 + 1 (too short for two) + 1 (the last future is all missing)
    assert found.targets[0, 0].tolist() == [22.0, 23.0, 24.0, 25.0] and found.targets[1, 0, 0] == 26.0
    with pytest.raises(TsfmError, match="shorter horizon"):
        forecasting.last_windows(data.as_series_set(np.arange(5.0)), horizon=9)


def test_windows_are_cut_from_whatever_holds_series_and_a_season_is_never_guessed_from_nought():
    x = np.arange(60.0)
    for cut in (lambda found: forecasting.rolling(found, 8, 4)[0], lambda found: forecasting.last_windows(found, 4, 8)):
        np.testing.assert_array_equal(cut(x).targets, cut(data.as_series_set(x)).targets)
    assert forecasting.last_windows(x, 4, season=12).season == 12
    with pytest.raises(TsfmError, match="the season should be a whole number, 1 or more, got 0"):
        forecasting.last_windows(x, 4, season=0)


def test_summary_is_a_mean_for_mase_and_a_ratio_of_sums_for_wql():
    rows = forecasting.evaluate(Last(), [toy(seed=0), toy(seed=1)], progress=False)
    table = aggregate.summary(rows).set_index("dataset")
    first = rows[rows["dataset"] == "toy0"]
    assert table.loc["toy0", "windows"] == 10 and table.loc["toy0", "MASE"] == pytest.approx(first["MASE"].mean())
    assert table.loc["toy0", "WQL"] == pytest.approx(first["quantile_loss"].sum() / first["abs_target"].sum())
    assert table.loc["toy0", "seconds"] == pytest.approx(first["seconds"].sum())
    assert "start" not in table


def test_geometric_mean_of_ratios_does_not_depend_on_the_reference():
    tasks = [toy(seed=s) for s in range(4)]
    spread = {"seasonal-naive": 0.0, "narrow": 0.5, "wide": 3.0}
    rows = pd.concat([forecasting.evaluate(Last(spread=s), tasks, variant=name, progress=False) for name, s in spread.items()])
    one = aggregate.geometric_mean(aggregate.relative(rows)).set_index("variant")
    other = aggregate.geometric_mean(aggregate.relative(rows, to="wide")).set_index("variant")
    assert one.loc["seasonal-naive", ["MASE", "WQL"]].tolist() == [1.0, 1.0]
    ratio = lambda table: table.loc["narrow", "WQL"] / table.loc["seasonal-naive", "WQL"]
    assert ratio(one) == pytest.approx(ratio(other))
    three = aggregate.geometric_mean(aggregate.relative(rows), leave_out=["toy3"]).set_index("variant")
    assert three["datasets"].tolist() == [3, 3, 3] and three.loc["narrow", "WQL"] != one.loc["narrow", "WQL"]


def test_a_missing_reference_is_named():
    rows = forecasting.evaluate(Last(), toy(), variant="naive", progress=False)
    with pytest.raises(TsfmError, match="no rows of 'seasonal-naive'"):
        aggregate.relative(rows)
    more = pd.concat([rows, forecasting.evaluate(Last(), toy(seed=1), variant="seasonal-naive", progress=False)])
    with pytest.raises(TsfmError, match="no row on toy0"):
        aggregate.relative(more)


@pytest.mark.skipif(paths.data_folder() is None, reason="TSFM_DATA is not set: the published rows are not here")
def test_gift_eval_headlines_are_recomputed_from_the_published_rows():
    rows = pd.read_csv(paths.data_folder() / "leaderboard" / "gift_eval_rows.csv")
    metric = {"MASE[0.5]": "MASE", "CRPS": "WQL"}
    rows = rows.rename(columns={"model": "variant", "config": "dataset", **metric})
    reference = next(name for name in rows["variant"].unique() if name.lower().replace("-", "_") == "seasonal_naive")
    means = aggregate.geometric_mean(aggregate.relative(rows, to=reference)).set_index("variant").round(4)
    assert means.loc["Kairos_50m", ["datasets", "MASE", "WQL"]].tolist() == [97, 0.7422, 0.5482]
    assert means.loc["chronos-2", ["MASE", "WQL"]].tolist() == [0.6978, 0.4854]
