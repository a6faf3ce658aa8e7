"""Profiles a C library for a microcontroller that is not there: compiled, linked to its memories, executed, counted.

Measured in emulation, exactly: outputs, instructions, bytes in flash and RAM, depth of the stack. Estimated: cycles and
latency, always as an interval.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeprune.cost import Cost, Source
from edgeprune.device.counted import Interval
from edgeprune.emulate import qemu
from edgeprune.emulate.cores import Core, core_of
from edgeprune.emulate.cortex_m import Call, Run, call, layer_functions
from edgeprune.emulate.cycles import FlashFacts, core_cycles, cycle_interval, provenance
from edgeprune.emulate.elf import Image, read_image
from edgeprune.emulate.instructions import Census, Classes, census_by_function, check_defined, classes
from edgeprune.emulate.toolchain import MemoryMap, Sources, Toolchain, build, find_toolchain, firmware
from edgeprune.errors import BudgetError, QualityError, UsageError
from edgeprune.target import Target


@dataclass(frozen=True)
class TargetFacts:
    """What a profile needs to know of a chip.

    Attributes:
        clock_hz: None leaves the latency open.
        flash: None takes the wait states of the boards that the cycles are fitted on.
    """

    core: Core
    memory: MemoryMap
    clock_hz: int | None = None
    flash: FlashFacts | None = None


@dataclass(frozen=True)
class LayerProfile:
    """What one layer executed, of the input that takes the most instructions.

    Attributes:
        index: As in `<name>_layer_<index>`; None is what lies in no layer.
        cycles: From, to; None where nothing is known of the core. The wait for weights is not in it: it is not known
            which layer's they are.
        core_cycles: What the cycles are taken to be proportional to, see `cycles`; None where nothing is known.
        functions: Instructions by function, the most first.
    """

    index: int | None
    classes: Classes
    cycles: Interval | None
    core_cycles: float | None
    functions: Mapping[str, int]

    @property
    def instructions(self) -> int:
        """All of them."""
        return self.classes.total


@dataclass(frozen=True)
class EmulatedProfile:
    """A library's profile on a target.

    Attributes:
        instructions: Executed in one call, for each input.
        classes: Of the input that takes the most; None where the emulator does not tell.
        cycles: From, to, for that input; an estimate. None where nothing is known of the core.
        latency_s: The cycles at the target's clock.
        code_bytes: Flash for instructions and the constants between them.
        weights_bytes: Flash for constant arrays.
        flash_bytes: All of flash.
        ram_bytes: Static RAM: arena, input and output buffers, variables.
        arena_bytes: The arena alone.
        stack_bytes: The deepest the stack went.
        outputs: What the library wrote, for each input.
        layers: In the order of their indices, what lies in no layer first; empty where the emulator does not tell.
        toolchain: Compiler and version.
        emulator: Emulator and version.
        notes: What a reader of the figures must know.
    """

    name: str
    core: str
    instructions: tuple[int, ...]
    classes: Classes | None
    cycles: Interval | None
    latency_s: Interval | None
    code_bytes: int
    weights_bytes: int
    flash_bytes: int
    ram_bytes: int
    arena_bytes: int
    stack_bytes: int
    outputs: tuple[bytes, ...]
    layers: tuple[LayerProfile, ...]
    toolchain: str
    emulator: str
    notes: tuple[str, ...]

    @property
    def cost(self) -> Cost:
        """The profile as a cost; RAM with the stack, size with the code. MACs are left open."""
        return Cost(
            source=Source.EMULATED,
            latency_s=sum(self.latency_s) / 2 if self.latency_s else None,
            latency_interval_s=self.latency_s,
            ram_bytes=self.ram_bytes + self.stack_bytes,
            ram_kind="arena",
            size_bytes=self.flash_bytes,
        )


def target_facts(target: Target) -> TargetFacts:
    """What a profile needs of a target file.

    Raises:
        UsageError: A fact is missing.
        UnsupportedError: No library can be compiled for its core.
    """
    memory = target.memory
    ram_bytes = memory.ram_block_bytes or memory.ram_bytes
    needed = {"flash_address": memory.flash_address, "flash_bytes": memory.flash_bytes}
    needed |= {"ram_address": memory.ram_address, "ram_bytes": ram_bytes}
    core = core_of(target.cpu.core)
    if missing := [name for name, value in needed.items() if value is None]:
        raise UsageError(f"target {target.name} does not say its {', '.join(missing)}", where="[memory]")
    waits, line = target.cpu.flash_wait_states, target.cpu.flash_line_bytes
    flash = FlashFacts(waits, line) if waits is not None and line is not None else None
    return TargetFacts(
        core, MemoryMap(**{k: v for k, v in needed.items() if v is not None}), target.cpu.clock_hz, flash
    )


def profile_library(
    sources: Sequence[Path],
    include_dirs: Sequence[Path],
    name: str,
    arena_bytes: int,
    inputs: Sequence[bytes],
    output_bytes: int,
    target: TargetFacts,
    *,
    defines: Mapping[str, str] | None = None,
    toolchain: Toolchain | None = None,
    optimisation: str | None = None,
) -> EmulatedProfile:
    """The profile of `int <name>_run(const int8_t *input, int8_t *output, void *arena)`.

    Functions called `<name>_layer_<index>` mark layers where the run function calls them.

    Args:
        sources: C files of the library; nothing else is linked but the compiler's own library.
        inputs: One call each, all of the same size.
        toolchain: None is the best that is installed.
        optimisation: None is the flag that is best for the core.

    Raises:
        BudgetError: It does not fit the target's flash or RAM; says by how many bytes.
        QualityError: It does not compile, faults, or returns anything but 0.
        MissingExtraError: There is no compiler or no emulator.
    """
    if not inputs or len({len(given) for given in inputs}) != 1:
        raise UsageError("a profile needs inputs, all of the same size")
    tools = toolchain or find_toolchain()
    around = firmware(len(inputs[0]), output_bytes, arena_bytes)
    library = Sources((*sources, *around.files), tuple(include_dirs), {**(defines or {}), **(around.defines or {})})
    entry = f"{name}_run"
    flag = optimisation or ("-O3" if target.core.unicorn else "-O2")  # GCC makes vector instructions slower at -O3
    with tempfile.TemporaryDirectory(prefix="edgeprune-emulate-") as folder:
        image = read_image(build(tools, target.core, library, entry, target.memory, Path(folder) / "library.elf", flag))
    wanted = Call(entry, tuple(inputs), output_bytes, arena_bytes, layer_functions(image, name))
    if target.core.unicorn:
        emulator, runs = call(image, target.core, target.memory, wanted)
        counts = _counts(image, runs, target)
        ends = [(run.output, run.returned, run.stack_bytes) for run in runs]
    else:
        emulator, answers = qemu.call(tools, target.core, library, wanted, flag)
        counts = _Counts(tuple(answer.instructions for answer in answers))
        ends = [(answer.output, answer.returned, answer.stack_bytes) for answer in answers]
    for number, (_, returned, _) in enumerate(ends):
        if returned:
            raise QualityError(f"{entry} returned {returned} instead of 0", where=f"input {number}")
    stack_bytes = max(stack_bytes for _, _, stack_bytes in ends)
    _check_room(image, stack_bytes, target)
    clock_hz = target.clock_hz
    return EmulatedProfile(
        name=name,
        core=target.core.name,
        instructions=counts.instructions,
        classes=counts.classes,
        cycles=counts.cycles,
        latency_s=(counts.cycles[0] / clock_hz, counts.cycles[1] / clock_hz) if counts.cycles and clock_hz else None,
        code_bytes=image.code_bytes,
        weights_bytes=image.weights_bytes,
        flash_bytes=image.flash_bytes,
        ram_bytes=image.ram_bytes,
        arena_bytes=arena_bytes,
        stack_bytes=stack_bytes,
        outputs=tuple(output for output, _, _ in ends),
        layers=counts.layers,
        toolchain=f"{tools.version} {flag}",
        emulator=emulator,
        notes=(*_executed(target.core), f"cycles: {provenance(target.core.name)}"),
    )


def _executed(core: Core) -> tuple[str, ...]:
    """How it was executed."""
    notes = ("executed in an emulator, not run on a board",)
    if core.executed_as == core.name:
        return notes
    return (
        *notes,
        f"executed as a {core.executed_as}, which has every instruction that was compiled for the {core.name}",
    )


@dataclass(frozen=True)
class _Counts:
    """What is known of the executed instructions; all but their number of the input that takes the most."""

    instructions: tuple[int, ...]
    classes: Classes | None = None
    cycles: Interval | None = None
    layers: tuple[LayerProfile, ...] = ()


def _counts(image: Image, runs: Sequence[Run], target: TargetFacts) -> _Counts:
    for run in runs[:1]:
        for blocks in run.layers.values():
            check_defined(image, target.core, blocks)
    counted = [{layer: census_by_function(image, blocks) for layer, blocks in run.layers.items()} for run in runs]
    totals = [sum(_together(by_function).total() for by_function in layers.values()) for layers in counted]
    most = counted[totals.index(max(totals))]
    census = _together({str(layer): _together(by_function) for layer, by_function in most.items()})
    core = target.core.name
    return _Counts(
        tuple(totals),
        classes(census),
        cycle_interval(core, census, image.weights_bytes, target.flash),
        tuple(_layer(core, at, most[at]) for at in sorted(most, key=lambda at: -1 if at is None else at)),
    )


def _together(parts: Mapping[str, Census]) -> Census:
    census: Census = Counter()
    for part in parts.values():
        census.update(part)
    return census


def _layer(core: str, index: int | None, by_function: Mapping[str, Census]) -> LayerProfile:
    census = _together(by_function)
    functions = sorted(((part.total(), function) for function, part in by_function.items()), reverse=True)
    named = {function: count for count, function in functions}
    needed = core_cycles(core, census)
    return LayerProfile(
        index, classes(census), cycle_interval(core, census, 0), None if needed is None else needed[1], named
    )


def _check_room(image: Image, stack_bytes: int, target: TargetFacts) -> None:
    over = image.ram_bytes + stack_bytes - target.memory.ram_bytes
    if over > 0:
        raise BudgetError(
            f"the library does not fit: RAM of {image.ram_bytes} bytes and a stack of {stack_bytes} bytes overflow the "
            f"{target.memory.ram_bytes} bytes of the chip by {over}",
            where=target.core.name,
        )
