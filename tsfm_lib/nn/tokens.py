"""A sequence of tokens and what multi-scale fine-tuning must know about it. Every model that can be fine-tuned across scales offers

normalise(x, mask) -> z, seen, statistics                       pure: two scales never share a state
embed_tokens(z, seen, horizon, adapt=...) -> Tokens             `adapt` acts behind the input projection, before any mask token
layers: each layer(h, aux, delta) -> h                          `delta`: low-rank pairs of its projections, by name: see `deltas`
project(h, tokens, horizon, ...) -> raw                         final norm and head: what comes out is in normalised units
forecast(raw, statistics)                                       back in the units of the series

Series are rows [R T]; models in which variates meet also take [B V T] and keep one row of tokens a variate, R = B V, in `h`. What comes
out has the leading axes that went in: numbers [... h], or a mixture with that shape.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from tsfm_lib.nn.lora import LoRA, Pair


class Tokens(NamedTuple):
    """prefix (prompts, if any), context and horizon tokens, in this order; `aux` is handed to every layer as it is."""

    h: Float[Tensor, "B N D"]
    aux: Any
    context: int
    horizon: int = 0
    prefix: int = 0


def deltas(lora: LoRA, layers: int | Sequence[str]) -> list[dict[str, Pair]]:
    """The `delta` of every layer from the pairs made for a model or for its `layers` (a number, or their names, where they are in two
    stacks): q, k, v, out (attention), up, gate, down (feed-forward), the way to them left out unless a layer has two attentions
    (`time.q`, `variate.q`; `attend.q`, `cross.q`). Pairs elsewhere are left alone.

    >>> from torch import nn
    >>> model = nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleDict({"attention": nn.ModuleDict({"q": nn.Linear(4, 4)})})])})
    >>> [list(delta) for delta in deltas(LoRA.of(model, ("q",), rank=2), layers=1)]
    [['q']]
    """
    if isinstance(layers, int):
        layers = [f"layers.{i}" if any(name.startswith("layers.") for name in lora.names) else str(i) for i in range(layers)]
    found: dict[str, dict[str, Pair]] = {place: {} for place in layers}
    for name, a, b in zip(lora.names, lora.a, lora.b):
        for place in layers:
            if name.startswith(f"{place}."):
                inside = name.removeprefix(f"{place}.").removeprefix("attention.").removeprefix("mlp.")
                found[place][inside] = (a, b if lora.gain == 1 else b * lora.gain)
    return list(found.values())
