"""Roots are exactly the Gaussian processes their kernels say: the algebra, the factors, and the moments of what is drawn."""

from dataclasses import replace

import numpy as np
import pytest

from tests.synth import official_cauker
from tests.synth.test_kernels import in_scikit_learn
from tsfm_lib.synth import cauker, kernels, toeplitz
from tsfm_lib.synth.cauker import CauKerConfig

EVERY_KERNEL = cauker.BANK + cauker.GAP_KERNELS[:6]


def tables(length, bank=EVERY_KERNEL):
    t = cauker._tables(CauKerConfig(bank=bank), length)
    return t.lags, t.kind, t.level


def drawn(seed, bank=EVERY_KERNEL, most=7):
    rng = np.random.default_rng(seed)
    count = rng.integers(1, most + 1)
    times = rng.integers(0, 2, count)
    times[0] = 0
    return rng.integers(0, len(bank), count), times


def parts_of(length, pick, times, bank=EVERY_KERNEL):
    table = tables(length, bank)
    parts, noise = np.empty((toeplitz.rows(table[1], pick), length)), np.empty(length)
    return parts[:toeplitz.composite(*table, pick, times, parts, noise)], noise


def covariance(length, pick, times, bank=EVERY_KERNEL):
    return kernels.Structure(*parts_of(length, pick, times, bank)).covariance()


def draws(length, pick, times, z):
    """One series for every row of z [n, rows, L]."""
    table, work, out = tables(length), toeplitz.room(length), np.empty((len(z), length))
    for numbers, series in zip(z, out):
        toeplitz.draw(*table, pick, times, numbers, work, series)
    return out


def shape(length, pick):
    return toeplitz.rows(tables(length)[1], pick), length


def root(length, pick, times):
    """The matrix R with draw = R z: images of the unit vectors."""
    size = shape(length, pick)
    return draws(length, pick, times, np.eye(size[0] * length).reshape(-1, *size)).T


def named(*entries):
    return np.array([EVERY_KERNEL.index(e) for e in entries])


@pytest.mark.parametrize("length", [31, 64])
def test_composites_equal_scikit_learns_matrices(length):
    official, x = official_cauker.bank(length), kernels.grid(length)[:, None]
    for seed in range(100):
        pick, times = drawn(seed, cauker.BANK)
        ours = covariance(length, pick, times, cauker.BANK)
        theirs = official_cauker.composite([official[i] for i in pick], times)(x)
        assert np.abs(ours - theirs).max() <= 1e-10 * np.abs(theirs).max(), (pick, times)


def test_the_bank_in_words_is_the_bank_of_kernel_objects():
    assert [cauker.kernel(entry, 512) for entry in cauker.BANK] == list(kernels.bank(512))
    assert sum(map(len, cauker.FAMILIES.values())) == len(cauker.BANK) == 33


def test_the_compiled_algebra_equals_the_readable_one():
    bank = [cauker.kernel(entry, 40) for entry in EVERY_KERNEL]
    for seed in range(100):
        pick, times = drawn(seed)
        tree = bank[pick[0]]
        for i, by in zip(pick[1:], times[1:]):
            tree = tree * bank[i] if by else tree + bank[i]
        exact = tree.covariance(40)
        assert np.abs(covariance(40, pick, times) - exact).max() <= 1e-12 * np.abs(exact).max()


@pytest.mark.parametrize("length", [40, 41])
def test_draws_have_the_covariance_of_the_composite(length):
    for seed in range(60):
        pick, times = drawn(seed)
        exact = covariance(length, pick, times)
        r = root(length, pick, times)
        assert np.abs(r @ r.T - exact).max() <= 1e-12 * max(np.abs(exact).max(), 1e-300), (pick, times)


@pytest.mark.parametrize("entries, times, regular", [
    (("matern 0.5 50",), (0,), True),
    (("period 26", "period 7", "period 10", "rq 0.1"), (0, 1, 1, 0), True),
    (("rbf 0.1",), (0,), False),
    (("period 24", "period 168", "rbf 1", "dot 1"), (0, 1, 0, 1), False),
])
def test_both_ways_of_drawing_are_exact(entries, times, regular):
    length, pick, times = 256, named(*entries), np.array(times)
    parts, _ = parts_of(length, pick, times)
    u, v, out = np.empty((3, length))
    assert toeplitz._schur(parts[0], np.ones(length), u, v, out) == regular
    exact, r = covariance(length, pick, times), root(length, pick, times)
    assert np.abs(r @ r.T - exact).max() <= 1e-12 * exact.max()


def test_smooth_roots_have_increments_without_jitter():
    """A jitter of 1e-12 of the variance would be seen: the second differences of RBF(1) have a variance of 4e-11."""
    length = 512
    for entry, order in (("rbf 10", 1), ("rbf 1", 1), ("rbf 1", 2)):
        r, x = root(length, named(entry), np.zeros(1, int)), kernels.grid(length)
        variance = (np.diff(r, order, axis=0) ** 2).sum(1)
        h = (x[1] / float(entry.split()[1])) ** 2 / 2
        exact = -2 * np.expm1(-h) if order == 1 else -8 * np.expm1(-h) + 2 * np.expm1(-4 * h)
        assert np.abs(variance / exact - 1).max() < 0.01, entry


def test_rank_never_shifts_the_numbers():
    """The white part takes the first row whatever else is in the composite."""
    z = np.random.default_rng(0).standard_normal((1, 2, 64))
    one = lambda *entries: draws(64, named(*entries), np.zeros(len(entries), int), z)[0]
    assert np.allclose(one("white 1"), z[0, 0])
    for entry in ("rbf 0.1", "period 4", "matern 0.5 5"):
        assert np.allclose(one("white 1", entry) - one(entry), z[0, 0])


# ---- moments ---------------------------------------------------------------------------------------------------------------------

def fourth_moments(y, exact):
    """E y_i^2 y_j^2 over K_ii K_jj + 2 K_ij^2, which is 1 for every pair of a Gaussian vector."""
    square, d = y ** 2, exact.diagonal()
    return (square.T @ square / len(y)) / (np.outer(d, d) + 2 * exact ** 2)


PRODUCTS = [("rbf 0.1", "period 10"), ("matern 0.5 5", "rq 0.1"), ("period 7", "period 26"), ("dot 10", "rbf 0.1")]


@pytest.mark.parametrize("pair", PRODUCTS)
def test_a_product_of_kernels_has_gaussian_fourth_moments_and_a_product_of_samples_has_not(pair):
    length, n, rng, one = 40, 6000, np.random.default_rng(1), np.zeros(1, int)
    draw = lambda pick, times: draws(length, pick, times, rng.standard_normal((n, *shape(length, pick))))
    exact = covariance(length, named(*pair), np.array([0, 1]))
    true, false = draw(named(*pair), np.array([0, 1])), draw(named(pair[0]), one) * draw(named(pair[1]), one)
    for y in (true, false):                                     # second moments cannot tell them apart
        assert np.abs(y.T @ y / n - exact).max() < 0.2 * exact.max()
    assert 0.9 < fourth_moments(true, exact).mean() < 1.1
    assert fourth_moments(false, exact).mean() > 1.5


def test_roots_of_the_generator_are_gaussian_around_their_means():
    """One graph of 12 roots, 300 times with other noise: whitened distances, second and fourth moments, root by root."""
    config, length, n = CauKerConfig(nodes=12, max_parents=0), 24, 300
    bank, maker = [cauker.kernel(entry, length) for entry in cauker.BANK], cauker._Maker(config, length, 5)
    parents, many, _, _ = maker.structure(0)
    again = [cauker._Maker(replace(config, realisation=r), length, 5).values(0, parents, many, many == 0) for r in range(n)]
    y = np.stack(again) - cauker.graph(0, length, 5, config).mean
    ratios, distances = [], []
    for node in range(12):
        pick, times, _ = maker.kernels(0, node)
        exact = in_scikit_learn(official_tree(bank, pick, times))(kernels.grid(length)[:, None])
        live = np.flatnonzero(exact.diagonal() > 1e-12 * exact.max())         # a dot product alone starts at 0
        sub, draws = exact[np.ix_(live, live)], y[:, node, live]
        ratios.append(fourth_moments(draws, sub).mean())
        values, vectors = np.linalg.eigh(sub)
        strong = values > 1e-8 * values.max()
        distances.append((((draws @ vectors[:, strong]) ** 2 / values[strong]).mean(0)).mean())
    assert np.abs(np.array(distances) - 1).max() < 0.3 and abs(np.mean(distances) - 1) < 0.05
    assert abs(np.mean(ratios) - 1) < 0.1 and max(ratios) < 1.6


def official_tree(bank, pick, times):
    return official_cauker.composite([bank[i] for i in pick], times)


def test_fractional_noise_is_white_at_one_half_and_sums_to_fractional_brownian_motion():
    assert np.allclose(cauker.FractionalNoise(0.5).at(kernels.grid(9)), np.eye(9)[0])
    hurst, length = 0.8, 30
    sums = np.tril(np.ones((length, length)))
    variance = (sums @ cauker.FractionalNoise(hurst).covariance(length) @ sums.T).diagonal()
    assert np.allclose(variance, np.arange(1, length + 1) ** (2 * hurst))
