import numpy as np
import pytest
import scipy.stats as ss
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsfm_lib.nn.outputs import (
    LogNormal,
    Mixture,
    NegativeBinomial,
    Normal,
    QuantileHead,
    StudentT,
    TokenBins,
    interpolate_quantiles,
    pinball,
)

LEVELS = [0.05, 0.1, 0.5, 0.77, 0.95]
one = lambda v: torch.tensor([[v]], dtype=torch.float64)
FAMILIES = {
    "normal": (Normal(one(1.5), one(0.7)), ss.norm(1.5, 0.7), [-1.0, 2.0]),
    "student": (StudentT(one(3.3), one(-1.0), one(2.0)), ss.t(3.3, -1.0, 2.0), [-9.0, 0.3]),
    "log-normal": (LogNormal(one(0.4), one(0.6)), ss.lognorm(0.6, scale=np.exp(0.4)), [0.1, 3.0]),
    "negative binomial": (NegativeBinomial(one(2.5), one(1.1)), ss.nbinom(2.5, 1 / (1 + np.exp(1.1))), [0.0, 7.0]),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_families_agree_with_scipy(family):
    ours, theirs, points = FAMILIES[family]
    mixture = Mixture((ours,), one(0.0))
    density = theirs.logpmf if hasattr(theirs.dist, "pmf") else theirs.logpdf
    for y in points:
        assert mixture.log_prob(torch.tensor([y], dtype=torch.float64)).item() == pytest.approx(density(y))
    np.testing.assert_allclose(mixture.quantiles(LEVELS)[0].numpy(), theirs.ppf(LEVELS), rtol=1e-9)
    assert mixture.mean().item() == pytest.approx(theirs.mean()) and mixture.variance().item() == pytest.approx(theirs.var())
    draws = mixture.sample(20_000, torch.Generator().manual_seed(0))[:, 0].numpy()
    np.testing.assert_allclose([(draws <= q).mean() for q in theirs.ppf(LEVELS)], theirs.cdf(theirs.ppf(LEVELS)), atol=0.015)


def test_a_mixture_weighs_its_families_and_changes_units():
    families = tuple(family for family, _, _ in FAMILIES.values())
    logits = torch.tensor([[0.1, 0.5, -0.3, 0.2]], dtype=torch.float64)
    weights = logits.softmax(-1)[0].numpy()
    mixture = Mixture(families, logits, loc=10.0, scale=2.0)
    found = mixture.quantiles(LEVELS)[0].numpy()
    means, variances = (np.array([getattr(d, moment)() for _, d, _ in FAMILIES.values()]) for moment in ("mean", "var"))
    assert mixture.variance().item() == pytest.approx(4 * (weights @ (variances + means**2) - (weights @ means) ** 2))
    cdf = lambda y: sum(w * d.cdf((y - 10) / 2) for w, (_, d, _) in zip(weights, FAMILIES.values()))
    assert all(cdf(y) >= q - 1e-9 and cdf(y - 1e-6) <= q + 1e-6 for y, q in zip(found, LEVELS))
    dense = sum(w * d.pdf(1.5) for w, (_, d, _) in list(zip(weights, FAMILIES.values()))[:3])
    counts = weights[3] * torch.exp(families[3].log_prob(torch.tensor(1.5))).item()  # at any real number
    assert mixture.log_prob(torch.tensor([13.0], dtype=torch.float64)).item() == pytest.approx(np.log((dense + counts) / 2))


def test_values_outside_a_support_have_finite_gradients():
    raw = torch.zeros(1, 1, requires_grad=True)
    mixture = Mixture((Normal(raw, raw.exp()), LogNormal(raw, raw.exp()), NegativeBinomial(raw.exp(), raw)), torch.zeros(1, 3))
    mixture.log_prob(torch.tensor([-2.0])).sum().backward()
    assert raw.grad.isfinite().all()


def test_same_generator_same_draws():
    mixture = Mixture((StudentT(one(3.0), one(0.0), one(1.0)),), one(0.0))
    assert torch.equal(mixture.sample(5, torch.Generator().manual_seed(3)), mixture.sample(5, torch.Generator().manual_seed(3)))


def test_two_uniform_numbers_make_a_student_t():
    u, v = (t.flatten() for t in torch.meshgrid(*[(torch.arange(400, dtype=torch.float64) + 0.5) / 400] * 2, indexing="ij"))
    for df in (2.2, 5.0, 40.0):
        made = StudentT(*torch.tensor([df, 1.0, 3.0], dtype=torch.float64)).made_of(u, v)
        for level in (0.01, 0.1, 0.5, 0.8):
            at = ss.t(df, 1.0, 3.0).ppf(level)
            assert (made <= at).double().mean().item() == pytest.approx(level, abs=0.004)


def test_missing_targets_count_nothing():
    pred, target = torch.tensor([[[1.0, 2.0], [5.0, 5.0]]]), torch.tensor([[2.0, torch.nan]])
    assert pinball(pred, target, [0.1, 0.9]).item() == pytest.approx(0.05)
    assert pinball(pred, target, [0.1, 0.9], reduce=False).tolist() == [[pytest.approx(0.05), 0.0]]
    assert pinball(pred, torch.full((1, 2), torch.nan), [0.1, 0.9]).item() == 0
    both = torch.tensor([[2.0, 4.0]])
    assert pinball(pred, both, [0.1, 0.9], weights=torch.tensor([[1.0, 0.0]])).item() == pytest.approx(0.05)
    assert pinball(pred, both, [0.1, 0.9], mask=torch.tensor([[True, False]])).item() == pytest.approx(0.05)


def test_the_best_constant_under_pinball_is_the_quantile():
    y = torch.rand(2001, generator=torch.Generator().manual_seed(0))
    grid = torch.linspace(0, 1, 201)
    for level in (0.1, 0.5, 0.8):
        losses = torch.stack([pinball(g.expand(2001, 1), y, [level]) for g in grid])
        assert grid[losses.argmin()].item() == pytest.approx(y.quantile(level).item(), abs=0.01)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3), st.lists(st.floats(0.01, 0.99), min_size=1, max_size=6))
def test_interpolated_quantiles_rise_with_the_level_and_stay_inside(values, want):
    found = interpolate_quantiles(torch.tensor([values]), [0.1, 0.5, 0.9], sorted(want))[0]
    assert (found.diff() >= -1e-4).all() and min(values) - 1e-4 <= found.min() and found.max() <= max(values) + 1e-4


def test_trained_levels_come_back_exactly():
    pred = torch.tensor([[1.0, 2.0, 5.0]])
    assert torch.equal(interpolate_quantiles(pred, [0.1, 0.5, 0.9], [0.5, 0.9, 0.1]), torch.tensor([[2.0, 5.0, 1.0]]))
    assert interpolate_quantiles(pred, [0.9, 0.1, 0.5], [0.001, 0.999]).tolist() == [[1.0, 5.0]]
    with pytest.raises(ValueError, match="between 0 and 1"):
        interpolate_quantiles(pred, [0.1, 0.5, 0.9], [1.5])


def test_a_head_is_read_quantile_by_quantile():
    head = QuantileHead(3, horizon=2, levels=(0.1, 0.9))
    head.map.weight.data.zero_()
    head.map.bias.data = torch.arange(4.0)
    assert head(torch.zeros(1, 3)).tolist() == [[[0.0, 2.0], [1.0, 3.0]]]
    assert QuantileHead(3, 2, (0.1, 0.9), hidden=8)(torch.zeros(4, 5, 3)).shape == (4, 5, 2, 2)


def test_tokens_come_back_within_half_a_bin():
    bins, x = TokenBins(), torch.linspace(-15, 15, 999)
    token = bins.quantise(x)
    assert token.min() == 3 and token.max() == 4095
    assert (bins.dequantise(token) - x).abs().max() <= 15 / 4092 + 1e-6
    assert torch.equal(bins.quantise(bins.dequantise(token)), token)
    assert bins.quantise(torch.tensor([-1e9, 1e9, torch.nan])).tolist() == [3, 4095, 0]
