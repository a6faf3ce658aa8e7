"""One public model, pruned to half of its channels by torch-pruning: a child process of `bench.zoo`.

Runs in the peer's own environment. The setting is the one of its own examples: global, L2 magnitude, and the help that
those give: layers that name classes or boxes are left alone, the number of heads is given for every attention with a
fused projection, and sizes that a model keeps in attributes are set after pruning.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from bench.children import Result, described, reporting
from bench.oracle.reference import difference, in_full, reference
from bench.oracle.survivors import located
from bench.public_models import Listed, PublicModel, public_model

SHARE, TOLERANCE = 0.5, 1e-5
_CLASSIFIERS = ("head", "fc", "classifier", "head_dist", "heads")
_REGIONS = ("backbone.fpn", "roi_heads")
_BOXES = (
    "cls_logits",
    "bbox_pred",
    "bbox_reg",
    "bbox_ctrness",
    "box_predictor",
    "mask_predictor",
    "keypoint_predictor",
)


def main(arguments: Sequence[str]) -> int:
    """Takes a listed model as JSON; says per stage what came of it."""
    torch.set_num_threads(1)
    public = public_model(Listed(**json.loads(arguments[0])))
    dense = copy.deepcopy(public.model)
    return reporting(
        {
            "built": lambda: {"parameters": _parameters(dense)},
            "pruned": lambda: pruned(public),
            "judged": lambda: judged(dense, public),
        }
    )


def pruned(public: PublicModel) -> Result:
    """Halve the model in place; every gradient says afterwards which weights are left."""
    import torch_pruning as tp

    model = public.model
    before = _parameters(model)
    number(model)
    heads = {m.qkv: m.num_heads for m in model.modules() if hasattr(m, "qkv") and hasattr(m, "num_heads")}
    encoders = {m: m.num_heads for m in model.modules() if isinstance(m, nn.MultiheadAttention)}
    traced = replace(public, heads=public.heads[:1])  # not through the regions that a detector cuts out
    started = time.perf_counter()
    pruner = tp.pruner.BasePruner(
        model,
        public.inputs[0] if len(public.inputs) == 1 and not public.heads else public.inputs,
        tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=SHARE,
        ignored_layers=list(ignored(public)),
        num_heads=heads,
        out_channel_groups=encoders,
        **({"forward_fn": lambda m, _: traced.outputs(m)} if public.heads else {}),
    )
    pruner.step()
    seconds = time.perf_counter() - started
    for module in model.modules():
        if getattr(module, "qkv", None) in pruner.num_heads:
            _resize(module, pruner.num_heads[module.qkv])
    if hasattr(model, "hidden_dim") and hasattr(model, "conv_proj"):
        model.hidden_dim = model.conv_proj.out_channels
    return {"removed": round(1 - _parameters(model) / before, 4), "prune_s": round(seconds, 3)}


def number(model: nn.Module) -> None:
    """Put the flat index of every element into its gradient, which pruning slices together with the weight."""
    for parameter in model.parameters():
        indices = torch.arange(parameter.numel(), dtype=torch.int32).view(torch.float32)
        parameter.requires_grad_(True).grad = indices.reshape(parameter.shape)


def ignored(public: PublicModel) -> set[nn.Module]:
    """The layers whose outputs are classes or boxes, and all whose outputs only the untraced heads take."""
    found: set[nn.Module] = set()
    for name, module in public.model.named_modules():
        last = name.rpartition(".")[2]
        if len(public.heads) > 1 and name in _REGIONS:
            found |= set(module.modules())
        elif last in _BOXES or (public.heads and name == "head" and not hasattr(module, "classification_head")):
            found |= set(module.modules())
        elif last in _CLASSIFIERS and "." not in name:
            layers = [m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
            found |= set(layers[-1:])
    return found


def _resize(module: Any, heads: int) -> None:
    """Give a fused attention its new sizes."""
    module.num_heads = heads
    module.fused_attn = False  # which would scale by the new width
    module.head_dim = module.qkv.out_features // (3 * heads)
    if hasattr(module, "attn_dim"):
        module.attn_dim = module.head_dim * heads


def judged(dense: nn.Module, public: PublicModel) -> Result:
    """Whether the pruned model computes what the original one computes over what is left."""
    smaller = public.model
    try:
        original = dict(dense.named_parameters())
        masks = {
            name: located(name, parameter.grad.contiguous().view(torch.int32).double(), original[name].shape)
            for name, parameter in smaller.named_parameters()
            if parameter.grad is not None
        }
        for parameter in smaller.parameters():
            parameter.grad = None
        want, _ = reference(dense, masks, public.outputs)
    except Exception as err:  # of the oracle, or because an output was pruned
        return {"unjudged": described(err)}
    try:
        error = difference(want, in_full(smaller, public.outputs))
    except Exception as err:  # whatever a model with wrong sizes raises
        return {"exact": False, "reason": described(err)}
    return {"error": min(error, 1e30), "exact": error <= TOLERANCE}


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
