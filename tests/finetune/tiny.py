"""Tiny backbones, series and budgets of these tests."""

from dataclasses import replace

import numpy as np
import torch

from tsfm_lib import checkpoints
from tsfm_lib.finetune import Budget, Design, MultiScale, target
from tsfm_lib.models.chronos_bolt import ChronosBoltConfig
from tsfm_lib.models.moirai import MoiraiConfig
from tsfm_lib.models.moment import MomentConfig
from tsfm_lib.models.timesfm import TimesFMConfig
from tsfm_lib.models.units import UniTSConfig

CONFIGS = {
    "moirai": replace(MoiraiConfig.tiny(), patch=8, patch_sizes=(8,), width=16, head_width=8),
    "moment": MomentConfig.tiny(),
    "units": replace(UniTSConfig.tiny(), prompts=2),
}
BACKBONES = tuple(CONFIGS)  # the encoders
BEYOND = {
    "timesfm": replace(TimesFMConfig.tiny(), horizon=16, spread_horizon=None, mean=False, asinh=True, gaps="mask"),
    "chronos-bolt": replace(ChronosBoltConfig.tiny(), horizon=16, encoder_layers=2, decoder_layers=2, asinh=True),
}
CONFIGS |= BEYOND
MSFT = Design(scales=2, adapters="own", lora="own", rank=2, aggregate="both", head="own")
CONTEXT, HORIZON = 64, 16
BRIEF = Budget(steps=4, batch=4, rates=1, every=2, count=8)


def made(name, seed=0, **changes):
    """With learned tokens that are not zero."""
    model = checkpoints.build(name, replace(CONFIGS[name], **changes), seed).eval()
    g = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1, generator=g)
    return model


def tuned(name, design=MSFT, context=CONTEXT, horizon=HORIZON, noise=0.0, seed=0, **options):
    """`noise`: everything that starts at zero is moved away from there, as training would."""
    module = MultiScale(made(name), design, context, horizon, seed, **options).eval()
    g = torch.Generator().manual_seed(seed)
    for part in (module.loras, module.c2f, module.f2c, module.adapters):
        for parameter in part.parameters():
            parameter.data += noise * torch.randn(parameter.shape, generator=g)
    return module


def series(b=3, v=1, steps=CONTEXT, seed=0):
    return torch.randn(b, v, steps, generator=torch.Generator().manual_seed(seed)).cumsum(-1)


def waves(steps=600, variates=2, seed=0):
    rng, t = np.random.default_rng(seed), np.arange(steps)
    return np.sin(2 * np.pi * (t / 12 + rng.random((variates, 1)))) + 0.1 * rng.standard_normal((variates, steps))


def daily(context=CONTEXT, horizon=HORIZON, **options):
    return target(waves(), context, horizon, count=8, tested=8, **options)
