"""Quantities as users write them (`20ms`, `256KiB`, `1pp`) to SI base values and back.

A bare number is always an error: the most common silent mistake in this field is a wrong unit.
"""

from __future__ import annotations

import math
import re
from typing import Literal

from edgeprune.errors import UsageError
from edgeprune.values import Value

_TIME_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_SIZE_BYTES = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
_ENERGY_J = {"nJ": 1e-9, "uJ": 1e-6, "µJ": 1e-6, "mJ": 1e-3, "J": 1.0}
_COUNT = {"k": 10**3, "M": 10**6, "G": 10**9}
_QUANTITY = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-zµ%]*)\s*")


def _split(text: str, what: str, example: str) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise UsageError(f"{what}: cannot read {text!r}", hint=f"write it like {example}")
    return float(match[1]), match[2]


def parse_time(text: str, what: str = "time") -> float:
    """Seconds of `20ms`, `1.5s`, `300us`.

    Raises:
        UsageError: No unit, an unknown unit, or a value that is not positive.
    """
    value, unit = _split(text, what, "20ms")
    if not unit:
        raise UsageError(
            f"{what}: {text!r} has no unit",
            hint=f"write {text.strip()}ms or {text.strip()}s",
        )
    if unit not in _TIME_S:
        raise UsageError(f"{what}: unknown unit {unit!r}", hint=f"one of {', '.join(_TIME_S)}")
    return _positive(value * _TIME_S[unit], text, what)


def parse_energy(text: str, what: str = "energy") -> float:
    """Joules of `5mJ`, `300uJ`.

    Raises:
        UsageError: No unit, an unknown unit, or a value that is not positive.
    """
    value, unit = _split(text, what, "5mJ")
    if unit not in _ENERGY_J:
        raise UsageError(f"{what}: {text!r} has no clear unit", hint=f"write {value:g}mJ or {value:g}uJ")
    return _positive(value * _ENERGY_J[unit], text, what)


def parse_size(text: str, what: str = "size") -> int:
    """Bytes of `256KiB` (powers of 1024) or `256kB` (powers of 1000).

    Raises:
        UsageError: No unit, an ambiguous one (`KB`, `K`), or a value that is not positive.
    """
    value, unit = _split(text, what, "256KiB")
    if unit not in _SIZE_BYTES:
        number = f"{value:g}"
        raise UsageError(
            f"{what}: {text!r} has no clear unit",
            hint=f"write {number}kB ({value * 1000:,.0f} B) or {number}KiB ({value * 1024:,.0f} B)",
        )
    return int(_positive(value * _SIZE_BYTES[unit], text, what))


def parse_count(text: str, what: str = "count") -> int:
    """A count such as `40M`, `1.2G`, `300k`.

    Raises:
        UsageError: No unit, an unknown unit, or a value that is not positive.
    """
    value, unit = _split(text, what, "40M")
    if unit not in _COUNT:
        raise UsageError(f"{what}: {text!r} has no clear unit", hint=f"write {value:g}M (millions), or with k or G")
    return int(_positive(value * _COUNT[unit], text, what))


class Drop(Value):
    """How much of the primary metric may be lost: `1pp` is absolute, `2%` relative to dense."""

    amount: float
    kind: Literal["points", "relative"]

    def allowed(self, dense: float) -> float:
        """The largest tolerated loss, in units of the metric (a fraction for accuracies)."""
        return self.amount if self.kind == "points" else self.amount * abs(dense)

    def __str__(self) -> str:
        suffix = "pp" if self.kind == "points" else "%"
        return f"{self.amount * 100:g}{suffix}"


def parse_drop(text: str, what: str = "max-drop") -> Drop:
    """`1pp` (one point of a metric given as a fraction: 0.01) or `2%` (relative).

    Raises:
        UsageError: No unit or an unknown one.
    """
    value, unit = _split(text, what, "1pp")
    if unit not in ("pp", "%"):
        raise UsageError(
            f"{what}: {text!r} has no clear unit",
            hint=f"write {value:g}pp (points of the metric) or {value:g}% (relative to dense)",
        )
    return Drop(amount=value / 100, kind="points" if unit == "pp" else "relative")


def _positive(value: float, text: str, what: str) -> float:
    if not math.isfinite(value) or value <= 0:
        raise UsageError(f"{what}: {text!r} is not above zero")
    return value


def format_time(seconds: float) -> str:
    """`17.3 ms`: three significant digits in the largest unit that keeps the value above one."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(seconds) >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def format_energy(joules: float) -> str:
    """`3.91 mJ`: three significant digits in the largest unit that keeps the value above one."""
    for unit, scale in (("J", 1.0), ("mJ", 1e-3), ("µJ", 1e-6)):
        if abs(joules) >= scale:
            return f"{joules / scale:.3g} {unit}"
    return f"{joules * 1e9:.3g} nJ"


def format_count(count: float) -> str:
    """`40.2 M`: powers of 1000, one decimal."""
    for unit, scale in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if abs(count) >= scale:
            return f"{count / scale:,.1f} {unit}"
    return f"{count:.0f}"


def format_size(size_bytes: float) -> str:
    """`213.4 KiB`: powers of 1024, one decimal."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(size_bytes) >= scale:
            return f"{size_bytes / scale:.1f} {unit}"
    return f"{size_bytes:.0f} B"
