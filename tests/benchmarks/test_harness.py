"""The table of speeds is complete, its ratios are those of its columns, and a race is fair."""

import csv
import subprocess
import sys
import time
from pathlib import Path

import harness
import pytest

HERE = Path(__file__).parent


def test_a_race_takes_turns_and_leaves_the_first_call_out():
    calls = []

    def work(name, seconds, first):
        def call():
            calls.append(name)
            end = time.process_time() + (first if calls.count(name) == 1 else seconds)
            while time.process_time() < end:
                pass
        return call

    ours, peer = harness.race(work("a", 0.002, first=0.2), work("b", 0.02, first=0.002), turns=3)
    assert calls == ["a", "b"] * 4
    assert 0.002 <= ours < 0.01 and 0.02 <= peer < 0.05


def test_rows_without_a_peer_leave_peer_and_ratio_empty(tmp_path):
    rows = [harness.cost("fast", 2.0, 30.0, "ms", "so"), harness.Row("alone", 3.0, None, None, "ms", "thus")]
    harness.write(rows, tmp_path / "deep" / "bench.csv")
    with (tmp_path / "deep" / "bench.csv").open() as file:
        fast, alone = csv.DictReader(file)
    assert fast == {"name": "fast", "ours": "2", "peer": "30", "ratio": "15", "unit": "ms", "how": "so"}
    assert alone["peer"] == alone["ratio"] == ""
    assert "15x" in harness.line(rows[0]) and "x" not in harness.line(rows[1]).split("thus")[0]


def test_the_command_writes_the_table(tmp_path):
    out = tmp_path / "bench.csv"
    done = subprocess.run([sys.executable, str(HERE / "run.py"), "--only", "dtw,import", "--quick", "--out", str(out)], cwd=tmp_path,
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["name", "ours", "peer", "ratio", "unit", "how"]
    assert [r["name"] for r in rows][:3] == ["DTW matrix, no band", "DTW matrix, no band, float32", "DTW matrix, 10 % band"]
    for row in rows:
        assert float(row["ours"]) > 0
        if row["peer"]:
            assert float(row["ratio"]) == pytest.approx(float(row["peer"]) / float(row["ours"]), rel=2e-3)
    assert float(rows[0]["ratio"]) > 5 and float(rows[2]["ratio"]) > 5, "the lanes are not at work"


def test_an_unknown_group_is_refused():
    done = subprocess.run([sys.executable, str(HERE / "run.py"), "--only", "dwt"], capture_output=True, text=True)
    assert done.returncode == 2 and "there are dtw, nn, synth, import" in done.stderr
