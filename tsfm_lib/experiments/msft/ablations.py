"""What each part of multi-scale fine-tuning is worth (M3), and whether scales are (M4), on Moirai.

Every variant is one switch away from "msft". Two controls belong to the question whether scales matter: one scale with as many trained
parameters (low-rank pairs everywhere, of higher rank), and as many copies of one scale as there are scales (the mixture without the
resolutions).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tsfm_lib import finetune
from tsfm_lib.experiments.msft.trials import CONTEXT, MADE, cut, row, start, tuned, weights_of
from tsfm_lib.finetune.design import Method, method

SCALES = 3
PLAIN: Method = finetune.variation("msft", scales=SCALES)
change = lambda **switches: PLAIN._replace(design=replace(PLAIN.design, **switches))

COMPONENTS: dict[str, Method] = {
    "msft": PLAIN,
    "no aggregator": change(aggregate="none"),
    "shared lora": change(lora="shared"),
    "no mixing": change(mixing="none"),
    "coarse to fine": change(aggregate="c2f"),
    "fine to coarse": change(aggregate="f2c"),
    "refinement": change(aggregate="refine"),
    "neighbours as they were": change(iterated=False),
    "no lora": change(lora="none"),
    "no adapters": change(adapters="none"),
    "shared adapters": change(adapters="shared"),
    "shared adapters and lora": change(adapters="shared", lora="shared"),
    "attention across scales": change(aggregate="none", attention="across"),
    "attention across, one clock": change(aggregate="none", attention="aligned"),
    "uniform weights": change(mixing="uniform"),
    "mixed loss": change(mixing="mixed loss"),
    "stacked weights": change(mixing="stacked"),
    "lines between coarse steps": change(upsample="linear"),
}
SWEEP: dict[str, Method] = {
    "msft": PLAIN,
    "one scale": change(scales=0, aggregate="none"),
    **{f"K = {k}": change(scales=k) for k in (1, 2, 4)},
    "automatic K": change(scales=None),
    "one scale, equal ensemble": change(factor=1, aggregate="none"),
}
"""Beside "one scale, equal parameters", whose rank depends on the model."""

POOLINGS: dict[str, Method] = {"mean": PLAIN, **{how: change(pooling=how) for how in ("max", "first", "wavelet")}}
EQUAL = "one scale, equal parameters"


def trial(experiment: str, method_: Method, seed: int, dataset: str, horizon: int, steps: int, tested: int, budget: dict[str, Any]
          ) -> dict[str, Any]:  # fmt: skip
    on = cut(dataset, seed, horizon, budget["count"], tested)
    done = tuned("moirai", method_, on, seed, steps, budget)
    return {"experiment": experiment, "K": done.model.design.scales, **row(done, on)}


def components(seed: int, variant: str, weights: str, **cell: Any) -> dict[str, Any]:
    return trial("components", COMPONENTS[variant], seed, **cell)


def scales(seed: int, variant: str, weights: str, **cell: Any) -> dict[str, Any]:
    found = SWEEP.get(variant)
    if found is None:
        design = finetune.matched(start("moirai", seed, cell["steps"]), PLAIN.design, CONTEXT, cell["horizon"])
        found = method(design)._replace(rates=PLAIN.rates)
    return trial("scales", found, seed, **cell)


def pooling(seed: int, variant: str, weights: str, **cell: Any) -> dict[str, Any]:
    return trial("pooling", POOLINGS[variant], seed, **cell)


# ---- what is run ----------------------------------------------------------------------------------------------------------------------

BUDGET = {
    "quick": {"steps": 10, "tested": 14, "budget": {"steps": 2, "batch": 8, "rates": 1, "every": 1, "patience": 2, "count": 14}},
    "laptop": {"steps": 1500, "tested": 112,
               "budget": {"steps": 150, "batch": 32, "rates": 1, "every": 25, "patience": 3, "count": 112}},
    "full": {"steps": 5000, "tested": 1024,
             "budget": {"steps": 2000, "batch": 128, "rates": 2, "every": 100, "patience": 5, "count": 1024}},
}  # fmt: skip
"""Steps of pretraining where no weights ship, windows that variants are judged on, and what each may spend."""


def grid(profile: str, seeds: Sequence[int], observed: Sequence[str] = ()) -> dict[str, list[dict[str, Any]]]:
    """The cells of every sweep. `laptop`: two sets of hours; `full`: also the two whose numbers are known, ETTm1 and weather."""
    wanted = ("ETTh1", "ETTh2", "ETTm1", "weather") if profile == "full" else ("ETTh1", "ETTh2")
    there = [name for name in wanted if name in observed] or list(MADE)
    given = {"horizon": 96, **BUDGET[profile], "weights": weights_of("moirai")}
    cells = lambda variants: [{"seed": seed, "dataset": name, "variant": variant, **given}
                              for seed in seeds for name in there for variant in variants]  # fmt: skip
    return {"components": cells(COMPONENTS), "scales": cells((*SWEEP, EQUAL)), "pooling": cells(POOLINGS)}
