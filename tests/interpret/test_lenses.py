"""Behind the last layer a lens sees what the model says; in front of it, what it would have said."""

import numpy as np
import pytest
import torch

from tests.interpret.models import close, get, series, setting
from tsfm_lib import checkpoints, interpret
from tsfm_lib.errors import TsfmError
from tsfm_lib.interpret import lenses


def deep(name, **changes):
    depth = {"layers": 3} if hasattr(get(name).config, "layers") else {"decoder_layers": 3}
    return checkpoints.build(name, {**vars(get(name).config), **depth, **changes}, 0).eval()


@pytest.mark.parametrize("name", ["chronos-bolt", "kairos", "timesfm"])
@torch.no_grad()
def test_the_last_quantile_lens_is_the_forecast_in_normalised_units(name):
    model, x = deep(name, **{"spread_horizon": None} if name == "timesfm" else {}), series(v=1, length=64)
    steps = model.lens(torch.zeros(1, getattr(model.config, "forecast_tokens", 1), model.config.width)).shape[1]
    levels = list(model.config.quantiles)
    look = interpret.lens(model, lambda x: model.predict_quantiles(x, steps, levels), x)
    forecast = model.predict_quantiles(x, steps, levels)[:, 0]
    said = look.outputs[-1]
    slope = forecast.std((1, 2), keepdim=True) / said.std((1, 2), keepdim=True)  # undo whatever scale the series was given
    close(said * slope + (forecast - said * slope).mean((1, 2), keepdim=True), forecast, 1e-3)
    assert look.names == ("decoder.in", "decoder.0", "decoder.1", "decoder.2") and look.levels == tuple(levels)
    assert look.outputs.shape == (4, len(x), steps, len(levels)) and (look.outputs.diff(dim=-1) >= 0).all()
    assert not torch.allclose(look.outputs[0], look.outputs[1])
    assert (look.distance()[-1] == 0).all() and (look.distance()[:-1] > 0).all()
    for numbers in (look.entropy(), look.candidates(), look.similarity()[2:]):
        assert numbers.shape[1] == len(x) and numbers.isfinite().all()


@torch.no_grad()
def test_the_logit_lens_of_a_token_decoder():
    model, x = deep("chronos-t5"), series(v=1, length=64)[:, 0]
    sentence = model.tokenise(x)
    labels = model.words(series(v=1, length=8, seed=1)[:, 0], sentence.statistics)
    look = interpret.lens(model, lambda _: model(sentence, labels), x)
    logits = model(sentence, labels)
    close(look.outputs[-1], logits)
    p = logits.softmax(-1)
    close(look.entropy()[-1], -(p * p.log()).sum(-1).mean(-1))
    close(look.candidates()[-1], (p > 0.01).sum(-1).double().mean(-1))
    assert look.levels is None and (look.distance()[0] > 0).all()
    update = look.streams.diff(dim=0)
    close(look.similarity()[3], torch.cosine_similarity(update[2], update[1], dim=-1).mean(-1))
    assert look.similarity()[:2].isnan().all()


@torch.no_grad()
def test_models_without_a_lens_are_looked_through_by_a_function():
    model, _, x = setting("moirai", v=1)
    levels = [0.1, 0.5, 0.9]
    z, seen, _ = model.normalise(x)
    tokens = model.embed_tokens(z, seen, 8)
    read = lambda h: model.project(h, tokens, 8).quantiles(levels)[:, 0].float()
    look = interpret.lens(model, lambda x: model.encode(tokens), x, read=read, levels=levels)
    close(look.outputs[-1], read(model.encode(tokens)))
    toto = get("toto")
    read = lambda h: toto.mixture(toto.read_out(h[:, -1])).quantiles(levels).float()
    look = interpret.lens(toto, lambda x: toto.distribution(x), x, read=read, levels=levels)
    assert look.names[-1] == "decoder.1" and look.outputs.shape[-1] == 3
    with pytest.raises(TsfmError, match="Moment offers no lens"):
        interpret.lens(get("moment"), get("moment").embed, x)
    with pytest.raises(TsfmError, match="3 levels"):
        interpret.lens(toto, lambda x: toto.distribution(x), x, read=lambda h: h[:, -1:], levels=levels)


def test_entropy_and_peaks_of_quantiles_are_those_of_the_density():
    levels = np.linspace(0.01, 0.99, 99)
    normal = torch.distributions.Normal(2.0, 3.0)
    quantiles = normal.icdf(torch.tensor(levels)).float()
    inner = torch.linspace(*normal.icdf(torch.tensor([0.01, 0.99])).tolist(), 20001, dtype=torch.float64)
    log = normal.log_prob(inner)
    expected = -(log.exp() * log).sum() / log.exp().sum()
    close(lenses.quantile_entropy(quantiles, levels.tolist()), expected, 0.02)
    assert lenses.peaks(quantiles, levels.tolist()) == 1
    both = torch.cat([normal.icdf(torch.tensor(levels)) - 20, normal.icdf(torch.tensor(levels)) + 20]).float()
    assert lenses.peaks(both, np.linspace(0.002, 0.998, 198).tolist()) == 2
