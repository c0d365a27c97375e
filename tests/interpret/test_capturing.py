"""What is captured is what passed by, no more than was asked for, and within the memory that was allowed."""

import pytest
import torch

from tests.interpret.models import ATTENTIVE, close, get, hooks, series, setting
from tsfm_lib import interpret
from tsfm_lib.errors import TsfmError
from tsfm_lib.interpret.plans import head_sites
from tsfm_lib.nn.attention import Attention

EVERYTHING = ("patterns", "heads", "entropies", "mlps", "residuals")


@pytest.mark.parametrize("name", ATTENTIVE)
def test_looking_changes_nothing_and_every_kind_is_there(name):
    model, run, x = setting(name, horizon=1 if name == "chronos-t5" else 7)  # its decoder looks back further at every step
    before = run(x)
    with interpret.capture(model, *EVERYTHING) as seen:
        close(run(x), before, 1e-4)
    heads = {s.name for s in head_sites(model)}
    assert set(seen.patterns) == set(seen.heads) == set(seen.entropies) == heads
    for site in head_sites(model):
        pattern = seen.patterns[site.name]
        close(pattern.sum(-1), torch.ones(pattern.shape[:-1]))
        close(seen.entropies[site.name], interpret.entropy(pattern))
        assert seen.heads[site.name].shape[2:] == (site.n_heads, site.head_dim)
    assert set(seen.residuals) == {*interpret.plans.layers(model), *(f"{s.stack}.in" for s in model.sites())}
    assert not any(any(each) for each in hooks(model))


def test_patterns_and_values_make_the_heads():
    model, run, x = setting("moment")
    site, values = head_sites(model)[0], []
    attention = interpret.plans.attention_of(model, site)
    assert isinstance(attention, Attention)
    handle = attention.v.register_forward_hook(lambda module, inputs, out: values.append(attention.split(out)))
    with torch.no_grad(), interpret.capture(model, "patterns", "heads", sites=[site.name]) as seen:
        model.embed(x)
    handle.remove()
    close(seen.heads[site.name], (seen.patterns[site.name] @ values[0]).transpose(1, 2))


def test_streams_add_up():
    """What a layer adds is what its heads add through the output projection, and its MLP."""
    model, run, x = setting("moirai", v=1)
    with interpret.capture(model, "heads", "mlps", "residuals") as seen:
        run(x)
    site = head_sites(model)[0]
    added = site.out_proj(seen.heads[site.name].flatten(2)).detach() + seen.mlps["encoder.0.mlp"]
    close(seen.residuals["encoder.0"], seen.residuals["encoder.in"] + added)


def test_last_query_sites_and_several_calls():
    model, run, x = setting("moirai", v=1)
    with interpret.capture(model, "patterns", "heads", "residuals") as whole:
        run(x)
    with interpret.capture(model, "patterns", "heads", "residuals", sites=["encoder.1"], last_query=True) as last:
        run(x), run(x[:2])
    assert set(last.patterns) == {"encoder.1.self"} and set(last.residuals) == {"encoder.1"}
    twice = lambda t: torch.cat([t, t[:2]])
    close(last.patterns["encoder.1.self"], twice(whole.patterns["encoder.1.self"][:, :, -1:]))
    close(last.heads["encoder.1.self"], twice(whole.heads["encoder.1.self"][:, -1:]))
    close(last.residuals["encoder.1"], twice(whole.residuals["encoder.1"][:, -1:]))


def test_calls_of_different_shapes_are_kept_apart():
    model, run, x = setting("chronos-t5", horizon=3)
    with interpret.capture(model, "patterns", "entropies", sites=["decoder.0.self"]) as seen:
        run(x)
    assert [p.shape[-1] for p in seen.calls("patterns", "decoder.0.self")] == [1, 2, 3]
    assert seen.entropies["decoder.0.self"].shape[-1] == 1
    with pytest.raises(TsfmError, match="3 calls of different shapes"):
        _ = seen.patterns


def test_beyond_the_limit_it_stops_and_says_how_to_ask_for_less():
    model, run, x = setting("moment")
    with pytest.raises(TsfmError, match="limit of 0 MiB: name fewer sites"), interpret.capture(model, "patterns", limit=5000):
        run(x)
    assert not any(any(each) for each in hooks(model))
    with interpret.capture(model, "entropies", limit=5000) as seen:  # what the patterns do not fit in
        run(x)
    assert 0 < seen.bytes <= 5000


def test_what_was_not_asked_for_is_named():
    model, run, x = setting("moment")
    with interpret.capture(model, "mlps") as seen:
        run(x)
    with pytest.raises(TsfmError, match="heads were not captured, mlps were"):
        _ = seen.heads
    with pytest.raises(TsfmError, match="capture what?"), interpret.capture(model):
        pass
    with pytest.raises(TsfmError, match="no site 'encoder.9'"), interpret.capture(get("moment"), "mlps", sites=["encoder.9"]):
        series()
