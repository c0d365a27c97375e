"""Parts that the families are made of: calendar periods, smooth walks, coloured noise, trends, profiles of one cycle.

Everything is drawn for n series at once, float32 [n, length], from the generator that is passed in.
"""

import numpy as np
from jaxtyping import Float, Float32

from tsfm_lib.synth import loops

Number = float | int
Series = Float32[np.ndarray, "n length"]
GRID = 512                                              # points of a one-cycle profile

# Short and long cycle of common samplings (hourly day and week, daily week and year, monthly year and decade, ...) with odds.
CALENDAR = np.array([
    (24, 168, 3.0), (48, 336, 2.0), (96, 672, 2.5), (144, 1008, 1.5), (288, 2016, 1.0), (7, 365.25, 2.0), (7, 30.44, 1.0),
    (52.18, 4.35, 1.0), (12, 48, 2.5), (12, 120, 0.5), (4, 20, 0.7), (5, 21, 0.8), (60, 1440, 0.5), (30, 360, 0.5), (20, 100, 0.5),
    (6, 72, 0.7),
])


def zscore(x: Float[np.ndarray, "n length"]) -> Series:
    """Mean 0 and standard deviation 1 per row; rows without spread become zeros; values stay within 30 deviations.

    >>> zscore(np.array([[1.0, 3.0], [5.0, 5.0]])).tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    x = x - x.mean(1, keepdims=True, dtype=np.float64)
    sd = np.sqrt(np.einsum("ij,ij->i", x, x)[:, None] / x.shape[1])
    return (x / np.where(sd > 1e-7, sd, np.inf)).clip(-30, 30).astype(np.float32)


def normals(rng: np.random.Generator, *shape: int) -> Float32[np.ndarray, "..."]:
    return rng.standard_normal(shape, dtype=np.float32)


def log_uniform(rng: np.random.Generator, low: Number, high: Number, n: int) -> Float32[np.ndarray, "n 1"]:
    """One value per series, a column that multiplies a batch of series."""
    return np.exp(rng.uniform(np.log(low), np.log(high), (n, 1))).astype(np.float32)


def chance(rng: np.random.Generator, p: Number | np.ndarray, n: int) -> np.ndarray:
    return rng.random(n) < p


def periods(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A short and a long period per series: a calendar pair (65 %), or anything from 3 to 400 and a multiple of it."""
    pair = CALENDAR[rng.choice(len(CALENDAR), n, p=CALENDAR[:, 2] / CALENDAR[:, 2].sum())]
    short = log_uniform(rng, 3, 400, n)[:, 0].astype(float)
    long = short * rng.choice([2, 3, 5, 7, 7, 7, 10, 12], n)
    calendar = chance(rng, 0.65, n)
    return np.where(calendar, pair[:, 0], short), np.where(calendar, pair[:, 1], long)


def smooth_walk(n: int, length: int, rng: np.random.Generator) -> Series:
    """A slow random function of unit spread: 2 to 40 pieces between independent (40 %) or accumulated (60 %) knots."""
    if n == 0:
        return np.empty((0, length), np.float32)
    knots, pieces = normals(rng, n, 42), rng.integers(2, 41, n)
    walk = chance(rng, 0.6, n)
    knots[walk] = knots[walk].cumsum(1)
    return unit(loops.interpolate(knots, pieces, chance(rng, 0.6, n), length))


def harmonics(phase: Series, size: np.ndarray, shift: np.ndarray) -> Series:
    """sum_h size_h cos(h phase - shift_h), h = 1, 2, ...; size and shift [n, H]."""
    a, b = (size * np.cos(shift)).astype(np.float32), (size * np.sin(shift)).astype(np.float32)
    return loops.harmonics(np.cos(phase), np.sin(phase), a, b)


def unit(x: Series, floor: Number = 1e-6) -> Series:
    return x / (x.std(1, keepdims=True) + np.float32(floor))


def noise(n: int, length: int, rng: np.random.Generator) -> Series:
    """Unit noise: white or AR(1) (half each), Student t with 3 degrees (20 %), slowly changing scale (20 %)."""
    e = normals(rng, n, length)
    heavy = np.flatnonzero(chance(rng, 0.2, n))
    e[heavy] /= np.sqrt(rng.standard_gamma(1.5, (len(heavy), length), dtype=np.float32) / 1.5 + np.float32(1e-6))
    coloured = np.flatnonzero(chance(rng, 0.5, n))
    phi = np.zeros((len(coloured), 2))
    phi[:, 0] = rng.uniform(0, 0.95, len(coloured))
    e[coloured] = loops.filter_arma(e[coloured], phi, np.zeros(len(coloured)))
    uneven = np.flatnonzero(chance(rng, 0.2, n))
    e[uneven] *= np.exp(np.float32(0.7) * smooth_walk(len(uneven), length, rng))
    return unit(e)


def trend(n: int, length: int, rng: np.random.Generator) -> Series:
    """None, a line, a bent line, a smooth walk, a random walk or a saturating step, one sixth each; spread about one."""
    kind, out = rng.integers(0, 6, n), np.zeros((n, length), np.float32)
    t = np.linspace(-1, 1, length, dtype=np.float32)
    rows = [np.flatnonzero(kind == k) for k in range(6)]
    out[rows[1]] = t * normals(rng, len(rows[1]), 1)
    bends = rng.integers(1, 8, len(rows[2]))
    for k in range(7):
        size = normals(rng, len(rows[2]), 1) * (k < bends)[:, None]
        out[rows[2]] += size * np.maximum(0, t - rng.uniform(-1, 1, (len(rows[2]), 1)).astype(np.float32))
    out[rows[3]] = smooth_walk(len(rows[3]), length, rng)
    out[rows[4]] = normals(rng, len(rows[4]), length).cumsum(1) / np.float32(np.sqrt(length))
    where = rng.uniform(-1, 1, (len(rows[5]), 1)).astype(np.float32)
    out[rows[5]] = np.tanh((t - where) * log_uniform(rng, 1, 10, len(rows[5])))
    return out


def combine(pattern: Series, rng: np.random.Generator, noise_level: Float32[np.ndarray, "n 1"],
            trend_level: Float32[np.ndarray, "n 1"]) -> Series:
    """Pattern, trend and noise added (65 %), multiplied (17.5 %) or added in logarithms (17.5 %)."""
    n, length = pattern.shape
    drift, e = trend(n, length, rng) * trend_level, noise(n, length, rng) * noise_level
    out, how, depth = pattern + drift + e, rng.random(n), log_uniform(rng, 0.1, 1.0, n)
    times = np.flatnonzero(how < 0.175)
    out[times] = np.exp((drift[times] / 2).clip(-3, 3)) * (1 + depth[times] * pattern[times]) * (1 + 0.3 * depth[times] * e[times])
    logs = np.flatnonzero((how >= 0.175) & (how < 0.35))
    out[logs] = np.exp((depth[logs] * (pattern[logs] + drift[logs] / 2 + e[logs] / 2)).clip(-5, 5))
    return out


# ---- profiles of one cycle on GRID points ----------------------------------------------------------------------------------------

PHASE = np.arange(GRID, dtype=np.float32) / GRID
TURN = np.float32(2 * np.pi)


def _uniform(rng: np.random.Generator, low: Number, high: Number, *shape: int) -> np.ndarray:
    return rng.uniform(low, high, shape).astype(np.float32)


def _bumps(n, rng):
    """One to four von Mises bumps."""
    out = np.zeros((n, GRID), np.float32)
    many = rng.integers(1, 5, n)
    for k in range(4):
        height = _uniform(rng, 0.2, 1, n, 1) * (k < many)[:, None]
        out += height * np.exp(log_uniform(rng, 1, 80, n) * (np.cos(TURN * (PHASE - _uniform(rng, 0, 1, n, 1))) - 1))
    return out


def _blocks(n, rng):
    """Up to seven levels, edges rounded by a moving mean of 1 to 39 grid points."""
    cuts, out = rng.integers(1, 7, n), np.zeros((n, GRID), np.float32)
    for k in range(6):
        out += normals(rng, n, 1) * (k < cuts)[:, None] * (_uniform(rng, 0, 1, n, 1) < PHASE)
    width = rng.integers(1, 40, (n, 1))
    total = np.concatenate([np.zeros((n, 1)), np.concatenate([out, out], 1).cumsum(1, dtype=np.float64)], 1)
    ends = np.arange(GRID)[None] + width
    return ((np.take_along_axis(total, ends, 1) - total[:, :GRID]) / width).astype(np.float32)


def _half_sine(n, rng):
    return np.maximum(0, np.sin(TURN * (PHASE + _uniform(rng, 0, 1, n, 1))) - _uniform(rng, -0.6, 0.6, n, 1)) ** _uniform(rng, 0.5, 2, n, 1)


def _saw(n, rng):
    top, q = _uniform(rng, 0.03, 0.97, n, 1), (PHASE + _uniform(rng, 0, 1, n, 1)) % 1
    return np.where(q < top, q / top, (1 - q) / (1 - top))


def _pulses(n, rng):
    out, many = np.zeros((n, GRID), np.float32), rng.integers(1, 5, n)
    for k in range(4):
        height = _uniform(rng, 0.3, 1, n, 1) * (k < many)[:, None]
        out += height * ((PHASE - _uniform(rng, 0, 1, n, 1)) % 1 < log_uniform(rng, 4, 60, n) / GRID)
    return out


def _rough(n, rng):
    """Straight lines between 4 to 47 random values, closed to a ring."""
    pieces, knots = rng.integers(4, 48, n), normals(rng, n, 49)
    knots[np.arange(n), pieces] = knots[:, 0]
    return loops.interpolate(knots, pieces, np.zeros(n, bool), GRID + 1)[:, :GRID]


def _smooth(n, rng):
    """One to five harmonics falling as 1 / h."""
    order = np.arange(1, 6)
    size = normals(rng, n, 5) / order * (order <= rng.integers(1, 6, (n, 1)))
    shift = _uniform(rng, 0, 2 * np.pi, n, 5)
    return harmonics(np.tile(TURN * PHASE, (n, 1)), size, shift)


def _peaked(n, rng):
    return np.exp(_smooth(n, rng))


PROFILES = (_bumps, _blocks, _half_sine, _saw, _pulses, _rough, _smooth, _peaked)


def profiles(n: int, rng: np.random.Generator) -> Float32[np.ndarray, "n grid"]:
    """Shapes of one cycle, zero mean and unit spread, the eight kinds equally often."""
    kind, out = rng.integers(0, len(PROFILES), n), np.empty((n, GRID), np.float32)
    for k, draw in enumerate(PROFILES):
        rows = np.flatnonzero(kind == k)
        if len(rows):
            out[rows] = draw(len(rows), rng)
    return unit(out - out.mean(1, keepdims=True))
