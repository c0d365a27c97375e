"""Windows, splits and scaling: statements that hold for every length, context, horizon and stride."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tsfm_lib import data
from tsfm_lib.data.sets import split_rows
from tsfm_lib.errors import TsfmError

sizes = st.integers(1, 40)
# a busy machine is no failure
calm = settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])


@calm
@given(first=st.integers(0, 30), length=st.integers(0, 60), horizon=sizes, stride=st.integers(1, 7))
def test_every_start_fits_and_none_is_left_out(first, length, horizon, stride):
    found = data.starts(first, first + length, horizon, stride=stride).tolist()
    assert found == [s for s in range(first, first + length) if s + horizon <= first + length and (s - first) % stride == 0]


@calm
@given(length=st.integers(2, 200), horizon=st.integers(1, 20), batch=st.integers(1, 64))
def test_the_number_of_windows_does_not_depend_on_the_batch_size(length, horizon, batch):
    every = data.starts(0, length, horizon)
    values = np.arange(float(length))[None]
    targets = [data.windows(values, 8, horizon, every[i : i + batch])[1] for i in range(0, len(every), batch)]
    assert sum(map(len, targets)) == max(0, length - horizon + 1)
    if len(every):
        np.testing.assert_array_equal(np.concatenate(targets), data.windows(values, 8, horizon, every)[1])


@calm
@given(length=st.integers(1, 200), horizon=st.integers(1, 20), count=st.integers(1, 30))
def test_counted_starts_span_the_whole_part_evenly(length, horizon, count):
    every, some = data.starts(0, length, horizon), data.starts(0, length, horizon, count=count)
    assert len(some) == min(count, len(every)) == len(set(some.tolist()))
    if len(some) > 1:
        assert some[0] == every[0] and some[-1] == every[-1]
        assert np.diff(some).max() - np.diff(some).min() <= 1


@calm
@given(st.data(), sizes, sizes, sizes, st.integers(1, 3))
def test_a_window_is_the_past_and_the_future_of_its_start(draw, length, context, horizon, channels):
    horizon = min(horizon, length)
    values = np.arange(float(channels * length)).reshape(channels, length)
    starts = np.array(draw.draw(st.lists(st.integers(0, length - horizon), min_size=0, max_size=5)), dtype=np.int64)
    contexts, targets = data.windows(values, context, horizon, starts)
    assert contexts.shape == (len(starts), channels, context) and targets.shape == (len(starts), channels, horizon)
    for start, past, future in zip(starts, contexts, targets):
        np.testing.assert_array_equal(future, values[:, start : start + horizon])
        known = min(context, start)
        np.testing.assert_array_equal(past[:, context - known :], values[:, start - known : start])
        assert np.isnan(past[:, : context - known]).all()


def test_windows_are_copies():
    values = np.zeros((1, 10))
    contexts, targets = data.windows(values, 4, 2, np.array([4, 5]))
    contexts[:], targets[:] = 1.0, 1.0
    assert not values.any()


def test_windows_refuse_starts_whose_future_is_not_there():
    with pytest.raises(TsfmError, match=r"starts should lie in 0..7 for 10 points and a horizon of 3, got 8..8"):
        data.windows(np.zeros((1, 10)), 4, 3, np.array([8]))
    with pytest.raises(TsfmError, match="horizon, stride and count should be at least 1"):
        data.starts(0, 10, 0)


def test_windows_take_lists_and_whole_numbers():
    contexts, targets = data.windows(np.arange(6)[None], 2, 1, [2, 4])
    assert contexts[:, 0].tolist() == [[0, 1], [2, 3]] and targets[:, 0].tolist() == [[2], [4]]
    assert data.windows(np.zeros((1, 6), np.float32), 2, 1, [2])[0].dtype == np.float32


SCALER = data.Scaler.fit([[1.0, 3.0], [5.0, 5.0]])


@pytest.mark.parametrize(
    "ask, said",
    [
        (lambda: data.windows(np.zeros(10), 4, 1, [5]), r"values should be numbers \[V, T\], got float64 \[10\]: write values\[None\]"),
        (lambda: data.windows(np.zeros((1, 10)), 4, 1, [5.0]), "starts should be a list of row numbers, got float64"),
        (lambda: data.windows(np.zeros((1, 10)), 4, 1, np.array(5)), "starts should be a list of row numbers"),
        (lambda: data.Scaler.fit(np.zeros(10)), r"train rows should be numbers \[V, T\]"),
        (lambda: SCALER.apply(np.zeros(10)), r"expected values \[..., 2, T\] .* got \[10\]"),
        (lambda: SCALER.invert(np.zeros((3, 10))), r"got \[3, 10\]"),
    ],
)  # fmt: skip
def test_arrays_of_another_rank_are_refused(ask, said):
    with pytest.raises(TsfmError, match=said):
        ask()


finite = hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20), elements=st.floats(-1e6, 1e6) | st.just(np.nan))


@calm
@given(finite)
def test_scaling_is_undone_by_its_inverse(values):
    scaler = data.Scaler.fit(values)
    np.testing.assert_allclose(scaler.invert(scaler.apply(values)), values, rtol=1e-9, atol=1e-6)
    assert np.isfinite(scaler.mean).all() and (scaler.std > 0).all()


@calm
@given(finite)
def test_scaled_train_rows_have_mean_zero_and_deviation_one_or_zero(values):
    z = data.Scaler.fit(values).apply(values)
    for row in z:
        seen = row[~np.isnan(row)]
        if seen.size:
            assert abs(seen.mean()) < 1e-3
            assert abs(seen.std() - 1) < 1e-3 or seen.std() < 1e-3


def test_scaling_knows_the_train_rows_only():
    values = np.random.default_rng(0).normal(size=(2, 100))
    changed = values.copy()
    changed[:, 70:] += 1e6
    a, b = (data.Scaler.fit(v[:, split_rows("7:1:2", 100)["train"]]) for v in (values, changed))
    assert np.array_equal(a.mean, b.mean) and np.array_equal(a.std, b.std)


@calm
@given(st.integers(10, 100_000))
def test_the_parts_of_7_1_2_follow_each_other_and_cover_all_rows(length):
    parts = split_rows("7:1:2", length)
    assert parts["train"] == slice(0, int(0.7 * length)) and parts["test"] == slice(length - int(0.2 * length), length)
    assert parts["val"] == slice(parts["train"].stop, parts["test"].start)


def test_ett_parts_are_12_4_4_months_of_30_days():
    assert data.card("ETTh1").splits == data.card("ETTh2").splits == f"{12 * 30 * 24}/{4 * 30 * 24}/{4 * 30 * 24}"
    assert data.card("ETTm1").splits == data.card("ETTm2").splits == f"{12 * 30 * 96}/{4 * 30 * 96}/{4 * 30 * 96}"
    with pytest.raises(TsfmError, match="needs 14400 rows, this set has 100"):
        split_rows(data.card("ETTh1").splits, 100)


def test_the_test_part_of_a_collection_is_the_last_horizon_of_each_series():
    assert split_rows("last-horizon", 20, 6) == {"train": slice(0, 14), "val": slice(14, 14), "test": slice(14, 20)}
    with pytest.raises(TsfmError, match="0 < horizon < 5"):
        split_rows("last-horizon", 5, 6)


def test_wide_and_long_tables_tell_the_same():
    wide = pd.DataFrame({"a": [1.0, 2.0, np.nan], "b": [4.0, 5.0, 6.0]}, index=pd.date_range("2024-01-01", periods=3, freq="D"))
    found = data.as_series_set(wide)
    pd.testing.assert_frame_equal(found.frame(), wide, check_freq=False)
    again = data.as_series_set(found.long())
    assert again.ids == ("a", "b") and again.frequency == "D" and again.season == 7
    for row, series in zip(found.series[0], again.series):
        np.testing.assert_array_equal(row, series[0])
