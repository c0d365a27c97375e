"""Forecasts against what happened: one tidy row per window, whatever the model and wherever the windows come from.

    rows = evaluate("seasonal-naive", "embedded")              # a suite, a task, windows, or several of them
    rows = evaluate(model, rolling(data.load("ETTh1"), context=336, horizon=96))

Reserved columns: experiment, profile, seed, variant (the model), probabilistic (False: a point forecast repeated at every
level), dataset, horizon, unit (series@start), series, start; then the metrics of `metrics.score`; seconds, the data set's
prediction time shared equally by its windows. `aggregate.summary` turns them into one row per data set. A window is always
predicted from itself alone, in batches that keep the order of the windows, so the batch size changes nothing but the time.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from tsfm_lib.data import Scaler, as_series_set, windows
from tsfm_lib.errors import TsfmError, nearest, whole
from tsfm_lib.evaluate import metrics, suites
from tsfm_lib.evaluate.metrics import DECILES
from tsfm_lib.evaluate.suites import Task, Windows
from tsfm_lib.nn.modes import evaluating

LONGEST = 10**6  # steps of one forecast


def evaluate(
    model: object,
    tasks: Any,
    *,
    levels: Sequence[float] = DECILES,
    batch: int = 64,
    variant: str | None = None,
    experiment: str = "forecasting",
    profile: str = "quick",
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Rows per window of one model (an object with `predict_quantiles`, or a name for `tsfm_lib.load`) on a suite by name, on a Task,
    on Windows, or on several of these.

    Tasks are loaded one at a time, so a suite needs no more memory than its largest data set. A model that has
    `for_season` is asked for the season of each task; every other model must see it in the context.
    """
    from tqdm import tqdm

    if batch < 1:
        raise TsfmError(f"batch should be at least 1, got {batch}")
    model, label = _model(model)
    rows = []
    silent = {} if progress else {"disable": True}       # TQDM_DISABLE=1 silences it as well
    for task in tqdm(_tasks(tasks), desc=variant or label, unit="set", **silent):
        here = task.load() if isinstance(task, Task) else task
        if not len(here):
            raise TsfmError(f"{here.name} has no window to forecast: use a shorter horizon or another part")
        seasonal = model.for_season(here.season) if hasattr(model, "for_season") else model
        seconds, parts = 0.0, []
        for first in range(0, len(here), batch):        # scored at once: the forecasts of a long-horizon set would fill the memory
            contexts, targets = here.contexts[first : first + batch], here.targets[first : first + batch]
            began = time.perf_counter()
            forecast = predict(seasonal, contexts, here.horizon, levels, batch)
            seconds += time.perf_counter() - began
            parts.append(metrics.score(targets, forecast, levels, metrics.seasonal_scale(contexts, here.season)))
        scores = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        frame = pd.DataFrame({"series": here.series, "start": here.starts, **scores})
        keys = {
            "experiment": experiment, "profile": profile, "seed": seed, "variant": variant or label,
            "probabilistic": bool(getattr(model, "probabilistic", True)), "dataset": here.name, "horizon": here.horizon,
            "unit": here.units,
        }  # fmt: skip
        for place, (key, value) in enumerate(keys.items()):
            frame.insert(place, key, value)
        rows.append(frame.assign(seconds=seconds / len(here)))
    return pd.concat(rows, ignore_index=True)


@contextmanager
def at_work(model: object) -> Iterator[dict[str, Any]]:
    """A model in evaluation mode and without gradients; yields the number type and device of its weights, if it has any."""
    module = model if isinstance(model, torch.nn.Module) else None
    weight = None if module is None else next(module.parameters(), None)
    with nullcontext() if module is None else evaluating(module), torch.no_grad():
        yield {} if weight is None else {"dtype": weight.dtype, "device": weight.device}


def predict(
    model: object, contexts: Float[np.ndarray, "N V C"], horizon: int, levels: Sequence[float] = DECILES, batch: int = 64
) -> Float[np.ndarray, "N V H Q"]:
    """Quantile forecasts of many windows, batch by batch, as float64; refuses a forecast of the wrong shape or with gaps.

    A model with weights is given its own number type and device, anything else float64.
    """
    levels, horizon = tuple(metrics.checked(levels).tolist()), whole(horizon, "the horizon")
    if horizon > LONGEST:
        raise TsfmError(f"the horizon should be {LONGEST:,} steps or fewer, got {horizon:.3g}: forecast fewer, or coarser ones")
    out = np.empty((*contexts.shape[:2], horizon, len(levels)))
    with at_work(model) as own:
        for first in range(0, len(contexts), batch):
            part = torch.as_tensor(np.ascontiguousarray(contexts[first : first + batch], dtype=np.float64), **own)
            found = torch.as_tensor(model.predict_quantiles(part, horizon, levels)).detach().to("cpu", torch.float64).numpy()
            expected = (*part.shape[:2], horizon, len(levels))
            if found.shape != expected:
                wrong = f"{type(model).__name__}.predict_quantiles returned {list(found.shape)}"
                raise TsfmError(f"{wrong}, expected {list(expected)} (B V horizon Q)")
            out[first : first + batch] = found
    gaps = ~np.isfinite(out).all((1, 2, 3))
    if gaps.any():
        where = f"{int(gaps.sum())} of {len(out)} windows"
        raise TsfmError(f"{type(model).__name__} forecast a missing or infinite value for {where}: a forecast must be finite")
    return out


def rolling(
    data: Any,
    context: int,
    horizon: int,
    part: str = "test",
    *,
    stride: int = 1,
    count: int | None = None,
    scale: bool = True,
    joint: bool = True,
) -> list[Windows]:
    """Every window of a split: the long-horizon protocol (look-back `context`, MSE and MAE on series scaled by train statistics).

    The first forecast starts at the border of the split and its look-back lies before it; no window is dropped, so their
    number is rows - horizon + 1 whatever the batch. `count` keeps that many, evenly spaced. `joint` gives all channels of a
    wide set to the model at once, otherwise each is a window of its own. Windows are views: nothing is copied but batches.

    >>> from tsfm_lib.data import as_series_set
    >>> [windows] = rolling(as_series_set(np.arange(100.0)), context=24, horizon=6)     # 7:1:2, so 20 test rows
    >>> len(windows), windows.contexts.shape, windows.starts[:2].tolist()
    (15, (15, 1, 24), [80, 81])
    """
    if context < 1 or horizon < 1 or stride < 1 or (count is not None and count < 1):
        raise TsfmError(f"context, horizon, stride and count should be at least 1, got {context}, {horizon}, {stride}, {count}")
    data, out = as_series_set(data), []
    for element, (identity, values) in enumerate(zip(data.ids, data.series)):
        rows, train = data.split(part, element), data.split("train", element)
        number = rows.stop - rows.start - horizon + 1
        if number < 1:
            size = rows.stop - rows.start
            raise TsfmError(f"{data.name}, {identity}: {part} has {size} rows, fewer than the horizon of {horizon}: use a shorter one")
        values = Scaler.fit(values[:, train]).apply(values) if scale else values
        lead = max(0, context - rows.start)
        padded = np.pad(values, ((0, 0), (lead, 0)), constant_values=np.nan)
        every = np.lib.stride_tricks.sliding_window_view(padded, context + horizon, axis=1).transpose(1, 0, 2)       # n V C+H
        first = rows.start + lead - context
        starts = np.arange(0, number, stride)
        if count is not None and count < len(starts):
            starts = starts[np.linspace(0, len(starts) - 1, count).round().astype(int)]
            cut = every[first + starts]
        else:
            cut = every[first : first + number : stride]
        groups = [(identity, cut)] if joint else [(name, cut[:, v : v + 1]) for v, name in enumerate(data.channels)]
        if joint and len(data.channels) == 1 and len(data.ids) == 1:
            groups = [(data.channels[0], cut)]
        for name, block in groups:
            label = (str(name),) * len(starts)
            out.append(Windows(data.name, block[..., :context], block[..., context:], data.season, label, rows.start + starts))
    return out


def last_windows(data: Any, horizon: int, context: int = suites.CONTEXT, season: int | None = None, count: int = 1) -> Windows:
    """The last `count` windows of every series and channel, back to back; those without a past or a future are left out.

    >>> from tsfm_lib.data import as_series_set
    >>> found = last_windows(as_series_set(np.arange(10.0)), horizon=3, context=4, count=2)
    >>> found.targets[:, 0].tolist()
    [[4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]
    """
    if horizon < 1 or context < 1 or count < 1:
        raise TsfmError(f"horizon, context and windows should be at least 1, got {horizon}, {context} and {count}")
    data = as_series_set(data)
    season = data.season if season is None else whole(season, "the season")
    contexts, targets, names, starts = [], [], [], []
    for name, values in suites.series_of(data):
        at = [s for s in range(len(values) - count * horizon, len(values) - horizon + 1, horizon) if s > 0]
        if not at:
            continue
        past, future = windows(values[None], context, horizon, np.array(at))
        usable = np.isfinite(past).any((1, 2)) & np.isfinite(future).any((1, 2))
        contexts.append(past[usable])
        targets.append(future[usable])
        names += [name] * int(usable.sum())
        starts += [s for s, ok in zip(at, usable) if ok]
    if not names:
        longest = max((v.shape[1] for v in data.series), default=0)
        raise TsfmError(f"{data.name}: no series has observed points before its last {horizon} (longest: {longest}): use a shorter horizon")
    return Windows(data.name, np.concatenate(contexts), np.concatenate(targets), season, tuple(names), np.array(starts))


def _model(model: object) -> tuple[object, str]:
    if isinstance(model, str):
        import tsfm_lib

        return tsfm_lib.load(model), model
    if not hasattr(model, "predict_quantiles"):
        raise TsfmError(f"expected a model with predict_quantiles or the name of one, got {type(model).__name__}: see tsfm_lib.models()")
    return model, str(getattr(model, "name", type(model).__name__))


def _tasks(tasks: Any) -> list[Task | Windows]:
    forecasting = [name for name in suites.SUITES if name != "ucr"]
    if isinstance(tasks, str) and tasks in forecasting:
        tasks = suites.suite(tasks)
    found = list(tasks) if isinstance(tasks, Iterable) and not isinstance(tasks, str) else [tasks]
    strange = [task for task in found if not isinstance(task, (Task, Windows))]
    if strange or not found:
        got = "an empty list" if not found else repr(strange[0]) if isinstance(strange[0], str) else type(strange[0]).__name__
        close = nearest(strange[0], forecasting) if strange and isinstance(strange[0], str) else ""
        raise TsfmError(f"expected a forecasting suite ({', '.join(forecasting)}), a Task or Windows, got {got}{close}: "
                        "a data set becomes windows by last_windows(data.load(name), horizon)")  # fmt: skip
    return found
