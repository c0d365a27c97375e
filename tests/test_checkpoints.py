"""Folders in and out: what was saved comes back, what is broken is named in one sentence."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tsfm_lib import checkpoints
from tsfm_lib.errors import TsfmError
from tsfm_lib.models.baselines import Naive
from tsfm_lib.models.scratch import PatchTSTConfig


def model(seed=0):
    return checkpoints.build("patchtst", PatchTSTConfig.tiny(), seed)


@pytest.fixture
def folder(tmp_path):
    return checkpoints.save(model(), tmp_path / "with space" / "m", {"result": "MASE 0.9"})


def sentence(action, *words):
    with pytest.raises(TsfmError) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text


def test_what_was_saved_comes_back(folder):
    back = checkpoints.load(folder)
    assert all(torch.equal(a, b) for a, b in zip(back.state_dict().values(), model().state_dict().values()))
    assert back.config == model().config and not back.training
    assert back.card["result"] == "MASE 0.9" and back.card["parameters"] == sum(p.numel() for p in back.parameters())
    assert sorted(p.name for p in folder.iterdir()) == ["card.json", "config.json", "model.safetensors"]
    assert [p.name for p in folder.parent.iterdir()] == ["m"]


def test_same_seed_same_bytes_and_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = model(1), model(1), model(2)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters()))


def test_half_precision_halves_the_file_and_nearly_keeps_the_weights(folder):
    half = checkpoints.save(model(), folder.parent / "half", half=True)
    size = lambda f: (f / "model.safetensors").stat().st_size
    assert size(half) < 0.75 * size(folder)  # small tensors: names weigh too
    for name, kept in checkpoints.load(half).state_dict().items():
        assert kept.dtype == torch.float32
        torch.testing.assert_close(kept, model().state_dict()[name], rtol=1e-3, atol=1e-6)


def test_values_beyond_half_precision_are_not_turned_into_infinity(tmp_path):
    big = model()
    big.head.map.weight.data[0, 0] = 1e6
    sentence(lambda: checkpoints.save(big, tmp_path / "big", half=True), "head.map.weight", "float16")
    assert not any(tmp_path.iterdir())


def test_saving_again_replaces_the_old(folder):
    checkpoints.save(model(7), folder)
    assert torch.equal(checkpoints.load(folder).positions, model(7).positions)
    assert [p.name for p in folder.parent.iterdir()] == ["m"]


def test_a_failed_save_leaves_the_old_as_it_was(folder, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OSError, match="no space"):
        checkpoints.save(model(7), folder)
    monkeypatch.undo()
    assert torch.equal(checkpoints.load(folder).positions, model().positions)
    assert [p.name for p in folder.parent.iterdir()] == ["m"]


def test_a_folder_of_something_else_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    sentence(lambda: checkpoints.save(model(), tmp_path), "not a checkpoint")
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_named(folder, share):
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    sentence(lambda: checkpoints.load(folder), "model.safetensors", "damaged or cut short", "save it again")


def test_tensors_that_do_not_belong_are_named(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["inputs.bias"] = tensors["inputs.bias"][:3].clone()
    tensors["extra"] = tensors.pop("positions")
    save_file(tensors, folder / "model.safetensors")
    sentence(lambda: checkpoints.load(folder), "1 missing (positions)", "1 unexpected (extra)", "inputs.bias [3] for [16]")


@pytest.mark.parametrize(("change", "words"), [
    (lambda c: c.update(model="patchtsd"), ["'patchtsd'", "did you mean 'patchtst'"]),
    (lambda c: c["config"].update(widht=3), ["no field 'widht'", "did you mean 'width'"]),
    (lambda c: (c.pop("model"), c.update(architectures=["LlamaForCausalLM"])), ["LlamaForCausalLM", "patchtst"]),
])  # fmt: skip
def test_configs_that_name_nothing_known_are_refused(folder, change, words):
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    sentence(lambda: checkpoints.load(folder), *words)


def test_missing_and_broken_parts_are_named(folder, tmp_path):
    sentence(lambda: checkpoints.load(tmp_path / "nowhere"), "nowhere/config.json does not exist")
    (folder / "config.json").write_text('{"model": ')
    sentence(lambda: checkpoints.load(folder), "config.json cannot be read")
    (folder / "config.json").write_text("[]")
    sentence(lambda: checkpoints.load(folder), "expected an object")
    (folder / "config.json").write_text('{"model": "patchtst"}')
    (folder / "model.safetensors").unlink()
    sentence(lambda: checkpoints.load(folder), "holds no .safetensors file")


def test_a_folder_that_cannot_be_made_is_told_in_a_sentence(folder, tmp_path):
    with pytest.raises(TsfmError, match="cannot be made"):
        checkpoints.save(checkpoints.load(folder), tmp_path / ("b" * 250))


def test_baselines_have_nothing_to_save(tmp_path):
    class Toy(torch.nn.Linear):
        pass

    sentence(lambda: checkpoints.save(Toy(1, 1), tmp_path / "x"), "Toy has no weights to save")
    assert not hasattr(Naive(), "state_dict")


def test_unknown_architectures_are_refused_with_the_nearest():
    sentence(lambda: checkpoints.build("itransfomer"), "did you mean 'itransformer'")
