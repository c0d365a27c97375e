"""A forecaster of several scales that is trained from scratch, after TimeMixer (arXiv 2405.14616) in its simplest form.

The context is pooled by means of two; a moving average splits every scale into trend and season; seasons are passed from fine to coarse,
trends from coarse to fine, each by a linear map over time; a linear map of every scale forecasts the horizon, and their sum is taken.
TimeMixer's channels, stacked blocks and non-linear maps are left out.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tsfm_lib.models.scratch import WindowConfig, Windowed


@dataclass(frozen=True)
class MixerConfig(WindowConfig):
    levels: tuple[float, ...] = ()
    scales: int = 3  # beside the original one
    kernel: int = 25  # of the moving average

    def __post_init__(self):
        super().__post_init__()
        if self.context % 2**self.scales:
            raise ValueError(f"a context of {self.context} cannot be halved {self.scales} times: take a multiple of {2**self.scales}")


class MultiscaleMixer(Windowed):
    """One linear map a scale and direction; variates share them."""

    def __init__(self, config: MixerConfig):
        super().__init__(config)
        lengths = [config.context // 2**i for i in range(config.scales + 1)]
        self.smooth = nn.AvgPool1d(config.kernel, 1, config.kernel // 2, count_include_pad=False)
        self.down = nn.ModuleList(nn.Linear(a, b) for a, b in zip(lengths, lengths[1:]))
        self.up = nn.ModuleList(nn.Linear(b, a) for a, b in zip(lengths, lengths[1:]))
        self.heads = nn.ModuleList(nn.Linear(n, config.horizon) for n in lengths)

    def forward(self, z: Float[Tensor, "B V C"], seen: Bool[Tensor, "B V C"]) -> Float[Tensor, "B V H Q"]:
        scales = [z.flatten(0, 1)]
        for _ in self.down:
            scales.append(scales[-1].unflatten(-1, (-1, 2)).mean(-1))
        trends = [self.smooth(x) for x in scales]
        seasons = [x - trend for x, trend in zip(scales, trends)]
        for i, along in enumerate(self.down):
            seasons[i + 1] = seasons[i + 1] + along(seasons[i])
        for i in reversed(range(len(self.up))):
            trends[i] = trends[i] + self.up[i](trends[i + 1])
        said = torch.stack([head(season + trend) for head, season, trend in zip(self.heads, seasons, trends)]).mean(0)
        return said.unflatten(0, z.shape[:2])[..., None]
