"""CauKer's graphs follow the released rule, choice by choice and as a whole; every number has its own address."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chisquare, ks_2samp, kstest

from tests.synth.cauker_features import features
from tsfm_lib.errors import TsfmError
from tsfm_lib.paths import parity_folder
from tsfm_lib.synth import cauker, causal_graphs
from tsfm_lib.synth.cauker import ACTIVATIONS, BANK, FAMILIES, VARIANTS, CauKerConfig

OFFICIAL = CauKerConfig()
ROOTS_ONLY = CauKerConfig(max_parents=0)


def rule(config=OFFICIAL, length=32):
    return cauker._tables(config, length).rule


def even(counts, least=1e-3):
    return chisquare(np.asarray(counts)).pvalue > least


# ---- as a whole ------------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def released():
    """28 features of one series from each of 1,024 graphs made by the released code."""
    with np.load(Path(__file__).with_name("cauker_reference.npz")) as file:
        return dict(zip(file["names"].tolist(), file["features"].T))


def compared(series, released):
    """Per feature the distance between the two distributions, and how many differ at the 1 % level."""
    ours = features(series)
    tests = {name: ks_2samp(ours[name].astype(np.float32), values) for name, values in released.items()}
    return {name: t.statistic for name, t in tests.items()}, sum(t.pvalue < 0.01 for t in tests.values())


def test_series_are_distributed_as_the_released_ones(released):
    series = cauker.generate(2000, 512, 0, per_graph=1)
    assert np.isfinite(series).all()
    distance, unlike = compared(series, released)
    assert len(distance) == 28 and max(distance.values()) < 0.075 and unlike <= 3, distance


@pytest.mark.parametrize("change", [{"max_kernels": 5}, {"bank": tuple(dict.fromkeys(BANK))}, {"means": ("zero",)}])
def test_another_rule_would_be_noticed(change, released):
    distance, unlike = compared(cauker.generate(1600, 512, 0, replace(OFFICIAL, **change), per_graph=1), released)
    assert max(distance.values()) >= 0.075 and unlike > 3


@pytest.mark.skipif(not parity_folder() or not (parity_folder() / "cauker-reference.npz").is_file(), reason="no reference in $TSFM_PARITY")
def test_the_features_are_those_of_the_full_reference(released):
    with np.load(parity_folder() / "cauker-reference.npz") as file:
        ours = features(file["series"])
        for i, name in enumerate(file["feature_names"].tolist()):
            assert np.allclose(ours[name], file["features_512"][:, i], atol=1e-10), name
            assert (released[name] == file["features_all_one_per_graph"][:, i].astype(np.float32)).all()


# ---- choice by choice ------------------------------------------------------------------------------------------------------------

def test_parents_come_before_children_uniformly_many_and_all_different():
    r, counts, roots = rule(), np.zeros((18, 7), int), []
    for g in range(1500):
        parents, many, layer, kept = causal_graphs.structure(r, 3, g)
        assert sorted(kept) == list(range(18))
        for i, count in enumerate(many):
            chosen = parents[i, :count]
            assert len(set(chosen)) == count and (chosen < i).all() and layer[i] == (1 + layer[chosen].max() if count else 0)
            counts[i, count] += 1
        roots.append((many == 0).sum())
    assert all(even(counts[i, :min(i, 6) + 1]) and counts[i, min(i, 6) + 1:].sum() == 0 for i in range(1, 18))
    assert abs(np.mean(roots) - OFFICIAL.expected_roots()) < 0.15


def test_kept_nodes_and_parents_are_chosen_evenly():
    r, kept, first = rule(), np.zeros(18, int), np.zeros(17, int)
    for g in range(2000):
        parents, many, _, order = causal_graphs.structure(r, 4, g)
        kept[order[:4]] += 1
        first[parents[17, :many[17]]] += 1
    assert even(kept) and even(first)


def test_kernels_are_one_to_seven_drawn_with_replacement_and_joined_evenly():
    r, many, picks, times, pairs = rule(), np.zeros(8, int), np.zeros(33, int), [], Counter()
    for g in range(3000):
        pick, by, free = causal_graphs.kernels_of(r, 5, g, 2)
        many[len(pick)] += 1
        picks[pick] += 1
        times += by[1:].tolist()
        pairs[len(pick) > 1 and pick[0] == pick[1]] += 1
        assert by[0] == 0 and ((free >= 0) & (free < 1)).all()
    assert many[0] == 0 and even(many[1:]) and even(picks) and even(np.bincount(times))
    assert abs(pairs[True] / (pairs[True] + pairs[False]) - 6 / 7 / 33) < 0.01


def test_means_follow_their_formulas_and_a_quarter_is_zero():
    r, x, zero, spikes = rule(length=64), np.linspace(0, 1, 64), 0, []
    for g in range(3000):
        mean, terms, times, spiked = causal_graphs.means_of(r, 6, g, 0, x)
        names = [causal_graphs.MEAN_NAMES[t] for t in terms]
        zero += (mean == 0).all()
        if names == ["anomaly", "zero"] and not times[1]:
            spikes.append((mean != 0).sum())
            assert np.abs(mean).max() < 25 and (spiked == (mean != 0)).all()
        elif "anomaly" not in names and "exponential" not in names:          # at most a line times a line
            assert np.allclose(np.diff(mean, 3), 0, atol=1e-12) and not spiked.any() and np.abs(mean).max() <= 4
        elif names == ["exponential", "zero"] and not times[1]:
            growth = np.diff(np.log(mean)) / np.diff(x)
            assert 0.5 <= mean[0] < 1.5 and 0.5 <= growth[0] < 1.5 and np.allclose(growth, growth[0])
    assert abs(zero / 3000 - 0.25) < 0.03
    assert set(spikes) == {1, 2, 3, 4, 5} and 2.4 < np.mean(spikes) < 3.3


def test_activations_are_even_and_their_parameters_within_range():
    r, counts, moduli = rule(), np.zeros(6, int), []
    for g in range(3000):
        name, a, b = causal_graphs.activation_of(r, 7, g, 9, 0)
        counts[name] += 1
        assert {0: 0.5 <= a <= 2 and -1 <= b <= 1, 4: 1 <= a <= 5, 5: 0.01 <= a <= 0.3}.get(name, a == b == 0)
        moduli += [a] * (name == 4)
    assert even(counts) and kstest(moduli, "uniform", (1, 4)).pvalue > 1e-3


def test_weights_are_standard_normal():
    w = np.concatenate([causal_graphs.weights_of(rule(), 8, g, 4, 6) for g in range(600)])
    assert len(w) == 4200 and kstest(w, "norm").pvalue > 1e-3


APPLY = {"linear": lambda z, a, b: a * z + b, "relu": lambda z, a, b: np.maximum(z, 0), "sigmoid": lambda z, a, b: 1 / (1 + np.exp(-z)),
         "sin": lambda z, a, b: np.sin(z), "mod": lambda z, a, b: np.mod(z, a), "leaky_relu": lambda z, a, b: np.where(z > 0, z, a * z),
         "tanh": lambda z, a, b: np.tanh(z), "softplus": lambda z, a, b: np.logaddexp(0, z),
         "swish": lambda z, a, b: z * np.exp(-np.logaddexp(0, -z)), "gaussian": lambda z, a, b: np.exp(-z ** 2)}


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("per_edge", [False, True])
def test_a_graph_can_be_replayed_by_hand(per_edge):
    config = replace(OFFICIAL, activations=causal_graphs.ACTIVATION_NAMES, activation_per="edge" if per_edge else "node")
    r, seen = rule(config), set()
    for index in range(40):
        g = cauker.graph(index, 48, 2, config)
        for i, parents in enumerate(g.parents):
            if not parents:
                continue
            *weights, total = g.weights[i]
            act = lambda slot, z, i=i, index=index: (lambda name, a, b: APPLY[causal_graphs.ACTIVATION_NAMES[name]](z, a, b))(
                *causal_graphs.activation_of(r, 2, index, i, slot))
            for slot, (w, p) in enumerate(zip(weights, parents), 1):
                total = total + w * (act(slot, g.values[p]) if per_edge else g.values[p])
            expected = total if per_edge else act(0, total)
            assert np.allclose(g.values[i], expected, rtol=1e-9, atol=1e-9)
            seen.update(g.activations[i].split(", "))
    assert seen == set(causal_graphs.ACTIVATION_NAMES)


# ---- addresses -------------------------------------------------------------------------------------------------------------------

def test_numbers_are_those_of_numpys_philox():
    for seed, graph, purpose, node in ((0, 0, 0, 0), (7, 9, 2, 3), (2 ** 62, 10 ** 7, 4, causal_graphs.WHOLE)):
        bits = np.random.Philox(key=np.array([seed, graph], np.uint64), counter=np.array([0, node, purpose, 0], np.uint64))
        ours = [causal_graphs.uniform(seed, graph, purpose, node, i) for i in range(11)]
        assert ours == np.random.Generator(bits).random(11).tolist()


def test_the_noise_of_a_root_has_its_own_stream():
    maker = cauker._Maker(replace(OFFICIAL, realisation=2), 16, 5)
    maker.noise(1, 1, 3)
    bits = np.random.Philox(key=np.array([5, 8], np.uint64), counter=np.array([0, 4, causal_graphs.NOISE, 2], np.uint64))
    assert maker.noise(8, 4, 3).tobytes() == np.random.Generator(bits).standard_normal((3, 16)).tobytes()


def test_any_range_in_any_order_has_the_bytes_of_the_whole():
    whole = cauker.generate(41, 64, 9)
    for start, n in ((30, 11), (0, 5), (5, 1), (6, 24), (40, 0)):
        assert cauker.generate(n, 64, 9, start=start).tobytes() == whole[start:start + n].tobytes()
    assert whole.dtype == np.float32 and len({row.tobytes() for row in whole}) > 38


def test_seeds_share_no_graph():
    known = {row.tobytes() for row in cauker.generate(80, 48, 0, per_graph=1) if row.std() > 0}
    for seed in (1, 100, 2 ** 40):
        assert not known & {row.tobytes() for row in cauker.generate(80, 48, seed, per_graph=1)}


def test_fewer_kept_series_are_the_first_of_more():
    assert (cauker.generate(10, 48, per_graph=1) == cauker.generate(40, 48, per_graph=4)[::4]).all()


def test_channels_of_a_sample_are_nodes_of_one_graph():
    x = cauker.multivariate(5, 48, 3, variates=6, start=2)
    assert x.shape == (5, 6, 48) and (x == cauker.generate(30, 48, 3, per_graph=6, start=12).reshape(5, 6, 48)).all()
    g = cauker.graph(4, 48, 3)
    assert (x[2] == g.values[list(g.kept[:6])].astype(np.float32)).all()


def test_the_same_seed_in_another_ablation_keeps_everything_else():
    for index in range(12):
        full, zero, tame, colab, narrow = (cauker.graph(index, 40, 1, replace(OFFICIAL, **change)) for change in (
            {}, {"means": ("zero",)}, {"activations": ("linear",)}, {"mean_scale": 0.5}, {"nodes": 12}))
        assert full.parents == zero.parents == tame.parents and full.kernels == zero.kernels == tame.kernels
        assert full.weights == zero.weights == tame.weights and narrow.parents == full.parents[:12]
        roots = list(full.roots)
        assert np.allclose(full.values[roots] - zero.values[roots], full.mean[roots], atol=1e-9)
        assert np.allclose(full.values[roots] - colab.values[roots], full.mean[roots] / 2, atol=1e-9)
        assert (tame.values[roots] == full.values[roots]).all() and (narrow.values == full.values[:12]).all()


def test_a_smaller_bank_changes_only_the_kernels_it_lacks():
    lacking = replace(ROOTS_ONLY, bank=tuple(k for k in BANK if k not in FAMILIES["rbf"]))
    richer = VARIANTS["repaired"]
    kept = untouched = of = 0
    for index in range(60):
        full, less = cauker.graph(index, 24, 1, ROOTS_ONLY), cauker.graph(index, 24, 1, lacking)
        more = cauker.graph(index, 24, 1, replace(richer, max_parents=0))
        for a, b, c in zip(full.kernels, less.kernels, more.kernels):
            assert "rbf" not in b and (a == b or "rbf" in a)
            kept += "rbf" not in a
            untouched += a == c
            of += 1
    assert kept > 0.6 * of and untouched > 0.3 * of


@pytest.mark.parametrize("offered", [BANK[5:9], FAMILIES["dot"], BANK[:30] + ("matern 0.5 5", "fractional 0.7", "fractional 0.7")])
def test_entries_of_any_bank_are_drawn_evenly(offered):
    r, picks = rule(replace(OFFICIAL, bank=offered)), np.zeros(len(offered), int)
    for g in range(1500):
        picks[causal_graphs.kernels_of(r, 5, g, 0)[0]] += 1
    assert even(picks)


# ---- options ---------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("depth", [1, 2, 4, 6, 8])
def test_layered_graphs_have_their_depth_and_always_the_same_share_of_roots(depth):
    config = replace(OFFICIAL, depth=depth)
    for index in range(30):
        parents, many, layer, _ = causal_graphs.structure(rule(config), 0, index)
        assert (many == 0).sum() == config.roots == round(OFFICIAL.expected_roots()) and layer.max() == depth and many.max() <= 6
        for i in np.flatnonzero(many):
            above = layer[parents[i, :many[i]]]
            assert len(set(parents[i, :many[i]])) == many[i] and above[0] == layer[i] - 1 and (above < layer[i]).all()
    assert CauKerConfig(nodes=40, depth=3, root_share=0.5).roots == 20


def test_without_replacement_no_kernel_comes_twice():
    r = rule(replace(OFFICIAL, bank=BANK[:7], replacement=False))
    sizes = set()
    for g in range(200):
        pick = causal_graphs.kernels_of(r, 0, g, 0)[0]
        assert len(set(pick)) == len(pick)
        sizes.add(len(pick))
    assert sizes == set(range(1, 8))


def test_the_number_of_nodes_can_be_drawn():
    r = rule(VARIANTS["paper"])
    assert even(np.bincount([len(causal_graphs.structure(r, 0, g)[1]) for g in range(1500)])[4:])


def test_periods_can_be_drawn_log_uniformly():
    config = replace(ROOTS_ONLY, nodes=4, bank=("periods 5 100",), max_kernels=1, means=("zero",))
    maker = cauker._Maker(config, 200, 0)
    drawn = np.array([maker.kernels(g, 0)[2][0] for g in range(500)])
    assert kstest(np.log(drawn), "uniform", (np.log(5), np.log(20))).pvalue > 1e-3
    g = cauker.graph(3, 200, 0, config)
    period = float(g.kernels[0].split()[1])
    turns = np.abs(np.fft.rfft(g.values[0] - g.values[0].mean(), 4096))
    cycles = turns.argmax() / 4096 * period                       # the strongest frequency is a harmonic of the period in the words
    assert abs(cycles - round(cycles)) < 0.15 and round(cycles) >= 1


def test_series_drawn_at_another_length_are_interpolated():
    short = replace(OFFICIAL, native_length=33)
    assert np.allclose(cauker.generate(8, 65, 1, short)[:, ::2], cauker.generate(8, 33, 1), rtol=1e-5, atol=1e-6)
    fine = cauker.generate(8, 65, 1, short)
    assert np.allclose(fine[:, 1::2], (fine[:, :-1:2] + fine[:, 2::2]) / 2, rtol=1e-4, atol=1e-5)


def test_nodes_that_hardly_vary_are_passed_over_when_asked():
    flat = lambda config: (cauker.generate(1200, 64, 0, config, per_graph=2).std(1) < 1e-3).mean()
    assert 0.01 < flat(OFFICIAL) < 0.05 and flat(replace(OFFICIAL, least_std=1e-3)) == 0


def test_another_realisation_changes_the_noise_alone():
    a, b = (cauker.graph(3, 64, 0, replace(OFFICIAL, realisation=r)) for r in (0, 1))
    assert a.kernels == b.kernels and a.weights == b.weights and (a.mean == b.mean).all()
    assert not any(np.allclose(a.values[i], b.values[i]) for i in a.roots)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_makes_finite_series(name):
    x = cauker.generate(80, 96, 0, VARIANTS[name])
    assert x.shape == (80, 96) and np.isfinite(x).all() and (x.std(1) > 0).mean() > 0.8


def test_kernelsynth_is_cauker_without_graph_and_means():
    a, b, c = (cauker.graph(2, 48, 0, VARIANTS[name]) for name in ("kernelsynth", "mean-kernelsynth", "cauker"))
    assert len(a.roots) == len(b.roots) == 18 and not a.mean.any() and b.mean.any() and a.kernels == b.kernels
    assert (b.values[list(c.roots)] == c.values[list(c.roots)]).all()
    scm = cauker.graph(2, 48, 0, VARIANTS["scm"])
    assert scm.parents == c.parents and {scm.kernels[i] for i in scm.roots} == {"white 1"}


def test_words_of_a_graph_say_where_its_anomalies_are():
    found = 0
    for index in range(30):
        g = cauker.graph(index, 64, 0, replace(ROOTS_ONLY, means=("anomaly", "zero")))
        for i in g.roots:
            assert (g.spikes[i] == (g.mean[i] != 0)).all() or "anomaly * anomaly" in g.means[i] or "anomaly + anomaly" in g.means[i]
            found += g.spikes[i].any()
    assert found > 100
    g = cauker.graph(5, 64)
    assert g.depth == g.layer.max() and all(set(g.parents[i]) < set(g.ancestors(i)) for i in range(18))


@pytest.mark.parametrize("change, words", [
    ({"nodes": 0}, "nodes"), ({"bank": ("rfb 1",)}, "rbf"), ({"bank": ()}, "bank"), ({"bank": ("period x",)}, "period"),
    ({"means": ("zeros",)}, "did you mean 'zero'"), ({"activations": ("cos",)}, "activations"), ({"activation_per": "graph"}, "edge"),
    ({"modulus": (0.0, 1.0)}, "above 0"), ({"gain": (2.0, 1.0)}, "range"), ({"fewest_nodes": 19}, "fewest_nodes"),
    ({"depth": 15}, "19 nodes"), ({"replacement": False, "bank": BANK[:3]}, "3 kernels"), ({"max_parents": -1}, "max_parents"),
])
def test_a_configuration_that_cannot_be_made_is_refused(change, words):
    with pytest.raises(TsfmError, match=words):
        replace(OFFICIAL, **change)


def test_requests_that_cannot_be_met_are_refused():
    for request, words in (({"per_graph": 19}, "18 nodes"), ({"length": 1}, "length"), ({"seed": -1}, "seed"), ({"n": -1}, "n should")):
        with pytest.raises(TsfmError, match=words):
            cauker.generate(**({"n": 3} | request))
    with pytest.raises(TsfmError, match="did you mean 'depth'"):
        CauKerConfig.from_dict({"dept": 3})
    for config in VARIANTS.values():
        assert CauKerConfig.from_dict(config.to_dict()) == config


def test_names_of_activations_begin_with_the_released_six():
    assert ACTIVATIONS == ("linear", "relu", "sigmoid", "sin", "mod", "leaky_relu")
