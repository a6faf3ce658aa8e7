"""Integer multipliers for fully connected layers, whose sums the reference rounds once, halves away from zero.

A result of 8 bits is a step function of its sum with at most 255 thresholds. They are computed as the reference does,
in double precision, and a multiplier counts as exact where it puts each threshold a sum can reach at the same sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgeprune.backends import Array

# Nudges of the multiplier's last bits: outwards, they send ties away from zero, and products that double precision
# rounds to a tie.
_SHORT_NUDGES = (0, 1, -1, 2, -2)
_LONG_NUDGES = (0, 1, 2**8, 2**9, 2**10)


@dataclass(frozen=True, eq=False)
class Thresholds:
    """Where results change: `sums[i]` is the smallest sum that makes `results[i]`, from the zero point on, or more."""

    results: Array
    sums: Array


def thresholds(factor: float, zero: int, lowest: int, highest: int) -> Thresholds:
    """Those between int8 results that sums from `lowest` to `highest` meet, at their ends included."""
    results = np.arange(-127 - zero, 128 - zero, dtype=np.int64)
    if factor == 0:
        return Thresholds(results[:0], results[:0])
    guesses = np.clip(np.ceil((results - 0.5) / factor), -(2.0**40), 2.0**40).astype(np.int64)
    sums = guesses + 3
    for distance in range(2, -3, -1):
        near = guesses + distance
        sums = np.where(rounded(near, factor) >= results, near, sums)
    reached = (sums >= lowest) & (sums <= highest + 1)
    return Thresholds(results[reached], sums[reached])


def rounded(sums: Array, factor: float | Array) -> Array:
    """The reference's results before the zero point: products in double precision, halves away from zero."""
    products = sums.astype(np.float64) * factor
    nearest: Array = (np.sign(products) * np.floor(np.abs(products) + 0.5)).astype(np.int64)
    return nearest


def short_rescale(factor: float, between: Thresholds) -> tuple[int, int] | None:
    """Multiplier below 2 ** 31 and shift, 1 to 22, of the packed kernels; None where none is exact.

    They make ((sum * multiplier >> 31) + half) >> shift of a sum, half being 2 ** (shift - 1).
    """
    fraction, exponent = math.frexp(factor)
    shift = -exponent
    if factor == 0:
        return 0, 1
    if not 1 <= shift <= 22:
        return None
    half = 1 << (shift - 1)
    for nudge in _SHORT_NUDGES:
        multiplier = round(fraction * 2**31) + nudge
        if not 2**30 <= multiplier < 2**31:
            continue
        at = ((between.sums * multiplier >> 31) + half) >> shift
        before = (((between.sums - 1) * multiplier >> 31) + half) >> shift
        if np.all(at >= between.results) and np.all(before < between.results):
            return multiplier, shift
    return None


def long_rescale(factor: float, between: Thresholds) -> tuple[int, int, int] | None:
    """High and low 31 bits of a multiplier and a shift, 1 to 62, of the plain kernel; None where none is exact.

    They make (floor(sum * multiplier / 2 ** 31) + half) >> shift of a sum, half being 2 ** (shift - 1).
    """
    fraction, exponent = math.frexp(factor)
    shift = 31 - exponent
    if factor == 0 or shift > 62:
        return (0, 0, 1) if between.sums.size == 0 else None
    if shift < 1:
        return None
    half = 1 << (shift - 1)
    sums, results = between.sums.astype(object), between.results.astype(object)
    for nudge in _LONG_NUDGES:
        multiplier = min(int(fraction * 2**62) + nudge, 2**62 - 1)
        at = ((sums * multiplier >> 31) + half) >> shift
        before = (((sums - 1) * multiplier >> 31) + half) >> shift
        if np.all(at >= results) and np.all(before < results):
            return multiplier >> 31, multiplier & (2**31 - 1), shift
    return None
