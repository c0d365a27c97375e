"""Several channels, an open question of the CauKer paper: is it worth anything that the nodes of one graph belong together?

Encoders read every channel alone, so a corpus of several channels can only enter through the task. The same nodes are given as
    apart      series of their own, each of which must find its other view (nodes of one graph stand against each other, too)
    together   samples of four nodes of one graph: what is said of the channels is averaged, and samples must find each other
    shuffled   samples of nodes of four graphs, the control: averaging without anything in common
with the same series in every step. Scored on UEA sets, the features of the channels side by side.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32
from torch import Tensor, nn

from tsfm_lib.evaluate import classification, comparison
from tsfm_lib.experiments import trials
from tsfm_lib.experiments.cauker import encoders
from tsfm_lib.nn.objectives import info_nce
from tsfm_lib.synth import cauker
from tsfm_lib.train.streams import Windows

CHANNELS, SAMPLES = 4, 32                                   # of a sample, of a batch: 128 series in a step
RANDOM, ARMS = "random weights", ("apart", "shuffled", "together")
READOUTS = ("forest", "whitened_forest", "ridge")
CHEAP = ("raw", "random-kernels", "1nn-euclidean")


@lru_cache(2)
def samples(n: int, seed: int, length: int = encoders.LENGTH) -> Float32[np.ndarray, "M V T"]:
    """Four nodes of each of n graphs with mean 0 and deviation 1; graphs of which a kept node hardly moves are left out.

    >>> samples(4, 0).shape[1:]
    (4, 256)
    """
    x = cauker.multivariate(n, length, seed, variates=CHANNELS)
    mean, deviation = x.mean(-1, keepdims=True), x.std(-1, keepdims=True)
    moves = (deviation > 1e-4).all((1, 2))
    return ((x[moves] - mean[moves]) / deviation[moves]).astype(np.float32)


def shuffled(x: Float32[np.ndarray, "M V T"]) -> Float32[np.ndarray, "M V T"]:
    """The same channels in samples of unrelated ones.

    >>> shuffled(np.arange(6, dtype=np.float32).reshape(3, 2, 1))[:, :, 0].tolist()
    [[0.0, 5.0], [2.0, 1.0], [4.0, 3.0]]
    """
    return np.stack([np.roll(x[:, v], v, axis=0) for v in range(x.shape[1])], axis=1)


def as_samples(net: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
    """Samples find each other by the mean of their channels; every channel has its own crop."""
    said = (net.project(view).unflatten(0, batch.shape[:2]).mean(1) for view in net.views(batch.flatten(0, 1), generator))
    return info_nce(*said, net.config.temperature, net.config.symmetric)


def trial(variant: str, seed: int, n: int, steps: int, sets: Sequence[str]) -> pd.DataFrame:
    """Accuracy on the sets. `variant`: an arm, random weights, or "" for what needs no encoder."""
    if not variant:
        rows = classification.evaluate(None, list(sets), READOUTS, (seed,), CHEAP, progress=False)
        return rows[["dataset", "variant", "readout", "accuracy"]]
    net = encoders.untrained("mantis", seed)
    if variant != RANDOM:
        x = samples(n, seed)
        stream = Windows(tuple(shuffled(x) if variant == "shuffled" else x), encoders.LENGTH, SAMPLES, seed, together=True)
        net = trials.trained("mantis", net.config, stream, seed, steps, horizon=0, batch=SAMPLES,
                             loss=None if variant == "apart" else as_samples,
                             **encoders.BOTH | encoders.RECIPES["mantis"]).model  # fmt: skip
    rows = classification.evaluate(net, list(sets), READOUTS, (seed,), baselines=False, progress=False, name=variant,
                                   whiten_on=encoders.unlabelled(), length=encoders.LENGTH)  # fmt: skip
    return rows[["dataset", "variant", "readout", "accuracy"]]


def cells(seeds: Sequence[int], sets: Sequence[str], n: int, steps: int) -> list[dict[str, Any]]:
    """Every arm with every seed, and what is cheap with every seed."""
    shared = {"n": n, "steps": steps, "sets": list(sets)}
    return [{"variant": variant, "seed": seed} | shared for variant in ("", RANDOM, *ARMS) for seed in seeds]


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy in percent over sets and seeds."""
    return (100 * rows.groupby(["variant", "readout"], sort=False)["accuracy"].mean()).unstack("readout", sort=False).round(1)


def gains(rows: pd.DataFrame, better: str = "together") -> pd.DataFrame:
    """Points of one arm over the others, seed by seed."""
    means = 100 * rows.groupby(["readout", "variant", "seed"], sort=False)["accuracy"].mean().sort_index()
    found = []
    for readout in READOUTS:
        for rival in (name for name in (RANDOM, *ARMS) if name != better):
            seen = comparison.interval((means[readout, better] - means[readout, rival]).to_numpy())
            found.append({"readout": readout, "over": rival, "points": seen.estimate, "low": seen.low, "high": seen.high, "seeds": seen.n})
    return pd.DataFrame(found).set_index(["readout", "over"]).round(2)
