"""An int8 addition fused into the kernel that computes one of its summands: what `csrc/ep_add.h` works from."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from edgeprune.backends.c.fixed_point import fixed_point
from edgeprune.backends.c.model import Model, Operator
from edgeprune.backends.c.quantized import clamps
from edgeprune.errors import UnsupportedError


@dataclass(frozen=True)
class Addition:
    """The members of the C structure `EP(addition)`, in its order."""

    computed_is_wide: int
    narrow_offset: int
    narrow_multiplier: int
    narrow_half: int
    narrow_shift: int
    wide_offset: int
    multiplier: int
    half: int
    shift: int
    zero: int
    low: int
    high: int

    def definition(self, name: str) -> str:
        """A constant structure in C, with doubled braces."""
        members = ", ".join(str(value) for value in astuple(self))
        return f"static const struct EP(addition) {name} = {{{{{members}}}}};\n"


def check_addition(model: Model, operator: Operator) -> None:
    """Refuse an ADD whose sums cannot be rescaled.

    Raises:
        UnsupportedError: The output's scale is less than 2 ** -18 of twice a summand's, or the activation is unknown.
    """
    clamps(operator, model.tensor(operator.outputs[0]))
    widest = max(model.tensor(index).scale for index in operator.inputs)
    total = fixed_point(2 * widest / (2**20 * model.tensor(operator.outputs[0]).scale))
    if total.multiplier and total.shift > -1:
        raise UnsupportedError("an addition's output has a scale more than 2**18 times finer than a summand's")


def addition(model: Model, operator: Operator, computed: int) -> Addition:
    """What adds the other input of an ADD to the one that a kernel computes.

    Args:
        operator: An ADD of two int8 tensors of one shape.
        computed: The input of it, by its index, that the kernel computes.
    """
    check_addition(model, operator)
    other = next((index for index in operator.inputs if index != computed), computed)
    ours, theirs = model.tensor(computed), model.tensor(other)
    output = model.tensor(operator.outputs[0])
    computed_is_wide = ours.scale >= theirs.scale
    wide, narrow = (ours, theirs) if computed_is_wide else (theirs, ours)
    twice = 2 * wide.scale
    factor = fixed_point(narrow.scale / twice)
    multiplier, narrow_shift = (factor.multiplier, -factor.shift) if factor.multiplier else (0, 1)
    if narrow_shift == 0:
        # Equal scales, the factor 1/2: 2 ** 21 steps times almost 1/2 round to 2 ** 20 of them, whose half is exact.
        multiplier, narrow_shift = 2**31 - 1, 1
    total = fixed_point(twice / (2**20 * output.scale))
    shift = 1 if total.multiplier == 0 else -total.shift
    low, high = clamps(operator, output)
    return Addition(
        computed_is_wide=int(computed_is_wide),
        narrow_offset=-(2**21) * narrow.zero_point,
        narrow_multiplier=multiplier,
        narrow_half=1 << (narrow_shift - 1),
        narrow_shift=narrow_shift,
        wide_offset=-(2**20) * wide.zero_point,
        multiplier=total.multiplier,
        half=1 << (shift - 1),
        shift=shift,
        zero=output.zero_point,
        low=low,
        high=high,
    )
