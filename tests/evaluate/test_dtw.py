"""Statements about the DTW kernel: it is tslearn's distance, whatever the lengths, the band and the number of variates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tslearn.metrics import cdist_dtw, dtw_path

from tsfm_lib.errors import TsfmError
from tsfm_lib.evaluate import dtw

TOLERANCE = 1e-10


def peer(x, y=None, band=None):
    constraint = {} if band is None else {"global_constraint": "sakoe_chiba", "sakoe_chiba_radius": band}
    time_last = [[np.asarray(s).T for s in side] if side is not None else None for side in (x, y)]
    return cdist_dtw(*time_last, **constraint)


def walks(rng, n, length, variates=None):
    shape = (n, length) if variates is None else (n, variates, length)
    return rng.standard_normal(shape).cumsum(-1)


@pytest.mark.parametrize("band", [None, 0, 1, 5, 100])
@pytest.mark.parametrize("length", [1, 2, 3, 37, 64])
def test_equals_tslearn_on_equal_lengths(length, band):
    x = walks(np.random.default_rng(length), 11, length)
    ours = dtw.matrix(x, band=band)
    assert np.abs(ours - peer(x, band=band)).max() < TOLERANCE
    assert ours.diagonal().tolist() == [0.0] * 11


@pytest.mark.parametrize("band", [None, 0, 2, 7])
def test_equals_tslearn_on_a_rectangle_with_other_lengths(band):
    rng = np.random.default_rng(1)
    x, y = walks(rng, 7, 30), walks(rng, 9, 45)
    assert np.abs(dtw.matrix(x, y, band=band) - peer(x, y, band)).max() < TOLERANCE
    assert np.abs(dtw.matrix(y, x, band=band) - peer(y, x, band)).max() < TOLERANCE


@pytest.mark.parametrize("band", [None, 0, 3])
def test_equals_tslearn_on_series_of_many_lengths(band):
    rng = np.random.default_rng(2)
    x = [walks(rng, 1, n)[0] for n in rng.integers(1, 40, 25)]
    y = [walks(rng, 1, n)[0] for n in rng.integers(1, 40, 13)]
    assert np.abs(dtw.matrix(x, y, band=band) - peer(x, y, band)).max() < TOLERANCE
    assert np.abs(dtw.matrix(x, band=band) - peer(x, band=band)).max() < TOLERANCE


@pytest.mark.parametrize("band", [None, 4])
def test_several_variates_share_one_path(band):
    x = walks(np.random.default_rng(3), 6, 29, variates=3)
    assert np.abs(dtw.matrix(x, band=band) - peer(x, band=band)).max() < TOLERANCE


def test_scale_does_not_reach_the_padding():
    """Unequal lengths are padded with a huge value; series of ordinary or extreme scale must never touch it."""
    rng = np.random.default_rng(4)
    for scale in (1e-100, 1.0, 1e60):
        x, y = walks(rng, 3, 20) * scale, walks(rng, 3, 33) * scale
        assert np.allclose(dtw.matrix(x, y), peer(x, y), rtol=1e-12, atol=0)


def test_single_precision_is_good_to_five_digits():
    x = walks(np.random.default_rng(5), 20, 128)
    exact, single = dtw.matrix(x, band=12), dtw.matrix(x, band=12, dtype=np.float32)
    off = ~np.eye(20, dtype=bool)
    assert np.abs(single / np.where(off, exact, 1) - 1)[off].max() < 1e-5
    assert np.abs(single - exact).max() > 0, "the option has no effect"


def test_threads_change_nothing():
    x = walks(np.random.default_rng(6), 40, 50)
    assert np.array_equal(dtw.matrix(x, band=5), dtw.matrix(x, band=5, n_jobs=2))


def test_the_path_is_a_path_and_attains_the_distance():
    rng = np.random.default_rng(7)
    for band in (None, 2):
        a, b = walks(rng, 1, 25)[0], walks(rng, 1, 31)[0]
        distance, steps = dtw.path(a, b, band=band)
        moves = np.diff(steps, axis=0)
        assert steps[0].tolist() == [0, 0] and steps[-1].tolist() == [24, 30]
        assert set(map(tuple, moves.tolist())) <= {(0, 1), (1, 0), (1, 1)}
        assert distance == pytest.approx(np.sqrt(((a[steps[:, 0]] - b[steps[:, 1]]) ** 2).sum()), abs=TOLERANCE)
        constraint = {} if band is None else {"global_constraint": "sakoe_chiba", "sakoe_chiba_radius": band}
        assert distance == pytest.approx(dtw_path(a, b, **constraint)[1], abs=TOLERANCE)


series = st.lists(st.floats(-100, 100, allow_subnormal=False), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(a=series, b=series, band=st.none() | st.integers(0, 12))
def test_distance_is_symmetric_zero_to_itself_and_the_same_backwards(a, b, band):
    there, back = dtw.matrix([a], [b], band=band)[0, 0], dtw.matrix([b], [a], band=band)[0, 0]
    assert there == pytest.approx(back, abs=TOLERANCE)
    assert there == pytest.approx(dtw.matrix([a[::-1]], [b[::-1]], band=band)[0, 0], rel=1e-9, abs=TOLERANCE)
    assert dtw.matrix([a], [a], band=band)[0, 0] == 0


@settings(max_examples=60, deadline=None)
@given(a=series, b=series, band=st.integers(0, 11))
def test_a_wider_band_never_makes_the_distance_larger(a, b, band):
    narrow, wide, free = (dtw.matrix([a], [b], band=r)[0, 0] for r in (band, band + 1, None))
    assert free <= wide * (1 + 1e-12) <= narrow * (1 + 1e-12) ** 2
    if len(a) == len(b):
        assert narrow <= np.linalg.norm(np.subtract(a, b)) * (1 + 1e-12)


@pytest.mark.parametrize(("arguments", "words"), [
    (([[1.0, np.nan, 2.0]],), "series 0 of x holds a missing value"),
    (([[1.0, 2.0]], [[1.0], [np.inf]]), "series 1 of y holds a value that is not below"),
    (([],), "x holds no series"),
    (([[1.0], []],), "T >= 1"),
    ((np.zeros((2, 3, 5)), np.zeros((2, 2, 5))), "3 variates and y has 2"),
    (([[1.0]], None, -1), "whole number >= 0"),
    (([[1.0]], None, None, np.int64), "float64 or float32"),
])
def test_bad_input_is_named(arguments, words):
    with pytest.raises(TsfmError, match=words):
        dtw.matrix(*arguments)
