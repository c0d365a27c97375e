"""Does it help to draw predictable series more often from the pretraining pool? (K7)

The corpus of Kairos is stratified by a score of predictability whose formula the sources at hand do not give. Ours is spectral: with p the
periodogram of a series without its constant part, normalised to sum 1 over n frequencies, and H its entropy,

    score = 1 - H(p) / ln n          1 for a single frequency, 0 for a flat spectrum

A pool is cut into three tiers of equal size by this score, and each tier is drawn `keep` times as often as the one above it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int

from tsfm_lib.experiments.kairos.trials import SMALL, fixed, scores, trained
from tsfm_lib.synth import shapes
from tsfm_lib.synth.families import FAMILIES, seasonal_pattern
from tsfm_lib.synth.surrogates import with_other_phases as with_other_phases
from tsfm_lib.train.streams import rng_for

TRIAL = replace(SMALL, **fixed(32), encoder_layers=1, decoder_layers=1)
"""One patch size and a layer on either side: what is tried is the data, and this learns fastest at a small budget."""
LENGTH = TRIAL.context + TRIAL.forecast_tokens * TRIAL.horizon
RATES = {"rate": 2e-3, "matrix_rate": 1e-2}
CLEAN = ("seasonal", "templates", "gp", "ets")
ALL = (*CLEAN, "arma", "counts", "walks", "chaos")
KEEP = {"uniform": 1.0, "stratified": 0.4, "strict": 0.1, "top tier only": 0.0}


# -- the score --


def predictability(x: Float[np.ndarray, "N T"]) -> Float[np.ndarray, " N"]:
    """1 - H(p) / ln n of every series; a constant one is wholly predictable.

    >>> t = np.arange(64)
    >>> predictability(np.stack([np.sin(2 * np.pi * 3 * t / 64), np.eye(64)[5]])).round(6).tolist()
    [1.0, 0.0]
    """
    power = np.abs(np.fft.rfft(x - x.mean(-1, keepdims=True))[:, 1:]) ** 2
    total = power.sum(-1, keepdims=True)
    p = power / np.where(total > 0, total, 1)
    entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(-1)
    return 1 - entropy / np.log(p.shape[-1])


def neighbour_error(x: Float[np.ndarray, " T"], lags: int = 2) -> float:
    """How well the past tells the next step by analogy: the second half is forecast by what followed the most similar `lags` values of
    the first half; mean absolute error over the mean absolute deviation from the median. Independent normal draws give the root of 2."""
    seen = np.lib.stride_tricks.sliding_window_view(x, lags + 1)
    half = len(seen) // 2
    past, now = seen[:half], seen[half + lags :]                        # no value in both
    nearest = np.abs(now[:, None, :lags] - past[None, :, :lags]).sum(-1).argmin(1)
    error = np.abs(now[:, -1] - past[nearest, -1]).mean()
    return float(error / np.abs(now[:, -1] - np.median(now[:, -1])).mean())


# -- the pool --


def white(n: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Independent draws, one series in three with heavy tails."""
    x = rng.standard_normal((n, length))
    heavy = np.flatnonzero(rng.random(n) < 1 / 3)
    x[heavy] = rng.standard_t(3, (len(heavy), length))
    return x


def buried(n: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """A season under noise of three times its size: hard, but not empty."""
    return seasonal_pattern(n, length, rng) + 3 * rng.standard_normal((n, length))


def stormy(n: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Noise whose size wanders: only the width of the forecast can be learnt."""
    return np.exp(shapes.smooth_walk(n, length, rng)) * rng.standard_normal((n, length))


NOISY: dict[str, Callable[[int, int, np.random.Generator], np.ndarray]] = {"white": white, "buried": buried, "stormy": stormy}


def draw(names: Sequence[str], n: int, rng: np.random.Generator) -> tuple[Float[np.ndarray, "n T"], Int[np.ndarray, " n"]]:
    """n series in equal parts from the named families, z-scored, and the family of each."""
    kind = np.arange(n) % len(names)
    out = np.empty((n, LENGTH))
    for k, name in enumerate(names):
        rows = np.flatnonzero(kind == k)
        out[rows] = shapes.zscore(({**FAMILIES, **NOISY})[name](len(rows), LENGTH, rng))
    return out, kind


def pool(names: Sequence[str], noise: float, n: int, seed: int) -> tuple[Float[np.ndarray, "n T"], list[str]]:
    """n series, the share `noise` of them from the noisy families, the rest from `names`; and the family of each."""
    rng = rng_for(seed, 0, "pool")
    parts = [(names, n - round(noise * n)), (tuple(NOISY), round(noise * n))]
    made = [(draw(group, count, rng), group) for group, count in parts if count]
    return np.concatenate([x for (x, _), _ in made]), [group[k] for (_, kind), group in made for k in kind]


def tiers(score: Float[np.ndarray, " n"], count: int = 3) -> Int[np.ndarray, " n"]:
    """0 for the most predictable third of the pool, and so on.

    >>> tiers(np.array([0.9, 0.1, 0.5, 0.8, 0.2, 0.4])).tolist()
    [0, 2, 1, 0, 2, 1]
    """
    rank = np.argsort(np.argsort(-score, kind="stable"), kind="stable")
    return rank * count // len(score)


def odds(score: Float[np.ndarray, " n"], keep: float) -> Float[np.ndarray, " n"]:
    """The chance of every series: a tier is drawn `keep` times as often as the one above it.

    >>> odds(np.array([0.9, 0.5, 0.1]), 0.5).round(3).tolist()
    [0.571, 0.286, 0.143]
    """
    weight = np.power(keep, tiers(score), dtype=float)
    return weight / weight.sum()


# -- the experiments: cells of a sweep --


def fresh(names: Sequence[str], each: int) -> dict[str, np.ndarray]:
    """Fresh windows of every family; the same for all models."""
    return {name: draw((name,), each, rng_for(0, i, "test"))[0] for i, name in enumerate(names)}


def sampling(variant: str, seed: int, noise: float, steps: int, series: int, each: int) -> list[dict]:
    """One model trained on a pool with a share of noise, its series drawn as `variant` says. Models of one seed share pool and start."""
    x, family = pool(CLEAN, noise, series, seed)
    chance = odds(predictability(x), KEEP[variant])
    x = torch.as_tensor(x[:, None], dtype=torch.float32)
    stream = lambda step: x[rng_for(seed, step, "draw").choice(len(x), 48, p=chance)]
    model = trained(TRIAL, stream, seed, steps, **RATES).model
    seen = float(chance[np.isin(family, CLEAN)].sum())
    groups = {"clean": CLEAN, "filtered-out": tuple(NOISY)}
    return [
        {"families": group, "dataset": name, "keep": KEEP[variant], "clean_share": seen, **scores(model, windows)}
        for group, names in groups.items() for name, windows in fresh(names, each).items()
    ]  # fmt: skip


def diversity(families: int, seed: int, steps: int, series: int, each: int) -> list[dict]:
    """One model trained on so many families, without noise, at equal steps and pool size; which ones, turns with the seed."""
    names = tuple(np.roll(ALL, -seed)[:families])
    x = torch.as_tensor(pool(names, 0.0, series, seed)[0][:, None], dtype=torch.float32)
    stream = lambda step: x[rng_for(seed, step, "draw").choice(len(x), 48)]
    model = trained(TRIAL, stream, seed, steps, **RATES).model
    return [{"dataset": name, "seen": name in names, **scores(model, windows)} for name, windows in fresh(ALL, each).items()]
