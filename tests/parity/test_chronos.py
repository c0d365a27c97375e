"""Chronos-T5 against the authors' code: every case file, whatever inputs and outputs it holds."""

import json

import pytest
import torch
from safetensors.torch import save_file

import tsfm_lib
from tests.parity.reference import files, near, read
from tests.parity.t5 import ranks_of, taken_out, watched
from tsfm_lib.checkpoints import chronos
from tsfm_lib.errors import TsfmError
from tsfm_lib.models.chronos import MISSING, Chronos

OFFICIAL = ("float32_statistics", "draws_specials", "median_roll_out")


@pytest.mark.parametrize("path", files("chronost5-"))
@torch.no_grad()
def test_chronos_t5_agrees_with_the_authors_code(path):
    case, checked = read(path), set()
    model, out = chronos.from_official(case.config, case.weights, OFFICIAL), case.expected
    names = {key.split(".")[0] for key in case.given}
    assert names

    def same(name, value):
        if name not in out:
            return
        checked.add(name)
        if out[name].is_floating_point():
            near(value.reshape(out[name].shape), out[name])
        else:
            assert torch.equal(value.long(), out[name].long()), f"{name} differs"

    centres = model.bins.centres()
    edge = torch.tensor([1e20])
    same("tokenizer.centers", centres)
    if "tokenizer.boundaries" in out:  # ours need no outermost ones
        near((centres[1:] + centres[:-1]) / 2, out["tokenizer.boundaries"][1:-1])
        assert torch.equal(out["tokenizer.boundaries"][[0, -1]], torch.cat([-edge, edge]))
        checked.add("tokenizer.boundaries")
    for name in sorted(names):
        context = case.given[f"{name}.context"]
        sentence = model.tokenise(context)
        parts = {"token_ids": sentence.ids, "attention_mask": sentence.seen, "scale": sentence.statistics.scale}
        if f"{name}.label" in case.given:
            labels = model.words(case.given[f"{name}.label"], sentence.statistics)
            parts |= {"label_ids": labels, "label_mask": labels != MISSING}
        else:
            labels = out[f"{name}.label_ids"]
        if f"{name}.decoder_input_ids" in case.given:
            assert torch.equal(torch.nn.functional.pad(labels, (1, -1)), case.given[f"{name}.decoder_input_ids"])
        with watched(model) as seen:
            model(sentence, labels)
        logits = model(sentence, labels)
        parts |= {**seen, "logits": logits}
        for stack, kind, short in (("enc", "sa", "enc_attn"), ("dec", "sa", "dec_attn"), ("dec", "ca", "cross_attn")):
            found = [value for part, value in sorted(seen.items()) if part.startswith(f"{stack}_{kind}_pattern")]
            parts |= {f"{short}{i}": value for i, value in enumerate(found)} | {f"{short}_last": found[-1]}
        for layer, _ in enumerate(model.decoder.layers):
            parts[f"lens{layer}"] = model.read_out(model.decoder.norm(seen[f"dec_block{layer}"]))
        for part, value in parts.items():
            same(f"{name}.{part}", value)
        if f"{name}.greedy_tokens" in out:
            steps = out[f"{name}.greedy_tokens"].shape[1]
            same(f"{name}.greedy_tokens", model.generate(sentence, steps, lambda logits, _: model.allowed(logits).argmax(-1)))
            same(f"{name}.greedy_values", model.greedy(context, steps))
        for key in (k for k in out if k.startswith(f"{name}.ablate.")):
            with taken_out(model, key.removeprefix(f"{name}.ablate.")):
                changed = model(sentence, labels)
            assert not torch.allclose(changed, logits, rtol=1e-3)
            same(key, changed)
        assert {f"{name}.token_ids", f"{name}.logits"} <= checked
    for key in (k for k in out if k.startswith("srank.")):
        same(key, ranks_of(model, *key.removeprefix("srank.").split("_")))
    assert set(out) == checked, f"not compared: {sorted(set(out) - checked)}"


@pytest.mark.parametrize("path", files("chronost5-"))
@torch.no_grad()
def test_official_checkpoint_folder_loads(path, tmp_path):
    """config.json and safetensors in the authors' layout, read back through the front door; tied copies may be absent."""
    case = read(path)
    official = {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "dropout_rate": 0.1} | case.config
    expected = chronos.from_official(case.config, case.weights)
    for kept in ("shared", "lm_head"):
        folder = tmp_path / kept
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(official))
        copies = {f"{name}.weight" for name in chronos.COPIES if name != kept}
        save_file({k: v.clone() for k, v in case.weights.items() if k not in copies}, folder / "model.safetensors")
        loaded = tsfm_lib.load(str(folder))
        again = tsfm_lib.load(tsfm_lib.save(loaded, folder / "ours"))
        assert isinstance(loaded, Chronos) and again.config == loaded.config == expected.config
        for key in (k for k in case.given if k.endswith(".context")):
            x = case.given[key][:, None]
            wanted = expected.predict_quantiles(x, 9, (0.1, 0.5, 0.85), samples=3)
            for model in (loaded, again):
                assert torch.equal(model.predict_quantiles(x, 9, (0.1, 0.5, 0.85), samples=3), wanted)


@pytest.mark.parametrize("path", files("chronost5-"))
@torch.no_grad()
def test_an_untied_head_reads_unscaled_states(path):
    """Tied or not is one word of their config.json; the states are divided by the root of the width only when tied."""
    case = read(path)
    root = case.config["d_model"] ** 0.5
    tied = chronos.from_official(case.config, case.weights)
    weights = case.weights | {"lm_head.weight": case.weights["shared.weight"] / root}
    untied = chronos.from_official(case.config | {"tie_word_embeddings": False}, weights)
    states = torch.randn(3, tied.config.width, generator=torch.Generator().manual_seed(0))
    near(untied.read_out(states), tied.read_out(states))


def test_what_cannot_be_read_is_named():
    with pytest.raises(TsfmError, match="'model_type': 'seq2seq'.* got {'model_type': 'causal'}"):
        chronos.config_from_official({"chronos_config": {"n_tokens": 4096, "model_type": "causal"}})
    with pytest.raises(TsfmError, match="expected the embedding as shared.weight or encoder.embed_tokens.weight"):
        chronos.shared({})
