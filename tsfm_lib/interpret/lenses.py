"""What a model would say if its layers ended earlier: the read-out applied to the residual stream behind each of them.

    look = interpret.lens(model, lambda x: model.predict_quantiles(x, 24, [0.5]), context)
    look.entropy(), look.candidates(), look.similarity()

A model offers `lens(h [R N D])`: the residual stream behind any layer of its last stack, through the last norm and the read-out, to
    Chronos-T5       logits R P C                 Chronos-Bolt, Kairos, TimesFM    normalised quantiles R P Q
Others are looked through by a function of `h` in its place, `lens(model, run, x, read=...)`:
    Moirai           tokens = model.embed_tokens(z, seen, horizon); read = lambda h: model.project(h, tokens, horizon).quantiles(levels)
    Toto             read = lambda h: model.mixture(model.read_out(h[:, -1])).quantiles(levels)
The read-outs of all but Chronos-T5 have a hidden layer, so the parts that heads and MLPs add to the stream do not add up in a lens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tsfm_lib.errors import TsfmError
from tsfm_lib.interpret.capturing import LIMIT, Run, capture, entropy
from tsfm_lib.interpret.plans import layers


@dataclass(frozen=True)
class Lens:
    """One read-out in front of the stack ("in") and behind each of its layers, and the streams they were read from."""

    names: tuple[str, ...]
    outputs: Float[Tensor, "L R P Q"]  # logits, or sorted quantiles at `levels`
    streams: Float[Tensor, "L R N D"]
    levels: tuple[float, ...] | None = None  # None: logits

    def entropy(self) -> Float[Tensor, "L R"]:
        """Of the forecast distribution, in nats, mean over the steps: of the tokens, or the differential one that the quantiles bound."""
        if self.levels is None:
            return entropy(self.outputs.softmax(-1)).mean(-1)
        return quantile_entropy(self.outputs, self.levels).mean(-1)

    def candidates(self, least: float | int = 0.01) -> Float[Tensor, "L R"]:
        """Distinct forecasts in play, mean over the steps: tokens with a probability above `least`, or peaks of the density."""
        if self.levels is None:
            return (self.outputs.softmax(-1) > least).sum(-1).double().mean(-1)
        return peaks(self.outputs, self.levels).double().mean(-1)

    def similarity(self) -> Float[Tensor, "L R"]:
        """Cosine of what a layer adds to the stream and what the layer before it added, mean over positions; NaN where none was before."""
        update = self.streams.diff(dim=0)
        found = torch.cosine_similarity(update[1:], update[:-1], dim=-1).mean(-1)
        return torch.cat([found.new_full((2, found.shape[1]), torch.nan), found])

    def distance(self) -> Float[Tensor, "L R"]:
        """How far the read-out is from the last one: Kullback-Leibler divergence in nats, or mean absolute difference of the quantiles."""
        if self.levels is None:
            log = self.outputs.log_softmax(-1)
            return (log[-1].exp() * (log[-1] - log)).sum(-1).mean(-1)
        return (self.outputs - self.outputs[-1]).abs().mean((-1, -2))


@torch.no_grad()
def lens(model: nn.Module, run: Run, x: Tensor, *, read: Callable[[Tensor], Tensor] | None = None, levels: Sequence[float] | None = None,
         limit: int = LIMIT) -> Lens:  # fmt: skip
    """`run(x)` once, and the read-outs of the last stack. `levels` of the quantiles that `read` gives; None: those of the model's config,
    or logits where it has none. The run should pass through the stack once: one horizon, or known labels for a token decoder."""
    read = read or getattr(model, "lens", None)
    if read is None:
        raise TsfmError(f"{type(model).__name__} offers no lens(h): pass read=..., a function from the stream R N D to its outputs R P Q")
    stack = list(layers(model))[-1].partition(".")[0]
    with capture(model, "residuals", sites=[stack], limit=limit) as seen:
        run(x)
    streams, device = seen.residuals, next(model.parameters()).device
    names = (f"{stack}.in", *(name for name in streams if not name.endswith(".in")))
    outputs = torch.stack([read(streams[name].to(device)).cpu() for name in names])
    levels = getattr(getattr(model, "config", None), "quantiles", None) if levels is None else levels
    if levels is not None:
        if outputs.shape[-1] != len(levels):
            raise TsfmError(f"a lens with {outputs.shape[-1]} numbers a step does not fit {len(levels)} levels: pass levels=... of its own")
        outputs = outputs.sort(-1).values
    return Lens(names, outputs, torch.stack([streams[name] for name in names]), None if levels is None else tuple(levels))


def quantile_entropy(quantiles: Float[Tensor, "*B Q"], levels: Sequence[float]) -> Float[Tensor, "*B"]:
    """Differential entropy of the density that is flat between neighbouring quantiles, as a mean over the mass between the outer ones.

    >>> levels = torch.linspace(0.1, 0.9, 9)
    >>> round(quantile_entropy(5 * levels, levels.tolist()).item(), 3), round(torch.tensor(5.0).log().item(), 3)     # uniform of width 5
    (1.609, 1.609)
    """
    mass, width = _between(quantiles, levels)
    return (mass * (width / mass).log()).sum(-1) / mass.sum()


def peaks(quantiles: Float[Tensor, "*B Q"], levels: Sequence[float]) -> Tensor:
    """Local maxima of that density.

    >>> peaks(torch.tensor([[0.0, 1, 2, 2.1, 3, 4], [0.0, 0.1, 1, 2, 2.1, 3]]), [0.1, 0.2, 0.4, 0.6, 0.8, 0.9]).tolist()
    [1, 2]
    """
    mass, width = _between(quantiles, levels)
    density = torch.nn.functional.pad(mass / width, (1, 1))
    rising, falling = density[..., 1:-1] > density[..., :-2], density[..., 1:-1] >= density[..., 2:]
    return (rising & falling).sum(-1)


def _between(quantiles: Tensor, levels: Sequence[float]) -> tuple[Tensor, Tensor]:
    width = quantiles.double().diff(dim=-1)
    return torch.tensor(levels, dtype=width.dtype).diff().to(width), width.clamp_min(1e-6)  # a point has no entropy; it gets that of 1e-6
