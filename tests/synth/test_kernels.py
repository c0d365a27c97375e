"""The kernel algebra is exact, and so is the sampler: checked against scikit-learn and against the theory of Gaussian vectors."""

import numpy as np
import pytest
from sklearn.gaussian_process import kernels as sk

from tsfm_lib.errors import TsfmError
from tsfm_lib.synth import kernels, kernelsynth
from tsfm_lib.synth.kernels import RBF, Constant, DotProduct, ExpSineSquared, Matern, RationalQuadratic, White


def in_scikit_learn(kernel):
    match kernel:
        case kernels.Sum(left, right):
            return in_scikit_learn(left) + in_scikit_learn(right)
        case kernels.Product(left, right):
            return in_scikit_learn(left) * in_scikit_learn(right)
        case ExpSineSquared(scale, period):
            return sk.ExpSineSquared(scale, period)
        case RationalQuadratic(scale, alpha):
            return sk.RationalQuadratic(scale, alpha)
        case RBF(scale):
            return sk.RBF(scale)
        case Matern(scale, nu):
            return sk.Matern(scale, nu=nu)
        case DotProduct(sigma):
            return sk.DotProduct(sigma)
        case White(level):
            return sk.WhiteKernel(level)
        case Constant(value):
            return sk.ConstantKernel(value)


def rebuilt(factor):
    """The covariance that draws from a factor have, from the images of the unit vectors."""
    x = kernels.grid(len(factor.noise))
    out = np.diag(factor.noise ** 2)
    for part in factor.parts:
        root = part.draw(np.eye(len(x))) * x ** part.power
        out += root.T @ root
    return out


def composites(count, seed, length):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield kernels.compose(kernels.bank(length), rng, max_kernels=7)


def test_covariance_equals_scikit_learn_on_random_composites():
    for length in (31, 64):
        for kernel in composites(60, length, length):
            ours, theirs = kernel.covariance(length), in_scikit_learn(kernel)(kernels.grid(length)[:, None])
            assert np.abs(ours - theirs).max() <= 1e-10 * np.abs(theirs).max(), str(kernel)


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5, 0.8])
def test_a_tree_of_sums_and_products_equals_scikit_learn(nu):
    kernel = (Matern(0.2, nu) + DotProduct(1.0)) * (White(0.3) + RBF(0.5)) * (DotProduct(0.5) + Constant(2.0) + White(0.1))
    ours, theirs = kernel.covariance(40), in_scikit_learn(kernel)(kernels.grid(40)[:, None])
    assert np.abs(ours - theirs).max() <= 1e-10 * np.abs(theirs).max()


def test_the_bank_has_33_kernels_of_which_31_differ_and_periods_in_samples():
    bank = kernels.bank(500)
    assert len(bank) == 33 and len(set(bank)) == 31
    lags = bank[0].structure(500).lags[0]
    assert np.argmax(lags[12:40]) + 12 == 24                     # period 24 samples (times 499 / 500)


@pytest.mark.parametrize("length", [40, 41])
def test_factors_rebuild_the_covariance(length):
    for kernel in composites(60, 7, length):
        exact = kernel.covariance(length)
        assert np.abs(rebuilt(kernels.factorise(kernel, length)) - exact).max() <= 1e-11 * np.abs(exact).max(), str(kernel)


def test_increments_of_smooth_roots_are_exact_within_one_percent():
    """Jitter of 1e-6 would swamp them: the increments of RBF(10) have a variance of 4e-8."""
    length = 512
    for scale in (1.0, 10.0):
        part, = kernels.factorise(RBF(scale), length).parts
        increments = np.diff(part.draw(np.eye(length)), axis=1)
        exact = -2 * np.expm1(-0.5 * (1 / (length - 1) / scale) ** 2)
        assert np.abs((increments ** 2).sum(0) / exact - 1).max() < 0.01


def test_a_full_rank_block_takes_the_plain_factor_and_a_singular_one_the_pivoted():
    full, = kernels.factorise(Matern(0.1, 0.5), 128).parts
    low, = kernels.factorise(ExpSineSquared(1.0, 0.1), 128).parts
    assert full.even.order is None
    assert low.even.order is not None and low.even.matrix.shape[1] < 20


@pytest.mark.parametrize("kernel", [
    RBF(0.1) * ExpSineSquared(1.0, 0.3) + White(0.2),
    (DotProduct(1.0) + Matern(0.3, 1.5)) * RationalQuadratic(1.0, 0.1),
    DotProduct(0.0) * DotProduct(10.0) * ExpSineSquared(1.0, 0.11) + Constant(),
])
def test_empirical_covariances_deviate_as_theory_says(kernel):
    n, length = 4000, 40
    y, exact = kernels.sample(kernel, n, length, np.random.default_rng(3)), kernel.covariance(length)
    error = np.sqrt((np.outer(exact.diagonal(), exact.diagonal()) + exact ** 2) / n)
    z = np.divide(y.T @ y / n - exact, error, out=np.zeros_like(exact), where=error > 0)
    assert 0.6 < np.sqrt((z ** 2).mean()) < 1.5 and np.abs(z).max() < 5


def test_products_of_kernels_are_gaussian_and_products_of_samples_are_not():
    rng, a, b = np.random.default_rng(0), RBF(0.02), ExpSineSquared(1.0, 0.13)
    fourth = lambda y: ((y / y.std(0)) ** 4).mean()
    assert abs(fourth(kernels.sample(a * b, 4000, 60, rng)) - 3) < 0.15
    assert fourth(kernels.sample(a, 4000, 60, rng) * kernels.sample(b, 4000, 60, rng)) > 7


def test_whitened_draws_of_a_composite_follow_the_chi_square():
    kernel, length = (RBF(0.05) + DotProduct(1.0)) * Matern(0.5, 0.5) + White(0.05), 30
    y = kernels.sample(kernel, 3000, length, np.random.default_rng(5))
    distance = (y * np.linalg.solve(kernel.covariance(length), y.T).T).sum(1)
    assert abs(distance.mean() / length - 1) < 0.02 and abs(distance.var() / (2 * length) - 1) < 0.12


def test_a_constant_kernel_makes_constant_series_and_no_length_below_two_is_taken():
    y = kernels.sample(Constant(4.0), 3000, 10, np.random.default_rng(0))
    assert (y == y[:, :1]).all() and abs(y.std() - 2) < 0.1
    with pytest.raises(TsfmError, match="at least 2 points"):
        kernels.sample(Constant(), 1, 1, np.random.default_rng(0))


def test_composites_have_one_to_five_kernels_equally_often():
    rng, bank = np.random.default_rng(0), kernels.bank(64)
    depth = lambda k: 1 + depth(k.left) if isinstance(k, (kernels.Sum, kernels.Product)) else 1
    counts = np.bincount([depth(kernels.compose(bank, rng, 5)) for _ in range(2000)], minlength=6)
    assert counts[0] == 0 and (np.abs(counts[1:] / 2000 - 0.2) < 0.04).all()


def test_any_range_of_the_corpus_can_be_made_alone():
    whole = kernelsynth.generate(12, length=48, seed=9)
    assert whole.dtype == np.float32 and np.isfinite(whole).all()
    for start, n in ((0, 5), (5, 1), (6, 6)):
        assert kernelsynth.generate(n, length=48, seed=9, start=start).tobytes() == whole[start:start + n].tobytes()
    assert not np.allclose(whole, kernelsynth.generate(12, length=48, seed=10))


def test_ranges_of_grouped_corpora_match_too():
    whole = kernelsynth.generate(20, length=32, seed=2, per_kernel=4)
    for start, n in ((0, 3), (2, 9), (7, 1), (13, 7), (5, 0)):
        assert (kernelsynth.generate(n, length=32, seed=2, per_kernel=4, start=start) == whole[start:start + n]).all()
    with pytest.raises(TsfmError, match="per_kernel"):
        kernelsynth.generate(3, length=32, per_kernel=0)
