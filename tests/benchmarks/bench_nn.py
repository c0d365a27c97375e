"""The two kernels every model runs on: mixture-of-experts execution and attention, each against the obvious way to write it."""

from collections.abc import Iterator

from harness import Row, benchmark, race, raced


@benchmark("nn")
def experts(quick: bool) -> Iterator[Row]:
    """A loop over experts runs each on the rows that chose it; the einsum runs all experts on all rows and drops most of it."""
    import torch
    from torch import nn

    from tsfm_lib.nn.moe import run_experts, top_k_gates
    torch.set_num_threads(1)
    n, width, hidden, n_experts, k = 4096, 128, 256, 8, 2
    generator = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(shape, generator=generator)
    x, up, down = normal(n, width), normal(n_experts, hidden, width) / width**0.5, normal(n_experts, width, hidden) / hidden**0.5
    experts = nn.ModuleList()
    for e in range(n_experts):
        first, second = nn.Linear(width, hidden, bias=False), nn.Linear(hidden, width, bias=False)
        first.weight.data, second.weight.data = up[e], down[e]
        experts.append(nn.Sequential(first, nn.ReLU(), second))
    indices, gates = top_k_gates(normal(n, n_experts), k)

    @torch.no_grad()
    def loop():
        return run_experts(x, experts, indices, gates)

    @torch.no_grad()
    def everything():
        weight = torch.zeros(n, n_experts).scatter(1, indices, gates)
        h = torch.relu(torch.einsum("nd,ehd->neh", x, up))
        return torch.einsum("neh,edh,ne->nd", h, down, weight)

    if not torch.allclose(loop(), everything(), atol=1e-4):
        raise AssertionError("the two ways to run the experts disagree")
    found = race(loop, everything, 3 if quick else 15)
    how = f"{n} tokens, {k} of {n_experts} experts {width}-{hidden}-{width}, float32, against all experts on all tokens by einsum"
    yield raced("mixture of experts, forward", found, "ms", how)


@benchmark("nn")
def attention(quick: bool) -> Iterator[Row]:
    """The normal path (PyTorch's fused attention) against the explicit softmax that an active tap switches on."""
    import torch

    from tsfm_lib.nn.attention import Tap, attend
    torch.set_num_threads(1)
    b, h, n, k = 8, 8, 512, 32
    generator = torch.Generator().manual_seed(0)
    q, key, v = (torch.randn((b, h, n, k), generator=generator) for _ in range(3))
    tap = Tap()
    tap.register_forward_hook(lambda *_: None)

    @torch.no_grad()
    def fused():
        return attend(q, key, v)

    @torch.no_grad()
    def explicit():
        return attend(q, key, v, tap=tap)

    if not torch.allclose(fused(), explicit(), atol=1e-5):
        raise AssertionError("fused and explicit attention disagree")
    found = race(fused, explicit, 3 if quick else 15)
    how = f"{b} x {h} heads x {n} positions x {k}, float32, against explicit softmax"
    yield raced("attention, forward", found, "ms", how)
