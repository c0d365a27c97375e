"""Kairos against the authors' code: every case file, whatever inputs, options and outputs it holds."""

import json

import pytest
import torch
from safetensors.torch import save_file

import tsfm_lib
from tests.parity.reference import files, read
from tsfm_lib.checkpoints import kairos

# what the authors' code does at evaluation; the remaining quirk (reversed keys) is read from their configuration
OFFICIAL = ("reg_after_padding", "context_as_given", "empty_patches_count", "crossing_quantiles")
close = lambda a, b, atol: torch.testing.assert_close(a, b, atol=atol, rtol=0, check_dtype=False)


def model_of(case, *quirks):
    return kairos.from_official(case.config, case.weights, (*OFFICIAL, *quirks))


def context_of(given):
    """Missing steps are NaN, padding or unobserved by mask."""
    context = given["past_target"].clone()
    if "past_is_pad" in given:
        context[given["past_is_pad"].bool()] = torch.nan
    if "past_observed_values" in given:
        context[~given["past_observed_values"].bool()] = torch.nan
    return context


@pytest.mark.parametrize("path", files("kairos-"))
def test_kairos_agrees_with_the_authors_code(path):
    case, checked = read(path), set()
    model, context, out = model_of(case), context_of(case.given), case.expected

    def same(name, value, atol):
        if name in out:
            checked.add(name)
            if atol == 0:
                assert torch.equal(value.long(), out[name].long()), f"{name} differs"
            else:
                close(value, out[name].to(value.dtype), atol)

    with torch.no_grad():
        z, observed, statistics = model.normalise(model.fill(context))
        encoded = model.encode(z, observed)
        decoded = model.decode(encoded)
        forecast = model(context)
    tokens, routing = encoded.tokens, encoded.routing
    real = (tokens.size > 0)[..., None]
    rows = torch.arange(len(context))[:, None]
    amplitude = torch.fft.rfft(z).abs()[:, : model.config.spectral_bins]
    same("fft_magnitudes", torch.nn.functional.pad(amplitude, (0, model.config.spectral_bins - amplitude.shape[1])), 1e-4)
    same("s_features", encoded.spectrum, 1e-4)
    same("router_indices", routing.indices.flatten(0, 1), 0)
    same("router_weights", routing.gates.flatten(0, 1), 1e-5)
    same("token_size", tokens.size, 0)
    same("token_mask", mask_of_tokens(model, observed, tokens), 0)
    same("token_expert_indices", torch.where(real, routing.indices[rows, tokens.patch], 0), 0)
    same("token_expert_weights", torch.where(real, routing.gates[rows, tokens.patch], 0), 1e-5)
    if "token_embeddings" in out:
        close(torch.where(real, encoded.embedded, 0), torch.where(real, out["token_embeddings"], 0), 1e-4)
    if "encoder_last_hidden" in out:  # what stands in the batch's padding is nobody's
        close(encoded.hidden[encoded.mask], out["encoder_last_hidden"][encoded.mask], 2e-4)
    same("decoder_last_hidden", decoded, 2e-4)
    same("quantile_predictions", forecast.mT, 2e-4)
    if "loss" in out:
        target = statistics.apply(case.given["future_target"])
        if "future_observed_values" in case.given:
            target = torch.where(case.given["future_observed_values"].bool(), target, torch.nan)
        same("loss", model.row_loss(model.read_out(decoded), target), 1e-4)
    for name in (n for n in out if n.startswith("rope_freqs.")):
        same(name, frequencies_at(model, name)(encoded.spectrum), 1e-4)
    for row in case.options.get("single_rows", []):
        with torch.no_grad():
            same(f"single_row.{row}", model(context[row : row + 1]).mT, 2e-4)
    drifting = model_of(case, "bias_moves_in_eval")
    with torch.no_grad():
        drifting(context)
    same("router_bias_after", drifting.router.bias, 1e-6)
    for name, options in case.options.get("generate", {}).items():
        options = dict(options)
        drifting = model_of(case, "bias_moves_in_eval")
        quantiles = drifting.predict_quantiles(
            context[:, None], options.pop("prediction_length"), drifting.config.quantiles,
            positive=options.pop("infer_is_positive", False), flip=options.pop("force_flip_invariance", False),
        )  # fmt: skip
        assert not options, f"options this test does not know: {options}"
        same(f"generate.{name}", quantiles[:, 0].mT, 2e-4)
        same(f"generate.{name}.router_bias_after", drifting.router.bias, 1e-6)
    assert "quantile_predictions" in checked
    assert not set(out) - checked - {"token_embeddings", "encoder_last_hidden"}, f"not compared: {sorted(set(out) - checked)}"


def mask_of_tokens(model, observed, tokens):
    """The observed steps of each token's span, shifted to the left."""
    longest = model.config.patch_lengths[0]
    observed = torch.nn.functional.pad(observed.long(), (-observed.shape[1] % longest, 0))
    steps = torch.arange(longest)
    index = (tokens.start[..., None] + steps).clamp_max(observed.shape[1] - 1)
    return observed[torch.arange(len(observed))[:, None, None], index] * (steps < tokens.size[..., None])


def frequencies_at(model, name):
    stack, _, block, _, _, kind, _ = name.removeprefix("rope_freqs.").split(".")
    layer = getattr(model, stack)[int(block)]
    return {"SelfAttention": layer.attend, "EncDecAttention": layer.cross}[kind].frequencies


@pytest.mark.parametrize("path", files("kairos-"))
def test_official_checkpoint_folder_loads(path, tmp_path):
    """config.json and safetensors in the authors' layout, read back through the front door; tied copies may be absent."""
    case = read(path)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["KairosModel"], "model_type": "t5"} | case.config))
    save_file({k: v.clone() for k, v in case.weights.items() if "embed_tokens" not in k}, tmp_path / "model.safetensors")
    loaded, context = tsfm_lib.load(str(tmp_path)), context_of(case.given)
    expected = kairos.from_official(case.config, case.weights)
    levels = (0.1, 0.5, 0.9)
    assert torch.equal(loaded.predict_quantiles(context[:, None], 5, levels), expected.predict_quantiles(context[:, None], 5, levels))
