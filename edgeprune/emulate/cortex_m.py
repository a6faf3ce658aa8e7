"""Calls a function of a linked library on an emulated Cortex-M: outputs, executed blocks, depth of the stack.

Exact and repeatable, for cores that Unicorn has a model of. Buffers lie apart in the emulated memory, each followed by
nothing, and flash cannot be written: a library that leaves what it was given faults here, with the function's name.
Not found are reads and writes of a buffer that begin before it, LDM and LDRD at addresses that a board would refuse.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.emulate import unicorn_child
from edgeprune.emulate.cores import Core
from edgeprune.emulate.elf import Image
from edgeprune.emulate.toolchain import MemoryMap
from edgeprune.errors import DeviceError, EdgepruneError, QualityError, UnsupportedError, missing_extra

STACK_BYTES = 256 * 1024
LIMIT_BYTES = 10**10  # of executed instructions: some 4e9 of them
_CHILD = Path(unicorn_child.__file__)
# Numbers of the engine's exceptions
_EXCEPTIONS = {1: "undefined instruction", 2: "svc", 3: "prefetch abort", 4: "data abort", 7: "breakpoint"}
_EXCEPTIONS |= {17: "no floating point", 18: "invalid state", 22: "unaligned access"}


@dataclass(frozen=True)
class BlockCount:
    """How often the instructions from `address` to `address + size` were executed, as one.

    Attributes:
        sequential: Executions of those that came from the instruction just before, no branch taken.
    """

    address: int
    size: int
    executed: int
    sequential: int


@dataclass(frozen=True)
class Run:
    """One call.

    Attributes:
        output: What it wrote.
        returned: Its return value as an unsigned 32-bit number.
        stack_bytes: The deepest the stack went.
        layers: Blocks by layer; None is what belongs to no layer.
    """

    output: bytes
    returned: int
    stack_bytes: int
    layers: dict[int | None, tuple[BlockCount, ...]]


@dataclass(frozen=True)
class Call:
    """What is called, as `int entry(const int8_t *input, int8_t *output, void *arena)`.

    Attributes:
        layers: Functions that mark where a layer begins, by name; it ends where they return to the entry.
        limit_bytes: Bytes of executed instructions after which a call is given up.
        limit_s: Seconds of CPU time after which it is given up, whatever was counted.
        portable: Count without machine code, as on hosts that are no x86-64; some 15 times slower.
    """

    entry: str
    inputs: tuple[bytes, ...]
    output_bytes: int
    arena_bytes: int
    layers: dict[str, int]
    stack_bytes: int = STACK_BYTES
    limit_bytes: int = LIMIT_BYTES
    limit_s: int = 120
    portable: bool = False


def call(image: Image, core: Core, memory: MemoryMap, wanted: Call) -> tuple[str, tuple[Run, ...]]:
    """The emulator's name and version, and one run per input, in order. Each begins with the same memory contents.

    Raises:
        UnsupportedError: The emulator has no model of the core.
        QualityError: The library faults: it leaves its buffers, executes what the core does not have, or does not end.
        DeviceError: The emulator failed.
        MissingExtraError: It is not installed.
    """
    if not core.unicorn:
        raise UnsupportedError(f"Unicorn has no model of {core.name}")
    answer = _asked(_request(image, core, memory, wanted), wanted.limit_s)
    for number, run in enumerate(answer["runs"]):
        if run["fault"]:
            raise _fault(run, image, core, wanted, number)
    return f"unicorn {answer['version']}", tuple(map(_run, answer["runs"]))


def _request(image: Image, core: Core, memory: MemoryMap, wanted: Call) -> dict[str, Any]:
    entry = image.symbol(wanted.entry)
    regions = [(memory.flash_address, memory.flash_bytes, "flash"), (memory.ram_address, memory.ram_bytes, "ram")]
    return {
        "core": core.unicorn,
        "memory": regions,
        "segments": [(s.address, base64.b64encode(s.data).decode()) for s in image.segments if s.data],
        "code": image.code,
        "entry": (entry.address, entry.address + entry.size),
        "layers": [(image.symbol(name).address, layer) for name, layer in wanted.layers.items()],
        "inputs": [base64.b64encode(data).decode() for data in wanted.inputs],
        "output_bytes": wanted.output_bytes,
        "arena_bytes": wanted.arena_bytes,
        "stack_bytes": wanted.stack_bytes,
        "limit_bytes": wanted.limit_bytes,
        "limit_s": wanted.limit_s,
        "portable": wanted.portable,
    }


def _asked(request: dict[str, Any], limit_s: int) -> dict[str, Any]:
    """The child's answer."""
    text = json.dumps(request)
    try:
        # waiting for the processor does not count, within reason
        done = subprocess.run(
            [sys.executable, str(_CHILD)], input=text, capture_output=True, text=True, timeout=10 * limit_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"the emulator did not answer within {10 * limit_s} s") from error
    if done.returncode == unicorn_child.MISSING:
        raise missing_extra("mcu", "emulating a Cortex-M")
    if done.returncode < 0:
        raise DeviceError(f"the emulator was ended by signal {-done.returncode}, after at most {limit_s} s of CPU time")
    if done.returncode:
        raise DeviceError(f"the emulator failed: {_last_line(done.stderr)}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


def _run(answer: dict[str, Any]) -> Run:
    layers: dict[int | None, dict[tuple[int, int], list[int]]] = {}
    for layer, rows in answer["segments"]:
        counts = layers.setdefault(layer, {})
        for address, size, executed, sequential in rows:
            total = counts.setdefault((address, size), [0, 0])
            total[0] += executed
            total[1] += sequential
    merged = {
        layer: tuple(BlockCount(*key, *total) for key, total in sorted(counts.items()))
        for layer, counts in layers.items()
        if counts
    }
    return Run(base64.b64decode(answer["output"]), answer["returned"], answer["stack_bytes"], merged)


def _fault(answer: dict[str, Any], image: Image, core: Core, wanted: Call, number: int) -> EdgepruneError:
    """The error for a run that did not return."""
    fault = answer["fault"]
    where = f"input {number}"
    name = image.function_at(fault["at"]) or f"{fault['at']:#x}"
    if fault["kind"] == "limit":
        return QualityError(
            f"{wanted.entry} has not returned after {wanted.limit_bytes} bytes of instructions; it is in {name}",
            where=where,
        )
    if fault["kind"] == "past":
        return QualityError(f"{wanted.entry} writes past the end of its {fault['buffer']}", where=where)
    if fault["kind"] == "exception":
        what = _EXCEPTIONS.get(fault["number"], f"exception {fault['number']}")
        return QualityError(f"{name} stops with {what} at {fault['at']:#x} on {core.name}", where=where)
    if fault["kind"] == "other":
        return QualityError(f"{name} stops at {fault['at']:#x} on {core.name}: {fault['message']}", where=where)
    return QualityError(
        f"{name} {fault['kind']} {fault['size']} bytes at {fault['address']:#x}, where it has nothing", where=where
    )


def layer_functions(image: Image, name: str) -> dict[str, int]:
    """Functions called `<name>_layer_<index>`, and what compilers split from them, with their index."""
    found = {}
    for symbol in image.symbols:
        head, _, rest = symbol.name.partition(f"{name}_layer_")
        index = rest.split(".")[0]
        if symbol.is_function and not head and index.isdigit():
            found[symbol.name] = int(index)
    return found
