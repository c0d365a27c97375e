"""Features of a series without any training: what share of it lies above a threshold after a small fixed convolution.

The method is MiniRocket (Dempster, Schmidt, Webb, arXiv 2012.08791), written after the paper. Before a ridge classifier it is
the honest ceiling of what is cheap: seconds on a CPU, no pre-training, and hard to beat on the UCR archive.

* Kernels: the 84 of length 9 with weight 2 at three places and -1 at the other six. They sum to zero, so the level of a series
  shows only in the zeros put around it, and every second pair of kernel and dilation leaves those out.
* Dilations: powers of 2 with evenly spread exponents (at most 32), up to the largest at which a kernel fits into the series.
* A feature is the proportion of positive values (PPV) of output minus bias. Biases are quantiles of the output on one training
  series, drawn for each pair; multiples of the golden ratio spread the levels. These draws are all that is random.
* Several variates: a pair sums the outputs on a random few of them, so their number does not change the number of features.

All kernels share the sum A of the nine shifted copies of a series: an output is 3 (copy i + copy j + copy k) - A.

Departures. A bias is a quantile of just those values that the PPV counts (the authors' code always takes the padded output),
so that a constant added to all series changes nothing where padding is off. Variates are brought to one scale, that of the
training series, before they are summed. Work is done in float64, where a large level leaves small differences standing.
As in the paper, single series are not z-scored: a scale or level that differs between classes may be read. Where that is not
wanted, pass `neighbours.z_normalised(x)`.

`no_type_check`: the shape checks of the test suite wrap every function, and numba cannot compile a wrapped one.
"""

from itertools import combinations
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float, Int
from numba import njit
from sklearn.base import BaseEstimator, TransformerMixin

from tsfm_lib.errors import TsfmError, whole

POINTS = 9                                                  # of a kernel
TWOS = np.array(list(combinations(range(POINTS), 3)))       # where each kernel has its weights 2 [84, 3]
MOST_DILATIONS, MOST_VARIATES = 32, 9                       # of a series; in one sum
GOLDEN = (np.sqrt(5) + 1) / 2


class RandomKernels(TransformerMixin, BaseEstimator):
    """About `features` numbers from 0 to 1 for each series: the largest multiple of 84 that is not above it.

    >>> x = np.sin(np.arange(40) * np.array([0.2, 0.3, 0.9])[:, None])[:, None]
    >>> z = RandomKernels(features=200).fit_transform(x)
    >>> z.shape, bool((z >= 0).all() and (z <= 1).all())
    ((3, 168), True)
    """

    def __init__(self, features: int = 2000, seed: int | np.random.Generator = 0):
        self.features, self.seed = features, seed

    def fit(self, x: Float[np.ndarray, "N V T"], y: Any = None) -> "RandomKernels":
        rng, kernels = np.random.default_rng(self.seed), len(TWOS)
        per_kernel = whole(self.features, "features", kernels) // kernels
        self.shape_ = x.shape[1:]
        steps, counts = dilations(x.shape[-1], per_kernel)
        at, kernel = np.indices((len(steps), kernels)).reshape(2, -1)
        edge = np.where((at + kernel) % 2, POINTS // 2 * steps[at], 0)             # points at either end that do not count
        self.pairs_ = np.stack([kernel, steps[at], edge, counts[at]], 1)
        most = min(x.shape[1], MOST_VARIATES)
        sizes = (2 ** rng.uniform(0, np.log2(most + 1), (len(at), 1))).astype(int).clip(max=most)      # 1 to 9, small ones preferred
        self.members_ = rng.random((len(at), x.shape[1])).argsort(1).argsort(1) < sizes
        deviation = x.std((0, 2), dtype=np.float64, keepdims=True)                 # rounded to a power of 2: dividing loses nothing
        self.scale_ = np.exp2(np.round(np.log2(np.where(deviation > 0, deviation, 1))))
        x, levels = self._checked(x), np.arange(1, per_kernel * kernels + 1) * GOLDEN % 1
        out, biases = np.empty(x.shape[-1]), []
        for one, (kernel, step, edge, count), members in zip(x[rng.integers(len(x), size=len(at))], self.pairs_, self.members_):
            _output(*_shifts(one, step), members, kernel, step, out)
            biases.extend(np.quantile(out[edge: len(out) - edge], levels[len(biases): len(biases) + count]))
        self.biases_ = np.array(biases)
        return self

    def transform(self, x: Float[np.ndarray, "N V T"]) -> Float[np.ndarray, "N F"]:
        return _proportions(self._checked(x), self.pairs_, self.members_, self.biases_)

    def _checked(self, x):
        if x.shape[1:] != self.shape_:
            raise TsfmError(f"fitted on series of shape {list(self.shape_)}, got {list(x.shape[1:])}: bring both to one shape")
        if not np.isfinite(x).all():
            raise TsfmError(f"expected observed values, got {(~np.isfinite(x)).sum()} that are not: fill them first (neighbours.resized)")
        return np.ascontiguousarray(x / self.scale_)


def dilations(length: int, per_kernel: int) -> tuple[Int[np.ndarray, "D"], Int[np.ndarray, "D"]]:
    """The dilations for series of this length, and how many of a kernel's features each of them gets.

    >>> dilations(65, 4)
    (array([1, 2, 4, 8]), array([1, 1, 1, 1]))
    >>> dilations(33, 6)                            # 2^0, 2^0.4 ... 2^2, rounded down
    (array([1, 2, 3, 4]), array([3, 1, 1, 1]))
    """
    if length < POINTS:
        raise TsfmError(f"series of {length} points are shorter than a kernel of {POINTS}: stretch them (neighbours.resized)")
    exponents = np.linspace(0, np.log2((length - 1) / (POINTS - 1)), min(per_kernel, MOST_DILATIONS))
    shares = exponents[np.arange(per_kernel) * len(exponents) // per_kernel]
    return np.unique((2**shares).astype(int), return_counts=True)


@no_type_check
@njit(nogil=True, cache=True)
def _shifts(series, dilation):
    """The series between zeros, of which copy i is the part that starts at i * dilation, and the sum of the nine copies."""
    n_variates, length = series.shape
    wide, total = np.zeros((n_variates, length + (POINTS - 1) * dilation)), np.zeros((n_variates, length))
    wide[:, POINTS // 2 * dilation: POINTS // 2 * dilation + length] = series
    for i in range(POINTS):
        total += wide[:, i * dilation: i * dilation + length]
    return wide, total


@no_type_check
@njit(nogil=True, cache=True)
def _output(wide, total, members, kernel, dilation, out):
    i, j, k = TWOS[kernel, 0] * dilation, TWOS[kernel, 1] * dilation, TWOS[kernel, 2] * dilation
    out[:] = 0
    for v in range(len(total)):
        if members[v]:
            a, b, c = wide[v, i:], wide[v, j:], wide[v, k:]
            for t in range(len(out)):
                out[t] += 3 * (a[t] + b[t] + c[t]) - total[v, t]


@no_type_check
@njit(nogil=True, cache=True)
def _proportions(x, pairs, members, biases):
    features = np.empty((len(x), len(biases)), np.float32)
    out = np.empty(x.shape[2])
    for n in range(len(x)):
        feature, current = 0, 0
        for p in range(len(pairs)):
            kernel, dilation, edge, count = pairs[p, 0], pairs[p, 1], pairs[p, 2], pairs[p, 3]
            if dilation != current:
                wide, total = _shifts(x[n], dilation)
                current = dilation
            _output(wide, total, members[p], kernel, dilation, out)
            counted = out[edge: len(out) - edge]
            for _ in range(count):
                positive = 0
                for value in counted:
                    positive += value > biases[feature]
                features[n, feature] = positive / len(counted)
                feature += 1
    return features
