"""What a model costs on a target, what may be spent, and where each number comes from."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from edgeprune.units import Drop, format_count, format_size, format_time
from edgeprune.values import Value


class Source(StrEnum):
    """Where a number comes from. Numbers of different sources never share a column."""

    MEASURED = "measured"  # on the device, or on this machine when it is the target
    EMULATED = "emulated"  # the real artifact executed on an emulated CPU
    ESTIMATED = "estimated"  # a device model, with its error band


RamKind = Literal["activations", "arena", "process"]
Percentile = Literal["p50", "p90", "p99"]


class Cost(Value):
    """The cost of one graph or artifact on one target.

    `latency_s` is what a verdict uses: for measured runs the 99 % upper confidence bound of the budget's
    percentile, for everything else the central value. `latency_interval_s` is (low, high): the 80 % interval of an
    estimate, what the counted instructions of an emulated run may take, or the confidence bounds of a measured
    percentile. None is "this source cannot know". `macs` are counted in the design, whatever the source of the rest.
    """

    source: Source
    latency_s: float | None = None
    latency_interval_s: tuple[float, float] | None = None
    ram_bytes: int | None = None
    ram_kind: RamKind | None = None
    size_bytes: int | None = None
    macs: int | None = None

    @property
    def latency_upper_s(self) -> float | None:
        """The latency a verdict must be able to defend: the upper end of the interval of what was not measured."""
        if self.source is not Source.MEASURED and self.latency_interval_s is not None:
            return self.latency_interval_s[1]
        return self.latency_s


class Violation(Value):
    """One limit that is not held: `needs` and `limit` in the unit that `what` names."""

    what: Literal["latency_s", "ram_bytes", "size_bytes", "macs", "drop"]
    needs: float
    limit: float

    def __str__(self) -> str:
        if self.what == "latency_s":
            return f"latency: needs {format_time(self.needs)}, budget {format_time(self.limit)}"
        if self.what == "drop":
            return f"drop: {self.needs * 100:.2f} pp, allowed {self.limit * 100:.2f} pp"
        if self.what == "macs":
            return f"MACs: needs {format_count(self.needs)}, budget {format_count(self.limit)}"
        name = self.what.removesuffix("_bytes")
        return f"{name}: needs {format_size(self.needs)}, budget {format_size(self.limit)}"


class Budget(Value):
    """Hard limits; None is unlimited. `at` is the percentile the latency is judged on.

    `energy_j` is what was asked for; it holds when `latency_s` does, which `device.energy.within_energy` lowers for it.
    """

    latency_s: float | None = None
    at: Percentile = "p90"
    ram_bytes: int | None = None
    size_bytes: int | None = None
    macs: int | None = None
    energy_j: float | None = None
    max_drop: Drop | None = None

    def violations(self, cost: Cost) -> tuple[Violation, ...]:
        """The cost limits that `cost` does not hold. A limit on a number that is unknown counts as not held."""
        pairs = (
            ("latency_s", cost.latency_upper_s, self.latency_s),
            ("ram_bytes", cost.ram_bytes, self.ram_bytes),
            ("size_bytes", cost.size_bytes, self.size_bytes),
            ("macs", cost.macs, self.macs),
        )
        return tuple(
            Violation(what=what, needs=float("inf") if needs is None else needs, limit=limit)
            for what, needs, limit in pairs
            if limit is not None and (needs is None or needs > limit)
        )


class OpCost(Value):
    """One row of a per-operator table; `latency_s` is None where the source cannot tell."""

    name: str
    kind: str
    latency_s: float | None
    macs: int
    instructions: int | None = None  # executed, where they were counted


class Counts(Value):
    """What executing a C library on an emulated core showed, exactly but for the cycles.

    Attributes:
        instructions: Executed by one inference, of the inputs tried the most.
        cycles: From, to; None where nothing is known of the core.
        arena_bytes, arena_bound_bytes: Memory for activations, and what is proven that no placing can go below in
            this order of steps.
        stack_bytes: The deepest the stack went.
        flash_bytes: Code, weights and constants.
        mismatches: Output values that differ from the reference kernels, over `compared` inputs; None where the file
            that the library was made from is not at hand.
    """

    instructions: int
    cycles: tuple[int, int] | None
    arena_bytes: int
    arena_bound_bytes: int
    stack_bytes: int
    flash_bytes: int
    code_bytes: int
    weights_bytes: int
    mismatches: int | None
    compared: int


class BoardCounts(Value):
    """What running a file in an emulated board's own runtime showed, on one thread: exact, but for the caches' model.

    Attributes:
        instructions: Executed by one inference once it is warm; `classes` are its parts.
        l1_misses, l2_misses: Cache lines that simulated caches of the core's sizes did not hold.
        read_bytes, written_bytes: Of all accesses to memory.
        values: Output values compared with those of the same runtime on this machine, on the same inputs.
        differing: How many of them are not the same.
        difference, largest: The greatest distance between two of them, and the greatest magnitude there is here.
    """

    instructions: int
    classes: dict[str, int]
    l1_misses: int
    l2_misses: int
    read_bytes: int
    written_bytes: int
    values: int
    differing: int
    difference: float
    largest: float


class Measurement(Value):
    """One profile of one artifact on one target: the cost and everything needed to repeat it.

    Attributes:
        precision: The precision the runtime really used, such as int8 or bf16.
        to_reference: Its time over that of a reference file timed beside it, which repeats better than either.
        reference_s: What that file took, a median.
    """

    cost: Cost
    target: str
    runtime: str
    runtime_version: str
    threads: int
    precision: str
    runs: int = 0
    p50_s: float | None = None
    p90_s: float | None = None
    p99_s: float | None = None
    to_reference: float | None = None
    reference_s: float | None = None
    load_s: float | None = None
    ops: tuple[OpCost, ...] = ()
    counts: Counts | None = None
    board: BoardCounts | None = None
    environment: dict[str, str] = {}
    notes: tuple[str, ...] = ()

    @property
    def typical_s(self) -> float | None:
        """The median of a measured run, the central value of an estimate."""
        return self.cost.latency_s if self.p50_s is None else self.p50_s


class Correction(Value):
    """How estimates are bent towards what was profiled: latency to factor * estimate + offset, RAM and size shifted.

    Attributes:
        ops: Factors on single operators by name, from their own times; 1 where there is none.
    """

    latency: float = 1.0
    latency_offset_s: float = 0.0
    ram_bytes: int = 0
    size_bytes: int = 0
    ops: dict[str, float] = {}

    def latency_of(self, plain_s: float) -> float:
        """The corrected latency of a plain estimate."""
        return self.latency * plain_s + self.latency_offset_s

    def plain_latency(self, corrected_s: float) -> float:
        """The plain estimate that is corrected to this latency."""
        return (corrected_s - self.latency_offset_s) / self.latency
