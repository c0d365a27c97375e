"""What is planted can be found again by someone who knows how it was made, and only so far as it is there."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tsfm_lib.errors import TsfmError
from tsfm_lib.synth import planted

MAKERS = {
    "density": lambda rng: planted.density(5, 130, rng=rng).series,
    "frequency": lambda rng: planted.frequency(5, 130, rng=rng).series,
    "regimes": lambda rng: planted.regimes(5, 130, rng=rng).series,
    "drivers": lambda rng: planted.drivers(5, 130, rng=rng).series,
    "copies": lambda rng: planted.copies(5, 130, (3, 9), rng=rng).series,
    "shortcut": lambda rng: planted.shortcut(5, rng=rng).series,
    "motifs": lambda rng: planted.motifs(5, 96, 34, rng=rng).series,
    "seasons": lambda rng: planted.seasons(5, 96, 34, after=None, rng=rng).series,
    **{f"case {c}": lambda rng, c=c: planted.graph_case(c, 2, rng, length=101).series for c in planted.GRAPH_CASES},
}


@pytest.mark.parametrize("name", MAKERS)
def test_same_seed_same_bytes_and_generators_go_on(name):
    make = MAKERS[name]
    assert make(3).tobytes() == make(3).tobytes() != make(4).tobytes()
    rng = np.random.default_rng(0)
    assert make(rng).tobytes() != make(rng).tobytes()
    assert make(0).dtype == np.float32 and np.isfinite(make(0)).all()


# ---- density --------------------------------------------------------------------------------------------------------------------

def restless(series, block):
    """Energy of the second differences in each block."""
    energy = np.diff(series, n=2, axis=1, prepend=series[:, :1], append=series[:, -1:]) ** 2
    return energy.reshape(len(series), -1, block).mean(-1)


@pytest.mark.parametrize("burst", ["sine", "noise"])
def test_bursts_can_be_seen_in_their_blocks(burst):
    data = planted.density(200, 512, burst=burst)
    assert set(np.unique(data.bursts)) == {0.0, 1.0} and abs(data.bursts.mean() - 0.35) < 0.02
    assert (data.mask.reshape(200, 16, 32).mean(-1) == data.bursts).all()
    assert roc_auc_score(data.bursts.ravel(), restless(data.series, 32).ravel()) > 0.98


def test_noise_bursts_have_the_power_of_sine_bursts():
    power = [d.series[d.mask].var() for d in (planted.density(400, 512, 1.0, burst=b) for b in ("sine", "noise"))]
    assert abs(power[0] / power[1] - 1) < 0.1


def test_shares_of_zero_and_one_are_all_calm_and_all_burst_and_a_shift_straddles_blocks():
    assert not planted.density(20, 128, 0.0).mask.any() and planted.density(20, 128, 1.0).mask.all()
    shifted = planted.density(300, 512, 0.5, shift=16)
    assert set(np.unique(shifted.bursts)) == {0.0, 0.5, 1.0}
    change = np.flatnonzero(np.diff(shifted.mask, axis=1).any(0)) + 1
    assert (change % 32 == 16).all()
    assert planted.density(3, 100).bursts.shape == (3, 4)                      # the last block is cut


def test_density_refuses_what_it_cannot_make():
    with pytest.raises(TsfmError, match="sine"):
        planted.density(1, 64, burst="square")
    with pytest.raises(TsfmError, match="share"):
        planted.density(1, 64, 1.5)


# ---- frequency, regimes ---------------------------------------------------------------------------------------------------------

def misfit(series, periods):
    """Residual of the best harmonics with these periods."""
    t = np.arange(series.shape[-1])[:, None]
    waves = np.concatenate([np.sin(2 * np.pi * t / periods), np.cos(2 * np.pi * t / periods)], 1)
    q, _ = np.linalg.qr(waves)
    return ((series - series @ q @ q.T) ** 2).mean(-1)


def test_families_can_be_told_by_their_periods():
    data = planted.frequency(300, 512, 8)
    pairs = np.array([data.periods[data.family == f][0] for f in range(8)])
    found = np.argmin([misfit(data.series, pair) for pair in pairs], axis=0)
    assert (found == data.family).mean() > 0.98
    assert (pairs >= 6).all() and (pairs <= 200).all()


def test_other_draws_share_the_families_and_continuous_ones_share_nothing():
    a, b = planted.frequency(100, 64, 4, 0), planted.frequency(100, 64, 4, 1)
    assert {tuple(p) for p in a.periods} == {tuple(p) for p in b.periods} and len(np.unique(a.periods)) == 8
    assert len(np.unique(planted.frequency(100, 64, 1, 0).periods)) == 2
    assert len(np.unique(planted.frequency(100, 64, None, 0).periods)) == 200


def test_regimes_can_be_told_by_their_harmonics_and_switch_where_a_patch_begins():
    data = planted.regimes(300, 384, noise=0.05)
    steady = data.switch == 384
    assert 0.4 < steady.mean() < 0.6
    found = np.argmin([misfit(data.series[steady], p / np.arange(1, 4)) for p in data.periods], axis=0)
    assert (found == data.labels[steady, 0]).mean() > 0.98
    changes = np.diff(data.labels, axis=1) != 0
    assert (changes.sum(1) == ~steady).all()
    assert (changes[~steady].argmax(1) + 1 == data.switch[~steady]).all() and (data.switch % 24 == 0).all()
    for row in np.flatnonzero(~steady)[:40]:
        if data.switch[row] <= 384 - 192:
            tail = data.series[row, data.switch[row]:]
            assert np.argmin([misfit(tail, p / np.arange(1, 4)) for p in data.periods]) == data.labels[row, -1]


def test_imbalanced_regimes_fall_by_rank():
    share = np.bincount(planted.regimes(4000, 48, 4, switching=0.0, imbalance=1.0).labels[:, 0], minlength=4) / 4000
    assert np.allclose(share, np.array([1, 1 / 2, 1 / 3, 1 / 4]) / (25 / 12), atol=0.03)


# ---- drivers, copies ------------------------------------------------------------------------------------------------------------

def test_lagged_correlation_finds_the_graph_and_the_lags():
    data = planted.drivers(40, 600, 6, roots=2, lags=(5, 30))
    assert data.graph.sum() == 4 and not data.graph[:, :2].any() and (data.graph.sum(0)[2:] == 1).all()
    x = data.series - data.series.mean(-1, keepdims=True)
    for j in range(2, 6):
        score = {(i, lag): np.mean([np.corrcoef(row[i, : 600 - lag], row[j, lag:])[0, 1] for row in x])
                 for i in range(2) for lag in range(5, 31)}
        i, lag = max(score, key=lambda k: abs(score[k]))
        assert data.graph[i, j] and data.lags[i, j] == lag and np.sign(score[i, lag]) == np.sign(data.weights[i, j])


def test_a_follower_is_its_driver_delayed_and_the_law_is_shared():
    a, b = (planted.drivers(10, 200, 3, seed, noise=0.0) for seed in (0, 1))
    assert (a.graph == b.graph).all() and (a.lags == b.lags).all() and not np.allclose(a.series, b.series)
    for j in (1, 2):
        lag = a.lags[0, j]
        assert np.allclose(a.series[:, j, lag:], a.weights[0, j] * a.series[:, 0, : 200 - lag], atol=1e-5)


def test_the_second_variate_is_the_first_delayed():
    data = planted.copies(30, 100, (4, 12))
    assert data.delay.min() >= 4 and data.delay.max() <= 12 and len(np.unique(data.delay)) > 4
    for row, delay in zip(data.series, data.delay):
        assert (row[1, delay:] == row[0, : 100 - delay]).all()
    same = planted.copies(3, 50, 0).series
    assert (same[:, 0] == same[:, 1]).all()


# ---- shortcut -------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("rho", planted.SHORTCUT_REGIMES.values())
def test_cues_are_right_as_often_as_stated_and_can_be_read_off(rho):
    data = planted.shortcut(3000, rho, 1)
    assert abs((data.cue == data.sign).mean() - rho) < 0.03 and abs((data.ramp == data.sign).mean() - 0.85) < 0.03
    fine = data.series[:, 224:256] @ np.tile([1.0, -1.0], 16)
    assert (np.sign(fine) == data.cue).mean() > 0.98
    moved = data.series[:, 256:].mean(1) - data.series[:, :192].mean(1)
    assert (np.sign(moved) == data.sign).all() and data.series.shape[1] == 256 + 96


def test_the_oracle_of_the_shortcut_is_equally_good_in_every_regime_and_the_cue_is_not():
    """Errors: 0.15^2 of noise, and 1.5^2 times the variance of the sign that is left when the ramp, or the cue, is known."""
    error = lambda forecast, data: float(((forecast - data.series[:, 256:]) ** 2).mean())
    for rho in planted.SHORTCUT_REGIMES.values():
        data = planted.shortcut(4000, rho, 2)
        by_cue = data.oracle + 1.5 * (0.94 * data.cue - 0.7 * data.ramp)[:, None]
        assert abs(error(data.oracle, data) - (0.15**2 + 1.5**2 * (1 - 0.7**2))) < 0.06
        assert abs(error(by_cue, data) - (0.15**2 + 1.5**2 * (1 - 2 * 0.94 * (2 * rho - 1) + 0.94**2))) < 0.15


def test_means_of_pairs_do_not_know_the_fine_cue():
    a, b = (planted.shortcut(200, rho, 5) for rho in (1.0, 0.0))
    assert (a.cue == -b.cue).all() and (a.sign == b.sign).all()
    pairs = lambda x: x.reshape(200, -1, 2).mean(-1)
    assert np.abs(a.series - b.series).max() > 0.9 and np.abs(pairs(a.series) - pairs(b.series)).max() < 1e-6


# ---- graphs ---------------------------------------------------------------------------------------------------------------------

def recovered(case):
    """Area under the curve for pairs of channels, mean over repeats: amplitude distance, correlation, lagged correlation."""
    off, rows = ~np.eye(16, dtype=bool), []
    for x, edges in zip(case.series.astype(float), case.edges):
        truth, spectrum = (edges | edges.T)[off], np.fft.rfft(x)
        apart = np.linalg.norm(np.abs(spectrum)[:, None] - np.abs(spectrum)[None], axis=-1).round(3)
        lagged = np.abs(np.fft.irfft(spectrum[:, None].conj() * spectrum[None], axis=-1))
        lagged = np.maximum(lagged[..., :49].max(-1), lagged[..., -48:].max(-1))
        rows.append([roc_auc_score(truth, s[off]) for s in (-apart, np.abs(np.corrcoef(x)), lagged)])
    return np.mean(rows, 0)


def test_the_eight_cases_separate_the_estimators_as_described():
    """Lag alone does not hide a relation from amplitudes; equal spectra do, and a season of one's own does."""
    auc = {name: recovered(case) for name, case in planted.graph_cases(6).items()}
    for name in "ABCD":
        assert auc[name][0] > 0.97 and auc[name][2] > 0.97, name
    assert auc["A"][1] > 0.97 and auc["C"][1] > 0.97 and auc["D"][1] < 0.95
    assert abs(auc["E"][0] - 0.5) < 0.03 and auc["E"][2] > 0.97
    for name in "FG":
        assert 0.6 < auc[name][0] < 0.95 and auc[name][2] > 0.75, name
    assert auc["H"][0] < 0.45 and auc["H"][1] > 0.95 and auc["H"][2] > 0.95


def test_case_e_has_identical_amplitudes_and_f_is_directed():
    x = planted.graph_case("E", 3).series.astype(float)
    amplitudes = np.abs(np.fft.rfft(x))
    assert np.abs(amplitudes - amplitudes[0, 0]).max() < 1e-3
    edges = planted.graph_case("F", 10).edges
    assert (edges != edges.transpose(0, 2, 1)).any() and not edges[:, np.arange(16), np.arange(16)].any()
    assert np.abs(planted.graph_case("F", 10).series).max() < 10


def test_unknown_cases_are_refused():
    with pytest.raises(TsfmError, match="got 'Z'"):
        planted.graph_case("Z")


# ---- motifs and seasons that end ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("broken", [True, False])
def test_a_motif_begins_at_the_origin_and_goes_on_or_another_comes(broken):
    data = planted.motifs(300, 100, 50, motif=20, broken=broken, noise=0.0)
    context, future = np.split(data.series, [data.context], axis=1)
    assert np.allclose(context[:, 20:], context[:, :-20], atol=1e-5) and np.allclose(context[:, -20:].mean(1), 0, atol=1e-5)
    assert np.allclose(context[:, -20:].std(1), 1, atol=1e-4) and np.allclose(data.copy[:, :20], context[:, -20:], atol=1e-5)
    alike = np.mean(future * data.copy, axis=1)
    assert abs(alike.mean()) < 0.15 if broken else np.allclose(future, data.copy, atol=1e-5)
    assert np.allclose(future[:, 20:40], future[:, :20], atol=1e-5)
    rough, smooth = (planted.motifs(50, 100, 50, smooth=s, noise=0.0).series for s in (0, 2))
    assert np.abs(np.diff(rough)).mean() > 2 * np.abs(np.diff(smooth)).mean()
    with pytest.raises(TsfmError, match="twice in the context"):
        planted.motifs(2, 30, 10, motif=20)


def test_seasons_change_at_the_origin_and_power_stays():
    power = lambda y, p: 2 * np.abs((y * np.exp(-2j * np.pi * np.arange(y.shape[1]) / p)).mean(1)) ** 2
    for period, after in ((24, "same"), (24, 12), (24, None), (None, 24)):
        data = planted.seasons(400, 240, 120, period, after, noise=0.1)
        past, future = np.split(data.series, [data.context], axis=1)
        for part, planned in ((past, period), (future, period if after == "same" else after)):
            assert abs(part.var() - 1) < 0.12
            for p in (12, 24):
                assert power(part, p).mean() > 0.9 if p == planned else power(part, p).mean() < 0.25
    with pytest.raises(TsfmError, match="2 steps or more"):
        planted.seasons(2, 30, 10, 1)
