"""Pandas in, pandas out: series with their labels, and the index going on where it ended."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import mode
from typing import Any

import numpy as np
import pandas as pd

from tsfm_lib.data import as_series_set, season_of
from tsfm_lib.data.frames import IDS, TIMES, column_of, tidy
from tsfm_lib.errors import TsfmError

Writer = Callable[[list[pd.DataFrame], list[pd.Index]], pd.DataFrame]


@dataclass(frozen=True)
class Table:
    """Series on regular grids, ready for a model, and how to write forecasts the way the data came."""

    series: list[np.ndarray]  # [V, T] each
    pasts: list[pd.Index]  # the grid of each
    steps: list[Any]  # how it goes on: a pandas frequency, or the step of a counter
    season: int | None
    writer: Writer

    def write(self, forecasts: list[np.ndarray], horizon: int, levels: list[float]) -> pd.DataFrame:
        """Forecasts [V, H, Q] per series as one frame with a column per quantile."""
        names = [f"{q:g}" for q in levels]
        frames = [pd.DataFrame(f.reshape(-1, len(names)), columns=names) for f in forecasts]
        return self.writer(frames, [after(past, step, horizon) for past, step in zip(self.pasts, self.steps)])


def read(data: Any) -> Table:
    """A Series, a wide or long frame, or a SeriesSet."""
    if not isinstance(data, (pd.Series, pd.DataFrame)):
        data = data.frame() if len(data) == 1 and data.stamps[0] is not None else data.long()
    if isinstance(data, pd.Series):
        return _one(data)
    data = tidy(data)
    return _one(data) if column_of(data.columns, IDS) is None else _long(data)


def _one(data: pd.Series | pd.DataFrame) -> Table:
    """A Series or a wide frame: one series with as many variates as columns."""
    found, index = as_series_set(data), data.index
    if isinstance(data, pd.DataFrame) and len(found.channels) < data.shape[1]:
        index = pd.Index(data.iloc[:, 0])  # the first column is the time
    if found.stamps[0] is not None and not isinstance(index, (pd.DatetimeIndex, pd.PeriodIndex)):
        index = found.stamps[0]
    past, step = grid(index, "the index")
    values = _spread(found.series[0], index, past)

    def series(frames: list[pd.DataFrame], future: list[pd.Index]) -> pd.DataFrame:
        return frames[0].set_index(future[0].rename(data.index.name))

    def wide(frames: list[pd.DataFrame], future: list[pd.Index]) -> pd.DataFrame:
        out = frames[0]
        out.insert(0, "ds", future[0][np.tile(np.arange(len(future[0])), len(found.channels))])
        out.insert(0, "unique_id", np.repeat(found.channels, len(future[0])))
        return out

    return Table([values], [past], [step], _season([step]), series if isinstance(data, pd.Series) else wide)


def _long(data: pd.DataFrame) -> Table:
    found, label, time = as_series_set(data), column_of(data.columns, IDS), column_of(data.columns, TIMES)
    codes, _ = pd.factorize(data[label].astype(str))
    rows = [np.flatnonzero(codes == i) for i in range(len(found.ids))]
    names = [data[label].iloc[r[0]] for r in rows]
    zone = getattr(data[time].dtype, "tz", None)
    indexes = [
        pd.Index(data[time].iloc[row]) if stamps is None else stamps if zone is None else stamps.tz_localize("UTC").tz_convert(zone)
        for stamps, row in zip(found.stamps, rows)
    ]
    grids = [grid(index, f"series {name!r}") if len(index) > 1 else None for index, name in zip(indexes, names)]
    told = [g[1] for g in grids if g is not None]  # a series of one point goes on as most others do
    grids = [g or ((i, mode(told)) if told else grid(i, f"series {name!r}")) for g, i, name in zip(grids, indexes, names)]
    pasts, steps = ([g[part] for g in grids] for part in (0, 1))
    series = [_spread(values, index, past) for values, index, past in zip(found.series, indexes, pasts)]

    def write(frames: list[pd.DataFrame], futures: list[pd.Index]) -> pd.DataFrame:
        for frame, future, name in zip(frames, futures, names):
            frame.insert(0, time, future)
            frame.insert(0, label, [name] * len(frame))  # an id may be a tuple
        return pd.concat(frames, ignore_index=True)

    return Table(series, pasts, steps, _season(steps), write)


def _spread(values: np.ndarray, index: pd.Index, past: pd.Index) -> np.ndarray:
    """Values at their places on the grid, NaN in the gaps."""
    if len(past) == len(index):
        return values
    out = np.full((len(values), len(past)), np.nan)
    out[:, past.get_indexer(index)] = values
    return out


def _season(steps: list[Any]) -> int | None:
    """The season of the frequency all series share; None when there is none, so that a model may look for itself."""
    months = {1: "MS", 3: "QS", 12: "YS"}
    names = {step if isinstance(step, str) else months.get(getattr(step, "kwds", {}).get("months"), "") for step in steps}
    season = season_of(names.pop()) if len(names) == 1 else 1
    return season if season > 1 else None


def grid(index: pd.Index, place: str) -> tuple[pd.Index, Any]:
    """The regular grid an index lies on (itself, but for gaps) and its step.

    >>> grid(pd.RangeIndex(3, 9, 2), "x")
    (RangeIndex(start=3, stop=9, step=2), 2)
    >>> days = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-04", "2024-01-05"])
    >>> len(grid(days, "x")[0]), grid(days, "x")[1]
    (5, 'D')
    """
    if isinstance(index, pd.PeriodIndex):
        whole = pd.period_range(index[0], index[-1], freq=index.freq)
        return (index if len(whole) == len(index) else whole), index.freqstr
    if isinstance(index, pd.DatetimeIndex):
        return _stamps(index, place)
    if not pd.api.types.is_numeric_dtype(index):
        raise TsfmError(f"{place} holds {index.dtype} labels, expected time stamps, periods or a counter: set such an index")
    if isinstance(index, pd.RangeIndex) or len(index) < 2:
        return index, getattr(index, "step", 1)
    differences = np.diff(index.to_numpy())
    if np.allclose(differences, differences[0]) and differences[0] > 0:
        return index, differences[0].item()
    if pd.api.types.is_integer_dtype(index) and (differences > 0).all():
        step = int(np.gcd.reduce(differences))
        whole = np.arange(index[0], index[-1] + 1, step)
        if len(whole) <= 4 * len(index):
            return pd.Index(whole), step
    raise TsfmError(f"{place} is a counter without an even step: number the rows evenly, or give time stamps")


def _stamps(index: pd.DatetimeIndex, place: str) -> tuple[pd.DatetimeIndex, Any]:
    if index.freq is not None:
        return index, index.freq.freqstr
    found = pd.infer_freq(index) if len(index) > 2 else None
    if found:
        return index, found
    if len(index) > 1:
        day, step = pd.Timedelta("1D"), pd.Series(np.diff(index)).mode().iloc[0]  # the usual distance
        months = round(step / day / 30.44)
        if 28 * day <= step <= 31 * day:
            tries = ["MS", "ME", pd.DateOffset(months=1)]
        elif 89 * day <= step <= 366 * day and months in (3, 6, 12):
            tries = [pd.DateOffset(months=months)]
        else:
            whole_days = step % day == pd.Timedelta(0)  # a day is a day of the calendar, not 24 hours
            tries = [("D" if step == day else f"{step // day}D") if whole_days else pd.tseries.frequencies.to_offset(step).freqstr]
            if step == day and (index.day_of_week < 5).all() and index[-1] - index[0] > 7 * day:
                tries.insert(0, "B")
        for freq in tries:
            if step > pd.Timedelta(0) and (index[-1] - index[0]) / step <= 4 * len(index) + 8:
                whole = pd.date_range(index[0], index[-1], freq=freq)
                if len(whole) >= len(index) and index.isin(whole).all():
                    return whole, freq
    raise TsfmError(
        f"{place} has no even frequency ({len(index)} stamps from {index[0]} to {index[-1]}): "
        f"put the series on a regular grid first, for example with .resample('h').mean() or .asfreq('D')"
    )


def after(past: pd.Index, step: Any, horizon: int) -> pd.Index:
    """The next labels.

    >>> after(pd.RangeIndex(3), 1, 2), after(pd.period_range("2024Q3", periods=2, freq="Q"), "Q", 1)
    (RangeIndex(start=3, stop=5, step=1), PeriodIndex(['2025Q1'], dtype='period[Q-DEC]'))
    """
    if isinstance(past, pd.PeriodIndex):
        return pd.period_range(past[-1] + 1, periods=horizon)
    if isinstance(past, pd.DatetimeIndex):
        later = pd.date_range(past[-1], periods=horizon + 1, freq=step)
        return later[int(later[0] == past[-1]) :][:horizon]  # a lone stamp may lie off the grid of the others
    if isinstance(past, pd.RangeIndex):
        return pd.RangeIndex(past[-1] + step, past[-1] + step * (horizon + 1), step)
    return pd.Index(past[-1] + step * np.arange(1, horizon + 1))
