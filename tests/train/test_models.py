"""Every architecture of the register goes through the loop, and a resume of the real thing is as exact as that of a toy."""

import pytest
import torch

from tests.train.toys import Waves, recipe
from tsfm_lib import checkpoints
from tsfm_lib.models import MODELS
from tsfm_lib.train import fit


def tiny(name):
    return checkpoints.build(name, MODELS[name].config_class().tiny(), seed=0)


@pytest.mark.parametrize("name", MODELS)
def test_architectures_train_and_resume_exactly(name, tmp_path):
    class Gapped(Waves):
        stop = None

        def __call__(self, step):
            if step == self.stop:
                raise KeyboardInterrupt
            x = super().__call__(step)
            x[::2, :, :20] = torch.nan
            return x

    of = recipe(steps=6, checkpoint_every=2, warmup=2)
    straight = fit(tiny(name), Gapped(length=80), of, progress=False)
    broken = Gapped(length=80)
    broken.stop = 5
    with pytest.raises(KeyboardInterrupt):
        fit(tiny(name), broken, of, folder=tmp_path, progress=False)
    resumed = fit(tiny(name), Gapped(length=80), of, folder=tmp_path, progress=False)
    ours, theirs = straight.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert straight.curve["loss"].notna().all() and any(not torch.equal(ours[k], v) for k, v in tiny(name).state_dict().items())
    use = resumed.model.embed if not hasattr(resumed.model, "predict_quantiles") else lambda x: resumed.model.predict_quantiles(x, 8, [0.5])
    assert use(Gapped(length=64)(0)).isfinite().all()
