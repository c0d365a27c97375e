import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsfm_lib.nn.patching import left_pad, patch, unpatch
from tsfm_lib.nn.scaling import KINDS, observed, prefix_statistics, standardise

numbers = st.floats(-1e3, 1e3, allow_subnormal=False).map(lambda v: round(v, 3))
gappy = st.lists(st.one_of(numbers, st.just(float("nan"))), min_size=1, max_size=30).map(lambda v: torch.tensor(v, dtype=torch.float64))
kinds = st.sampled_from(KINDS)
light = settings(max_examples=60, deadline=None)


@light
@given(gappy, kinds)
def test_always_finite_and_zero_where_missing(x, kind):
    z, stats = standardise(x, kind=kind)
    assert z.isfinite().all() and (z[~observed(x)] == 0).all()
    assert stats.scale.isfinite().all() and (stats.scale > 0).all()


@light
@given(gappy, kinds)
def test_inverse(x, kind):
    z, stats = standardise(x, kind=kind)
    seen = observed(x)
    torch.testing.assert_close(stats.invert(z)[seen], x[seen], atol=1e-6, rtol=1e-9)
    torch.testing.assert_close(stats.apply(x)[seen], z[seen])


@light
@given(gappy, kinds, st.floats(0.01, 100), st.floats(-100, 100))
def test_other_units_give_the_same_numbers(x, kind, a, b):
    seen = observed(x)
    b = 0 if kind == "mean_abs" else b  # that one has no location
    z, stats = standardise(x, kind=kind)
    moved, _ = standardise(a * x + b, kind=kind)
    if stats.scale.item() != 1:  # of a constant only the location is taken out
        torch.testing.assert_close(moved[seen], z[seen], atol=1e-5, rtol=1e-5)


@light
@given(gappy, kinds, st.integers(1, 9))
def test_padding_in_front_changes_nothing(x, kind, multiple):
    padded = left_pad(x, multiple)
    assert len(padded) % multiple == 0
    torch.testing.assert_close(standardise(padded, kind=kind)[0][len(padded) - len(x) :], standardise(x, kind=kind)[0])


@pytest.mark.parametrize(("constant", "scale"), [(1.0, 1.0), (1e-5, 1e-5), ("level", 7.00001)])
def test_a_constant_gets_the_scale_that_was_asked_for(constant, scale):
    z, stats = standardise(torch.full((1, 50), 7.0), constant=constant)
    assert (z == 0).all() and stats.scale.item() == pytest.approx(scale) and stats.loc.item() == 7


def test_a_constant_that_is_no_binary_fraction_is_still_constant():
    for value in (0.1, 1e6 + 0.1, -3.3e-7):
        assert standardise(torch.full((7,), value, dtype=torch.float64))[1].scale.item() == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_without_observations_has_location_zero_and_scale_one(kind):
    z, stats = standardise(torch.full((2, 5), torch.nan), kind=kind, constant="level")
    assert z.tolist() == [[0] * 5] * 2 and stats.loc.tolist() == [[0], [0]] and stats.scale.tolist() == [[1], [1]]


def test_large_levels_keep_their_digits():
    x = (1e7 + torch.arange(2048) % 24).float()
    z, _ = standardise(x)
    torch.testing.assert_close(z, standardise((torch.arange(2048) % 24).float())[0], atol=1e-6, rtol=0)


def test_statistics_by_numpy():
    x = torch.tensor([[1.0, 4.0, torch.nan, 10.0]])
    seen = np.array([1.0, 4.0, 10.0])
    assert standardise(x)[1].scale.item() == pytest.approx(seen.std())
    assert standardise(x, ddof=1, eps=1e-2)[1].scale.item() == pytest.approx(np.sqrt(seen.var(ddof=1) + 1e-2))
    assert standardise(x, kind="mean_abs")[1].scale.item() == pytest.approx(5)
    assert standardise(x, kind="robust")[1].loc.item() == 4
    assert standardise(x, mask=torch.tensor([[True, True, True, False]]))[0][0, 3] == 0


@light
@given(gappy)
def test_prefix_statistics_are_those_of_each_prefix(x):
    found = prefix_statistics(x)
    for t in range(len(x)):
        _, own = standardise(x[: t + 1])
        torch.testing.assert_close(found.loc[t], own.loc[0], atol=1e-7, rtol=1e-7)
        torch.testing.assert_close(found.scale[t], own.scale[0], atol=1e-3, rtol=1e-4)


def test_quantiles_are_brought_back_too():
    x = torch.tensor([[[1.0, 3.0]]])
    assert standardise(x)[1].invert(torch.zeros(1, 1, 4, 9)).unique().tolist() == [2.0]


@light
@given(st.integers(1, 5), st.integers(1, 6))
def test_patches_laid_end_to_end_are_the_series(n, size):
    x = torch.arange(float(2 * n * size)).reshape(2, -1)
    assert patch(x, size).shape == (2, n, size)
    assert torch.equal(unpatch(patch(x, size)), x)


def test_leftovers_and_short_series_are_refused():
    with pytest.raises(ValueError, match="5 points is shorter than one patch of 8"):
        patch(torch.zeros(5), 8)
    with pytest.raises(ValueError, match="10 points do not divide"):
        patch(torch.zeros(10), 4)
