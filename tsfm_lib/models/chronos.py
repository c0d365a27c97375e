"""Chronos-T5 (arXiv 2403.07815): values become words, a language model goes on with the sentence.

Read beside the paper, in its order:
    Sec. 3.1  time series tokenisation: mean scaling, bins, special tokens  -> Chronos.tokenise, Chronos.label, nn.outputs.TokenBins
    Sec. 3.2  objective: cross-entropy over the tokens                      -> Chronos.loss
    Sec. 3.3  forecasting: sample paths, back to values                     -> Chronos.shares, Chronos.generate, Chronos.sample
The network is the encoder-decoder of T5 with another vocabulary (`nn.t5`). The version followed is the released code (2.x).

Where we differ from the released code (its ways that matter for numbers are quirks that `quirks=(...)` switches on):
| point | released code | here | why |
|---|---|---|---|
| sum of the scale | float32: `float32_statistics` | float64 | rounding decides at the edge of a bin |
| what can be drawn | all but the end; "missing" reads as -15 scales: `draws_specials` | bins | a forecast is a value |
| random numbers | each row and path its own: `own_draws` | one per stratum, the same for all rows | a row must not feel its neighbours |
| beyond one horizon | the median path is taken as observed: `median_roll_out` | every path goes on alone | the spread would collapse |
| quantiles of S paths | path i stands at i / (S - 1) | at (i + 1/2) / S | intervals of 20 paths were too narrow |
| decoding | the memory is repeated for every path | paths look at one memory | 20 times less of it |
| unseen contexts | are learnt from | teach nothing | a series without a scale has no units |
Left open by the paper and so our choice: variances of fresh weights (those of T5, tokens at `token_std`), cuts of a series in training.
Ours alone, for small models (all off): z-scores in place of mean scaling, fresh tokens that are close where their values are, fresh stacks
that are ready to copy.

Shapes: R rows (batch x variates), T time, N tokens of the context, P tokens of the forecast, S paths, D width, C tokens in all.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from tsfm_lib.errors import one_of, refuse_unknown
from tsfm_lib.nn.objectives import cut_rows
from tsfm_lib.nn.outputs import TokenBins, interpolate_quantiles, strata
from tsfm_lib.nn.scaling import Statistics, observed, standardise
from tsfm_lib.nn.sites import HeadSite, MLPSite
from tsfm_lib.nn.t5 import T5Config, T5Stack, ready_to_copy

MISSING, END = 0, 1  # the first two special tokens; the decoder starts with MISSING
QUIRKS = {
    "float32_statistics": "the scale is summed in float32",
    "draws_specials": "tokens that stand for no value may be drawn and read as the lowest value",
    "own_draws": "every row and path draws for itself",
    "median_roll_out": "beyond one horizon the median path alone is gone on with",
}


@dataclass(frozen=True)
class ChronosConfig(T5Config):
    """Sizes of one Chronos-T5; the defaults are those of chronos-t5-small."""

    context: int = 512
    horizon: int = 64  # tokens that one pass of the decoder was trained on
    tokens: int = 4096  # C: bins and special tokens together
    low: float = -15.0  # first and last centre, in scales
    high: float = 15.0
    scaling: str = "mean"  # mean: over the mean absolute value | std (ours): z-scores, so that a level takes up no bins
    specials: int = 3  # missing, end, and one that is never used
    end: bool = True  # an end token closes context and label
    tied: bool = True  # the embedding reads out, too
    smooth_start: bool = False  # ours: fresh tokens are waves over the bins, so close values begin with close tokens
    token_std: float = 1.0  # of fresh embeddings, T5's own; the authors' training scales all fresh weights by 0.05
    samples: int = 20  # S
    temperature: float = 1.0
    top_k: int = 50  # 0: all
    top_p: float = 1.0
    cuts: int = 1  # training: places at which each series is cut into context and future
    quirks: tuple[str, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        if self.tokens - self.specials < 2 or self.specials < 2 or self.low >= self.high:
            raise ValueError("bins need at least two centres from low to high and two special tokens, got "
                             f"{self.tokens} tokens, {self.specials} special, {self.low} to {self.high}")  # fmt: skip
        if not (self.samples > 0 and self.temperature > 0 and self.top_k >= 0 and 0 < self.top_p <= 1):
            raise ValueError("sampling needs samples >= 1, temperature > 0, top_k >= 0 and top_p in (0, 1], got "
                             f"{self.samples}, {self.temperature}, {self.top_k}, {self.top_p}")  # fmt: skip
        one_of(self, scaling=("mean", "std"))
        refuse_unknown(self.quirks, QUIRKS)

    @classmethod
    def tiny(cls) -> "ChronosConfig":
        return cls(context=64, horizon=8, tokens=64, width=16, heads=2, head_width=8, hidden=32, encoder_layers=1, decoder_layers=1,
                   buckets=8, max_distance=16, dropout=0.0)  # fmt: skip


class Sentence(NamedTuple):
    """A context in words."""

    ids: Int[Tensor, "R N"]
    seen: Bool[Tensor, "R N"]  # everything but missing values
    statistics: Statistics


class Chronos(nn.Module):
    """Encoder over the tokens of the context, decoder that says one token after another. Variates are rows of their own."""

    probabilistic = True
    causal = False
    order_free = True

    def __init__(self, config: ChronosConfig):
        super().__init__()
        self.config = c = config
        self.bins = TokenBins(c.tokens, c.low, c.high, c.specials)
        self.embedding = nn.Embedding(c.tokens, c.width)
        nn.init.normal_(self.embedding.weight, std=c.token_std)
        if c.smooth_start:
            bins = c.tokens - c.specials
            place, cycles = torch.linspace(0, 1, bins)[:, None], (bins / 8) ** torch.rand(c.width)  # from one to bins / 8
            waves = torch.cos(2 * math.pi * (cycles * place + torch.rand(c.width)))
            self.embedding.weight.data[c.specials :] = c.token_std * 2**0.5 * waves
        self.encoder = T5Stack(c, c.encoder_layers)
        self.decoder = T5Stack(c, c.decoder_layers, decodes=True)
        if c.copy_start:
            ready_to_copy(self.encoder, self.decoder)
            self.embedding.weight.data[END] = self.embedding.weight.data[MISSING]  # so the first step finds where the context ends
        self.head = None if c.tied else nn.Linear(c.width, c.tokens, bias=False)

    # -- Sec. 3.1: values to words --

    def words(self, x: Float[Tensor, "R n"], statistics: Statistics) -> Int[Tensor, "R m"]:
        """Tokens of scaled values, MISSING where there is none, END behind them."""
        ids = self.bins.quantise(statistics.apply(x.masked_fill(~observed(x), torch.nan)))
        return F.pad(ids, (0, 1), value=END) if self.config.end else ids

    def tokenise(self, context: Float[Tensor, "R T"]) -> Sentence:
        """The last `context` steps in units of their mean absolute value (or as z-scores)."""
        context = context[:, -self.config.context :].float()
        sums = torch.float32 if "float32_statistics" in self.config.quirks else torch.float64
        statistics = standardise(context, kind="mean_abs" if self.config.scaling == "mean" else "std", dtype=sums)[1]
        ids = self.words(context, statistics)
        return Sentence(ids, ids != MISSING, statistics)

    def values(self, ids: Int[Tensor, "R P"], statistics: Statistics) -> Float[Tensor, "R P"]:
        return statistics.invert(self.bins.dequantise(ids))

    # -- the network --

    def encode(self, sentence: Sentence) -> Float[Tensor, "R N D"]:
        return self.encoder(self.embedding(sentence.ids), sentence.seen)

    def decode(self, ids: Int[Tensor, "R P"], sentence: Sentence, memory: Float[Tensor, "R N D"]) -> Float[Tensor, "R P D"]:
        """States from which the token behind each of `ids` is read. `ids` start with MISSING."""
        return self.decoder(self.embedding(ids), memory=memory, memory_seen=sentence.seen)

    def read_out(self, states: Float[Tensor, "... D"]) -> Float[Tensor, "... C"]:
        """Logits of normed decoder states."""
        return F.linear(states * self.config.width**-0.5, self.embedding.weight) if self.head is None else self.head(states)

    def lens(self, h: Float[Tensor, "R P D"]) -> Float[Tensor, "R P C"]:
        """Logits of the residual stream behind any layer of the decoder."""
        return self.read_out(self.decoder.norm(h))

    def forward(self, sentence: Sentence, labels: Int[Tensor, "R P"]) -> Float[Tensor, "R P C"]:
        """Logits of every label, each with those before it known."""
        ids = F.pad(labels, (1, -1), value=MISSING)
        return self.read_out(self.decode(ids, sentence, self.encode(sentence)))

    # -- Sec. 3.2: training --

    def loss(self, batch: Float[Tensor, "B V T"], generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """Cross-entropy of the last `horizon` steps, given all before them; missing ones cost nothing."""
        c = self.config
        rows, weights = cut_rows(rearrange(batch, "B V T -> (B V) T"), c.horizon, c.cuts, generator=generator)
        context, future = rows[:, : -c.horizon], rows[:, -c.horizon :]
        sentence = self.tokenise(context)
        labels = self.words(future.float(), sentence.statistics)
        wanted = (labels != MISSING) & observed(context).any(1, keepdim=True)
        losses = F.cross_entropy(self(sentence, labels).mT, labels, reduction="none")
        weights = wanted * weights[:, None]
        return (losses * weights).sum() / weights.sum().clamp_min(1)

    # -- Sec. 3.3: forecasting --

    def shares(self, logits: Float[Tensor, "R C"]) -> tuple[Float[Tensor, "R k"], Int[Tensor, "R k"]]:
        """Probabilities of the tokens that may be drawn, after temperature, top-k and top-p, and these tokens in ascending order."""
        c = self.config
        ranked, ids = (self.allowed(logits) / c.temperature).topk(min(c.top_k or c.tokens, c.tokens), dim=-1)
        p = ranked.softmax(-1)
        if c.top_p < 1:
            p = torch.where(p.cumsum(-1) - p < c.top_p, p, 0)  # the likeliest always stays
            p = p / p.sum(-1, keepdim=True)
        ids, order = ids.sort(-1)
        return p.gather(-1, order), ids

    def allowed(self, logits: Float[Tensor, "R C"]) -> Float[Tensor, "R C"]:
        token = torch.arange(logits.shape[-1], device=logits.device)
        return logits.masked_fill(token == END if "draws_specials" in self.config.quirks else token < self.config.specials, -torch.inf)

    def draw(self, logits: Float[Tensor, "R C"], u: Float[Tensor, " R"]) -> Int[Tensor, " R"]:
        """The token at which the distribution function reaches u: uniform u make a draw, and a higher u a higher value."""
        p, ids = self.shares(logits)
        reached = p.double().cumsum(-1)
        place = torch.searchsorted(reached, (u * reached[:, -1])[:, None], right=True)
        return ids.gather(-1, place.clamp_max(ids.shape[-1] - 1))[:, 0]

    def generate(self, sentence: Sentence, steps: int, choose: Callable[[Tensor, int], Tensor], paths: int = 1) -> Int[Tensor, "R P"]:
        """`steps` tokens for each of `paths` continuations of every row; `choose(logits, step)` names the next tokens.

        The context is encoded once, and each token is decoded once: attention remembers its keys and values."""
        memory, past, found = self.encode(sentence), self.decoder.fresh(), []
        token = sentence.ids.new_full((len(memory) * paths,), MISSING)
        for step in range(steps):
            state = self.decoder(self.embedding(token)[:, None], memory=memory, memory_seen=sentence.seen, past=past)
            token = choose(self.read_out(state[:, 0]), step)
            found.append(token)
        return torch.stack(found, dim=1)

    def noise(self, rows: int, samples: int, horizon: int, generator: torch.Generator | None) -> Float[Tensor, "R h"]:
        """Uniform numbers for every path and step. Those of one step fill the strata [i / S, (i + 1) / S) once each."""
        generator = torch.Generator("cpu").manual_seed(0) if generator is None else generator
        if "own_draws" in self.config.quirks:
            return torch.rand(rows * samples, horizon, generator=generator, device=generator.device, dtype=torch.float64)
        return strata((samples, horizon), generator).repeat(rows, 1)

    @torch.no_grad()
    def sample(self, context: Float[Tensor, "R T"], horizon: int, samples: int | None = None, generator: torch.Generator | None = None
               ) -> Float[Tensor, "R S h"]:  # fmt: skip
        """Sample paths in the units of the series."""
        samples = self.config.samples if samples is None else samples
        u, rows, pieces, done = self.noise(len(context), samples, horizon, generator).to(context.device), len(context), [], 0
        context = context.float()
        while done < horizon:
            sentence, steps = self.tokenise(context), min(self.config.horizon, horizon - done)
            paths = rows * samples // len(context)
            ids = self.generate(sentence, steps, lambda logits, step, done=done: self.draw(logits, u[:, done + step]), paths)
            pieces.append(self.values(ids.reshape(len(context), -1), sentence.statistics).reshape(rows, samples, steps))
            if "median_roll_out" in self.config.quirks:
                context = torch.cat([context, pieces[-1].median(1).values], dim=1)
            else:
                own = context.repeat_interleave(paths, dim=0)
                context = torch.cat([own, rearrange(pieces[-1], "R S t -> (R S) t")], dim=1)
            done += steps
        return torch.cat(pieces, dim=-1)

    @torch.no_grad()
    def greedy(self, context: Float[Tensor, "R T"], horizon: int) -> Float[Tensor, "R h"]:
        """The path of the likeliest tokens."""
        pieces, context = [], context.float()
        while (missing := horizon - sum(piece.shape[1] for piece in pieces)) > 0:
            sentence = self.tokenise(context)
            ids = self.generate(sentence, min(self.config.horizon, missing), lambda logits, step: self.allowed(logits).argmax(-1))
            pieces.append(self.values(ids, sentence.statistics))
            context = torch.cat([context, pieces[-1]], dim=1)
        return torch.cat(pieces, dim=1)

    def predict_quantiles(self, context: Float[Tensor, "B V T"], horizon: int, levels: Sequence[float], *, samples: int | None = None,
                          generator: torch.Generator | None = None) -> Float[Tensor, "B V h Q"]:  # fmt: skip
        """Quantiles of sample paths; without a generator always of the same random numbers."""
        paths = self.sample(rearrange(context, "B V T -> (B V) T"), horizon, samples, generator)  # R S h
        have = (torch.arange(paths.shape[1], device="cpu") + 0.5) / paths.shape[1]
        quantiles = interpolate_quantiles(rearrange(paths, "R S h -> R h S"), have.tolist(), levels)
        return rearrange(quantiles, "(B V) h Q -> B V h Q", B=len(context)).to(context.dtype)

    @torch.no_grad()
    def embed(self, x: Float[Tensor, "B V T"]) -> Float[Tensor, "B D"]:
        """Mean encoder state over observed steps, without the end token, and over variates."""
        sentence = self.tokenise(rearrange(x, "B V T -> (B V) T"))
        weight = (sentence.seen & (sentence.ids != END))[..., None].float()
        mean = (self.encode(sentence) * weight).sum(1) / weight.sum(1).clamp_min(1)
        return rearrange(mean, "(B V) D -> B V D", B=len(x)).mean(1)

    def sites(self) -> list[HeadSite | MLPSite]:
        return self.encoder.sites("encoder") + self.decoder.sites("decoder", self.encoder.norm)
