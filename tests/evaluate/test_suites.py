"""The windows of a suite are fixed: by count, by place, and by a checksum over their values."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from tsfm_lib import checkpoints, front, paths
from tsfm_lib.errors import TsfmError
from tsfm_lib.evaluate import forecasting, suites
from tsfm_lib.models import MODELS

needs_data = pytest.mark.skipif(paths.data_folder() is None, reason="TSFM_DATA is not set: no benchmark series here")

COUNTS = {
    "ETTh1": 119, "ETTh2": 119, "ETTm1": 119, "ETTm2": 118, "weather": 120, "nyc_taxi_30min": 60, "exchange_rate": 120,
    "m4_hourly": 120, "tourism_monthly": 120, "m3_monthly": 120, "electricity_weekly": 120, "traffic_weekly": 120,
    "solar_weekly": 120, "nn5_daily": 108, "us_births": 80, "saugeenday": 80, "sunspot": 80,
    "aus_electricity_demand_1": 100, "vic_elec": 100, "pjm_load_2023": 100, "ecl_203ch_1000h": 120, "solar_al_test20": 120,
    "beijing_pm25": 96, "m1_monthly": 120, "m3_quarterly": 120, "m1_quarterly": 120, "fred_md": 107, "tourism_yearly": 120,
    "bitcoin_usd_daily": 60,
}  # fmt: skip


def mark(windows: suites.Windows) -> str:
    """Short enough to read, long enough to notice."""
    digest = hashlib.sha256()
    for array in (windows.contexts, windows.targets):
        digest.update(np.round(np.nan_to_num(array, nan=-1.0), 6).tobytes())
    return digest.hexdigest()[:8]


def check(windows: suites.Windows, task: suites.Task):
    assert windows.contexts.shape == (len(windows), 1, task.context) and windows.targets.shape == (len(windows), 1, task.horizon)
    assert len(set(windows.units)) == len(windows) == len(windows.starts)
    assert np.isfinite(windows.targets).all() and (np.isfinite(windows.contexts).sum((1, 2)) > 8).all()


@needs_data
@pytest.mark.parametrize("name, total", [("local", 1843), ("fresh", 1283)])
def test_benchmark_suites_have_their_published_windows(name, total):
    found = {task.dataset: task.load() for task in suites.suite(name)}
    assert {dataset: len(windows) for dataset, windows in found.items()} == {dataset: COUNTS[dataset] for dataset in found}
    assert sum(len(windows) for windows in found.values()) == total
    for task in suites.suite(name):
        check(found[task.dataset], task)


@needs_data
def test_a_task_loads_alone_what_it_loads_in_the_suite():
    """The draw depends on what earlier tasks drew from, not on whether they were loaded."""
    local = {task.dataset: task for task in suites.LOCAL}
    assert mark(local["solar_weekly"].load()) == mark(local["solar_weekly"].load())
    assert local["solar_weekly"].before == (414, 366, 1428, 321, 862)
    other = replace(local["solar_weekly"], before=()).load()
    assert other.units != local["solar_weekly"].load().units


@needs_data
def test_local_seasonal_naive_is_the_one_of_the_recipe():
    """MASE and WQL of a seasonal naive written down here, against the numbers the recipes were chosen with."""
    known = {"ETTh1": (1.073, 0.3125), "m3_monthly": (1.119, 0.1429), "us_births": (1.158, 0.0337), "solar_weekly": (1.585, 0.3212)}
    from tsfm_lib.evaluate import metrics

    for task in suites.LOCAL:
        if task.dataset in known:
            windows = task.load()
            last = windows.contexts[..., -task.season :]
            forecast = last[..., np.arange(task.horizon) % task.season]
            scale = metrics.seasonal_scale(windows.contexts, task.season)
            mase = metrics.mase(windows.targets, forecast, scale).mean()
            wql = np.abs(forecast - windows.targets).sum() / np.abs(windows.targets).sum()
            assert (round(mase, 3), round(wql, 4)) == known[task.dataset], task.dataset


def test_embedded_needs_no_data_folder_and_never_changes(monkeypatch):
    monkeypatch.delenv("TSFM_DATA", raising=False)
    monkeypatch.setenv("TSFM_CACHE", "/nonexistent")
    once, again = ([task.load() for task in suites.EMBEDDED] for _ in range(2))
    for task, one, other in zip(suites.EMBEDDED, once, again):
        check(one, task)
        assert mark(one) == mark(other) and one.units == other.units
    assert len({windows.name for windows in once}) == len(once) >= 12
    assert 150 <= sum(len(windows) for windows in once) <= 600


@pytest.mark.parametrize("name", [*front.shipped(), "saved here"])
def test_every_shipped_forecaster_goes_through_the_embedded_suite(name, tmp_path):
    """Every window gets finite numbers, and errors that are not many times those of repeating the last season."""
    if name == "saved here":
        folder = checkpoints.save(checkpoints.build("patchtst", MODELS["patchtst"].config_class().tiny(), seed=0), tmp_path / "m")
    else:
        folder = front.shipped()[name]
    model = front.load(folder)
    if not hasattr(model, "predict_quantiles"):
        pytest.skip(f"{name} does not forecast")
    rows, naive = (forecasting.evaluate(one, "embedded", progress=False) for one in (model, "seasonal-naive"))
    assert rows.groupby("dataset", sort=False).size().to_dict() == {task.dataset: len(task.load()) for task in suites.EMBEDDED}
    assert np.isfinite(rows[["MASE", "WQL", "CRPS", "MSE", "MAE"]]).all(axis=None)
    assert np.exp(np.log(rows["MASE"] / naive["MASE"]).mean()) < (5 if name == "saved here" else 1.5)
    if model.probabilistic:
        assert 0 < rows["coverage"].mean() < 1


def test_other_data_under_the_same_name_are_refused():
    task = replace(suites.EMBEDDED[0], population=999)
    with pytest.raises(TsfmError, match="drawn from 999"):
        task.load()


def test_more_windows_than_the_limit_are_thinned_without_replacement():
    task = suites.Task("sunspots_yearly", 5, 1, count=200, first=0.3)
    windows = task.load()
    assert len(windows) == suites.LIMIT and (np.diff(windows.starts) >= 0).all()
    assert windows.units != replace(task, seed=1).load().units


def test_a_window_is_the_past_beside_its_future():
    from tsfm_lib import data

    values = data.load("nile").series[0][0]
    windows = suites.Task("nile", 8, 1, count=6, first=0.5).load()
    for context, target, start in zip(windows.contexts[:, 0], windows.targets[:, 0], windows.starts):
        np.testing.assert_array_equal(target, values[start : start + 8])
        np.testing.assert_array_equal(context[-start:], values[:start])
        assert np.isnan(context[:-start]).all()


def test_names_are_unique_and_nearest_is_offered():
    for name, tasks in suites.SUITES.items():
        sets = list(tasks) if name == "ucr" else suites.names(tasks)
        assert len(sets) == len(set(sets)) > 0
    assert len(suites.UCR) == 66
    assert not set(suites.names(suites.LOCAL)) & set(suites.names(suites.FRESH))
    with pytest.raises(TsfmError, match="did you mean 'local'"):
        suites.suite("locla")


@needs_data
def test_every_ucr_name_is_in_the_catalogue():
    from tsfm_lib import data

    assert all(data.card(name).task == "classification" and data.available(name) for name in suites.UCR)
