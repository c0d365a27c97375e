"""Multi-scale fine-tuning (MSFT, arXiv 2506.14087), written once for every model that offers the contract of `nn.tokens`: the encoders
of the paper, and a causal decoder and an encoder-decoder, on which it says nothing, by way of `readings`.

Read beside the paper, in its order (Sec. 3):
    down-sampled copies of context and horizon                   -> scales.pyramid
    knowledge of each scale: adapters, low-rank pairs            -> MultiScale.read, MultiScale.pairs
    decoupled dependencies: attention within, aggregators across -> MultiScale.encode, MultiScale.aggregate
    a forecast for each scale, a weighted loss, a mixture        -> MultiScale.say, .loss, .predict_quantiles; `mixing`
With no further scale the same module is LoRA, a probe, prompt tuning or full fine-tuning: `design.METHODS`.

The paper's text past its introduction and its final code were not at hand; what they leave open is decided here, by a switch where it may
matter:
| point | paper, digests, the authors' earlier code | here | why |
|---|---|---|---|
| scales | one row, a block mask | a list of rows; `joined` is the other form | equal, cheaper; UniTS and MOMENT obey no such mask |
| trained | what is new; or norms and head too | what is new and the head: `train` | every method trains the head |
| aggregators | in the block; start unknown | behind the block, zero at the start | MSFT starts as zero-shot |
| losses | the model's own, in its own units | the same kind, in units of the data | windows hardly moving do not rule |
| weights of scales | minimised with the losses they weigh | the same; others by `mixing` | they run to the easiest scale |
| mixture | weighted mean of independent samples | of quantiles; others by `combine` | a mean of samples is too narrow |
| MOMENT | one head a scale | fresh heads, or its own: `head` | its own reaches only a little ahead |
| decay | 0.1, of identity-initialised adapters too | none | it would pull the identity to zero |

Shapes: B samples, V variates, T steps of the context, h of the horizon, R rows of N tokens, S scales, Q quantiles.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from tsfm_lib.errors import TsfmError
from tsfm_lib.finetune import joined
from tsfm_lib.finetune.adalora import AdaLoRA
from tsfm_lib.finetune.design import Design
from tsfm_lib.finetune.mixing import Said, combine, error, mixed_error, on_all_steps
from tsfm_lib.finetune.readings import Decoder, EncoderDecoder, reading
from tsfm_lib.finetune.scales import Part, alignment, averaging, finer, finished, lengths, pyramid
from tsfm_lib.models.moirai import Moirai
from tsfm_lib.models.moment import Moment
from tsfm_lib.models.units import UniTS
from tsfm_lib.nn.lora import LoRA
from tsfm_lib.nn.outputs import Mixture, Quantiles
from tsfm_lib.nn.patching import left_pad, patch
from tsfm_lib.nn.scaling import Statistics
from tsfm_lib.nn.tokens import Tokens, deltas
from tsfm_lib.train.state import model_tensors

DRAWS = 100  # sample paths of each scale, where scales are combined by samples


class Read(NamedTuple):
    """One scale of a batch before its first layer. Every scale has statistics of its own."""

    tokens: Tokens
    part: Part
    statistics: Statistics
    alive: Bool[Tensor, "R N"]  # tokens that are more than padding
    moves: Bool[Tensor, "*R 1"]  # series that are more than a constant


class MultiScale(nn.Module):
    """A copy of `model`, changed as the design says, that reads `context` steps and forecasts `horizon` of them in one pass.

    Variates are series of their own, unless `together`.
    """

    def __init__(self, model: nn.Module, design: Design, context: int, horizon: int, seed: int = 0, together: bool = False):
        super().__init__()
        origin, model = model, reading(model)
        self.rows, size, d = isinstance(model, Moment), design.scales + 1, model.config.width
        fits(model, origin, design, horizon)
        self.design, self.context, self.horizon, self.together = design, context, horizon, together
        self.contexts, self.horizons = (lengths(n, design.scales, design.factor) for n in (context, horizon))
        self.probabilistic, self.origin = bool(model.probabilistic), fingerprint(origin)
        self.model, layers = copy.deepcopy(model).cpu().requires_grad_(design.train == "all"), len(model.layers)
        self.causal, self.every = isinstance(model, Decoder) and model.causal, design.supervise == "every"
        generator = torch.Generator().manual_seed(seed)
        each = lambda place: {"none": 0, "shared": 1, "own": size}[place]
        zero = lambda: _filled(torch.zeros(d, d))
        pairs = lambda: LoRA.of(self.model, design.sites, design.rank, design.alpha, generator)
        adaptive = lambda lora: AdaLoRA(lora, generator) if design.adaptive else lora

        self.adapters = nn.ModuleList(_filled(torch.eye(d)) for _ in range(each(design.adapters)))
        self.loras = nn.ModuleList(adaptive(pairs()) for _ in range(each(design.lora)))
        ways = {"none": (0, 0), "both": (layers, layers), "c2f": (layers, 0), "f2c": (0, layers), "refine": (1, 0)}[design.aggregate]
        self.c2f, self.f2c = (nn.ModuleList(nn.ModuleList(zero() for _ in range(size - 1)) for _ in range(n)) for n in ways)
        self.heads, self.prompts = nn.ModuleList(), None
        if self.rows and design.head == "fresh":
            patches = [-(-n // model.config.patch) for n in self.contexts]
            self.heads.extend(_drawn(n * d, h, generator) for n, h in zip(patches, self.horizons))
        elif design.train == "head":
            if model.head is None:
                raise TsfmError("this MOMENT has no reconstruction head to train: use head='fresh'")
            self.model.head.requires_grad_(True)
        if design.prompts and isinstance(model, UniTS):
            for own in (self.model.prompts, self.model.mask_tokens):
                own.requires_grad_(True)
        elif design.prompts:
            if self.rows and not self.heads:
                raise TsfmError("prompts would push the context out of MOMENT's own forecast: use head='fresh'")
            room = model.config.positions - -(-context // model.config.patch) if self.rows else design.prompts
            self.prompts = nn.Parameter(0.02 * torch.randn(min(design.prompts, room), d, generator=generator))
        first = F.one_hot(torch.tensor(0), size).float()
        theta = torch.log(first) if design.mixing == "none" else torch.ones(size) + design.prior * first
        learnt = design.mixing in ("weighted loss", "mixed loss") and size > 1
        self.theta = nn.Parameter(theta, requires_grad=learnt)
        self.to(next(model.parameters()))

    # -- knowledge of each scale --

    def window(self, context: Float[Tensor, "B V T"]) -> Float[Tensor, "B V C"]:
        return left_pad(context[..., -self.context :], self.context)

    def adapt(self, scale: int, h: Float[Tensor, "R N D"]) -> Float[Tensor, "R N D"]:
        """Between the input projection and the mask tokens: the adapter, and prompts in the places that were kept for them."""
        if self.adapters:
            h = self.adapters[scale % len(self.adapters)](h)
        return h if self.prompts is None else torch.cat([self.prompts.expand(len(h), -1, -1), h[:, len(self.prompts) :]], dim=1)

    def read(self, x: Float[Tensor, "B V T"], scale: int) -> Read:
        size, room = self.model.config.patch, 0 if self.prompts is None else len(self.prompts)
        x = left_pad(x.flatten(0, 1) if self.rows else x, size)
        z, seen, statistics = self.model.normalise(x)
        moves = (z != 0).any(-1, keepdim=True)
        z, seen = F.pad(z, (room * size, 0)), F.pad(seen, (room * size, 0), value=True)
        tokens = self.model.embed_tokens(z, seen, 0 if self.heads else self.horizons[scale], adapt=partial(self.adapt, scale))
        part = Part.of(tokens, room)
        context = patch(seen.flatten(0, -2), size).any(-1)[:, -part.context :]
        return Read(tokens, part, statistics, F.pad(context, (part.prefix, part.horizon), value=True), moves)

    def pairs(self) -> list[list[dict]]:
        """The low-rank pairs of every scale and layer."""
        if not self.loras:
            return [[{}] * len(self.model.layers)] * len(self.contexts)
        found = [deltas(lora, getattr(self.model, "names", len(self.model.layers))) for lora in self.loras]
        return found if len(found) > 1 else found * len(self.contexts)

    # -- decoupled dependencies --

    def encode(self, found: Sequence[Read]) -> list[Float[Tensor, "R N D"]]:
        """All layers, all scales."""
        layers, pairs, states = self.model.layers, self.pairs(), [one.tokens.h for one in found]
        match = lambda how: [how(a.part, b.part, self.design.factor).to(states[0]) for a, b in zip(found, found[1:])]
        matches = within = match(alignment)
        if self.causal:  # no token hears what ends later, or of nothing but padding
            matches = [m * one.alive[:, None] for m, one in zip(match(finished), found[1:])]
        if self.design.aggregate == "refine":
            for i in reversed(range(len(found))):
                if i + 1 < len(found):
                    states[i] = states[i] + matches[i] @ self.c2f[0][i](states[i + 1])
                for layer, delta in zip(layers, pairs[i]):
                    states[i] = layer(states[i], found[i].tokens.aux, delta)
            return states
        if self.design.attention != "within":
            return self.encode_joined([one.tokens for one in found], pairs)
        means = [averaging(match, one.alive) for match, one in zip(within, found)] if self.f2c else []
        for number, layer in enumerate(layers):
            states = [layer(h, one.tokens.aux, own[number]) for h, one, own in zip(states, found, pairs)]
            if self.c2f or self.f2c:
                heard = self.aggregate(number, states, matches, means)
                states = [self.moved(number, one.part, a, b) for one, a, b in zip(found, states, heard)]
        return states

    def moved(self, layer: int, part: Part, before: Float[Tensor, "R N D"], after: Float[Tensor, "R N D"]) -> Float[Tensor, "R N D"]:
        """Where layers move some of the tokens, only those hear of other scales behind them."""
        if not isinstance(self.model, EncoderDecoder):
            return after
        return torch.where(part.only(self.model.moves(layer)).to(after.device)[:, None], after, before)

    def encode_joined(self, parts: Sequence[Tokens], pairs: list[list[dict]]) -> list[Float[Tensor, "R N D"]]:
        row, scale = joined.join(self.model, parts, self.design.attention, self.design.factor), joined.scale_of(parts)
        h = row.h
        for number, layer in enumerate(self.model.layers):
            h = layer(h, row.aux, joined.token_pairs([own[number] for own in pairs], scale))
        return joined.split(h, parts)

    def aggregate(self, layer: int, states: list[Tensor], matches: list[Tensor], means: list[Tensor]) -> list[Tensor]:
        """What neighbouring scales tell each other, from the coarsest down and from the finest up; of both the mean. Maps act on the
        coarse tokens, of which there are fewer: the mean of mapped tokens is the map of their mean."""
        down, up = list(states), list(states)
        source = lambda told, i: told[i] if self.design.iterated else states[i]
        if self.c2f:
            for i in reversed(range(len(states) - 1)):
                down[i] = states[i] + matches[i] @ self.c2f[layer][i](source(down, i + 1))
        if self.f2c:
            for i in range(len(states) - 1):
                up[i + 1] = states[i + 1] + self.f2c[layer][i](means[i] @ source(up, i))
        if not (self.c2f and self.f2c):
            return down if self.c2f else up
        return [(a + b) / 2 for a, b in zip(down, up)]

    # -- forecasts and their mixture --

    def say(self, scale: int, h: Float[Tensor, "R N D"], one: Read, leading: tuple[int, int], every: bool = False) -> Said:
        horizon, own, inside = self.horizons[scale], one.statistics, h[:, one.part.prefix :]
        if every:
            return Said(self.model.project(inside, one.tokens, horizon, every=True), own, one.moves)
        project = self.model.project
        raw = project(inside, one.tokens, horizon, self.heads[scale]) if self.heads else project(h, one.tokens, horizon)
        if not self.rows:  # of statistics that run along the last ones
            return Said(raw, replace(own, loc=own.loc[..., -1:], scale=own.scale[..., -1:]), one.moves)
        loc, width, moves = (x.unflatten(0, leading) for x in (one.statistics.loc, one.statistics.scale, one.moves))
        return Said(raw.unflatten(0, leading), Statistics(loc, width), moves)

    def forward(self, context: Float[Tensor, "B V C"], every: bool = False) -> list[Said]:
        """What every scale says, the finest first; with `every` behind each patch of the context."""
        d, leading = self.design, tuple(context.shape[:2])
        found = [self.read(x, i) for i, x in enumerate(pyramid(context, d.scales, True, d.pooling, d.factor))]
        return [self.say(i, h, one, leading, every) for i, (h, one) in enumerate(zip(self.encode(found), found))]

    def targets(self, past: Float[Tensor, "B V C"], future: Float[Tensor, "B V h"], said: Sequence[Said]) -> list[Tensor]:
        """What each scale is to say; behind each patch where it was asked there, [B V N h], except where it has no units yet."""
        d = self.design
        ahead = pyramid(future, d.scales, False, d.pooling, d.factor)
        if not self.every:
            return ahead
        size, found = self.model.config.patch, []
        for x, y, one in zip(pyramid(past, d.scales, True, d.pooling, d.factor), ahead, said):
            windows = torch.cat([left_pad(x, size), y], dim=-1).unfold(-1, y.shape[-1], size)[..., 1:, :]
            found.append(torch.where(one.statistics.scale[..., None] > 0, windows, torch.nan))
        return found

    def apart(self, x: Float[Tensor, "B V T"]) -> Float[Tensor, "b v T"]:
        return x if self.together else x.flatten(0, 1)[:, None]

    @property
    def weights(self) -> Float[Tensor, " S"]:
        return self.theta.softmax(0)

    def loss(self, batch: Float[Tensor, "B V T"], generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """The losses of all scales on their own horizons, weighted; the last `horizon` steps of a batch are the target."""
        d, batch = self.design, self.apart(batch)
        past, future = self.window(batch[..., : -self.horizon]), batch[..., -self.horizon :]
        said = self(past, self.every)
        losses = torch.stack([error(one, target) for one, target in zip(said, self.targets(past, future, said))])
        weights = self.weights if d.mixing in ("weighted loss", "none") else torch.full_like(losses, 1 / len(losses))
        total = torch.where(weights > 0, weights * losses, 0).sum()
        if d.mixing == "mixed loss" and len(said) > 1:
            whole = [on_all_steps(one, d.factor**i, self.horizon) for i, one in enumerate(said)]
            total = total + mixed_error(whole, self.theta, future)
        return total + sum(lora.penalty() for lora in self.loras if isinstance(lora, AdaLoRA))

    def adjust(self, share: float) -> None:
        """After a step of the optimiser, when this share of the steps is done."""
        for lora in self.loras:
            if isinstance(lora, AdaLoRA):
                lora.adjust(share)

    @torch.no_grad()
    def by_scale(self, context: Float[Tensor, "B V T"], levels: Sequence[float]) -> Float[Tensor, "S B V h Q"]:
        """The quantiles of every scale on the original steps; a point forecast at every level where the model makes points."""
        said, found = self(self.window(self.apart(context))), []
        for i, one in enumerate(said):
            if isinstance(one.raw, (Mixture, Quantiles)):
                values = self.model.forecast(one.raw, one.statistics).quantiles(levels)
            else:
                values = one.statistics.invert(one.raw)[..., None].expand(*one.raw.shape, len(levels))
            values = finer(values, self.design.factor**i, self.horizon, -2, self.design.upsample)
            found.append(values.to(context.dtype).reshape(*context.shape[:2], self.horizon, len(levels)))
        return torch.stack(found)

    @torch.no_grad()
    def mixed(self, context: Float[Tensor, "B V T"], levels: Sequence[float]) -> Float[Tensor, "B V h Q"]:
        """The scales as one forecast."""
        if self.design.combine == "quantile average" or not self.probabilistic or not self.design.scales:
            return torch.einsum("s,sbvhq->bvhq", self.weights.to(context.dtype), self.by_scale(context, levels))
        generator, draws = torch.Generator(context.device).manual_seed(0), []
        for i, one in enumerate(self(self.window(self.apart(context)))):
            paths = self.model.forecast(one.raw, one.statistics).sample(DRAWS, generator)  # n b v h
            draws.append(finer(paths, self.design.factor**i, self.horizon, -1, self.design.upsample))
        pooled = combine(torch.stack(draws).double(), self.weights.double(), self.design.combine)
        found = torch.quantile(pooled, torch.as_tensor(levels, dtype=pooled.dtype, device=pooled.device), dim=0).movedim(0, -1)
        return found.to(context.dtype).reshape(*context.shape[:2], self.horizon, len(levels))

    @torch.no_grad()
    def predict_quantiles(self, context: Float[Tensor, "B V T"], horizon: int, levels: Sequence[float]) -> Float[Tensor, "B V h Q"]:
        """The mixed forecast; beyond the trained horizon its median is taken as observed and the whole read again."""
        found = [self.mixed(context, levels)]
        while (left := horizon - len(found) * self.horizon) > 0:
            context = torch.cat([context, self.mixed(context, (0.5,))[..., 0]], dim=-1)
            found.append(self.mixed(context, levels)[..., :left, :])
        return torch.cat(found, dim=-2)[..., :horizon, :]


def fits(model: nn.Module, origin: nn.Module, design: Design, horizon: int) -> None:
    """Whether the design can be had with this model (`origin`, as it was handed in)."""
    name, reach = type(origin).__name__, model.config.horizon if isinstance(model, (Decoder, EncoderDecoder)) else horizon
    causal = isinstance(model, Decoder) and model.causal
    if design.attention != "within" and not (causal or isinstance(model, Moirai)):
        raise TsfmError(f"attention across scales needs a model whose layers take a mask and a clock, moirai or timesfm: {name} has "
                        "attention='within'")  # fmt: skip
    if design.supervise == "every" and (not causal or design.mixing == "mixed loss"):
        raise TsfmError(f"a forecast behind every patch needs a causal decoder, timesfm with running statistics, and another mixing than "
                        f"'mixed loss', got {name} and {design.mixing!r}: use supervise='end'")  # fmt: skip
    if horizon > reach:
        raise TsfmError(f"one pass of this {name} says {reach} steps, got a horizon of {horizon}: fine-tune it for {reach}, it goes on "
                        "from there when more is asked for")  # fmt: skip
    if isinstance(model, (Decoder, EncoderDecoder)) and design.combine != "quantile average":
        raise TsfmError(f"{name} says quantiles, which nothing can be drawn from beyond the outermost: use combine='quantile average', got "
                        f"{design.combine!r}")  # fmt: skip


def fingerprint(model: nn.Module) -> str:
    """Of all weights: 16 hexadecimal digits."""
    found = sha256()
    for name, tensor in sorted(model_tensors(model).items()):
        found.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def _filled(weight: Float[Tensor, "o i"]) -> nn.Linear:
    """A linear map with this weight and no bias yet; torch's own draws would move the global generator."""
    linear = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0])
    linear.weight.data.copy_(weight)
    nn.init.zeros_(linear.bias)
    return linear


def _drawn(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    for parameter in linear.parameters():
        nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=generator)
    return linear
