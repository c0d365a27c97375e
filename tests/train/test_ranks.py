"""Two processes under torchrun do what one does with the whole batch."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.train.toys import Toy, Waves, recipe
from tsfm_lib.errors import TsfmError
from tsfm_lib.paths import ROOT
from tsfm_lib.train import fit
from tsfm_lib.train.ranks import Ranks


def test_two_ranks_train_like_one(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_addr=127.0.0.1", f"--master_port={port}",
               "-m", "tests.train.toys", "ranks", str(tmp_path)]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    for steps in (1, 5):
        alone = fit(Toy(dropout=0.0, noisy=False), Waves(), recipe(steps=steps), progress=False, device="cpu")
        together = load_file(tmp_path / str(steps) / "model.safetensors")
        ours = alone.model.state_dict()
        for name in ours:
            torch.testing.assert_close(together[name], ours[name], rtol=1e-3, atol=1e-4)
        curve = json.loads((tmp_path / f"curve{steps}.json").read_text())
        assert curve[:steps] == pytest.approx(list(alone.curve["loss"]), rel=1e-3)
        assert curve[steps:] == pytest.approx(list(alone.curve["grad_norm"]), rel=1e-2)
    first = json.loads((tmp_path / "1" / "card.json").read_text())
    assert first["sessions"][0]["ranks"] == 2 and first["samples"] == 8


def test_ranks_share_a_batch_without_gap_or_overlap():
    batch = torch.arange(6.0).reshape(6, 1, 1)
    parts = [Ranks(rank, 3, torch.device("cpu")).part(batch) for rank in range(3)]
    assert torch.equal(torch.cat(parts), batch)
    with pytest.raises(TsfmError, match="batch of 6 cannot be shared by 4 ranks"):
        Ranks(0, 4, torch.device("cpu")).part(batch)
