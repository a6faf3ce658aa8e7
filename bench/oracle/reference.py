"""What a pruned model must compute: the original one, run over what is alive."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from bench.oracle.alive import Alive, Mask, UnjudgedError
from bench.oracle.operators import RULES

Run = Callable[[nn.Module], Sequence[torch.Tensor]]
_NARROW = (torch.float32, torch.float16, torch.bfloat16)


class RemovedOutputError(Exception):
    """What was removed is part of an output, which no pruning may change."""


class Wide(TorchDispatchMode):
    """Makes float64 of every narrower float type that an operator is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = False  # whether a narrower result came out all the same

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        args, kwargs = tree_map(_widened, (args, dict(kwargs or {})))
        result = func(*args, **kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.dtype in _NARROW and leaf.numel() > 1:
                self.narrow = True
        return result


def _widened(argument: Any) -> Any:
    return torch.float64 if isinstance(argument, torch.dtype) and argument in _NARROW else argument


def reference(model: nn.Module, masks: Mapping[str, Mask], run: Run) -> tuple[list[torch.Tensor], bool]:
    """The outputs that `run` returns for the original model without what was removed; whether all was float64.

    Args:
        model: The original, which stays as it is.
        masks: Which elements are left, per parameter or buffer; what is not named is whole.

    Raises:
        UnjudgedError: An operator without a rule met a removed channel.
        RemovedOutputError: An output holds what was removed.
    """
    wide = copy.deepcopy(model).double().eval()
    alive = []
    for tensor, mask in _by_tensor(wide, masks):
        tensor.data[~mask] = 0.0
        strided = torch.empty_like(tensor, dtype=torch.bool)
        alive.append((tensor, strided.copy_(mask)))
    with in_double() as narrowing, Alive(RULES, alive) as mode, narrowing:
        outputs = list(run(wide))
    if not all(mode.is_alive(output) for output in outputs):
        raise RemovedOutputError("an output depends on removed channels")
    return outputs, not narrowing.narrow


def _by_tensor(model: nn.Module, masks: Mapping[str, Mask]) -> list[tuple[torch.Tensor, Mask]]:
    """Each tensor once, with what is left of it under any of its names."""
    found: dict[int, tuple[torch.Tensor, Mask]] = {}
    for name, tensor in named_tensors(model).items():
        if name in masks:
            _, before = found.get(id(tensor), (tensor, masks[name]))
            found[id(tensor)] = (tensor, before & masks[name])
    return list(found.values())


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by dotted path; tied ones under each of their names."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def in_full(model: nn.Module, run: Run) -> list[torch.Tensor]:
    """The outputs of a model, which becomes float64, as `reference` runs the original."""
    with in_double() as narrowing, narrowing:
        return list(run(model.double().eval()))


@contextmanager
def in_double() -> Iterator[Wide]:
    """Plain operators in float64: no fused attention and no encoder shortcut, which have rules of their own."""
    fast, default = torch.backends.mha.get_fastpath_enabled(), torch.get_default_dtype()
    torch.backends.mha.set_fastpath_enabled(False)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            yield Wide()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch.set_default_dtype(default)


def difference(want: Sequence[torch.Tensor], got: Sequence[torch.Tensor]) -> float:
    """The largest max|got - want| / max|want| of all outputs; infinite where shapes differ.

    Raises:
        UnjudgedError: A wanted output is zero or not finite, so that nothing can be compared with it.
    """
    if [output.shape for output in want] != [output.shape for output in got]:
        return inf
    largest = 0.0
    for a, b in zip(want, got, strict=True):
        scale = float(a.abs().max()) if a.numel() else 0.0
        if not 0 < scale < inf:
            raise UnjudgedError(f"an output of the masked model is as large as {scale}")
        error = float((a - b).abs().max())
        largest = max(largest, inf if error != error else error / scale)
    return largest
