"""The rules know how often they are wrong, and every claim has one before anything is run."""

import re
import sys
import types
from importlib import import_module

import numpy as np
import pandas as pd
import pytest

from tsfm_lib import claims
from tsfm_lib.claims.__main__ import main
from tsfm_lib.claims.claim import Claim
from tsfm_lib.claims.rules import (
    DIRECTION,
    REFUTED,
    REPRODUCED,
    UNRESOLVED,
    WEAKEST_FIRST,
    Difference,
    Equivalence,
    Ordered,
    Threshold,
    decide,
)
from tsfm_lib.errors import TsfmError

ABOVE = (0.0, np.inf)
SHUFFLES = {"own": 0.0, "intra-shuffled": 0.5, "inter-shuffled": 1.0, "fixed-rope": 1.5}


def toy(rule, **changes) -> Claim:
    about = dict(id="X1", paper="nobody", said_by="ours", words="w", said="", source="-", notebook="n", unit="seed", expects="e")
    return Claim(**{**about, "rule": rule, **changes})


def judge(rule, rows, **changes):
    return claims.verdict.judge_claim(toy(rule, **changes), rows)


def simulate(means, rng, seeds=6, datasets=3, noise=0.1, common=1.0, metric="WQL", experiment="e"):
    """Rows of paired runs: a seed and a data set shift all variants alike, each run has noise of its own."""
    shift = {(s, d): rng.normal(0, common) for s in range(seeds) for d in range(datasets)}
    return pd.DataFrame([
        {"experiment": experiment, "profile": "laptop", "seed": s, "variant": v, "dataset": f"d{d}",
         metric: 10 + m + shift[s, d] + rng.normal(0, noise)}
        for s in range(seeds) for d in range(datasets) for v, m in means.items()])


def shares(samples, region, tests=1):
    found = [decide(x, region, tests)[0] for x in samples]
    return np.mean([x is True for x in found]), np.mean([x is False for x in found])


@pytest.mark.parametrize("n", [5, 12, 25])
def test_a_difference_that_is_not_there_is_claimed_in_5_of_100(n):
    replicates = 1500 if n < 20 else 200
    holds, refuted = shares(np.random.default_rng(n).normal(0, 1, (replicates, n)), ABOVE)
    tolerance = 3 * np.sqrt(0.05 * 0.95 / replicates)
    assert holds + refuted < 0.05 + tolerance
    assert holds > 0 and refuted > 0


def test_many_parts_do_not_refute_by_chance():
    samples = np.random.default_rng(18).normal(0, 1, (120, 18, 5))
    corrected, plain = (np.mean([any(decide(x, ABOVE, tests)[0] is False for x in claim) for claim in samples]) for tests in (18, 1))
    assert corrected < 0.025 + 3 * np.sqrt(0.025 * 0.975 / 120)
    assert plain > 0.2


def test_a_real_effect_is_found_and_its_opposite_refuted():
    samples = np.random.default_rng(0).normal(2, 1, (300, 8))
    assert shares(samples, ABOVE)[0] > 0.95
    assert shares(-samples, ABOVE)[1] > 0.95


def test_equivalence_accepts_what_is_equal_and_not_what_differs_by_the_margin():
    rng = np.random.default_rng(1)
    equal = shares(rng.normal(0, 0.3, (300, 8)), (-1.0, 1.0))
    at_margin = shares(rng.normal(1.0, 0.3, (1500, 8)), (-1.0, 1.0))
    far = shares(rng.normal(2.0, 0.3, (300, 8)), (-1.0, 1.0))
    assert equal[0] > 0.95 and equal[1] == 0
    assert at_margin[0] < 0.05 + 0.017
    assert far[1] > 0.95 and far[0] == 0


def test_noise_is_no_evidence_of_equality():
    assert shares(np.random.default_rng(2).normal(0, 5, (300, 5)), (-1.0, 1.0))[0] < 0.05


def test_paired_runs_resolve_what_unpaired_ones_cannot():
    rng = np.random.default_rng(3)
    rule = Difference("WQL", "new", "old", percent=False)
    verdicts = {"paired": [], "unpaired": []}
    for _ in range(15):
        rows = simulate({"new": -0.2, "old": 0.0}, rng)
        broken = rows.copy()
        old = broken["variant"] == "old"
        broken.loc[old, "WQL"] = rng.permutation(broken.loc[old, "WQL"].to_numpy())
        verdicts["paired"].append(judge(rule, rows).verdict)
        verdicts["unpaired"].append(judge(rule, broken).verdict)
    assert verdicts["paired"].count(DIRECTION) >= 14
    assert verdicts["unpaired"].count(DIRECTION) <= 4


def test_every_step_of_an_order_is_needed():
    rng = np.random.default_rng(4)
    rule = Ordered("WQL", ("a", "b", "c"))
    assert judge(rule, simulate({"a": 0.0, "b": 0.5, "c": 1.0}, rng)).verdict == DIRECTION
    flat = judge(rule, simulate({"a": 0.0, "b": 0.5, "c": 0.5}, rng))
    assert flat.verdict == UNRESOLVED and "b over c" in flat.why
    turned = judge(rule, simulate({"a": 0.0, "b": 1.0, "c": 0.5}, rng))
    assert turned.verdict == REFUTED and turned.parts[0].verdict == DIRECTION


def test_higher_is_better_for_accuracy_and_where_the_rule_says_so():
    rows = simulate({"a": 1.0, "b": 0.0}, np.random.default_rng(5), metric="accuracy")
    assert judge(Difference("accuracy", "a", "b"), rows).verdict == DIRECTION
    assert judge(Difference("accuracy", "a", "b", higher=False), rows).verdict == REFUTED


def test_threshold_looks_at_one_variant_on_one_side():
    rows = simulate({"a": 0.0, "b": -4.0}, np.random.default_rng(6), common=0.1)
    assert judge(Threshold("WQL", 8.0, "above", only="a"), rows).verdict == DIRECTION
    assert judge(Threshold("WQL", 8.0, "above", only="b"), rows).verdict == REFUTED
    assert judge(Threshold("WQL", 10.0, "below", only="a"), rows).verdict == UNRESOLVED


def test_reproduced_only_where_the_said_number_is_comparable_and_met():
    rows = simulate({"a": -1.0, "b": 0.0}, np.random.default_rng(7))
    rules = [Difference("WQL", "a", "b", percent=False, within=within) for within in (None, (0.9, 1.1), (2.0, 3.0))]
    assert [judge(rule, rows).verdict for rule in rules] == [DIRECTION, REPRODUCED, DIRECTION]


def test_units_count_once_however_many_rows_they_have():
    rng = np.random.default_rng(8)
    few, many = simulate({"a": -1, "b": 0}, rng, datasets=2), simulate({"a": -1, "b": 0}, rng, datasets=40)
    assert [judge(Difference("WQL", "a", "b"), rows).n for rows in (few, many)] == [6, 6]


def test_fewer_than_five_seeds_resolve_nothing_but_are_shown():
    rows = simulate({"a": -1.0, "b": 0.0}, np.random.default_rng(9), seeds=4)
    found = judge(Difference("WQL", "a", "b"), rows)
    assert found.verdict == UNRESOLVED and "only 4 paired values of seed" in found.why and found.interval != "-"
    by_dataset = simulate({"a": -1.0, "b": 0.0}, np.random.default_rng(9), seeds=2, datasets=30)
    assert "only 2 paired training seeds" in judge(Difference("WQL", "a", "b"), by_dataset, unit="dataset").why
    assert judge(Difference("WQL", "a", "b"), by_dataset, unit="dataset", seeds=0).verdict == DIRECTION


def test_a_unit_without_a_partner_is_dropped_and_reported():
    rows = simulate({"a": -1.0, "b": 0.0}, np.random.default_rng(10), seeds=7)
    rows.loc[(rows["variant"] == "a") & (rows["seed"] == 3), "WQL"] = np.nan
    found = judge(Difference("WQL", "a", "b"), rows)
    assert found.n == 6 and "1 of 7 dropped" in found.why


def test_a_rival_without_a_seed_stands_against_every_seed():
    rows = simulate({"a": -1.0, "b": 0.0}, np.random.default_rng(11), seeds=5, datasets=8, common=0.0)
    rows = rows[(rows["variant"] == "a") | (rows["seed"] == 0)].astype({"seed": float})
    rows.loc[rows["variant"] == "b", "seed"] = np.nan
    found = judge(Difference("WQL", "a", "b"), rows, unit="dataset")
    assert (found.verdict, found.n) == (DIRECTION, 8)


def test_the_highest_recorded_profile_is_judged():
    rng = np.random.default_rng(12)
    quick = simulate({"a": 1.0, "b": 0.0}, rng).assign(profile="quick")
    found = judge(Difference("WQL", "a", "b"), pd.concat([quick, simulate({"a": -1.0, "b": 0.0}, rng)], ignore_index=True))
    assert (found.verdict, found.profile) == (DIRECTION, "laptop")


def test_the_weakest_judged_part_decides_and_all_are_shown():
    rng = np.random.default_rng(13)
    rows = pd.concat([simulate({"a": -1.0, "b": 0.0}, rng, experiment="one"), simulate({"a": 1.0, "b": 0.0}, rng, experiment="two"),
                      simulate({"a": 0.0, "b": 0.0}, rng, experiment="three")], ignore_index=True)
    one, two, three = (Difference("WQL", "a", "b", experiment=e) for e in ("one", "two", "three"))
    assert judge((one, three), rows).verdict == UNRESOLVED
    assert judge((one, three, two), rows).verdict == REFUTED
    beside = judge((one, Difference("WQL", "a", "b", experiment="two", beside=True)), rows)
    assert beside.verdict == DIRECTION and beside.parts[1].verdict == REFUTED and "beside" in str(beside)
    assert len(judge((one, three, two), rows).frame()) == 4
    assert WEAKEST_FIRST[0] == REFUTED and WEAKEST_FIRST[-1] == REPRODUCED


def test_missing_rows_are_named_and_never_a_verdict():
    empty = claims.judge("K3", pd.DataFrame())
    assert empty.verdict == UNRESOLVED and "no recorded rows" in empty.why
    rows = simulate({"own": 0.0, "fixed-rope": 1.0}, np.random.default_rng(14), experiment="iarope")
    partly = claims.judge("K3", rows)
    assert partly.verdict == UNRESOLVED and "'intra-shuffled'" in partly.why
    assert claims.judge("M2", simulate({"msft": 0.0}, np.random.default_rng(15), experiment="other")).verdict == "needs data"


@pytest.mark.parametrize(("id", "rows", "words"), [("K3", None, "got NoneType"), ("K3", [1], "got list"), (3, pd.DataFrame(), "got 3")])
def test_what_cannot_be_judged_is_said(id, rows, words):
    free = lambda function: getattr(function, "__wrapped__", function)  # as where nothing checks types
    with pytest.raises(TsfmError, match=words):
        free(claims.verdict.judge_claim)(free(claims.claim)(id), rows)


def test_k1_needs_the_gain_and_its_disappearance():
    def rows(gain_calm, rng):
        out = []
        for density, gain in ((0.35, 0.3), (0.0, gain_calm), (1.0, 0.0)):
            for metric in ("WQL", "MASE"):
                means = {"adaptive": -gain, "fixed-middle": 0.0, "fixed-small": 0.2, "fixed-large": 0.2, "all-sizes": 0.1}
                runs = simulate(means, rng, noise=0.02, seeds=5, metric=metric, experiment="mosdp_vs_fixed")
                out.append(runs.assign(density=density))
        frame = pd.concat(out, ignore_index=True)
        return frame.groupby(["experiment", "profile", "seed", "variant", "dataset", "density"], as_index=False)[["WQL", "MASE"]].mean()

    rng = np.random.default_rng(16)
    assert claims.judge("K1", rows(0.0, rng)).verdict == DIRECTION
    everywhere = claims.judge("K1", rows(0.5, rng))
    assert everywhere.verdict == REFUTED and "density 0" in everywhere.why and "outside the margin" in everywhere.why


def test_all_claims_are_there_with_source_unit_and_rule():
    expected = [f"{letter}{i}" for letter, n in (("K", 9), ("T", 9), ("C", 10), ("M", 8), ("R", 10)) for i in range(1, n + 1)]
    assert list(claims.CLAIMS) == expected
    for one in claims.CLAIMS.values():
        assert one.words and one.source and one.expects and one.own, one.id
        assert re.fullmatch(r"\d\d_[a-z0-9_]+", one.notebook), one.id
        assert all(rule.experiment for rule in one.rules), one.id
        assert one.said or not any(rule.within for rule in one.rules), one.id
        assert one.seeds in (0, 5) and one.units >= 5, one.id
        assert str(one).count("\nrule ") == len(one.rules)


def test_a_judged_table_is_the_same_on_every_machine():
    rows = simulate(SHUFFLES, np.random.default_rng(17), experiment="iarope")
    other = rows.assign(WQL=rows["WQL"] * (1 + 1e-9)).sample(frac=1, random_state=0)
    first, second = claims.judge("K3", rows), claims.judge("K3", other)
    assert str(first) == str(second) and first._repr_html_() == second._repr_html_()
    table = claims.table([first])
    assert list(table.columns) == ["quantity", "said by", "said", "recorded", "interval", "verdict"]
    assert "direction holds" in str(table) and "<table" in table._repr_html_() and "0x" not in str(table)


def test_claims_expected_by_chance():
    assert str(claims.by_chance()).startswith("If there were no effect anywhere, 2.3 of 46 claims")
    assert claims.by_chance([]).at_most == 0


def test_the_shell_lists_shows_and_refuses(capsys):
    assert main([]) == 0
    assert capsys.readouterr().out.count("\n") == 46
    assert main(["K3"]) == 0
    assert "ordered: WQL from best to worst own, intra-shuffled" in capsys.readouterr().out
    assert main(["K33"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert main(["--data", "x.csv"]) == 2


def test_a_claim_is_tested_on_ones_own_series_where_a_check_is_registered(tmp_path, monkeypatch, capsys):
    file = tmp_path / "mine.csv"
    file.write_text("date,a\n" + "\n".join(f"2024-01-{d:02d},{d % 7}" for d in range(1, 29)) + "\n")
    assert main(["K6", "--data", str(file)]) == 2
    sentence = capsys.readouterr().err
    assert sentence.startswith("K6 cannot be tested on a series of one's own: it averages rows") and sentence.count("\n") == 1

    seen = []
    check = types.ModuleType("fake_check")
    check.shuffles = lambda data: seen.append(data) or simulate(SHUFFLES, np.random.default_rng(0), experiment="iarope")
    monkeypatch.setitem(sys.modules, "fake_check", check)
    monkeypatch.setitem(claims.OWN_DATA, "K3", "fake_check:shuffles")
    assert main(["K3", "--data", str(file)]) == 0
    assert "K3: direction holds" in capsys.readouterr().out and seen[0].series[0].shape == (1, 28)
    assert main(["K3", "--data", str(tmp_path / "none.csv")]) == 2


def test_every_registered_check_is_there():
    for id, place in claims.OWN_DATA.items():
        module, function = place.split(":")
        assert callable(getattr(import_module(module), function)), id


def test_nonsense_rules_are_refused():
    with pytest.raises(TsfmError, match="margin above 0"):
        Equivalence("WQL", "a", "b", 0.0)
    with pytest.raises(TsfmError, match="side must be"):
        Threshold("WQL", 1.0, "beyond")
    with pytest.raises(TsfmError, match="at least one rule must be judged"):
        toy(Difference("WQL", "a", "b", beside=True))
