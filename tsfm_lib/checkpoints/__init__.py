"""Models in and out: a folder with config.json, model.safetensors and card.json. No pickle anywhere.

`build` makes a fresh model from a seed, `save` writes a folder in one step (a killed save leaves the old folder as it was), `load` reads
ours (config.json has a field `model`) and the authors' official layouts. Each of these has a file beside this one, which recognises its
config.json and maps its tensors: `is_official(config) -> bool` and `from_official(config, tensors) -> model`.
"""

import contextlib
import dataclasses
import glob
import json
import math
import shutil
import tempfile
import types
from collections.abc import Iterator, Mapping
from importlib import import_module
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from tsfm_lib.errors import TsfmError, nearest
from tsfm_lib.models import MODELS, Entry
from tsfm_lib.paths import given, read_json

# layouts of the authors that are read: one file in this folder each
OFFICIAL = ("chronos", "chronos_bolt", "kairos", "mantis", "moirai", "moment", "timesfm", "toto", "units")
LARGEST = 2**20  # of a whole number in a config: no length, width or count of a model here comes near
ROOM = 10**6  # parameters a model may have beyond those of its file


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
    folder, card = given(folder, "a folder to save to"), _card(card)
    _restore(folder)
    if folder.exists() and not (folder.is_dir() and ((folder / "config.json").exists() or not any(folder.iterdir()))):
        raise TsfmError(f"{folder} exists and is not a checkpoint: give a new or empty folder")
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    tensors = {name: _stored(name, t, half and name in parameters) for name, t in model.state_dict().items()}
    config = {"model": entry.name, "config": dataclasses.asdict(model.config)}
    card = {"name": folder.name, "task": entry.task, "licence": entry.licence, "paper": entry.paper, **card}
    card["parameters"] = sum(p.numel() for p in model.parameters())
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as problem:  # no right to, or a name too long for a longer one beside it
        raise TsfmError(f"{folder} cannot be made ({problem.strerror}): give another folder to save to") from None
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
    folder = given(folder, "a model folder")
    _restore(folder)
    config = read_json(folder / "config.json")
    tensors = _tensors(folder)
    with readable(folder, tensors):
        if "model" in config:
            entry = _entry(config["model"])
            model = build(entry.name, config.get("config", {}))
            fill(model, tensors, folder)
        else:
            maps = [import_module(f"{__name__}.{name}") for name in OFFICIAL]
            home = next((m for m in maps if m.is_official(config)), None)
            if home is None:
                said = config.get("architectures") or config.get("model_type") or "no model"
                expected = f"one of {', '.join(MODELS)} or an official layout of one of them"
                raise TsfmError(f"{folder}/config.json names {said}, expected {expected}")
            model = home.from_official(config, tensors)
    model.card = read_json(folder / "card.json") if (folder / "card.json").exists() else {"name": folder.name, "licence": "see its source"}
    return model.to(device).eval()


def fill(model: nn.Module, tensors: Mapping[str, Tensor], source: str | Path = "the checkpoint") -> None:
    """Copy tensors into a model after checking that they are exactly its own: names, shapes, and numbers of the same kind."""
    state = model.state_dict()
    wrong = {
        "missing": sorted(set(state) - set(tensors)),
        "unexpected": sorted(set(tensors) - set(state)),
        "of another shape": [f"{n} {list(tensors[n].shape)} for {list(t.shape)}" for n, t in state.items()
                             if n in tensors and tensors[n].shape != t.shape],
        "of another kind": [f"{n} {tensors[n].dtype} for {t.dtype}" for n, t in state.items()
                            if n in tensors and _kind(tensors[n]) != _kind(t)],
    }  # fmt: skip
    said = [f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" for kind, names in wrong.items() if names]
    if said:
        raise TsfmError(f"{source} does not fit {type(model).__name__}: tensors {'; '.join(said)}: do config and weights belong together?")
    model.load_state_dict({name: tensor.to(state[name].dtype) for name, tensor in tensors.items()})


@contextlib.contextmanager
def readable(folder: Path, tensors: Mapping[str, Tensor] | None = None) -> Iterator[None]:
    """Whatever goes wrong while a model is made of a folder is one sentence, and none is made that is far larger than its `tensors`.

    A config may ask for a thousand times the memory there is; parameters are counted before they are filled with numbers.
    """
    room = None if tensors is None else ROOM + 4 * sum(t.numel() for t in tensors.values())

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal room
        room -= 0 if parameter is None else parameter.numel() + 1
        if room < 0:
            raise TsfmError(f"{folder}: its config asks for a model far larger than its tensors: do config and weights belong together?")

    hook = None if tensors is None else register_module_parameter_registration_hook(count)
    try:
        yield
    except TsfmError:
        raise
    except Exception as problem:
        said = (str(problem).splitlines() or [""])[0][:200]
        raise TsfmError(f"{folder} cannot be made into a model ({type(problem).__name__}: {said}): fetch or save it again") from problem
    finally:
        if hook is not None:
            hook.remove()


def _entry(name: Any) -> Entry:
    if not isinstance(name, str) or name not in MODELS:
        raise TsfmError(f"no architecture named {name!r}, there are {', '.join(MODELS)}{nearest(str(name), MODELS)}")
    return MODELS[name]


def _config(entry: Entry, fields: Any) -> Any:
    kind = entry.config_class()
    known = {f.name: f.type for f in dataclasses.fields(kind)}
    if not isinstance(fields, Mapping):
        raise TsfmError(f"{entry.config_cls} is made of an object with its fields, got {fields!r:.60}")
    fields = {name: _tuples(value) for name, value in fields.items()}
    for name, value in fields.items():
        if name not in known:
            raise TsfmError(f"{entry.config_cls} has no field {name!r}{nearest(str(name), known)}")
        if not _fits(value, known[name]):
            said = known[name].__name__ if isinstance(known[name], type) else known[name]
            raise TsfmError(f"{entry.config_cls}: {name} should be {said} (numbers finite, whole ones up to {LARGEST}), got {value!r:.60}")
    return kind(**fields)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value that came as JSON is what a field is declared as."""
    inner = get_args(kind)
    if get_origin(kind) in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if get_origin(kind) is tuple:
        wanted = inner[:1] * len(value) if isinstance(value, tuple) and inner[-1] is ... else inner
        return isinstance(value, tuple) and len(value) == len(wanted) and all(map(_fits, value, wanted))
    if kind in (int, float):
        number = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
        return number and math.isfinite(value) and (kind is float or abs(value) <= LARGEST)
    return isinstance(value, kind)


def _card(card: Any) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(dict(card or {})))
    except (TypeError, ValueError) as problem:
        raise TsfmError(f"a card is a dict that JSON can hold, got {card!r:.60} ({problem})") from None


def _restore(folder: Path) -> None:
    """A save that was killed between taking the old folder away and putting the new one there is undone."""
    if not folder.exists():
        for old in folder.parent.glob(f".{glob.escape(folder.name)}-*/old"):
            with contextlib.suppress(OSError):
                old.rename(folder)
                old.parent.rmdir()


def _kind(tensor: Tensor) -> str:
    return "complex" if tensor.is_complex() else "float" if tensor.is_floating_point() else "bool" if tensor.dtype == torch.bool else "int"


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
    return {name: tensor for file in files for name, tensor in read_tensors(file).items()}


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; what the header says is checked against the file before anything is read."""
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
    except Exception as problem:  # its own error, or whatever torch makes of a kind of number it does not know
        said = (str(problem).splitlines() or [""])[0][:200]
        raise TsfmError(f"{file} is damaged or cut short ({said}): fetch or save it again") from None
