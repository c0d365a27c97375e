"""Who is taken apart, on which windows, and by which number an ablation is judged.

Names that do not ship yet (or are not in the folder that was named) are left out with a sentence and join in once they do. All functions
ask a model for one path, in a way that draws nothing at random: an ablation must not differ from the intact model by its dice.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

import tsfm_lib
from tsfm_lib import checkpoints, data, front
from tsfm_lib.errors import TsfmError
from tsfm_lib.evaluate import metrics, suites
from tsfm_lib.evaluate.comparison import interval
from tsfm_lib.experiments.trials import digest, tasks
from tsfm_lib.interpret.capturing import Run
from tsfm_lib.interpret.plans import sites

SUBJECTS = ("chronos-t5-nano", "chronos-bolt-nano", "timesfm-nano", "toto-nano", "moirai-nano")  # the five architectures of the paper
SEEDS = ("timesfm-nano", "timesfm-nano-1", "timesfm-nano-2", "timesfm-nano-3", "timesfm-nano-4")  # one recipe, training seeds 0 to 4
HALF = ("timesfm-nano-half",)  # the convergence control
HORIZON = 48  # one pass of most models: what follows is not about roll-outs


# ---- who -------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cast:
    """The names that are here, by role. `lead` is the one that is shown in detail."""

    five: tuple[str, ...]
    seeds: tuple[str, ...]
    half: tuple[str, ...]
    beyond: tuple[str, ...]
    missing: tuple[str, ...]
    slow: tuple[str, ...] = ()
    folder: str = ""

    @property
    def everybody(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.five, *self.seeds, *self.beyond)))

    @property
    def lead(self) -> str:
        found = (*self.seeds, *self.five, *self.beyond)
        if not found:
            raise TsfmError(f"no forecaster with heads in {self.folder or 'tsfm_lib/weights'}: expected one folder a model there")
        return found[0]

    def __str__(self) -> str:
        here = f"Taken apart: {', '.join(self.everybody) or 'nobody'}."
        gone = f" Not here yet, and left out until their weights are: {', '.join(self.missing)}." if self.missing else ""
        later = f" Left to longer runs, because they take a pass for every step: {', '.join(self.slow)}." if self.slow else ""
        return here + gone + later


def cast(folder: str = "", patient: bool = True) -> Cast:
    """Who is among the shipped weights, or in `folder`: official checkpoints, say, a folder each. There, unknown names join the five.

    Not `patient`: models that speak token by token are left out, they take a hundred times as long."""
    known = {path.parent.name for path in Path(folder).expanduser().glob("*/config.json")} if folder else set(front.shipped())
    if folder and not known:
        raise TsfmError(f"{folder} holds no models: expected folders with config.json and model.safetensors in it")
    fit = [name for name in sorted(known) if name in (*SUBJECTS, *SEEDS, *HALF) or _has_heads(name, folder)]
    slow = tuple(name for name in fit if not patient and hasattr(load(name, folder), "greedy"))
    fit = [name for name in fit if name not in slow]
    others = tuple(name for name in fit if name not in (*SUBJECTS, *SEEDS, *HALF))
    here = lambda names: tuple(name for name in names if name in fit)
    missing = () if folder else tuple(name for name in dict.fromkeys((*SUBJECTS, *SEEDS, *HALF)) if name not in (*fit, *slow))
    five = here(SUBJECTS) + (others if folder else ())
    return Cast(five, here(SEEDS), here(HALF), () if folder else others, missing, slow, folder)


def _has_heads(name: str, folder: str) -> bool:
    model = load(name, folder)
    return hasattr(model, "predict_quantiles") and hasattr(model, "sites") and bool(model.sites())


def place(name: str, folder: str = "") -> Path:
    return Path(folder).expanduser() / name if folder else front.shipped()[name]


@lru_cache(maxsize=4)
def load(name: str, folder: str = "") -> nn.Module:
    return tsfm_lib.load(place(name, folder))


def untrained(name: str, folder: str = "", seed: int = 0) -> nn.Module:
    """The same architecture and sizes with fresh weights."""
    config = load(name, folder).config
    return checkpoints.build(architecture(load(name, folder)), config, seed).eval()


def in_state(name: str, state: str, folder: str = "") -> nn.Module:
    return untrained(name, folder) if state == "untrained" else load(name, folder)


def architecture(model: nn.Module) -> str:
    from tsfm_lib.models import MODELS

    return next(name for name, entry in MODELS.items() if entry.cls == type(model).__name__)


def cell(name: str, folder: str = "") -> dict[str, str]:
    """What a cell of a sweep says about a model."""
    return {"variant": name, "folder": folder, "weights": digest(place(name, folder))}


def training_seed(name: str) -> int:
    """
    >>> training_seed("timesfm-nano"), training_seed("timesfm-nano-3"), training_seed("kairos-nano")
    (0, 3, 0)
    """
    return SEEDS.index(name) if name in SEEDS else 0


def kind(model: nn.Module) -> str:
    """encoder-decoder, decoder or encoder, by the stacks that its sites are in."""
    return "-".join(sorted({site.stack for site in sites(model).values()}, reverse=True))


# ---- what it is asked ------------------------------------------------------------------------------------------------------------------


def medians(model: nn.Module, horizon: int = HORIZON) -> Run:
    """Series to point forecasts B 1 h: medians; of Toto the path of means (medians of its mixture take five times as long), of Chronos-T5
    that of the likeliest tokens."""
    if hasattr(model, "greedy"):
        return lambda x: rearrange(model.greedy(rearrange(x, "B V T -> (B V) T"), horizon), "(B V) h -> B V h", B=len(x))
    if hasattr(model, "roll_out") and hasattr(model, "median"):
        return lambda x: model.mean(x, horizon)
    return lambda x: model.predict_quantiles(x, horizon, [0.5])[..., 0]


def one_pass(model: nn.Module, horizon: int = HORIZON) -> Run:
    """A run that goes through every stack once, as patterns and lenses need it: of what `told` returns.

    Chronos-T5 takes in all labels at once, Toto says one patch, the others as much as one pass gives."""
    if hasattr(model, "greedy"):

        def labelled(x: Tensor) -> Tensor:
            rows = rearrange(x, "B V T -> (B V) T")
            sentence = model.tokenise(rows[:, :-horizon])
            return model(sentence, model.words(rows[:, -horizon:], sentence.statistics)[:, :horizon])

        return labelled
    if hasattr(model, "roll_out") and hasattr(model, "median"):
        return lambda x: model.distribution(x).mean()
    horizon = min(horizon, getattr(model.config, "horizon", None) or horizon)
    return lambda x: model.predict_quantiles(x, horizon, [0.5])


def told(model: nn.Module, x: Float[Tensor, "B 1 T"], horizon: int = HORIZON) -> Float[Tensor, "B 1 _"]:
    """Contexts, and behind them, for a model that reads what it says, its own forecast."""
    return torch.cat([x, medians(model, horizon)(x)], dim=-1) if hasattr(model, "greedy") else x


# ---- windows and the number ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Windows:
    """Contexts of several data sets in one tensor, with the unit of MASE in front of each future; NaN behind shorter futures."""

    x: Float[Tensor, "N 1 T"]
    target: Float[Tensor, "N 1 _"]
    dataset: np.ndarray
    series: np.ndarray
    season: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, kept: np.ndarray | slice) -> "Windows":
        return Windows(self.x[kept], self.target[kept], self.dataset[kept], self.series[kept], self.season[kept])


PARTS = ("all", "calibration", "test")


def suite_for(profile: str) -> tuple[str, int | None]:
    """The suite and how many windows of each of its sets; without the benchmarks the embedded suite stands in."""
    if profile == "quick" or not all(data.available(name) for name in suites.names(suites.LOCAL)):
        return "embedded", 2 if profile == "quick" else 16
    return "local", 16 if profile == "laptop" else None


@lru_cache(maxsize=8)
def windows(suite: str, count: int | None, part: str = "all", horizon: int = HORIZON) -> Windows:
    """At most `count` windows of every set of a suite; every second one for calibration, the others to be judged on.

    The windows of series that are cut several times alternate: what calibration sees of such a series, the test sees at other times."""
    if part not in PARTS:
        raise TsfmError(f"part of the windows must be one of {', '.join(PARTS)}, got {part!r}")
    x, target, dataset, series, season = [], [], [], [], []
    for task in tasks(suite, count):
        scale = metrics.seasonal_scale(task.contexts, task.season)[:, :1]
        future = np.full((len(task), 1, horizon), np.nan)
        steps = min(horizon, task.horizon)
        future[:, :, :steps] = task.targets[:, :1, :steps]
        good = np.flatnonzero(np.isfinite(scale[:, 0]))  # a constant context has no unit
        good = good if part == "all" else good[PARTS.index(part) - 1 :: 2]
        x.append(task.contexts[good, :1])
        target.append(np.concatenate([scale[good, :, None], future[good]], axis=-1))
        dataset += [task.name] * len(good)
        series += [f"{task.name}/{task.series[i]}" for i in good]
        season += [task.season] * len(good)
    whole = [torch.as_tensor(np.concatenate(arrays), dtype=torch.float32) for arrays in (x, target)]
    return Windows(*whole, np.array(dataset), np.array(series), np.array(season))


def seasonal_naive(given: Windows) -> Float[Tensor, "N 1 h"]:
    """The last season again, each data set's own: what is left of a model when nothing is left of it."""
    out = torch.empty(len(given), 1, HORIZON)
    for season in np.unique(given.season):
        here = given.season == season
        out[here] = tsfm_lib.load("seasonal-naive", season=int(season)).predict_quantiles(given.x[here], HORIZON, [0.5])[..., 0].float()
    return out


def mase(forecast: Float[Tensor, "n 1 h"], target: Float[Tensor, "n 1 _"]) -> Float[Tensor, " n"]:
    """
    >>> mase(torch.zeros(1, 1, 2), torch.tensor([[[2.0, 1.0, 5.0]]]))        # errors 1 and 5 in units of 2
    tensor([1.5000])
    """
    return (forecast - target[..., 1:]).abs().nanmean((1, 2)) / target[:, 0, 0]


def affordable(model: nn.Module, given: Windows) -> Windows:
    """Every eighth window for models that read and say one token a step, all for the others."""
    return given[::8] if hasattr(model, "greedy") else given


def by_dataset(losses: Float[Tensor, "P N"], dataset: np.ndarray) -> pd.DataFrame:
    """Mean loss of every plan on every data set, and by how many percent it is above that of the first plan.

    >>> by_dataset(torch.tensor([[1.0, 1.0, 2.0], [1.0, 2.0, 2.0]]), np.array(["a", "a", "b"]))["increase"].tolist()
    [0.0, 0.0, 50.0, 0.0]
    """
    names = list(dict.fromkeys(dataset))
    mean = np.stack([losses[:, dataset == name].double().mean(1).numpy() for name in names], 1)  # P sets
    rows = [{"plan": p, "dataset": name, "MASE": mean[p, i], "increase": 100 * (mean[p, i] / mean[0, i] - 1)}
            for p in range(len(mean)) for i, name in enumerate(names)]  # fmt: skip
    return pd.DataFrame(rows)


def shares(losses: Float[Tensor, "P N"], dataset: np.ndarray) -> Float[Tensor, "P N"]:
    """Losses in percent of the intact model's mean on the same data set (plan 0): their means weigh every window alike, and no window
    with a tiny error of its own rules them.

    >>> shares(torch.tensor([[1.0, 3.0], [2.0, 4.0]]), np.array(["a", "a"])).tolist()
    [[50.0, 150.0], [100.0, 200.0]]
    """
    base = torch.ones(losses.shape[1], dtype=torch.float64)
    for name in dict.fromkeys(dataset):
        here = torch.as_tensor(dataset == name)
        base[here] = losses[0, here].double().mean()
    return 100 * losses.double() / base


def score(losses: Float[Tensor, "P N"], dataset: np.ndarray) -> Float[np.ndarray, " P"]:
    """The number of a plan: the geometric mean over data sets of the mean MASE on each."""
    wide = by_dataset(losses, dataset).pivot(index="plan", columns="dataset", values="MASE")
    return np.exp(np.log(wide).mean(axis=1)).to_numpy()


def over(values: Iterable[float]) -> dict[str, float]:
    """Mean of one number per unit (a training seed, a layer, a model), its interval where there are two, and how many.

    >>> {name: round(number, 2) for name, number in over([1.0, 2.0, 3.0]).items()}
    {'mean': 2.0, 'low': -0.48, 'high': 4.48, 'n': 3}
    """
    kept = np.asarray([v for v in values if np.isfinite(v)], np.float64)
    seen = interval(kept) if len(kept) > 1 else None
    mean, low, high = (seen.estimate, seen.low, seen.high) if seen else (kept.mean() if len(kept) else np.nan, np.nan, np.nan)
    return {"mean": float(mean), "low": low, "high": high, "n": len(kept)}
