"""How many scales? Chosen before training, by what the pretrained model says at each of them.

The frozen model forecasts the validation windows at the original and at up to four coarser scales; for each K the forecasts of scales
0 ... K are stacked by least squares on every other window and judged on the rest. The smallest K within one per cent of the best is taken:
a scale at which the model knows nothing new is not worth its tokens.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from tsfm_lib.evaluate.forecasting import at_work
from tsfm_lib.finetune.design import EVERY_SITE, Design, trainable
from tsfm_lib.finetune.mixing import stacked
from tsfm_lib.finetune.multiscale import MultiScale
from tsfm_lib.finetune.targets import Target

SLACK = 0.01


def scale_points(module: MultiScale, contexts: Float[np.ndarray, "N V C"], batch: int = 128) -> Float[np.ndarray, "S N V H"]:
    """The median of every scale on the original steps."""
    with at_work(module) as own:
        parts = [module.by_scale(torch.as_tensor(contexts[i : i + batch], **own), (0.5,))[..., 0] for i in range(0, len(contexts), batch)]
    return torch.cat(parts, dim=1).double().cpu().numpy()


def scale_errors(model: nn.Module, data: Target, most: int = 4) -> Float[np.ndarray, " K"]:
    """Mean squared error of the stacked forecasts of scales 0 ... K, for each K that leaves two patches of context."""
    most = max(k for k in range(most + 1) if data.context >> k >= 2 * model.config.patch or k == 0)
    module = MultiScale(model, Design(scales=most, train="new", head="own"), data.context, data.horizon, together=data.together)
    points, future = scale_points(module, data.val.contexts), data.val.futures
    seen, judged = (slice(start, None, 2) if len(future) > 1 else slice(None) for start in (0, 1))

    def error(k: int) -> float:
        weights = stacked(points[: k + 1, seen], future[seen])
        mixed = np.einsum("s,snvh->nvh", weights, points[: k + 1, judged])
        return float(np.nanmean((mixed - future[judged]) ** 2))

    return np.array([error(k) for k in range(most + 1)])


def choose_scales(model: nn.Module, data: Target, most: int = 4) -> int:
    """The smallest K that is nearly as good as the best."""
    errors = scale_errors(model, data, most)
    return int(np.argmax(errors <= (1 + SLACK) * errors.min()))


def matched(model: nn.Module, design: Design, context: int, horizon: int) -> Design:
    """One scale with about as many trained parameters as `design`: low-rank pairs at all projections, their rank as high as it takes."""
    count = lambda d: trainable(MultiScale(model, d, context, horizon))
    one = lambda rank: Design(**{**vars(design), "scales": 0, "aggregate": "none", "sites": EVERY_SITE, "rank": rank})
    least, slope = count(one(1)), count(one(2)) - count(one(1))
    return one(max(1, 1 + round((count(design) - least) / slope)))
