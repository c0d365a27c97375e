"""Anything that holds series, as a SeriesSet: pandas, numpy, torch, ragged lists. Bad values are refused with the place they stand at."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsfm_lib.data.sets import Card, SeriesSet, season_of
from tsfm_lib.errors import TsfmError

IDS = ("unique_id", "item_id", "series_id")
TIMES = ("ds", "timestamp", "date", "datetime", "time", "t", "year")
VALUES = ("y", "target", "value")
_STEPS = {1: "D", 7: "W", **{d: "MS" for d in range(28, 32)}, **{d: "QS" for d in range(89, 93)}, 365: "YS", 366: "YS"}


def frequency_of(stamps: pd.DatetimeIndex) -> str:
    """The pandas alias of the most frequent step; "" when there is none.

    >>> months, quarters_of_hours = pd.to_datetime(["2020-01-01", "2020-02-01"]), pd.date_range("2020", periods=9, freq="15min")
    >>> frequency_of(months), frequency_of(quarters_of_hours)
    ('MS', '15min')
    """
    if len(stamps) < 2:
        return ""
    steps, counts = np.unique(np.diff(stamps.to_numpy().astype("datetime64[s]").astype(np.int64)), return_counts=True)
    seconds = int(steps[counts.argmax()])
    days = stamps[:400].day_of_week
    if seconds == 86400 and (days < 5).all() and len(stamps) > 7:
        return "B"
    if seconds % 86400 == 0:
        return _STEPS.get(seconds // 86400, f"{seconds // 86400}D" if seconds > 0 else "")
    for unit, size in (("h", 3600), ("min", 60), ("s", 1)):
        if seconds > 0 and seconds % size == 0:
            return unit if seconds == size else f"{seconds // size}{unit}"
    return ""


def _from_text(values: pd.Index, place: Callable[[int], str]) -> pd.DatetimeIndex:
    """UTC stamps, NaT where a cell is none. Dates like 13/02/2024 are read in one order, the only one that fits every cell."""
    stamps = pd.to_datetime(values, format="ISO8601", errors="coerce", utc=True)
    if not stamps.isna().any():
        return stamps
    text = pd.Series(values).str.strip().str.replace(r"^(\d{4})-?Q([1-4])$", lambda m: f"{m[1]}-{3 * int(m[2]) - 2:02d}", regex=True)
    parts = text.str.extract(r"^(\d{1,2})[./-](\d{1,2})[./-](\d{4})(?!\d)(.*)$")
    if parts[0].notna().any():
        left, right = parts[0].astype(float), parts[1].astype(float)
        differ = (left - right).abs() > 0
        if differ.any() and left.max() <= 12 and right.max() <= 12:
            row = int(differ.argmax())
            raise TsfmError(f"{place(row)}: in {values[row]!r} day and month cannot be told apart: write it like 2024-01-31")
        month, day = (parts[0], parts[1]) if left.max() <= 12 else (parts[1], parts[0])
        text = parts[2] + "-" + month.str.zfill(2) + "-" + day.str.zfill(2) + parts[3]
    text = text.where(text.str.contains(r"\d{4}", na=False))  # pandas reads "may" as a day of the year 1
    return pd.DatetimeIndex(pd.to_datetime(text, format="mixed", errors="coerce", utc=True))


def has_stamps(values: pd.Index, place: Callable[[int], str]) -> bool:
    """False for a column without any stamp; a missing one among others is refused."""
    blank = values.isna()
    if blank.any() and not blank.all():
        raise TsfmError(f"{place(int(blank.argmax()))}: the time stamp is missing: write it like 2024-01-31 13:00:00")
    return not blank.all()


def as_stamps(column: Any, place: Callable[[int], str]) -> pd.DatetimeIndex | None:
    """UTC time stamps without a zone; None for a plain counter and for a column without any stamp."""
    values = pd.Index(column.to_timestamp() if isinstance(column, pd.PeriodIndex) else column)
    if not has_stamps(values, place) or pd.api.types.is_numeric_dtype(values):
        return None
    stamps = values if isinstance(values, pd.DatetimeIndex) else _from_text(values.astype(str), place)
    if stamps.isna().any():
        row = int(stamps.isna().argmax())
        raise TsfmError(f"{place(row)}: {values[row]!r} is not a time stamp: write it like 2024-01-31 13:00:00")
    return stamps.tz_convert(None) if stamps.tz is not None else stamps


def check_order(times: pd.Index, place: Callable[[int], str]) -> None:
    """Stamps, or the numbers of a counter, must rise strictly."""
    wrong = np.flatnonzero(np.asarray(times[1:] <= times[:-1], dtype=bool))
    if wrong.size:
        row = int(wrong[0]) + 1
        kind = "repeats the one before" if times[row] == times[row - 1] else f"comes after {times[row - 1]}"
        raise TsfmError(f"{place(row)}: time stamp {times[row]} {kind}, expected rising stamps: sort the rows and keep one row a time")


def numbers(column: pd.Series, place: Callable[[int], str]) -> np.ndarray:
    """A column as float64; the first cell that is not a number is named."""
    if column.dtype.kind in "cmM" or isinstance(column.dtype, (pd.PeriodDtype, pd.IntervalDtype)):
        raise TsfmError(f"{place(0)}: {column.iloc[0]!r} is not a number, the column holds {column.dtype}: leave it out or pass floats")
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        parsed = pd.to_numeric(column, errors="coerce")
        wrong = (parsed.isna() & column.notna()).to_numpy()
        if wrong.any():
            row = int(wrong.argmax())
            raise TsfmError(f"{place(row)}: {column.iloc[row]!r} is not a number: leave missing values empty or write NaN")
        values = parsed.to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isinf(values).any():
        raise TsfmError(f"{place(int(np.isinf(values).argmax()))}: the value is infinite: write NaN for a missing value")
    return values


def make(
    name: str,
    series: Sequence[np.ndarray],
    ids: Sequence[str],
    channels: Sequence[str],
    stamps: Sequence[pd.DatetimeIndex | None],
    where: str,
) -> SeriesSet:
    """A SeriesSet without a catalogue row: its frequency is read off the stamps; empty and all-missing series are refused."""
    if not series:
        raise TsfmError(f"{where} holds no series: at least one is needed")
    for values, label in zip(series, ids):
        if not values.size:
            raise TsfmError(f"{where}, series {label!r} is empty: drop it or give it values")
        missing = np.isnan(values).all(axis=1)
        if missing.any():
            wide = len(series) == 1 and list(channels) != ["value"]
            which = f"column {channels[int(missing.argmax())]!r}" if wide else f"series {label!r}"
            raise TsfmError(f"{where}, {which} holds no number, only missing values: drop it")
    frequency = next((frequency_of(s) for s in stamps if s is not None), "")
    splits = "7:1:2" if len(series) == 1 else "last-horizon"
    card = Card(name, frequency=frequency, season=season_of(frequency), splits=splits, note="your own data")
    return SeriesSet(name, tuple(series), tuple(ids), tuple(channels), tuple(stamps), card)


def column_of(columns: Iterable, names: Sequence[str]) -> Any:
    """The first of these names that a table has, in any case; None without one."""
    lower = {str(c).lower(): c for c in columns}
    return next((lower[n] for n in names if n in lower), None)


def tidy(frame: pd.DataFrame) -> pd.DataFrame:
    """Ids out of the index into a column; the nameless counter that `to_csv` writes in front is dropped."""
    levels = [n for n in frame.index.names if n is not None]
    if column_of(levels, IDS) is not None and not set(levels) & set(frame.columns):
        frame = frame.reset_index()
    if frame.shape[1] > 1 and str(frame.columns[0]) in ("", "Unnamed: 0"):
        first, count = frame.iloc[:, 0], np.arange(len(frame))
        if pd.api.types.is_integer_dtype(first) and any(np.array_equal(first, count + begin) for begin in (0, 1)):
            return frame.iloc[:, 1:]
    return frame


def from_frame(
    frame: pd.DataFrame,
    name: str = "data",
    where: str = "the frame",
    line: Callable[[int], str] = "row {}".format,
    ordered: bool = True,
    bare: bool = False,
) -> SeriesSet:
    """A wide table (first column or index = time stamps) or a long one (id, time, value).

    `line` words a row's place in errors, `ordered=False` allows stamps that repeat, `bare` says there is no time column.
    """
    if not frame.size:
        raise TsfmError(f"{where} has no rows of values: at least one is needed")
    if frame.columns.has_duplicates:
        raise TsfmError(
            f"{where}: column {frame.columns[frame.columns.duplicated()][0]!r} appears twice: give each column a name of its own"
        )
    frame = frame if bare else tidy(frame)
    if column_of(frame.columns, IDS) is not None:
        return _from_long(frame, name, where, line, ordered)
    first = frame.columns[0]
    named = column_of(frame.columns, TIMES)
    if bare or isinstance(frame.index, (pd.DatetimeIndex, pd.PeriodIndex)):
        times, values = frame.index, frame
    elif named == first or not pd.api.types.is_numeric_dtype(frame[first if named is None else named]):
        time = first if named is None else named
        times, values = frame[time], frame.drop(columns=[time])
    else:
        times, values = frame.index if pd.api.types.is_numeric_dtype(frame.index) else pd.RangeIndex(len(frame)), frame
    if not values.shape[1]:
        raise TsfmError(f"{where} has only the column {first!r}: expected a column of time stamps and at least one column of numbers")
    place = lambda column: lambda row: f"{where}, {line(row)}, column {column!r}"
    at = place(getattr(times, "name", None) or "index")
    stamps = as_stamps(times, at)
    if ordered and has_stamps(pd.Index(times), at):
        check_order(pd.Index(times) if stamps is None else stamps, at)
    columns = [str(c) for c in values.columns]
    table = np.stack([numbers(values.iloc[:, i], place(c)) for i, c in enumerate(columns)])
    return make(name, [table], [name], columns, [stamps], where)


def _from_long(frame: pd.DataFrame, name: str, where: str, line: Callable[[int], str], ordered: bool) -> SeriesSet:
    label, time, value = (column_of(frame.columns, names) for names in (IDS, TIMES, VALUES))
    if value is None or time is None:
        missing = "values (y, target or value)" if value is None else "times (ds, timestamp, date or time)"
        raise TsfmError(f"{where}: a long table needs a column of {missing}, got {[str(c) for c in frame.columns]}: rename the column")
    place = lambda column, rows=None: lambda row: f"{where}, {line(row if rows is None else int(rows[row]))}, {column}"
    nameless = frame[label].isna().to_numpy()
    if nameless.any():
        raise TsfmError(f"{place(f'column {label!r}')(int(nameless.argmax()))}: the id is missing: say which series the row belongs to")
    y = numbers(frame[value], place(f"column {value!r}"))
    codes, ids = pd.factorize(frame[label].astype(str))
    order = np.argsort(codes, kind="stable")
    ends = np.flatnonzero(np.diff(codes[order])) + 1
    times = pd.Index(frame[time])
    dated = np.flatnonzero(~times.isna())  # a series may have no stamps at all, but not some
    whole = as_stamps(times[dated], place(f"column {time!r}", dated))
    series, stamps = [], []
    for rows in np.split(order, ends):
        series.append(y[rows][None])
        at = place(f"series {ids[codes[rows[0]]]!r}", rows)
        known = has_stamps(times[rows], at)
        own = whole[np.searchsorted(dated, rows)] if known and whole is not None else times[rows]
        if known and ordered:
            check_order(own, at)
        stamps.append(own if known and whole is not None else None)
    return make(name, series, [str(i) for i in ids], [str(value)], stamps, where)


def as_floats(values: Any, where: str) -> np.ndarray:
    """Anything array-like as float64, NaN where a mask hides a value. Refused: complex numbers, dates and durations, which numpy would
    turn into numbers that mean something else."""
    try:
        if hasattr(values, "detach"):  # a tensor, without importing torch
            values = values.detach().cpu()
            values = values.numpy() if values.is_complex() else values.double().numpy()
        if getattr(getattr(values, "dtype", None), "kind", "f") in "cmMV":
            raise TypeError(f"{values.dtype} is no kind of real number")
        array = values.astype(np.float64).filled(np.nan) if isinstance(values, np.ma.MaskedArray) else np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:  # RuntimeError: a tensor without data
        said = str(error).splitlines()[0][:120]
        raise TsfmError(f"{where}: expected numbers, got {type(values).__name__} ({said}): pass arrays of floats") from None
    if np.isinf(array).any():
        raise TsfmError(f"{where}: some values are infinite: write NaN for a missing value")
    return array


def ragged(data: Any) -> bool:
    """Whether a list holds series, one an entry, and not the numbers of a single one."""
    return isinstance(data, (list, tuple)) and len(data) > 0 and not all(v is None or isinstance(v, (int, float, np.number)) for v in data)


def as_series_set(data: Any, name: str = "data") -> SeriesSet:
    """A SeriesSet from arrays or tensors [T], [V, T] or [B, V, T], ragged lists of such, Series, wide or long frames.

    >>> as_series_set([[1.0, 2.0, 3.0], [4.0, 5.0]]).ids
    ('0', '1')
    >>> as_series_set(pd.Series([1, 2, 3], index=pd.date_range("2024", periods=3, freq="MS"), name="sales")).season
    12
    """
    if isinstance(data, SeriesSet):
        return data
    if isinstance(data, pd.Series):
        return from_frame(data.to_frame(name=str(data.name) if data.name is not None else name), name, bare=True)
    if isinstance(data, pd.DataFrame):
        return from_frame(data, name)
    if ragged(data):
        elements = [as_floats(v, f"series {i}") for i, v in enumerate(data)]
    else:
        array = as_floats(data, "the values")
        elements = list(array) if array.ndim == 3 else [array]
    elements = [e[None] if e.ndim == 1 else e for e in elements]
    shapes = [e.shape for e in elements]
    if any(len(s) != 2 for s in shapes) or len({s[0] for s in shapes}) > 1:
        raise TsfmError(f"expected series [T] or [V, T] with equally many channels V, got shapes {shapes[:4]}: pass one array a series")
    channels = ["value"] if not shapes or shapes[0][0] == 1 else [str(v) for v in range(shapes[0][0])]
    return make(name, elements, [str(i) for i in range(len(elements))], channels, [None] * len(elements), name)
