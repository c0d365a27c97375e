"""What a model knows without having seen the target: suites of windows, and the long-horizon protocol against models trained on it.

Both functions are cells of a sweep. `weights` is the fingerprint of the shipped weights that a cell uses ("" for everybody else), so
that new weights invalidate their own cells and no others.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

import tsfm_lib
from tsfm_lib import checkpoints, data
from tsfm_lib.data import Scaler
from tsfm_lib.evaluate import aggregate, forecasting, suites
from tsfm_lib.evaluate.comparison import Interval, interval
from tsfm_lib.evaluate.suites import Windows
from tsfm_lib.experiments.trials import fingerprint, tasks
from tsfm_lib.models.listing import forecasters
from tsfm_lib.models.scratch import DLinearConfig, ITransformerConfig, PatchTSTConfig, WindowConfig, Windowed, scaled_error
from tsfm_lib.train import Recipe, fit, streams

BASELINES = ("seasonal-naive", "seasonal-naive-intervals", "ets", "theta", "ridge-lags", "dlinear-fit")
LONG = ("ETTh1", "ETTh2", "ETTm1", "ETTm2", "weather", "ecl_2ch")
HORIZONS = (96, 192, 336, 720)
LOOK_BACK = 512
SLOW = ("chronos-t5-nano",)  # says one step at a time


# -- suites --


def suite_scores(suite: str, variant: str, count: int | None, weights: str) -> list[dict]:
    """A row per data set of a suite."""
    rows = forecasting.evaluate(variant, tasks(suite, count), progress=False)
    table = aggregate.summary(rows, by=("probabilistic", "dataset", "horizon"))
    return table[["dataset", "horizon", "windows", "probabilistic", "MASE", "WQL", "coverage"]].to_dict("records")


def suite_cells(suite: str, count: int | None) -> list[dict]:
    names = [*BASELINES, *forecasters()]
    return [{"suite": suite, "variant": name, "count": count, "weights": fingerprint(name)} for name in names]


def side_by_side(rows: pd.DataFrame, metric: str = "MASE", to: str = "seasonal-naive") -> pd.DataFrame:
    """Data sets by models, relative to `to`, and under them the geometric means, with and without the outlying sets."""
    ratios = aggregate.relative(rows[["variant", "dataset", "horizon", "MASE", "WQL"]], to=to)
    order = list(dict.fromkeys(rows["variant"]))
    out = ratios.pivot(index="dataset", columns="variant", values=metric).loc[list(dict.fromkeys(rows["dataset"])), order]
    whole = aggregate.geometric_mean(ratios).set_index("variant")[metric]
    out.loc["geometric mean"] = whole
    if set(suites.OUTLIERS) & set(out.index):
        but = aggregate.geometric_mean(ratios, leave_out=suites.OUTLIERS).set_index("variant")[metric]
        out.loc[f"without {', '.join(suites.OUTLIERS)}"] = but
    return out


def suite_gains(rows: pd.DataFrame, to: str = "seasonal-naive", metrics: Iterable[str] = ("MASE", "WQL")) -> dict[str, Interval]:
    """How far each model's errors lie below those of `to`, in hundredths of a logarithm (about per cent), with the interval over sets."""
    ratios = aggregate.relative(rows[["variant", "dataset", "horizon", "MASE", "WQL"]], to=to)
    found = {}
    for metric in metrics:
        for name, part in ratios[ratios["variant"] != to].groupby("variant", sort=False):
            kept = part[part[metric] > 0]
            found[f"{name}, {metric}"] = interval((-100 * np.log(kept[metric])).tolist())
    return found


def long_periods(variant: str, period: int, seed: int, series: int, weights: str) -> dict:
    """Noisy sines whose period may exceed the context. The seasonal naive is told the period where one fits into the context."""
    rng = np.random.default_rng((seed, period))
    t = np.arange(LOOK_BACK + 96)
    x = np.sin(2 * np.pi * (t / period + rng.random((series, 1)))) + 0.1 * rng.standard_normal((series, len(t)))
    names = tuple(f"sine {i}" for i in range(series))
    season = period if period < LOOK_BACK else 1
    made = Windows(f"period {period}", x[:, None, :LOOK_BACK], x[:, None, LOOK_BACK:], season, names, np.full(series, LOOK_BACK))
    return {"MAE": float(forecasting.evaluate(variant, made, progress=False)["MAE"].mean())}


# -- the long-horizon protocol --


@dataclass(frozen=True)
class FullShot:
    """A rival trained on the target's train part: its shape, and how it is trained. Every step is `batch` windows."""

    config: WindowConfig
    steps: int
    batch: int
    rate: float = 2e-3
    together: bool = False              # all channels in one window


def full_shot(variant: str, horizon: int, steps: int | None = None) -> FullShot:
    """The three rivals at a size that trains in seconds. `steps` replaces the budget, for a quick look."""
    look = {"context": LOOK_BACK, "horizon": horizon, "levels": ()}
    small = {"width": 32, "heads": 4, "layers": 2, "hidden": 64}
    found = {
        "dlinear": FullShot(DLinearConfig(**look), steps=200, batch=256),
        "patchtst": FullShot(PatchTSTConfig(**look, **small, dropout=0.2, patch=32, stride=32), steps=200, batch=64),
        "itransformer": FullShot(ITransformerConfig(**look, **small), steps=200, batch=8, together=True),
    }[variant]
    return found if steps is None else replace(found, steps=steps)


RIVALS = ("dlinear", "patchtst", "itransformer")


def trained(dataset: str, variant: str, horizon: int, seed: int, steps: int | None = None) -> Windowed:
    """One rival after its budget on the scaled train rows of one set."""
    plan, found = full_shot(variant, horizon, steps), data.load(dataset)
    train = found.series[0][:, found.split("train")]
    scaled = Scaler.fit(train).apply(train)
    stream = streams.Windows((scaled,), LOOK_BACK + horizon, plan.batch, seed, plan.together, f"{dataset}, train")
    recipe = Recipe(
        f"{variant}-{dataset}", variant, asdict(plan.config), seed=seed, steps=plan.steps, batch=plan.batch, context=LOOK_BACK,
        horizon=horizon, rate=plan.rate, matrix_rate=1e-2, warmup=min(20, plan.steps),
    )  # fmt: skip
    return fit(checkpoints.build(variant, plan.config, seed), stream, recipe, progress=False, loss=scaled_error).model


def long_horizon(dataset: str, horizon: int, variant: str, seed: int | None, steps: int | None, count: int | None, weights: str) -> dict:
    """MSE and MAE in train-scaled units over evenly spaced windows of the test part (`count=None`: every one of them)."""
    if variant in RIVALS:
        model = trained(dataset, variant, horizon, 0 if seed is None else seed, steps)
    else:
        model = tsfm_lib.load(variant)
    [found] = forecasting.rolling(data.load(dataset), LOOK_BACK, horizon, count=count)
    rows = forecasting.evaluate(model, found, variant=variant, progress=False)
    return {"MSE": float(rows["MSE"].mean()), "MAE": float(rows["MAE"].mean()), "windows": len(rows)}


def long_cells(
    sets: Iterable[str], horizons: Iterable[int], seeds: Iterable[int], steps: int | None, count: int | None
) -> list[dict]:
    """Models that are not trained here have no seed. One that takes a pass per step is left out: minutes a set at these horizons."""
    sets, horizons, seeds = list(sets), list(horizons), list(seeds)
    cell = lambda dataset, horizon, variant, seed: {
        "dataset": dataset, "horizon": horizon, "variant": variant, "seed": seed, "steps": None if seed is None else steps, "count": count,
        "weights": fingerprint(variant),
    }  # fmt: skip
    places = [(dataset, horizon) for dataset in sets for horizon in horizons]
    untrained = [cell(*place, name, None) for place in places for name in ("seasonal-naive", *forecasters()) if name not in SLOW]
    return untrained + [cell(*place, name, seed) for place in places for name in RIVALS for seed in seeds]


def gains(rows: pd.DataFrame, of: str, over: Iterable[str], metric: str) -> dict[str, Interval]:
    """Per cent by which `of` is below each rival, averaged over horizons and seeds, with the interval over data sets."""
    mean = rows.groupby(["dataset", "horizon", "variant"])[metric].mean().unstack("variant")
    percent = {name: (100 * (mean[name] - mean[of]) / mean[name]).dropna() for name in over}
    return {name: interval(found.groupby("dataset").mean()) for name, found in percent.items()}
