"""A shortcut that only the finest scale can see (M1), and where the weights of the scales go (M5).

The data are `planted.shortcut`: a shift of the whole horizon is announced by a ramp (right in 85 % of all windows, everywhere) and by an
alternation of single steps (right in 97 % of the windows to train on, in 50 or 3 % of those of two other tests). Means of two steps erase
the alternation exactly: a coarse scale can only hear of it.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float

from tsfm_lib import finetune
from tsfm_lib.experiments.msft.trials import CONTEXT, source, start, tuned, weights_of
from tsfm_lib.finetune.targets import Windows
from tsfm_lib.nn.moe import entropy
from tsfm_lib.synth import planted
from tsfm_lib.train.streams import rng_for

SCALES = 2
ARMS: dict[str, Any] = {
    "zero-shot": "zero-shot",
    "probe": "probe",
    "lora": "lora",
    "full": "full",
    "msft": finetune.variation("msft", scales=SCALES),
    "msft, no aggregators": finetune.variation("msft", scales=SCALES, aggregate="none"),
    "msft, uniform weights": finetune.variation("msft", scales=SCALES, mixing="uniform"),
    "msft, mixed loss": finetune.variation("msft", scales=SCALES, mixing="mixed loss"),
    "msft, stacked": finetune.variation("msft", scales=SCALES, mixing="stacked"),
    "msft, authors' prior": finetune.variation("msft", scales=SCALES, prior=9.0),
    "msft, coarse to fine, uniform weights": finetune.variation("msft", scales=SCALES, aggregate="c2f", mixing="uniform"),
}
"""What is tried. The last one closes both ways on which the shortcut reaches coarse scales: what is told from fine to coarse, and weights
that move to whatever has the lowest loss."""

MIXED = {"msft": "learned", "msft, uniform weights": "uniform", "msft, mixed loss": "mixed loss", "msft, stacked": "stacked",
         "msft, authors' prior": "authors' prior"}  # fmt: skip
BACKBONE = "moirai"


@lru_cache(maxsize=8)
def windows(seed: int, regime: str, n: int, purpose: str) -> planted.Shortcut:
    """All regimes are drawn alike, so that they differ by the alternation and by nothing else."""
    return planted.shortcut(n, planted.SHORTCUT_REGIMES[regime], rng_for(seed, 0, f"shortcut, {purpose}"), context=CONTEXT)


def target(seed: int, n: int, count: int) -> finetune.Target:
    made = (windows(seed, "in distribution", k, purpose).series for k, purpose in ((n, "train"), (count, "val")))
    return finetune.planted("shortcut", *made, context=CONTEXT)


def tests(seed: int, tested: int) -> dict[str, Windows]:
    """The same windows in three regimes."""
    found = {name: windows(seed, name, tested, "test").series[:, None] for name in planted.SHORTCUT_REGIMES}
    return {name: Windows(x[..., :CONTEXT], x[..., CONTEXT:]) for name, x in found.items()}


def shortcut(seed: int, variant: str, steps: int, n: int, tested: int, budget: dict[str, Any], weights: str) -> list[dict[str, Any]]:
    """One method in all regimes. Rows of "shortcut", and for several scales rows of "by_scale", "mixing" and "weights"."""
    on = target(seed, n, budget["count"])
    done = tuned(BACKBONE, ARMS[variant], on, seed, steps, budget)
    facts = {name: done.facts[name] for name in ("trainable", "ms_per_step", "best_step", "val_MSE") if name in done.facts}
    found = tests(seed, tested)
    if not getattr(getattr(done.model, "design", None), "scales", 0):
        return [{"experiment": "shortcut", "regime": regime, **test.scores(done.model), **facts} for regime, test in found.items()]
    rows, chosen = [], int(alone(done, on.val)[1].argmin())  # of the scales, the one that does best where nothing is tested
    for regime, test in found.items():
        mixed, errors = alone(done, test)
        rows.append({"experiment": "shortcut", "regime": regime, "MSE": mixed, **facts})
        rows += [{"experiment": "by_scale", "regime": regime, "scale": i, "MSE": float(e)} for i, e in enumerate(errors)]
        if variant in MIXED:
            spread = entropy(done.model.weights.detach())
            rows.append({"experiment": "mixing", "variant": MIXED[variant], "regime": regime, "MSE": mixed, "weight_entropy": spread})
        if variant == "msft":
            best = {"variant": "best single scale", "scale": chosen, "MSE": float(errors[chosen])}
            rows.append({"experiment": "mixing", "regime": regime, **best})
    path = [(point["step"], i, point[f"w{i}"]) for point in done.curve.to_dict("records") for i in range(SCALES + 1) if f"w{i}" in point]
    return rows + [{"experiment": "weights", "step": step, "scale": i, "weight": w} for step, i, w in path]


def alone(done: finetune.Tuned, on: Windows) -> tuple[float, Float[np.ndarray, " S"]]:
    """Mean squared error of the mixture, and of each scale by itself."""
    points = finetune.scale_points(done.model, on.contexts)
    mixed = np.einsum("s,snvh->nvh", done.model.weights.detach().double().numpy(), points)
    return float(np.mean((mixed - on.futures) ** 2)), ((points - on.futures) ** 2).mean((1, 2, 3))


def oracle(seed: int, tested: int) -> list[dict[str, Any]]:
    """The best forecast that does not look at the alternation."""
    rows = []
    for regime in planted.SHORTCUT_REGIMES:
        made = windows(seed, regime, tested, "test")
        error = made.oracle - made.series[:, CONTEXT:]
        rows.append({"experiment": "shortcut", "variant": "oracle", "regime": regime, "MSE": float(np.mean(error**2)),
                     "MAE": float(np.abs(error).mean())})  # fmt: skip
    return rows


def skill(seed: int, dataset: str, horizon: int, steps: int, count: int, weights: str, backbone: str = BACKBONE) -> list[dict[str, Any]]:
    """The premise: what the pretrained model knows at each scale before any training, beside a mean of the context."""
    on = finetune.target(source(dataset, seed), CONTEXT, horizon, count=count)
    plain = finetune.Design(scales=3, train="new", head="own")
    module = finetune.MultiScale(start(backbone, seed, steps), plain, CONTEXT, horizon, seed)
    errors = np.nanmean((finetune.scale_points(module, on.val.contexts) - on.val.futures) ** 2, axis=(1, 2, 3))
    flat = float(np.nanmean((np.nanmean(on.val.contexts, axis=-1, keepdims=True) - on.val.futures) ** 2))
    return [{"variant": "zero-shot", "scale": i, "horizon": horizon, "MSE": float(e), "mean_MSE": flat} for i, e in enumerate(errors)]


# ---- what is run ----------------------------------------------------------------------------------------------------------------------

BUDGET = {
    "quick": {"steps": 10, "n": 200, "tested": 50,
              "budget": {"steps": 4, "batch": 16, "rates": 1, "every": 4, "patience": 2, "count": 20}},
    "laptop": {"steps": 1500, "n": 4000, "tested": 500,
               "budget": {"steps": 250, "batch": 64, "rates": 2, "every": 25, "patience": 4, "count": 200}},
    "full": {"steps": 5000, "n": 20_000, "tested": 4000,
             "budget": {"steps": 1500, "batch": 128, "rates": 3, "every": 50, "patience": 5, "count": 2000}},
}  # fmt: skip
"""Steps of pretraining where no weights ship, windows to train on and to be judged on, and what each method may spend."""


def grid(profile: str, seeds: Sequence[int], observed: Sequence[str] = ()) -> dict[str, list[dict[str, Any]]]:
    """The cells of every sweep, by name."""
    known, given = {"weights": weights_of(BACKBONE)}, BUDGET[profile]
    few = {"steps": given["steps"], "count": given["budget"]["count"]} | known
    return {
        "shortcut": [{"seed": seed, "variant": variant, **given, **known} for seed in seeds for variant in ARMS],
        "oracle": [{"seed": seed, "tested": given["tested"]} for seed in seeds],
        "skill": [{"seed": seeds[0], "dataset": name, "horizon": 96, **few} for name in ("days and weeks", *observed)],
    }
