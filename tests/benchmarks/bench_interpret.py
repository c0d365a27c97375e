"""The dissection kit: many ablations at once beside one after another, and what pruning saves beside what it removes."""

from collections.abc import Iterator

from harness import Row, benchmark, race, raced

LEVELS = (0.1, 0.5, 0.9)


def eight_layers(width: int = 128):
    """PatchTST with 8 layers of 8 heads, 16 tokens a series, random weights."""
    from tsfm_lib.checkpoints import build

    sizes = {"context": 256, "horizon": 32, "layers": 8, "width": width, "heads": 8, "hidden": 4 * width, "patch": 16, "stride": 16}
    return build("patchtst", sizes, 0).eval(), f"8 layers x 8 heads, width {width}, 16 tokens"


def series(n: int):
    import torch

    return torch.randn(n, 1, 256, generator=torch.Generator().manual_seed(0)).cumsum(-1)


@benchmark("interpret")
def ablations(quick: bool) -> Iterator[Row]:
    """Every head out once (two heads a layer if quick). The loop is `ablate` around a forward, as one would write it. Reuse of the layers
    below saves about half; what a few series gain beyond that is the cost of small calls, which wide models hardly feel."""
    import torch

    from tsfm_lib import interpret
    torch.set_num_threads(1)
    for n, width in ((8, 64), (8, 128), (256, 128)):
        model, of = eight_layers(width)
        plans, x = interpret.single_heads(model)[:: 4 if quick else 1], series(n)
        run = lambda x, model=model: model.predict_quantiles(x, 32, LEVELS)

        @torch.no_grad()
        def loop(x=x, model=model, plans=plans, run=run):
            found = []
            for plan in plans:
                with interpret.ablate(model, plan):
                    found.append(run(x))
            return torch.stack(found)

        at_once = lambda x=x, model=model, plans=plans, run=run: interpret.HeadMask(model, plans).evaluate(run, x)
        worst = (at_once() - loop()).abs().max().item()
        if worst > 1e-5 * x.abs().max():
            raise AssertionError(f"batched ablations differ from single ones by {worst}: a ratio of speeds means nothing")
        found = race(at_once, loop, 1 if quick else 5)
        how = f"{of}, {len(plans)} heads out one by one, equal to {worst:.0e}, against a loop over `ablate`"
        yield raced(f"batched ablations, {n} series, width {width}", found, "ms per head", how, 1e3 / len(plans))


@benchmark("interpret")
def pruning(quick: bool) -> Iterator[Row]:
    """Heads taken from every layer alike. Ablation is no peer in speed: it computes all and throws it away."""
    import torch

    from tsfm_lib import interpret
    from tsfm_lib.interpret.plans import Plan, head_sites
    torch.set_num_threads(1)
    model, of = eight_layers()
    x, sites = series(64), [site.name for site in head_sites(model)]
    share = lambda n: Plan(heads={name: range(n) for name in sites})
    few = {name: range(2 + (i % 4 == 0)) for i, name in enumerate(sites)}  # 18 of 64 heads: 28 %
    cuts = {"28 % of heads": Plan(heads=few), "28 % of heads, 2 MLPs": Plan(heads=few, mlps=["encoder.3", "encoder.4"]),
            "50 % of heads": share(4), "all heads": share(8)}  # fmt: skip
    run = lambda m: m.predict_quantiles(x, 32, LEVELS)
    for name, plan in cuts.items():
        small = interpret.prune(model, plan)
        with torch.no_grad(), interpret.ablate(model, plan):
            worst = (run(model) - run(small)).abs().max().item()
        if worst > 1e-5 * x.abs().max():
            raise AssertionError(f"the pruned model differs from the ablated one by {worst}")
        found = race(lambda: run(small), lambda: run(model), 5 if quick else 25)  # noqa: B023
        left = interpret.parameters(small) / interpret.parameters(model)
        how = f"{of}, 64 series, {100 * left:.0f} % of the parameters, equal to the ablated model to {worst:.0e}, against the intact one"
        yield raced(f"pruned, {name}", found, "ms", how)
