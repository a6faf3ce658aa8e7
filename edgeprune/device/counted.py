"""Latency and flash of operators as steps of the C library, by laws that were fitted on counts of an emulated core.

A profile is of a core: its laws give core cycles, which an emulated execution counts. The target's clock and flash
turn them into seconds, by the same factors that turn the counts of an execution into its interval (`emulate.cycles`):
an estimate and an execution agree where the laws do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Literal

from pydantic import Field, model_validator

from edgeprune.device.kernel_work import (
    LAWS,
    Variant,
    amounts,
    constant_bytes,
    is_guessed,
    kernels_of,
    pricing_law,
    scratch_bytes,
)
from edgeprune.device.latency import Band
from edgeprune.device.ops import Op
from edgeprune.errors import UsageError
from edgeprune.target import Cpu
from edgeprune.values import Value

Interval = tuple[float, float]

MOST_OVER_GUESS = 8.0  # times its price; a judgement, no fit: what is guessed is named beside it


class CountedLaw(Value):
    """How one kind of step is priced.

    Attributes:
        prices: Core cycles per unit of each of its amounts.
        steps: Counted steps that it was fitted on.
        error: Median of |estimate / count - 1| over shapes that were left out.
    """

    prices: tuple[float, ...]
    steps: int = Field(ge=1)
    error: float = Field(ge=0)

    @model_validator(mode="after")
    def _not_negative(self) -> CountedLaw:
        if min(self.prices) < 0:
            raise ValueError("a price is negative")
        return self


class Rates(Value):
    """From core cycles and bytes of constants to cycles: from, to.

    Attributes:
        from_flash: Whether each end of `per_byte` is what the target's flash makes a byte wait, where it says that.
    """

    scale: Interval
    per_byte: Interval
    from_flash: tuple[bool, bool]


class CoreModel(Value):
    """What steps of the C library cost on a core.

    Attributes:
        variant: Which kernels the core runs.
        laws: Of all names in `kernel_work.LAWS`.
        call_cycles: Core cycles of an inference besides its steps.
        end_cycles: Core cycles for each element of its inputs and outputs, which are copied.
        spread: 80 % interval of counted over estimated core cycles, of networks that were not in the fit.
        code_bytes: In flash by parts of the kernels, see `kernels_of`; what every library has, by the empty name.
        step_bytes: Code of a step's own function.
        stack_bytes: The deepest the stack went.
        source: Where the numbers come from, in a sentence.
    """

    kind: Literal["core"] = "core"
    runtime: str
    precision: Literal["int8"] = "int8"
    threads: Literal[1] = 1
    core: str
    variant: Variant
    laws: Mapping[str, CountedLaw]
    call_cycles: float = Field(ge=0)
    end_cycles: float = Field(ge=0)
    rates: Rates
    spread: Band
    code_bytes: Mapping[str, int]
    step_bytes: int = Field(ge=0)
    stack_bytes: int = Field(ge=0)
    source: str = ""

    @model_validator(mode="after")
    def _is_whole(self) -> CoreModel:
        if missing := LAWS - self.laws.keys():
            raise ValueError(f"there is no law for {', '.join(sorted(missing))}")
        return self

    def core_cycles(self, op: Op) -> float:
        """Core cycles of one op, by its own law or by the one that stands in."""
        prices = self.laws[pricing_law(op)].prices
        return sum(amount * price for amount, price in zip(amounts(op, self.variant), prices, strict=True))

    def besides(self, ops: Sequence[Op]) -> float:
        """Core cycles of an inference besides its steps."""
        return self.call_cycles + self.end_cycles * end_elements(ops)

    def at(self, cpu: Cpu) -> CountedModel:
        """The model of a target with this core.

        Raises:
            UsageError: The target does not say its clock.
        """
        if cpu.clock_hz is None:
            raise UsageError("without a clock there is no latency", where="cpu.clock_hz")
        flash = None
        if cpu.flash_wait_states is not None and cpu.flash_line_bytes is not None:
            flash = cpu.flash_wait_states / cpu.flash_line_bytes
        return CountedModel(self, cpu.clock_hz, flash)


def end_elements(ops: Sequence[Op]) -> int:
    """Elements of the inputs and outputs of a network."""
    made, read = {op.output for op in ops}, {name for op in ops for name in op.inputs}
    inputs = {op.inputs[0]: op.in_elements for op in ops if op.inputs and op.inputs[0] not in made}
    outputs = {op.output: op.out_elements for op in ops if op.output not in read}
    return sum(inputs.values()) + sum(outputs.values())


@dataclass(frozen=True)
class CountedModel:
    """A core's model at a clock; a device model.

    Attributes:
        flash_per_byte: Cycles that the target's flash makes a byte of many read in order wait; None where not known.
    """

    core: CoreModel
    clock_hz: int
    flash_per_byte: float | None = None

    @property
    def band(self) -> Band:
        """The interval around an op whose constants cost nothing; that of a network is `interval_s`."""
        (low, high), spread = self.core.rates.scale, self.core.spread
        middle = (low + high) / 2
        return Band(low=low / middle * spread.low, high=high / middle * spread.high)

    @property
    def source(self) -> str:
        """The core model's own."""
        return self.core.source

    def op_s(self, op: Op) -> float:
        """Seconds of one op."""
        return sum(self._ends(self.core.core_cycles(op), self._waiting(op))) / 2

    def total_s(self, ops: Iterable[Op]) -> float:
        """Seconds of one inference."""
        sequence = tuple(ops)
        call = sum(self._ends(self.core.besides(sequence), 0)) / 2
        return call + sum(self.op_s(op) for op in sequence)

    def interval_s(self, ops: Iterable[Op]) -> Interval:
        """The interval that an execution would be given, its ends as unsure as the laws.

        An op whose price is a guess takes from nothing to `MOST_OVER_GUESS` times as much.
        """
        sequence = tuple(ops)
        counted = self.core.besides(sequence)
        counted += sum(self.core.core_cycles(op) for op in sequence if not is_guessed(op))
        guessed = sum(self.core.core_cycles(op) for op in sequence if is_guessed(op))
        waiting = sum(self._waiting(op) for op in sequence)
        low, _ = self._ends(counted, waiting)
        _, high = self._ends(counted + guessed * MOST_OVER_GUESS, waiting)
        return low * self.core.spread.low, high * self.core.spread.high

    def guessed(self, ops: Iterable[Op]) -> tuple[str, ...]:
        """Ops that no law was counted for, by name."""
        return tuple(op.name for op in ops if is_guessed(op))

    def op_bytes(self, op: Op) -> int:
        """Flash of one op: its constants and its own function."""
        return self.core.step_bytes + constant_bytes(op, self.core.variant)

    def scratch_bytes(self, op: Op) -> int:
        """Working memory of one op in the arena."""
        return scratch_bytes(op, self.core.variant)

    def kernel_bytes(self, ops: Iterable[Op]) -> int:
        """Flash of the code that the ops share; a part that was not counted is taken to be as large as others are."""
        code = self.core.code_bytes
        usual = round(fmean(size for name, size in code.items() if name and size))
        return code[""] + sum(code.get(name, usual) for name in {name for op in ops for name in kernels_of(op)})

    @cached_property
    def _per_byte(self) -> Interval:
        low, high = (
            self.flash_per_byte if is_flash and self.flash_per_byte is not None else usual
            for is_flash, usual in zip(self.core.rates.from_flash, self.core.rates.per_byte)
        )
        return low, high

    def _waiting(self, op: Op) -> int:
        return constant_bytes(op, self.core.variant)

    def _ends(self, core_cycles: float, constants: float) -> Interval:
        """Seconds, from and to."""
        low, high = (
            (scale * core_cycles + per_byte * constants) / self.clock_hz
            for scale, per_byte in zip(self.core.rates.scale, self._per_byte)
        )
        return low, high
