"""What an interpreter needs to know about a model, and all it may know: where the heads are and where the MLPs are.

Every attention model offers `sites() -> list[HeadSite | MLPSite]`. Ablation, capture, lens, stable rank and pruning are written
against this list once. A layer is all sites with its stack and number: in an encoder-decoder self- and cross-attention together.
"""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from tsfm_lib.nn.attention import Attention, Tap

KINDS = ("self", "cross", "time", "space", "variate")


@dataclass(frozen=True)
class HeadSite:
    """The heads of one attention. The input of `out_proj` is the heads side by side, B N (H K): take one out *there*."""

    stack: str  # encoder, decoder, ...
    layer: int
    kind: str  # one of KINDS
    n_heads: int
    head_dim: int
    out_proj: nn.Linear
    qk: Callable[[], tuple[Tensor, Tensor]]  # weights per head, [H K D] of the queries and [H K M] of the keys
    pattern: Tap  # hook it and the attention pattern B H N M passes by
    fold: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda q, k: (q, k)  # such weights with the norms around them multiplied in

    @property
    def name(self) -> str:
        return f"{self.stack}.{self.layer}.{self.kind}"


@dataclass(frozen=True)
class MLPSite:
    """One feed-forward part; zeroing the output of `module` takes it out."""

    stack: str
    layer: int
    module: nn.Module

    @property
    def name(self) -> str:
        return f"{self.stack}.{self.layer}.mlp"


def attention_site(stack: str, layer: int, kind: str, attention: Attention, norm: nn.Module | None = None,
                   memory_norm: nn.Module | None = None, gains: Callable[[], tuple[Tensor, Tensor]] | None = None) -> HeadSite:
    """The site of an `nn.Attention`. `norm` stands in front of it, `memory_norm` in front of its keys if that is another one; `gains` are
    factors [K] of queries and keys that a model applies by itself, without them those of the attention's own norms.

    >>> site = attention_site("encoder", 0, "self", Attention(width=8, n_heads=2))
    >>> site.name, [tuple(w.shape) for w in site.qk()]
    ('encoder.0.self', [(2, 4, 8), (2, 4, 8)])
    """
    if kind not in KINDS:
        raise ValueError(f"kind of attention must be one of {KINDS}, got {kind!r}")

    # plain types: annotations of inner functions are made at every call
    def qk() -> tuple[Tensor, Tensor]:  # H K D, H K M
        shape = (attention.n_heads, attention.head_dim)
        return attention.q.weight.unflatten(0, shape), attention.k.weight.unflatten(0, shape)

    def fold(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        q, k = _through(norm, q), _through(memory_norm or norm, k)
        own = (getattr(part, "weight", None) for part in (attention.q_norm, attention.k_norm))
        q_gain, k_gain = own if gains is None else gains()
        return q if q_gain is None else q * q_gain[:, None], k if k_gain is None else k * k_gain[:, None]

    return HeadSite(stack, layer, kind, attention.n_heads, attention.head_dim, attention.out, qk, attention.pattern, fold)


def _through(norm: nn.Module | None, weight: Float[Tensor, "H K D"]) -> Float[Tensor, "H K D"]:
    """Weights of a linear map that say what the map and the norm in front of it do together, but for length and shift."""
    if norm is None or getattr(norm, "weight", None) is None:
        return weight
    weight = weight * norm.weight
    return weight - weight.mean(-1, keepdim=True) if isinstance(norm, nn.LayerNorm) else weight
