"""What must hold of Time Tracker whatever its weights are."""

from dataclasses import replace

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from tsfm_lib import checkpoints
from tsfm_lib.errors import TsfmError
from tsfm_lib.models.time_tracker import TimeTracker, TimeTrackerConfig
from tsfm_lib.nn.graph import UNRELATED, FrequencyGraph, Links, VariateAttention, connect, similarity
from tsfm_lib.nn.moe import entropy, max_violation
from tsfm_lib.synth.planted import graph_case, regimes

LEVELS = [0.1, 0.5, 0.9]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def made(seed=0, **changes):
    """A tiny model in which attention between variates and the choice of experts have a say."""
    config = replace(TimeTrackerConfig.tiny(), **{"active_experts": 2, "other_bias": 0.5, **changes})
    return checkpoints.build("time-tracker", config, seed).eval()


def series(batch=2, variates=4, steps=64, seed=0):
    return torch.randn(batch, variates, steps, generator=seeded(seed)).cumsum(-1)


def some_edges(batch=2, variates=4, seed=3):
    """Directed, with rows of unequal degree."""
    return torch.rand(batch, variates, variates, generator=seeded(seed)) < 0.4


def encoded(model, x, adjacency=None):
    z, seen, _ = model.normalise(model.window(x))
    return model.encode(z, seen, model.links(z, adjacency))


# ---- attention along the edges -----------------------------------------------------------------------------------------------------


def test_gathered_attention_equals_the_dense_mask_and_so_do_its_gradients():
    x, edges, found = series(), some_edges(), []
    x[0, 1, :24] = torch.nan
    for attention in ("gathered", "dense"):
        model = made(attention=attention)
        model.loss(torch.cat([x, x[..., :8]], -1), adjacency=edges).backward()
        found.append([model(x, edges), *(p.grad for n, p in model.named_parameters() if "attend" in n)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=0, check_dtype=False)
    assert edges.sum(-1).unique().numel() > 1


def test_gathered_attention_costs_variates_x_tokens_x_neighbours_x_tokens():
    shapes, model = [], made()
    ring = torch.eye(12, dtype=torch.bool).roll(1, 0) | torch.eye(12, dtype=torch.bool).roll(2, 0)
    site = next(s for s in model.sites() if s.name == "decoder.1.self")
    site.pattern.register_forward_hook(lambda module, inputs, pattern: shapes.append(tuple(pattern.shape)))
    model(series(2, 12), ring.expand(2, -1, -1))
    assert shapes == [(2 * 12, 2, 8, 3 * 8)]  # (B V, H, N, mN), m = two neighbours and itself


def test_rows_of_the_adjacency_read_and_columns_are_read():
    model, x = made(), series(1, 3)
    edges = torch.zeros(1, 3, 3, dtype=torch.bool)
    edges[0, 0, 2] = True
    plain, changed = model(x, edges), x.clone()
    changed[:, 2] = series(1, 1, seed=9)[:, 0]
    moved = (model(changed, edges) - plain).abs().amax(-1)[0] > 1e-4
    assert moved.tolist() == [True, False, True]


def test_without_alpha_variates_are_alone_to_the_bit():
    x = series()
    apart, mixing = made(alpha=0), made(alpha=1)
    for weights in (apart, mixing):
        assert sum(p.numel() for p in weights.graph.parameters()) == 0
    mixing.load_state_dict(apart.state_dict())
    none, own = torch.zeros(2, 4, 4, dtype=torch.bool), torch.eye(4, dtype=torch.bool).expand(2, -1, -1)
    for other in (apart(x, none), mixing(x, own), apart.mixed(cut=1)(x)):
        assert torch.equal(other, apart(x))
    assert not torch.allclose(mixing(x, some_edges()), apart(x), atol=1e-3)
    alone = torch.cat([apart(x[:, v : v + 1]) for v in range(4)], 1)
    torch.testing.assert_close(alone, apart(x), atol=1e-5, rtol=1e-5)


def test_permuted_variates_give_permuted_forecasts_along_any_graph():
    model, x, edges, order = made(), series(), some_edges(), torch.tensor([2, 0, 3, 1])
    there = model.predict_quantiles(x[:, order], 20, LEVELS, adjacency=edges[:, order][:, :, order])
    torch.testing.assert_close(there, model.predict_quantiles(x, 20, LEVELS, adjacency=edges)[:, order], atol=1e-4, rtol=1e-4)


def test_a_variate_far_away_in_time_is_not_far_in_rotation():
    """Positions are times, not numbers of the flattened sequence: copies of one variate are all alike to a reader."""
    layer, h = VariateAttention(8, 2), torch.randn(1, 5, 8, generator=seeded()).repeat(3, 1, 1)
    seen = torch.ones(3, 5, dtype=torch.bool)
    near, far = torch.zeros(2, 1, 3, 3, dtype=torch.bool)
    near[0, 0, 1], far[0, 0, 2] = True, True
    torch.testing.assert_close(layer(h, seen, connect(near))[0], layer(h, seen, connect(far))[0])


def test_biases_of_the_variates_get_no_gradient_while_variates_are_apart():
    model, batch = made(alpha=0, seed=1), series(steps=72)
    model.train().loss(batch, seeded()).backward()
    biases = [p for layer in model.layers for p in (layer.attend.same, layer.attend.other)]
    assert all((p.grad == 0).all() for p in biases)
    mixed = model.mixed()
    mixed.loss(batch, adjacency=some_edges()).backward()
    last = mixed.layers[-1].attend
    assert last.same.grad.abs().max() > 1e-6 and last.other.grad.abs().max() > 1e-6


def test_the_written_out_attention_agrees_that_apart_there_is_nothing_to_learn():
    layer, h = VariateAttention(8, 2, other=0.3), torch.randn(6, 5, 8, generator=seeded())
    own = Links(torch.arange(3).view(1, 3, 1).expand(2, -1, -1), torch.ones(2, 3, 1, dtype=torch.bool))
    past = torch.ones(5, 5, dtype=torch.bool).tril()
    layer.over_all(h, torch.ones(6, 5, dtype=torch.bool), past, own, None).square().sum().backward()
    assert layer.other.grad.abs().max() == 0
    assert layer.same.grad.abs().max() < 1e-4 * layer.attention.v.weight.grad.abs().max()


# ---- causality ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("routing", "leaks"), [("channel", True), ("channel_prefix", False), ("token", False)])
def test_the_future_reaches_the_past_by_channel_routing_alone(routing, leaks):
    """With normalisation and graph held still: the choice of experts for a whole series is the one way back in time."""
    model, z = made(routing=routing), series(1, 3)
    changed = z.clone()
    changed[..., 56:] += 5.0
    seen, links = torch.ones_like(z, dtype=torch.bool), connect(torch.ones(1, 3, 3, dtype=torch.bool))
    with torch.no_grad():
        before, after = (model.encode(x, seen, links).hidden for x in (z, changed))
    gap = (before - after).abs().amax((0, 1, 3))  # N
    assert gap[-1] > 1e-2
    assert bool(gap[:-1].max() > 1e-4) == leaks


def test_padding_in_front_and_missing_patches_do_not_matter():
    x, edges = series(steps=40), some_edges()
    padded = nn.functional.pad(x, (24, 0), value=torch.nan)
    for routing in ("channel", "channel_prefix", "token"):
        model = made(routing=routing, seed=2)
        torch.testing.assert_close(model(padded, edges), model(x, edges), atol=1e-5, rtol=1e-5)
    z, _, _ = model.normalise(model.window(x))
    filled, _, _ = model.normalise(padded)
    torch.testing.assert_close(model.graph.similarity(z), model.graph.similarity(filled), atol=1e-5, rtol=0)


# ---- experts -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", ["channel", "token"])
@pytest.mark.parametrize("grouped", [False, True])
def test_experts_equal_the_paper_written_series_by_series(gate, grouped):
    model, h = made(gate=gate, grouped_experts=grouped, shared_experts=2), torch.randn(5, 7, 16, generator=seeded())
    block, seen = model.layers[0], torch.ones(5, 7, dtype=torch.bool)
    seen[1, :3] = False
    block.router.bias.copy_(torch.tensor([0.0, 0.4, -0.2, 0.1]))
    with torch.no_grad():
        routing = block.router(h, seen)
        out = block.experts(h, routing)
        for series_, mask, mine, chosen in zip(h, seen, out, routing.indices):
            affinity = torch.sigmoid(series_ @ block.router.clusters.T)  # N E
            mean = affinity[mask].mean(0)
            best = (mean + block.router.bias).argsort(descending=True)[:2]
            assert set(best.tolist()) == set(chosen.tolist())
            weight = mean.expand_as(affinity) if gate == "channel" else affinity
            total = weight[:, best].sum(-1, keepdim=True)
            by_hand = sum(expert(series_) for expert in block.experts.shared)
            by_hand = by_hand + sum(weight[:, [e]] / total * block.experts.private[e](series_) for e in best.tolist())
            torch.testing.assert_close(mine, by_hand, atol=1e-5, rtol=1e-5)


def test_the_bias_chooses_but_does_not_weigh():
    router, h = made().layers[0].router, torch.randn(6, 7, 16, generator=seeded())
    seen = torch.ones(6, 7, dtype=torch.bool)
    plain = router.affinity(h, seen)[:, 0]
    router.bias[3] = 2.0
    with torch.no_grad():
        routing = router(h, seen)
    assert (routing.indices[:, 0] == 3).all()
    chosen = plain.gather(1, routing.indices)
    torch.testing.assert_close(routing.gates, chosen / chosen.sum(1, keepdim=True))


def test_one_choice_per_series_or_one_per_token():
    h = torch.randn(6, 7, 16, generator=seeded())
    for routing, rows in (("channel", 6), ("channel_prefix", 42), ("token", 42)):
        assert made(routing=routing).layers[0].router(h, torch.ones(6, 7, dtype=torch.bool)).indices.shape == (rows, 2)


def test_load_counts_series_with_an_observation():
    model, x = made(), series(3, 2)
    x[1, 0] = torch.nan
    x[2, 1, :60] = torch.nan
    assert [r.load.sum().item() for r in encoded(model, x).routing] == [5 * 2, 5 * 2]


def test_biases_move_in_training_only_by_the_sign_of_the_load_and_stay_centred():
    model, batch = made(balance_rate=0.01), series(4, 2, 72)
    biases = lambda: torch.stack([layer.router.bias.clone() for layer in model.layers])
    model.loss(batch, seeded())
    model.predict_quantiles(batch, 8, LEVELS)
    assert (biases() == 0).all()
    model.train()
    loads = [r.load for r in encoded(model, batch[..., :-8]).routing]  # of the first block: no graph has been drawn yet
    assert (biases() == 0).all()
    model.loss(batch, seeded())
    step = 0.01 * (loads[0].mean() - loads[0]).sign()
    torch.testing.assert_close(biases()[0], step - step.mean())
    assert biases().abs().max() > 0 and all(p.grad is None for p in model.parameters())
    still = model.mixed()
    before = still.layers[0].router.bias.clone()
    still.loss(batch, seeded())
    assert torch.equal(still.layers[0].router.bias, before)
    assert all("router.bias" not in name for name, _ in model.named_parameters()) and "layers.0.router.bias" in model.state_dict()


@pytest.fixture(scope="module")
def loads():
    """Shares of the experts on held-out series of eight regimes, some rare, after training with and without the bias; one active expert."""
    length = 72 + 8
    x = torch.from_numpy(regimes(1024, length, rng=0, switching=0, patch=8, imbalance=1.0).series)[:, None]
    found = {}
    for rate in (0.0, 0.01):
        model = made(alpha=0, private_experts=8, active_experts=1, context=72, mixed_layers=0, balance_rate=rate).train()
        optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
        for step in range(50):
            optimiser.zero_grad()
            model.loss(x[32 * (step % 24) :][:32]).backward()
            optimiser.step()
        with torch.no_grad():
            load = encoded(model.eval(), x[768:, :, :72]).routing[0].load
        found[rate] = load / load.sum()
    return found


def test_experts_lie_idle_without_the_bias_and_none_does_with_it(loads):
    used = lambda load: int((load > 0.1 / 8).sum())
    assert used(loads[0.0]) <= 5 and used(loads[0.01]) == 8
    assert max_violation(loads[0.01]) < 1.3 < max_violation(loads[0.0])
    assert entropy(loads[0.0]) < 0.8 < entropy(loads[0.01])


# ---- graph -------------------------------------------------------------------------------------------------------------------------


def test_unrelated_noise_is_at_the_zero_of_the_scale():
    graph, noise = FrequencyGraph(512, 0.5), torch.randn(20, 8, 512, generator=seeded())
    off = ~torch.eye(8, dtype=torch.bool)
    raw = similarity(torch.fft.rfft(noise).abs()[..., 1:])[:, off]
    assert abs(raw.mean().item() - UNRELATED) < 0.005
    assert graph.similarity(noise)[:, off].max() < 0.3 and graph.eval()(noise) is None
    pink = torch.fft.irfft(torch.fft.rfft(noise) / torch.arange(1, 258))  # the same for any spectrum they share
    assert abs(similarity(torch.fft.rfft(pink).abs()[..., 1:])[:, off].mean().item() - UNRELATED) < 0.03


@pytest.mark.parametrize(("case", "low", "high"), [("A", 0.95, 1.0), ("B", 0.95, 1.0), ("D", 0.95, 1.0), ("E", 0.4, 0.6), ("H", 0.0, 0.5)])
def test_spectra_find_lagged_copies_but_neither_phases_nor_drivers(case, low, high):
    planted = graph_case(case, 6)
    found = similarity(torch.fft.rfft(torch.from_numpy(planted.series)).abs()[..., 1:])
    off = ~torch.eye(found.shape[-1], dtype=torch.bool)
    scores = [roc_auc_score(truth[off], score[off]) for truth, score in zip(torch.from_numpy(planted.edges), found)]
    assert low <= sum(scores) / len(scores) <= high


def test_similarity_ignores_scale_sign_shift_and_flat_series():
    wave = torch.sin(torch.arange(64) / 3)
    x = torch.stack([wave, -wave, wave.roll(7), torch.zeros(64), torch.zeros(64)])[None]
    found = FrequencyGraph(64, 0.5).similarity(x)[0]
    torch.testing.assert_close(found[:3, :3], torch.ones(3, 3), atol=1e-4, rtol=0)
    assert (found[3:] == 0).all() and found.isfinite().all()


def test_alpha_makes_graphs_denser_and_evaluation_draws_nothing():
    x = torch.randn(4, 10, 64, generator=seeded())
    x = x + 1.5 * x.roll(1, 1)
    edges = lambda alpha: 0 if (links := FrequencyGraph(64, alpha).eval()(x)) is None else int(links.adjacency().sum()) - 40
    dense = [edges(alpha) for alpha in (0, 0.5, 0.75, 0.9, 1)]
    assert dense[0] == 0 and dense == sorted(dense) and dense[-1] > dense[1]
    first, again = (FrequencyGraph(64, 0.9).eval()(x, seeded(s)) for s in (0, 1))
    assert torch.equal(first.adjacency(), again.adjacency()) and torch.equal(first.adjacency(), first.adjacency().mT)


@pytest.mark.parametrize("directed", [False, True])
def test_training_draws_edges_with_their_probability(directed):
    x = torch.randn(1, 6, 64, generator=seeded())
    x = (x + 2 * x[:, :1]).expand(3000, -1, -1)
    graph = FrequencyGraph(64, 0.6, directed=directed).train()
    drawn, p = graph(x, seeded()).adjacency(), 0.6 * graph.similarity(x[:1])[0]
    off = ~torch.eye(6, dtype=torch.bool)
    torch.testing.assert_close(drawn.float().mean(0)[off], p[off], atol=0.04, rtol=0)
    assert p[off].max() > 0.2 and drawn[:, ~off].all()
    assert torch.equal(drawn, drawn.mT) != directed
    assert torch.equal(graph(x, seeded()).adjacency(), drawn)


def test_a_limit_keeps_the_most_similar_neighbours_and_always_oneself():
    x = torch.randn(2, 8, 64, generator=seeded())
    x = x + x.mean(1, keepdim=True) * torch.linspace(0, 8, 8)[:, None]
    free, limited = FrequencyGraph(64, 1.0).eval(), FrequencyGraph(64, 1.0, neighbours=3).eval()
    strength, links = free.similarity(x), limited(x)
    assert links.index.shape == (2, 8, 3) and free(x).index.shape[-1] > 3
    assert torch.equal(links.index[..., 0], torch.arange(8).expand(2, -1))
    others = strength.masked_fill(torch.eye(8, dtype=torch.bool), -1)
    kept = torch.where(links.real, others.gather(-1, links.index), 1)[..., 1:].amin(-1)
    left = others.masked_fill(links.adjacency(), -1).amax(-1)
    assert (kept >= left).all()


def test_learnable_frequencies_start_as_the_plain_graph_and_then_learn():
    batch = torch.sin(torch.arange(72) / torch.tensor([2.0, 2.1, 3.0, 9.0])[:, None]) + 0.1 * series(3, 4, 72)
    plain, ours, dense = (made(alpha=1.0, **c).train() for c in ({}, {"learnable": True}, {"learnable": True, "attention": "dense"}))
    losses = [model.loss(batch, seeded()) for model in (plain, ours, dense)]
    assert torch.equal(losses[0], losses[1])
    losses[1].backward()
    losses[2].backward()
    gradient = ours.graph.log_weight.grad
    assert gradient.isfinite().all() and gradient.abs().max() > 0
    torch.testing.assert_close(dense.graph.log_weight.grad, gradient, atol=1e-8, rtol=1e-3)


# ---- loss and forecast -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stride", "horizon"), [(8, 8), (4, 8), (8, 20)])
@torch.no_grad()
def test_every_token_is_asked_for_the_steps_behind_its_patch(stride, horizon):
    model = made(stride=stride, horizon=horizon)
    batch = series(2, 2, 64 + horizon)
    batch[0, 0, 30:35] = torch.nan
    z, seen, statistics = model.normalise(batch[..., :64])
    forecast, target = model.head(encoded(model, batch[..., :64]).hidden), statistics.apply(batch)
    errors = []
    for token, start in enumerate(range(0, 64 - 8 + 1, stride)):
        wanted = target[..., start + 8 : start + 8 + horizon]
        errors.append((forecast[:, :, token] - wanted).square()[wanted.isfinite()])
    torch.testing.assert_close(model.loss(batch), torch.cat(errors).mean())
    last = replace(model.config, supervision="last")
    model.config = last
    torch.testing.assert_close(model.loss(batch), errors[-1].mean())


def test_prefix_supervision_scales_by_what_lies_before_every_target():
    model, x = made(supervision="prefix"), series(16, 2)
    x[3, 0, :20] = torch.nan
    some = torch.ones(16, 2, 8, dtype=torch.bool)
    some[3, 0, :2] = False
    _, statistics, wanted = model.scale_by_prefix(x, some, seeded())
    ends = 8 - wanted.sum(-1) + 1  # tokens read before the first target
    assert ends.unique().numel() > 3 and ends[3, 0] >= 3
    for b, v in ((b, v) for b in range(16) for v in range(2)):
        _, _, alone = model.normalise(x[b : b + 1, v : v + 1, : 8 * ends[b, v]])
        torch.testing.assert_close(statistics.loc[b, v], alone.loc[0, 0])
        torch.testing.assert_close(statistics.scale[b, v], alone.scale[0, 0])
    moved = x.clone()
    moved[..., -1] += 100
    assert torch.equal(model.scale_by_prefix(moved, some, seeded())[1].loc[ends < 8], statistics.loc[ends < 8])


def test_a_long_forecast_appends_reads_again_and_asks_for_the_graph_once():
    model, x, asked = made(), series(), []
    first = model(x)
    second = model(torch.cat([x, first.float()], -1), edges := model.links(model.normalise(x)[0]).adjacency())
    model.graph.register_forward_hook(lambda *_: asked.append(1))
    forecast = model.predict_quantiles(x, 16, LEVELS)
    torch.testing.assert_close(forecast[..., 1], torch.cat([first, second], -1).float(), atol=1e-5, rtol=1e-5)
    assert len(asked) == 1 and edges.sum() > 8
    model.train()
    assert torch.equal(model.predict_quantiles(x, 16, LEVELS), forecast) and model.training


def test_forecasts_follow_scale_and_level():
    model, x = made(), series()
    a, b = (model.predict_quantiles(y, 12, LEVELS) for y in (x, 3 * x + 100))
    torch.testing.assert_close(b, 3 * a + 100, atol=2e-3, rtol=1e-4)


def test_a_mixed_copy_shares_what_was_learnt_and_begins_afresh_what_was_not():
    model = made(alpha=0)
    with torch.no_grad():
        model.layers[1].attend.other.fill_(7.0)
    copy = model.mixed(alpha=0.8, other_bias=-3.0, independent_layers=0, mixed_layers=2)
    assert copy.config.alpha == 0.8 and copy.config.balance_rate == 0
    assert (copy.layers[1].attend.other == -3).all() and (copy.mixed().layers[1].attend.other == -3).all()
    mine, theirs = model.state_dict(), copy.state_dict()
    assert all(torch.equal(mine[n], theirs[n]) for n in mine if not n.endswith(".other"))
    x, none = series(), torch.zeros(2, 4, 4, dtype=torch.bool)
    assert torch.equal(copy(x, none), model(x))


@pytest.mark.parametrize("changes", [{"routing": "token"}, {"routing": "channel_prefix"}, {"score": "softmax"}, {"gate": "token"},
                                     {"attention": "dense"}, {"rope_fraction": 1.0}, {"directed": True}, {"supervision": "last"},
                                     {"supervision": "prefix", "asinh": True}, {"error": "absolute", "ends": "mlp"}, {"stride": 4},
                                     {"horizon": 20}, {"gated": True, "activation": "silu"}, {"learnable": True}, {"shared_experts": 0},
                                     {"private_experts": 0, "active_experts": 0}, {"independent_layers": 0, "dropout": 0.1},
                                     {"mixed_layers": 0}, {"neighbours": 2}])  # fmt: skip
def test_every_option_trains_and_forecasts(changes):
    model, batch = made(**changes).train(), series(3, 3, 64 + changes.get("horizon", 8))
    batch[0, 0, :30] = torch.nan
    loss = model.loss(batch, seeded())
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    silent = [n for n, p in model.named_parameters() if p.grad is None and "private" not in n]  # an expert may have had no series
    assert not silent
    forecast = model.eval().predict_quantiles(batch[..., :64], 30, LEVELS)
    assert forecast.shape == (3, 3, 30, 3) and forecast.isfinite().all()


def test_other_graphs_and_drawn_ones_change_the_loss():
    model, batch = made(alpha=1.0).train(), series(2, 4, 72)
    one, two = (model.loss(batch, adjacency=some_edges(seed=s)) for s in (3, 4))
    assert one != two
    assert torch.equal(model.loss(batch, seeded(5)), model.loss(batch, seeded(5)))


def test_configurations_that_cannot_be_are_refused():
    wrong = ({"stride": 5}, {"patch": 80}, {"heads": 3}, {"active_experts": 5}, {"active_experts": 0}, {"alpha": 1.5},
             {"routing": "expert"}, {"gate": "token", "routing": "token"},
             {"private_experts": 0, "active_experts": 0, "shared_experts": 0})  # fmt: skip
    for changes in wrong:
        with pytest.raises(TsfmError):
            replace(TimeTrackerConfig.tiny(), **changes)
    with pytest.raises(TsfmError, match="needs a context before its 8 future steps, got 8"):
        TimeTracker(TimeTrackerConfig.tiny()).loss(torch.zeros(1, 1, 8))
