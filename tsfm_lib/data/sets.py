"""What a loaded data set is: its card, its series or labelled examples, and its splits."""

import re
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd

from tsfm_lib.errors import TsfmError, nearest

# Points in one season of each unit. Days count in weeks here (GluonTS gives daily series no season); weeks have none.
_SEASONS = {"s": 3600, "min": 1440, "h": 24, "D": 7, "B": 5, "W": 1, "MS": 12, "QS": 4, "YS": 1}
_OTHER_NAMES = {"S": "s", "T": "min", "H": "h", "M": "MS", "ME": "MS", "Q": "QS", "QE": "QS", "A": "YS", "Y": "YS", "YE": "YS", "AS": "YS"}


def unit_of(frequency: str) -> tuple[int, str]:
    """Number and unit of a pandas frequency, in the names this library uses; (0, "") when it is none.

    >>> unit_of("15T"), unit_of("W-SUN"), unit_of("ME"), unit_of("odd")
    ((15, 'min'), (1, 'W'), (1, 'MS'), (0, ''))
    """
    number, letters = re.match(r"(\d*)([A-Za-z]*)", frequency).groups()
    unit = _OTHER_NAMES.get(letters, letters)
    return (int(number or 1), unit) if unit in _SEASONS else (0, "")


def season_of(frequency: str) -> int:
    """Points in one season of a pandas frequency; 1 when nothing repeats or nothing is known.

    >>> season_of("h"), season_of("15min"), season_of("W-SUN"), season_of("ME"), season_of("")
    (24, 96, 1, 12, 1)
    """
    number, unit = unit_of(frequency)
    return _SEASONS[unit] // number if number and _SEASONS[unit] % number == 0 else 1


@dataclass(frozen=True)
class Card:
    """One row of the catalogue: where a data set comes from and how the field uses it."""

    name: str
    task: str = "forecasting"  # forecasting | classification | results
    domain: str = ""
    frequency: str = ""  # pandas alias, "" when unknown or mixed
    season: int = 1
    horizon: int = 0
    splits: str = ""  # "8640/2880/2880" rows | "7:1:2" | "last-horizon" | "official" | ""
    source: str = ""  # web | hub | by-hand | statsmodels | tslearn | planted | "" (yours)
    file: str = ""  # path below $TSFM_DATA
    sha256: str = ""  # of that file
    url: str = ""
    checksum: str = ""  # of the download or the text inside: "md5:…", "sha256:…", "git-blob:…"; " | " between equals
    facts: dict = field(default_factory=dict)
    licence: str = ""
    citation: str = ""
    note: str = ""


Part = Literal["train", "val", "test"]


def split_rows(rule: str, length: int, horizon: int = 0) -> dict[str, slice]:
    """Rows of train, val and test without the look-back rows that windows of val and test may also read.

    >>> split_rows("7:1:2", 7588)
    {'train': slice(0, 5311, None), 'val': slice(5311, 6071, None), 'test': slice(6071, 7588, None)}
    """
    if rule == "last-horizon":
        if not 0 < horizon < length:
            raise TsfmError(
                f"a test part of the last {horizon} points needs 0 < horizon < {length}, the length of the series: set the card's horizon"
            )
        a = b = length - horizon
        end = length
    elif "/" in rule:
        train, val, test = (int(n) for n in rule.split("/"))
        a, b, end = train, train + val, train + val + test
        if end > length:
            raise TsfmError(f"the split {rule} needs {end} rows, this set has {length}: load the whole file")
    elif rule == "7:1:2":
        train, test = int(0.7 * length), int(0.2 * length)
        a, b, end = train, length - test, length
    else:
        raise TsfmError(f"splits should be 'rows/rows/rows', '7:1:2' or 'last-horizon', got {rule!r}: set the card's splits")
    return {"train": slice(0, a), "val": slice(a, b), "test": slice(b, end)}


@dataclass(frozen=True)
class SeriesSet:
    """Forecasting data: a wide table is one element with V channels, a collection is many elements with one."""

    name: str
    series: tuple[np.ndarray, ...]  # each float64 [V, T], NaN = missing
    ids: tuple[str, ...]
    channels: tuple[str, ...]
    stamps: tuple[pd.DatetimeIndex | None, ...]
    card: Card

    def __post_init__(self):
        if not (len(self.series) == len(self.ids) == len(self.stamps)):
            raise TsfmError(
                f"{self.name}: {len(self.series)} series, {len(self.ids)} ids and {len(self.stamps)} stamps should be equally many"
            )
        for values, name, stamps in zip(self.series, self.ids, self.stamps):
            if values.ndim != 2 or values.shape[0] != len(self.channels):
                raise TsfmError(
                    f"{self.name}, series {name!r}: expected values of shape [{len(self.channels)}, T], got {list(values.shape)}"
                )
            if stamps is not None and len(stamps) != values.shape[1]:
                raise TsfmError(f"{self.name}, series {name!r}: {values.shape[1]} values but {len(stamps)} time stamps")

    @property
    def frequency(self) -> str:
        return self.card.frequency

    @property
    def season(self) -> int:
        return self.card.season

    @property
    def horizon(self) -> int:
        return self.card.horizon

    def __len__(self) -> int:
        return len(self.series)

    def split(self, part: Part, element: int = 0) -> slice:
        """Rows of a part; the look-back of val and test windows starts before it and is not counted in."""
        rows = split_rows(self.card.splits or ("7:1:2" if len(self) == 1 else "last-horizon"), self.series[element].shape[1], self.horizon)
        if part not in rows:
            raise TsfmError(f"a part is one of train, val, test, got {part!r}{nearest(part, rows)}")
        return rows[part]

    def channel(self, name: str) -> "SeriesSet":
        """The same set with this one channel."""
        if name not in self.channels:
            raise TsfmError(f"{self.name} has no channel {name!r}{nearest(name, self.channels)}")
        row = self.channels.index(name)
        return replace(self, series=tuple(s[row : row + 1] for s in self.series), channels=(name,))

    def pick(self, name: str) -> "SeriesSet":
        """The one series of this id, with its own frequency and season where the card knows them."""
        if name not in self.ids:
            raise TsfmError(f"{self.name} has no series {name!r}{nearest(name, self.ids)}")
        i = self.ids.index(name)
        own = self.card.facts.get("frequency_of", {}).get(name)
        card = self.card if own is None else replace(self.card, frequency=own, season=season_of(own))
        return SeriesSet(f"{self.name}/{name}", self.series[i : i + 1], (name,), self.channels, self.stamps[i : i + 1], card)

    def frame(self) -> pd.DataFrame:
        """A wide table: one row a time stamp, one column a channel."""
        if len(self) != 1:
            raise TsfmError(f"{self.name} holds {len(self)} series with times of their own: use .long() or .pick(id).frame()")
        index = self.stamps[0] if self.stamps[0] is not None else pd.RangeIndex(self.series[0].shape[1])
        return pd.DataFrame(self.series[0].T, index=index, columns=list(self.channels))

    def long(self) -> pd.DataFrame:
        """One row an observation: unique_id, ds, y (ds counts from 0 where there are no time stamps)."""
        ids, times, values = [], [], []
        dated = all(s is not None for s in self.stamps)
        for series, name, stamps in zip(self.series, self.ids, self.stamps):
            for row, channel in zip(series, self.channels):
                label = name if len(self.channels) == 1 else channel if len(self) == 1 else f"{name}/{channel}"
                ids.append(np.full(row.size, label, dtype=object))
                times.append(stamps if dated else np.arange(row.size))
                values.append(row)
        ds = times[0].append(times[1:]) if dated else np.concatenate(times)
        return pd.DataFrame({"unique_id": pd.Series(np.concatenate(ids), dtype="str"), "ds": ds, "y": np.concatenate(values)})


@dataclass(frozen=True)
class LabelledSet:
    """Classification data with the official train and test parts; NaN pads series of unequal length."""

    name: str
    x_train: np.ndarray  # float32 [N, V, T]
    y_train: np.ndarray  # int64 [N], 0..k-1
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...]  # the archive's own labels, in the order of 0..k-1
    card: Card

    def __post_init__(self):
        for part, x, y in (("train", self.x_train, self.y_train), ("test", self.x_test, self.y_test)):
            if x.ndim != 3 or y.shape != (len(x),):
                raise TsfmError(f"{self.name}: {part} should be x [N, V, T] with y [N], got {list(x.shape)} and {list(y.shape)}")
            if y.size and not (y.min() >= 0 and y.max() < len(self.classes)):
                raise TsfmError(f"{self.name}: {part} labels should lie in 0..{len(self.classes) - 1}, got {y.min()}..{y.max()}")

    def lengths(self, part: Literal["train", "test"] = "train") -> np.ndarray:
        """Length of each example: the last position at which any channel is observed, plus one."""
        seen = ~np.isnan(self.x_train if part == "train" else self.x_test).all(axis=1)  # N T
        return np.where(seen.any(1), seen.shape[1] - seen[:, ::-1].argmax(1), 0)
