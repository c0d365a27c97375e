"""Trained on the whole train part, from scratch, against DLinear, PatchTST and iTransformer at one budget (T9).

The budget: the same batches of whole windows in the same order, as many steps, the same optimiser and rate schedule, squared error in
the units of the scaled series. Seconds are noted, not equalised: Time Tracker's steps cost most.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tsfm_lib.experiments import trials
from tsfm_lib.experiments.time_tracker.targets import MIXED, UNWATCHED, errors, scaled_error, target, windows
from tsfm_lib.experiments.time_tracker.trials import SMALL
from tsfm_lib.models import scratch
from tsfm_lib.models.scratch import DLinearConfig, ITransformerConfig, PatchTSTConfig

SETS = ("ETTh1", "ETTh2", "ETTm1", "ETTm2", "weather", "ecl_2ch")
VARIANTS = ("time-tracker", "dlinear", "patchtst", "itransformer")
LOOK_BACKS, HORIZON = (96, 672), 96


def config(variant: str, look_back: int) -> Any:
    """One size class: width 32, two blocks. Longer windows are cut into longer patches, for both that read patches.

    >>> [config("time-tracker", look_back).patch for look_back in LOOK_BACKS]
    [24, 48]
    """
    seen = {"context": look_back, "horizon": HORIZON, "levels": ()}
    small = {"width": SMALL.width, "heads": SMALL.heads, "layers": SMALL.layers, "hidden": SMALL.hidden, "dropout": 0.1}
    patch, own = (24, 16) if look_back < 336 else (48, 32)
    return {
        "time-tracker": replace(SMALL, context=look_back, patch=patch, horizon=patch, **MIXED),
        "dlinear": DLinearConfig(**seen),
        "patchtst": PatchTSTConfig(**seen, **small, patch=own, stride=own),
        "itransformer": ITransformerConfig(**seen, **small),
    }[variant]


def full_shot(seed: int, dataset: str, look_back: int, variant: str, steps: int, count: int | None) -> dict[str, Any]:
    """One model trained and tested; also its parameters and the CPU seconds of its training."""
    found, chosen = target(dataset), config(variant, look_back)
    stream = windows(found, look_back + HORIZON, seed)
    ours = variant == "time-tracker"
    # all models draw the same windows of look-back and horizon; a token's target is one patch, so the rest of the window is not used
    used = (lambda step: stream(step)[..., : look_back + chosen.horizon]) if ours else stream
    began = time.process_time()
    run = trials.trained(variant, chosen, used, seed, steps, horizon=chosen.horizon, batch=stream.batch, matrices="^$", rate=2e-3,
                         warmup=min(20, steps), loss=scaled_error if ours else scratch.scaled_error, **UNWATCHED)  # fmt: skip
    spent = time.process_time() - began
    row = {"horizon": HORIZON, "parameters": sum(p.numel() for p in run.model.parameters()), "train_seconds": spent}
    return row | errors(run.model, found, look_back, HORIZON, count)


BUDGET = {"quick": {"steps": 3, "count": 4}, "laptop": {"steps": 60, "count": 64}, "full": {"steps": 3000, "count": None}}
"""Training steps, windows of the test part (None: all)."""


def grid(profile: str, seeds: Sequence[int], observed: Sequence[str]) -> list[dict[str, Any]]:
    return [{"seed": seed, "dataset": name, "look_back": look_back, "variant": variant, **BUDGET[profile]}
            for seed in seeds for name in observed for look_back in LOOK_BACKS for variant in VARIANTS]  # fmt: skip
