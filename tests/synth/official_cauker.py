"""CauKer's released algorithm step by step: scikit-learn's kernels, a dense covariance and its eigenvectors for every root.

Written to be read, and to be raced: this is what a user would run without this library. Distribution, not bytes: the released code
draws the noise of the roots from a generator that it never seeds.
"""

import numpy as np
from sklearn.gaussian_process import kernels as sk

CYCLES = (24, 48, 96, 168, 336, 672, 7, 14, 30, 60, 365, 730, 4, 26, 52, 4, 6, 12, 4, 40, 10)


def bank(length):
    return [*(sk.ExpSineSquared(1.0, c / length) for c in CYCLES), *(sk.DotProduct(s) for s in (0.0, 1.0, 10.0)),
            *(sk.RBF(s) for s in (0.1, 1.0, 10.0)), *(sk.RationalQuadratic(1.0, a) for a in (0.1, 1.0, 10.0)),
            sk.WhiteKernel(0.1), sk.WhiteKernel(1.0), sk.ConstantKernel(1.0)]


def composite(chosen, times):
    """Joined from left to right; times[i] says whether kernel i is multiplied (times[0] says nothing)."""
    kernel = chosen[0]
    for k, by in zip(chosen[1:], times[1:]):
        kernel = kernel * k if by else kernel + k
    return kernel


def random_kernel(rng, kernels, most=7):
    count = rng.integers(1, most + 1)
    return composite([kernels[i] for i in rng.integers(len(kernels), size=count)], rng.random(count) < 0.5)


def random_mean(rng, x):
    def one():
        kind = rng.integers(4)
        if kind == 0:
            return np.zeros_like(x)
        if kind == 1:
            slope, level = rng.uniform(-1, 1, 2)
            return slope * x + level
        if kind == 2:
            size, rate = rng.uniform(0.5, 1.5, 2)
            return size * np.exp(rate * x)
        out = np.zeros_like(x)
        for _ in range(rng.integers(1, 6)):
            out[rng.integers(len(x))] += rng.uniform(-5, 5)
        return out
    first, second = one(), one()
    return first * second if rng.random() < 0.5 else first + second


def random_root(rng, kernels, x):
    """The eigenvectors carry the square roots of the sizes of the eigenvalues: a slightly negative one counts as positive."""
    values, vectors = np.linalg.eigh(random_kernel(rng, kernels)(x[:, None]))
    return random_mean(rng, x) + vectors @ (np.sqrt(np.abs(values)) * rng.standard_normal(len(x)))


def random_activation(rng, z):
    kind = rng.integers(6)
    if kind == 0:
        return rng.uniform(0.5, 2) * z + rng.uniform(-1, 1)
    if kind == 1:
        return np.maximum(z, 0)
    if kind == 2:
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-z))
    if kind == 3:
        return np.sin(z)
    if kind == 4:
        return np.mod(z, rng.uniform(1, 5))
    return np.where(z > 0, z, rng.uniform(0.01, 0.3) * z)


def random_graph(rng, nodes=18, max_parents=6):
    """Parents by node, in a causal order of shuffled labels."""
    order = rng.permutation(nodes)
    return {order[i]: rng.choice(order[:i], rng.integers(0, min(i, max_parents) + 1), replace=False) for i in range(nodes)}


def graph_series(rng, kernels, length, keep=4):
    x, values = np.linspace(0, 1, length), {}
    for node, parents in random_graph(rng).items():
        if len(parents) == 0:
            values[node] = random_root(rng, kernels, x)
        else:
            z = sum(rng.standard_normal() * values[p] for p in parents) + rng.standard_normal()
            values[node] = random_activation(rng, z)
    return np.stack([values[node] for node in rng.choice(len(values), keep, replace=False)]).astype(np.float32)


def generate(graphs, length=512, seed=0, keep=4):
    rng, kernels = np.random.default_rng(seed), bank(length)
    return np.concatenate([graph_series(rng, kernels, length, keep) for _ in range(graphs)])
