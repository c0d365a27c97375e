"""Models in and out: a folder with config.json, model.safetensors and card.json. No pickle anywhere.

`build` makes a fresh model from a seed, `save` writes a folder in one step (a killed save leaves the old folder as it was), `load` reads
ours (config.json has a field `model`) and the authors' official layouts. Each of these has a file beside this one, which recognises its
config.json and maps its tensors: `is_official(config) -> bool` and `from_official(config, tensors) -> model`.
"""

import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tsfm_lib.errors import TsfmError, nearest
from tsfm_lib.models import MODELS, Entry

# layouts of the authors that are read: one file in this folder each
OFFICIAL = ("chronos", "chronos_bolt", "kairos", "mantis", "moirai", "moment", "timesfm", "toto", "units")


def build(name: str, config: Any = None, seed: int = 0) -> nn.Module:
    """A fresh model of the register; `config` is its config object, a dict of its fields, or None for the defaults.

    The one place where torch's global generator is seeded, and it is put back: same seed, same bytes, no trace.

    >>> before = torch.initial_seed()
    >>> a, b = build("dlinear", {"context": 32, "horizon": 8}, seed=1), build("dlinear", {"context": 32, "horizon": 8}, seed=1)
    >>> all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters())), torch.initial_seed() == before
    (True, True)
    """
    entry = _entry(name)
    if config is None or isinstance(config, Mapping):
        config = _config(entry, config or {})
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return entry.model_class()(config)


def save(model: nn.Module, folder: str | Path, card: Mapping[str, Any] | None = None, half: bool = False) -> Path:
    """Write `model` to `folder`, replacing an older checkpoint there. `half` stores the parameters in float16 (buffers stay)."""
    entry = next((e for e in MODELS.values() if e.cls == type(model).__name__ and e.module == type(model).__module__), None)
    if entry is None:
        raise TsfmError(f"{type(model).__name__} has no weights to save: expected one of the architectures {', '.join(MODELS)}")
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and ((folder / "config.json").exists() or not any(folder.iterdir()))):
        raise TsfmError(f"{folder} exists and is not a checkpoint: give a new or empty folder")
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    tensors = {name: _stored(name, t, half and name in parameters) for name, t in model.state_dict().items()}
    config = {"model": entry.name, "config": dataclasses.asdict(model.config)}
    card = {"name": folder.name, "task": entry.task, "licence": entry.licence, "paper": entry.paper, **(card or {})}
    card["parameters"] = sum(p.numel() for p in model.parameters())
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        fresh.chmod(0o755)
        save_file(tensors, fresh / "model.safetensors", metadata={"format": "pt"})
        (fresh / "model.safetensors").chmod(0o644)  # the writer makes it private
        for name, content in (("config.json", config), ("card.json", card)):
            (fresh / name).write_text(json.dumps(content, indent=2) + "\n")
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            folder.rename(old / "old")
            fresh.rename(folder)
            shutil.rmtree(old)
        else:
            fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def load(folder: str | Path, device: str | torch.device = "cpu") -> nn.Module:
    """The model of a folder, in evaluation mode, with its card as `model.card`."""
    folder = Path(folder)
    config = read_json(folder / "config.json")
    tensors = _tensors(folder)
    if "model" in config:
        entry = _entry(config["model"])
        model = build(entry.name, config.get("config", {}))
        fill(model, tensors, folder)
    else:
        maps = [import_module(f"{__name__}.{name}") for name in OFFICIAL]
        home = next((m for m in maps if m.is_official(config)), None)
        if home is None:
            said = config.get("architectures") or config.get("model_type") or "no model"
            raise TsfmError(f"{folder}/config.json names {said}, expected one of {', '.join(MODELS)} or an official layout of one of them")
        model = home.from_official(config, tensors)
    model.card = read_json(folder / "card.json") if (folder / "card.json").exists() else {"name": folder.name, "licence": "see its source"}
    return model.to(device).eval()


def fill(model: nn.Module, tensors: Mapping[str, Tensor], source: str | Path = "the checkpoint") -> None:
    """Copy tensors into a model after checking that they are exactly its own: names and shapes."""
    state = model.state_dict()
    wrong = {
        "missing": sorted(set(state) - set(tensors)),
        "unexpected": sorted(set(tensors) - set(state)),
        "of another shape": [f"{n} {list(tensors[n].shape)} for {list(t.shape)}" for n, t in state.items()
                             if n in tensors and tensors[n].shape != t.shape],
    }  # fmt: skip
    said = [f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" for kind, names in wrong.items() if names]
    if said:
        raise TsfmError(f"{source} does not fit {type(model).__name__}: tensors {'; '.join(said)}: do config and weights belong together?")
    model.load_state_dict({name: tensor.to(state[name].dtype) for name, tensor in tensors.items()})


def read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise TsfmError(f"{path} does not exist: a model folder holds config.json and model.safetensors") from None
    except (ValueError, OSError) as problem:
        raise TsfmError(f"{path} cannot be read as JSON ({problem}): fetch or save the model again") from None
    if not isinstance(found, dict):
        raise TsfmError(f"{path} holds a {type(found).__name__}, expected an object: fetch or save the model again")
    return found


def _entry(name: str) -> Entry:
    if name not in MODELS:
        raise TsfmError(f"no architecture named {name!r}, there are {', '.join(MODELS)}{nearest(str(name), MODELS)}")
    return MODELS[name]


def _config(entry: Entry, fields: Mapping[str, Any]) -> Any:
    kind = entry.config_class()
    known = {f.name for f in dataclasses.fields(kind)}
    for name in fields:
        if name not in known:
            raise TsfmError(f"{entry.config_cls} has no field {name!r}{nearest(name, known)}")
    return kind(**{name: _tuples(value) for name, value in fields.items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _stored(name: str, tensor: Tensor, half: bool) -> Tensor:
    kept = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)  # tied weights are stored twice: files stand alone
    if not (half and kept.is_floating_point()):
        return kept
    small = kept.half()
    if not torch.equal(small.isfinite(), kept.isfinite()):
        raise TsfmError(f"{name} holds values beyond float16 (largest {kept.abs().max():.3g}): save with half=False")
    return small


def _tensors(folder: Path) -> dict[str, Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise TsfmError(f"{folder} holds no .safetensors file: a model folder holds config.json and model.safetensors")
    tensors: dict[str, Tensor] = {}
    for file in files:
        with contextlib.ExitStack() as stack:
            try:
                opened = stack.enter_context(safe_open(file, framework="pt"))
                tensors.update({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118 - not a dict
            except (SafetensorError, OSError, ValueError) as problem:
                raise TsfmError(f"{file} is damaged or cut short ({problem}): fetch or save it again") from None
    return tensors
