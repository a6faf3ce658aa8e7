"""What a C library costs on a microcontroller that is not there: executed on an emulated core, counted, compared.

Takes an int8 .tflite file, which is written as a library for the target first, or a library. Instructions, bytes and
outputs are exact; cycles and latency are an interval.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune import backends
from edgeprune.backends import Array
from edgeprune.backends.c.host import LibrarySession
from edgeprune.backends.c.library import read_report
from edgeprune.cost import Cost, Counts, Measurement, OpCost
from edgeprune.emulate import qemu
from edgeprune.emulate.cores import core_of
from edgeprune.emulate.profile import EmulatedProfile, LayerProfile, profile_library, target_facts
from edgeprune.emulate.toolchain import ToolchainName, find_toolchain
from edgeprune.errors import QualityError, UnsupportedError
from edgeprune.progress import SILENT, Progress
from edgeprune.target import Target

RUNTIME = "edgeprune-c"
VECTORS = 100  # inputs on which a file's library is compared with the reference kernels
_EXECUTED = 2  # of them are run on the emulated core; the others on this machine, by the same sources
_NAME = "model"
_ROOM_BYTES = 64 * 2**20  # of each memory, where what a model needs is asked and not whether it fits


def check_tools(target: Target) -> None:
    """Refuse, before there is any work, a target whose libraries cannot be executed here.

    Raises:
        MissingExtraError: There is no compiler for its core, or no emulator of the system's.
        UnsupportedError: There is no emulator for it anywhere.
    """
    find_toolchain()
    if not core_of(target.cpu.core).unicorn:
        qemu.version()


def profile_emulated(
    path: Path,
    target: Target,
    *,
    compared: int = VECTORS,
    toolchain: ToolchainName | None = None,
    must_fit: bool = True,
    progress: Progress = SILENT,
) -> Measurement:
    """The cost of an int8 .tflite file, or of a C library, on a target's emulated core.

    Args:
        compared: Random inputs on which outputs are compared with LiteRT's reference kernels; two of them are run on
            the emulated core, all by the same sources on this machine.
        toolchain: The best that is installed when None.
        must_fit: Whether what overflows the target's memories is an error; else they are taken to be large enough.

    Raises:
        BudgetError: It does not fit the target's flash or RAM.
        MissingExtraError: There is no compiler for the core, or no emulator.
        QualityError: It faults, or answers otherwise on the emulated core than here.
        UnsupportedError: An operator cannot be written as C, or there is no emulator for the core.
        UsageError: The file is missing or damaged, or the target does not say where its memories lie.
    """
    check_tools(target)
    facts = target_facts(target)
    if not must_fit:
        facts = replace(facts, memory=replace(facts.memory, flash_bytes=_ROOM_BYTES, ram_bytes=_ROOM_BYTES))
    backend: Any = backends.get("c")
    with tempfile.TemporaryDirectory() as scratch:
        report, source = path, _source(path)
        if path.name.endswith(".tflite"):
            progress.note(f"writing {path.name} as C")
            report = backend.convert(path, Path(scratch) / _NAME, _NAME, target)
        library = read_report(report)
        inputs = _random(library, compared)
        progress.note(f"executing {report.name} on an emulated {target.cpu.core}")
        found = profile_library(
            tuple(report.parent / file for file in library["files"] if file.startswith("src/") and file.endswith(".c")),
            (report.parent / "include", report.parent / "src"),
            library["name"],
            library["arena_bytes"],
            [values.tobytes() for values in inputs[:_EXECUTED]],
            _end(library, "outputs")[1].itemsize * prod(_end(library, "outputs")[0]),
            facts,
            toolchain=find_toolchain(toolchain) if toolchain else None,
        )
        progress.note(f"comparing {compared} outputs with the reference kernels")
        wrong = _mismatches(library, found, inputs, LibrarySession(report), source)
        ops = backend.read_ops(report)
    return _measurement(found, library, ops, target, wrong, len(inputs))


def _source(path: Path) -> Path | None:
    """The .tflite file that a library was made from, where it still lies beside its folder."""
    if path.name.endswith(".tflite"):
        return path
    beside = path.parent.parent / f"{path.name.removesuffix('.c.json')}.tflite"
    made_from = read_report(path)["model_sha256"]
    same = beside.is_file() and hashlib.sha256(beside.read_bytes()).hexdigest() == made_from
    return beside if same else None


def _end(library: dict[str, Any], ends: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the only input or output.

    Raises:
        UnsupportedError: There are several.
    """
    if len(library[ends]) != 1:
        raise UnsupportedError(f"a network with {len(library[ends])} {ends} cannot be executed in the emulator")
    (end,) = library[ends]
    return tuple(end["shape"]), np.dtype(end["type"])


def _random(library: dict[str, Any], count: int) -> list[Array]:
    """Inputs over all stored values."""
    shape, kind = _end(library, "inputs")
    limits, random = np.iinfo(kind), np.random.default_rng(0)
    return [random.integers(limits.min, limits.max, shape, dtype=kind, endpoint=True) for _ in range(count)]


def _mismatches(
    library: dict[str, Any], found: EmulatedProfile, inputs: list[Array], session: LibrarySession, source: Path | None
) -> int | None:
    """Output values that differ from the reference kernels, the first ones as the emulated core wrote them.

    None where the file that the library was made from is not at hand.

    Raises:
        QualityError: The emulated core and this machine disagree.
    """
    kind = _end(library, "outputs")[1]
    written = [session.run_stored([values])[0].ravel() for values in inputs]
    for number, stored in enumerate(found.outputs):
        emulated = np.frombuffer(stored, kind)
        if wrong := int(np.sum(emulated != written[number])):
            raise QualityError(
                f"{wrong} of {emulated.size} output values differ between the emulated {found.core} and this machine",
                where=library["name"],
                hint="the kernels of one of them are wrong; please report the model",
            )
    if source is None:
        return None
    tflite: Any = backends.get("tflite")
    reference = tflite.interpreter(source, 1, reference=True)
    wrong = 0
    for values, output in zip(inputs, written, strict=True):
        reference.set_tensor(reference.get_input_details()[0]["index"], values)
        reference.reset_all_variables()  # as the library, whose states start anew in each run
        reference.invoke()
        wrong += int(np.sum(reference.get_tensor(reference.get_output_details()[0]["index"]).ravel() != output))
    return wrong


def _measurement(
    found: EmulatedProfile,
    library: dict[str, Any],
    ops: tuple[Any, ...],
    target: Target,
    wrong: int | None,
    compared: int,
) -> Measurement:
    clock_hz = target.cpu.clock_hz
    layers = {layer.index: layer for layer in found.layers if layer.index is not None}
    rows = tuple(_row(op, layers.get(at), clock_hz) for at, op in enumerate(ops))
    return Measurement(
        cost=_cost(found, library, sum(op.macs for op in ops)),
        target=target.name,
        runtime=RUNTIME,
        runtime_version=library["tool_version"],
        threads=1,
        precision="int8",
        ops=rows,
        counts=Counts(
            instructions=max(found.instructions),
            cycles=None if found.cycles is None else (round(found.cycles[0]), round(found.cycles[1])),
            arena_bytes=library["arena_bytes"],
            arena_bound_bytes=library["arena_bound_bytes"],
            stack_bytes=found.stack_bytes,
            flash_bytes=found.flash_bytes,
            code_bytes=found.code_bytes,
            weights_bytes=found.weights_bytes,
            mismatches=wrong,
            compared=0 if wrong is None else compared,
        ),
        environment={"core": found.core, "toolchain": found.toolchain, "emulator": found.emulator},
        notes=found.notes,
    )


def _cost(found: EmulatedProfile, library: dict[str, Any], macs: int) -> Cost:
    """RAM is arena and stack: what the network needs, its input and output in the arena."""
    ram_bytes = library["arena_bytes"] + found.stack_bytes
    return found.cost.model_copy(update={"ram_bytes": ram_bytes, "macs": macs})


def _row(op: Any, layer: LayerProfile | None, clock_hz: int | None) -> OpCost:
    plain = OpCost(name=op.name, kind=op.kind, latency_s=None, macs=op.macs)
    if layer is None:
        return plain
    latency_s = sum(layer.cycles) / 2 / clock_hz if layer.cycles and clock_hz else None
    return plain.model_copy(update={"latency_s": latency_s, "instructions": layer.instructions})
