"""Every model of the register beside the same sizes written plainly with torch.nn (`plain.py`): a forward pass and a training step.

Forward: the loss of a batch in evaluation mode, without gradients. Step: loss and gradient in training mode, no optimiser. All without
dropout, and about equally many parameters: the row says how many.
"""

from collections.abc import Iterator
from functools import partial

from harness import Row, benchmark, race, raced

DEEP = {"width": 128, "heads": 4, "hidden": 256, "layers": 4, "dropout": 0.0}
T5 = {"width": 128, "heads": 4, "head_width": 32, "hidden": 256, "encoder_layers": 2, "decoder_layers": 2, "dropout": 0.0}
WINDOW = {"context": 512, "horizon": 64}
# model: plain reference, config, samples and variates of the batch
MODELS = {
    "dlinear": ("DLinear", WINDOW, (64, 8)),
    "patchtst": ("PatchTST", WINDOW | DEEP, (16, 1)),
    "itransformer": ("ITransformer", WINDOW | DEEP, (8, 64)),
    "kairos": ("Kairos", {"context": 512, "horizon": 32} | T5, (64, 1)),
    "time-tracker": ("TimeTracker", {"context": 512, "patch": 32, "horizon": 32, "width": 128, "heads": 4, "independent_layers": 3,
                                     "mixed_layers": 1, "hidden": 128}, (64, 1)),
    "chronos-t5": ("ChronosT5", {"context": 256, "horizon": 64, "tokens": 1024} | T5, (8, 1)),
    "chronos-bolt": ("ChronosBolt", WINDOW | T5, (32, 1)),
    "timesfm": ("TimesFM", WINDOW | {"width": 128, "heads": 4, "hidden": 256, "layers": 4, "spread_horizon": None, "mean": False}, (64, 1)),
    "toto": ("Toto", {"context": 512, "patch": 32, "space_every": 4, "components": 8} | DEEP, (16, 4)),
    "mantis": ("Mantis", {"context": 512, "patches": 32, "head_width": 32} | DEEP, (16, 1)),
    "moirai": ("Moirai", {"context": 512, "patch": 32, "patch_sizes": (32,), "width": 128, "layers": 4, "head_width": 32,
                          "mask_ratio": (0.3, 0.3)}, (8, 4)),
    "moment": ("Moment", {"context": 512, "patch": 8, "head_width": 32} | DEEP, (16, 1)),
    "units": ("UniTS", WINDOW | {"patch": 16, "head_hidden": 256, "tokens": 46} | DEEP, (8, 4)),
}  # fmt: skip

COMMON = ("Every step is asked whether it was observed and statistics are float64, so that gaps and high levels cost no accuracy; "
          "queries, keys and values are separate maps, so that heads can be adapted and pruned one by one. ")
WHY = {name: COMMON + more for name, more in {
    "dlinear": "With nothing but two maps in the model, this is all that differs.",
    "patchtst": "", "itransformer": "",
    "kairos": "A router chooses sizes patch by patch, tokens are padded to the longest row, and attention turns by frequencies that "
              "small networks read off each spectrum; the plain one mixes all sizes densely, with learned positions.",
    "time-tracker": "Rotary positions, biases of own and other variates, the balance of the experts: the plain one has none of them.",
    "chronos-t5": "Relative positions are a bias to every score of the encoder, which costs attention a pass over all pairs of tokens; "
                  "the plain one has learned positions. A bias of three axes left torch's fused path (2.5 times as slow): mended.",
    "chronos-bolt": "The bias of the distances is computed from buckets at each call.",
    "timesfm": "Four norms a layer, norms of queries and keys, rotary positions, a scale for every prefix; the plain one has two norms, "
               "learned positions and one scale.",
    "toto": "Rotary positions, scales of every prefix in float64.",
    "mantis": "", "moment": "The bias of the distances is computed from buckets, and patches without an observation are masked.",
    "moirai": "A gated feed-forward is three products instead of two, queries and keys are normalised and turned, all pairs of tokens "
              "have a bias; the plain one has none of this.",
    "units": "",
}.items()}  # fmt: skip
"""What our side does and the plain one leaves out: read only where a row is slower."""


def pair(name: str):
    """Ours, the plain one and a batch for both."""
    import plain
    import torch

    from tsfm_lib.checkpoints import build
    kind, config, (samples, variates) = MODELS[name]
    ours = build(name, config, 0)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        theirs = getattr(plain, kind)()
    noise = torch.randn(samples, variates, 576, generator=torch.Generator().manual_seed(0))
    return ours, theirs, 0.1 * noise.cumsum(-1) + noise


def forward(model, x):
    import torch

    model.eval()

    @torch.no_grad()
    def call():
        return model.loss(x)

    return call


def step(model, x):
    model.train()

    def call():
        model.loss(x).backward()
        model.zero_grad()

    return call


def beside_plain(name: str, quick: bool) -> Iterator[Row]:
    import torch
    torch.set_num_threads(1)
    ours, theirs, x = pair(name)
    count = lambda model: sum(p.numel() for p in model.parameters())
    sizes = f"batch {' x '.join(map(str, x.shape))}, {count(ours):,} parameters against {count(theirs):,} in plain torch.nn"
    for what, job in (("forward", forward), ("step", step)):
        found = race(job(ours, x), job(theirs, x), 2 if quick else 15)
        yield raced(f"{name}, {what}", found, "ms", f"{sizes}, {'loss' if what == 'forward' else 'loss and gradient'}")


for model in MODELS:  # `--only models/patchtst` runs one
    one = partial(beside_plain, model)
    one.__name__ = model
    benchmark("models", WHY)(one)
