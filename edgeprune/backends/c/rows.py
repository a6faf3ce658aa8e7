"""Weights as rows that meet columns of input values: what `csrc/ep_conv.h` works from, on any core and on DSP ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from edgeprune.backends import Array
from edgeprune.backends.c.fixed_point import fixed_point
from edgeprune.backends.c.lowering import Constant
from edgeprune.backends.c.model import Tensor
from edgeprune.errors import UnsupportedError

_BLOCK = 4  # rows that the packed kernels work on at once


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of one group.

    Attributes:
        weights: (rows, depth) int8.
        sums: (rows,) int64, what each sum starts from: the bias, less the input's zero point times the row's sum.
        factors: (rows,) of each row's sums to the output's steps.
    """

    weights: Array
    sums: Array
    factors: tuple[float, ...]

    @cached_property
    def bounds(self) -> tuple[Array, Array]:
        """(rows,) int64 each: the lowest and the highest sum that int8 inputs can make."""
        weights = self.weights.astype(np.int64)
        lowest = self.sums + np.minimum(weights * 127, weights * -128).sum(axis=1)
        highest = self.sums + np.maximum(weights * 127, weights * -128).sum(axis=1)
        return lowest, highest


def check_weights(weights: Tensor, bias: Tensor | None) -> None:
    """Refuse weights that no rows can be made of.

    Raises:
        UnsupportedError: They or the biases are computed, not int8 and int32, or not symmetric.
    """
    if weights.data is None or (bias is not None and bias.data is None):
        raise UnsupportedError("weights or biases that are computed are not supported")
    if weights.dtype != "int8":
        raise UnsupportedError(f"weights of {weights.dtype} are not supported", hint="int8 ones are")
    if bias is not None and bias.dtype != "int32":
        raise UnsupportedError(f"biases of {bias.dtype} are not supported", hint="int32 ones are")
    if weights.quantization is None or any(weights.quantization.zero_points):
        raise UnsupportedError("weights whose zero point is not 0 are not supported")


def rows_of(source: Tensor, weights: Tensor, bias: Tensor | None, output: Tensor, groups: int = 1) -> tuple[Rows, ...]:
    """The rows of each group.

    Args:
        weights: (output channels, ...); what follows is in the order of a column's values.
    """
    assert weights.data is not None and weights.quantization is not None
    matrix = weights.data.reshape(weights.shape[0], -1)  # (rows of all groups, depth)
    starts = np.zeros(len(matrix), np.int64) if bias is None or bias.data is None else bias.data.astype(np.int64)
    sums = starts - source.zero_point * matrix.astype(np.int64).sum(axis=1)
    scales = weights.quantization.scales * (len(matrix) if len(weights.quantization.scales) == 1 else 1)
    factors = tuple(source.scale * scale / output.scale for scale in scales)
    each = len(matrix) // groups
    parts = [slice(first, first + each) for first in range(0, len(matrix), each)]
    return tuple(Rows(matrix[part], sums[part], factors[part]) for part in parts)


def check_sums(groups: Sequence[Rows]) -> None:
    """Refuse sums that 32 bits do not hold, before they are rescaled or while they are.

    Raises:
        UnsupportedError: Says which row.
    """
    for group in groups:
        largest = np.maximum(*(np.abs(bound) for bound in group.bounds))
        for row, (bound, factor) in enumerate(zip(largest.tolist(), group.factors, strict=True)):
            shift = max(fixed_point(factor).shift, 0)
            if max(bound, 1) << shift >= 2**31:
                raise UnsupportedError(f"sums of row {row} up to {bound:,}, times 2 ** {shift}, need more than 32 bits")


def matrices(groups: Sequence[Rows]) -> tuple[Constant, Constant]:
    """Weights and starts of sums as the plain kernels read them."""
    weights = np.concatenate([group.weights for group in groups])
    return Constant("weights", weights), Constant("sums", _wrapped(np.concatenate([group.sums for group in groups])))


@dataclass(frozen=True, eq=False)
class PackedRows:
    """Rows as the packed kernels take them.

    Attributes:
        rescales: (rows, 3) int32: multiplier, half a step and the zero point, shift.
    """

    rows: Rows
    rescales: Array


def packed_rows(
    group: Rows, short: Sequence[tuple[int, int] | None], ends: tuple[Array, Array], zero: int
) -> PackedRows | None:
    """Rows whose results by the packed kernels are exact for any int8 input; None where there are none.

    A row that the kernels cannot do, but whose results are all the same (a channel that is dead), becomes one of zeros.

    Args:
        short: Of each row multiplier and shift, 1 to 22; None where it has none.
        ends: Of each row the results, clamped, of the lowest and of the highest sum.
    """
    suits = np.array([pair is not None for pair in short]) & _are_sums_exact(group)
    if not np.all(suits | (ends[0] == ends[1])):
        return None
    rescales = np.zeros((len(suits), 3), np.int32)
    for at, pair in enumerate(short):
        if suits[at] and pair is not None:
            multiplier, shift = pair
            rescales[at] = multiplier, (1 << (shift - 1)) + zero * (1 << shift), shift
        else:
            rescales[at] = 0, 2 * ends[0][at] + 1, 1  # half of this, with or without 1 less, is the result
    weights, sums = np.where(suits[:, None], group.weights, 0).astype(np.int8), np.where(suits, group.sums, 0)
    return PackedRows(replace(group, weights=weights, sums=sums), rescales)


def packed(groups: Sequence[PackedRows]) -> tuple[tuple[Constant, ...], str]:
    """Constants, and the C structures `rows_{step}` of each group, for cores with the DSP instructions."""
    blocks = [_packed_blocks(group.rows) for group in groups]
    missing = packed_count(groups[0].rows) - len(groups[0].rescales)
    padded = [np.pad(group.rescales, ((0, missing), (0, 0)), mode="edge") for group in groups]
    shared = all(np.array_equal(each, np.broadcast_to(padded[0][:1], each.shape)) for each in padded)
    kept = padded[0][:_BLOCK] if shared else np.concatenate(padded)
    constants = (Constant("weights", np.concatenate(blocks)), Constant("rescales", kept))
    size, steps = blocks[0].size, packed_steps(groups[0].rows)
    members = [
        f"{{{{{{weights}} + {at * size}, {{weights}} + {(at + 1) * size}, "
        f"{{rescales}} + {0 if shared else at * padded[0].size}, {-12 * _BLOCK if shared else 0}, {steps}}}}}"
        for at in range(len(groups))
    ]
    return constants, structures("packed_rows", "rows_{step}", members)


def packed_steps(group: Rows) -> int:
    """Fours of values that a packed column has."""
    return -(-int(group.weights.shape[1]) // 4)


def packed_count(group: Rows) -> int:
    """Rows that the packed kernels compute: a multiple of four."""
    return -(-len(group.weights) // _BLOCK) * _BLOCK


def are_shared(groups: Sequence[Rows]) -> bool:
    """Whether all rows have one factor."""
    return len({factor for group in groups for factor in group.factors}) == 1


def _are_sums_exact(group: Rows) -> Array:
    """(rows,) bool: whether the packed kernels' sums are exact; `ep_packed.h` says why these are the bounds."""
    largest = np.maximum(*(np.abs(bound) for bound in group.bounds))
    padded = _padded(group).astype(np.int64)
    do_halves_fit = np.all(padded[1::2] * 256 + padded[0::2] >= -(2**15), axis=1)
    exact: Array = (largest < 2**30) & np.repeat(do_halves_fit, 2)[: len(largest)]
    exact[1::2] &= largest[1::2] < 2**23
    return exact


def _padded(group: Rows) -> Array:
    """The weights with rows and values of zeros behind them: (rows, values), both multiples of four."""
    rows, depth = group.weights.shape
    return np.pad(group.weights, ((0, packed_count(group) - rows), (0, 4 * packed_steps(group) - depth)))


def _packed_blocks(group: Rows) -> Array:
    """Bytes of all blocks, as `EP(packed_rows)` lays them out."""
    weights = _padded(group).astype(np.int64)
    halves = weights[1::2] * 256 + weights[0::2]  # (pairs of rows, values)
    # (blocks, pairs, steps, values 0 1 2 3) -> (blocks, steps, words 0 or 1, pairs, halves: values 0 2 or 1 3)
    words = halves.reshape(-1, 2, packed_steps(group), 2, 2).transpose(0, 2, 4, 1, 3)
    sums = np.pad(group.sums, (0, packed_count(group) - len(group.sums)))
    sums[1::2] = 256 * sums[1::2] + sums[0::2]
    starts = _wrapped(sums).astype("<i4").view(np.int8).reshape(-1, 4 * _BLOCK)
    body = words.astype("<i2").reshape(len(starts), -1).view(np.int8)
    return np.concatenate([starts, body], axis=1).ravel()


def _wrapped(values: Array) -> Array:
    wrapped: Array = ((values + 2**31) % 2**32 - 2**31).astype(np.int32)
    return wrapped


def structures(kind: str, name: str, members: Sequence[str]) -> str:
    """A constant array of C structures, one of each initializer."""
    lines = ",\n    ".join(members)
    return f"static const struct EP({kind}) {name}[{len(members)}] = {{{{\n    {lines},\n}}}};\n"
