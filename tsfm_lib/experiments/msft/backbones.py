"""Methods by backbones (M2), probabilistic forecasts (M6), what is forgotten (M7), and models from scratch at equal time (M8).

One fine-tuning gives rows of up to three experiments: "methods" (errors on the set that was trained on), "forgetting" (errors on sets that
were not, before and after), and, for MSFT on Moirai, "pooling_of_forecasts" (its scales put together in three ways).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from tsfm_lib import checkpoints, finetune
from tsfm_lib.evaluate.metrics import DECILES
from tsfm_lib.experiments.kairos.zero_shot import scaled_error
from tsfm_lib.experiments.msft.mixer import MixerConfig, MultiscaleMixer
from tsfm_lib.experiments.msft.trials import BACKBONES, CONTEXT, MADE, cut, other_windows, row, tuned, weights_of, with_design
from tsfm_lib.finetune.design import CHOICES, METHODS
from tsfm_lib.models.scratch import DLinearConfig, PatchTSTConfig

SETS = ("ETTh1", "ETTh2", "ETTm1", "ETTm2", "weather", "ecl_2ch")
HORIZONS = (96, 192, 336, 720)
SCALES = {"moirai": 3, "moment": 3, "units": 2}
"""K: 3 as in the authors' scripts; UniTS, which has no use for a horizon below one patch, gets 2."""

RIVALS = ("dlinear", "patchtst", "multiscale-mixer")
SCRATCH_RATES = (2e-3, 5e-3, 1e-3)


def how(backbone: str, method: str) -> Any:
    return finetune.variation("msft", scales=SCALES[backbone]) if method == "msft" else method


def methods(seed: int, backbone: str, dataset: str, horizon: int, variant: str, steps: int, tested: int, budget: dict[str, Any],
            others: Sequence[str], weights: str) -> list[dict[str, Any]]:  # fmt: skip
    """One method on one backbone and set."""
    on = cut(dataset, seed, horizon, budget["count"], tested)
    done = tuned(backbone, how(backbone, variant), on, seed, steps, budget)
    rows = [{"experiment": "methods", **row(done, on)}]
    for other, test in other_windows(dataset, seed, horizon, tested, others).items():
        rows.append({"experiment": "forgetting", "sets": "other", "dataset": other, "trained_on": dataset, **test.scores(done.model)})
    rows.append({"experiment": "forgetting", "sets": "own", "trained_on": dataset, **{k: rows[0][k] for k in ("MSE", "MAE")}})
    if backbone == "moirai" and variant == "msft":
        for combine in CHOICES["combine"]:
            scores = on.test.scores(with_design(done, combine=combine), DECILES)
            rows.append({"experiment": "pooling_of_forecasts", "variant": combine, **scores})
    return rows


# ---- from scratch, at equal time ------------------------------------------------------------------------------------------------------


def rival(variant: str, horizon: int, seed: int) -> nn.Module:
    look = {"context": CONTEXT, "horizon": horizon, "levels": ()}
    if variant == "multiscale-mixer":
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return MultiscaleMixer(MixerConfig(**look))
    small = {"width": 32, "heads": 4, "layers": 2, "hidden": 64, "dropout": 0.1, "patch": 16, "stride": 16}
    return checkpoints.build(variant, DLinearConfig(**look) if variant == "dlinear" else PatchTSTConfig(**look, **small), seed)


def equal_time(seed: int, dataset: str, horizon: int, variant: str, steps: int, tested: int, budget: dict[str, Any], weights: str
               ) -> dict[str, Any]:  # fmt: skip
    """The same windows and as many CPU seconds for each learning rate: methods on Moirai, and models that begin with nothing.
    `budget` must say how many seconds."""
    on = cut(dataset, seed, horizon, budget["count"], tested)
    if variant in METHODS:
        done = tuned("moirai", how("moirai", variant), on, seed, steps, budget)
    else:
        make: Callable[[], nn.Module] = partial(rival, variant, horizon, seed)
        done = finetune.search(make, SCRATCH_RATES, on, finetune.Budget(**budget), seed, loss=scaled_error)
    return {"experiment": "from_scratch", **row(done, on, (0.5,))}


# ---- what is run ----------------------------------------------------------------------------------------------------------------------

BUDGET = {
    "quick": {"steps": 10, "tested": 28, "budget": {"steps": 4, "batch": 16, "rates": 1, "every": 2, "patience": 2, "count": 28}},
    "laptop": {"steps": 1500, "tested": 112,
               "budget": {"steps": 150, "batch": 32, "rates": 2, "every": 25, "patience": 3, "count": 112}},
    "full": {"steps": 5000, "tested": 1024,
             "budget": {"steps": 2000, "batch": 128, "rates": 3, "every": 100, "patience": 5, "count": 1024}},
}  # fmt: skip
"""Steps of pretraining where no weights ship, windows that methods are judged on, and what each may spend."""

SECONDS = {"quick": 0.2, "laptop": 8.0, "full": 300.0}


def grid(profile: str, seeds: Sequence[int], observed: Sequence[str] = ()) -> dict[str, list[dict[str, Any]]]:
    """The cells of both sweeps. Sets that are there: two of hours at one horizon, all at all horizons in `full`; else the made ones."""
    there = [name for name in (SETS if profile == "full" else SETS[:2]) if name in observed] or list(MADE)
    there, horizons, given = there[:1] if profile == "quick" else there, HORIZONS if profile == "full" else HORIZONS[:1], BUDGET[profile]
    others = [name for name in (*SETS[:2], "weather", "exchange_rate") if name in observed] or list(MADE)
    place = [{"seed": seed, "dataset": name, "horizon": horizon} for seed in seeds for name in there for horizon in horizons]
    timed = {**given, "budget": {**given["budget"], "seconds": SECONDS[profile]}, "weights": weights_of("moirai")}
    judged = [{**at, "backbone": backbone, "variant": variant, **given, "others": others, "weights": weights_of(backbone)}
              for at in place for backbone in BACKBONES for variant in METHODS]  # fmt: skip
    at_equal_time = ("zero-shot", "probe", "lora", "full", "msft", *RIVALS)
    return {"methods": judged, "equal_time": [{**at, "variant": variant, **timed} for at in place for variant in at_equal_time]}
