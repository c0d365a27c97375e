"""The table of speeds is complete, its ratios are those of its columns, and a race is fair."""

import csv
import math
import subprocess
import sys
import time
from pathlib import Path

import bench_growth
import bench_models
import bench_peers
import harness
import peers
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

    found = harness.race(work("a", 0.002, first=0.2), work("b", 0.02, first=0.002), turns=3)
    assert calls == ["a", "b"] * 4
    assert 0.002 <= found.ours < 0.01 and 0.02 <= found.peer < 0.05
    low, high = found.interval()
    assert low < found.peer / found.ours < high and all(b >= 0.002 for pair in found.wall for b in pair)


def test_the_ratio_of_a_row_is_that_of_its_columns_whatever_the_unit():
    found = harness.Race([(1.0, 2.0), (1.0, 4.0), (2.0, 4.0)], [(1.0, 8.0)])
    time = harness.raced("time", found, "ms", "so")
    rate = harness.raced("rate", found, "series per s", "so", ours=10, peer=5)      # the peer did half of the work
    assert time.ours == pytest.approx(1000 * 2 ** (1 / 3)) and time.ratio == pytest.approx(time.peer / time.ours)
    assert time.ratio == pytest.approx(2 ** (4 / 3)) and time.wall == pytest.approx(8) and time.rounds == 3
    assert math.log2(time.high) - 4 / 3 == pytest.approx(4.3027 / 3, abs=1e-3) == 4 / 3 - math.log2(time.low)
    assert rate.ratio == pytest.approx(rate.ours / rate.peer) == pytest.approx(2 * time.ratio)
    assert rate.low == pytest.approx(2 * time.low)
    assert harness.Race([(1.0, 2.0)]).interval() == (None, None)


def test_a_row_in_which_the_peer_is_faster_gets_its_reason(monkeypatch):
    monkeypatch.setattr(harness, "WHY", {"model": "because", "model, step": "of more"})
    reason = lambda name, peer: harness.explained(harness.cost(name, 2.0, peer, "ms", "")).why
    assert (reason("model, forward", 1.0), reason("model, step", 1.0), reason("model", 3.0), reason("other", 1.0)) == (
        "because", "of more", None, None)  # fmt: skip


def test_rows_without_a_peer_leave_peer_and_ratio_empty(tmp_path):
    rows = [harness.cost("fast", 2.0, 30.0, "ms", "so"), harness.Row("alone", 3.0, None, None, "ms", "thus")]
    harness.write(rows, tmp_path / "deep" / "bench.csv")
    with (tmp_path / "deep" / "bench.csv").open() as file:
        fast, alone = csv.DictReader(file)
    assert {k: v for k, v in fast.items() if v} == {"name": "fast", "ours": "2", "peer": "30", "ratio": "15", "unit": "ms", "how": "so"}
    assert alone["peer"] == alone["ratio"] == ""
    assert "15x" in harness.line(rows[0]) and "x" not in harness.line(rows[1]).split("thus")[0]


def test_the_command_writes_the_table(tmp_path):
    out = tmp_path / "bench.csv"
    done = subprocess.run([sys.executable, str(HERE / "run.py"), "--only", "dtw,import", "--quick", "--out", str(out)], cwd=tmp_path,
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:6] == ["name", "ours", "peer", "ratio", "unit", "how"] and rows[0]["group"] == "dtw"
    assert [r["name"] for r in rows][:3] == ["DTW matrix, no band", "DTW matrix, no band, float32", "DTW matrix, 10 % band"]
    for row in rows:
        assert float(row["ours"]) > 0
        if row["peer"]:
            assert float(row["ratio"]) == pytest.approx(float(row["peer"]) / float(row["ours"]), rel=2e-3)
    assert float(rows[0]["ratio"]) > 5 and float(rows[2]["ratio"]) > 5, "the lanes are not at work"


def test_an_unknown_group_is_refused():
    done = subprocess.run([sys.executable, str(HERE / "run.py"), "--only", "dwt"], capture_output=True, text=True)
    assert done.returncode == 2 and "there are dtw, nn, synth, import" in done.stderr


def test_every_model_has_a_plain_reference_of_its_size_that_learns():
    from tsfm_lib.models import MODELS
    assert set(bench_models.MODELS) == set(MODELS)
    for name in MODELS:
        ours, plain, x = bench_models.pair(name)
        sizes = [sum(p.numel() for p in model.parameters()) for model in (ours, plain)]
        assert 0.75 < sizes[1] / sizes[0] < 1.25, name
        loss = plain.loss(x)
        loss.backward()
        untouched = [n for n, p in plain.named_parameters() if p.grad is None and "private" not in n]    # experts that nobody chose
        assert loss.isfinite() and not untouched, (name, untouched)


def test_one_model_of_a_group_can_be_asked_for():
    forward, step = harness.run(["models/dlinear"], quick=True)
    assert (forward.name, step.name, step.group) == ("dlinear, forward", "dlinear, step", "models")
    assert step.rounds == 2 and step.low < step.ratio < step.high and harness.functions("models/nobody") == []


def test_the_exponent_of_a_power_law_is_its_power():
    row = bench_growth.exponent("one", "length", "ms", [(n, 3 * n**1.7) for n in (64, 128, 256)])
    assert row.ours == pytest.approx(1.7) and row.low == pytest.approx(1.7) == row.high and "1.70" in row.how


def test_peak_memory_counts_what_is_held_at_once():
    import torch

    def call():
        for _ in range(3):
            torch.ones(2**20).add_(1)                               # 4 MiB, let go before the next

    assert bench_growth.peak(call) == pytest.approx(4, abs=0.1)


def test_a_package_that_is_not_there_is_a_row_with_its_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(peers, "PLACE", tmp_path)
    rows = list(bench_peers.models(True))
    assert len(rows) == 5 and all(row.ours is None and "bench --peers" in row.how for row in rows)
    assert list(bench_peers.imports(True)) == []
    monkeypatch.setattr(peers, "noted", lambda: {"failed": dict.fromkeys(peers.PACKAGES, "no matching distribution")})
    assert all("no matching distribution" in row.how for row in bench_peers.models(True))
    harness.write(rows, tmp_path / "bench.csv")
    assert "nan" not in (tmp_path / "bench.csv").read_text() and harness.line(rows[0])
