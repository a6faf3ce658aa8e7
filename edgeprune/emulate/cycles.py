"""Cycles of executed instructions, as an interval: `scale` times what the core needs, plus what waits for flash.

    cycles = scale * core_cycles + per_byte * weight_bytes

`core_cycles` are sums of the instruction timings that Arm publishes for the in-order cores (Cortex-M0, M0+, M3, M4), at
zero wait states, and plain instructions where there is no such table (M7, M33). `scale` is what published results of
other engines on the core leave between the two: wait states while code is fetched, stalls, on an M7 two instructions at
once. The second term is the weights' way from flash once: a dense layer uses each byte once and waits for it.

The interval covers every published row when it is predicted from the others, and the bounds of the timings themselves.
A core that nothing is published of takes the scale of the M4, from zero wait states on. It is an estimate all the same:
one board or three per core, kernels of others. Not modelled: interrupts, other masters on the bus, where data lies on
chips with several memories. No cycles are estimated for a Cortex-M55.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import exp, log

from edgeprune.device.counted import Interval, Rates
from edgeprune.emulate.instructions import Instruction, Kind, Timed
from edgeprune.emulate.published import ROWS, Row

_STREAMED = "ad"  # the published model of dense layers: bound by its weights
# Wait states of the board that the M4's scale is fitted on, over the bytes that each read of its flash brings
_L4R5ZI_PER_BYTE = 5 / 8


@dataclass(frozen=True)
class FlashFacts:
    """What a chip's flash makes wait: `wait_states` cycles for every `line_bytes` bytes."""

    wait_states: int
    line_bytes: int

    @property
    def per_byte(self) -> float:
        """Cycles for a byte of many read in order."""
        return self.wait_states / self.line_bytes


@dataclass(frozen=True)
class Fit:
    """What a core's published rows say.

    Attributes:
        scale: Published cycles over core cycles, what weights cost taken off: from, to.
        per_byte: Cycles for a byte of weights: from, to.
        worst_left_out: The largest error of a row's scale when it is predicted from the other rows, as a ratio - 1.
        boards: What it rests on.
    """

    scale: Interval
    per_byte: Interval
    worst_left_out: float
    boards: tuple[str, ...]


def core_cycles(core: str, census: Mapping[Timed, int]) -> tuple[float, float, float] | None:
    """The least, usual and most cycles of a census by the core's timings at zero wait states.

    For cores without published timings: the instructions, three times. None for cores without an estimate.
    """
    if core in _TIMINGS:
        timing = _TIMINGS[core]
        low = usual = high = 0.0
        for timed, count in census.items():
            a, b, c = timing(timed.instruction, timed.taken)
            low, usual, high = low + a * count, usual + b * count, high + c * count
        return low, usual, high
    if fit_of(core) is None:
        return None
    total = float(sum(census.values()))
    return total, total, total


def cycle_interval(
    core: str, census: Mapping[Timed, int], weights_bytes: int, flash: FlashFacts | None = None
) -> Interval | None:
    """From how many to how many cycles an execution takes on a core; None where nothing is known.

    Args:
        census: What was executed.
        weights_bytes: Constants it reads from flash.
        flash: Where given, replaces the wait states of the board that the figures come from, on in-order cores.
    """
    needed, found = core_cycles(core, census), rates(core)
    if needed is None or found is None:
        return None
    least, usual, most = needed
    if fit_of(core) is not None:
        least = most = usual
    low, high = (
        flash.per_byte if flash and is_flash else per_byte
        for per_byte, is_flash in zip(found.per_byte, found.from_flash, strict=True)
    )
    return least * found.scale[0] + low * weights_bytes, most * found.scale[1] + high * weights_bytes


def rates(core: str) -> Rates | None:
    """What turns a core's cycles into those of a chip with it; None where nothing is known.

    An in-order core of which nothing is published takes from none to all of what the Cortex-M4 takes.
    """
    fit = fit_of(core)
    if fit is not None:
        return Rates(scale=fit.scale, per_byte=fit.per_byte, from_flash=(core in _TIMINGS, core in _TIMINGS))
    if core not in _TIMINGS:
        return None
    borrowed = fit_of("Cortex-M4")
    assert borrowed is not None
    return Rates(scale=(1.0, borrowed.scale[1]), per_byte=(0.0, 0.0), from_flash=(False, True))


def provenance(core: str) -> str:
    """One sentence on where a core's cycles come from."""
    fit = fit_of(core)
    table = "Arm's instruction timings at zero wait states" if core in _TIMINGS else "executed instructions"
    if fit is None:
        if core in _TIMINGS:
            return f"{table}, up to the largest factor of published results on a Cortex-M4; none on this core"
        return f"none, and no latency: nothing is published here of what instructions take on a {core}"
    return (
        f"{table} times {fit.scale[0]:.2f} to {fit.scale[1]:.2f}, fitted on published MLPerf Tiny results "
        f"({'; '.join(fit.boards)}; the worst left-out row is {fit.worst_left_out * 100:.0f} % off)"
    )


@cache
def fit_of(core: str) -> Fit | None:
    """What the published rows of a core say; None where there are none."""
    rows = [row for row in ROWS if row.core == core]
    return fit(rows, _L4R5ZI_PER_BYTE if core == "Cortex-M4" else None) if rows else None


def fit(rows: Sequence[Row], known_per_byte: float | None = None) -> Fit:
    """The interval that covers each row as predicted from the others.

    Args:
        rows: Of one core; at least two that are not bound by their weights.
        known_per_byte: Cycles per byte of weights where the board's flash tells; else rows bound by them do.
    """
    computed = [row for row in rows if known_per_byte is not None or row.model != _STREAMED]
    per_byte = known_per_byte or 0.0
    logs = [log((row.cycles - per_byte * row.weights_bytes) / row.core_cycles) for row in computed]
    middle = sum(logs) / len(logs)
    left_out = max(abs(one - (sum(logs) - one) / (len(logs) - 1)) for one in logs)
    streams: Interval = (per_byte, per_byte)
    if known_per_byte is None:
        waits = [
            max(0.0, row.cycles - exp(middle) * row.core_cycles) / row.weights_bytes
            for row in rows
            if row.model == _STREAMED
        ]
        # one board says how much it can be, not that it must
        streams = (min(waits) if len(waits) > 1 else 0.0, max(waits, default=0.0))
    scale = exp(middle - left_out), exp(middle + left_out)
    return Fit(scale, streams, exp(left_out) - 1, tuple(dict.fromkeys(row.board for row in rows)))


Timing = Callable[[Instruction, bool], tuple[float, float, float]]


def _exact(cycles: float) -> tuple[float, float, float]:
    return cycles, cycles, cycles


def _armv7m(instruction: Instruction, taken: bool) -> tuple[float, float, float]:
    """Cortex-M4, Technical Reference Manual 100166, table 3-1. Refilling the pipeline takes 1 to 3, 2 as usual."""
    refill = (1.0, 2.0, 3.0) if taken else (0.0, 0.0, 0.0)
    if instruction.kind is Kind.LOAD:
        base = 1 if instruction.follows else 1 + instruction.registers
        return base + refill[0], base + refill[1], base + refill[2]
    if instruction.kind is Kind.STORE:
        # a single store is buffered; with an offset in a register it takes one more
        return (1.0, 1.0, 2.0) if instruction.registers == 1 else _exact(1 + instruction.registers)
    if instruction.kind is Kind.DIVIDE:
        return 2.0, 7.0, 12.0
    return 1 + refill[0], 1 + refill[1], 1 + refill[2]


def _cortex_m3(instruction: Instruction, taken: bool) -> tuple[float, float, float]:
    """Cortex-M3, Technical Reference Manual DDI 0337, instruction set summary: as the M4 but for what multiplies."""
    if instruction.kind is Kind.MAC:
        return _exact(2)
    if instruction.kind is Kind.LONG_MULTIPLY:
        return 3.0, 5.0, 7.0
    return _armv7m(instruction, taken)


def _armv6m(branch: int, call: int, load_pc: int, slow_multiply: bool) -> Timing:
    def timing(instruction: Instruction, taken: bool) -> tuple[float, float, float]:
        if instruction.kind in (Kind.LOAD, Kind.STORE):
            several = instruction.registers > 1
            return _exact((load_pc if taken else 1) + instruction.registers if several or taken else 2)
        if instruction.kind is Kind.BRANCH:
            return _exact((call if instruction.calls else branch) if taken else 1)
        if taken:
            return _exact(branch)
        return (1.0, 1.0, 32.0 if slow_multiply else 1.0) if instruction.kind is Kind.MULTIPLY else _exact(1)

    return timing


# Cortex-M0 (DDI 0432C) and M0+ (DDI 0484C), instruction summaries. Both may have a multiplier of 1 or of 32 cycles; the
# parts that are known here have the fast one.
_TIMINGS: dict[str, Timing] = {
    "Cortex-M0": _armv6m(branch=3, call=4, load_pc=4, slow_multiply=False),
    "Cortex-M0+": _armv6m(branch=2, call=3, load_pc=3, slow_multiply=False),
    "Cortex-M3": _cortex_m3,
    "Cortex-M4": _armv7m,
}
