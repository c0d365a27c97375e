"""Forecasters without weights, to stand beside every model. Same contract as the models: tensor [B V T] in, sorted quantiles out.

Every row is treated alone: missing values are filled with the last one seen, those in front are dropped, and a row without any value
gets zeros. Where a method cannot be fitted (too short, constant, the optimiser gives up) the seasonal naive with Gaussian intervals
takes its place. `season=None` means: look for one in the context (`season_of`).

Naive           the last value
SeasonalNaive   the last season again; intervals from the seasonal differences, growing with the square root of the number of seasons
RidgeLags       a ridge regression from the last lags to all steps of the horizon, fitted on the context
ETS             exponential smoothing with damped trend, additive season (statsmodels)
Theta           Assimakopoulos and Nikolopoulos 2000, deseasonalised where a season tests significant (statsmodels)
DLinearFit      DLinear's linear map of trend and rest (arXiv 2205.13504), fitted in closed form on the context
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import ndtri
from torch import Tensor

from tsfm_lib.errors import whole

Row = Float[np.ndarray, " T"]
Forecast = Float[np.ndarray, "H Q"]


def season_of(x: Float[np.ndarray, " T"], longest: int | None = None, least: float = 0.3) -> int:
    """The season of a series, from the autocorrelation of the detrended values: its peaks that reach `least` and stand out by as much
    from a lower lag count; of those the shortest that is nearly as high as the highest. 1 if there is none; two seasons must be seen.

    >>> season_of(np.sin(2 * np.pi * np.arange(200) / 24) + 0.05 * np.arange(200))
    24
    >>> season_of(np.arange(50.0) ** 2)
    1
    """
    n = len(x)
    top = min(n // 2, longest or n)
    if n < 6 or not np.ptp(x) > 1e-10 * np.abs(x).max():
        return 1
    t = np.arange(n)
    z = x / np.abs(x).max()
    z = z - np.polyval(np.polyfit(t, z, 1), t)
    power = np.abs(np.fft.rfft(z, 2 * n)) ** 2
    acf = np.fft.irfft(power)[: top + 2] / (n - np.arange(top + 2))
    if not acf[0] > 1e-18:
        return 1
    acf = acf / acf[0]
    lags, lowest = np.arange(2, top + 1), np.minimum.accumulate(acf)
    stands_out = (acf[lags] >= least) & (acf[lags] - lowest[lags] >= least)
    peaks = lags[(acf[lags] > acf[lags - 1]) & (acf[lags] >= acf[lags + 1]) & stands_out]
    if not len(peaks):
        return 1
    first = peaks[acf[peaks] >= 0.8 * acf[peaks].max()][0]
    near = peaks[(peaks >= first) & (peaks <= 1.25 * first)]  # noise makes several small peaks on one broad one
    return int(near[acf[near].argmax()])


def gaussian(point: Float[np.ndarray, " H"], deviation: Float[np.ndarray, " H"], levels: Sequence[float]) -> Forecast:
    return point[:, None] + deviation[:, None] * ndtri(np.asarray(levels, dtype=float))


class Baseline:
    """Rows in, rows out; subclasses forecast one filled row."""

    probabilistic = True
    causal = False
    order_free = True

    def predict_quantiles(self, context: Float[Tensor, "B V T"], horizon: int, levels: Sequence[float]) -> Float[Tensor, "B V horizon Q"]:
        if horizon < 1 or any(not 0 < q < 1 for q in levels):
            raise ValueError(f"expected a horizon of 1 or more and levels between 0 and 1, got {horizon} and {list(levels)}")
        x = context.detach().cpu().double().numpy()
        out = np.zeros((*x.shape[:2], horizon, len(levels)))
        for b, v in np.ndindex(*x.shape[:2]):
            row = filled(x[b, v])
            if len(row):
                forecast = self.row(row, horizon, levels)
                out[b, v] = forecast if np.isfinite(forecast).all() else np.full_like(forecast, row[-1])
        return torch.as_tensor(np.sort(out, axis=-1)).to(context)

    def row(self, x: Row, horizon: int, levels: Sequence[float]) -> Forecast:
        raise NotImplementedError(f"{type(self).__name__} does not say how to forecast a row")


def filled(x: Float[np.ndarray, " T"]) -> Float[np.ndarray, " F"]:
    """Gaps carry the last value on; what is missing in front is dropped.

    >>> filled(np.array([np.nan, 1.0, np.nan, 3.0])).tolist()
    [1.0, 1.0, 3.0]
    """
    seen = np.isfinite(x)
    last = np.maximum.accumulate(np.where(seen, np.arange(len(x)), -1))
    return x[last[last >= 0]]


class Seasonal(Baseline):
    """A baseline that can be told its season."""

    season: int | None

    def __post_init__(self) -> None:
        if self.season is not None:
            object.__setattr__(self, "season", whole(self.season, "the season"))

    def for_season(self, season: int | None) -> "Seasonal":
        """The same baseline for a given season (None: look for one in each context)."""
        return replace(self, season=season)

    def length(self, x: Row) -> int:
        """The season to use: as told, or found; 1 when the row is shorter than one season."""
        m = season_of(x) if self.season is None else self.season
        return m if 1 <= m <= len(x) else 1

    def fallback(self, x: Row, horizon: int, levels: Sequence[float]) -> Forecast:
        return SeasonalNaive(self.season, intervals=True).row(x, horizon, levels)


@dataclass(frozen=True)
class Naive(Baseline):
    """The last value, as a point."""

    probabilistic = False

    def row(self, x: Row, horizon: int, levels: Sequence[float]) -> Forecast:
        return np.full((horizon, len(levels)), x[-1])


@dataclass(frozen=True)
class SeasonalNaive(Seasonal):
    """The last season again; with `intervals` the deviation of step h is that of the seasonal differences times sqrt(ceil(h / m)).

    >>> SeasonalNaive(season=2).row(np.array([0.0, 0.0, 1.0, 5.0]), 3, [0.5]).ravel().tolist()
    [1.0, 5.0, 1.0]
    """

    season: int | None = None
    intervals: bool = False

    @property
    def probabilistic(self) -> bool:
        return self.intervals

    def row(self, x: Row, horizon: int, levels: Sequence[float]) -> Forecast:
        m, steps = self.length(x), np.arange(horizon)
        point = x[-m:][steps % m]
        if not self.intervals:
            return np.repeat(point[:, None], len(levels), axis=1)
        lag = m if len(x) > m + 1 else 1
        deviation = np.std(x[lag:] - x[:-lag]) if len(x) > lag else 0.0
        return gaussian(point, deviation * np.sqrt(steps // m + 1), levels)


@dataclass(frozen=True)
class RidgeLags(Seasonal):
    """Direct ridge from p lags to the whole horizon, both relative to the last lag; Gaussian intervals from the in-sample errors of each
    step. p is two seasons, within 16 and 192 and half of what is there."""

    season: int | None = None
    penalty: float = 0.03  # per window, in units of the standardised series

    def lags(self, n: int, m: int, horizon: int) -> int:
        return int(min(max(2 * m, 16), 192, max(2, (n - horizon) // 2)))

    def windows(self, x: Row, horizon: int) -> tuple[float, float, np.ndarray, np.ndarray, np.ndarray] | None:
        """Mean, deviation, inputs [W p], targets [W H] and the newest input [p]; None where there are too few windows."""
        p, (centre, spread) = self.lags(len(x), self.length(x), horizon), (x.mean(), x.std())
        if len(x) < p + horizon + 4 or not spread > 1e-10 * np.abs(x).max():
            return None
        z = (x - centre) / spread
        seen = np.lib.stride_tricks.sliding_window_view(z, p + horizon)
        origin = seen[:, p - 1 : p]
        return centre, spread, seen[:, :p] - origin, seen[:, p:] - origin, z[-p:] - z[-1]

    def row(self, x: Row, horizon: int, levels: Sequence[float]) -> Forecast:
        found = self.windows(x, horizon)
        if found is None:
            return self.fallback(x, horizon, levels)
        _, spread, inputs, targets, newest = found
        weights = ridge(inputs, targets, self.penalty * len(inputs))
        deviation = (targets - inputs @ weights).std(0)
        return x[-1] + spread * gaussian(newest @ weights, deviation, levels)


def ridge(inputs: np.ndarray, targets: np.ndarray, penalty: float) -> np.ndarray:
    return np.linalg.solve(inputs.T @ inputs + penalty * np.eye(inputs.shape[1]), inputs.T @ targets)


@dataclass(frozen=True)
class DLinearFit(RidgeLags):
    """DLinear with its two maps found by ridge on the windows of the context; intervals are quantiles of the left-out errors of each step
    (each window predicted by the fit without it, in closed form)."""

    kernel: int = 25

    def features(self, windows: np.ndarray) -> np.ndarray:
        """[trend, rest] side by side, the trend a centred moving average with repeated ends."""
        half = self.kernel // 2
        padded = np.pad(windows, ((0, 0), (half, half)), mode="edge")
        total = np.concatenate((np.zeros((len(padded), 1)), padded.cumsum(1)), axis=1)
        trend = (total[:, self.kernel :] - total[:, : -self.kernel]) / self.kernel
        return np.concatenate((trend, windows - trend), axis=1)

    def row(self, x: Row, horizon: int, levels: Sequence[float]) -> Forecast:
        found = self.windows(x, horizon)
        if found is None:
            return self.fallback(x, horizon, levels)
        _, spread, windows, targets, newest = found
        inputs = self.features(windows)
        gram = inputs.T @ inputs + self.penalty * len(inputs) * np.eye(inputs.shape[1])
        solved = np.linalg.solve(gram, np.concatenate((inputs.T @ targets, inputs.T), axis=1))  # weights and hat matrix in one go
        weights, leverage = solved[:, :horizon], (inputs * solved[:, horizon:].T).sum(1, keepdims=True)
        errors = (targets - inputs @ weights) / np.maximum(1 - leverage, 0.05)
        point = self.features(newest[None])[0] @ weights
        return x[-1] + spread * (point[:, None] + np.quantile(errors, levels, axis=0).T)


@dataclass(frozen=True)
class ETS(Seasonal):
    """Additive errors, damped additive trend, additive season where two seasons are there and the season is at most `longest`; initial
    states by the usual heuristic, so that only the smoothing parameters are searched. Gaussian intervals from the state space form."""

    season: int | None = None
    longest: int = 200
    recent: int = 1024  # points of the context that are used

    def row(self, x: Row, horizon: int, levels: Sequence[float]) -> Forecast:
        import pandas as pd
        from statsmodels.tsa.exponential_smoothing.ets import ETSModel

        x, m = x[-self.recent :], self.length(x[-self.recent :])
        centre, spread = x.mean(), x.std()
        if len(x) < 10 or not spread > 1e-10 * np.abs(x).max():
            return self.fallback(x, horizon, levels)
        seasonal = 1 < m <= self.longest and len(x) >= 2 * m + 4
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                z = pd.Series((x - centre) / spread)
                model = ETSModel(z, error="add", trend="add", damped_trend=True, seasonal="add" if seasonal else None,
                                 seasonal_periods=m if seasonal else None, initialization_method="heuristic")  # fmt: skip
                fitted = model.fit(disp=False, maxiter=200)
                found = fitted.get_prediction(len(x), len(x) + horizon - 1)
                point, deviation = np.asarray(found.predicted_mean), np.sqrt(np.asarray(found.forecast_variance))
            except (ValueError, IndexError, np.linalg.LinAlgError, NotImplementedError):
                return self.fallback(x, horizon, levels)
        forecast = centre + spread * gaussian(point, deviation, levels)
        return forecast if np.isfinite(forecast).all() else self.fallback(x, horizon, levels)


@dataclass(frozen=True)
class Theta(Seasonal):
    """The theta method with its Gaussian intervals. The season is taken out first, by division where all values are positive, else by
    subtraction, and only where the autocorrelation at its lag is significant (10 %, as in the M competitions; in a short series a strong
    trend can hide the season). The intervals are those of the smoothing behind it, variance (1 + (h - 1) alpha^2) at step h;
    statsmodels' own put 1 + (1 - alpha)^2 for alpha^2 and come out several times wider."""

    season: int | None = None
    recent: int = 1024

    def row(self, x: Row, horizon: int, levels: Sequence[float]) -> Forecast:
        from scipy.signal import lfilter
        from statsmodels.tsa.forecasting.theta import ThetaModel
        from statsmodels.tsa.seasonal import seasonal_decompose

        x, m = x[-self.recent :], self.length(x[-self.recent :])
        size = np.abs(x).max()
        if len(x) < 6 or not np.ptp(x) > 1e-10 * size:
            return self.fallback(x, horizon, levels)
        z, positive = x / size, (x > 0).all()
        season = np.ones(len(z)) if positive else np.zeros(len(z))
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                if significant(z, m):
                    season = seasonal_decompose(z, model="multiplicative" if positive else "additive", period=m).seasonal
                adjusted = z / season if positive else z - season
                fitted = ThetaModel(adjusted, deseasonalize=False, period=1).fit()
                alpha = float(fitted.params["alpha"])
                level = lfilter([alpha], [1, alpha - 1], adjusted, zi=[(1 - alpha) * adjusted[0]])[0]
                deviation = np.std(adjusted[1:] - level[:-1]) * np.sqrt(1 + np.arange(horizon) * alpha**2)
                smooth = gaussian(np.asarray(fitted.forecast(horizon)), deviation, levels)
            except (ValueError, IndexError, np.linalg.LinAlgError, ZeroDivisionError):
                return self.fallback(x, horizon, levels)
        ahead = season[-m:][np.arange(horizon) % m, None]
        forecast = size * (smooth * ahead if positive else smooth + ahead)
        return forecast if np.isfinite(forecast).all() else self.fallback(x, horizon, levels)


def significant(x: Row, m: int) -> bool:
    """Whether the autocorrelation at lag m is larger than chance allows at 10 %, given those at shorter lags."""
    if m < 2 or len(x) < 2 * m:
        return False
    z = x - x.mean()
    acf = np.array([z[k:] @ z[: len(z) - k] for k in range(m + 1)]) / (z @ z)
    return bool(abs(acf[m]) > 1.645 * np.sqrt((1 + 2 * (acf[1:m] ** 2).sum()) / len(z)))
