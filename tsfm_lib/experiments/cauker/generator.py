"""What CauKer's corpora hold (C8): the bands of the UCR archive they reach, lines of the spectrum, series that fail, roots in time.

A corpus *covers* a series of the archive in a band when its nearest generated value is no further away than its k-th nearest neighbour
within the archive (coverage, Naeem et al. 2020, arXiv 2002.09797). The value is the common logarithm of the share of power that the band
holds. So a corpus may be as much wider as it likes, and is asked only whether it puts series wherever the archive has some.
"""

import time
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree

from tsfm_lib import data
from tsfm_lib.evaluate import suites
from tsfm_lib.evaluate.neighbours import observed_parts, resized, z_normalised
from tsfm_lib.synth import cauker, kernels
from tsfm_lib.synth.cauker import BANK, GAP_KERNELS, VARIANTS, CauKerConfig

LENGTH = 512
EDGES = (1, 2, 4, 8, 16, 32, 64, 128, 257)
BANDS = tuple(f"{low}" if high == low + 1 else f"{low} to {high - 1}" for low, high in zip(EDGES, EDGES[1:]))      # cycles per window
FLOOR = 1e-8                    # of the power: below it the rounding of stored values is all there is
NEIGHBOURS = 5                  # as in the paper that proposed this coverage
FINE = np.unique(np.geomspace(1, 256, 25).round().astype(int))       # whole cycles, a third of an octave apart where there are enough

QUIET = tuple(entry for entry in BANK if not entry.startswith("white"))
SMOOTH = ("linear", "sigmoid")

CORPORA = {
    "cauker": VARIANTS["cauker"],
    "repaired": VARIANTS["repaired"],
    "with matern": CauKerConfig(bank=BANK + GAP_KERNELS[:4]),
    "with fractional": CauKerConfig(bank=BANK + GAP_KERNELS[4:6]),
    "with periods": CauKerConfig(bank=BANK + GAP_KERNELS[6:]),
    **{name: VARIANTS[name] for name in ("mean-kernelsynth", "kernelsynth", "scm")},
    "without white": CauKerConfig(bank=QUIET),
    "without jumps": CauKerConfig(activations=SMOOTH),
    "quiet": CauKerConfig(bank=QUIET, activations=SMOOTH, means=("zero", "linear", "exponential")),
}
"""The released bank; all kernels that were made for its gaps, and each kind of them alone; the rivals of the first claim. The last three
were added after the first results had been read, to try a reason for them: what makes noise, jumps and spikes is left out."""

FAILING = {
    "cauker": CauKerConfig(),
    "depth 2": CauKerConfig(depth=2),
    "depth 8": CauKerConfig(depth=8),
    "3 kernels at most": CauKerConfig(max_kernels=3),
    "dot 10 only": CauKerConfig(bank=("dot 10",)),
    "relu only": CauKerConfig(activations=("relu",)),
    "no activation": CauKerConfig(activations=("linear",)),
    "std above 0.01": CauKerConfig(least_std=0.01),
}


# -- series of the archive --


def varies(x: Float[np.ndarray, "N T"]) -> Bool[np.ndarray, "N"]:
    """Whether a series has a shape at all: its deviation is more than a millionth of its level.

    >>> varies(np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 1.0]])).tolist()
    [False, True]
    """
    x = x.astype(np.float64)
    return x.std(1) > 1e-6 * (1 + np.abs(x.mean(1)))


@lru_cache(70)
def _whole(name: str) -> Float[np.ndarray, "N T"]:
    """Training and test part of a univariate set, one below the other."""
    found = data.load(name)
    longest = max(x.shape[-1] for x in (found.x_train, found.x_test))
    pad = lambda x: np.pad(x[:, 0], ((0, 0), (0, longest - x.shape[-1])), constant_values=np.nan)
    return np.concatenate([pad(found.x_train), pad(found.x_test)])


def archive(seed: int, per_set: int = 20, length: int = LENGTH, native: bool = False) -> list[tuple[str, Float[np.ndarray, "n T"]]]:
    """`per_set` series of every UCR set of the suite, stretched to one length as encoders see them; the other ones of another seed.

    native: nothing is stretched; only series with at least `length` observed points, cut there.
    """
    found = []
    for k, name in enumerate(suites.suite("ucr")):
        x = _whole(name)
        x = x[np.random.default_rng([seed, k]).permutation(len(x))]
        parts = [part for part in observed_parts(x[:4 * per_set, None]) if not native or part.shape[-1] >= length]
        cut = [part[0, :length] if native else resized(part[None], length)[0, 0] for part in parts]
        kept = np.array(cut)[varies(np.array(cut))] if cut else np.empty((0, length))
        if len(kept):
            found.append((name, kept[:per_set]))
    return found


# -- bands --


def power(x: Float[np.ndarray, "N T"]) -> Float[np.ndarray, "N F"]:
    """Shares of the power at 1, 2, ... cycles per window of z-scored series, under a Hann window: ends that do not meet leak less."""
    found = np.abs(np.fft.rfft(z_normalised(x[:, None])[:, 0] * np.hanning(x.shape[1]))[:, 1:]) ** 2
    return found / found.sum(1, keepdims=True)


def bands(x: Float[np.ndarray, "N T"]) -> Float[np.ndarray, "N E"]:
    """Common logarithm of the share of power in every octave.

    >>> wave = np.sin(2 * np.pi * 10 * np.arange(512) / 512)[None]
    >>> BANDS[int(bands(wave).argmax())]
    '8 to 15'
    """
    share = power(x)
    return np.log10(np.maximum(np.stack([share[:, low - 1:high - 1].sum(1) for low, high in zip(EDGES, EDGES[1:])], 1), FLOOR))


def coverage(real: Float[np.ndarray, "N E"], made: Float[np.ndarray, "M E"], k: int = NEIGHBOURS) -> float:
    """Share of real points with a made one no further away than their k-th nearest real neighbour.

    >>> real = np.arange(10.0)[:, None]
    >>> coverage(real, real + 0.1), coverage(real, real[:1], k=2)
    (1.0, 0.2)
    """
    radius = cKDTree(real).query(real, k + 1)[0][:, -1]                                 # the nearest of all is the point itself
    return float((cKDTree(made).query(real)[0] <= radius).mean())


def overlap(real: Float[np.ndarray, "N"], made: Float[np.ndarray, "M"], bins: int = 20) -> float:
    """Common area of two histograms over bins that hold equally many real values: here a corpus is also punished for being wider."""
    inner, inside = np.quantile(real, np.linspace(0, 1, bins + 1)[1:-1]), (made >= real.min()) & (made <= real.max())
    counts = [np.bincount(np.searchsorted(inner, x), minlength=bins) for x in (real, made[inside])]
    return float(np.minimum(counts[0] / len(real), counts[1] / len(made)).sum())


def peaks(x: Float[np.ndarray, "N T"]) -> Float[np.ndarray, "P"]:
    """Shares of series whose strongest frequency lies in each of the FINE bins."""
    strongest = 1 + power(x).argmax(1)
    return np.histogram(strongest, np.r_[FINE[:-1], 257] - 0.5)[0] / len(x)


def corpus(name: str, n: int, length: int, seed: int) -> Float[np.ndarray, "n T"]:
    """n series of graphs of their own, those that do not vary replaced by the next ones."""
    config, found, start = CORPORA[name], [], 0
    while sum(map(len, found)) < n:
        x = cauker.generate(n, length, seed, config, per_graph=1, start=start)
        found.append(x[varies(x)])
        start += n
    return np.concatenate(found)[:n]


def coverage_trial(variant: str, seed: int, per_set: int, native: bool = False) -> list[dict]:
    """A corpus as large as the sample of the archive. `variant` "real": other series of the same sets, the most one can hope for.

    Rows of four experiments: the worst band (`coverage`), every band, the middle of every band, and lines of the spectrum; with
    `native` they are called `native_coverage` and so on.
    """
    drawn = archive(seed, 2 * per_set if variant == "real" else per_set, LENGTH, native)
    real = np.concatenate([x[:per_set] for _, x in drawn])
    made = np.concatenate([x[per_set:] for _, x in drawn]) if variant == "real" else corpus(variant, len(real), LENGTH, seed)
    ours, theirs, before = bands(made), bands(real), "native_" if native else ""
    each = [{"band": band, "coverage": coverage(a[:, None], b[:, None]), "overlap": overlap(a, b),
             **{f"coverage_{k}": coverage(a[:, None], b[:, None], k) for k in (1, 20)},
             **{f"q{q}": float(np.quantile(b, q / 100)) for q in (5, 25, 50, 75, 95)}}
            for band, a, b in zip(BANDS, theirs.T, ours.T)]  # fmt: skip
    least = lambda column: min(row[column] for row in each)
    rows = [{"experiment": before + "coverage", "worst_band": least("coverage"), "band": min(each, key=lambda row: row["coverage"])["band"],
             "joint": coverage(theirs, ours), "worst_overlap": least("overlap"), "worst_band_1": least("coverage_1"),
             "worst_band_20": least("coverage_20"), "sets": len(drawn)}]  # fmt: skip
    rows += [{"experiment": before + "coverage_bands", **row} for row in each]
    rows += [{"experiment": before + "peaks", "cycle": int(at), "share": float(share)} for at, share in zip(FINE[:-1], peaks(made))]
    return [row | {"unit": seed, "series": len(real)} for row in rows]


# -- what goes wrong --


def failures(variant: str, seed: int, n: int) -> dict:
    """Shares of series that hardly move and of huge ones, at the released length and four series a graph."""
    x = cauker.generate(n, LENGTH, seed, FAILING[variant]).astype(np.float64)
    spread, peak = x.std(1), np.abs(x).max(1)
    return {"constant": float((np.ptp(x, 1) == 0).mean()), "std_below_0.01": float((spread < 0.01).mean()),
            "above_100": float((peak > 100).mean()), "largest": float(peak.max()), "not_finite": int((~np.isfinite(x)).sum()),
            "unit": seed}  # fmt: skip


def composites(count: int, seed: int, most: int = 7) -> Iterator[kernels.Kernel]:
    """Random composites of the released bank that are not constant."""
    rng, bank = np.random.default_rng(seed), kernels.bank(LENGTH)
    while count:
        made = kernels.compose(bank, rng, most)
        if np.ptp(made.structure(8).covariance()) > 0:
            count -= 1
            yield made


def cholesky(seed: int, count: int, length: int = LENGTH) -> dict:
    """How often Cholesky's method refuses the full covariance, and what jitter does to the steps of the smoothest kernel."""
    refused = 0
    for made in composites(count, seed):
        try:
            np.linalg.cholesky(made.covariance(length))
        except np.linalg.LinAlgError:
            refused += 1
    step = 2 * (1 - kernels.RBF(10).covariance(length)[0, 1])                           # variance of an increment
    return {"refused": refused / count, "step_variance_with_jitter": float(1 + 2 * 1e-6 / step), "unit": seed}


def moments(factors: int, n: int, seed: int) -> list[dict]:
    """E z^4 of a product of kernels and of a product of samples, at one point in time; 3 is Gaussian."""
    rng, one = np.random.default_rng([seed, factors]), kernels.RBF(0.1)
    whole = one
    for _ in range(factors - 1):
        whole = whole * one
    draws = {"product of kernels": kernels.sample(whole, n, 8, rng)[:, 3],
             "product of samples": np.prod([kernels.sample(one, n, 8, rng)[:, 3] for _ in range(factors)], 0)}  # fmt: skip
    return [{"variant": name, "variance": float((z**2).mean()), "fourth": float((z**4).mean()), "gaussian": 3, "unit": seed}
            for name, z in draws.items()]  # fmt: skip


# -- speed --


def dense(kernel: kernels.Kernel, length: int, rng: np.random.Generator) -> Float[np.ndarray, "length"]:
    """One root as the released code draws it: the full covariance, its eigenvectors, the square roots of the sizes of its eigenvalues."""
    values, vectors = np.linalg.eigh(kernel.covariance(length))
    return vectors @ (np.sqrt(np.abs(values)) * rng.standard_normal(length))


def root_times(count: int, seed: int, length: int = LENGTH) -> list[dict]:
    """Milliseconds of CPU per root, of `dense`, of the readable half-size factors and of the compiled ones in whole graphs."""
    rng, roots = np.random.default_rng(seed), list(composites(count, seed))
    ways = {"eigenvectors": lambda: [dense(k, length, rng) for k in roots],
            "half-size factors": lambda: [kernels.sample(k, 1, length, rng) for k in roots],
            "compiled": lambda: cauker.generate(count, length, seed, CORPORA["kernelsynth"])}  # fmt: skip
    found = []
    for name, run in ways.items():
        start = time.process_time()
        run()
        found.append({"variant": name, "ms": 1000 * (time.process_time() - start) / count, "unit": seed})
    return found
