"""Which elements of which parameter a pruned model still has, found without asking who removed the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from bench.oracle.alive import Mask, UnjudgedError

Fill = Callable[[torch.Tensor], torch.Tensor]


def survivors(
    dense: Mapping[str, torch.Tensor], pruned: Callable[[Fill], Mapping[str, torch.Tensor]]
) -> dict[str, Mask]:
    """Which elements are left, per floating-point parameter or buffer that the pruned model names.

    Every tensor is filled with the flat index of each element before pruning, so that what is left says where it came
    from. A second filling with ones tells a factor that pruning multiplies weights with; anything else that changes
    values is not judged.

    Args:
        dense: The original tensors by dotted path.
        pruned: Prunes a copy of the model in which `fill(tensor)` has replaced every floating-point tensor, with
            always the same plan, and returns what is left by dotted path.

    Raises:
        UnjudgedError: The values left are no multiples of indices, or one element is there twice.
    """
    ones = pruned(lambda tensor: torch.ones(tensor.shape, dtype=torch.float64))
    indices = pruned(lambda tensor: torch.arange(tensor.numel(), dtype=torch.float64).reshape(tensor.shape))
    found = {}
    for name, original in dense.items():
        if name in indices and original.is_floating_point():
            found[name] = located(name, indices[name].detach() / ones[name].detach(), original.shape)
    return found


def located(name: str, left: torch.Tensor, shape: torch.Size) -> Mask:
    """The mask, of the original shape, of the flat indices that are left.

    Raises:
        UnjudgedError: They are no indices, or one is there twice.
    """
    index = left.double().round()
    mask = torch.zeros(shape.numel(), dtype=torch.bool)
    whole = bool(((left - index).abs() < 1e-6).all())
    if not whole or (len(index.flatten()) and not 0 <= float(index.min()) <= float(index.max()) < len(mask)):
        raise UnjudgedError(f"pruning changed the values of {name}")
    mask[index.flatten().long()] = True
    if int(mask.sum()) != index.numel():
        raise UnjudgedError(f"pruning repeats elements of {name}")
    return mask.reshape(shape)
