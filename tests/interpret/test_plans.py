"""Plans say what is meant, in whatever order it was said, and name what is not there."""

import pytest

from tests.interpret.models import ATTENTIVE, get
from tsfm_lib import interpret
from tsfm_lib.errors import TsfmError
from tsfm_lib.interpret import plans
from tsfm_lib.interpret.plans import Plan
from tsfm_lib.nn.sites import HeadSite


def test_the_same_said_otherwise_is_the_same_plan(tmp_path):
    plan = Plan(heads={"decoder.1.self": [2, 0, 2], "decoder.0.self": []}, mlps=["decoder.2"], layers=["decoder.3"])
    assert plan == Plan(heads={"decoder.1.self": (0, 2)}, mlps=["decoder.2.mlp"], layers=("decoder.3",))
    assert Plan.load(plan.save(tmp_path / "plan.json")) == plan
    assert plan | Plan() == plan and plan and not Plan()


def test_files_that_hold_no_plan_are_refused(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text('{"head": {}}')
    with pytest.raises(TsfmError, match="holds no plan"):
        Plan.load(path)


@pytest.mark.parametrize("name", ATTENTIVE)
def test_a_layer_is_all_its_sites_and_lies_in_one_module(name):
    model = get(name)
    modules, of_layer = plans.layer_modules(model), plans.layers(model)
    assert list(modules) == list(of_layer) and len({id(m) for m in modules.values()}) == len(modules)
    assert sum(len(here) for here in of_layer.values()) == len(model.sites())
    for layer, here in of_layer.items():
        inside = set(modules[layer].modules())
        assert all((s.out_proj if isinstance(s, HeadSite) else s.module) in inside for s in here)
        parts = Plan(layers=[layer]).resolve(model)
        assert {*parts.heads, *parts.mlps} == {s.name for s in here}
        assert all(parts.heads[s.name] == tuple(range(s.n_heads)) for s in here if isinstance(s, HeadSite))
    assert len(interpret.single_heads(model)) == sum(s.n_heads for s in plans.head_sites(model))
    assert len(interpret.single_layers(model)) == len(modules)


@pytest.mark.parametrize(
    "plan, said",
    [
        (Plan(heads={"decoder.0.slef": [0]}), r"no heads at 'decoder.0.slef', there are encoder.0.self, .*did you mean 'decoder.0.self'"),
        (Plan(heads={"decoder.0.mlp": [0]}), "no heads at 'decoder.0.mlp'"),
        (Plan(heads={"decoder.0.self": [0, 2]}), r"decoder.0.self has heads 0 to 1, got \[0, 2\]"),
        (Plan(mlps=["decoder.7"]), "no MLP at 'decoder.7.mlp', there are encoder.0.mlp"),
        (Plan(layers=["decoder.7"]), "no layer 'decoder.7' in ChronosBolt, there are encoder.0, decoder.0"),
    ],
)
def test_what_a_model_does_not_have_is_refused_with_what_it_has(plan, said):
    with pytest.raises(TsfmError, match=said):
        plan.resolve(get("chronos-bolt"))


def test_a_name_where_names_are_expected_is_refused():
    with pytest.raises(TsfmError, match="put it in brackets"):
        Plan(layers="decoder.0")
    with pytest.raises(TsfmError, match="no site 'middle' in ChronosBolt, there are encoder.0.self"):
        plans.sites(get("chronos-bolt"), ["middle"])


def test_models_without_attention_have_nothing_to_take_out():
    assert plans.sites(get("dlinear")) == {} and interpret.thirds(get("dlinear")) == {}
    with pytest.raises(TsfmError, match="there are none"):
        Plan(mlps=["encoder.0"]).resolve(get("dlinear"))


def test_thirds_of_a_stack():
    model = interpret.plans.layers(get("moment"))
    assert list(model) == ["encoder.0", "encoder.1"]
    assert interpret.thirds(get("moment")) == {"encoder.0": "early", "encoder.1": "middle"}
    assert interpret.thirds(get("chronos-bolt"), "encoder") == {"encoder.0": "early"}
