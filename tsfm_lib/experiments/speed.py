"""Speed: the table of `./run_all.sh bench` for notebook 91. What is timed lies with the tests, beside what it is timed against."""

import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tsfm_lib import paths
from tsfm_lib.errors import TsfmError
from tsfm_lib.evaluate.comparison import Interval

PROGRAM = paths.ROOT / "tests" / "benchmarks" / "run.py"
GROUPS = ("dtw", "nn", "synth", "import", "kairos", "time_tracker", "finetune", "interpret", "models", "growth", "peers")
SLOWER = 0.95  # a ratio below it is a row in which the peer is faster


def cells(groups: Sequence[str] = GROUPS) -> list[dict[str, str]]:
    """One cell of a sweep for each group. `code` is that of the benchmarks: rows of older ones are not taken for those of these."""
    files = sorted(PROGRAM.parent.glob("*.py"))
    code = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]
    return [{"group": group, "code": code} for group in groups]


def measure(group: str, code: str = "", quick: bool = False) -> pd.DataFrame:
    """Rows of one or several groups (`dtw,nn`), measured now in a process of its own with one thread, and on which processor.

    The authors' packages are installed where the network may be used (`--online`); otherwise what was installed before is raced.
    """
    if not PROGRAM.exists():
        raise TsfmError(f"{PROGRAM} is not there: speed is measured in a checkout of the repository, which has the folder tests")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bench.csv"
        more = ["--peers"] * (group == "peers" and not os.environ.get("TSFM_OFFLINE")) + ["--quick"] * quick
        command = [sys.executable, str(PROGRAM), "--only", group, "--out", str(out), *more]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise TsfmError(f"the benchmarks {group} ended with {done.returncode}: {done.stderr.strip().splitlines()[-1]}")
        return pd.read_csv(out).assign(machine=processor())


def processor() -> str:
    """What the machine calls its processor."""
    try:
        names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def raced(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows that have a peer, the largest ratio first."""
    return rows[rows["ratio"].notna()].sort_values("ratio", ascending=False)


def intervals(rows: pd.DataFrame) -> dict[str, Interval]:
    """Of the binary logarithms of the ratios: 0 is as fast, 1 twice as fast. A row of one round has no width."""
    found = {}
    for row in raced(rows).itertuples():
        ends = [row.ratio if np.isnan(end) else end for end in (row.low, row.high)]
        middle, low, high = (float(np.log2(value)) for value in (row.ratio, *ends))
        found[row.name] = Interval(middle, low, high, int(np.nan_to_num(row.rounds, nan=1)), "paired t")
    return found


def slower(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows in which the peer is faster, by an interval that leaves out 1 where there is one, and the reason where one is known."""
    found = raced(rows)
    behind = (found["ratio"] < SLOWER) & ~(found["high"] >= 1)
    return found.loc[behind, ["name", "ratio", "low", "high", "why"]].sort_values("ratio")


def exponents(rows: pd.DataFrame, unit: str = "ms") -> pd.DataFrame:
    """Model by axis: how fast cost grows."""
    found = rows[rows["unit"] == f"exponent of {unit}"]
    return found.pivot(index="name", columns="axis", values="ours").loc[found["name"].unique(), found["axis"].unique()]
