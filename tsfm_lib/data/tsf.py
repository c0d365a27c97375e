"""Text layouts of forecasting collections: Monash .tsf and the csv files of the M4 competition."""

import re

import numpy as np
import pandas as pd

from tsfm_lib.data.frames import make
from tsfm_lib.data.sets import Card, SeriesSet, season_of, unit_of
from tsfm_lib.errors import TsfmError

FREQUENCIES = {
    "yearly": "YS", "quarterly": "QS", "monthly": "MS", "weekly": "W", "daily": "D", "hourly": "h", "half_hourly": "30min",
    "10_minutes": "10min", "minutely": "min", "4_seconds": "4s", "seconds": "s",
}  # fmt: skip
_MONTHS = {"YS": 12, "QS": 3, "MS": 1}
_SECONDS = {"W": 604800, "D": 86400, "h": 3600, "min": 60, "s": 1}


def regular_stamps(start: str, frequency: str, length: int) -> pd.DatetimeIndex:
    """`length` stamps from `start` on, in whole steps of the frequency (weeks need not begin on a Sunday).

    >>> [str(s)[:10] for s in regular_stamps("2012-01-03", "QS", 3)]
    ['2012-01-03', '2012-04-03', '2012-07-03']
    """
    number, unit = unit_of(frequency)
    first, steps = np.datetime64(start, "s"), np.arange(length) * number
    if unit in _MONTHS:
        month = first.astype("datetime64[M]")
        return pd.DatetimeIndex((month + steps * _MONTHS[unit]).astype("datetime64[s]") + (first - month))
    if unit == "B":
        return pd.DatetimeIndex(np.busday_offset(first.astype("datetime64[D]"), steps, roll="forward").astype("datetime64[s]"))
    return pd.DatetimeIndex(first + steps * np.timedelta64(_SECONDS[unit], "s"))


def row_of_numbers(text: str, place: str) -> np.ndarray:
    """Values separated by commas; `?` is missing."""
    try:
        values = np.array(text.replace("?", "nan").split(","), dtype=np.float64)
    except ValueError:
        for i, cell in enumerate(text.split(",")):
            try:
                float("nan" if cell.strip() == "?" else cell)
            except ValueError:
                raise TsfmError(f"{place}, value {i + 1}: {cell[:40]!r} is not a number: write ? for a missing value") from None
        raise
    if np.isinf(values).any():
        raise TsfmError(f"{place}, value {int(np.isinf(values).argmax()) + 1} is infinite: write ? for a missing value")
    return values


def _stamp(text: str, place: str) -> str:
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)(?:[ T](\d\d)[-:](\d\d)[-:](\d\d))?", text.strip())
    try:
        start = f"{match[1]}T{match[2] or '00'}:{match[3] or '00'}:{match[4] or '00'}"
        np.datetime64(start, "s")
    except (TypeError, ValueError):
        raise TsfmError(f"{place}: the start {text[:40]!r} is not a time stamp: write it like 2012-01-31 00-00-00") from None
    return start


def read_tsf(text: str, name: str, where: str) -> SeriesSet:
    """The Monash layout: attributes, then one line a series, fields by colons and values by commas."""
    lines = text.splitlines()
    attributes, head, begin = [], {}, None
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        key = words[0].lower()
        if key == "@data":
            begin = number
            break
        if key == "@attribute" and len(words) == 3:
            attributes.append((words[1], words[2].lower()))
        elif key.startswith("@"):
            head[key[1:]] = words[1] if len(words) > 1 else ""
        else:
            raise TsfmError(
                f"{where}, line {number}: expected a line that begins with # or @ before @data, got {line[:40]!r}: is this a .tsf file?"
            )
    if begin is None:
        raise TsfmError(f"{where} has no @data line after {len(lines)} lines: the file is cut short or not a .tsf file, get it again")
    frequency = FREQUENCIES.get(head.get("frequency", "").lower(), "")
    names = [a for a, _ in attributes]
    dated = next((i for i, (a, kind) in enumerate(attributes) if kind == "date" or a == "start_timestamp"), None)
    labelled = next((i for i, a in enumerate(names) if a in ("series_name", "item_id", "unique_id")), None)
    series, ids, firsts = [], [], []
    for number, line in enumerate(lines[begin:], begin + 1):
        if not line.strip():
            continue
        fields = line.split(":")
        if len(fields) != len(attributes) + 1 or not fields[-1].strip():
            wanted = ":".join([*names, "values"])
            raise TsfmError(
                f"{where}, line {number}: expected {wanted}, got {len(fields)} fields: the line is cut short, get the file again"
            )
        place = f"{where}, line {number}"
        series.append(row_of_numbers(fields[-1], place)[None])
        ids.append(fields[labelled] if labelled is not None else f"T{len(ids) + 1}")
        firsts.append(_stamp(fields[dated], place) if dated is not None else None)
    if head.get("equallength", "").lower() == "true" and len({s.shape[1] for s in series}) > 1:
        lengths = [s.shape[1] for s in series]
        odd = next(i for i, n in enumerate(lengths) if n != lengths[0])
        raise TsfmError(
            f"{where}: series {ids[odd]!r} has {lengths[odd]} values, the first {lengths[0]}, but all should be equal: get the file again"
        )
    longest: dict[str, int] = {}
    for first, values in zip(firsts, series):
        if first and frequency:
            longest[first] = max(longest.get(first, 0), values.shape[1])
    calendars = {first: regular_stamps(first, frequency, n) for first, n in longest.items()}
    stamps = [calendars[f][: s.shape[1]] if f in calendars else None for f, s in zip(firsts, series)]
    made = make(name, series, ids, ["value"], stamps, where)
    horizon = int(head["horizon"]) if re.fullmatch("[0-9]{1,9}", head.get("horizon", "")) else 0
    card = Card(name, frequency=frequency, season=season_of(frequency), horizon=horizon, splits="last-horizon", note="your own data")
    return SeriesSet(made.name, made.series, made.ids, made.channels, made.stamps, card)


def read_m4(texts: list[str], name: str, where: str) -> SeriesSet:
    """The competition's csv: a header V1, V2, …, then one line a series (id, values); test points follow the train points."""
    parts: dict[str, list[np.ndarray]] = {}
    for text in texts:
        for number, line in enumerate(text.splitlines()[1:], 2):
            label, _, values = line.replace('"', "").rstrip(",\r ").partition(",")
            if values:
                parts.setdefault(label, []).append(row_of_numbers(values, f"{where}, line {number}"))
    short = next((label for label, found in parts.items() if len(found) != len(texts)), None)
    if short is not None:
        raise TsfmError(f"{where}: series {short!r} stands in {len(parts[short])} of {len(texts)} files, expected all: get the files again")
    return make(name, [np.concatenate(found)[None] for found in parts.values()], list(parts), ["value"], [None] * len(parts), where)
