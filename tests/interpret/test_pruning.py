"""A pruned model says what the ablated one says, with fewer numbers."""

import pytest
import torch

from tests.interpret.models import ATTENTIVE, close, get, running, series, setting
from tsfm_lib import checkpoints, interpret
from tsfm_lib.errors import TsfmError
from tsfm_lib.interpret.plans import Plan, head_sites, layers
from tsfm_lib.nn.sites import MLPSite


def plans_for(model):
    """One other head of each site; a site without heads; MLPs; a whole layer."""
    heads = head_sites(model)
    mlps = [s.name for s in model.sites() if isinstance(s, MLPSite)]
    return [
        Plan(heads={s.name: [i % s.n_heads] for i, s in enumerate(heads)}),
        Plan(heads={heads[0].name: range(heads[0].n_heads), heads[-1].name: [0]}, mlps=mlps[-1:]),
        Plan(layers=list(layers(model))[:1], mlps=mlps),
    ]


@pytest.mark.parametrize("name", ATTENTIVE)
def test_pruned_equals_ablated_and_is_smaller(name):
    model, run, x = setting(name)
    intact = run(x)
    for plan in plans_for(model):
        small = interpret.prune(model, plan)
        with interpret.ablate(model, plan):
            close(running(small)(x), run(x))
        cut = sum(len(h) * 2 * model_site.head_dim * model_site.out_proj.out_features
                  for model_site in head_sites(model) for h in [plan.resolve(model).heads.get(model_site.name, ())])  # fmt: skip
        assert interpret.parameters(small) <= interpret.parameters(model) - cut
        assert {s.name: s.n_heads for s in head_sites(small)} == {
            s.name: s.n_heads - len(plan.resolve(model).heads.get(s.name, ())) for s in head_sites(model)
        }
    assert torch.equal(run(x), intact)  # it was a copy


def test_each_layer_takes_its_own_heads_from_the_bias_that_all_share():
    config = {**vars(get("chronos-t5").config), "encoder_layers": 3, "decoder_layers": 2, "heads": 4}
    model, x = checkpoints.build("chronos-t5", config, 0).eval(), series(v=1)
    with torch.no_grad():
        model.encoder.bias.table.weight.mul_(30)  # or nobody would notice
    plan = Plan(heads={"encoder.0.self": [0], "encoder.1.self": [1, 3], "encoder.2.self": [0, 1, 2], "decoder.0.self": range(4),
                       "decoder.1.self": [2], "decoder.1.cross": [0, 3]})  # fmt: skip
    small, run = interpret.prune(model, plan), lambda m: m.predict_quantiles(x, 6, [0.1, 0.5])  # step by step, with a past
    with interpret.ablate(model, plan):
        close(run(small), run(model))
    again = interpret.prune(interpret.prune(model, Plan(heads={"encoder.1.self": [1]})), Plan(heads={"encoder.1.self": [2]}))
    assert again.pruned == Plan(heads={"encoder.1.self": [1, 3]})
    with interpret.ablate(model, again.pruned):
        close(run(again), run(model))


@pytest.mark.parametrize("name", ["chronos-bolt", "time-tracker", "timesfm"])
def test_a_pruned_model_is_saved_and_loaded(name, tmp_path):
    model, _, x = setting(name)
    small = interpret.prune(model, plans_for(model)[1])
    back = interpret.load_pruned(interpret.save_pruned(small, tmp_path / "small"))
    assert torch.equal(running(back)(x), running(small)(x)) and back.pruned == small.pruned
    assert Plan.load(tmp_path / "small" / "plan.json") == small.pruned
    with pytest.raises(TsfmError, match="was not pruned"):
        interpret.save_pruned(model, tmp_path / "whole")
    checkpoints.save(model, tmp_path / "whole")
    with pytest.raises(TsfmError, match="holds no pruned model"):
        interpret.load_pruned(tmp_path / "whole")


def test_a_pruned_model_can_be_ablated_trained_and_looked_at():
    model = get("chronos-bolt")
    small = interpret.prune(model, Plan(heads={"encoder.0.self": [0]}, mlps=["decoder.0"]))
    with interpret.capture(small, "patterns") as seen:
        small.predict_quantiles(series(v=1), 8, [0.5])
    assert seen.patterns["encoder.0.self"].shape[1] == 1
    with pytest.raises(TsfmError, match="heads 0 to 0"):
        Plan(heads={"encoder.0.self": [1]}).resolve(small)
    small.train().loss(series(length=72)).backward()
    assert small.encoder.layers[0].attend.q.weight.grad.shape == (8, 16)
