"""Where the windows of a convolution or a pool lie on their input."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.backends.c.model import Operator
from edgeprune.backends.c.structures import members
from edgeprune.errors import UnsupportedError

_SIDES = {"h": ("top", "bottom"), "w": ("left", "right")}


@dataclass(frozen=True)
class Windows:
    """Windows along one spatial direction.

    Attributes:
        before: Positions of padding before the input that the first window reaches over.
    """

    input: int
    output: int
    size: int
    stride: int
    dilation: int
    before: int

    @property
    def reach(self) -> int:
        """Positions from a window's first one to its last one, both counted."""
        return (self.size - 1) * self.dilation + 1

    @property
    def structure(self) -> str:
        """The C structure `EP(windows)`, with doubled braces."""
        return members((self.input, self.output, self.size, self.stride, self.dilation, self.before))

    @property
    def after(self) -> int:
        """Positions of padding behind the input that the last window reaches over."""
        return max(0, (self.output - 1) * self.stride + self.reach - self.before - self.input)


def windows(operator: Operator, direction: str, input_size: int, size: int) -> Windows:
    """The windows of `size` taps over `input_size` positions; padding EXPLICIT is that of `backends.c.rewrite`.

    Args:
        direction: `h` or `w`, as in the names of the options.

    Raises:
        UnsupportedError: The padding is neither SAME nor VALID, or no window fits.
    """
    stride = int(operator.options.get(f"stride_{direction}", 1))
    dilation = int(operator.options.get(f"dilation_{direction}_factor", 1))
    reach = (size - 1) * dilation + 1
    padding = operator.options.get("padding", "SAME")
    if padding == "EXPLICIT":
        before, after = (int(operator.options[f"pad_{side}"]) for side in _SIDES[direction])
        output = (before + input_size + after - reach) // stride + 1
        return Windows(input_size, output, size, stride, dilation, before)
    if padding not in ("SAME", "VALID"):
        raise UnsupportedError(f"the padding {padding} is not supported", hint="what is: SAME, VALID")
    output = -(-(input_size if padding == "SAME" else input_size - reach + 1) // stride)
    if output < 1:
        raise UnsupportedError(f"a window of {reach} positions does not fit into {input_size}")
    before = max(0, (output - 1) * stride + reach - input_size) // 2 if padding == "SAME" else 0
    return Windows(input_size, output, size, stride, dilation, before)
