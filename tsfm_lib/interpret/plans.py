"""What is to be taken out of a model, by name, and where in the model it is.

A site is named as `model.sites()` names it ("decoder.3.cross", "decoder.3.mlp"); "decoder.3" is the layer, all sites with that stack and
number. Whoever asks for something that is not there is told what there is.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from torch import nn

from tsfm_lib.errors import TsfmError, nearest
from tsfm_lib.nn.sites import HeadSite, MLPSite
from tsfm_lib.paths import given, read_json

Site = HeadSite | MLPSite


@dataclass(frozen=True)
class Plan:
    """Heads by site and number, MLPs and whole layers by name.

    >>> plan = Plan(heads={"decoder.3.self": [5, 0]}, mlps=["decoder.2"])
    >>> plan | Plan(heads={"decoder.3.self": [1]}, layers=["decoder.4"])
    Plan(heads={'decoder.3.self': (0, 1, 5)}, mlps=('decoder.2.mlp',), layers=('decoder.4',))
    """

    heads: Mapping[str, Iterable[int]] = field(default_factory=dict)
    mlps: Iterable[str] = ()
    layers: Iterable[str] = ()

    def __post_init__(self):
        for name in ("mlps", "layers"):
            if isinstance(getattr(self, name), str):
                raise TsfmError(f"{name} of a plan is a list of names, got the string {getattr(self, name)!r}: put it in brackets")
        try:
            heads = {site: tuple(sorted({int(h) for h in numbers})) for site, numbers in self.heads.items()}
            mlps, layers = [str(n) for n in self.mlps], [str(n) for n in self.layers]
        except (AttributeError, TypeError, ValueError, OverflowError):
            got = {"heads": self.heads, "mlps": self.mlps, "layers": self.layers}
            raise TsfmError(f"a plan has heads by site and number, and lists of names for mlps and layers, got {got!r:.200}") from None
        object.__setattr__(self, "heads", {site: numbers for site, numbers in sorted(heads.items()) if numbers})
        object.__setattr__(self, "mlps", tuple(sorted({n if n.endswith(".mlp") else f"{n}.mlp" for n in mlps})))
        object.__setattr__(self, "layers", tuple(sorted(set(layers))))

    def __bool__(self) -> bool:
        return bool(self.heads or self.mlps or self.layers)

    def __or__(self, other: "Plan") -> "Plan":
        sites = {*self.heads, *other.heads}
        heads = {site: (*self.heads.get(site, ()), *other.heads.get(site, ())) for site in sites}
        return Plan(heads, (*self.mlps, *other.mlps), (*self.layers, *other.layers))

    def save(self, path: str | Path) -> Path:
        """As JSON, to stand beside a figure."""
        path = Path(path)
        path.write_text(json.dumps({"heads": self.heads, "mlps": self.mlps, "layers": self.layers}, indent=2) + "\n")
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Plan":
        found = read_json(given(path, "the file of a plan"), "save the plan again")
        if set(found) - {"heads", "mlps", "layers"}:
            raise TsfmError(f"{path} holds no plan: expected an object with heads, mlps and layers")
        return cls(**found)

    def resolve(self, model: nn.Module, known: Mapping[str, Site] | None = None) -> "Parts":
        """The same as heads and MLPs of this model; refuses what the model does not have. `known`: its sites, when there are many plans."""
        known = known or sites(model)
        of_layer = by_layer(known)
        heads: dict[str, set[int]] = {}
        mlps = {_known(name, known, MLPSite).name for name in self.mlps}
        for name, numbers in self.heads.items():
            site = _known(name, known, HeadSite)
            if min(numbers) < 0 or max(numbers) >= site.n_heads:
                raise TsfmError(f"{name} has heads 0 to {site.n_heads - 1}, got {list(numbers)}")
            heads[name] = set(numbers)
        for name in self.layers:
            if name not in of_layer:
                raise TsfmError(f"no layer {name!r} in {type(model).__name__}, there are {', '.join(of_layer)}{nearest(name, of_layer)}")
            for site in of_layer[name]:
                if isinstance(site, HeadSite):
                    heads[site.name] = set(range(site.n_heads))
                else:
                    mlps.add(site.name)
        in_order = {name: tuple(sorted(heads[name])) for name in known if name in heads}
        return Parts(in_order, tuple(name for name in known if name in mlps))


class Parts(NamedTuple):
    """A plan in terms of one model, in the order of its sites."""

    heads: dict[str, tuple[int, ...]]
    mlps: tuple[str, ...]


def single_heads(model: nn.Module, names: Sequence[str] | None = None) -> list[Plan]:
    """One plan for every head (of the sites, layers or stacks that `names` says)."""
    return [Plan(heads={site.name: [h]}) for site in head_sites(model, names) for h in range(site.n_heads)]


def single_layers(model: nn.Module) -> list[Plan]:
    return [Plan(layers=[name]) for name in layers(model)]


# ---- Where things are ------------------------------------------------------------------------------------------------------------------


def sites(model: nn.Module, names: Sequence[str] | None = None) -> dict[str, Site]:
    """Sites by name; `names` keeps those of these sites, layers ("decoder.3") or stacks ("decoder")."""
    if not hasattr(model, "sites"):
        raise TsfmError(f"{type(model).__name__} lists no sites: expected a model with a method sites()")
    found = {site.name: site for site in model.sites()}
    if names is None:
        return found
    names = [names] if isinstance(names, str) else names
    for name in names:
        if not any(_is_in(site, name) for site in found):
            raise TsfmError(f"no site {name!r} in {type(model).__name__}, there are {', '.join(found) or 'none'}{nearest(name, found)}")
    return {name: site for name, site in found.items() if any(_is_in(name, asked) for asked in names)}


def head_sites(model: nn.Module, names: Sequence[str] | None = None) -> list[HeadSite]:
    return [site for site in sites(model, names).values() if isinstance(site, HeadSite)]


def layers(model: nn.Module) -> dict[str, list[Site]]:
    """The sites of every layer, "decoder.3" and so on."""
    return by_layer(sites(model))


def by_layer(known: Mapping[str, Site]) -> dict[str, list[Site]]:
    found: dict[str, list[Site]] = {}
    for site in known.values():
        found.setdefault(f"{site.stack}.{site.layer}", []).append(site)
    return found


def thirds(model: nn.Module, stack: str | None = None) -> dict[str, str]:
    """early, middle or late for every layer of a stack (the last one if not named).

    >>> from tsfm_lib.checkpoints import build
    >>> thirds(build("dlinear")), thirds(build("chronos-bolt"), "encoder")["encoder.2"]
    ({}, 'middle')
    """
    named = layers(model)
    stack = stack or next(reversed(named), "").partition(".")[0]
    here = [name for name in named if name.partition(".")[0] == stack]
    return {name: ("early", "middle", "late")[3 * i // len(here)] for i, name in enumerate(here)}


def layer_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The module of every layer: the smallest one that holds all of its sites. What comes out of it is the residual stream behind it."""
    path, found = _paths(model), {}
    for name, here in layers(model).items():
        parts = [path[id(site.out_proj if isinstance(site, HeadSite) else site.module)].split(".") for site in here]
        same = next((i for i, step in enumerate(zip(*parts)) if len(set(step)) > 1), None)
        if same is None:
            raise TsfmError(f"{name} has a single site: what holds it cannot be told from what is inside")
        found[name] = model.get_submodule(".".join(parts[0][:same]))
    return found


def attention_of(model: nn.Module, site: HeadSite) -> nn.Module:
    """The module that owns the output projection of these heads."""
    return model.get_submodule(_paths(model)[id(site.out_proj)].rpartition(".")[0])


def _paths(model: nn.Module) -> dict[int, str]:
    return {id(module): name for name, module in model.named_modules()}


def _is_in(site: str, name: str) -> bool:
    return site == name or site.startswith(f"{name}.")


def _known(name: str, known: Mapping[str, Site], kind: type) -> Site:
    fitting = [n for n, site in known.items() if isinstance(site, kind)]
    if name not in fitting:
        what = "heads" if kind is HeadSite else "MLP"
        raise TsfmError(f"no {what} at {name!r}, there are {', '.join(fitting) or 'none'}{nearest(name, fitting)}")
    return known[name]
