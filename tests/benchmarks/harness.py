"""A small harness for honest speed ratios: both sides in one process, one thread, in turns, in CPU time, medians of the turns.

CPU time does not count the moments in which other programs hold the core, turns spread slow phases of the machine over both
sides, and one uncounted call each pays for compilation and caches.
"""

import csv
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True)
class Row:
    """One line of bench.csv. `ratio` says how many times better we are than the peer; both are empty where there is no peer."""

    name: str
    ours: float
    peer: float | None
    ratio: float | None
    unit: str
    how: str


BENCHMARKS: dict[str, list[Callable[[bool], Iterable[Row]]]] = {}


def benchmark(group: str) -> Callable:
    """Register a function `quick -> rows` under the group that `run.py --only` names."""
    def register(function: Callable[[bool], Iterable[Row]]) -> Callable[[bool], Iterable[Row]]:
        BENCHMARKS.setdefault(group, []).append(function)
        return function
    return register


def one_thread() -> None:
    """Must run before numpy, numba or torch is imported."""
    os.environ.update(dict.fromkeys(THREADS, "1"))


def cpu_seconds(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def race(ours: Callable[[], object], peer: Callable[[], object], turns: int) -> tuple[float, float]:
    """Median CPU seconds of one call of each, called in turns after one uncounted call of each."""
    ours(), peer()
    pairs = [(cpu_seconds(ours), cpu_seconds(peer)) for _ in range(turns)]
    return median(a for a, _ in pairs), median(b for _, b in pairs)


def cost(name: str, ours: float, peer: float | None, unit: str, how: str) -> Row:
    """A row for something where less is better."""
    return Row(name, ours, peer, None if peer is None else peer / ours, unit, how)


def run(groups: Iterable[str], quick: bool) -> Iterator[Row]:
    for group in groups:
        for function in BENCHMARKS[group]:
            yield from function(quick)


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
    return f"{row.name:<34} {text(row.ours):>10} {against}  {row.unit:<14} {row.how}"
