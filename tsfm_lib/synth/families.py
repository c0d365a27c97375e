"""Families of generated series: `family(n, length, rng)` -> float32 [n, length], finite, of any length.

Values are in the family's own units (counts are counts); `shapes.zscore` brings them to one scale, as the pools do.
"""

from collections.abc import Callable

import numpy as np

from tsfm_lib.synth import kernels, loops, shapes
from tsfm_lib.synth.chaos import chaos
from tsfm_lib.synth.shapes import Series, chance, combine, log_uniform, noise, normals, smooth_walk


def gp(n: int, length: int, rng: np.random.Generator, per_kernel: int = 12) -> Series:
    """Gaussian processes: 1 to 5 kernels joined by + (60 %) or x, half of them periodic; one factor serves `per_kernel` series."""
    out = np.empty((n, length), np.float32)
    for first in range(0, n, per_kernel):
        rows = out[first:first + per_kernel]
        kernel = _base_kernel(length, rng)
        for _ in range(rng.integers(0, 5)):
            other = _base_kernel(length, rng)
            kernel = kernel * other if rng.random() < 0.4 else kernel + other
        rows[:] = kernels.sample(kernel, len(rows), length, rng)
    return out


def _base_kernel(length, rng):
    kind, scale = rng.integers(12), float(log_uniform(rng, 0.01, 1.0, 1)[0, 0])
    if kind < 6:
        short, long = shapes.periods(1, rng)
        return kernels.ExpSineSquared(float(rng.choice([0.3, 1.0, 3.0])), float((short if rng.random() < 0.7 else long)[0]) / length)
    if kind < 8:
        return kernels.RBF(scale)
    if kind < 10:
        return kernels.RationalQuadratic(scale, float(rng.choice([0.1, 1.0, 10.0])))
    return (kernels.White(0.1), kernels.DotProduct(float(rng.uniform(0, 1))), kernels.Matern(2 * scale, 0.5))[rng.integers(3)]


def seasonal_pattern(n: int, length: int, rng: np.random.Generator, period: np.ndarray | None = None) -> Series:
    """Unit sum of up to three seasonalities with h^-g harmonics, of which some drift in phase or amplitude.

    period: the first period of each series [n]; the others are then left out.
    """
    short, long = shapes.periods(n, rng)
    out = np.zeros((n, length), np.float32)
    t = np.arange(length)
    plans = [(short, 0.9, 6, 1.0, 1.0), (long, 0.5, 6, 0.2, 1.5), (log_uniform(rng, 4, 500, n)[:, 0], 0.2, 2, 0.1, 1.0)]
    for p, share, orders, low, high in plans if period is None else [(period, 1.0, 6, 1.0, 1.0)]:
        rows = np.flatnonzero(chance(rng, share, n))
        k, p = len(rows), np.asarray(p, float)[rows, None]
        phase = (2 * np.pi * (t / p + rng.random((k, 1)))).astype(np.float32)
        drifting = np.flatnonzero(chance(rng, 0.15, k))
        phase[drifting] += np.float32(0.6) * smooth_walk(len(drifting), length, rng)
        order = np.arange(1, orders + 1)
        size = normals(rng, k, orders) * order ** -rng.uniform(0.4, 2.5, (k, 1)) * (p / order > 2.2)
        wave = shapes.unit(shapes.harmonics(phase, size, rng.uniform(0, 2 * np.pi, (k, orders))), 1e-3)
        swelling = np.flatnonzero(chance(rng, 0.35, k))
        wave[swelling] *= np.maximum(0, 1 + np.float32(0.5) * smooth_walk(len(swelling), length, rng))
        out[rows] += wave * log_uniform(rng, low, high, k)
    return shapes.unit(out, 1e-3)


def seasonal(n: int, length: int, rng: np.random.Generator) -> Series:
    """Seasonal harmonics with a trend and noise."""
    return combine(seasonal_pattern(n, length, rng), rng, log_uniform(rng, 0.01, 1.0, n), log_uniform(rng, 0.1, 4.0, n))


def repeated_profile(n: int, length: int, rng: np.random.Generator, steady: np.ndarray | None = None,
                     period: np.ndarray | None = None) -> Series:
    """One-cycle profiles repeated: a week of seven cycles with one or two other days, gains and levels that vary by cycle.

    steady [n]: series whose cycles repeat almost exactly (weekends stay); period [n] in steps: else calendar or log-uniform.
    """
    steady = np.zeros(n, bool) if steady is None else steady
    if period is None:
        period, _ = shapes.periods(n, rng)
        period = np.maximum(3, np.where(chance(rng, 0.8, n), np.round(period), period))
        period = np.where(period > length / 2.5, 24, period)
    start = rng.uniform(0, 7, n)
    cycles = int((start + length / period).max(initial=0)) + 2
    profile, other = shapes.profiles(n, rng), shapes.profiles(n, rng)
    alike = np.flatnonzero(chance(rng, 0.5, n))                       # the other day is the same one, flatter and moved
    other[alike] = profile[alike] * rng.uniform(0.1, 1.1, (len(alike), 1)) + rng.normal(0, 0.5, (len(alike), 1))
    upward = np.flatnonzero(chance(rng, 0.6, n))                      # gains act on what stands above the floor
    floor = np.minimum(profile.min(1), other.min(1))[upward, None]
    profile[upward] -= floor
    other[upward] -= floor
    rest_days = np.where(chance(rng, np.where(steady, 0.7, 0.5), n), rng.choice([1, 2, 2, 2], n), 0)
    day_gain = 1 + (0.35 * chance(rng, 0.3, n))[:, None] * normals(rng, n, 7)
    spread = np.where(chance(rng, 0.6, n), log_uniform(rng, 0.02, 0.6, n)[:, 0], 0) * np.where(steady, 0.02, 1)
    gain = normals(rng, n, cycles).clip(-3, 3)
    walk = np.flatnonzero(chance(rng, 0.4, n))
    gain[walk] = (0.4 * gain[walk]).cumsum(1)
    gain = np.exp((spread[:, None] * gain).clip(-2, 2)).astype(np.float32)
    moving = np.where(chance(rng, 0.4, n), log_uniform(rng, 0.05, 1.0, n)[:, 0], 0) * np.where(steady, 0.02, 1)
    level = moving[:, None].astype(np.float32) * normals(rng, n, cycles)
    walk = np.flatnonzero(chance(rng, 0.5, n))
    level[walk] = np.float32(0.4) * level[walk].cumsum(1)
    return loops.repeat(profile, other, period.astype(float), start, rest_days, day_gain.astype(np.float32), gain, level, length)


def solar(n: int, length: int, rng: np.random.Generator) -> Series:
    """Daylight: exactly zero nights, days of varying height and length, passing clouds, at times a ceiling; mostly 10 or 5 minutes."""
    period = rng.choice([24, 48, 96, 144, 288], n, p=[0.2, 0.15, 0.15, 0.35, 0.15])
    period = np.where(period > length / 2.5, 24, period)[:, None]
    cycle = np.arange(length) / period + rng.uniform(0, 1, (n, 1))
    phase = (cycle % 1 - 0.5).astype(np.float32)
    year = np.sin(2 * np.pi * (cycle / 365.25 + rng.random((n, 1)))).astype(np.float32)
    day_length = rng.uniform(0.35, 0.6, (n, 1)).astype(np.float32) * (1 + rng.uniform(0, 0.25, (n, 1)).astype(np.float32) * year)
    bell = np.cos(np.pi * phase / day_length) * (np.abs(phase) < day_length / 2)
    bell = np.maximum(bell, 0) ** rng.uniform(0.6, 2.0, (n, 1)).astype(np.float32)
    days = normals(rng, n, int(cycle.max(initial=0)) + 1)
    murky = log_uniform(rng, 0.02, 0.8, n)
    days = np.exp(-murky * np.abs(days))
    clouds = np.zeros((n, 2))
    clouds[:, 0] = rng.uniform(0.5, 0.97, n)
    clouds = shapes.unit(loops.filter_arma(normals(rng, n, length), clouds, np.zeros(n)))
    power = bell * np.take_along_axis(days, cycle.astype(int), 1) * np.exp(-log_uniform(rng, 0.005, 0.7, n) * np.maximum(clouds, 0))
    ceiling = np.where(chance(rng, 0.2, n), rng.uniform(0.5, 0.9, n), 2.0)[:, None].astype(np.float32)
    return np.minimum(power, ceiling)


def templates(n: int, length: int, rng: np.random.Generator) -> Series:
    """Repeated profiles: with trend and noise (67 %), almost exact (15 %), solar (10 %), or cut to a floor at night (8 %)."""
    kind = rng.random(n)
    steady, sun, night = kind < 0.15, (kind >= 0.15) & (kind < 0.25), np.flatnonzero((kind >= 0.25) & (kind < 0.33))
    pattern = shapes.unit(repeated_profile(n, length, rng, steady), 1e-3)
    noise_level = np.where(steady[:, None], log_uniform(rng, 0.001, 0.01, n), log_uniform(rng, 0.005, 0.6, n))
    trend_level = np.where(steady[:, None], log_uniform(rng, 0.01, 0.3, n), log_uniform(rng, 0.1, 4.0, n))
    above = pattern[night] - pattern[night].min(1, keepdims=True)
    out = combine(pattern - pattern.mean(1, keepdims=True), rng, noise_level, trend_level)
    out[night] = above * np.exp(np.float32(0.4) * noise(len(night), length, rng)) * (above > 0.15)
    out[sun] = solar(int(sun.sum()), length, rng)
    return out


def walks(n: int, length: int, rng: np.random.Generator) -> Series:
    """Integrated noise: random walks (some with drift or heavy tails), stochastic volatility, integrated AR(1), local trends."""
    kind = rng.choice(4, n, p=[0.45, 0.25, 0.15, 0.15])
    shocks = normals(rng, n, length)
    heavy = np.flatnonzero(chance(rng, 0.25, n))
    shocks[heavy] = rng.standard_t(4, (len(heavy), length))
    drift = np.flatnonzero((kind < 2) & chance(rng, 0.5, n))
    shocks[drift] += rng.normal(0, 0.1, (len(drift), 1))
    rough = np.flatnonzero(kind == 1)
    shocks[rough] *= np.exp(np.float32(0.6) * smooth_walk(len(rough), length, rng))
    lagged = np.flatnonzero(kind == 2)
    phi = np.zeros((len(lagged), 2))
    phi[:, 0] = rng.uniform(0.5, 0.99, len(lagged))
    shocks[lagged] = loops.filter_arma(shocks[lagged], phi, np.zeros(len(lagged)))
    local = np.flatnonzero(kind == 3)
    shocks[local] = shocks[local].cumsum(1) * np.float32(0.01) + shocks[local] * rng.uniform(0.1, 2, (len(local), 1))
    return _finish(shocks.cumsum(1), rng)


BURN = 200                                                           # steps before the first, so that short memories have settled


def arma(n: int, length: int, rng: np.random.Generator) -> Series:
    """Stationary and nearly so: ARMA(2,1), Ornstein-Uhlenbeck, pseudo-cycles, shot noise (rivers), AR(1) with level jumps."""
    kind = rng.integers(0, 5, n)
    shocks = normals(rng, n, length + BURN)
    heavy = np.flatnonzero(chance(rng, 0.25, n))
    shocks[heavy] = rng.standard_t(4, (len(heavy), length + BURN))
    ripple = shocks[:, BURN:].copy()
    roots = rng.uniform(-0.6, 0.98, (n, 2))
    phi = np.stack([roots.sum(1), -roots.prod(1)], 1)
    theta = np.where(kind == 0, rng.uniform(-0.8, 0.8, n), 0)
    cycle, damping = 2 * np.pi / log_uniform(rng, 5, 300, n)[:, 0], 1 - log_uniform(rng, 0.002, 0.1, n)[:, 0]
    phi[kind == 2] = np.stack([2 * damping * np.cos(cycle), -damping ** 2], 1)[kind == 2]
    memory = np.choose(np.maximum(kind, 1) - 1, [1 - log_uniform(rng, 0.004, 0.5, n)[:, 0], np.zeros(n),
                                                 1 - log_uniform(rng, 0.02, 0.6, n)[:, 0], rng.uniform(0.3, 0.98, n)])
    one = (kind == 1) | (kind >= 3)
    phi[one] = np.stack([memory, np.zeros(n)], 1)[one]
    rain = np.flatnonzero(kind == 3)
    shocks[rain] = _showers(len(rain), length + BURN, rng)
    out = loops.filter_arma(shocks, phi, theta)[:, BURN:]
    out[rain] = (out[rain] + rng.uniform(0, 0.5, (len(rain), 1))) * np.exp(np.float32(0.05) * ripple[rain])
    jumping = np.flatnonzero(kind == 4)
    jumps = normals(rng, len(jumping), length) * (rng.random((len(jumping), length)) < 0.005)
    out[jumping] += jumps.cumsum(1) * rng.uniform(1.5, 6, (len(jumping), 1))
    return _finish(out, rng)


def _showers(n, length, rng):
    """Gamma impulses at a rate with a season: half of them yearly on daily data."""
    period = np.where(chance(rng, 0.5, n)[:, None], 365.25, log_uniform(rng, 20, 500, n))
    season = np.sin(2 * np.pi * (np.arange(length) / period + rng.random((n, 1))))
    rate = log_uniform(rng, 0.01, 0.3, n) * np.maximum(0.05, 1 + 0.9 * season)
    wet = rng.random((n, length)) < rate
    out = np.zeros((n, length), np.float32)
    out[wet] = rng.standard_gamma(0.8, int(wet.sum()))
    return out


def _finish(x, rng):
    """Unit scale; one in five exponentiated; three in ten with measurement noise."""
    x = shapes.zscore(x)
    n = len(x)
    skewed = np.flatnonzero(chance(rng, 0.2, n))
    x[skewed] = np.exp(rng.uniform(0.2, 1.0, (len(skewed), 1)) * x[skewed])
    blurred = np.flatnonzero(chance(rng, 0.3, n))
    x[blurred] += log_uniform(rng, 0.02, 1.0, len(blurred)) * normals(rng, len(blurred), x.shape[1])
    return x


ETS_PERIODS = np.array([1, 4, 5, 7, 12, 24, 52])
ETS_ODDS = np.array([2.0, 1.0, 0.7, 3.0, 6.0, 1.0, 0.8])


def ets(n: int, length: int, rng: np.random.Generator) -> Series:
    """Exponential smoothing states: level, damped slope, season; half additive or with logarithms scaled to a plausible range.

    A quarter is business data: m = 4 or 12, strong multiplicative seasons, slow growth, little noise.
    """
    business = chance(rng, 0.25, n)
    period = np.where(business, rng.choice([4, 12, 12, 12], n), rng.choice(ETS_PERIODS, n, p=ETS_ODDS / ETS_ODDS.sum()))
    pick = lambda trade, plain: np.where(business, trade, plain)
    alpha = pick(log_uniform(rng, 0.02, 0.6, n)[:, 0], log_uniform(rng, 0.01, 0.9, n)[:, 0])
    beta = np.where(chance(rng, 0.5, n), 0.3 * log_uniform(rng, 0.001, 0.1, n)[:, 0], 0) * alpha
    gamma = np.where(chance(rng, 0.6, n), log_uniform(rng, 0.005, 0.4, n)[:, 0], 0.001) * pick(0.3, 1.0)
    phi = np.where(chance(rng, 0.5, n), 1.0, rng.uniform(0.85, 0.995, n))
    slope = np.where(chance(rng, 0.5, n), rng.normal(0, 0.03, n), 0)
    size = pick(log_uniform(rng, 1.0, 15, n)[:, 0], log_uniform(rng, 0.3, 5, n)[:, 0])[:, None]
    j, shift = np.arange(ETS_PERIODS.max()), rng.uniform(0, 2 * np.pi, (2, n, 1))
    wave = np.sin(2 * np.pi * j / period[:, None] + shift[0]) + 0.4 * np.sin(4 * np.pi * j / period[:, None] + shift[1])
    season = np.where(chance(rng, 0.5, n)[:, None], wave, normals(rng, n, len(j))) * size * (period > 1)[:, None]
    out = loops.ets(normals(rng, n, length), alpha, beta, gamma, phi, slope, season, period)
    logs = np.flatnonzero(business | chance(rng, 1 / 3, n))
    middle = slice(length * 2 // 5, length * 3 // 5 + 2)             # a window such as a model sees
    spread = out[logs, middle].std(1, keepdims=True) + 1e-6
    reach = np.where(business[logs, None], log_uniform(rng, 0.1, 0.7, len(logs)), log_uniform(rng, 0.05, 0.7, len(logs)))
    out[logs] = np.exp(3 * np.tanh((out[logs] - out[logs, length // 2][:, None]) / spread * reach / 3))      # bent, so never cut flat
    return out


def counts(n: int, length: int, rng: np.random.Generator) -> Series:
    """Whole numbers with a seasonal rate: Poisson, negative binomial (40 %), a fifth with surplus zeros."""
    shape, half = np.empty((n, length), np.float32), np.flatnonzero(chance(rng, 0.5, n))
    rest = np.setdiff1d(np.arange(n), half)
    shape[half], shape[rest] = repeated_profile(len(half), length, rng), seasonal_pattern(len(rest), length, rng)
    depth = log_uniform(rng, 0.1, 1.2, n)
    rate = log_uniform(rng, 0.05, 60, n) * np.exp((depth * shapes.zscore(shape) + 0.4 * shapes.trend(n, length, rng)).clip(-4, 4))
    uneven = np.flatnonzero(chance(rng, 0.4, n))
    rate[uneven] *= rng.gamma(2, 0.5, (len(uneven), length))
    out = rng.poisson(np.minimum(rate, 1e4)).astype(np.float32)
    sparse = np.flatnonzero(chance(rng, 0.2, n))
    out[sparse] *= rng.random((len(sparse), length)) < rng.uniform(0.1, 0.9, (len(sparse), 1))
    return out


def repeats(n: int, length: int, rng: np.random.Generator) -> Series:
    """One cycle of 2 to 64 values over and over, with white noise of 0.3 to 40 % of its size: little to learn here but copying.

    Values of a cycle are independent (40 %), smoothed (30 %), skewed (20 %) or mostly one value (10 %)."""
    longest, kind = 64, rng.random(n)
    period = log_uniform(rng, 2, longest + 0.99, n).astype(int)
    cycle = normals(rng, n, longest)
    smooth = (kind < 0.3) & (period[:, 0] > 8)
    for back in (1, 2):                                                        # over four values, weighted
        cycle[smooth] += np.take_along_axis(cycle[smooth], (np.arange(longest) - back) % period[smooth], axis=1)
    skewed, rare = (kind >= 0.3) & (kind < 0.5), (kind >= 0.5) & (kind < 0.6)
    cycle[skewed] = np.exp(cycle[skewed])
    cycle[rare] = cycle[rare] > 0.8
    cycle[rare, 0], cycle[rare, 1] = 1, 0                                      # no cycle is flat
    pattern = np.take_along_axis(cycle, (np.arange(length) + rng.integers(0, longest, (n, 1))) % period, axis=1)
    return shapes.zscore(pattern) + log_uniform(rng, 0.003, 0.4, n) * normals(rng, n, length)


FAMILIES: dict[str, Callable[[int, int, np.random.Generator], np.ndarray]] = {
    "gp": gp, "seasonal": seasonal, "templates": templates, "arma": arma, "walks": walks, "ets": ets, "counts": counts, "chaos": chaos,
    "repeats": repeats,
}
