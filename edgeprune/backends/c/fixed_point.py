"""Real factors as 32-bit integers with a shift, the way the int8 specification of TensorFlow Lite rescales sums.

A sum x is rescaled by multiplier * 2 ** (shift - 31): a doubling high multiplication that rounds halves up, then a
division by a power of two that rounds halves away from zero. (Jacob et al. 2018, "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference", section 2.2.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgeprune.backends import Array


@dataclass(frozen=True)
class FixedPoint:
    """multiplier * 2 ** (shift - 31); the multiplier is 0 or in [2**30, 2**31)."""

    multiplier: int
    shift: int


def fixed_point(real: float) -> FixedPoint:
    """The nearest factor to a non-negative real one; below 2 ** -32 it is zero.

    Of infinity, which scales divided in float32 may be, the shift is as much too large as that of any such number.
    """
    if real == 0:
        return FixedPoint(0, 0)
    if math.isinf(real):
        return FixedPoint(2**31 - 1, 128)
    fraction, shift = math.frexp(real)
    multiplier = math.floor(fraction * 2**31 + 0.5)
    if multiplier == 2**31:
        multiplier, shift = multiplier // 2, shift + 1
    return FixedPoint(0, 0) if shift < -31 else FixedPoint(multiplier, shift)


def rescale(values: Array, factor: FixedPoint) -> Array:
    """What `EP(rescale)` makes of 32-bit sums; int64 in and out, without saturation of the left shift."""
    left, right = max(factor.shift, 0), max(-factor.shift, 0)
    product = values.astype(np.int64) * 2**left * factor.multiplier
    high = (product + 2**30) >> 31
    half = (1 << right) >> 1
    rounded: Array = np.sign(high) * ((np.abs(high) + half) >> right)
    return rounded
