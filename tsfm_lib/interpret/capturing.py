"""What passes by inside a model while a `with` block lasts, at named sites, in a bounded amount of memory.

    with interpret.capture(model, "patterns", "residuals", sites=["decoder"], last_query=True) as seen:
        model.predict_quantiles(context, 24, [0.5])
    seen.patterns["decoder.3.cross"]          # B H 1 M

patterns    attention, B H N M          heads       what each head says, before the heads are mixed, B N H K
entropies   of the patterns, in nats, B H N (the patterns themselves are not kept)
mlps        what MLPs return, B N D     residuals   the stream behind each layer ("decoder.3") and in front of a stack ("decoder.in"), B N D
Rows are those of the model (mostly batch x variates). Calls that follow one another are laid one behind another along the rows. Only
sites whose patterns are asked for compute their softmax openly; the rest of the model keeps its fused attention.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tsfm_lib.errors import TsfmError
from tsfm_lib.interpret import plans
from tsfm_lib.nn.sites import HeadSite

Run = Callable[[Tensor], Any]  # series [B V T] through a model; rows of what comes out are rows of the series
KINDS = ("patterns", "heads", "entropies", "mlps", "residuals")
LIMIT = 2**29  # bytes


def entropy(pattern: Float[Tensor, "*B M"]) -> Float[Tensor, "*B"]:
    """In nats.

    >>> entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    tensor([0.6931, 0.0000])
    """
    return torch.special.entr(pattern).sum(-1)


class Captured:
    """What was seen: a mapping from names to tensors for each kind that was asked for."""

    def __init__(self, kinds: Sequence[str], limit: int):
        self.kinds, self.limit, self.bytes = tuple(kinds), limit, 0
        self._calls: dict[str, dict[str, list[Tensor]]] = {kind: {} for kind in kinds}

    def keep(self, kind: str, name: str, value: Tensor) -> None:
        size = value.numel() * value.element_size()
        if self.bytes + size > self.limit:
            raise TsfmError(f"capturing {kind} at {name} needs more than the limit of {self.limit / 2**20:.0f} MiB: name fewer sites, pass "
                            "fewer series, take last_query=True, or entropies instead of patterns")  # fmt: skip
        self.bytes += size
        self._calls[kind].setdefault(name, []).append(value.detach().to("cpu", copy=True))

    def __getattr__(self, kind: str) -> dict[str, Tensor]:
        if kind not in KINDS:
            raise AttributeError(kind)
        if kind not in self.kinds:
            raise TsfmError(f"{kind} were not captured, {', '.join(self.kinds)} were: ask for them in capture(model, {kind!r})")
        return {name: self._joined(kind, name, calls) for name, calls in self._calls[kind].items()}

    def calls(self, kind: str, name: str) -> list[Tensor]:
        """One by one, where they differ in shape (a decoder that looks back further at every step)."""
        return self._calls[kind][name]

    def _joined(self, kind: str, name: str, calls: list[Tensor]) -> Tensor:
        if len({call.shape[1:] for call in calls}) > 1:
            raise TsfmError(f"{kind} at {name} come in {len(calls)} calls of different shapes: take calls({kind!r}, {name!r})")
        return torch.cat(calls)


@contextmanager
def capture(model: nn.Module, *kinds: str, sites: Sequence[str] | None = None, last_query: bool = False, limit: int = LIMIT
            ) -> Iterator[Captured]:  # fmt: skip
    """Keeps copies on the CPU of each of `kinds` at `sites` (names of sites, layers or stacks; None: all), up to `limit` bytes in all."""
    if not kinds or set(kinds) - set(KINDS):
        raise TsfmError(f"capture what? One or more of {', '.join(KINDS)}, got {', '.join(kinds) or 'nothing'}")
    seen, here = Captured(kinds, limit), plans.sites(model, sites)
    last = (lambda x, axis: x.narrow(axis, x.shape[axis] - 1, 1)) if last_query else lambda x, axis: x

    def look(name: str, pattern: Tensor) -> None:
        if "patterns" in kinds:
            seen.keep("patterns", name, last(pattern, 2))
        if "entropies" in kinds:
            seen.keep("entropies", name, entropy(last(pattern, 2)))

    with ExitStack() as hooks:
        for name, site in here.items():
            if isinstance(site, HeadSite):
                if {"patterns", "entropies"} & set(kinds):
                    take = lambda module, inputs, pattern, name=name: look(name, pattern)
                    hooks.callback(site.pattern.register_forward_hook(take).remove)
                if "heads" in kinds:
                    split = (site.n_heads, site.head_dim)
                    take = lambda module, inputs, name=name, split=split: seen.keep("heads", name, last(inputs[0], 1).unflatten(-1, split))
                    hooks.callback(site.out_proj.register_forward_pre_hook(take).remove)
            elif "mlps" in kinds:
                take = lambda module, inputs, said, name=name: seen.keep("mlps", name, last(said, 1))
                hooks.callback(site.module.register_forward_hook(take).remove)
        if "residuals" in kinds:
            wanted = {f"{site.stack}.{site.layer}" for site in here.values()}
            for name, module in plans.layer_modules(model).items():
                if name in wanted:
                    stack, _, number = name.partition(".")
                    take = lambda module, inputs, out, name=name: seen.keep("residuals", name, last(_stream(out), 1))
                    if number == "0":
                        into = lambda module, inputs, stack=stack: seen.keep("residuals", f"{stack}.in", last(inputs[0], 1))
                        hooks.callback(module.register_forward_pre_hook(into).remove)
                    hooks.callback(module.register_forward_hook(take).remove)
        yield seen


def _stream(out: Any) -> Tensor:
    """Layers that return more than the stream return it first."""
    return out if isinstance(out, Tensor) else out[0]
