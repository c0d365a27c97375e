"""Multi-scale fine-tuning where the paper does not go: on a causal decoder and on an encoder-decoder. What is asked, said and judged here
is ours.

"methods" compares what one may do at equal steps, "equal_time" at equal CPU seconds. On the decoder the loss may stand behind the last
patch or behind every one; and two mistakes are made on purpose, each of which leaves the shapes right: scales matched as in an encoder,
and the usual triangle over a row of all scales. "leaks" trains a tiny decoder on white noise, of which nothing can be forecast, so that
whatever is forecast was heard.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import norm
from torch import Tensor

from tsfm_lib import checkpoints, finetune
from tsfm_lib.claims.claim import Claim
from tsfm_lib.claims.rules import Difference, Threshold
from tsfm_lib.evaluate.metrics import DECILES
from tsfm_lib.experiments.msft.trials import HORIZON, MADE, cut, row, start, tuned, weights_of
from tsfm_lib.finetune import joined, multiscale
from tsfm_lib.finetune.mixing import quantile_loss
from tsfm_lib.finetune.scales import alignment
from tsfm_lib.finetune.tuning import one_step
from tsfm_lib.models.timesfm import TimesFMConfig
from tsfm_lib.train.streams import rng_for

BACKBONES = ("timesfm", "chronos-bolt")
SETS = ("ETTh1", "ETTm1")
EVERY = {name: f"{name}, every patch" for name in ("lora", "full", "msft")}
UNFINISHED, FORGOTTEN = "msft, matched as in an encoder", "msft, every patch, matched as in an encoder"
every = partial(finetune.variation, supervise="every")
ARMS: dict[str, Any] = {
    **{name: name for name in ("zero-shot", "lora", "full", "msft")},
    **{label: every(name) for name, label in EVERY.items()},
    UNFINISHED: "msft",
    FORGOTTEN: every("msft"),
}
COMMON, DECODER = ("zero-shot", "lora", "full", "msft"), (*EVERY.values(), FORGOTTEN)


def matching(variant: str) -> AbstractContextManager:
    """Scales matched as in an encoder, where the variant says so."""
    return patch.object(multiscale, "finished", alignment) if variant in (UNFINISHED, FORGOTTEN) else nullcontext()


def methods(seed: int, backbone: str, dataset: str, variant: str, horizon: int, steps: int, tested: int, budget: dict[str, Any],
            weights: str) -> dict[str, Any]:  # fmt: skip
    """One method on one backbone and set, at the context of its pretraining."""
    on = cut(dataset, seed, horizon, budget["count"], tested, start(backbone, seed, steps).config.context)
    with matching(variant):
        done = tuned(backbone, ARMS[variant], on, seed, steps, budget)
        return {**row(done, on), **{name: value for name, value in done.facts.items() if name.startswith("w")}}


def untrained(backbone: str, dataset: str, seed: int, steps: int, count: int) -> dict[str, float]:
    """What MSFT mixes before its first step: MSE on validation windows of each scale alone, and of all with equal weights."""
    model = start(backbone, seed, steps)
    on = cut(dataset, seed, HORIZON, count, count, model.config.context)
    points = finetune.scale_points(finetune.MultiScale(model, finetune.METHODS["msft"].design, on.context, on.horizon), on.val.contexts)
    found = {**{f"scale {i}": one for i, one in enumerate(points)}, "all, equal weights": points.mean(0)}
    return {name: float(np.nanmean((one - on.val.futures) ** 2)) for name, one in found.items()}


# ---- white noise, of which nothing can be forecast -------------------------------------------------------------------------------------

NOISY = TimesFMConfig(context=64, patch=4, horizon=4, spread_horizon=None, width=32, heads=4, hidden=64, layers=2, quantiles=DECILES,
                      mean=False, gaps="mask", rope_base=100.0)  # fmt: skip
SCALES = 2
_plain = finetune.Design(scales=SCALES, train="all", adapters="own", mixing="uniform", supervise="every")
_list, _down, _row = (replace(_plain, **changes) for changes in ({"aggregate": "both"}, {"aggregate": "c2f"}, {"attention": "across"}))


def triangle(ends: Float[Tensor, " L"], coarse_first: bool = False) -> Bool[Tensor, "L L"]:
    """`joined.heard` as it must not be: who stands in front is heard, whenever it ends.

    >>> triangle(torch.tensor([-1.0, 0.0, 0.0])).int().tolist(), triangle(torch.tensor([-1.0, 0.0, 0.0]), coarse_first=True).int().tolist()
    ([[1, 0, 0], [1, 1, 0], [1, 1, 1]], [[1, 0, 1], [1, 1, 1], [0, 0, 1]])
    """
    place = torch.arange(len(ends), device=ends.device)
    if coarse_first:
        scale = (torch.diff(ends, prepend=ends[:1] - 1) <= 0).cumsum(0)  # within a scale they rise
        place = place - len(ends) * scale
    return place[:, None] >= place


LEAKS: dict[str, tuple[finetune.Design, Callable[[], AbstractContextManager]]] = {
    "list, what has ended": (_list, nullcontext),
    "list, as in an encoder": (_list, lambda: patch.object(multiscale, "finished", alignment)),
    "the same, coarse to fine alone": (_down, lambda: patch.object(multiscale, "finished", alignment)),
    "row, what has ended": (_row, nullcontext),
    "row, triangle, fine first": (_row, lambda: patch.object(joined, "heard", triangle)),
    "row, triangle, coarse first": (_row, lambda: patch.object(joined, "heard", partial(triangle, coarse_first=True))),
}


def floor(scale: int) -> float:
    """The least quantile loss of white noise, of means over 2^scale steps: twice the density at the true quantiles, their mean."""
    return float(2 * np.mean(norm.pdf(norm.ppf(DECILES))) / 2 ** (scale / 2))


def ceiling(back: int, scales: int = SCALES, length: int = NOISY.horizon) -> float:
    """The most skill of a token of the finest scale, which ends `back` patches before the series does, where it hears every coarse token
    that it lies in, and these have heard nothing of the finest: it then knows means of 2^i steps, also of the patch that it is to say.

    >>> [round(ceiling(back), 2) for back in range(4)]
    [0.0, 0.29, 0.13, 0.29]
    """
    known = np.zeros(length)  # share of the variance of each step
    for i in range(1, scales + 1):
        if back % 2**i:  # the token of scale i ends later, by whole patches of the finest
            known = np.maximum(known, 1 / 2**i)
    return float(1 - np.sqrt(1 - known).mean())


def leaks(seed: int, variant: str, steps: int, batch: int, tested: int) -> list[dict[str, Any]]:
    """A tiny decoder from scratch on white noise, supervised behind every patch; skill on new noise, 1 - loss / floor, for every token of
    every scale. `back`: patches of the finest scale between the end of the token and that of the series."""
    design, mistake = LEAKS[variant]
    noise = lambda n, purpose: torch.as_tensor(rng_for(seed, 0, purpose).standard_normal((n, 1, NOISY.context + NOISY.horizon))).float()
    module = finetune.MultiScale(checkpoints.build("timesfm", NOISY, seed), design, NOISY.context, NOISY.horizon, seed)
    free = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW([{"params": free, "lr": 3e-3, "peak": 3e-3}], weight_decay=0.0)
    train, test, rows = noise(batch * steps, "noise to train on"), noise(tested, "noise to test on"), []
    with mistake():
        for step in range(steps):
            one_step(module.train(), optimiser, free, train[step * batch : (step + 1) * batch], seed, step, 0.0, None)
        past, future = test[..., : NOISY.context], test[..., NOISY.context :]
        with torch.no_grad():
            said = module.eval()(past, every=True)
    for scale, (one, target) in enumerate(zip(said, module.targets(past, future, said))):
        losses = quantile_loss(one.raw.in_units(one.statistics).values, target, one.raw.levels).mean((0, 1, 3))
        n = len(losses)
        rows += [{"scale": scale, "back": (n - 1 - i) * 2**scale, "skill": 1 - float(loss) / floor(scale)} for i, loss in enumerate(losses)]
    return [one | {"where": "end" if one["back"] == 0 else "inside"} for one in rows if one["back"] < NOISY.context // NOISY.patch // 2]


# ---- predictions -----------------------------------------------------------------------------------------------------------------------

_ours = {"paper": "ours", "said_by": "ours", "said": "", "source": "written before the run", "notebook": "43_msft_beyond_encoders",
         "unit": "seed"}  # fmt: skip
_noise = {"experiment": "leaks", "where": {"where": "inside"}}
PREDICTED = (
    Claim(
        id="decoder",
        words="On the decoder several scales are worth nothing beside LoRA.",
        rule=(
            Difference("MSE", "lora", "msft", where={"backbone": "timesfm"}, experiment="methods"),
            Difference("MSE", "lora", "msft", where={"backbone": "timesfm"}, experiment="equal_time", beside=True),
        ),
        expects="LoRA ahead: its forecast begins as the pretrained one, that of MSFT as a mean with staircases",
        **_ours,
    ),
    Claim(
        id="encoder-decoder",
        words="Nor are they on the encoder-decoder.",
        rule=(
            Difference("MSE", "lora", "msft", where={"backbone": "chronos-bolt"}, experiment="methods"),
            Difference("MSE", "lora", "msft", where={"backbone": "chronos-bolt"}, experiment="equal_time", beside=True),
        ),
        expects="the same, for the same reason",
        **_ours,
    ),
    Claim(
        id="every patch",
        words="A decoder is better fine-tuned behind every patch than behind the last.",
        rule=(
            Difference("MSE", EVERY["lora"], "lora", experiment="methods"),
            Difference("MSE", EVERY["msft"], "msft", experiment="methods"),
        ),
        expects="sixteen forecasts a window in the place of one, so less noise in every step",
        **_ours,
    ),
    Claim(
        id="leak",
        words="Matched as in an encoder, or behind a plain triangle, tokens forecast white noise; matched by what has ended, none does.",
        rule=(
            *(Threshold("skill", 0.02, "above", only=name, **_noise) for name in LEAKS if "ended" not in name),
            *(Threshold("skill", 0.01, "below", only=name, **_noise) for name in LEAKS if "ended" in name),
        ),
        expects="skill inside the series above .02, against none",
        **_ours,
    ),
    Claim(
        id="price",
        words="A decoder that was fine-tuned with the leak forecasts worse.",
        rule=Difference("MSE", EVERY["msft"], FORGOTTEN, experiment="methods"),
        expects="a higher error of the forecast behind the end, where there is nothing to hear",
        **_ours,
    ),
)

# ---- what is run -----------------------------------------------------------------------------------------------------------------------

BUDGET = {
    "quick": {"steps": 10, "tested": 14, "budget": {"steps": 2, "batch": 4, "rates": 1, "every": 2, "patience": 2, "count": 14}},
    "laptop": {"steps": 1500, "tested": 112,
               "budget": {"steps": 50, "batch": 16, "rates": 1, "every": 25, "patience": 4, "count": 56}},
    "full": {"steps": 5000, "tested": 1024,
             "budget": {"steps": 2000, "batch": 128, "rates": 3, "every": 100, "patience": 5, "count": 1024}},
}  # fmt: skip
"""Steps of pretraining where no weights ship, windows that methods are judged on, and what each may spend."""
SECONDS = {"quick": 0.1, "laptop": 4.0, "full": 300.0}
NOISE = {
    "quick": {"steps": 20, "batch": 16, "tested": 64},
    "laptop": {"steps": 150, "batch": 64, "tested": 1000},
    "full": {"steps": 4000, "batch": 64, "tested": 4000},
}


def grid(profile: str, seeds: Sequence[int], observed: Sequence[str] = ()) -> dict[str, list[dict[str, Any]]]:
    """The cells of every sweep. What is named in a prediction has every seed; the mistakes have the first set alone, as has equal time."""
    there, given = [name for name in SETS if name in observed] or list(MADE), BUDGET[profile]
    there = there[:1] if profile == "quick" else there
    cell = lambda seed, backbone, name, variant: {"seed": seed, "backbone": backbone, "dataset": name, "variant": variant,
                                                  "horizon": HORIZON, **given, "weights": weights_of(backbone)}  # fmt: skip
    asked = lambda backbone, name: [v for v in (*COMMON, *(DECODER if backbone == "timesfm" else ())) if v != FORGOTTEN or name == there[0]]
    found = [cell(seed, backbone, name, variant) for seed in seeds for backbone in BACKBONES for name in there
             for variant in asked(backbone, name)]  # fmt: skip
    found += [cell(seed, "timesfm", there[0], UNFINISHED) for seed in seeds[:3]]
    timed = given | {"budget": given["budget"] | {"patience": 10_000, "seconds": SECONDS[profile]}}
    return {
        "methods": found,
        "equal_time": [cell(seed, backbone, there[0], variant) | timed for seed in seeds for backbone in BACKBONES for variant in COMMON],
        "leaks": [{"seed": seed, "variant": variant, **NOISE[profile]} for seed in seeds for variant in LEAKS],
    }
