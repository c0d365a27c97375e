"""Series of any length, with gaps, for encoders that read complete series of one length; and random crops as views of a series.

Points are the centres of equal cells, as in `torch.nn.functional.interpolate(mode="linear", align_corners=False)`, so a series that has
the length already comes back unchanged. Every row may have a start and a length of its own, which torch's function does not offer.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tsfm_lib.nn.scaling import observed


def bridge(x: Float[Tensor, "*B T"]) -> Float[Tensor, "*B T"]:
    """Gaps filled by straight lines, ends by the nearest value, rows without any observation by zeros.

    >>> bridge(torch.tensor([[torch.nan, 1.0, torch.nan, 3.0, torch.nan], [torch.nan] * 5]))
    tensor([[1., 1., 2., 3., 3.],
            [0., 0., 0., 0., 0.]])
    """
    seen, last = observed(x), x.shape[-1] - 1
    if seen.all():
        return x
    at = torch.arange(last + 1, device=x.device).expand_as(seen)
    before = torch.where(seen, at, -1).cummax(-1).values
    after = torch.where(seen, at, last + 1).flip(-1).cummin(-1).values.flip(-1)
    before, after = torch.where(before < 0, after, before).clamp_max(last), torch.where(after > last, before, after).clamp_min(0)
    values = torch.where(seen, x, 0)
    a, b = values.gather(-1, before), values.gather(-1, after)
    return a + (b - a) * (at - before) / (after - before).clamp_min(1)


def resample(x: Float[Tensor, "*B T"], size: int, start: Int[Tensor, "..."] | int = 0, length: Int[Tensor, "..."] | int | None = None,
             clock: Float[Tensor, "*B size"] | None = None) -> Float[Tensor, "*B size"]:  # fmt: skip
    """Steps start ... start + length - 1 of complete series, stretched or squeezed to `size` points.

    `clock`: the places in 0..1 that are read, where they should not be evenly spaced.

    >>> resample(torch.tensor([[0.0, 1.0, 2.0, 3.0]]), 2), resample(torch.arange(6.0), 4, start=2, length=2)
    (tensor([[0.5000, 2.5000]]), tensor([2.0000, 2.2500, 2.7500, 3.0000]))
    """
    whole = lambda n: torch.as_tensor(n, device=x.device).expand(*x.shape[:-1], 1)
    start, length = whole(start), whole(x.shape[-1] if length is None else length)
    cells = torch.arange(size, device=x.device, dtype=x.dtype) + 0.5 if clock is None else clock * size
    at = (cells * (length.to(x.dtype) / size) - 0.5).clamp_min(0)  # *B size
    left = torch.minimum(at.long(), length - 1)
    right = torch.minimum(left + 1, length - 1)
    share = at - left
    return x.gather(-1, start + left) * (1 - share) + x.gather(-1, start + right) * share


def stretch(x: Float[Tensor, "B V T"], size: int) -> Float[Tensor, "B V size"]:
    """What was observed of each sample, from its first to its last time, bridged and brought to `size` points; variates stay aligned.

    >>> stretch(torch.tensor([[[torch.nan, torch.nan, 0.0, 4.0]]]), 4)
    tensor([[[0., 1., 3., 4.]]])
    """
    times = observed(x).any(1, keepdim=True)  # B 1 T
    if times.all() and x.shape[-1] == size:
        return bridge(x)
    first = times.int().argmax(-1, keepdim=True)
    behind = x.shape[-1] - times.flip(-1).int().argmax(-1, keepdim=True)
    return resample(bridge(x), size, first, behind - first)


def bent_clock(rows: int, size: int, most: float, waves: int = 3, generator: torch.Generator | None = None,
               device: torch.device | None = None) -> Float[Tensor, "rows size"]:  # fmt: skip
    """Time that runs fast here and slow there, but never backwards: `waves` sines of random depth up to `most` (below 1) in turn.

    >>> clock = bent_clock(4, 50, most=0.9, generator=torch.Generator().manual_seed(0))
    >>> bool((clock.diff(dim=1) > 0).all()), bool((clock > 0).all() and (clock < 1).all())
    (True, True)
    """
    clock = ((torch.arange(size, device=device) + 0.5) / size).expand(rows, -1)
    for k in range(1, waves + 1):                   # slope 1 + a cos(...) > 0, and the ends stay where they are
        depth = most * (2 * torch.rand(rows, 1, device=device, generator=generator) - 1)
        clock = clock + depth * torch.sin(torch.pi * k * clock) / (torch.pi * k)
    return clock


def crop_resize(x: Float[Tensor, "B T"], generator: torch.Generator | None = None, shares: tuple[float, float] = (0.0, 0.2),
                shared: bool = True, warp: float = 0.0) -> Float[Tensor, "B T"]:  # fmt: skip
    """A random crop of complete series, stretched to the old length: a uniform share is cut off, the place is uniform too.

    `shared`: one share and one place for the whole batch, else each row draws its own. `warp`: depth of a bent clock per row.
    """
    draw = lambda: torch.rand(1 if shared else len(x), 1, device=x.device, generator=generator)
    low, high = shares
    length = (x.shape[-1] * (1 - low - (high - low) * draw())).long().clamp(1, x.shape[-1])
    start = (draw() * (x.shape[-1] - length + 1)).long().clamp_max(x.shape[-1] - length)
    clock = bent_clock(len(x), x.shape[-1], warp, generator=generator, device=x.device).to(x.dtype) if warp else None
    return resample(x, x.shape[-1], start, length, clock)
