"""Is the difference there, is it absent, which model ranks first: intervals and tests over independent units.

Everything starts from differences `a - b` that are paired: same seed, same data set, same window. What is resampled or
counted is the *unit* (training seed, data set, series): rows that share one are dependent and move together. Fewer than 20
units: paired t interval over the unit means. From 20 on: bootstrap clustered by unit. An effect that is claimed to be absent
is tested against a margin fixed beforehand (`equivalence`), never by a large p-value.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tsfm_lib.errors import TsfmError

FEW = 20            # below this many units the t interval, from here on the bootstrap


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval, over `n` independent units.

    >>> gain = Interval(-0.2, -0.3, -0.1, 5, "paired t")
    >>> gain.excludes(0.0), gain.within(0.25), gain.within(0.35)
    (True, False, True)
    """

    estimate: float
    low: float
    high: float
    n: int
    method: str

    def excludes(self, value: float = 0.0) -> bool:
        return not self.low <= value <= self.high

    def within(self, margin: float) -> bool:
        return -margin < self.low and self.high < margin

    def __str__(self) -> str:
        return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}]"


def paired(
    rows: pd.DataFrame, metric: str, variant: str, to: str, on: Sequence[str] = ("dataset", "horizon", "seed", "unit"), log: bool = False
) -> pd.DataFrame:
    """Rows of two variants matched on the columns `on`, with column `difference` = variant - to (of logarithms if `log`).

    Only what both have enters; a row that has no partner is an error, since an unpaired comparison would be another question.

    >>> rows = pd.DataFrame({"variant": ["a", "b", "a", "b"], "unit": [0, 0, 1, 1], "MASE": [1.0, 2.0, 3.0, 3.5]})
    >>> paired(rows, "MASE", "a", "b")["difference"].tolist()
    [-1.0, -0.5]
    """
    keys = [key for key in on if key in rows]
    sides = [rows[rows["variant"] == name].set_index(keys)[metric] for name in (variant, to)]
    for name, side in zip((variant, to), sides):
        if side.empty or side.index.has_duplicates:
            what = "no rows" if side.empty else "several rows per " + ", ".join(keys)
            raise TsfmError(f"variant {name!r} has {what}: a paired comparison needs exactly one each")
    if set(sides[0].index) != set(sides[1].index):
        odd = len(set(sides[0].index) ^ set(sides[1].index))
        raise TsfmError(f"{odd} rows of {variant!r} and {to!r} have no partner by {', '.join(keys)}: run both on the same units")
    one, other = (np.log(side) if log else side for side in sides)
    return (one - other.reindex(one.index)).rename("difference").dropna().reset_index()


def _clusters(values: Sequence[float] | np.ndarray, units: Sequence | np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count of the values of every unit."""
    x = np.asarray(values, float).ravel()
    if not np.isfinite(x).all() or len(x) == 0:
        raise TsfmError(f"expected finite differences, got {int((~np.isfinite(x)).sum())} missing of {len(x)}: drop or explain them first")
    if units is None:
        return x, np.ones(len(x))
    codes, names = pd.factorize(np.asarray(units))
    if len(codes) != len(x):
        raise TsfmError(f"{len(x)} values came with {len(codes)} units: pass one unit per value")
    return np.bincount(codes, x, len(names)), np.bincount(codes, minlength=len(names)).astype(float)


def paired_t(differences: Sequence[float] | np.ndarray, units: Sequence | np.ndarray | None = None, level: float = 0.95) -> Interval:
    """Student's t interval for the mean difference; rows of one unit are averaged first.

    >>> paired_t([1.0, 2.0, 3.0])
    Interval(estimate=2.0, low=-0.48..., high=4.48..., n=3, method='paired t')
    """
    from scipy import stats

    total, count = _clusters(differences, units)
    means, n = total / count, len(total)
    if n < 2:
        raise TsfmError("a t interval needs at least 2 units, got 1: run more seeds or data sets")
    half = stats.t.ppf((1 + level) / 2, n - 1) * means.std(ddof=1) / np.sqrt(n)
    centre = means.mean()
    return Interval(float(centre), float(centre - half), float(centre + half), n, "paired t")


def bootstrap(
    differences: Sequence[float] | np.ndarray,
    units: Sequence | np.ndarray | None = None,
    level: float = 0.95,
    draws: int = 4000,
    seed: int = 0,
) -> Interval:
    """Interval for the mean over all rows when whole units are resampled, with all their rows.

    Percentiles are taken a little further out (Hesterberg, arXiv:1411.5279): the plain percentile interval is too
    short by the t/z and the n - 1 corrections, which at 20 units costs 2 points of coverage.

    >>> bootstrap([0.0, 1.0, 0.0, 1.0], draws=200).estimate
    0.5
    """
    total, count = _clusters(differences, units)
    return _resampled(total, count, level, draws, seed, "bootstrap by unit")


def bootstrap_ratio(
    numerator: Sequence[float] | np.ndarray,
    denominator: Sequence[float] | np.ndarray,
    units: Sequence | np.ndarray | None = None,
    level: float = 0.95,
    draws: int = 4000,
    seed: int = 0,
) -> Interval:
    """The same for a ratio of sums, such as a data set's WQL (`quantile_loss` over `abs_target`) or one model's loss over another's.

    >>> bootstrap_ratio([1.0, 2.0, 3.0], [2.0, 4.0, 6.0], draws=50)
    Interval(estimate=0.5, low=0.5, high=0.5, n=3, method='bootstrap by unit')
    """
    return _resampled(_clusters(numerator, units)[0], _clusters(denominator, units)[0], level, draws, seed, "bootstrap by unit")


def _resampled(above: np.ndarray, below: np.ndarray, level: float, draws: int, seed: int, method: str) -> Interval:
    from scipy import stats

    n = len(above)
    if n < 2:
        raise TsfmError("a bootstrap over units needs at least 2 of them, got 1: name the column whose values are independent")
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(float)
    means = (weights @ above) / (weights @ below)
    tail = stats.norm.cdf(np.sqrt(n / (n - 1)) * stats.t.ppf((1 - level) / 2, n - 1))
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(above.sum() / below.sum()), float(low), float(high), n, method)


def interval(
    differences: Sequence[float] | np.ndarray, units: Sequence | np.ndarray | None = None, level: float = 0.95, seed: int = 0
) -> Interval:
    """The house rule: paired t below 20 units, clustered bootstrap from 20 on.

    >>> interval(np.arange(5.0)).method, interval(np.arange(30.0)).method
    ('paired t', 'bootstrap by unit')
    """
    few = len(_clusters(differences, units)[0]) < FEW
    return paired_t(differences, units, level) if few else bootstrap(differences, units, level, seed=seed)


def equivalence(
    differences: Sequence[float] | np.ndarray,
    margin: float,
    units: Sequence | np.ndarray | None = None,
    alpha: float = 0.05,
    seed: int = 0,
) -> Interval:
    """Two one-sided tests as one interval: at level 1 - 2 alpha, equivalent when it lies `.within(margin)`.

    It never says equivalent more often than alpha when the true difference is the margin. An interval that lies outside
    refutes equivalence; one that straddles the margin resolves nothing.

    >>> equivalence([0.01, -0.02, 0.0, 0.01], margin=0.05).within(0.05)
    True
    """
    if not margin > 0:
        raise TsfmError(f"an equivalence margin must be positive, got {margin}: state the largest difference that does not matter")
    found = interval(differences, units, 1 - 2 * alpha, seed)
    return Interval(found.estimate, found.low, found.high, found.n, f"equivalence, margin {margin:g}, {found.method}")


def permutation(
    differences: Sequence[float] | np.ndarray, units: Sequence | np.ndarray | None = None, draws: int = 9999, seed: int = 0
) -> float:
    """Two-sided p-value for "the sign of each unit's mean difference is a coin toss"; exact up to 12 units.

    >>> permutation([1.0, 2.0, 3.0])                                   # 2 of the 8 sign patterns are as extreme
    0.25
    """
    total, count = _clusters(differences, units)
    means, n = total / count, len(total)
    exact = n <= 12
    if exact:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = 1.0 - 2.0 * np.random.default_rng(seed).integers(0, 2, (draws, n))
    extreme = int((np.abs(signs @ means) >= np.abs(means.sum()) * (1 - 1e-12)).sum())
    return extreme / 2**n if exact else (extreme + 1) / (draws + 1)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment: compare the result with alpha, and the chance of any false rejection stays below alpha.

    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    adjusted = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted[np.argsort(order, kind="stable")]


@dataclass(frozen=True)
class Ranks:
    """Mean ranks (1 = best) of models over data sets, and which of them cannot be told apart."""

    mean: pd.Series                     # mean rank per model, best first
    friedman: float                     # p-value of "all models rank alike"
    critical: float                     # Nemenyi's critical difference of two mean ranks
    p_values: pd.DataFrame              # Wilcoxon signed rank, Holm over all pairs
    cliques: tuple[tuple[str, ...], ...]    # maximal runs of neighbours in rank of which no pair differs (Wilcoxon-Holm)
    n: int                              # data sets


def ranks(table: pd.DataFrame, alpha: float = 0.05, higher: bool = False) -> Ranks:
    """Critical-difference analysis of a table (rows: data sets, columns: models); `higher` when larger numbers are better.

    Ties get the mean rank. Nemenyi's distance is the classical bar of the diagram (Demsar 2006); the bars drawn today follow
    the pairwise Wilcoxon tests with Holm's correction, because they do not depend on which other models are in the table.

    >>> found = ranks(pd.DataFrame({"a": [1.0, 1, 1, 1, 1, 1], "b": [2.0, 2, 2, 2, 2, 3], "c": [3.0, 3, 3, 3, 3, 2]}))
    >>> found.mean.round(2).to_dict(), found.friedman < 0.05
    ({'a': 1.0, 'b': 2.17, 'c': 2.83}, True)
    """
    from scipy import stats

    if table.isna().any(axis=None) or table.shape[0] < 2 or table.shape[1] < 2:
        size = f"{table.shape[0]} x {table.shape[1]} with {int(table.isna().sum().sum())} gaps"
        raise TsfmError(f"ranks need at least 2 data sets x 2 models without gaps, got {size}: drop incomplete rows first")
    n, k = table.shape
    mean = (-table if higher else table).rank(axis=1).mean().sort_values(kind="stable")
    names = [str(name) for name in mean.index]
    values = table.set_axis([str(name) for name in table.columns], axis=1)[names]
    if (values.nunique(axis=1) == 1).all():
        friedman = 1.0                  # ties everywhere: the statistic would be 0 / 0
    else:
        friedman = stats.friedmanchisquare(*values.to_numpy().T).pvalue if k > 2 else _wilcoxon(values[names[0]], values[names[1]])
    pairs = [(i, j) for i in range(k) for j in range(i + 1, k)]
    adjusted = holm([_wilcoxon(values[names[i]], values[names[j]]) for i, j in pairs])
    grid = np.eye(k)
    for (i, j), p in zip(pairs, adjusted):
        grid[i, j] = grid[j, i] = p
    runs = []
    for i in range(k):
        last = i
        while last + 1 < k and (grid[i : last + 2, i : last + 2] + np.eye(last + 2 - i) >= alpha).all():
            last += 1
        if last > i and (not runs or last > runs[-1][1]):
            runs.append((i, last))
    critical = stats.studentized_range.ppf(1 - alpha, k, np.inf) / np.sqrt(2) * np.sqrt(k * (k + 1) / (6 * n))
    return Ranks(
        mean.set_axis(names), float(friedman), float(critical), pd.DataFrame(grid, names, names),
        tuple(tuple(names[i : j + 1]) for i, j in runs), n,
    )


def _wilcoxon(a: pd.Series, b: pd.Series) -> float:
    from scipy import stats

    difference = (a - b).to_numpy(float)
    return 1.0 if not difference.any() else float(stats.wilcoxon(difference, zero_method="pratt").pvalue)
