"""What is taken out is out, nothing else is touched, and nothing stays behind."""

import re
import warnings

import pytest
import torch

from tests.interpret.models import ATTENTIVE, close, get, hooks, series, setting
from tests.parity.reference import files, near, read
from tsfm_lib import checkpoints, interpret
from tsfm_lib.checkpoints import chronos, chronos_bolt, timesfm, toto
from tsfm_lib.errors import TsfmError
from tsfm_lib.interpret.plans import Plan, head_sites, layers
from tsfm_lib.nn.sites import MLPSite


@pytest.mark.parametrize("name", ATTENTIVE)
def test_taking_out_a_head_is_zeroing_the_columns_that_read_it(name):
    model, run, x = setting(name)
    for site in head_sites(model):
        with interpret.ablate(model, heads={site.name: [1]}):
            without = run(x)
        weight = site.out_proj.weight.detach().clone()
        with torch.no_grad():
            site.out_proj.weight[:, site.head_dim : 2 * site.head_dim] = 0
        by_hand = run(x)
        with torch.no_grad():
            site.out_proj.weight.copy_(weight)
        close(without, by_hand)
        assert not torch.equal(without, run(x)), site.name


@pytest.mark.parametrize("name", ATTENTIVE)
def test_afterwards_the_model_is_what_it_was_even_after_an_error(name):
    model, run, x = setting(name)
    before, clean = run(x), hooks(model)
    with interpret.ablate(model, layers=list(layers(model))):
        assert not torch.equal(run(x), before)
    with pytest.raises(RuntimeError, match="in the middle"), interpret.ablate(model, layers=list(layers(model))):
        raise RuntimeError("in the middle")
    assert hooks(model) == clean and torch.equal(run(x), before)


@pytest.mark.parametrize("name", ATTENTIVE)
def test_blocks_can_be_nested_and_the_inner_one_removes_only_its_own(name):
    model, run, x = setting(name)
    first, *_, last = head_sites(model)
    mlp = next(s.name for s in model.sites() if isinstance(s, MLPSite))
    one, other = Plan(heads={first.name: [0]}, mlps=[mlp]), Plan(heads={last.name: [1], first.name: [1]})
    with interpret.ablate(model, one):
        alone = run(x)
        with interpret.ablate(model, other):
            both = run(x)
        assert torch.equal(run(x), alone)
    with interpret.ablate(model, one | other):
        close(run(x), both)


def test_the_residual_stream_passes_a_layer_that_is_out():
    """Without biases behind the heads, a layer without its sites is the identity."""
    model, run, x = setting("moirai")
    with interpret.ablate(model, layers=["encoder.0"]), interpret.capture(model, "residuals") as seen:
        run(x)
    assert torch.equal(seen.residuals["encoder.0"], seen.residuals["encoder.in"])
    assert not torch.equal(seen.residuals["encoder.1"], seen.residuals["encoder.0"])


def test_a_hook_never_writes_into_what_others_hold():
    model, run, x = setting("kairos")
    site, seen = head_sites(model)[0], []
    handle = site.out_proj.register_forward_pre_hook(lambda module, inputs: seen.append((inputs[0], inputs[0].clone())))
    with interpret.ablate(model, heads={site.name: [0]}):
        run(x)
    handle.remove()
    assert all(torch.equal(held, copy) and copy.abs().sum() > 0 for held, copy in seen)


def test_gradients_pass_by_what_is_left():
    model = checkpoints.build("chronos-bolt", get("chronos-bolt").config, 1)
    site = head_sites(model)[0]
    with interpret.ablate(model, heads={site.name: [0]}):
        model.loss(series(length=72)).backward()
    read = site.out_proj.weight.grad.unflatten(1, (site.n_heads, site.head_dim))
    assert (read[:, 0] == 0).all() and read[:, 1].abs().sum() > 0


# ---- means and other series in place of nothing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATTENTIVE)
def test_a_mean_of_the_same_series_is_what_they_said_on_average(name):
    model, run, x = setting(name)
    site = head_sites(model)[0]
    known = interpret.calibrate(model, run, x, names=[site.name])
    with interpret.capture(model, "heads", sites=[site.name]) as intact:
        run(x)
    with interpret.ablate(model, heads={site.name: [0]}, mode="mean", calibration=known):
        after = seen_behind(model, site, run, x)
    mean = intact.heads[site.name].mean((0, 1))
    close(after[:, :, 0], mean[0].expand_as(after[:, :, 0]))
    close(after[:, :, 1], intact.heads[site.name][:, :, 1])


def seen_behind(model, site, run, x):
    """What the output projection meets, behind all hooks on it."""
    found, forward = [], site.out_proj.forward
    site.out_proj.forward = lambda z: (found.append(z.clone()), forward(z))[1]
    try:
        run(x)
    finally:
        del site.out_proj.forward
    return torch.cat(found).unflatten(-1, (site.n_heads, site.head_dim))


def test_means_by_position_and_donors_are_those_of_the_calibration():
    model, run, x = setting("moirai", b=6, v=1)
    site = head_sites(model)[1]
    known = interpret.calibrate(model, run, series(b=9, v=1, length=64, seed=5))
    said = known.said[site.name].unflatten(-1, (site.n_heads, site.head_dim))
    with interpret.ablate(model, heads={site.name: [1]}, mode="mean-by-position", calibration=known):
        after = seen_behind(model, site, run, x)
    close(after[:, :, 1], said[:, :, 1].mean(0).expand_as(after[:, :, 1]))
    draws = []
    for seed in (0, 0, 1):
        with interpret.ablate(model, heads={site.name: [1]}, mode="resample", calibration=known, seed=seed):
            draws.append(seen_behind(model, site, run, x)[:, :, 1])
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert all(any(torch.equal(row, donor) for donor in said[:, :, 1]) for row in draws[0])


def test_modes_and_calibrations_that_do_not_fit_are_refused():
    model, run, x = setting("moirai", v=1)
    known = interpret.calibrate(model, run, x, names=["encoder.0"])

    def refused(said, what, x=x, **options):
        with pytest.raises(TsfmError, match=said), interpret.ablate(model, mlps=[what], **options):
            run(x)

    refused("do not go together", "encoder.0", mode="mean")
    refused("do not go together", "encoder.0", mode="zero", calibration=known)
    refused("must be one of", "encoder.0", mode="none")
    refused("was not calibrated", "encoder.1", mode="mean", calibration=known)
    refused("of the same length", "encoder.0", x=x[..., :40], mode="resample", calibration=known)
    assert not any(any(each) for each in hooks(model))


# ---- nothing happened ------------------------------------------------------------------------------------------------------------------


def test_an_ablation_without_effect_warns():
    model, run, x = setting("chronos-bolt")
    with pytest.warns(UserWarning, match="decoder.0.self was never run"), interpret.ablate(model, heads={"decoder.0.self": [0]}):
        pass
    twice = interpret.ablate(model, mlps=["decoder.0"]), interpret.ablate(model, mlps=["decoder.0"])
    with twice[0], pytest.warns(UserWarning, match="decoder.0.mlp had said the same"), twice[1]:
        run(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with interpret.ablate(model, mlps=["decoder.0"]):
            run(x)


# ---- the authors' own ablations --------------------------------------------------------------------------------------------------------

STACKS, KINDS = {"enc": "encoder", "dec": "decoder"}, {"sa": "self", "ca": "cross"}


def plan_of(model, name):
    """Of a name in the files: enc_sa_l1_h2, dec_mlp_l0, dec_layer_l1 | attn_l0_h1, mlp_l1, layer_l1."""
    stack, kind, layer, head = re.fullmatch(r"(?:(enc|dec)_)?(sa|ca|attn|mlp|layer)_l(\d+)(?:_h(\d+))?", name).groups()
    layer = f"{STACKS.get(stack, 'decoder')}.{layer}"
    if kind == "layer":
        return Plan(layers=[layer])
    if kind == "mlp":
        return Plan(mlps=[layer])
    site = next(s.name for s in head_sites(model, [layer]) if kind == "attn" or s.kind == KINDS[kind])
    return Plan(heads={site: [int(head)]})


@torch.no_grad()
def bolt_outputs(case, name):
    model, x = chronos_bolt.from_official(case.config, case.weights, ("crossing_quantiles",)), case.given[name]
    return model, lambda: {"": model(x).mT}


@torch.no_grad()
def t5_outputs(case, name):
    model = chronos.from_official(case.config, case.weights, ("float32_statistics", "draws_specials", "median_roll_out"))
    sentence, labels = model.tokenise(case.given[f"{name}.context"]), case.expected[f"{name}.label_ids"].long()
    return model, lambda: {"": model(sentence, labels)}


@torch.no_grad()
def timesfm_outputs(case, name):
    model = timesfm.from_official(case.config, case.weights, ("small_is_flat", "padding_in_scale", "unswapped_roll_out"))
    x = case.given[f"{name}.values"].masked_fill(case.given[f"{name}.masks"].bool(), torch.nan)
    return model, lambda: {".spread": model(x, 1).spread}


@torch.no_grad()
def toto_outputs(case, name):
    arch = case.config.get("arch", case.config)
    model, p = toto.from_official(arch, case.weights, ("missing_is_zero", "variance_floor")), arch["patch_size"]
    x = case.given[f"{name}.series"].masked_fill(~case.given[f"{name}.padding_mask"].bool(), torch.nan)
    groups = case.given[f"{name}.id_mask"].long()[..., p - 1 :: p]

    def run():
        z, seen, _ = model.normalise(x)
        found = model(z, model.visible(seen), groups)
        return {".mix_loc": found.families[0].loc[:, :, -1], ".mix_logits": found.logits[:, :, -1]}

    return model, run


OUTPUTS = {"chronosbolt-": bolt_outputs, "chronost5-": t5_outputs, "timesfm-": timesfm_outputs, "toto-": toto_outputs}


@pytest.mark.parametrize("path, make", [pytest.param(*p.values, make, id=p.id) for kind, make in OUTPUTS.items() for p in files(kind)])
@torch.no_grad()
def test_ablations_are_those_of_the_authors_code(path, make):
    case, checked = (read(path), 0) if path else pytest.skip("no case")
    for name in sorted({key.split(".")[0] for key in case.expected if ".ablate." in key}):
        model, run = make(case, name)
        for what in sorted({key.split(".")[2] for key in case.expected if key.startswith(f"{name}.ablate.")}):
            with interpret.ablate(model, plan_of(model, what)):
                outputs = run()
            for part, value in outputs.items():
                if f"{name}.ablate.{what}{part}" in case.expected:
                    expected = case.expected[f"{name}.ablate.{what}{part}"]
                    near(value.reshape(expected.shape), expected)
                    checked += 1
    assert checked >= 4

