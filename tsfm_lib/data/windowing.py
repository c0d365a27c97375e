"""Windows over series, and scaling fitted on the train rows only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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


def _rows(values: Any, what: str) -> Float[np.ndarray, "V T"]:
    """Values [V, T] as floats of the precision they have."""
    array = np.asarray(values)
    if array.ndim != 2 or array.dtype.kind not in "iufb":
        hint = ": write values[None] for one series" if array.ndim == 1 else ""
        raise TsfmError(f"{what} should be numbers [V, T], got {array.dtype} {list(array.shape)}{hint}")
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def windows(
    values: np.ndarray | Sequence, context: int, horizon: int, starts: np.ndarray | Sequence
) -> tuple[Float[np.ndarray, "N V C"], Float[np.ndarray, "N V H"]]:
    """Contexts (left-padded with NaN) and the `horizon` points that follow each start.

    >>> c, t = windows(np.arange(6.0)[None], 3, 2, np.array([1, 4]))
    >>> c[:, 0].tolist(), t[:, 0].tolist()
    ([[nan, nan, 0.0], [1.0, 2.0, 3.0]], [[1.0, 2.0], [4.0, 5.0]])
    """
    values, starts = _rows(values, "values"), np.asarray(starts)
    if starts.ndim != 1 or (starts.size and starts.dtype.kind not in "iu"):
        raise TsfmError(f"starts should be a list of row numbers, got {starts.dtype} {list(starts.shape)}: see data.starts")
    starts, length = starts.astype(np.int64), values.shape[1]
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
    def fit(cls, train: np.ndarray | Sequence) -> "Scaler":
        """Population values over the observed points (what a StandardScaler fitted on train holds).

        >>> Scaler.fit(np.array([[1.0, 3.0, np.nan], [5.0, 5.0, 5.0]]))
        Scaler(mean=array([2., 5.]), std=array([1., 1.]))
        """
        train = _rows(train, "train rows")
        seen = ~np.isnan(train)
        n = np.maximum(seen.sum(1), 1)
        mean = np.where(seen, train, 0.0).sum(1, dtype=np.float64) / n
        std = np.sqrt(np.where(seen, (train - mean[:, None]) ** 2, 0.0).sum(1, dtype=np.float64) / n)
        return cls(mean, np.where(std > 1e-12 * np.maximum(1.0, np.abs(mean)), std, 1.0))

    def _fits(self, x: np.ndarray) -> None:
        if x.ndim < 2 or x.shape[-2] != len(self.mean):
            raise TsfmError(f"expected values [..., {len(self.mean)}, T] with the channels of the fit, got {list(x.shape)}")

    def apply(self, x: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        self._fits(x)
        return (x - self.mean[:, None]) / self.std[:, None]

    def invert(self, x: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        self._fits(x)
        return x * self.std[:, None] + self.mean[:, None]
