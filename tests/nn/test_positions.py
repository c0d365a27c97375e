import math
from functools import partial

import pytest
import torch

from tsfm_lib.nn.positions import RelativeBias, RoPE, XPos, bucket, rotate, sinusoidal


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_scores_depend_on_distance_only(layout):
    rope, q, k = RoPE(8, layout=layout), randn(1, 1, 1, 8), randn(1, 1, 1, 8, seed=1)
    score = lambda at, other: (torch.mul(*rope(q, k, torch.tensor([at]), torch.tensor([other])))).sum().item()
    assert score(3.0, 10.0) == pytest.approx(score(103.0, 110.0), abs=1e-4)
    assert score(3.0, 10.0) != pytest.approx(score(3.0, 11.0), abs=1e-3)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_rotation_keeps_lengths_and_position_zero(layout):
    q = randn(2, 3, 5, 8)
    turned, _ = RoPE(8, layout=layout)(q, q)
    torch.testing.assert_close(turned.norm(dim=-1), q.norm(dim=-1))
    assert torch.equal(turned[:, :, 0], q[:, :, 0])


def test_the_layouts_are_permutations_of_each_other():
    x, angles = randn(1, 1, 4, 8), randn(4, 4, seed=1)
    order = torch.arange(8).reshape(4, 2).T.flatten()  # evens, then odds
    torch.testing.assert_close(rotate(x, angles, "interleaved")[..., order], rotate(x[..., order], angles, "half"))


def test_interleaved_rotation_is_multiplication_of_complex_numbers():
    x, angles = randn(1, 2, 3, 6), randn(3, 3, seed=1)
    numbers = torch.view_as_complex(x.unflatten(-1, (3, 2)).contiguous()) * torch.exp(1j * angles)
    torch.testing.assert_close(rotate(x, angles, "interleaved"), torch.view_as_real(numbers).flatten(-2))


def test_a_fraction_leaves_the_rest_alone():
    x = randn(1, 2, 5, 8)
    turned, _ = RoPE(8, fraction=0.5, layout="interleaved")(x, x)
    assert torch.equal(turned[..., 4:], x[..., 4:])
    torch.testing.assert_close(turned[..., :4], RoPE(4, layout="interleaved")(x[..., :4], x[..., :4])[0])


def test_rows_may_have_positions_of_their_own():
    rope, x = RoPE(4), randn(2, 2, 3, 4)
    at = torch.tensor([[0.0, 1.0, 2.0], [5.0, 6.5, 9.0]])
    both, _ = partial(rope, q_pos=at)(x, x)
    alone, _ = partial(rope, q_pos=at[1])(x[1:], x[1:])
    torch.testing.assert_close(both[1:], alone)


def test_sines_and_cosines_by_hand():
    table = sinusoidal(10, 6)
    assert table[3, 2].item() == pytest.approx(math.sin(3 / 10000 ** (2 / 6)), abs=1e-6)
    assert table[3, 5].item() == pytest.approx(math.cos(3 / 10000 ** (4 / 6)), abs=1e-6)


def test_near_distances_have_buckets_of_their_own_and_far_ones_share():
    both, past = bucket(torch.arange(-300, 301)), bucket(torch.arange(-300, 1), bidirectional=False)
    assert len(both.unique()) == 31 and both.max() == 31  # bucket 16 would be "later by nothing"
    assert past[-16:].tolist() == list(range(15, -1, -1)) and past.max() == 31
    assert (past.diff() <= 0).all()


def test_relative_bias_follows_the_distance():
    bias = RelativeBias(n_heads=2)(6, 9)
    assert bias.shape == (2, 6, 9)
    torch.testing.assert_close(bias[:, 0, 2], bias[:, 4, 6])
    assert not torch.equal(bias[:, 0, 2], bias[:, 2, 0])


def test_unknown_layouts_are_refused():
    with pytest.raises(ValueError, match="'half' or 'interleaved', got 'both'"):
        rotate(torch.zeros(1, 2), torch.zeros(1, 1), "both")


def test_decaying_rotation_sees_the_distance_only_unless_its_scales_lie_in_halves():
    q, k = randn(1, 1, 1, 8).expand(1, 1, 40, 8), randn(1, 1, 1, 8, seed=1).expand(1, 1, 40, 8)
    for halves in (False, True):
        turned_q, turned_k = XPos(8, halves=halves, scale_base=16.0)(q, k)
        scores = (turned_q @ turned_k.mT)[0, 0]
        same_distance = scores.diagonal(5)
        assert torch.allclose(same_distance, same_distance[:1], rtol=1e-4) != halves


def test_decaying_rotation_by_hand():
    """Two channels, one pair: turned by t, q times s^((t - middle) / base), k divided by it; channels beyond `dim` rest."""
    q, k = XPos(2, scale_base=4.0)(torch.tensor([1.0, 0, 7]).expand(1, 1, 3, 3), torch.tensor([1.0, 0, 7]).expand(1, 1, 3, 3))
    s = (0.4 * 2 / (1.4 * 2)) ** (1 / 4)  # at t = 2, one step behind the middle
    assert q[0, 0, 2].tolist() == pytest.approx([s * math.cos(2), s * math.sin(2), 7], rel=1e-5)
    assert k[0, 0, 2].tolist() == pytest.approx([math.cos(2) / s, math.sin(2) / s, 7], rel=1e-5)


@pytest.mark.parametrize("halves", [False, True])
def test_decaying_rotation_of_one_token_after_another_gives_the_scores_of_all_at_once(halves):
    q, k, turn = randn(1, 1, 9, 8), randn(1, 1, 9, 8, seed=1), XPos(8, halves=halves, scale_base=16.0)
    whole_q, whole_k = turn(q, k)
    parts = [turn(q[:, :, t : t + n], k[:, :, t : t + n], start=t) for t, n in ((0, 4), (4, 1), (5, 4))]
    step_q, step_k = (torch.cat(found, dim=2) for found in zip(*parts))
    torch.testing.assert_close(step_q @ step_k.mT, whole_q @ whole_k.mT, atol=1e-5, rtol=1e-5)
