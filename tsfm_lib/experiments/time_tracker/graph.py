"""What is a graph between channels worth in forecasting? (T1)

One channel-independently pretrained model per seed is fine-tuned with different graphs, same steps and batches.

An adjacency is [B V V], row = the variate that reads, as in `nn.graph`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tsfm_lib import data
from tsfm_lib.errors import TsfmError
from tsfm_lib.experiments.time_tracker.pair_scores import ESTIMATORS, pairs
from tsfm_lib.experiments.time_tracker.trials import SMALL, scores, trained
from tsfm_lib.models.time_tracker import TimeTracker
from tsfm_lib.nn.graph import FrequencyGraph
from tsfm_lib.synth import planted
from tsfm_lib.synth.mixture import Mixture, make_pool
from tsfm_lib.train.streams import from_windows, rng_for

# ---- data sets with and without a known graph ---------------------------------------------------------------------------------------

CONFIG = replace(SMALL, private_experts=0, active_experts=0)
"""The small model of the other experiments without private experts: they are not what is tried here, and a choice of experts for a whole
series would let every token know the future."""

ALPHA = 0.75
"""Of a quarter, a half, three quarters and one: finds the pairs of planted-drivers best (`found_edges`), seen before any forecast."""
RATE = 5e-3
OTHER = 0.0
"""v at the start. The model's own default, -2, mixes so gently that a short fine-tuning hardly begins to; see the copy test."""
VARIATES, ROOTS, LAG, NOISE = 8, 4, 24, 0.1
OBSERVED = ("weather", "exchange_rate", "ETTh1", "ETTh2")
AHEAD = {"observed": 96, "planted": CONFIG.patch}
"""Steps that are forecast. A follower is written in its driver for LAG steps ahead, so one patch is as far as that can be judged."""


@dataclass(frozen=True)
class Task:
    stream: Callable[[int], Tensor]  # batches [B V context + patch]
    windows: Float[np.ndarray, "n V T"]  # what the model is judged on
    truth: Bool[np.ndarray, "V V"] | None = None  # row reads column


def planted_drivers(n: int, seed: int, rng: np.random.Generator, season: float = 0.0, length: int = CONFIG.context + CONFIG.patch
                    ) -> planted.Drivers:  # fmt: skip
    """Followers repeat their root LAG steps later; who follows whom is the law of the seed. `season`: size of a sine that each follower
    has of its own and that makes its spectrum unlike its driver's."""
    made = planted.drivers(n, length, VARIATES, rng, roots=ROOTS, lags=(LAG, LAG), noise=NOISE, law_seed=seed, signed=False)
    if not season:
        return made
    period, phase = (rng.uniform(low, high, (n, VARIATES - ROOTS, 1)) for low, high in ((8, 40), (0, 1)))
    series = made.series.copy()
    series[:, ROOTS:] += season * np.sin(2 * np.pi * (np.arange(length) / period + phase))
    return replace(made, series=series.astype(np.float32))


def delayed_copy(n: int, rng: np.random.Generator, delay: int, length: int = CONFIG.context + CONFIG.patch) -> planted.Copies:
    return planted.copies(n, length, delay, rng)


def task(dataset: str, seed: int, batch: int, count: int) -> Task:
    """Batches to learn from and `count` windows to be judged on. "copy-12": white noise and the same 12 steps later."""
    if dataset in OBSERVED:
        return observed_task(dataset, seed, batch, count)
    if dataset.startswith("copy-"):
        delay = int(dataset.removeprefix("copy-"))
        draw = lambda n, rng: delayed_copy(n, rng, delay).series
        truth = np.array([[False, False], [True, False]])
    elif dataset in ("planted-drivers", "planted-drivers-season"):
        season = 2.0 if dataset.endswith("season") else 0.0
        draw = lambda n, rng: planted_drivers(n, seed, rng, season).series
        truth = planted_drivers(1, seed, rng_for(seed, 0)).graph.T
    else:
        known = ", ".join(("planted-drivers", "planted-drivers-season", "copy-<delay>", *OBSERVED))
        raise TsfmError(f"expected a data set among {known}, got {dataset!r}")
    return Task(lambda step: torch.from_numpy(draw(batch, rng_for(seed, step))), draw(count, rng_for(seed, 0, "held out")), truth)


def observed_task(dataset: str, seed: int, batch: int, count: int) -> Task:
    """Channels z-scored by their train part; windows of the train part to learn from, evenly spaced ones of the test part to be judged."""
    found = data.load(dataset)
    values = data.Scaler.fit(found.series[0][:, found.split("train", 0)]).apply(found.series[0])
    test, steps = found.split("test", 0), AHEAD["observed"]
    past, future = data.windows(values, CONFIG.context, steps, data.starts(test.start, test.stop or values.shape[1], steps, count))
    stream = from_windows(values[:, found.split("train", 0)], CONFIG.context, CONFIG.patch, batch, seed, together=True)
    return Task(stream, np.concatenate([past, future], axis=-1))


# ---- graphs for a model -------------------------------------------------------------------------------------------------------------

ARMS = ("none", "learned", "random", "full", "correlation", "lagged-correlation")
KNOWN = (*ARMS, "oracle", "learned-fixed")  # where the truth is known; learned-fixed: without the draw, in training too


def strongest(score: Float[Tensor, "B V V"], count: Int[Tensor, " B"]) -> Bool[Tensor, "B V V"]:
    """The `count` pairs with the highest score in each sample, both ways, and nothing else.

    >>> score = torch.tensor([[[1.0, 0.2, 0.9], [0.2, 1.0, 0.1], [0.9, 0.1, 1.0]]])
    >>> strongest(score, torch.tensor([1])).int().tolist()
    [[[0, 0, 1], [0, 0, 0], [1, 0, 0]]]
    """
    rows, columns = (torch.as_tensor(i) for i in pairs(score.shape[-1]))
    flat = score[:, rows, columns]
    place = flat.argsort(dim=-1, descending=True, stable=True).argsort(-1)
    edges = torch.zeros_like(score, dtype=torch.bool)
    edges[:, rows, columns] = place < count[:, None]
    return edges | edges.mT


def adjacency(arm: str, graph: FrequencyGraph, z: Float[Tensor, "B V T"], truth: Bool[np.ndarray, "V V"] | None,
              generator: torch.Generator) -> Bool[Tensor, "B V V"]:  # fmt: skip
    """The graph of an arm for normalised windows. "random" and both correlations have exactly as many edges in every sample as the
    learned graph has there: their best ones, or any."""
    batch, variates, _ = z.shape
    if arm in ("none", "full"):
        return torch.full((batch, variates, variates), arm == "full")
    if arm == "oracle":
        if truth is None:
            raise TsfmError("an oracle needs a data set whose graph is known: use planted-drivers or copy-<delay>")
        return torch.as_tensor(truth).expand(batch, -1, -1)
    if arm == "learned-fixed":
        return graph.similarity(z) > graph.cut
    links = graph(z, generator)
    learned = torch.zeros(batch, variates, variates, dtype=torch.bool) if links is None else links.adjacency()
    if arm == "learned":
        return learned
    score = torch.rand(batch, variates, variates, generator=generator) if arm == "random" else ESTIMATORS[arm](z)
    return strongest(score, density_pairs(learned))


def found_edges(alphas: Sequence[float | int], seeds: Sequence[int], count: int = 64) -> pd.DataFrame:
    """How well the fixed graph finds the pairs of planted-drivers that share a root, per alpha and seed: what ALPHA was chosen by."""
    rows = []
    for seed in seeds:
        made = planted_drivers(count, seed, rng_for(seed, 1, "graph only"))
        source = np.where(made.graph.any(0), made.graph.argmax(0), np.arange(VARIATES))
        upper = pairs(VARIATES)
        related, driven = (torch.as_tensor(x[upper]) for x in (source[:, None] == source, made.graph | made.graph.T))
        z = torch.as_tensor(made.series[..., : CONFIG.context])
        z = (z - z.mean(-1, keepdim=True)) / z.std(-1, keepdim=True)
        found = FrequencyGraph(CONFIG.context, 1).similarity(z)[:, *upper]
        for alpha in alphas:
            edge = found > 1 - alpha
            hits, every = edge[:, related].sum(), edge.sum()
            rows.append({
                "alpha": alpha, "seed": seed, "precision": float(hits / every) if every else 0.0,
                "recall": float(edge[:, related].float().mean()), "F1": float(2 * hits / (every + count * related.sum())),
                "driver found": float(edge[:, driven].float().mean()), "driver drawn": float(alpha * found[:, driven].mean()),
            })  # fmt: skip
    return pd.DataFrame(rows)


def density_pairs(edges: Bool[Tensor, "B V V"]) -> Int[Tensor, " B"]:
    """Connected pairs of each sample, whichever way they are read."""
    rows, columns = pairs(edges.shape[-1])
    return (edges | edges.mT)[:, rows, columns].sum(-1)


# ---- training and judging -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def pretrained(seed: int, steps: int) -> TimeTracker:
    """Channels apart, on generated series of four kinds: the one start of all arms of a seed."""
    pool = make_pool(Mixture.only(seasonal=1, templates=1, arma=1, walks=1), 1024, 512, seed, progress=False)
    draw = lambda step: torch.from_numpy(pool.batch(48, CONFIG.context + CONFIG.horizon, rng_for(seed, step))[:, None])
    return trained(CONFIG, draw, seed, steps).model


@torch.no_grad()
def likeness(model: TimeTracker, context: Float[Tensor, "B V T"], edges: Bool[Tensor, "B V V"]) -> float:
    """Mean cosine between what the model has made of different variates of a sample: 1 = all have become the same."""
    z, seen, _ = model.normalise(model.window(context))
    last = model.encode(z, seen, model.links(z, edges)).hidden[:, :, -1]
    last = torch.nn.functional.normalize(last - last.mean((0, 1)), dim=-1)
    rows, columns = pairs(last.shape[1])
    return float((last @ last.mT)[:, rows, columns].mean())


def judged(model: TimeTracker, arm: str, given: Task, seed: int) -> dict[str, float]:
    """Errors on the windows of a task with the arm's graph, the density of that graph, and how alike variates have become.

    `MSE_followers` is over the variates that read somebody in the true graph."""
    context = torch.as_tensor(given.windows[..., : model.config.context], dtype=torch.float32)
    model.eval()
    z = model.normalise(model.window(context))[0]
    edges = adjacency(arm, model.graph, z, given.truth, torch.Generator().manual_seed(seed))
    count = edges.shape[-1] * (edges.shape[-1] - 1) / 2
    found = scores(model, given.windows, edges.numpy()) | {"density": float(density_pairs(edges).float().mean() / count)}
    found["likeness"] = likeness(model, context, edges)
    if given.truth is not None:
        readers = np.flatnonzero(given.truth.any(1))
        found["MSE_followers"] = scores(model, given.windows, edges.numpy(), slice(int(readers[0]), int(readers[-1]) + 1))["MSE"]
        hit = (edges | edges.mT)[:, torch.as_tensor(given.truth)].float().mean()
        found["recall"] = float(hit)  # share of the true edges that the arm's graph has
    return found


def graph_forecasting(dataset: str, variant: str, seed: int, steps: int, count: int, pretraining: int, alpha: float = ALPHA,
                      other: float = OTHER, batch: int = 8) -> dict[str, Any]:  # fmt: skip
    """Fine-tune the seed's pretrained model with one arm's graph and judge it; without steps it is judged as it is."""
    given = task(dataset, seed, batch, count)
    model = pretrained(seed, pretraining).mixed(alpha=alpha, other_bias=other)

    def loss(model: TimeTracker, batch: Tensor, generator: torch.Generator) -> Tensor:
        z = model.normalise(model.window(batch[..., : -model.config.horizon]))[0]
        return model.loss(batch, generator, adjacency=adjacency(variant, model.graph, z, given.truth, generator))

    if steps:
        model = trained(model.config, given.stream, seed, steps, batch=batch, start=model, loss=loss, rate=RATE).model
    return judged(model, variant, given, seed) | {"horizon": given.windows.shape[-1] - model.config.context, "unit": seed}


# ---- grids --------------------------------------------------------------------------------------------------------------------------

BUDGET = {
    "quick": {"seeds": 1, "planted": 8, "observed": 3, "count": 8, "pretraining": 8},
    "laptop": {"seeds": 5, "planted": 250, "observed": 60, "count": 96, "pretraining": 150},
    "full": {"seeds": 10, "planted": 4000, "observed": 1000, "count": 512, "pretraining": 3000},
}
"""Training seeds, steps of fine-tuning on either kind of set, windows to be judged on and steps of pretraining, by profile."""

SWEEP = (0.5, 1.0)  # beside ALPHA, which the arms have
DELAYS = (12, 24)
LONGER = 4  # times as many steps
COPY_WAYS = {
    "no edge": ("none", OTHER, True), "edge drawn": ("learned", OTHER, True), "edge given": ("oracle", OTHER, True),
    "edge given, v = -2": ("oracle", -2.0, True), "edge given, not fine-tuned": ("oracle", OTHER, False),
}  # fmt: skip
"""Arm, v at the start, and whether the model is fine-tuned."""


def arms(seeds: Sequence[int], sets: Sequence[str], planted: int, observed: int, count: int, pretraining: int) -> list[dict[str, Any]]:
    """The cells of the comparison of graphs; sets that no verdict depends on have three seeds."""
    same = {"count": count, "pretraining": pretraining}
    known = [("planted-drivers", arm, planted) for arm in KNOWN]
    rest = [(name, arm, observed) for name in sets for arm in ARMS]
    return [{"dataset": name, "variant": arm, "seed": k, "steps": n, **same} for k in seeds for name, arm, n in known + rest
            if k in seeds[:3] or name in ("planted-drivers", "ETTh1")]  # fmt: skip


def dense(seeds: Sequence[int], sets: Sequence[str], planted: int, observed: int, count: int, pretraining: int) -> list[dict[str, Any]]:
    """The cells of the sweep over alpha: the learned graph and a random one with as many edges."""
    same = {"count": count, "pretraining": pretraining}
    chosen = [("planted-drivers", planted), *((name, observed) for name in sets)]
    return [{"dataset": name, "variant": arm, "seed": k, "steps": n, "alpha": alpha, **same}
            for k in seeds for name, n in chosen for alpha in SWEEP for arm in ("learned", "random")]  # fmt: skip


def seasons(seeds: Sequence[int], planted: int, count: int, pretraining: int) -> list[dict[str, Any]]:
    """The cells with followers that have a season of their own."""
    return [{"dataset": "planted-drivers-season", "variant": arm, "seed": k, "steps": planted, "count": count, "pretraining": pretraining}
            for k in seeds for arm in ("none", "learned", "lagged-correlation", "oracle")]  # fmt: skip


def longer(seeds: Sequence[int], planted: int, count: int, pretraining: int) -> list[dict[str, Any]]:
    """The cells that ask whether an undirected graph only needs more steps."""
    return [{"dataset": "planted-drivers", "variant": arm, "seed": k, "steps": LONGER * planted, "count": count, "pretraining": pretraining}
            for k in seeds for arm in ("none", "learned", "learned-fixed", "full")]  # fmt: skip


def copies(seeds: Sequence[int], planted: int, count: int, pretraining: int) -> list[dict[str, Any]]:
    """The cells of the copy test: every delay without, with a drawn and with the true edge, v at 0 or at -2, and before fine-tuning."""
    same = {"count": count, "pretraining": pretraining}
    return [{"dataset": f"copy-{delay}", "variant": arm, "seed": k, "steps": planted if tuned else 0, "other": other, **same}
            for k in seeds for delay in DELAYS for arm, other, tuned in COPY_WAYS.values()]  # fmt: skip


# ---- what is read off the rows ------------------------------------------------------------------------------------------------------


def gains(rows: pd.DataFrame, metric: str = "MSE", over: str = "none") -> pd.DataFrame:
    """How much lower an arm's error is than that of another one, in percent of the other, pair by pair."""
    keys = ["dataset", "seed"]
    base = rows[rows["variant"] == over].set_index(keys)[metric].rename("base")
    joined = rows[rows["variant"] != over].join(base, on=keys)
    return joined.assign(gain=100 * (1 - joined[metric] / joined["base"])).drop(columns="base")


def by_density(rows: pd.DataFrame) -> pd.DataFrame:
    """The sweep over alpha as two curves over the mean density of the edges: no graph is the start of both, the full graph their end."""
    kept = rows[rows["variant"].isin(["none", "learned", "random", "full"])].fillna({"alpha": ALPHA})
    kept["density"] = kept.groupby(["dataset", "variant", "alpha"])["density"].transform("mean").round(3)
    base = kept[kept["variant"] == "none"].set_index(["dataset", "seed"])["MSE"].rename("base")
    kept = kept.join(base, on=["dataset", "seed"])
    kept["gain"] = 100 * (1 - kept["MSE"] / kept.pop("base"))
    drawn, ends = (kept[kept["variant"].isin(names)] for names in (("learned", "random"), ("none", "full")))
    return pd.concat([drawn, *(ends.assign(variant=curve) for curve in ("learned", "random"))], ignore_index=True)


def copy_floor(delay: int) -> float:
    """The least MSE that a delayed copy of unit variance allows: what is not yet known of it cannot be told.

    >>> [copy_floor(delay) for delay in DELAYS]
    [0.5, 0.0]
    """
    return max(0.0, 1 - delay / CONFIG.patch)
