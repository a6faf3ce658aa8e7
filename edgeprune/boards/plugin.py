"""QEMU's plug-in that counts (`count.c`): compiled on first use for the QEMU that is here, and what it writes, read."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeprune.boards.kit import QEMU, folder, qemu_version
from edgeprune.errors import DeviceError, QualityError
from edgeprune.target import Emulation

SOURCE = Path(__file__).with_name("count.c")
CLASSES = (
    "integer",
    "branch",
    "load",
    "store",
    "vector_load",
    "vector_store",
    "vector",
    "multiply_add",
    "dot",
    "long_multiply",
    "matrix",
    "sve",
    "system",
)
_OTHERS = ("l1_misses", "l2_misses", "read_bytes", "written_bytes")
_FLAGS = ("-O2", "-fPIC", "-shared", "-fvisibility=hidden")
_DECLARED = (1, 2)  # what QEMU before 9 and from 9 on accepts of a plug-in that only asks


@dataclass(frozen=True)
class Tally:
    """What was executed between two marks.

    Attributes:
        classes: Instructions by class, all of `CLASSES`.
        l1_misses, l2_misses: Lines that the simulated caches did not hold.
        read_bytes, written_bytes: Of all accesses.
    """

    classes: Mapping[str, int]
    l1_misses: int
    l2_misses: int
    read_bytes: int
    written_bytes: int

    @property
    def instructions(self) -> int:
        """All of them."""
        return sum(self.classes.values())

    def minus(self, other: Tally) -> Tally:
        """What is more in this than in the other; nothing goes below zero."""
        classes = {name: max(0, count - other.classes[name]) for name, count in self.classes.items()}
        return Tally(classes, *(max(0, getattr(self, name) - getattr(other, name)) for name in _OTHERS))


def read_tallies(text: str) -> tuple[Tally, ...]:
    """What lies between each two marks, the pair around nothing taken off the others; the first is the first run's.

    Raises:
        QualityError: The text is not what the plug-in writes of a whole run.
    """
    try:
        lines = [json.loads(line) for line in text.splitlines()[1:]]
        marks = {int(line["mark"]): _tally(line) for line in lines}
        pairs = [marks[at + 1].minus(marks[at]) for at in range(0, len(marks), 2)]
    except (ValueError, KeyError, TypeError) as error:
        raise QualityError(f"the emulator's counts cannot be read: {error}", hint="please report it") from None
    if len(pairs) < 2:
        raise QualityError("the emulator counted no inference", hint="please report it")
    return tuple(pair.minus(pairs[0]) for pair in pairs[1:])


def _tally(line: Mapping[str, int]) -> Tally:
    return Tally({name: int(line[name]) for name in CLASSES}, *(int(line[name]) for name in _OTHERS))


def option(emulated: Emulation, counts: Path) -> list[str]:
    """QEMU's options that load the plug-in, which writes to `counts`.

    Raises:
        DeviceError: It cannot be compiled, or the QEMU takes no plug-ins.
    """
    sizes = f"l1={emulated.l1_bytes}:{emulated.l1_ways},l2={emulated.l2_bytes}:{emulated.l2_ways}"
    return ["-plugin", f"{compiled()},out={counts},{sizes}"]


def compiled() -> Path:
    """The plug-in for the QEMU that is here.

    Raises:
        DeviceError: It cannot be compiled, or the QEMU takes no plug-ins.
    """
    key = hashlib.sha256(SOURCE.read_bytes() + qemu_version().encode()).hexdigest()[:16]
    path = folder() / f"count-{key}.so"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="count-") as scratch:
            _compile(Path(scratch) / "count.so", f"-DPLUGIN_API={_api(Path(scratch))}").rename(path)
    return path


def _api(scratch: Path) -> int:
    """The version of its plug-in interface that the QEMU tells a plug-in which does nothing else but ask."""
    said, said_last = scratch / "said", "it said nothing"
    for declared in _DECLARED:
        probe = _compile(scratch / f"ask-{declared}.so", f"-DDECLARED_API={declared}")
        command = [QEMU, "-plugin", f"{probe},out={said}", "/nothing"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if said.is_file() and said.read_text():
            return int(json.loads(said.read_text())["api"])
        said_last = (done.stderr.strip() or said_last).splitlines()[-1]
    raise DeviceError(
        f"{qemu_version() or QEMU} loads no plug-ins: {said_last[:300]}",
        hint="the package qemu-user has one that does; qemu-user-static does not",
    )


def _compile(to: Path, *defines: str) -> Path:
    done = subprocess.run(
        ["cc", *_FLAGS, *defines, "-o", str(to), str(SOURCE)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise DeviceError(f"{SOURCE.name} does not compile: {done.stderr.strip().splitlines()[0][:300]}", where="cc")
    return to
