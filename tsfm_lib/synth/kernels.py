"""Gaussian process kernels on an even grid: exact algebra in O(length), exact samples from half-size factors.

Any composite by + and x of stationary kernels, DotProduct and White on x = linspace(0, 1, L) has the covariance
    K = sum_j D^j T_j D^j + diag(v),        D = diag(x),  T_j Toeplitz, given by its lags.
So a draw is the sum of independent processes x^j z_j with z_j ~ N(0, T_j), and white noise. A T_j is centrosymmetric: the sums and
the differences of mirrored points are independent, each with a covariance of half the size. No jitter is added: where Cholesky's
method meets a numerically singular block, the pivoted one stops when the variance left is 1e-14 of the variance of a point.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg import blas, lapack
from scipy.special import gamma, kv

from tsfm_lib.errors import TsfmError

RESIDUAL = 1e-14                    # of the variance of one point, left out by a pivoted factor


@dataclass(frozen=True)
class Structure:
    """Lags of T_0, T_1, ... [J, L] and the diagonal v [L] of a covariance."""
    lags: np.ndarray
    noise: np.ndarray

    def __add__(self, other: "Structure") -> "Structure":
        short, tall = sorted((self.lags, other.lags), key=len)
        lags = tall.copy()
        lags[: len(short)] += short
        return Structure(lags, self.noise + other.noise)

    def __mul__(self, other: "Structure") -> "Structure":
        a, b = self.lags, other.lags
        lags = np.zeros((max(len(a) + len(b) - 1, 0) if len(a) and len(b) else 0, len(self.noise)))
        for i, row in enumerate(a):
            lags[i:i + len(b)] += row * b                      # D^i T D^i o D^j S D^j = D^(i+j) (T o S) D^(i+j)
        return Structure(lags, self.noise * other.variance() + other.noise * (self.variance() - self.noise))

    def variance(self) -> Float[np.ndarray, "length"]:
        """The diagonal of the covariance."""
        x = grid(len(self.noise))
        return sum((row[0] * x ** (2 * j) for j, row in enumerate(self.lags)), start=self.noise.copy())

    def covariance(self) -> Float[np.ndarray, "length length"]:
        x = grid(len(self.noise))
        out = np.diag(self.noise)
        for j, row in enumerate(self.lags):
            out += np.outer(x ** j, x ** j) * _toeplitz(row)
        return out


class Kernel:
    """A base kernel or a composite: `a + b` and `a * b` build composites; the tree is all there is."""

    def structure(self, length: int) -> Structure:
        raise NotImplementedError

    def covariance(self, length: int) -> Float[np.ndarray, "length length"]:
        """The dense matrix on linspace(0, 1, length).

        >>> (RBF(0.5) + White(1.0)).covariance(3).round(4).tolist()
        [[2.0, 0.6065, 0.1353], [0.6065, 2.0, 0.6065], [0.1353, 0.6065, 2.0]]
        """
        return self.structure(length).covariance()

    def __add__(self, other: "Kernel") -> "Kernel":
        return Sum(self, other)

    def __mul__(self, other: "Kernel") -> "Kernel":
        return Product(self, other)


class Stationary(Kernel):
    """A kernel of the distance alone; a new one needs `at` only."""

    def at(self, d: Float[np.ndarray, "length"]) -> Float[np.ndarray, "length"]:
        raise NotImplementedError

    def structure(self, length: int) -> Structure:
        return Structure(self.at(grid(length))[None], np.zeros(length))


@dataclass(frozen=True)
class ExpSineSquared(Stationary):
    length_scale: float | int = 1.0
    periodicity: float | int = 1.0

    def at(self, d: Float[np.ndarray, "length"]) -> Float[np.ndarray, "length"]:
        return np.exp(-2 * (np.sin(np.pi * d / self.periodicity) / self.length_scale) ** 2)


@dataclass(frozen=True)
class RBF(Stationary):
    length_scale: float | int = 1.0

    def at(self, d: Float[np.ndarray, "length"]) -> Float[np.ndarray, "length"]:
        return np.exp(-0.5 * (d / self.length_scale) ** 2)


@dataclass(frozen=True)
class RationalQuadratic(Stationary):
    length_scale: float | int = 1.0
    alpha: float | int = 1.0

    def at(self, d: Float[np.ndarray, "length"]) -> Float[np.ndarray, "length"]:
        return (1 + d ** 2 / (2 * self.alpha * self.length_scale ** 2)) ** -self.alpha


@dataclass(frozen=True)
class Matern(Stationary):
    length_scale: float | int = 1.0
    nu: float | int = 0.5

    def at(self, d: Float[np.ndarray, "length"]) -> Float[np.ndarray, "length"]:
        if self.nu == 0.5:
            return np.exp(-d / self.length_scale)
        r = np.sqrt(2 * self.nu) * d[d > 0] / self.length_scale
        out = np.ones(len(d))                                                     # the limit at 0, where kv is infinite
        out[d > 0] = 2 ** (1 - self.nu) / gamma(self.nu) * r ** self.nu * kv(self.nu, r)
        return out


@dataclass(frozen=True)
class Constant(Stationary):
    value: float | int = 1.0

    def at(self, d: Float[np.ndarray, "length"]) -> Float[np.ndarray, "length"]:
        return np.full(len(d), float(self.value))


@dataclass(frozen=True)
class DotProduct(Kernel):
    sigma_0: float | int = 1.0

    def structure(self, length: int) -> Structure:
        lags = np.ones((2, length))
        lags[0] = self.sigma_0 ** 2
        return Structure(lags, np.zeros(length))


@dataclass(frozen=True)
class White(Kernel):
    noise_level: float | int = 1.0

    def structure(self, length: int) -> Structure:
        return Structure(np.zeros((0, length)), np.full(length, float(self.noise_level)))


@dataclass(frozen=True)
class Sum(Kernel):
    left: Kernel
    right: Kernel

    def structure(self, length: int) -> Structure:
        return self.left.structure(length) + self.right.structure(length)

    def __str__(self) -> str:
        return f"({self.left} + {self.right})"


@dataclass(frozen=True)
class Product(Kernel):
    left: Kernel
    right: Kernel

    def structure(self, length: int) -> Structure:
        return self.left.structure(length) * self.right.structure(length)

    def __str__(self) -> str:
        return f"{self.left} * {self.right}"


def grid(length: int) -> Float[np.ndarray, "length"]:
    return np.linspace(0.0, 1.0, length)


# ---- the bank of KernelSynth (arXiv 2403.07815, code) ---------------------------------------------------------------------------

PERIODS = (24, 48, 96, 168, 336, 672, 7, 14, 30, 60, 365, 730, 4, 26, 52, 4, 6, 12, 4, 40, 10)      # in samples; 4 stands there 3 times


def bank(length: int) -> tuple[Kernel, ...]:
    """The 33 kernels (31 different ones) that KernelSynth draws from, for series of this length.

    >>> len(bank(1024)), len(set(bank(1024)))
    (33, 31)
    """
    return (*(ExpSineSquared(1.0, p / length) for p in PERIODS), *(DotProduct(s) for s in (0.0, 1.0, 10.0)),
            *(RBF(s) for s in (0.1, 1.0, 10.0)), *(RationalQuadratic(1.0, a) for a in (0.1, 1.0, 10.0)), White(0.1), White(1.0), Constant())


def compose(bank: Sequence[Kernel], rng: np.random.Generator, max_kernels: int = 5) -> Kernel:
    """1 to `max_kernels` kernels drawn with replacement, joined from left to right by + or x with even odds.

    >>> str(compose([RBF(1.0)], np.random.default_rng(0), max_kernels=1))
    'RBF(length_scale=1.0)'
    """
    chosen = rng.integers(len(bank), size=rng.integers(1, max_kernels + 1))
    kernel = bank[chosen[0]]
    for pick, times in zip(chosen[1:], rng.integers(2, size=len(chosen) - 1)):
        kernel = kernel * bank[pick] if times else kernel + bank[pick]
    return kernel


# ---- exact sampling -------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Root:
    """R [m, r] with R R^T a positive semi-definite block, rows in the order of the pivots (None: lower triangle, rows as they stand)."""
    matrix: np.ndarray
    order: np.ndarray | None

    def times(self, z: Float[np.ndarray, "m n"]) -> Float[np.ndarray, "m n"]:
        """R z; a factor of lower rank r uses the first r rows of z, so that the rank never shifts the stream of numbers."""
        if self.order is None:
            return blas.dtrmm(1.0, self.matrix, z, lower=1)
        out = np.empty_like(z)
        out[self.order] = self.matrix @ z[: self.matrix.shape[1]]
        return out


def half_block(lags: Float[np.ndarray, "length"], sign: int, out: Float[np.ndarray, "m m"]) -> None:
    """Covariance of the sums (+1) or differences (-1) of mirrored points over sqrt 2; an odd length has its middle point in the sums."""
    half = len(lags) // 2
    near = _toeplitz(lags[:half])
    far = np.lib.stride_tricks.sliding_window_view(lags[::-1][:2 * half - 1], half)           # lags[L - 1 - i - k]
    (np.add if sign > 0 else np.subtract)(near, far, out=out[:half, :half])
    if len(out) > half:
        out[half, :half] = out[:half, half] = np.sqrt(2) * lags[half:0:-1]
        out[half, half] = lags[0]


def square_root(lags: Float[np.ndarray, "length"], sign: int) -> Root:
    """Cholesky factor of a half block; the pivoted one where the block is numerically singular. Works in one buffer."""
    half, odd = divmod(len(lags), 2)
    block = np.empty((half + (odd if sign > 0 else 0),) * 2)                                  # symmetric: its .T is in Fortran order
    half_block(lags, sign, block)
    factor, failed = lapack.dpotrf(block.T, lower=1, clean=0, overwrite_a=1)
    if not failed:
        return Root(factor, None)
    half_block(lags, sign, block)
    factor, order, rank, _ = lapack.dpstrf(block.T, tol=RESIDUAL * block.diagonal().max(), lower=1, overwrite_a=1)
    return Root(np.asfortranarray(np.tril(factor[:, :rank])), order - 1)


@dataclass(frozen=True)
class Part:
    """Roots of one Toeplitz matrix: of the sums and of the differences of mirrored points; `scale` alone where all lags are equal."""
    power: int
    even: Root | None
    odd: Root | None
    scale: float

    def draw(self, z: Float[np.ndarray, "n length"]) -> Float[np.ndarray, "n length"]:
        if self.even is None:
            return np.broadcast_to(self.scale * z[:, :1], z.shape)
        half, length = z.shape[1] // 2, z.shape[1]
        middle = length - half                                                    # half, or half + 1 with a middle point
        u = self.even.times(np.asfortranarray(z[:, :middle].T)).T
        w = self.odd.times(np.asfortranarray(z[:, middle:].T)).T
        out = np.empty_like(z)
        out[:, half:middle] = u[:, half:]
        out[:, :half] = (u[:, :half] + w) / np.sqrt(2)
        out[:, middle:] = ((u[:, :half] - w) / np.sqrt(2))[:, ::-1]
        return out


@dataclass(frozen=True)
class Factor:
    """A composite taken apart once, to draw any number of series from."""
    parts: tuple[Part, ...]
    noise: np.ndarray                                                             # standard deviation of the white part

    def draw(self, n: int, rng: np.random.Generator) -> Float[np.ndarray, "n length"]:
        length = len(self.noise)
        out = np.zeros((n, length))
        for part in self.parts:
            out += part.draw(rng.standard_normal((n, length))) * grid(length) ** part.power
        if self.noise.any():
            out += rng.standard_normal((n, length)) * self.noise
        return out


def _toeplitz(lags):
    mirrored = np.concatenate([lags[:0:-1], lags])
    return np.lib.stride_tricks.sliding_window_view(mirrored, len(lags))[::-1]


def factorise(kernel: Kernel, length: int) -> Factor:
    if length < 2:
        raise TsfmError(f"a series needs at least 2 points, got length {length}: pass a larger length")
    structure, parts = kernel.structure(length), []
    for power, lags in enumerate(structure.lags):
        if not lags.any():
            continue
        if (lags == lags[0]).all():
            parts.append(Part(power, None, None, float(np.sqrt(lags[0]))))
        else:
            parts.append(Part(power, square_root(lags, 1), square_root(lags, -1), 1.0))
    return Factor(tuple(parts), np.sqrt(structure.noise))


def sample(kernel: Kernel, n: int, length: int, rng: np.random.Generator) -> Float[np.ndarray, "n length"]:
    """n independent series of a zero-mean Gaussian process with exactly this kernel.

    >>> series = sample(RBF(0.2) + DotProduct(1.0), 3, 64, np.random.default_rng(0))
    >>> series.shape
    (3, 64)
    """
    return factorise(kernel, length).draw(n, rng)
