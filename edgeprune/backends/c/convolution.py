"""Calls of the convolution kernels in `csrc/ep_conv.h`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np

from edgeprune.backends.c.addition import addition
from edgeprune.backends.c.fixed_point import fixed_point, rescale
from edgeprune.backends.c.lowering import Constant, Lowered, Step, Variant
from edgeprune.backends.c.model import Model
from edgeprune.backends.c.quantized import clamps
from edgeprune.backends.c.rows import (
    PackedRows,
    Rows,
    are_shared,
    matrices,
    packed,
    packed_count,
    packed_rows,
    packed_steps,
    structures,
)


@dataclass(frozen=True)
class Window:
    """The members of the C structure `EP(window)`, in its order."""

    batches: int
    height: int
    width: int
    channels: int
    depth: int
    out_height: int
    out_width: int
    kernel_height: int
    kernel_width: int
    stride_y: int
    stride_x: int
    dilation_y: int
    dilation_x: int
    above: int
    before: int
    zero: int

    def flat(self) -> Window:
        """The same as one line of pixels where every patch is one pixel and none is left out."""
        shape, out_shape = (self.height, self.width), (self.out_height, self.out_width)
        if (self.kernel_height, self.kernel_width) != (1, 1) or shape != out_shape or self.above or self.before:
            return self
        pixels = self.batches * self.height * self.width
        line = replace(self, batches=1, height=1, width=pixels, out_height=1, out_width=pixels)
        return replace(line, stride_y=1, stride_x=1, dilation_y=1, dilation_x=1)


def convolution(model: Model, step: Step, window: Window, groups: Sequence[Rows], variant: Variant) -> Lowered:
    """The call of one step, with the addition that it may end in."""
    operator = step.operator
    output = model.tensor(operator.outputs[0])
    low, high = clamps(operator, output)
    window = window.flat()
    found = [_packed_group(group, output.zero_point, (low, high)) for group in groups if variant == "dsp"]
    fitting = [group for group in found if group is not None]
    is_packed = variant == "dsp" and len(fitting) == len(groups)
    if is_packed:
        ordered = [replace(group, rows=_in_columns(group.rows, window)) for group in fitting]
        constants, definitions = packed(ordered)
        scratch_bytes = _packed_scratch(window, groups[0], step.added is None and (low, high) == (-128, 127))
    else:
        constants, definitions = _plain(groups, output.zero_point, (low, high))
        scratch_bytes = _plain_scratch(groups[0], step.added is None)
    definitions += _structure("window", "window_{step}", [str(value) for value in astuple(window)])
    if step.added is not None:
        definitions += addition(model, step.added, operator.outputs[0]).definition("addition_{step}")
    rows = len(groups[0].weights)
    added = "&addition_{step}" if step.added is not None else "NULL"
    members = [str(value) for value in (rows, rows * len(groups), low, high)]
    definitions += _structure("results", "results_{step}", [*members, added])
    other, overwrites = _other(model, step)
    kernel, pointer = ("packed", "(int32_t *)(void *){scratch}") if is_packed else ("plain", "{scratch}")
    arguments = ["{in0}", "{out0}", pointer if scratch_bytes else "NULL", other]
    arguments += ["&window_{step}", "rows_{step}", "&results_{step}", str(len(groups))]
    if is_packed:
        arguments.append("EP(multiply_pair_positive)" if low == output.zero_point else "EP(multiply_pair)")
    return Lowered(
        call=f"EP(convolve_{kernel})({', '.join(arguments)});",
        kernels=("ep_conv_packed" if is_packed else "ep_conv",),
        constants=constants,
        scratch_bytes=scratch_bytes,
        definitions=definitions,
        overwrites=overwrites,
    )


def _plain(groups: Sequence[Rows], zero: int, clamps: tuple[int, int]) -> tuple[tuple[Constant, ...], str]:
    """Constants, and the C structures `rows_{step}` of each group, for any core."""
    shared = are_shared(groups)
    factors = [fixed_point(factor) for group in groups for factor in group.factors]
    factors = 4 * factors[:1] if shared else factors  # as many as lanes read at once
    rescales = np.array([(factor.multiplier, factor.shift) for factor in factors], np.int32)
    rows, depth = groups[0].weights.shape
    step, shifts_down = 0 if shared else 2, int(all(factor.shift < 0 for factor in factors))
    members = [
        f"{{{{{{weights}} + {at * rows * depth}, {{sums}} + {at * rows}, {{rescales}} + {at * rows * step}, "
        f"{step}, {rows}, {depth}, {zero}, {clamps[0]}, {clamps[1]}, {shifts_down}}}}}"
        for at in range(len(groups))
    ]
    return (*matrices(groups), Constant("rescales", rescales)), structures("plain_rows", "rows_{step}", members)


def _packed_group(group: Rows, zero: int, clamps: tuple[int, int]) -> PackedRows | None:
    factors = [fixed_point(factor) for factor in group.factors]
    short: list[tuple[int, int] | None] = [
        (factor.multiplier, -factor.shift) if -22 <= factor.shift <= -1 else None for factor in factors
    ]
    first, last = (
        np.array([rescale(bound[at], factor) for at, factor in enumerate(factors)]) for bound in group.bounds
    )
    return packed_rows(group, short, (np.clip(first + zero, *clamps), np.clip(last + zero, *clamps)), zero)


def _other(model: Model, step: Step) -> tuple[str, tuple[int, ...]]:
    """The other summand in the call, and what the output may lie over: it, unless the convolution still reads it."""
    if step.added is None:
        return "NULL", ()
    (source,) = model.activations(step.operator)
    others = [index for index in step.added.inputs if index != step.operator.outputs[0]]
    return ("{in0}", ()) if others == [source] else ("{in1}", (1,))


def _packed_scratch(window: Window, group: Rows, are_results_last: bool) -> int:
    """Bytes that `EP(convolve_packed)` asks for: both columns, results, rests of lines, a line."""
    rows, run = packed_count(group), window.kernel_width * window.depth
    kept = 0 if are_results_last and rows == len(group.weights) else 2 * rows
    is_run = (window.kernel_height, window.kernel_width) == (1, 1)
    return (
        16 * packed_steps(group) + kept + 2 * _fours(window.kernel_height * (run % 4)) + (0 if is_run else _fours(run))
    )


def _in_columns(group: Rows, window: Window) -> Rows:
    """The same with values in the order of packed columns: the fours of each line, then what is left of each line."""
    rows, run = len(group.weights), window.kernel_width * window.depth
    lines = group.weights.reshape(rows, window.kernel_height, run)
    whole, rest = np.split(lines, [run // 4 * 4], axis=2)
    return replace(group, weights=np.concatenate([whole.reshape(rows, -1), rest.reshape(rows, -1)], axis=1))


def _fours(size: int) -> int:
    """A size rounded up to a multiple of four."""
    return -(-size // 4) * 4


def _plain_scratch(group: Rows, are_results_last: bool) -> int:
    """Bytes that `EP(convolve_plain)` asks for."""
    rows, depth = group.weights.shape
    return int(2 * depth + (0 if are_results_last else 2 * rows))


def _structure(kind: str, name: str, members: Sequence[str]) -> str:
    return f"static const struct EP({kind}) {name} = {{{{{', '.join(members)}}}}};\n"
