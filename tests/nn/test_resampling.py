"""Series brought to a length: against torch's and numpy's own interpolation, and what random crops must be."""

import numpy as np
import pytest
import torch

from tsfm_lib.nn.resampling import bent_clock, bridge, crop_resize, resample, stretch


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("length", [1, 2, 37, 64, 200])
def test_resampling_is_torch_s_interpolation(length):
    x = randn(3, length)
    expected = torch.nn.functional.interpolate(x[:, None], size=64, mode="linear", align_corners=False)[:, 0]
    torch.testing.assert_close(resample(x, 64), expected, atol=1e-6, rtol=0)


def test_rows_may_have_places_of_their_own():
    x, start, length = randn(3, 50), torch.tensor([[0], [7], [49]]), torch.tensor([[50], [20], [1]])
    together = resample(x, 30, start, length)
    for row, a, n in zip(range(3), start[:, 0], length[:, 0]):
        torch.testing.assert_close(together[row], resample(x[row, a : a + n], 30))


def test_a_series_of_the_right_length_is_left_alone():
    x = 1e3 + randn(4, 2, 96)
    assert torch.equal(resample(x, 96), x) and torch.equal(stretch(x, 96), x)


def test_gaps_are_bridged_as_numpy_does_it():
    x = randn(20, 30)
    x[torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.6] = torch.nan
    x[0] = torch.nan
    x[1, :] = torch.nan
    x[1, 17] = 3.0
    at = np.arange(30)
    for row, filled in zip(x[1:].numpy(), bridge(x)[1:].numpy()):
        seen = np.isfinite(row)
        np.testing.assert_allclose(filled, np.interp(at, at[seen], row[seen]), atol=1e-5)
    assert (bridge(x)[0] == 0).all()


def test_missing_ends_are_cut_off_and_variates_stay_aligned():
    x = randn(1, 2, 40)
    padded = torch.cat([torch.full((1, 2, 9), torch.nan), x, torch.full((1, 2, 15), torch.nan)], dim=-1)
    torch.testing.assert_close(stretch(padded, 64), stretch(x, 64))
    padded[0, 1, 9:20] = torch.nan  # one variate starts later: the time of the other counts
    torch.testing.assert_close(stretch(padded, 64)[0, 0], stretch(x, 64)[0, 0])


def slopes(view):
    """On a ramp, the slope of a view tells its share of the series and its first value the place."""
    return view.diff(dim=-1)[:, 50] * 100, view[:, 0]


@pytest.mark.parametrize("shared", [True, False])
def test_crops_keep_their_share_and_lie_inside(shared):
    ramp = torch.arange(100.0).expand(500, -1)
    generator, lengths, starts = torch.Generator().manual_seed(0), [], []
    for _ in range(60):
        found, first = slopes(crop_resize(ramp, generator, (0.1, 0.4), shared))
        assert (len(found.unique()) == 1) == shared
        lengths.append(found)
        starts.append(first)
    lengths, starts = torch.cat(lengths), torch.cat(starts)
    assert 59.9 < lengths.min() < 65 and 85 < lengths.max() < 90.1
    assert starts.min() >= 0 and (starts + lengths).max() <= 100.1 and starts.max() > 20


def test_a_bent_clock_runs_forward_from_end_to_end_and_moves_a_ramp_off_the_line():
    clock = bent_clock(200, 100, most=0.3, generator=torch.Generator().manual_seed(0))
    steps = clock.diff(dim=1) * 100
    assert steps.min() > 0.7**3 - 0.01 and steps.max() < 1.3**3 + 0.01 and steps.min() < 0.8 and steps.max() > 1.2
    ramp = torch.arange(100.0).expand(200, -1)
    bent = crop_resize(ramp, torch.Generator().manual_seed(1), (0.0, 0.0), shared=False, warp=0.3)
    assert (bent.diff(dim=1) >= 0).all() and (bent[:, 0] < 2).all() and (bent[:, -1] > 97).all()
    assert (bent - ramp).abs().max() > 3 and len(bent[:, 50].unique()) > 190                     # each row its own
    torch.testing.assert_close(crop_resize(ramp, shares=(0.0, 0.0), warp=1e-6), ramp, atol=1e-2, rtol=0)


def test_same_generator_same_crop_and_no_crop_is_the_series_itself():
    x = randn(5, 64)
    a, b = (crop_resize(x, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b) and not torch.equal(a, x)
    assert torch.equal(crop_resize(x, shares=(0.0, 0.0), shared=False), x)
