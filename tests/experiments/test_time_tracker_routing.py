"""What the experiments on routing say of their models, series and loads is so."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from tsfm_lib import checkpoints, claims
from tsfm_lib.experiments.time_tracker import routing
from tsfm_lib.experiments.time_tracker.trials import SMALL, forecasts, parameters, scores, trained
from tsfm_lib.experiments.trials import gains

BRIEF = {"steps": 2, "windows": 32}


def made(seed=0, **changes):
    return checkpoints.build("time-tracker", replace(SMALL, **changes), seed).eval()


def test_after_a_shift_the_context_ends_in_the_regime_that_is_forecast():
    given = routing.fresh(0, 200, shift="on")
    assert len(given.series) == 200 and given.switch.max() <= SMALL.context - SMALL.patch and (given.switch % SMALL.patch == 0).all()
    last = given.labels[:, SMALL.context - SMALL.patch :]
    assert (last == last[:, :1]).all() and (given.labels[:, 0] != last[:, 0]).all()
    assert set((SMALL.context - given.switch) // SMALL.patch) == set(range(1, 8))


def test_one_regime_is_one_of_the_eight():
    for seed in (0, 11):
        one, eight = routing.fresh(seed, 50, regimes=1), routing.fresh(seed, 50)
        assert (one.labels == seed % 8).all() and len(np.unique(eight.labels)) == 8
        assert np.array_equal(one.periods, eight.periods)


def test_variants_of_a_seed_see_the_same_batches_and_no_test_window_is_among_them():
    first, again, other = (routing.stream(seed)(5) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other) and first.shape == (48, 1, SMALL.context + SMALL.horizon)
    assert not np.allclose(routing.fresh(0, 48).series, routing.stream(0)(0)[:, 0])


def test_dense_networks_have_the_mixtures_parameters_at_work_and_in_all():
    sizes = {name: (parameters(c, active=True), parameters(c)) for name, c in routing.variants().items()}
    active, total = sizes["moe"]
    assert total > 2 * active and sizes["dense-active"] == pytest.approx((active, active), rel=2e-3)
    assert sizes["dense-total"] == pytest.approx((total, total), rel=2e-3)
    assert sizes["moe-no-shared"] == pytest.approx((active, total), rel=5e-3)
    model = made()
    assert sum(p.numel() for p in model.parameters()) == total
    chosen = [e for layer in model.layers for e in layer.experts.private][: 2 * SMALL.layers]
    rest = sum(p.numel() for name, p in model.named_parameters() if "private" not in name)
    assert rest + sum(p.numel() for e in chosen for p in e.parameters()) == active


def test_evenness_tells_an_even_load_from_a_lopsided_one():
    even, lone = torch.full((16,), 3.0), torch.eye(16)[0]
    assert routing.evenness(even) == pytest.approx({"utilisation": 1, "entropy": 1, "max_violation": 0}, abs=1e-6)
    assert routing.evenness(lone) == pytest.approx({"utilisation": 1 / 16, "entropy": 0, "max_violation": 15}, abs=1e-6)
    both = routing.mean_evenness([even, lone])
    assert both["max_violation"] == pytest.approx(7.5, abs=1e-6)


def test_a_single_active_expert_is_never_chosen_by_gradient():
    for active, taught in ((1, False), (2, True)):
        model = made(active_experts=active).train()
        model.loss(routing.stream(0)(0)).backward()
        assert all((layer.router.clusters.grad.abs().max() > 1e-7).item() == taught for layer in model.layers)


def test_the_last_patch_reaches_the_past_by_channel_routing_alone():
    windows = routing.fresh(0, 64).series
    for variant, way in routing.ROUTINGS.items():
        moved = routing.leak(made(routing=way), windows)
        assert moved[-1] > 1e-2 and (moved[:-1].max() > 1e-4) == (variant == "channel"), variant


def test_errors_by_token_end_with_the_forecast():
    model, windows = made(), routing.fresh(0, 40).series
    tokens = routing.errors_by_token(model, windows)
    assert tokens.shape == (40, 8)
    context, error = windows[:, : SMALL.context], forecasts(model, windows[:, None])[:, 0] - windows[:, SMALL.context :]
    np.testing.assert_allclose(tokens[:, -1], np.square(error).mean(1) / context.var(1), rtol=1e-3)
    assert scores(model, windows)["MSE"] == pytest.approx(np.square(error).mean(), rel=1e-5)


def test_agreement_is_one_when_experts_follow_the_regime_and_none_when_there_is_one_choice_for_all(monkeypatch):
    given = routing.fresh(0, 300)
    model = made(active_experts=1)
    for follows in (True, False):
        chosen = torch.from_numpy(given.labels[:, -1:].copy()) * follows
        for layer in model.layers:
            monkeypatch.setattr(layer.router, "forward", lambda h, seen, chosen=chosen: routing_of(chosen))
        assert routing.agreement(model, given) == pytest.approx(float(follows), abs=1e-6)


def routing_of(indices):
    from tsfm_lib.models.time_tracker import Routing

    return Routing(indices, torch.ones(indices.shape), torch.bincount(indices.flatten(), minlength=8).float())


def test_borrowed_experts_are_another_series_and_one_series_can_only_borrow_from_itself():
    model, windows = made(), routing.fresh(0, 8).series
    own = routing.errors_by_token(model, windows)[:, -1]
    assert np.abs(routing.borrowed(model, windows) - own).max() > 1e-3
    np.testing.assert_allclose(routing.borrowed(model, windows[:1]), own[:1], rtol=1e-4)
    np.testing.assert_allclose(routing.errors_by_token(model, windows)[:, -1], own, rtol=1e-6)  # the hooks are gone


def test_confidence_is_read_off_the_scores_that_choose():
    model, windows = made(), routing.fresh(0, 20).series
    said = routing.confidence_of(model, windows)
    assert (said["margin"] >= 0).all() and ((said["affinity"] > 0) & (said["affinity"] < 1)).all()
    for layer in model.layers:
        layer.router.bias[:2] += 1.0  # two experts are beyond doubt: the margin grows, the affinity does not know
    sure = routing.confidence_of(model, windows)
    assert sure["margin"].min() > said["margin"].max() and sure["affinity"].max() < 1


def test_a_wrong_sign_collapses_the_load_and_the_right_one_mends_it():
    rows = pd.DataFrame(routing.collapse(0, 20, 96, rate=0.03)).set_index("variant")
    assert rows.loc["wrong sign", "utilisation"] <= 0.5 < rows.loc["right sign", "utilisation"]
    assert rows.loc["wrong, then frozen", "max_violation"] > 2 * rows.loc["wrong, then from zero", "max_violation"]


def test_rows_are_those_the_claims_ask_for(monkeypatch):
    monkeypatch.setattr(routing, "model_of", lambda config, seed, *_: checkpoints.build("time-tracker", config, seed).eval())
    audited = [{"experts": 16, "active": 1, "rate": x, "seed": s, **row} for s in (0, 1) for x in (0.0, 1e-2)
               for row in routing.audit(16, 1, x, s, **BRIEF)]  # fmt: skip
    shifted = [{"variant": v, "shift": shift, "seed": s, "profile": "quick", **row} for s in (0, 1) for v in routing.ROUTINGS
               for shift in ("on", "off") for row in routing.shifted(v, shift, s, **BRIEF)]  # fmt: skip
    dense = [{"experiment": "moe_dense", "variant": v, "regimes": n, "seed": s, **routing.moe_dense(v, n, s, **BRIEF)}
             for s in (0, 1) for n in (1, 8) for v in routing.variants()]  # fmt: skip
    shifted = pd.DataFrame(shifted)
    gap = routing.gap(shifted[shifted["experiment"] == "routing_shift"])
    for id, rows in {"T2": pd.DataFrame(audited), "T5": pd.concat([shifted, gap]), "T8": pd.DataFrame(dense)}.items():
        verdict = claims.judge(id, rows)
        assert all(part.interval is not None for part in verdict.parts), [part.why for part in verdict.parts]
    assert gains(pd.DataFrame(dense), "regimes", "MSE", "moe")["gain"].notna().sum() == 2 * 2 * 3


def test_a_trial_goes_on_from_a_copy_and_leaves_its_start_alone():
    start = made()
    before = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    after = trained(SMALL, routing.stream(0), 0, 2, start=start).raw
    assert all(torch.equal(before[name], tensor) for name, tensor in start.state_dict().items())
    assert any(not torch.equal(before[name], tensor) for name, tensor in after.state_dict().items())
