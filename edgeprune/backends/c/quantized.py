"""What int8 operators share: their number format, and the clamps that a fused activation means."""

from __future__ import annotations

import numpy as np

from edgeprune.backends.c.model import Operator, Tensor
from edgeprune.errors import UnsupportedError

# Real bounds of each activation; None is no bound.
_BOUNDS: dict[str, tuple[float | None, float | None]] = {
    "NONE": (None, None),
    "RELU": (0.0, None),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
}


def refuse_other_formats(*tensors: Tensor) -> None:
    """Hold tensors to int8 with one scale.

    Raises:
        UnsupportedError: One is of another type or has no scale.
    """
    for tensor in tensors:
        if tensor.dtype != "int8" or tensor.quantization is None:
            raise UnsupportedError(f"{tensor.name} is not int8 with a scale")


def activation(operator: Operator) -> str:
    """The fused activation's name.

    Raises:
        UnsupportedError: It is not one that int8 kernels fuse.
    """
    name = str(operator.options.get("fused_activation_function", "NONE"))
    if name not in _BOUNDS:
        raise UnsupportedError(f"the fused activation {name} is not supported", hint=f"what is: {', '.join(_BOUNDS)}")
    return name


def clamps(operator: Operator, output: Tensor) -> tuple[int, int]:
    """The lowest and the highest stored int8 value that an operator's fused activation lets through."""
    low, high = _BOUNDS[activation(operator)]
    stored_low = -128 if low is None else max(-128, _stored(low, output))
    return stored_low, 127 if high is None else min(127, _stored(high, output))


def _stored(real: float, tensor: Tensor) -> int:
    """A bound as the tensor stores it: divided in float32 and rounded half away from zero, as the reference does."""
    steps = float(np.float32(real) / np.float32(tensor.scale))
    return tensor.zero_point + int(np.sign(steps) * np.floor(abs(steps) + 0.5))
