import pytest
import torch
from torch import nn

from tsfm_lib.nn.attention import Attention
from tsfm_lib.nn.feedforward import FeedForward, ResidualMLP
from tsfm_lib.nn.lora import LoRA, adapted
from tsfm_lib.nn.sites import attention_site


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_an_adapted_model_starts_as_the_model_it_adapts():
    layer, x = Attention(8, 2), randn(2, 5, 8)
    lora = LoRA.of(layer, ("q", "k", "v", "out"), rank=2)
    assert torch.equal(layer(x, delta=lora.delta()), layer(x))


def test_a_pair_is_a_change_of_the_weight():
    linear, x = nn.Linear(5, 3), randn(4, 5)
    lora = LoRA({"map": linear}, rank=2, alpha=6)
    lora.b[0].data = randn(3, 2, seed=1)
    a, b = lora.delta()["map"]
    merged = nn.functional.linear(x, linear.weight + 3 * lora.b[0] @ lora.a[0], linear.bias)
    torch.testing.assert_close(adapted(linear, x, (a, b)), merged)


def test_every_token_may_have_a_pair_of_its_own():
    linear, x = nn.Linear(5, 3), randn(2, 4, 5)
    a, b = randn(4, 2, 5, seed=1), randn(4, 3, 2, seed=2)
    each = torch.stack([adapted(linear, x[:, n], (a[n], b[n])) for n in range(4)], dim=1)
    torch.testing.assert_close(adapted(linear, x, (a, b)), each)


def test_two_adapters_learn_in_one_backward_pass_and_the_base_can_stay_frozen():
    model = nn.ModuleDict({"attention": Attention(8, 2), "mlp": FeedForward(8, 16, gated=True)}).requires_grad_(False)
    first, second = (LoRA.of(model, ("q", "v", "up", "down"), rank=2) for _ in range(2))
    for lora in (first, second):
        for b in lora.b:
            b.data.normal_(generator=torch.Generator().manual_seed(0))
    run = lambda x, lora: model["mlp"](model["attention"](x, delta=lora.delta("attention")), delta=lora.delta("mlp"))
    (run(randn(2, 3, 8), first) + run(randn(2, 3, 8, seed=1), second)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for lora in (first, second) for p in lora.parameters())
    assert all(p.grad is None for p in model.parameters())


def test_same_generator_same_adapter():
    model = Attention(8, 2)
    a, b = (LoRA.of(model, ("q",), 2, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(a.a[0], b.a[0])


def test_an_adapter_for_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one Linear"):
        LoRA.of(Attention(8, 2), ("query",), rank=2)


def test_gated_and_plain_feed_forward_by_hand():
    x, silu = randn(3, 4), nn.functional.silu
    gated, plain = FeedForward(4, 6, "silu", gated=True), FeedForward(4, 6, "gelu_tanh")
    torch.testing.assert_close(gated(x), gated.down(silu(gated.gate(x)) * gated.up(x)))
    torch.testing.assert_close(plain(x), plain.down(nn.functional.gelu(plain.up(x), approximate="tanh")))
    block = ResidualMLP(4, 6, 2)
    torch.testing.assert_close(block(x), block.out(block.hidden(x).relu()) + block.skip(x))


def test_unknown_activations_are_refused():
    with pytest.raises(ValueError, match="got 'swish'"):
        FeedForward(4, 6, "swish")


def test_a_site_tells_each_heads_weights():
    layer = Attention(8, 2, memory_width=6)
    site = attention_site("decoder", 3, "cross", layer)
    wq, wk = site.qk()
    assert (wq.shape, wk.shape, site.name) == ((2, 4, 8), (2, 4, 6), "decoder.3.cross")
    x, memory = randn(1, 1, 8), randn(1, 1, 6)
    q, k = layer.split(layer.q(x)), layer.split(layer.k(memory))
    kernel = wq[1].T @ wk[1]
    torch.testing.assert_close((x[0] @ kernel @ memory[0].T).squeeze(), (q[0, 1] * k[0, 1]).sum())
    with pytest.raises(ValueError, match="kind of attention"):
        attention_site("decoder", 0, "sideways", layer)
