"""The two kinds of MLP in time series transformers.

FeedForward   inside the blocks: T5 (relu, or gated with tanh-gelu), Mantis (gelu), Toto, Moirai and TimesFM (silu, gated or not)
ResidualMLP   at the borders, from patches to tokens and from tokens to forecasts: TimesFM, Chronos-Bolt, Kairos, Mantis' relatives
"""

from collections.abc import Callable
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from tsfm_lib.nn.lora import Delta, adapted

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
}


def activation_named(name: str) -> Callable[[Tensor], Tensor]:
    """
    >>> import torch
    >>> activation_named("relu")(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]


class FeedForward(nn.Module):
    """down(act(up x)), or down(act(gate x) * up x) when gated; dropout behind the activation.

    >>> FeedForward(4, 16, "silu", gated=True, bias=False)
    FeedForward(
      (up): Linear(in_features=4, out_features=16, bias=False)
      (gate): Linear(in_features=4, out_features=16, bias=False)
      (down): Linear(in_features=16, out_features=4, bias=False)
    )
    """

    def __init__(self, width: int, hidden: int, activation: str = "relu", gated: bool = False, bias: bool = True, dropout: float = 0.0):
        super().__init__()
        self.activation, self.dropout = activation_named(activation), dropout
        self.up = nn.Linear(width, hidden, bias=bias)
        self.gate = nn.Linear(width, hidden, bias=bias) if gated else None
        self.down = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Float[Tensor, "... D"], delta: Delta | None = None) -> Float[Tensor, "... D"]:
        delta = delta or {}
        h = adapted(self.up, x, delta.get("up"))
        h = self.activation(h) if self.gate is None else self.activation(adapted(self.gate, x, delta.get("gate"))) * h
        return adapted(self.down, F.dropout(h, self.dropout, self.training), delta.get("down"))


class ResidualMLP(nn.Module):
    """out(act(hidden x)) + skip x: an MLP that starts out next to a linear map."""

    def __init__(self, inputs: int, hidden: int, outputs: int, activation: str = "relu", bias: bool = True, dropout: float = 0.0):
        super().__init__()
        self.activation, self.dropout = activation_named(activation), dropout
        self.hidden = nn.Linear(inputs, hidden, bias=bias)
        self.out = nn.Linear(hidden, outputs, bias=bias)
        self.skip = nn.Linear(inputs, outputs, bias=bias)

    def forward(self, x: Float[Tensor, "... I"]) -> Float[Tensor, "... O"]:
        return F.dropout(self.out(self.activation(self.hidden(x))), self.dropout, self.training) + self.skip(x)
