"""Series with a known truth, returned beside them. `rng` may be a seed or a generator; the same seed gives the same bytes.

Blocks and patches are counted from step 0.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from tsfm_lib.errors import TsfmError
from tsfm_lib.synth import loops
from tsfm_lib.synth.shapes import Number

Seed = int | np.random.Generator


def _sine(t, period, phase):
    return np.sin(2 * np.pi * (t / period + phase))


def _log_uniform(rng, low, high, size):
    return np.exp(rng.uniform(np.log(low), np.log(high), size))


# ---- density --------------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Density:
    series: Float32[np.ndarray, "n length"]
    mask: Bool[np.ndarray, "n length"]               # True where a step belongs to a burst
    bursts: Float[np.ndarray, "n blocks"]            # share of burst steps in each block counted from step 0: 0 or 1 without a shift
    block: int


def density(n: int, length: int, share: Number = 0.35, rng: Seed = 0, *, block: int = 32, shift: int = 0, burst: str = "sine",
            noise: Number = 0.05) -> Density:
    """A slow sine, calm or with a burst of a fast sine block by block: information that comes in known places.

    share: chance of a burst; shift: steps by which the blocks are moved against the patches; burst "noise": white noise of the same
    power, which has a high entropy and nothing to learn; "sine" is predictable.
    """
    if burst not in ("sine", "noise") or not 0 <= share <= 1 or not 0 <= shift < block:
        raise TsfmError(f"expected burst 'sine' or 'noise', 0 <= share <= 1 and 0 <= shift < {block}, got {burst!r}, {share}, {shift}")
    rng, t = np.random.default_rng(rng), np.arange(length)
    column = lambda low, high: rng.uniform(low, high, (n, 1))
    slow = _sine(t, column(150, 300), column(0, 1))
    size, period, phase = column(0.5, 1.5), column(4, 10), column(0, 1)
    on = rng.random((n, (length + shift) // block + 1)) < share
    mask = np.repeat(on, block, 1)[:, block - shift if shift else 0:][:, :length]
    fast = _sine(t, period, phase) if burst == "sine" else rng.standard_normal((n, length)) / np.sqrt(2)
    series = slow + size * mask * fast + noise * rng.standard_normal((n, length))
    starts = np.arange(0, length, block)
    bursts = np.add.reduceat(mask, starts, axis=1, dtype=float) / np.diff(np.append(starts, length))
    return Density(series.astype(np.float32), mask, bursts, block)


# ---- frequency ------------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Frequency:
    series: Float32[np.ndarray, "n length"]
    family: Int[np.ndarray, "n"]
    periods: Float[np.ndarray, "n 2"]


def frequency(n: int, length: int, families: int | None = 8, rng: Seed = 0, *, bounds: tuple[Number, Number] = (6.0, 200.0),
              noise: Number = 0.1, pairs_seed: int = 0) -> Frequency:
    """Sums of two sines whose periods (log-uniform within bounds) are those of the family; None: every series has its own.

    The pairs depend on `pairs_seed` alone, so that training and test sets with other `rng` share their families.
    """
    rng = np.random.default_rng(rng)
    if families is None:
        family, periods = np.arange(n), _log_uniform(rng, *bounds, (n, 2))
    else:
        pairs = _log_uniform(np.random.default_rng(pairs_seed), *bounds, (families, 2))
        family = rng.integers(families, size=n)
        periods = pairs[family]
    size, phase, t = rng.uniform(0.3, 1.3, (n, 2, 1)), rng.random((n, 2, 1)), np.arange(length)
    series = (size * _sine(t, periods[:, :, None], phase)).sum(1) + noise * rng.standard_normal((n, length))
    return Frequency(series.astype(np.float32), family, periods)


# ---- regimes --------------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Regimes:
    series: Float32[np.ndarray, "n length"]
    labels: Int[np.ndarray, "n length"]              # regime of every step
    switch: Int[np.ndarray, "n"]                     # first step of the second regime; the length where there is none
    periods: Float[np.ndarray, "k"]                  # of each regime


def regimes(n: int, length: int, count: int = 8, rng: Seed = 0, *, switching: Number = 0.5, patch: int = 24, imbalance: Number = 0.0,
            noise: Number = 0.1, shapes_seed: int = 0, only: int | None = None) -> Regimes:
    """Periodic regimes, each with a waveform of its own (three harmonics); a share of the series switches once, where a patch begins.

    imbalance: regime k is drawn with odds (k + 1)^-imbalance; only: every series begins in this regime. Periods and waveforms depend on
    `shapes_seed` alone.
    """
    if switching and length < 2 * patch:
        raise TsfmError(f"expected at least two patches of {patch} steps to switch between, got length {length}: pass a longer one")
    fixed, rng, t = np.random.default_rng(shapes_seed), np.random.default_rng(rng), np.arange(length)
    periods = np.geomspace(6, 48, count)
    size, shift = fixed.standard_normal((count, 3)) / np.arange(1, 4), fixed.uniform(0, 2 * np.pi, (count, 3))
    size /= np.sqrt((size ** 2).sum(1, keepdims=True) / 2)                                   # unit power
    odds = (np.arange(count) + 1.0) ** -imbalance
    first = rng.choice(count, n, p=odds / odds.sum())
    second = rng.choice(count, n, p=odds / odds.sum())
    first = first if only is None else np.full(n, only)
    second = np.where(second == first, (second + 1) % count, second)
    switch = np.where(rng.random(n) < switching, patch * rng.integers(1, max(length // patch, 2), n), length)
    labels = np.where(t < switch[:, None], first[:, None], second[:, None])
    turn = 2 * np.pi * (t / periods[labels] + rng.random((n, 1)))
    series = noise * rng.standard_normal((n, length))
    for h in range(3):
        series += size[labels, h] * np.cos((h + 1) * turn + shift[labels, h])
    return Regimes(series.astype(np.float32), labels, switch, periods)


# ---- lagged drivers -------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Drivers:
    series: Float32[np.ndarray, "n variates length"]
    graph: Bool[np.ndarray, "variates variates"]     # graph[i, j]: variate i drives variate j
    lags: Int[np.ndarray, "variates variates"]       # steps by which it comes first; 0 where there is no edge
    weights: Float[np.ndarray, "variates variates"]


def drivers(n: int, length: int, variates: int = 4, rng: Seed = 0, *, roots: int = 1, lags: tuple[int, int] = (24, 48),
            noise: Number = 0.2, law_seed: int = 0, signed: bool = True) -> Drivers:
    """Every variate after the first `roots` follows one of them: y_t = w x_{t - lag} + noise. The roots are fresh for every series.

    Roots are AR(2) with a pseudo-cycle, so their future is hard to tell from their own past beyond a few steps, while a follower's is
    written in its driver up to its lag. The law (graph, lags, weights) depends on `law_seed` alone; weights are positive unless
    `signed`.
    """
    if not 1 <= roots <= variates or not 0 <= lags[0] <= lags[1]:
        raise TsfmError(f"expected 1 <= roots <= variates and 0 <= first lag <= last lag, got {roots}, {variates}, {lags}")
    law, rng = np.random.default_rng(law_seed), np.random.default_rng(rng)
    graph, delay, weight = np.zeros((variates,) * 2, bool), np.zeros((variates,) * 2, np.int64), np.zeros((variates,) * 2)
    source = law.integers(roots, size=variates)
    shift = law.integers(lags[0], lags[1] + 1, variates)
    size = law.uniform(0.7, 1.3, variates) * (law.choice([-1, 1], variates) if signed else 1)
    for j in range(roots, variates):
        graph[source[j], j], delay[source[j], j], weight[source[j], j] = True, shift[j], size[j]
    phi = np.array([[2 * 0.9 * np.cos(2 * np.pi / 20), -0.81]])
    warm = 100 + lags[1]
    shocks = rng.standard_normal((n * roots, warm + length), np.float32)
    root = loops.filter_arma(shocks, np.repeat(phi, n * roots, 0), np.zeros(n * roots)).reshape(n, roots, -1)
    root /= root[..., 100:].std() if n else 1
    series = noise * rng.standard_normal((n, variates, length))
    for j in range(variates):
        if j < roots:
            series[:, j] = root[:, j, warm:]
        else:
            series[:, j] += size[j] * root[:, source[j], warm - shift[j]:warm - shift[j] + length]
    return Drivers(series.astype(np.float32), graph, delay, weight)


@dataclass(frozen=True)
class Copies:
    series: Float32[np.ndarray, "n 2 length"]
    delay: Int[np.ndarray, "n"]


def copies(n: int, length: int, delay: int | tuple[int, int] = 16, rng: Seed = 0) -> Copies:
    """White noise, and the same delayed: variate 1 can be told exactly from variate 0, and from nothing else."""
    low, high = (delay, delay) if isinstance(delay, int) else delay
    if not 0 <= low <= high:
        raise TsfmError(f"expected delays of at least 0 in rising order, got {delay}: pass one delay or (lowest, highest)")
    rng = np.random.default_rng(rng)
    chosen = rng.integers(low, high + 1, n)
    source = rng.standard_normal((n, length + high), np.float32)
    late = np.take_along_axis(source, high - chosen[:, None] + np.arange(length), 1)
    return Copies(np.stack([source[:, high:], late], 1), chosen)


# ---- shortcut -------------------------------------------------------------------------------------------------------------------

SHORTCUT_REGIMES = {"in distribution": 0.97, "cue random": 0.5, "cue reversed": 0.03}


@dataclass(frozen=True)
class Shortcut:
    series: Float32[np.ndarray, "n length"]          # context, then horizon
    context: int
    sign: Int[np.ndarray, "n"]                       # of the shift of the whole horizon
    ramp: Int[np.ndarray, "n"]                       # what the coarse cue says
    cue: Int[np.ndarray, "n"]                        # what the fine cue says
    oracle: Float32[np.ndarray, "n horizon"]         # the best forecast from the season and the ramp: equally good in every regime


def shortcut(n: int, rho: Number = 0.97, rng: Seed = 0, *, context: int = 256, horizon: int = 96, stable: Number = 0.85) -> Shortcut:
    """A daily sine whose horizon is moved up or down by 1.5, with two hints of the direction near the end of the context.

    A ramp over 64 steps is right with the chance `stable` everywhere; an alternation of +-0.5 over the last 32 steps is right with the
    chance `rho`, which differs between training and test (SHORTCUT_REGIMES). Means of pairs of steps erase the alternation exactly.
    """
    if context < 64 or context % 2 or not 0 <= rho <= 1:
        raise TsfmError(f"expected an even context of at least 64 and 0 <= rho <= 1, got {context} and {rho}: pass such numbers")
    rng, t = np.random.default_rng(rng), np.arange(context + horizon)
    sign = rng.choice([-1, 1], n)
    ramp = np.where(rng.random(n) < stable, sign, -sign)
    cue = np.where(rng.random(n) < rho, sign, -sign)
    season = _sine(t, 24, rng.random((n, 1)))
    series = season + 0.15 * rng.standard_normal((n, context + horizon))
    series[:, context:] += 1.5 * sign[:, None]
    series[:, context - 64:context] += ramp[:, None] * np.linspace(0, 0.8, 64)
    series[:, context - 32:context] += 0.5 * cue[:, None] * np.tile([1, -1], 16)
    oracle = season[:, context:] + 1.5 * (2 * stable - 1) * ramp[:, None]
    return Shortcut(series.astype(np.float32), context, sign, ramp, cue, oracle.astype(np.float32))


# ---- motifs and seasons that end ------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Motifs:
    series: Float32[np.ndarray, "n length"]          # context, then horizon
    context: int
    copy: Float32[np.ndarray, "n horizon"]           # the motif gone on, without noise: what a copy of the context says
    motif: int                                       # steps, a motif has mean 0 and deviation 1
    broken: bool


def motifs(n: int, context: int, horizon: int, motif: int = 32, rng: Seed = 0, *, broken: bool = True, smooth: Number = 1.0,
           noise: Number = 0.05) -> Motifs:
    """A motif repeated up to the end of the context, where one begins; the horizon goes on, or is `broken`: repeats another one.

    Every series has motifs of its own: all harmonics of the motif's length in random phase, with amplitudes h^-smooth (0: a new white
    noise of `motif` steps). Nothing in the context announces the break.
    """
    if motif < 3 or context < 2 * motif:
        raise TsfmError(f"expected a motif of 3 steps or more, twice in the context, got {motif} and {context}: pass such lengths")
    rng, order = np.random.default_rng(rng), np.arange(1, motif // 2 + 1)
    waves = np.exp(2j * np.pi * rng.random((2, n, len(order)))) * order ** -float(smooth)
    shape = np.fft.irfft(np.concatenate([np.zeros((2, n, 1)), waves], -1), motif)
    shape -= shape.mean(-1, keepdims=True)
    shape /= shape.std(-1, keepdims=True)
    at = np.arange(-context, horizon) % motif
    told, other = shape[:, :, at]
    series = told.copy()
    if broken:
        series[:, context:] = other[:, context:]
    series += noise * rng.standard_normal(series.shape)
    return Motifs(series.astype(np.float32), context, told[:, context:].astype(np.float32), motif, broken)


@dataclass(frozen=True)
class Seasons:
    series: Float32[np.ndarray, "n length"]          # context, then horizon
    context: int
    period: Number | None                            # of the context; None: no season, an AR(1)
    after: Number | None                             # of the horizon


def seasons(n: int, context: int, horizon: int, period: Number | None = 24, after: Number | None | str = "same", rng: Seed = 0, *,
            noise: Number = 0.3) -> Seasons:
    """A sine of unit power and noise, and a horizon with the same, another or no period: how a model takes seasons that change or are
    not there. Without a season the series is an AR(1) of the same power (memory 0.8)."""
    if any(p is not None and p < 2 for p in (period, after) if p != "same"):
        raise TsfmError(f"a period has 2 steps or more, got {period} and {after}")
    rng, after = np.random.default_rng(rng), period if after == "same" else after
    length, phase = context + horizon, rng.random((n, 1))
    t = np.arange(length) - context
    walk = loops.filter_arma(rng.standard_normal((n, length + 100), np.float32), np.tile([[0.8, 0.0]], (n, 1)), np.zeros(n))[:, 100:] * 0.6
    part = lambda p: walk if p is None else np.sqrt(2) * _sine(t, p, phase)
    series = np.where(t < 0, part(period), part(after)) + noise * rng.standard_normal((n, length))
    return Seasons(series.astype(np.float32), context, period, after)


# ---- eight graphs ---------------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class GraphCase:
    name: str
    about: str
    series: Float32[np.ndarray, "n channels length"]
    edges: Bool[np.ndarray, "n channels channels"]   # edges[r, i, j]: i drives j, or i and j share a source (then both ways)


GRAPH_CASES = {
    "A": "clusters with different spectra, members aligned",
    "B": "clusters with different spectra, members lagged by 0 to 48 steps",
    "C": "all clusters with the same power spectrum, a shared source each, aligned",
    "D": "all clusters with the same power spectrum, members are lagged copies",
    "E": "identical amplitudes throughout: lagged copies against sources with other phases",
    "F": "vector autoregression with directed edges, equal memory",
    "G": "vector autoregression with directed edges, unequal memory",
    "H": "drivers, and targets that also have a season of their own",
}


def graph_case(name: str, n: int = 20, rng: Seed = 0, *, channels: int = 16, length: int = 672) -> GraphCase:
    """One of the eight cases that tell graph estimators apart: what is related is known, how it looks differs.

    Four channels a cluster in A to E; in H the first of each four drives the second, the others stand by.
    """
    if name not in GRAPH_CASES or channels % 4 or channels < 8:
        raise TsfmError(f"expected a case among {', '.join(GRAPH_CASES)} and channels in fours from 8 on, got {name!r} and {channels}")
    rng = np.random.default_rng([ord(name), rng]) if isinstance(rng, int) else rng
    make = _clusters if name in "ABCDE" else _autoregression if name in "FG" else _driven
    series, edges = make(name, n, rng, channels, length)
    series = series - series.mean(-1, keepdims=True)
    return GraphCase(name, GRAPH_CASES[name], (series / series.std(-1, keepdims=True)).astype(np.float32), edges)


def graph_cases(n: int = 20, seed: int = 0, *, channels: int = 16, length: int = 672) -> dict[str, GraphCase]:
    """All eight cases, each from a stream of its own."""
    return {name: graph_case(name, n, seed, channels=channels, length=length) for name in GRAPH_CASES}


def _clusters(name, n, rng, channels, length):
    groups = channels // 4
    t, cluster = np.arange(length), np.repeat(np.arange(groups), 4)
    if name in "AB":                                         # two sines a cluster, whole cycles in the window: a lag is a rotation
        cycles = np.stack([rng.permutation(np.arange(7, 7 + 8 * groups))[: 2 * groups].reshape(groups, 2) for _ in range(n)])
        source = sum(np.sin(2 * np.pi * (cycles[..., k, None] * t / length + rng.random((n, groups, 1)))) for k in (0, 1))
    else:                                                    # one power spectrum for all; in E every realisation has its amplitudes
        amplitude = 1 / (1 + np.arange(length // 2 + 1) / 10)
        amplitude[0] = 0
        turn = np.exp(2j * np.pi * rng.random((n, groups, length // 2 + 1)))
        turn[..., -1] = np.where(turn[..., -1].real > 0, 1, -1) if length % 2 == 0 else turn[..., -1]    # a real Nyquist term
        size = 1 if name == "E" else np.sqrt(rng.standard_exponential(turn.shape))                       # Gaussian in C and D
        source = np.fft.irfft(amplitude * size * turn, length)
        source /= source.std(-1, keepdims=True)
    lag = rng.integers(0, 49, (n, channels, 1)) if name in "BDE" else np.zeros((n, channels, 1), np.int64)
    series = np.take_along_axis(source[:, cluster], (t - lag) % length, -1)
    if name != "E":
        series = series + 0.3 * rng.standard_normal(series.shape)
    edges = (cluster[:, None] == cluster) & ~np.eye(channels, dtype=bool)
    return series, np.broadcast_to(edges, (n, channels, channels)).copy()


def _autoregression(name, n, rng, channels, length):
    """x_t = diag(a) x_{t-1} + A^T x_{t-1} + e: one edge in ten, scaled so that the process stays calm."""
    edges = (rng.random((n, channels, channels)) < 0.1) & ~np.eye(channels, dtype=bool)
    memory = np.full((n, channels), 0.5) if name == "F" else rng.uniform(0.1, 0.8, (n, channels))
    matrix = edges * 0.35 + memory[:, :, None] * np.eye(channels)
    matrix *= np.minimum(1, 0.95 / np.abs(np.linalg.eigvals(matrix)).max(1))[:, None, None]
    shocks = rng.standard_normal((length + 100, n, 1, channels))
    out, state = np.empty((n, channels, length)), np.zeros((n, 1, channels))
    for t, shock in enumerate(shocks):
        state = state @ matrix + shock
        if t >= 100:
            out[..., t - 100] = state[:, 0]
    return out, edges


def _driven(name, n, rng, channels, length):
    """In each four: a driver, its target, and two bystanders with the driver's spectrum."""
    shocks = rng.standard_normal((n * channels, length + 100), np.float32)
    series = loops.filter_arma(shocks, np.tile([[0.9, 0.0]], (n * channels, 1)), np.zeros(n * channels))[:, 100:]
    series = (series / series.std(1, keepdims=True)).reshape(n, channels, length).astype(float)
    own = 3 * _sine(np.arange(length), _log_uniform(rng, 8, 60, (n, channels // 4, 1)), rng.random((n, channels // 4, 1)))
    series[:, 1::4] = series[:, 0::4] + own + 0.2 * rng.standard_normal(own.shape)
    edges = np.zeros((n, channels, channels), bool)
    edges[:, np.arange(0, channels, 4), np.arange(1, channels, 4)] = True
    return series, edges
