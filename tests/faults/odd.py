"""What may be handed to the front door: arrays, lists, tensors and frames, most of them odd, and requests that make little sense."""

import numpy as np
import pandas as pd
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.faults.malformed import ARRAYS, NUMBERS

_stamps = st.sampled_from(
    [
        pd.date_range("2024", periods=6, freq="D"),
        pd.date_range("2024", periods=6, freq="ME"),
        pd.period_range("2024", periods=6, freq="Q"),
        pd.date_range("2262-04-05", periods=6, freq="D"),
        pd.RangeIndex(6),
        pd.RangeIndex(6, 0, -1),
        pd.Index([0.0, 0.1, 0.2, 0.3, 0.4, 9.0]),
        pd.Index(list("abcdef")),
        pd.Index([1, 1, 2, 2, 3, 3]),
        pd.to_datetime(["2024-01-01"] * 6),
        pd.DatetimeIndex([pd.NaT, *pd.date_range("2024", periods=5)]),
        pd.date_range("2024-03-30", periods=6, freq="h", tz="Europe/Berlin"),
        pd.timedelta_range("1h", periods=6, freq="h"),
        pd.CategoricalIndex(list("aabbcc")),
        pd.MultiIndex.from_product([[1, 2], [1, 2, 3]]),
        pd.interval_range(0, 6),
        pd.Index([None] * 6),
        pd.Index(["2024-01-01", "yesterday", 3, None, 2.5, b"x"]),
        pd.Index([np.nan, 1, 2, 3, 4, 5]),
        pd.date_range("2024", periods=6, freq="7D")[::-1],
        pd.Index([2**62 + i * 2**40 for i in range(6)]),
        pd.date_range("1700", periods=6, freq="50YS"),
        pd.MultiIndex.from_product([["A", "B"], pd.date_range("2024", periods=3)], names=["unique_id", "ds"]),
    ]
)
_six = st.lists(NUMBERS, min_size=6, max_size=6)
_column = st.one_of(
    _six,
    st.lists(st.one_of(NUMBERS, st.sampled_from([None, "x", "1", "", b"2", pd.NA, pd.NaT, True, 1j, [1], {}])), min_size=6, max_size=6),
    st.sampled_from(
        [
            pd.array([1, None, 3, 4, 5, 6], "Int64"),
            pd.Categorical([1, 2, 3, 1, 2, 3]),
            pd.date_range("2024", periods=6),
            pd.array(["1", "2", None, "4", "5", "6"], "string"),
            pd.array([True, False, None] * 2, "boolean"),
            pd.arrays.SparseArray([0.0, 0, 1, 0, 2, 0]),
            pd.period_range("2024", periods=6, freq="M"),
        ]
    ),
)
_names = st.sampled_from(["y", "ds", "unique_id", "item_id", "target", "date", "a", "", "Unnamed: 0", 0, 1, None, ("a", "b"), 2.5, "0.5"])


@st.composite
def frames(draw) -> pd.DataFrame:
    columns = draw(st.lists(st.tuples(_names, _column), max_size=4))
    frame = pd.DataFrame(
        {i: pd.Series(list(values) if isinstance(values, list) else values) for i, (_, values) in enumerate(columns)}, index=range(6)
    )
    frame.columns = pd.Index([name for name, _ in columns], dtype=object)
    if draw(st.booleans()):
        frame.index = draw(_stamps)
    return frame.iloc[: draw(st.integers(0, 6))] if draw(st.booleans()) else frame


@st.composite
def long_frames(draw) -> pd.DataFrame:
    """Tables with the three columns of a long frame, each of which may be odd."""
    ids = draw(
        st.sampled_from([list("AABBAB"), ["A"] * 6, [1, 1, 1, 2, 2, 2], ["A", None] * 3, [np.nan] * 6, [("a",)] * 6, [1, "1", 1.0] * 2])
    )
    times = draw(st.one_of(_stamps, st.just([0, 1, 0, 1, 2, 2]), st.just([1, 2, 3, 1, 2, 3]), st.just([None, None, 1, 2, None, 3])))
    frame = pd.DataFrame({"unique_id": pd.Series(ids, dtype=object), "ds": pd.Series(list(times)), "y": pd.Series(list(draw(_column)))})
    return frame.sample(frac=1, random_state=0) if draw(st.booleans()) else frame


@st.composite
def tensors(draw) -> torch.Tensor:
    kind = draw(
        st.sampled_from(
            [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.complex64, torch.uint8]
        )
    )
    made = torch.ones(draw(st.lists(st.integers(0, 5), max_size=4))).to(kind)
    if draw(st.booleans()) and kind == torch.float32:
        made = draw(st.sampled_from([made.to_sparse(), made.requires_grad_(), made.to("meta"), made.expand(2, *made.shape)]))
    return made


_series = st.one_of(_six, st.lists(NUMBERS, max_size=40))
SERIES = st.one_of(
    st.builds(iter, st.just([1.0, 2.0])),
    ARRAYS,
    _series,
    st.lists(_series, max_size=4),
    st.lists(ARRAYS, max_size=3),
    tensors(),
    frames(),
    frames(),
    long_frames(),
    long_frames(),
    st.builds(lambda values, index: pd.Series(list(values), index=index), _column, _stamps),
    st.sampled_from(
        [
            None,
            "series",
            b"x",
            3,
            2.5,
            {},
            {"y": [1, 2]},
            {1.0, 2.0},
            object(),
            np.float64(3),
            np.array(None),
            np.ma.masked_array([1.0, 2, 3], [0, 1, 0]),
            range(5),
            [None, None],
            [None, 1.0],
            (1, 2, 3),
            [[1.0], 2.0],
            [[[1.0, 2.0]]],
            [pd.Series([1.0, 2.0]), [1.0]],
            ["1", "2"],
            np.array([1, "a", None], object),
            np.zeros((2, 0, 3)),
            pd.Index([1.0, 2.0]),
            pd.DataFrame(),
            pd.Series(dtype=float),
        ]
    ),
)
_gaps = st.floats(-1e4, 1e4, width=32) | st.just(np.nan)
SOUND = st.one_of(  # well formed: at least one observed value in each variate
    st.lists(_gaps, min_size=0, max_size=60).map(lambda v: np.array([*v, 1.0])),
    st.lists(st.integers(-9, 9), min_size=1, max_size=60),
    hnp.arrays("f4", st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 40)), elements=_gaps).map(
        lambda a: np.concatenate([a, np.ones_like(a[..., :1])], -1)
    ),
    st.lists(st.lists(_gaps, min_size=0, max_size=30).map(lambda v: [2.5, *v]), min_size=1, max_size=3),
)
HORIZONS = st.one_of(
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from(
        [
            0,
            -1,
            2.5,
            3.0,
            np.nan,
            np.inf,
            "3",
            None,
            True,
            np.int8(2),
            np.array(2),
            np.array([2]),
            10**4,
            10**12,
            10**30,
            1e300,
            [2],
            2j,
            torch.tensor(3),
            pd.NA,
            b"2",
        ]
    ),
)
LEVELS = st.one_of(
    st.just([0.1, 0.5, 0.9]),
    st.just([0.1, 0.5, 0.9]),
    st.lists(st.floats(0.01, 0.99), min_size=1, max_size=4),
    st.sampled_from(
        [
            [],
            [0.0],
            [1.0],
            [0.5, 0.5],
            [np.nan],
            None,
            0.5,
            "0.5",
            ["0.5"],
            [[0.5]],
            np.array([0.9, 0.1]),
            {0.5},
            {0.5: 1},
            [0.5, None],
            [0.5j],
            [1e-12, 0.5],
            torch.tensor([0.5]),
            range(3),
            [1 - 1e-16],
            pd.Series([0.2, 0.8], index=[5, 6]),
            [True],
        ]
    ),
)
SEASONS = st.one_of(
    st.none(), st.none(), st.integers(1, 30), st.sampled_from([0, -3, 2.5, "7", np.nan, 10**9, True, [7], np.int64(7), pd.NA])
)
NAMES = st.one_of(
    st.text(max_size=12),
    st.text(st.characters(codec=None), max_size=5),
    st.sampled_from(
        [
            "naive",
            "theta",
            "patchtst",
            "kairos-nano/",
            "~",
            "~nobody-here",
            "~nobody/x",
            "\0",
            "a\0b",
            "x" * 5000,
            "a/" + "b" * 300,
            ".",
            "..",
            "/",
            "//",
            "a/b/c",
            "-",
            "org/..",
            "../..",
            "naive ",
            "NAIVE",
            "ＮＡＩＶＥ",
            b"naive",
            None,
            5,
            [],
            {},
            float("nan"),
            ("naive",),
            object,
            "a" * 300 + "/x",
            "\ud800",
            "org/\ud800",
            "https://x.y/z",
            "c:\\x",
        ]
    ),
)
CARDS = st.sampled_from(
    [
        None,
        {},
        {"result": 1.0},
        {"name": None},
        {1: 2},
        {"x": object()},
        {"x": {1, 2}},
        {"x": b"y"},
        [],
        "card",
        {("a",): 1},
        {"x": float("nan")},
        {"x": np.float64(1)},
        {"x": "\ud800"},
        3,
    ]
)
