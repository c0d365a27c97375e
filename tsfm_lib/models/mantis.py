"""Mantis (V1: arXiv 2502.15637, V2: arXiv 2602.17868): an encoder of whole series for classification, trained by contrast alone.

Read beside the papers, in their order:
    token generator: the series, its differences, level and spread of each patch  -> ScalarEncoder, TokenGenerator
    transformer over patches and one class token                                  -> Block, Mantis.encode
    contrastive pretraining on random crops                                       -> Mantis.views, Mantis.loss
Both versions are those of the released code (mantis-tsfm 1.1.0); the paper pretrained on series made by CauKer is arXiv 2508.02879.
V2 keeps the tokens and changes the transformer: class token last, rotary positions with decay, RMS norms, gated feed-forward.

Where we differ from the released code:
| point                | released code | here | why |
|---|---|---|---|
| length               | the caller resizes to 512 | `embed` stretches what was observed | one contract for all encoders |
| missing values       | everything becomes NaN | bridged by straight lines; nothing observed: zeros | ragged and gappy series exist |
| sums of statistics   | float32: `float32_statistics` | float64 | small changes on a high level drowned in rounding |
| decay in V2          | two within a turned pair: `xpos_by_halves` | one per pair | scores should depend on distance only |
| one head, full width | no output projection | checkpoints get an identity there | every attention has the same parts |
| crops                | one for the batch | that, or one per series (`crop`) | per series is the stronger augmentation |
| views                | crops only | also `warp`, `jitter`, `noise`, all off unless asked for | more that should not matter |
| head                 | LayerNorm, one linear map | that, or a hidden layer (`head_hidden`) | used in pretraining only |
| convolutions         | at every step | that, or at every `stride`-th | small models spend most of their time there |
| InfoNCE              | view 1 looks for view 2 | that, or both ways (`symmetric`) | the other half is free |
| nothing observed     | - | left out of the contrast | such series are all alike |
Names in backquotes are quirks (`quirks=(...)`). Official V2 checkpoints were trained with `xpos_by_halves` and switch it on.

Shapes: B samples, V variates, T time, R rows (B x V), N patches, D width, S scales.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from tsfm_lib.errors import TsfmError, one_of, refuse_unknown
from tsfm_lib.nn.attention import Attention
from tsfm_lib.nn.feedforward import FeedForward
from tsfm_lib.nn.objectives import info_nce
from tsfm_lib.nn.patching import patch
from tsfm_lib.nn.positions import XPos, sinusoidal
from tsfm_lib.nn.resampling import crop_resize, stretch
from tsfm_lib.nn.scaling import observed, standardise
from tsfm_lib.nn.sites import HeadSite, MLPSite, attention_site

QUIRKS = {
    "xpos_by_halves": "decays of the rotary positions are laid out in halves, the pairs they belong to are interleaved",
    "float32_statistics": "means and deviations are summed in float32",
}
READOUTS = ("cls", "mean", "both")
SIZES = {  # layers, heads, width, hidden, head_width
    "0.75m": (1, 2, 256, 512, 128), "2.59m": (3, 4, 256, 512, 128), "8.10m": (6, 8, 256, 512, 128), "28.56m": (12, 16, 256, 512, 128),
    "114.14m": (12, 16, 512, 1024, 256),
}  # fmt: skip


@dataclass(frozen=True)
class MantisConfig:
    """Sizes of one Mantis; the defaults are those of the released V1 with 8 million parameters."""

    version: int = 1
    context: int = 512
    patches: int = 32  # N
    kernel: int | None = None  # of the convolutions; None: one patch, made odd (V1)
    stride: int = 1  # steps between two places of the convolutions; divides a patch
    width: int = 256
    layers: int = 6
    heads: int = 8
    head_width: int = 128
    hidden: int = 512
    dropout: float = 0.1
    scales: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4)
    scalar_width: int = 32
    scalar_epsilon: float = 1.1
    layer: int | None = None  # whose output is the embedding, counted from 0; None: the last
    readout: str = "cls"  # cls: the class token | mean: of the patches | both: side by side
    crop: str = "batch"  # batch: one crop for all series of a batch, as released | series: each its own
    crop_shares: tuple[float, float] = (0.0, 0.2)  # of a series that are cut off
    warp: float = 0.0  # depth to which time is bent, each series its own
    jitter: float = 0.0  # random gain, and random level and trend in deviations of the series
    noise: float = 0.0  # most white noise that is added, in deviations of the series
    head_hidden: int | None = None  # width of a hidden layer in the pretraining head
    temperature: float = 0.1
    symmetric: bool = False
    quirks: tuple[str, ...] = ()

    def __post_init__(self):
        if self.version not in (1, 2):
            raise ValueError(f"version must be 1 or 2, got {self.version}")
        if self.context % self.patches or self.context < 2 * self.patches:
            raise ValueError(f"{self.patches} patches do not divide a context of {self.context} into at least two points each")
        if self.kernel is not None and self.kernel % 2 == 0:
            raise ValueError(f"a convolution that keeps the length has an odd kernel, got {self.kernel}")
        if self.version == 2 and (self.width % self.heads or self.rotary_width % 2 or self.rotary_width > self.head_width):
            raise ValueError(f"version 2 turns width / heads channels, an even number up to head_width={self.head_width}, "
                             f"got {self.width} / {self.heads}")  # fmt: skip
        if self.layer is not None and not 0 <= self.layer < self.layers:
            raise ValueError(f"layer must lie in 0..{self.layers - 1}, got {self.layer}")
        if self.stride < 1 or (self.context // self.patches) % self.stride:
            raise ValueError(f"stride must divide a patch of {self.context // self.patches} points, got {self.stride}")
        if not 0 <= self.warp < 1 or self.jitter < 0 or self.noise < 0:
            raise ValueError(f"warp must lie in 0..1, jitter and noise be 0 or more, got {self.warp}, {self.jitter} and {self.noise}")
        if not 0 <= self.crop_shares[0] <= self.crop_shares[1] < 1:
            raise ValueError(f"crop_shares must rise within 0..1, got {self.crop_shares}")
        one_of(self, readout=READOUTS, crop=("batch", "series"))
        refuse_unknown(self.quirks, QUIRKS)

    @property
    def rotary_width(self) -> int:
        return self.width // self.heads

    @property
    def kernel_size(self) -> int:
        return self.kernel or self.context // self.patches // 2 * 2 + 1

    @classmethod
    def size(cls, name: str = "8.10m") -> "MantisConfig":
        """The five sizes of arXiv 2508.02879: 0.75m, 2.59m, 8.10m, 28.56m, 114.14m."""
        if name not in SIZES:
            raise TsfmError(f"no size {name!r} of Mantis, there are {', '.join(SIZES)}")
        layers, heads, width, hidden, head_width = SIZES[name]
        return cls(layers=layers, heads=heads, width=width, hidden=hidden, head_width=head_width)

    @classmethod
    def v2(cls) -> "MantisConfig":
        """The released V2; its authors read out layer 2, class token and patches together."""
        return cls(version=2, kernel=41, head_width=32)

    @classmethod
    def tiny(cls) -> "MantisConfig":
        return cls(context=64, patches=8, width=16, layers=2, heads=2, head_width=8, hidden=32, scalar_width=4, dropout=0.0)


# ---- Token generator ----------------------------------------------------------------------------------------------------------------


class ScalarEncoder(nn.Module):
    """A number of any size as a vector (NuTime, arXiv 2310.07402): LayerNorm(s w_k + k b_k) per scale k, scales near |s| weigh more."""

    def __init__(self, config: MantisConfig):
        super().__init__()
        self.epsilon, shape = config.scalar_epsilon, (len(config.scales), config.scalar_width)
        self.weight, self.bias = nn.Parameter(torch.rand(shape)), nn.Parameter(torch.rand(shape))
        self.gain, self.shift = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))
        self.register_buffer("scales", torch.tensor(config.scales))  # decide the weights; checkpoints hold them
        self.register_buffer("k", torch.tensor(config.scales)[:, None], persistent=False)

    def forward(self, s: Float[Tensor, "R N"]) -> Float[Tensor, "R N d"]:
        share = (1 / torch.log(s[..., None].abs() / self.scales + self.epsilon)).abs()  # R N S
        share = share / share.sum(-1, keepdim=True)
        z = s[..., None, None] * self.weight + self.k * self.bias  # R N S d
        z = F.layer_norm(z, z.shape[-1:], eps=1e-15) * self.gain + self.shift
        return (share[..., None, :] @ z).squeeze(-2)


class TokenGenerator(nn.Module):
    """Per patch: its mean through two convolutions (over the differences and over the series, both z-scored), its level and its spread."""

    def __init__(self, config: MantisConfig):
        super().__init__()
        c = config
        self.patches, self.stride = c.patches, c.stride
        self.sums = torch.float32 if "float32_statistics" in c.quirks else torch.float64
        self.convolutions = nn.ModuleList(nn.Linear(c.kernel_size, c.width) for _ in range(2))  # over every window: twice as fast on a CPU
        self.norms = nn.ModuleList(nn.LayerNorm(c.width) for _ in range(2))
        self.scalars = nn.ModuleList(ScalarEncoder(c) for _ in range(2))
        self.out = nn.Linear(2 * c.width + 2 * c.scalar_width, c.width)
        self.out_norm = nn.LayerNorm(c.width, eps=1e-15)

    def forward(self, x: Float[Tensor, "R T"]) -> Float[Tensor, "R N D"]:
        size, left = divmod(x.shape[-1], self.patches)
        if left or size < 2 or size % self.stride:
            raise TsfmError(f"{x.shape[-1]} points do not divide into {self.patches} patches of at least two: use `embed`, which stretches")
        parts = []
        with torch.autocast(x.device.type, enabled=False):  # an epsilon of 1e-15 asks for float32
            for series, convolution, norm in zip((F.pad(x.diff(dim=-1), (0, 1)), x), self.convolutions, self.norms):
                z, _ = standardise(series, ddof=1, soften=1e-5, dtype=self.sums)
                around = convolution.in_features // 2
                z = F.pad(z, (around, around + 1 - self.stride))  # behind the last place that is read there is nothing to see
                windows = patch(z, convolution.in_features, stride=self.stride)  # R T/s K
                h = norm(convolution(windows))  # R T/s D
                parts.append(rearrange(h, "R (N p) D -> R N p D", N=self.patches).mean(2))
            with torch.no_grad():  # levels are read off; the spread of a constant patch has no slope
                deviation, mean = torch.std_mean(patch(x, size), dim=-1)  # R N
            parts += [encode(s) for encode, s in zip(self.scalars, (mean, deviation))]
            return self.out_norm(self.out(torch.cat(parts, dim=-1)))


# ---- Transformer --------------------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """Pre-norm layer. V1: LayerNorm, GELU, no biases in q, k, v. V2: RMS norm, SwiGLU, biases, rotary positions with decay."""

    def __init__(self, config: MantisConfig):
        super().__init__()
        c, second = config, config.version == 2
        norm = lambda: nn.RMSNorm(c.width, eps=1e-8) if second else nn.LayerNorm(c.width)
        self.norm_attention, self.norm_mlp = norm(), norm()
        self.attention = Attention(c.width, c.heads, c.head_width, qkv_bias=second, out_bias=True, dropout=c.dropout)
        self.rotary = XPos(c.rotary_width, halves="xpos_by_halves" in c.quirks) if second else None
        self.mlp = FeedForward(c.width, c.hidden, "silu" if second else "gelu", gated=second, dropout=0.0 if second else c.dropout)
        self.drop_attention, self.drop_mlp = nn.Dropout(0.0 if second else c.dropout), nn.Dropout(c.dropout)

    def forward(self, h: Float[Tensor, "R M D"]) -> Float[Tensor, "R M D"]:
        h = h + self.drop_attention(self.attention(self.norm_attention(h), rotary=self.rotary))
        return h + self.drop_mlp(self.mlp(self.norm_mlp(h)))


class Mantis(nn.Module):
    """One vector per series: `embed`. Variates are embedded alone and laid side by side."""

    causal = False

    def __init__(self, config: MantisConfig):
        super().__init__()
        self.config = c = config
        self.tokens = TokenGenerator(c)
        self.cls = nn.Parameter(torch.randn(c.width))
        self.register_buffer("positions", sinusoidal(c.patches + 1, c.width) if c.version == 1 else None)
        self.dropout = nn.Dropout(c.dropout if c.version == 1 else 0.0)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.layers))
        wide = c.width * (2 if c.readout == "both" else 1)
        self.head = nn.Sequential(nn.LayerNorm(wide), nn.Linear(wide, c.head_hidden or wide))  # pretraining only
        if c.head_hidden:
            self.head.extend([nn.GELU(), nn.Linear(c.head_hidden, wide)])

    def encode(self, tokens: Float[Tensor, "R N D"], layer: int | None = None) -> tuple[Float[Tensor, "R D"], Float[Tensor, "R N D"]]:
        """Class token and patch tokens behind block `layer` (None: the last)."""
        first = self.config.version == 1
        cls = self.cls.expand(len(tokens), 1, -1)
        h = torch.cat([cls, tokens] if first else [tokens, cls], dim=1)  # R N+1 D
        if self.positions is not None:
            h = self.dropout(h + self.positions)
        for block in self.blocks[: len(self.blocks) if layer is None else layer + 1]:
            h = block(h)
        return (h[:, 0], h[:, 1:]) if first else (h[:, -1], h[:, :-1])

    def forward(self, x: Float[Tensor, "R T"], layer: int | None = None, readout: str | None = None) -> Float[Tensor, "R E"]:
        """Embeddings of complete series; T is any multiple of the number of patches."""
        cls, patches = self.encode(self.tokens(x), layer)
        parts = {"cls": [cls], "mean": [patches.mean(1)], "both": [cls, patches.mean(1)]}[readout or self.config.readout]
        return torch.cat(parts, dim=-1)

    @torch.no_grad()
    def embed(self, x: Float[Tensor, "B V T"], layer: int | None = None, readout: str | None = None) -> Float[Tensor, "B E"]:
        """`layer` (from 0) and `readout` (cls, mean, both) replace those of the config; E is V times the width, or twice that for both."""
        if readout is not None and readout not in READOUTS:
            raise TsfmError(f"readout must be one of {', '.join(READOUTS)}, got {readout!r}")
        if layer is not None and not 0 <= layer < self.config.layers:
            raise TsfmError(f"layer must lie in 0..{self.config.layers - 1}, got {layer}")
        rows = rearrange(stretch(x.to(self.cls.dtype), self.config.context), "B V T -> (B V) T")
        embedded = self(rows, self.config.layer if layer is None else layer, readout)
        return rearrange(embedded, "(B V) E -> B (V E)", B=len(x))

    # -- training --

    def project(self, x: Float[Tensor, "R T"]) -> Float[Tensor, "R E"]:
        """What the contrast sees: the last layer through the head."""
        return self.head(self(x))

    def views(self, rows: Float[Tensor, "R T"], generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        return self.view(rows, generator), self.view(rows, generator)

    def view(self, rows: Float[Tensor, "R T"], generator: torch.Generator | None = None) -> Float[Tensor, "R T"]:
        """One random crop; bent, moved and roughened where the config says so."""
        c = self.config
        normal = lambda *shape: torch.randn(*shape, device=rows.device, generator=generator)
        seen = crop_resize(rows, generator, c.crop_shares, shared=c.crop == "batch", warp=c.warp)
        deviation = seen.std(-1, keepdim=True)
        if c.jitter:
            ramp = torch.linspace(-1, 1, seen.shape[-1], device=rows.device)
            gain, level, trend = (c.jitter * normal(3, len(rows), 1)).unbind(0)
            seen = seen * gain.exp() + deviation * (level + 0.6 * trend * ramp)
        if c.noise:
            strength = c.noise * torch.rand(len(rows), 1, device=rows.device, generator=generator)
            seen = seen + deviation * strength * normal(*seen.shape)
        return seen

    def contrast(self, one: Float[Tensor, "R T"], other: Float[Tensor, "R T"]) -> Float[Tensor, ""]:
        """InfoNCE between two views of the same series, whoever made them."""
        return info_nce(self.project(one), self.project(other), self.config.temperature, self.config.symmetric)

    def loss(self, batch: Float[Tensor, "B V T"], generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """Two random crops of the last `context` steps of every series must find each other."""
        batch = batch[..., -self.config.context :]
        rows = rearrange(stretch(batch, self.config.context), "B V T -> (B V) T")
        rows = rows[rearrange(observed(batch).any(-1), "B V -> (B V)")]
        if len(rows) < 2:
            raise TsfmError(f"a contrast needs at least two series with observations, got {len(rows)}: make the batch larger")
        return self.contrast(*self.views(rows, generator))

    def sites(self) -> list[HeadSite | MLPSite]:
        found: list[HeadSite | MLPSite] = []
        for i, block in enumerate(self.blocks):
            found += [attention_site("encoder", i, "self", block.attention, block.norm_attention), MLPSite("encoder", i, block.mlp)]
        return found
