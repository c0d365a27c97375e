"""One exact draw from a Gaussian process with a composite kernel, compiled: O(length^2) where the algebra of Toeplitz matrices allows.

A composite of stationary kernels, DotProduct and White has the covariance sum_j D^j T_j D^j + diag(v) (see `kernels`), so a draw is
the sum of independent draws x^j z_j with z_j ~ N(0, T_j), and white noise. Two ways to draw z_j, both exact and without jitter:

* Schur's recursion makes the columns of the Cholesky factor of a Toeplitz matrix one by one from two vectors, and each is added to the
  draw and forgotten: no matrix is ever stored. It is left as soon as a pivot falls below 1e-11 of the variance.
* Then T_j is numerically singular: sums and differences of mirrored points are independent, and each half-size block gets a pivoted
  Cholesky factor that stops when the variance left is 1e-14 of the variance of a point.

Kernels come as a table, so that a composite is a few row numbers; `kernels` holds the same algebra in readable form.
"""

from typing import no_type_check

import numba as nb
import numpy as np
from jaxtyping import Float

STATIONARY, DOT, WHITE = 0, 1, 2
LAST_PIVOT = 1e-11                  # of the variance of a point: below it Schur's recursion gives way to pivoting
RESIDUAL = 1e-14                    # of the variance of a point, left out by a pivoted factor
PAD = 8                             # rows of a power-of-two length would share their places in the cache


def room(length: int) -> Float[np.ndarray, "half padded"]:
    """Where `draw` works; one for each thread."""
    half = length - length // 2
    return np.empty((half, half + PAD))


def rows(kind: np.ndarray, pick: np.ndarray) -> int:
    """How many rows of normal numbers a draw takes: one for white noise, one for each power of x up to the number of dot products."""
    return 2 + int((kind[pick] == DOT).sum())


@no_type_check
@nb.njit(cache=True)
def composite(lags, kind, level, pick, times, parts, noise):
    """Kernels of a table joined from left to right: the T_j as rows of `parts`, v in `noise`; returns how many rows are in use.

    Tables: `lags` of the stationary kernels, `level` sigma_0^2 of the dot products and the variance of the white ones. `pick` are
    their rows, times[k] says whether the k-th is joined by x or by +; times[0] is 0.
    """
    length, used = lags.shape[1], 1
    for i in range(length):
        parts[0, i] = noise[i] = 0.0
    for k in range(len(pick)):
        base, row, weight = kind[pick[k]], lags[pick[k]], level[pick[k]]
        if base == DOT and (times[k] or used == 1):             # a new highest power of x
            for i in range(length):
                parts[used, i] = 0.0
            used += 1
        for i in range(length):                                 # the last row first: what it takes from the row before is still old
            square = (i / (length - 1)) ** 2
            if base == STATIONARY and times[k]:
                for j in range(used):
                    parts[j, i] *= row[i]
                noise[i] *= row[0]
            elif base == STATIONARY:
                parts[0, i] += row[i]
            elif base == DOT and times[k]:
                for j in range(used - 1, 0, -1):
                    parts[j, i] = weight * parts[j, i] + parts[j - 1, i]
                parts[0, i] *= weight
                noise[i] *= weight + square
            elif base == DOT:
                parts[0, i] += weight
                parts[1, i] += 1.0
            elif times[k]:                                      # only the diagonal is left
                variance, power = noise[i], 1.0
                for j in range(used):
                    variance += parts[j, 0] * power
                    power *= square
                noise[i] = weight * variance
            else:
                noise[i] += weight
        if base == WHITE and times[k]:
            used = 1
            for i in range(length):
                parts[0, i] = 0.0
    return used


@no_type_check
@nb.njit(cache=True, fastmath={"contract"}, error_model="numpy")
def _schur(lags, z, u, v, out):
    """out = (Cholesky factor of the Toeplitz matrix of `lags`) z, column by column; False when a pivot is too small."""
    n = len(lags)
    for i in range(n):
        u[i] = v[i] = lags[i] / np.sqrt(lags[0])
        out[i] = u[i] * z[0]
    for i in range(1, n):
        reflection = v[i] / u[0]
        left = (1 - reflection) * (1 + reflection)
        if not u[0] * u[0] * left > LAST_PIVOT * lags[0]:
            return False
        c = np.sqrt(left)
        gain, zi = 1 / c, z[i]
        for j in range(n - i):                      # the mixed form of the hyperbolic rotation: stable on positive matrices
            a = (u[j] - reflection * v[i + j]) * gain
            v[i + j] = c * v[i + j] - reflection * a
            u[j] = a
            out[i + j] += a * zi
    return True


@no_type_check
@nb.njit(cache=True, fastmath={"contract"}, error_model="numpy")
def _half(lags, sign, z, work, residual, order, out):
    """out = R z, where R R^T is the block of the sums (+1) or differences (-1) of mirrored points, by pivoted Cholesky.

    Row r of `work` is column r of R without the points whose turn is over; the points stand in the order of the pivots.
    """
    length, half = len(lags), len(lags) // 2
    size = half + (length % 2 if sign > 0 else 0)   # an odd length has its middle point in the sums
    for i in range(size):
        order[i] = i
        residual[i] = lags[0] + sign * lags[length - 1 - 2 * i] if i < half else lags[0]
    rank = size
    for r in range(size):
        p = r
        for i in range(r + 1, size):
            if residual[i] > residual[p]:
                p = i
        pivot = residual[p]
        if pivot <= RESIDUAL * lags[0]:
            rank = r
            break
        for j in range(r):
            work[j, p], work[j, r] = work[j, r], work[j, p]
        residual[p], order[p], order[r] = residual[r], order[r], order[p]
        q, column = order[r], work[r]
        for i in range(r, size):
            o = order[i]
            column[i] = lags[abs(o - q)] + sign * lags[length - 1 - q - o]
            if (o == half) != (q == half):          # the middle point has no mirror image: unit weight against sqrt 1/2 + sqrt 1/2
                column[i] = np.sqrt(2.0) * lags[abs(o - q)]
            elif o == half:
                column[i] = lags[0]
        j = 0
        while j + 8 <= r:                           # eight columns at a time: one pass over `column` instead of eight
            a0, a1, a2, a3 = work[j, r], work[j + 1, r], work[j + 2, r], work[j + 3, r]
            a4, a5, a6, a7 = work[j + 4, r], work[j + 5, r], work[j + 6, r], work[j + 7, r]
            f0, f1, f2, f3 = work[j], work[j + 1], work[j + 2], work[j + 3]
            f4, f5, f6, f7 = work[j + 4], work[j + 5], work[j + 6], work[j + 7]
            for i in range(r, size):
                column[i] -= (a0 * f0[i] + a1 * f1[i] + a2 * f2[i] + a3 * f3[i]) + (a4 * f4[i] + a5 * f5[i] + a6 * f6[i] + a7 * f7[i])
            j += 8
        while j < r:
            a0, f0 = work[j, r], work[j]
            for i in range(r, size):
                column[i] -= a0 * f0[i]
            j += 1
        column[r] = np.sqrt(pivot)
        gain = 1 / column[r]
        for i in range(r + 1, size):
            column[i] *= gain
            residual[i] -= column[i] * column[i]
    residual[:size] = 0.0                           # from here on it holds R z in the order of the pivots
    for r in range(rank):
        column, zr = work[r], z[r]
        for i in range(r, size):
            residual[i] += column[i] * zr
    for i in range(size):
        out[order[i]] = residual[i]


@no_type_check
@nb.njit(cache=True, fastmath={"contract"})
def _draw_toeplitz(lags, z, work, u, v, order, out):
    length, half = len(lags), len(lags) // 2
    if _schur(lags, z, u, v, out):
        return
    middle = length - half
    _half(lags, 1.0, z[:middle], work, v, order, u)
    for i in range(half):
        out[i] = out[length - 1 - i] = u[i] / np.sqrt(2.0)
    if middle > half:
        out[half] = u[half]
    _half(lags, -1.0, z[middle:], work, v, order, u)
    for i in range(half):
        out[i] += u[i] / np.sqrt(2.0)
        out[length - 1 - i] -= u[i] / np.sqrt(2.0)


@no_type_check
@nb.njit(cache=True)
def draw(lags, kind, level, pick, times, z, work, out):
    """out = a draw from the composite (see there), a function of the normal numbers z [rows(kind, pick), L]; z[0] is the white part."""
    length = lags.shape[1]
    parts, scratch, order = np.empty((len(z), length)), np.empty((4, length)), np.empty(length, np.int64)
    noise, u, v, one = scratch[0], scratch[1], scratch[2], scratch[3]
    used = composite(lags, kind, level, pick, times, parts, noise)
    for i in range(length):
        out[i] = np.sqrt(noise[i]) * z[0, i]
    for j in range(used):
        if parts[j, 0] > 0:                         # a variance of 0 is a matrix of zeros
            _draw_toeplitz(parts[j], z[1 + j], work, u, v, order, one)
            for i in range(length):
                out[i] += one[i] * (i / (length - 1)) ** j
