"""One notebook's page: its profile and seed, where its numbers and pictures go, and the rows recorded before.

    page = open_page("11_kairos_mosdp_vs_fixed", profile, seed)
    rows = page.sweep("mosdp_vs_fixed", cells, run)        # a killed sweep goes on where it was
    page.save("mosdp_vs_fixed", rows, figure)              # build/<profile>/<notebook>/mosdp_vs_fixed.csv, .png, .svg
    claims.judge("K1", page.recorded("mosdp_vs_fixed"))    # figures/<notebook>/mosdp_vs_fixed.<highest profile>.csv

What a page saves lies under build/. Only `publish`, called by `./run_all.sh --update`, copies it to figures/, where verdicts
are judged: pictures come from the highest profile recorded, so a quick run never replaces those of laptop or full.
"""

import hashlib
import inspect
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tsfm_lib import paths
from tsfm_lib.errors import TsfmError, nearest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROFILES = ("quick", "laptop", "full")
OBSERVED = ("observed", "target", "truth", "actual", "y")      # columns that would hold a benchmark's own values
PACKAGES = ("torch", "numpy", "scipy", "pandas", "matplotlib", "seaborn", "scikit-learn", "statsmodels", "numba", "tslearn", "tsfm-lib")


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    paths.replace_text(file, text)


def _plain(value: Any) -> Any:
    """numpy scalars, arrays and paths as JSON."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (Path, tuple)):
        return str(value) if isinstance(value, Path) else list(value)
    raise TsfmError(f"expected numbers, strings and lists in a cell and its rows, got {type(value).__name__} {value!r}")


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise TsfmError(f"expected a name of small letters, digits, _ and -, got {name!r}")


def threads() -> int:
    """Threads a notebook computes with: OMP_NUM_THREADS where it is set (batch runs set 1), otherwise up to 2.

    Results depend on the number of threads in their last digits, so it is fixed and noted.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() and int(asked) > 0 else min(2, os.cpu_count() or 1)


def open_page(notebook: str, profile: str = "quick", seed: int = 0) -> "Page":
    """The page of a notebook; unknown values are refused.

    >>> open_page("01_building_blocks", "quikc")
    Traceback (most recent call last):
    tsfm_lib.errors.TsfmError: profile must be one of quick, laptop, full, got 'quikc'; did you mean 'quick'?
    """
    if not re.fullmatch(r"\d\d_[a-z0-9_]+", str(notebook)):
        raise TsfmError(f"a notebook is called like '10_kairos_patch_size_maps', got {notebook!r}")
    if profile not in PROFILES:
        raise TsfmError(f"profile must be one of {', '.join(PROFILES)}, got {profile!r}{nearest(str(profile), PROFILES)}")
    if type(seed) is not int or seed < 0:
        raise TsfmError(f"seed must be a whole number from 0 up, got {seed!r}")
    import torch

    from tsfm_lib import plotting

    torch.set_num_threads(threads())
    plotting.theme()
    return Page(notebook, profile, seed)


def recorded_rows(notebook: str, name: str = "*") -> pd.DataFrame:
    """Rows recorded under figures/<notebook>/, of each name the highest profile; an empty frame that says why if there are none.

    Those of a quick run are no evidence: a claim about models that ship would be judged from a handful of series."""
    folder = paths.FIGURES / notebook
    best: dict[str, Path] = {}
    for profile in PROFILES[1:]:
        for file in sorted(folder.glob(f"{name}.{profile}.csv")):
            best[file.name.removesuffix(f".{profile}.csv")] = file
    frames = []
    for stem, file in sorted(best.items()):
        try:
            rows = pd.read_csv(file, keep_default_na=False, na_values=[""])
        except (ValueError, OSError) as problem:
            said = (str(problem).strip() or type(problem).__name__).splitlines()[0]
            raise TsfmError(f"{file} cannot be read as recorded rows ({said}): get the file again or record it with --update") from None
        rows.insert(0, "experiment", stem) if "experiment" not in rows else None
        rows.insert(1, "profile", file.suffixes[-2][1:]) if "profile" not in rows else None
        frames.append(rows)
    whole = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    if not frames:
        whole.attrs["reason"] = f"figures/{notebook}/ holds no {'rows' if name == '*' else name} of laptop or full"
    whole.attrs["recorded"] = "; ".join(dict.fromkeys(filter(None, (_when(file) for file in best.values()))))
    return whole


def _when(file: Path) -> str:
    """'laptop, 2026-11-20, 2-core CPU' from the provenance beside a recorded file."""
    profile = file.suffixes[-2][1:]
    note = file.with_name(f"provenance.{profile}.json")
    if not note.exists():
        return ""
    known = paths.read_json(note, "get the file again or record it with --update")
    return ", ".join(x for x in (profile, str(known.get("date", ""))[:10], str(known.get("device", ""))) if x)


def is_benchmark(dataset: str) -> bool:
    """Whether a data set is fetched (its values are somebody's) rather than generated here or shipped with a package."""
    from tsfm_lib.data import cards

    name = str(dataset).partition("/")[0]
    return cards.known(name) and cards.card(name).source not in ("statsmodels", "tslearn", "planted")


def check_rows(name: str, rows: pd.DataFrame) -> None:
    """A CSV beside a picture of benchmark series holds which series, which window and model outputs, never the series."""
    held = [column for column in rows if str(column).lower() in OBSERVED]
    if held and "dataset" in rows:
        foreign = sorted(d for d in rows["dataset"].dropna().unique() if is_benchmark(d))
        if foreign:
            raise TsfmError(f"{name} has a column {held[0]!r} with the values of {foreign[0]}: leave it out, "
                            "dataset, channel and window index say which values they are")


@dataclass
class Page:
    """Made by `open_page`."""
    notebook: str
    profile: str
    seed: int
    started: float = field(default_factory=time.perf_counter, repr=False)
    weights: dict[str, str] = field(default_factory=dict, repr=False)
    captions: dict[str, str] = field(default_factory=dict, repr=False)
    saved: list[str] = field(default_factory=list, repr=False)
    sweeps: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)

    @property
    def folder(self) -> Path:
        return paths.BUILD / self.profile / self.notebook

    def rng(self, purpose: str) -> np.random.Generator:
        """A counter-based generator for one purpose: a further purpose does not shift the others."""
        return np.random.Generator(np.random.Philox(key=int.from_bytes(_digest(str(self.seed), purpose)[:16], "little")))

    def generator(self, purpose: str) -> Any:
        """The same for torch."""
        import torch

        return torch.Generator().manual_seed(int.from_bytes(_digest(str(self.seed), "torch", purpose)[:7], "little"))

    def seeds(self, k: int) -> tuple[int, ...]:
        """Training seeds for paired runs; two pages with different seeds share none (below 1000 each)."""
        return tuple(range(1000 * self.seed, 1000 * self.seed + k))

    def save(self, name: str, rows: pd.DataFrame, figure: "Figure | None" = None, caption: str = "") -> None:
        """Rows as CSV, the figure as PNG and SVG with the caption inside, provenance beside them. Displays nothing."""
        _check_name(name)
        check_rows(name, rows)
        rows = rows.copy()
        rows.insert(0, "experiment", name) if "experiment" not in rows else None
        rows.insert(1, "profile", self.profile) if "profile" not in rows else None
        longer = PROFILES[PROFILES.index(self.profile) :]  # what a figure of a short run may be drawn from, see `shown`
        if other := sorted(set(rows["profile"]) - set(longer)):
            raise TsfmError(f"{name} holds rows of profile {other[0]!r} on a page of {self.profile!r}: save only what this run made")
        _write(self.folder / f"{name}.csv", rows.to_csv(index=False, float_format="%.9g", lineterminator="\n"))
        self.saved = sorted({*self.saved, name})
        if figure is not None:
            from tsfm_lib import plotting

            self.captions[name] = caption
            plotting.save(figure, self.folder / name, caption)
        _write(self.folder / "provenance.json", json.dumps(self.provenance(), indent=1, default=_plain) + "\n")

    def recorded(self, name: str) -> pd.DataFrame:
        """The committed rows of the highest profile: what verdicts are judged on."""
        return recorded_rows(self.notebook, name)

    def shown(self, name: str, rows: pd.DataFrame) -> pd.DataFrame:
        """What a figure is drawn from: the recorded rows where they are of a higher profile than this run's, or this run made none.
        Says so, for a reader who sees more points than the run had time for."""
        kept = self.recorded(name)
        better = len(kept) and (not len(rows) or PROFILES.index(kept["profile"].iloc[0]) > PROFILES.index(self.profile))
        print(f"{name}: drawn from {kept.attrs['recorded'] if better else 'this run, ' + self.profile}")
        return kept if better else rows

    def sweep(self, name: str, cells: Iterable[Mapping[str, Any]], run: Callable[..., Any]) -> pd.DataFrame:
        """`run(**cell)` for every cell, each finished cell's rows kept under build/rows/, so that a killed sweep goes on.

        A cell is known by its values, the page's profile and seed and the source of `run`. What else changes the result (a model,
        a recipe) belongs into the cell. `run` returns a dict, a list of dicts or a frame; the cell's values become columns.
        """
        from tqdm import tqdm

        _check_name(name)
        try:
            source = inspect.getsource(run)
        except (OSError, TypeError):
            source = f"{getattr(run, '__module__', '')}.{getattr(run, '__qualname__', repr(type(run)))}"
        frames = []
        for cell in tqdm(list(cells), desc=name):
            key = json.dumps(dict(cell), sort_keys=True, default=_plain)
            file = paths.BUILD / "rows" / self.notebook / name / f"{_digest(key, self.profile, str(self.seed), source).hex()[:24]}.json"
            found = _read_cell(file)
            if found is None:
                began = time.process_time()
                rows = [{"experiment": name, "profile": self.profile, **cell, **row} for row in _as_rows(run(**cell), name)]
                made = {"cpu_seconds": round(time.process_time() - began, 3), "date": _now(), "commit": _commit()["commit"], "rows": rows}
                _write(file, json.dumps(made, default=_plain))
                found = _read_cell(file)             # the same types whether the cell ran now or before
            frames.append(pd.DataFrame(found["rows"]))
            self._count(name, found)
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def _count(self, name: str, cell: Mapping[str, Any]) -> None:
        """What the cells of a sweep cost when they were run, in this session or before."""
        known = self.sweeps.setdefault(name, {"cells": 0, "cpu_seconds": 0.0, "from": cell["date"], "to": cell["date"], "commits": []})
        known["cells"] += 1
        known["cpu_seconds"] = round(known["cpu_seconds"] + cell["cpu_seconds"], 3)
        known["from"], known["to"] = min(known["from"], cell["date"]), max(known["to"], cell["date"])
        known["commits"] = sorted({*known["commits"], cell["commit"]} - {None})

    def needs(self, dataset: str) -> bool:
        """Whether a benchmark is there; says in one line if not, and the notebook goes on without it."""
        from tsfm_lib import data

        there = data.available(dataset)
        if not there:
            print(f"{dataset} is not on this machine: this part is left out "
                  f"(set TSFM_DATA to a folder that has it, or fetch it once with tsfm_lib.data.fetch({dataset!r}))")
        return there

    def used(self, weights: str | Path) -> None:
        """Note the sha256 of the weights that were used: a shipped name or a folder."""
        folder = Path(weights) if Path(weights).is_dir() else paths.WEIGHTS / str(weights)
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise TsfmError(f"expected a folder with .safetensors or the name of shipped weights, got {str(weights)!r}")
        self.weights.update({f"{folder.name}/{file.name}": _sha256(file) for file in files})

    def provenance(self) -> dict[str, Any]:
        """Where these numbers come from. Dates and seconds stand here and nowhere else."""
        return {
            "notebook": self.notebook, "profile": self.profile, "seed": self.seed, **_commit(),
            "date": _now(), "seconds": round(time.perf_counter() - self.started, 1),
            "device": _device(), "threads": threads(), "python": platform.python_version(), "system": platform.system(),
            "versions": _versions(), "saved": self.saved, "weights": dict(sorted(self.weights.items())),
            "captions": dict(sorted(self.captions.items())), "sweeps": dict(sorted(self.sweeps.items())),
        }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read_cell(file: Path) -> dict[str, Any] | None:
    """A finished cell: its rows, and when, at which commit and in how many CPU seconds they were made. None if missing or damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"rows", "cpu_seconds", "date", "commit"} <= set(found) else None


def _as_rows(found: Any, name: str) -> list[dict]:
    if isinstance(found, pd.DataFrame):
        return found.to_dict("records")
    rows = [found] if isinstance(found, Mapping) else found
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise TsfmError(f"a cell of {name} must return a dict, a list of dicts or a frame, got {type(found).__name__}")
    return [dict(row) for row in rows]


def _commit() -> dict[str, Any]:
    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(paths.ROOT), *arguments], capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changed = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changed is None else bool(changed)}


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _device() -> str:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"{os.cpu_count()}-core {platform.machine()} CPU"


def publish(profile: str, notebooks: Iterable[str] | None = None) -> list[Path]:
    """Copy what the last run at a profile saved to figures/; pictures only where no higher profile is recorded.

    Files that an older version of a notebook left under build/ stay there. Returns the files written.
    """
    if profile not in PROFILES:
        raise TsfmError(f"profile must be one of {', '.join(PROFILES)}, got {profile!r}{nearest(str(profile), PROFILES)}")
    wanted = None if notebooks is None else set(notebooks)
    higher = PROFILES[PROFILES.index(profile) + 1:]
    written: list[Path] = []
    for note in sorted((paths.BUILD / profile).glob("*/provenance.json")):
        if wanted is not None and note.parent.name not in wanted:
            continue
        target = paths.FIGURES / note.parent.name
        pairs = [(note, target / f"provenance.{profile}.json")]
        for rows in (note.parent / f"{name}.csv" for name in json.loads(note.read_text(encoding="utf-8"))["saved"]):
            pairs.append((rows, target / f"{rows.stem}.{profile}.csv"))
            if not any((target / f"{rows.stem}.{above}.csv").exists() for above in higher):
                pairs += [(picture, target / picture.name) for end in (".png", ".svg") if (picture := rows.with_suffix(end)).exists()]
        for source, to in pairs:
            to.parent.mkdir(parents=True, exist_ok=True)
            with paths.replacing(to) as file:
                file.write(source.read_bytes())
            written.append(to)
    return written
