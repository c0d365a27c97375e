"""A parrot is caught parroting, a mean is not; seasons are found where they are."""

import numpy as np
import pytest
import torch

from tests.interpret.models import close
from tsfm_lib import interpret
from tsfm_lib.errors import TsfmError
from tsfm_lib.synth import planted


def test_the_parrot_repeats_what_followed_the_nearest_stretch():
    x = torch.randn(3, 2, 40, generator=torch.Generator().manual_seed(0))
    x[0, 0, 5] = torch.nan
    for normalise in (False, True):
        said = interpret.Parrot(6, normalise).predict_quantiles(x, 50, [0.1, 0.9])
        assert said.shape == (3, 2, 50, 2) and torch.equal(said[..., 0], said[..., 1])
        for row, forecast in zip(x.nan_to_num(nan=9.0).flatten(0, 1)[1:], said.flatten(0, 1)[1:, :, 0]):
            z = lambda s: (s - s.mean()) / s.std(correction=0) if normalise else s  # noqa: B023
            distances = [(z(row[i : i + 6]) - z(row[-6:])).square().sum() for i in range(34)]
            i = int(torch.stack(distances).argmin())
            path = list(row)
            for step in range(50):
                path.append(path[i + 6 + step])
            copy = torch.stack(path[40:])
            if normalise:
                known = row[i : i + 6]
                again = [(v - known.mean()) / known.std(correction=0) * row[-6:].std(correction=0) + row[-6:].mean() for v in row[i + 6 :]]
                copy = torch.stack([again[step % len(again)] for step in range(50)])
            close(forecast, copy, 1e-4)
    with pytest.raises(TsfmError, match="no earlier stretch of 40"):
        interpret.Parrot(40).predict_quantiles(x, 5, [0.5])


@pytest.mark.parametrize("broken", [True, False])
def test_the_gap_shows_who_copies(broken):
    made = planted.motifs(60, 128, 32, 32, broken=broken)
    context = torch.tensor(made.series[:, None, : made.context])
    parrot = interpret.Parrot(32).predict_quantiles(context, 32, [0.5])[:, 0, :, 0]
    mean = np.zeros_like(made.copy)
    copied, hedged = interpret.parrot_gap(parrot, made), interpret.parrot_gap(mean, made)
    assert copied.to_copy.mean() < 0.08 and (hedged.agreement == 0).all()
    if broken:
        assert copied.gap.mean() > 0.8 and abs(hedged.gap.mean()) < 0.1 and copied.agreement.mean() > 0.6
    else:
        assert abs(copied.gap.mean()) < 0.08 and abs(copied.agreement.mean()) < 0.05
    np.testing.assert_allclose(copied.gap, copied.to_truth - copied.to_copy)
    with pytest.raises(TsfmError, match=r"expected forecasts of \(60, 32\)"):
        interpret.parrot_gap(parrot[:, :8], made)


def test_seasonal_power_is_found_at_its_period_and_biases_have_their_sign():
    kept, gone, new = (planted.seasons(80, 96, 48, 12, after=after, noise=0.1) for after in ("same", None, 8))
    truth = {name: made.series[:, 96:] for name, made in (("kept", kept), ("gone", gone), ("new", new))}
    power = {name: interpret.seasonal_power(y, [12, 8]).mean(0) for name, y in truth.items()}
    np.testing.assert_allclose(power["kept"], [1, 0], atol=0.06)
    np.testing.assert_allclose(power["new"], [0, 1], atol=0.06)
    assert power["gone"][0] < 0.3
    stubborn = truth["kept"]  # goes on as before
    assert interpret.seasonal_bias(stubborn, truth["new"], [12]).mean() > 0.9
    assert abs(interpret.seasonal_bias(stubborn, truth["kept"], [12]).mean()) < 1e-9
    assert interpret.seasonal_bias(0 * stubborn, truth["kept"], [12]).mean() < -0.9
    scaled = interpret.seasonal_bias(2 * stubborn, 2 * truth["new"], [12], np.full(80, 2.0))
    np.testing.assert_allclose(scaled, interpret.seasonal_bias(stubborn, truth["new"], [12]), atol=1e-6)
    with pytest.raises(TsfmError, match="5 steps or more"):
        interpret.seasonal_power(np.zeros(4), [2])
