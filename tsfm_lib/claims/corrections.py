"""Sentences about the papers that do not stand, each with what shows it: a compared line of a notebook, a test, or recorded rows.

No sentence is listed that this collection has not checked. They are in our words. `seed` is a published third-party summary of a
paper, `code` what its authors published to run.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from tsfm_lib import paths
from tsfm_lib.claims.verdict import Verdict
from tsfm_lib.errors import TsfmError

TEST = re.compile(r"(tests/\S+\.py)::(\w+)")
NOTEBOOK = re.compile(r"(\d\d_\w+): (.+)")
PART = re.compile(r"([A-Z]\d+): (.+)")


@dataclass(frozen=True)
class Correction:
    paper: str
    said_by: str                # paper, seed or code
    sentence: str
    right: str
    evidence: str               # "NN_notebook: how a compared line begins" | "tests/FILE::NAME" | "K1: how a part of its verdict begins"

    def found(self, verdicts: Mapping[str, Verdict]) -> str:
        """What the evidence says now. `verdicts` by claim, for those that rest on recorded rows."""
        if test := TEST.fullmatch(self.evidence):
            return _test(*test.groups())
        if line := NOTEBOOK.fullmatch(self.evidence):
            return _line(*line.groups())
        id, words = PART.fullmatch(self.evidence).groups()
        parts = [part for part in verdicts[id].parts if part.words.startswith(words)]
        return f"{parts[0].measured()} {parts[0].range()}" if parts and parts[0].interval else "not yet measured"

    @property
    def place(self) -> str:
        """The notebook or test file to open."""
        return (TEST.fullmatch(self.evidence) or NOTEBOOK.fullmatch(self.evidence) or PART.fullmatch(self.evidence)).group(1)


@cache
def _compared_lines(notebook: str) -> tuple[str, ...]:
    """What the compared cells of a committed notebook print, `a: x | b: y` taken apart."""
    file = paths.NOTEBOOKS / f"{notebook}.ipynb"
    if not file.exists():
        raise TsfmError(f"expected the committed notebook {notebook}.ipynb in notebooks/, found none")
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    marked = [cell for cell in cells if "nbval-check-output" in cell["metadata"].get("tags", ())]
    texts = ["".join(output.get("text", "")) for cell in marked for output in cell.get("outputs", ())]
    return tuple(piece.strip() for text in texts for line in text.splitlines() for piece in line.split(" | "))


def _line(notebook: str, begins: str) -> str:
    found = [line for line in _compared_lines(notebook) if line.startswith(f"{begins}:")]
    if len(found) != 1:
        raise TsfmError(f"expected one compared line of {notebook} that begins with {begins!r}, found {len(found)}")
    return found[0].removeprefix(f"{begins}:").strip()


def _test(file: str, name: str) -> str:
    if f"def {name}(" not in (paths.ROOT / file).read_text(encoding="utf-8"):
        raise TsfmError(f"expected the test {name} in {file}: it has another name now, or has gone")
    return "asserted"


CORRECTIONS = (
    Correction(
        "Kairos", "paper", "The router cuts finely where a series holds much information.",
        "Its scores are linear in the values, so odd: upside down a series is cut differently, and no score knows how strong a burst is",
        "10_kairos_patch_size_maps: linear scores are odd, the others are not"),
    Correction(
        "Kairos", "paper", "Sizes are fused by adding up the experts' outputs, weighted by their gates.",
        "Their first linear layers are added; one activation and one output layer follow. Only so do the released numbers come out",
        "tests/models/test_kairos.py::test_a_patch_worked_by_hand"),
    Correction(
        "Time Tracker", "paper", "The decoder is causal: every patch is forecast from what lies before it.",
        "Routing a series as a whole averages over its patches, the later ones too: they reach the experts of earlier ones",
        "20_time_tracker_routing: the last patch reaches earlier tokens"),
    Correction(
        "Time Tracker", "paper", "A graph is learnt between the channels.",
        "Nothing in it can be learnt: spectrum, distance and threshold are fixed, and a mask passes no gradient",
        "21_time_tracker_graph: the graph has no parameter"),
    Correction(
        "Time Tracker", "seed", "Distance of amplitudes fails when channels are related with a lag.",
        "A shift leaves amplitudes as they are, and lagged relatives are found. It fails where unrelated channels share a spectrum",
        "T6: auroc of amplitude, case B or D"),
    Correction(
        "Time Tracker", "seed", "Learnt biases tell own from other channels.",
        "Not in pretraining: with channels apart there is one kind of pair, softmax drops what all share, and no gradient is left",
        "22_time_tracker_pipeline: no gradient reaches u and v while channels are apart"),
    Correction(
        "Time Tracker", "seed", "More than 80 % of the experts in use shows that the bias balances.",
        "Without it nearly as many are in use: the bar does not tell the two apart",
        "T2: utilisation of no bias"),
    Correction(
        "CauKer", "paper", "The bank has 36 kernels, those of Chronos.",
        "The bank of Chronos, and of the released code, has 33, of which 31 differ",
        "tests/synth/test_kernels.py::test_the_bank_has_33_kernels_of_which_31_differ_and_periods_in_samples"),
    Correction(
        "CauKer", "seed", "Series are made at any length and interpolated to 512.",
        "The released code draws them at their length, and series drawn so have the distribution of released ones",
        "tests/synth/test_cauker.py::test_series_are_distributed_as_the_released_ones"),
    Correction(
        "MSFT", "paper", "Fine-tuning by scales closes the path by which scale confounds.",
        "A shortcut planted in the finest scale is learnt all the same: it leaks through fine-to-coarse maps and through the weights",
        "M1: MSE of cue reversed like in distribution, variant msft"),
    Correction(
        "MSFT", "seed", "Weights learnt with the losses they weigh make an ensemble.",
        "That sum is least where one scale has all the weight: broad weights are unfinished ones",
        "40_msft_scale_confounding: the weighted loss ends with one scale"),
    Correction(
        "MSFT", "code", "Samples of the scales are combined by their weighted mean.",
        "The mean of independent samples is too narrow a distribution; a pool or a mean of quantiles is not",
        "41_msft_backbones: the mean of independent samples is too narrow, the two others are not"),
    Correction(
        "Redundancies", "seed", "Heads of high stable rank can go first.",
        "The published code takes the lowest first, and the published lists prefer neither (layers won by low and by high)",
        "51_redundancy_stable_rank: published lists, low-first against high-first"),
    Correction(
        "Redundancies", "seed", "A low stable rank is a narrow kernel.",
        "It does not know the scale of the weights: one stable rank goes with any sharpness",
        "51_redundancy_stable_rank: one stable rank, any sharpness"),
    Correction(
        "Redundancies", "paper", "It is the middle layers that are redundant, in all models.",
        "Among five published lists of heads two go with the distance from the middle, with opposite signs",
        "51_redundancy_stable_rank: published lists that go with the distance from the middle"),
    Correction(
        "Redundancies", "code", "The ranks of layer 1 are those of its heads.",
        "Layers are found by parts of names: layer 1 also gets the heads of layers 10 and up",
        "51_redundancy_stable_rank: heads found for layer 1 of 12 (12 are right)"),
    Correction(
        "Redundancies", "seed", "heads@1pp is the least number of heads that keeps the loss within 1 %.",
        "It is the largest level within the limit, even behind a crossing, which noise makes larger",
        "51_redundancy_stable_rank: the largest level is generous"),
)  # fmt: skip
