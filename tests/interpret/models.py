"""Every architecture of the register that has heads, in its tiny size, and what is run on it."""

import torch

from tests.test_every_model import get, series
from tsfm_lib.models import MODELS

ATTENTIVE = [name for name in MODELS if get(name).sites()]
LEVELS = [0.1, 0.5, 0.9]

close = lambda a, b, atol=1e-5: torch.testing.assert_close(a, b, atol=atol, rtol=1e-5)


def setting(name, b=3, v=2, horizon=7):
    """A model, a run over series and the series."""
    model, x = get(name), series(b=b, v=v, name=name)
    return model, running(model, horizon), x


def running(model, horizon=7):
    """Series to quantiles, embeddings, or parameters of a distribution: quantiles of a mixture cost more than all the rest of a test."""
    if type(model).__name__ in ("Moirai", "Toto"):
        ask = (lambda x: model.distribution(x, horizon)) if type(model).__name__ == "Moirai" else model.distribution

        @torch.no_grad()
        def parameters(x):
            mixture = ask(x)
            return torch.cat([mixture.families[0].loc, mixture.logits], dim=-1)

        return parameters
    if hasattr(model, "predict_quantiles"):
        return lambda x: model.predict_quantiles(x, horizon, LEVELS)
    return model.embed


def hooks(model):
    """How many hooks a model carries, and which of its modules have a forward of their own."""
    return [(len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in vars(m)) for m in model.modules()]
