"""Small Kairos models trained for one experiment."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tsfm_lib.evaluate import metrics
from tsfm_lib.experiments import trials
from tsfm_lib.models.kairos import Kairos, KairosConfig
from tsfm_lib.train import Run

SMALL = KairosConfig(
    context=256, horizon=16, forecast_tokens=2, patch_lengths=(32, 16, 8), width=64, heads=4, head_width=16, hidden=128,
    encoder_layers=2, decoder_layers=2, spectral_bins=64, asinh=True,
)  # fmt: skip
"""A model that learns something in a few hundred steps of a CPU core; patches a quarter of the published ones."""

MATRICES = r"^(encoder|decoder)\.\d+\.((attend|cross)\.attention|mlp)\."
"""What Muon moves. The frequency networks of IARoPE are left to AdamW."""


def fixed(length: int) -> dict[str, Any]:
    """The change that makes a model read patches of one length: `replace(SMALL, **fixed(16))`."""
    return {"patch_lengths": (length,), "null_experts": 0, "active_experts": 1, "target_shares": None}


def trained(config: KairosConfig, stream: Callable[[int], Tensor], seed: int, steps: int, *, batch: int = 48,
            prepare: Callable[[Kairos], Any] | None = None, **recipe: Any) -> Run:  # fmt: skip
    """One model after `steps` batches of `stream`. Models that share a seed start from the same draws and see the same batches.

    `prepare(model)` is called before the first step, to hang up a hook or to start from somewhere else."""
    return trials.trained(
        "kairos", config, stream, seed, steps, horizon=config.forecast_tokens * config.horizon, batch=batch, prepare=prepare,
        **{"matrices": MATRICES} | recipe,
    )  # fmt: skip


@torch.no_grad()
def scores(model: Kairos, windows: Float[np.ndarray, "N T"], spectrum: Float[Tensor, "N F"] | None = None, *, season: int = 1,
           start: int = 0, stop: int | None = None) -> dict[str, float]:  # fmt: skip
    """WQL and MASE (scale: seasonal naive of the context) on windows of context + J x H steps; steps `start:stop` of the forecast."""
    context, levels = model.config.context, model.config.quantiles
    seen, future = windows[:, None, :context].astype(np.float64), windows[:, None, context:].astype(np.float64)
    forecast = model.eval()(torch.as_tensor(windows[:, :context], dtype=torch.float32), spectrum).numpy().astype(np.float64)[:, None]
    future, forecast = future[:, :, start:stop], forecast[:, :, : future.shape[2]][:, :, start:stop]
    loss, size = metrics.weighted_parts(future, forecast, levels)
    mase = metrics.mase(future, metrics.point(forecast, levels), metrics.seasonal_scale(seen, season))
    return {"WQL": float(loss.sum() / size.sum()), "MASE": float(np.nanmean(mase))}
