"""Claims R1-R10: universal redundancies (arXiv 2602.01605).

Numbers beyond the abstract come from a third-party summary or from the public assets.
"""

from tsfm_lib.claims.claim import Claim
from tsfm_lib.claims.rules import Difference, Equivalence, Threshold

PAPER = "Universal Redundancies (arXiv 2602.01605)"
LAYERS, RANK, PARROT, PRUNING = "50_redundancy_layers", "51_redundancy_stable_rank", "52_redundancy_parroting", "53_redundancy_pruning"
SUMMARY = "as summarised by a third party"
TRAINS = "its independent unit is the training seed of the model that is taken apart, not a series"
ALL = "share of heads"

CLAIMS = (
    Claim(
        id="R1",
        short="middle layers are redundant, others not",
        paper=PAPER,
        said_by="paper",
        words="Middle layers are redundant, early and late ones are not.",
        said="early or late layer removed: > 25 % MASE",
        source=f"layer ablations, {SUMMARY}",
        notebook=LAYERS,
        unit="seed",
        rule=(
            Equivalence("MASE", "middle removed", "intact", 5.0, experiment="layers"),
            Threshold("increase", 25.0, "above", only="early removed", experiment="layers", said="> 25 %"),
            Threshold("increase", 25.0, "above", only="late removed", experiment="layers", said="> 25 %"),
            Equivalence("MASE", "middle removed", "intact", 5.0, experiment="layers_half_trained", beside=True),
        ),
        expects="removing one layer of the middle third costs less than 5 % MASE, one of the first or last third more than 25 %",
        limits="small models trained here; an untrained model is redundant everywhere, so the half-trained one stands beside; the interval "
        "is over training seeds of one recipe on fixed data sets, and says nothing of other sets",
        own=TRAINS,
    ),
    Claim(
        id="R2",
        short="high stable rank: the head can go",
        paper=PAPER,
        said_by="paper",
        words="Stable rank of the query-key product predicts which heads can go: high rank, low cost.",
        said="",
        source=f"pruning section, {SUMMARY}",
        notebook=RANK,
        unit="layer",
        rule=(
            Threshold("rho", 0.0, "below", experiment="rank_cost"),
            Threshold("rho", 0.0, "below", where={"baseline": "entropy"}, experiment="rank_cost_baselines", beside=True),
        ),
        expects="within layers, Spearman correlation of stable rank with ablation cost below zero",
        limits="the public code removes the lowest rank first: the opposite direction would read as refuted here",
        own=TRAINS,
        seeds=0,
    ),
    Claim(
        id="R3",
        short="28 % of heads and 2 MLPs go for 6 %",
        paper=PAPER,
        said_by="paper",
        words="28 % of the heads and two MLPs can go for 6 %, and the intrinsic order beats a random one.",
        said="28 % of heads and 2 MLPs: 6 %",
        source="abstract; seed: 30 % of middle heads < 6 % against > 20 % at random",
        notebook=PRUNING,
        unit="seed",
        rule=(
            Threshold("increase", 6.0, "below", only="stable-rank", where={"heads": 28, "mlps": 2}, experiment="dose", said="6 %"),
            Difference("MASE", "stable-rank", "random", where={"heads": 28, "mlps": 0}, experiment="dose"),
            Difference(
                "MASE", "stable-rank", ("stable-rank reversed", "entropy"), where={"heads": 28, "mlps": 0}, experiment="dose", beside=True
            ),
            Threshold(
                "increase", 6.0, "below", only="stable-rank", needs="official weights", experiment="dose_official", said="6 %", beside=True
            ),
        ),
        expects="less than 6 % MASE lost at that dose, and less than the mean of at least 20 random draws with the same counts per layer",
        limits="small models trained here; the official checkpoints are needed for the paper's own number",
        own=TRAINS,
    ),
    Claim(
        id="R4",
        short="sharp heads parrot, diffuse ones can go",
        paper=PAPER,
        said_by="paper",
        words="Sharp heads drive parroting and seasonality, diffuse ones are disposable; cross-attention does it rather than MLPs.",
        said="",
        source=f"head analysis, {SUMMARY}",
        notebook=PARROT,
        unit="unit",
        rule=(
            Difference("parrot_drop", "sharp", "random", higher=True, percent=False, experiment="sharp_heads"),
            Difference("seasonal_drop", "sharp", "random", higher=True, percent=False, experiment="sharp_heads"),
            Equivalence("MASE", "diffuse removed", "intact", 5.0, experiment="diffuse_heads"),
            Difference("parrot_drop", "cross-attention", "mlp", higher=True, percent=False, experiment="parrot_sites"),
        ),
        expects="removing sharp heads lowers parroting and seasonal power more than random ones do; removing diffuse ones "
        "costs less than 5 % MASE; removing cross-attention lowers parroting more than removing MLPs does",
        limits="the unit is the series: it speaks of the shipped models pooled, not of models in general nor of each of them",
        own="the motifs are planted and broken at the horizon",
        units=20,
        seeds=0,
    ),
    Claim(
        id="R5",
        short="encoder-decoders can do without MLPs",
        paper=PAPER,
        said_by="seed",
        words="Encoder-decoders tolerate the removal of MLPs, decoders do not.",
        said="",
        source="design trade-offs",
        notebook=LAYERS,
        unit="unit",
        rule=(
            Threshold("increase", 10.0, "below", only="encoder-decoder", by="kind", experiment="mlps"),
            Threshold("increase", 10.0, "above", only="decoder", by="kind", experiment="mlps"),
            Difference("increase", "encoder-decoder", "decoder", by="kind", higher=False, percent=False, experiment="mlps"),
        ),
        expects="less than 10 % MASE lost with the decoder's MLPs removed in encoder-decoders, more than 10 % in decoder-only models",
        limits="five models, one training run each: the unit is the series; a model that speaks token by token is read on fewer of them",
        own="it is judged over five shipped models and a fixed suite",
        units=20,
        seeds=0,
    ),
    Claim(
        id="R6",
        short="half of a layer's heads go within 1 pp",
        paper=PAPER,
        said_by="seed",
        words="In each layer a good part of the heads can be removed within one percentage point of MASE.",
        said="",
        source="proposed check; the public lists of five models remove 55 to 88 % of heads when all are applied",
        notebook=RANK,
        unit="layer",
        rule=(
            Threshold("removable", 0.5, "above", experiment="heads_at_1pp"),
            Threshold("test_increase", 1.0, "below", experiment="heads_at_1pp"),
        ),
        expects="more than half of a layer's heads by the first-crossing rule, and still below 1 pp on a split that was "
        "not used to choose them",
        limits="one layer at a time: nothing is said of all lists applied together",
        own=TRAINS,
        seeds=0,
    ),
    Claim(
        id="R7",
        short="rankings that see data beat stable rank",
        paper=PAPER,
        said_by="seed",
        words="A ranking that looks at data is more precise than stable rank.",
        said="",
        source="design trade-offs",
        notebook=RANK,
        unit="seed",
        rule=(
            Difference("MASE", "attention-svd", "stable-rank", where={ALL: 28}, experiment="rankings"),
            Difference("MASE", "oracle", "stable-rank", where={ALL: 28}, experiment="rankings", beside=True),
        ),
        expects="lower MASE after removing the same share of heads by the singular values of measured attention",
        own=TRAINS,
    ),
    Claim(
        id="R8",
        short="pruning buys time",
        paper=PAPER,
        said_by="ours",
        words="Pruning buys time.",
        said="",
        source="-",
        notebook=PRUNING,
        unit="unit",
        rule=(
            Difference("seconds", "pruned", "intact", higher=False, experiment="latency"),
            Difference("seconds", "heads pruned", "intact", higher=False, experiment="latency", beside=True),
            Difference("seconds", "pruned", "ablated", higher=False, experiment="latency", beside=True),
        ),
        expects="a model whose heads are really removed answers faster than the intact one in alternating runs",
        limits="measured on one machine",
        own="it times a model, and depends on a series only through its length",
        seeds=0,
    ),
    Claim(
        id="R9",
        short="early form, middle repeat, late select",
        paper=PAPER,
        said_by="paper",
        words="Early layers form the forecast, middle ones repeat it and raise its entropy, late ones select.",
        said="",
        source=f"logit-lens analysis, {SUMMARY}",
        notebook=LAYERS,
        unit="seed",
        rule=(
            Difference("similarity", "middle", ("early", "late"), by="third", higher=True, percent=False, experiment="lens"),
            Difference("entropy_change", "middle", "early", by="third", higher=True, percent=False, experiment="lens"),
            Difference("entropy_change", "late", "middle", by="third", higher=False, percent=False, experiment="lens"),
            Difference("candidates", "late", "middle", by="third", higher=False, percent=False, experiment="lens"),
            Threshold("entropy_change", 0.0, "below", only="late", by="third", experiment="lens", beside=True),
        ),
        expects="successive updates most alike in the middle third, entropy rising more per layer there than before and behind, with "
        "fewer candidates at the end",
        limits="the rule compares changes of entropy between thirds: whether it falls in the last one, as the words say, stands beside",
        own=TRAINS,
    ),
    Claim(
        id="R10",
        short="parroting can be parted from accuracy",
        paper=PAPER,
        said_by="paper's question",
        words="Parroting can be separated from accuracy.",
        said="",
        source="open questions",
        notebook=PARROT,
        unit="seed",
        rule=(
            Difference("parrot_gap", "motif-breaking", "standard", higher=False, percent=False, experiment="parrot_training"),
            Equivalence("MASE", "motif-breaking", "standard", 5.0, experiment="parrot_training"),
            Difference("copy_error", "motif-breaking", "standard", higher=False, percent=False, experiment="parrot_training", beside=True),
        ),
        expects="training that breaks motifs lowers the parrot gap and leaves MASE within 5 %",
        limits="one small recipe; MASE is of ordinary series, the error on motifs that go on stands beside it and is not judged",
        own=TRAINS,
    ),
)
