"""Small Time Trackers trained for one experiment."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tsfm_lib.evaluate import metrics
from tsfm_lib.experiments import trials
from tsfm_lib.models.time_tracker import TimeTracker, TimeTrackerConfig
from tsfm_lib.train import Run

SMALL = TimeTrackerConfig(
    context=192, patch=24, horizon=24, width=32, heads=4, independent_layers=1, mixed_layers=1, hidden=64, balance_rate=1e-2,
)  # fmt: skip
"""A model that learns something in a few hundred steps of a CPU core; the balance moves ten times faster, for the runs are short."""


def trained(config: TimeTrackerConfig, stream: Callable[[int], Tensor], seed: int, steps: int, *, batch: int = 48,
            start: TimeTracker | None = None, prepare: Callable[[TimeTracker], Any] | None = None,
            loss: Callable[..., Tensor] | None = None, **recipe: Any) -> Run:  # fmt: skip
    """One model after `steps` batches [B V context + horizon] of `stream`, by AdamW: with many small matrices Muon costs more than the
    gradient. Models that share a seed start from the same draws; with `start` a copy of that model goes on instead."""
    settings = {"matrices": "^$", "rate": 2e-3} | recipe
    return trials.trained("time-tracker", config, stream, seed, steps, horizon=config.horizon, batch=batch, start=start, prepare=prepare,
                          loss=loss, **settings)  # fmt: skip


def forecasts(model: TimeTracker, windows: Float[np.ndarray, "n V T"], adjacency: Bool[np.ndarray, "n V V"] | None = None, *,
              batch: int = 256) -> Float[np.ndarray, "n V h"]:  # fmt: skip
    """The forecast of every window (context, then future), rolled out where the future is longer than one pass."""
    context, found = torch.as_tensor(windows[..., : model.config.context], dtype=torch.float32), []
    horizon = windows.shape[-1] - model.config.context
    for first in range(0, len(windows), batch):
        edges = None if adjacency is None else torch.as_tensor(adjacency[first : first + batch])
        found.append(model.predict_quantiles(context[first : first + batch], horizon, (0.5,), adjacency=edges)[..., 0])
    return torch.cat(found).double().numpy()


def scores(model: TimeTracker, windows: Float[np.ndarray, "n *V T"], adjacency: Bool[np.ndarray, "n V V"] | None = None,
           variates: slice = slice(None)) -> dict[str, float]:  # fmt: skip
    """MSE and MAE of the forecasts, in the units of the series; `variates` says which of them count."""
    windows = windows if windows.ndim == 3 else windows[:, None]
    future = windows[:, variates, model.config.context :].astype(np.float64)
    point = forecasts(model, windows, adjacency)[:, variates]
    return {"MSE": float(np.nanmean(metrics.mse(future, point))), "MAE": float(np.nanmean(metrics.mae(future, point)))}


def parameters(config: TimeTrackerConfig, active: bool = False) -> int:
    """How many parameters a model has, or how many of them work on one token."""
    with torch.device("meta"):
        model = TimeTracker(config)
    size = sum(p.numel() for p in model.parameters())
    idle = config.private_experts - config.active_experts if active else 0
    return size - idle * sum(p.numel() for layer in model.layers for expert in layer.experts.private[:1] for p in expert.parameters())
