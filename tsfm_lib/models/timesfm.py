"""TimesFM 2.5 (arXiv 2310.10688 and the authors' later release): a decoder that forecasts behind every patch it has read.

The paper describes version 1; the released code of version 2.5 (200M parameters) is followed, in this order:
    statistics of all that was read so far, per patch            -> TimesFM.measure, TimesFM.normalise
    residual block on [values | missing]                         -> TimesFM.tokens
    sandwich norms; rotation, then QK-norm and a scale a channel -> Layer
    heads for the next patches and for a long quantile spread    -> TimesFM.read_out, TimesFM.read_spread
    decoding: the median comes back as new patches               -> TimesFM.forward
    the wrapper's options                                        -> TimesFM.forecast

Where we differ from the released code (its ways that matter for numbers are quirks that `quirks=(...)` switches on):
| point | released code | here | why |
|---|---|---|---|
| statistics | merged patch by patch in float32 | cumulative sums in float64 | small changes on a high level drowned in rounding |
| no spread | below 1e-6, whatever the units: `small_is_flat` | below rounding of the values | a series in small units is a series |
| normalised inputs | padding counts as zeros: `padding_in_scale` | what was observed | padding is not data |
| flip invariance | beyond one pass quantiles are not swapped: `unswapped_roll_out` | swapped | low quantiles of -x are high ones of x |
| quantiles | may cross, or are pushed outwards from the median | sorted | they are quantiles |
| spread head | refuses what is beyond it | its last step is kept | the median goes on, so should the doubt |
| fused q, k, v | one matrix | three | one attention for all models |
The loss is ours (the authors' training code is not public): pinball for the quantiles, squared error for the mean. Ours alone, for small
models: one scale for the whole context, asinh after scaling, gaps told by the mask, several ends of a series per step, no mean channel, no
spread head, another base of the rotation.

Shapes: R rows (batch x variates), T time, N patches, p steps of a patch, P steps of the head, S of the spread head, D width, H heads,
K head width, Q channels (the mean, where there is one, then the quantiles).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tsfm_lib.errors import one_of, refuse_unknown
from tsfm_lib.nn.attention import Attention, Past, Rotary, causal
from tsfm_lib.nn.feedforward import FeedForward, ResidualMLP
from tsfm_lib.nn.lora import Delta
from tsfm_lib.nn.objectives import random_cuts
from tsfm_lib.nn.outputs import interpolate_quantiles, pinball
from tsfm_lib.nn.patching import left_pad, patch
from tsfm_lib.nn.positions import RoPE, rotate
from tsfm_lib.nn.scaling import Statistics, observed, prefix_statistics, standardise
from tsfm_lib.nn.sites import HeadSite, MLPSite, attention_site

QUIRKS = {
    "small_is_flat": "a spread below 1e-6 counts as none, whatever the units",
    "padding_in_scale": "normalised inputs: the window is filled with zeros up to `context`, and they count",
    "unswapped_roll_out": "flip invariance: quantiles beyond one pass are averaged with those of the same number of the mirrored series",
}


@dataclass(frozen=True)
class TimesFMConfig:
    """Sizes of one TimesFM; the defaults are those of 2.5 200M."""

    context: int = 16384  # the most that is read
    patch: int = 32  # p
    horizon: int = 128  # P
    spread_horizon: int | None = 1024  # S; None (ours): no spread head
    width: int = 1280
    heads: int = 16
    hidden: int = 1280
    layers: int = 20
    head_hidden: int | None = None  # of the residual blocks at both ends; None: the width
    quantiles: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    mean: bool = True  # channel 0 is the mean; False (ours): quantiles only
    fed: int | None = None  # channel that is fed back beyond one pass; None: the median
    rope_base: float = 10000.0
    norm_eps: float = 1e-6
    gaps: str = "bridge"  # missing steps inside a series | bridge: a straight line | mask (ours): told by the mask
    scaling: str = "running"  # running: each patch by all that was read so far | context (ours): all by the whole context
    asinh: bool = False  # ours: values pass through asinh after scaling
    cuts: int = 8  # training: ends of a series from which the future is forecast
    quirks: tuple[str, ...] = ()

    def __post_init__(self):
        if self.width % self.heads or self.head_width % 2:
            raise ValueError(f"a width of {self.width} does not divide into {self.heads} heads of an even width, which rotation needs")
        if self.context % self.patch or self.horizon % self.patch:
            raise ValueError(f"context and horizon should be whole patches of {self.patch}, got {self.context} and {self.horizon}")
        if self.spread_horizon is not None and self.spread_horizon < 1:
            raise ValueError(f"spread_horizon is a number of steps or None, got {self.spread_horizon}")
        if list(self.quantiles) != sorted(set(self.quantiles)) or not self.quantiles or not 0 < self.quantiles[0] <= self.quantiles[-1] < 1:
            raise ValueError(f"quantiles should rise between 0 and 1, got {self.quantiles}")
        if self.fed is not None and not 0 <= self.fed < self.channels:
            raise ValueError(f"the channel that is fed back is one of {self.channels}, got {self.fed}")
        one_of(self, gaps=("bridge", "mask"), scaling=("running", "context"))
        refuse_unknown(self.quirks, QUIRKS)

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def channels(self) -> int:
        return len(self.quantiles) + self.mean

    @property
    def median(self) -> int:
        """The channel of the quantile next to one half."""
        return self.mean + min(range(len(self.quantiles)), key=lambda i: abs(self.quantiles[i] - 0.5))

    @classmethod
    def published(cls) -> "TimesFMConfig":
        """google/timesfm-2.5-200m-pytorch."""
        return cls()

    @classmethod
    def tiny(cls) -> "TimesFMConfig":
        return cls(context=64, patch=8, horizon=8, spread_horizon=20, width=16, heads=2, hidden=24, layers=2, cuts=3)


def bridge(x: Float[Tensor, "R T"]) -> Float[Tensor, "R T"]:
    """Straight lines over missing steps, the last value behind the last one; before the first observation all stays missing.

    >>> bridge(torch.tensor([[torch.nan, 1.0, torch.nan, 3.0, torch.nan]]))
    tensor([[nan, 1., 2., 3., 3.]])
    """
    seen, at = observed(x), torch.arange(x.shape[1], device=x.device)
    before = torch.where(seen, at, -1).cummax(1).values
    after = torch.where(seen, at, x.shape[1]).flip(1).cummin(1).values.flip(1)
    after = torch.where(after < x.shape[1], after, before).clamp_min(0)
    low, high = (x.nan_to_num(0.0, 0.0, 0.0).gather(1, i) for i in (before.clamp_min(0), after))
    share = ((at - before) / (after - before).clamp_min(1)).to(x)
    return torch.where(before >= 0, torch.where(seen, x, low + share * (high - low)), torch.nan)


class Looks(NamedTuple):
    """What every layer is handed: when a token is, whom it may look at, and whether it sees anything."""

    angles: Float[Tensor, "R 1 n _"]  # of the rotary positions
    mask: Bool[Tensor, "R 1 n N"]
    sees: Float[Tensor, "R n 1"]


class Layer(nn.Module):
    """A norm before and a norm behind each part. So what a part adds has the length that its second norm gives it, however small it was:
    without one head, the others are heard louder."""

    def __init__(self, config: TimesFMConfig):
        super().__init__()
        c = config
        norm = lambda width: nn.RMSNorm(width, eps=c.norm_eps)
        self.norm_attention, self.norm_attended, self.norm_mlp, self.norm_changed = (norm(c.width) for _ in range(4))
        self.attention = Attention(c.width, c.heads, c.head_width, scale=1.0)
        self.norm_q, self.norm_k = norm(c.head_width), norm(c.head_width)  # one for all heads
        self.channel_scale = nn.Parameter(torch.zeros(c.head_width))
        self.mlp = FeedForward(c.width, c.hidden, "silu", bias=False)
        for behind in (self.norm_attended, self.norm_changed):
            nn.init.constant_(behind.weight, (2 * c.layers) ** -0.5)  # the stream stays of one size, whatever the depth

    def turned(self, angles: Float[Tensor, "R 1 N _"]) -> Rotary:
        """Rotation comes first, so the norms' weights and the scales stand between it and the scores."""
        scale = F.softplus(self.channel_scale) / (math.log(2) * math.sqrt(len(self.channel_scale)))  # 1 / sqrt(K) when fresh
        return lambda q, k: (self.norm_q(rotate(q, angles)) * scale, self.norm_k(rotate(k, angles)))

    def gains(self) -> tuple[Float[Tensor, "K"], Float[Tensor, "K"]]:
        """Of queries and keys, up to a factor of all."""
        return self.norm_q.weight * F.softplus(self.channel_scale), self.norm_k.weight

    def forward(self, h: Float[Tensor, "R N D"], aux: Looks, delta: Delta | None = None, past: Past | None = None
                ) -> Float[Tensor, "R N D"]:  # fmt: skip
        """`delta`: low-rank pairs for q, k, v, out (attention) and up, down (feed-forward)."""
        attended = self.attention(self.norm_attention(h), mask=aux.mask, rotary=self.turned(aux.angles), delta=delta, past=past)
        h = h + self.norm_attended(attended) * aux.sees  # padding sees nothing and adds nothing
        return h + self.norm_changed(self.mlp(self.norm_mlp(h), delta))


class Forecast(NamedTuple):
    """In the units of the series. `point` goes on beyond one pass, `spread` is what the first pass says of a long horizon."""

    point: Float[Tensor, "R h Q"]
    spread: Float[Tensor, "R S Q"] | None


class TimesFM(nn.Module):
    """Causal layers over patches; behind each patch the next P steps, and quantiles of the next S."""

    probabilistic = True
    order_free = True

    def __init__(self, config: TimesFMConfig):
        super().__init__()
        self.config = c = config
        hidden = c.head_hidden or c.width
        self.tokenizer = ResidualMLP(2 * c.patch, hidden, c.width, "silu")
        self.rope = RoPE(c.head_width, c.rope_base)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.layers))
        self.head = ResidualMLP(c.width, hidden, c.horizon * c.channels, "silu", bias=False)
        self.spread = None if c.spread_horizon is None else ResidualMLP(c.width, hidden, c.spread_horizon * c.channels, "silu", bias=False)
        for head in filter(None, (self.head, self.spread)):
            for linear in (head.out, head.skip):
                nn.init.normal_(linear.weight, std=0.01)  # the first forecasts are near the mean

    @property
    def causal(self) -> bool:
        return self.config.scaling == "running"  # a scale of the whole context is known to its first patch, too

    # -- values in, values out --

    def measure(self, x: Float[Tensor, "R T"]) -> Statistics:
        """Location and scale, for every patch or one for all [R N | 1]; a scale of 0 where nothing varies or nothing was seen."""
        c = self.config
        if c.scaling == "context":
            found, some = standardise(x, kind="asinh" if c.asinh else "std", constant=0.0)[1], observed(x).any(1, keepdim=True)
            return replace(found, scale=found.scale * some)
        found, some = prefix_statistics(x, asinh=c.asinh, constant=0.0), observed(x).cummax(1).values
        ends = slice(c.patch - 1, None, c.patch)
        return replace(found, loc=found.loc[:, ends], scale=(found.scale * some)[:, ends])

    def flat(self, statistics: Statistics) -> Bool[Tensor, "R N"]:
        return statistics.scale < (1e-6 if "small_is_flat" in self.config.quirks else torch.finfo(torch.float64).tiny)

    def scaled(self, values: Float[Tensor, "R N p"], statistics: Statistics) -> Float[Tensor, "R N p"]:
        return replace(statistics, scale=torch.where(self.flat(statistics), 1.0, statistics.scale)).apply(values)

    def normalise(self, x: Float[Tensor, "R T"], statistics: Statistics | None = None
                  ) -> tuple[Float[Tensor, "R N p"], Bool[Tensor, "R N p"], Statistics]:  # fmt: skip
        """Patches in their own units, 0 where nothing was seen, and which steps were. T is a whole number of patches."""
        statistics = self.measure(x) if statistics is None else statistics
        patches = patch(x, self.config.patch)
        seen = observed(patches)
        z = self.scaled(torch.where(seen, patches, 0), statistics)
        return torch.where(seen, z, 0).to(self.tokenizer.out.weight.dtype), seen, statistics

    def restore(self, y: Float[Tensor, "R N P Q"], statistics: Statistics) -> Float[Tensor, "R N P Q"]:
        return statistics.invert((y.clamp(-8, 8) if self.config.asinh else y).double())

    # -- the network --

    def tokens(self, z: Float[Tensor, "R N p"], seen: Bool[Tensor, "R N p"]) -> Float[Tensor, "R N D"]:
        return self.tokenizer(torch.cat([z, 1 - seen.to(z)], dim=-1))

    def looks(self, seen: Bool[Tensor, "R N p"], n: int) -> Looks:
        """For the last n of N patches."""
        some = seen.any(-1)
        place = torch.arange(some.shape[1], device=some.device)
        first = torch.where(some.any(1), some.float().argmax(1), some.shape[1])
        angles = self.rope.angles(place - first[:, None])[:, :, -n:]  # R 1 n K/2: counted from the first patch with an observation
        mask = (causal(n, len(place), device=some.device) & some[:, None])[:, None]
        return Looks(angles, mask, (place >= first[:, None])[:, -n:, None].to(self.tokenizer.out.weight))

    def encode(self, tokens: Float[Tensor, "R n D"], seen: Bool[Tensor, "R N p"], past: list[Past] | None = None) -> Float[Tensor, "R n D"]:
        """The residual stream behind the last layer. With a `past`, `tokens` are the last n of N patches, of which the others were read."""
        h, looks = tokens, self.looks(seen, tokens.shape[1])
        for i, layer in enumerate(self.layers):
            h = layer(h, looks, past=past[i] if past else None)
        return h

    def read_out(self, h: Float[Tensor, "*S D"]) -> Float[Tensor, "*S P Q"]:
        """The next P steps, in the units of the patch."""
        return rearrange(self.head(h), "... (P Q) -> ... P Q", Q=self.config.channels)

    def lens(self, h: Float[Tensor, "R N D"]) -> Float[Tensor, "R P Q"]:
        """Normalised quantiles behind the last patch, of the residual stream behind any layer."""
        return self.read_out(h[:, -1])[..., self.config.mean :]

    def read_spread(self, h: Float[Tensor, "*S D"]) -> Float[Tensor, "*S S Q"]:
        return rearrange(self.spread(h), "... (S Q) -> ... S Q", Q=self.config.channels)

    def forward(self, x: Float[Tensor, "R T"], horizon: int = 1) -> Forecast:
        """`horizon` steps, rounded up to whole passes; beyond the first one the median is taken as observed."""
        c = self.config
        x, past, found, spread = left_pad(x, c.patch), [Past() for _ in self.layers], [], None
        fixed, fed, read = self.measure(x) if c.scaling == "context" else None, c.median if c.fed is None else c.fed, 0
        for step in range(-(-horizon // c.horizon)):
            z, seen, statistics = self.normalise(x, fixed)
            state = self.encode(self.tokens(z[:, read:], seen[:, read:]), seen, past)[:, -1:]
            last = replace(statistics, loc=statistics.loc[:, -1:], scale=statistics.scale[:, -1:])
            if step == 0 and self.spread is not None:
                spread = self.restore(self.read_spread(state), last)[:, 0]
            found.append(self.restore(self.read_out(state), last)[:, 0])
            read, x = z.shape[1], torch.cat([x, found[-1][..., fed].to(x.dtype)], dim=1)
        return Forecast(torch.cat(found, dim=1), spread)

    @torch.no_grad()
    def states(self, x: Float[Tensor, "B V T"]) -> Float[Tensor, "B N D"]:
        """The residual stream behind the last layer at every patch, the mean over variates."""
        h, _ = self._read(x)
        return rearrange(h, "(B V) N D -> B V N D", B=len(x)).mean(1)

    def _read(self, x: Float[Tensor, "B V T"]) -> tuple[Float[Tensor, "R N D"], Bool[Tensor, "R N"]]:
        z, seen, _ = self.normalise(left_pad(self.window(rearrange(x, "B V T -> (B V) T")), self.config.patch))
        return self.encode(self.tokens(z, seen), seen), seen.any(-1)

    # -- training --

    def loss(self, batch: Float[Tensor, "B V T"], generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """Dense supervision: from several ends of a series its next P (and S) steps; the last `horizon` steps of the batch are future.

        With running statistics no forecast is scaled by what it is to find. One scale is that of a prefix, and ends lie behind it."""
        c = self.config
        rows = rearrange(batch, "B V T -> (B V) T")
        context, future = left_pad(rows[:, : -c.horizon], c.patch), rows[:, -c.horizon :]
        context = bridge(context) if c.gaps == "bridge" else context
        n, some = context.shape[1] // c.patch, observed(context)
        first = torch.where(some.any(1), some.float().argmax(1), context.shape[1] - 1) // c.patch
        ends, weights = random_cuts(first, n, c.cuts, generator)  # R k, in patches
        if c.scaling == "context":
            before = torch.arange(context.shape[1], device=context.device) < c.patch * ends[:, :1]
            statistics = own = self.measure(context.masked_fill(~before, torch.nan))
        else:
            statistics = self.measure(context)
            own = replace(statistics, loc=statistics.loc.gather(1, ends - 1), scale=statistics.scale.gather(1, ends - 1))
        weights = weights * ~self.flat(own)  # without a scale there are no units
        z, seen, _ = self.normalise(context, statistics)
        h = self.encode(self.tokens(z.clamp(-12, 12), seen), seen)
        h = h.gather(1, (ends - 1)[..., None].expand(-1, -1, c.width))
        heads = [self.read_out(h)] if self.spread is None else [self.read_out(h), self.read_spread(h)]
        longest = max(head.shape[2] for head in heads)
        series = F.pad(torch.cat([context, future], dim=1), (0, longest - c.horizon), value=torch.nan)
        target = series.unfold(1, longest, c.patch).gather(1, ends[..., None].expand(-1, -1, longest))  # R k S
        target = self.scaled(target, own).clamp(-12, 12)  # one outlier must not own the step
        return sum(self.step_loss(head, target[..., : head.shape[2]], weights[..., None]) for head in heads)

    def step_loss(self, forecast: Float[Tensor, "*S P Q"], target: Float[Tensor, "*S P"], weights: Float[Tensor, "*S 1"]
                  ) -> Float[Tensor, ""]:  # fmt: skip
        """Quantile loss, mean over levels and over the steps that are there, in normalised units; the mean costs its squared error."""
        total = 2 * pinball(forecast[..., self.config.mean :], target, self.config.quantiles, weights=weights)
        if not self.config.mean:
            return total
        weight = weights * target.isfinite()
        error = torch.where(target.isfinite(), target - forecast[..., 0], 0).square()
        return total + (weight * error).sum() / weight.sum().clamp_min(torch.finfo(error.dtype).tiny)

    # -- forecasting --

    def window(self, x: Float[Tensor, "R T"]) -> Float[Tensor, "R t"]:
        """What is read of a series: gaps are bridged before it is cut."""
        return (bridge(x) if self.config.gaps == "bridge" else x)[:, -self.config.context :]

    @torch.no_grad()
    def forecast(self, rows: Float[Tensor, "R T"], horizon: int, *, normalise_inputs: bool = False, flip: bool = False, long: bool = True,
                 outwards: bool = False, positive: bool = False) -> Float[Tensor, "R h Q"]:  # fmt: skip
        """All channels. The released wrapper's options under our names:

        normalise_inputs   z-scores of the window go in. Every patch is scaled anyway, so only `small_is_flat` can feel it.
        flip               mean of f(x) and -f(-x)
        long               quantiles keep their distance from the median from the spread head, where there is one
        outwards           a quantile that crosses one nearer to the median is set to it
        positive           no forecast below zero for rows without a negative value
        """
        c = self.config
        x, outer = self.window(rows), None
        never_negative = ~(x < 0).any(1)
        if normalise_inputs:
            filled = left_pad(x, c.context).nan_to_num(0.0) if "padding_in_scale" in c.quirks else x
            outer = standardise(filled, ddof=1, constant=0.0)[1]
            x = self.scaled(x[:, None], outer)[:, 0]
        y, spread = self(x, horizon)
        if flip:
            swap = lambda q: torch.cat([q[..., : c.mean], q[..., c.mean :].flip(-1)], dim=-1)
            other, other_spread = self(-x, horizon)
            one, rest = other.split([c.horizon, other.shape[1] - c.horizon], dim=1)
            other = torch.cat([swap(one), rest if "unswapped_roll_out" in c.quirks else swap(rest)], dim=1)
            y, spread = (y - other) / 2, None if spread is None else (spread - swap(other_spread)) / 2
        y = y[:, :horizon]
        if long and spread is not None:
            spread = spread[:, torch.arange(horizon, device=x.device).clamp_max(c.spread_horizon - 1)]
            around = y[..., c.median, None] + spread - spread[..., c.median, None]
            y = torch.cat([y[..., : c.mean], around[..., c.mean :]], dim=-1)
        if outwards:
            lower = y[..., c.mean : c.median + 1].flip(-1).cummin(-1).values.flip(-1)
            y = torch.cat([y[..., : c.mean], lower, y[..., c.median :].cummax(-1).values[..., 1:]], dim=-1)
        y = y if outer is None else outer.invert(y)
        return torch.where(never_negative[:, None, None], y.clamp_min(0), y) if positive else y

    @torch.no_grad()
    def predict_quantiles(self, context: Float[Tensor, "B V T"], horizon: int, levels: Sequence[float],
                          **options: bool) -> Float[Tensor, "B V h Q"]:  # fmt: skip
        """`options`: those of `forecast`."""
        channels = self.forecast(rearrange(context, "B V T -> (B V) T"), horizon, **options)
        quantiles = interpolate_quantiles(channels[..., self.config.mean :], self.config.quantiles, levels)
        return rearrange(quantiles, "(B V) h Q -> B V h Q", B=len(context)).to(context.dtype)

    @torch.no_grad()
    def embed(self, x: Float[Tensor, "B V T"]) -> Float[Tensor, "B D"]:
        """Mean state over observed patches and over variates."""
        h, some = self._read(x)
        weight = some[..., None].to(h)
        return rearrange((h * weight).sum(1) / weight.sum(1).clamp_min(1), "(B V) D -> B V D", B=len(x)).mean(1)

    def sites(self) -> list[HeadSite | MLPSite]:
        found: list[HeadSite | MLPSite] = []
        for i, layer in enumerate(self.layers):
            found.append(attention_site("decoder", i, "self", layer.attention, layer.norm_attention, gains=layer.gains))
            found.append(MLPSite("decoder", i, layer.mlp))
        return found
