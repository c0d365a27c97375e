"""Several channels: what is together in a sample, what the control takes apart, and what the loss sees."""

import numpy as np
import pandas as pd
import pytest
import torch

from tsfm_lib.experiments.cauker import channels, encoders
from tsfm_lib.nn.objectives import info_nce
from tsfm_lib.synth import cauker


def test_a_sample_holds_nodes_of_one_graph_and_the_control_holds_the_same_series_apart():
    x, raw = channels.samples(30, 3), cauker.generate(120, encoders.LENGTH, 3)
    scaled = (raw - raw.mean(1, keepdims=True)) / np.maximum(raw.std(1, keepdims=True), 1e-9)
    first = next(k for k in range(30) if (raw[4 * k : 4 * k + 4].std(1) > 1e-4).all())
    np.testing.assert_allclose(x[0], scaled[4 * first : 4 * first + 4], atol=1e-3)
    mixed = channels.shuffled(x)
    assert sorted(map(bytes, mixed.reshape(-1, encoders.LENGTH))) == sorted(map(bytes, x.reshape(-1, encoders.LENGTH)))
    assert all(not (row == other).all() for row, other in zip(mixed[:, 1], x[:, 1]))


def test_samples_find_each_other_by_the_mean_of_their_channels():
    net, batch = encoders.untrained("mantis", 0), torch.from_numpy(channels.samples(12, 0))
    loss = channels.as_samples(net, batch, torch.Generator().manual_seed(1))
    one, other = net.views(batch.flatten(0, 1), torch.Generator().manual_seed(1))
    by_hand = [torch.stack([net.project(view)[4 * k : 4 * k + 4].mean(0) for k in range(len(batch))]) for view in (one, other)]
    torch.testing.assert_close(loss, info_nce(*by_hand, net.config.temperature, net.config.symmetric))


@pytest.mark.parametrize("variant", ["", channels.RANDOM, "apart", "together"])
def test_every_arm_gives_rows(variant):
    rows = channels.trial(variant, 0, n=40, steps=2, sets=encoders.EMBEDDED)
    assert list(rows) == ["dataset", "variant", "readout", "accuracy"] and rows["accuracy"].between(0, 1).all()
    assert set(rows["readout"]) >= ({"forest", "ridge"} if not variant else set(channels.READOUTS))


def test_gains_pair_seeds():
    rows = pd.DataFrame([{"variant": name, "readout": how, "seed": seed, "accuracy": 0.5 + more + 0.01 * seed}
                         for name, more in ((channels.RANDOM, 0), ("apart", 0.1), ("shuffled", 0.05), ("together", 0.2))
                         for how in channels.READOUTS for seed in range(3)])  # fmt: skip
    found = channels.gains(rows)
    assert found.loc[("ridge", "apart"), "points"] == 10 and found.loc[("forest", channels.RANDOM), "points"] == 20
    assert (found["seeds"] == 3).all() and channels.table(rows).loc["together", "forest"] == 71.0
