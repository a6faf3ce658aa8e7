"""exp of negative numbers and its reciprocal sums in 32-bit fixed point, bit for bit as LiteRT's reference kernels.

Numbers are int64 arrays that hold what 32 bits hold. The method: subtract quarters until what is left lies in
[-1/4, 0), take a Taylor polynomial of degree 4 around -1/8, and multiply by exp(-1/4), exp(-1/2), exp(-1), ... for the
bits of what was subtracted. Products round halves up; divisions by powers of two away from zero.
"""

from __future__ import annotations

import math

import numpy as np

from edgeprune.backends import Array

_ONE = 2**31 - 1  # the greatest fraction stands for 1


def exponential(values: Array, integer_bits: int) -> Array:
    """exp(values) with 31 fraction bits, for values <= 0 with 31 - integer_bits of them; integer_bits at most 5."""
    fraction_bits = 31 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    rest = (values & (quarter - 1)) - quarter
    result = _near_eighth(rest << integer_bits)
    subtracted = rest - values
    for power in range(-2, integer_bits):
        factor = round(math.exp(-(2.0**power)) * 2**31)
        result = np.where(subtracted >> (fraction_bits + power) & 1, _product(result, factor), result)
    return np.where(values == 0, _ONE, result)


def _near_eighth(values: Array) -> Array:
    """exp of values in [-1/4, 0), with 31 fraction bits as its result."""
    at, third = round(math.exp(-1 / 8) * 2**31), round(2**31 / 3)
    x = values + (1 << 28)
    square = _product(x, x)
    cube, fourth = _product(square, x), _product(square, square)
    # x^4 / 24 + x^3 / 6 + x^2 / 2 as ((x^4 / 4 + x^3) / 3 + x^2) / 2
    powers = _divided(_product(_divided(fourth, 2) + cube, third) + square, 1)
    return at + _product(np.full_like(x, at), x + powers)


def _product(a: Array, b: Array | int) -> Array:
    product: Array = np.right_shift(a * b + (1 << 30), 31)
    return product


def _divided(values: Array, exponent: int) -> Array:
    half = (1 << exponent) >> 1
    quotient: Array = np.sign(values) * ((np.abs(values) + half) >> exponent)
    return quotient
