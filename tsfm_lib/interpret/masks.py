"""Many ablations in one forward: the batch is repeated, and every copy goes without something else.

    masks = interpret.HeadMask(model, interpret.single_heads(model))
    forecasts = masks.evaluate(lambda x: model.predict_quantiles(x, 24, [0.5]), x)          # one row per plan: P B ...

What lies in front of the first ablated site is computed once and not once per plan: the outputs of earlier layers, and of earlier sites
in the same layer, are those of an intact run. Plans are put together by their first site for that reason. Only what runs once in a
forward is reused; steps of a roll-out or of a decoder that see what was said before are run as they are.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tsfm_lib.errors import TsfmError
from tsfm_lib.interpret.ablation import Calibration, Substitute
from tsfm_lib.interpret.capturing import Run
from tsfm_lib.interpret.plans import Parts, Plan, attention_of, layer_modules, sites
from tsfm_lib.nn.sites import HeadSite

Loss = Callable[[Tensor, Tensor], Tensor]  # forecasts and targets of n series to n numbers


@dataclass
class Said:
    """What a site or a layer said in an intact run."""

    out: Any  # of its first call
    before: Tensor | None  # the input of the mask, where that leads to `out`
    rows: list[int] = field(default_factory=list)  # of each call

    @property
    def reusable(self) -> bool:
        return len(self.rows) == 1 and isinstance(self.out, Tensor)


class HeadMask:
    """Plans for one model, as masks: row p goes without the heads, MLPs and layers of plan p."""

    def __init__(self, model: nn.Module, plans: Sequence[Plan]):
        if not plans:
            raise TsfmError("a HeadMask needs at least one plan: interpret.single_heads(model) makes one for every head")
        self.model, self.plans = model, list(plans)
        self.sites, self.layers = sites(model), layer_modules(model)
        self.parts = [plan.resolve(model, self.sites) for plan in plans]
        self.modules = {name: attention_of(model, site) if isinstance(site, HeadSite) else site.module for name, site in self.sites.items()}
        self.modules |= self.layers

    def evaluate(self, run: Run, x: Tensor, rows: int = 128, *, mode: str = "zero", calibration: Calibration | None = None,
                 seed: int = 0) -> Tensor:  # fmt: skip
        """`run(x)` under every plan, P B ...; at most `rows` series (copies counted) go through the model at once."""
        pieces = [(chosen, out) for chosen, _, out in self._pieces(run, x, rows, Substitute(mode, calibration, seed))]
        return self._collected(pieces, len(x))

    def losses(self, run: Run, x: Tensor, target: Tensor, loss: Loss, rows: int = 128, *, mode: str = "zero",
               calibration: Calibration | None = None, seed: int = 0) -> Tensor:  # fmt: skip
        """The loss of every series under every plan, P B, without keeping the forecasts."""
        pieces = []
        for chosen, here, out in self._pieces(run, x, rows, Substitute(mode, calibration, seed)):
            pieces.append((chosen, torch.stack([loss(each, target[here]) for each in out])))
        return self._collected(pieces, len(x))

    def _collected(self, pieces: list[tuple[list[int], Tensor]], rows: int) -> Tensor:
        found: dict[int, list[Tensor]] = {}
        for chosen, out in pieces:
            for p, each in zip(chosen, out):
                found.setdefault(p, []).append(each)
        return torch.stack([torch.cat(found[p]) for p in range(len(self.plans))])

    @torch.no_grad()
    def _pieces(self, run: Run, x: Tensor, rows: int, instead: Substitute) -> Iterator[tuple[list[int], slice, Tensor]]:
        """Numbers of plans, which series, what came out (P b ...)."""
        for start in range(0, len(x), rows):
            here = slice(start, min(start + rows, len(x)))
            part = x[here]
            intact, said = self._intact(run, part)
            for first, chosen in self._by_first_site(list(said)).items():
                if first is None:  # nothing is taken out
                    yield chosen, here, torch.stack([intact] * len(chosen))
                    continue
                step = max(1, rows // len(part))
                for begin in range(0, len(chosen), step):
                    now = chosen[begin : begin + step]
                    with self._masked(now, instead, said), self._replayed(first, len(now), said):
                        out = run(part.repeat(len(now), *[1] * (part.ndim - 1)))
                    yield now, here, out.unflatten(0, (len(now), len(part)))

    def _by_first_site(self, order: list[str]) -> dict[str | None, list[int]]:
        groups: dict[str | None, list[int]] = {}
        for p, parts in enumerate(self.parts):
            gone = {*parts.heads, *parts.mlps}
            if idle := sorted(gone - set(order)):
                raise TsfmError(f"{idle[0]} was never run by this forward (compiled models do not see hooks): it cannot be judged by it")
            groups.setdefault(next((name for name in order if name in gone), None), []).append(p)
        return groups

    # -- an intact run, and what of it stands in for computing the same again --

    def _intact(self, run: Run, x: Tensor) -> tuple[Tensor, dict[str, Said]]:
        """The result, and what sites and layers said, in the order in which they first finished.

        Heads are masked in front of the output projection: what goes in there is kept if their module adds nothing behind it."""
        said: dict[str, Said] = {}
        projected: dict[str, tuple[Tensor, Tensor]] = {}

        def remember(name: str, out: Any, before: Tensor | None = None) -> None:
            said.setdefault(name, Said(out, before)).rows.append(len(out if isinstance(out, Tensor) else out[0]))

        def attended(name: str, out: Any) -> None:
            z, own = projected.pop(name)
            remember(name, out, z if own is out else None)

        with ExitStack() as hooks:
            on = lambda module, hook: hooks.callback(module.register_forward_hook(hook).remove)
            for name, site in self.sites.items():
                if isinstance(site, HeadSite):
                    on(site.out_proj, lambda module, inputs, out, name=name: projected.__setitem__(name, (inputs[0], out)))
                    on(self.modules[name], lambda module, inputs, out, name=name: attended(name, out))
                else:
                    on(self.modules[name], lambda module, inputs, out, name=name: remember(name, out, out))
            for name, module in self.layers.items():
                on(module, lambda module, inputs, out, name=name: remember(name, out))
            return run(x), said

    @contextmanager
    def _replayed(self, first: str, copies: int, said: dict[str, Said]) -> Iterator[None]:
        """What finished before the first ablated site says what it said; the site itself starts from what went into its mask."""
        grown = lambda x: x.repeat(copies, *[1] * (x.ndim - 1))
        stand_in: dict[nn.Module, Callable[..., Any]] = {}
        for name, was in said.items():
            if name == first:
                if was.reusable and was.before is not None:
                    onward = self.sites[name].out_proj if isinstance(self.sites[name], HeadSite) else nn.Identity()
                    stand_in[self.modules[name]] = lambda *a, was=was, onward=onward, **k: onward(grown(was.before))
                break
            if was.reusable:
                stand_in[self.modules[name]] = lambda *a, was=was, **k: grown(was.out)
        own = {module: vars(module).get("forward") for module in stand_in}
        try:
            for module, forward in stand_in.items():
                module.forward = forward
            yield
        finally:
            for module, forward in own.items():
                del module.forward
                if forward is not None:
                    module.forward = forward

    # -- the masks --

    @contextmanager
    def _masked(self, chosen: list[int], instead: Substitute, said: dict[str, Said]) -> Iterator[None]:
        parts: list[Parts] = [self.parts[p] for p in chosen]
        with ExitStack() as hooks:
            for name, site in self.sites.items():
                if isinstance(site, HeadSite) and any(name in p.heads for p in parts):
                    keep = torch.ones(len(parts), site.n_heads, dtype=torch.bool, device="cpu")
                    for row, p in zip(keep, parts):
                        row[list(p.heads.get(name, ()))] = False
                    mix = mask(name, keep.repeat_interleave(site.head_dim, dim=1)[:, None, None], instead, said[name].rows)
                    hook = lambda module, inputs, mix=mix: (mix(inputs[0]), *inputs[1:])
                    hooks.callback(site.out_proj.register_forward_pre_hook(hook).remove)
                elif not isinstance(site, HeadSite) and any(name in p.mlps for p in parts):
                    keep = torch.tensor([name not in p.mlps for p in parts], device="cpu")
                    mix = mask(name, keep[:, None, None, None], instead, said[name].rows)
                    hooks.callback(site.module.register_forward_hook(lambda module, inputs, out, mix=mix: mix(out)).remove)
            yield


def mask(name: str, keep: Tensor, instead: Substitute, rows: list[int]) -> Callable[[Tensor], Tensor]:
    """What one site says [P x R N I], with substitutes where `keep` [P 1 1 I] is false; `rows`: R of one copy, call by call."""
    expected = iter(rows)

    def mixed(said: Tensor) -> Tensor:
        if len(said) != len(keep) * next(expected, 0):
            raise TsfmError(f"{name} meets the {len(keep)} copies of the batch in parts ({len(said)} rows at once): this forward splits or "
                            "mixes its batch, so lower `rows`, or ablate one by one")  # fmt: skip
        copies, gone = said.unflatten(0, (len(keep), -1)), ~keep.to(said.device)  # P R N I
        if instead.calibration is None:
            return copies.masked_fill(gone, 0).flatten(0, 1)
        return torch.where(gone, torch.stack([instead(name, copy) for copy in copies]), copies).flatten(0, 1)

    return mixed
