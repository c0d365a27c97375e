"""CauKer as pretraining data for other kinds of models (a question the paper leaves open): a causal decoder that says the next patch, and a
token model that says the next values one by one. Both forecast in training; their features are then read as those of encoders are.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsfm_lib import checkpoints
from tsfm_lib.experiments import trials
from tsfm_lib.experiments.cauker import encoders, pretraining
from tsfm_lib.experiments.cauker.encoders import LENGTH
from tsfm_lib.models.chronos import ChronosConfig
from tsfm_lib.models.timesfm import TimesFMConfig
from tsfm_lib.train.streams import from_windows

HORIZON, BATCH = 64, 32
OBJECTIVES = {
    "decoder, next patch": ("timesfm", TimesFMConfig(
        context=LENGTH, patch=16, horizon=HORIZON, spread_horizon=None, width=64, heads=4, hidden=128, layers=3, head_hidden=64,
        mean=False, rope_base=100.0, gaps="mask", asinh=True, cuts=8)),
    "tokens, next value": ("chronos-t5", ChronosConfig(
        context=LENGTH, horizon=HORIZON, tokens=256, low=-8.0, high=8.0, scaling="std", width=48, heads=4, head_width=12, hidden=96,
        encoder_layers=2, decoder_layers=2, dropout=0.0, scaled_scores=True, quiet_start=0.1, smooth_start=True, copy_start=True)),
}  # fmt: skip
CORPORA = (pretraining.RANDOM, "cauker", "kernelsynth", "scm", "real-without-ucr")


def trial(objective: str, corpus: str, seed: int, n: int, steps: int, few: int) -> list[dict[str, Any]]:
    """Accuracy by set and read-out of frozen features, before (`random-weights`) or after `steps` batches; `loss`: over the last tenth.

    The last 64 of the 256 points of a series are what is forecast; features are read from all of them."""
    architecture, config = OBJECTIVES[objective]
    net, loss = checkpoints.build(architecture, config, seed).eval(), np.nan
    if corpus != pretraining.RANDOM:
        stream = from_windows(pretraining.series_of(corpus, n, seed), LENGTH, 0, BATCH, seed)
        run = trials.trained(architecture, config, stream, seed, steps, horizon=0, batch=BATCH, matrix_rate=4e-3, rate=2e-3, warmup=32)
        net, loss = run.model, float(run.curve["loss"].tail(max(1, steps // 10)).mean())
    sets = encoders.development(True)[: few or None]
    return [{**row, "loss": loss} for row in encoders.score(net, sets, seed=seed)]


def cells(seeds: Sequence[int], real: bool, objectives: Sequence[str] = tuple(OBJECTIVES), **size: int) -> Iterator[dict[str, Any]]:
    """Those that share a corpus one after the other.

    >>> len(list(cells(range(3), real=True)))
    30
    """
    for seed in seeds:
        for corpus in CORPORA[: None if real else -1]:
            for objective in objectives:
                yield {"objective": objective, "corpus": corpus, "seed": seed, **size}


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy in percent over sets and seeds, beside it the mean loss at the end: a line for every objective and corpus."""
    lines = rows.groupby(["objective", "corpus"], sort=False)
    percent = (100 * rows.groupby(["objective", "corpus", "readout"], sort=False)["accuracy"].mean()).unstack("readout").round(1)
    return percent.assign(loss=lines["loss"].mean().round(3), seeds=lines["seed"].nunique()).reindex(lines.groups.keys())
