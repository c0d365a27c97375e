"""Fine-tuning: a step of multi-scale fine-tuning beside one of LoRA and of full fine-tuning, in time and in memory.

Peak memory is that of a process of its own, so this file is also the program that such a process runs. The scales are a list of rows;
the published form, one row with a block mask, is timed beside it.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from harness import Race, Row, benchmark, cost, one_thread, raced

SCALES, HORIZON, BATCH, MEASURED = 3, 96, 64, 256  # windows of a step that is timed, of one whose memory is measured
BAR = 2.6  # times LoRA
WHY = {  # LoRA is another method, not another implementation
    "msft": "Three scales are read in a step, each with adapters of its own: 1.75 times the tokens, and all layers once a scale; "
            f"the bar is {BAR} times LoRA.",
    "full": "All weights get gradients, not low-rank pairs alone.",
}


def stepper(method: str, context: int):
    """A function that makes a step of so many windows and says how long it took, and what is trained; Moirai of width 96."""
    import torch

    from tsfm_lib import checkpoints
    from tsfm_lib.finetune import MultiScale, joined, variation
    from tsfm_lib.models.moirai import MoiraiConfig

    torch.set_num_threads(1)
    config = MoiraiConfig(context=context, patch=32, patch_sizes=(16, 32, 64), width=96, layers=5, head_width=32)
    row = method == "msft, one row"
    changes = {"scales": SCALES} if method.startswith("msft") else {}
    design = variation(method.partition(",")[0], **changes, **({"aggregate": "none", "attention": "across"} if row else {})).design
    if row:
        plain = joined.join
        joined.join = lambda model, parts, how, factor: plain(model, parts, "within", factor)
    module = MultiScale(checkpoints.build("moirai", config, 0), design, context, HORIZON).train()
    free = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(free, 1e-4, fused=True)

    def step(windows: int = BATCH) -> float:
        x = torch.randn(windows, 1, context + HORIZON, generator=torch.Generator().manual_seed(0)).cumsum(-1)
        began = time.process_time()
        module.loss(x).backward()
        optimiser.step()
        optimiser.zero_grad()
        return time.process_time() - began

    return step, sum(p.numel() for p in free)


def memory(method: str, context: int) -> float:
    """MiB by which one large step raises the peak of a process of its own."""
    done = subprocess.run([sys.executable, __file__, method, str(context)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@benchmark("finetune", WHY)
def steps(quick: bool) -> Iterator[Row]:
    """Loss, gradient and update; ratios to LoRA, whose cost the bar is set by."""
    methods, turns = ("lora", "full", "msft", "msft, one row"), 2 if quick else 9
    for context in (256,) if quick else (512, 1024):
        made = {method: stepper(method, context) for method in methods}
        for step, _ in made.values():
            step()
        spent = {method: [] for method in methods}
        for _ in range(turns):
            for method, (step, _) in made.items():
                spent[method].append(step())
        mib = {method: memory(method, context) for method in methods}
        for method in methods[1:]:
            bar = f" (bar: at most {BAR}x LoRA)" if method == "msft" else " (without aggregators)" if "row" in method else ""
            how = f"{made[method][1]:,} parameters trained, context {context}, K = {SCALES}, against LoRA with {made['lora'][1]:,}{bar}, "
            found = Race(list(zip(spent[method], spent["lora"])))
            yield raced(f"{method}, {context} steps", found, "ms/step", f"{how}{BATCH} windows")
            yield cost(f"{method}, {context} steps, memory", mib[method], mib["lora"] or None, "MiB", f"{how}{MEASURED} windows")


def high() -> float:
    """MiB this process has held at most. On Linux not from getrusage, which a process inherits from the one that started it."""
    if sys.platform == "linux":
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def peak(method: str, context: int) -> float:
    step, _ = stepper(method, context)
    step(1)  # what the first step alone needs
    before = high()
    step(MEASURED)
    return high() - before


if __name__ == "__main__":
    one_thread()
    print(json.dumps(peak(sys.argv[1], int(sys.argv[2]))))
