"""A decoder and a token model on the corpora of encoders: they learn from them, and their features are read as others are."""

import pytest

from tsfm_lib.experiments.cauker import encoders, objectives


@pytest.mark.parametrize("objective", objectives.OBJECTIVES)
def test_training_moves_the_features_and_every_corpus_starts_from_the_same_weights(objective, monkeypatch):
    monkeypatch.setattr(encoders, "unlabelled", lambda length=encoders.LENGTH: encoders.corpus("cauker", 40, seed=7)[:, None])
    size = {"n": 40, "steps": 2, "few": 1}
    monkeypatch.setattr(encoders, "development", lambda few=False: encoders.EMBEDDED)
    found = {name: objectives.trial(objective, name, 0, **size) for name in ("random-weights", "cauker")}
    assert [row["readout"] for row in found["cauker"]] == ["forest", "whitened_forest", "ridge"]
    assert all(row["loss"] > 0 for row in found["cauker"]) and all(0 <= row["accuracy"] <= 1 for rows in found.values() for row in rows)
    again = objectives.trial(objective, "random-weights", 0, **size)
    assert [row["accuracy"] for row in again] == [row["accuracy"] for row in found["random-weights"]]
