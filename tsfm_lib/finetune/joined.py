"""The tokens of all scales in one row, for models whose layers are told who may look at whom and when each token is: Moirai, TimesFM.

"within"   each scale on its own: the same numbers as a list of scales, at the price of an attention over all pairs
"across"   everybody looks at everybody; time starts anew in each scale, and other scales count as other variates
"aligned"  the same with one clock: a coarse token stands in the middle of the fine ones it covers
The last two are what the decoupled form is compared with; aggregators have nothing to add there.

In a causal decoder the order of the row says nothing about time, so the usual triangle is the wrong mask: with the fine scale in front
coarse tokens hear the whole fine one, behind it fine tokens hear the whole coarse one. There a token hears what has ended when it ends.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tsfm_lib.finetune.readings import Decoder
from tsfm_lib.finetune.readings import Looks as Told
from tsfm_lib.models.moirai import Looks, Moirai
from tsfm_lib.models.timesfm import Looks as TimesFMLooks
from tsfm_lib.nn.lora import Delta
from tsfm_lib.nn.tokens import Tokens


def join(model: Moirai | Decoder, parts: Sequence[Tokens], how: str, factor: int = 2) -> Tokens:
    """One row of tokens from those of several scales, of one variate each."""
    if isinstance(model, Decoder):
        return join_causal(model, parts, how, factor)
    scale = scale_of(parts)
    own = scale[:, None] == scale
    mask = torch.cat([part.aux.mask for part in parts], dim=-1)  # B 1 1 L
    if how == "within":
        mask = mask & own
    angles = torch.cat([part.aux.angles for part in parts])
    if how == "aligned":
        first = parts[0].context
        times = [first + (torch.arange(part.h.shape[1]) - part.context + 0.5) * factor**i - 0.5 for i, part in enumerate(parts)]
        angles = model.rope.angles(torch.cat(times).to(scale.device))
    looks = parts[0].aux
    h = torch.cat([part.h for part in parts], dim=1)
    return Tokens(h, Looks(mask, own[None], angles, 1, looks.leading, looks.size), h.shape[1])


def join_causal(model: Decoder, parts: Sequence[Tokens], how: str, factor: int = 2) -> Tokens:
    own, scale, ends = [part.aux.own for part in parts], scale_of(parts), ends_of(parts, factor)
    mask = torch.cat([one.mask[:, :, -1:] for one in own], dim=-1) & heard(ends)  # who is there, and has ended
    if how == "within":
        mask = mask & (scale[:, None] == scale)
    angles = torch.cat([one.angles for one in own], dim=2)
    if how == "aligned":
        first = 1 - own[0].sees.sum(1)  # R 1: when the first patch with an observation ends, which is where the decoder counts from
        angles = model.model.rope.angles(ends - first)
    looks = TimesFMLooks(angles, mask, torch.cat([one.sees for one in own], dim=1))
    h = torch.cat([part.h for part in parts], dim=1)
    return Tokens(h, Told(looks, parts[0].aux.leading), h.shape[1])


def ends_of(parts: Sequence[Tokens], factor: int = 2) -> Float[Tensor, " L"]:
    """When each token of the row ends: patches of the finest scale before the forecast origin, so 0 at most."""
    ends = [(torch.arange(part.h.shape[1], device=part.h.device) + 1 - part.h.shape[1]) * factor**i for i, part in enumerate(parts)]
    return torch.cat(ends).float()


def heard(ends: Float[Tensor, " L"]) -> Bool[Tensor, "L L"]:
    """True where a token (row) may hear another (column): it has ended by then."""
    return ends[:, None] >= ends


def scale_of(parts: Sequence[Tokens]) -> Tensor:
    """The number of its scale for every token of the row."""
    counts = torch.tensor([part.h.shape[1] for part in parts], device=parts[0].h.device)
    return torch.arange(len(parts), device=counts.device).repeat_interleave(counts)


def split(h: Float[Tensor, "R L D"], parts: Sequence[Tokens]) -> list[Tensor]:
    return list(h.split([part.h.shape[1] for part in parts], dim=1))


def token_pairs(deltas: Sequence[Delta], scale: Tensor) -> Delta:
    """Pairs for every token: those of its scale."""
    pick = lambda name, side: torch.stack([delta[name][side] for delta in deltas])[scale]
    return {name: (pick(name, 0), pick(name, 1)) for name in deltas[0]}
