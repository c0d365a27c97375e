"""Tiny random models in a folder, under the names that the notebooks look for."""

from dataclasses import replace

import torch

from tsfm_lib import checkpoints
from tsfm_lib.models import MODELS

NAMES = {"chronos-t5-nano": "chronos-t5", "chronos-bolt-nano": "chronos-bolt", "timesfm-nano": "timesfm", "timesfm-nano-1": "timesfm",
         "timesfm-nano-half": "timesfm", "toto-nano": "toto", "moirai-nano": "moirai"}  # fmt: skip
SIZES = {"timesfm": {"layers": 3, "horizon": 48}, "toto": {"layers": 3, "space_every": None}, "moirai": {"layers": 3},
         "chronos-bolt": {"horizon": 48}}  # fmt: skip


def folder(path, names=NAMES):
    for seed, (name, architecture) in enumerate(names.items()):
        config = replace(MODELS[architecture].config_class().tiny(), **SIZES.get(architecture, {}))
        model = checkpoints.build(architecture, config, seed)
        with torch.no_grad():
            for p in model.parameters():  # fresh weights say nearly nothing in some models
                p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed)))
        checkpoints.save(model, path / name)
    return str(path)
