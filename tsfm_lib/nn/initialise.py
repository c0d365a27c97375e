"""Fresh weights as T5 draws them (arXiv 1910.10683): variances that keep scores near one without dividing by the root of the width."""

from torch import nn

from tsfm_lib.nn.attention import Attention
from tsfm_lib.nn.feedforward import FeedForward


def like_t5(*parts: Attention | FeedForward, quiet: float = 1.0) -> None:
    """Below 1, `quiet` draws what a part adds to the residual stream that much smaller (ours): layers start as nearly nothing.

    >>> layer = Attention(width=400, n_heads=4, head_dim=25, scale=1.0)
    >>> like_t5(layer)
    >>> [round(linear.weight.std().item(), 2) for linear in (layer.q, layer.k, layer.v, layer.out)]
    [0.01, 0.05, 0.05, 0.1]
    """
    for part in parts:
        unscaled = isinstance(part, Attention) and part.scale == 1.0
        inner = (part.q, part.k, part.v, part.out) if isinstance(part, Attention) else (part.up, part.gate, part.down)
        for linear in filter(None, inner):
            fan = linear.in_features * (part.head_dim if unscaled and linear is part.q else 1)
            nn.init.normal_(linear.weight, std=fan**-0.5 * (quiet if linear is inner[-1] else 1))
