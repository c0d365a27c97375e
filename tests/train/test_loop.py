"""The loop: what it learns, how it ends, and that nothing is lost when it is killed."""

import copy
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from tests.train.toys import Toy, Waves, recipe
from tsfm_lib.errors import TsfmError
from tsfm_lib.paths import ROOT
from tsfm_lib.train import Diverged, fit
from tsfm_lib.train.loop import TIMED_STEPS
from tsfm_lib.train.optimise import Average, Muon, average_decay, optimisers, rate_factor, split_parameters
from tsfm_lib.train.state import load_state
from tsfm_lib.train.watch import Journal, Watch


def go(folder=None, model=None, stream=None, **changes):
    options = {k: changes.pop(k) for k in ("resume", "evaluate", "loss", "minutes") if k in changes}
    return fit(model or Toy(), stream or Waves(), recipe(**changes), folder=folder, progress=False, **options)


class Interrupted(Waves):
    def __init__(self, at):
        super().__init__()
        self.at = at

    def __call__(self, step):
        if step == self.at:
            raise KeyboardInterrupt
        return super().__call__(step)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    go(folder)
    return folder


def same_ends(a, b):
    assert (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()
    (x, fx), (y, fy) = load_state(a / "checkpoint.safetensors"), load_state(b / "checkpoint.safetensors")
    assert x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)
    assert fx["watch"] == fy["watch"] and fx["step"] == fy["step"]
    lines = [[json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in (a, b)]
    exact = [[(r["step"], r["loss"], r["lr"], r["grad_norm"]) for r in rows] for rows in lines]
    assert exact[0] == exact[1] and [r[0] for r in exact[0]] == list(range(1, 61))


def test_one_batch_can_be_learnt_by_heart():
    batch = Waves()(0)
    run = go(model=Toy(width=8, dropout=0.0, noisy=False), stream=lambda step: batch, steps=300, rate=2e-2, matrix_rate=2e-2)
    assert run.curve["loss"].iloc[-1] < 1e-3 * run.curve["loss"].iloc[0]
    assert float(run.model.loss(batch)) < 1e-2 * run.curve["loss"].iloc[0]


def test_interrupted_and_resumed_ends_in_the_same_bytes(straight, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, stream=Interrupted(25))
    assert load_state(tmp_path / "checkpoint.safetensors")[1]["step"] == 20
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 21, "loss": 0.5}\n{"step": 22, "lo')                # what a kill in the middle of a line leaves
    run = go(tmp_path, model=Toy(seed=9))                                          # the weights come from the checkpoint
    same_ends(straight, tmp_path)
    assert [s["from_step"] for s in run.card["sessions"]] == [0, 20]


def test_killed_without_warning_and_resumed_ends_in_the_same_bytes(straight, tmp_path):
    killed = subprocess.run([sys.executable, "-m", "tests.train.toys", "killed", tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    (tmp_path / "checkpoint.safetensors.partial").write_bytes(b"half a checkpoint")
    go(tmp_path)
    same_ends(straight, tmp_path)


def test_a_finished_run_is_not_trained_again(straight, tmp_path):
    go(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    run = go(tmp_path, stream=Interrupted(0))
    assert (tmp_path / "model.safetensors").read_bytes() == before and len(run.curve) == 60


def test_same_seed_same_bytes_other_seed_others(straight, tmp_path):
    go(tmp_path / "same")
    same_ends(straight, tmp_path / "same")
    go(tmp_path / "other", seed=1)                                                 # same data, other dropout and weighting
    assert (tmp_path / "other/model.safetensors").read_bytes() != (straight / "model.safetensors").read_bytes()


def test_afresh_forgets_the_old_run(straight, tmp_path):
    go(tmp_path, seed=1)
    go(tmp_path, resume=False)
    same_ends(straight, tmp_path)


def test_another_recipe_does_not_resume(tmp_path):
    go(tmp_path, steps=5)
    with pytest.raises(TsfmError, match=r"another recipe \(there / here: steps 5 / 6, rate 0.0015 / 0.1\)"):
        go(tmp_path, steps=6, rate=0.1)


def test_another_model_or_file_does_not_resume(tmp_path):
    go(tmp_path, steps=5)
    with pytest.raises(TsfmError, match="written by another model"):
        go(tmp_path, model=nn.Sequential(nn.Linear(2, 2)), loss=lambda *_: None, steps=5)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"rubbish")
    with pytest.raises(TsfmError, match="not a checkpoint of this library"):
        go(tmp_path, steps=5)


def test_every_step_draws_anew_and_every_run_alike():
    drawn = []

    def noted(model, batch, generator):
        drawn.append((float(torch.rand(1, generator=generator)), float(torch.rand(1))))         # ours, and the global one of dropout
        return model.loss(batch, generator)

    go(steps=4, loss=noted)
    go(steps=4, loss=noted)
    assert drawn[:4] == drawn[4:] and len({x for pair in drawn for x in pair}) == 8


def test_the_callers_generator_is_left_alone():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    go(steps=3)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_schedule_rises_and_ends_with_the_budget():
    run = go(steps=40, final_fraction=0.1, rate=0.5, warmup=10)
    lr = run.curve["lr"].to_numpy()
    assert lr[-1] == pytest.approx(0.05) and lr[0] == pytest.approx(0.05, rel=0.01)
    assert (np.diff(lr[:9]) > 0).all() and (np.diff(lr[10:]) < 0).all() and len(lr) == 40
    assert rate_factor(50, None, 200, 0.02) == pytest.approx(rate_factor(50, 10_000, 200, 0.02), rel=1e-3)


def test_the_average_follows_its_formula():
    model = nn.Linear(1, 1, bias=False)
    model.register_buffer("count", torch.tensor(0))
    nn.init.zeros_(model.weight)
    average, by_hand = Average(model, 0.6), 0.0
    for step in range(6):
        with torch.no_grad():
            model.weight.fill_(step + 1.0)
            model.count += 1
        average.update(step)
        d = min(0.6, 1 - 1 / (step / 4 + 2))
        by_hand = d * by_hand + (1 - d) * (step + 1)
    assert float(average.model.weight) == pytest.approx(by_hand, rel=1e-6) and int(average.model.count) == 6
    assert average_decay(1, 0.6) == pytest.approx(5 / 9) and not average.model.weight.requires_grad


def test_without_averaging_the_model_is_the_raw_one():
    run = go(steps=5, ema=0.0)
    assert all(torch.equal(a, b) for a, b in zip(run.model.state_dict().values(), run.raw.state_dict().values()))


def test_gradients_are_clipped(monkeypatch):
    seen = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *a: (
        seen.append([p.grad.clone() for g in self.param_groups for p in g["params"]]), step(self, *a))[1])
    run = go(steps=3, clip=1e-3, loss=lambda model, batch, generator: 1e4 * model.loss(batch, generator), matrices="nothing")
    norms = [float(torch.stack([g.norm() for g in grads]).norm()) for grads in seen]
    assert norms == pytest.approx([1e-3] * 3, rel=1e-3) and run.curve["grad_norm"].min() > 1                 # logged before clipping


def test_muon_gets_the_matrices_of_the_blocks_and_adamw_the_rest():
    model = Toy()
    muon, rest = split_parameters(model, recipe().matrices)
    assert {id(p) for p in muon} == {id(layer.weight) for layer in model.layers}
    assert len(muon) + len(rest) == len(list(model.parameters()))
    assert [type(o).__name__ for o in optimisers(model, recipe())] == ["Muon", "AdamW"]
    with pytest.raises(TsfmError, match="no parameter that asks for a gradient"):
        split_parameters(model.requires_grad_(False), "")


def test_frozen_parts_stay():
    model = Toy()
    model.head.requires_grad_(False)
    before = model.head.weight.clone()
    run = go(model=model, steps=5)
    assert torch.equal(run.raw.head.weight, before) and torch.equal(run.model.head.weight, before)


def test_tied_weights_train_and_resume(tmp_path):
    class Tied(Toy):
        def __init__(self):
            super().__init__()
            self.layers[1].weight = self.layers[0].weight

    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, model=Tied(), stream=Interrupted(15), steps=20)
    resumed, at_once = go(tmp_path, model=Tied(), steps=20), go(model=Tied(), steps=20)
    for run in (resumed, at_once):
        assert run.model.layers[1].weight is run.model.layers[0].weight
    assert torch.equal(resumed.model.layers[0].weight, at_once.model.layers[0].weight)


class Clockwork(Interrupted):
    """Moves a clock of its own: the first step takes 2 seconds, every other 0.25."""

    def __init__(self, monkeypatch, pace=0.25, at=None):
        super().__init__(at)
        self.now, self.pace = 1000.0, pace
        monkeypatch.setattr("tsfm_lib.train.loop.time", SimpleNamespace(perf_counter=lambda: self.now))

    def __call__(self, step):
        self.now += self.pace if step else 2.0
        return super().__call__(step)


def test_minutes_become_steps_once_and_for_all(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, stream=Clockwork(monkeypatch, at=TIMED_STEPS + 5), minutes=1, checkpoint_every=1000)
    facts = load_state(tmp_path / "checkpoint.safetensors")[1]
    assert facts["step"] == TIMED_STEPS == 50 and facts["total"] == 1 + (60 - 2) * 4
    run = go(tmp_path, stream=Clockwork(monkeypatch, pace=9.0), minutes=1, checkpoint_every=1000)     # the machine is slower now
    assert run.card["steps"] == facts["total"] == len(run.curve) == run.curve["step"].iloc[-1]
    assert run.curve["total"].iloc[-1] == facts["total"] and run.card["recipe"]["minutes"] == 1.0
    assert run.curve["lr"].iloc[-1] == pytest.approx(recipe().rate * recipe().final_fraction)


def test_a_budget_in_minutes_is_kept(monkeypatch):
    run = go(stream=Clockwork(monkeypatch), minutes=0.6)
    assert run.card["seconds"] == pytest.approx(36, abs=0.5) and run.curve["seconds"].iloc[-1] == run.card["seconds"]
    assert run.curve["samples_per_second"].iloc[-1] == pytest.approx(8 / 0.25)


def test_a_budget_too_short_for_fifty_steps_still_ends_in_time(monkeypatch):
    run = go(stream=Clockwork(monkeypatch, pace=5.0), minutes=1)
    assert run.card["steps"] == 12 and run.card["seconds"] <= 60


@pytest.mark.parametrize("what", ["loss", "gradient norm"])
def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_checkpoint(tmp_path, what):
    calls = []

    def poisoned(model, batch, generator):
        calls.append(1)
        loss = model.loss(batch, generator)
        if len(calls) != 27:
            return loss
        return loss * float("nan") if what == "loss" else loss + (model.head.bias - model.head.bias.detach()).abs().sum().sqrt()

    with pytest.raises(Diverged, match=f"stopped at step 27: the {what} is (nan|inf)") as caught:
        go(tmp_path, loss=poisoned)
    report = json.loads((tmp_path / "diverged.json").read_text())
    assert report == caught.value.report and report["step"] == 27 and report["checkpoint"] == str(tmp_path / "checkpoint.safetensors")
    assert [step for step, _ in report["last_losses"]] == list(range(7, 27)) and report["lr"] > 0
    tensors, facts = load_state(tmp_path / "checkpoint.safetensors")
    assert facts["step"] == 20 and all(t.isfinite().all() for t in tensors.values())
    assert go(tmp_path).card["steps"] == 60 and not (tmp_path / "diverged.json").exists()


def test_a_loss_that_runs_away_stops(tmp_path):
    calls = []

    def rising(model, batch, generator):
        calls.append(1)
        return model.loss(batch, generator) * (1.0 if len(calls) < 27 else 100.0)

    with pytest.raises(Diverged, match="running loss .* has been above .* for 12 steps"):
        go(tmp_path, steps=200, diverged_steps=12, loss=rising)
    assert load_state(tmp_path / "checkpoint.safetensors")[1]["step"] == 20           # the one of step 30 was in doubt and not written


def test_a_run_that_ends_far_above_its_best_is_no_success(tmp_path):
    calls = []

    def late(model, batch, generator):
        calls.append(1)
        return model.loss(batch, generator) * (1.0 if len(calls) < 50 else 100.0)

    with pytest.raises(Diverged, match="ended with its running loss"):
        go(tmp_path, loss=late)
    assert not (tmp_path / "model.safetensors").exists()


def test_the_watch_knows_noise_and_losses_below_zero_from_trouble():
    rng = np.random.default_rng(0)
    falling = 3.0 * np.exp(-np.arange(2000) / 300) - 1.0 + 0.3 * rng.standard_normal(2000)
    watch = Watch(3.0, 50, 20)
    assert all(watch.see(step, float(loss), 1.0) is None for step, loss in enumerate(falling)) and watch.best < 0
    reasons = [watch.see(2000 + step, 20.0, 1.0) for step in range(100)]
    assert next(i for i, r in enumerate(reasons) if r) in range(50, 65)
    rough_start = Watch(3.0, 10, 40)
    assert all(rough_start.see(step, 1.0 if step == 0 else 50.0, 1.0) is None for step in range(40))


def test_the_card_says_what_was_done(tmp_path):
    run = go(tmp_path, steps=12, evaluate=lambda model: {"weights": sum(p.numel() for p in model.parameters()), "training": model.training})
    card = json.loads((tmp_path / "card.json").read_text())
    assert card == run.card
    assert card["steps"] == 12 and card["samples"] == 96 and card["parameters"] == 180 and card["parameters_under_muon"] == 128
    assert card["data"] == {"kind": "waves"} and card["recipe"]["steps"] == 12 and card["seed"] == 0
    assert card["versions"]["torch"] == torch.__version__ and card["sessions"][0]["threads"] == torch.get_num_threads()
    assert card["result"] == {"weights": 180, "training": False} and len(card["curve"]) == 12
    assert list(run.curve) == ["step", "loss", "lr", "grad_norm", "samples_per_second", "seconds", "total"]


def test_a_measured_result_stays_on_the_card_until_something_is_trained(tmp_path):
    kept = lambda: json.loads((tmp_path / "card.json").read_text()).get("result")
    go(tmp_path, steps=12, evaluate=lambda model: {"MASE": 0.5})
    assert go(tmp_path, steps=12).card["result"] == kept() == {"MASE": 0.5}
    go(tmp_path, steps=12, evaluate=lambda model: {"MASE": 0.4})
    assert kept() == {"MASE": 0.4}
    assert "result" not in go(tmp_path, steps=12, resume=False).card and kept() is None


def test_a_model_without_a_loss_is_refused_before_the_first_batch():
    with pytest.raises(TsfmError, match=r"Linear has no method loss\(batch, generator\)"):
        go(model=nn.Linear(2, 2), stream=Interrupted(0))


def test_a_long_curve_is_shortened_by_means():
    journal = Journal(None, [{"step": i + 1, "loss": float(i)} for i in range(1000)])
    curve = journal.short_curve(100)
    assert len(curve) == 100 and curve[0] == [10, 4.5] and curve[-1][0] == 1000


def test_bf16_trains_close_to_float32():
    a, b = go(steps=20, model=Toy(dropout=0.0)), go(steps=20, model=Toy(dropout=0.0), precision="bf16")
    assert next(b.model.parameters()).dtype == torch.float32
    assert not np.array_equal(a.curve["loss"], b.curve["loss"]) and np.allclose(a.curve["loss"], b.curve["loss"], rtol=0.05)


def test_the_model_passed_in_is_the_raw_one_trained_in_place():
    model = Toy()
    before = copy.deepcopy(model.state_dict())
    run = go(model=model, steps=3)
    assert run.raw is model and not torch.equal(model.head.weight, before["head.weight"])


def test_muon_moves_like_torchs_own():
    """Which iterates in bfloat16; ours in float32, all matrices of a shape at once."""
    shapes = [(6, 6), (12, 4), (6, 6), (4, 12)]
    make = lambda: [torch.nn.Parameter(torch.randn(s, generator=torch.Generator().manual_seed(i))) for i, s in enumerate(shapes)]
    mine, theirs = make(), make()
    optimiser = Muon(mine, lr=0.1, momentum=0.9, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, lr=0.1, momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        for i, (p, q) in enumerate(zip(mine, theirs)):
            p.grad = torch.randn(shapes[i], generator=torch.Generator().manual_seed(100 * step + i))
            q.grad = p.grad.clone()
        optimiser.step(), reference.step()
    for p, q, start in zip(mine, theirs, make()):
        assert (p - q).norm() < 0.03 * (q - start).norm()
