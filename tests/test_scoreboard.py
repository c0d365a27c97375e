"""The board says what the verdicts say, in a picture that can be read, and every correction has its evidence."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from tsfm_lib import claims, plotting
from tsfm_lib.claims import board
from tsfm_lib.claims.corrections import CORRECTIONS, PART
from tsfm_lib.claims.rules import DIRECTION, REFUTED, UNRESOLVED, Difference, Equivalence, Threshold
from tsfm_lib.claims.verdict import UNMEASURED
from tsfm_lib.errors import TsfmError

from .test_claims import judge, simulate


@pytest.fixture(scope="module")
def empty():
    return claims.standing({id: claims.judge(id, pd.DataFrame()) for id in claims.CLAIMS})


@pytest.mark.parametrize("rule", [
    Difference("WQL", "a", "b"), Equivalence("WQL", "a", "b", 0.3, percent=False), Threshold("WQL", 10.0, "below", only="a")])
def test_clearance_and_verdict_say_the_same(rule):
    seen = set()
    for seed, gap in enumerate(np.linspace(-1, 1, 21)):
        part = judge(rule, simulate({"a": gap, "b": 0.0}, np.random.default_rng(seed), common=0.05)).parts[0]
        assert (part.verdict == DIRECTION) == (part.clearance > 1)
        assert part.clearance < -1 or part.verdict != REFUTED
        seen.add(part.verdict)
    assert {DIRECTION, REFUTED} <= seen
    assert judge(rule, simulate({"c": 0.0}, np.random.default_rng(0))).decided_by.interval is None


def test_another_habit_can_be_asked_for_and_changes_no_estimate():
    rows = simulate({"a": 0.06, "b": 0.0, "c": 0.5, "d": 0.5}, np.random.default_rng(5), datasets=1, noise=0.05, common=0)
    verdicts = {alpha: judge_by(rows, alpha=alpha) for alpha in (0.5, 0.05, 0.001)}
    assert verdicts[0.5].verdict == REFUTED and verdicts[0.001].verdict == UNRESOLVED
    assert len({v.parts[0].interval.estimate for v in verdicts.values()}) == 1
    wide = {widen: [judge_by(rows, alpha=alpha, widen=widen).verdict for alpha in (0.3, 0.2, 0.1, 0.05, 0.02)] for widen in (True, False)}
    assert wide[False].count(REFUTED) > wide[True].count(REFUTED) > 0


def judge_by(rows, **how):
    one = replace(claims.claim("M2"), rule=Difference("WQL", "a", ("b", "c", "d")), said="")
    return claims.verdict.judge_claim(one, rows, **how)


def test_without_rows_every_claim_waits_and_has_a_line(empty):
    assert list(empty["id"]) == list(claims.CLAIMS) and set(empty["verdict"]) == {UNMEASURED}
    assert empty["n"].sum() == 0 and empty["clearance"].isna().all() and set(empty["interval"]) == {"-"}
    assert empty["short"].is_unique and empty["short"].str.len().between(8, 40).all()


def test_every_verdict_has_a_colour_or_an_outline_and_a_sign_of_its_own():
    assert set(claims.rules.WEAKEST_FIRST) | {UNMEASURED} == set(board.SIGNS) == set(board.MEANING)
    looks = {(plotting.VERDICTS.get(verdict), sign) for verdict, sign in board.SIGNS.items() if not verdict.startswith("needs")}
    assert len(looks) == len({sign for _, sign in looks}) == len(board.SIGNS) - 2


@pytest.mark.parametrize("verdicts", [[UNMEASURED], [UNRESOLVED, REFUTED, DIRECTION, "reproduced", "needs data"]])
def test_the_picture_has_all_claims_and_no_words_on_words(empty, verdicts):
    figure = board.picture(empty.assign(verdict=[verdicts[i % len(verdicts)] for i in range(len(empty))]))
    FigureCanvasAgg(figure).draw()
    texts = [text for text in figure.axes[0].texts if text.get_text() not in board.SIGNS.values()]
    assert set(empty["short"]) <= {text.get_text() for text in texts}
    boxes = np.array([text.get_window_extent().extents for text in texts])
    width, height = figure.bbox.size
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()
    middle = boxes[:, [1, 3]].mean(1)
    for i, one in enumerate(boxes):
        beside = np.flatnonzero((np.abs(middle - middle[i]) < 4) & (boxes[:, 0] > one[0]))
        assert (boxes[beside, 0] > one[2]).all(), texts[i].get_text()


def test_every_correction_has_its_evidence():
    resting = {PART.fullmatch(one.evidence).group(1) for one in CORRECTIONS if PART.fullmatch(one.evidence)}
    verdicts = {id: claims.judge(id, claims.recorded(id)) for id in resting}
    assert len(CORRECTIONS) == len({one.sentence for one in CORRECTIONS})
    for one in CORRECTIONS:
        assert one.said_by in ("paper", "seed", "code")
        assert one.found(verdicts) not in ("", "False", "not yet measured"), one.evidence


@pytest.mark.parametrize(("evidence", "words"), [
    ("21_time_tracker_graph: the graph has a parameter", "found 0"), ("99_nothing: it holds", "99_nothing.ipynb"),
    ("tests/test_scoreboard.py::test_of_another_name", "another name now")])
def test_evidence_that_has_gone_is_noticed(evidence, words):
    with pytest.raises(TsfmError, match=words):
        replace(CORRECTIONS[0], evidence=evidence).found({})
