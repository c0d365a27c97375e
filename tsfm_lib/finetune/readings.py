"""Two models that are no encoders, read as multi-scale fine-tuning reads one: the contract of `nn.tokens`, worn over the model.

The paper stops at encoders. What must change:

a causal decoder (TimesFM)         There are no horizon tokens: the forecast stands behind the last token, and in training behind every one.
                                   Then a token must know nothing later than its own end, whatever its scale: `scales.finished`, `joined`.
                                   Statistics run along, so every token has units of its own.
an encoder-decoder (Chronos-Bolt)  The scales meet twice: patch tokens in the encoder, then forecast tokens, one a scale, in the decoder. A
                                   forecast token looks at its own scale; what it hears of others comes from their forecast tokens.

Quantile models say quantiles, so their loss is the quantile loss, in units of the data like the losses of the others.

Shapes: B samples, V variates, T steps, R rows (B x V), N tokens, D width, h steps of the horizon, Q quantiles.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tsfm_lib.errors import TsfmError
from tsfm_lib.models.chronos_bolt import ChronosBolt
from tsfm_lib.models.moirai import Moirai
from tsfm_lib.models.moment import Moment
from tsfm_lib.models.timesfm import Looks as TimesFMLooks
from tsfm_lib.models.timesfm import TimesFM, bridge
from tsfm_lib.models.units import UniTS
from tsfm_lib.nn.lora import Delta
from tsfm_lib.nn.outputs import Quantiles
from tsfm_lib.nn.patching import patch
from tsfm_lib.nn.scaling import Statistics
from tsfm_lib.nn.tokens import Tokens

KNOWN = "moirai, moment, units, timesfm or chronos-bolt"
Adapt = Callable[[Tensor], Tensor]


def reading(model: Any) -> nn.Module:
    """The model itself where it offers the contract, else what offers it for the model."""
    if isinstance(model, (Moirai, Moment, UniTS)):
        return model
    worn = {TimesFM: Decoder, ChronosBolt: EncoderDecoder}.get(type(model))
    if worn is None:
        raise TsfmError(f"fine-tuning needs {KNOWN}, got {type(model).__name__}")
    return worn(model)


class Reading(nn.Module):
    """What both have in common. Variates are rows of their own."""

    probabilistic = True
    beside: int  # tokens of a scale that are no patches of its context

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def head(self) -> nn.Module:
        return self.model.head

    def says(self, values: Float[Tensor, "R *N P Q"], leading: Sequence[int], horizon: int) -> Quantiles:
        levels = self.config.quantiles
        return Quantiles(values[..., :horizon, values.shape[-1] - len(levels) :].unflatten(0, leading), levels)

    def forecast(self, raw: Quantiles, statistics: Statistics) -> Quantiles:
        return raw.in_units(statistics)


# ---- a causal decoder ------------------------------------------------------------------------------------------------------------------


class Looks(NamedTuple):
    """What every layer is handed, and the axes of the series that went in."""

    own: TimesFMLooks
    leading: tuple[int, ...]


class Decoder(Reading):
    """TimesFM. With `horizon` every token has a forecast behind it; `project` gives the last one, or all."""

    beside = 0

    @property
    def causal(self) -> bool:
        return self.model.causal

    @property
    def names(self) -> list[str]:
        return [f"model.layers.{i}" for i in range(len(self.model.layers))]

    @property
    def layers(self) -> list[Callable[..., Tensor]]:
        one = lambda layer, h, aux, delta=None: layer(h, aux.own, delta)
        return [partial(one, layer) for layer in self.model.layers]

    def normalise(self, x: Float[Tensor, "*B T"]) -> tuple[Float[Tensor, "*B T"], Bool[Tensor, "*B T"], Statistics]:
        """Statistics [*B N]: each patch by all that was read so far ([*B 1] where one scale serves the whole context)."""
        rows, leading = x.reshape(-1, x.shape[-1]), x.shape[:-1]
        z, seen, found = self.model.normalise(bridge(rows) if self.config.gaps == "bridge" else rows)
        back = lambda part: part.flatten(1).unflatten(0, leading)
        return back(z), back(seen), Statistics(back(found.loc), back(found.scale), found.asinh)

    def embed_tokens(self, z: Float[Tensor, "*B T"], seen: Bool[Tensor, "*B T"], horizon: int = 0, *, adapt: Adapt | None = None) -> Tokens:
        patches, there = (patch(x.reshape(-1, x.shape[-1]), self.config.patch) for x in (z, seen))
        h = self.model.tokens(patches, there)
        h = h if adapt is None else adapt(h)
        return Tokens(h, Looks(self.model.looks(there, h.shape[1]), tuple(z.shape[:-1])), h.shape[1])

    def project(self, h: Float[Tensor, "R N D"], tokens: Tokens, horizon: int, every: bool = False) -> Quantiles:
        """Behind the last token [*B h Q], or behind each one [*B N h Q]."""
        return self.says(self.model.read_out(h if every else h[:, -1]), tokens.aux.leading, horizon)


# ---- an encoder and a decoder ----------------------------------------------------------------------------------------------------------


class Sides(NamedTuple):
    """Biases of both stacks, whom one may look at, and the axes of the series that went in."""

    encoder: Float[Tensor, "H n n"]
    decoder: Float[Tensor, "H 1 1"]
    mask: Bool[Tensor, "R 1 1 n"]
    leading: tuple[int, ...]


class EncoderDecoder(Reading):
    """Chronos-Bolt. A row is [REG], the patches, the forecast token; a layer of the encoder leaves the last one alone, one of the decoder
    moves nothing else, and looks at the rest as the encoder has left it. [REG] belongs to no time, so no scale tells it anything."""

    causal = False

    def __init__(self, model: ChronosBolt):
        super().__init__(model)
        if model.config.stride is not None:
            raise TsfmError(f"tokens of scales are matched patch by patch, got patches that overlap (stride {model.config.stride})")

    @property
    def beside(self) -> int:
        return 1 + (self.model.reg is not None)

    @property
    def names(self) -> list[str]:
        return [f"model.{stack}.layers.{i}" for stack in ("encoder", "decoder") for i in range(len(getattr(self.model, stack).layers))]

    @property
    def layers(self) -> list[Callable[..., Tensor]]:
        return [*(partial(self.read_on, layer) for layer in self.model.encoder.layers),
                *(partial(self.look, layer) for layer in self.model.decoder.layers)]  # fmt: skip

    def read_on(self, layer: nn.Module, h: Float[Tensor, "R N D"], aux: Sides, delta: Delta | None = None) -> Float[Tensor, "R N D"]:
        return torch.cat([layer(h[:, :-1], aux.encoder, aux.mask, delta=delta), h[:, -1:]], dim=1)

    def look(self, layer: nn.Module, h: Float[Tensor, "R N D"], aux: Sides, delta: Delta | None = None) -> Float[Tensor, "R N D"]:
        memory = self.model.encoder.dropout(self.model.encoder.norm(h[:, :-1]))
        return torch.cat([h[:, :-1], layer(h[:, -1:], aux.decoder, None, memory, aux.mask, delta=delta)], dim=1)

    def moves(self, number: int) -> str:
        """The tokens that a layer moves, and so the ones that scales tell each other of behind it."""
        return "context" if number < len(self.model.encoder.layers) else "horizon"

    def normalise(self, x: Float[Tensor, "*B T"]) -> tuple[Float[Tensor, "*B T"], Bool[Tensor, "*B T"], Statistics]:
        z, seen, found = self.model.normalise(x.reshape(-1, x.shape[-1]))
        back = lambda part: part.unflatten(0, x.shape[:-1])
        return back(z), back(seen), Statistics(back(found.loc), back(found.scale), found.asinh)

    def embed_tokens(self, z: Float[Tensor, "*B T"], seen: Bool[Tensor, "*B T"], horizon: int = 0, *, adapt: Adapt | None = None) -> Tokens:
        own, stacks = self.model, (self.model.encoder, self.model.decoder)
        h, there = own.embed_patches(*(x.reshape(-1, x.shape[-1]) for x in (z, seen)))
        h, n, first = h if adapt is None else adapt(h), h.shape[1], self.beside - 1
        token = lambda parameter: parameter.expand(len(h), 1, -1)
        row = torch.cat([*([token(own.reg)] if first else []), h, token(own.start)], dim=1)
        bias = stacks[0].bias(n + first).roll((first, first), (-2, -1))  # [REG] stands behind the patches, in our row in front of them
        mask = nn.functional.pad(there, (first, 0), value=True)[:, None, None]
        return Tokens(stacks[0].dropout(row), Sides(bias, stacks[1].bias(1, 1), mask, tuple(z.shape[:-1])), n, 1, first)

    def project(self, h: Float[Tensor, "R N D"], tokens: Tokens, horizon: int) -> Quantiles:
        said = self.model.read_out(self.model.decoder.dropout(self.model.decoder.norm(h[:, -1:])))
        return self.says(said, tokens.aux.leading, horizon)
