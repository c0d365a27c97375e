"""Every model of the register as one would first write it with what `torch.nn` has: the same tokens, widths, layers and objective.

These are the references of speed, not of accuracy. Each says what it leaves out; all of them leave out missing values (no masks of what
was observed, no NaN), statistics in float64 and hooks on attention patterns, so each has *less* to do than the model beside it.
`nn.MultiheadAttention` and `nn.TransformerEncoderLayer` have torch's own fast paths. A gated feed-forward of hidden width F is matched by
a plain one of 3 F / 2: as many weights.
"""

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, LogNormal, MixtureSameFamily, NegativeBinomial, Normal, StudentT
from torch.nn import functional as F

CONTEXT, HORIZON, WIDTH, HEADS, HIDDEN, LAYERS = 512, 64, 128, 4, 256, 4
LEVELS = torch.arange(1, 10) / 10


def encoder(layers: int = LAYERS, hidden: int = HIDDEN) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, hidden, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False)


def encoder_decoder() -> nn.Transformer:
    decoder = nn.TransformerDecoderLayer(WIDTH, HEADS, HIDDEN, dropout=0.0, batch_first=True, norm_first=True)
    return nn.Transformer(WIDTH, HEADS, custom_encoder=encoder(LAYERS // 2), batch_first=True,
                          custom_decoder=nn.TransformerDecoder(decoder, LAYERS // 2, norm=nn.LayerNorm(WIDTH)))  # fmt: skip


def causal(n: int) -> Tensor:
    return nn.Transformer.generate_square_subsequent_mask(n)


def units(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the last axis."""
    return x.mean(-1, keepdim=True), x.std(-1, keepdim=True, correction=0) + 1e-5


def window(batch: Tensor, horizon: int = HORIZON) -> tuple[Tensor, Tensor]:
    """Context and future of every variate as a row, in units of the context."""
    rows = batch.flatten(0, 1)
    loc, scale = units(rows[:, :-horizon])
    z = (rows - loc) / scale
    return z[:, :-horizon], z[:, -horizon:]


def quantile_loss(forecast: Tensor, target: Tensor) -> Tensor:
    error = target[..., None] - forecast
    return 2 * torch.maximum(LEVELS * error, (LEVELS - 1) * error).mean()


def table(n: int) -> nn.Parameter:
    return nn.Parameter(0.02 * torch.randn(n, WIDTH))


class Residual(nn.Module):
    def __init__(self, inputs: int, hidden: int, outputs: int, activation: nn.Module):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(inputs, hidden), activation, nn.Linear(hidden, outputs))
        self.skip = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x) + self.skip(x)


class DLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.smooth = nn.AvgPool1d(25, stride=1, padding=12)
        self.trend, self.rest = (nn.Linear(CONTEXT, HORIZON * 9) for _ in range(2))

    def loss(self, batch: Tensor) -> Tensor:
        z, future = window(batch)
        trend = self.smooth(z)
        return quantile_loss((self.trend(trend) + self.rest(z - trend)).unflatten(-1, (HORIZON, 9)), future)


class PatchTST(nn.Module):
    def __init__(self):
        super().__init__()
        self.read, self.encoder, self.positions = nn.Linear(16, WIDTH), encoder(), table(63)
        self.head = nn.Linear(63 * WIDTH, HORIZON * 9)

    def loss(self, batch: Tensor) -> Tensor:
        z, future = window(batch)
        h = self.encoder(self.read(z.unfold(1, 16, 8)) + self.positions)
        return quantile_loss(self.head(h.flatten(1)).unflatten(-1, (HORIZON, 9)), future)


class ITransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.read, self.encoder, self.head = nn.Linear(CONTEXT, WIDTH), encoder(), nn.Linear(WIDTH, HORIZON * 9)

    def loss(self, batch: Tensor) -> Tensor:
        z, future = window(batch)
        h = self.encoder(self.read(z).unflatten(0, batch.shape[:2]))
        return quantile_loss(self.head(h).flatten(0, 1).unflatten(-1, (HORIZON, 9)), future)


class Moment(nn.Module):
    """A learned bias of the distances as in T5, one table instead of buckets."""

    def __init__(self):
        super().__init__()
        self.read, self.encoder, self.head = nn.Linear(8, WIDTH, bias=False), encoder(hidden=3 * HIDDEN // 2), nn.Linear(WIDTH, 8)
        self.positions, self.hidden = table(CONTEXT // 8), nn.Parameter(torch.zeros(WIDTH))
        self.bias = nn.Parameter(torch.zeros(HEADS, 64, 64))

    def loss(self, batch: Tensor) -> Tensor:
        rows = batch.flatten(0, 1)[:, -CONTEXT:]
        loc, scale = units(rows)
        patches = ((rows - loc) / scale).unflatten(1, (-1, 8))
        hidden = torch.rand(patches.shape[:2]) < 0.3
        h = torch.where(hidden[..., None], self.hidden, self.read(patches)) + self.positions
        out = self.head(self.encoder(h, mask=self.bias.repeat(len(h), 1, 1)))
        return (out - patches)[hidden].square().mean()


class Moirai(nn.Module):
    """One patch size; learned positions and variates instead of rotary ones and biases."""

    def __init__(self):
        super().__init__()
        self.read, self.encoder, self.head = nn.Linear(32, WIDTH), encoder(hidden=4 * WIDTH), nn.Linear(WIDTH, 32 * 12)
        self.positions, self.variates, self.hidden = table(18), table(4), nn.Parameter(torch.zeros(WIDTH))

    def loss(self, batch: Tensor) -> Tensor:
        n = batch.shape[-1] // 32
        ahead = round(0.3 * n)
        loc, scale = units(batch[..., : -32 * ahead])
        patches = ((batch - loc) / scale).unflatten(-1, (n, 32))  # B V N P
        h = torch.cat([self.read(patches[:, :, :-ahead]), self.hidden.expand(*patches.shape[:2], ahead, -1)], dim=2)
        h = self.encoder((h + self.positions + self.variates[:, None]).flatten(1, 2)).unflatten(1, patches.shape[1:3])
        p = self.head(h[:, :, -ahead:]).unflatten(-1, (32, 12)).unbind(-1)
        y, positive = patches[:, :, -ahead:], F.softplus
        whole, above = y.clamp_min(0).round(), y.clamp_min(1e-3)
        of = (StudentT(2 + positive(p[4]), p[5], positive(p[6]) + 1e-3).log_prob(y), Normal(p[7], 1e-3).log_prob(y),
              NegativeBinomial(positive(p[8]) + 1e-3, logits=p[9], validate_args=False).log_prob(whole),
              LogNormal(p[10], positive(p[11]) + 1e-3).log_prob(above))  # fmt: skip
        return -torch.logsumexp(torch.stack(p[:4]).log_softmax(0) + torch.stack(of), dim=0).mean()


class UniTSLayer(nn.Module):
    """Attention over time, attention over variates, a convolution with a map along the tokens."""

    def __init__(self, tokens: int, hidden: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))
        self.gates = nn.ModuleList(nn.Linear(WIDTH, 1) for _ in range(3))
        self.time, self.variates = (nn.MultiheadAttention(WIDTH, HEADS, batch_first=True) for _ in range(2))
        self.up, self.down, self.mix = nn.Conv1d(WIDTH, hidden, 3, padding=1), nn.Linear(hidden, WIDTH), nn.Linear(tokens, tokens)

    def forward(self, h: Tensor, variates: int) -> Tensor:  # R N D
        gated = lambda i, y: torch.sigmoid(self.gates[i](y)) * y
        x = self.norms[0](h)
        h = h + gated(0, self.time(x, x, x, need_weights=False)[0])
        x = self.norms[1](h).unflatten(0, (-1, variates)).transpose(1, 2).flatten(0, 1)  # (B N) V D
        x = self.variates(x, x, x, need_weights=False)[0].unflatten(0, (-1, h.shape[1])).transpose(1, 2).flatten(0, 1)
        h = h + gated(1, x)
        one, other = self.up(self.norms[2](h).mT).chunk(2, dim=1)
        return h + gated(2, self.down(F.gelu(torch.cat([self.mix(one), other], dim=1)).mT))


class UniTS(nn.Module):
    """Every token looks at the variates for itself, where UniTS has one pattern for all."""

    def __init__(self):
        super().__init__()
        n = (CONTEXT + HORIZON) // 16
        self.read, self.positions, self.prompts, self.hidden = nn.Linear(16, WIDTH, bias=False), table(n), table(10), table(1)
        self.layers = nn.ModuleList(UniTSLayer(n + 10, HIDDEN) for _ in range(LAYERS))
        mlp = (nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH))
        self.head = nn.Sequential(nn.Linear(WIDTH, WIDTH), *mlp, nn.Linear(WIDTH, 16))

    def loss(self, batch: Tensor) -> Tensor:
        z, future = window(batch)
        ahead = HORIZON // 16
        h = torch.cat([self.read(z.unflatten(1, (-1, 16))), self.hidden.expand(len(z), ahead, -1)], dim=1) + self.positions
        h = torch.cat([self.prompts.expand(len(z), -1, -1), h], dim=1)
        for layer in self.layers:
            h = layer(h, batch.shape[1])
        return (self.head(h[:, -ahead:]).flatten(1) - future).square().mean()


class TimesFM(nn.Module):
    """One norm in front of each part instead of two around it; learned positions; one scale of the context."""

    def __init__(self):
        super().__init__()
        self.read, self.head = Residual(32, WIDTH, WIDTH, nn.SiLU()), Residual(WIDTH, WIDTH, HORIZON * 9, nn.SiLU())
        self.encoder, self.positions = encoder(), table(16)

    def loss(self, batch: Tensor) -> Tensor:
        z, future = window(batch)
        n = CONTEXT // 32
        h = self.encoder(self.read(z.unflatten(1, (n, 32))) + self.positions, mask=causal(n), is_causal=True)
        ends = torch.rand(len(z), n).argsort(1)[:, :8]  # trained at 8 ends, as ours
        after = torch.cat([z, future], dim=1).unfold(1, HORIZON, 32)[:, 1:]  # R N P
        pick = lambda t: t.gather(1, ends[..., None].expand(-1, -1, t.shape[-1]))
        return quantile_loss(self.head(pick(h)).unflatten(-1, (HORIZON, 9)), pick(after))


class Toto(nn.Module):
    """Three layers along time, one across variates; learned positions."""

    def __init__(self):
        super().__init__()
        self.read, self.positions = nn.Linear(32, WIDTH), table(17)
        self.time, self.space = encoder(3, 3 * HIDDEN // 2), encoder(1, 3 * HIDDEN // 2)
        self.steps, self.head = nn.Linear(WIDTH, 32 * WIDTH), nn.Linear(WIDTH, 8 * 4)

    def loss(self, batch: Tensor) -> Tensor:
        steps = torch.arange(1, batch.shape[-1] + 1)
        loc = batch.cumsum(-1) / steps
        scale = ((batch - loc).square().cumsum(-1) / steps).sqrt() + 1e-3  # of the steps so far
        patches, loc, scale = (t.unflatten(-1, (-1, 32)) for t in (batch, loc, scale))
        loc, scale = loc[..., -1:], scale[..., -1:]
        z = (patches - loc) / scale
        h = (self.read(z[:, :, :-1]) + self.positions).flatten(0, 1)
        h = self.time(h, mask=causal(h.shape[1]), is_causal=True).unflatten(0, batch.shape[:2])
        h = self.space(h.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(batch), -1)).transpose(1, 2)
        p = self.head(self.steps(h).unflatten(-1, (32, WIDTH))).unflatten(-1, (8, 4)).unbind(-1)
        mixture = MixtureSameFamily(Categorical(logits=p[0]), StudentT(2 + F.softplus(p[1]), p[2], F.softplus(p[3]) + 1e-3))
        return -mixture.log_prob(((patches[:, :, 1:] - loc[:, :, :-1]) / scale[:, :, :-1]).clamp(-100, 100)).mean()


class Experts(nn.Module):
    """One shared expert; of eight others two for every series, in a loop over those that somebody chose. No balance."""

    def __init__(self):
        super().__init__()
        make = lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
        self.shared, self.private, self.router = make(), nn.ModuleList(make() for _ in range(8)), nn.Linear(WIDTH, 8, bias=False)

    def forward(self, h: Tensor) -> Tensor:  # R N D
        gates, chosen = torch.sigmoid(self.router(h)).mean(1).topk(2)  # R 2
        gates, extra = gates / gates.sum(1, keepdim=True), torch.zeros_like(h)
        for e, expert in enumerate(self.private):
            rows, place = (chosen == e).nonzero(as_tuple=True)
            if len(rows):
                extra = extra.index_add(0, rows, gates[rows, place, None, None] * expert(h[rows]))
        return self.shared(h) + extra


class TimeTrackerLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norms, self.experts = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2)), Experts()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, bias=False)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        x = self.norms[0](h)
        h = h + self.attention(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)[0]
        return h + self.experts(self.norms[1](h))


class TimeTracker(nn.Module):
    """Learned positions instead of rotary ones."""

    def __init__(self):
        super().__init__()
        self.read, self.positions = nn.Linear(32, WIDTH), table(16)
        self.layers = nn.ModuleList(TimeTrackerLayer() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 32)

    def loss(self, batch: Tensor) -> Tensor:
        z, future = window(batch[..., -CONTEXT - 32 :], 32)
        h = self.read(z.unflatten(1, (-1, 32))) + self.positions
        mask = causal(h.shape[1])
        for layer in self.layers:
            h = layer(h, mask)
        return (self.head(self.norm(h)) - torch.cat([z[:, 32:], future], dim=1).unflatten(1, (-1, 32))).square().mean()


class Kairos(nn.Module):
    """All three sizes read everywhere and mixed densely by a router, on tokens of the smallest size; learned positions."""

    def __init__(self):
        super().__init__()
        self.read, self.out = nn.ModuleList(nn.Linear(p, HIDDEN + WIDTH) for p in (128, 64, 32)), nn.Linear(HIDDEN, WIDTH)
        self.router, self.positions, self.start = nn.Linear(128, 3), table(16), table(2)
        self.net, self.head = encoder_decoder(), Residual(WIDTH, HIDDEN, HORIZON // 2 * 9, nn.ReLU())

    def loss(self, batch: Tensor) -> Tensor:
        z, future = window(batch)
        shares = self.router(z.unflatten(1, (-1, 128))).softmax(-1).repeat_interleave(4, dim=1)  # R N 3
        read = [linear(z.unflatten(1, (-1, p))).repeat_interleave(p // 32, dim=1) for linear, p in zip(self.read, (128, 64, 32))]
        hidden, skip = (shares[..., None, :] * torch.stack(read, dim=-1)).sum(-1).split([HIDDEN, WIDTH], dim=-1)
        out = self.net(self.out(F.relu(hidden)) + skip + self.positions, self.start.expand(len(z), -1, -1))
        return quantile_loss(self.head(out).unflatten(-1, (-1, 9)).flatten(1, 2), future)


class ChronosBolt(nn.Module):
    """A learned bias of the distances in the encoder, one table instead of buckets."""

    def __init__(self):
        super().__init__()
        self.read, self.head = Residual(16, HIDDEN, WIDTH, nn.ReLU()), Residual(WIDTH, HIDDEN, HORIZON * 9, nn.ReLU())
        self.reg, self.start, self.bias = table(1), table(1), nn.Parameter(torch.zeros(HEADS, 33, 33))
        self.net = encoder_decoder()

    def loss(self, batch: Tensor) -> Tensor:
        z, future = window(batch)
        h = torch.cat([self.read(z.unflatten(1, (-1, 16))), self.reg.expand(len(z), -1, -1)], dim=1)
        out = self.net(h, self.start.expand(len(h), -1, -1), src_mask=self.bias.repeat(len(h), 1, 1))
        return quantile_loss(self.head(out[:, 0]).unflatten(-1, (HORIZON, 9)), future)


class ChronosT5(nn.Module):
    """Tokens of single steps, learned positions, one embedding for reading and saying."""

    def __init__(self):
        super().__init__()
        self.words, self.net = nn.Embedding(1024, WIDTH), encoder_decoder()
        self.past, self.ahead = table(257), table(HORIZON + 1)
        self.register_buffer("edges", torch.linspace(-15, 15, 1020))

    def loss(self, batch: Tensor) -> Tensor:
        rows = batch.flatten(0, 1)
        scale = rows[:, -256 - HORIZON : -HORIZON].abs().mean(1, keepdim=True)
        ids = F.pad(torch.bucketize(rows / scale, self.edges) + 2, (0, 1), value=1)
        past, labels = ids[:, -257 - HORIZON : -1 - HORIZON], ids[:, -1 - HORIZON :]
        past = F.pad(past, (0, 1), value=1)
        said = self.words(F.pad(labels, (1, -1), value=0)) + self.ahead
        out = self.net(self.words(past) + self.past, said, tgt_mask=causal(HORIZON + 1), tgt_is_causal=True)
        return F.cross_entropy(F.linear(out * WIDTH**-0.5, self.words.weight).mT, labels)


class Mantis(nn.Module):
    """Level and spread of a patch by one linear map instead of nine scales; no positions table to load."""

    def __init__(self):
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(1, WIDTH, 17, padding=8) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.scalars, self.out, self.out_norm = nn.Linear(2, 64), nn.Linear(2 * WIDTH + 64, WIDTH), nn.LayerNorm(WIDTH)
        self.cls, self.positions, self.encoder = table(1), table(33), encoder()
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH))

    def embed(self, x: Tensor) -> Tensor:
        parts = []
        for series, convolution, norm in zip((F.pad(x.diff(dim=1), (0, 1)), x), self.convolutions, self.norms):
            loc, scale = units(series)
            parts.append(norm(convolution(((series - loc) / scale)[:, None]).mT).unflatten(1, (32, -1)).mean(2))
        patches = x.unflatten(1, (32, -1))
        parts.append(self.scalars(torch.stack([patches.mean(2), patches.std(2)], dim=-1)))
        h = torch.cat([self.cls.expand(len(x), -1, -1), self.out_norm(self.out(torch.cat(parts, dim=-1)))], dim=1)
        return self.head(self.encoder(h + self.positions)[:, 0])

    def view(self, rows: Tensor) -> Tensor:
        kept = CONTEXT - int(0.2 * CONTEXT * torch.rand(()))
        start = int((CONTEXT - kept + 1) * torch.rand(()))
        return F.interpolate(rows[:, None, start : start + kept], CONTEXT, mode="linear")[:, 0]

    def loss(self, batch: Tensor) -> Tensor:
        rows = batch.flatten(0, 1)[:, -CONTEXT:]
        one, other = (F.normalize(self.embed(self.view(rows)), dim=1) for _ in range(2))
        return F.cross_entropy(one @ other.T / 0.1, torch.arange(len(rows)))


