"""Dynamic time warping between many series, fast enough for matrices of thousands of series on one core.

DTW (Sakoe and Chiba 1978) aligns two series by a monotone path of index pairs from the first points to the last; the
distance is the square root of the smallest possible sum of squared differences along such a path, as in tslearn.
The table of partial sums D obeys

    D[i, j] = (a[i] - b[j])^2 + min(D[i-1, j-1], D[i-1, j], D[i, j-1]),

a recurrence in which every cell waits for its neighbour: one pair alone leaves a core idle most of the time. So the kernel
works on `LANES` pairs side by side, with the pair as the innermost (contiguous) axis: one SIMD instruction advances eight
of them, and the other lanes hide the latency. Four rows of the table are filled in one sweep over the columns, so that
each partial sum is loaded and stored once for four cells.

Two tricks keep the kernel free of special cases. Series of unequal length get the same huge value appended: pad meets pad
at no cost, and pad meets data at a cost no path can afford, so the last cell of the padded table is the distance of the
originals. And `band` limits j - i to an interval that depends on the two lengths only through their difference, so that
banded pairs are grouped by that difference.

`no_type_check`: the shape checks of the test suite wrap every function, and numba cannot compile a wrapped one.
"""

from collections.abc import Iterator, Sequence
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Int
from numba import njit

from tsfm_lib.errors import TsfmError

LANES = 32
ROWS = 4            # rows of the table filled in one sweep; the unrolled body of `_lanes` is written for four
PAD = {np.dtype(np.float64): 1e150, np.dtype(np.float32): 1e18}         # its square is still finite
LARGEST = {np.dtype(np.float64): 1e140, np.dtype(np.float32): 1e14}     # and far above any sum of squares of admitted values


@no_type_check
@njit(nogil=True, cache=True, error_model="numpy", fastmath={"nnan", "nsz", "contract"})
def _lanes(x, y, pairs, rows, cols, below, above, out):
    """Fill `out` with the squared distances of `pairs`; cell (i, j) is visited when i - below <= j <= i + above."""
    n_variates = x.shape[1]
    a = np.empty((x.shape[2], n_variates, LANES), x.dtype)
    b = np.empty((y.shape[2], n_variates, LANES), x.dtype)
    table = np.empty((y.shape[2] + 1, LANES), x.dtype)                  # the row above the four at work, one column late
    left = np.empty((ROWS + 1, LANES), x.dtype)                         # the column before: the row above, then the four rows
    here = np.empty((ROWS + 1, LANES), x.dtype)
    for start in range(0, len(pairs), LANES):
        n_rows, n_cols = rows[start], cols[start]
        for l in range(LANES):
            p = min(start + l, len(pairs) - 1)                          # idle lanes repeat the last pair
            n_rows, n_cols = max(n_rows, rows[p]), max(n_cols, cols[p])
        for l in range(LANES):
            p = min(start + l, len(pairs) - 1)
            for v in range(n_variates):
                for t in range(n_rows):
                    a[t, v, l] = x[pairs[p, 0], v, t]
                for t in range(n_cols):
                    b[t, v, l] = y[pairs[p, 1], v, t]
        table[: n_cols + 1] = np.inf
        table[0] = 0
        for i in range(0, n_rows, ROWS):
            first, last = max(0, i - below), min(n_cols, i + ROWS + above)              # columns some of the rows visit
            inner, outer = max(0, i + ROWS - 1 - below), min(n_cols, i + 1 + above)     # columns all of them visit
            if n_variates > 1 or inner > outer:
                inner = outer = last
            left[:] = np.inf
            left[0] = table[first]
            table[first] = np.inf
            for j in range(first, inner):
                _column(a, b, table, left, here, i, j, below, above)
            for j in range(inner, outer):
                for l in range(LANES):
                    value, up = b[j, 0, l], table[j + 1, l]
                    d0, d1, d2, d3 = a[i, 0, l] - value, a[i + 1, 0, l] - value, a[i + 2, 0, l] - value, a[i + 3, 0, l] - value
                    l0, l1, l2, l3, l4 = left[0, l], left[1, l], left[2, l], left[3, l], left[4, l]
                    c0 = d0 * d0 + min(min(l0, up), l1)
                    c1 = d1 * d1 + min(min(l1, l2), c0)
                    c2 = d2 * d2 + min(min(l2, l3), c1)
                    c3 = d3 * d3 + min(min(l3, l4), c2)
                    left[0, l], left[1, l], left[2, l], left[3, l], left[4, l] = up, c0, c1, c2, c3
                    table[j + 1, l] = c3
            for j in range(outer, last):
                _column(a, b, table, left, here, i, j, below, above)
        for l in range(min(LANES, len(pairs) - start)):
            out[start + l] = table[n_cols, l]


@no_type_check
@njit(nogil=True, cache=True, error_model="numpy", fastmath={"nnan", "nsz", "contract"})
def _column(a, b, table, left, here, i, j, below, above):
    """One column of four rows, whichever of them the band admits and however many variates there are."""
    here[0] = table[j + 1]
    for r in range(ROWS):
        if i + r - below <= j <= i + r + above:
            for l in range(LANES):
                cost = min(min(left[r, l], left[r + 1, l]), here[r, l])
                for v in range(a.shape[1]):
                    d = a[i + r, v, l] - b[j, v, l]
                    cost += d * d
                here[r + 1, l] = cost
        else:
            here[r + 1] = np.inf
    left[:] = here
    table[j + 1] = here[ROWS]


def matrix(x: np.ndarray | Sequence, y: np.ndarray | Sequence | None = None, band: int | None = None,
           dtype: type = np.float64, n_jobs: int = 1) -> Float[np.ndarray, "N M"]:
    """DTW distances between all series of `x` and all of `y` (of `x` itself when `y` is None).

    `x`, `y`: arrays [N, T] or [N, V, T], or lists of series [T] or [V, T] of any lengths. Several variates share one path.
    `band`: Sakoe-Chiba radius in points as tslearn counts it: |i - j| <= band for equal lengths, and with unequal ones
    the band reaches further by their difference on the side of the longer series. None: no band.
    `dtype=np.float32` is up to twice as fast and good to about six digits. `n_jobs` threads share the pairs.

    By hand: [1, 2, 3] against [1, 3]: 1-1, 2-1 (or 2-3) and 3-3 cost 0 + 1 + 0; against [2, 2] the ends cost 1 + 0 + 1.

    >>> matrix([[1, 2, 3]], [[1, 3], [2, 2]]) ** 2
    array([[1., 2.]])
    >>> shifted = [[0, 0, 3, 0], [0, 4, 0, 0]]
    >>> [matrix(shifted, band=band)[0, 1].item() for band in (None, 0)]        # free to wait: 4 - 3; point by point: 3-4-5
    [1.0, 5.0]
    """
    dtype = np.dtype(dtype)
    if dtype not in PAD:
        raise TsfmError(f"DTW works in float64 or float32, got {dtype}")
    if band is not None and (not isinstance(band, int | np.integer) or band < 0):
        raise TsfmError(f"band is a radius in points, a whole number >= 0 or None, got {band!r}; 10 % of the length is round(0.1 * length)")
    x, x_lengths = _padded(x, "x", dtype)
    y, y_lengths = (x, x_lengths) if (symmetric := y is None) else _padded(y, "y", dtype)
    if x.shape[1] != y.shape[1]:
        raise TsfmError(f"x has {x.shape[1]} variates and y has {y.shape[1]}: a warping path needs the same variates on both sides")
    distances = np.zeros((len(x), len(y)))
    for pairs, rows, cols, below, above in _groups(x_lengths, y_lengths, symmetric, band):
        squared = np.empty(len(pairs), dtype)
        parts = [slice(k, k + LANES * 8) for k in range(0, len(pairs), LANES * 8)] if n_jobs != 1 else [slice(None)]
        work = [(x, y, pairs[s], rows[s], cols[s], below, above, squared[s]) for s in parts]
        if n_jobs == 1:
            _lanes(*work[0])
        else:
            from joblib import Parallel, delayed
            Parallel(n_jobs=n_jobs, prefer="threads")(delayed(_lanes)(*w) for w in work)
        distances[pairs[:, 0], pairs[:, 1]] = np.sqrt(squared)
    return distances + distances.T if symmetric else distances


def path(a: Sequence | np.ndarray, b: Sequence | np.ndarray, band: int | None = None) -> tuple[float, Int[np.ndarray, "L 2"]]:
    """The distance of two univariate series and the path (pairs of indices) that attains it. Slow and plain, to be read.

    >>> distance, steps = path([1, 2, 3], [1, 3])
    >>> distance, steps.tolist()
    (1.0, [[0, 0], [1, 0], [2, 1]])
    """
    (a,), (b,) = (_padded([s], name, np.dtype(np.float64))[0][:, 0, : len(s)] for s, name in ((a, "a"), (b, "b")))
    below, above = _reach(len(a) - len(b), band, len(a) + len(b))
    table = np.full((len(a) + 1, len(b) + 1), np.inf)
    table[0, 0] = 0
    for i in range(len(a)):
        for j in range(max(0, i - below), min(len(b), i + above + 1)):
            table[i + 1, j + 1] = (a[i] - b[j]) ** 2 + min(table[i, j], table[i, j + 1], table[i + 1, j])
    i, j = len(a), len(b)
    steps = []
    while i and j:
        steps.append((i - 1, j - 1))
        i, j = min((i - 1, j - 1), (i - 1, j), (i, j - 1), key=lambda cell: table[cell])       # a tie goes to the diagonal
    return float(np.sqrt(table[-1, -1])), np.array(steps[::-1])


def _reach(difference: int, band: int | None, longest: int) -> tuple[int, int]:
    """How far j may fall behind i and run ahead of it when series a is `difference` points longer than b."""
    if band is None:
        return longest, longest
    return band + max(0, difference), band + max(0, -difference)


def _groups(x_lengths: np.ndarray, y_lengths: np.ndarray, symmetric: bool, band: int | None) -> Iterator[tuple]:
    """Pairs that may share lanes, in order of size, with the padded sizes of their tables and their band."""
    n, m = len(x_lengths), len(y_lengths)
    pairs = np.stack(np.triu_indices(n, 1) if symmetric else np.indices((n, m)).reshape(2, -1), 1)
    rows, cols = x_lengths[pairs[:, 0]], y_lengths[pairs[:, 1]]
    ragged = len(set(x_lengths.tolist())) > 1 or len(set(y_lengths.tolist())) > 1
    difference = rows - cols if band is not None else np.zeros(len(pairs), np.int64)
    order = np.lexsort((cols, rows, difference)) if ragged else np.arange(len(pairs))
    starts = np.flatnonzero(np.diff(difference[order], prepend=np.inf)) if ragged else [0] * (len(pairs) > 0)
    for start, stop in zip(starts, [*starts[1:], len(pairs)]):
        group = order[start:stop]
        longest = int(x_lengths.max() + y_lengths.max()) + 2 * ROWS
        pad = _padding(rows[group], ragged)             # the same on both sides: at least one point when lengths differ
        yield pairs[group], rows[group] + pad, cols[group] + pad, *_reach(int(difference[group[0]]), band, longest)


def _padding(rows: np.ndarray, ragged: bool) -> np.ndarray:
    """Points to add so that the rows come in fours."""
    return ragged + (-(rows + ragged)) % ROWS


def _padded(series: np.ndarray | Sequence, name: str, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """[N, V, longest + padding] with the pad value after each series, and the lengths."""
    items = [np.atleast_2d(np.asarray(s, dtype)) for s in series]
    if not items:
        raise TsfmError(f"{name} holds no series: pass at least one")
    variates = {s.shape[0] for s in items}
    if any(s.ndim != 2 or s.shape[1] == 0 for s in items) or len(variates) > 1:
        shapes = sorted({s.shape for s in items})[:4]
        raise TsfmError(f"{name} must be series of shape [T] or [V, T] with T >= 1 and the same V, got shapes {shapes}")
    lengths = np.array([s.shape[1] for s in items])
    padded = np.full((len(items), variates.pop(), lengths.max() + ROWS), PAD[dtype], dtype)
    for k, s in enumerate(items):
        if not np.all(np.abs(s) < LARGEST[dtype]):
            what = "a missing value (NaN)" if np.isnan(s).any() else f"a value that is not below {LARGEST[dtype]:g} in size"
            raise TsfmError(f"series {k} of {name} holds {what}: DTW needs observed values; cut off padding and fill gaps first")
        padded[k, :, : s.shape[1]] = s
    return padded, lengths
