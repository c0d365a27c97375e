"""Heads, MLPs and layers out of action, for as long as a `with` block lasts.

    with interpret.ablate(model, heads={"decoder.3.self": [0, 5]}, mlps=["decoder.2"]):
        without = model.predict_quantiles(context, 24, [0.5])

A head goes where it can be told from the others, in the input of the output projection, on a clone; an MLP in what it returns. Biases of
output projections, and norms behind them, stay in place. In place of what is taken out comes
    zero                nothing, far from what later layers have seen
    mean                its mean over the series and positions of a calibration
    mean-by-position    the same for each position: series of one length
    resample            what it said of another series, which series being drawn anew with another seed
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tsfm_lib.errors import TsfmError
from tsfm_lib.interpret.capturing import LIMIT, Run, capture
from tsfm_lib.interpret.plans import Plan, sites

MODES = ("zero", "mean", "mean-by-position", "resample")


@dataclass(frozen=True)
class Calibration:
    """What heads (the inputs of their output projections) and MLPs said about a set of series, in an intact model."""

    said: dict[str, Tensor]  # R N I each

    def of(self, name: str) -> Tensor:
        if name not in self.said:
            raise TsfmError(f"{name} was not calibrated, {', '.join(self.said)} were: calibrate a model with the same sites")
        return self.said[name]


def calibrate(model: nn.Module, run: Run, x: Tensor, *, names: list[str] | None = None, limit: int = LIMIT) -> Calibration:
    """`run(x)` once with an intact model, and what every site said; `x` should not be the series on which ablations are judged.

    Every token counts, those of missing stretches too: pass series without long ones.
    """
    with capture(model, "heads", "mlps", sites=names, limit=limit) as seen, torch.no_grad():
        run(x)
    return Calibration({name: said.flatten(2) for kind in (seen.heads, seen.mlps) for name, said in kind.items()})


@dataclass(frozen=True)
class Substitute:
    """What stands in for a site: a value for all of `said`, which is R N I; rows of a batch are rows of R."""

    mode: str = "zero"
    calibration: Calibration | None = None
    seed: int = 0

    def __post_init__(self):
        if self.mode not in MODES:
            raise TsfmError(f"mode of an ablation must be one of {', '.join(MODES)}, got {self.mode!r}")
        if (self.mode == "zero") != (self.calibration is None):
            raise TsfmError(f"mode {self.mode!r} and calibration do not go together: zero needs none, the other modes one by "
                            "interpret.calibrate(model, run, x)")  # fmt: skip

    def __call__(self, name: str, said: Float[Tensor, "R N I"]) -> Tensor:
        if self.calibration is None:
            return torch.zeros_like(said)
        known = self.calibration.of(name).to(said)
        if self.mode == "mean":
            return known.mean((0, 1)).expand_as(said)
        if known.shape[1:] != said.shape[1:]:
            raise TsfmError(f"{name} was calibrated on {known.shape[1]} positions and meets {said.shape[1]}: calibrate on series of "
                            "the same length, or use mode='mean'")  # fmt: skip
        if self.mode == "mean-by-position":
            return known.mean(0).expand_as(said)
        drawn = torch.randint(len(known), (len(said),), generator=torch.Generator("cpu").manual_seed(self.seed), device="cpu")
        return known[drawn.to(known.device)]  # the same donors at every site


@contextmanager
def ablate(
    model: nn.Module, plan: Plan | None = None, *, heads: Mapping[str, Iterable[int]] | None = None, mlps: Iterable[str] = (),
    layers: Iterable[str] = (), mode: str = "zero", calibration: Calibration | None = None, seed: int = 0,
) -> Iterator[Plan]:  # fmt: skip
    """The model without these parts inside the block; blocks may be nested. Warns at the end about parts that changed nothing."""
    plan = (plan or Plan()) | Plan(heads or {}, mlps, layers)
    parts, known, instead = plan.resolve(model), sites(model), Substitute(mode, calibration, seed)
    state: dict[str, str] = dict.fromkeys((*parts.heads, *parts.mlps), "was never run")

    def note(name: str, before: Tensor, after: Tensor) -> None:
        if state.get(name) != "changed":
            state[name] = "had said the same" if torch.equal(before, after) else "changed"

    with ExitStack() as hooks:
        for name, numbers in parts.heads.items():
            site = known[name]
            gone = [h * site.head_dim + i for h in numbers for i in range(site.head_dim)]

            def without(module: nn.Module, inputs: tuple[Any, ...], name=name, gone=gone) -> tuple[Any, ...]:
                z = inputs[0].clone()
                z[..., gone] = instead(name, inputs[0])[..., gone]
                note(name, inputs[0], z)
                return (z, *inputs[1:])

            hooks.callback(site.out_proj.register_forward_pre_hook(without).remove)
        for name in parts.mlps:

            def silent(module: nn.Module, inputs: tuple[Any, ...], said: Tensor, name=name) -> Tensor:
                value = instead(name, said)
                note(name, said, value)
                return value

            hooks.callback(known[name].module.register_forward_hook(silent).remove)
        yield plan
    idle = {name: why for name, why in state.items() if why != "changed"}
    if idle:
        said = ", ".join(f"{name} {why}" for name, why in idle.items())
        warnings.warn(f"an ablation changed nothing: {said} (compiled models do not see hooks)", stacklevel=3)
