"""Windows over series, and scaling fitted on the train rows only."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from tsfm_lib.errors import TsfmError


def starts(first: int, last: int, horizon: int, count: int | None = None, stride: int = 1) -> Int[np.ndarray, " N"]:
    """Forecast origins: every s with first <= s <= last - horizon, so that [s, s + horizon) lies before `last`.

    Nothing is dropped to fill a batch. `count` keeps that many, evenly spaced from the first to the last.

    >>> starts(10, 20, 4, stride=3), starts(0, 100, 4, count=3)
    (array([10, 13, 16]), array([ 0, 48, 96]))
    """
    if horizon < 1 or stride < 1 or (count is not None and count < 1):
        raise TsfmError(f"horizon, stride and count should be at least 1, got {horizon}, {stride}, {count}")
    every = np.arange(first, last - horizon + 1, stride)
    if count is None or every.size <= count:
        return every
    return every[np.round(np.linspace(0, every.size - 1, count)).astype(int)]


def windows(
    values: Float[np.ndarray, "V T"], context: int, horizon: int, starts: Int[np.ndarray, " N"]
) -> tuple[Float[np.ndarray, "N V C"], Float[np.ndarray, "N V H"]]:
    """Contexts (left-padded with NaN) and the `horizon` points that follow each start.

    >>> c, t = windows(np.arange(6.0)[None], 3, 2, np.array([1, 4]))
    >>> c[:, 0].tolist(), t[:, 0].tolist()
    ([[nan, nan, 0.0], [1.0, 2.0, 3.0]], [[1.0, 2.0], [4.0, 5.0]])
    """
    length = values.shape[1]
    if context < 1 or horizon < 0:
        raise TsfmError(f"context should be at least 1 and horizon at least 0, got {context} and {horizon}")
    if starts.size and not (starts.min() >= 0 and starts.max() + horizon <= length):
        raise TsfmError(
            f"starts should lie in 0..{length - horizon} for {length} points and a horizon of {horizon}, got {starts.min()}..{starts.max()}"
        )
    pad = max(0, context - int(starts.min())) if starts.size else context
    first = starts - context + pad  # where each window begins in the padded values
    padded = np.pad(values, ((0, 0), (pad, max(0, context + horizon - pad - length))), constant_values=np.nan)
    every = np.lib.stride_tricks.sliding_window_view(padded, context + horizon, axis=1)  # V, positions, C + H
    chosen = np.moveaxis(every[:, first], 0, 1)  # N V C+H, a copy
    return chosen[..., :context], chosen[..., context:]


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of each channel over the train rows; a constant channel is only shifted."""

    mean: Float[np.ndarray, " V"]
    std: Float[np.ndarray, " V"]

    @classmethod
    def fit(cls, train: Float[np.ndarray, "V T"]) -> "Scaler":
        """Population values over the observed points (what a StandardScaler fitted on train holds).

        >>> Scaler.fit(np.array([[1.0, 3.0, np.nan], [5.0, 5.0, 5.0]]))
        Scaler(mean=array([2., 5.]), std=array([1., 1.]))
        """
        seen = ~np.isnan(train)
        n = np.maximum(seen.sum(1), 1)
        mean = np.where(seen, train, 0.0).sum(1, dtype=np.float64) / n
        std = np.sqrt(np.where(seen, (train - mean[:, None]) ** 2, 0.0).sum(1, dtype=np.float64) / n)
        return cls(mean, np.where(std > 1e-12 * np.maximum(1.0, np.abs(mean)), std, 1.0))

    def apply(self, x: Float[np.ndarray, "*B V T"]) -> Float[np.ndarray, "*B V T"]:
        return (x - self.mean[:, None]) / self.std[:, None]

    def invert(self, x: Float[np.ndarray, "*B V T"]) -> Float[np.ndarray, "*B V T"]:
        return x * self.std[:, None] + self.mean[:, None]
