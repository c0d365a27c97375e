"""Mixtures of families, pools of ready series, and batches cut from a pool.

A pool is made once; a batch is a pure function of the pool and a generator: crops, some of them resampled in time, z-scored, some of
them mixed (TSMixup, arXiv 2403.07815). `augment` and `hide` then roughen a batch as the recipe says.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from tqdm import tqdm

from tsfm_lib.errors import TsfmError, nearest
from tsfm_lib.paths import replacing
from tsfm_lib.synth import chaos, families, kernels, loops, shapes
from tsfm_lib.synth.jobs import done
from tsfm_lib.synth.shapes import Number

Batch = Float32[np.ndarray, "n length"]
CHUNK = 256                          # series drawn from one stream; part of what a pool is, like the seed


@dataclass(frozen=True)
class Mixture:
    """Weights of the families, relative to their sum. The default is the recipe's final mixture.

    >>> Mixture(gp=1, seasonal=3, templates=0, arma=0, walks=0, ets=0, counts=0, chaos=0).weights
    {'gp': 0.25, 'seasonal': 0.75}
    """
    gp: Number = 0.10
    seasonal: Number = 0.25
    templates: Number = 0.36
    arma: Number = 0.0625             # with walks: one tenth, three in eight of them integrated
    walks: Number = 0.0375
    ets: Number = 0.13
    counts: Number = 0.05
    chaos: Number = 0.01
    repeats: Number = 0.0             # for models that have copying to learn before anything else

    def __post_init__(self):
        given = asdict(self)
        if not all(np.isfinite(w) and w >= 0 for w in given.values()) or sum(given.values()) <= 0:
            raise TsfmError(f"expected weights of at least 0 with a positive sum, got {given}: give one family a positive weight")

    @classmethod
    def only(cls, **weights: Number) -> "Mixture":
        """The named families and no others.

        >>> Mixture.only(walks=2).weights
        {'walks': 1.0}
        """
        unknown = [name for name in weights if name not in families.FAMILIES]
        if unknown:
            raise TsfmError(f"expected families among {', '.join(families.FAMILIES)}, got {unknown[0]!r}"
                            f"{nearest(unknown[0], families.FAMILIES)}")
        return cls(**(dict.fromkeys(families.FAMILIES, 0.0) | weights))

    @property
    def weights(self) -> dict[str, float]:
        total = sum(asdict(self).values())
        return {name: weight / total for name, weight in asdict(self).items() if weight}

    def shares(self, n: int) -> dict[str, int]:
        """n split among the families, every one within 1 of its exact share.

        >>> Mixture.only(gp=1, ets=2).shares(10)
        {'gp': 3, 'ets': 7}
        """
        names, exact = list(self.weights), np.array(list(self.weights.values())) * n
        whole = np.floor(exact).astype(int)
        for i in np.argsort(whole - exact, kind="stable")[: n - whole.sum()]:
            whole[i] += 1
        return {name: int(count) for name, count in zip(names, whole) if count}

    def draw(self, n: int, length: int, rng: np.random.Generator) -> Batch:
        """n fresh series, z-scored, families in random order by their weights; for small sets: a pool serves training."""
        names = list(self.weights)
        kind = rng.choice(len(names), n, p=list(self.weights.values()))
        out = np.empty((n, length), np.float32)
        for k, name in enumerate(names):
            rows = np.flatnonzero(kind == k)
            out[rows] = shapes.zscore(families.FAMILIES[name](len(rows), length, rng))
        return out


MIXTURES: dict[str, Mixture] = {
    "final": Mixture(),
    "all": Mixture(gp=0.10, seasonal=0.20, templates=0.33, arma=0.0875, walks=0.0525, ets=0.15, counts=0.06, chaos=0.02),
    "no templates": Mixture(gp=0.15, seasonal=0.35, templates=0, arma=0.125, walks=0.075, ets=0.20, counts=0.06, chaos=0.04),
    "periodic": Mixture.only(gp=0.20, seasonal=0.35, templates=0.45),
    "gp + seasonal": Mixture.only(gp=0.35, seasonal=0.65),
    "gp": Mixture.only(gp=1.0),
    "with repeats": Mixture(repeats=0.6),   # three in eight
}


# ---- pools ----------------------------------------------------------------------------------------------------------------------

def version() -> str:
    """Eight letters that change whenever the code that makes the series does.

    >>> len(version())
    8
    """
    digest = hashlib.sha256(f"{CHUNK} {np.__version__}".encode())
    for module in (families, shapes, loops, kernels, chaos):
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()[:8]


def chunk(family: str, index: int, length: int, seed: int) -> np.ndarray:
    """CHUNK z-scored series of a family, float16, from their own stream; series without spread are drawn again."""
    from threadpoolctl import threadpool_limits

    out, have, attempt = np.empty((CHUNK, length), np.float16), 0, 0
    number = list(families.FAMILIES).index(family)
    with threadpool_limits(1, "blas"):
        while have < CHUNK:
            rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, number, index, attempt])))
            x = shapes.zscore(families.FAMILIES[family](CHUNK, length, rng)).astype(np.float16)
            x = x[x.std(1, dtype=np.float32) > 0.5][: CHUNK - have]
            out[have:have + len(x)] = x
            have, attempt = have + len(x), attempt + 1
    return out


def make_pool(mixture: Mixture, n: int, length: int = 1024, seed: int = 0, workers: int | None = None, progress: bool = True,
              folder: str | Path | None = None) -> "Pool":
    """A pool of n series, families by weight; the same bytes for any number of workers (None: see `jobs.done`).

    folder: where to keep one .npy per family for the next time; its name holds size, seed and version, so nothing stale is read.
    """
    if not isinstance(mixture, Mixture):
        raise TsfmError(f"expected a Mixture, got {mixture!r}: pass Mixture(...) or one of MIXTURES ({', '.join(MIXTURES)})")
    if n < 1 or length < 2 or seed < 0:
        raise TsfmError(f"expected n >= 1, length >= 2 and seed >= 0, got {n}, {length}, {seed}: pass such numbers")
    made, missing = {}, {}
    for family, count in mixture.shares(n).items():
        path = None if folder is None else Path(folder) / f"{family}-{count}x{length}-seed{seed}-{version()}.npy"
        made[family] = None if path is None else _read(path, (count, length))
        if made[family] is None:
            made[family], missing[family] = np.empty((count, length), np.float16), path
    if folder is not None and missing:
        Path(folder).mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):                   # said now, not after minutes of work
            raise TsfmError(f"expected a folder to keep the pool in, but {folder} cannot be written: pass another folder, or None")
    jobs = [(family, i, length, seed) for family in missing for i in range(-(-len(made[family]) // CHUNK))]
    blocks = done(chunk, jobs, workers)
    for (family, i, *_), block in zip(jobs, tqdm(blocks, "pool", len(jobs), unit="chunk", disable=None if progress else True)):
        rows = made[family][i * CHUNK:(i + 1) * CHUNK]
        rows[:] = block[: len(rows)]
    for family, path in missing.items():
        if path is not None:
            with replacing(path) as file:
                np.save(file, made[family])
    return Pool(made, mixture, length, seed, version())


def _read(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """The stored array, or None where there is none or a damaged one."""
    try:
        x = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return x if x.shape == shape and x.dtype == np.float16 else None


# ---- batches --------------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Blend:
    """How a batch is cut and mixed: `together` = odds that 1, 2, 3 ... series are summed with Dirichlet weights.

    A random walk mixed with anything else teaches a return to the mean that walks do not have: `apart` are never mixed.
    """
    together: tuple[Number, ...] = (0.6, 0.3, 0.1)
    concentration: Number = 1.5
    resampled: Number = 0.25
    speeds: tuple[Number, Number] = (0.6, 1.6)
    apart: tuple[str, ...] = ("walks",)


_HALVES = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)


@dataclass(frozen=True)
class Pool:
    """Series of each family, float16 [count, length], z-scored."""
    series: Mapping[str, np.ndarray]
    mixture: Mixture
    length: int
    seed: int
    version: str

    def __len__(self) -> int:
        return sum(map(len, self.series.values()))

    def batch(self, n: int, length: int, rng: np.random.Generator, blend: Blend = Blend()) -> Batch:  # noqa: B008 (frozen)
        """n series of this length: cut, at times resampled, mixed; mean 0 and standard deviation 1 (a constant crop is all zeros)."""
        return self.batch_of(n, length, rng, blend)[0]

    def batch_of(self, n: int, length: int, rng: np.random.Generator, blend: Blend = Blend()) -> tuple[Batch, np.ndarray]:  # noqa: B008
        """A batch and, for each series, the index of the family (in the order of `series`) it was first cut from."""
        if not isinstance(rng, np.random.Generator):
            raise TsfmError(f"expected a random generator, got {rng!r}: pass np.random.default_rng(seed)")
        if not 2 <= length <= self.length:
            raise TsfmError(f"expected a length from 2 to {self.length}, the pool's, got {length}: make a pool of longer series")
        weights = np.array([self.mixture.weights[name] for name in self.series])
        kind = rng.choice(len(weights), n, p=weights / weights.sum())
        out = self._cut(kind, length, rng, blend)
        odds = np.array(blend.together) / sum(blend.together)
        together = 1 + rng.choice(len(odds), n, p=odds)
        alone = np.isin(list(self.series), blend.apart)
        together[alone[kind]] = 1
        others = np.where(alone, 0, weights)
        mixed = np.flatnonzero(together > 1) if others.any() else np.empty(0, int)
        if not len(mixed):
            return out, kind
        share = rng.standard_gamma(blend.concentration, (len(mixed), len(odds))).astype(np.float32)      # normalised: Dirichlet
        out[mixed] *= share[:, :1]
        for k in range(1, len(odds)):
            rows = np.flatnonzero(together[mixed] > k)
            more = self._cut(rng.choice(len(others), len(rows), p=others / others.sum()), length, rng, blend)
            out[mixed[rows]] += share[rows, k, None] * more
        out[mixed] = shapes.zscore(out[mixed])
        return out, kind

    def _cut(self, kind: np.ndarray, length: int, rng: np.random.Generator, blend: Blend) -> Batch:
        n, last = len(kind), self.length - 1
        speed = np.exp(rng.uniform(*np.log(blend.speeds), n))
        speed = np.where(rng.random(n) < blend.resampled, np.minimum(speed, last / (length - 1)), 1.0)
        room = last - speed * (length - 1)
        start = rng.random(n) * (room + (speed == 1.0))
        start = np.where(speed == 1.0, np.floor(start), start)
        pick = rng.random(n)
        out = np.empty((n, length), np.float32)
        for k, x in enumerate(self.series.values()):
            rows = np.flatnonzero(kind == k)
            loops.crop(x.view(np.uint16), _HALVES, (pick[rows] * len(x)).astype(np.int64), start[rows], speed[rows], out, rows)
        return out


# ---- roughening -----------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Augmentation:
    """Probabilities per series, for the `share` of the series that is touched at all."""
    share: Number = 0.6
    sign_flip: Number = 0.15
    time_flip: Number = 0.03
    exponential: Number = 0.08
    trend: Number = 0.15
    ramp: Number = 0.07
    level_shift: Number = 0.06
    noise: Number = 0.25
    spikes: Number = 0.08
    floor: Number = 0.05
    ceiling: Number = 0.03
    quantise: Number = 0.06


def augment(x: Batch, rng: np.random.Generator, config: Augmentation = Augmentation()) -> Batch:  # noqa: B008
    """A roughened copy of a z-scored batch: flips, bends, shifts, noise, spikes, cut floors and ceilings, coarse values.

    >>> x = np.ones((1, 4), np.float32)
    >>> augment(x, np.random.default_rng(0), Augmentation(**dict.fromkeys(asdict(Augmentation()), 0.0) | {"share": 1.0, "sign_flip": 1.0}))
    array([[-1., -1., -1., -1.]], dtype=float32)
    """
    x = x.copy()
    n, length = x.shape
    touched = rng.random(n) < config.share
    t = np.linspace(-1, 1, length, dtype=np.float32)
    some = lambda p: np.flatnonzero(touched & (rng.random(n) < p))
    column = lambda low, high, rows: rng.uniform(low, high, (len(rows), 1)).astype(np.float32)
    normals = lambda rows, width=1: shapes.normals(rng, len(rows), width)
    rows = some(config.sign_flip)
    x[rows] = -x[rows]
    rows = some(config.time_flip)
    x[rows] = x[rows, ::-1]
    rows = some(config.exponential)
    x[rows] = shapes.zscore(np.exp(column(0.2, 0.9, rows) * x[rows].clip(-4, 4)))
    rows = some(config.trend)
    x[rows] += np.float32(0.8) * normals(rows) * t
    rows = some(config.ramp)
    x[rows] *= np.maximum(np.float32(0.05), 1 + column(-0.9, 0.9, rows) * t)
    rows = some(config.level_shift)
    x[rows] += np.float32(1.5) * normals(rows) * (np.arange(length) > rng.integers(0, length, (len(rows), 1)))
    rows = some(config.noise)
    x[rows] += shapes.log_uniform(rng, 0.01, 0.5, len(rows)) * normals(rows, length)
    rows = some(config.spikes)
    spikes = normals(rows, length) * column(1, 6, rows) * (rng.random((len(rows), length)) < column(0.002, 0.02, rows))
    one_sided = rng.random((len(rows), 1)) < 0.5                                       # as outages and peaks are
    x[rows] += np.where(one_sided, np.abs(spikes) * np.sign(normals(rows)), spikes)
    rows = some(config.floor)
    x[rows] = np.maximum(x[rows], _quantile(x[rows], rng.uniform(0.05, 0.25, len(rows))))
    rows = some(config.ceiling)
    x[rows] = np.minimum(x[rows], _quantile(x[rows], rng.uniform(0.75, 0.95, len(rows))))
    rows = some(config.quantise)
    step = shapes.log_uniform(rng, 0.03, 0.6, len(rows))
    x[rows] = np.round(x[rows] / step) * step
    return x


def _quantile(x, level):
    """An observed value per row, the one at `level` of its sorted values."""
    return np.take_along_axis(np.sort(x, 1), (level * (x.shape[1] - 1)).astype(int)[:, None], 1)


@dataclass(frozen=True)
class Hiding:
    """Missing points and blocks for the touched `share`, and short contexts for the share `short` of all series."""
    share: Number = 0.6
    points: Number = 0.12
    most_points: Number = 0.3                # rate of missing points: uniform up to this
    block: Number = 0.05
    longest_block: int = 80
    short: Number = 0.45
    shortest: int = 20
    fewest: int = 8                         # a context left with fewer points gets its missing ones back


def hide(x: Batch, context: int, rng: np.random.Generator, config: Hiding = Hiding()) -> Batch:  # noqa: B008
    """A copy with NaN for what the model does not see of the first `context` steps; what follows, the target, stays whole.

    Short contexts are log-uniform from `shortest` to `context` and begin late, as left padding.
    """
    n, length = x.shape
    if not 1 <= context <= length:
        raise TsfmError(f"expected a context from 1 to the length {length}, got {context}: pass the number of steps before the target")
    touched, t = rng.random(n) < config.share, np.arange(context)
    seen = np.full(n, context)
    short = np.flatnonzero(rng.random(n) < config.short)
    lowest = min(config.shortest, context)
    seen[short] = shapes.log_uniform(rng, lowest, context, len(short))[:, 0].astype(int).clip(lowest, context)
    gone = np.zeros((n, context), bool)
    rows = np.flatnonzero(touched & (rng.random(n) < config.points))
    gone[rows] = rng.random((len(rows), context), dtype=np.float32) < rng.uniform(0, config.most_points, (len(rows), 1))
    rows = np.flatnonzero(touched & (rng.random(n) < config.block))
    begin = rng.integers(0, context, (len(rows), 1))
    gone[rows] |= (t >= begin) & (t < begin + rng.integers(1, config.longest_block + 1, (len(rows), 1)))
    padding = t < (context - seen)[:, None]
    gone[(~(gone | padding)).sum(1) < config.fewest] = False
    out = x.copy()
    out[:, :context][gone | padding] = np.nan
    return out
