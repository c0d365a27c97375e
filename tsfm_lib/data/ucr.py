"""Layouts of labelled series: .ts and .tsv/.txt of the UCR and UEA archives, and npz."""

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from tsfm_lib.data.archives import array, unpack
from tsfm_lib.data.frames import as_series_set
from tsfm_lib.data.sets import Card, LabelledSet, SeriesSet
from tsfm_lib.data.tsf import row_of_numbers
from tsfm_lib.errors import TsfmError

Part = tuple[list[np.ndarray], list[str]]  # series [V, T] and the archive's labels


def _stack(series: list[np.ndarray], channels: int, length: int) -> np.ndarray:
    out = np.full((len(series), channels, length), np.nan, dtype=np.float32)
    with np.errstate(over="ignore"):
        for i, values in enumerate(series):
            out[i, :, : values.shape[1]] = values
    return out


def _plain(label: object) -> str:
    """'1', '1.0' and '1.0000000e+00' are one label."""
    try:
        number = float(str(label))
    except ValueError:
        return str(label).strip()
    return str(int(number)) if number.is_integer() else str(number)


def _refuse_unusable(parts: Sequence[np.ndarray], where: str) -> None:
    for part, values in zip(("train", "test"), parts):
        silent = np.isnan(values).all(axis=(1, 2))
        if silent.any():
            raise TsfmError(f"{where}: {part} series {int(silent.argmax())} holds no number, only missing values: drop it")
        infinite = np.isinf(values).any(axis=(1, 2))  # in float32, in which labelled series are kept
        if infinite.any():
            raise TsfmError(f"{where}: {part} series {int(infinite.argmax())} has a value that is infinite or beyond 3e38: write NaN for a "
                            "missing value, or scale the series down")  # fmt: skip


def _card(name: str) -> Card:
    return Card(name, task="classification", splits="official", note="your own data")


def labelled(name: str, train: Part, test: Part, where: str) -> LabelledSet:
    """A LabelledSet: labels mapped to 0..k-1 in the order of the archive's numbers (or of the alphabet)."""
    everything = train[0] + test[0]
    if not train[0]:
        raise TsfmError(f"{where} holds no training series: at least one is needed")
    channels = {s.shape[0] for s in everything}
    if len(channels) > 1:
        raise TsfmError(f"{where}: series have {sorted(channels)} channels, expected one number: get the file again")
    y = [[_plain(v) for v in part[1]] for part in (train, test)]
    classes = set(y[0]) | set(y[1])
    try:
        classes = sorted(classes, key=float)
    except ValueError:
        classes = sorted(classes)
    code = {label: i for i, label in enumerate(classes)}
    length = max(s.shape[1] for s in everything)
    x = [_stack(part[0], *channels, length) for part in (train, test)]
    _refuse_unusable(x, where)
    codes = [np.array([code[v] for v in labels], dtype=np.int64) for labels in y]
    return LabelledSet(name, x[0], codes[0], x[1], codes[1], tuple(classes), _card(name))


def read_ts(text: str, where: str) -> Part:
    """One part of a .ts file: channels by colons, values by commas, the label last."""
    series, labels, begun, dimensions, classes = [], [], False, None, None
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith(("#", "%")):
            continue
        if not begun:
            words = line.split()
            key = words[0].lower()
            if not key.startswith("@"):
                raise TsfmError(
                    f"{where}, line {number}: expected a line that begins with @ before @data, got {line[:40]!r}: is this a .ts file?"
                )
            begun = key == "@data"
            if key in ("@targetlabel", "@timestamps") and len(words) > 1 and words[1].lower() == "true":
                raise TsfmError(
                    f"{where}, line {number}: {key} true is not supported, expected class labels and values without time stamps"
                )
            if key == "@dimensions" and len(words) > 1:
                if not words[1].isdecimal() or int(words[1]) < 1:
                    raise TsfmError(f"{where}, line {number}: @dimensions should be a number of channels, got {words[1][:20]!r}: mend it")
                dimensions = int(words[1])
            if key == "@classlabel" and len(words) > 2:
                classes = {_plain(w) for w in words[2:]}
            continue
        fields = line.split(":")
        wanted = dimensions or (series[0].shape[0] if series else max(1, len(fields) - 1))
        label = fields[-1].strip()
        if len(fields) != wanted + 1 or not label or (classes is not None and _plain(label) not in classes):
            raise TsfmError(
                f"{where}, line {number}: expected {wanted} channels and a class label separated by colons, "
                f"got {len(fields)} fields ending in {label[:20]!r}: the line is cut short, get the file again"
            )
        rows = [row_of_numbers(f, f"{where}, line {number}, channel {v + 1}") for v, f in enumerate(fields[:-1])]
        width = max(len(r) for r in rows)
        series.append(np.stack([np.pad(r, (0, width - len(r)), constant_values=np.nan) for r in rows]))
        labels.append(label)
    if not begun:
        raise TsfmError(f"{where} has no @data line: the file is cut short or not a .ts file, get it again")
    return series, labels


def read_tsv(text: str, where: str) -> Part:
    """One part in the first layout of the archive: the label, then the values, by tabs, commas or blanks."""
    first = text.lstrip().partition("\n")[0]
    separator = "\t" if "\t" in first else "," if "," in first else r"\s+"
    try:
        table = pd.read_csv(io.StringIO(text), sep=separator, header=None, na_values=["?"], dtype={0: str}, skipinitialspace=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise TsfmError(
            f"{where}: expected a label and equally many values on each line ({str(error).strip()}): get the file again"
        ) from None
    for column in table.columns[1:]:
        if not pd.api.types.is_numeric_dtype(table[column]):
            wrong = pd.to_numeric(table[column], errors="coerce").isna() & table[column].notna()
            row = int(wrong.to_numpy().argmax())
            raise TsfmError(
                f"{where}, line {row + 1}, value {column}: {table[column].iloc[row]!r} is not a number: write NaN for a missing value"
            )
    if table.shape[1] < 2 or table[0].isna().any():
        raise TsfmError(f"{where}: expected a label and values on each line, got {table.shape[1]} columns: get the file again")
    values = table.iloc[:, 1:].to_numpy(dtype=np.float64)
    return [row[None] for row in values], table[0].tolist()


def read_npz(data: bytes, name: str, where: str, raw: bool = False) -> LabelledSet | SeriesSet:
    """X_train, y_train, X_test, y_test (and `classes`); `raw` takes X_train_raw and X_test_raw where the file has them.

    A file with none of these holds series: one array [T], [V, T] or [B, V, T], or one [T] or [V, T] a series.
    """
    try:
        have = {key.removesuffix(".npy"): array(content) for key, content in unpack(where, data, (".npy",))}
    except TsfmError as error:
        raise TsfmError(
            f"{where} cannot be read as npz ({error}): it is cut short, damaged or holds objects, get it again or save plain arrays"
        ) from None
    needed = ("X_train", "y_train", "X_test", "y_test")
    missing = [key for key in needed if key not in have]
    if len(missing) == len(needed) and have:
        found = as_series_set(list(have.values()) if len(have) > 1 else next(iter(have.values())), name)
        return replace(found, ids=tuple(have)) if len(have) == len(found) else found
    if missing:
        raise TsfmError(f"{where}: expected the arrays {', '.join(needed)}, got {sorted(have)} without {', '.join(missing)}: save them so")
    tail = "_raw" if raw and "X_train_raw" in have else ""
    x = []
    for key in ("X_train", "X_test"):
        values = have[key + tail]
        if values.ndim not in (2, 3) or not np.issubdtype(values.dtype, np.number) or not values.size:
            raise TsfmError(f"{where}: {key}{tail} should be numbers [N, T] or [N, V, T], got {values.dtype} {list(values.shape)}")
        with np.errstate(over="ignore"):
            x.append(values[:, None].astype(np.float32) if values.ndim == 2 else values.astype(np.float32))
    ys = (have["y_train"], have["y_test"])
    for part, values, y in zip(("train", "test"), x, ys):
        if y.shape != (len(values),):
            raise TsfmError(f"{where}: y_{part} should hold {len(values)} labels, one a series, got shape {list(y.shape)}")
    _refuse_unusable(x, where)
    labels, codes = np.unique(np.concatenate(ys), return_inverse=True)
    classes = [str(c) for c in have["classes"]] if "classes" in have else [_plain(v) for v in labels]
    if "classes" in have:
        codes = np.concatenate(ys).astype(np.int64)
    split = len(ys[0])
    return LabelledSet(name, x[0], codes[:split].astype(np.int64), x[1], codes[split:].astype(np.int64), tuple(classes), _card(name))
