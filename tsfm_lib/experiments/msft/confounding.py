"""A shortcut that only the finest scale can see (M1), and where the weights of the scales go (M5).

The data are `planted.shortcut`: a shift of the whole horizon is announced by a ramp (right in 85 % of all windows, everywhere) and by an
alternation of single steps (right in 97 % of the windows to train on, in 50 or 3 % of those of two other tests). Means of two steps erase
the alternation exactly: a coarse scale can only hear of it. Beside it a season under noise, where weights have no shortcut to follow.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from tsfm_lib import finetune
from tsfm_lib.experiments.msft.trials import CONTEXT, HORIZON, source, start, tuned, weights_of
from tsfm_lib.finetune.mixing import error, stacked
from tsfm_lib.finetune.scales import pyramid
from tsfm_lib.finetune.targets import Windows
from tsfm_lib.nn.moe import entropy
from tsfm_lib.synth import planted
from tsfm_lib.train.streams import rng_for

SCALES = 2
CLOSED = "msft, coarse to fine, uniform weights"
ARMS: dict[str, Any] = {
    "zero-shot": "zero-shot",
    "probe": "probe",
    "lora": "lora",
    "full": "full",
    "msft": finetune.variation("msft", scales=SCALES),
    "msft, coarse to fine": finetune.variation("msft", scales=SCALES, aggregate="c2f"),
    "msft, uniform weights": finetune.variation("msft", scales=SCALES, mixing="uniform"),
    "msft, mixed loss": finetune.variation("msft", scales=SCALES, mixing="mixed loss"),
    "msft, authors' prior": finetune.variation("msft", scales=SCALES, prior=9.0),
    CLOSED: finetune.variation("msft", scales=SCALES, aggregate="c2f", mixing="uniform"),
}
"""What is tried. The last one closes both ways on which the shortcut reaches coarse scales: what is told from fine to coarse, and weights
that move to whatever has the lowest loss."""

MIXED = {"msft": "learned", "msft, uniform weights": "uniform", "msft, mixed loss": "mixed loss", "msft, authors' prior": "authors' prior"}
JUDGED = ("full", "msft", "msft, uniform weights", "msft, mixed loss")
BACKBONE = "moirai"


@lru_cache(maxsize=8)
def windows(seed: int, regime: str, n: int, purpose: str, block: int = 1) -> planted.Shortcut:
    """All regimes are drawn alike, so that they differ by the alternation and by nothing else. It may be made slower: the same for
    `block` steps, then the other way round, so that means of so many steps still see it."""
    made = planted.shortcut(n, planted.SHORTCUT_REGIMES[regime], rng_for(seed, 0, f"shortcut, {purpose}"), context=CONTEXT)
    signs = lambda size: np.where(np.arange(32) // size % 2, -0.5, 0.5)
    series = made.series.copy()
    series[:, CONTEXT - 32 : CONTEXT] += made.cue[:, None] * (signs(block) - signs(1)).astype(np.float32)
    return replace(made, series=series)


def split(series: Float[np.ndarray, "N T"]) -> Windows:
    return Windows(series[:, None, :CONTEXT], series[:, None, CONTEXT:])


def target(seed: int, n: int, count: int, regime: str = "in distribution", block: int = 1) -> finetune.Target:
    made = (windows(seed, regime, k, purpose, block).series for k, purpose in ((n, "train"), (count, "val")))
    return finetune.planted("shortcut", *made, context=CONTEXT)


def tests(seed: int, tested: int, block: int = 1) -> dict[str, Windows]:
    """The same windows in three regimes."""
    return {name: split(windows(seed, name, tested, "test", block).series) for name in planted.SHORTCUT_REGIMES}


def shortcut(seed: int, variant: str, steps: int, n: int, tested: int, budget: dict[str, Any], weights: str,
             regime: str = "in distribution", block: int = 1) -> list[dict[str, Any]]:  # fmt: skip
    """One method, trained in one regime and tested in all. Rows of "shortcut", and for several scales rows of "by_scale", "mixing" and
    "weights"."""
    on = target(seed, n, budget["count"], regime, block)
    done = tuned(BACKBONE, ARMS[variant], on, seed, steps, budget)
    facts = {name: done.facts[name] for name in ("trainable", "ms_per_step", "best_step", "val_MSE") if name in done.facts}
    found = tests(seed, tested, block)
    if not getattr(getattr(done.model, "design", None), "scales", 0):
        return [{"experiment": "shortcut", "regime": regime, **test.scores(done.model), **facts} for regime, test in found.items()]
    learnt, known = done.model.weights.detach().double().numpy(), finetune.scale_points(done.model, on.val.contexts)
    kinds = {MIXED[variant]: learnt} if variant in MIXED else {}
    if variant == "msft, uniform weights":  # with mixing="stacked" the same network is trained
        kinds["stacked"] = stacked(known, on.val.futures)
    rows, chosen = [], int(squared(known, on.val.futures).argmin())  # of the scales, the one that does best where nothing is tested
    for regime, test in found.items():
        points = finetune.scale_points(done.model, test.contexts)
        errors, felt = squared(points, test.futures), losses(done.model, test)
        rows.append({"experiment": "shortcut", "regime": regime, "MSE": mixed(learnt, points, test.futures), **facts})
        rows += [{"experiment": "by_scale", "regime": regime, "scale": i, "MSE": errors[i], "loss": felt[i], "weight": learnt[i]}
                 for i in range(SCALES + 1)]  # fmt: skip
        rows += [{"experiment": "mixing", "variant": name, "regime": regime, "MSE": mixed(w, points, test.futures),
                  "weight_entropy": entropy(torch.as_tensor(w)), "mean_of_scales": w @ errors} for name, w in kinds.items()]  # fmt: skip
        if variant == "msft":
            best = {"variant": "best single scale", "scale": chosen, "MSE": errors[chosen]}
            rows.append({"experiment": "mixing", "regime": regime, **best})
    path = [(point["step"], i, point[f"w{i}"]) for point in done.curve.to_dict("records") for i in range(SCALES + 1) if f"w{i}" in point]
    return rows + [{"experiment": "weights", "step": step, "scale": i, "weight": w} for step, i, w in path]


def squared(points: Float[np.ndarray, "S N V H"], future: Float[np.ndarray, "N V H"]) -> Float[np.ndarray, " S"]:
    """Mean squared error of each scale by itself."""
    return ((points - future) ** 2).mean((1, 2, 3))


def mixed(weights: Float[np.ndarray, " S"], points: Float[np.ndarray, "S N V H"], future: Float[np.ndarray, "N V H"]) -> float:
    """Mean squared error of the mixture."""
    return float(np.mean((np.einsum("s,snvh->nvh", weights, points) - future) ** 2))


def losses(module: finetune.MultiScale, on: Windows) -> list[float]:
    """What training minimises at each scale, in its own steps: this is what learned weights of scales look at."""
    past, future = (torch.as_tensor(x, dtype=torch.float32) for x in (on.contexts, on.futures))
    design = module.design
    targets = pyramid(future, design.scales, False, design.pooling, design.factor)
    with torch.no_grad():
        return [error(one, seen).item() for one, seen in zip(module(module.window(past)), targets)]


def oracle(seed: int, tested: int) -> list[dict[str, Any]]:
    """The best forecast that does not look at the alternation."""
    rows = []
    for regime in planted.SHORTCUT_REGIMES:
        made = windows(seed, regime, tested, "test")
        gap = made.oracle - made.series[:, CONTEXT:]
        rows.append({"experiment": "shortcut", "variant": "oracle", "regime": regime, "MSE": float(np.mean(gap**2)),
                     "MAE": float(np.abs(gap).mean())})  # fmt: skip
    return rows


def skill(seed: int, dataset: str, horizon: int, steps: int, count: int, weights: str, backbone: str = BACKBONE) -> list[dict[str, Any]]:
    """The premise: what the pretrained model knows at each scale before any training, beside a mean of the context."""
    made = dataset == "shortcut"
    on = target(seed, 1, count) if made else finetune.target(source(dataset, seed), CONTEXT, horizon, count=count)
    plain = finetune.Design(scales=3, train="new", head="own")
    module = finetune.MultiScale(start(backbone, seed, steps), plain, CONTEXT, horizon, seed)
    errors = np.nanmean((finetune.scale_points(module, on.val.contexts) - on.val.futures) ** 2, axis=(1, 2, 3))
    flat = float(np.nanmean((np.nanmean(on.val.contexts, axis=-1, keepdims=True) - on.val.futures) ** 2))
    return [{"variant": "zero-shot", "scale": i, "horizon": horizon, "MSE": float(e), "mean_MSE": flat} for i, e in enumerate(errors)]


def breaks(seed: int, variant: str, **cell: Any) -> list[dict[str, Any]]:
    """The same trial where there is no shortcut to learn, or one that coarse scales see. Rows of "breaks" and "breaks_by_scale"."""
    names = {"shortcut": "breaks", "by_scale": "breaks_by_scale"}
    rows = [row | {"test": row["regime"]} for row in shortcut(seed, variant, **cell) if row["experiment"] in names]
    return [{k: v for k, v in row.items() if k != "regime"} | {"experiment": names[row["experiment"]]} for row in rows]


def drift(seed: int, noise: float, steps: int, n: int, tested: int, budget: dict[str, Any], weights: str) -> list[dict[str, Any]]:
    """Learned weights on a season under white noise, where nothing is confounded. Rows of "drift": every scale, with the weights that
    training found and those that make the mixed forecast best on the validation windows; of "drift_mixed": what each choice costs."""
    train, val, test = (season(seed, noise, k, purpose) for k, purpose in ((n, "train"), (budget["count"], "val"), (tested, "test")))
    on = finetune.planted("season", train, val, CONTEXT)
    done = tuned(BACKBONE, ARMS["msft"], on, seed, steps, budget)
    points, future = finetune.scale_points(done.model, split(test).contexts), test[:, None, CONTEXT:]
    learnt = done.model.weights.detach().double().numpy()
    best, even = stacked(finetune.scale_points(done.model, on.val.contexts), on.val.futures), np.full(SCALES + 1, 1 / (SCALES + 1))
    alone, seen = squared(points, future), losses(done.model, on.val)
    rows = [{"experiment": "drift", "scale": i, "learned": learnt[i], "stacked": best[i], "MSE": alone[i], "loss": seen[i]}
            for i in range(SCALES + 1)]  # fmt: skip
    kinds = {"learned": learnt, "stacked": best, "uniform": even}
    return rows + [{"experiment": "drift_mixed", "variant": name, "MSE": mixed(w, points, future)} for name, w in kinds.items()]


@lru_cache(maxsize=8)
def season(seed: int, noise: float, n: int, purpose: str) -> Float[np.ndarray, "N T"]:
    """The days of the shortcut without a shift and its hints."""
    rng, t = rng_for(seed, 0, f"season, {purpose}"), np.arange(CONTEXT + HORIZON)
    clean = np.sin(2 * np.pi * (t / 24 + rng.random((n, 1))))
    return (clean + noise * rng.standard_normal((n, len(t)))).astype(np.float32)


# ---- what is run ----------------------------------------------------------------------------------------------------------------------

BUDGET = {
    "quick": {"steps": 10, "n": 200, "tested": 50,
              "budget": {"steps": 4, "batch": 16, "rates": 1, "every": 4, "patience": 2, "count": 20}},
    "laptop": {"steps": 1500, "n": 4000, "tested": 250,
               "budget": {"steps": 120, "batch": 24, "rates": 2, "every": 20, "patience": 2, "count": 64}},
    "full": {"steps": 5000, "n": 20_000, "tested": 2000,
             "budget": {"steps": 1500, "batch": 128, "rates": 3, "every": 50, "patience": 5, "count": 500}},
}  # fmt: skip
"""Steps of pretraining where no weights ship, windows to train on and to be judged on, and what each method may spend."""


NOISE = (0.1, 1.0)


def grid(profile: str, seeds: Sequence[int], observed: Sequence[str] = ()) -> dict[str, list[dict[str, Any]]]:
    """The cells of every sweep, by name. What no rule judges takes three seeds, and beyond the first sweep one learning rate."""
    known, given, some = {"weights": weights_of(BACKBONE)}, BUDGET[profile], seeds[:3]
    once = given | {"budget": given["budget"] | {"rates": 1}} | known
    few = {"steps": given["steps"], "count": given["budget"]["count"]} | known
    moved = [{"variant": "full", "regime": "cue random", "block": 1}, *({"variant": CLOSED, "regime": "in distribution", "block": b}
             for b in (2, 4))]  # fmt: skip
    return {
        "shortcut": [
            {"seed": seed, "variant": variant, **given, **known} for seed in seeds for variant in ARMS if variant in JUDGED or seed in some
        ],
        "oracle": [{"seed": seed, "tested": given["tested"]} for seed in seeds],
        "skill": [{"seed": seeds[0], "dataset": name, "horizon": HORIZON, **few} for name in ("shortcut", "days and weeks", *observed)],
        "drift": [{"seed": seed, "noise": noise, **once} for seed in some for noise in NOISE],
        "breaks": [{"seed": seed, **one, **once} for seed in some for one in moved],
    }
