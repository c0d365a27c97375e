"""The front door: models by name, and forecasts and embeddings of whatever holds series.

`load` looks for a baseline, then shipped weights, then a local folder, then a hub id. `forecast` and `embed` take arrays, tensors, ragged
lists and pandas objects (`tsfm_lib.tables`); shorter series are filled in front with missing values, which every model reads as absent.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from tsfm_lib import checkpoints, tables
from tsfm_lib.data.frames import as_floats, ragged
from tsfm_lib.data.sets import SeriesSet
from tsfm_lib.errors import TsfmError, nearest, whole
from tsfm_lib.evaluate.forecasting import at_work, predict
from tsfm_lib.evaluate.metrics import DECILES, checked
from tsfm_lib.models import BASELINES, MODELS
from tsfm_lib.models.listing import shipped
from tsfm_lib.paths import given

save = checkpoints.save
AT_ONCE = 64  # series that share one call of a model


def load(name: str | Path, **options: Any) -> Any:
    """A model, ready to use: by the name of a baseline or of shipped weights, from a folder, or from the hub ("organisation/name").

    A registered name means the same whatever lies in the working directory: a folder called `theta` is "./theta", or a Path. Options go
    to the baseline (`season=24`) or say where the weights shall be (`device="cuda"`).

    >>> load("seasonal-naive", season=12)
    SeasonalNaive(season=12, intervals=False)
    >>> load("seasonal-niave")
    Traceback (most recent call last):
    tsfm_lib.errors.TsfmError: no model named 'seasonal-niave'; did you mean 'seasonal-naive'?
    """
    if not isinstance(name, (str, Path)) or not str(name).strip():
        raise TsfmError(f"expected the name of a model, a folder or a hub id, got {name!r}: tsfm_lib.models() lists the names")
    text, weights, folder = str(name), shipped(), given(name, "the name of a model, a folder or a hub id")
    named = isinstance(name, str)
    if named and text in BASELINES:
        entry = BASELINES[text]
        try:
            return entry.model_class()(**{**entry.options, **options})
        except TypeError as problem:
            raise TsfmError(f"{text} does not take these options: {problem}") from None
    if named and text in weights:
        folder = weights[text]
    elif named and text in MODELS:
        raise TsfmError(f"{text!r} is an architecture without weights: make one with tsfm_lib.checkpoints.build({text!r}, seed=0)")
    elif not (folder / "config.json").is_file():
        if not named or text.startswith((".", "/", "~")) or folder.is_dir():
            raise TsfmError(f"{text} is not a model folder: expected a folder with config.json and model.safetensors")
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", text):
            raise TsfmError(f"no model named {text!r}{nearest(text, [*BASELINES, *weights, *MODELS])}")
        folder = from_hub(text)
    for option, value in options.items():
        if option != "device":
            raise TsfmError(f"{text} has weights, so it takes no option but device, got {option}={value!r}: leave it out")
        try:
            torch.empty(0, device=value)
        except (RuntimeError, AssertionError, TypeError):
            raise TsfmError(f"expected a device that is here, such as 'cpu', got {value!r}: leave it out for the cpu") from None
    return checkpoints.load(folder, **options)


def from_hub(name: str) -> Path:
    """The local folder of a hub id: what is there already, else a download, if the hub can be reached."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise TsfmError(f"{name!r} is a hub id and needs one more package: pip install huggingface_hub") from None
    wanted = {"allow_patterns": ["*.json", "*.safetensors"]}
    try:
        return Path(snapshot_download(name, local_files_only=True, **wanted))
    except (OSError, ValueError):  # the hub's "not in the cache" errors are both
        pass
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise TsfmError(f"{name!r} is not in the hub's cache and HF_HUB_OFFLINE forbids to fetch it: unset it, or give a local folder")
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    from tsfm_lib.data.fetching import answers

    if not answers(endpoint, 0.7):
        raise TsfmError(f"{name!r} is not in the hub's cache and {endpoint} cannot be reached: connect a network, or give a local folder")
    try:
        return Path(snapshot_download(name, **wanted))
    except (OSError, ValueError) as problem:
        raise TsfmError(f"{name!r} could not be fetched from the hub ({type(problem).__name__}): check the id and the network") from None


def forecast(model: Any, data: Any, horizon: int | float | np.integer, quantiles: Sequence[float] | np.ndarray = DECILES,
             season: int | float | np.integer | None = None) -> Any:  # fmt: skip
    """Quantiles of the next `horizon` steps of every series; `model` is a model or its name.

    array or tensor [T], [V, T], [B, V, T]   array [..., horizon, Q]
    list of arrays of any lengths            list of such arrays
    Series                                   frame indexed by the future stamps, one column a quantile ("0.1", ...)
    wide frame (a column a series)           frame with unique_id (the column), ds and the quantiles
    long frame (id, time, value)             frame with the same id and time columns and the quantiles

    Stamps go on at the frequency of the index; gaps in it count as missing values. `season` is for models that use one; by default it
    follows from the frequency, and without one from the series itself.

    >>> forecast("naive", [1.0, 2.0, 3.0], horizon=2, quantiles=[0.5]).tolist()
    [[3.0], [3.0]]
    >>> sales = pd.Series([5.0, 7.0], index=pd.date_range("2024-01-31", periods=2, freq="ME"))
    >>> forecast("naive", sales, horizon=1, quantiles=[0.1, 0.9])
                0.1  0.9
    2024-03-31  7.0  7.0
    """
    horizon, levels = whole(horizon, "the horizon"), checked(quantiles).tolist()
    if len({f"{q:g}" for q in levels}) < len(levels):  # what a column is called
        raise TsfmError(f"quantile levels should differ in their first six digits, got {levels}: ask for each once")
    model = load(model) if isinstance(model, (str, Path)) else model
    if not hasattr(model, "predict_quantiles"):
        raise TsfmError(f"{type(model).__name__} does not forecast: expected one with predict_quantiles, such as {', '.join(BASELINES)}")
    if not _tabular(data):
        return _unwrap(data, _forecast_all(_for_season(model, season), _arrays(data), horizon, levels))
    table = tables.read(data)
    model = _for_season(model, table.season if season is None else season)
    return table.write(_forecast_all(model, table.series, horizon, levels), horizon, levels)


def embed(model: Any, data: Any) -> np.ndarray:
    """One vector per series, [n, D]: an array [T] or [V, T] is one series, [B, V, T] and lists are many; a Series or a wide frame is one,
    a long frame one per id."""
    model = load(model) if isinstance(model, (str, Path)) else model
    if not hasattr(model, "embed"):
        raise TsfmError(f"{type(model).__name__} does not embed: expected an encoder with a method embed")
    series = tables.read(data).series if _tabular(data) else _arrays(data)
    with at_work(model) as own:
        found = [torch.as_tensor(model.embed(torch.as_tensor(batch, **own))) for batch in _batches(series)]
    vectors = torch.cat(found).detach().float().cpu().numpy()
    gaps = ~np.isfinite(vectors).all(axis=1)
    if gaps.any():
        where = f"{int(gaps.sum())} of {len(vectors)} series"
        raise TsfmError(f"{type(model).__name__} gave a missing or infinite value for {where}: a vector must be finite, check the weights")
    return vectors


def _tabular(data: Any) -> bool:
    return isinstance(data, (pd.Series, pd.DataFrame, SeriesSet))


def _for_season(model: Any, season: Any) -> Any:
    season = None if season is None else whole(season, "the season")
    return model.for_season(season) if season and hasattr(model, "for_season") else model


def _numbers(values: Any, place: str) -> np.ndarray:
    array = as_floats(values, place)
    if array.ndim not in (1, 2, 3) or not array.size:
        raise TsfmError(f"{place}: expected a series [T], [V, T] or [B, V, T] with at least one point, got shape {list(array.shape)}")
    return array


def _arrays(data: Any) -> list[np.ndarray]:
    """Series [V, T] each."""
    if ragged(data):
        found = [_numbers(v, f"series {i}") for i, v in enumerate(data)]
        if any(a.ndim == 3 for a in found):
            raise TsfmError("a list holds one array [T] or [V, T] per series, got one with three axes: pass that array alone")
        return [np.atleast_2d(a) for a in found]
    array = _numbers(data, "the values")
    return list(array) if array.ndim == 3 else [np.atleast_2d(array)]


def _unwrap(data: Any, found: list[np.ndarray]) -> Any:
    """Forecasts [V, H, Q] in the shape the data came in."""
    if ragged(data):
        return [f[0] if np.ndim(d) == 1 else f for d, f in zip(data, found)]
    dims = np.ndim(data)
    return found[0][0] if dims == 1 else found[0] if dims == 2 else np.stack(found)


def _batches(series: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Consecutive series with equally many variates as one array [B, V, T], the shorter ones filled in front."""
    start = 0
    while start < len(series):
        stop = start + 1
        while stop < len(series) and stop - start < AT_ONCE and len(series[stop]) == len(series[start]):
            stop += 1
        part = series[start:stop]
        batch = np.full((len(part), len(part[0]), max(s.shape[1] for s in part)), np.nan)
        for row, values in zip(batch, part):
            row[:, row.shape[1] - values.shape[1] :] = values
        yield batch
        start = stop


def _forecast_all(model: Any, series: list[np.ndarray], horizon: int, levels: list[float]) -> list[np.ndarray]:
    order = np.argsort(levels, kind="stable")
    rising = [levels[i] for i in order]
    found = [forecast for batch in _batches(series) for forecast in predict(model, batch, horizon, rising)]
    return [f[..., np.argsort(order)] for f in found]  # B V H Q -> [V H Q], levels in the order asked for
