"""Functions of one 8-bit value as tables of their 256 results, with the arithmetic of LiteRT's reference kernels.

Smooth functions are evaluated in float32; piecewise linear ones rescale integers. Every function here takes all stored
values (256,) int64 and the two quantisations, and returns results (256,) before they are saturated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from edgeprune.backends import Array
from edgeprune.backends.c.fixed_point import FixedPoint, fixed_point, rescale
from edgeprune.backends.c.model import Option, Tensor
from edgeprune.errors import UnsupportedError

Function = Callable[[Array, Tensor, Tensor, Mapping[str, Option]], Array]
_HALF = np.float32(0.5)
_ROOT_BITS = 20
_MOST_RATIO = 2.0**14  # differences of 16-bit values times it still fit 32 bits


def table(function: Function, source: Tensor, result: Tensor, options: Mapping[str, Option]) -> Array:
    """Results (256,) in the number format of `result`, in the order of the input's byte read as unsigned.

    Raises:
        UnsupportedError: The function cannot be reproduced for these quantisations.
    """
    stored = np.arange(256, dtype=np.uint8).view(source.dtype).astype(np.int64)
    limits = np.iinfo(result.dtype)
    return np.clip(function(stored, source, result, options), limits.min, limits.max).astype(result.dtype)


def ratio(real: float) -> FixedPoint:
    """A factor between two scales.

    Raises:
        UnsupportedError: It is too large for 32-bit sums.
    """
    if real >= _MOST_RATIO:
        raise UnsupportedError(f"its input scale is {real:.4g} times its output scale, {_MOST_RATIO:.0f} at most")
    return fixed_point(real)


def requantized(stored: Array, source: Tensor, result: Tensor, options: Mapping[str, Option]) -> Array:
    """The same real value at another scale: QUANTIZE, which alone divides the scales in float64."""
    return rescale(stored - source.zero_point, ratio(source.scale / result.scale)) + result.zero_point


def _rescaled(values: Array, source: Tensor, result: Tensor, slope: float = 1.0) -> Array:
    """Values times a slope at another scale, the factor computed in float32."""
    real = np.float32(source.scale) * np.float32(slope) / np.float32(result.scale)
    return rescale(values, ratio(float(real))) + result.zero_point


def clamped(low: float | None, high: float | None) -> Function:
    """The same real value held between two real limits."""

    def function(stored: Array, source: Tensor, result: Tensor, options: Mapping[str, Option]) -> Array:
        values = _rescaled(stored - source.zero_point, source, result)
        if low is not None:
            values = np.maximum(values, quantized(low, result))
        return values if high is None else np.minimum(values, quantized(high, result))

    return function


def leaky(stored: Array, source: Tensor, result: Tensor, options: Mapping[str, Option]) -> Array:
    """Negative values times alpha."""
    alpha = float(options["alpha"])
    if alpha < 0:
        raise UnsupportedError(f"its alpha is {alpha:.4g}, negative")
    values = stored - source.zero_point
    return np.where(values >= 0, _rescaled(values, source, result), _rescaled(values, source, result, alpha))


def absolute(stored: Array, source: Tensor, result: Tensor, options: Mapping[str, Option]) -> Array:
    """Without the sign."""
    return _rescaled(np.abs(stored - source.zero_point), source, result)


def hard_swish(stored: Array, source: Tensor, result: Tensor, options: Mapping[str, Option]) -> Array:
    """x * relu6(x + 3) / 6: both factors as 16-bit fractions, the gate in steps of 3 / 2**15."""
    fine = np.float32(source.scale) * np.float32(1 / 128)  # seven more bits of precision
    factor, gate = fixed_point(float(fine / np.float32(result.scale))), fixed_point(float(fine / np.float32(3 / 2**15)))
    if factor.shift > 0:
        raise UnsupportedError(
            f"its input scale is {source.scale / result.scale:.4g} times its output scale, below 128"
        )
    values = ((stored - source.zero_point) * 128 + 2**15) % 2**16 - 2**15  # what does not fit 16 bits wraps
    opening = values
    if gate.shift > 0:  # the last bit is shifted in after the product, so that saturation comes last
        opening = _short(opening << (gate.shift - 1))
    opening = _short(_rounded_product(opening, gate))
    opening = _short(opening << 1) if gate.shift > 0 else _divided(opening, -gate.shift)
    product = _rounded_product(values, factor) * ((opening + 2**15) >> 1)
    short = np.sign(product) * (np.abs(product) >> 15)
    return _divided(short, -factor.shift) + result.zero_point


def smooth(of: Callable[[Array], Array]) -> Function:
    """A function of reals, its argument and its result rounded to float32 (of float64 arithmetic in between)."""

    def function(stored: Array, source: Tensor, result: Tensor, options: Mapping[str, Option]) -> Array:
        reals = np.float32(source.scale) * (stored - source.zero_point).astype(np.float32)
        with np.errstate(over="ignore"):
            steps = of(reals.astype(np.float64)).astype(np.float32) * (np.float32(1) / np.float32(result.scale))
        far = np.clip(steps, -(2.0**24), 2.0**24)
        whole: Array = (np.sign(far) * np.floor(np.abs(far) + _HALF)).astype(np.int64)
        return whole + result.zero_point

    return function


def square_root(stored: Array, source: Tensor, result: Tensor, options: Mapping[str, Option]) -> Array:
    """In float32 throughout, and rounded down where others round to the nearest."""
    _refuse_negative(source)
    reals = np.float32(source.scale) * (stored - source.zero_point).astype(np.float32)
    steps = np.sqrt(reals) / np.float32(result.scale)
    values: Array = np.floor(np.minimum(steps, 2.0**24)).astype(np.int64) + result.zero_point
    return values


def inverse_square_root(stored: Array, source: Tensor, result: Tensor, options: Mapping[str, Option]) -> Array:
    """Rounded twice: with 20 fraction bits, and times what the scales make of it. Of zero it is the greatest value."""
    _refuse_negative(source)
    steps = stored - source.zero_point
    fine = np.floor(2.0**_ROOT_BITS / np.sqrt(np.maximum(steps, 1)) + 0.5).astype(np.int64)
    factor = fixed_point(1 / float(np.sqrt(np.float32(source.scale)) * np.float32(result.scale)))
    if factor.shift > _ROOT_BITS:
        raise UnsupportedError(
            f"its output scale {result.scale:.4g} is too fine for its input scale {source.scale:.4g}"
        )
    rooted = rescale(fine, FixedPoint(factor.multiplier, factor.shift - _ROOT_BITS)) + result.zero_point
    return np.where(steps == 0, np.iinfo(np.int32).max, rooted)


def _refuse_negative(source: Tensor) -> None:
    """The reference gives up where a value is negative, so inputs that may be have no right answer."""
    if source.zero_point != -128:
        raise UnsupportedError(f"its input may be negative: its zero point is {source.zero_point}, not -128")


def gelu(stored: Array, source: Tensor, result: Tensor, options: Mapping[str, Option]) -> Array:
    """x times the normal distribution of x, or its approximation by a hyperbolic tangent."""
    return smooth(_gelu_by_tanh if options["approximate"] else _gelu)(stored, source, result, options)


def _gelu(x: Array) -> Array:
    values: Array = 0.5 * x * (1 + np.array([math.erf(value / math.sqrt(2)) for value in x.tolist()]))
    return values


def _gelu_by_tanh(x: Array) -> Array:
    values: Array = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return values


def _logistic(x: Array) -> Array:
    values: Array = 1 / (1 + np.exp(-x))
    return values


def _logarithm(x: Array) -> Array:
    """Of what is not positive the smallest value."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values: Array = np.where(x > 0, np.log(x), -np.inf)
    return values


def quantized(limit: float, result: Tensor) -> int:
    """A real limit as a stored value, divided by the scale in float32; it is not saturated."""
    steps = float(np.float32(limit) / np.float32(result.scale))
    return int(math.copysign(math.floor(abs(steps) + 0.5), steps)) + result.zero_point


def _short(values: Array) -> Array:
    return np.clip(values, -(2**15), 2**15 - 1)


def _rounded_product(values: Array, factor: FixedPoint) -> Array:
    """Times the upper half of a multiplier, halves rounded up."""
    upper = min((factor.multiplier + 2**15) >> 16, 2**15 - 1)
    return (values * upper + 2**14) >> 15


def _divided(values: Array, exponent: int) -> Array:
    """By a power of two, halves rounded away from zero."""
    half = (1 << exponent) >> 1
    quotient: Array = np.sign(values) * ((np.abs(values) + half) >> exponent)
    return quotient


FUNCTIONS: Mapping[str, Function] = {
    "RELU": clamped(0, None),
    "RELU6": clamped(0, 6),
    "RELU_N1_TO_1": clamped(-1, 1),
    "RELU_0_TO_1": clamped(0, 1),
    "LEAKY_RELU": leaky,
    "HARD_SWISH": hard_swish,
    "LOGISTIC": smooth(_logistic),
    "TANH": smooth(np.tanh),
    "EXP": smooth(np.exp),
    "LOG": smooth(_logarithm),
    "SQRT": square_root,
    "RSQRT": inverse_square_root,
    "GELU": gelu,
    "ABS": absolute,
}
