import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tsfm_lib.errors import TsfmError
from tsfm_lib.nn.feedforward import FeedForward
from tsfm_lib.nn.moe import balance, entropy, max_violation, run_experts, top_k_gates, utilisation


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=15, deadline=None)
@given(n=st.integers(0, 20), e=st.integers(1, 6), null=st.integers(0, 2), seed=st.integers(0, 99), data=st.data())
def test_the_loop_over_experts_equals_running_all_of_them_on_everything(n, e, null, seed, data):
    k = data.draw(st.integers(1, e + null))
    x, experts = randn(n, 4, seed=seed), nn.ModuleList(nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 4)) for _ in range(e))
    indices, gates = top_k_gates(randn(n, e + null, seed=seed + 1), k)
    dense = torch.zeros(n, e + null).scatter(1, indices, gates)[:, :e]
    everything = torch.stack([expert(x) for expert in experts], dim=1)  # n E D
    torch.testing.assert_close(run_experts(x, experts, indices, gates), torch.einsum("ne,ned->nd", dense, everything))


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_loop_and_grouped_products_equal_all_experts_on_all_sequences_with_gradients(per_token, gated):
    x, experts = randn(9, 5, 8), nn.ModuleList(FeedForward(8, 12, "gelu", gated=gated) for _ in range(4))
    indices, gates = top_k_gates(randn(9, 6, seed=1), 3)  # two null experts
    indices[indices == 2] = 5  # and one that nobody chose
    if per_token:
        gates = gates[:, None] * randn(9, 5, 1, seed=2).exp()
    chosen = indices[:, None].expand(gates.shape) if per_token else indices
    weight = torch.zeros(*gates.shape[:-1], 6).scatter_add(-1, chosen, gates)[..., :4]

    def everything(x):
        return torch.einsum("nte,nted->ntd" if per_token else "ne,nted->ntd", weight, torch.stack([e(x) for e in experts], dim=2))

    found = []
    for run in (everything, lambda x: run_experts(x, experts, indices, gates), lambda x: run_experts(x, experts, indices, gates, True)):
        experts.zero_grad()
        inputs = x.clone().requires_grad_()
        y = run(inputs)
        y.square().sum().backward()
        found.append([y, inputs.grad, *(p.grad for p in experts[0].parameters())])
    for other in found[1:]:
        for a, b in zip(other, found[0], strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_grouped_products_follow_autocast():
    x, experts = randn(9, 8), nn.ModuleList(FeedForward(8, 16, "gelu") for _ in range(4))
    chosen = top_k_gates(randn(9, 4, seed=1), 2)
    with torch.autocast("cpu", torch.bfloat16):
        grouped, loop = (run_experts(x, experts, *chosen, grouped=g) for g in (True, False))
        grouped.sum().backward()
    assert all(p.grad.isfinite().all() for p in experts.parameters()) and not torch.equal(grouped, run_experts(x, experts, *chosen))
    torch.testing.assert_close(grouped, loop, atol=1e-2, rtol=1e-2)


def test_grouped_products_say_which_widths_they_need():
    with pytest.raises(TsfmError, match=r"multiples of 4, got \[12, 6\]"):
        run_experts(randn(2, 6), nn.ModuleList([FeedForward(6, 12)]), *top_k_gates(randn(2, 1), 1), grouped=True)


def test_gradients_reach_the_gates_and_the_chosen_experts_only():
    experts, logits = nn.ModuleList(nn.Linear(3, 3) for _ in range(3)), torch.tensor([[2.0, 1.0, -5.0]], requires_grad=True)
    run_experts(randn(1, 3), experts, *top_k_gates(logits, 2)).sum().backward()
    assert logits.grad.abs().sum() > 0
    assert experts[0].weight.grad is not None and experts[2].weight.grad is None


def test_a_bias_in_the_softmax_changes_the_gates_a_selecting_one_does_not():
    logits, bias = randn(5, 4), torch.tensor([0.0, 0.0, 5.0, 0.0])
    plain = logits.softmax(-1)
    inside, selecting = top_k_gates(logits, 1, bias, renormalise=False), top_k_gates(logits, 1, bias, where="selection", renormalise=False)
    assert (inside[0] == 2).all() and (selecting[0] == 2).all()
    torch.testing.assert_close(selecting[1], plain[:, 2:3])
    assert (inside[1] > plain[:, 2:3]).all()


def test_ties_go_to_the_lower_number():
    indices, gates = top_k_gates(torch.zeros(3, 8), 3)
    assert indices.tolist() == [[0, 1, 2]] * 3
    torch.testing.assert_close(gates, torch.full((3, 3), 1 / 3))


def test_sigmoid_scores_are_not_normalised_over_experts():
    _, gates = top_k_gates(torch.zeros(1, 4), 2, score="sigmoid", renormalise=False)
    assert gates.tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize(("rule", "rate"), [("mass", 0.5), ("sign", 0.02)])
def test_moving_the_bias_evens_out_the_load(rule, rate):
    logits, target, bias = randn(400, 4) + torch.tensor([2.0, 1.0, 0.0, -1.0]), torch.full((4,), 0.25), torch.zeros(4)
    share = lambda b: utilisation(top_k_gates(logits, 1, b)[0], 4)
    start = max_violation(share(bias))
    for _ in range(300):
        bias = balance(bias, share(bias), target, rate=rate, rule=rule)
    assert max_violation(share(bias)) < 0.2 < start
    assert entropy(share(bias)) > 0.99 > entropy(share(torch.zeros(4)))


def test_no_load_moves_nothing():
    assert balance(torch.ones(2), torch.zeros(2), torch.ones(2) / 2, 0.1).tolist() == [1, 1]
