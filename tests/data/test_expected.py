"""The published benchmark files hold the published facts. The facts are read from EXPECTED.md of the data folder."""

import csv
import hashlib
import json
import re

import numpy as np
import pandas as pd
import pytest

from tsfm_lib import data, paths
from tsfm_lib.data import fetching

FOLDER = paths.data_folder()
if FOLDER is None or not (FOLDER / "EXPECTED.md").is_file():
    pytest.skip("TSFM_DATA names no folder of benchmark data with an EXPECTED.md", allow_module_level=True)

TEXT = (FOLDER / "EXPECTED.md").read_text(encoding="utf-8")
MANIFEST = {row["name"]: row for row in csv.DictReader((FOLDER / "MANIFEST.csv").open(encoding="utf-8", newline=""))}


def _facts(line: str) -> dict:
    found = {}
    for item in re.split(r"; (?=\w+=)", line):
        key, _, value = item.partition("=")
        found[key] = json.loads(value)
    return found


FORECASTING = {m[1]: _facts(m[2]) for m in re.finditer(r"^- \*\*(\w+)\*\* \(`forecasting/[^`]+`\): (.+)$", TEXT, re.M)}
UCR = [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\| \w+ \| \d+/\d+ \|.+\|$", TEXT, re.M)]
UEA = {m[1]: m[2] for m in re.finditer(r"^- \*\*(\w+)\*\*: (X_train .+)$", TEXT, re.M)}
WIDE = [name for name, facts in FORECASTING.items() if "shape" in facts]
TSF = [name for name, facts in FORECASTING.items() if "min_len" in facts]


def test_every_set_of_the_folder_is_covered():
    assert len(WIDE) == 16 and len(TSF) == 16 and len(UCR) == 66 and len(UEA) == 4
    assert set(WIDE) | set(TSF) | {"nab_real_long", "classics_long"} | {row[0] for row in UCR} | set(UEA) == set(MANIFEST)


@pytest.mark.parametrize("name", MANIFEST)
def test_files_are_the_listed_ones_and_so_are_the_cards(name):
    row = MANIFEST[name]
    content = (FOLDER / row["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == row["sha256"] == data.card(name).sha256
    assert data.card(name).file == row["file"] and len(content) == int(row["bytes"])
    assert fetching.locate(data.card(name)) == [FOLDER / row["file"]] and data.available(name)


def test_upstream_checksums_of_the_cards_fit_the_files():
    with_checksum = [name for name in MANIFEST if data.card(name).checksum]
    assert len(with_checksum) >= 22
    for name in with_checksum:
        assert fetching.genuine(FOLDER / MANIFEST[name]["file"], data.card(name).checksum), name


def _same(found, expected, rel=1e-9):
    np.testing.assert_allclose(np.asarray(found, float), np.asarray(expected, float), rtol=rel, atol=1e-12, equal_nan=True)


def _stamp(text: str) -> pd.Timestamp:
    stamp = pd.Timestamp(text)
    return stamp.tz_convert(None) if stamp.tz is not None else stamp


@pytest.mark.parametrize("name", WIDE)
def test_wide_sets(name):
    facts, found = FORECASTING[name], data.load(name)
    values = found.series[0]
    columns, dates = facts["columns"], ("first_date", "last_date") if "first_date" in facts else ("first", "last")
    timed = columns[0] in ("date", "datetime", "ds", "time", "Date", "t")  # these lists name the time column too
    counted = columns[0] == "t"  # there the counter was taken for a channel
    assert len(found) == 1 and values.dtype == np.float64
    assert list(values.shape[::-1]) == [facts["shape"][0], facts["shape"][1] - counted]
    named = columns[timed:]
    assert list(found.channels[: len(named)]) == named
    assert int(np.isnan(values).sum()) == facts["nan"]
    if counted:
        assert found.stamps[0][0] == pd.Timestamp("1996-03-18") and (facts["first"], facts["last"]) == ("0", str(values.shape[1] - 1))
        _same([values[-1, 0], values[-1, -1]], [facts["first_row_first_last"][1], facts["last_row_first_last"][1]])
    else:
        assert (found.stamps[0][0], found.stamps[0][-1]) == tuple(_stamp(facts[d]) for d in dates)
        _same([values[0, 0], values[-1, 0]], facts["first_row_first_last"])
        _same([values[0, -1], values[-1, -1]], facts["last_row_first_last"])
    for key, row in (("mean_std_first", 0), ("mean_std_last", -1)):
        if key in facts:
            _same([np.nanmean(values[row]), np.nanstd(values[row])], facts[key])
    if "split_rows" in facts:
        parts = [found.split(part) for part in ("train", "val", "test")]
        assert [p.stop - p.start for p in parts] == facts["split_rows"]
        assert parts[0].start == 0 and parts[0].stop == parts[1].start and parts[1].stop == parts[2].start
        scaler = data.Scaler.fit(values[:, parts[0]])
        for column, (mean, std) in facts["train_mean_std"].items():
            at = found.channels.index(column)
            _same([scaler.mean[at], scaler.std[at]], [mean, std], rel=1e-5)


@pytest.mark.parametrize("name", TSF)
def test_monash_sets(name):
    facts, found = FORECASTING[name], data.load(name)
    lengths = [s.shape[1] for s in found.series]
    assert (len(found), min(lengths), max(lengths), sum(lengths)) == tuple(facts[k] for k in ("n_series", "min_len", "max_len", "total"))
    assert found.ids[0] == facts["first_name"] and found.horizon == facts["horizon"]
    assert found.stamps[0][0] == pd.Timestamp(re.sub(r" (\d\d)-(\d\d)-(\d\d)$", r" \1:\2:\3", facts["first_start"]))
    _same([found.series[0][0, 0], found.series[0][0, -1]], facts["first_series_first_last"])
    _same([found.series[-1][0, 0], found.series[-1][0, -1]], facts["last_series_first_last"])
    everything = np.concatenate([s[0] for s in found.series])
    assert int(np.isnan(everything).sum()) == facts["nan"]
    _same([everything.mean(), everything.std()], [facts["all_values"]["mean"], facts["all_values"]["std"]])
    test = found.split("test", element=len(found) - 1)
    assert (test.start, test.stop) == (lengths[-1] - facts["horizon"], lengths[-1])
    if facts["horizon_source"] == "file":
        assert data.read(FOLDER / MANIFEST[name]["file"]).horizon == facts["horizon"]


def test_long_sets():
    for name in ("nab_real_long", "classics_long"):
        facts, found = FORECASTING[name], data.load(name)
        assert len(found) == facts["n_series"] and sum(s.size for s in found.series) == facts["total"]
        ends = [facts["first"], facts["last"]]
        if name == "nab_real_long":
            ends = [(facts["first_id"], ends[0]), (facts["last_id"], ends[1])]
        (first_id, first), (last_id, last) = ends
        at = found.ids.index(last_id)
        assert found.ids[0] == first_id and found.series[0][0, 0] == first and found.series[at][0, -1] == last
        assert sum(int(np.isnan(s).sum()) for s in found.series) == facts.get("nan", 0)
        assert set(data.card(name).facts["frequency_of"]) == set(found.ids)


def test_weather_keeps_the_sentinels_and_the_repeated_stamp_of_the_public_file():
    found = data.load("weather")
    assert int((found.series[0] == -9999).sum()) == 81
    assert int(found.stamps[0].duplicated().sum()) == 1


def _counts(y: np.ndarray, classes: tuple[str, ...]) -> dict[str, int]:
    return {classes[k]: int(n) for k, n in zip(*np.unique(y, return_counts=True))}


@pytest.mark.parametrize("row", UCR, ids=lambda row: row[0])
def test_ucr_sets(row):
    name, sizes, length, classes, first, last, mean, std, y0, counts = row[:10]
    found = data.load(name)
    assert f"{len(found.x_train)}/{len(found.x_test)}" == sizes
    assert found.x_train.shape[1:] == (1, int(length)) and len(found.classes) == int(classes)
    _same([found.x_train[0, 0, 0], found.x_test[-1, 0, -1]], [float(first), float(last)], rel=1e-5)
    values = found.x_train.astype(np.float64)
    np.testing.assert_allclose([np.nanmean(values), np.nanstd(values)], [float(mean), float(std)], rtol=1e-5, atol=1e-8)
    assert found.classes[found.y_train[0]] == y0
    have = _counts(found.y_train, found.classes)
    if "classes" in counts:
        low, high = re.search(r"(\d+)-(\d+) each", counts).groups()
        assert (min(have.values()), max(have.values())) == (int(low), int(high))
    else:
        assert have == {label: int(n) for label, n in re.findall(r"(\S+):(\d+)", counts)}


@pytest.mark.parametrize("name", UEA)
def test_uea_sets(name):
    line, found = UEA[name], data.load(name)
    assert list(found.x_train.shape) == json.loads(re.search(r"X_train (\[.+?\])", line)[1])
    assert len(found.x_test) == int(re.search(r"test n (\d+)", line)[1])
    assert len(found.classes) == int(re.search(r"classes (\d+)", line)[1])
    names = re.findall(r"'([^']+)'", line)
    assert list(found.classes[: len(names)]) == names
    for part, y in (("train", found.y_train), ("test", found.y_test)):
        expected = json.loads(re.search(rf"{part} counts (\[.+?\])", line)[1])
        assert np.bincount(y, minlength=len(found.classes)).tolist()[: len(expected)] == expected
    values = found.x_train.astype(np.float64)
    first, mean, std = (float(re.search(pattern, line)[1]) for pattern in (r"\[0,0,0\]=(\S+);", r"mean (\S+) ", r"std (\S+);"))
    np.testing.assert_allclose([values[0, 0, 0], np.nanmean(values), np.nanstd(values)], [first, mean, std], rtol=1e-5)
    assert int(np.isnan(values).sum() + np.isnan(found.x_test).sum()) == int(re.search(r"NaN (\d+)", line)[1])
    low, high = re.search(r"lengths (\d+)-(\d+)", line).groups()
    lengths = np.concatenate([found.lengths("train"), found.lengths("test")])
    assert (lengths.min(), lengths.max()) == (int(low), int(high))


def _error_of_nearest_neighbour(found, scale: bool) -> float:
    x, q = (part[:, 0].astype(np.float64) for part in (found.x_train, found.x_test))
    if scale:
        x, q = ((v - v.mean(1, keepdims=True)) / np.maximum(v.std(1, keepdims=True), 1e-12) for v in (x, q))
    distance = (x**2).sum(1)[None] - 2 * q @ x.T
    return float((found.y_train[distance.argmin(1)] != found.y_test).mean())


@pytest.mark.parametrize("row", [r for r in UCR if MANIFEST[r[0]]["tier"] == "ci" and r[10]], ids=lambda row: row[0])
def test_nearest_neighbour_errors_are_the_published_ones(row):
    raw, scaled, published = (float(v) for v in row[10:13])
    found = data.load(row[0])
    errors = [_error_of_nearest_neighbour(found, scale) for scale in (False, True)]
    np.testing.assert_allclose(errors, [raw, scaled], atol=5.1e-5)
    assert min(abs(e - published) for e in errors) < 5.1e-5


def test_raw_gives_the_recorded_series_of_unequal_length():
    adjusted, raw = data.load("ShakeGestureWiimoteZ"), data.load("ShakeGestureWiimoteZ", raw=True)
    assert not np.isnan(adjusted.x_train).any() and np.isnan(raw.x_train).any()
    assert len(set(raw.lengths().tolist())) > 1


def test_extracts_are_true_parts():
    assert np.array_equal(data.load("ecl_2ch").series[0][:, :1000], data.load("ecl_203ch_1000h").series[0][[0, 202]])


def test_leaderboard_recomputes_the_headline_numbers():
    rows, models = data.load("leaderboard"), data.load("leaderboard_models")
    assert list(rows.columns) == ["model", "config", "dataset", "frequency", "term", "MASE", "CRPS"]
    assert rows.groupby("model").config.nunique().eq(97).all() and set(models.model) == set(rows.model)
    wide = {m: rows.pivot(index="config", columns="model", values=m) for m in ("MASE", "CRPS")}
    ratio = {m: np.exp(np.log(w.div(w["seasonal_naive"], axis=0)).mean()) for m, w in wide.items()}
    for model, mase, crps in (("Kairos_50m", 0.7422, 0.5482), ("chronos-2", 0.6978, 0.4854)):
        assert round(ratio["MASE"][model], 4) == mase and round(ratio["CRPS"][model], 4) == crps
