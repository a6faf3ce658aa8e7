"""Open a model for pruning: capture it, hold the capture against the model itself, and name what it leaves out.

A captured program is what one run showed. A forward pass that counts its calls, edits its state or takes another branch
in training mode is more than that: the first two are refused with the difference, the last is named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from edgeprune.errors import QualityError, UnsupportedError, UsageError
from edgeprune.graph import Graph
from edgeprune.pruning import observe
from edgeprune.pruning.trace import Captured, Example, evaluating, positional, trace, two_samples

_SAME = 1e-4  # of the largest output: what fused kernels of eval mode may round differently
_SHOWN = 6


@dataclass(frozen=True)
class Opened:
    """A captured model that computes what the model computes.

    Attributes:
        notes: What the user must know of it, such as branches of training mode that it does not hold.
    """

    captured: Captured
    notes: tuple[str, ...] = ()


def open_model(model: nn.Module, example: Example, *, observing: bool = False) -> Opened:
    """Capture the model and prove on the example that the program computes the same. The model is left unchanged.

    Args:
        example: As for `trace`. Floating-point inputs that hold one number only tell nothing apart; normal noise
            takes their place.
        observing: Observe a model that cannot be captured; two runs of it are compared on the way.

    Raises:
        QualityError: A parameter or buffer is not finite; named.
        UsageError: The model does not run on the example.
        UnsupportedError: The model can be neither captured nor observed, changes from call to call, or differs from
            its capture.
    """
    check_finite(model)
    inputs = varied(positional(model, example))
    try:
        captured = (observe.capture if observing else trace)(model, example)
    except UnsupportedError:
        _run_once(model, inputs)
        raise
    if isinstance(captured, observe.Observed):
        return Opened(captured, captured.notes)
    notes = [*_compared(model, captured, inputs)]
    return Opened(captured, (*notes, *training_branches(model, example, captured.graph)))


def check_finite(model: nn.Module, where: str = "") -> None:
    """Refuse weights that are not numbers. A buffer may hold minus infinity, as masks of attention do.

    Raises:
        QualityError: A parameter or buffer holds NaN or infinity; named with how many.
    """
    parameters = dict(model.named_parameters())
    for name, value in model.state_dict().items():
        if not value.is_floating_point() or value.is_meta:
            continue
        mask = name not in parameters and not name.endswith(("running_mean", "running_var"))
        wrong = ~torch.isfinite(value) & ~(torch.isneginf(value) & mask)
        if bool(wrong.any()):
            message = f"{name}: {int(wrong.sum())} of {value.numel()} values are not finite"
            raise QualityError(message, where=where or type(model).__name__, hint="train again or load other weights")


def varied(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Copies of the inputs; seeded normal noise for floating-point tensors that hold one number only."""
    generator = torch.Generator().manual_seed(0)

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if leaf.is_floating_point() and leaf.numel() > 1 and bool((leaf == leaf.flatten()[0]).all()):
            return torch.randn(leaf.shape, generator=generator).to(leaf)
        return leaf.detach().clone()

    copied: tuple[Any, ...] = pytree.tree_map(one, inputs)
    return copied


def _run_once(model: nn.Module, inputs: tuple[Any, ...]) -> None:
    """What does not run cannot be captured; then the model's own message is the one that helps."""
    try:
        with evaluating(model):
            _outputs(model, inputs)
    except Exception as err:  # whatever the user's code raises
        reason = next((line.strip() for line in str(err).splitlines() if line.strip()), type(err).__name__)
        raise UsageError(f"the model does not run on the example: {reason}", where=type(model).__name__) from err


def _compared(model: nn.Module, captured: Captured, inputs: tuple[Any, ...]) -> Iterator[str]:
    """Nothing where model and program agree on two samples, a note where chance forbids the comparison."""
    pair, _ = two_samples(inputs)
    with evaluating(model):
        first, second = _outputs(model, pair), _outputs(model, pair)
        hint = "random branches, counters and caches must be off in eval mode"
        where = type(model).__name__
        if change := _apart(first, second):
            raise UnsupportedError(f"the forward pass changes between calls: {change}", where=where, hint=hint)
        change = _apart(first, _outputs(captured.module, pair))
        if change and _apart(first, _outputs(model, pair, seed=1)):
            yield "the forward pass draws random numbers, so that its capture could not be compared with it"
        elif change:
            raise UnsupportedError(f"the captured program differs from the model: {change}", where=where, hint=hint)


@torch.no_grad()
def _outputs(model: nn.Module, inputs: tuple[Any, ...], seed: int = 0) -> list[torch.Tensor]:
    """All output tensors on copies of the inputs, from a fixed state of the random generators."""
    copies = pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, inputs)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = model(*copies)
    return [leaf.clone() for leaf in pytree.tree_leaves(found) if isinstance(leaf, torch.Tensor)]


def _apart(want: list[torch.Tensor], got: list[torch.Tensor]) -> str:
    """How two calls' outputs differ; empty where they agree up to rounding."""
    if len(want) != len(got):
        return f"{len(want)} output tensors, then {len(got)}"
    for index, (w, g) in enumerate(zip(want, got)):
        if w.shape != g.shape:
            return f"output {index} has shape {tuple(w.shape)}, then {tuple(g.shape)}"
        finite = torch.isfinite(w)
        if not w.numel() or not w.is_floating_point():
            continue
        if not torch.equal(finite, torch.isfinite(g)):
            return f"output {index} is finite in other places"
        scale = float(w[finite].abs().max()) if bool(finite.any()) else 0.0
        worst = float((w - g)[finite].abs().max()) if bool(finite.any()) else 0.0
        if worst > _SAME * scale:
            return f"output {index} by {worst / scale if scale else worst:.1e} (relative)"
    return ""


def training_branches(model: nn.Module, example: Example, evaluated: Graph) -> tuple[str, ...]:
    """What exists in one of train and eval mode only, such as auxiliary heads and stochastic depth.

    Both modes are captured where some module of the user's reads `training`; those of torch.nn only switch BatchNorm
    and dropout, which a captured program does too.
    """
    if not any(map(_reads_training, {type(module) for module in model.modules()})):
        return ()
    try:
        trained = trace(model, example, training=True).graph
    except UnsupportedError as err:
        return (f"branches on self.training could not be looked at: {err.message}",)
    more, less = _beyond(trained, evaluated), _beyond(evaluated, trained)
    notes = [f"in training mode only: {more}; the pruned model leaves it out"] if more else []
    notes += [f"in eval mode only: {less}; the pruned model does it in training mode too"] if less else []
    return tuple(notes)


def _reads_training(kind: type[nn.Module]) -> bool:
    """Whether the Python of a module's class names `training`, itself or through a function that it calls."""
    for base in kind.__mro__:
        if base.__module__.startswith("torch."):
            continue
        functions = [value for value in vars(base).values() if isinstance(value, FunctionType)]
        if any(_names(function, set()) for function in functions):
            return True
    return False


def _names(function: FunctionType, seen: set[CodeType]) -> bool:
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        if code in seen:
            continue
        seen.add(code)
        if "training" in code.co_names:
            return True
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        for name in code.co_names:
            called = function.__globals__.get(name)
            own = isinstance(called, FunctionType) and not str(called.__module__).startswith("torch.")
            if own and isinstance(called, FunctionType) and _names(called, seen):
                return True
    return False


def _beyond(graph: Graph, other: Graph) -> str:
    """What a graph has and another lacks: layers, operators, outputs."""
    layers = [path.rpartition(".")[0] or path for path in _read(graph) - _read(other)]
    operators = _operators(graph) - _operators(other)
    outputs = len(graph.nodes[-1].refs) - len(other.nodes[-1].refs)
    parts = [f"layers {_some(sorted(set(layers)))}"] if layers else []
    parts += [f"operators {_some(sorted(operators))}"] if operators else []
    parts += [f"{outputs} more output{'s' * (outputs > 1)}"] if outputs > 0 else []
    return ", ".join(parts)


def _read(graph: Graph) -> set[str]:
    counters = ("num_batches_tracked",)
    return {p for p, n in graph.parameters.items() if graph.users[n.name] and not p.endswith(counters) and "." in p}


def _operators(graph: Graph) -> Counter[str]:
    """Operators by name; BatchNorm's count of batches is none of the model's."""
    found: Counter[str] = Counter()
    for node in graph.nodes:
        counts = any(graph.by_name[r].target.endswith("num_batches_tracked") for r in node.refs)
        if node.op not in ("input", "parameter", "output") and not counts:
            found[node.base] += 1
    return found


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
