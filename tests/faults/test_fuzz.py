"""Malformed inputs by the hundred, see fuzz.py. TSFM_FUZZ=5000 asks for more than the 500 of every run."""

import os
import re
import subprocess
import sys

from tsfm_lib.paths import ROOT

INPUTS = int(os.environ.get("TSFM_FUZZ", "500"))


def test_whatever_is_handed_in_is_read_or_refused_in_a_sentence():
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.fuzz", "--inputs", str(INPUTS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300 + INPUTS,
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    lines = re.findall(r"^(\w+) +(\d+) inputs +(\d+) read +(\d+) refused +0 wrong", done.stdout, re.M)
    counts = {name: (int(read), int(refused)) for name, _, read, refused in lines}
    assert sum(map(sum, counts.values())) >= 0.95 * INPUTS
    never_read = {name for name, (read, _) in counts.items() if not read}
    assert never_read <= {"path", "dataset", "name", "official"} and "sound" in counts  # the others are harmed a little, not replaced
    assert sum(refused for _, refused in counts.values()) > 0.4 * INPUTS
