"""What the case files of both Chronos models have in common: the names of what they hold of a T5, and how it is fetched by hooks."""

import re
from contextlib import ExitStack, contextmanager

import torch

from tests.parity.reference import stable_ranks, without
from tsfm_lib.nn.sites import HeadSite

STACKS, KINDS = {"enc": "encoder", "dec": "decoder"}, {"sa": "self", "ca": "cross"}


@contextmanager
def taken_out(model, name):
    """Without one head, MLP or layer, as the files name them: enc_sa_l1_h2, dec_mlp_l0, dec_layer_l1."""
    stack, kind, layer, head = re.fullmatch(r"(enc|dec)_(sa|ca|mlp|layer)_l(\d+)(?:_h(\d+))?", name).groups()
    here = [s for s in model.sites() if (s.stack, s.layer) == (STACKS[stack], int(layer))]
    if kind != "layer":
        here = [s for s in here if (s.kind if isinstance(s, HeadSite) else "mlp") == KINDS.get(kind, kind)]
    assert here
    with without(here, None if head is None else int(head)):
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


def ranks_of(model, stack, kind):
    """Stable ranks, layer by layer and head by head."""
    sites = [s for s in model.sites() if isinstance(s, HeadSite) and (s.stack, s.kind) == (STACKS[stack], KINDS[kind])]
    return torch.stack([stable_ranks(*site.qk()) for site in sites])
