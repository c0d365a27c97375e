"""Statements about random kernels: they are the convolutions they claim to be, and little data is enough to read them."""

from collections import Counter

import numpy as np
import pytest

from tsfm_lib import paths
from tsfm_lib.errors import TsfmError
from tsfm_lib.evaluate import classification
from tsfm_lib.evaluate.random_kernels import TWOS, RandomKernels, dilations


def walks(n, length, variates=1, seed=0):
    """Whole numbers: sums of their multiples are exact in whatever order, so ties between output and bias stay ties."""
    return np.random.default_rng(seed).integers(-3, 4, (n, variates, length)).cumsum(-1).astype(np.float64)


def weights(kernel):
    return np.where(np.isin(np.arange(9), TWOS[kernel]), 2.0, -1.0)


def literal(series, kernel, dilation, members, edge):
    """The output as the paper words it: nine products at each point, zeros beyond the ends; the counted part."""
    length = series.shape[1]
    out = [sum(weight * series[v, at] for v in np.flatnonzero(members) for i, weight in enumerate(weights(kernel))
               if 0 <= (at := t + (i - 4) * dilation) < length) for t in range(length)]
    return np.array(out)[edge: length - edge]


def test_the_kernels_are_all_84_and_sum_to_zero():
    every = {tuple(weights(kernel)) for kernel in range(len(TWOS))}
    assert len(every) == 84 and all(sum(w) == 0 and sorted(w) == [-1] * 6 + [2] * 3 for w in every)


@pytest.mark.parametrize(("length", "variates"), [(9, 1), (40, 1), (33, 4)])
def test_features_equal_a_literal_convolution(length, variates):
    train, test = walks(5, length, variates), walks(3, length, variates, seed=1)
    kernels = RandomKernels(features=500, seed=2).fit(train)
    features, at = kernels.transform(test), 0
    for (kernel, dilation, edge, count), members in zip(kernels.pairs_, kernels.members_):
        for n, series in enumerate(test / kernels.scale_):
            counted = literal(series, kernel, dilation, members, edge)
            expected = (counted[:, None] > kernels.biases_[at: at + count]).mean(0)
            assert np.allclose(features[n, at: at + count], expected, rtol=0, atol=1e-7)
        at += count
    assert at == features.shape[1] == 420


def test_biases_are_golden_quantiles_of_the_counted_output_of_a_training_series():
    train = walks(4, 50)
    kernels, at, drawn = RandomKernels(features=300).fit(train), 0, set()
    for (kernel, dilation, edge, count), members in zip(kernels.pairs_, kernels.members_):
        levels = [(n * (1 + 5**0.5) / 2) % 1 for n in range(at + 1, at + count + 1)]
        fitting = {k for k, series in enumerate(train / kernels.scale_)
                   if np.allclose(np.quantile(literal(series, kernel, dilation, members, edge), levels), kernels.biases_[at: at + count])}
        assert fitting
        drawn |= fitting if len(fitting) == 1 else set()
        at += count
    assert drawn == {0, 1, 2, 3}, "not always the same series"


def test_a_constant_changes_only_what_sees_the_padding():
    x = walks(6, 60)
    one, other = (RandomKernels(seed=3).fit(each) for each in (x, x + 1024))
    unpadded = np.repeat(one.pairs_[:, 2] > 0, one.pairs_[:, 3])
    before, after, refitted = one.transform(x), one.transform(x + 1024), other.transform(x + 1024)
    assert 0.4 < unpadded.mean() < 0.6
    assert np.array_equal(before[:, unpadded], after[:, unpadded]) and np.array_equal(before[:, unpadded], refitted[:, unpadded])
    assert (before != after)[:, ~unpadded].mean() > 0.5


@pytest.mark.parametrize("factor", [2.0**20, 1e-6])
def test_one_factor_for_all_series_changes_nothing(factor):
    x = np.random.default_rng(0).standard_normal((8, 2, 50))
    assert np.abs(RandomKernels().fit_transform(x) - RandomKernels().fit_transform(factor * x)).mean() < 1e-3


def test_features_are_proportions_and_few_are_trivial():
    z = RandomKernels().fit_transform(np.random.default_rng(0).standard_normal((30, 1, 100)).astype(np.float32))
    assert z.shape == (30, 84 * 23) and z.dtype == np.float32
    assert z.min() >= 0 and z.max() <= 1 and abs(z.mean() - 0.5) < 0.02, "levels spread evenly around the median"
    assert (z.std(0) > 0).mean() > 0.99
    flat = RandomKernels().fit_transform(np.full((3, 1, 20), 7.0))
    assert np.isfinite(flat).all()


def test_the_same_seed_gives_the_same_features_and_another_seed_others():
    x = walks(10, 80, variates=3)
    one, again, generator, other = (RandomKernels(seed=s).fit_transform(x) for s in (5, 5, np.random.default_rng(5), 6))
    assert np.array_equal(one, again) and np.array_equal(one, generator) and not np.array_equal(one, other)


def test_a_series_is_read_by_itself_and_nothing_is_kept_from_it():
    x = walks(10, 80, variates=2)
    kernels = RandomKernels(features=300).fit(x)
    assert np.array_equal(kernels.transform(x)[4:5], kernels.transform(x[4:5]))


@pytest.mark.parametrize(("length", "per_kernel"), [(9, 23), (10, 5), (24, 23), (150, 23), (512, 23), (2000, 119)])
def test_dilations_spread_over_the_powers_of_two_that_fit(length, per_kernel):
    steps, counts = dilations(length, per_kernel)
    assert counts.sum() == per_kernel and len(steps) <= 32 and (counts > 0).all()
    largest = (length - 1) // 8
    assert steps[0] == 1 and largest - 1 <= steps[-1] <= largest, "eight gaps of the largest fit into the series"
    if per_kernel <= 32:
        top = np.log2((length - 1) / 8)
        assert dict(zip(steps, counts)) == Counter(int(2 ** (top * n / (per_kernel - 1))) for n in range(per_kernel))


def test_several_variates_are_all_used_and_mostly_few_at_a_time():
    kernels = RandomKernels().fit(walks(4, 100, variates=12))
    sizes = kernels.members_.sum(1)
    assert kernels.members_.any(0).all() and sizes.min() == 1 and sizes.max() == 9
    assert (sizes <= 3).mean() > 0.5
    assert kernels.transform(walks(2, 100, variates=12)).shape == RandomKernels().fit_transform(walks(2, 100)).shape


def test_a_loud_variate_does_not_drown_the_others():
    """The class is in the quiet variate: summed as they are, outputs of the loud one would decide alone where both are summed."""
    rng, y = np.random.default_rng(0), np.arange(80) % 2
    quiet = np.sin((0.3 + 0.5 * y[:, None]) * np.arange(60) + rng.uniform(0, 6, (80, 1)))
    x = np.stack([quiet, 1e6 * rng.standard_normal((80, 60))], 1)
    kernels = RandomKernels(seed=1).fit(x[:40])
    together = np.repeat(kernels.members_.all(1), kernels.pairs_[:, 3])
    train, test = (kernels.transform(part)[:, together] for part in (x[:40], x[40:]))
    assert 0.2 < together.mean() < 0.8
    assert (classification.ridge(0, y).fit(train, y[:40]).predict(test) == y[40:]).mean() > 0.9


def test_classes_that_differ_in_a_small_shape_anywhere_are_told_apart():
    """A short wiggle, up-down or down-up, at a random place in noise: no single point knows the class."""
    rng, y = np.random.default_rng(0), np.arange(300) % 2
    x = 0.3 * rng.standard_normal((300, 1, 100))
    for k, start in enumerate(rng.integers(0, 90, 300)):
        x[k, 0, start: start + 10] += 2 * np.sin(2 * np.pi * np.arange(10) / 10) * (2 * y[k] - 1)
    z = RandomKernels().fit(x[:150]).transform(x)
    score = {name: (classification.ridge(0, y).fit(a[:150], y[:150]).predict(a[150:]) == y[150:]).mean()
             for name, a in {"raw": x[:, 0], "kernels": z}.items()}
    assert score["kernels"] > 0.95 and score["raw"] < 0.7


@pytest.mark.parametrize(("call", "words"), [
    (lambda: RandomKernels().fit(walks(3, 8)), "8 points are shorter than a kernel of 9: stretch them"),
    (lambda: RandomKernels(features=83).fit(walks(3, 20)), "features should be a whole number, 84 or more, got 83"),
    (lambda: RandomKernels().fit(walks(3, 20)).transform(walks(3, 21)), r"shape \[1, 20\], got \[1, 21\]"),
    (lambda: RandomKernels().fit(walks(3, 20)).transform(walks(3, 20, variates=2)), r"shape \[1, 20\], got \[2, 20\]"),
    (lambda: RandomKernels().fit(np.where(np.arange(20) == 3, np.nan, walks(3, 20))), "3 that are not: fill them first"),
])
def test_bad_input_is_named(call, words):
    with pytest.raises(TsfmError, match=words):
        call()


@pytest.mark.skipif(paths.data_folder() is None, reason="TSFM_DATA is not set: the UCR sets are not here")
def test_random_kernels_clearly_beat_the_raw_values_under_ridge():
    rows = classification.evaluate(None, ["CBF", "GunPoint", "TwoLeadECG"], "ridge", baselines=("raw", "random-kernels"), progress=False)
    accuracy = rows.pivot(index="dataset", columns="variant", values="accuracy")
    assert (accuracy["random kernels"] > accuracy["raw values"] + 0.05).all() and accuracy["random kernels"].min() > 0.95
