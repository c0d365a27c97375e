"""Pieces of training objectives that several models share. Pure functions; what is random takes a generator."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tsfm_lib.errors import TsfmError


def random_cuts(
    first: Int[Tensor, " B"], patches: int, cuts: int, generator: torch.Generator | None = None, whole: float = 0.25, lean: float = 0.5
) -> tuple[Int[Tensor, "B K"], Float[Tensor, "B K"]]:
    """Dense prefixes: `cuts` ends of each series at which the future is forecast, counted in patches read, and their weights.

    `first` is the first patch with an observation. Column 0 is the prefix from which statistics may be taken (weight 1): all patches
    with probability `whole`, otherwise the first U ** `lean` of them (0.5: late ones more often; 1: evenly; above: early ones, which
    leaves more ends to forecast from). The other columns are different, later
    ends in random order (weight 1/2), so no statistic sees a target; where there are fewer, they repeat the prefix with weight 0.

    >>> ends, weights = random_cuts(torch.tensor([0, 3]), patches=4, cuts=3, whole=1.0)
    >>> ends.tolist(), weights.tolist()
    ([[4, 4, 4], [4, 4, 4]], [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    """
    if patches < 1 or cuts < 1 or (len(first) and int(first.max()) >= patches):
        raise TsfmError(f"expected patches and cuts of at least 1 and first patches below {patches}, got {patches} patches, {cuts} cuts")
    draw = lambda *shape: torch.rand(*shape, device=first.device, generator=generator)
    n = len(first)
    prefix = (first + 1 + (draw(n) ** lean * (patches - first)).long()).clamp(max=patches)
    prefix = torch.where(draw(n) < whole, patches, prefix)
    ends = torch.arange(1, patches + 1, device=first.device).expand(n, -1)
    keys = draw(n, patches).masked_fill(ends <= prefix[:, None], 2.0)               # the later ends in random order, then the others
    order = keys.argsort(dim=1)[:, : cuts - 1]
    later = keys.gather(1, order) < 2
    others = torch.where(later, order + 1, prefix[:, None])
    short = cuts - 1 - others.shape[1]                                              # more cuts asked for than there are patches
    others = torch.cat([others, prefix[:, None].expand(-1, max(0, short))], dim=1)
    weights = F.pad(0.5 * later.float(), (0, max(0, short)))
    return torch.cat([prefix[:, None], others], dim=1), torch.cat([torch.ones(n, 1, device=first.device), weights], dim=1)


def cut_rows(
    rows: Float[Tensor, "B T"], horizon: int, cuts: int, unit: int = 1, generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "R T"], Float[Tensor, " R"]]:
    """Each series `cuts` times: as it is, and cut shorter at other ends, `unit` steps apart and drawn without repetition.

    A shorter one is moved to the right (missing values enter in front), so that its last `horizon` steps are always the future. Where
    there are too few ends with an observation before them, the series as it is comes again; weights are 1, and 0 for such copies.

    >>> rows, weights = cut_rows(torch.arange(8.0)[None], horizon=2, cuts=3, unit=2, generator=torch.Generator().manual_seed(0))
    >>> rows[0].tolist() == list(range(8)), sorted(rows[:, -1].tolist()), sorted(rows.isnan().sum(1).tolist())
    (True, [3.0, 5.0, 7.0], [0, 2, 4])
    """
    if cuts == 1:
        return rows, rows.new_ones(len(rows))
    (count, steps), seen = rows.shape, rows[:, : rows.shape[1] - horizon].isfinite()
    back = torch.arange(0, steps - horizon, unit, device=rows.device)                               # steps that are cut off
    first = torch.where(seen.any(1), seen.float().argmax(1), steps)
    keys = torch.rand(count, len(back), device=rows.device, generator=generator)
    keys = keys.masked_fill(steps - horizon - back <= first[:, None], 2.0)
    keys[:, 0] = -1.0
    order = keys.argsort(dim=1)[:, :cuts]
    weights = (keys.gather(1, order) < 2).to(rows)
    at = torch.arange(steps, device=rows.device) - (back[order] * (weights > 0))[..., None]         # B K T
    moved = rows[:, None].expand(-1, order.shape[1], -1).gather(2, at.clamp_min(0))
    return moved.masked_fill(at < 0, torch.nan).flatten(0, 1), weights.flatten()


def mask_patches(observed: Bool[Tensor, "B N"], ratio: float, generator: torch.Generator | None = None) -> Bool[Tensor, "B N"]:
    """True at the patches to be reconstructed: round(ratio * observed) of the observed ones in each row, at least one, never all of many.

    >>> mask_patches(torch.tensor([[False, True, True, True, True]]), 0.5).sum(1)
    tensor([2])
    """
    if not 0 < ratio < 1:
        raise TsfmError(f"the share of masked patches should lie between 0 and 1, got {ratio}")
    seen = observed.sum(1)
    count = (ratio * seen).round().long().clamp(min=1)
    count = torch.where(seen > 1, torch.minimum(count, seen - 1), seen.clamp(max=1))
    keys = torch.rand(observed.shape, device=observed.device, generator=generator).masked_fill(~observed, 2.0)
    rank = keys.argsort(dim=1).argsort(dim=1)
    return (rank < count[:, None]) & observed


def info_nce(
    a: Float[Tensor, "B D"], b: Float[Tensor, "B D"], temperature: float = 0.1, symmetric: bool = True
) -> Float[Tensor, ""]:
    """Row i of `a` and row i of `b` are two views of one series, all other rows are negatives (arXiv 1807.03748).

    Both directions, unless `symmetric` is off: then each row of `a` looks for its partner among those of `b` (Mantis).

    >>> views = torch.eye(4)
    >>> bool(info_nce(views, views) < 0.001), bool(info_nce(views, views.roll(1, 0)) > 5)
    (True, True)
    """
    if a.shape != b.shape or len(a) < 2:
        raise TsfmError(f"expected two batches of the same shape [B, D] with B of at least 2, got {list(a.shape)} and {list(b.shape)}")
    with torch.autocast(a.device.type, enabled=False):
        logits = F.normalize(a.float(), dim=1) @ F.normalize(b.float(), dim=1).T / temperature
        target = torch.arange(len(a), device=a.device)
        forth = F.cross_entropy(logits, target)
        return (forth + F.cross_entropy(logits.T, target)) / 2 if symmetric else forth
