"""Where things lie. Nothing in the library asks for the working directory: every path starts here."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
FIGURES = ROOT / "figures"
NOTEBOOKS = ROOT / "notebooks"
WEIGHTS = ROOT / "tsfm_lib" / "weights"


def _from_environment(name: str) -> Path | None:
    value = os.environ.get(name, "").strip()
    return Path(value).expanduser().resolve() if value else None


def data_folder() -> Path | None:
    """The folder of benchmark data named by `TSFM_DATA`, or None."""
    return _from_environment("TSFM_DATA")


def parity_folder() -> Path | None:
    """The folder of further reference outputs named by `TSFM_PARITY`, or None."""
    return _from_environment("TSFM_PARITY")


def cache() -> Path:
    """The folder for downloads and other things that can be made again; `TSFM_CACHE` moves it."""
    named = _from_environment("TSFM_CACHE")
    if named:
        return named
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tsfm_lib"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tsfm_lib"
