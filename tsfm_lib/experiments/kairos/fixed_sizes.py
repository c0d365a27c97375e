"""Patches of chosen size against fixed sizes and against all sizes at once (K1, K8): error at equal steps and at equal time, tokens, CPU.

Every run is a `planted.density` stream (a slow sine, bursts of a fast one in known blocks of the longest patch) and one small Kairos. A
seed fixes the batches, the initial draws and the test windows; the variants of one seed are compared with each other.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32

from tsfm_lib.errors import TsfmError
from tsfm_lib.experiments import trials
from tsfm_lib.experiments.kairos.trials import SMALL, fixed, scores, trained
from tsfm_lib.models.kairos import Encoded, Kairos, KairosConfig
from tsfm_lib.synth import planted
from tsfm_lib.train.streams import rng_for

MODELS = {
    "small": replace(SMALL, encoder_layers=1, decoder_layers=1, balance_rate=1e-2),  # ten times the usual rate: the runs are short
    "paper": KairosConfig(
        context=512, horizon=64, forecast_tokens=2, patch_lengths=(128, 64, 32), width=128, heads=4, head_width=32, hidden=512,
        encoder_layers=4, decoder_layers=4, spectral_bins=128, balance_rate=1e-3, asinh=True,
    ),
}  # fmt: skip
"""The adaptive models. "paper": the published patch lengths and expert counts in a narrower model."""

RECIPE = {"matrices": "^$", "rate": 2e-3}
"""AdamW for all weights: in models this small Muon takes as long as the gradient, and every patch size would seem to cost the same."""

CONDITIONS = ("aligned", "shifted", "noise bursts", "white noise")
"""Bursts on the grid of the longest patches; half a patch off it; bursts of noise, with nothing to learn; no structure at all."""


def variants(model: str) -> dict[str, KairosConfig]:
    """The adaptive model and its rivals, which differ in nothing but their patches.

    >>> [config.patch_lengths for config in variants("small").values()]
    [(32, 16, 8), (8,), (16,), (32,), (32, 16, 8)]
    """
    adaptive = MODELS[model]
    large, *_, small = sizes = adaptive.patch_lengths
    single = {"fixed-small": small, "fixed-middle": sizes[len(sizes) // 2], "fixed-large": large}
    everything = replace(adaptive, null_experts=0, active_experts=len(sizes))
    return {"adaptive": adaptive, **{name: replace(adaptive, **fixed(p)) for name, p in single.items()}, "all-sizes": everything}


def series(n: int, model: str, density: float | int, condition: str, rng: np.random.Generator) -> Float32[np.ndarray, "n T"]:
    """Windows of context and horizon; `density` is the share of blocks that hold a burst."""
    config = MODELS[model]
    length, block = config.context + config.forecast_tokens * config.horizon, config.patch_lengths[0]
    if condition == "white noise":
        return rng.standard_normal((n, length), np.float32)
    changes = {"aligned": {}, "shifted": {"shift": block // 2}, "noise bursts": {"burst": "noise"}}
    if condition not in changes:
        raise TsfmError(f"condition must be one of {', '.join(CONDITIONS)}, got {condition!r}")
    return planted.density(n, length, density, rng, block=block, **changes[condition]).series


@torch.no_grad()
def encodings(model: Kairos, windows: Float32[np.ndarray, "n T"], batch: int) -> list[Encoded]:
    z, seen, _ = model.eval().normalise(model.fill(torch.from_numpy(windows[:, : model.config.context])))
    return [model.encode(*part) for part in zip(z.split(batch), seen.split(batch))]


def usage(model: Kairos, windows: Float32[np.ndarray, "n T"], batch: int) -> dict[str, float]:
    """Tokens per series, without and with the padding of its batch, and the share of routing mass of each size and of the null experts."""
    found, sizes = encodings(model, windows, batch), model.config.patch_lengths
    own = sum((e.tokens.size > 0).sum().item() for e in found) / len(windows)
    padded = sum(e.tokens.size.numel() for e in found) / len(windows)
    mass = np.zeros(model.config.experts)
    for e in found:
        np.add.at(mass, e.routing.indices.flatten().numpy(), e.routing.gates.flatten().numpy())
    shares = mass / mass.sum()
    loads = {f"load_{p}": shares[i] for i, p in enumerate(sizes)} | {"load_null": shares[len(sizes) :].sum()}
    return {"tokens": own, "padded_tokens": padded} | loads


@torch.no_grad()
def forecast_seconds(models: Mapping[str, Kairos], windows: Float32[np.ndarray, "n T"], turns: int) -> dict[str, float]:
    """CPU seconds to forecast these windows, all models in turns: the median over the turns, a first one not counted."""
    spent: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(turns + 1):
        for name, model in models.items():
            context, began = torch.from_numpy(windows[:, : model.config.context]), time.process_time()
            model.eval()(context)
            spent[name].append(time.process_time() - began)
    return {name: median(seconds[1:]) for name, seconds in spent.items()}


def one(config: KairosConfig, model: str, density: float | int, seed: int, steps: int, windows: int, batch: int,
        condition: str = "aligned") -> tuple[dict[str, Any], Kairos, pd.DataFrame]:  # fmt: skip
    """Train one configuration and measure it: a row, the model, its loss curve (no training error, for every batch is new)."""
    stream = lambda step: torch.from_numpy(series(batch, model, density, condition, rng_for(seed, step))[:, None])
    began = time.process_time()
    run = trained(config, stream, seed, steps, batch=batch, warmup=max(1, steps // 10), **RECIPE)
    spent = time.process_time() - began
    test = series(windows, model, density, condition, rng_for(seed, 0, "test"))
    parameters = sum(p.numel() for p in run.model.parameters())
    row = scores(run.model, test) | usage(run.model, test, batch) | {"step_seconds": spent / steps, "parameters": parameters}
    return row, run.model, run.curve


# ---- one function per grid; each call is one cell --------------------------------------------------------------------------------


def equal_steps(model: str, density: float | int, seed: int, steps: int, windows: int, batch: int) -> list[dict[str, Any]]:
    """All variants after the same batches: a row each, and the loss curves in rows of an experiment of their own."""
    rows, models, curves = [], {}, []
    for variant, config in variants(model).items():
        row, models[variant], curve = one(config, model, density, seed, steps, windows, batch)
        rows.append({"experiment": "mosdp_vs_fixed", "variant": variant} | row)
        piece = max(1, steps // 10)
        means = curve["loss"].groupby((curve["step"] - 1) // piece).mean()
        curves += [{"experiment": "learning_curves", "variant": variant, "step": min(steps, (i + 1) * piece), "loss": loss,
                    "cpu_seconds": min(steps, (i + 1) * piece) * row["step_seconds"]} for i, loss in means.items()]  # fmt: skip
    seconds = forecast_seconds(models, series(batch, model, density, "aligned", rng_for(seed, 0, "timing")), turns=9)
    return [row | {"seconds": seconds[row["variant"]]} for row in rows] + curves


def one_variant(model: str, variant: str, density: float | int, seed: int, steps: int, windows: int, batch: int,
                condition: str = "aligned") -> dict[str, Any]:  # fmt: skip
    """One variant for a number of steps of its own, or under another condition."""
    return one(variants(model)[variant], model, density, seed, steps, windows, batch, condition)[0]


def positioned(model: str, variant: str, positions: str, density: float | int, seed: int, steps: int, windows: int,
               batch: int) -> dict[str, Any]:  # fmt: skip
    """One variant whose tokens count themselves ("index", as published) or know where in time they start ("size")."""
    return one(replace(variants(model)[variant], positions=positions), model, density, seed, steps, windows, batch)[0]


def changed(model: str, density: float | int, seed: int, steps: int, windows: int, batch: int, **changes: Any) -> dict[str, Any]:
    """The adaptive model with other numbers of experts or another fusion."""
    return one(replace(MODELS[model], **changes), model, density, seed, steps, windows, batch)[0]


def patch_set(model: str, sizes: str, density: float | int, seed: int, steps: int, windows: int, batch: int) -> dict[str, Any]:
    """The adaptive model over other patch lengths, "64 32 16 8". S sizes, K = S active, Z = S - 1 null: at least one is real."""
    lengths = tuple(map(int, sizes.split()))
    changes = {"patch_lengths": lengths, "active_experts": len(lengths), "null_experts": len(lengths) - 1}
    return changed(model, density, seed, steps, windows, batch, **changes)


# ---- reading the rows ----------------------------------------------------------------------------------------------------------------


def steps_at_equal_time(rows: pd.DataFrame, steps: int) -> pd.DataFrame:
    """How many steps each variant may take while the adaptive one takes `steps`: the median of the ratios measured within one cell.

    >>> rows = pd.DataFrame({"density": 0, "seed": 0, "variant": ["adaptive", "fixed-large"], "step_seconds": [0.03, 0.01]})
    >>> steps_at_equal_time(rows, 100)["steps"].to_dict()
    {'adaptive': 100, 'fixed-large': 300}
    """
    cost = rows.pivot(index=["density", "seed"], columns="variant", values="step_seconds")[list(dict.fromkeys(rows["variant"]))]
    ratio = cost.div(cost["adaptive"], axis=0).median()
    allowed = (steps / ratio).round().astype(int).clip(lower=1)
    return pd.DataFrame({"ms per step": 1000 * cost.median(), "cost against adaptive": ratio, "steps": allowed})


def gains(rows: pd.DataFrame, by: str, metric: str = "WQL", of: str = "adaptive") -> pd.DataFrame:
    """By how many percent `of` is better than each rival, seed by seed; negative where it is worse.

    >>> rows = pd.DataFrame({"density": 0, "seed": 0, "variant": ["adaptive", "all-sizes"], "WQL": [0.9, 1.0]})
    >>> gains(rows, "density")["gain"].round(6).tolist()
    [10.0]
    """
    return trials.gains(rows, by, metric, of)


def _first(enough: Callable[[int], bool], most: int = 10**8) -> int:
    """The smallest n from 2 on for which `enough` holds, given that it goes on to hold."""
    low, high = 2, 2
    while not enough(high):
        low, high = high, 2 * high
        if high > most:
            raise TsfmError(f"more than {most} seeds would be needed: the effect is too small for the spread")
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


def seeds_to_show(effect: float | int, spread: float | int, power: float = 0.8, alpha: float = 0.05) -> int:
    """Paired seeds at which a true gain of `effect` would exclude zero with this power, given the spread of the gain over seeds.

    >>> seeds_to_show(effect=1, spread=1), seeds_to_show(effect=1, spread=10)
    (10, 787)
    """
    from scipy.stats import nct, t

    return _first(lambda n: nct.sf(t.ppf(1 - alpha / 2, n - 1), n - 1, effect / spread * n**0.5) >= power)


def seeds_to_equate(margin: float | int, spread: float | int, power: float = 0.8, alpha: float = 0.05) -> int:
    """Paired seeds at which no difference at all would be found inside the margin by two one-sided tests with this power."""
    from scipy.stats import t

    return _first(lambda n: 2 * t.cdf(margin / spread * n**0.5 - t.ppf(1 - alpha, n - 1), n - 1) - 1 >= power)
