"""Chronos-Bolt (from the authors of arXiv 2403.07815): patches in, all quantiles of the next 64 steps out, in one pass.

There is no paper beside the released code (2.x), which is followed here in this order:
    instance normalisation, patches with their mask, [REG]   -> ChronosBolt.normalise, ChronosBolt.embed_patches
    T5's encoder; its decoder reads one start token          -> ChronosBolt.encode, ChronosBolt.decode (`nn.t5`)
    quantiles of a whole horizon from that token             -> ChronosBolt.read_out
    quantile loss; longer horizons                           -> ChronosBolt.row_loss, nn.outputs.roll_out

Where we differ from the released code (its ways that matter for numbers are quirks that `quirks=(...)` switches on):
| point | released code | here | why |
|---|---|---|---|
| sums | float32 | float64 | small changes on a high level drowned in rounding |
| quantiles | may cross: `crossing_quantiles` | sorted | they are quantiles |
| beyond one horizon | first releases: the median is fed back: `median_roll_out` | all quantiles are, as later | the spread would collapse |
| loss | summed over the steps, targets as they are | mean over the steps, targets within 12 | one outlier must not own it |
| unseen contexts | are learnt from | teach nothing | a series without a scale has no units |
| dropout | also on the forecast | not there | steps of a forecast should not become zero |
Ours alone: asinh after scaling, several cuts of a series in training (both off).

Shapes: R rows (batch x variates), T time, N patches, P horizon, D width, Q quantiles.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tsfm_lib.errors import refuse_unknown
from tsfm_lib.nn.feedforward import ResidualMLP
from tsfm_lib.nn.objectives import cut_rows
from tsfm_lib.nn.outputs import QuantileHead, interpolate_quantiles, pinball, roll_out
from tsfm_lib.nn.patching import left_pad, patch
from tsfm_lib.nn.scaling import Statistics, observed, standardise
from tsfm_lib.nn.sites import HeadSite, MLPSite
from tsfm_lib.nn.t5 import T5Config, T5Stack

QUIRKS = {
    "crossing_quantiles": "quantiles are returned as the head made them",
    "median_roll_out": "beyond one horizon only the median is fed back",
}


@dataclass(frozen=True)
class ChronosBoltConfig(T5Config):
    """Sizes of one Chronos-Bolt; the defaults are those of chronos-bolt-small."""

    context: int = 2048
    horizon: int = 64  # P
    patch: int = 16
    stride: int | None = None  # None: patches do not overlap
    quantiles: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    reg_token: bool = True
    asinh: bool = False  # our option for small models: values pass through asinh after scaling
    cuts: int = 1  # training: places at which each series is cut into context and future
    quirks: tuple[str, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        if self.context % self.patch:
            raise ValueError(f"patches of {self.patch} do not divide a context of {self.context}")
        if self.stride is not None and (self.stride < 1 or self.patch % self.stride):
            raise ValueError(f"the stride of the patches must divide their length, got {self.stride} and {self.patch}")
        refuse_unknown(self.quirks, QUIRKS)

    @classmethod
    def tiny(cls) -> "ChronosBoltConfig":
        return cls(context=64, horizon=8, patch=8, width=16, heads=2, head_width=8, hidden=32, encoder_layers=1, decoder_layers=1,
                   buckets=8, max_distance=16, dropout=0.0)  # fmt: skip


class Encoded(NamedTuple):
    """What the decoder looks at: patches from old to new, [REG] last."""

    hidden: Float[Tensor, "R N D"]
    seen: Bool[Tensor, "R N"]


class ChronosBolt(nn.Module):
    """Encoder over patches, decoder of a single token, quantiles of the whole horizon. Variates are rows of their own."""

    probabilistic = True
    causal = False
    order_free = True

    def __init__(self, config: ChronosBoltConfig):
        super().__init__()
        self.config = c = config
        self.patches = ResidualMLP(2 * c.patch, c.hidden, c.width, c.activation, dropout=c.dropout)
        self.start = nn.Parameter(torch.randn(c.width))
        self.reg = nn.Parameter(torch.randn(c.width)) if c.reg_token else None
        self.encoder = T5Stack(c, c.encoder_layers)
        self.decoder = T5Stack(c, c.decoder_layers, decodes=True)
        self.head = QuantileHead(c.width, c.horizon, c.quantiles, hidden=c.hidden, activation=c.activation)

    # -- values in, values out --

    def normalise(self, context: Float[Tensor, "R T"]) -> tuple[Float[Tensor, "R t"], Bool[Tensor, "R t"], Statistics]:
        """z-scores of the last `context` steps, 0 where nothing was seen. Around a constant the forecast stays within 1e-5 or so."""
        context = context[:, -self.config.context :]
        z, statistics = standardise(context, kind="asinh" if self.config.asinh else "std", constant=1e-5)
        return z.to(self.start.dtype), observed(context), statistics

    def restore(self, y: Float[Tensor, "R P Q"], statistics: Statistics) -> Float[Tensor, "R P Q"]:
        return statistics.invert((y.clamp(-8, 8) if self.config.asinh else y).double())

    # -- the network --

    def embed_patches(self, z: Float[Tensor, "R t"], seen: Bool[Tensor, "R t"]) -> tuple[Float[Tensor, "R N D"], Bool[Tensor, "R N"]]:
        """Patches beside their masks through a residual MLP, and which of them hold an observation."""
        values, mask = (patch(left_pad(x, self.config.patch, value=0.0), self.config.patch, self.config.stride) for x in (z, seen.to(z)))
        return self.patches(torch.cat([values, mask], dim=-1)), mask.any(-1)

    def encode(self, z: Float[Tensor, "R t"], seen: Bool[Tensor, "R t"]) -> Encoded:
        h, mask = self.embed_patches(z, seen)
        if self.reg is not None:
            h = torch.cat([h, self.reg.expand(len(h), 1, -1)], dim=1)
            mask = nn.functional.pad(mask, (0, 1), value=True)
        return Encoded(self.encoder(h, mask), mask)

    def decode(self, encoded: Encoded) -> Float[Tensor, "R 1 D"]:
        """One token; its self-attention can look at nothing but itself, so it is a linear map."""
        return self.decoder(self.start.expand(len(encoded.hidden), 1, -1), memory=encoded.hidden, memory_seen=encoded.seen)

    def read_out(self, states: Float[Tensor, "R 1 D"]) -> Float[Tensor, "R P Q"]:
        """Normalised quantiles of a normed decoder state."""
        return self.head(states[:, 0])

    def lens(self, h: Float[Tensor, "R 1 D"]) -> Float[Tensor, "R P Q"]:
        """Normalised quantiles of the residual stream behind any layer of the decoder."""
        return self.read_out(self.decoder.norm(h))

    def forward(self, context: Float[Tensor, "R T"]) -> Float[Tensor, "R P Q"]:
        """Quantiles of the next horizon, in the units of the series."""
        z, seen, statistics = self.normalise(context)
        return self.restore(self.read_out(self.decode(self.encode(z, seen))), statistics)

    # -- training --

    def row_loss(self, forecast: Float[Tensor, "R P Q"], target: Float[Tensor, "R P"]) -> Float[Tensor, " R"]:
        """Quantile loss per row: mean over levels, sum over steps, in normalised units; missing steps cost nothing."""
        return 2 * pinball(forecast, target, self.config.quantiles, reduce=False).sum(1)

    def loss(self, batch: Float[Tensor, "B V T"], generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """The last `horizon` steps of the batch are forecast from all before them."""
        c = self.config
        rows, weights = cut_rows(rearrange(batch, "B V T -> (B V) T"), c.horizon, c.cuts, c.patch, generator)
        context, future = rows[:, : -c.horizon], rows[:, -c.horizon :]
        z, seen, statistics = self.normalise(context)
        losses = self.row_loss(self.read_out(self.decode(self.encode(z, seen))), statistics.apply(future).clamp(-12, 12))
        weights = weights * seen.any(1)
        return (losses * weights).sum() / weights.sum().clamp_min(1) / c.horizon

    # -- forecasting --

    @torch.no_grad()
    def predict_quantiles(self, context: Float[Tensor, "B V T"], horizon: int, levels: Sequence[float]) -> Float[Tensor, "B V h Q"]:
        feed = "median" if "median_roll_out" in self.config.quirks else "quantiles"
        rows = rearrange(context, "B V T -> (B V) T")
        quantiles = roll_out(self, rows, horizon, self.config.quantiles, feed)
        if "crossing_quantiles" not in self.config.quirks or tuple(levels) != self.config.quantiles:
            quantiles = interpolate_quantiles(quantiles, self.config.quantiles, levels)
        return rearrange(quantiles, "(B V) h Q -> B V h Q", B=len(context)).to(context.dtype)

    @torch.no_grad()
    def embed(self, x: Float[Tensor, "B V T"]) -> Float[Tensor, "B D"]:
        """Mean encoder state over observed patches, without [REG], and over variates."""
        z, seen, _ = self.normalise(rearrange(x, "B V T -> (B V) T"))
        encoded = self.encode(z, seen)
        n = encoded.hidden.shape[1] - (self.reg is not None)
        weight = encoded.seen[:, :n, None].float()
        mean = (encoded.hidden[:, :n] * weight).sum(1) / weight.sum(1).clamp_min(1)
        return rearrange(mean, "(B V) D -> B V D", B=len(x)).mean(1)

    def sites(self) -> list[HeadSite | MLPSite]:
        return self.encoder.sites("encoder") + self.decoder.sites("decoder", self.encoder.norm)
