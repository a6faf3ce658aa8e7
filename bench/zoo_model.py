"""One public model, pruned to half of its channels and judged: a child process of `bench.zoo`."""

from __future__ import annotations

import copy
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isinf

import torch
import torch.export._trace  # which torch.export loads at its first use: imports are not timed, the peer's neither
from torch import nn

from bench.children import Result, described, reporting
from bench.magnitude import magnitudes, smallest_share
from bench.oracle.alive import UnjudgedError
from bench.oracle.reference import RemovedOutputError, difference, in_full, named_tensors, reference
from bench.oracle.survivors import Fill, survivors
from bench.public_models import Listed, PublicModel, public_model
from edgeprune.errors import UnsupportedError
from edgeprune.pruning.check import checked_prune
from edgeprune.pruning.groups import ChannelGroups, channel_groups
from edgeprune.pruning.observe import Observed, observe
from edgeprune.pruning.own_module import prune_module
from edgeprune.pruning.plan import Plan
from edgeprune.pruning.surgery import prune
from edgeprune.pruning.trace import Captured, copy_module, trace

SHARE, MIN_KEEP = 0.5, 0.1
FULL, NARROW = 1e-9, 1e-5  # of the largest output: what rounding may do in float64 and where float32 takes part
EFFECT = 1e-4  # what removing half of the channels must do to the outputs, or they would hide a wrong one


class DoesNotRunError(Exception):
    """A pruned model raises an error."""


@dataclass(frozen=True)
class Pruned:
    """What came of a model: the smaller one, and what is needed to find out which weights are left."""

    dense: Captured
    groups: ChannelGroups
    plan: Plan
    model: nn.Module

    def refilled(self, fill: Fill) -> dict[str, torch.Tensor]:
        """What is left of every tensor when the same plan prunes the model with other values."""
        module = copy_module(self.dense.module)
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                tensor.data = fill(tensor)
        return named_tensors(prune(Captured(module, self.dense.graph), self.groups, self.plan).module)


def main(arguments: Sequence[str]) -> int:
    """Takes a listed model as JSON; says per stage what came of it."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    listed = Listed(**json.loads(arguments[0]))
    public: list[PublicModel] = []
    pruned: list[Pruned] = []

    def build() -> Result:
        public.append(public_model(listed))
        version = sys.modules[listed.library].__version__
        return {"parameters": parameters(public[0].model), listed.library: version}

    def work() -> Result:
        made, figures = halved(public[0])
        pruned.append(made)
        return figures

    return reporting({"built": build, "pruned": work, "judged": lambda: judged(public[0], pruned[0])})


def halved(public: PublicModel) -> tuple[Pruned, Result]:
    """The model with half of the channels of all groups removed and checked, and what that took."""
    started = time.perf_counter()
    dense = _captured(public)
    captured = time.perf_counter()
    groups = channel_groups(dense.graph)
    scores = magnitudes(groups, dict(dense.module.named_parameters(remove_duplicate=False)).get)
    plan = smallest_share(groups, scores, SHARE, MIN_KEEP)
    excluded: Mapping[str, float] = {}
    if isinstance(dense, Observed):
        smaller = prune_module(public.model, groups, plan, public.inputs, dense)
    else:
        checked = checked_prune(dense, groups, plan, public.inputs)
        smaller, plan, excluded = checked.pruned.module, checked.plan, checked.excluded
    ended = time.perf_counter()
    figures = {
        "observed": isinstance(dense, Observed),
        "trace_s": round(captured - started, 3),
        "prune_s": round(ended - captured, 3),
        "groups": len(groups.groups),
        "channels": sum(group.width for group in groups.groups),
        "excluded": dict(excluded),
        "removed": round(removed(public.model, smaller), 4),
        "frozen": frozen(groups),
    }
    return Pruned(dense, groups, plan, smaller), figures


def _captured(public: PublicModel) -> Captured:
    try:
        return trace(public.model, public.inputs)
    except UnsupportedError:  # it decides on its data in Python
        return observe(public.model, public.inputs)


def parameters(model: nn.Module) -> int:
    """The number of all parameters, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def removed(dense: nn.Module, pruned: nn.Module) -> float:
    """The share of the parameters that is gone; those that a capture left out count as kept."""
    left = named_tensors(pruned)
    kept = sum(left.get(name, parameter).numel() for name, parameter in dense.named_parameters())
    return 1 - kept / max(parameters(dense), 1)


def frozen(groups: ChannelGroups) -> list[Result]:
    """The reasons for which channels stay, those of most channels first."""
    widths: Counter[str] = Counter()
    for entry in groups.frozen:
        for reason in entry.reasons:
            widths[reason] += entry.width
    return [{"reason": reason, "channels": width} for reason, width in widths.most_common(4)]


def judged(public: PublicModel, pruned: Pruned) -> Result:
    """Whether the pruned model computes what the original one computes over what is left."""
    try:
        masks = survivors(named_tensors(public.model), pruned.refilled)
        want, full = reference(public.model, masks, public.outputs)
        error = difference(want, _ran(pruned.model, public))
        effect = difference(want, in_full(copy.deepcopy(public.model), public.outputs))
    except (RemovedOutputError, DoesNotRunError) as err:
        return {"exact": False, "reason": str(err)}
    except Exception as err:  # of the oracle's own, or of a model that does not run in float64
        return {"unjudged": str(err) if isinstance(err, UnjudgedError) else described(err)}
    if isinf(error):
        return {"exact": False, "reason": "the outputs have other shapes or are not finite"}
    exact = error <= (FULL if full else NARROW)
    if exact and effect < EFFECT:
        return {"unjudged": f"removing the channels changes the outputs by no more than {effect:.1e}"}
    return {"error": error, "effect": min(effect, 1e30), "full": full, "exact": exact}


def _ran(model: nn.Module, public: PublicModel) -> list[torch.Tensor]:
    try:
        return in_full(model, public.outputs)
    except Exception as err:
        raise DoesNotRunError(f"the pruned model does not run: {described(err)}") from err


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
