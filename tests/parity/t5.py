"""What the case files of both Chronos models have in common: the names of what they hold of a T5, and how it is fetched by hooks."""

import re
from contextlib import ExitStack, contextmanager

import torch

from tsfm_lib.nn.sites import HeadSite

STACKS, KINDS = {"enc": "encoder", "dec": "decoder"}, {"sa": "self", "ca": "cross"}


def near(value, expected, share=1e-4):
    """Relative 1e-4, and as much of the largest value where numbers are small."""
    torch.testing.assert_close(value, expected, rtol=share, atol=share * expected.abs().max().item(), check_dtype=False)


@contextmanager
def taken_out(model, name):
    """Without one head, MLP or layer, as the files name them: enc_sa_l1_h2, dec_mlp_l0, dec_layer_l1."""
    stack, kind, layer, head = re.fullmatch(r"(enc|dec)_(sa|ca|mlp|layer)_l(\d+)(?:_h(\d+))?", name).groups()
    here = [s for s in model.sites() if (s.stack, s.layer) == (STACKS[stack], int(layer))]
    if kind != "layer":
        here = [s for s in here if (s.kind if isinstance(s, HeadSite) else "mlp") == KINDS.get(kind, kind)]
    assert here
    with ExitStack() as hooks:
        for site in here:
            if isinstance(site, HeadSite):
                own = slice(None) if head is None else slice(int(head) * site.head_dim, (int(head) + 1) * site.head_dim)

                def without(module, inputs, own=own):
                    z = inputs[0].clone()
                    z[..., own] = 0
                    return (z,)

                hooks.callback(site.out_proj.register_forward_pre_hook(without).remove)
            else:
                hooks.callback(site.module.register_forward_hook(lambda module, inputs, out: torch.zeros_like(out)).remove)
        yield


@contextmanager
def watched(model):
    """Residual streams, inputs of output projections and attention patterns of one pass, under the names of the files."""
    seen = {}
    short = {ours: theirs for names in (STACKS, KINDS) for theirs, ours in names.items()}
    with ExitStack() as hooks:
        keep = lambda name: lambda module, inputs, out: seen.__setitem__(name, out)
        for stack in ("encoder", "decoder"):
            part = getattr(model, stack)
            for i, layer in enumerate(part.layers):
                hooks.callback(layer.register_forward_hook(keep(f"{short[stack]}_block{i}")).remove)
            hooks.callback(part.register_forward_hook(keep(f"{short[stack]}_final")).remove)
        for site in model.sites():
            if isinstance(site, HeadSite):
                name = f"{short[site.stack]}_{short[site.kind]}"
                take = lambda module, inputs, name=f"{name}_z{site.layer}": seen.__setitem__(name, inputs[0])
                hooks.callback(site.out_proj.register_forward_pre_hook(take).remove)
                hooks.callback(site.pattern.register_forward_hook(keep(f"{name}_pattern{site.layer}")).remove)
        yield seen


def stable_ranks(model, stack, kind):
    """|A|_F^2 / |A|_2^2 of W_Q^T W_K, layer by layer and head by head."""
    ranks = []
    for site in model.sites():
        if isinstance(site, HeadSite) and (site.stack, site.kind) == (STACKS[stack], KINDS[kind]):
            q, k = (w.double() for w in site.qk())
            s = torch.linalg.svdvals(q.mT @ k)
            ranks.append(s.square().sum(-1) / s[:, 0].square())
    return torch.stack(ranks)
