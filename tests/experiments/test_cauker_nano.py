"""The comparison on the whole suite: which runs it holds, and that gaps and tables are the arithmetic they say."""

import numpy as np
import pandas as pd
import pytest
import torch

from tsfm_lib.experiments.cauker import nano

SETS = ["trace-embedded"]


def test_every_seed_has_a_partner_with_random_weights_and_cheap_methods_run_once():
    cells = nano.cells({"mantis-nano": (0, 1, 2), "moment-nano": (0,)})
    runs = {weights: {(c["model"], c["seed"]) for c in cells if c["weights"] == weights} for weights in (nano.TRAINED, nano.RANDOM)}
    assert runs[nano.TRAINED] == runs[nano.RANDOM] and len(runs[nano.TRAINED]) == 4 and len(cells) == 9
    assert cells[-1]["model"] == nano.CHEAP and all(cell["sets"] == [] for cell in cells)


def test_random_weights_are_the_start_of_training():
    start, trained = nano.encoder("mantis-nano", nano.RANDOM, 7), nano.encoder("mantis-nano", nano.TRAINED, 7, steps=2)
    moved = [not torch.equal(a, b) for a, b in zip(start.parameters(), trained.parameters())]
    assert any(moved) and max(float((a - b).detach().abs().max()) for a, b in zip(start.parameters(), trained.parameters())) < 0.01


def test_cells_give_rows_of_one_shape():
    rows = [nano.suite_trial(**cell) for cell in nano.cells({"mantis-nano": (3,)}, SETS, steps=2)]
    assert all(list(part.columns) == ["dataset", "model", "readout", "seed", "accuracy", "unit"] for part in rows)
    assert [len(part) for part in rows[:2]] == [3, 3] and set(rows[0]["readout"]) == set(nano.READOUTS)
    assert {"forest", "ridge", "1nn-euclidean", "1nn-dtw-10%"} == set(rows[2]["readout"]) and "random kernels" in set(rows[2]["model"])
    assert pd.concat(rows)["accuracy"].between(0, 1).all()


@pytest.fixture
def rows():
    rng, found = np.random.default_rng(0), []
    for dataset in range(30):
        level = rng.uniform(0.5, 0.8)
        for seed in range(4):
            for weights, more in ((nano.TRAINED, 0.03), (nano.RANDOM, 0.0)):
                found.append({"dataset": f"d{dataset}", "model": "m", "weights": weights, "readout": "forest", "seed": seed,
                              "accuracy": level + more + rng.normal(0, 0.01)})  # fmt: skip
        found += [{"dataset": f"d{dataset}", "model": "raw values", "weights": "", "readout": how, "seed": 0, "accuracy": level - less}
                  for how, less in (("forest", 0.02), ("1nn-euclidean", 0.1))]  # fmt: skip
    return pd.DataFrame(found)


def test_gaps_are_paired_and_in_points(rows):
    found = nano.gaps(rows).set_index("over")
    assert found.loc["dataset", "units"] == 30 and found.loc["seed", "units"] == 4
    assert found["points"].nunique() == 1 or np.ptp(found["points"]) < 1e-9
    assert (found["low"] > 2).all() and (found["high"] < 4).all()
    bar = nano.bars(nano.gaps(rows), "model", "readout", "over")["m, forest, seed"]
    assert (bar.estimate, bar.low, bar.high, bar.n) == tuple(found.loc["seed", ["points", "low", "high", "units"]])


def test_rivals_without_pretraining_are_named_with_their_readout(rows):
    found = nano.over_cheap(rows).set_index("rival")["points"]
    assert found["raw values, forest"] == pytest.approx(5, abs=0.5) and found["raw values, 1nn-euclidean"] == pytest.approx(13, abs=0.5)
    recorded = rows.assign(weights=rows["weights"].replace("", None))
    pd.testing.assert_frame_equal(nano.over_cheap(recorded).set_index("rival")[["points"]], found.to_frame())
    pd.testing.assert_frame_equal(nano.gaps(recorded), nano.gaps(rows))
    table = nano.table(recorded)
    assert list(table.columns) == ["forest", "1nn-euclidean"] and list(table.index)[:2] == ["m, trained", "m, random weights"]
    assert table.loc["raw values", "forest"] - table.loc["raw values", "1nn-euclidean"] == pytest.approx(8)
