"""The front door: names, folders and hub ids in; arrays, lists and pandas objects in and out."""

import shutil
import subprocess
import sys
import time
import types
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import pytest
import torch

import tsfm_lib
from tsfm_lib import checkpoints, front
from tsfm_lib.data import fetching
from tsfm_lib.errors import TsfmError
from tsfm_lib.models.baselines import SeasonalNaive
from tsfm_lib.models.scratch import PatchTSTConfig
from tsfm_lib.paths import ROOT

Q = (0.1, 0.5, 0.9)


def python(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def test_importing_costs_next_to_nothing():
    code = """import time; start = time.perf_counter(); import tsfm_lib; took = time.perf_counter() - start
import sys; print(took, 'torch' in sys.modules, 'pandas' in sys.modules)"""
    runs = [python(code) for _ in range(3)]
    assert median(float(r[0]) for r in runs) < 0.3
    assert all(r[1:] == ["False", "False"] for r in runs)


def test_models_is_a_function_even_after_its_package_was_imported():
    code = "import tsfm_lib; import tsfm_lib.models.baselines; print(len(tsfm_lib.models()), tsfm_lib.models.MODELS['dlinear'].name)"
    assert python(code)[1] == "dlinear"


def test_all_that_is_promised_is_there():
    assert {"models", "load", "forecast", "embed", "save", "data", "nn"} <= set(dir(tsfm_lib))
    with pytest.raises(AttributeError, match="no attribute 'fourcast'"):
        tsfm_lib.fourcast  # noqa: B018


def test_the_table_of_models_names_everything_that_loads():
    table = tsfm_lib.models()
    assert list(table.columns) == ["name", "task", "size", "context", "result", "licence"]
    assert table.name.is_unique and (table.licence != "").all()
    assert {"naive", "ets", "patchtst", *front.shipped()} <= set(table.name)


# ---- load ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    return checkpoints.save(checkpoints.build("patchtst", PatchTSTConfig.tiny()), tmp_path / "m")


def refused(action, *words, seconds=None):
    start = time.perf_counter()
    with pytest.raises(TsfmError) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text
    assert seconds is None or time.perf_counter() - start < seconds


def test_names_folders_and_options(folder):
    assert tsfm_lib.load("seasonal-naive", season=7) == SeasonalNaive(7)
    assert tsfm_lib.load("seasonal-naive-intervals").probabilistic
    assert tsfm_lib.load(folder).config == tsfm_lib.load(str(folder)).config == PatchTSTConfig.tiny()
    refused(lambda: tsfm_lib.load("naive", seasons=3), "naive does not take these options", "seasons")


def test_a_folder_in_the_working_directory_does_not_shadow_a_registered_name(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    for name in ("theta", "dlinear", "mine"):
        shutil.copytree(folder, name)
    assert type(tsfm_lib.load("theta")).__name__ == "Theta"
    refused(lambda: tsfm_lib.load("dlinear"), "architecture without weights")
    for place in (Path("theta"), "./theta", "mine", folder.parent / "dlinear"):
        assert tsfm_lib.load(place).config == PatchTSTConfig.tiny()


def test_saved_through_the_front_door(tmp_path):
    model = checkpoints.build("dlinear", {"context": 32, "horizon": 8})
    tsfm_lib.save(model, tmp_path / "d", card={"licence": "CC0"})
    assert tsfm_lib.load(tmp_path / "d").card["licence"] == "CC0"


def test_what_is_not_a_model_is_named(tmp_path):
    refused(lambda: tsfm_lib.load("sesonal-naive"), "did you mean 'seasonal-naive'")
    refused(lambda: tsfm_lib.load("patchtst"), "architecture without weights", "checkpoints.build")
    refused(lambda: tsfm_lib.load(tmp_path), "not a model folder")
    refused(lambda: tsfm_lib.load("./nowhere"), "not a model folder")


def test_a_hub_id_without_the_extra_is_one_sentence_within_a_second(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused(lambda: tsfm_lib.load("mldi-lab/Kairos_10m"), "'mldi-lab/Kairos_10m'", "pip install huggingface_hub", seconds=1)


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the hub's client with a cache of its own; asking it to download is recorded."""
    asked, cached = [], {}

    def snapshot_download(name, local_files_only=False, allow_patterns=None):
        asked.append(local_files_only)
        if name in cached:
            return str(cached[name])
        raise FileNotFoundError("not in the cache") if local_files_only else ConnectionError("down")

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    for name in ("HF_HUB_OFFLINE", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return types.SimpleNamespace(asked=asked, cached=cached)


def test_the_hubs_cache_is_asked_first(hub, folder):
    hub.cached["org/patchtst"] = folder
    assert tsfm_lib.load("org/patchtst").config == PatchTSTConfig.tiny() and hub.asked == [True]


def test_offline_means_no_attempt(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused(lambda: tsfm_lib.load("org/model"), "HF_HUB_OFFLINE", seconds=1)
    assert hub.asked == [True]


@pytest.mark.parametrize("endpoint", ["https://127.0.0.1:9", "https://hub.invalid"])
def test_without_a_network_the_answer_comes_within_a_second(hub, monkeypatch, endpoint):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    refused(lambda: tsfm_lib.load("org/model"), "cannot be reached", endpoint, seconds=1)
    assert hub.asked == [True]


def test_a_network_that_swallows_everything_is_not_waited_for(hub, monkeypatch):
    def swallow(*_, **__):
        time.sleep(1.5)
        raise TimeoutError("no answer")

    monkeypatch.setattr(fetching.socket, "create_connection", swallow)
    refused(lambda: tsfm_lib.load("org/model"), "cannot be reached", seconds=1)


# ---- forecast -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(30,), (3, 30), (2, 3, 30)])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, lambda a: a.astype(np.float32)])
def test_arrays_give_arrays(shape, kind):
    x = np.random.default_rng(0).normal(size=shape)
    found = tsfm_lib.forecast("seasonal-naive", kind(x), 4, Q, season=6)
    assert isinstance(found, np.ndarray) and found.shape == (*shape[:-1], 4, 3)
    np.testing.assert_allclose(found[..., 1], x[..., -6:-2], rtol=1e-6)


def test_a_ragged_list_gives_each_series_its_own_forecast():
    rng = np.random.default_rng(0)
    x = [rng.normal(size=n) for n in (5, 40, 17)] + [rng.normal(size=(2, 9))]
    model = checkpoints.build("patchtst", PatchTSTConfig.tiny())
    for name in ("theta", model):
        found = tsfm_lib.forecast(name, x, 3, Q)
        assert [f.shape for f in found] == [(3, 3)] * 3 + [(2, 3, 3)]
        for series, forecast in zip(x, found):
            np.testing.assert_allclose(tsfm_lib.forecast(name, series, 3, Q), forecast, rtol=1e-4, atol=1e-5)


def test_levels_come_back_in_the_order_they_were_asked_for():
    x = np.random.default_rng(0).normal(size=50).cumsum()
    up, down = (tsfm_lib.forecast("seasonal-naive-intervals", x, 2, q, season=1) for q in (Q, Q[::-1]))
    np.testing.assert_array_equal(up, down[..., ::-1])
    assert (np.diff(up, axis=-1) > 0).all()


INDEXES = {
    "hours": pd.date_range("2024-02-28", periods=30, freq="h"),
    "month ends": pd.date_range("2020-01-31", periods=30, freq="ME"),
    "quarters": pd.date_range("2015", periods=30, freq="QS"),
    "mondays": pd.date_range("2024-01-01", periods=30, freq="W-MON"),
    "business days": pd.date_range("2024-01-01", periods=30, freq="B"),
    "periods": pd.period_range("2020-03", periods=30, freq="M"),
    "counter": pd.RangeIndex(10, 70, 2),
    "years as numbers": pd.Index(np.arange(1990, 2020)),
    "with a zone": pd.date_range("2024-03-20", periods=30, freq="D", tz="Europe/Berlin"),
}


@pytest.mark.parametrize("kind", INDEXES)
@pytest.mark.parametrize("forget", [False, True], ids=["freq known", "freq inferred"])
def test_the_index_goes_on(kind, forget):
    whole = INDEXES[kind]
    index = whole[:27].copy()
    if forget and isinstance(index, pd.DatetimeIndex):
        index.freq = None
    found = tsfm_lib.forecast("naive", pd.Series(np.arange(27.0), index=index, name="y"), 3, Q)
    assert list(found.columns) == ["0.1", "0.5", "0.9"] and (found == 26).all(axis=None)
    assert list(found.index) == list(whole[27:])
    assert isinstance(found.index, type(whole)) or not isinstance(whole, (pd.DatetimeIndex, pd.PeriodIndex))


@pytest.mark.parametrize("kind", ["hours", "month ends", "quarters", "business days", "years as numbers"])
def test_gaps_in_the_index_are_missing_values(kind):
    whole = INDEXES[kind]
    y = pd.Series(np.arange(30.0), index=whole).iloc[[i for i in range(27) if i not in (4, 11, 12)]]
    found = tsfm_lib.forecast("seasonal-naive", y, 3, [0.5], season=20)
    assert list(found.index) == list(whole[27:]) and found["0.5"].tolist() == [7, 8, 9]


def test_an_uneven_index_is_refused_with_the_way_out():
    stamps = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-09 11:00", "2024-02-01"], format="mixed")
    refused(lambda: tsfm_lib.forecast("naive", pd.Series([1.0, 2, 3, 4], index=stamps), 2), "no even frequency", "resample")
    refused(lambda: tsfm_lib.forecast("naive", pd.Series([1.0], index=stamps[:1]), 2), "no even frequency")
    refused(lambda: tsfm_lib.forecast("naive", pd.Series([1.0, 2, 3], index=[0.0, 1.0, 5.0]), 2), "without an even step")
    with pytest.raises(TsfmError, match="not a time stamp"):
        tsfm_lib.forecast("naive", pd.Series([1.0, 2], index=["a", "b"]), 2)


def test_a_wide_frame_gives_a_long_one():
    index = pd.date_range("2024", periods=20, freq="h")
    wide = pd.DataFrame({"north": np.arange(20.0), "south": -np.arange(20.0)}, index=index)
    found = tsfm_lib.forecast("naive", wide, 2, Q)
    assert list(found.columns) == ["unique_id", "ds", "0.1", "0.5", "0.9"]
    assert found.unique_id.tolist() == ["north"] * 2 + ["south"] * 2 and found["0.5"].tolist() == [19, 19, -19, -19]
    assert found.ds.tolist() == list(pd.date_range("2024-01-01 20:00", periods=2, freq="h")) * 2
    column = wide.reset_index(names="date")
    pd.testing.assert_frame_equal(tsfm_lib.forecast("naive", column, 2, Q), found)


@pytest.mark.parametrize("names", [("unique_id", "ds", "y"), ("item_id", "timestamp", "target")])
@pytest.mark.parametrize("time_axis", ["stamps", "counter"])
def test_a_long_frame_keeps_its_columns(names, time_axis):
    label, when, value = names
    parts = []
    for name, n in (("b", 12), ("a", 30)):
        at = pd.date_range("2024", periods=n, freq="D") if time_axis == "stamps" else np.arange(n)
        parts.append(pd.DataFrame({label: name, when: at, value: np.arange(float(n))}))
    found = tsfm_lib.forecast("naive", pd.concat(parts, ignore_index=True), 2, Q)
    assert list(found.columns) == [label, when, "0.1", "0.5", "0.9"]
    assert found[label].tolist() == ["b", "b", "a", "a"] and found["0.5"].tolist() == [11, 11, 29, 29]
    assert found[when].tolist() == ([pd.Timestamp("2024-01-13"), pd.Timestamp("2024-01-14"), pd.Timestamp("2024-01-31"),
                                     pd.Timestamp("2024-02-01")] if time_axis == "stamps" else [12, 13, 30, 31])  # fmt: skip


def test_a_series_of_one_point_goes_on_as_the_others_do():
    at = pd.date_range("2024", periods=6, freq="MS")
    long = pd.DataFrame({"unique_id": ["a"] * 6 + ["b", "c"], "ds": [*at, at[-1], pd.Timestamp("2024-06-15")], "y": np.arange(8.0)})
    found = tsfm_lib.forecast("naive", long, 2, [0.5])
    july, august = pd.date_range("2024-07", periods=2, freq="MS")
    assert found.ds.tolist() == [july, august] * 3 and found["0.5"].tolist() == [5, 5, 6, 6, 7, 7]
    pd.testing.assert_frame_equal(tsfm_lib.forecast("naive", long.set_index("unique_id"), 2, [0.5]), found)


def test_quarters_within_a_month_keep_their_season():
    y = pd.Series(np.arange(12.0), index=pd.date_range("2020", periods=12, freq="QS") + pd.Timedelta(days=14))
    found = tsfm_lib.forecast("seasonal-naive", y, 2, [0.5])
    assert found["0.5"].tolist() == [8, 9] and found.index[0] == pd.Timestamp("2023-01-15")


def test_the_index_of_a_saved_frame_is_no_variate():
    saved = pd.DataFrame({"Unnamed: 0": range(4), "date": pd.date_range("2024", periods=4).astype(str), "y": np.arange(4.0)})
    found = tsfm_lib.forecast("naive", saved, 1, [0.5])
    assert found.unique_id.tolist() == ["y"] and found.ds.tolist() == [pd.Timestamp("2024-01-05")]


def test_the_season_follows_from_the_frequency():
    hours = pd.Series(np.random.default_rng(0).normal(size=100), index=pd.date_range("2024", periods=100, freq="h"))
    found = tsfm_lib.forecast("seasonal-naive", hours, 3, [0.5])
    assert found["0.5"].tolist() == hours.iloc[76:79].tolist()
    told = tsfm_lib.forecast("seasonal-naive", hours, 3, [0.5], season=10)
    assert told["0.5"].tolist() == hours.iloc[90:93].tolist()
    none = tsfm_lib.forecast("seasonal-naive", hours, 3, [0.5], season=1)
    assert none["0.5"].tolist() == [hours.iloc[-1]] * 3


def test_a_catalogue_set_can_be_forecast():
    from tsfm_lib import data

    found = tsfm_lib.forecast("naive", data.load("nile"), 2, [0.5])
    assert len(found) == 2 and found["0.5"].nunique() == 1


@pytest.mark.parametrize(("arguments", "words"), [
    (dict(data=[], horizon=2), ["at least one point"]),
    (dict(data=np.zeros((2, 2, 2, 2)), horizon=2), ["[B, V, T]", "[2, 2, 2, 2]"]),
    (dict(data=["a", "b"], horizon=2), ["expected numbers"]),
    (dict(data=[1.0, np.inf], horizon=2), ["infinite"]),
    (dict(data=[1.0], horizon=1, season=0), ["season", "got 0"]),
    (dict(data=[1.0], horizon=0), ["horizon", "got 0"]),
    (dict(data=[1.0], horizon=2.5), ["horizon", "got 2.5"]),
    (dict(data=[1.0], horizon=2, season=24.5), ["season", "got 24.5"]),
    (dict(data=[1.0], horizon=2, quantiles=[0.5, 0.50000001]), ["differ in their first six digits"]),
    (dict(data=[1.0], horizon=2, quantiles=[0.5, 1.0]), ["between 0 and 1"]),
    (dict(data=[1.0], horizon=2, model=torch.nn.Identity()), ["Identity does not forecast"]),
])  # fmt: skip
def test_bad_requests_are_one_sentence(arguments, words):
    refused(lambda: tsfm_lib.forecast(**{"model": "naive", **arguments}), *words)


def test_whole_floats_count_as_whole_numbers():
    x = np.arange(30.0) % 7
    found = tsfm_lib.forecast("seasonal-naive", x, 3.0, [0.5], season=7.0)
    np.testing.assert_array_equal(found, tsfm_lib.forecast("seasonal-naive", x, 3, [0.5], season=7))


# Wrong types as a user meets them: the test suite's own type checks would answer first, so these run in a process without them.
MISTYPED = {
    "tsfm.load(None)": "expected the name of a model",
    "tsfm.load(5)": "expected the name of a model",
    "tsfm.load('')": "expected the name of a model",
    "tsfm.load(folder, season=3)": "no option but device, got season=3",
    "tsfm.load(folder, device='cudda')": "got 'cudda'",
    "tsfm.load('seasonal-naive', season=0)": "the season should be a whole number, 1 or more, got 0",
    "tsfm.load('theta', season=12.5)": "the season should be a whole number, 1 or more, got 12.5",
    "tsfm.forecast('naive', [1.0], 2, season='24')": "the season should be a whole number, 1 or more, got '24'",
    "tsfm.forecast('naive', [1.0], '2')": "the horizon should be a whole number, 1 or more, got '2'",
    **{f"tsfm.forecast('naive', [1.0], 2, {q})": f"numbers between 0 and 1, got {q}" for q in ("0.5", "'0.5'", "('a', 'b')", "None")},
    "evaluate('naive', 'embedded', levels=0.5, progress=False)": "list of numbers between 0 and 1, got 0.5",
    "last_windows('nile', 4)": "got str",
    "make_pool('final', 4)": "expected a Mixture, got 'final'",
    "make_pool(Mixture.only(walks=1), 4, 32, progress=False).batch(2, 16, 0)": "expected a random generator, got 0",
    "judge('K3', None)": "got NoneType",
}


def test_wrong_types_are_one_sentence_as_well(folder):
    code = f"""import tsfm_lib as tsfm
from tsfm_lib.claims import judge
from tsfm_lib.evaluate import evaluate, last_windows
from tsfm_lib.synth.mixture import Mixture, make_pool
folder = {str(folder)!r}
for call in {list(MISTYPED)!r}:
    try:
        print("accepted:", eval(call))
    except tsfm.errors.TsfmError as refusal:
        print(refusal)
    except Exception as raw:
        print("raw:", repr(raw))"""
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    wrong = [(call, got) for (call, words), got in zip(MISTYPED.items(), said, strict=True) if words not in got or got.startswith("raw")]
    assert not wrong


def test_a_model_with_weights_forecasts_and_embeds_in_its_own_precision_and_evaluation_mode():
    model = checkpoints.build("patchtst", PatchTSTConfig.tiny()).double().train()
    x = np.random.default_rng(0).normal(size=(2, 1, 50))
    forecast, vectors = tsfm_lib.forecast(model, x, 3, Q), tsfm_lib.embed(model, x)
    assert model.training
    np.testing.assert_array_equal(forecast, tsfm_lib.forecast(model.eval(), x, 3, Q))
    np.testing.assert_array_equal(vectors, tsfm_lib.embed(model, x))


def test_embeddings_of_all_kinds_of_input():
    model = checkpoints.build("patchtst", PatchTSTConfig.tiny())
    x = np.random.default_rng(0).normal(size=(3, 1, 50))
    found = tsfm_lib.embed(model, x)
    assert found.shape == (3, 16)
    np.testing.assert_allclose(tsfm_lib.embed(model, [x[0, 0], x[1, 0], x[2, 0]]), found, rtol=1e-5)
    np.testing.assert_allclose(tsfm_lib.embed(model, x[1, 0]), found[1:2], rtol=1e-5, atol=1e-6)
    long = pd.DataFrame({"unique_id": np.repeat(["a", "b", "c"], 50), "ds": np.tile(np.arange(50), 3), "y": x.ravel()})
    np.testing.assert_allclose(tsfm_lib.embed(model, long), found, rtol=1e-5)
    refused(lambda: tsfm_lib.embed("naive", x), "Naive does not embed")
