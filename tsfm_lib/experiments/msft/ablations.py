"""What each part of multi-scale fine-tuning is worth (M3), and whether scales are (M4), on Moirai.

Every variant is one switch away from "msft", or as few as make sense. Two controls belong to the question whether scales matter: one
scale with as many trained parameters (low-rank pairs everywhere, of higher rank), and as many copies of one scale as there are scales
(the mixture without the resolutions). A variant is fine-tuned once and has a row in every table that names it.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tsfm_lib import finetune
from tsfm_lib.evaluate import Interval, interval
from tsfm_lib.experiments.msft.trials import CONTEXT, HORIZON, MADE, cut, row, source, start, tokens, tuned, weights_of
from tsfm_lib.experiments.trials import gains
from tsfm_lib.finetune import multiscale
from tsfm_lib.finetune.design import Method, method
from tsfm_lib.finetune.scales import Part, alignment

SCALES = 3
PLAIN: Method = finetune.variation("msft", scales=SCALES)
change = lambda **switches: PLAIN._replace(design=replace(PLAIN.design, **switches))
EQUAL = "one scale, equal parameters"

COMPONENTS: dict[str, Method | None] = {
    "msft": PLAIN,
    "no aggregator": change(aggregate="none"),
    "coarse to fine": change(aggregate="c2f"),
    "fine to coarse": change(aggregate="f2c"),
    "refinement": change(aggregate="refine"),
    "neighbours as they were": change(iterated=False),
    "shared lora": change(lora="shared"),
    "no lora": change(lora="none"),
    "shared adapters": change(adapters="shared"),
    "no adapters": change(adapters="none"),
    "shared adapters and lora": change(adapters="shared", lora="shared"),
    "attention across scales": change(aggregate="none", attention="across"),
    "attention across, one clock": change(aggregate="none", attention="aligned"),
    "no mixing": change(mixing="none"),
    "uniform weights": change(mixing="uniform"),
    "mixed loss": change(mixing="mixed loss"),
    "stacked weights": change(mixing="stacked"),
    "authors' prior": change(prior=9.0),  # in their scripts for ETTh1 and ETTh2
    "lines between coarse steps": change(upsample="linear"),
}
SWEEP: dict[str, Method | None] = {
    "zero-shot": method("zero-shot"),
    "one scale": change(scales=0, aggregate="none"),
    **{f"K = {k}": change(scales=k) for k in (1, 2)},
    "msft": PLAIN,
    "K = 4": change(scales=4),
    "automatic K": change(scales=None),
    EQUAL: None,  # its rank depends on the model
    "one scale, equal ensemble": change(factor=1, aggregate="none"),
    "no aggregator": COMPONENTS["no aggregator"],  # what the ensemble is like, but for the resolutions
}
POOLINGS: dict[str, Method | None] = {"msft": PLAIN, **{f"{how} pooling": change(pooling=how) for how in ("max", "first", "wavelet")}}
TABLES = {"components": COMPONENTS, "scales": SWEEP, "pooling": POOLINGS}
VARIANTS = COMPONENTS | SWEEP | POOLINGS
JUDGED = ("msft", "no aggregator", "shared lora", "no mixing", "one scale", EQUAL, "one scale, equal ensemble")
"""What the rules of M3 and M4 name: on all sets with all seeds. Up to `laptop` the rest has three seeds, and one set unless in SWEEP."""


def method_of(variant: str, model: nn.Module, horizon: int) -> Method:
    found = VARIANTS[variant]
    return found or PLAIN._replace(design=finetune.matched(model, PLAIN.design, CONTEXT, horizon))


def variants(seed: int, variant: str, dataset: str, horizon: int, steps: int, tested: int, budget: dict[str, Any], weights: str
             ) -> list[dict[str, Any]]:  # fmt: skip
    """One variant on one set."""
    how = method_of(variant, start("moirai", seed, steps), horizon)
    on = cut(dataset, seed, horizon, budget["count"], tested)
    done = tuned("moirai", how, on, seed, steps, budget)
    mixed = {name: value for name, value in done.facts.items() if name.startswith("w")}  # weights of the scales
    found = {"K": done.facts.get("scales", 0), **row(done, on, (0.5,)), **mixed}
    return [{"experiment": name, **found} for name, table in TABLES.items() if variant in table]


def worth(rows: pd.DataFrame, of: str = "msft") -> dict[str, Interval | None]:
    """By how many percent the error of `of` is below that of every other variant: mean over sets, interval over seeds."""
    found = gains(rows, "dataset", "MSE", of).dropna().groupby(["rival", "seed"], sort=False)["gain"].mean()
    return {name: interval(part.to_numpy()) if len(part) > 1 else None for name, part in found.groupby(level="rival", sort=False)}


def choice(seed: int, dataset: str, horizon: int, steps: int, count: int, weights: str) -> list[dict[str, Any]]:
    """What the automatic choice of K looks at: the frozen model's stacked forecasts of scales 0 ... K on validation windows."""
    on = cut(dataset, seed, horizon, count, count)
    errors = finetune.scale_errors(start("moirai", seed, steps), on)
    return [{"variant": "frozen", "K": k, "MSE": float(error)} for k, error in enumerate(errors)]


def costs(seed: int, batch: int, rounds: int, steps: int, weights: str) -> list[dict[str, Any]]:
    """CPU time of a loss and its gradient, in turns. "one row" is the published form: its mask decides who is heard, not what it costs."""
    plain = {("list", k): change(scales=k) for k in range(5)}
    other = {("list, no aggregators", SCALES): COMPONENTS["no aggregator"], ("one row", SCALES): COMPONENTS["attention across scales"]}
    model, x = start("moirai", seed, steps), torch.randn(batch, 1, CONTEXT + HORIZON, generator=torch.Generator().manual_seed(seed))
    modules = {key: finetune.MultiScale(model, how.design, CONTEXT, HORIZON, seed).train()
               for key, how in (plain | other | {("lora", 0): method("lora")}).items()}  # fmt: skip
    rows = []
    for number in range(-1, rounds):  # the first round warms up
        for (variant, k), module in modules.items():
            began = time.process_time()
            module.loss(x.cumsum(-1)).backward()
            rows.append({"variant": variant, "K": k, "round": number, "ms": 1e3 * (time.process_time() - began),
                         "tokens": tokens(module), "trainable": finetune.trainable(module)})  # fmt: skip
            module.zero_grad()
    return [row for row in rows if row["round"] >= 0]


# ---- counted from the wrong end -------------------------------------------------------------------------------------------------------


def from_the_left(fine: Part, coarse: Part, factor: int = 2) -> Float[Tensor, "N n"]:
    """`scales.alignment` as it must not be: the context counted from its beginning, where a ragged token stands.

    >>> from_the_left(Part(0, 3, 0), Part(0, 2, 0)).int().tolist(), alignment(Part(0, 3, 0), Part(0, 2, 0)).int().tolist()
    ([[1, 0], [1, 0], [0, 1]], [[1, 0], [0, 1], [0, 1]])
    """
    pairs = lambda n, m: torch.eye(m).repeat_interleave(factor, dim=0)[:n]
    return torch.block_diag(torch.zeros(fine.prefix, coarse.prefix), *(pairs(n, m) for n, m in zip(fine[1:], coarse[1:])))


COUNTED = {"from the origin": alignment, "from the left": from_the_left}


def misaligned(seed: int, variant: str, dataset: str, context: int, horizon: int, steps: int, tested: int, budget: dict[str, Any],
               weights: str) -> dict[str, Any]:  # fmt: skip
    """Fine-tuned and judged with tokens of neighbouring scales matched in one of two ways."""
    on = finetune.target(source(dataset, seed), context, horizon, count=budget["count"], tested=tested)
    with patch.object(multiscale, "alignment", COUNTED[variant]):
        return row(tuned("moirai", PLAIN, on, seed, steps, budget), on, (0.5,))


# ---- what is run ----------------------------------------------------------------------------------------------------------------------

RAGGED = 224  # steps of context: tokens that pairs do not divide
BUDGET = {
    "quick": {"steps": 10, "tested": 14, "budget": {"steps": 2, "batch": 8, "rates": 1, "every": 2, "patience": 2, "count": 14}},
    "laptop": {"steps": 1500, "tested": 112,
               "budget": {"steps": 80, "batch": 16, "rates": 1, "every": 20, "patience": 3, "count": 56}},
    "full": {"steps": 5000, "tested": 1024,
             "budget": {"steps": 2000, "batch": 128, "rates": 2, "every": 100, "patience": 5, "count": 1024}},
}  # fmt: skip
"""Steps of pretraining where no weights ship, windows that variants are judged on, and what each may spend."""

ROUNDS = {"quick": 2, "laptop": 10, "full": 30}


def grid(profile: str, seeds: Sequence[int], observed: Sequence[str] = ()) -> dict[str, list[dict[str, Any]]]:
    """The cells of every sweep. `laptop`: two sets of hours; `full`: also the two whose numbers are known, ETTm1 and weather."""
    wanted = ("ETTh1", "ETTh2", "ETTm1", "weather") if profile == "full" else ("ETTh1", "ETTh2")
    there = [name for name in wanted if name in observed] or list(MADE)
    there, few = there[:1] if profile == "quick" else there, seeds if profile == "full" else seeds[:3]
    given = {**BUDGET[profile], "weights": weights_of("moirai")}
    known = {name: given[name] for name in ("steps", "weights")}
    sweep = [name for name in SWEEP if name not in JUDGED]
    beside = [name for name in VARIANTS if name not in (*JUDGED, *sweep)]
    groups = ((JUDGED, there, seeds), (sweep, there, few), (beside, there if profile == "full" else there[:1], few))
    return {
        "variants": [{"seed": seed, "dataset": name, "variant": variant, "horizon": HORIZON, **given}
                     for names, sets, some in groups for seed in some for name in sets for variant in names],
        "choice": [{"seed": seeds[0], "dataset": name, "horizon": HORIZON, "count": given["budget"]["count"], **known}
                   for name in dict.fromkeys((*MADE, *observed))],
        "costs": [{"seed": seeds[0], "batch": given["budget"]["batch"], "rounds": ROUNDS[profile], **known}],
        "misaligned": [{"seed": seed, "dataset": there[0], "variant": how, "context": RAGGED, "horizon": HORIZON, **given}
                       for seed in few for how in COUNTED],
    }  # fmt: skip
