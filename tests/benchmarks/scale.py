"""What the runs of the papers would cost, extrapolated from what was measured here: `python tests/benchmarks/scale.py` prints the table
of SCALING.md, `--write` puts it there. A test compares the two.

Every estimate is (measured cost) x (units of work / units measured) ** exponent, once with the exponent 1 and once with the fitted one:
the two ends of the range that the table gives.
"""

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
MEASURED, PAGE = Path(__file__).with_name("scale.csv"), ROOT / "SCALING.md"
BOARD = ROOT / "figures" / "14_kairos_zero_shot" / "gift_eval.laptop.csv"
BEGIN, END = "<!-- table: python tests/benchmarks/scale.py --write -->", "<!-- end of the table -->"

# what is measured
CORPORA, LENGTHS = (1000, 4000, 16_000), (256, 512, 1024)
ENCODERS = {"Mantis": ("0.75m", "2.59m", "8.10m", "28.56m", "114.14m"), "MOMENT": ("small", "base", "large")}
BATCHES, ROWS = (2, 4, 8, 16), 4                # series of a step: for all in the smallest size, ROWS in the others
KAIROS, HORIZONS = ("mini", "small", "base"), (48, 480, 720)

# what is assumed
SUSTAINED = 100                         # TFLOP/s of one GPU in training; no GPU was measured
FORECASTS = 5000                        # of a configuration of GIFT-Eval (series x variates x windows); the suite is not on this machine
TERMS = {"short": 48, "medium": 480, "long": 720}                     # steps ahead, as for hourly series
BYTES = 20                              # of training state a parameter: weights, gradient, average and two moments in float32
DAY = 86_400


@dataclass(frozen=True)
class Run:
    """Pretraining of the paper: `epochs` passes over `series`; `batch` is what one step takes on."""

    kind: str
    size: str
    series: float
    epochs: int
    batch: int
    called: str = ""


# arXiv 2508.02879: sizes of corpora and models from its tables, epochs from its code and App. G (MOMENT: 10 epochs); whether they were
# the same for the large corpora is not said, MOMENT's batch neither. It calls MOMENT by the size of the whole T5 whose encoder it takes.
RUNS = (
    Run("Mantis", "8.10m", 1e5, 100, 1024), Run("Mantis", "8.10m", 1e7, 100, 1024), Run("Mantis", "114.14m", 1e7, 100, 1024),
    Run("MOMENT", "small", 1e7, 10, 512, "77M"), Run("MOMENT", "base", 1e7, 10, 512, "248M"), Run("MOMENT", "large", 1e7, 10, 512, "783M"),
)  # fmt: skip


def read(path: Path = MEASURED) -> dict[str, float]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["name"]: float(row["ours"]) for row in csv.DictReader(file)}


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope on double logarithmic paper.

    >>> round(exponent([1, 10, 100], [3, 300, 30_000]), 6)
    2.0
    """
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def predicted(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The last time as the power law through those before it has it.

    >>> round(predicted([1, 10, 100], [2, 20, 999]), 6)
    200.0
    """
    slope, level = np.polyfit(np.log(sizes[:-1]), np.log(seconds[:-1]), 1)
    return float(np.exp(level + slope * np.log(sizes[-1])))


def exponents(got: Mapping[str, float]) -> dict[str, float]:
    """How each cost grows; 1 is proportional."""
    per_series = lambda kind, size: got[f"{kind} {size}, batch of {ROWS}"] / ROWS
    return {
        "CauKer, series": exponent(CORPORA, [got[f"CauKer, {n} series of 512"] for n in CORPORA]),
        "CauKer, length": exponent(LENGTHS, [got[f"CauKer, {CORPORA[0]} series of {n}"] for n in LENGTHS]),
        **{f"{kind}, series of a batch": exponent(BATCHES, [got[f"{kind} {sizes[0]}, batch of {n}"] for n in BATCHES])
           for kind, sizes in ENCODERS.items()},
        **{f"{kind}, work of a series": exponent([got[f"{kind} {s}, work"] for s in sizes], [per_series(kind, s) for s in sizes])
           for kind, sizes in ENCODERS.items()},
        "Kairos, horizon": exponent(HORIZONS, [got[f"Kairos mini, horizon {h}"] for h in HORIZONS]),
    }  # fmt: skip


def checks(got: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """The largest encoder of each kind, as the smaller ones foretell it from its work, and as it was measured: CPU s a series."""
    found = {}
    for kind, sizes in ENCODERS.items():
        work, seconds = [got[f"{kind} {s}, work"] for s in sizes], [got[f"{kind} {s}, batch of {ROWS}"] / ROWS for s in sizes]
        found[f"{kind} {sizes[-1]}"] = predicted(work, seconds), seconds[-1]
    return found


def between(measured: float, factor: float, slope: float) -> tuple[float, float]:
    """A cost `factor` times as large, in proportion and with the fitted exponent, the lower one first.

    >>> between(2.0, 100, 0.5)
    (20.0, 200.0)
    """
    ends = measured * factor, measured * factor**slope
    return min(ends), max(ends)


def terms() -> dict[str, int]:
    """Configurations of GIFT-Eval by term, from the recorded rows of notebook 14."""
    with BOARD.open(newline="", encoding="utf-8") as file:
        configurations = {(row["term"], row["dataset"]) for row in csv.DictReader(file)}
    return {term: sum(t == term for t, _ in configurations) for term in TERMS}


@dataclass(frozen=True)
class Estimate:
    """core-days as a range; `beyond`: how many times what was measured; `gpu`: hours if one sustains what is assumed; `gb`: of training
    state, of weights or of disk."""

    run: str
    work: str
    low: float
    high: float
    beyond: float
    gb: float
    gpu: float | None = None


def estimates(got: Mapping[str, float]) -> list[Estimate]:
    grown = exponents(got)
    return [corpus(got, grown), *(pretraining(run, got, grown) for run in RUNS), *(forecasting(size, got) for size in KAIROS)]


def corpus(got: Mapping[str, float], grown: Mapping[str, float]) -> Estimate:
    series, most = 1e7, CORPORA[-1]
    low, high = between(got[f"CauKer, {most} series of 512"] / DAY, series / most, grown["CauKer, series"])
    return Estimate("CauKer corpus, series of 512", f"{_short(series)} series", low, high, series / most, series * 512 * 4 / 1e9)


def pretraining(run: Run, got: Mapping[str, float], grown: Mapping[str, float]) -> Estimate:
    name, total = f"{run.kind} {run.size}", run.series * run.epochs
    low, high = between(got[f"{name}, batch of {ROWS}"] / DAY, run.batch / ROWS, grown[f"{run.kind}, series of a batch"])
    low, high = low * total / run.batch, high * total / run.batch
    hours = got[f"{name}, work"] * total / (1000 * SUSTAINED) / 3600
    called = f"{_short(1e6 * got[f'{name}, parameters'])} parameters" + (f" (the paper's {run.called})" if run.called else "")
    return Estimate(f"{run.kind}, {called}, on {_short(run.series)} series", f"{run.epochs} epochs, {_short(total)} series", low, high,
                    total / ROWS, BYTES * got[f"{name}, parameters"] / 1e3, hours)  # fmt: skip


def forecasting(size: str, got: Mapping[str, float]) -> Estimate:
    configurations = terms()
    number = sum(configurations.values())
    seconds = FORECASTS * sum(count * got[f"Kairos {size}, horizon {TERMS[term]}"] for term, count in configurations.items())
    return Estimate(f"Kairos {size} on GIFT-Eval's {number} configurations", f"{_short(FORECASTS * number)} forecasts", seconds / DAY,
                    seconds / DAY, FORECASTS * number / ROWS, 4 * got[f"Kairos {size}, parameters"] / 1e3)  # fmt: skip


def _short(n: float) -> str:
    """
    >>> _short(1e7), _short(485_000), _short(1e9)
    ('10M', '485K', '1G')
    """
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "K")):
        if n >= unit:
            return f"{n / unit:.3g}{letter}"
    return f"{n:g}"


def _lasting(days: float) -> str:
    """
    >>> _lasting(0.016), _lasting(4.01), _lasting(4500)
    ('23 minutes', '4 days', '12 years')
    """
    unit, per = next(((u, p) for u, p in (("years", 365), ("days", 1), ("hours", 1 / 24)) if days >= 2 * p), ("minutes", 1 / 1440))
    return f"{_days(days / per)} {unit}"


def _days(x: float) -> str:
    """
    >>> _days(0.0521), _days(41.234), _days(12345)
    ('0.052', '41', '12,000')
    """
    rounded = float(f"{x:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


def table(got: Mapping[str, float]) -> str:
    """The markdown between the two marks of SCALING.md."""
    lines = ["| run | work | core-days | two cores, at most | GPU-hours, assumed | GB | times what was measured |", f"|{'---|' * 7}"]
    for e in estimates(got):
        days = " to ".join(dict.fromkeys((_days(e.low), _days(e.high))))
        lines.append(f"| {e.run} | {e.work} | {days} | {_lasting(e.high / 2)} | {'' if e.gpu is None else _days(e.gpu)} | {_days(e.gb)} "
                     f"| {_short(e.beyond)} |")  # fmt: skip
    lines += ["", "| cost against | exponent |", "|---|---|", *(f"| {name} | {slope:.2f} |" for name, slope in exponents(got).items())]
    lines += ["", "| held out | CPU s a series, foretold from the smaller sizes | measured | ratio |", f"|{'---|' * 4}",
              *(f"| {name} | {told:.3g} | {found:.3g} | {told / found:.2f} |" for name, (told, found) in checks(got).items())]  # fmt: skip
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    made = table(read())
    if "--write" in arguments:
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{made}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    else:
        print(made)


if __name__ == "__main__":
    main(sys.argv[1:])
