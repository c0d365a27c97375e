"""Fine-tuning: zero-shot, probe, prompt, LoRA, AdaLoRA, full, from scratch, MSFT; one function, one fairness rule.

    tuned = tsfm_lib.finetune("moirai-nano", frame, horizon=24)           # your series in, a forecaster out
    python -m tsfm_lib.finetune --model moirai-nano --data ETTm1 --method msft --horizon 96 --budget quick

>>> from tsfm_lib import finetune
>>> sorted(finetune.METHODS)
['adalora', 'full', 'lora', 'msft', 'probe', 'prompt', 'scratch', 'zero-shot']
"""

import sys
from importlib import import_module
from types import ModuleType

from tsfm_lib.lazy import attach

_HOME = {
    "Design": "design", "Method": "design", "METHODS": "design", "variation": "design", "trainable": "design",
    "MultiScale": "multiscale", "Target": "targets", "target": "targets", "planted": "targets",
    "Budget": "tuning", "BUDGETS": "tuning", "Tuned": "tuning", "fit": "tuning", "search": "tuning",
    "choose_scales": "choosing", "scale_errors": "choosing", "scale_points": "choosing", "matched": "choosing",
    "save": "saving", "load": "saving",
}  # fmt: skip
_ROOMS = ("joined", "mixing", "scales", "choosing", "tuning")
__all__ = [*_HOME, *_ROOMS]
__getattr__, __dir__ = attach(__name__, _HOME, _ROOMS)


class _Room(ModuleType):
    """This package is also a function: `tsfm_lib.finetune(model, data, horizon)`."""

    def __call__(self, *arguments, **options):
        return import_module("tsfm_lib.finetune.front").finetune(*arguments, **options)


sys.modules[__name__].__class__ = _Room
