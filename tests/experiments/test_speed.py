"""The rows that notebook 91 draws from, and that measuring them gives rows that a page can keep."""

import math

import numpy as np
import pandas as pd
import pytest

from tsfm_lib import paths
from tsfm_lib.errors import TsfmError
from tsfm_lib.experiments import speed
from tsfm_lib.page import open_page


def table():
    row = lambda name, ratio, **more: {"name": name, "unit": "ms", "ours": 1.0, "ratio": ratio, "low": np.nan, "high": np.nan,
                                       "rounds": np.nan, "axis": None, "why": None} | more  # fmt: skip
    return pd.DataFrame([
        row("alone", np.nan), row("twice", 2.0, low=1.0, high=4.0, rounds=9), row("behind", 0.5, why="because"), row("level", 0.96),
        row("unresolved", 0.9, low=0.7, high=1.1),
        row("one, step", np.nan, unit="exponent of ms", ours=1.5, axis="length"),
        row("one, step", np.nan, unit="exponent of ms", ours=1.0, axis="series"),
        row("two, step", np.nan, unit="exponent of ms", ours=2.0, axis="length")])  # fmt: skip


def test_ratios_are_drawn_as_binary_logarithms_and_one_round_has_no_width():
    found = speed.intervals(table())
    assert list(found) == ["twice", "level", "unresolved", "behind"]
    assert (found["twice"].estimate, found["twice"].low, found["twice"].high, found["twice"].n) == (1, 0, 2, 9)
    assert found["behind"].low == found["behind"].high == -1 and math.isclose(2 ** found["level"].estimate, 0.96)


def test_only_rows_with_a_faster_peer_need_a_reason():
    assert speed.slower(table())[["name", "why"]].values.tolist() == [["behind", "because"]]


def test_exponents_stand_by_model_and_axis():
    found = speed.exponents(table())
    assert found.loc["one, step"].tolist() == [1.5, 1.0] and math.isnan(found.loc["two, step", "series"])
    assert speed.exponents(table(), "MiB").empty


def test_measured_rows_survive_the_sweep_of_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    cell = speed.cells(["models/dlinear"])
    run = lambda group, code: speed.measure(group, quick=True)
    rows = open_page("91_speed", "laptop").sweep("bench", cell, run)
    assert rows["name"].tolist() == ["dlinear, forward", "dlinear, step"] and (rows["ours"] > 0).all() and rows["machine"].notna().all()
    assert rows["code"].unique().tolist() == [cell[0]["code"]] and len(speed.intervals(rows)) == 2
    again = open_page("91_speed", "laptop").sweep("bench", cell, run)                   # kept, so not measured anew: the same seconds
    pd.testing.assert_frame_equal(again, rows)


def test_an_unknown_group_is_an_error_that_names_those_there_are():
    with pytest.raises(TsfmError, match="there are dtw, nn"):
        speed.measure("dwt")


def test_the_groups_are_those_of_the_command():
    said = speed.PROGRAM.read_text()
    assert all(f'"{group}"' in said for group in speed.GROUPS)
