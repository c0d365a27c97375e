"""Coarser series and finer forecasts: what is averaged with what, and where it belongs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsfm_lib.finetune.scales import POOLINGS, Part, alignment, averaging, coarser, finer, lengths, pyramid

counts = st.integers(1, 9)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("front", [True, False])
def test_constants_survive_the_way_down_and_up_at_any_length_and_with_gaps(pooling, front):
    for steps in (1, 5, 13, 16):
        x = torch.full((2, steps), 3.5)
        x[0, 1:4] = torch.nan
        for i, coarse in enumerate(pyramid(x, 3, front, pooling)):
            assert coarse.shape[-1] == lengths(steps, 3)[i]
            assert (coarse[1] == 3.5).all() and (coarse[0].nan_to_num(3.5) == 3.5).all()
            assert torch.equal(finer(coarse[1], 2**i, steps), x[1])


def test_blocks_are_counted_from_the_forecast_origin():
    x = torch.arange(13.0)
    context, horizon = pyramid(x, 2, front=True), pyramid(x, 2, front=False)
    assert context[2][-1] == x[-4:].mean() and context[1][0] == x[0]
    assert horizon[2][0] == x[:4].mean() and horizon[1][-1] == x[-1]


def test_missing_steps_are_left_out_and_an_empty_block_stays_empty():
    x = torch.tensor([1.0, torch.nan, torch.nan, torch.nan, torch.inf, 7.0])
    for pooling in POOLINGS:
        found = coarser(x, True, pooling)
        assert found[0] == 1 and found[1].isnan() and found[2] == 7


def test_each_pooling_is_what_its_name_says():
    x = np.random.default_rng(0).standard_normal((3, 16))
    blocks, t = x.reshape(3, 8, 2), torch.as_tensor(x)
    for pooling, expected in (("mean", blocks.mean(-1)), ("max", blocks.max(-1)), ("first", blocks[..., 0])):
        np.testing.assert_allclose(coarser(t, True, pooling), expected)
    inside = [(-x[:, 2 * k - 1] + 3 * x[:, 2 * k] + 3 * x[:, 2 * k + 1] - x[:, 2 * k + 2]) / 4 for k in range(1, 7)]
    np.testing.assert_allclose(coarser(t, True, "wavelet")[:, 1:-1], np.stack(inside, 1))
    assert coarser(t, True, factor=1) is t


def test_an_alternation_is_erased_by_means_and_wavelets_and_a_line_by_neither():
    alternation, line = torch.tensor([1.0, -1.0]).repeat(8), torch.arange(16.0)
    for pooling in ("mean", "wavelet"):
        assert coarser(alternation, True, pooling).abs().max() == 0
        assert torch.equal(coarser(line, True, pooling), line[::2] + 0.5)
    torch.testing.assert_close(finer(coarser(line, True), 2, 16, how="linear")[1:-1], line[1:-1])


@given(st.tuples(st.integers(0, 3), counts, st.integers(0, 5)), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_a_spike_lands_in_its_half_counted_from_the_origin(fine, factor):
    prefix, n, m = fine
    fine, coarse = Part(*fine), Part(prefix, -(-n // factor), -(-m // factor))
    match, alive = alignment(fine, coarse, factor), torch.ones(1, sum(fine), dtype=torch.bool)
    for j in range(sum(fine)):
        spike = torch.nn.functional.one_hot(torch.tensor(j), sum(fine)).float()[None, :, None]
        landed = (averaging(match, alive) @ spike)[0, :, 0].nonzero().flatten().tolist()
        if j < prefix:
            assert landed == []
        elif j < prefix + n:
            assert landed == [prefix + coarse.context - 1 - (prefix + n - 1 - j) // factor]
        else:
            assert landed == [prefix + coarse.context + (j - prefix - n) // factor]


@given(st.tuples(st.integers(0, 2), counts, st.integers(0, 5)), st.tuples(st.integers(0, 2), counts, st.integers(0, 5)))
@settings(max_examples=40, deadline=None)
def test_any_two_numbers_of_tokens_meet_and_constants_stay_constants(fine, coarse):
    """Fine tokens may have no coarse partner and the other way round; then there is nothing to add."""
    match = alignment(Part(*fine), Part(*coarse))
    alive = torch.ones(1, sum(fine), dtype=torch.bool)
    assert set(match.sum(1).tolist()) <= {0.0, 1.0} and (match.sum(0) <= 2).all()
    down, up = averaging(match, alive) @ torch.ones(1, sum(fine), 2), match @ torch.ones(1, sum(coarse), 2)
    assert set(down.unique().tolist()) | set(up.unique().tolist()) <= {0.0, 1.0}


def test_padding_does_not_count_in_the_mean():
    match = alignment(Part(0, 4, 0), Part(0, 2, 0))
    alive = torch.tensor([[False, True, True, True]])
    assert (averaging(match, alive) @ torch.tensor([[9.0], [2.0], [4.0], [6.0]])).flatten().tolist() == [2.0, 5.0]
