"""What holds for every forecaster that ships."""

import numpy as np
import pytest
import torch

import tsfm_lib
from tsfm_lib.models.listing import forecasters

LENGTHS = (24, 40, 48, 64, 96, 160, 300, 512)
ALLOWED = {"units-nano": {"trends": 3.5}}  # squared errors of noisy series drown those of clean trends, whose slope it overshoots


@pytest.mark.parametrize("name", forecasters())
def test_no_length_of_context_is_foreign_to_a_shipped_forecaster(name):
    """Random walks and noisy trends: never much worse than the last value, whether the context fills patches or not."""
    model, rng = tsfm_lib.load(name), np.random.default_rng(0)
    for length in LENGTHS:
        steps = rng.standard_normal((2, 96, 1, length + 8))
        walks, trends = np.cumsum(steps[0], -1), 0.1 * np.arange(length + 8) + 0.1 * steps[1]
        for kind, x, usual in (("walks", walks, 1.8), ("trends", trends, 1.5)):
            allowed = ALLOWED.get(name, {}).get(kind, usual)
            context, future = torch.from_numpy(x).split([length, 8], dim=-1)
            error = (model.predict_quantiles(context, 8, [0.5])[..., 0] - future).abs().mean().item()
            last_value = (context[..., -1:] - future).abs().mean().item()
            assert error <= allowed * last_value, f"{kind} of {length} points"
