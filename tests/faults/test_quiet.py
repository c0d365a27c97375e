"""Nothing leaves the machine, nothing secret is in the tree, and the lock names public packages that nobody has warned of."""

import re
import shutil
import subprocess
import sys

import pytest

from tsfm_lib.paths import ROOT

SECRETS = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a token of GitHub": r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})",
    "a token of the hub": r"\bhf_[A-Za-z0-9]{30,}\b",
    "a token of a package index": r"\bpypi-[A-Za-z0-9_-]{50,}",
    "a key of a cloud": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[A-Za-z0-9_-]{35}\b",
    "a key of an API": r"\bsk-(?:[a-z]+-)?[A-Za-z0-9]{32,}\b|\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "a web token": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "a name and password in an address": r"\b[a-z][a-z0-9+.-]*://[^\s/:@'\"{}<>]+:[^\s/:@'\"{}<>]+@",
    "a value given to a secret": r"(?i)\b(?:password|secret|api_?key|(?:access|auth)_?token)\b[\"']?\s*[:=]\s*[\"'][^\"'\s{}]{8,}[\"']",
    "an index of packages": r"(?i)--?(?:extra-)?index-url\s+https?://(?!download\.pytorch\.org|pypi\.org|example\.org)",
}
TELEMETRY = r"\b(?:sentry_sdk|posthog|mixpanel|segment\.analytics|google-analytics|googletagmanager|wandb|mlflow|comet_ml|neptune)\b"
TEXT = (".py", ".sh", ".toml", ".yml", ".yaml", ".md", ".cff", ".lock", ".json", ".ipynb", ".csv", ".txt", "")


def tree():
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout: which files are the project's is not known")
    for name in filter(None, done.stdout.split("\0")):
        if (ROOT / name).suffix in TEXT and (ROOT / name).is_file() and not name.startswith("tests/faults/test_quiet"):
            lines = (ROOT / name).read_text(encoding="utf-8", errors="replace").splitlines()
            yield name, "\n".join(line for line in lines if len(line) < 5000)  # longer ones are pictures


def test_there_is_no_secret_and_no_telemetry_in_the_tree():
    patterns = {what: re.compile(pattern) for what, pattern in {**SECRETS, "telemetry": TELEMETRY}.items()}
    found = [
        (name, what, match[0][:60])
        for name, text in tree()
        for what, pattern in patterns.items()
        for match in [pattern.search(text)]
        if match
    ]
    assert not found


@pytest.mark.parametrize(
    "what, text",
    [
        ("a private key", "-----BEGIN RSA " + "PRIVATE KEY-----"),
        ("a token of the hub", "hf_" + "a1" * 17),
        ("a key of a cloud", "AKIA" + "ABCD" * 4),
        ("a token of GitHub", "ghp_" + "x9" * 18),
        ("a name and password in an address", "https://me:" + "word@host/simple"),
        ("a value given to a secret", "api_key" + ' = "0123456789"'),
        ("an index of packages", "--index-url " + "https://packages.firm.net/simple"),
        ("a web token", ".".join(("eyJ" + "a" * 20, "eyJ" + "b" * 20, "c" * 20))),
    ],
)
def test_the_patterns_would_find_one(what, text):
    assert re.search(SECRETS[what], f"x = {text}\n")


QUIET = """
import sys
touched = []
def hook(event, given):
    if event.startswith("socket.") and event not in HARMLESS:
        touched.append((event, str(given)[:200]))
sys.addaudithook(hook)
import numpy as np, pandas as pd, tempfile, pathlib
import tsfm_lib as tsfm
tsfm.models()
series = pd.Series(np.arange(60.0) % 7, index=pd.date_range("2024", periods=60, freq="D"))
for model in ("seasonal-naive", "theta", "kairos-nano"):
    tsfm.forecast(model, series, 3)
tsfm.embed("mantis-nano", series)
tsfm.data.load("nile"), tsfm.data.catalogue(), tsfm.claims.table()
with tempfile.TemporaryDirectory() as folder:
    file = pathlib.Path(folder) / "mine.csv"
    series.to_csv(file, index_label="date")
    tsfm.forecast("naive", tsfm.data.read(file), 2)
    model = tsfm.load("kairos-nano")
    tsfm.load(tsfm.save(model, pathlib.Path(folder) / "m"))
print(touched)
"""


def test_the_front_door_opens_no_socket():
    """Seen by Python's audit hooks, in a process of its own. Asking for the own name and making a socket object sends nothing."""
    code = QUIET.replace("HARMLESS", "('socket.__new__', 'socket.gethostname')")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr[-2000:]
    seen = subprocess.run(
        [
            sys.executable,
            "-c",
            code.split("import numpy")[0] + "import socket\ntry: socket.create_connection(('127.0.0.1', 9), 1)\n"
            "except OSError: pass\nprint(touched)",
        ],
        capture_output=True,
        text=True,
    )
    assert "socket.connect" in seen.stdout  # the hook would have told


def test_nobody_has_warned_of_a_locked_package():
    tool = shutil.which("pip-audit")
    if tool is None:
        pytest.skip("pip-audit is not installed: pip install pip-audit in an environment of its own to ask the advisory database")
    done = subprocess.run(
        [tool, "--no-deps", "--disable-pip", "-r", "requirements.lock"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    if "ConnectionError" in done.stderr or "Max retries" in done.stderr:
        pytest.skip("the advisory database cannot be reached")
    assert done.returncode == 0, done.stdout + done.stderr
