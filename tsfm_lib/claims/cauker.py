"""Claims C1-C10: CauKer with Mantis and MOMENT (arXiv 2508.02879; tables numbered as in the ICLR 2026 version)."""

from tsfm_lib.claims.claim import Claim
from tsfm_lib.claims.rules import Difference, Equivalence, Ordered, Threshold

PAPER = "CauKer (arXiv 2508.02879)"
GENERATOR, DTW, PRETRAINING, SCALING = "30_cauker_generator", "31_cauker_dtw_clustering", "32_cauker_pretraining", "33_cauker_scaling"
TRAINS = (
    "it pretrains encoders on several generated corpora; `python -m tsfm_lib.evaluate classify` reads your labelled set with a shipped one"
)
FOREST = {"readout": "forest"}
CORPORA = ("cauker", "mean-kernelsynth", "kernelsynth", "scm")

CLAIMS = (
    Claim(
        id="C1",
        short="CauKer > means > KernelSynth > SCM",
        paper=PAPER,
        said_by="paper",
        words="For classification CauKer beats mean functions with KernelSynth, that beats KernelSynth, that beats an SCM.",
        said="Mantis 78.31 > 78.20 > 77.70 > 73.49 %; MOMENT 74.24 > 72.56 > 69.31 > 59.23 %",
        source="Table 1 (100K series, 128 UCR sets)",
        notebook=PRETRAINING,
        unit="dataset",
        rule=(
            Ordered("accuracy", CORPORA, percent=False, pair=("model",), where=FOREST, experiment="corpora"),
            Ordered(
                "accuracy", CORPORA, percent=False, pair=("model",), where={"readout": "whitened_forest"}, experiment="corpora", beside=True
            ),
            Ordered("accuracy", CORPORA, percent=False, pair=("model",), where={"readout": "ridge"}, experiment="corpora", beside=True),
            Difference(
                "accuracy", "cauker", "random-weights", percent=False, pair=("model",), where=FOREST, experiment="corpora", beside=True
            ),
        ),
        expects="every step of the order over UCR sets under the paper's forest; beside it other read-outs and random weights",
        limits="the paper reports single runs; its own spread for one condition is 78.06 to 78.55",
        own=TRAINS,
    ),
    Claim(
        id="C2",
        short="accuracy grows with CauKer corpus size",
        paper=PAPER,
        said_by="paper",
        words="Accuracy grows with the size of a CauKer corpus; real corpora scale irregularly.",
        said="Mantis-8M 76.91 to 79.09 % from 10K to 10M CauKer series; UEA 75.67 (12.7K), 76.33 (3.68M), 71.93 % (12.67M)",
        source="Table 7 and Figure 3",
        notebook=SCALING,
        unit="seed",
        rule=(
            Ordered(
                "accuracy",
                ("large", "middle", "small"),
                by="size",
                percent=False,
                where={"corpus": "cauker", **FOREST},
                experiment="corpus_size",
            ),
            Difference("rho", "cauker", "real", by="corpus", percent=False, experiment="corpus_size_rank"),
        ),
        expects="more series, more accuracy at every step on CauKer, and a rank correlation of size with accuracy higher "
        "than a real corpus has",
        limits="three sizes in the laptop profile, far below the paper's 10M",
        own=TRAINS,
    ),
    Claim(
        id="C3",
        short="accuracy grows with model size",
        paper=PAPER,
        said_by="paper",
        words="Accuracy grows with the size of the model on CauKer.",
        said="MOMENT 75.21, 76.16, 77.20 % at 77M, 248M, 783M; Mantis 75.67 (0.75M) to 78.91 (8.10M), then 78.83, 78.86 % (1M series)",
        source="Table 8",
        notebook=SCALING,
        unit="seed",
        rule=(
            Ordered(
                "accuracy",
                ("large", "small"),
                by="model_size",
                percent=False,
                where={"corpus": "cauker", **FOREST},
                experiment="model_size",
            ),
            Ordered(
                "accuracy",
                ("large", "middle", "small"),
                by="model_size",
                percent=False,
                where={"corpus": "cauker", **FOREST},
                experiment="model_size",
                beside=True,
            ),
        ),
        expects="the larger model ahead of the smaller on the same corpus; with three sizes, at every step",
        own=TRAINS,
    ),
    Claim(
        id="C4",
        short="harder to fit, smoother to transfer",
        paper=PAPER,
        said_by="paper",
        words="CauKer is harder to fit and yet transfers more smoothly over the epochs.",
        said="",
        source="Figures 6 and 7",
        notebook=PRETRAINING,
        unit="seed",
        rule=(
            Difference("loss", "real", "cauker", by="corpus", higher=False, percent=False, pair=("model",), experiment="dynamics"),
            Difference("drops", "cauker", "real", by="corpus", higher=False, percent=False, pair=("model",), experiment="dynamics"),
        ),
        expects="final loss higher on CauKer, share of epochs in which accuracy falls lower, for both objectives",
        limits="the paper shows single curves without repeats",
        own=TRAINS,
    ),
    Claim(
        id="C5",
        short="DTW trees show blocks and anomalies",
        paper=PAPER,
        said_by="paper",
        words="Hierarchical clustering under DTW shows blocks and anomalies.",
        said="",
        source="Figure 2 (a picture, no control)",
        notebook=DTW,
        unit="seed",
        rule=(
            Threshold("cophenetic", 0.7, "above", only="cauker", experiment="dtw_clusters"),
            Threshold("precision", 0.5, "above", only="cauker", experiment="dtw_anomalies"),
            Threshold("recall", 0.5, "above", only="cauker", experiment="dtw_anomalies"),
            Difference("cophenetic", "cauker", ("phase-randomised", "kernelsynth"), higher=True, percent=False, experiment="dtw_clusters"),
        ),
        expects="cophenetic correlation above 0.7 and above the controls', and the generator's own anomalies found",
        limits="linkage, normalisation and number of clusters are ours: the paper does not give them",
        own="its anomalies are those the generator planted",
        seeds=0,
    ),
    Claim(
        id="C6",
        short="mean functions matter",
        paper=PAPER,
        said_by="paper",
        words="Mean functions matter.",
        said="+0.50 points (Mantis), +3.25 (MOMENT) over KernelSynth alone",
        source="Table 1",
        notebook=PRETRAINING,
        unit="seed",
        rule=(
            Difference(
                "accuracy",
                "full",
                "zero",
                by="means",
                percent=False,
                where={"model": "mantis", **FOREST},
                experiment="means",
                said="+0.50 points",
            ),
            Difference(
                "accuracy",
                "full",
                "zero",
                by="means",
                percent=False,
                where={"model": "moment", **FOREST},
                experiment="means",
                said="+3.25 points",
            ),
            Difference(
                "accuracy", "full", "one", by="means", percent=False, pair=("model",), where=FOREST, experiment="means", beside=True
            ),
        ),
        expects="the full bank of means ahead of none, with the same graphs, kernels and noise",
        own=TRAINS,
    ),
    Claim(
        id="C7",
        short="deeper graphs help, then stop helping",
        paper=PAPER,
        said_by="seed",
        words="Deeper causal graphs help, then stop helping.",
        said="",
        source="proposed check (the paper's Table 5 goes from 78.48 % at 10 nodes to 77.85 % at 50)",
        notebook=SCALING,
        unit="seed",
        rule=(
            Difference("accuracy", 4, 2, by="depth", percent=False, where=FOREST, experiment="depth"),
            Equivalence("accuracy", 8, (4, 6), 0.007, by="depth", percent=False, where=FOREST, experiment="depth"),
            Equivalence("accuracy", "wide", "narrow", 0.007, by="width", percent=False, where=FOREST, experiment="width", beside=True),
        ),
        expects="depth 4 ahead of depth 2 at a fixed share of roots; depth 8 within 0.7 points of 4 and 6",
        own=TRAINS,
    ),
    Claim(
        id="C8",
        short="spectral gaps that added kernels close",
        paper=PAPER,
        said_by="seed",
        words="The generator leaves gaps in the spectrum that UCR covers, and kernels made for them close the gaps.",
        said="",
        source="proposed check (the paper has no spectral analysis)",
        notebook=GENERATOR,
        unit="seed",
        rule=(
            Threshold("worst_band", 0.5, "below", only="cauker", experiment="coverage"),
            Difference("worst_band", "repaired", "cauker", higher=True, percent=False, experiment="coverage"),
        ),
        expects="less than half of UCR's energy range covered in the worst band, and more of it with the repaired bank",
        own="the gaps are measured against the collection of UCR sets as a whole",
        seeds=0,
    ),
    Claim(
        id="C9",
        short="kernel bank and activations matter",
        paper=PAPER,
        said_by="seed",
        words="Accuracy is sensitive to the kernel bank and to the activations.",
        said="",
        source="proposed check (the paper: dot product only 76.79 %, RBF only 78.07 %, Mantis)",
        notebook=SCALING,
        unit="seed",
        rule=(
            Difference("accuracy", "full", ("half-bank", "one-family"), percent=False, where=FOREST, experiment="bank"),
            Difference("accuracy", "full", "one-activation", percent=False, where=FOREST, experiment="bank"),
        ),
        expects="the full bank and all activations ahead of half a bank, of one family, and of one activation",
        own=TRAINS,
    ),
    Claim(
        id="C10",
        short="as good as real data with 20 x fewer",
        paper=PAPER,
        said_by="paper",
        words="It matches pretraining on real series with up to 20 times fewer of its own.",
        said="Mantis 78.55 % (100K CauKer) against 78.66 % (1.89M real); MOMENT 77.49 % (10M) against 78.85 % (13M)",
        source="table of Figure 7",
        notebook=PRETRAINING,
        unit="seed",
        rule=tuple(
            Difference(
                "accuracy",
                "cauker-twentieth",
                "real",
                slack=0.01,
                percent=False,
                where={"model": model, **FOREST},
                experiment="real_corpus",
            )
            for model in ("mantis", "moment")
        ),
        expects="no more than 1 point below the best real corpus with a twentieth of its series, for Mantis and MOMENT apart",
        limits="our real corpus is UEA sets and forecasting windows, with and without the UCR train parts",
        own=TRAINS,
    ),
)
