"""Claims M1-M8: multi-scale fine-tuning (arXiv 2506.14087). Its tables are known to us only through third-party digests."""

from tsfm_lib.claims.claim import Claim
from tsfm_lib.claims.rules import Difference, Equivalence, Threshold

PAPER = "MSFT (arXiv 2506.14087)"
CONFOUNDING, BACKBONES, ABLATIONS = "40_msft_scale_confounding", "41_msft_backbones", "42_msft_ablations"
TRAINS = "it fine-tunes a model many times per seed; `python -m tsfm_lib.finetune` makes one such comparison on your series"
DIGEST = "as given by a third-party digest"
PLANTED = "it needs a shortcut that was planted"

CLAIMS = (
    Claim(
        id="M1",
        short="plain tuning is confounded by scale",
        paper=PAPER,
        said_by="paper",
        words="Naive fine-tuning is confounded by scale.",
        said="",
        source="causal analysis",
        notebook=CONFOUNDING,
        unit="seed",
        rule=(
            Difference("MSE", "in distribution", "cue reversed", by="regime", where={"variant": "full"}, experiment="shortcut"),
            Difference("MSE", "oracle", "full", where={"regime": "cue reversed"}, experiment="shortcut"),
            Difference("MSE", "msft", "full", where={"regime": "cue reversed"}, experiment="shortcut", beside=True),
            Equivalence(
                "MSE", "cue reversed", "in distribution", 10.0, by="regime", where={"variant": "msft"}, experiment="shortcut", beside=True
            ),
        ),
        expects="full fine-tuning learns the fine-scale shortcut and pays when it is reversed; beside it whether MSFT does not",
        own=PLANTED,
    ),
    Claim(
        id="M2",
        short="MSFT beats full tuning, probe and LoRA",
        paper=PAPER,
        said_by="paper",
        words="Multi-scale fine-tuning has lower error than full fine-tuning, a linear probe and LoRA.",
        said="MSE against full fine-tuning: ETTm1 0.332 / 0.368, ETTm2 0.247 / 0.258, Weather 0.213 / 0.232, Electricity 0.169 / 0.173",
        source=f"Moirai-Base, mean of four horizons, {DIGEST}",
        notebook=BACKBONES,
        unit="seed",
        rule=Difference("MSE", "msft", ("full", "probe", "lora"), pair=("backbone",), needs="data", experiment="methods"),
        expects="lower MSE than each at the same budget, averaged over sets, horizons and backbones",
        limits="two digests disagree about the gain on ETTm1 (9.8 and 6.8 %)",
        own=TRAINS,
    ),
    Claim(
        id="M3",
        short="each component contributes",
        paper=PAPER,
        said_by="paper",
        words="Each component contributes.",
        said="ETTm1 0.332 against 0.340 / 0.345 / 0.338, Weather 0.213 against 0.220 / 0.222 / 0.218",
        source=f"ablation table, {DIGEST}",
        notebook=ABLATIONS,
        unit="seed",
        rule=Difference("MSE", "msft", ("no aggregator", "shared lora", "no mixing"), needs="data", experiment="components"),
        expects="error rises when the aggregators, the scale-specific LoRA or the mixing is taken out",
        limits="another digest describes a different table with ten variants",
        own=TRAINS,
    ),
    Claim(
        id="M4",
        short="several scales are the main gain",
        paper=PAPER,
        said_by="paper",
        words="Having several scales is itself the main source of the gain.",
        said="one scale: 0.361 / 0.230 (ETTm1 / Weather)",
        source=f"ablation table, {DIGEST}",
        notebook=ABLATIONS,
        unit="seed",
        rule=(
            Difference("MSE", "msft", "one scale", needs="data", experiment="scales"),
            Difference("MSE", "msft", ("one scale, equal parameters", "one scale, equal ensemble"), needs="data", experiment="scales"),
        ),
        expects="lower error than K = 0, also when K = 0 has as many parameters or is averaged over as many copies",
        limits="whether scales help beyond parameters and copies; that they are the main source is not tested by the rule",
        own=TRAINS,
    ),
    Claim(
        id="M5",
        short="mixing weights act as an ensemble",
        paper=PAPER,
        said_by="paper",
        words="Learned mixing weights act as an ensemble over scales.",
        said="",
        source="mixing section",
        notebook=CONFOUNDING,
        unit="seed",
        rule=(
            Difference("MSE", "learned", "best single scale", where={"regime": "in distribution"}, experiment="mixing"),
            Threshold("weight_entropy", 0.5, "above", only="learned", where={"regime": "in distribution"}, experiment="mixing"),
            Difference("MSE", "learned", ("uniform", "mixed loss"), where={"regime": "in distribution"}, experiment="mixing", beside=True),
        ),
        expects="the mixture ahead of its best scale, with weights spread over scales (normalised entropy above 0.5); "
        "beside it uniform weights",
        own=PLANTED,
    ),
    Claim(
        id="M6",
        short="works for probabilistic forecasts",
        paper=PAPER,
        said_by="paper",
        words="It works for probabilistic forecasts.",
        said="",
        source="probabilistic tables",
        notebook=BACKBONES,
        unit="seed",
        rule=(
            Difference("CRPS", "msft", ("full", "lora"), where={"backbone": "moirai"}, needs="data", experiment="methods"),
            Difference(
                "CRPS", "quantile average", ("sample mean", "linear pool"), needs="data", experiment="pooling_of_forecasts", beside=True
            ),
        ),
        expects="lower CRPS than full fine-tuning and LoRA on Moirai; beside it three ways of pooling the scales",
        limits="the paper's numbers are not known to us",
        own=TRAINS,
    ),
    Claim(
        id="M7",
        short="a frozen backbone does not forget",
        paper=PAPER,
        said_by="paper",
        words="A frozen backbone avoids catastrophic forgetting.",
        said="",
        source="as a summary has it, among design trade-offs; not found in the digests",
        notebook=BACKBONES,
        unit="seed",
        rule=(
            Equivalence(
                "MSE", "msft", "zero-shot", 5.0, where={"sets": "other"}, pair=("backbone",), needs="data", experiment="forgetting"
            ),
            Difference("MSE", "msft", "full", where={"sets": "other"}, pair=("backbone",), needs="data", experiment="forgetting"),
        ),
        expects="error on the sets not trained on stays within 5 % of what it was, and below that after full fine-tuning",
        limits="with the adapters switched off a frozen backbone forgets nothing by construction: they stay on here",
        own=TRAINS,
    ),
    Claim(
        id="M8",
        short="beats models trained from scratch",
        paper=PAPER,
        said_by="paper",
        words="It beats models trained from scratch.",
        said="TimeMixer 0.381 / 0.275 / 0.240 / 0.182; SimpleTM 0.381 / 0.275 / 0.243 / 0.166, ahead on Electricity (0.166 < 0.169)",
        source=f"main table (ETTm1 / ETTm2 / Weather / Electricity), {DIGEST}",
        notebook=BACKBONES,
        unit="seed",
        rule=Difference("MSE", "msft", ("dlinear", "patchtst", "multiscale-mixer"), needs="data", experiment="from_scratch"),
        expects="lower MSE than DLinear, PatchTST and a multi-scale mixer from scratch with equal data and time",
        limits="TimeMixer and SimpleTM themselves are not run",
        own=TRAINS,
    ),
)
