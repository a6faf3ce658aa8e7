"""FULLY_CONNECTED of int8 tensors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeprune.backends.c.lowering import Constant, Lowered, Step, Variant
from edgeprune.backends.c.model import Model, Operator, Tensor
from edgeprune.backends.c.quantized import clamps
from edgeprune.backends.c.rounding import Thresholds, long_rescale, rounded, short_rescale, thresholds
from edgeprune.backends.c.rows import (
    PackedRows,
    Rows,
    are_shared,
    check_weights,
    matrices,
    packed,
    packed_count,
    packed_rows,
    packed_steps,
    rows_of,
    structures,
)
from edgeprune.errors import UnsupportedError

KINDS = ("FULLY_CONNECTED",)


def check(model: Model, operator: Operator) -> None:
    """Refuse what cannot be lowered exactly.

    Raises:
        UnsupportedError: The number formats, the weights, their format or the activation.
    """
    source, weights, bias, output = _tensors(model, operator)
    weights_format = operator.options.get("weights_format", "DEFAULT")
    if weights_format != "DEFAULT":
        raise UnsupportedError(f"the weights format {weights_format} is not supported", hint="DEFAULT is")
    if (source.dtype, output.dtype) != ("int8", "int8"):
        raise UnsupportedError(f"values of {source.dtype} to {output.dtype} are not supported", hint="int8 ones are")
    check_weights(weights, bias)
    clamps(operator, output)
    rows = _rows(model, operator)
    largest = np.maximum(*(np.abs(bound) for bound in rows.bounds))
    if np.any(largest >= 2**31) or np.any(largest * np.array(rows.factors) >= 2**31):
        raise UnsupportedError("sums or results beyond 32 bits are not supported")
    between = _thresholds(rows, output.zero_point)
    if any(long_rescale(factor, within) is None for factor, within in between.items()):
        raise UnsupportedError("scales that no integer multiplier stands for exactly are not supported")


def lower(model: Model, step: Step, variant: Variant) -> Lowered:
    """The layer as one call."""
    assert step.added is None
    operator = step.operator
    check(model, operator)
    output = model.tensor(operator.outputs[0])
    rows = _rows(model, operator)
    between = _thresholds(rows, output.zero_point)
    ends = clamps(operator, output)
    short = {factor: short_rescale(factor, within) for factor, within in between.items()}
    if variant == "dsp":
        factors = np.array(rows.factors)
        first, last = (np.clip(rounded(bound, factors) + output.zero_point, *ends) for bound in rows.bounds)
        fitting = packed_rows(rows, [short[factor] for factor in rows.factors], (first, last), output.zero_point)
        if fitting is not None:
            return _packed(fitting, output, ends)
    if all(pair is not None for pair in short.values()):
        return _plain(rows, short, output, ends)
    return _plain(rows, {factor: long_rescale(factor, within) for factor, within in between.items()}, output, ends)


def _packed(group: PackedRows, output: Tensor, ends: tuple[int, int]) -> Lowered:
    """For cores with the DSP instructions."""
    constants, definitions = packed([group])
    count, depth = group.rows.weights.shape
    is_last = count % 4 == 0 and ends == (-128, 127)
    arguments = f"{output.size // count}, {depth}, {count}, {ends[0]}, {ends[1]}, rows_{{step}}"
    return Lowered(
        call=f"EP(multiply_vectors_packed)({{in0}}, {{out0}}, (int32_t *)(void *){{scratch}}, {arguments});",
        kernels=("ep_dense_packed",),
        constants=constants,
        scratch_bytes=8 * packed_steps(group.rows) + (0 if is_last else packed_count(group.rows)),
        definitions=definitions,
    )


def _plain(
    rows: Rows, rescales: Mapping[float, tuple[int, ...] | None], output: Tensor, ends: tuple[int, int]
) -> Lowered:
    """For any core: by multipliers of 31 bits, or of 62 where all of `rescales` are."""
    shared = are_shared([rows])
    taken = np.array([rescales[factor] for factor in (4 * rows.factors[:1] if shared else rows.factors)], np.int32)
    count, depth = rows.weights.shape
    members = f"{{weights}}, {{sums}}, {{rescales}}, {0 if shared else taken.shape[1]}, {count}, {depth}"
    members = f"{{{{{members}, {output.zero_point}, {ends[0]}, {ends[1]}}}}}"
    ending = "_long" if taken.shape[1] == 3 else ""
    return Lowered(
        call=f"EP(multiply_vectors{ending})({{in0}}, {{out0}}, {output.size // count}, rows_{{step}});",
        kernels=(f"ep_dense{ending}",),
        constants=(*matrices([rows]), Constant("rescales", taken)),
        definitions=structures("dense_rows", "rows_{step}", [members]),
    )


def _rows(model: Model, operator: Operator) -> Rows:
    source, weights, bias, output = _tensors(model, operator)
    (rows,) = rows_of(source, weights, bias, output)
    return rows


def _thresholds(rows: Rows, zero: int) -> dict[float, Thresholds]:
    """Of each factor, within the bounds of all its rows."""
    lowest, highest = rows.bounds
    found = {}
    for factor in dict.fromkeys(rows.factors):
        having = np.array(rows.factors) == factor
        found[factor] = thresholds(factor, zero, int(lowest[having].min()), int(highest[having].max()))
    return found


def _tensors(model: Model, operator: Operator) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    source, weights, *biases = operator.inputs
    bias = model.tensor(biases[0]) if biases and biases[0] is not None else None
    return model.tensor(source), model.tensor(weights), bias, model.tensor(operator.outputs[0])
