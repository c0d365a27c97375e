"""Corpora, small trainings and frozen scores are what the rows of notebook 32 say they are, and the rules can read these rows."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from tsfm_lib import claims, data
from tsfm_lib.errors import TsfmError
from tsfm_lib.evaluate.classification import features
from tsfm_lib.experiments.cauker import encoders, pictures, pretraining
from tsfm_lib.synth.cauker import CauKerConfig

HAVE = all(data.available(name) for name in (*encoders.UEA, *encoders.FORECASTING, *encoders.DEVELOPMENT))
needs_archives = pytest.mark.skipif(not HAVE, reason="the UCR, UEA and forecasting sets are not on this machine")


@pytest.fixture(autouse=True)
def smallest(monkeypatch):
    """One set, and little to whiten on."""
    few = encoders.unlabelled(n=96)
    monkeypatch.setattr(encoders, "development", lambda few=False: encoders.EMBEDDED)
    for module in (encoders, pretraining):
        monkeypatch.setattr(module, "unlabelled", lambda length=256: few)


# -- corpora --


@pytest.mark.parametrize("name", pretraining.RIVALS)
def test_a_small_corpus_is_the_beginning_of_a_large_one(name):
    small, large = encoders.corpus(name, 40, seed=3), encoders.corpus(name, 90, seed=3)
    assert 30 < len(small) <= 40 and np.array_equal(small, large[: len(small)])


def test_series_have_mean_0_and_deviation_1_and_another_seed_gives_others():
    x = encoders.corpus("cauker", 60, seed=1)
    assert np.allclose(x.mean(1), 0, atol=1e-4) and np.allclose(x.std(1), 1, atol=1e-4) and x.dtype == np.float32
    assert not np.array_equal(x[:40], encoders.corpus("cauker", 60, seed=2)[:40])


def test_a_twentieth_is_a_twentieth():
    whole, part = (pretraining.series_of(name, 400, 5) for name in ("cauker", "cauker-twentieth"))
    assert len(part) <= 20 and np.array_equal(part, whole[: len(part)])


def test_corpora_without_a_graph_differ_in_their_means_only():
    """A root without a mean is the same sample of the same kernel."""
    with_means, without = (encoders.corpus(name, 60, seed=0) for name in ("mean-kernelsynth", "kernelsynth"))
    equal = [any(np.allclose(a, b, atol=1e-4) for b in without) for a in with_means]
    assert 0.1 < np.mean(equal) < 0.9                               # a quarter of the means vanish, straight levels do not count either


def test_another_generator_can_be_given_and_unknown_names_are_refused():
    assert len(encoders.corpus("constant means", 20, config=CauKerConfig(means=("linear",)))) > 10
    with pytest.raises(TsfmError, match="did you mean 'cauker'"):
        encoders.corpus("causer", 20)
    with pytest.raises(TsfmError, match="mantis, moment"):
        encoders.small("mantiss")


@needs_archives
def test_real_corpora_keep_their_order_and_their_shares():
    small, large = (encoders.real(n, 64, 0, encoders.REAL["real+ucr"]) for n in (50, 200))
    assert np.array_equal(small, large[:50]) and np.isfinite(large).all()
    uea, both = (encoders.real(300, 64, 0, encoders.REAL[name]) for name in ("uea", "real"))
    known = {row.tobytes() for row in uea}
    assert 0.3 < np.mean([row.tobytes() in known for row in both]) < 0.7 or len(known) < 300


@needs_archives
def test_of_ucr_only_training_parts_are_read():
    rows, windows = encoders._series("GunPoint")
    assert not windows and len(rows) == len(data.load("GunPoint").x_train)


@needs_archives
def test_the_sets_are_chosen_by_size_alone():
    from tsfm_lib.data import cards
    from tsfm_lib.evaluate import suites

    small = {name for name in suites.suite("ucr") if cards.card(name).facts["train"] <= 110}
    assert set(encoders.DEVELOPMENT) == small and set(encoders.FEW) < small


# -- trainings --


@pytest.mark.parametrize("model", pretraining.MODELS)
def test_looking_leaves_no_trace_and_the_start_is_that_of_the_seed(model):
    series, seen = encoders.corpus("cauker", 40, seed=0), []

    def look(step, net):
        seen.append((step, features(net, encoders.unlabelled())[0]))

    plain = encoders.pretrain(model, series, 4, steps=3, batch=16)
    watched = encoders.pretrain(model, series, 4, steps=3, batch=16, watch=look)
    ours, theirs = plain.raw.state_dict(), watched.raw.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert [step for step, _ in seen] == [0, 1, 2]
    assert np.array_equal(seen[0][1], features(encoders.untrained(model, 4), encoders.unlabelled())[0])
    assert not np.allclose(seen[2][1], seen[0][1])


@pytest.mark.parametrize("model", pretraining.MODELS)
def test_loss_falls(model):
    run = encoders.pretrain(model, encoders.corpus("cauker", 200, seed=0), 0, steps=24, batch=32)
    assert run.curve["loss"].tail(4).mean() < 0.9 * run.curve["loss"].head(2).mean()


# -- scores --


def test_features_that_know_the_class_are_scored_perfect():
    split = encoders.prepared("trace-embedded")
    known = {x.tobytes(): y for x, y in zip((*split.x_train[:, 0], *split.x_test[:, 0]), (*split.y_train, *split.y_test))}

    def oracle(x):
        rows = x[:, 0].numpy()
        label = np.array([known.get(row.astype(split.x_train.dtype).tobytes(), 0) for row in rows])
        return torch.from_numpy(np.c_[np.eye(4)[label], np.random.default_rng(0).normal(size=(len(rows), 3))])

    rows = encoders.score(oracle, encoders.EMBEDDED, ("forest", "ridge"))
    assert [row["accuracy"] for row in rows] == [1.0, 1.0] and {row["dataset"] for row in rows} == {"trace-embedded"}


def test_effective_rank_knows_neither_scale_nor_axes():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200, 5)) * [4, 2, 1, 0.1, 0.01]
    turned = 7 * z @ np.linalg.qr(rng.normal(size=(5, 5)))[0] + 3
    assert encoders.effective_rank(z) == pytest.approx(encoders.effective_rank(turned))
    assert encoders.effective_rank(rng.normal(size=(5000, 6))) == pytest.approx(6, abs=0.05)


# -- rows --


def test_a_trial_tells_scores_end_and_curve():
    rows = pd.DataFrame(pretraining.trial("mantis", "kernelsynth", 0, n=160, steps=4, few=1, looks=2))
    assert set(rows[rows["experiment"] == "scores"]["readout"]) == {"forest", "whitened_forest", "ridge"}
    curve = rows[rows["experiment"] == "curve"]
    assert curve["step"].tolist() == [0, 2, 4] and curve["loss"].notna().tolist() == [False, True, True]
    assert rows[rows["experiment"] == "ends"]["epochs"].item() == pytest.approx(4 * 128 / rows["series"].max())
    untrained = pd.DataFrame(pretraining.trial("mantis", pretraining.RANDOM, 0, n=160, steps=4, few=1, looks=0))
    assert untrained[untrained["experiment"] == "ends"]["series"].item() == 0 and "curve" not in set(untrained["experiment"])


def made_up(gain, seeds=5, sets=24):
    """Scores in which every corpus lies `gain` above the next one, and trainings whose curves are known."""
    rng, rows = np.random.default_rng(0), []
    names = [pretraining.RANDOM, *pretraining.OTHER_MEANS, *pretraining.RIVALS[::-1], *pretraining.TWENTIETHS, *pretraining.REAL]
    for model in pretraining.MODELS:
        for height, corpus in enumerate(names):
            for seed in range(seeds):
                own = {"profile": "laptop", "model": model, "corpus": corpus, "seed": seed}
                for k in range(sets):
                    for readout in ("forest", "whitened_forest", "ridge"):
                        accuracy = 0.5 + gain * height + 0.001 * rng.normal()
                        rows.append(own | {"experiment": "scores", "dataset": f"set {k}", "readout": readout, "accuracy": accuracy})
                rows.append(own | {"experiment": "ends", "loss": 1.0 + (corpus == "cauker") + 0.01 * rng.normal(), "epochs": 1.0,
                                   "effective_rank": 5.0})  # fmt: skip
                if corpus in ("cauker", "real-without-ucr"):
                    path = [0.5, 0.6, 0.7, 0.8] if corpus == "cauker" else [0.5, 0.4, 0.6, 0.5]
                    rows += [own | {"experiment": "curve", "step": s, "accuracy": a} for s, a in enumerate(path)]
    return pd.DataFrame(rows)


def cheap(sets=24):
    rows = [("raw values", "forest"), ("raw values", "ridge"), ("random kernels", "forest"), ("random kernels", "ridge"),
            ("1-NN Euclidean", "nearest"), ("1-NN DTW", "nearest")]  # fmt: skip
    found = [{"dataset": f"set {k}", "variant": v, "readout": r, "accuracy": 0.3 + 0.001 * k} for k in range(sets) for v, r in rows]
    return pd.DataFrame(found).assign(profile="laptop", seed=0)


def test_the_rules_read_these_rows():
    runs = made_up(0.02)
    frames = pretraining.corpora(runs, cheap()), pretraining.dynamics(runs), pretraining.real_corpus(runs)
    assert claims.judge("C1", frames[0]).verdict == "direction holds"
    assert claims.judge("C4", frames[1]).verdict == "direction holds"
    assert claims.judge("C10", frames[2]).verdict == "refuted here"                     # real corpora lie two and four points higher
    higher = claims.judge("C6", pretraining.by_seed(pretraining.renamed(runs, pretraining.MEANS, "means", "means")))
    assert higher.verdict == "direction holds"
    assert claims.judge("C1", pretraining.corpora(made_up(-0.02), cheap())).verdict == "refuted here"
    assert claims.judge("C1", pretraining.corpora(made_up(0.0), cheap())).verdict == "not resolved"


def test_drops_are_the_share_of_steps_down():
    rows = pretraining.dynamics(made_up(0.0)).groupby("corpus")["drops"].mean()
    assert rows["cauker"] == 0 and rows["real"] == pytest.approx(2 / 3)


def test_the_rival_is_the_better_real_corpus():
    rows = pretraining.real_corpus(made_up(0.02))
    forest = rows[rows["readout"] == "forest"].groupby("variant")["accuracy"].mean()
    assert forest["real"] == forest["real-with-ucr"] > forest["real-without-ucr"]


def test_without_real_sets_the_rest_goes_on():
    runs = made_up(0.02)
    runs = runs[~runs["corpus"].isin(list(pretraining.REAL))]
    assert "real" not in set(pretraining.real_corpus(runs)["variant"])
    assert set(pretraining.dynamics(runs)["corpus"]) == {"cauker"}
    assert claims.judge("C10", pretraining.real_corpus(runs)).verdict == "not resolved"


def test_steps_ranks_and_pictures():
    rows = pretraining.corpora(made_up(0.02), cheap())
    steps = pretraining.steps_of(rows, pretraining.RIVALS)
    assert [round(steps["mantis", f"{a} over {b}"].estimate) for a, b in zip(pretraining.RIVALS, pretraining.RIVALS[1:])] == [2, 2, 2]
    paper = pretraining.paper_steps(pretraining.RIVALS)
    assert paper["moment", "kernelsynth over scm"] == pytest.approx(69.31 - 59.23)
    assert pretraining.ranked(rows, "moment").mean.index[0] == "cauker" and len(pretraining.ranked(rows, "moment").mean) == 9
    curve = made_up(0.0).query("experiment == 'curve'").assign(epoch=lambda r: r["step"] / 2)
    assert len(pictures.beside_paper(steps, paper).axes) == 2
    assert len(pictures.over_training(curve, {"accuracy": "accuracy"}).axes) == 2


# -- what goes wrong --


def test_flat_series_leave_the_loss_at_the_log_of_the_batch():
    found = pretraining.broken("mantis", "flat series", 0, n=150, steps=3, few=1)
    assert found["loss"] == pytest.approx(math.log(encoders.BATCH), rel=1e-4) and found["knowing_nothing"] == pytest.approx(found["loss"])


def test_without_negatives_everything_points_one_way():
    healthy, spoilt = (pretraining.broken("mantis", name, 0, n=300, steps=30, few=1) for name in ("as it is", "no negatives"))
    assert spoilt["behind_head"] > 0.98 > healthy["behind_head"]
    assert spoilt["loss"] < 0.01


def test_filling_with_means_costs_what_it_costs_by_hand():
    net, x = encoders.untrained("moment", 0), encoders.unlabelled()[:4, 0]
    assert 0.5 < pretraining.filled_with_means(net, x, 0) < 5
    wave = np.tile(np.sign(np.sin(2 * np.pi * (np.arange(256) + 0.5) / 8)), (3, 1)).astype(np.float32)      # every patch alike
    assert pretraining.filled_with_means(net, wave, 0) == pytest.approx(1.0, rel=1e-3)


def test_alike_is_a_mean_cosine():
    assert pretraining.alike(np.array([[1.0, 0], [0, 2], [-3, 0]])) == pytest.approx(-1 / 3)
