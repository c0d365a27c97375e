"""A small harness for honest speed ratios: both sides on one thread, in turns, on two clocks, geometric means of the turns.

CPU time does not count the moments in which other programs hold the core, so it is what ratios are made of; wall time stands beside it.
Turns spread slow phases of the machine over both sides, and one uncounted call each pays for compilation and caches.
"""

import csv
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from math import exp, log
from pathlib import Path

QUIET = {"KINETO_LOG_LEVEL": "5"}  # torch's profiler announces itself otherwise
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
SLOWER = 0.95  # a ratio below it is a row in which we are slower: it needs an explanation, see WHY


@dataclass(frozen=True)
class Row:
    """One line of bench.csv. `ratio` says how many times better we are than the peer; it and the peer are empty where there is none.

    `low` and `high` are the interval of the ratio over the rounds (paired t, of logarithms), `wall` is the ratio on the other clock.
    A point of a growth curve says along which `axis` it lies, and where (`size`). `why`: the reason, where the peer is faster.
    """

    name: str
    ours: float | None
    peer: float | None
    ratio: float | None
    unit: str
    how: str
    low: float | None = None
    high: float | None = None
    wall: float | None = None
    rounds: int | None = None
    axis: str | None = None
    size: float | None = None
    why: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Race:
    """Seconds of every turn, ours and the peer's: of the CPU and, where it was looked at, on the wall."""

    cpu: Sequence[tuple[float, float]]
    wall: Sequence[tuple[float, float]] = field(default=())

    @property
    def ours(self) -> float:
        return middle(a for a, _ in self.cpu)

    @property
    def peer(self) -> float:
        return middle(b for _, b in self.cpu)

    def interval(self) -> tuple[float | None, float | None]:
        """Of peer / ours, over the turns; none from a single turn."""
        if len(self.cpu) < 2:
            return None, None
        from tsfm_lib.evaluate.comparison import paired_t

        found = paired_t([log(b / a) for a, b in self.cpu])
        return exp(found.low), exp(found.high)


BENCHMARKS: dict[str, list[Callable[[bool], Iterable[Row]]]] = {}
WHY: dict[str, str] = {}
"""Beginnings of names of rows in which a peer is faster: why, and what was tried. Filled beside the benchmarks."""


def benchmark(group: str, why: Mapping[str, str] | None = None) -> Callable:
    """Register a function `quick -> rows` under the group that `run.py --only` names."""
    def register(function: Callable[[bool], Iterable[Row]]) -> Callable[[bool], Iterable[Row]]:
        BENCHMARKS.setdefault(group, []).append(function)
        WHY.update(why or {})
        return function
    return register


def one_thread() -> None:
    """Must run before numpy, numba or torch is imported."""
    os.environ.update(dict.fromkeys(THREADS, "1") | QUIET)


def middle(values: Iterable[float]) -> float:
    """The geometric mean: the ratio of two of them is that of the paired ratios."""
    logs = [log(max(value, 1e-9)) for value in values]
    return exp(sum(logs) / len(logs))


def clocks(call: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall seconds of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - cpu, time.perf_counter() - wall


def cpu_seconds(call: Callable[[], object]) -> float:
    return clocks(call)[0]


def race(ours: Callable[[], object], peer: Callable[[], object], turns: int,
         clock: Callable[[Callable[[], object]], tuple[float, float]] = clocks) -> Race:  # fmt: skip
    """Both called in turns, after one uncounted call of each."""
    ours(), peer()
    pairs = [(clock(ours), clock(peer)) for _ in range(turns)]
    return Race(*([(a[i], b[i]) for a, b in pairs] for i in range(2)))


def alone(call: Callable[[], object], turns: int) -> float:
    """CPU seconds of one call, after an uncounted one."""
    call()
    return middle(cpu_seconds(call) for _ in range(turns))


def cost(name: str, ours: float, peer: float | None, unit: str, how: str, **more: object) -> Row:
    """A row for something where less is better."""
    return Row(name, ours, peer, None if peer is None else peer / ours, unit, how, **more)


def raced(name: str, found: Race, unit: str, how: str, ours: float = 1e3, peer: float | None = None) -> Row:
    """A row of a race; `ours` and `peer` turn seconds of a call into the unit. Units that count something per second are turned over."""
    per_second = unit.endswith("per s")
    turn = lambda seconds, factor: factor / seconds if per_second else factor * seconds
    a, b = turn(found.ours, ours), turn(found.peer, ours if peer is None else peer)
    ratio = a / b if per_second else b / a
    scale = ratio / (found.peer / found.ours)                       # where the two sides did unlike amounts of work
    low, high = (None if end is None else scale * end for end in found.interval())
    wall = scale * middle(q / p for p, q in found.wall) if found.wall else None
    return Row(name, a, b, ratio, unit, how, low, high, wall, len(found.cpu))


def explained(row: Row) -> Row:
    """With the reason, if the peer is faster."""
    if row.ratio is None or row.ratio >= SLOWER:
        return row
    known = [start for start in WHY if row.name.startswith(start)]
    return replace(row, why=WHY[max(known, key=len)]) if known else row


def functions(chosen: str) -> list[Callable[[bool], Iterable[Row]]]:
    """Those of a group, or of `group/name` the one of that name."""
    group, _, name = chosen.partition("/")
    return [function for function in BENCHMARKS.get(group, []) if name in ("", function.__name__)]


def run(groups: Iterable[str], quick: bool) -> Iterator[Row]:
    for group in groups:
        for function in functions(group):
            for row in function(quick):
                yield replace(explained(row), group=group.partition("/")[0])


def text(value: float | str | None) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:.4g}"


def write(rows: Iterable[Row], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)])
        writer.writeheader()
        writer.writerows({k: text(v) for k, v in asdict(row).items()} for row in rows)


def line(row: Row) -> str:
    against = f"{text(row.peer):>10} {text(row.ratio) + 'x':>8}" if row.peer is not None else f"{'':>10} {'':>8}"
    within = f"[{text(row.low)}, {text(row.high)}]" if row.low is not None else ""
    return f"{row.name:<40} {text(row.ours):>10} {against} {within:<18} {row.unit:<14} {row.how}"
