"""What holds for every model of the register: architectures in their tiny size, all shipped weights, all baselines."""

from collections import Counter
from functools import cache

import pytest
import torch
from torch import nn

from tsfm_lib import checkpoints, front
from tsfm_lib.models import BASELINES, MODELS
from tsfm_lib.nn.attention import Attention, causal
from tsfm_lib.nn.patching import patch
from tsfm_lib.nn.sites import KINDS, HeadSite, MLPSite

LEVELS, HORIZON = [0.1, 0.5, 0.9], 7


@cache
def get(name):
    if name in BASELINES:
        return front.load(name)
    if name in MODELS:
        return checkpoints.build(name, MODELS[name].config_class().tiny(), seed=0).eval()
    return checkpoints.load(front.shipped()[name])


TORCH = [*MODELS, *front.shipped()]
EVERY = [*TORCH, *BASELINES]
FORECASTERS = [n for n in EVERY if hasattr(MODELS[n].model_class() if n in MODELS else get(n), "predict_quantiles")]
ENCODERS = [n for n in TORCH if hasattr(get(n), "embed")]


def series(b=2, v=2, length=None, seed=0, name=None):
    context = getattr(getattr(get(name), "config", None), "context", 64) if name else 64
    length = length or min(context, 256)
    g, t = torch.Generator().manual_seed(seed), torch.arange(length)
    phase = 6.28 * torch.rand((b, v, 1), generator=g)
    return 3 + torch.sin(t * 6.2832 / 12 + phase) + 0.01 * t + 0.2 * torch.randn((b, v, length), generator=g)


def predict(name, x, horizon=HORIZON, levels=LEVELS):
    return get(name).predict_quantiles(x, horizon, levels)


def run(name, x):
    """One pass through everything a model can do on `x`, as one tensor."""
    model, found = get(name), []
    with torch.no_grad():
        if hasattr(model, "predict_quantiles"):
            found.append(model.predict_quantiles(x, HORIZON, LEVELS).flatten())
        if hasattr(model, "embed"):
            found.append(model.embed(x).flatten())
    return torch.cat(found)


@pytest.mark.parametrize("name", TORCH)
def test_sites_name_every_attention_output_once_and_tell_its_shape(name):
    model = get(name)
    sites = model.sites()
    heads = [s for s in sites if isinstance(s, HeadSite)]
    assert all(isinstance(s, (HeadSite, MLPSite)) for s in sites)
    assert max(Counter(s.name for s in sites).values(), default=1) == 1
    outputs = {id(m.out) for m in model.modules() if isinstance(m, Attention)}
    assert {id(s.out_proj) for s in heads} == outputs and len(heads) == len(outputs)
    inside = {id(m) for m in model.modules()}
    for s in heads:
        wq, wk = s.qk()
        assert s.kind in KINDS and isinstance(s.out_proj, nn.Linear) and id(s.pattern) in inside
        assert wq.shape[:2] == wk.shape[:2] == (s.n_heads, s.head_dim)
        assert s.out_proj.in_features == s.n_heads * s.head_dim
    assert all(id(s.module) in inside for s in sites if isinstance(s, MLPSite))


@pytest.mark.parametrize("name", TORCH)
def test_looking_at_the_patterns_changes_nothing_and_their_rows_sum_to_one(name):
    x, seen, handles = series(name=name), Counter(), []
    x[0, :, : x.shape[-1] // 2] = torch.nan
    plain = run(name, x)
    heads = [s for s in get(name).sites() if isinstance(s, HeadSite)]

    def look(site):
        def hook(module, inputs, pattern):
            seen[site.name] += 1
            assert pattern.shape[1] == site.n_heads and (pattern >= 0).all()
            torch.testing.assert_close(pattern.sum(-1), torch.ones(pattern.shape[:-1]))

        return hook

    try:
        handles = [s.pattern.register_forward_hook(look(s)) for s in heads]
        opened = run(name, x)
    finally:
        for handle in handles:
            handle.remove()
    assert set(seen) == {s.name for s in heads}
    torch.testing.assert_close(opened, plain, atol=1e-5 * max(1.0, plain.abs().max().item()), rtol=1e-5)


@pytest.mark.parametrize("name", TORCH)
def test_taking_out_every_head_changes_the_result(name):
    """Sites are where the heads really are: zeroing the input of each output projection must be felt."""
    heads = [s for s in get(name).sites() if isinstance(s, HeadSite)]
    x = series(name=name)
    plain = run(name, x)
    for site in heads:
        handle = site.out_proj.register_forward_pre_hook(lambda module, inputs: (torch.zeros_like(inputs[0]),))
        try:
            assert not torch.equal(run(name, x), plain), site.name
        finally:
            handle.remove()


@pytest.mark.parametrize("name", TORCH)
def test_saved_and_loaded_is_the_same_to_the_byte(name, tmp_path):
    model, x = get(name), series(name=name)
    back = checkpoints.load(checkpoints.save(model, tmp_path / "m"))
    assert back.config == model.config
    if hasattr(model, "predict_quantiles"):
        assert torch.equal(back.predict_quantiles(x, HORIZON, LEVELS), predict(name, x))
    if hasattr(model, "embed"):
        with torch.no_grad():
            assert torch.equal(back.embed(x), model.embed(x))


@pytest.mark.parametrize("name", MODELS)
def test_same_seed_same_weights(name):
    config = MODELS[name].config_class().tiny()
    first, second, other = (checkpoints.build(name, config, seed) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values()))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters()))


@pytest.mark.parametrize("name", [n for n in MODELS if hasattr(MODELS[n].model_class(), "loss")])
def test_the_loss_reaches_every_parameter_and_survives_missing_values(name):
    model = checkpoints.build(name, MODELS[name].config_class().tiny(), seed=0).train()
    batch = series(b=4, length=model.config.context + getattr(model.config, "horizon", 0))
    batch[0, 0, ::3] = torch.nan
    batch[1, :, -5:] = torch.nan
    batch[2, 1] = torch.nan
    batch[3, 0] = 2.0
    loss = model.loss(batch, generator=torch.Generator().manual_seed(0))
    loss.backward()
    assert loss.ndim == 0 and loss.isfinite()
    lost = [n for n, p in model.named_parameters() if p.grad is None]
    assert not lost and all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", TORCH)
def test_every_new_tensor_is_made_where_the_data_are(name):
    """With another default device a tensor made without saying where would not mix with the data: what happens on a GPU."""
    x, model = series(name=name), get(name)
    with torch.device("meta"):
        run(name, x)
        if name in MODELS and hasattr(model, "loss"):
            model.loss(x, torch.Generator("cpu").manual_seed(0))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("what", ["gaps", "constant", "all missing", "one point", "one variate missing", "huge", "spike"])
def test_awkward_series_give_finite_results(name, what):
    x = series(b=2, v=2, name=name)
    if what == "gaps":
        x[torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.4] = torch.nan
    elif what == "constant":
        x[:] = 4.2
    elif what == "all missing":
        x[:] = torch.nan
    elif what == "one point":
        x[..., :-1] = torch.nan
    elif what == "one variate missing":
        x[:, 0] = torch.nan
    elif what == "huge":
        x = 1e8 * x
    elif what == "spike":
        x[..., 30] = 1e6
    assert run(name, x).isfinite().all()


@pytest.mark.parametrize("name", EVERY)
def test_a_row_does_not_feel_its_neighbours(name):
    x = series(b=3, name=name)
    x[1, :, : x.shape[-1] - 20] = torch.nan
    x[2] *= 1000
    model = get(name)
    if hasattr(model, "predict_quantiles"):
        together = predict(name, x)
        for i in range(3):
            size = x[i].nan_to_num().abs().max().item()
            torch.testing.assert_close(predict(name, x[i : i + 1])[0], together[i], atol=1e-4 * size, rtol=1e-4)
    if hasattr(model, "embed"):
        with torch.no_grad():
            torch.testing.assert_close(torch.cat([model.embed(x[i : i + 1]) for i in range(3)]), model.embed(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", FORECASTERS)
def test_the_order_of_the_variates_does_not_matter_where_that_is_claimed(name):
    if not getattr(get(name), "order_free", False):
        pytest.skip("not claimed")
    x, order = series(b=1, v=3, name=name), torch.tensor([2, 0, 1])
    torch.testing.assert_close(predict(name, x[:, order]), predict(name, x)[:, order], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", FORECASTERS)
@pytest.mark.parametrize("horizon", [1, 40])
def test_quantiles_are_sorted_and_points_are_repeated(name, horizon):
    q = predict(name, series(name=name), horizon, [0.05, 0.1, 0.33, 0.5, 0.9, 0.99])
    assert q.shape == (2, 2, horizon, 6) and (q.diff(dim=-1) >= 0).all()
    assert q.dtype == torch.float32
    if not get(name).probabilistic:
        assert (q == q[..., :1]).all()
    assert isinstance(get(name).probabilistic, bool)


@torch.no_grad()
def future_stays_out(states, x):
    """Whether changing the second half of the series leaves the states [B N D] of the first half as they were."""
    changed, half = x.clone(), x.shape[-1] // 2
    changed[..., half:] = 50 - changed[..., half:]
    before, after = states(x), states(changed)
    n = before.shape[1] // 2
    assert not torch.allclose(before[:, n:], after[:, n:], atol=1e-3)
    return torch.allclose(before[:, :n], after[:, :n], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", TORCH)
def test_the_future_never_reaches_the_past_where_that_is_claimed(name):
    """A model with `causal = True` offers `states(x [B V T]) -> [B N D]`, in the order of time."""
    if not getattr(get(name), "causal", False):
        pytest.skip("not claimed")
    assert future_stays_out(get(name).states, series(name=name))


@pytest.mark.parametrize("mask", [causal(8), None])
def test_a_leak_from_the_future_would_be_seen(mask):
    inputs, attention = nn.Linear(8, 16), Attention(16, 2)
    assert future_stays_out(lambda x: attention(inputs(patch(x[:, 0], 8)), mask=mask), series(length=64)) == (mask is not None)


@pytest.mark.parametrize("name", FORECASTERS)
def test_forecasting_is_repeatable_and_leaves_the_input_alone(name):
    x = series(name=name)
    x[0, 0, 3] = torch.nan
    before = x.clone()
    assert torch.equal(predict(name, x), predict(name, x))
    assert torch.equal(x.nan_to_num(), before.nan_to_num())


@pytest.mark.parametrize("name", ENCODERS)
def test_embeddings_differ_between_series(name):
    with torch.no_grad():
        e = get(name).embed(series(b=4, name=name))
    assert e.ndim == 2 and len(e) == 4
    assert torch.pdist(e).min() > 0
