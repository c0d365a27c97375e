"""What must hold of Chronos-T5 whatever its weights are."""

from dataclasses import replace

import pytest
import torch

from tests.train.toys import recipe
from tsfm_lib import checkpoints
from tsfm_lib.models.chronos import END, MISSING, Chronos, ChronosConfig
from tsfm_lib.train import fit
from tsfm_lib.train.state import seed_for

LEVELS = (0.1, 0.5, 0.9)


def made(seed=0, **changes):
    return checkpoints.build("chronos-t5", replace(ChronosConfig.tiny(), **changes), seed).eval()


def series(rows=3, steps=64, seed=0):
    return 3 + torch.randn(rows, steps, generator=torch.Generator().manual_seed(seed)).cumsum(1)


def walker(seed=0, **changes):
    """A model with opinions about the next token."""
    return made(seed, token_std=3.0, **changes)


# ---- words


def test_a_series_becomes_words_by_hand():
    """Scale 2, centres one apart: values -1, 0 and 1 scales are tokens 5, 6 and 7 behind three special ones."""
    model = made(tokens=10, low=-3.0, high=3.0, context=5)
    sentence = model.tokenise(torch.tensor([[9e9, -2.0, 0.0, torch.nan, 4.0, 2.0]]))  # the first is out of the context
    assert sentence.statistics.scale.item() == 2.0
    assert sentence.ids.tolist() == [[5, 6, MISSING, 8, 7, END]]
    assert sentence.seen.tolist() == [[True, True, False, True, True, True]]
    assert model.values(torch.tensor([[3, 6, 9]]), sentence.statistics).tolist() == [[-6.0, 0.0, 6.0]]


def test_forecasts_follow_the_scale():
    model, x = walker(), series()
    a, b = (model.predict_quantiles(s * x[:, None], 12, LEVELS) for s in (1, 1024))
    assert torch.equal(1024 * a, b)


def test_z_scores_spare_a_level_the_bins_and_smooth_tokens_begin_close():
    plain, centred, x = made(), made(scaling="std", smooth_start=True), series()
    assert torch.equal(centred.tokenise(x).ids, centred.tokenise(x + 1024).ids)
    assert len(plain.tokenise(x + 1024).ids.unique()) < len(centred.tokenise(x + 1024).ids.unique())
    tokens = torch.nn.functional.normalize(centred.embedding.weight[centred.config.specials :], dim=1)
    close, far = ((tokens[step:] * tokens[:-step]).sum(1).mean().item() for step in (1, 30))
    assert close > 0.2 > abs(far)


def test_what_is_ready_to_copy_looks_for_its_own_past_before_any_training():
    repeats = torch.randn(8, 7, generator=torch.Generator().manual_seed(0)).repeat(1, 11)[:, :72]
    size = {"context": 64, "tokens": 1024, "width": 96, "heads": 8, "head_width": 16, "quiet_start": 0.1, "scaling": "std", "buckets": 32,
            "max_distance": 128}  # fmt: skip
    right = {}
    for ready in (False, True):
        model = made(copy_start=ready, smooth_start=True, **size)
        sentence = model.tokenise(repeats[:, :64])
        labels = model.words(repeats[:, 64:], sentence.statistics)
        seen = []
        hook = model.decoder.layers[-1].cross.pattern.register_forward_hook(lambda module, inputs, pattern, seen=seen: seen.append(pattern))
        with torch.no_grad():
            model(sentence, labels)
        hook.remove()
        cycle = (torch.arange(9)[:, None] + 63 - torch.arange(65)) % 7 == 0  # the decoder's step i stands behind value 63 + i
        right[ready] = seen[0].mean(1)[:, 4:, :][cycle.expand(8, -1, -1)[:, 4:]].sum().item() / (8 * 5)
    assert right[True] > 0.5 > 0.2 > right[False]  # share of attention on the same place of the cycle
    with pytest.raises(ValueError, match="takes 2 to 14 heads"):
        made(copy_start=True, heads=15, buckets=32, max_distance=128)


def test_missing_words_are_not_looked_at_and_only_distances_count():
    model, x = made(), series()
    with torch.no_grad():
        longer = model.tokenise(torch.nn.functional.pad(x[:, 24:], (24, 0), value=torch.nan))
        shorter = model.tokenise(x[:, 24:])
        torch.testing.assert_close(model.encode(longer)[:, 24:], model.encode(shorter), atol=1e-5, rtol=1e-5)


# ---- drawing


def test_only_values_are_drawn_unless_the_quirk_is_on():
    logits = torch.zeros(1, 64)
    logits[:, [MISSING, END, 2]] = 50.0
    for quirks, favourites in (((), range(3, 64)), (("draws_specials",), (MISSING, 2))):
        model = made(quirks=quirks, top_k=0)
        drawn = {model.draw(logits, torch.tensor([u], dtype=torch.float64)).item() for u in torch.linspace(0, 0.999, 61).tolist()}
        assert drawn <= set(favourites) and len(drawn) > 1


def test_draws_follow_the_distribution_that_is_left_by_temperature_top_k_and_top_p():
    logits = torch.full((1, 64), -torch.inf)
    logits[0, 10:14] = torch.tensor([0.4, 0.1, 0.3, 0.2]).log()
    p = lambda **changes: dict(zip(*(t[0].tolist() for t in reversed(made(**changes).shares(logits)))))
    near = lambda found, wanted: {i: v for i, v in found.items() if v} == {i: pytest.approx(v, abs=1e-6) for i, v in wanted.items()}
    assert near(p(), {10: 0.4, 11: 0.1, 12: 0.3, 13: 0.2})
    assert near(p(top_k=2), {10: 4 / 7, 12: 3 / 7})
    assert near(p(top_p=0.65), {10: 4 / 7, 12: 3 / 7}) and near(p(top_p=0.71), {10: 4 / 9, 12: 3 / 9, 13: 2 / 9})
    assert near(p(top_k=3, top_p=0.43), {10: 1.0})  # of the three that are left the first has 4 / 9
    assert near(p(temperature=0.5), {10: 16 / 30, 11: 1 / 30, 12: 9 / 30, 13: 4 / 30})
    u = torch.tensor([0.0, 0.39, 0.41, 0.49, 0.51, 0.79, 0.81, 0.9999], dtype=torch.float64)
    assert made().draw(logits.expand(8, -1), u).tolist() == [10, 10, 11, 11, 12, 12, 13, 13]


def test_the_numbers_of_one_step_fill_every_stratum_once():
    u = made().noise(2, 10, 5, None)
    assert torch.equal(u[:10], u[10:])  # all rows hear the same
    assert ((u[:10] * 10).long().sort(0).values == torch.arange(10)[:, None]).all()
    assert not torch.equal(u[:10, 0].argsort(), u[:10, 1].argsort())
    own = made(quirks=("own_draws",)).noise(2, 10, 5, None)
    assert own.shape == u.shape and not torch.equal(own[:10], own[10:])


def test_quantiles_of_the_next_step_are_those_of_the_distribution():
    """Many paths, so that the next step's quantiles can be read from the softmax instead."""
    model, x, levels = walker(top_k=0), series(1), (0.1, 0.3, 0.5, 0.9)
    found = model.predict_quantiles(x[:, None], 1, levels, samples=400)[0, 0, 0]
    with torch.no_grad():
        sentence = model.tokenise(x)
        logits = model(sentence, torch.full((1, 1), END))[:, 0]
        p = model.allowed(logits).softmax(-1)[0].double().cumsum(0)
        exact = [int((p < q).sum()) for q in levels]
    centres = model.values(torch.tensor([exact]), sentence.statistics)[0]
    width = 30 / 60 * sentence.statistics.scale.item()
    assert ((found - centres).abs() <= width + 1e-4).all() and found[0] < found[-1]


def test_a_generator_makes_other_paths_and_the_same_one_the_same():
    model, x = walker(), series()
    path = lambda seed: model.sample(x, 10, generator=None if seed is None else torch.Generator().manual_seed(seed))
    assert torch.equal(path(1), path(1)) and torch.equal(path(None), path(None)) and not torch.equal(path(1), path(2))


@torch.no_grad()
def test_step_by_step_equals_all_at_once():
    """Keys and values that are remembered give what a fresh pass over the whole sentence gives, path by path."""
    model, x, logits = walker(decoder_layers=2), series(), []
    sentence = model.tokenise(x)
    u = model.noise(3, 4, 8, None)

    def choose(given, step):
        logits.append(given)
        return model.draw(given, u[:, step])

    ids = model.generate(sentence, 8, choose, paths=4)
    for path in range(4):
        whole = model(sentence, ids[path::4])
        torch.testing.assert_close(torch.stack(logits, dim=1)[path::4], whole, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_context_is_encoded_once_per_horizon_and_row():
    model, rows = walker(), []
    handle = model.encoder.register_forward_hook(lambda module, inputs, out: rows.append(out.shape[:2]))
    model.sample(series(), 8, samples=5)
    assert [tuple(r) for r in rows] == [(3, 65)]
    handle.remove()


@torch.no_grad()
def test_greedy_takes_the_likeliest_each_time():
    model, x = walker(), series()
    sentence = model.tokenise(x)
    path = model.greedy(x, 8)
    ids = model.words(path, sentence.statistics)[:, :8]
    logits = model(sentence, ids)
    assert torch.equal(model.allowed(logits.flatten(0, 1)).argmax(-1).reshape(3, 8), ids)
    assert torch.equal(model.greedy(x, 20)[:, :8], path) and model.greedy(x, 20).shape == (3, 20)


@torch.no_grad()
def test_beyond_the_horizon_every_path_goes_on_from_itself():
    """Given the paths of the first horizon, the second one's are samples of the contexts that end in them."""
    model, x = walker(), series(2)
    paths = model.sample(x, 16, samples=4)
    context = torch.cat([x.repeat_interleave(4, 0), paths[..., :8].flatten(0, 1)], dim=1)
    u = model.noise(2, 4, 16, None)
    sentence = model.tokenise(context)
    ids = model.generate(sentence, 8, lambda logits, step: model.draw(logits, u[:, 8 + step]))
    torch.testing.assert_close(paths[..., 8:].flatten(0, 1), model.values(ids, sentence.statistics))
    early = walker(quirks=("median_roll_out",)).sample(x, 16, samples=4)
    assert torch.equal(early[..., :8], paths[..., :8]) and not torch.equal(early[..., 8:], paths[..., 8:])


# ---- training


class Waves:
    """Sines of two periods with any phase: what comes next follows from what was."""

    def __call__(self, step):
        period, phase = torch.rand(2, 32, 1, 1, generator=torch.Generator().manual_seed(seed_for(0, step, "data"))).unbind()
        return torch.sin(6.283 * (torch.arange(72) / torch.where(period < 0.5, 8, 12) + phase))


def test_a_tiny_model_learns_what_comes_next():
    """Better than knowing how often each token comes: the entropy of the labels is what a model without a context would reach."""
    model, held_out = made(tokens=24, low=-2.0, high=2.0), Waves()(10**6)
    run = fit(model, Waves(), recipe(steps=150, batch=32, warmup=5, ema=0.0, rate=5e-3, matrix_rate=1e-2), progress=False)
    labels = model.words(held_out[:, 0, -8:], model.tokenise(held_out[:, 0, :-8]).statistics)
    share = torch.bincount(labels.flatten()).double() / labels.numel()
    entropy = -(share[share > 0] * share[share > 0].log()).sum().item()
    with torch.no_grad():
        learnt = run.model.loss(held_out).item()
    assert learnt < 0.75 * entropy


@torch.no_grad()
def test_the_loss_counts_observed_labels_of_rows_with_a_context():
    model, x = made(), series(4, 72)
    x[0, -3:] = torch.nan
    x[1, :64] = torch.nan
    sentence = model.tokenise(x[:, :64])
    labels = model.words(x[:, 64:], sentence.statistics)
    log_p = model(sentence, labels).log_softmax(-1).gather(-1, labels[..., None])[..., 0]
    counted = [log_p[i, j].item() for i in (0, 2, 3) for j in range(9) if not (i == 0 and 5 <= j < 8)]
    assert model.loss(x[:, None]).item() == pytest.approx(-sum(counted) / len(counted), rel=1e-5)
    assert model.loss(torch.full((2, 1, 72), torch.nan)).item() == 0


def test_more_cuts_are_more_rows_of_the_same_series():
    model, batch = made(cuts=3), series(4, 72)[:, None]
    loss = lambda seed: model.loss(batch, torch.Generator().manual_seed(seed)).item()
    assert loss(0) == loss(0) != loss(1)


def test_published_sizes_have_the_published_parameter_counts():
    for size, millions in (("tiny", 8), ("mini", 20), ("small", 46), ("base", 201), ("large", 709)):
        with torch.device("meta"):
            count = sum(p.numel() for p in Chronos(ChronosConfig.published(size)).parameters())
        assert round(count / 1e6) == millions


def test_configurations_that_cannot_be_are_refused():
    for changes in ({"tokens": 4}, {"temperature": 0.0}, {"top_p": 0.0}, {"samples": 0}, {"low": 15.0}, {"quirks": ("bug",)},
                    {"scaling": "level"}, {"encoder_layers": 0}, {"max_distance": 4}):  # fmt: skip
        with pytest.raises(ValueError):
            replace(ChronosConfig.tiny(), **changes)
    with pytest.raises(ValueError, match="tiny, mini, small, base, large"):
        ChronosConfig.published("huge")
