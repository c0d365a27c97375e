"""Methods by backbones (M2), probabilistic forecasts (M6), what is forgotten (M7), and models from scratch at equal time (M8).

One fine-tuning gives rows of up to three experiments: "methods" (errors on the set that was trained on), "forgetting" (errors on sets that
were not, before and after), and, for MSFT on Moirai, "pooling_of_forecasts" (its scales put together in three ways). Two ways to fine-tune
badly stand at the end: a learning rate of another size of model, and a run that is stopped by what it minimises.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from tsfm_lib import checkpoints, finetune
from tsfm_lib.evaluate.comparison import interval
from tsfm_lib.evaluate.metrics import DECILES
from tsfm_lib.experiments.msft.mixer import MixerConfig, MultiscaleMixer
from tsfm_lib.experiments.msft.trials import BACKBONES, CONTEXT, MADE, cut, other_windows, row, start, tuned, weights_of, with_design
from tsfm_lib.finetune.design import CHOICES, METHODS, method
from tsfm_lib.finetune.targets import Windows
from tsfm_lib.models.scratch import DLinearConfig, PatchTSTConfig, scaled_error

SETS = ("ETTh1", "ETTh2", "ETTm1", "ETTm2", "weather", "ecl_2ch")
HORIZONS = (96, 192, 336, 720)
SCALES = {"moirai": 3, "moment": 3, "units": 2}
"""K: 3 as in the authors' scripts; UniTS, which has no use for a horizon below one patch, gets 2."""

RIVALS = ("dlinear", "patchtst", "multiscale-mixer")
TIMED = ("zero-shot", "probe", "lora", "full", "msft", *RIVALS)
SLOW = ("full", "msft")  # whose learning rates are tried
JUDGED = ("zero-shot", "probe", "lora", "full", "msft")
PRIOR = "msft, authors' prior"
"""As the authors' scripts have it on ETTh1 and ETTh2: nearly all weight is on scale 0 at the start."""
SCRATCH_RATES = (2e-3, 5e-3, 1e-3)

SAID = {
    "ETTm1": {"msft": 0.332, "full": 0.368, "TimeMixer": 0.381, "SimpleTM": 0.381},
    "ETTm2": {"msft": 0.247, "full": 0.258, "TimeMixer": 0.275, "SimpleTM": 0.275},
    "weather": {"msft": 0.213, "full": 0.232, "TimeMixer": 0.240, "SimpleTM": 0.243},
    "electricity": {"msft": 0.169, "full": 0.173, "TimeMixer": 0.182, "SimpleTM": 0.166},
}
"""MSE, mean of four horizons, Moirai-Base: the paper's main table, as one digest gives it. The tables themselves are not known to us."""

TOLD = {
    "trained parameters": ("4.4 of 13.8 million", "a second digest, Moirai-Small"),
    "steps per second, MSFT": (4.6, "the second digest"),
    "steps per second, LoRA": (11.1, "the second digest"),
    "ms per step, MSFT": (103.53, "the second digest, ETTm1"),
    "gain over full fine-tuning on ETTm1, %": (6.8, "the second digest"),
}
"""What a second digest says of the same paper."""


def look_back(backbone: str, seed: int, steps: int) -> int:
    """The maps of UniTS along the tokens are made for one length, that of its pretraining: at any other it begins far from zero-shot."""
    return start(backbone, seed, steps).config.context if backbone == "units" else CONTEXT


def how(backbone: str, variant: str) -> Any:
    if variant in METHODS and variant != "msft":
        return variant
    return finetune.variation("msft", scales=SCALES[backbone], prior=9.0 if variant == PRIOR else 0.0)


def untrained(backbone: str, dataset: str, seed: int, steps: int, count: int = 56) -> dict[str, float]:
    """What MSFT mixes before its first step: MSE on validation windows of each scale alone, and of all with equal weights."""
    on = cut(dataset, seed, HORIZONS[0], count, count, look_back(backbone, seed, steps))
    module = finetune.MultiScale(start(backbone, seed, steps), how(backbone, "msft").design, on.context, on.horizon)
    points = finetune.scale_points(module, on.val.contexts)
    found = {**{f"scale {i}": one for i, one in enumerate(points)}, "all, equal weights": points.mean(0)}
    return {name: float(np.nanmean((one - on.val.futures) ** 2)) for name, one in found.items()}


def methods(seed: int, backbone: str, dataset: str, horizon: int, variant: str, steps: int, tested: int, budget: dict[str, Any],
            others: Sequence[str], weights: str) -> list[dict[str, Any]]:  # fmt: skip
    """One method on one backbone and set."""
    context = look_back(backbone, seed, steps)
    on = cut(dataset, seed, horizon, budget["count"], tested, context)
    done = tuned(backbone, how(backbone, variant), on, seed, steps, budget)
    rows = [{"experiment": "methods", **row(done, on)}]
    for other, test in other_windows(dataset, seed, horizon, tested, others, context).items():
        rows.append({"experiment": "forgetting", "sets": "other", "dataset": other, "trained_on": dataset, **test.scores(done.model)})
    rows.append({"experiment": "forgetting", "sets": "own", "trained_on": dataset, **{k: rows[0][k] for k in ("MSE", "MAE")}})
    if backbone == "moirai" and variant == "msft":
        for combine in CHOICES["combine"]:
            scores = on.test.scores(with_design(done, combine=combine), DECILES)
            rows.append({"experiment": "pooling_of_forecasts", "variant": combine, **scores})
    return rows


def relative(rows: pd.DataFrame, metric: str, of: str = "zero-shot") -> pd.DataFrame:
    """By how many percent a metric is above that of the variant `of` at the same seed, set and backbone; negative where it is below.

    >>> rows = pd.DataFrame({"seed": 0, "dataset": "d", "horizon": 1, "variant": ["zero-shot", "msft"], "MSE": [1.0, 0.75]})
    >>> relative(rows, "MSE")["change"].tolist()
    [0.0, -25.0]
    """
    keys = [name for name in ("seed", "dataset", "horizon", "backbone", "trained_on", "sets") if name in rows]
    base = rows[rows["variant"] == of].groupby(keys)[metric].mean().rename("base").reset_index()
    return rows.merge(base, on=keys).assign(change=lambda whole: 100 * (whole[metric] / whole["base"] - 1)).drop(columns="base")


def spread(rows: pd.Series) -> str:
    """Mean and 95 % interval over training seeds, for tables."""
    kept = rows.dropna()
    if len(kept) < 2:
        return ", ".join(f"{value:.3g}" for value in kept)
    seen = interval(kept.to_numpy())
    return f"{seen.estimate:.3g} [{seen.low:.3g}, {seen.high:.3g}]"


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


# ---- two ways to do it badly ----------------------------------------------------------------------------------------------------------

RATES = (5e-6, 5e-5, 5e-4, 5e-3, 5e-2)
"""The first is the one published for models of 14 and 91 million parameters."""


def learning_rates(seed: int, dataset: str, horizon: int, variant: str, rate: float, steps: int, tested: int, budget: dict[str, Any],
                   weights: str) -> dict[str, Any]:  # fmt: skip
    """One learning rate to the end: the error on the validation windows before the first step, at its least and after the last one."""
    on = cut(dataset, seed, horizon, budget["count"], tested)
    done = tuned("moirai", method(how("moirai", variant))._replace(rates=(rate,)), on, seed, steps, budget)
    path = done.curve["val_MSE"]
    return {"experiment": "learning_rates", "first": path.iloc[0], "last": path.iloc[-1], **row(done, on, (0.5,))}


class BySum(Windows):
    """Windows that a run is stopped by as it is trained: by the losses of the scales, weighted as they are at that moment."""

    def scores(self, model: Any, levels: Sequence[float] = (0.5,)) -> dict[str, float]:
        whole = torch.as_tensor(np.concatenate([self.contexts, self.futures], axis=-1), dtype=torch.float32)
        with torch.no_grad():
            return {"MSE": float(model.loss(whole))}


def stopping(seed: int, dataset: str, horizon: int, variant: str, steps: int, tested: int, budget: dict[str, Any], weights: str
             ) -> list[dict[str, Any]]:  # fmt: skip
    """The same training of MSFT, of which two rules keep a state: the least error of the mixed forecast, or the least weighted sum."""
    on = cut(dataset, seed, horizon, budget["count"], tested)
    watched = on if variant == "mixed forecast" else replace(on, val=BySum(on.val.contexts, on.val.futures))
    done = tuned("moirai", how("moirai", "msft"), watched, seed, steps, budget)
    last = {name: done.curve[name].iloc[-1] for name in done.curve if name.startswith("w")}
    path = [{"experiment": "stopping_path", "step": int(one["step"]), "watched": one["val_MSE"]} for one in done.curve.to_dict("records")]
    return [{"experiment": "stopping", **row(done, on), **last}, *path]


# ---- what is run ----------------------------------------------------------------------------------------------------------------------

BUDGET = {
    "quick": {"steps": 10, "tested": 14, "budget": {"steps": 4, "batch": 8, "rates": 1, "every": 2, "patience": 2, "count": 14}},
    "laptop": {"steps": 1500, "tested": 112,
               "budget": {"steps": 80, "batch": 16, "rates": 2, "every": 20, "patience": 4, "count": 84}},
    "full": {"steps": 5000, "tested": 1024,
             "budget": {"steps": 2000, "batch": 128, "rates": 3, "every": 100, "patience": 5, "count": 1024}},
}  # fmt: skip
"""Steps of pretraining where no weights ship, windows that methods are judged on, and what each may spend. `laptop` fits into 40 minutes of
one core."""

SECONDS = {"quick": 0.2, "laptop": 4.0, "full": 300.0}
PATIENT = 10_000
"""Validations without a new best, where only the clock or the number of steps ends a run; the best state is kept all the same."""


def grid(profile: str, seeds: Sequence[int], observed: Sequence[str] = ()) -> dict[str, list[dict[str, Any]]]:
    """The cells of every sweep. Sets that are there: two of hours at one horizon, all at all horizons in `full`; else the made ones.

    What is judged has every seed. Below `full` UniTS, whose steps cost most, has the first set alone; so have methods that no rule asks
    for, with three seeds (five for the authors' prior)."""
    whole, given = profile == "full", BUDGET[profile]
    there = [name for name in (SETS if whole else SETS[:2]) if name in observed] or list(MADE)
    there, horizons = there[:1] if profile == "quick" else there, HORIZONS if whole else HORIZONS[:1]
    others = [name for name in (*SETS[:2], "weather", "exchange_rate") if name in observed] or list(MADE)
    place = [{"seed": seed, "dataset": name, "horizon": horizon} for seed in seeds for name in there for horizon in horizons]
    few = [at for at in place if at["seed"] in seeds[:3] and at["dataset"] == there[0] and at["horizon"] == horizons[0]]
    chosen = lambda at, backbone, variant: whole or (
        variant in JUDGED and (backbone != "units" or at["dataset"] == there[0]) or
        at in few or variant == PRIOR and at["dataset"] == there[0])  # fmt: skip
    judged = [{**at, "backbone": backbone, "variant": variant, **given, "others": others, "weights": weights_of(backbone)}
              for at in place for backbone in BACKBONES for variant in (*METHODS, *([PRIOR] if backbone == "moirai" else []))
              if chosen(at, backbone, variant)]  # fmt: skip
    spend = lambda **changes: {**given, "budget": {**given["budget"], "patience": PATIENT, **changes}, "weights": weights_of("moirai")}
    timed, end = spend(rates=1, seconds=SECONDS[profile]), spend(rates=1)
    short, ladder = spend(rates=1, steps=max(1, given["budget"]["steps"] // 2)), RATES[::2] if profile == "quick" else RATES
    return {
        "methods": judged,
        "equal_time": [{**at, "variant": variant, **timed} for at in place for variant in TIMED],
        "learning_rates": [{**at, "variant": variant, "rate": rate, **short} for at in few for variant in SLOW for rate in ladder],
        "stopping": [{**at, "variant": variant, **end} for at in few for variant in ("mixed forecast", "weighted sum")],
    }
