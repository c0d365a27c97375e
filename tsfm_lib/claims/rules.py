"""The four kinds of rule that turn recorded rows into a verdict.

Every rule does the same three things. It cuts the rows down to one number per independent unit (everything else is paired
first and averaged within the unit), draws an interval around the mean of those numbers, and compares the interval with the
region in which the claim would be true:

    difference   gain of `better` over `than`             region (-slack, inf), slack 0 unless stated
    ordered      gain of each level over the next         region (0, inf) for every step
    equivalence  difference of `a` and `b`                region (-margin, margin)
    threshold    mean of a metric                         region (level, inf) or (-inf, level)

Interval inside the region: the part holds. Interval wholly outside: refuted here. Anything else: not resolved. The interval
is `evaluate.comparison.interval` at 95 % (paired t below 20 units, bootstrap over units from there on), at 90 % for an
equivalence (two one-sided tests at 5 %). A claim with several comparisons needs every one of them to hold, so nothing has to
be corrected on that side; to be refuted it needs only one, so the interval that refutes is widened to
1 - 0.05 / (number of comparisons).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tsfm_lib.errors import TsfmError
from tsfm_lib.evaluate.comparison import Interval, interval
from tsfm_lib.evaluate.metrics import HIGHER
from tsfm_lib.page import PROFILES

ALPHA = 0.05
REPRODUCED, DIRECTION, UNRESOLVED, REFUTED = "reproduced", "direction holds", "not resolved", "refuted here"
NEEDS = {"official weights": "needs official weights", "data": "needs data"}
WEAKEST_FIRST = (REFUTED, UNRESOLVED, "needs data", "needs official weights", DIRECTION, REPRODUCED)
RESERVED = ("experiment", "profile", "seed", "variant", "dataset", "horizon", "unit")


class NoRows(TsfmError):
    """The rows cannot answer this part; the sentence says what is missing."""


@dataclass(frozen=True)
class Contrast:
    """One number per unit, and the region their mean must lie in for the claim to be true."""
    words: str
    values: np.ndarray
    region: tuple[float, float]         # open interval
    dropped: int = 0            # units that had no partner
    seeds: int = 0


@dataclass(frozen=True)
class Part:
    """What became of one comparison."""
    words: str
    verdict: str
    interval: Interval | None
    why: str = ""
    said: str = ""
    suffix: str = ""
    beside: bool = False        # reported, not judged
    region: tuple[float, float] = (0.0, np.inf)

    @property
    def clearance(self) -> float:
        """Way from the estimate to the nearest edge of the region, in half-widths of the interval: above 1 the interval lies
        inside, below -1 outside, whatever the kind of rule and its unit. At most 100.

        >>> part = Part("gain", DIRECTION, Interval(2.0, 1.0, 3.0, 5, "paired t"))
        >>> part.clearance
        2.0
        """
        if self.interval is None:
            return float("nan")
        half = (self.interval.high - self.interval.low) / 2
        way = min(self.interval.estimate - self.region[0], self.region[1] - self.interval.estimate)
        return float(np.clip(way / max(half, 1e-12), -100, 100))

    def measured(self) -> str:
        return "-" if self.interval is None else number(self.interval.estimate) + self.suffix

    def range(self) -> str:
        return "-" if self.interval is None else f"[{number(self.interval.low)}, {number(self.interval.high)}]{self.suffix}"


def profile_rank(profile: str) -> int:
    return PROFILES.index(profile) if profile in PROFILES else -1


def number(x: float) -> str:
    """Three significant digits, so that the last bits of another machine do not show.

    >>> number(-0.0123456), number(1234.5), number(0.0)
    ('-0.0123', '1230', '0')
    """
    x = float(x)
    return str(x) if not np.isfinite(x) else np.format_float_positional(float(f"{x:.3g}"), trim="-")


def decide(values: ArrayLike, region: tuple[float, float], tests: int = 1, alpha: float = ALPHA) -> tuple[bool | None, Interval]:
    """(True, .) inside the region, (False, .) wholly outside it, (None, .) not resolved.

    >>> decide([1.0, 1.1, 0.9, 1.0, 1.05], (0.0, np.inf))[0], decide([1.0, -1.1, 0.9], (0.0, np.inf))[0]
    (True, None)
    """
    low, high = region
    two_sided = np.isfinite(low) and np.isfinite(high)          # two one-sided tests: each side has its own alpha
    seen = interval(values, level=1 - alpha * (2 if two_sided else 1))
    if low < seen.low and seen.high < high:
        return True, seen
    wide = seen if tests == 1 and not two_sided else interval(values, level=1 - alpha / tests)
    return (False if wide.high < low or wide.low > high else None), seen


@dataclass(frozen=True)
class Rule:
    """What all rules share. `metric` is a column; lower is better unless named in evaluate's HIGHER or `higher` says so."""
    metric: str
    experiment: str = field(default="", kw_only=True)          # value of the column `experiment`; "": all rows
    where: Mapping[str, Any] = field(default_factory=dict, kw_only=True)     # column -> value or values to keep
    by: str = field(default="variant", kw_only=True)           # the column whose values are compared
    pair: tuple[str, ...] = field(default=(), kw_only=True)    # further columns that must match before averaging
    higher: bool | None = field(default=None, kw_only=True)
    within: tuple[float, float] | None = field(default=None, kw_only=True)   # the said number counts as met in this range
    said: str = field(default="", kw_only=True)                # what was said of this part; "" when only the claim says it
    beside: bool = field(default=False, kw_only=True)          # reported, not judged: a control or somebody else's addition
    needs: str = field(default="", kw_only=True)               # "official weights" or "data" when this part cannot be had here

    def __post_init__(self) -> None:
        if self.needs and self.needs not in NEEDS:
            raise TsfmError(f"needs must be one of {sorted(NEEDS)}, got {self.needs!r}")

    percent = False
    comparisons = 1

    def contrasts(self, rows: pd.DataFrame, unit: str) -> Iterator[Contrast]:
        raise NotImplementedError

    @property
    def bigger(self) -> bool:
        return self.metric in HIGHER if self.higher is None else self.higher

    def _where(self) -> str:
        return "".join(f", {k} {' or '.join(map(str, v)) if isinstance(v, (list, tuple)) else v}" for k, v in self.where.items())

    def _select(self, rows: pd.DataFrame, unit: str) -> pd.DataFrame:
        """This rule's rows at the highest recorded profile."""
        if self.experiment and "experiment" in rows:
            rows = rows[rows["experiment"] == self.experiment]
        if "profile" in rows and len(rows):
            rows = rows[rows["profile"] == max(rows["profile"].unique(), key=profile_rank)]
        missing = [c for c in (self.metric, unit, *self.where, *self.pair) if c not in rows]
        if len(rows) and missing:
            raise NoRows(f"the recorded rows have no column {missing[0]!r}")
        for column, value in self.where.items():
            if len(rows):
                rows = rows[rows[column].isin(value if isinstance(value, (list, tuple)) else [value])]
        if not len(rows):
            raise NoRows("no recorded rows" + (f" of {self.experiment!r}" if self.experiment else "") + self._where())
        return rows

    def _paired(self, rows: pd.DataFrame, unit: str, good: Any, bad: Any) -> tuple[np.ndarray, int, int]:
        """Gain of `good` over `bad`, one number per unit: paired on all that is reserved, then averaged within the unit."""
        rows = self._select(rows, unit)
        if self.by not in rows:
            raise NoRows(f"the recorded rows have no column {self.by!r}")
        have = list(rows[self.by].unique())
        absent = [level for level in (good, bad) if level not in have]
        if absent:
            raise NoRows(f"no recorded rows with {self.by} {absent[0]!r} (there is {', '.join(map(str, sorted(have, key=str)))})")
        keys = [c for c in dict.fromkeys((unit, *self.pair, *RESERVED))
                if c in rows and c not in (self.by, "experiment", "profile") and rows[c].notna().any()]
        sides = [rows[rows[self.by] == level].groupby(keys, dropna=False)[self.metric].mean().reset_index() for level in (good, bad)]
        on = list(keys)
        if "seed" in on and unit != "seed" and any(side["seed"].isna().all() for side in sides):
            on.remove("seed")                      # a rival without randomness stands against every seed of the other
        left, right = sides
        whole = left.merge(right, on=on, suffixes=("_good", "_bad")).dropna(subset=[f"{self.metric}_good", f"{self.metric}_bad"])
        seeds = max((whole[c].nunique() for c in whole if c in ("seed", "seed_good", "seed_bad")), default=0)
        units = pd.concat([left[unit], right[unit]]).nunique()
        sign = 1.0 if self.bigger else -1.0
        gain = sign * (whole[f"{self.metric}_good"] - whole[f"{self.metric}_bad"])
        if self.percent:
            gain = 100 * gain / whole[f"{self.metric}_bad"].abs()
        values = gain.groupby(whole[unit]).mean()
        return values.to_numpy(np.float64), units - len(values), seeds


@dataclass(frozen=True)
class Difference(Rule):
    """`better` beats `than` (each of them, when there are several) by more than -slack; in percent of `than` unless told."""
    better: Any
    than: Any
    slack: float = field(default=0.0, kw_only=True)
    percent: bool = field(default=True, kw_only=True)

    @property
    def rivals(self) -> tuple:
        return self.than if isinstance(self.than, tuple) else (self.than,)

    @property
    def comparisons(self) -> int:
        return len(self.rivals)

    def contrasts(self, rows: pd.DataFrame, unit: str) -> Iterator[Contrast]:
        for rival in self.rivals:
            values, dropped, seeds = self._paired(rows, unit, self.better, rival)
            words = f"{self.metric} gain of {self.better} over {rival}{self._where()}"
            yield Contrast(words, values, (-self.slack, np.inf), dropped, seeds)

    def __str__(self) -> str:
        at_least = f" by more than -{number(self.slack)}" if self.slack else ""
        return f"difference: {self.better} beats {' and '.join(map(str, self.rivals))} in {self.metric}{at_least}{self._where()}"


@dataclass(frozen=True)
class Ordered(Rule):
    """Each level beats the next one: `levels` run from best to worst."""
    levels: tuple
    percent: bool = field(default=True, kw_only=True)

    @property
    def comparisons(self) -> int:
        return len(self.levels) - 1

    def contrasts(self, rows: pd.DataFrame, unit: str) -> Iterator[Contrast]:
        for good, bad in zip(self.levels, self.levels[1:]):
            values, dropped, seeds = self._paired(rows, unit, good, bad)
            yield Contrast(f"{self.metric} gain of {good} over {bad}{self._where()}", values, (0.0, np.inf), dropped, seeds)

    def __str__(self) -> str:
        return f"ordered: {self.metric} from best to worst {', '.join(map(str, self.levels))}{self._where()}"


@dataclass(frozen=True)
class Equivalence(Rule):
    """`a` and `b` (each of them) differ by less than `margin`, fixed beforehand; in percent of `b` unless told."""
    a: Any
    b: Any
    margin: float
    percent: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.margin > 0:
            raise TsfmError(f"an equivalence needs a margin above 0, got {self.margin}")

    @property
    def partners(self) -> tuple:
        return self.b if isinstance(self.b, tuple) else (self.b,)

    @property
    def comparisons(self) -> int:
        return len(self.partners)

    def contrasts(self, rows: pd.DataFrame, unit: str) -> Iterator[Contrast]:
        for other in self.partners:
            values, dropped, seeds = self._paired(rows, unit, self.a, other)
            words = f"{self.metric} of {self.a} like {other}{self._where()}, margin {number(self.margin)}{' %' if self.percent else ''}"
            yield Contrast(words, values, (-self.margin, self.margin), dropped, seeds)

    def __str__(self) -> str:
        margin = number(self.margin) + (" %" if self.percent else "")
        return f"equivalence: {self.metric} of {self.a} within {margin} of {' and '.join(map(str, self.partners))}{self._where()}"


@dataclass(frozen=True)
class Threshold(Rule):
    """The mean of a metric lies above (or below) a level; `only` keeps one value of the column `by`."""
    level: float
    side: str = "above"
    only: Any = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side not in ("above", "below"):
            raise TsfmError(f"side must be 'above' or 'below', got {self.side!r}")

    def contrasts(self, rows: pd.DataFrame, unit: str) -> Iterator[Contrast]:
        rows = self._select(rows, unit)
        if self.only is not None:
            rows = rows[rows[self.by] == self.only] if self.by in rows else rows.iloc[:0]
        cells = rows.groupby(unit, observed=True)[self.metric].mean()
        values = cells.dropna()
        if not len(values):
            raise NoRows("no recorded rows" + (f" with {self.by} {self.only!r}" if self.only is not None else ""))
        region = (self.level, np.inf) if self.side == "above" else (-np.inf, self.level)
        seeds = rows["seed"].nunique() if "seed" in rows else 0
        what = f"{self.metric}{'' if self.only is None else f' of {self.only}'}{self._where()} {self.side} {number(self.level)}"
        yield Contrast(what, values.to_numpy(np.float64), region, len(cells) - len(values), seeds)

    def __str__(self) -> str:
        of = "" if self.only is None else f" of {self.only}"
        return f"threshold: {self.metric}{of} {self.side} {number(self.level)}{self._where()}"


def parts(rule: Rule, rows: pd.DataFrame, unit: str, *, least: int, seeds: int, tests: int, alpha: float = ALPHA) -> list[Part]:
    """Judge one rule: a part per comparison."""
    suffix = " %" if rule.percent else ""
    try:
        found = list(rule.contrasts(rows, unit))
    except NoRows as missing:
        return [Part(str(rule), NEEDS.get(rule.needs, UNRESOLVED), None, str(missing), rule.said, suffix, rule.beside)]
    return [_part(rule, c, unit, least, seeds, tests, alpha, suffix) for c in found]


def _part(rule: Rule, c: Contrast, unit: str, least: int, seeds: int, tests: int, alpha: float, suffix: str) -> Part:
    n = len(c.values)
    lost = f"; {c.dropped} of {n + c.dropped} dropped for want of a partner" if c.dropped else ""
    if n < 2:
        return Part(c.words, UNRESOLVED, None, f"{n} paired {unit}, at least {least} needed{lost}", rule.said, suffix, rule.beside)
    truth, seen = decide(c.values, c.region, tests, alpha)
    if n < least:
        verdict, why = UNRESOLVED, f"only {n} paired values of {unit}, at least {least} needed"
    elif c.seeds < seeds:
        verdict, why = UNRESOLVED, f"only {c.seeds} paired training seeds, at least {seeds} needed"
    elif truth is None:
        widened = tests > 1 and not any(seen.low <= edge <= seen.high for edge in c.region)  # the one shown is not
        verdict, why = UNRESOLVED, f"the interval{f', widened for {tests} comparisons,' * widened} " + (
            "straddles a margin" if isinstance(rule, Equivalence) else "contains the level" if isinstance(rule, Threshold)
            else "contains zero")  # fmt: skip
    elif not truth:
        verdict, why = REFUTED, "outside the margin" if isinstance(rule, Equivalence) else "the interval lies on the other side"
    elif rule.within and rule.within[0] <= seen.estimate <= rule.within[1]:
        verdict, why = REPRODUCED, f"within {number(rule.within[0])} to {number(rule.within[1])}"
    elif rule.within:
        verdict, why = DIRECTION, f"not within {number(rule.within[0])} to {number(rule.within[1])}"
    else:
        verdict, why = DIRECTION, "inside the margin" if isinstance(rule, Equivalence) else "the interval lies on the said side"
    return Part(c.words, verdict, seen, why + lost, rule.said, suffix, rule.beside, c.region)
