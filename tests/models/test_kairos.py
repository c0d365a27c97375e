"""What must hold of Kairos whatever its weights are."""

from dataclasses import replace

import pytest
import torch

from tsfm_lib import checkpoints
from tsfm_lib.models.kairos import Kairos, KairosConfig, Routing, lay_out

LEVELS = (0.1, 0.5, 0.9)


def made(seed=0, **changes):
    model = checkpoints.build("kairos", replace(KairosConfig.tiny(), **changes), seed).eval()
    with torch.no_grad():  # a router with opinions, so that sizes differ
        model.router.score.weight.mul_(4) if isinstance(model.router.score, torch.nn.Linear) else None
        model.router.bias.copy_(torch.linspace(0.1, -0.1, model.config.experts))
    return model


def series(rows=3, steps=64, seed=0):
    return torch.randn(rows, steps, generator=torch.Generator().manual_seed(seed)).cumsum(1)


def encoded(model, x):
    z, observed, _ = model.normalise(model.fill(x))
    return model.encode(z, observed), z, observed


def loops(model, z, observed, routing):
    """MoS-DP as one would first write it: patch by patch, token by token, size by size."""
    longest, rows = model.config.patch_lengths[0], []
    for b in range(len(z)):
        row = []
        for n in range(z.shape[1] // longest):
            size = longest // 2 ** int(routing.finest[b, n])
            for m in range(longest // size):
                start, total = n * longest + m * size, 0
                for level, (p, linear) in enumerate(zip(model.config.patch_lengths, model.patches.into)):
                    if p >= size:
                        a = start // p * p
                        total = total + routing.share[b, n, level] * linear(torch.cat([z[b, a : a + p], observed[b, a : a + p].float()]))
                hidden, skip = total.split([model.config.hidden, model.config.width])
                row.append(model.patches.out(model.patches.act(hidden)) + skip)
        rows.append(torch.stack(row))
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def test_gathered_patches_equal_patch_by_patch_loops():
    for seed in range(3):
        model, x = made(seed), series(seed=seed)
        x[0, 20:31] = torch.nan
        with torch.no_grad():
            e, z, observed = encoded(model, x)
            assert len(set(e.tokens.size.flatten().tolist())) > 2  # sizes are mixed, or the test shows nothing
            torch.testing.assert_close(e.embedded * (e.tokens.size > 0)[..., None], loops(model, z, observed, e.routing), atol=1e-5, rtol=0)


def test_a_patch_worked_by_hand():
    """P = 8 with sizes 8, 4, 2: {2: .5, 8: .3, null: .2} is four tokens, {4: .6, null: .3, null: .1} is two."""
    finest = torch.tensor([[2, 1]])
    tokens = lay_out(finest, torch.ones(1, 16, dtype=torch.bool), 8)
    assert tokens.size.tolist() == [[2, 2, 2, 2, 4, 4]]
    assert tokens.start.tolist() == [[0, 2, 4, 6, 8, 12]]
    model = Kairos(replace(KairosConfig.tiny(), context=16, patch_lengths=(8, 4, 2)))
    x, seen = torch.arange(16.0)[None], torch.ones(1, 16, dtype=torch.bool)
    share = torch.tensor([[[0.375, 0, 0.625], [0, 1, 0]]])
    routing = Routing(torch.zeros(1, 2, 3, dtype=torch.long), torch.zeros(1, 2, 3), share, finest)
    whole, _, small = model.patches.into
    ones = torch.ones
    by_hand = 0.625 * small(torch.cat([x[0, 2:4], ones(2)])) + 0.375 * whole(torch.cat([x[0, :8], ones(8)]))
    hidden, skip = by_hand.split([model.config.hidden, model.config.width])
    torch.testing.assert_close(model.patches(x, seen, tokens, routing)[0, 1], model.patches.out(hidden.relu()) + skip)


def test_router_shares_sum_to_one_and_sizes_fill_the_context():
    model = made()
    with torch.no_grad():
        e, _, _ = encoded(model, series(rows=16))
    assert torch.allclose(e.routing.gates.sum(-1), torch.ones(()))
    assert torch.allclose(e.routing.share.sum(-1), torch.ones(()))
    assert e.tokens.size.sum(1).tolist() == [64] * 16
    for size, patch in zip(e.tokens.size, e.tokens.patch):
        assert all(len(set(size[(patch == n) & (size > 0)].tolist())) == 1 for n in range(4))  # one size inside a longest patch


def test_forecasts_follow_scale_and_level():
    model, x = made(), series()
    a = model.predict_quantiles(x[:, None], 12, LEVELS)
    b = model.predict_quantiles(3 * x[:, None] + 100, 12, LEVELS)
    torch.testing.assert_close(b, 3 * a + 100, atol=2e-3, rtol=1e-4)


def test_a_row_does_not_feel_its_neighbours_or_its_padding():
    model, x = made(), series(rows=4)
    x[1, :23] = torch.nan
    together = model.predict_quantiles(x[:, None], 20, LEVELS)
    for row in range(4):
        torch.testing.assert_close(model.predict_quantiles(x[row : row + 1, None], 20, LEVELS)[0], together[row], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.predict_quantiles(x[1:2, None, 23:], 20, LEVELS)[0], together[1], atol=1e-5, rtol=1e-5)


def test_reg_behind_the_padding_does_feel_the_batch():
    """The released code's place of [REG]: the quirk is really there."""
    model = made(quirks=("reg_after_padding",))
    x = series(rows=6)
    lengths = (encoded(model, x)[0].tokens.size > 0).sum(1)
    row = int(lengths.argmin())
    assert lengths[row] < lengths.max()
    alone, together = model.predict_quantiles(x[row : row + 1, None], 8, LEVELS)[0], model.predict_quantiles(x[:, None], 8, LEVELS)[row]
    assert (alone - together).abs().max() > 1e-4


def test_forecasting_leaves_no_trace():
    model, x = made(), series()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    first = model.predict_quantiles(x[:, None], 40, LEVELS)
    assert torch.equal(first, model.predict_quantiles(x[:, None], 40, LEVELS))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_the_bias_moves_the_load_towards_the_target():
    model = made(balance_rate=0.02).train()
    patches, observed = torch.randn(16, 8, 16, generator=torch.Generator().manual_seed(1)), torch.ones(16, 8, dtype=torch.bool)

    def distance():
        mass = torch.zeros(5).index_add(0, (r := model.router(patches, observed)).indices.flatten(), r.gates.flatten().detach())
        return (mass / mass.sum() - 0.2).abs().sum()

    first = distance()
    for _ in range(400):
        model.router(patches, observed)
    assert distance() < first / 2


def test_without_a_rate_the_bias_stands_still_and_empty_patches_have_no_say():
    still, x = made(balance_rate=0.0).train(), series()
    before = still.router.bias.clone()
    still(x)
    assert torch.equal(still.router.bias, before)
    short = made(balance_rate=0.1).train()
    other = made(balance_rate=0.1).train()
    short(torch.nn.functional.pad(x[:, :16], (48, 0), value=torch.nan))
    z, observed, _ = other.normalise(x[:, :16])
    other.router(z[:, None], observed.any(1, keepdim=True))
    torch.testing.assert_close(short.router.bias, other.router.bias)


def test_unmodulated_instance_rope_is_plain_rope():
    model = made(rotary="instance")
    with torch.no_grad():
        for layer in [*model.encoder, *model.decoder]:
            for block in filter(None, (layer.attend, layer.cross)):
                block.frequencies.mlp[-1].weight.zero_()
    plain = made(rotary="interleaved")
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if "frequencies" not in k})
    half = made(rotary="half")
    state = {k: v.clone() for k, v in plain.state_dict().items()}
    order = torch.cat([torch.arange(0, 8, 2), torch.arange(1, 8, 2)])  # pairs (2j, 2j+1) -> (j, j + K/2)
    for name in (n for n in state if n.endswith((".q.weight", ".k.weight"))):
        state[name] = state[name].view(2, 8, -1)[:, order].flatten(0, 1)
    half.load_state_dict(state)
    x = series()
    for other in (plain, half):
        torch.testing.assert_close(model(x), other(x), atol=1e-4, rtol=1e-4)


def test_segments_are_told_apart_by_rotation_alone():
    x = series()
    for rotated in (True, False):
        with torch.no_grad():
            y = made(cross_rotary=rotated).forward(x)
        assert torch.allclose(y[:, :8], y[:, 8:], atol=1e-5) != rotated


def test_the_spectrum_reaches_the_forecast_by_rotation_or_by_a_token_and_by_nothing_else():
    x = series()
    foreign = torch.randn(3, 16, generator=torch.Generator().manual_seed(5))
    for changes, heard in (({"rotary": "instance"}, True), ({"rotary": "half"}, False), ({"rotary": "half", "spectrum_token": True}, True)):
        with torch.no_grad():
            model = made(**changes)
            assert torch.equal(model(x), model(x, foreign)) != heard


def test_bins_are_frequencies_counted_from_the_first_one_read():
    wave = torch.sin(2 * torch.pi * 6 * torch.arange(64) / 64)[None]  # 6 cycles per context
    for first in (0, 4):
        model = made(first_bin=first, spectrum_norm=False)
        assert int(model.spectrum_of(wave).argmax()) == 6 - first


def test_frequencies_cannot_explode():
    model = made()
    with torch.no_grad():
        for layer in model.encoder:
            layer.attend.frequencies.mlp[-1].bias[:4] = -400.0
    assert torch.isfinite(model(series())).all()


@pytest.mark.parametrize("sizes", [(4,), (8,), (16,), (64,)])
def test_fixed_patches_of_any_size(sizes):
    model = made(patch_lengths=sizes, null_experts=0, active_experts=1)
    with torch.no_grad():
        assert set(encoded(model, series())[0].tokens.size.flatten().tolist()) == set(sizes)


def test_all_sizes_always_on_reads_every_patch_at_the_smallest_size():
    model = made(null_experts=0, active_experts=3)
    with torch.no_grad():
        e, _, _ = encoded(model, series())
    assert set(e.tokens.size.flatten().tolist()) == {4}
    assert (e.routing.share > 0).all()


@pytest.mark.parametrize("changes", [{"router": "energy"}, {"router": "mlp"}, {"fusion": "finest"}, {"positions": "size"},
                                     {"forecast_tokens": 1}, {"forecast_tokens": 6}, {"asinh": True}, {"reg_token": False},
                                     {"spectrum_token": True, "rotary": "half"}, {"first_bin": 4}, {"modulation": "direct"},
                                     {"spectrum_norm": False}, {"step_weights": "log_decay"},
                                     {"gated": True, "activation": "gelu_tanh"}])  # fmt: skip
def test_every_option_trains_and_forecasts(changes):
    model = made(**changes).train()
    batch = series(rows=4, steps=64 + 8 * model.config.forecast_tokens)[:, None]
    loss = model.loss(batch)
    loss.backward()
    assert torch.isfinite(loss)
    silent = [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not silent
    forecast = model.eval().predict_quantiles(batch, 30, LEVELS)
    assert forecast.shape == (4, 1, 30, 3)
    assert (forecast.diff(dim=-1) >= 0).all()


def test_loss_ignores_missing_targets():
    model = made()
    batch = series(rows=4, steps=80)[:, None]
    batch[:, :, -3:] = torch.nan
    with torch.no_grad():
        z, observed, statistics = model.normalise(batch[:, 0, :-16])
        forecast = model.read_out(model.decode(model.encode(z, observed)))
        target = statistics.apply(batch[:, 0, -16:])
    error = target[..., None] - forecast
    by_hand = (2 * torch.maximum(model.levels * error, (model.levels - 1) * error)).mean(-1)[:, :-3].sum(1)
    torch.testing.assert_close(model.row_loss(forecast, target), by_hand.float(), atol=1e-4, rtol=1e-5)


def test_published_sizes_have_the_published_parameter_counts():
    """9.9, 23.0 and 50.1 million, as the names 10m, 23m and 50m say, with the columns that their padded arrays hold and never use."""
    for config, published in ((KairosConfig.mini(), 9_945_088), (KairosConfig.small(), 23_000_576), (KairosConfig.base(), 50_128_384)):
        with torch.device("meta"):
            count = sum(p.numel() for p in Kairos(config).parameters())
        unused = sum(2 * (config.patch_lengths[0] - p) for p in config.patch_lengths) * (config.hidden + config.width)
        assert count + unused == published


def test_configurations_that_cannot_be_are_refused():
    for changes in ({"patch_lengths": (16, 6)}, {"active_experts": 9}, {"context": 50}, {"rotary": "none"}, {"quirks": ("bug",)}):
        with pytest.raises(ValueError):
            replace(KairosConfig.tiny(), **changes)


DENSE = {"encoder": "causal", "positions": "size", "reg_token": False, "cuts": 3, "begin": "last", "own_rows": True}


def test_a_forecast_at_a_cut_is_the_forecast_from_what_lies_before_it():
    model, x = made(**DENSE), series()
    x[0, :20] = torch.nan
    z, seen, statistics = model.normalise(model.fill(x[:, :48]))  # the prefix alone, as at inference
    with torch.no_grad():
        alone = model.read_out(model.decode(model.encode(z, seen)))
        before = torch.arange(64) < 48
        z_prefix, _, statistics = model.normalise(x.masked_fill(~before, torch.nan))
        whole = model.encode(statistics.apply(x).nan_to_num(0.0), x.isfinite(), model.spectrum_of(z_prefix))
        at_cut = model.read_out(model.decode(whole, torch.full((3, 1), 48)))
    torch.testing.assert_close(at_cut, alone, atol=1e-5, rtol=0)


def test_no_cut_sees_behind_itself():
    model, x = made(**DENSE), series()
    z, seen, _ = model.normalise(x)
    moved = torch.cat([z[:, :48], z[:, 48:] + 1.0], dim=1)
    cuts, spectrum = torch.tensor([[32, 48, 64]] * 3), model.spectrum_of(z)
    with torch.no_grad():
        a, b = (model.decode(model.encode(v, seen, spectrum), cuts).reshape(3, 3, -1) for v in (z, moved))
    torch.testing.assert_close(a[:, :2], b[:, :2], atol=1e-5, rtol=0)
    assert (a[:, 2] - b[:, 2]).abs().max() > 1e-3


def test_dense_supervision_is_the_mean_over_its_cuts_and_knows_its_limits():
    model = made(**DENSE)
    batch = torch.cat([series(4, 64), series(4, 16, seed=1)], dim=1)[:, None]
    loss = model.loss(batch, torch.Generator().manual_seed(0))
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert torch.equal(loss, model.loss(batch, torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match="3 cuts need encoder='causal'"):
        replace(KairosConfig.tiny(), cuts=3)
    with pytest.raises(ValueError, match="a causal encoder needs positions='size'"):
        replace(KairosConfig.tiny(), encoder="causal")


def test_scaled_scores_are_the_same_functions():
    model, other = made(), made(scaled_scores=True)
    up = lambda name: model.config.head_width**0.5 if name.endswith("attention.q.weight") else 1
    other.load_state_dict({name: tensor * up(name) for name, tensor in model.state_dict().items()})
    with torch.no_grad():
        torch.testing.assert_close(other(series()), model(series()), atol=1e-4, rtol=1e-5)
