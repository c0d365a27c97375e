"""`python -m tsfm_lib.evaluate`: what a user types, what they see, what they get."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tsfm_lib import paths
from tsfm_lib.evaluate import __main__ as cli


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = cli.main(list(arguments))
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture
def own_file(tmp_path):
    """A user's wide csv: a daily cycle by hours, two channels."""
    t = np.arange(400)
    wave = 10 + 3 * np.sin(2 * np.pi * t / 24)
    noise = np.random.default_rng(0).normal(0, 0.2, (2, 400))
    hours = pd.date_range("2024-01-01", periods=400, freq="h")
    frame = pd.DataFrame({"date": hours, "load": wave + noise[0], "price": 2 * wave + noise[1]})
    path = tmp_path / "my data.csv"
    frame.to_csv(path, index=False)
    return path


def test_embedded_suite_from_a_shell_anywhere_without_data(tmp_path):
    """As a user would: another folder, no data folder, no network needed."""
    environment = {**os.environ, "TSFM_DATA": "", "TSFM_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(paths.ROOT), "TQDM_DISABLE": "1"}
    command = [sys.executable, "-m", "tsfm_lib.evaluate", "forecast", "--model", "naive", "--suite", "embedded", "--out", "rows.csv"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert set(rows["variant"]) == {"seasonal-naive", "seasonal-naive-intervals", "naive"}
    assert "geometric mean, all sets" in done.stdout and "nile" in done.stdout
    assert rows.groupby("variant").size().nunique() == 1 and np.isfinite(rows["MAE"]).all()


def test_a_users_own_file(capsys, own_file, tmp_path):
    out = tmp_path / "rows.csv"
    arguments = ["forecast", "--model", "naive,ridge-lags", "--data", str(own_file), "--horizon", "24", "--context", "240"]
    status, printed, _ = run(capsys, *arguments, "--season", "24", "--windows", "3", "--out", str(out))
    assert status == 0 and f"rows in {out}" in printed and "point forecasts" in printed
    rows = pd.read_csv(out)
    assert len(rows) == 4 * 2 * 3 and set(rows["series"]) == {"load", "price"} and set(rows["start"]) == {328, 352, 376}
    mean = rows.groupby("variant")["MASE"].mean()
    assert mean["ridge-lags"] < mean["naive"] / 3 and mean["seasonal-naive"] < mean["naive"] / 3


def test_what_is_unknown_is_said_in_one_sentence(capsys, tmp_path):
    cases = {
        ("forecast", "--model", "naive", "--data", "nyle", "--horizon", "8"): "nile",
        ("forecast", "--model", "naive", "--data", str(tmp_path / "none.csv"), "--horizon", "8"): "none.csv",
        ("forecast", "--model", "seasonal-naiv", "--data", "nile"): "seasonal-naive",
        ("forecast", "--model", "naive", "--suite", "lokal"): "did you mean 'local'?",
        ("forecast", "--model", "naive", "--suite", "ucr"): "classify --suite ucr",
        ("classify", "--model", "naive", "--suite", "local"): "forecast",
        ("classify", "--model", "naive", "--data", "nile"): "no class labels",
        ("forecast", "--model", "naive", "--data", "trace-embedded", "--horizon", "8"): "classify",
        ("forecast", "--model", "naive", "--data", "nile", "--horizon", "200"): "shorter horizon",
        ("forecast", "--model", "naive", "--data", "nile", "--horizon", "0"): "at least 1, got 0",
        ("forecast", "--model", "naive", "--data", "nile", "--horizon", "8", "--season", "0"): "season should be a whole number",
        ("forecast", "--model", "", "--data", "nile", "--horizon", "8"): "expected one name or several",
        ("classify", "--model", " , ", "--data", "trace-embedded"): "expected one name or several",
        ("classify", "--data", "trace-embedded", "--seeds", "0"): "at least one seed",
        ("forecast", "--model", "naive", "--data", str(tmp_path / "missing.parquet")): "missing.parquet",
        ("forecast", "--model", "naive", "--data", "nile", "--horizon", "8", "--out", str(tmp_path / "no" / "x.csv")): "folder that exists",
        ("forecast", "--model", "naive", "--data", "nile", "--horizon", "8", "--out", str(tmp_path)): "should be a file",
    }
    for arguments, word in cases.items():
        status, printed, error = run(capsys, *arguments)
        assert status == 2 and word in error and len(error.strip().splitlines()) == 1, (arguments, error)


@pytest.mark.parametrize("kind", ["forecast", "classify"])
def test_a_table_of_results_is_nothing_to_judge_a_model_on(capsys, monkeypatch, kind):
    monkeypatch.setattr("tsfm_lib.data.load", lambda name: pd.DataFrame())
    arguments = (kind, "--model", "naive") if kind == "forecast" else (kind,)
    status, _, error = run(capsys, *arguments, "--data", "leaderboard")
    assert status == 2 and "a table of results" in error and "use `" not in error


def test_a_file_in_the_working_directory_does_not_shadow_a_data_set(own_file, monkeypatch):
    monkeypatch.chdir(own_file.parent)
    own_file.rename("nile")
    for name in ("other", "nile.csv"):
        (own_file.parent / name).write_text("t,y\n" + "\n".join(f"{i},{i}" for i in range(9)))
    assert cli.read("nile", "SeriesSet").series[0].shape == (1, 100)
    assert cli.read("nile.csv", "SeriesSet").series[0].shape[1] == 9
    assert cli.read("./nile.csv", "SeriesSet").series[0].shape[1] == 9


def test_a_perfectly_seasonal_file_is_said_to_have_no_ratio(capsys, tmp_path):
    path = tmp_path / "wave.csv"
    pd.DataFrame({"ds": pd.date_range("2024", periods=120, freq="h"), "y": np.tile([1.0, 2.0, 3.0, 4.0], 30)}).to_csv(path, index=False)
    status, printed, _ = run(capsys, "forecast", "--model", "naive", "--data", str(path), "--horizon", "8", "--season", "4")
    assert status == 0 and "left out of the means, where seasonal-naive makes no error or a constant context gives no unit: wave" in printed


def test_a_failed_run_leaves_no_file(capsys, tmp_path):
    out = tmp_path / "rows.csv"
    assert run(capsys, "forecast", "--model", "naive", "--data", "nyle", "--horizon", "8", "--out", str(out))[0] == 2
    assert not out.exists()


@pytest.mark.skipif(paths.data_folder() is None, reason="TSFM_DATA is not set: no benchmark series here")
def test_local_suite_is_given_with_and_without_its_outlier(capsys):
    status, printed, _ = run(capsys, "forecast", "--model", "naive", "--suite", "local")
    assert status == 0
    means = [line.split() for line in printed.splitlines() if line.split()[:1] == ["naive"]]
    assert means[0][1:] == ["17", "1.430", "1.341"] and means[1][1] == "16"            # known from the choice of recipes
    interval = [line.split() for line in printed.splitlines() if line.split()[:1] == ["seasonal-naive-intervals"]]
    assert interval[0][1:] == ["17", "1.000", "0.871"]
    assert "without m4_hourly" in printed and "relative to seasonal-naive-intervals" in printed


def test_classification_of_a_users_own_file(capsys, tmp_path):
    rng, y = np.random.default_rng(0), np.repeat([0, 1], 10)
    series = lambda: (rng.normal(0, 0.3, (20, 30)) + np.outer(2 * y - 1, np.sin(np.arange(30) / 3))).astype(np.float32)
    np.savez(tmp_path / "mine.npz", X_train=series(), y_train=y, X_test=series(), y_test=y)
    out = tmp_path / "rows.csv"
    arguments = ["classify", "--data", str(tmp_path / "mine.npz"), "--readout", "ridge", "--out", str(out)]
    status, printed, error = run(capsys, *arguments)
    assert status == 0, error
    rows = pd.read_csv(out)
    assert {"dataset", "variant", "readout", "seed", "accuracy", "seconds"} <= set(rows) and rows["accuracy"].min() > 0.9
    assert "mine" in printed and "ridge" in printed
