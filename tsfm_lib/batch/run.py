"""All notebooks, some at a time, each in its own process; what happened to them; and writing back on demand."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import nbformat
import papermill
import psutil

from .. import paths
from ..errors import TsfmError, nearest
from . import clean, compare, pages
from .one import Order

TIMEOUTS = {"quick": 900, "laptop": 4 * 3600, "full": 7 * 86400}        # seconds for one notebook
PORT_CLASH = "Address already in use"


@dataclass(frozen=True)
class Settings:
    profile: str = "quick"
    only: tuple[str, ...] = ()
    jobs: int = 2
    timeout: float | None = None
    resume: bool = False
    update: bool = False
    notebooks: Path = paths.NOTEBOOKS
    build: Path = paths.BUILD
    figures: Path = paths.FIGURES

    def __post_init__(self):
        if self.profile not in TIMEOUTS:
            raise TsfmError(f"profile is one of {', '.join(TIMEOUTS)}, got {self.profile!r}{nearest(self.profile, TIMEOUTS)}")
        if self.jobs < 1:
            raise TsfmError(f"--jobs is the number of notebooks at a time, at least 1, got {self.jobs}")
        if self.timeout is not None and self.timeout <= 0:
            raise TsfmError(f"--timeout is a number of seconds above 0, got {self.timeout:g}")

    @property
    def place(self) -> Path:
        return self.build / self.profile


@dataclass(frozen=True)
class Result:
    name: str
    ok: bool
    seconds: float
    note: str = ""
    details: tuple[str, ...] = field(default=())
    kept: bool = False

    def line(self, width: int) -> str:
        word = "kept" if self.kept else "ok" if self.ok else "FAIL"
        return f"{word:<5} {self.name:<{width}} {self.seconds:7.1f} s  {self.note}".rstrip()


def selected(folder: Path, only: Sequence[str]) -> list[Path]:
    """The numbered notebooks of a folder whose names begin with one of `only` (all when it is empty)."""
    known = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not known:
        raise TsfmError(f"no notebooks NN_*.ipynb in {folder}")
    for prefix in only:
        if not any(path.stem.startswith(prefix) for path in known):
            raise TsfmError(f"no notebook begins with {prefix!r}{nearest(prefix, [p.stem for p in known])}; "
                            f"there are {', '.join(path.stem[:2] for path in known)}")
    return [path for path in known if not only or path.stem.startswith(tuple(only))]


def parameters(path: Path, profile: str) -> dict[str, str]:
    """What papermill has to set: nothing when the profile is the notebook's own, so that the copy has the same cells."""
    found = papermill.inspect_notebook(str(path))
    if "profile" not in found:
        raise TsfmError(f"{path.name} has no parameter `profile` in a cell tagged `parameters`")
    return {} if found["profile"]["default"].strip("'\"") == profile else {"profile": profile}


def code_hash(figures: Path) -> str:
    """One hash over everything that notebooks compute with: the library, its weights, and the recorded numbers."""
    digest = hashlib.sha256()
    library = paths.ROOT / "tsfm_lib"
    used = [path for path in library.rglob("*") if path.is_file() and "__pycache__" not in path.parts] + list(figures.rglob("*.csv"))
    for path in sorted(used):
        digest.update(str(path).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def key(path: Path, given: dict[str, str], code: str) -> str:
    """What must be equal for an earlier success to count: cells, parameters, code, and whether benchmark data are there."""
    cells = [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in nbformat.read(path, as_version=4).cells]
    told = json.dumps([cells, given, code, paths.data_folder() is not None, os.environ.get("TSFM_OFFLINE", "")])
    return hashlib.sha256(told.encode()).hexdigest()


def end(process: subprocess.Popen) -> None:
    """End a papermill process and its kernel: politely, then for good."""
    family = [process.pid]
    try:
        family += [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
    for pid in family[1:]:
        try:
            psutil.Process(pid).kill()
        except psutil.NoSuchProcess:
            continue


class Batch:
    """One run over some notebooks. `say` gets each line as it becomes known."""

    def __init__(self, settings: Settings, say: Callable[[str], None] = print):
        self.settings, self.say = settings, say
        self.notebooks = selected(settings.notebooks, settings.only)
        self.state = settings.place / ".state"
        self.state.mkdir(parents=True, exist_ok=True)
        self.width = max(len(path.stem) for path in self.notebooks)
        self.running: set[subprocess.Popen] = set()

    def run(self) -> list[Result]:
        """Every selected notebook once; goes on after failures; results in the order of their numbers."""
        code = code_hash(self.settings.figures)
        settings = self.settings
        self.say(f"{len(self.notebooks)} notebooks at profile {settings.profile}, {settings.jobs} at a time, into {settings.place}")
        results: dict[str, Result] = {}
        with ThreadPoolExecutor(self.settings.jobs) as pool:
            waiting = [pool.submit(self.one, path, code) for path in self.notebooks]
            try:
                for done in as_completed(waiting):
                    result = done.result()
                    results[result.name] = result
                    self.say(result.line(self.width))
                    for line in result.details:
                        self.say(f"        {line}")
            except BaseException:                # Ctrl-C, too: no kernel stays behind
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(self.running):
                    end(process)
                raise
        return [results[path.stem] for path in self.notebooks]

    def one(self, path: Path, code: str) -> Result:
        settings, report = self.settings, self.state / f"{path.stem}.json"
        output = settings.place / path.name
        try:
            given = parameters(path, settings.profile)
        except TsfmError as error:
            return Result(path.stem, False, 0.0, str(error))
        order = Order(str(path), str(output), given, judged=not given and not settings.update, report=str(report))
        mark = key(path, given, code)
        if settings.resume and (earlier := self.earlier(report, mark)) and output.exists():
            return self.again(path, output, earlier, order.judged)
        report.unlink(missing_ok=True)
        result, trouble = self.process(order)
        if not result.ok and PORT_CLASH in trouble:
            result, _ = self.process(order)
        paths.replace_text(report, json.dumps(asdict(result) | {"key": mark}, indent=1))
        return result

    def process(self, order: Order) -> tuple[Result, str]:
        """One process for one notebook, ended when it takes too long; the result and what it said on stderr."""
        name, began = Path(order.source).stem, time.monotonic()
        limit = self.settings.timeout or TIMEOUTS[self.settings.profile]
        command = [sys.executable, "-m", "tsfm_lib.batch.one", json.dumps(asdict(order))]
        child = subprocess.Popen(command, cwd=paths.ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                 text=True, errors="replace", start_new_session=True)
        self.running.add(child)
        try:
            _, trouble = child.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            end(child)
            child.communicate()
            return Result(name, False, round(time.monotonic() - began, 1), f"took longer than {limit:g} s"), ""
        finally:
            self.running.discard(child)
        if child.returncode or not Path(order.report).exists():
            last = [line for line in trouble.splitlines() if line.strip()][-8:]
            named = [line for line in last if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]
            note = (named or last or [f"ended with code {child.returncode}"])[-1]
            return Result(name, False, round(time.monotonic() - began, 1), note, tuple(last)), trouble
        told = json.loads(Path(order.report).read_text(encoding="utf-8"))
        return Result(name, told["ok"], told["seconds"], told["note"], tuple(told["details"])), trouble

    @staticmethod
    def earlier(report: Path, mark: str) -> dict | None:
        """The report of an earlier success under the same key; None without one, or when it is damaged."""
        try:
            told = paths.read_json(report)
        except TsfmError:
            return None
        return told if told.get("ok") and told.get("key") == mark else None

    @staticmethod
    def again(path: Path, output: Path, earlier: dict, judged: bool) -> Result:
        """A kept result; the committed outputs may have changed since, so the cheap comparison is made afresh."""
        differences = compare.compare(nbformat.read(path, 4), nbformat.read(output, 4))[1] if judged else []
        if differences:
            note, lines = compare.told(differences)
            return Result(path.stem, False, earlier["seconds"], note, tuple(lines))
        return Result(path.stem, True, earlier["seconds"], earlier["note"], kept=True)

    # ---- after the runs ----

    def index(self, results: Sequence[Result], tail: str = "") -> Path:
        """The page over all pages of this profile that exist, with this run's seconds and words."""
        by_name = {result.name: result for result in results}
        rows = []
        for path in selected(self.settings.notebooks, ()):
            if not (self.settings.place / f"{path.stem}.html").exists():
                continue
            result = by_name.get(path.stem)
            word, seconds = ("", "") if result is None else ("ok" if result.ok else f"FAIL {result.note}", f"{result.seconds:.1f}")
            rows.append((path.stem, pages.first_heading(nbformat.read(path, 4)), seconds, word))
        target = self.settings.place / "index.html"
        target.write_text(pages.index(f"Notebooks, profile {self.settings.profile}", rows, tail), encoding="utf-8")
        return target

    def write_back(self, results: Sequence[Result]) -> None:
        """Executed notebooks over the committed ones, outputs and counts only."""
        good = {result.name for result in results if result.ok}
        for path in self.notebooks:
            if path.stem in good:
                executed = nbformat.read(self.settings.place / path.name, 4)
                changed = clean.write(clean.cleaned(nbformat.read(path, 4), executed), path)
                self.say(f"{'wrote' if changed else 'same '} {path}")


def recorded(figures: Path) -> str:
    """A hash of the recorded numbers, to see whether publishing changed any."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(figures.rglob("*.csv")))).hexdigest()


def update(batch: Batch, results: Sequence[Result], publish: Callable[[str, list[str]], object]) -> list[Result]:
    """Recorded numbers to figures/, executed notebooks to notebooks/; what failed is left as it was.

    Verdict cells are computed from recorded numbers: when publishing changed any, the notebooks run once more, so that
    what is written back was computed from what is committed beside it.
    """
    before = recorded(batch.settings.figures)
    good = tuple(result.name for result in results if result.ok)
    publish(batch.settings.profile, list(good))
    if batch.settings.profile != "quick":
        return list(results)
    if good and recorded(batch.settings.figures) != before:
        batch.say("the recorded numbers changed: running once more with them")
        again = {result.name: result for result in Batch(replace(batch.settings, only=good, resume=False), batch.say).run()}
        results = [again.get(result.name, result) for result in results]
    batch.write_back(results)
    return list(results)
