"""The environment of the authors' packages, build/peers: their pins contradict each other and ours, so they live apart.

`./run_all.sh bench --peers` makes it. Torch is the version of the project, so that a race compares code and not builds; what the packages
need beside it has versions that suit all of them, and each package comes without its own list. One that cannot be installed is noted.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "build" / "peers"
PACKAGES = {"chronos-forecasting": "2.3.2", "mantis-tsfm": "1.1.0", "momentfm": "0.1.4", "timesfm": "3.0.2"}
NEEDS = ("transformers==4.57.6", "pandas<3", "scikit-learn", "accelerate", "einops", "safetensors")


def locked(package: str) -> str:
    return re.search(rf"^{package}==\S+", (ROOT / "requirements.lock").read_text(), re.M).group(0)


def wanted() -> dict:
    return {"needs": [locked("torch"), locked("numpy"), *NEEDS], "packages": PACKAGES}


def python() -> Path:
    return PLACE / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def noted() -> dict | None:
    """What was installed, and why not what was not; None where there is no environment of these versions."""
    try:
        found = json.loads((PLACE / "made.json").read_text())
    except (OSError, ValueError):
        return None
    return found if found["wanted"] == wanted() and python().exists() else None


def pip(*arguments: str) -> str | None:
    """None, or in a line why not."""
    done = subprocess.run([python(), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "-q", *arguments],
                          capture_output=True, text=True)  # fmt: skip
    said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [f"pip ended with {done.returncode}"]
    return None if done.returncode == 0 else said[-1].removeprefix("ERROR: ")


def make() -> dict:
    """The environment, made or found; takes minutes and 1.4 GB the first time. Failures are noted and tried again the next time."""
    if (found := noted()) and not found["failed"]:
        return found
    print(f"making {PLACE.relative_to(ROOT)} (some minutes the first time)", flush=True)
    subprocess.run([sys.executable, "-m", "venv", PLACE], check=True)
    index = os.environ.get("TORCH_INDEX")
    problem = pip("--no-deps", "--index-url", index, locked("torch")) if index else None
    problem = problem or pip(*wanted()["needs"])
    failed = {name: problem or pip("--no-deps", locked("torch"), f"{name}=={version}") for name, version in PACKAGES.items()}
    found = {"wanted": wanted(), "failed": {name: why for name, why in failed.items() if why}}
    (PLACE / "made.json").write_text(json.dumps(found, indent=1))
    return found


def lacking(package: str) -> str | None:
    """Why a package cannot be raced, or None."""
    found = noted()
    return "no build/peers: ./run_all.sh bench --peers makes it" if found is None else found["failed"].get(package)
