"""Streams: batches as pure functions of the step, so that data need no state of their own in a checkpoint.

A stream is called with a step and returns float32 [B, V, context + horizon] (NaN = missing); `description` says what it is made of.
Coarse batches (`Recipe.coarse`) have a shorter context.
"""

import ctypes
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tsfm_lib.errors import TsfmError, nearest
from tsfm_lib.synth import cauker
from tsfm_lib.synth.corpus import Corpus
from tsfm_lib.synth.mixture import MIXTURES, Augmentation, Hiding, Pool, augment, hide, make_pool
from tsfm_lib.synth.shapes import zscore
from tsfm_lib.train.recipe import Recipe
from tsfm_lib.train.state import seed_for

Batch = Float[Tensor, "B V T"]


def rng_for(seed: int, step: int, purpose: str = "data") -> np.random.Generator:
    return np.random.default_rng(seed_for(seed, step, purpose))


# -- generated series --


@dataclass(frozen=True)
class Generated:
    """Crops of a pool: mixed, roughened, hidden as the recipe says."""

    pool: Pool = field(repr=False)
    recipe: Recipe

    def __call__(self, step: int) -> Batch:
        r = self.recipe
        rng = rng_for(r.seed, step)
        if r.coarse and rng.random() < r.coarse:
            x = block_means(self.pool, r.batch, r.context + r.horizon, r.horizon, rng)
        else:
            x = self.pool.batch(r.batch, r.context + r.horizon, rng)
        x = augment(x, rng, Augmentation(share=r.augment))
        return torch.from_numpy(hide(x, x.shape[1] - r.horizon, rng, Hiding(share=r.augment))[:, None])

    @property
    def description(self) -> dict[str, Any]:
        return {"kind": "generated", "mixture": self.recipe.mixture, "weights": self.pool.mixture.weights,
                "series": len(self.pool), "length": self.pool.length, "seed": self.pool.seed, "generator": self.pool.version,
                "augmented": self.recipe.augment} | ({"coarse": self.recipe.coarse} if self.recipe.coarse else {})  # fmt: skip


COARSE = (2, 4, 8)


def block_means(pool: Pool, n: int, length: int, horizon: int, rng: np.random.Generator) -> Float[np.ndarray, "n t"]:
    """Means of blocks of 2, 4 or 8 steps, z-scored again, as many as the pool's length allows and at most `length`: what a model reads of
    a series that is shown to it at a coarser scale. Such a batch is shorter than others, but for the horizon."""
    factor = int(rng.choice([f for f in COARSE if pool.length // f > horizon] or [1]))
    steps = min(length, pool.length // factor)
    return zscore(pool.batch(n, steps * factor, rng).reshape(n, steps, factor).mean(-1))


def generated(recipe: Recipe, workers: int = 1, folder: str | Path | None = None, progress: bool = True) -> Generated:
    """The stream of a recipe. Its pool is made here, before the first step, and kept in `folder` for the next time if one is given."""
    if recipe.mixture not in MIXTURES:
        known = (*MIXTURES, *cauker.VARIANTS)
        raise TsfmError(f"no mixture is named {recipe.mixture!r}, there are {', '.join(known)}{nearest(recipe.mixture, known)}")
    if not recipe.horizon:
        raise TsfmError(f"recipe {recipe.name}: mixture {recipe.mixture!r} is for forecasters, which need a horizon: give one, or a corpus "
                        f"for encoders ({', '.join(cauker.VARIANTS)})")  # fmt: skip
    length = max(1024, int(1.6 * (recipe.context + recipe.horizon)))            # room for the fastest resampling
    pool = make_pool(MIXTURES[recipe.mixture], recipe.pool, length, recipe.seed, workers, progress, folder)
    return Generated(pool, recipe)


# -- windows of observed series --


@dataclass(frozen=True)
class Windows:
    """Windows of series in a random order that is drawn anew each epoch: every window once an epoch, none dropped."""

    series: tuple[np.ndarray, ...] = field(repr=False)                # each [V, T]; all with the same V when `together`
    length: int
    batch: int
    seed: int
    together: bool = False
    name: str = "windows"

    def __post_init__(self):
        if self.batch < 1 or self.length < 1:
            raise TsfmError(f"{self.name}: batch and length of a window should be at least 1, got {self.batch} and {self.length}")
        counts = [max(0, x.shape[1] - self.length + 1) * (1 if self.together else x.shape[0]) for x in self.series]
        object.__setattr__(self, "_ends", np.cumsum(counts))
        if not sum(counts):
            longest = max((x.shape[1] for x in self.series), default=0)
            raise TsfmError(f"{self.name}: the longest series has {longest} points, windows need {self.length}: shorten context or horizon")

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def description(self) -> dict[str, Any]:
        return {"kind": "windows", "name": self.name, "windows": len(self), "length": self.length, "channels_together": self.together}

    def __call__(self, step: int) -> Batch:
        picked = _picked(len(self), self.batch, self.seed, step)
        return torch.from_numpy(np.stack([self._window(int(w)) for w in picked]).astype(np.float32))

    def _window(self, w: int) -> np.ndarray:
        i = int(np.searchsorted(self._ends, w, side="right"))
        w -= int(self._ends[i - 1]) if i else 0
        starts = self.series[i].shape[1] - self.length + 1
        channel, start = (slice(None), w) if self.together else (slice(w // starts, w // starts + 1), w % starts)
        return self.series[i][channel, start : start + self.length]


def _picked(n: int, batch: int, seed: int, step: int) -> np.ndarray:
    """What a step takes of n things when an epoch begins wherever the one before it ended."""
    epochs, places = np.divmod(np.arange(step * batch, (step + 1) * batch), n)
    return np.concatenate([_order(n, seed, int(e))[places[epochs == e]] for e in np.unique(epochs)])


@lru_cache(maxsize=2)
def _order(n: int, seed: int, epoch: int) -> np.ndarray:
    return rng_for(seed, epoch, "order").permutation(n)


def from_windows(values: np.ndarray, context: int, horizon: int, batch: int, seed: int = 0, *, together: bool = False) -> Windows:
    """Windows of an array [V, T], a channel at a time or all `together`; series come as they are, unscaled.

    >>> stream = from_windows(np.arange(6.0)[None], context=3, horizon=2, batch=2)
    >>> len(stream), sorted(stream(0)[:, 0, 0].tolist())
    (2, [0.0, 1.0])
    """
    if values.ndim != 2:
        raise TsfmError(f"expected values of shape [V, T], got {list(values.shape)}: add the missing axis with values[None]")
    return Windows((values,), context + horizon, batch, seed, together)


def cauker_corpus(recipe: Recipe) -> Windows:
    """The stream of an encoder: `pool` series of a CauKer variant, each with mean 0 and deviation 1, every series once an epoch.

    Series that hardly move (about 2 %) are left out: scaled up, they would be rounding errors, and to a contrast they are all alike.
    """
    if recipe.mixture not in cauker.VARIANTS:
        raise TsfmError(f"no corpus of CauKer is named {recipe.mixture!r}, there are {', '.join(cauker.VARIANTS)}"
                        f"{nearest(recipe.mixture, cauker.VARIANTS)}")  # fmt: skip
    series = standardised(cauker.generate(recipe.pool, recipe.context, recipe.seed, cauker.VARIANTS[recipe.mixture]))
    return Windows((series,), recipe.context, recipe.batch, recipe.seed, name=f"{recipe.mixture}, {len(series)} of {recipe.pool} series")


@dataclass(frozen=True)
class OnDisk:
    """The same from a corpus on disk: rows are read when a step asks for them, so ten million series need no memory of their own."""

    corpus: Corpus = field(repr=False)
    batch: int
    seed: int
    rows: np.ndarray = field(repr=False)                             # of the series that move

    @property
    def description(self) -> dict[str, Any]:
        about = {name: self.corpus.manifest[name] for name in ("generator", "version", "n", "length", "seed", "per_graph")}
        return {"kind": "corpus", **about, "used": len(self.rows)}

    def __call__(self, step: int) -> Batch:
        picked = _picked(len(self.rows), self.batch, self.seed, step)
        return torch.from_numpy(standardised(self.corpus[self.rows[picked]])[:, None])


def from_corpus(corpus: Corpus, batch: int, seed: int = 0) -> OnDisk:
    """The stream of an encoder over a corpus that `tsfm_lib.synth.corpus` made. Looks once at every series, to leave out those that hardly
    move."""
    first = np.cumsum([0, *(shard["series"] for shard in corpus.manifest["shards"])])
    return OnDisk(corpus, batch, seed, np.concatenate([start + np.flatnonzero(_moves(x)) for start, x in zip(first, corpus.shards())]))


def _moves(series: Float[np.ndarray, "N T"], least: float = 1e-4) -> np.ndarray:
    return series.std(1, dtype=np.float64) > least


def standardised(series: Float[np.ndarray, "N T"]) -> Float[np.ndarray, "M T"]:
    """Those series that move, with mean 0 and deviation 1.

    >>> standardised(np.array([[1.0, 3.0], [5.0, 5.0]])).tolist()
    [[-1.0, 1.0]]
    """
    series = series[_moves(series)]
    mean, deviation = series.mean(1, keepdims=True, dtype=np.float64), series.std(1, keepdims=True, dtype=np.float64)
    return ((series - mean) / deviation).astype(np.float32)


# -- ahead of time --


class Prefetch:
    """The same batches, made ahead by threads or processes and handed out in order. Use it in a `with` block, or close it."""

    def __init__(self, stream: Callable[[int], Tensor], workers: int, processes: bool, ahead: int, pin: bool):
        self.stream, self.ahead, self.pin, self.processes = stream, ahead, pin, processes
        self._waiting: dict[int, Future] = {}
        if processes:
            method = "fork" if sys.platform == "linux" and not torch.cuda.is_initialized() else "spawn"     # fork shares the pool's memory
            context = multiprocessing.get_context(method)
            self._pool = ProcessPoolExecutor(workers, context, _begin_worker, (stream, os.getpid()))
        else:
            self._pool = ThreadPoolExecutor(workers, "stream")

    @property
    def description(self) -> Any:
        return getattr(self.stream, "description", None)

    def __call__(self, step: int) -> Tensor:
        if step not in self._waiting:                                       # a jump: what lies ahead is of no use any more
            self._drop()
        for s in range(step, step + self.ahead + 1):
            if s not in self._waiting:
                self._waiting[s] = self._pool.submit(_work, s) if self.processes else self._pool.submit(self._pinned, s)
        made = self._waiting.pop(step).result()
        return self._pin(torch.from_numpy(made)) if self.processes else made

    def _pin(self, batch: Tensor) -> Tensor:
        return batch.pin_memory() if self.pin else batch

    def _pinned(self, step: int) -> Tensor:
        return self._pin(self.stream(step))

    def _drop(self) -> None:
        for future in self._waiting.values():
            future.cancel()
        self._waiting.clear()

    def close(self) -> None:
        self._drop()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "Prefetch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def prefetch(stream: Callable[[int], Tensor], workers: int = 1, *, processes: bool = False, ahead: int | None = None,
             pin: bool | None = None) -> Prefetch:  # fmt: skip
    """`workers` threads (or processes, for a GPU that eats faster than one core cooks) work `ahead` steps; pinned where there is CUDA.

    >>> with prefetch(lambda step: torch.full((1, 1, 2), float(step)), workers=2) as stream:
    ...     [float(stream(step)[0, 0, 0]) for step in (0, 1, 2, 7)]
    [0.0, 1.0, 2.0, 7.0]
    """
    if workers < 1:
        raise TsfmError(f"workers should be at least 1, got {workers}")
    return Prefetch(stream, workers, processes, 2 * workers if ahead is None else ahead, torch.cuda.is_available() if pin is None else pin)


_streams: dict[str, Callable[[int], Tensor]] = {}                   # in a worker process: the one stream it serves


def _begin_worker(stream: Callable[[int], Tensor], parent: int) -> None:
    torch.set_num_threads(1)
    _streams["one"] = stream
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, 9)                               # die with the parent, even if it is killed without a word
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _work(step: int) -> np.ndarray:
    return _streams["one"](step).numpy()
