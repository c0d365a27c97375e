"""The transformer of T5 (arXiv 1910.10683), as Chronos and Chronos-Bolt use it: encoder and decoder stacks around `nn.attention`.

RMS norms in front of every part and at the end, no biases, scores without 1 / sqrt(K), a learned bias per head and distance that a stack
owns and hands to each of its layers; cross-attention has no positions. The residual stream behind layer i is the output of `layers[i]`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tsfm_lib.nn.attention import Attention, Past, causal
from tsfm_lib.nn.feedforward import FeedForward
from tsfm_lib.nn.initialise import like_t5
from tsfm_lib.nn.lora import Delta
from tsfm_lib.nn.positions import RelativeBias
from tsfm_lib.nn.sites import HeadSite, MLPSite, attention_site

SIZES = {  # those of T5-Efficient that were trained on series: width, heads, hidden, layers of each stack
    "tiny": (256, 4, 1024, 4),
    "mini": (384, 8, 1536, 4),
    "small": (512, 8, 2048, 6),
    "base": (768, 12, 3072, 12),
    "large": (1024, 16, 4096, 24),
}
Pasts = list[tuple[Past, Past]]  # of self- and cross-attention, layer by layer


@dataclass(frozen=True)
class T5Config:
    """Sizes of both stacks; the defaults are those of "small"."""

    width: int = 512
    heads: int = 8
    head_width: int = 64
    hidden: int = 2048
    encoder_layers: int = 6
    decoder_layers: int = 6
    activation: str = "relu"
    gated: bool = False
    buckets: int = 32  # of the relative positions
    max_distance: int = 128
    dropout: float = 0.1
    norm_eps: float = 1e-6
    quiet_start: float = 1.0  # below 1, layers start as nearly nothing (ours): encoder-decoders learn faster so
    copy_start: bool = False  # True: fresh stacks have what copying takes, see `ready_to_copy` (ours)
    scaled_scores: bool = False  # True: scores / sqrt(K), the same functions in a form that Muon moves better

    def __post_init__(self):
        if min(self.encoder_layers, self.decoder_layers) < 1:
            raise ValueError(f"both stacks need a layer, got {self.encoder_layers} and {self.decoder_layers}")
        if self.buckets % 4 or self.buckets < 8 or self.max_distance <= self.buckets // 2:
            raise ValueError("relative positions need a multiple of 4 buckets, 8 or more, and a max_distance above half of them, got "
                             f"{self.buckets} and {self.max_distance}")  # fmt: skip
        if self.copy_start and not 2 <= self.heads <= self.buckets // 2 - 2:
            raise ValueError(f"ready to copy, heads start with distances of their own: that takes 2 to {self.buckets // 2 - 2} heads "
                             f"with {self.buckets} buckets, got {self.heads}")  # fmt: skip

    @classmethod
    def published(cls, size: str) -> "T5Config":
        """One of the sizes with official weights: tiny, mini, small, base, large."""
        if size not in SIZES:
            raise ValueError(f"published sizes are {', '.join(SIZES)}, got {size!r}")
        width, heads, hidden, layers = SIZES[size]
        return cls(width=width, heads=heads, hidden=hidden, encoder_layers=layers, decoder_layers=layers)


class T5Layer(nn.Module):
    """Self-attention, in a decoder cross-attention, feed-forward; each adds to the residual stream."""

    def __init__(self, config: T5Config, cross: bool = False):
        super().__init__()
        c = config
        norm = lambda: nn.RMSNorm(c.width, eps=c.norm_eps)
        look = lambda: Attention(c.width, c.heads, c.head_width, scale=None if c.scaled_scores else 1.0, dropout=c.dropout)
        self.norm_self, self.attend = norm(), look()
        self.norm_cross, self.cross = (norm(), look()) if cross else (None, None)
        self.norm_mlp = norm()
        self.mlp = FeedForward(c.width, c.hidden, c.activation, gated=c.gated, bias=False, dropout=c.dropout)
        self.dropout = nn.Dropout(c.dropout)
        like_t5(*filter(None, (self.attend, self.cross)), self.mlp, quiet=c.quiet_start)

    def forward(self, h: Float[Tensor, "B N D"], bias: Float[Tensor, "*R H N M"], mask: Bool[Tensor, "..."] | None = None,
                memory: Float[Tensor, "R L D"] | None = None, memory_mask: Bool[Tensor, "R 1 1 L"] | None = None,
                past: tuple[Past | None, Past | None] = (None, None), delta: Delta | None = None) -> Float[Tensor, "B N D"]:  # fmt: skip
        """`delta`: low-rank pairs by the way to them, `attend.q`, `cross.q`, ..., those of the feed-forward by name alone."""
        of = lambda part: {name.removeprefix(part): pair for name, pair in (delta or {}).items() if name.startswith(part)}
        h = h + self.dropout(self.attend(self.norm_self(h), mask=mask, bias=bias, past=past[0], delta=of("attend.")))
        if self.cross is not None:
            queries = self.norm_cross(h).reshape(len(memory), -1, h.shape[-1])  # paths that share a memory stand side by side
            h = h + self.dropout(self.cross(queries, memory, mask=memory_mask, past=past[1], delta=of("cross."))).reshape(h.shape)
        return h + self.dropout(self.mlp(self.norm_mlp(h), delta))


class T5Stack(nn.Module):
    """Layers and the norm behind them. A decoder (`decodes`) looks back only, and at a memory; step by step with `past`.

    >>> import torch
    >>> config = T5Config(width=8, heads=2, head_width=4, hidden=8)
    >>> encoder, decoder = T5Stack(config, 1).eval(), T5Stack(config, 2, decodes=True).eval()
    >>> x, memory = torch.randn(2, 3, 8), encoder(torch.randn(2, 5, 8))
    >>> past = decoder.fresh()
    >>> steps = [decoder(x[:, i : i + 1], memory=memory, past=past) for i in range(3)]
    >>> torch.allclose(torch.cat(steps, dim=1), decoder(x, memory=memory), atol=1e-5)
    True
    """

    def __init__(self, config: T5Config, layers: int, decodes: bool = False):
        super().__init__()
        self.decodes = decodes
        self.bias = RelativeBias(config.heads, config.buckets, config.max_distance, bidirectional=not decodes)
        nn.init.normal_(self.bias.table.weight, std=config.width**-0.5)
        self.layers = nn.ModuleList(T5Layer(config, cross=decodes) for _ in range(layers))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def fresh(self) -> Pasts:
        """An empty past, to be filled by decoding."""
        return [(Past(), Past()) for _ in self.layers]

    def forward(self, h: Float[Tensor, "B N D"], seen: Bool[Tensor, "B N"] | None = None, memory: Float[Tensor, "R L D"] | None = None,
                memory_seen: Bool[Tensor, "R L"] | None = None, past: Pasts | None = None) -> Float[Tensor, "B N D"]:  # fmt: skip
        """`seen`: the tokens an encoder may look at. A decoder may have several rows for each row of the memory, one after another."""
        before, n = past[0][0].length if past else 0, h.shape[1]
        mask = None if seen is None else seen[:, None, None]
        if self.decodes:
            mask = causal(n, before + n, device=h.device) if n > 1 else None
        memory_mask = None if memory_seen is None else memory_seen[:, None, None]
        bias, h = self.bias(n, before + n, start=before), self.dropout(h)
        if mask is not None and mask.any(-1).all():  # one mask for all layers, laid over the bias once: saves a sixth of a step
            bias, mask = torch.where(mask, bias, -torch.inf), None
        for i, layer in enumerate(self.layers):
            h = layer(h, bias, mask, memory, memory_mask, past[i] if past else (None, None))
        return self.dropout(self.norm(h))

    def sites(self, stack: str, memory_norm: nn.Module | None = None) -> list[HeadSite | MLPSite]:
        """`memory_norm`: the one behind the stack that a decoder looks at."""
        found: list[HeadSite | MLPSite] = []
        for i, layer in enumerate(self.layers):
            found.append(attention_site(stack, i, "self", layer.attend, layer.norm_self))
            if layer.cross is not None:
                found.append(attention_site(stack, i, "cross", layer.cross, layer.norm_cross, memory_norm))
            found.append(MLPSite(stack, i, layer.mlp))
        return found


@torch.no_grad()
def ready_to_copy(encoder: T5Stack, decoder: T5Stack, height: float = 8.0, loud: float = 3.0) -> None:
    """Fresh heads that look 1, 2, ... tokens back, in the encoder's other half as far ahead; both first layers read them by the same maps,
    and cross-attention compares like with like. So a decoder finds the place whose past is its own past, and what came behind it.

    >>> config = T5Config(width=16, heads=4, head_width=8, hidden=8)
    >>> encoder, decoder = T5Stack(config, 1), T5Stack(config, 1, decodes=True)
    >>> ready_to_copy(encoder, decoder)
    >>> [int(encoder.bias(9)[head, 4].argmax()) - 4 for head in range(4)]
    [-1, -2, 1, 2]
    """
    heads, ahead = encoder.layers[0].attend.n_heads // 2, encoder.bias.buckets // 2
    for h in range(heads):
        encoder.bias.table.weight[h + 1, h] += height
        encoder.bias.table.weight[ahead + h + 1, heads + h] += height
        decoder.bias.table.weight[h + 1, h] += height
    looked, looks = encoder.layers[0].attend, decoder.layers[0].attend
    nn.init.normal_(looked.out.weight, std=loud * looked.out.in_features**-0.5)
    looks.v.load_state_dict(looked.v.state_dict())
    looks.out.load_state_dict(looked.out.state_dict())
    for layer in decoder.layers:
        layer.cross.q.weight *= height**0.5
        layer.cross.k.load_state_dict(layer.cross.q.state_dict())
