"""Malformed files: tables, archives and JSON in each layout that is read.

A strategy begins with something that is read as it stands and harms it, so that the harm reaches the code behind the first check.
"""

import copy
import gzip
import io
import json
import zipfile
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.data import test_reading

# ---- files -----------------------------------------------------------------------------------------------------------------------------

WIDE, TSF, TS = (text.encode() for text in (test_reading.WIDE, test_reading.TSF, test_reading.TS))
LONG = b"unique_id,ds,y\nA,2024-01-01,1\nB,2024-01-01,5\nA,2024-02-01,2\nB,2024-02-01,\n"
BARE = b"1,2\n3,4\n5,6\n"
QUOTED = b'"date";"a"\n"13/02/2024";1,5\n"14/02/2024";2\n'
TSV = b"-1\t0.5\t1.5\n1\t2.5\tNaN\n"
M4 = b'"V1","V2","V3","V4"\n"D1",1.5,2,\n"D2",4,5,6\n'
WORDS = [
    *(b"nan inf 1e999 , ; : ? @data @attribute @horizon -1 0x10 1_0 NaT True 9999-99-99 2024-02-30 0000-01-01 2024-W07 12:00 %s".split()),
    b"\n",
    b"\r",
    b"\t",
    b'"',
    b"'",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"9" * 400,
    b"1e-400",
    b"@data\n",
    b"@dimensions 99999999999\n",
    b"@dimensions x\n",
    b"@classlabel true\n",
    "²".encode(),
    "１２".encode(),
    b"@frequency quarterly\n",
    b"@frequency weekly\n",
    b"unique_id",
    b"ds",
    b"@attribute x date\n",
    b"9999-12-31",
    b"1677-01-01",
    b"NA",
    b"#",
    b"V1,",
    b"Unnamed: 0",
]
HARMS = ("cut", "drop", "repeat", "flip", "word", "word", "word", "swap", "column")


@st.composite
def harmed(draw, healthy: list[bytes]) -> bytes:
    """One of the healthy files with one to four things done to it."""
    data = draw(st.sampled_from(healthy))
    for harm in draw(st.lists(st.sampled_from(HARMS), min_size=1, max_size=4)):
        i, j = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))
        lines = data.split(b"\n")
        if harm == "cut":
            data = data[:i]
        elif harm == "drop":
            data = data[:i] + data[j:]
        elif harm == "repeat":
            data = data[:j] + data[i:j] + data[j:]
        elif harm == "flip" and i < len(data):
            data = data[:i] + bytes([data[i] ^ draw(st.integers(1, 255))]) + data[i + 1 :]
        elif harm == "swap":
            a, b = draw(st.tuples(*[st.integers(0, len(lines) - 1)] * 2))
            lines[a], lines[b] = lines[b], lines[a]
            data = b"\n".join(lines)
        elif harm == "column":
            k, word = draw(st.integers(0, 3)), draw(st.sampled_from(WORDS))
            data = b"\n".join(b",".join(word if n == k else cell for n, cell in enumerate(line.split(b","))) for line in lines)
        else:
            data = data[:i] + draw(st.sampled_from(WORDS)) + data[j if draw(st.booleans()) else i :]
    return data


def _files(healthy: list[bytes], names: tuple[str, ...]) -> st.SearchStrategy:
    """(name, bytes); some are compressed after the harm, some harmed after the compression."""
    packed = [gzip.compress(one, mtime=0) for one in healthy]
    named = st.sampled_from(names)
    return st.one_of(
        st.tuples(named, harmed(healthy)),
        st.tuples(named, harmed(healthy)),
        st.tuples(named, harmed(healthy)),
        st.tuples(named.map(lambda n: n + ".gz"), harmed(healthy).map(lambda d: gzip.compress(d, mtime=0))),
        st.tuples(named.map(lambda n: n + ".gz"), harmed(packed)),
    )


def zipped(members: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, how)
    return out.getvalue()


def _saved(save: Any, *arrays: Any, **named: Any) -> bytes:
    out = io.BytesIO()
    save(out, *arrays, **named)
    return out.getvalue()


_X, _Y = np.arange(6.0).reshape(2, 3), np.array([-1, 1])
NPZ = [
    _saved(np.savez, X_train=_X, y_train=_Y, X_test=_X, y_test=_Y),
    _saved(np.savez_compressed, values=_X),
    _saved(np.savez, north=_X[0], south=_X[1, :2]),
    _saved(np.savez, X_train=_X, y_train=_Y, X_test=_X, y_test=_Y, classes=np.array(["a", "b"])),
]
NPY = [_saved(np.save, _X), _saved(np.save, _X.astype(np.float16)), _saved(np.save, np.array(["2024", "2025"], "datetime64[D]"))]
ZIPS = [
    zipped({"R.tsf": TSF}),
    zipped({"P_TRAIN.ts": TS, "P_TEST.ts": TS, "readme.txt": b"words"}),
    zipped({"a.csv": WIDE}, zipfile.ZIP_STORED),
]

ODD = st.sampled_from([np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324, 0.0, -0.0, 1e30])
NUMBERS = st.one_of(st.floats(-1e6, 1e6), ODD)
KINDS = ("f8", "f8", "f4", "f2", "i8", "u1", "?", "c16", "M8[s]", "m8[h]", "U3", "S2")
ARRAYS = hnp.arrays(st.sampled_from(KINDS), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6))
_labels = st.sampled_from(["X_train", "y_train", "X_test", "y_test", "classes", "X_train_raw", "a", "../a"])
_npz = st.dictionaries(_labels, ARRAYS, max_size=5).map(lambda found: _saved(np.savez, **found))
_members = st.dictionaries(
    st.sampled_from(["a.csv", "b/c.tsf", "P_TRAIN.ts", "P_TEST.tsv", "P_TEST.ts", "../a.csv", "/a.txt", "_x.csv", "a.exe"]),
    st.one_of(harmed([WIDE, TSF, TS, TSV]), st.sampled_from([WIDE, TSF, TS, TSV, b""])),
    max_size=3,
)

FILES = {
    "csv": _files([WIDE, LONG, BARE, QUOTED, M4], ("mine.csv", "mine.txt", "mine", "Daily-train.csv")),
    "tsf": _files([TSF], ("mine.tsf", "mine.txt")),
    "ts": _files([TS, TSV], ("P_TRAIN.ts", "P.ts", "P_TRAIN.tsv", "P_TEST.tsv", "P_TRAIN.txt")),
    "npz": st.one_of(
        st.tuples(st.just("mine.npz"), st.one_of(harmed(NPZ), _npz)),
        st.tuples(st.just("mine.npy"), st.one_of(harmed(NPY), ARRAYS.map(lambda a: _saved(np.save, a)))),
    ),
    "zip": st.one_of(st.tuples(st.just("mine.zip"), st.one_of(harmed(ZIPS), _members.map(zipped)))),
}

# ---- JSON ------------------------------------------------------------------------------------------------------------------------------

LEAVES = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        -1,
        1,
        3,
        7,
        10**6,
        10**12,
        10**30,
        0.5,
        -0.5,
        float("nan"),
        float("inf"),
        1e308,
        "",
        "x",
        "512",
        [],
        [1],
        [-1],
        [0],
        ["x"],
        [[1]],
        {},
        {"x": 1},
        [10**9, 3],
        "causal",
        [1, 2, 3, 4],
    ]
)


@st.composite
def changed(draw, healthy: list[Any]) -> Any:
    """A JSON value with some of its leaves replaced, fields left out or fields added."""
    value = json.loads(json.dumps(draw(st.sampled_from(healthy))))
    for _ in range(draw(st.integers(1, 3))):
        here = value
        while isinstance(here, (dict, list)) and here:
            at = draw(st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here))))
            if isinstance(here[at], (dict, list)) and here[at] and draw(st.integers(0, 3)):
                here = here[at]
                continue
            how = draw(st.sampled_from(("replace", "replace", "replace", "drop", "add")))
            if how == "drop":
                del here[at]
            elif how == "add" and isinstance(here, dict):
                here[draw(st.sampled_from(["", "x", "model", "config", "width", "__class__"]))] = copy.deepcopy(draw(LEAVES))
            else:
                here[at] = copy.deepcopy(draw(LEAVES))
            break
    return value


def texts(healthy: list[Any]) -> st.SearchStrategy:
    """Bytes of JSON files: changed values, and harmed text."""
    words = [json.dumps(one).encode() for one in healthy]
    deep = st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b"", b"null", b"3", b'"x"', b"\xff", b"NaN", b"1" * 5000])
    return st.one_of(changed(healthy).map(lambda v: json.dumps(v).encode()), harmed(words), deep)
