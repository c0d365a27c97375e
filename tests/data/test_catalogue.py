"""The catalogue is complete, each row is a usable card, and names forgive case and endings."""

import importlib
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tsfm_lib import data, paths
from tsfm_lib.data import fetching, hub
from tsfm_lib.errors import DataMissing, TsfmError

TABLE = data.catalogue()
EMBEDDED = TABLE.index[TABLE.source.isin(["statsmodels", "tslearn", "planted"])].tolist()


def test_the_archives_are_complete():
    files = TABLE.file
    assert files.str.startswith("ucr/").sum() == 128
    assert files.str.startswith("uea/").sum() == 30
    assert files.str.endswith(".tsf.gz").sum() >= 50
    wanted = "ETTh1 ETTh2 ETTm1 ETTm2 weather electricity traffic exchange_rate national_illness"
    wanted += " leaderboard UTSD-1G gift_eval gift_eval_pretrain"
    m4 = [f"m4_{f}_dataset" for f in ("yearly", "quarterly", "monthly", "weekly", "daily", "hourly")]
    assert set(wanted.split()) | set(m4) <= set(TABLE.index)


def test_every_card_says_where_from_and_under_which_terms():
    assert TABLE.index.is_unique and TABLE.index.str.lower().is_unique
    assert TABLE.licence.ne("").all()
    assert TABLE[TABLE.source != "planted"].citation.ne("").all()
    assert TABLE[TABLE.source != "planted"].url.str.match("https://").all()
    assert TABLE.source.isin(["web", "hub", "by-hand", "extract", "statsmodels", "tslearn", "planted"]).all()
    forecasting = TABLE[(TABLE.task == "forecasting") & (TABLE.source != "hub")]
    assert (forecasting.horizon > 0).all() and (forecasting.season > 0).all()
    assert forecasting.splits.str.fullmatch(r"\d+/\d+/\d+|7:1:2|last-horizon").all()
    for card in TABLE.itertuples():
        for checksum in filter(None, card.checksum.split(" | ")):
            assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}|git-blob:[0-9a-f]{40}", checksum), card.name


def test_frequencies_are_ones_pandas_knows():
    for frequency in set(TABLE.frequency) - {""}:
        assert pd.tseries.frequencies.to_offset(frequency) is not None


@pytest.mark.parametrize(
    "typed, meant",
    [
        ("weather", "weather"), ("Weather", "weather"), ("weather_dataset", "weather_dataset"), ("exchange", "exchange_rate"),
        ("ILI", "national_illness"), ("ecl", "electricity"), ("m4_hourly", "m4_hourly_dataset"), ("M4_Yearly", "m4_yearly_dataset"),
        ("us_births", "us_births_dataset"), ("nn5_daily", "nn5_daily"), ("nyc_taxi", "nyc_taxi_30min"), ("gunpoint", "GunPoint"),
        ("sunspot", "sunspot_dataset_without_missing_values"), ("sunspots", "sunspots_yearly"),
        ("aus_electricity_demand", "aus_electricity_demand_1"),
    ],
)  # fmt: skip
def test_names_forgive_case_and_endings(typed, meant):
    assert data.card(typed).name == meant


def test_unknown_names_come_with_the_nearest_known_one():
    with pytest.raises(TsfmError, match=r"no data set is called 'ETTh3'; did you mean 'ETTh\d'\?"):
        data.load("ETTh3")
    with pytest.raises(TsfmError, match="no data set is called 'qqqqqqqq'"):
        data.available("qqqqqqqq")
    with pytest.raises(TsfmError, match=r"macrodata has no channel 'realgpd'; did you mean 'realgdp'\?"):
        data.load("macrodata/realgpd")


def test_paths_and_other_things_are_no_names(tmp_path):
    for path in ("/a/b.csv", "./b", "a/b.csv", "~/b", tmp_path):
        with pytest.raises(TsfmError, match=r"is a path, expected a name of data.catalogue\(\): use data.read"):
            data.load(path)
    for ask in (data.load, data.available, data.fetch):
        with pytest.raises(TsfmError, match="expected the name of a data set, got NoneType"):
            ask(None)


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_sets_load_without_a_network(name, monkeypatch):
    monkeypatch.setenv("TSFM_OFFLINE", "1")
    monkeypatch.delenv("TSFM_DATA", raising=False)
    assert data.available(name)
    found, again, card = data.load(name), data.load(name), data.card(name)
    if card.task == "classification":
        assert found.x_train.dtype == np.float32 and found.x_train.shape == (100, 1, 275) and found.classes == ("1", "2", "3", "4")
        return
    assert found.card == card and all(s.dtype == np.float64 for s in found.series)
    for a, b in zip(found.series, again.series):
        np.testing.assert_array_equal(a, b)
    for key, size in (("rows", found.series[0].shape[1]), ("channels", len(found.channels)), ("n_series", len(found))):
        assert card.facts.get(key, size) == size
    assert found.split("test").stop == found.series[0].shape[1]


def test_bundled_series_hold_what_their_sources_print():
    assert data.load("nile").frame().loc["1871-01-01"].item() == 1120 and data.load("nile").frame().loc["1970-01-01"].item() == 740
    assert data.load("sunspots_yearly").frame().loc["1700-01-01"].item() == 5
    elnino = data.load("elnino").frame()["elnino"]
    assert elnino["1950-01-01"] == 23.11 and elnino["2010-12-01"] == 22.07
    co2 = data.load("co2")
    assert int(np.isnan(co2.series[0]).sum()) == 59 and co2.stamps[0][0] == pd.Timestamp("1958-03-29")
    assert data.load("macrodata/realgdp").series[0][0, 0] == 2710.349


def test_sets_from_the_hub_say_what_they_need(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for name in ("UTSD-1G", "gift_eval/electricity/H"):
        with pytest.raises(DataMissing, match=r"needs two more packages and a network: pip install huggingface_hub pyarrow"):
            data.load(name)
        assert not data.available(name)
    assert not TABLE.note.str.contains("[hub]", regex=False).any()  # nobody publishes a package of that name
    with pytest.raises(TsfmError, match="is fetched by parts"):
        data.load("gift_eval")


def test_rows_from_the_hub_become_series(monkeypatch):
    rows = [
        {"item_id": "a", "start": pd.Timestamp("2024-01-01"), "freq": "15T", "target": [1.0, np.nan, 3.0]},
        {"item_id": "b", "start": pd.Timestamp("2024-02-01"), "freq": "15T", "target": [4.0, 5.0]},
    ]
    monkeypatch.setattr(hub, "fetch_hub", lambda card, part: paths.cache())
    monkeypatch.setattr(hub, "_rows", lambda folder: rows)
    found = data.load("gift_eval/solar/15T")
    assert (found.name, found.ids, found.frequency, found.season) == ("gift_eval/solar/15T", ("a", "b"), "15min", 96)
    np.testing.assert_array_equal(found.series[0], [[1, np.nan, 3]])
    assert found.stamps[1][1] == pd.Timestamp("2024-02-01 00:15")


def test_addresses_of_several_files():
    daily = [address.rsplit("/", 1)[1] for address in fetching.addresses(data.card("m4_daily"))]
    assert daily == ["Daily-train.csv", "Daily-test.csv"]
    assert len(fetching.addresses(data.card("leaderboard"))) == 46


def test_the_front_of_the_data_room_is_light():
    code = "import sys, tsfm_lib.data; assert not {'pandas', 'torch', 'numpy'} & set(sys.modules); tsfm_lib.data.card('ETTh1')"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=paths.ROOT)


@pytest.mark.parametrize("name", data.__all__)
def test_public_names_do_not_turn_into_modules(name):
    for module in ("windowing", "frames", "loading", "hub"):
        importlib.import_module(f"tsfm_lib.data.{module}")
    assert callable(getattr(data, name))
