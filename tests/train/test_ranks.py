"""Two processes under torchrun do what one does with the whole batch."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.train.test_loop import same_ends
from tests.train.toys import Toy, Waves, recipe
from tsfm_lib.errors import TsfmError
from tsfm_lib.paths import ROOT
from tsfm_lib.train import fit
from tsfm_lib.train.ranks import Ranks
from tsfm_lib.train.state import load_state

TOLERANCE = {"rtol": 1e-3, "atol": 1e-4}       # of weights after five steps; SCALING.md states it


def torchrun(what, folder):
    """Two gloo processes as torchrun starts them on one machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local_addr=127.0.0.1", "--nproc_per_node=2",
               "--max_restarts=0", "-m", "tests.train.toys", what, str(folder)]  # fmt: skip
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    done = torchrun("ranks", folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_two_ranks_train_like_one(together):
    for steps in (1, 5):
        alone = fit(Toy(dropout=0.0, noisy=False), Waves(), recipe(steps=steps), progress=False, device="cpu")
        theirs, ours = load_file(together / str(steps) / "model.safetensors"), alone.model.state_dict()
        for name in ours:
            torch.testing.assert_close(theirs[name], ours[name], **TOLERANCE)
        curve = json.loads((together / f"curve{steps}.json").read_text())
        assert curve[:steps] == pytest.approx(list(alone.curve["loss"]), rel=1e-3)
        assert curve[steps:] == pytest.approx(list(alone.curve["grad_norm"]), rel=1e-2)
    first = json.loads((together / "1" / "card.json").read_text())
    assert first["sessions"][0]["ranks"] == 2 and first["samples"] == 8


def test_killed_ranks_go_on_and_end_in_the_same_bytes(together, tmp_path):
    """Both are killed, then one of those that go on, then the same command once more."""
    for step in (20, 30):
        killed = torchrun("dying ranks", tmp_path)
        assert killed.returncode != 0 and load_state(tmp_path / "checkpoint.safetensors")[1]["step"] == step, killed.stderr
    assert not (tmp_path / "model.safetensors").exists()
    shutil.copytree(tmp_path, tmp_path / "alone")
    done = torchrun("rank", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    same_ends(together / "straight", tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    assert [(s["from_step"], s["ranks"]) for s in card["sessions"]] == [(0, 2), (20, 2), (30, 2)]
    alone = fit(Toy(), Waves(), recipe(), folder=tmp_path / "alone", progress=False, device="cpu")          # on one process, too
    assert [s["ranks"] for s in alone.card["sessions"]] == [2, 2, 1] and len(alone.curve) == 60
    assert alone.curve["loss"].iloc[-10:].mean() < alone.curve["loss"].iloc[:10].mean()


def test_a_checkpoint_that_only_the_first_rank_sees_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Ranks, "agree", lambda self, number: 1)
    with pytest.raises(TsfmError, match="on a file system that all nodes share"):
        fit(Toy(), Waves(), recipe(steps=1), folder=tmp_path, progress=False, device="cpu")


def test_ranks_share_a_batch_without_gap_or_overlap():
    batch = torch.arange(6.0).reshape(6, 1, 1)
    parts = [Ranks(rank, 3, torch.device("cpu")).part(batch) for rank in range(3)]
    assert torch.equal(torch.cat(parts), batch)
    with pytest.raises(TsfmError, match="batch of 6 cannot be shared by 4 ranks"):
        Ranks(0, 4, torch.device("cpu")).part(batch)
