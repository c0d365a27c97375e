"""What a model is fine-tuned on: windows to train on, windows to stop by, windows to be judged on.

All methods are given the same ones. Series are z-scored by their training part, so errors are in the units in which the field reports
them; models normalise every window again and forecast series in any units. Variates are series of their own unless `together`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from tsfm_lib.data import Scaler, as_series_set, starts, windows
from tsfm_lib.data.sets import SeriesSet
from tsfm_lib.errors import TsfmError
from tsfm_lib.evaluate import metrics
from tsfm_lib.evaluate.forecasting import predict
from tsfm_lib.train import streams


@dataclass(frozen=True)
class Windows:
    """Pairs of what is seen and what comes."""

    contexts: Float[np.ndarray, "N V C"]
    futures: Float[np.ndarray, "N V H"]

    def __len__(self) -> int:
        return len(self.contexts)

    def scores(self, model: Any, levels: Sequence[float] = (0.5,)) -> dict[str, float]:
        """Means over the windows: MSE and MAE of the median; with more levels the CRPS and the coverage of the outermost pair."""
        found = predict(model, self.contexts, self.futures.shape[-1], levels)
        kept = ("MSE", "MAE") if len(levels) == 1 else ("MSE", "MAE", "CRPS", "coverage")
        return {name: float(np.nanmean(values)) for name, values in metrics.score(self.futures, found, levels).items() if name in kept}


@dataclass(frozen=True)
class Target:
    """One data set, cut for one context and horizon."""

    name: str
    context: int
    horizon: int
    train: tuple[Float[np.ndarray, "V _"], ...] = field(repr=False)
    val: Windows = field(repr=False)
    test: Windows = field(repr=False)
    together: bool = False

    def stream(self, batch: int, seed: int) -> streams.Windows:
        """Every window once an epoch, in an order that depends on the seed alone."""
        return streams.Windows(self.train, self.context + self.horizon, batch, seed, self.together, f"{self.name}, train")


def target(data: Any, context: int, horizon: int, *, count: int | None = 128, tested: int | None = None, together: bool = False) -> Target:
    """The standard splits of a set; `count` and `tested` windows of validation and test, all variates counted, evenly spaced (None: all).

    Where the validation part is shorter than the horizon (collections split before their last horizon) its end stays and its beginning
    moves into the training part. A context that leaves no training window is shortened.

    >>> one = target(np.arange(100.0), context=24, horizon=6)                   # 7:1:2
    >>> one.train[0].shape, len(one.val), len(one.test), one.context
    ((1, 70), 5, 15, 24)
    """
    found = as_series_set(data)
    spans = [spans_of(found, i, horizon) for i in range(len(found))]
    longest = max(train.stop for train, _, _ in spans)
    if longest <= horizon:
        raise TsfmError(f"{found.name}: the training part has {longest} steps, too few for a horizon of {horizon}: ask for a shorter one")
    context = min(context, longest - horizon)
    scaled = [Scaler.fit(values[:, span[0]]).apply(values) for values, span in zip(found.series, spans)]
    cut = lambda part, least: _cut(scaled, [span[part] for span in spans], context, horizon, least, together)
    train = tuple(values[:, span[0]] for values, span in zip(scaled, spans))
    return Target(found.name, context, horizon, train, cut(1, count), cut(2, tested), together)


def spans_of(found: SeriesSet, element: int, horizon: int) -> tuple[slice, slice, slice]:
    """Rows of train, val and test of one series."""
    train, val, test = (found.split(part, element) for part in ("train", "val", "test"))
    begin = min(val.start, val.stop - horizon)
    return slice(0, min(train.stop, begin)), slice(begin, val.stop), test


def planted(name: str, train: Float[np.ndarray, "N T"], val: Float[np.ndarray, "M T"], context: int) -> Target:
    """From made windows, context and horizon in one; what they are judged on comes later."""
    cut = Windows(val[:, None, :context], val[:, None, context:])
    return Target(name, context, train.shape[1] - context, tuple(window[None] for window in train), cut, cut)


def _cut(scaled: list[np.ndarray], spans: list[slice], context: int, horizon: int, count: int | None, together: bool) -> Windows:
    share = None if count is None else max(1, count // (len(scaled) * (1 if together else len(scaled[0]))))
    pieces = [windows(values, context, horizon, starts(max(1, span.start), span.stop, horizon, share))
              for values, span in zip(scaled, spans)]  # fmt: skip
    past, future = (np.concatenate(part) for part in zip(*pieces))
    if not together:
        past, future = (x.reshape(-1, 1, x.shape[-1]) for x in (past, future))
    known = np.isfinite(past).any((1, 2)) & np.isfinite(future).any((1, 2))
    if not known.any():
        raise TsfmError(f"rows {spans[0].start} to {spans[0].stop} hold no window of {horizon} steps: ask for a shorter horizon")
    return Windows(past[known], future[known])
