"""Reference outputs of the authors' own code on small random weights: one safetensors file a case.

A few lie in `cases/`; the folder named by TSFM_PARITY adds more. In a file, `w.*` are the authors' weights, `in.*` the inputs and
`out.*` what their code returned; strings in the header say with which configuration and options.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from tsfm_lib.nn.sites import HeadSite, MLPSite
from tsfm_lib.paths import parity_folder

CASES = Path(__file__).parent / "cases"


@dataclass(frozen=True)
class Case:
    config: dict[str, Any]
    options: dict[str, Any]
    weights: dict[str, Tensor]
    given: dict[str, Tensor]
    expected: dict[str, Tensor]


def files(prefix: str) -> list[Any]:
    """One pytest parameter a case, its id the stem of the file."""
    folders = [CASES] + ([parity_folder()] if parity_folder() else [])
    found = {path.stem: path for folder in folders for path in sorted(folder.glob(f"{prefix}*.safetensors"))}
    missing = pytest.mark.skip(reason=f"no {prefix}*.safetensors in tests/parity/cases or $TSFM_PARITY")
    return [pytest.param(path, id=stem) for stem, path in sorted(found.items())] or [pytest.param(None, id="none", marks=missing)]


def read(path: Path) -> Case:
    with safe_open(str(path), "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        header = {key: json.loads(file.metadata()[key]) for key in ("config", "options") if key in file.metadata()}
    part = lambda start: {name[len(start) :]: value for name, value in tensors.items() if name.startswith(start)}
    return Case(header.get("config", {}), header.get("options", {}), part("w."), part("in."), part("out."))


def near(value: Tensor, expected: Tensor, share: float = 1e-4) -> None:
    """Relative 1e-4, and as much of the largest value where numbers are small."""
    torch.testing.assert_close(value, expected, rtol=share, atol=share * expected.abs().max().item(), check_dtype=False)


@contextmanager
def without(sites: Iterable[HeadSite | MLPSite], head: int | None = None) -> Iterator[None]:
    """A model without some MLPs and heads: of each attention one, or all."""
    with ExitStack() as hooks:
        for site in sites:
            if isinstance(site, HeadSite):
                own = slice(None) if head is None else slice(head * site.head_dim, (head + 1) * site.head_dim)

                def zero(module, inputs, own=own):
                    z = inputs[0].clone()
                    z[..., own] = 0
                    return (z,)

                hooks.callback(site.out_proj.register_forward_pre_hook(zero).remove)
            else:
                hooks.callback(site.module.register_forward_hook(lambda module, inputs, out: torch.zeros_like(out)).remove)
        yield


def stable_ranks(q: Tensor, k: Tensor) -> Tensor:
    """|A|_F^2 / |A|_2^2 of A = W_Q^T W_K, head by head."""
    s = torch.linalg.svdvals(q.double().mT @ k.double())
    return s.square().sum(-1) / s[..., 0].square()
