"""`read(path)`: the layout is found from the content and the ending, archives are unpacked in memory."""

import io
from math import isnan, nan
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from tsfm_lib import paths
from tsfm_lib.data.archives import Members, array, unpack
from tsfm_lib.data.frames import as_series_set, from_frame
from tsfm_lib.data.sets import LabelledSet, SeriesSet
from tsfm_lib.data.tsf import read_m4, read_tsf
from tsfm_lib.data.ucr import labelled, read_npz, read_ts, read_tsv
from tsfm_lib.errors import TsfmError

TEXTS = (".tsf", ".ts", ".tsv", ".txt", ".csv")
ENDINGS = (*TEXTS, ".gz", ".zip", ".npz", ".npy")
_MISSING = ("", "?", "nan", "na", "n/a", "null", "none")


def _text(data: bytes, where: str, strict: bool = True) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if not strict:
            return data.decode("latin-1")
        raise TsfmError(
            f"{where} is not UTF-8 text (byte {error.start}): save it as UTF-8, or pass a csv, tsf, ts, tsv or npz file"
        ) from None


def _value(cell: str) -> float | None:
    """A cell as a number, NaN where it is missing; None for a word."""
    cell = cell.strip().lower()
    try:
        return nan if cell in _MISSING else None if "_" in cell else float(cell)
    except ValueError:
        return None


def _headless(fields: list[str], below: str) -> bool:
    """Whether the first line holds values, not names: numbers and missing cells, at least one number."""
    if fields == ["", *map(str, range(len(fields) - 1))]:  # how pandas writes numbered columns: names, if the rows count from 0
        return _value(below) not in (0, None)
    head = [_value(f) for f in fields]
    return None not in head and not all(map(isnan, head))


def read_csv(text: str, name: str, where: str, ordered: bool = True) -> SeriesSet:
    """A wide or long table; a file of numbers without a header is taken as wide without time stamps."""
    head, _, rest = text.partition("\n")
    head = head.strip(" \r")
    separator = max(",;\t", key=head.count)
    fields = head.split(separator)
    bare = _headless(fields, rest.partition(separator)[0])
    if '"' not in text:  # pandas would fill a short line with missing values
        twice = [f for f in fields if fields.count(f) > 1]
        if twice and not bare:
            raise TsfmError(f"{where}, line 1: column {twice[0]!r} appears twice: give each column a name of its own")
        lines = text.splitlines()
        if text.count(separator) != (len(fields) - 1) * sum(map(bool, lines)):
            for number, line in enumerate(lines, 1):
                if line and line.count(separator) != len(fields) - 1:
                    got = line.count(separator) + 1
                    raise TsfmError(
                        f"{where}, line {number}: expected {len(fields)} columns, got {got}: mend the line or get the file again"
                    )
    try:
        frame = pd.read_csv(io.StringIO(text), sep=separator, header=None if bare else 0, na_values=["?"], skip_blank_lines=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise TsfmError(f"{where} cannot be read as a table ({str(error).strip()}): mend the line or get the file again") from None
    if bare:
        frame.columns = [str(c) for c in frame.columns]
        frame.index = pd.RangeIndex(len(frame))
    first = 1 if bare else 2
    return from_frame(frame, name, where, lambda row: f"line {row + first}", ordered, bare)


def _stem(name: str) -> str:
    stem = PurePosixPath(name).name
    for ending in (".gz", ".zip", *TEXTS, ".npz", ".npy", "_TRAIN", "_TEST"):
        stem = stem.removesuffix(ending)
    return stem


def _labelled(members: Members, name: str, where: str) -> LabelledSet:
    parts = {}
    for part in ("TRAIN", "TEST"):
        found = [m for m in members if f"_{part}." in m[0].upper() + "."]
        found.sort(key=lambda m: (not m[0].lower().endswith(".ts"), not m[0].lower().endswith(".tsv"), len(m[0])))
        if found:
            label = found[0][0]
            reader = read_ts if label.lower().endswith(".ts") else read_tsv
            parts[part] = reader(_text(found[0][1], label), label)
    return labelled(name, parts.get("TRAIN", ([], [])), parts.get("TEST", ([], [])), where)


def parse(members: Members, where: str, name: str = "", ordered: bool = True, raw: bool = False) -> SeriesSet | LabelledSet:
    """The set that these files hold."""
    members = [inner for label, data in members for inner in ([(label, data)] if label.endswith(".npz") else unpack(label, data, TEXTS))]
    if not members:
        raise TsfmError(f"{where} holds no file this library reads: expected one of {', '.join(ENDINGS)}")
    label, data = members[0]
    name = name or _stem(label)
    if not data.strip():
        raise TsfmError(f"{where} is empty: get the file again")
    if label.endswith(".npz") or data[:2] == b"PK":
        return read_npz(data, name, where, raw)
    if label.endswith(".npy"):
        try:
            return as_series_set(array(data), name)
        except TsfmError as error:
            raise TsfmError(f"{where} cannot be read as series [T], [V, T] or [B, V, T] ({error}): save a plain array of numbers") from None
    if any(part in m[0].upper() for m in members for part in ("_TRAIN.", "_TEST.")):
        return _labelled(members, name, where)
    head = data[:4000].lower()
    if label.endswith(".tsf") or (b"@relation" in head and b"@attribute" in head):
        return read_tsf(_text(data, where, strict=False), name, where)
    if label.endswith(".ts") or b"@classlabel" in head:
        return labelled(name, read_ts(_text(data, where), where), ([], []), where)
    if head.lstrip(b'\xef\xbb\xbf"').startswith((b'v1"', b"v1,")):
        return read_m4([_text(d, w) for w, d in members], name, where)
    return read_csv(_text(data, where), name, where, ordered)


def contents(path: Path) -> bytes:
    """The bytes of a file, or a sentence about why there are none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise TsfmError(f"there is no file {str(path)!r}: check the path") from None
    except OSError as error:
        raise TsfmError(f"{str(path)!r} cannot be read ({error.strerror}): check the path and its permissions") from None


def read(path: Any) -> SeriesSet | LabelledSet:
    """A file of your own: csv(.gz) wide or long, tsf(.gz), UCR .ts/.tsv/.txt (with its _TEST beside it), npz, npy, or a zip of these.

    Dates like 13/02/2024 are read in the one order that fits the whole column, and refused if day and month cannot be told apart.
    """
    path = paths.given(path, "the path of a file", ": arrays and frames go to data.as_series_set")
    ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if ending.lower() not in ("", *ENDINGS) and not path.is_dir():
        raise TsfmError(f"{path.name} ends in {ending}, expected one of {', '.join(ENDINGS)}: save the series as csv")
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in TEXTS and ("_TRAIN" in p.name or "_TEST" in p.name))
        if not files:
            raise TsfmError(f"the folder {path} holds no NAME_TRAIN and NAME_TEST files: pass a file")
    else:
        files = [path]
        for this, other in (("_TRAIN", "_TEST"), ("_TEST", "_TRAIN")):
            if f"{this}." in path.name and (beside := path.with_name(path.name.replace(f"{this}.", f"{other}."))).exists():
                files.append(beside)
    members = [(f.name, contents(f)) for f in files]
    try:
        return parse(members, files[0].name)
    except TsfmError as refusal:  # said of an array or of a file inside an archive
        if files[0].name in str(refusal):
            raise
        raise TsfmError(f"{files[0].name}: {refusal}") from None
