"""Errors of forecasts, in plain numpy.

Shapes: `target [B, V, T]` (NaN = not observed, such a step counts nowhere), a point forecast `[B, V, T]`, a quantile
forecast `[B, V, T, Q]` with its `levels`. Every metric gives one number per window, `[B]`: the mean over the window's
variates and observed steps, NaN where nothing was observed. A missing *forecast* is never skipped: it makes the number NaN.

Conventions, since the field has several of each:

* MASE divides the absolute errors of a variate by the mean absolute error that the seasonal naive makes *inside the
  context* of the window (`seasonal_scale`). A data set's MASE is the mean over its windows.
* CRPS from quantiles is the mean over levels of twice the pinball loss, in the units of the target. It tends to the CRPS as
  levels get dense; with the nine deciles it leaves the tails out. `crps_samples` is the CRPS of an empirical distribution.
* WQL is the same sum divided by the sum of |target|: GIFT-Eval's "CRPS", `mean_weighted_sum_quantile_loss`. A data set's WQL
  is a ratio of sums over all its windows, not a mean of window ratios; `score` therefore returns both parts.
* sMAPE is 2|e| / (|y| + |f|), between 0 and 2, as in M4 (where it is given in per cent) and GIFT-Eval. utilsforecast drops
  the 2. A step where both are zero counts 0.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from tsfm_lib.errors import TsfmError, whole

DECILES: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

HIGHER: frozenset[str] = frozenset({"accuracy", "coverage", "utilisation", "auc", "auroc", "ari", "precision", "recall", "rho"})
"""Columns where a higher number is better; for every other metric lower is better."""


def _window_mean(values: Float[np.ndarray, "B V T"], observed: Bool[np.ndarray, "B V T"]) -> Float[np.ndarray, " B"]:
    """Mean over the observed steps of each window; NaN where a window has none."""
    count = observed.sum((1, 2))
    total = np.where(observed, values, 0.0).sum((1, 2))
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def mse(target: Float[np.ndarray, "B V T"], point: Float[np.ndarray, "B V T"]) -> Float[np.ndarray, " B"]:
    """Mean squared error.

    >>> mse(np.array([[[1.0, 2.0, np.nan]]]), np.array([[[1.0, 4.0, 9.0]]]))
    array([2.])
    """
    _aligned(target, point)
    return _window_mean((target - point) ** 2, ~np.isnan(target))


def mae(target: Float[np.ndarray, "B V T"], point: Float[np.ndarray, "B V T"]) -> Float[np.ndarray, " B"]:
    """Mean absolute error.

    >>> mae(np.array([[[1.0, 2.0, np.nan]]]), np.array([[[1.0, 4.0, 9.0]]]))
    array([1.])
    """
    _aligned(target, point)
    return _window_mean(np.abs(target - point), ~np.isnan(target))


def smape(target: Float[np.ndarray, "B V T"], point: Float[np.ndarray, "B V T"]) -> Float[np.ndarray, " B"]:
    """Symmetric absolute percentage error, between 0 and 2.

    >>> smape(np.array([[[1.0, 0.0]]]), np.array([[[3.0, 0.0]]]))      # (2 * 2 / 4 + 0) / 2
    array([0.5])
    """
    _aligned(target, point)
    size = np.abs(target) + np.abs(point)
    error = 2 * np.abs(target - point)
    return _window_mean(np.divide(error, size, out=np.where(size == 0, 0.0, np.nan), where=size > 0), ~np.isnan(target))


def seasonal_scale(context: Float[np.ndarray, "B V C"], season: int) -> Float[np.ndarray, "B V"]:
    """Mean |x[t] - x[t - season]| over the pairs of the context that are both observed: the unit of MASE.

    Falls back to season 1 where the context holds fewer than two such pairs or repeats itself exactly (up to rounding), and
    to NaN where season 1 fails as well: a constant context has no scale, and its window is left out of a mean.

    >>> seasonal_scale(np.array([[[1.0, 5.0, 2.0, 7.0]], [[np.nan, 1.0, 5.0, 1.0]]]), 2)     # the second one is too short
    array([[1.5],
           [4. ]])
    """
    def at(lag: int) -> np.ndarray:
        gap = np.abs(context[..., lag:] - context[..., :-lag])
        pairs = np.isfinite(gap).sum(-1)
        mean = np.nansum(gap, -1) / np.maximum(pairs, 1)
        level = np.max(np.abs(np.nan_to_num(context)), -1, initial=0.0)
        return np.where((pairs >= (1 if lag == 1 else 2)) & (mean > 1e-9 * level), mean, np.nan)

    scale = at(whole(season, "the season"))
    return np.where(np.isnan(scale), at(1), scale)


def mase(target: Float[np.ndarray, "B V T"], point: Float[np.ndarray, "B V T"], scale: Float[np.ndarray, "B V"]) -> Float[np.ndarray, " B"]:
    """Absolute error in units of `seasonal_scale`; variates without a scale are left out.

    >>> mase(np.array([[[1.0, 3.0]]]), np.array([[[2.0, 5.0]]]), np.array([[3.0]]))
    array([0.5])
    """
    _aligned(target, point, scale=scale)
    error = np.abs(target - point) / np.where(scale > 0, scale, np.nan)[..., None]
    return _window_mean(error, ~np.isnan(target) & (scale > 0)[..., None])


def pinball(
    target: Float[np.ndarray, "B V T"], forecast: Float[np.ndarray, "B V T Q"], levels: Sequence[float]
) -> Float[np.ndarray, "B V T Q"]:
    """Pinball (quantile) loss of every step and level, NaN where the target is: level * e above the quantile, (1 - level) * -e below.

    >>> pinball(np.array([[[1.0, 1.0]]]), np.array([[[[3.0], [0.0]]]]), [0.9]).round(3).tolist()
    [[[[0.2], [0.9]]]]
    """
    q = _levels(levels, forecast)
    _aligned(target, forecast[..., 0])
    error = target[..., None] - forecast
    return np.maximum(q * error, (q - 1) * error)


def crps(target: Float[np.ndarray, "B V T"], forecast: Float[np.ndarray, "B V T Q"], levels: Sequence[float]) -> Float[np.ndarray, " B"]:
    """CRPS by quantiles: twice the pinball loss, mean over levels and observed steps. With the median alone it is the MAE.

    >>> crps(np.array([[[1.0, 5.0]]]), np.array([[[[2.0], [2.0]]]]), [0.5])
    array([2.])
    """
    return _window_mean(2 * pinball(target, forecast, levels).mean(-1), ~np.isnan(target))


def wql(target: Float[np.ndarray, "B V T"], forecast: Float[np.ndarray, "B V T Q"], levels: Sequence[float]) -> Float[np.ndarray, " B"]:
    """Weighted quantile loss: `crps` divided by the window's mean |target|; NaN where that is zero.

    >>> wql(np.array([[[1.0, 3.0]]]), np.array([[[[2.0], [2.0]]]]), [0.5])
    array([0.5])
    """
    loss, size = weighted_parts(target, forecast, levels)
    return np.divide(loss, size, out=np.full(len(size), np.nan), where=size > 0)


def weighted_parts(
    target: Float[np.ndarray, "B V T"], forecast: Float[np.ndarray, "B V T Q"], levels: Sequence[float]
) -> tuple[Float[np.ndarray, " B"], Float[np.ndarray, " B"]]:
    """Numerator and denominator of WQL per window. WQL of any group of windows = sum of the first / sum of the second."""
    observed = ~np.isnan(target)
    loss = np.where(observed, 2 * pinball(target, forecast, levels).mean(-1), 0.0).sum((1, 2))
    return loss, np.where(observed, np.abs(target), 0.0).sum((1, 2))


def crps_samples(target: Float[np.ndarray, "B V T"], samples: Float[np.ndarray, "B V T S"], fair: bool = False) -> Float[np.ndarray, " B"]:
    """CRPS of the empirical distribution of samples, mean |X - y| - mean |X - X'| / 2, in S log S by sorting.

    `fair` divides the second term by S (S - 1), which is unbiased for the CRPS of the distribution the samples came from.

    >>> crps_samples(np.array([[[0.0]]]), np.array([[[[-1.0, 1.0]]]]))          # 1 - (0 + 2 + 2 + 0) / 4 / 2
    array([0.5])
    """
    _aligned(target, samples[..., 0])
    n = samples.shape[-1]
    if fair and n < 2:
        raise TsfmError(f"the fair CRPS needs at least 2 samples, got {n}: pass more samples or fair=False")
    weights = 2 * np.arange(n) - (n - 1)                          # sum over pairs |x_i - x_j| = 2 * weights @ sorted x
    spread = (np.sort(samples, -1) @ weights.astype(float)) / (n * (n - 1) if fair else n * n)
    return _window_mean(np.abs(samples - target[..., None]).mean(-1) - spread, ~np.isnan(target))


def msis(
    target: Float[np.ndarray, "B V T"],
    lower: Float[np.ndarray, "B V T"],
    upper: Float[np.ndarray, "B V T"],
    scale: Float[np.ndarray, "B V"],
    alpha: float = 0.05,
) -> Float[np.ndarray, " B"]:
    """Mean scaled interval score of M4: width of the 1 - alpha interval + 2 / alpha times every miss, over `seasonal_scale`.

    >>> one = np.ones((1, 1, 1))
    >>> msis(3 * one, 0 * one, 2 * one, one[0], alpha=0.5)                       # 2 wide, missed by 1, times 4
    array([6.])
    """
    _aligned(target, lower, upper, scale=scale)
    missed = np.maximum(lower - target, 0) + np.maximum(target - upper, 0)
    score = (upper - lower + 2 / alpha * missed) / np.where(scale > 0, scale, np.nan)[..., None]
    return _window_mean(score, ~np.isnan(target) & (scale > 0)[..., None])


def coverage(
    target: Float[np.ndarray, "B V T"], lower: Float[np.ndarray, "B V T"], upper: Float[np.ndarray, "B V T"]
) -> Float[np.ndarray, " B"]:
    """Share of the observed steps inside [lower, upper]; good when it equals the nominal level.

    >>> coverage(np.array([[[1.0, 5.0]]]), np.array([[[0.0, 0.0]]]), np.array([[[2.0, 2.0]]]))
    array([0.5])
    """
    _aligned(target, lower, upper)
    inside = np.where(np.isnan(lower + upper), np.nan, (lower <= target) & (target <= upper))
    return _window_mean(inside, ~np.isnan(target))


def point(forecast: Float[np.ndarray, "B V T Q"], levels: Sequence[float]) -> Float[np.ndarray, "B V T"]:
    """The median of a quantile forecast, interpolated between the two levels around one half where it is not among them.

    >>> point(np.array([[[[1.0, 2.0]]]]), [0.4, 0.6])
    array([[[1.5]]])
    """
    q = _levels(levels, forecast)
    right = int(np.clip(np.searchsorted(q, 0.5 - 1e-9), 0, len(q) - 1))
    left = right if right == 0 or abs(q[right] - 0.5) < 1e-9 else right - 1
    if left == right or q[right] < 0.5:
        return forecast[..., right]
    weight = (0.5 - q[left]) / (q[right] - q[left])
    return (1 - weight) * forecast[..., left] + weight * forecast[..., right]


def score(
    target: Float[np.ndarray, "B V T"],
    forecast: Float[np.ndarray, "B V T Q"],
    levels: Sequence[float],
    scale: Float[np.ndarray, "B V"] | None = None,
) -> dict[str, Float[np.ndarray, " B"]]:
    """Every metric per window, as columns. Point metrics judge the median, coverage and MSIS the outermost pair of levels.

    `quantile_loss` and `abs_target` are the two parts of WQL. Without `scale` there is no MASE and no MSIS.

    >>> y = np.array([[[1.0, 3.0]]])
    >>> sorted(score(y, np.stack([y - 1, y, y + 1], -1), (0.1, 0.5, 0.9)))
    ['CRPS', 'MAE', 'MSE', 'WQL', 'abs_target', 'coverage', 'quantile_loss', 'sMAPE']
    """
    middle, low, high = point(forecast, levels), forecast[..., 0], forecast[..., -1]
    loss, size = weighted_parts(target, forecast, levels)
    columns = {} if scale is None else {"MASE": mase(target, middle, scale)}
    columns |= {
        "WQL": np.divide(loss, size, out=np.full(len(size), np.nan), where=size > 0),
        "CRPS": crps(target, forecast, levels),
        "MSE": mse(target, middle),
        "MAE": mae(target, middle),
        "sMAPE": smape(target, middle),
    }
    if len(levels) > 1:
        columns["coverage"] = coverage(target, low, high)
        if scale is not None:
            columns["MSIS"] = msis(target, low, high, scale, alpha=1 - (levels[-1] - levels[0]))
    return columns | {"quantile_loss": loss, "abs_target": size}


def checked(levels: Any) -> Float[np.ndarray, " Q"]:
    """Quantile levels as an array, refused unless there is at least one and all lie between 0 and 1.

    >>> checked(0.5)
    Traceback (most recent call last):
    tsfm_lib.errors.TsfmError: quantile levels should be a list of numbers between 0 and 1, got 0.5
    """
    try:
        q = np.asarray(levels, float)
    except (TypeError, ValueError):
        q = np.empty(0)
    if q.ndim != 1 or not len(q) or not ((q > 0) & (q < 1)).all():
        got = levels.tolist() if isinstance(levels, np.ndarray) else levels
        raise TsfmError(f"quantile levels should be a list of numbers between 0 and 1, got {got!r}")
    return q


def _levels(levels: Any, forecast: np.ndarray) -> np.ndarray:
    q = checked(levels)
    if np.shape(forecast)[-1:] != q.shape:
        shape = list(np.shape(forecast))
        raise TsfmError(f"a forecast of shape {shape} came with {len(q)} levels: pass one level per quantile, the last axis")
    if (np.diff(q) <= 0).any():
        raise TsfmError(f"levels must rise strictly, got {q.tolist()}: sort them and the quantiles with them")
    return q


def _aligned(target: np.ndarray, *forecasts: np.ndarray, scale: np.ndarray | None = None) -> None:
    """Refuse shapes that numpy would quietly stretch to fit each other."""
    shapes = [np.shape(x) for x in (target, *forecasts)]
    if len(shapes[0]) != 3 or len(set(shapes)) > 1:
        got = " and ".join(str(list(shape)) for shape in shapes)
        raise TsfmError(f"a target and its forecast should have one shape [B, V, T] (quantiles: and Q), got {got}: add or cut axes")
    if scale is not None and np.shape(scale) != shapes[0][:2]:
        raise TsfmError(f"the scale should be [B, V] = {list(shapes[0][:2])}, got {list(np.shape(scale))}: take it from seasonal_scale")
