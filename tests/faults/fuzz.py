"""Feed malformed things to every reader and to the front door, and tell what was neither read nor refused in a sentence.

    python -m tests.faults.fuzz                      500 inputs, the same ones every time
    python -m tests.faults.fuzz --inputs 5000        ten times as many
    python -m tests.faults.fuzz --only csv,front --inputs 2000 --seed 7

Runs in a process of its own: the test suite's type checks would answer before the library does, and a hang, a crash of the interpreter
or an exhausted memory end this process only. A refusal is a TsfmError, or a plain ValueError or TypeError that the library itself raises,
in one line. Whatever is answered holds no missing or infinite number.
"""

import argparse
import contextlib
import faulthandler
import json
import linecache
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import tsfm_lib
from tests.faults import malformed as m
from tests.faults import odd
from tests.parity import reference
from tsfm_lib import checkpoints, claims, data, page, paths
from tsfm_lib.data.sets import LabelledSet
from tsfm_lib.errors import TsfmError
from tsfm_lib.interpret.plans import Plan
from tsfm_lib.models import MODELS
from tsfm_lib.models.scratch import PatchTSTConfig
from tsfm_lib.train import Recipe
from tsfm_lib.train.recipes import RECIPES

HANG = 120  # seconds for one input; a slow machine takes one
SLOW = 3.0  # seconds after which the slowest input of a target is shown
MEMORY = 8 * 2**30  # bytes of this process
LIBRARY = str(paths.ROOT / "tsfm_lib")


class Wrong(Exception):
    """An answer that should have been a refusal."""


def is_refusal(problem: BaseException) -> bool:
    """Whether an exception is an answer: ours, or a plain one raised by a line of the library, in one line of words."""
    words = str(problem)
    if len(words) < 15 or "\n" in words:
        return False
    if isinstance(problem, TsfmError):
        return True
    last = traceback.extract_tb(problem.__traceback__)[-1]
    return (
        type(problem) in (ValueError, TypeError)
        and last.filename.startswith(LIBRARY)
        and "raise" in linecache.getline(last.filename, last.lineno)
    )


def finite(name: str, *arrays: Any) -> None:
    if not all(np.isfinite(np.asarray(a, float)).all() for a in arrays):
        raise Wrong(f"{name} holds a missing or infinite number")


# ---- what is called with an input ------------------------------------------------------------------------------------------------------


def read_file(folder: Path, given: tuple[str, bytes]) -> None:
    name, content = given
    (folder / name).write_bytes(content)
    try:
        found = data.read(folder / name)
    except TsfmError as refusal:
        if name.split(".")[0] not in str(refusal):
            raise Wrong(f"the refusal does not name the file: {refusal}") from None
        raise
    parts = (found.x_train, found.x_test) if isinstance(found, LabelledSet) else found.series
    if any(np.isinf(p).any() or (np.isnan(p).all() and p.size) for p in parts):
        raise Wrong("a series without a number, or with an infinite one, was let through")


def load_folder(folder: Path, given: tuple[str, str, Any]) -> None:
    kind, file, content = given
    shutil.copytree(MADE / kind, folder, dirs_exist_ok=True)
    if isinstance(content, dict):
        save_file({**load_file(folder / file), **{name: tensor.clone() for name, tensor in content.items()}}, folder / file)
    elif isinstance(content, tuple):
        data = (folder / file).read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = json.dumps(content[0](json.loads(data[8 : 8 + size]))).encode()
        (folder / file).write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])
    else:
        (folder / file).write_bytes(content)
    model = tsfm_lib.load(folder)
    if hasattr(model, "predict_quantiles"):
        finite("a forecast of the loaded model", tsfm_lib.forecast(model, np.arange(40.0) % 7, 3))
    else:
        finite("an embedding of the loaded model", tsfm_lib.embed(model, np.arange(64.0) % 7))


def recipe(folder: Path, content: bytes) -> None:
    Recipe.from_json(content.decode("utf-8", "replace"))


def plan(folder: Path, content: bytes) -> None:
    (folder / "plan.json").write_bytes(content)
    Plan.load(folder / "plan.json").resolve(MODEL)


def rows(folder: Path, given: tuple[str, bytes]) -> None:
    id, content, note = given
    paths.FIGURES = folder
    for notebook in claims.claim(id).notebooks:
        (folder / notebook).mkdir(exist_ok=True)
        (folder / notebook / "rows.laptop.csv").write_bytes(content)
        (folder / notebook / "provenance.laptop.json").write_bytes(note)
    str(claims.judge(id, claims.recorded(id)))
    page.recorded_rows("11_kairos")


def forecast(folder: Path, given: tuple) -> None:
    model, series, horizon, levels, season = given
    found = tsfm_lib.forecast(MODEL if model == "tiny" else model, series, horizon, levels, season)
    if isinstance(found, pd.DataFrame):
        finite("a forecast", found[[c for c in found.columns if c not in ("unique_id", "ds")]].select_dtypes("number"))
    else:
        finite("a forecast", *(found if isinstance(found, list) else [found]))


def sound(folder: Path, given: tuple) -> None:
    """What is well formed is answered, whatever is missing in it."""
    model, series, horizon, levels, season = given
    try:
        found = tsfm_lib.forecast(MODEL if model == "tiny" else model, series, horizon, levels, season)
        vectors = tsfm_lib.embed(MODEL, series)
    except TsfmError as refusal:
        raise Wrong(f"refused: {refusal}") from None
    finite("an answer", vectors, *(found if isinstance(found, list) else [found]))


def embed(folder: Path, series: Any) -> None:
    finite("an embedding", tsfm_lib.embed(MODEL, series))


def name(folder: Path, given: tuple[Any, bool]) -> None:
    text, options = given
    tsfm_lib.load(text, **({"season": 3} if options else {}))


def path(folder: Path, text: Any) -> None:
    data.read(text)


def dataset(folder: Path, text: Any) -> None:
    data.load(text)


def save(folder: Path, given: tuple[Any, Any, Any]) -> None:
    where, card, model = given
    place = folder / where if isinstance(where, str) and not where.startswith(("/", "~")) and ".." not in where else None
    tsfm_lib.save(MODEL if model == "tiny" else model, place, card)


MODEL = checkpoints.build("patchtst", PatchTSTConfig.tiny())
PLACE = tempfile.TemporaryDirectory(prefix="tsfm-fuzz-")  # gone with this process
MADE, HERE = (Path(PLACE.name) / name for name in ("models", "here"))
SMALL = {
    "patchtst": PatchTSTConfig.tiny(),
    "dlinear": {"context": 32, "horizon": 8},
}


def sizes(name: str) -> dict[str, Any]:
    """A small model of each architecture: as its tests make it, else as it ships."""
    kind = MODELS[name].config_class()
    return SMALL.get(name) or (kind.tiny() if hasattr(kind, "tiny") else {})


def folders() -> st.SearchStrategy:
    """(architecture, file, what becomes of it) for small models of every kind."""
    one = []
    for name in MODELS:
        if not (name in SMALL or hasattr(MODELS[name].config_class(), "tiny")):
            continue
        checkpoints.save(checkpoints.build(name, sizes(name)), MADE / name)
        config, weights = (MADE / name / file for file in ("config.json", "model.safetensors"))
        one.append(st.tuples(st.just(name), st.just("config.json"), m.texts([json.loads(config.read_text())])))
        if name in SMALL:
            one.append(st.tuples(st.just(name), st.just("card.json"), m.texts([json.loads((MADE / name / "card.json").read_text())])))
            one.append(st.tuples(st.just(name), st.just("model.safetensors"), m.harmed([weights.read_bytes()])))
            header = json.loads(weights.read_bytes()[8 : 8 + int.from_bytes(weights.read_bytes()[:8], "little")])
            one.append(st.tuples(st.just(name), st.just("model.safetensors"), m.changed([header]).map(lambda h: (lambda old: h,))))
            tensor = st.sampled_from(sorted(load_file(weights)))
            other = st.sampled_from(
                [
                    torch.ones(2),
                    torch.ones(3, dtype=torch.long),
                    torch.full((2, 2), float("nan")),
                    torch.zeros(0),
                    torch.ones(1, dtype=torch.bool),
                ]
            )
            one.append(st.tuples(st.just(name), st.just("model.safetensors"), st.dictionaries(tensor, other, min_size=1, max_size=2)))
    return st.one_of(one)


def official() -> st.SearchStrategy:
    """The authors' layouts, as far as the reference cases of the parity tests hold them whole."""
    one = []
    for case in sorted(reference.CASES.glob("*.safetensors")):
        known, folder = reference.read(case), MADE / case.stem
        folder.mkdir()
        save_file(known.weights, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(known.config))
        with contextlib.suppress(TsfmError):
            tsfm_lib.load(folder)
            one.append(st.tuples(st.just(case.stem), st.just("config.json"), m.texts([known.config])))
    assert len(one) > 1
    return st.one_of(one)


BASES = st.sampled_from(
    ["naive", "seasonal-naive", "seasonal-naive-intervals", "theta", "ridge-lags", "ets", "dlinear-fit", "tiny", "tiny", "naive"]
)
ROWS = [
    b"experiment,profile,seed,variant,dataset,horizon,unit,WQL,MASE,MSE,accuracy\nrows,laptop,0,own,ETTh1,96,a,0.5,1,1,0.5\n"
    b"rows,laptop,1,fixed-rope,ETTh1,96,b,0.6,1,1,0.5\nrows,laptop,2,own,ETTh1,96,,nan,inf,1,x\n"
]

NOTES = st.one_of(st.just(b"{}"), st.just(b'{"date": "2026-11-01", "device": "CPU"}'), m.texts([{"date": "2026-11-01", "device": "CPU"}]))

# target: its share of every hundred inputs, what it is given, what is called
TARGETS: dict[str, tuple[int, Callable[[], st.SearchStrategy], Callable[[Path, Any], None]]] = {
    **{layout: (9 if layout == "csv" else 7, lambda layout=layout: m.FILES[layout], read_file) for layout in m.FILES},
    "folder": (12, folders, load_folder),
    "official": (4, official, load_folder),
    "recipe": (5, lambda: m.texts([json.loads(r.to_json()) for r in RECIPES.values()]), recipe),
    "plan": (
        4,
        lambda: m.texts([{"heads": {s.name: [0] for s in MODEL.sites() if hasattr(s, "n_heads")}, "mlps": [], "layers": []}]),
        plan,
    ),
    "rows": (4, lambda: st.tuples(st.sampled_from(sorted(claims.CLAIMS)), m.harmed(ROWS), NOTES), rows),
    "series": (11, lambda: st.tuples(BASES, odd.SERIES, st.integers(1, 9), st.just([0.1, 0.9]), st.none()), forecast),
    "request": (6, lambda: st.tuples(BASES, odd.SOUND, odd.HORIZONS, odd.LEVELS, odd.SEASONS), forecast),
    "sound": (
        4,
        lambda: st.tuples(BASES, odd.SOUND, st.integers(1, 30), st.just([0.1, 0.5, 0.9]), st.one_of(st.none(), st.integers(1, 40))),
        sound,
    ),
    "embed": (4, lambda: odd.SERIES, embed),
    "name": (3, lambda: st.tuples(odd.NAMES, st.booleans()), name),
    "path": (2, lambda: odd.NAMES, path),
    "dataset": (2, lambda: odd.NAMES, dataset),
    "save": (2, lambda: st.tuples(odd.NAMES, odd.CARDS, st.sampled_from(["tiny", "tiny", "naive", None, torch.nn.Linear(1, 1)])), save),
}


@dataclass
class Tally:
    read: int = 0
    refused: int = 0
    wrong: Counter = field(default_factory=Counter)
    smallest: dict[str, tuple[str, str]] = field(default_factory=dict)  # the shortest input of each kind of failure, and its traceback
    slowest: float = 0.0
    slow: Any = None  # the input that took longest

    def failed(self, problem: BaseException, given: Any) -> None:
        steps = [s for s in traceback.extract_tb(problem.__traceback__) if s.filename.startswith(LIBRARY)]
        where = f"{Path(steps[-1].filename).name}:{steps[-1].lineno}" if steps else "?"
        kind = f"{type(problem).__name__} at {where}: {str(problem)[:160]!r}"
        key = f"{type(problem).__name__} at {where}"
        self.wrong[key] += 1
        told = (f"{kind}\n    from {repr(given)[:1500]}", "".join(traceback.format_exception(problem)[-6:]))
        if key not in self.smallest or len(told[0]) < len(self.smallest[key][0]):
            self.smallest[key] = told


def attack(target: str, inputs: int, start: int) -> Tally:
    _, make, call = TARGETS[target]
    tally = Tally()

    @seed(start)
    @settings(max_examples=inputs, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(make())
    def once(given: Any) -> None:
        folder = Path(tempfile.mkdtemp(dir=PLACE.name))
        faulthandler.dump_traceback_later(HANG, exit=True)
        began = time.perf_counter()
        try:
            call(folder, given)
            tally.read += 1
        except Exception as problem:
            if is_refusal(problem):
                tally.refused += 1
            else:
                tally.failed(problem, given)
        finally:
            faulthandler.cancel_dump_traceback_later()
            if (took := time.perf_counter() - began) > tally.slowest:
                tally.slowest, tally.slow = took, given
            shutil.rmtree(folder, ignore_errors=True)

    once()
    return tally


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.fuzz", description="Malformed inputs for every reader and the front door."
    )
    parser.add_argument("--inputs", type=int, default=500, help="how many, over all targets together")
    parser.add_argument("--only", default="", help=f"some of {', '.join(TARGETS)}, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trace", action="store_true", help="with the traceback of each kind of failure")
    asked = parser.parse_args(given)
    chosen = [name for name in asked.only.split(",") if name] or list(TARGETS)
    warnings.simplefilter("ignore")
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    os.environ.update(TSFM_OFFLINE="1", HF_HUB_OFFLINE="1", TSFM_CACHE=f"{PLACE.name}/cache")
    for folder in (MADE, HERE):
        folder.mkdir()
    os.chdir(HERE)
    torch.set_num_threads(1)
    tsfm_lib.forecast("theta", [1.0, 2.0, 3.0], 1)  # whatever is imported late is imported now
    whole, failed, total = sum(TARGETS[name][0] for name in chosen), 0, 0
    for target in chosen:
        began = time.perf_counter()
        tally = attack(target, max(1, round(asked.inputs * TARGETS[target][0] / whole)), asked.seed)
        count = tally.read + tally.refused + sum(tally.wrong.values())
        total += count
        print(
            f"{target:<10}{count:5} inputs {tally.read:5} read {tally.refused:5} refused {sum(tally.wrong.values()):5} wrong  "
            f"{time.perf_counter() - began:6.1f} s, slowest {tally.slowest:.2f} s",
            flush=True,
        )
        if tally.slowest > SLOW:
            print(f"  slow: {repr(tally.slow)[:1500]}")
        for key, times in tally.wrong.most_common():
            failed += 1
            told, trace = tally.smallest[key]
            print(f"  {times} x {told}" + (f"\n{trace}" if asked.trace else ""), flush=True)
    os.chdir(paths.ROOT)
    print(f"{total} inputs, {failed} kinds of failure")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
