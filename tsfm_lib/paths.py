"""Where things lie. Nothing in the library asks for the working directory: every path starts here, or is given."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from tsfm_lib.errors import TsfmError

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


def given(path: Any, expected: str, else_: str = "") -> Path:
    """A path as somebody wrote it, with `~` for the home folder; refused in one sentence if no file system takes it.

    >>> given(None, "a folder")
    Traceback (most recent call last):
    tsfm_lib.errors.TsfmError: expected a folder, got NoneType
    """
    if not isinstance(path, (str, os.PathLike)) or isinstance(os.fspath(path), bytes):
        raise TsfmError(f"expected {expected}, got {type(path).__name__}{else_}")
    try:
        found = Path(path).expanduser()
        os.stat(found)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return found
    except (OSError, ValueError, RuntimeError) as problem:  # too long, a zero byte, a home that nobody has
        said = getattr(problem, "strerror", None) or problem
        raise TsfmError(f"expected {expected}, got {str(path)[:60]!r}, which is no path ({said})") from None
    return found


def read_json(path: Path, again: str = "fetch or save the model again") -> dict[str, Any]:
    """The object of a JSON file; `again` says how one that is damaged can be had anew."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TsfmError(f"{path} does not exist: {again}") from None
    except (ValueError, OSError, RecursionError) as problem:
        raise TsfmError(f"{path} cannot be read as JSON ({problem}): {again}") from None
    if not isinstance(found, dict):
        raise TsfmError(f"{path} holds a {type(found).__name__}, expected an object: {again}")
    return found


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` once it is whole. Whenever the process dies, a reader finds the old one or the new one;
    the part that a killed process left is removed an hour later by whoever writes the same file."""
    for part in path.parent.glob(f".{path.name}.*.part"):
        with suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > 3600:
                part.unlink()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def replace_text(path: Path, text: str) -> None:
    """Write a file so that a reader finds either the old or the new text, never half of it."""
    with replacing(path) as file:
        file.write(text.encode())
