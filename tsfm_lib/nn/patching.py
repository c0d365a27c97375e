"""Series to patches and back. Padding always goes in front, so that the last patch ends at the forecast origin."""

import math

from einops import rearrange
from jaxtyping import Shaped
from torch import Tensor
from torch.nn import functional as F


def left_pad(x: Shaped[Tensor, "*B T"], multiple: int, value: float = math.nan) -> Shaped[Tensor, "*B P"]:
    """Fill the front with `value` (missing) until the length is a multiple.

    >>> import torch
    >>> left_pad(torch.tensor([1.0, 2.0, 3.0]), 2)
    tensor([nan, 1., 2., 3.])
    """
    return F.pad(x, (-x.shape[-1] % multiple, 0), value=value)


def patch(x: Shaped[Tensor, "*B T"], size: int, stride: int | None = None) -> Shaped[Tensor, "*B N size"]:
    """Consecutive patches; with a stride below the size they overlap. The length must leave nothing over.

    >>> import torch
    >>> patch(torch.arange(6), 4, stride=2)
    tensor([[0, 1, 2, 3],
            [2, 3, 4, 5]])
    """
    stride, length = stride or size, x.shape[-1]
    if length < size:
        raise ValueError(f"a series of {length} points is shorter than one patch of {size}: left_pad it or take shorter patches")
    if (length - size) % stride:
        raise ValueError(f"{length} points do not divide into patches of {size} every {stride}: pad in front (left_pad) first")
    return x.unfold(-1, size, stride)


def unpatch(patches: Shaped[Tensor, "*B N size"]) -> Shaped[Tensor, "*B T"]:
    """Patches without overlap laid end to end.

    >>> import torch
    >>> unpatch(patch(torch.arange(6), 3)).tolist()
    [0, 1, 2, 3, 4, 5]
    """
    return rearrange(patches, "... N P -> ... (N P)")
