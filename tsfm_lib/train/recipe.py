"""A recipe: everything that decides the bytes of a trained model, in one frozen dataclass that survives JSON."""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Real
from typing import Any

from tsfm_lib.errors import TsfmError, nearest

PRECISIONS = ("float32", "bf16")
Number = float | int                        # stored as float


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise TypeError
    return float(value)


def _whole(value: Any) -> int:
    if _number(value) % 1:
        raise TypeError
    return int(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


# the types a field may be declared with, what they are called, and how a value is brought into its one stored form (10 -> 10.0 minutes)
_READERS: tuple[tuple[tuple, str, Callable[[Any], Any]], ...] = (
    ((int, int | None), "a whole number", _whole),
    ((Number, Number | None), "a number", _number),
    ((str,), "text", _text),
    ((dict,), "a dictionary that JSON can hold", lambda value: json.loads(json.dumps(dict(value)))),        # tuples become lists
    ((Sequence[Number],), "two numbers in 0..1", lambda value: tuple(_number(v) for v in value)),
)


@dataclass(frozen=True)
class Recipe:
    """One training run. Give `steps` or `minutes`, never both.

    >>> recipe = Recipe("demo", "patchtst", {"width": 64}, steps=1000)
    >>> Recipe.from_json(recipe.to_json()) == recipe
    True
    """

    name: str
    model: str                              # an architecture that `checkpoints.build` knows
    config: dict = field(default_factory=dict)
    seed: int = 0
    steps: int | None = None
    minutes: Number | None = None            # becomes a step count after 50 timed steps
    batch: int = 64                         # over all ranks together
    context: int = 512
    horizon: int = 96
    # optimiser: Muon for the 2-D weights whose names match `matrices`, AdamW for everything else
    matrices: str = r"(^|\.)(layers|blocks|encoder|decoder)\.\d+\."
    matrix_rate: Number = 3e-3
    rate: Number = 1.5e-3
    momentum: Number = 0.95
    betas: Sequence[Number] = (0.9, 0.98)
    weight_decay: Number = 0.01
    clip: Number = 1.0
    warmup: int = 200
    final_fraction: Number = 0.02            # of the peak rate, reached at the last step
    cycles: int = 1                         # how often the rate comes down, in equal parts of the steps; then it starts at its peak again
    ema: Number = 0.998                      # cap of the decay; min(ema, 1 - 1 / (step / 4 + 2)) while young; 0 = no average
    precision: str = "float32"
    # data
    mixture: str = "final"                  # a named mixture of tsfm_lib.synth, or a variant of CauKer for an encoder (horizon 0)
    pool: int = 100_000                     # series generated before the first step
    augment: Number = 0.6                    # share of batches that are augmented
    coarse: Number = 0.0                     # share of batches whose series are means of blocks of 2, 4 or 8 steps
    # keeping books
    checkpoint_every: int = 500
    log_every: int = 10                     # losses are read from the device, judged and written in groups of this many steps
    diverged_factor: Number = 3.0            # see watch.Watch
    diverged_steps: int = 50
    notes: str = ""

    def __post_init__(self):
        for f in fields(self):
            value = getattr(self, f.name)
            if value is None and f.default is None:
                continue
            kind, read = next((said, how) for (types, said, how) in _READERS if f.type in types)
            try:
                object.__setattr__(self, f.name, read(value))
            except (TypeError, ValueError, OverflowError):
                raise TsfmError(f"recipe {self.name}: {f.name} should be {kind}, got {value!r}") from None
        self._check()

    def _check(self) -> None:
        refuse = lambda what: TsfmError(f"recipe {self.name}: {what}")
        if (self.steps is None) == (self.minutes is None):
            raise refuse(f"give a budget of either steps or minutes, got steps={self.steps} and minutes={self.minutes}")
        for name in ("steps", "minutes", "batch", "context", "pool", "clip", "checkpoint_every", "log_every", "rate",
                     "matrix_rate", "diverged_steps", "cycles"):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise refuse(f"{name} should be above 0, got {value}")
        for name, low, high in (("horizon", 0, 2**31), ("seed", 0, 2**63), ("warmup", 0, 2**31), ("weight_decay", 0, 1), ("augment", 0, 1),
                                ("coarse", 0, 1),
                                ("final_fraction", 0, 1), ("ema", 0, 0.999999), ("momentum", 0, 0.999999),
                                ("diverged_factor", 1.000001, 1e9)):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high:
                raise refuse(f"{name} should lie in {low}..{high}, got {value}")
        if len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas):
            raise refuse(f"betas should be two numbers in 0..1, got {self.betas}")
        if self.precision not in PRECISIONS:
            close = nearest(self.precision, PRECISIONS)
            raise refuse(f"precision is one of {', '.join(PRECISIONS)}, got {self.precision!r}{close}")
        try:
            re.compile(self.matrices)
        except re.error as error:
            raise refuse(f"matrices should be a regular expression over parameter names, got {self.matrices!r} ({error})") from None

    def with_budget(self, steps: int | None = None, minutes: Number | None = None) -> "Recipe":
        """The same recipe with another budget; without arguments the recipe itself."""
        if steps is None and minutes is None:
            return self
        return replace(self, steps=steps, minutes=minutes)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            raise TsfmError(f"a recipe should be JSON, got text that breaks off at {where}: {error.msg}") from None
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets within brackets
            raise TsfmError(f"a recipe should be JSON, got text that cannot be read as such ({error})") from None
        if not isinstance(values, dict):
            raise TsfmError(f"a recipe should be a JSON object of fields, got a {type(values).__name__}: write {{\"name\": ..., ...}}")
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        known = [f.name for f in fields(cls)]
        for name in values:
            if name not in known:
                raise TsfmError(f"a recipe has no field {name!r}{nearest(name, known)}")
        missing = [name for name in ("name", "model") if name not in values]
        if missing:
            raise TsfmError(f"a recipe needs the fields name and model, missing here: {', '.join(missing)}")
        return cls(**values)


def differences(a: Recipe, b: Recipe) -> str:
    """The fields in which two recipes differ, for an error message; notes do not count.

    >>> differences(Recipe("a", "m", steps=5), Recipe("a", "m", steps=7))
    'steps 5 / 7'
    """
    x, y = asdict(a), asdict(b)
    return ", ".join(f"{k} {x[k]} / {y[k]}" for k in x if x[k] != y[k] and k != "notes")
