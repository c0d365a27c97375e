"""Rankings say of planted heads what was planted in them."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.interpret.models import ATTENTIVE, close, get, series, setting
from tests.parity.reference import files, near, read
from tsfm_lib import checkpoints, interpret
from tsfm_lib.checkpoints import chronos, chronos_bolt, timesfm, toto
from tsfm_lib.errors import TsfmError
from tsfm_lib.interpret import ranking
from tsfm_lib.interpret.plans import Plan, head_sites
from tsfm_lib.nn.attention import Attention
from tsfm_lib.nn.sites import attention_site

randn = lambda *shape, seed=0: torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_stable_rank_is_that_of_the_whole_product():
    q, k = randn(3, 4, 16), randn(3, 4, 10, seed=1)
    s = torch.linalg.svdvals(q.double().mT @ k.double())
    close(ranking.rank_of_product(q, k), s.square().sum(-1) / s[:, 0].square())


def test_random_weights_have_about_half_the_head_width():
    """The levels that were computed for published sizes: 32.8 of 64 at width 768, 28.0 of 64 at 512, 4.1 of 8 at 64."""
    for width, head, level in ((768, 64, 32.8), (512, 64, 28.0), (64, 8, 4.1)):
        null = [ranking.rank_of_product(randn(1, head, width, seed=i), randn(1, head, width, seed=99 + i)) for i in range(6)]
        assert abs(torch.stack(null).mean().item() / level - 1) < 0.06
    model = get("moment")
    null = interpret.random_stable_rank(model, draws=8)
    assert {n: v.shape for n, v in null.items()} == {n: v.shape for n, v in interpret.stable_rank(model).items()}
    assert all((v > 1).all() and (v < 8).all() for v in null.values())


@pytest.mark.parametrize("norm", [nn.RMSNorm(8), nn.LayerNorm(8)], ids=["rms", "layer"])
def test_folded_weights_are_what_a_head_does_to_the_stream(norm):
    """Scores of a query and differences of keys, behind the norms: with the folded product they need no norm but its length."""
    attention = Attention(8, 2)
    with torch.no_grad():
        norm.weight.copy_(1 + 0.5 * randn(8))
    site = attention_site("encoder", 0, "self", attention, norm)
    q, k = site.fold(*site.qk())
    x, y = randn(5, 8, seed=1), randn(6, 8, seed=2)
    centre = (lambda t: t - t.mean(-1, keepdim=True)) if isinstance(norm, nn.LayerNorm) else lambda t: t
    unit = lambda t: t / centre(t).square().mean(-1, keepdim=True).sqrt()
    for h in range(2):
        rows = slice(4 * h, 4 * h + 4)
        expected = (norm(x) @ attention.q.weight[rows].T) @ (norm(y) @ attention.k.weight[rows].T).T
        close(unit(x) @ q[h].T @ k[h] @ unit(y).T, expected, 1e-4)


@pytest.mark.parametrize("name", ATTENTIVE)
def test_gains_move_the_folded_rank_and_only_that(name):
    model = checkpoints.build(name, get(name).config, 0).eval()
    raw, folded = interpret.stable_rank(model), interpret.stable_rank(model, folded=True)
    with torch.no_grad():
        for n, p in model.named_parameters():
            if "norm" in n and n.endswith("weight") or n.endswith("channel_scale"):
                p.mul_(1 + 0.9 * randn(*p.shape).tanh()).add_(0.1 * randn(*p.shape, seed=1))
    for site in raw:
        close(interpret.stable_rank(model)[site], raw[site])
        assert not torch.allclose(interpret.stable_rank(model, folded=True)[site], folded[site], rtol=1e-3), site


def test_gains_of_queries_and_keys_are_folded():
    """Where one channel alone is loud on both sides, the product has rank one."""
    pairs = {"moirai": ("attention.q_norm.weight", "attention.k_norm.weight"), "timesfm": ("norm_q.weight", "norm_k.weight")}
    for name, gains in pairs.items():
        model = checkpoints.build(name, get(name).config, 0)
        with torch.no_grad():
            for n, p in model.named_parameters():
                if n.endswith(gains):
                    p.copy_(torch.eye(len(p))[0])
        assert all((v > 1.05).all() for v in interpret.stable_rank(model).values())
        close(torch.cat(list(interpret.stable_rank(model, folded=True).values())).float(), torch.ones(4))


FAMILIES = {"chronosbolt-": chronos_bolt, "chronost5-": chronos, "timesfm-": timesfm, "toto-": toto}


@pytest.mark.parametrize("path, kind", [pytest.param(*p.values, kind, id=p.id) for kind in FAMILIES for p in files(kind)])
def test_stable_ranks_are_those_of_the_authors_weights(path, kind):
    case = read(path) if path else pytest.skip("no case")
    model = FAMILIES[kind].from_official(case.config.get("arch", case.config), case.weights)
    ranks, short = interpret.stable_rank(model), {"enc_sa": "encoder self", "dec_sa": "decoder self", "dec_ca": "decoder cross"}
    keys = [key for key in case.expected if key.startswith("srank") and not key.endswith("WRONG")]
    assert keys
    for key in keys:
        stack, where = short.get(key.partition(".")[2], "decoder").split()[0], short.get(key.partition(".")[2], " ").split(" ")[1]
        here = [s.name for s in head_sites(model, [stack]) if where in ("", s.kind)]
        near(torch.stack([ranks[name] for name in here]), case.expected[key])


# ---- what needs data -------------------------------------------------------------------------------------------------------------------


def planted(name="moment"):
    """A model whose first site has a blind head (it looks everywhere alike) and a head that looks at one token."""
    model = checkpoints.build(name, get(name).config, 0).eval()
    site = head_sites(model)[0]

    def pattern(module, inputs, found):
        found = found.clone()
        found[:, 0] = 1 / found.shape[-1]
        found[:, 1] = torch.eye(found.shape[-1])[1]
        return found

    handle = site.pattern.register_forward_hook(pattern)
    return model, site, handle


def test_sharp_heads_have_low_entropy_and_patterns_their_rank():
    model, site, handle = planted()
    x = series(length=64)
    entropy = interpret.sharpness(model, model.embed, x)[site.name]
    close(entropy.float(), torch.tensor([np.log(8), 0.0]).float())
    close(interpret.attention_svd(model, model.embed, x, [site.name])[site.name].float(), torch.ones(2))
    handle.remove()
    mixed = interpret.attention_svd(model, model.embed, x)
    assert all((v > 1).all() and (v < 8).all() for v in mixed.values())
    assert all((v >= 1).all() and (v <= site.head_dim).all() for v in interpret.output_svd(model, model.embed, x).values())


def test_magnitudes_follow_the_weights():
    model, run, x = setting("moment")
    model = checkpoints.build("moment", model.config, 0).eval()
    name = head_sites(model)[1].name
    before = [interpret.magnitude(model)[name], interpret.magnitude(model, model.embed, x)[name]]
    attention = model.layers[1].attention
    with torch.no_grad():
        attention.q.weight[8:] *= 3
        attention.k.weight[8:] /= 3
        attention.out.weight[:, 8:] *= 2
    after = [interpret.magnitude(model)[name], interpret.magnitude(model, model.embed, x)[name]]
    close(after[0], before[0])
    close(after[1], before[1] * torch.tensor([1.0, 2.0]))


def test_induction_finds_the_head_that_looks_behind_the_last_copy():
    model, period = get("chronos-bolt"), 3
    encoder, cross = (next(s for s in head_sites(model) if s.kind == kind) for kind in ("self", "cross"))

    def look_back(module, inputs, found):
        found = found.clone()
        n = found.shape[2]
        found[:, 1] = 0
        for i in range(n):
            found[:, 1, i, max(i + 1 - period, 0)] = 1
        return found

    def look_at_copy(module, inputs, found):
        found = found.clone()
        found[:, 0] = torch.eye(found.shape[-1])[found.shape[-1] - 1 - period]  # [REG] stands behind the context
        return found

    handles = [encoder.pattern.register_forward_hook(look_back), cross.pattern.register_forward_hook(look_at_copy)]
    run = lambda x: model.predict_quantiles(x, 8, [0.5])
    scores = interpret.induction(model, run, series(v=1, length=64), period, tail=1, names=["encoder", cross.name])
    for handle in handles:
        handle.remove()
    assert scores[encoder.name][1] == 1 and scores[encoder.name][0] < 0.9
    assert scores[cross.name][0] == 1 and scores[cross.name][1] < 0.9
    with pytest.raises(TsfmError, match="none a motif of 30 tokens back"):
        interpret.induction(model, run, series(v=1, length=64), 30, tail=1, names=[encoder.name])


def test_the_oracle_is_the_cost_of_each_head():
    model, run, x = setting("moirai", v=1)
    target, loss = series(v=1, b=3, seed=4, length=7), lambda y, target: (y[..., 1] - target).abs().mean((1, 2))
    costs = interpret.oracle(model, run, x, target, loss)
    name = head_sites(model)[1].name
    with interpret.ablate(model, heads={name: [1]}):
        without = loss(run(x), target).mean()
    close(costs[name][1].float(), without - loss(run(x), target).mean())


# ---- plans -----------------------------------------------------------------------------------------------------------------------------


def test_shares_are_cut_from_the_asked_end():
    scores = {"a": torch.tensor([0.3, 0.1, 0.2, 0.9]), "b": torch.tensor([0.5, 0.4, 0.7, 0.6])}
    assert interpret.order(scores)[:3] == [("a", 1), ("a", 2), ("a", 0)]
    assert interpret.select(scores, 0.5).heads == {"a": (0, 1, 2), "b": (1,)}
    assert interpret.select(scores, 0.25, highest=True).heads == {"a": (3,), "b": (2,)}
    assert interpret.select(scores, 0.5, per_site=True).heads == {"a": (1, 2), "b": (0, 1)}
    assert not interpret.select(scores, 0.0)
    with pytest.raises(TsfmError, match="between 0 and 1, got 28"):
        interpret.select(scores, 28)


def test_a_random_plan_has_the_same_counts_and_reaches_every_head():
    model = checkpoints.build("moment", {**vars(get("moment").config), "heads": 4, "head_width": 4}, 0)
    plan = Plan(heads={"encoder.0.self": [0], "encoder.1.self": [1, 2]}, mlps=["encoder.1"])
    drawn = [interpret.random_like(model, plan, seed) for seed in range(40)]
    assert drawn[0] == interpret.random_like(model, plan, 0) and len({str(p) for p in drawn}) > 10
    assert all({n: len(h) for n, h in p.heads.items()} == {"encoder.0.self": 1, "encoder.1.self": 2} and p.mlps == plan.mlps for p in drawn)
    assert {h for p in drawn for h in p.heads["encoder.1.self"]} == {0, 1, 2, 3}


def test_tables_and_correlations_within_sites():
    model = checkpoints.build("moment", {**vars(get("moment").config), "heads": 4, "head_width": 4}, 0)
    ranks = interpret.stable_rank(model)
    frame = interpret.table(model, stable_rank=ranks, cost={n: -v for n, v in ranks.items()})
    assert list(frame.columns) == ["site", "stack", "layer", "kind", "head", "stable_rank", "cost"] and len(frame) == 8
    assert (frame["cost"] == -frame["stable_rank"]).all()
    found = interpret.within_sites(ranks, {"encoder.0.self": ranks["encoder.0.self"] ** 2, "encoder.1.self": torch.zeros(4)})
    assert abs(found["rho"][0] - 1) < 1e-12 and np.isnan(found["rho"][1])
