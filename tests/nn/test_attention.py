"""One attention: the fused path and the open one agree, masks mean what they say, nothing is NaN."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tsfm_lib.nn.attention import Attention, Tap, attend, causal
from tsfm_lib.nn.positions import RoPE

B, H, N, M, K = 2, 3, 5, 7, 4


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


MASKS = {
    "none": None,
    "row": randn(M, seed=1) > -0.5,
    "keys": randn(B, 1, 1, M, seed=2) > -0.5,
    "pairs": randn(B, H, N, M, seed=3) > 0.8,  # some queries may look nowhere
    "causal": causal(N, M),
    "nothing": torch.zeros(B, 1, N, M, dtype=torch.bool),
}
BIASES = {"none": None, "heads": randn(H, N, M, seed=4), "full": randn(B, H, N, M, seed=5), "keys": randn(M, seed=6)}


@pytest.mark.parametrize(("mask", "bias", "scale"), list(product(MASKS, BIASES, [None, 1.0, 0.3])))
def test_fused_equals_open(mask, bias, scale):
    q, k, v = randn(B, H, N, K, seed=7), randn(B, H, M, K, seed=8), randn(B, H, M, K + 1, seed=9)
    tap, seen = Tap(), []
    fused = attend(q, k, v, mask=MASKS[mask], bias=BIASES[bias], scale=scale, tap=tap)
    tap.register_forward_hook(lambda module, inputs, pattern: seen.append(pattern))
    opened = attend(q, k, v, mask=MASKS[mask], bias=BIASES[bias], scale=scale, tap=tap)
    assert len(seen) == 1 and seen[0].shape == (B, H, N, M)
    torch.testing.assert_close(seen[0].sum(-1), torch.ones(B, H, N))
    torch.testing.assert_close(fused, opened, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("bias", "scale"), list(product(["heads", "full", "keys"], [None, 1.0])))
def test_a_bias_that_learns_goes_another_way_to_the_same_end(bias, scale):
    q, k, v = randn(B, H, N, K, seed=7), randn(B, H, M, K, seed=8), randn(B, H, M, K + 1, seed=9)
    barred = BIASES[bias].clone()
    barred[..., 2] = -torch.inf
    learns = barred.clone().requires_grad_()
    found = attend(q, k, v, bias=learns, scale=scale)
    torch.testing.assert_close(found, attend(q, k, v, bias=barred, scale=scale), atol=1e-5, rtol=0)
    found.square().sum().backward()
    assert learns.grad.isfinite().all() and (learns.grad[..., 2] == 0).all() and learns.grad.any()


def test_forbidden_keys_do_not_matter():
    q, k, v, mask = randn(B, H, N, K), randn(B, H, M, K, seed=1), randn(B, H, M, K, seed=2), torch.arange(M) < 4
    changed = torch.where(mask[:, None], v, v + 100)
    torch.testing.assert_close(attend(q, k, v, mask=mask), attend(q, k, changed, mask=mask))
    torch.testing.assert_close(attend(q, k, v, mask=mask), attend(q, k[:, :, :4], v[:, :, :4]))


@st.composite
def problems(draw):
    """Queries, keys, values, a random mask of any shape that broadcasts, and perhaps a bias."""
    b, h, n, m, seed = (draw(st.integers(1, top)) for top in (3, 3, 5, 6, 10**6))
    lead = [1 if draw(st.booleans()) else size for size in (b, h, n)][draw(st.integers(0, 3)):]
    random = torch.Generator().manual_seed(seed)
    mask = torch.rand(*lead, m, generator=random) < draw(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]))
    q, k, v = (torch.randn(b, h, size, K, generator=random) for size in (n, m, m))
    bias = torch.randn(h, n, m, generator=random) if draw(st.booleans()) else None
    return q, k, v, mask, bias


@settings(max_examples=60, deadline=None)
@given(problems())
def test_fused_equals_open_under_any_mask_and_no_weight_lies_on_a_forbidden_key(problem):
    q, k, v, mask, bias = problem
    tap, seen = Tap(), []
    fused = attend(q, k, v, mask=mask, bias=bias, tap=tap)
    tap.register_forward_hook(lambda module, inputs, pattern: seen.append(pattern))
    torch.testing.assert_close(fused, attend(q, k, v, mask=mask, bias=bias, tap=tap), atol=1e-5, rtol=0)
    allowed = mask.expand_as(seen[0])
    looks = allowed.any(-1, keepdim=True)
    assert (seen[0][looks & ~allowed] == 0).all() and (seen[0][~looks.expand_as(allowed)] == 1 / k.shape[2]).all()


@settings(max_examples=60, deadline=None)
@given(problems(), st.data())
def test_keys_forbidden_to_a_query_do_not_matter_to_it_under_any_mask(problem, data):
    q, k, v, mask, bias = problem
    allowed = mask.expand(*q.shape[:3], k.shape[2])
    i = data.draw(st.integers(0, q.shape[2] - 1), label="query")
    forbidden = ~allowed[:, :, i, :, None]                                                    # B H M 1
    before = attend(q, k, v, mask=mask, bias=bias)[:, :, i]
    after = attend(q, torch.where(forbidden, -9 * k + 5, k), torch.where(forbidden, v + 100, v), mask=mask, bias=bias)[:, :, i]
    looks = allowed[:, :, i].any(-1)
    torch.testing.assert_close(after[looks], before[looks])
    torch.testing.assert_close(before[~looks], v.mean(2)[~looks])


def test_a_query_that_may_look_nowhere_gets_the_mean_and_finite_gradients():
    q, k, v = (randn(1, 1, 3, 4, seed=s).requires_grad_() for s in range(3))
    mask = torch.tensor([[True, False, True], [False, False, False], [True, True, True]])
    out = attend(q, k, v, mask=mask, bias=randn(3, 3))
    torch.testing.assert_close(out[0, 0, 1], v[0, 0].mean(0))
    out.square().sum().backward()
    assert all(t.grad.isfinite().all() for t in (q, k, v))


def test_a_hook_on_the_tap_replaces_the_pattern():
    layer, x = Attention(8, 2), randn(1, 4, 8)
    handle = layer.pattern.register_forward_hook(lambda module, inputs, pattern: torch.full_like(pattern, 0.25))
    uniform = layer(x)
    handle.remove()
    torch.testing.assert_close(uniform, layer.out(layer.v(x).mean(1, keepdim=True).expand_as(x)))
    assert not torch.allclose(uniform, layer(x))


def test_taking_out_a_head_before_the_output_projection_equals_zeroing_its_columns():
    layer, x = Attention(8, 2, out_bias=True), randn(2, 4, 8)

    def without_second(module, inputs):
        heads = inputs[0].clone()
        heads[..., 4:] = 0
        return (heads,)

    handle = layer.out.register_forward_pre_hook(without_second)
    ablated = layer(x)
    handle.remove()
    layer.out.weight.data[:, 4:] = 0
    torch.testing.assert_close(ablated, layer(x))


def test_agrees_with_torch_multihead_attention():
    ours, theirs, x = Attention(8, 2, qkv_bias=True, out_bias=True), nn.MultiheadAttention(8, 2, batch_first=True), randn(3, 5, 8)
    theirs.in_proj_weight.data = torch.cat((ours.q.weight, ours.k.weight, ours.v.weight))
    theirs.in_proj_bias.data = torch.cat((ours.q.bias, ours.k.bias, ours.v.bias))
    theirs.out_proj.weight.data, theirs.out_proj.bias.data = ours.out.weight.data, ours.out.bias.data
    blocked = ~causal(5)
    torch.testing.assert_close(ours(x, mask=causal(5)), theirs(x, x, x, attn_mask=blocked, need_weights=False)[0])


def test_norm_then_rotation_and_the_other_way_round_are_both_expressible():
    rope = RoPE(4)
    norm = lambda t: torch.nn.functional.rms_norm(t, (4,))
    first = Attention(8, 2, qk_norm=lambda width: nn.RMSNorm(width, elementwise_affine=False))
    then = Attention(8, 2)
    then.load_state_dict(first.state_dict())
    x = randn(1, 5, 8)
    # an RMS norm without gain commutes with a rotation, so both orders must agree
    torch.testing.assert_close(first(x, rotary=rope), then(x, rotary=lambda q, k: tuple(map(norm, rope(q, k)))))


def test_dropout_acts_in_training_only():
    layer, x = Attention(8, 2, dropout=0.5), randn(2, 5, 8)
    assert not torch.equal(layer.train()(x), layer(x))
    assert torch.equal(layer.eval()(x), layer(x))


def test_memory_may_have_another_width():
    layer = Attention(8, 2, memory_width=6)
    assert layer(randn(2, 3, 8), randn(2, 5, 6)).shape == (2, 3, 8)


def test_heads_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="10 does not divide into 3 heads"):
        Attention(10, 3)
