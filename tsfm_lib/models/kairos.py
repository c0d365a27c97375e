"""Kairos (arXiv 2509.25826, first version): patch sizes and rotary frequencies chosen per series.

Read beside the paper, in its order:
    mixture-of-size dynamic patching (MoS-DP)  -> nn.mixed_patches: Router, MixedPatches
    instance-adaptive RoPE (IARoPE)            -> InstanceFrequencies, RotaryAttention
    encoder, decoder, multi-patch prediction   -> Layer, Kairos
The method is that of version 1 and of the authors' released code. Later versions speak of positions that follow the length of a
patch (DRoPE) without published code: `positions="size"` is our reading of the idea.

Where we differ from the released code (each of its ways is a quirk that `quirks=(...)` switches on):
| point                | released code                    | here                             | why |
|---|---|---|---|
| bias of the router   | moves at every forward           | moves in training only           | a forecast must not change the next |
| place of [REG]       | behind the padding of the batch  | behind the row's own last token  | a row must not feel its neighbours |
| length of context    | as given                         | filled with NaN up to `context`  | padding must not change the spectrum |
| empty patches        | count in the load of the experts | do not count                     | short series would spoil the balance |
| quantiles            | may cross                        | sorted                           | they are quantiles |
| reversed cross keys  | parts values from their keys     | a quirk                          | for checkpoints that were trained so |
| frequencies          | unbounded                        | log frequency within [-12, 2]    | exp() overflows at high rates |
Left open by the paper and so our choice: the target shares of the experts (equal), optimiser, learning rate, steps, dropout.

Shapes: B rows (batch x variates), T time, N longest patches, n tokens, E experts, D width, H heads, K head width, F spectral bins,
J forecast tokens, Q quantiles.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tsfm_lib.errors import TsfmError, one_of, refuse_unknown
from tsfm_lib.nn import mixed_patches
from tsfm_lib.nn.attention import Attention, causal
from tsfm_lib.nn.feedforward import FeedForward, ResidualMLP
from tsfm_lib.nn.initialise import like_t5
from tsfm_lib.nn.mixed_patches import MixedPatches, MixedPatchesConfig, Router, Routing, Tokens, lay_out
from tsfm_lib.nn.objectives import random_cuts
from tsfm_lib.nn.outputs import interpolate_quantiles, pinball
from tsfm_lib.nn.patching import left_pad
from tsfm_lib.nn.positions import rotate
from tsfm_lib.nn.scaling import Statistics, observed, standardise
from tsfm_lib.nn.sites import HeadSite, MLPSite, attention_site

QUIRKS = mixed_patches.QUIRKS | {
    "reg_after_padding": "[REG] stands behind the longest row of the batch",
    "context_as_given": "the context is not filled up to its full length",
    "crossing_quantiles": "quantiles are returned as the head made them",
    "reversed_cross_keys": "keys of the cross-attention are reversed before rotation, values and mask are not",
}


@dataclass(frozen=True)
class KairosConfig(MixedPatchesConfig):
    """Sizes of one Kairos, those of its patches among them."""

    context: int = 2048
    horizon: int = 64  # steps of one forecast token
    forecast_tokens: int = 2  # J
    heads: int = 4
    head_width: int = 64
    encoder_layers: int = 4
    decoder_layers: int = 4
    gated: bool = False
    norm_eps: float = 1e-6
    quantiles: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    reg_token: bool = True
    encoder: str = "full"  # full: every token sees every token, the paper's | causal: only earlier ones, so that one pass serves many cuts
    cuts: int = 1  # training of a causal encoder: ends of a series from which the future is forecast at once
    whole_prefix: float = 0.25  # of a row that is cut: chance that its scale and spectrum come from the whole context ...
    prefix_lean: float = 0.5  # ... and otherwise from the first U ** this of it: below 1 late, above 1 early, which leaves more cuts behind
    own_rows: bool = False  # True: every forecast token has a start row of its own (an option of the released code that fails there)
    begin: str = "row"  # a forecast token begins as | row: one learnt row, the paper's | last: that plus the last state before it (ours)
    scaled_scores: bool = False  # False: as in T5 | True: scores / sqrt(K), the same functions in a form that Muon moves better
    quiet_start: float = 1.0  # output projections and the frequency networks' last layers are drawn this much smaller (ours)
    rotary: str = "instance"  # instance: IARoPE | half, interleaved: plain RoPE in either layout
    positions: str = "index"  # index: number of the token | size: start of its span (our reading of DRoPE)
    cross_rotary: bool = True  # without it the J segments are identical
    spectral_bins: int = 128  # F
    first_bin: int = 0  # the lowest frequency that is read
    spectrum_norm: bool = True  # False: raw amplitudes (ours, to see what the norm is for)
    spectrum_token: bool = False  # [REG] says the spectrum (ours: with plain RoPE, the control of equal information)
    modulation: str = "log"  # log: of log frequencies, the paper's | direct: of the frequencies themselves (ours, to see it fail)
    log_frequency_range: tuple[float, float] | None = (-12.0, 2.0)
    step_weights: str = "none"  # none | log_decay: near steps weigh more
    asinh: bool = False  # our option for small models: values pass through asinh after scaling

    def __post_init__(self):
        super().__post_init__()
        if self.context % self.patch_lengths[0]:
            raise ValueError(f"a context of {self.context} is no multiple of the longest patch, {self.patch_lengths[0]}")
        if self.head_width % 2:
            raise ValueError(f"rotary positions turn pairs: head_width must be even, got {self.head_width}")
        one_of(self, rotary=("instance", "half", "interleaved"), positions=("index", "size"), encoder=("full", "causal"),
               begin=("row", "last"), step_weights=("none", "log_decay"), modulation=("log", "direct"))  # fmt: skip
        if self.encoder == "causal" and (self.reg_token or self.positions == "index"):
            raise ValueError("a causal encoder needs positions='size' and reg_token=False: [REG] sees all, indices count from the start")
        if self.cuts > 1 and self.encoder == "full":
            raise ValueError(f"{self.cuts} cuts need encoder='causal': a full one has seen what lies behind the earlier cuts")
        if self.spectrum_token and not self.reg_token:
            raise ValueError("spectrum_token needs reg_token=True: it is [REG] that says the spectrum")
        refuse_unknown(self.quirks, QUIRKS)

    @classmethod
    def mini(cls) -> "KairosConfig":
        return cls()

    @classmethod
    def small(cls) -> "KairosConfig":
        return cls(width=384, heads=8, hidden=1536)

    @classmethod
    def base(cls) -> "KairosConfig":
        return cls(width=512, heads=8, hidden=2048, encoder_layers=6, decoder_layers=6)

    @classmethod
    def tiny(cls) -> "KairosConfig":
        return cls(context=64, horizon=8, patch_lengths=(16, 8, 4), width=16, heads=2, head_width=8, hidden=32, encoder_layers=1,
                   decoder_layers=1, spectral_bins=16)  # fmt: skip


# ---- Instance-adaptive rotary positions ---------------------------------------------------------------------------------------------


class InstanceFrequencies(nn.Module):
    """theta'_j = exp(gamma_j log theta_j + beta_j), with gamma and beta read off the spectrum of the series (IARoPE)."""

    layout = "interleaved"

    def __init__(self, config: KairosConfig):
        super().__init__()
        self.range, self.direct = config.log_frequency_range, config.modulation == "direct"
        pairs = config.head_width // 2
        self.register_buffer("log_theta", -math.log(10000.0) * torch.arange(pairs) / pairs)
        self.mlp = nn.Sequential(nn.Linear(config.spectral_bins, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 2 * pairs))
        with torch.no_grad():  # starts near, not at, plain RoPE: only the bias is set
            self.mlp[-1].bias.copy_(torch.cat([torch.ones(pairs), torch.zeros(pairs)]))

    def forward(self, spectrum: Float[Tensor, "B F"]) -> Float[Tensor, "B K2"]:
        gamma, beta = self.mlp(spectrum).chunk(2, dim=-1)
        if self.direct:
            theta = gamma * self.log_theta.exp() + beta
            return theta if self.range is None else theta.clamp(*map(math.exp, self.range))
        log_theta = gamma * self.log_theta + beta
        return (log_theta if self.range is None else log_theta.clamp(*self.range)).exp()


class PlainFrequencies(nn.Module):
    """theta_j = 10000^(-2j/K), the same for every series."""

    def __init__(self, config: KairosConfig):
        super().__init__()
        self.layout = config.rotary
        pairs = config.head_width // 2
        self.register_buffer("theta", 10000.0 ** (-torch.arange(pairs) / pairs), persistent=False)

    def forward(self, spectrum: Float[Tensor, "B F"]) -> Float[Tensor, "B K2"]:
        return self.theta.expand(len(spectrum), -1)


class RotaryAttention(nn.Module):
    """Attention without score scaling (as in T5), queries and keys turned by frequencies of its own."""

    def __init__(self, config: KairosConfig, cross: bool = False):
        super().__init__()
        self.turns, self.reverse = (config.cross_rotary or not cross), cross and "reversed_cross_keys" in config.quirks
        scale = config.head_width**-0.5 if config.scaled_scores else 1.0
        self.attention = Attention(config.width, config.heads, config.head_width, scale=scale, dropout=config.dropout)
        self.frequencies = InstanceFrequencies(config) if config.rotary == "instance" else PlainFrequencies(config)

    def forward(self, x: Float[Tensor, "B N D"], spectrum: Float[Tensor, "B F"], at: Float[Tensor, "B N"],
                memory: Float[Tensor, "B M D"] | None = None, memory_at: Float[Tensor, "B M"] | None = None,
                mask: Bool[Tensor, "..."] | None = None) -> Float[Tensor, "B N D"]:  # fmt: skip
        theta = self.frequencies(spectrum)[:, None, None]  # B 1 1 K/2

        def turn(q, k):
            k = k.flip(-2) if self.reverse else k
            if not self.turns:
                return q, k
            keys_at = at if memory_at is None else memory_at
            layout = self.frequencies.layout
            return rotate(q, at[:, None, :, None] * theta, layout), rotate(k, keys_at[:, None, :, None] * theta, layout)

        return self.attention(x, memory, mask=mask, rotary=turn)


# ---- Encoder, decoder, model --------------------------------------------------------------------------------------------------------


class Layer(nn.Module):
    """Pre-norm transformer layer as in T5: RMS norms, no biases; the decoder's also looks at the encoder."""

    def __init__(self, config: KairosConfig, cross: bool = False):
        super().__init__()
        norm = lambda: nn.RMSNorm(config.width, eps=config.norm_eps)
        self.norm_self, self.attend = norm(), RotaryAttention(config)
        self.norm_cross, self.cross = (norm(), RotaryAttention(config, cross=True)) if cross else (None, None)
        self.norm_mlp = norm()
        self.mlp = FeedForward(config.width, config.hidden, config.activation, gated=config.gated, bias=False, dropout=config.dropout)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, h, spectrum, at, mask, memory=None, memory_at=None, memory_mask=None, memory_query_at=None):
        h = h + self.dropout(self.attend(self.norm_self(h), spectrum, at, mask=mask))
        if self.cross is not None:
            query_at = at if memory_query_at is None else memory_query_at
            h = h + self.dropout(self.cross(self.norm_cross(h), spectrum, query_at, memory, memory_at, memory_mask))
        return h + self.dropout(self.mlp(self.norm_mlp(h)))


class Encoded(NamedTuple):
    """Everything the encoder knows about a batch; notebooks draw from it."""

    hidden: Float[Tensor, "B n D"]
    mask: Bool[Tensor, "B n"]
    at: Float[Tensor, "B n"]  # rotary positions
    spectrum: Float[Tensor, "B F"]
    routing: Routing
    tokens: Tokens
    embedded: Float[Tensor, "B n D"]


class Kairos(nn.Module):
    """Encoder over patches of mixed size, decoder of J forecast tokens, quantiles of J x H steps in one pass."""

    probabilistic = True
    causal = False
    order_free = True  # every variate is a row of its own

    def __init__(self, config: KairosConfig):
        super().__init__()
        self.config = c = config
        self.router = Router(c)
        self.patches = MixedPatches(c)
        self.spectrum_norm = nn.LayerNorm(c.spectral_bins) if c.spectrum_norm else nn.Identity()
        self.say_spectrum = ResidualMLP(c.spectral_bins, c.hidden, c.width, c.activation) if c.spectrum_token else None
        self.start = nn.Parameter(torch.randn(*[c.forecast_tokens] * c.own_rows, c.width))  # the paper's forecast tokens share one row
        self.reg = nn.Parameter(torch.randn(c.width)) if c.reg_token else None
        self.encoder = nn.ModuleList(Layer(c) for _ in range(c.encoder_layers))
        self.decoder = nn.ModuleList(Layer(c, cross=True) for _ in range(c.decoder_layers))
        self.encoder_norm, self.decoder_norm = (nn.RMSNorm(c.width, eps=c.norm_eps) for _ in range(2))
        self.head = ResidualMLP(c.width, c.hidden, len(c.quantiles) * c.horizon, c.activation)
        self.dropout = nn.Dropout(c.dropout)
        self.register_buffer("levels", torch.tensor(c.quantiles, dtype=torch.float64), persistent=False)
        for layer in [*self.encoder, *self.decoder]:
            looks = [part for part in (layer.attend, layer.cross) if part is not None]
            like_t5(*(part.attention for part in looks), layer.mlp, quiet=c.quiet_start)
            if c.rotary == "instance":
                for part in looks:
                    part.frequencies.mlp[-1].weight.data.mul_(c.quiet_start)

    # -- values in, values out --

    def normalise(self, x: Float[Tensor, "B T"]) -> tuple[Float[Tensor, "B T"], Bool[Tensor, "B T"], Statistics]:
        """z-scores by mean and deviation of the observed steps, 0 where nothing was seen. A constant row is scaled by its level."""
        z, statistics = standardise(x, kind="asinh" if self.config.asinh else "std", constant="level")
        return z.float(), observed(x), statistics

    def restore(self, y: Float[Tensor, "B JH Q"], statistics: Statistics) -> Float[Tensor, "B JH Q"]:
        return statistics.invert((y.clamp(-8, 8) if self.config.asinh else y).double())

    def fill(self, context: Float[Tensor, "B T"]) -> Float[Tensor, "B T2"]:
        context = context[:, -self.config.context :]
        return context if "context_as_given" in self.config.quirks else left_pad(context, self.config.context)

    # -- the network --

    def encode(self, z: Float[Tensor, "B T"], seen: Bool[Tensor, "B T"], spectrum: Float[Tensor, "B F"] | None = None) -> Encoded:
        """`spectrum` lends a series the features of another one (the shuffles of the IARoPE experiments)."""
        c, longest = self.config, self.config.patch_lengths[0]
        spectrum = self.spectrum_of(z) if spectrum is None else spectrum
        z, seen = (left_pad(x, longest, value=0.0) for x in (z, seen))
        grid = lambda x: rearrange(x, "B (N P) -> B N P", P=longest)
        routing = self.router(grid(z), grid(seen).any(-1))
        tokens = lay_out(routing.finest, seen, longest)
        h = embedded = self.patches(z, seen, tokens, routing)  # B n D
        mask, own = tokens.observed, (tokens.size > 0).sum(1, keepdim=True)  # B n, B 1
        index = torch.arange(h.shape[1], device=h.device)
        at = index.expand_as(mask).float() if c.positions == "index" else tokens.start / c.patch_lengths[-1]
        if self.reg is not None:
            h, mask, at = (nn.functional.pad(x, pad) for x, pad in ((h, (0, 0, 0, 1)), (mask, (0, 1)), (at, (0, 1))))
            slot = torch.full_like(own, h.shape[1] - 1) if "reg_after_padding" in c.quirks else own
            here = torch.arange(h.shape[1], device=h.device) == slot  # B n
            reg = self.reg if self.say_spectrum is None else self.reg + self.say_spectrum(spectrum)[:, None]  # D or B 1 D
            h, mask = torch.where(here[..., None], reg, h), mask | here
            at = torch.where(here, slot if c.positions == "index" else z.shape[1] / c.patch_lengths[-1], at)
        h = self.dropout(h)
        visible = mask[:, None, None]
        if c.encoder == "causal":  # itself always, or a token of the padding would see nothing
            visible = visible & causal(h.shape[1], device=h.device) | torch.eye(h.shape[1], dtype=torch.bool, device=h.device)
        for layer in self.encoder:
            h = layer(h, spectrum, at, visible)
        return Encoded(self.dropout(self.encoder_norm(h)), mask, at, spectrum, routing, tokens, embedded)

    def spectrum_of(self, z: Float[Tensor, "B T"]) -> Float[Tensor, "B F"]:
        """Layer-normed amplitudes of the first F frequencies, k cycles per context."""
        first, bins = self.config.first_bin, self.config.spectral_bins
        amplitude = torch.fft.rfft(z).abs()[:, first : first + bins]
        return self.spectrum_norm(nn.functional.pad(amplitude, (0, bins - amplitude.shape[1])))

    def decode(self, encoded: Encoded, cuts: Int[Tensor, "B k"] | None = None) -> Float[Tensor, "B kJ D"]:
        """Forecast tokens behind the context; behind each of `cuts` (steps), seeing what lies before it, if they are given."""
        c, n = self.config, self.config.forecast_tokens
        copies = 1 if cuts is None else cuts.shape[1]
        h = self.start.expand(n, -1).repeat(copies, 1).expand(len(encoded.hidden), -1, -1)
        at = torch.arange(n, device=h.device).repeat(copies).expand(len(h), -1).float()
        ends = encoded.tokens.start + encoded.tokens.size  # B n
        query_at, own, visible = at, causal(n, device=h.device), encoded.mask[:, None, None]
        if c.positions == "size":  # forecast tokens stand behind the context, a horizon apart
            at = at * c.horizon / c.patch_lengths[-1]
            behind = ends.amax(1, keepdim=True) if cuts is None else cuts.repeat_interleave(n, dim=1)
            query_at = at + behind / c.patch_lengths[-1]
        if c.begin == "last":
            before = ends[:, None] <= (ends.amax(1, keepdim=True) if cuts is None else cuts)[..., None]  # B k n
            last = torch.where(before & (encoded.tokens.size > 0)[:, None], ends[:, None], -1).argmax(-1)  # B k
            state = encoded.hidden.gather(1, last[..., None].expand(-1, -1, c.width))
            h = h + state.repeat_interleave(n, dim=1)
        h = self.dropout(h)
        if cuts is not None:
            own = torch.block_diag(*[own] * copies).bool()
            visible = visible & (ends[:, None] <= cuts.repeat_interleave(n, dim=1)[..., None])[:, None]  # B 1 kJ n
        for layer in self.decoder:
            h = layer(h, encoded.spectrum, at, own, encoded.hidden, encoded.at, visible, query_at)
        return self.dropout(self.decoder_norm(h))

    def read_out(self, decoded: Float[Tensor, "B J D"]) -> Float[Tensor, "B JH Q"]:
        return rearrange(self.head(decoded), "B J (Q H) -> B (J H) Q", H=self.config.horizon)

    def lens(self, h: Float[Tensor, "B J D"]) -> Float[Tensor, "B JH Q"]:
        """Normalised quantiles of the residual stream behind any layer of the decoder."""
        return self.read_out(self.decoder_norm(h))

    def forward(self, context: Float[Tensor, "B T"], spectrum: Float[Tensor, "B F"] | None = None) -> Float[Tensor, "B JH Q"]:
        """Quantiles of the next J x H steps, in the units of the series."""
        z, seen, statistics = self.normalise(self.fill(context))
        return self.restore(self.read_out(self.decode(self.encode(z, seen, spectrum))), statistics)

    # -- training --

    def row_loss(self, forecast: Float[Tensor, "B JH Q"], target: Float[Tensor, "B h"]) -> Float[Tensor, "B"]:
        """Quantile loss per row: mean over levels, weighted sum over steps, in normalised units; missing steps cost nothing."""
        steps, given = forecast.shape[1], target.shape[1]
        weights = forecast.new_ones(given)
        if self.config.step_weights == "log_decay":
            weights = ((math.log(steps) - torch.linspace(1 + 1e-5, steps - 1e-3, steps, device=forecast.device).log()) / steps)[:given]
        losses = pinball(forecast[:, :given], target, self.levels.to(forecast.dtype), reduce=False)  # B h
        return 2 * (losses * weights).sum(1)

    def loss(self, batch: Float[Tensor, "B V T"], generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """The last J x H steps of the batch are forecast from all before them."""
        steps = self.config.forecast_tokens * self.config.horizon
        rows = rearrange(batch, "B V T -> (B V) T")
        if self.config.cuts > 1:
            return self.loss_at_cuts(self.fill(rows[:, :-steps]), rows[:, -steps:], generator)
        z, seen, statistics = self.normalise(self.fill(rows[:, :-steps]))
        target = statistics.apply(rows[:, -steps:]).clamp(-12, 12)  # one outlier must not own the step
        return self.row_loss(self.read_out(self.decode(self.encode(z, seen))), target).mean() / steps

    def loss_at_cuts(
        self, context: Float[Tensor, "B T"], future: Float[Tensor, "B h"], generator: torch.Generator | None = None
    ) -> Float[Tensor, ""]:
        """Dense supervision: J x H steps behind several ends of each series, at borders of the longest patches.

        Scale and spectrum come from the earliest prefix alone (filled with zeros behind instead of before: the same amplitudes)."""
        longest, (rows, length), steps = self.config.patch_lengths[0], context.shape, future.shape[1]
        some = observed(context)
        first = torch.where(some.any(1), some.float().argmax(1), length - 1) // longest
        ends, weights = random_cuts(
            first, length // longest, self.config.cuts, generator, self.config.whole_prefix, self.config.prefix_lean
        )
        ends = ends * longest  # B k, in steps
        before = torch.arange(length, device=context.device) < ends[:, :1]
        z_prefix, _, statistics = self.normalise(context.masked_fill(~before, torch.nan))
        z = statistics.apply(context).clamp(-12, 12).nan_to_num(0.0).float()
        encoded = self.encode(z, some, self.spectrum_of(z_prefix))
        forecast = rearrange(self.read_out(self.decode(encoded, ends)), "B (k t) Q -> (B k) t Q", t=steps)
        series = statistics.apply(torch.cat([context, future], dim=1)).clamp(-12, 12)
        target = series.gather(1, (ends[..., None] + torch.arange(steps, device=ends.device)).flatten(1)).reshape(-1, steps)
        losses = self.row_loss(forecast, target).reshape(rows, -1)
        return (losses * weights).sum() / weights.sum() / steps

    # -- forecasting --

    def roll_out(self, context: Float[Tensor, "B T"], horizon: int) -> Float[Tensor, "B h Q"]:
        """Beyond J x H steps the median is taken as observed and the whole read again: later quantiles are conditional on it."""
        median, chunks = int((self.levels - 0.5).abs().argmin()), []
        while sum(chunk.shape[1] for chunk in chunks) < horizon:
            chunks.append(self(context))
            context = torch.cat([context, chunks[-1][..., median].to(context.dtype)], dim=1)
        return torch.cat(chunks, dim=1)[:, :horizon]

    @torch.no_grad()
    def predict_quantiles(self, context: Float[Tensor, "B V T"], horizon: int, levels: Sequence[float], *, positive: bool = False,
                          flip: bool = False) -> Float[Tensor, "B V h Q"]:  # fmt: skip
        """`positive`: no forecast below zero for rows without a negative value; `flip`: mean of f(x) and -f(-x)."""
        rows = rearrange(context, "B V T -> (B V) T")
        quantiles = self.roll_out(rows, horizon)
        if flip:
            quantiles = (quantiles - self.roll_out(-rows, horizon).flip(-1)) / 2
        if positive:
            never_negative = ~(rows < 0).any(1)
            quantiles = torch.where(never_negative[:, None, None], quantiles.clamp_min(0), quantiles)
        if "crossing_quantiles" not in self.config.quirks or tuple(levels) != self.config.quantiles:
            quantiles = interpolate_quantiles(quantiles, self.config.quantiles, levels)
        return rearrange(quantiles, "(B V) h Q -> B V h Q", B=len(context)).to(context.dtype)

    @torch.no_grad()
    def embed(self, x: Float[Tensor, "B V T"]) -> Float[Tensor, "B D"]:
        """Mean encoder state over observed tokens and variates."""
        z, seen, _ = self.normalise(self.fill(rearrange(x, "B V T -> (B V) T")))
        encoded = self.encode(z, seen)
        weight = encoded.mask[..., None].float()
        mean = (encoded.hidden * weight).sum(1) / weight.sum(1).clamp_min(1)
        return rearrange(mean, "(B V) D -> B V D", B=len(x)).mean(1)

    def sites(self) -> list[HeadSite | MLPSite]:
        found: list[HeadSite | MLPSite] = []
        for stack, layers in (("encoder", self.encoder), ("decoder", self.decoder)):
            for i, layer in enumerate(layers):
                found.append(attention_site(stack, i, "self", layer.attend.attention, layer.norm_self))
                if layer.cross is not None:
                    found.append(attention_site(stack, i, "cross", layer.cross.attention, layer.norm_cross, self.encoder_norm))
                found.append(MLPSite(stack, i, layer.mlp))
        return found


def with_tokens(model: Kairos, tokens: int) -> Kairos:
    """The same weights asked for another number of forecast tokens: earlier tokens never see later ones. Where all tokens start from one
    row, as in the paper, no parameter depends on J and there may be more of them; with `own_rows` there are as many as there are rows."""
    known, other = model.config.forecast_tokens, copy.deepcopy(model).eval()
    if model.config.own_rows:
        if tokens > known:
            raise TsfmError(f"each of the {known} forecast tokens of this model has a row of its own, got {tokens}: ask for fewer")
        other.start = nn.Parameter(other.start[:tokens].detach())
    other.config = replace(model.config, forecast_tokens=tokens)
    return other
