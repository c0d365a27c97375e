"""UniTS (arXiv 2403.00131): one network for many data sets, told what to do by learned tokens and fitted to any length.

Read beside the paper, in its order (Sec. 3):
    sample, prompt and mask tokens                                    -> UniTS.embed_tokens
    a linear map along the tokens for any number of them              -> Dynamic
    attention over time and over variates, dynamic feed-forward, gates -> Layer, VariateAttention, DynamicMLP
    head that reads the tokens of the horizon                         -> UniTS.project
    supervised training; forecasts                                    -> UniTS.loss, UniTS.predict_quantiles
The version followed is the released code (mims-harvard/UniTS), its forecasting part. A model can be fine-tuned at several scales at
once: see `nn.tokens`.

Where we differ from the released code (its ways that matter for numbers are quirks that `quirks=(...)` switches on):
| point               | released code | here | why |
|---|---|---|---|
| ragged contexts     | filled behind, that gap is forecast too: `fills_behind` | filled in front | a gap at the origin is not the mean |
| ragged horizons     | whole tokens only, then the mean; none is an error: `whole_horizons` | rounded up and cut | a tail was asked for |
| smallest deviation  | 1e-5 added to the variance: `variance_floor` | only of constants, 1e-5 | small units are units |
| missing steps       | none allowed | the mean; the mask token for patches without an observation | they exist |
| missing variates    | none allowed | no other variate looks at them | they know nothing |
| prompts             | a set for each data set and its variates | one set `shared` by all variates, named sets beside it | new data |
| loss                | targets as they are | within 12, none behind a constant | one row must not own the step |
| long horizons       | in one pass | in pieces as long as what training asked for | longer ones were never seen |
| scales in training  | one length a data set | `scales`: windows cut to 1/2, 1/4, ... too | to be fine-tuned at several |
| other lengths       | maps are stretched | so too, or with `one_size` filled up and cut | a map stretched anew misses its tokens |
| dead weights        | two projections a block | left out | nothing reads them |

Shapes: B samples, V variates, T time, R rows (B x V), N tokens, P steps of a patch, D width, H heads, K head width, G prompt tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from tsfm_lib.errors import TsfmError, refuse_unknown
from tsfm_lib.nn.attention import Attention, attend
from tsfm_lib.nn.feedforward import FeedForward
from tsfm_lib.nn.lora import Delta, adapted
from tsfm_lib.nn.patching import left_pad, patch, unpatch
from tsfm_lib.nn.positions import sinusoidal
from tsfm_lib.nn.scaling import Statistics, observed, standardise
from tsfm_lib.nn.sites import HeadSite, MLPSite, attention_site
from tsfm_lib.nn.tokens import Tokens

QUIRKS = {
    "fills_behind": "contexts are filled up behind; the first steps of the forecast come from the last token of the context",
    "whole_horizons": "only whole tokens are forecast, the steps behind them are the mean",
    "variance_floor": "1e-5 is added to the variance, in the units of the series",
}


@dataclass(frozen=True)
class UniTSConfig:
    """Sizes of one UniTS; the defaults are those of its supervised training."""

    context: int = 96
    horizon: int = 96  # of the training, and of one pass of a forecast
    patch: int = 16  # P
    width: int = 64
    layers: int = 3
    heads: int = 8
    prompts: int = 10  # G
    hidden: int = 512  # of the feed-forward
    head_hidden: int = 256
    tokens: int = 128  # that the linear maps along the tokens are made for; others are reached by stretching them
    positions: int = 512  # rows of the table: the most tokens that can be read
    datasets: tuple[tuple[str, int], ...] = (("shared", 1),)  # sets of prompts: name and variates, 1 for any number
    dropout: float = 0.1
    scales: int = 1  # training draws from windows of 1, 1/2, 1/4 ... of the length
    one_size: bool = False  # forecasts: contexts are filled up in front and horizons cut, so that no map along the tokens is stretched
    quirks: tuple[str, ...] = ()

    def __post_init__(self):
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")
        if self.hidden % 4 or min(self.hidden // 4, self.tokens) <= self.prompts:
            raise ValueError(f"hidden / 4 and tokens must be more than {self.prompts} prompts, got {self.hidden} and {self.tokens}")
        if not self.datasets or min(self.context, self.horizon, self.scales, *(v for _, v in self.datasets)) < 1:
            raise ValueError(f"context, horizon, scales and variates must be 1 or more, got {self}")
        refuse_unknown(self.quirks, QUIRKS)

    @classmethod
    def tiny(cls) -> "UniTSConfig":
        return cls(context=64, horizon=16, patch=8, width=16, layers=2, heads=2, prompts=3, hidden=32, head_hidden=32, tokens=16,
                   positions=32, dropout=0.0)  # fmt: skip


# ---- Linear maps along the tokens (App. B: dynamic linear operator) -------------------------------------------------------------------


def stretched(matrix: Float[Tensor, "o i"], rows: int, columns: int) -> Float[Tensor, "rows columns"]:
    """
    >>> stretched(torch.tensor([[0.0, 4.0]]), 1, 4)
    tensor([[0., 1., 3., 4.]])
    """
    if matrix.shape == (rows, columns):
        return matrix
    return F.interpolate(matrix[None, None], size=(rows, columns), mode="bilinear", align_corners=False)[0, 0]


class Dynamic(nn.Module):
    """A linear map of the last axis with a matrix stretched to the sizes at hand; its first `fixed` inputs (prompts) keep a column each."""

    def __init__(self, inputs: int, outputs: int, fixed: int):
        super().__init__()
        self.fixed = fixed
        self.weight, self.bias = nn.Parameter(torch.empty(outputs, inputs)), nn.Parameter(torch.empty(outputs))
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5)

    def forward(self, x: Float[Tensor, "*S N"], outputs: int) -> Float[Tensor, "*S M"]:
        split = (self.fixed, x.shape[-1] - self.fixed)
        parts = [stretched(w, outputs, n) for w, n in zip(self.weight.tensor_split((self.fixed,), dim=1), split) if n]
        return F.linear(x, torch.cat(parts, dim=1), stretched(self.bias[None], 1, outputs)[0])

    def along_tokens(self, h: Float[Tensor, "R N D"], outputs: int) -> Float[Tensor, "R M D"]:
        return self(h.transpose(1, 2), outputs).transpose(1, 2)


# ---- The blocks (Sec. 3.2) ------------------------------------------------------------------------------------------------------------


class Looks(NamedTuple):
    """What every layer is handed: how rows make up samples, and which variates have something to say."""

    variates: int
    alive: Bool[Tensor, "B 1 1 V"]
    leading: tuple[int, ...]  # axes of the series that went in
    gap: int  # steps filled up behind the context


class VariateAttention(Attention):
    """Variates look at each other: one pattern a head from queries and keys averaged over the tokens, the same for all tokens."""

    def forward(self, x: Float[Tensor, "R N D"], aux: Looks, delta: Delta | None = None) -> Float[Tensor, "R N D"]:
        delta, v = delta or {}, aux.variates
        mean = x.mean(1)  # the mean of the projections is the projection of the mean
        q, k = (rearrange(adapted(part, mean, delta.get(n)), "(B V) (H K) -> B H V K", V=v, K=self.head_dim)
                for part, n in ((self.q, "q"), (self.k, "k")))  # fmt: skip
        values = rearrange(adapted(self.v, x, delta.get("v")), "(B V) N (H K) -> B H V (N K)", V=v, K=self.head_dim)
        heads = attend(q, k, values, mask=aux.alive, tap=self.pattern)
        return adapted(self.out, rearrange(heads, "B H V (N K) -> (B V) N (H K)", K=self.head_dim), delta.get("out"))


class DynamicMLP(nn.Module):
    """A convolution over neighbouring tokens, then half of the channels mix all tokens: those of prompts and of samples by a map each."""

    def __init__(self, config: UniTSConfig):
        super().__init__()
        c = config
        self.prompts, self.dropout = c.prompts, nn.Dropout(c.dropout)
        self.up = nn.Conv1d(c.width, c.hidden, kernel_size=3, padding=1)
        self.to_prompts, self.to_samples = (Dynamic(c.hidden // 4, outputs, c.prompts) for outputs in (c.prompts, c.hidden // 4))
        self.down = nn.Linear(c.hidden, c.width)

    def forward(self, h: Float[Tensor, "R N D"], delta: Delta | None = None) -> Float[Tensor, "R N D"]:
        mixed, plain = self.up(h.transpose(1, 2)).chunk(2, dim=1)  # R hidden/2 N each
        mixed = torch.cat([self.to_prompts(mixed, self.prompts), self.to_samples(mixed, h.shape[1] - self.prompts)], dim=-1)
        wide = self.dropout(F.gelu(torch.cat([mixed, plain], dim=1)).transpose(1, 2))
        return self.dropout(adapted(self.down, wide, (delta or {}).get("down")))


class Gate(nn.Module):
    """y times a number between 0 and 1 that y itself decides on."""

    def __init__(self, width: int):
        super().__init__()
        self.open = nn.Linear(width, 1)

    def forward(self, y: Float[Tensor, "R N D"]) -> Float[Tensor, "R N D"]:
        return self.open(y).sigmoid() * y


class Layer(nn.Module):
    """Time, variates, feed-forward; a norm in front of each, a gate behind."""

    def __init__(self, config: UniTSConfig):
        super().__init__()
        c = config
        self.norm_time, self.norm_variate, self.norm_mlp = (nn.LayerNorm(c.width) for _ in range(3))
        self.gate_time, self.gate_variate, self.gate_mlp = (Gate(c.width) for _ in range(3))
        self.time, self.variate = Attention(c.width, c.heads, out_bias=True), VariateAttention(c.width, c.heads, out_bias=True)
        self.mlp = DynamicMLP(c)

    def over_time(self, h: Float[Tensor, "R N D"], delta: Delta | None = None) -> Float[Tensor, "R N D"]:
        return h + self.gate_time(self.time(self.norm_time(h), delta=delta))

    def over_variates(self, h: Float[Tensor, "R N D"], aux: Looks, delta: Delta | None = None) -> Float[Tensor, "R N D"]:
        return h + self.gate_variate(self.variate(self.norm_variate(h), aux, delta))

    def forward(self, h: Float[Tensor, "R N D"], aux: Looks, delta: Delta | None = None) -> Float[Tensor, "R N D"]:
        """`delta`: low-rank pairs for time.q, .k, .v, .out, variate.q, .k, .v, .out (attention) and down (feed-forward)."""
        of = lambda part: {n.removeprefix(f"{part}."): pair for n, pair in (delta or {}).items() if n.startswith(f"{part}.")}
        h = self.over_variates(self.over_time(h, of("time")), aux, of("variate"))
        return h + self.gate_mlp(self.mlp(self.norm_mlp(h), delta))


class Head(nn.Module):
    """Tokens to the steps of their patches; each also hears a linear map of all others."""

    def __init__(self, config: UniTSConfig):
        super().__init__()
        c = config
        self.inwards = nn.Linear(c.width, c.width)
        self.mix = Dynamic(c.tokens, c.tokens, c.prompts)
        self.mlp = FeedForward(c.width, c.head_hidden, "gelu")
        self.out = nn.Linear(c.width, c.patch)

    def forward(self, h: Float[Tensor, "R N D"], prompts: int) -> Float[Tensor, "R M P"]:
        h = self.inwards(h)
        samples = h[:, prompts:]
        return self.out(self.mlp(samples + self.mix.along_tokens(h, samples.shape[1])))


class UniTS(nn.Module):
    """Prompts, the patches of all variates and tokens for the horizon in; the steps of the horizon out."""

    probabilistic = False  # point forecasts
    causal = False

    def __init__(self, config: UniTSConfig):
        super().__init__()
        self.config = c = config
        self.values = nn.Linear(c.patch, c.width, bias=False)
        self.prompts = nn.ParameterDict({name: torch.randn(v, c.prompts, c.width) * 0.02 for name, v in c.datasets})
        self.mask_tokens = nn.ParameterDict({name: torch.zeros(v, 1, c.width) for name, v in c.datasets})
        self.positions = nn.Parameter(sinusoidal(c.positions, c.width))
        self.to_horizon = Dynamic(c.tokens, c.tokens, c.prompts)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.layers))
        self.head = Head(c)
        self.dropout = nn.Dropout(c.dropout)

    @property
    def order_free(self) -> bool:
        return all(variates == 1 for _, variates in self.config.datasets)

    # -- values in, values out --

    def normalise(self, x: Float[Tensor, "*R T"], mask: Bool[Tensor, "*R T"] | None = None
                  ) -> tuple[Float[Tensor, "*R T"], Bool[Tensor, "*R T"], Statistics]:  # fmt: skip
        """z-scores by what is finite and in `mask`, 0 elsewhere; which steps count as observed (`mask`, else the finite ones)."""
        z, statistics = standardise(x, mask, eps=1e-5 if "variance_floor" in self.config.quirks else 0.0, constant=1e-5)
        return z.to(self.positions.dtype), observed(x) if mask is None else mask, statistics

    def forecast(self, raw: Float[Tensor, "*R h"], statistics: Statistics) -> Float[Tensor, "*R h"]:
        return statistics.invert(raw)

    # -- the network --

    def prompts_for(self, samples: int, variates: int, dataset: str | None) -> tuple[Float[Tensor, "R G D"], Float[Tensor, "R 1 D"]]:
        """Prompt and mask tokens of every row, from the named set or the only one."""
        known = dict(self.config.datasets)
        name = dataset or (next(iter(known)) if len(known) == 1 else "shared")
        if name not in known or known[name] not in (1, variates):
            raise TsfmError(f"prompts exist for {', '.join(f'{n} ({v} variates)' for n, v in known.items())}, got data set {name} with "
                            f"{variates} variates: name one of them that fits")  # fmt: skip
        return tuple(t[name].expand(variates, -1, -1).repeat(samples, 1, 1) for t in (self.prompts, self.mask_tokens))

    def embed_tokens(self, z: Float[Tensor, "*R T"], seen: Bool[Tensor, "*R T"], horizon: int = 0, *, dataset: str | None = None,
                     hidden: Bool[Tensor, "*R N"] | None = None, adapt: Callable[[Tensor], Tensor] | None = None) -> Tokens:  # fmt: skip
        """Prompts, then tokens of the patches, then of the horizon: one row of tokens a variate. Mask tokens where `hidden`."""
        c, variates = self.config, z.shape[-2] if z.ndim > 2 else 1
        rows, looked_at = (x.reshape(-1, x.shape[-1]) for x in (z, seen))
        gap = -z.shape[-1] % c.patch if "fills_behind" in c.quirks else 0
        rows, looked_at = (patch(left_pad(F.pad(x, (0, gap)), c.patch, value=0.0), c.patch) for x in (rows, looked_at))
        left, n = max(0, horizon - gap), rows.shape[1]
        behind = left // c.patch if "whole_horizons" in c.quirks else -(-left // c.patch)
        if "whole_horizons" in c.quirks and horizon and not behind:
            raise TsfmError(f"whole_horizons leaves no token for the {left} steps behind the last patch: ask for {c.patch - left} more")
        if n + behind > c.positions:
            raise TsfmError(f"{z.shape[-1]} steps and a horizon of {horizon} are {n + behind} tokens, this UniTS reads at most "
                            f"{c.positions}: pass a shorter context")  # fmt: skip
        prompts, mask = self.prompts_for(len(rows) // variates, variates, dataset)
        visible = looked_at.any(-1)  # R N
        alive = rearrange(visible.any(1), "(B V) -> B 1 1 V", V=variates)
        if hidden is not None:
            visible = visible & ~hidden.reshape(visible.shape)
        h = self.values(rows)
        h = torch.where(visible[..., None], h if adapt is None else adapt(h), mask)
        if behind:
            ahead = self.to_horizon.along_tokens(torch.cat([prompts, h, mask.expand(-1, behind, -1)], dim=1), n + behind)
            h = torch.cat([h, ahead[:, n:]], dim=1)
        h = torch.cat([prompts, self.dropout(h + self.positions[: n + behind])], dim=1)
        return Tokens(h, Looks(variates, alive, tuple(z.shape[:-1]), gap), n, behind, c.prompts)

    def encode(self, tokens: Tokens) -> Float[Tensor, "R N D"]:
        h = tokens.h
        for layer in self.layers:
            h = layer(h, tokens.aux)
        return h

    def project(self, h: Float[Tensor, "R N D"], tokens: Tokens, horizon: int = 0) -> Float[Tensor, "*R h"]:
        """In normalised units: the `horizon` steps behind the context; all steps of all patches if 0."""
        raw = unpatch(self.head(h, tokens.prefix)).unflatten(0, tokens.aux.leading)
        if not horizon:
            return raw.to(self.positions.dtype)
        start = tokens.context * self.config.patch - tokens.aux.gap
        raw = raw[..., start : start + horizon]
        return F.pad(raw, (0, horizon - raw.shape[-1])).to(self.positions.dtype)  # whole_horizons: the tail is the mean

    def forward(self, context: Float[Tensor, "*R T"], horizon: int, dataset: str | None = None) -> Float[Tensor, "*R h"]:
        """The next `horizon` steps in one pass, in the units of the series."""
        z, seen, statistics = self.normalise(context)
        tokens = self.embed_tokens(z, seen, horizon, dataset=dataset)
        return self.forecast(self.project(self.encode(tokens), tokens, horizon), statistics)

    # -- training --

    def loss(self, batch: Float[Tensor, "B V T"], generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """Squared error of the last `horizon` steps of the batch, in units of what stands before them; other data sets take turns."""
        context, future = batch[..., : -self.config.horizon], batch[..., -self.config.horizon :]
        draw = lambda n: int(torch.randint(n, (1,), generator=generator, device=batch.device))
        cut = 2 ** draw(self.config.scales)
        context, future = context[..., -max(1, context.shape[-1] // cut) :], future[..., : max(1, future.shape[-1] // cut)]
        fitting = [name for name, v in self.config.datasets if v in (1, batch.shape[1])] or [None]
        z, seen, statistics = self.normalise(context)
        tokens = self.embed_tokens(z, seen, future.shape[-1], dataset=fitting[draw(len(fitting))])
        raw = self.project(self.encode(tokens), tokens, future.shape[-1])
        wanted = observed(future) & (z != 0).any(-1, keepdim=True)  # a constant has no units
        error = raw - statistics.apply(torch.where(wanted, future, 0)).clamp(-12, 12)
        return torch.where(wanted, error, 0).square().sum() / wanted.sum().clamp_min(1)

    # -- forecasting --

    @torch.no_grad()
    def predict_quantiles(self, context: Float[Tensor, "B V T"], horizon: int, levels: Sequence[float], *, dataset: str | None = None
                          ) -> Float[Tensor, "B V h Q"]:  # fmt: skip
        """The point forecast at every level; beyond one pass it is taken as observed and the whole read again."""
        c, x, found = self.config, context, []
        while (missing := horizon - sum(f.shape[-1] for f in found)) > 0:
            x = left_pad(x[..., -c.context :], c.context if c.one_size else 1)
            steps = c.horizon if c.one_size else min(missing, c.horizon)
            found.append(self(x, steps, dataset)[..., :missing].to(context.dtype))
            x = torch.cat([x, found[-1]], dim=-1)
        return torch.cat(found, dim=-1)[..., None].expand(*context.shape[:2], horizon, len(levels))

    def sites(self) -> list[HeadSite | MLPSite]:
        found: list[HeadSite | MLPSite] = []
        for i, layer in enumerate(self.layers):
            found += [attention_site("encoder", i, "time", layer.time, layer.norm_time),
                      attention_site("encoder", i, "variate", layer.variate, layer.norm_variate),
                      MLPSite("encoder", i, layer.mlp)]  # fmt: skip
        return found
