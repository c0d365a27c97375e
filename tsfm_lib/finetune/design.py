"""What is changed in a model and how: one frozen `Design`, and the methods by name.

Every method is a point of the same space: full fine-tuning, a probe and LoRA are multi-scale fine-tuning with no further scale. The
learning rates suit models below a million parameters; the published ones (5e-6, 5e-7) belong to pretrained models of 14 to 91 million
and 100,000 windows an epoch. Each method brings three, best guess first, a factor of about two apart.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import nn

from tsfm_lib.errors import TsfmError, nearest, one_of
from tsfm_lib.finetune.scales import POOLINGS

PLACES = ("none", "shared", "own")
CHOICES = {
    "train": ("new", "head", "all"),
    "head": ("fresh", "own"),
    "adapters": PLACES,
    "lora": PLACES,
    "aggregate": ("none", "both", "c2f", "f2c", "refine"),
    "attention": ("within", "across", "aligned"),
    "supervise": ("end", "every"),
    "mixing": ("weighted loss", "mixed loss", "uniform", "stacked", "none"),
    "combine": ("quantile average", "linear pool", "sample mean"),
    "pooling": POOLINGS,
    "upsample": ("repeat", "linear"),
}
EVERY_SITE = ("q", "k", "v", "out", "up", "gate", "down")


@dataclass(frozen=True)
class Design:
    """The switches, each beside its section of the paper; the defaults are one scale and nothing new but a trained head.

    >>> Design(aggregate="bth")
    Traceback (most recent call last):
    tsfm_lib.errors.TsfmError: aggregate must be one of none, both, c2f, f2c, refine, got 'bth'; did you mean 'both'?
    """

    scales: int | None = 0  # K: scales beside the original one; None chooses by what the model knows before training
    factor: int = 2  # of one scale to the next; with 1 all scales are alike and the design is an ensemble
    pooling: str = "mean"  # of a block of `factor` steps
    # Sec. 3.2, knowledge of each scale
    train: str = "head"  # what of the model is trained: nothing, its output head, all
    head: str = "fresh"  # MOMENT: a new linear head a scale, or its own, which reconstructs
    adapters: str = "none"  # behind the input projection, before any mask token; they start as the identity
    lora: str = "none"  # low-rank pairs; B starts at zero
    sites: tuple[str, ...] = ("q", "k", "v")
    rank: int = 16
    alpha: float | int | None = None  # None: the rank, so pairs come with factor 1
    adaptive: bool = False  # AdaLoRA: ranks move to where they matter
    prompts: int = 0  # learned tokens in front; UniTS trains those it has
    # Sec. 3.3, decoupled dependencies
    attention: str = "within"  # tokens look at their own scale; across all scales; the same, with a common clock (these two: Moirai,
    #                          TimesFM, where nobody hears what ended later)
    aggregate: str = "none"  # coarse to fine, fine to coarse, both; "refine" starts each scale from where the coarser one ended
    iterated: bool = True  # an aggregator reads what its neighbour has just been told, not only what the layer said
    # Sec. 3.4, mixing
    supervise: str = "end"  # where a forecast is asked for in training; "every": behind each patch of the context (ours: causal decoders)
    mixing: str = "weighted loss"  # how the weights of the scales are found; "none": scale 0 alone is trained and forecasts
    prior: float | int = 0.0  # added to the first logit at the start; 9 with the authors' scripts on ETTh1 and ETTh2
    weight_rate: float = 1e-2  # learning rate of these logits
    combine: str = "quantile average"  # of the scales' distributions
    upsample: str = "repeat"

    def __post_init__(self):
        one_of(self, **CHOICES)
        if (self.scales is not None and self.scales < 0) or min(self.factor, self.rank) < 1 or self.prompts < 0:
            raise TsfmError(f"scales and prompts count from 0, factor and rank from 1, got {self}")
        if self.pooling == "wavelet" and self.factor > 2:
            raise TsfmError(f"the wavelet halves a series, so the factor must be 2, got {self.factor}")


class Method(NamedTuple):
    """A design, what the model starts from, and the grid of learning rates."""

    design: Design
    rates: tuple[float, ...]
    start: str = "pretrained"  # or "random"


_PAIRS = (1e-3, 2e-3, 5e-4)
METHODS: dict[str, Method] = {
    "zero-shot": Method(Design(train="new", head="own"), ()),
    "probe": Method(Design(), (2e-3, 5e-3, 1e-3)),
    "prompt": Method(Design(prompts=10), (2e-3, 5e-3, 1e-3)),
    "lora": Method(Design(lora="own"), _PAIRS),
    "adalora": Method(Design(lora="own", adaptive=True), _PAIRS),
    "full": Method(Design(train="all"), (5e-4, 1e-3, 2e-4)),
    "scratch": Method(Design(train="all"), (1e-3, 2e-3, 5e-4), "random"),
    "msft": Method(Design(scales=3, adapters="own", lora="own", aggregate="both"), _PAIRS),
}


def method(name: "str | Design | Method") -> Method:
    """A method by name; a design of one's own gets the rates of MSFT.

    >>> method("lora").design.lora, method(Design(lora="own", rank=4)).rates
    ('own', (0.001, 0.002, 0.0005))
    """
    if isinstance(name, Method):
        return name
    if isinstance(name, Design):
        return Method(name, _PAIRS)
    if name not in METHODS:
        raise TsfmError(f"a method is one of {', '.join(METHODS)}, or a Design, got {name!r}{nearest(str(name), METHODS)}")
    return METHODS[name]


def variation(name: str, **changes: object) -> Method:
    """A method with other switches.

    >>> variation("msft", scales=1).design.scales
    1
    """
    found = method(name)
    return found._replace(design=replace(found.design, **changes))


def trainable(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
