"""What CONTRIBUTING.md shows is what happens."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tsfm_lib import checkpoints
from tsfm_lib.models import MODELS

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.S)


@pytest.fixture
def page(monkeypatch):
    """The names that the blocks leave behind, with the model's block standing for its file."""
    module = ModuleType("tsfm_lib.models.drift")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    before = dict(MODELS)
    for block in BLOCKS:
        exec(compile(block, "CONTRIBUTING.md", "exec"), module.__dict__)
    yield module
    MODELS.clear()
    MODELS.update(before)


def test_the_recipes_run_and_make_what_they_say(page, capsys):
    assert page.verdict.verdict == "direction holds"
    assert page.tides.frame().shape == (28, 1)


def test_the_model_of_the_page_keeps_the_contracts(page, tmp_path):
    model = checkpoints.build("drift", page.DriftConfig.tiny(), seed=0)
    x = torch.randn(3, 2, 40).cumsum(-1)
    x[0, 0, :10], x[1] = torch.nan, 5.0
    said = model.predict_quantiles(x, 7, [0.1, 0.5, 0.9])
    assert said.shape == (3, 2, 7, 3) and said.isfinite().all() and torch.allclose(said[1], torch.tensor(5.0))
    assert torch.allclose(model.predict_quantiles(x[:1], 7, [0.5]), said[:1, ..., 1:2])
    model.loss(x).backward()
    assert model.share.grad.abs() > 0
    checkpoints.save(model, tmp_path / "drift")
    assert torch.equal(checkpoints.load(tmp_path / "drift").predict_quantiles(x, 7, [0.1, 0.5, 0.9]), said.detach())
