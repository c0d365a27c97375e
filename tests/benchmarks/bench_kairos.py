"""Kairos: what its routing costs beside per-patch loops and beside fixed patches, and how long a forecast takes."""

from collections.abc import Iterator
from dataclasses import replace

from harness import Row, alone, benchmark, race, raced


def by_loops(patches, z, seen, tokens, routing):
    """`MixedPatches.forward` as one would first write it: row by row, longest patch by longest patch, token by token, size by size."""
    import torch

    c, rows = patches.config, []
    longest = c.patch_lengths[0]
    for b in range(len(z)):
        row = []
        for n in range(z.shape[1] // longest):
            size = longest // 2 ** int(routing.finest[b, n])
            for start in range(n * longest, (n + 1) * longest, size):
                total = 0
                for level, (p, linear) in enumerate(zip(c.patch_lengths, patches.into)):
                    if p >= size and routing.share[b, n, level] > 0:
                        span = slice(start // p * p, start // p * p + p)
                        total = total + routing.share[b, n, level] * linear(torch.cat([z[b, span], seen[b, span].to(z.dtype)]))
                hidden, skip = total.split([c.hidden, c.width])
                row.append(patches.out_of(hidden) + skip)
        rows.append(torch.stack(row))
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def opinionated(model):
    """A router that splits some patches and not others: fresh weights alone would hardly do so on smooth series."""
    import torch

    with torch.no_grad():
        model.router.score.weight.mul_(4)
    return model


@benchmark("kairos", {"Kairos step": "Another model, not another implementation: one size needs no router and no padding."})
def training(quick: bool) -> Iterator[Row]:
    """Loss and gradient of one batch. The loops replace the gathers of the library and nothing else, with the same weights."""
    import torch

    from tsfm_lib.checkpoints import build
    from tsfm_lib.experiments.kairos.trials import SMALL
    from tsfm_lib.models.kairos import KairosConfig

    torch.set_num_threads(1)
    middle = KairosConfig(context=512, horizon=48, width=128, heads=4, head_width=32, hidden=512, encoder_layers=3, decoder_layers=2)
    for name, config, rows in (("width 64", SMALL, 48), ("width 128", middle, 32), ("mini", KairosConfig.mini(), 4)):
        steps, turns = config.forecast_tokens * config.horizon, 1 if quick else 7
        x = torch.randn(rows, 1, config.context + steps, generator=torch.Generator().manual_seed(0)).cumsum(-1)
        made = lambda **changes: build("kairos", replace(config, balance_rate=0.0, **changes), 0).train()  # noqa: B023  routing stands still
        mixed, looped = opinionated(made()), opinionated(made())
        smallest = made(patch_lengths=config.patch_lengths[-1:], null_experts=0, active_experts=1)
        looped.patches.forward = lambda *parts: by_loops(looped.patches, *parts)  # noqa: B023

        with torch.no_grad():
            z, seen, _ = mixed.normalise(x[:, 0, : config.context])
            one, other = mixed.encode(z, seen), looped.encode(z, seen)
        real = one.tokens.size > 0
        if not set(config.patch_lengths) <= set(one.tokens.size.flatten().tolist()):
            raise AssertionError("the batch does not hold patches of all sizes: the race would show nothing")
        worst = ((one.embedded - other.embedded) * real[..., None]).abs().max()
        if worst > 1e-5 or not torch.allclose(mixed.loss(x), looped.loss(x)):
            raise AssertionError(f"gathered and looped patches differ by {worst}: a ratio of speeds means nothing")

        def step(model):
            def call():
                model.loss(x).backward()  # noqa: B023
                model.zero_grad()
            return call

        used = f"{rows} series of {config.context} steps, patches {'/'.join(map(str, config.patch_lengths))}, loss and gradient, against"
        found = race(step(mixed), step(looped), 1 if quick else 3)
        yield raced(f"Kairos step, {name}, by loops", found, "ms", f"{used} loops over patches, equal to {worst:.0e}")
        found = race(step(mixed), step(smallest), turns)
        tokens = f"{real.sum().item() / rows:.1f} ({real.shape[1]} padded) tokens for {config.context // config.patch_lengths[-1]}"
        yield raced(f"Kairos step, {name}, fixed size", found, "ms", f"{used} the smallest size alone, {tokens}")


@benchmark("kairos")
def inference(quick: bool) -> Iterator[Row]:
    """No peer here: the paper names no hardware for its 0.061 s (2048 steps in, 96 out)."""
    import torch

    from tsfm_lib.checkpoints import build
    from tsfm_lib.models.kairos import KairosConfig
    from tsfm_lib.paths import WEIGHTS

    torch.set_num_threads(1)
    models = {"mini, as published, random weights": build("kairos", KairosConfig.mini(), 0).eval()}
    if (WEIGHTS / "kairos-nano" / "model.safetensors").exists():
        import tsfm_lib

        models["nano, as shipped"] = tsfm_lib.load("kairos-nano")
    context = torch.randn(8, 1, 2048, generator=torch.Generator().manual_seed(0)).cumsum(-1)
    for name, model in models.items():
        seconds = alone(lambda: model.predict_quantiles(context, 96, (0.1, 0.5, 0.9)), 1 if quick else 9)  # noqa: B023
        size = sum(p.numel() for p in model.parameters()) / 1e6
        how = f"{name}, {size:.1f} M parameters: 8 series of 2048 steps (it reads {model.config.context}), 96 steps ahead, one thread"
        yield Row(f"Kairos forecast, {name.split(',')[0]}", 1e3 * seconds, None, None, "ms", how)
