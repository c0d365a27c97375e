"""What fine-tuning added or changed, on its own: adapters.safetensors and adapters.json, to be put onto the model it belongs to."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from tsfm_lib.checkpoints import read_tensors, readable
from tsfm_lib.errors import TsfmError
from tsfm_lib.finetune.design import Design
from tsfm_lib.finetune.multiscale import MultiScale, fingerprint
from tsfm_lib.finetune.tuning import state
from tsfm_lib.paths import read_json, replace_text

TENSORS, FACTS = "adapters.safetensors", "adapters.json"


def save(tuned: nn.Module, folder: str | Path, facts: Mapping[str, Any] | None = None) -> Path:
    """Two files; the pretrained weights that stayed as they were are not among them."""
    if not isinstance(tuned, MultiScale):
        raise TsfmError(f"expected a model that was fine-tuned, got {type(tuned).__name__}: nothing was added to it")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.cpu().contiguous() for name, tensor in state(tuned).items()}, folder / TENSORS)
    told = {"model": type(tuned.model).__name__, "fingerprint": tuned.origin, "design": asdict(tuned.design), "context": tuned.context,
            "horizon": tuned.horizon, "together": tuned.together, "facts": dict(facts or {})}  # fmt: skip
    replace_text(folder / FACTS, json.dumps(told, indent=2) + "\n")
    return folder


def load(folder: str | Path, model: nn.Module) -> MultiScale:
    """Put what was saved onto the pretrained model, which must be the one it was trained on."""
    folder = Path(folder)
    told = read_json(folder / FACTS)
    with readable(folder):
        return _load(folder, told, model)


def _load(folder: Path, told: Mapping[str, Any], model: nn.Module) -> MultiScale:
    if told["design"]["train"] != "all" and told["fingerprint"] != (own := fingerprint(model)):
        raise TsfmError(f"{folder} belongs to a {told['model']} with fingerprint {told['fingerprint']}, got a {type(model).__name__} "
                        f"with {own}: load the weights it was trained on")  # fmt: skip
    design = Design(**{name: tuple(value) if isinstance(value, list) else value for name, value in told["design"].items()})
    tuned = MultiScale(model, design, told["context"], told["horizon"], together=told["together"])
    tensors, wanted = read_tensors(folder / TENSORS), state(tuned)
    if wrong := sorted(set(tensors) ^ set(wanted)):
        raise TsfmError(f"{folder / TENSORS} does not fit its {FACTS} (first difference: {wrong[0]}): save it again")
    tuned.load_state_dict(tensors, strict=False)
    return tuned.eval()
