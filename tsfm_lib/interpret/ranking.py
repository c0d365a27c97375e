"""Which heads go first. Every ranking is a number per head, {site name: [H]}, and says nothing about which end to begin with.

weights alone   stable_rank (raw or folded, with that of random weights beside it), magnitude
data            sharpness (entropy of attention), magnitude of what heads add, attention_svd, output_svd, induction
costs           oracle: what happens to the loss without each head

`select` makes a plan of one end of a ranking, `random_like` its control: as many heads of every site, drawn at random.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tsfm_lib.errors import TsfmError
from tsfm_lib.interpret.capturing import Run, capture
from tsfm_lib.interpret.masks import HeadMask, Loss
from tsfm_lib.interpret.plans import Plan, head_sites, single_heads
from tsfm_lib.nn.sites import HeadSite

Scores = dict[str, Tensor]  # site name: H numbers
Names = Sequence[str] | None  # of sites, layers or stacks


def rank_of_product(q: Float[Tensor, "H K D"], k: Float[Tensor, "H K M"]) -> Float[Tensor, " H"]:
    """Stable rank of q^T k, |A|_F^2 / |A|_2^2, in float64 and without making A: R of two thin QRs has its singular values.

    >>> rank_of_product(torch.eye(3)[None], torch.diag(torch.tensor([1.0, 1.0, 0.0]))[None])
    tensor([2.], dtype=torch.float64)
    """
    thin = lambda w: torch.linalg.qr(w.detach().double().mT, mode="r").R  # H K K
    s = torch.linalg.svdvals(thin(q) @ thin(k).mT)
    return s.square().sum(-1) / s[:, 0].square().clamp_min(torch.finfo(s.dtype).tiny)


def stable_rank(model: nn.Module, folded: bool = False, names: Names = None) -> Scores:
    """Of the query-key product of every head; `folded`: as the head meets the stream, behind its norms and with the gains of q and k.

    Positions, additive biases and shifts of norms are outside of it. Between 1 and the head width."""
    read = lambda site: site.fold(*site.qk()) if folded else site.qk()
    return {site.name: rank_of_product(*read(site)) for site in head_sites(model, names)}


def random_stable_rank(model: nn.Module, folded: bool = False, names: Names = None, draws: int = 16, seed: int = 0) -> Scores:
    """The null beside it: the mean over weights drawn from a normal distribution, of the same shapes (and behind the same norms)."""
    generator, found = torch.Generator("cpu").manual_seed(seed), {}
    for site in head_sites(model, names):
        q, k = (w.detach() for w in site.qk())
        drawn = lambda w: torch.randn(w.shape, generator=generator, dtype=torch.float64, device="cpu").to(w.device)
        both = [(drawn(q), drawn(k)) for _ in range(draws)]
        found[site.name] = torch.stack([rank_of_product(*(site.fold(*pair) if folded else pair)) for pair in both]).mean(0)
    return found


def sharpness(model: nn.Module, run: Run, x: Tensor, names: Names = None) -> Scores:
    """Entropy of the attention of every head in nats, mean over series and queries: sharp heads are low."""
    with capture(model, "entropies", sites=names) as seen, torch.no_grad():
        run(x)
    return {name: found.double().mean((0, 2)) for name, found in seen.entropies.items()}


def magnitude(model: nn.Module, run: Run | None = None, x: Tensor | None = None, names: Names = None) -> Scores:
    """|W_Q| |W_K| of every head; with data the mean length of what it adds behind the output projection."""
    here = head_sites(model, names)
    if run is None or x is None:
        return {site.name: torch.stack([w.detach().double().flatten(1).norm(dim=1) for w in site.qk()]).prod(0) for site in here}
    found: Scores = {}
    with capture(model, "heads", sites=names) as seen, torch.no_grad():
        run(x)
    for site in here:
        out = site.out_proj.weight.detach().cpu().unflatten(1, (site.n_heads, site.head_dim))  # D H K
        found[site.name] = torch.einsum("rnhk,dhk->rnhd", seen.heads[site.name], out).norm(dim=-1).double().mean((0, 1))
    return found


def attention_svd(model: nn.Module, run: Run, x: Tensor, names: Names = None) -> Scores:
    """Stable rank of the attention that every head really pays: of the patterns of all series and queries, one below another."""
    gram: Scores = {}

    def look(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple, pattern: Tensor) -> None:
            own = torch.einsum("rhnm,rhnl->hml", pattern, pattern).double().cpu()
            if name in gram and gram[name].shape != own.shape:
                raise TsfmError(f"{name} looks at {own.shape[-1]} keys after {gram[name].shape[-1]}: choose a run that passes it once, "
                                "or leave this site out")  # fmt: skip
            gram[name] = gram.get(name, 0) + own

        return hook

    handles = [site.pattern.register_forward_hook(look(site.name)) for site in head_sites(model, names)]
    try:
        with torch.no_grad():
            run(x)
    finally:
        for handle in handles:
            handle.remove()
    return {name: _stable(torch.linalg.eigvalsh(g)) for name, g in gram.items()}


def output_svd(model: nn.Module, run: Run, x: Tensor, names: Names = None) -> Scores:
    """Stable rank of what every head says, over series and positions."""
    with capture(model, "heads", sites=names) as seen, torch.no_grad():
        run(x)
    return {name: _stable(torch.linalg.eigvalsh(torch.einsum("rnhk,rnhl->hkl", z.double(), z.double()))) for name, z in seen.heads.items()}


def _stable(eigenvalues: Float[Tensor, "H K"]) -> Float[Tensor, " H"]:
    return eigenvalues.clamp_min(0).sum(-1) / eigenvalues[:, -1].clamp_min(torch.finfo(eigenvalues.dtype).tiny)


def induction(model: nn.Module, run: Run, x: Tensor, period: int, tail: int = 0, names: Names = None) -> Scores:
    """How much every head looks at the token that once followed what is here now; `x` repeats a motif of `period` tokens.

    A token of self-attention stands before the next one, the j-th query of cross-attention before forecast token j; `tail`: special
    tokens behind the context ([REG], an end). Means over the queries that have such a key. Tokens must be of one size."""
    found: Scores = {}
    with capture(model, "patterns", sites=names) as seen, torch.no_grad():
        run(x)
    for site in head_sites(model, names):
        pattern = seen.patterns[site.name]  # R H N M
        n, keys = pattern.shape[2] - (tail if site.kind != "cross" else 0), pattern.shape[3] - tail
        query = torch.arange(max(n, 0))
        key = query + (keys if site.kind == "cross" else 1) - period
        fits = (key >= 0) & (key < keys)
        if not fits.any():
            raise TsfmError(f"{site.name} has {n} queries and {keys} keys, none a motif of {period} tokens back: pass longer series")
        found[site.name] = pattern[:, :, query[fits], key[fits]].double().mean((0, 2))
    return found


def oracle(model: nn.Module, run: Run, x: Tensor, target: Tensor, loss: Loss, names: Names = None, **options: object) -> Scores:
    """What every head is worth: the mean loss without it, less that of the intact model. `options`: those of `HeadMask.losses`."""
    here = head_sites(model, names)
    mean = HeadMask(model, [Plan(), *single_heads(model, names)]).losses(run, x, target, loss, **options).double().mean(1)
    return dict(zip((site.name for site in here), (mean[1:] - mean[0]).split([site.n_heads for site in here])))


# ---- From numbers to plans -------------------------------------------------------------------------------------------------------------


def order(scores: Scores, highest: bool = False) -> list[tuple[str, int]]:
    """Heads from the lowest number up (or from the highest down); among equals those of earlier sites first."""
    heads = [(site, h) for site, values in scores.items() for h in range(len(values))]
    values = torch.cat([v.double().cpu() for v in scores.values()])
    return [heads[i] for i in values.sort(descending=highest, stable=True).indices.tolist()]


def together(heads: Sequence[tuple[str, int]]) -> Plan:
    sites: dict[str, list[int]] = {}
    for site, head in heads:
        sites.setdefault(site, []).append(head)
    return Plan(heads=sites)


def select(scores: Scores, share: float | int, highest: bool = False, per_site: bool = False) -> Plan:
    """The lowest (or highest) share of all heads, or of those of each site.

    >>> select({"a": torch.tensor([3.0, 1.0]), "b": torch.tensor([2.0, 4.0])}, 0.5).heads
    {'a': (1,), 'b': (0,)}
    """
    if not 0 <= share <= 1:
        raise TsfmError(f"a share of heads lies between 0 and 1, got {share}")
    groups = [{site: values} for site, values in scores.items()] if per_site else [scores]
    chosen = [head for group in groups for head in order(group, highest)[: round(share * sum(map(len, group.values())))]]
    return together(chosen)


def random_like(model: nn.Module, plan: Plan, seed: int = 0) -> Plan:
    """As many heads of every site, drawn at random; MLPs and layers stay as planned."""
    rng = np.random.default_rng(seed)
    counts = {site.name: site.n_heads for site in head_sites(model)}
    plan.resolve(model)
    heads = {name: rng.choice(counts[name], len(numbers), replace=False).tolist() for name, numbers in plan.heads.items()}
    return Plan(heads, plan.mlps, plan.layers)


def table(model: nn.Module, **scores: Scores) -> pd.DataFrame:
    """Rankings side by side, one row a head."""
    here: list[HeadSite] = [site for site in head_sites(model) if all(site.name in s for s in scores.values())]
    rows = [{"site": s.name, "stack": s.stack, "layer": s.layer, "kind": s.kind, "head": h} for s in here for h in range(s.n_heads)]
    columns = {name: np.concatenate([s[site.name].double().cpu().numpy() for site in here] or [[]]) for name, s in scores.items()}
    return pd.DataFrame(rows).assign(**columns)


def within_sites(scores: Scores, costs: Scores) -> pd.DataFrame:
    """Spearman's correlation of two numbers over the heads of each site: heads of one layer are not independent of another."""
    from scipy import stats

    rows = []
    for site in scores:
        one, other = (s[site].double().cpu().numpy() for s in (scores, costs))
        varies = len(one) > 2 and np.ptp(one) > 0 and np.ptp(other) > 0
        rows.append({"site": site, "heads": len(one), "rho": stats.spearmanr(one, other).statistic if varies else np.nan})
    return pd.DataFrame(rows)
