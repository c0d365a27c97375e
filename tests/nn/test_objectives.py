"""Cuts, masks and contrasts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsfm_lib.errors import TsfmError
from tsfm_lib.nn.objectives import info_nce, mask_patches, random_cuts


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_no_statistic_sees_a_target():
    first = torch.arange(16).repeat(200)
    ends, weights = random_cuts(first, 16, 8, seeded())
    prefix, others = ends[:, :1], ends[:, 1:]
    assert (prefix[:, 0] > first).all() and (prefix <= 16).all()
    assert ((others > prefix) == (weights[:, 1:] > 0)).all() and (others <= 16).all()           # a weighted cut lies after the prefix
    assert (weights[:, 0] == 1).all() and set(weights[:, 1:].unique().tolist()) == {0.0, 0.5}


def test_cuts_differ_and_all_later_ends_are_used_if_there_is_room():
    ends, weights = random_cuts(torch.zeros(500, dtype=torch.long), 6, 10, seeded(), whole=0.0)
    for row, weight in zip(ends.tolist(), weights.tolist()):
        later = [e for e, w in zip(row[1:], weight[1:]) if w]
        assert sorted(later) == list(range(row[0] + 1, 7))
    assert ends.shape == weights.shape == (500, 10)


def test_prefixes_lean_to_the_late_and_the_whole_has_its_share():
    ends, _ = random_cuts(torch.zeros(20_000, dtype=torch.long), 10, 1, seeded(), whole=0.25)
    share = [(ends == e).float().mean().item() for e in range(1, 11)]
    expected = [0.75 * ((e - 0) ** 2 - (e - 1) ** 2) / 100 for e in range(1, 11)]            # P(sqrt(U) * 10 in [e-1, e))
    expected[-1] += 0.25
    assert share == pytest.approx(expected, abs=0.015)


def test_same_generator_same_cuts():
    first = torch.zeros(50, dtype=torch.long)
    assert torch.equal(random_cuts(first, 9, 4, seeded(1))[0], random_cuts(first, 9, 4, seeded(1))[0])
    assert not torch.equal(random_cuts(first, 9, 4, seeded(1))[0], random_cuts(first, 9, 4, seeded(2))[0])
    with pytest.raises(TsfmError, match="first patches below 4"):
        random_cuts(torch.tensor([4]), 4, 2)


def test_masks_hide_their_share_of_what_was_observed():
    observed = torch.rand(300, 20, generator=seeded(3)) > 0.4
    observed[0], observed[1] = False, False
    observed[1, 5] = True
    masked = mask_patches(observed, 0.4, seeded())
    assert not (masked & ~observed).any() and not masked[0].any() and masked[1].sum() == 1
    assert torch.equal(masked[2:].sum(1), (0.4 * observed[2:].sum(1)).round().long())
    assert (masked.sum(1) < observed.sum(1))[2:].all()
    with pytest.raises(TsfmError, match="between 0 and 1"):
        mask_patches(observed, 1.0)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 6), patches=st.integers(1, 24), share=st.floats(0, 1), ratio=st.floats(0.01, 0.99), seed=st.integers(0, 999))
def test_any_mask_hides_only_what_was_seen_and_leaves_something_to_see(rows, patches, share, ratio, seed):
    observed = torch.rand(rows, patches, generator=seeded(seed)) < share
    masked = mask_patches(observed, ratio, seeded(seed + 1))
    seen, hidden = observed.sum(1), masked.sum(1)
    assert not (masked & ~observed).any()
    assert (hidden[seen > 0] >= 1).all() and (hidden[seen > 1] < seen[seen > 1]).all()
    between = (hidden > 1) & (hidden < seen - 1)                                              # not held back by either bound
    assert ((hidden - ratio * seen).abs()[between] <= 0.5 + 1e-4).all()
    assert torch.equal(masked, mask_patches(observed, ratio, seeded(seed + 1)))


@settings(max_examples=60, deadline=None)
@given(patches=st.integers(1, 12), cuts=st.integers(1, 15), whole=st.floats(0, 1), seed=st.integers(0, 999), data=st.data())
def test_any_cuts_are_distinct_later_ends_and_as_many_as_fit(patches, cuts, whole, seed, data):
    first = torch.tensor(data.draw(st.lists(st.integers(0, patches - 1), min_size=1, max_size=8)))
    ends, weights = random_cuts(first, patches, cuts, seeded(seed), whole)
    assert ends.shape == weights.shape == (len(first), cuts)
    for start, (prefix, *others), (one, *shares) in zip(first.tolist(), ends.tolist(), weights.tolist()):
        assert start < prefix <= patches and one == 1
        targets = [e for e, w in zip(others, shares) if w]
        assert len(set(targets)) == len(targets) == min(cuts - 1, patches - prefix)
        assert all(prefix < e <= patches for e in targets) and {*shares} <= {0.0, 0.5}
        assert all(e == prefix for e, w in zip(others, shares) if not w)


def test_info_nce_is_the_cross_entropy_of_finding_the_partner():
    a, b = (torch.randn(5, 3, generator=seeded(s)) for s in (0, 1))
    unit = lambda x: x / x.norm(dim=1, keepdim=True)
    s = (unit(a) @ unit(b).T / 0.2).double()
    by_hand = sum(-(s[i, i] - s[i].logsumexp(0)) - (s[i, i] - s[:, i].logsumexp(0)) for i in range(5)) / 10
    assert float(info_nce(a, b, 0.2)) == pytest.approx(float(by_hand), rel=1e-5)
    assert float(info_nce(a, a, 0.2)) < float(info_nce(a, a.roll(1, 0), 0.2))
    assert float(info_nce(3 * a, b)) == pytest.approx(float(info_nce(a, b)), rel=1e-5)
    with pytest.raises(TsfmError, match="B of at least 2"):
        info_nce(a[:1], b[:1])
