"""Three small models to train from scratch, the usual company of every long-horizon table.

DLinear (arXiv 2205.13504)       one linear map of the trend and one of the rest, shared by all variates
PatchTST (arXiv 2211.14730)      a transformer over the patches of each variate; also embeds
ITransformer (arXiv 2310.06625)  a transformer over the variates, each variate one token

| point | papers / authors' code | here | why |
|---|---|---|---|
| normalisation | RevIN with affine part (DLinear: none) | mean and std of what is observed | missing values, constants |
| blocks | post-norm; PatchTST: batch norm, residual attention | pre-norm, LayerNorm | one block for both; rows stay independent |
| PatchTST padding | last value repeated behind | missing values in front | the last patch ends at the forecast origin |
| empty patches and variates | read as zeros | hidden as keys | padding carries no signal |
| output | points, MSE | quantiles, or points and MSE where `levels=()` | intervals |

All read exactly `context` points: longer contexts are cut, shorter ones filled with missing values in front. Horizons beyond the native
one are rolled out: the median is appended to the context, so later intervals do not know that earlier steps were uncertain.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from tsfm_lib.nn.attention import Attention
from tsfm_lib.nn.feedforward import FeedForward
from tsfm_lib.nn.modes import evaluating
from tsfm_lib.nn.outputs import QuantileHead, interpolate_quantiles, pinball
from tsfm_lib.nn.patching import left_pad, patch
from tsfm_lib.nn.scaling import observed, standardise
from tsfm_lib.nn.sites import HeadSite, MLPSite, attention_site

DECILES = tuple(round(0.1 * i, 1) for i in range(1, 10))


@dataclass(frozen=True)
class WindowConfig:
    """What the three share. `levels=()` makes a point model."""

    context: int = 512
    horizon: int = 96
    levels: tuple[float, ...] = DECILES

    def __post_init__(self):
        if self.context < 1 or self.horizon < 1:
            raise ValueError(f"context and horizon must be 1 or more, got {self.context} and {self.horizon}")

    @classmethod
    def tiny(cls):
        return cls(context=64, horizon=16)


@dataclass(frozen=True)
class DLinearConfig(WindowConfig):
    kernel: int = 25  # of the moving average that makes the trend

    def __post_init__(self):
        super().__post_init__()
        if self.kernel % 2 == 0:
            raise ValueError(f"a centred moving average has an odd kernel, got {self.kernel}")


@dataclass(frozen=True)
class TransformerConfig(WindowConfig):
    width: int = 128
    heads: int = 8
    layers: int = 3
    hidden: int = 256
    dropout: float = 0.1


@dataclass(frozen=True)
class PatchTSTConfig(TransformerConfig):
    patch: int = 16
    stride: int = 8

    def __post_init__(self):
        super().__post_init__()
        if self.patch > self.context or (self.context - self.patch) % self.stride:
            raise ValueError(f"patches of {self.patch} every {self.stride} do not fill a context of {self.context}")

    @property
    def patches(self) -> int:
        return (self.context - self.patch) // self.stride + 1

    @classmethod
    def tiny(cls):
        return cls(context=64, horizon=16, width=16, heads=2, layers=2, hidden=32)


@dataclass(frozen=True)
class ITransformerConfig(TransformerConfig):
    @classmethod
    def tiny(cls):
        return cls(context=64, horizon=16, width=16, heads=2, layers=2, hidden=32)


class Windowed(nn.Module):
    """From a context of any length to quantiles of any horizon; `forward` maps normalised windows to `horizon` steps."""

    causal = False
    order_free = True  # variates may be permuted: the forecasts are permuted with them

    def __init__(self, config: WindowConfig):
        super().__init__()
        self.config = config
        self.levels = config.levels or (0.5,)

    @property
    def probabilistic(self) -> bool:
        return bool(self.config.levels)

    def window(self, context: Float[Tensor, "B V T"]) -> Float[Tensor, "B V C"]:
        """The last `context` points, filled up with missing ones in front."""
        return left_pad(context[..., -self.config.context :], self.config.context)

    def loss(self, batch: Float[Tensor, "B V T"], generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """Quantile loss (squared error of a point model) of the last `horizon` steps given those before, in the context's own units."""
        if batch.shape[-1] <= self.config.horizon:
            raise ValueError(f"a batch needs a context before its {self.config.horizon} future steps, got {batch.shape[-1]} steps in all")
        past, future = self.window(batch[..., : -self.config.horizon]), batch[..., -self.config.horizon :]
        z, stats = standardise(past)
        forecast, target = self(z, observed(past)), stats.apply(future)  # B V H Q, B V H
        if self.probabilistic:
            return 2 * pinball(forecast, target, self.levels)
        seen = target.isfinite()
        errors = torch.where(seen, forecast[..., 0] - torch.where(seen, target, 0), 0)
        return errors.square().sum() / seen.sum().clamp_min(1)

    @torch.no_grad()
    def predict_quantiles(self, context: Float[Tensor, "B V T"], horizon: int, levels: Sequence[float]) -> Float[Tensor, "B V horizon Q"]:
        chunks, past = [], context.to(next(self.parameters()))
        with evaluating(self):
            for _ in range(0, horizon, self.config.horizon):
                past = self.window(past)
                z, stats = standardise(past)
                chunk = stats.invert(self(z, observed(past)))  # B V H Q
                chunks.append(chunk)
                past = torch.cat((past, interpolate_quantiles(chunk, self.levels, [0.5])[..., 0]), dim=-1)
        return interpolate_quantiles(torch.cat(chunks, dim=2)[:, :, :horizon], self.levels, levels)

    def sites(self) -> list[HeadSite | MLPSite]:
        return []


class DLinear(Windowed):
    """Zeng et al. 2023, Sec. 4: trend by a moving average, one linear map for it and one for what is left."""

    def __init__(self, config: DLinearConfig):
        super().__init__(config)
        self.trend = QuantileHead(config.context, config.horizon, self.levels)
        self.rest = QuantileHead(config.context, config.horizon, self.levels)

    def forward(self, z: Float[Tensor, "B V C"], seen: Bool[Tensor, "B V C"]) -> Float[Tensor, "B V H Q"]:
        half = self.config.kernel // 2
        trend = F.avg_pool1d(F.pad(z, (half, half), mode="replicate"), self.config.kernel, stride=1)
        return self.trend(trend) + self.rest(z - trend)


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.attention = Attention(config.width, config.heads, qkv_bias=True, out_bias=True, dropout=config.dropout)
        self.mlp = FeedForward(config.width, config.hidden, "gelu", dropout=config.dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, h: Float[Tensor, "B N D"], mask: Bool[Tensor, "B 1 1 N"]) -> Float[Tensor, "B N D"]:
        h = h + self.dropout(self.attention(self.norm_attention(h), mask=mask))
        return h + self.dropout(self.mlp(self.norm_mlp(h)))


class Transformer(Windowed):
    """A stack of blocks; what a token is, is up to the two models below."""

    kind = ""

    def __init__(self, config: TransformerConfig):
        super().__init__(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm, self.dropout = nn.LayerNorm(config.width), nn.Dropout(config.dropout)

    def encode(self, tokens: Float[Tensor, "B N D"], seen: Bool[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        h = self.dropout(tokens)
        for block in self.blocks:
            h = block(h, seen[:, None, None])
        return self.norm(h)

    def sites(self) -> list[HeadSite | MLPSite]:
        found: list[HeadSite | MLPSite] = []
        for i, block in enumerate(self.blocks):
            found += [attention_site("encoder", i, self.kind, block.attention, block.norm_attention), MLPSite("encoder", i, block.mlp)]
        return found


class PatchTST(Transformer):
    """Nie et al. 2023, Sec. 3.1: every variate alone, patches as tokens, one flat head."""

    kind = "time"

    def __init__(self, config: PatchTSTConfig):
        super().__init__(config)
        self.inputs = nn.Linear(config.patch, config.width)
        self.positions = nn.Parameter(0.02 * torch.randn(config.patches, config.width))
        self.head = QuantileHead(config.patches * config.width, config.horizon, self.levels)

    def hidden(self, z: Float[Tensor, "B V C"], seen: Bool[Tensor, "B V C"]) -> tuple[Float[Tensor, "R N D"], Bool[Tensor, "R N"]]:
        """Hidden states of the rows (R = B V) and which patches hold an observation."""
        patches = patch(rearrange(z, "B V C -> (B V) C"), self.config.patch, self.config.stride)
        full = patch(rearrange(seen, "B V C -> (B V) C"), self.config.patch, self.config.stride).any(-1)
        return self.encode(self.inputs(patches) + self.positions, full), full

    def forward(self, z: Float[Tensor, "B V C"], seen: Bool[Tensor, "B V C"]) -> Float[Tensor, "B V H Q"]:
        h, _ = self.hidden(z, seen)
        return rearrange(self.head(h.flatten(1)), "(B V) H Q -> B V H Q", B=len(z))

    @torch.no_grad()
    def embed(self, x: Float[Tensor, "B V T"]) -> Float[Tensor, "B D"]:
        """Mean over the observed patches, then over the variates."""
        past = self.window(x.to(next(self.parameters())))
        with evaluating(self):
            h, full = self.hidden(standardise(past)[0], observed(past))
        mean = (h * full[..., None]).sum(1) / full.sum(1, keepdim=True).clamp_min(1)
        return rearrange(mean, "(B V) D -> B V D", B=len(x)).mean(1)


class ITransformer(Transformer):
    """Liu et al. 2024, Sec. 3.1: the whole window of a variate is one token, attention mixes the variates."""

    kind = "variate"

    def __init__(self, config: ITransformerConfig):
        super().__init__(config)
        self.inputs = nn.Linear(config.context, config.width)
        self.head = QuantileHead(config.width, config.horizon, self.levels)

    def forward(self, z: Float[Tensor, "B V C"], seen: Bool[Tensor, "B V C"]) -> Float[Tensor, "B V H Q"]:
        return self.head(self.encode(self.inputs(z), seen.any(-1)))


def scaled_error(model: Windowed, batch: Tensor, generator: torch.Generator) -> Tensor:
    """MSE in the units of the scaled series, as the benchmark counts it: the model's own loss is in units of each window, where nearly
    constant windows weigh most."""
    past, future = model.window(batch[..., : -model.config.horizon]), batch[..., -model.config.horizon :]
    z, stats = standardise(past)
    return (stats.invert(model(z, observed(past)))[..., 0] - future).square().mean()
