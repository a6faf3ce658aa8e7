"""A library compiled for this machine and run, so that its own answers can be judged."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.backends import Array
from edgeprune.backends.c.library import read_report
from edgeprune.device.memory import ALIGNMENT
from edgeprune.errors import MissingExtraError, QualityError, UsageError

_FLAGS = ("-std=c99", "-O2", "-shared", "-fPIC")
_GUARD = 0xA5
_GUARD_BYTES = 64


@cache
def compiler() -> tuple[str, ...]:
    """The command of a C compiler for this machine; empty where there is none."""
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return (found,)
    return (sys.executable, "-m", "ziglang", "cc") if find_spec("ziglang") else ()


def compile_library(report: Path, folder: Path) -> Path:
    """The library's sources as a shared object in `folder`.

    Raises:
        MissingExtraError: There is no C compiler.
        UsageError: A source is missing, or the compiler refuses them.
    """
    root, document = report.parent, read_report(report)
    command = compiler()
    if not command:
        raise MissingExtraError(
            "running a C library here needs a C compiler", hint="install gcc or clang, or the Python package ziglang"
        )
    files = [str(root / file) for file in document["files"] if file.startswith("src/") and file.endswith(".c")]
    built = folder / f"lib{document['name']}.so"
    done = subprocess.run(
        [*command, *_FLAGS, f"-I{root / 'include'}", f"-I{root / 'src'}", *files, "-o", str(built)],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise UsageError(f"the C compiler refuses the library: {_reason(done.stderr)}", where=str(report))
    return built


def _reason(log: str) -> str:
    """The first line of a compiler's messages that tells of an error; warnings may precede it."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else "no message")


class LibrarySession:
    """A C library run on this machine; see `edgeprune.backends.Session`."""

    def __init__(self, report: Path) -> None:
        self.report = read_report(report)
        self.runtime = "edgeprune-c"
        self.runtime_version = str(self.report["tool_version"])
        self.threads = 1
        self.precision = "int8"
        with tempfile.TemporaryDirectory() as folder:
            built = compile_library(report, Path(folder))
            self._run = getattr(ctypes.CDLL(str(built)), f"{self.report['name']}_run")
        size = int(self.report["arena_bytes"])
        block = np.full(size + 2 * _GUARD_BYTES + ALIGNMENT, _GUARD, np.uint8)
        start = -(block.ctypes.data + _GUARD_BYTES) % ALIGNMENT + _GUARD_BYTES
        self._block, self._inside = block, slice(start, start + size)

    def run_stored(self, inputs: list[Array]) -> list[Array]:
        """Outputs for inputs, both as the file stores them.

        Raises:
            QualityError: The library wrote memory beside its arena.
        """
        held = [
            np.ascontiguousarray(values, dtype=end["type"]).reshape(end["shape"])
            for values, end in zip(inputs, self.report["inputs"], strict=True)
        ]
        given = [np.zeros(end["shape"], end["type"]) for end in self.report["outputs"]]
        pointers = [ctypes.c_void_p(values.ctypes.data) for values in (*held, *given)]
        self._run(*pointers, ctypes.c_void_p(self._block[self._inside].ctypes.data))
        if np.any(self._block[: self._inside.start] != _GUARD) or np.any(self._block[self._inside.stop :] != _GUARD):
            raise QualityError("the C library wrote memory beside its arena", where=self.report["name"])
        return given

    def run(self, inputs: Array) -> Array:
        """Outputs (n, ...) float32 of the first output for inputs (n, ...) float32, one sample at a time.

        Raises:
            UsageError: Samples of another shape, or a library that takes more than one input.
        """
        if len(self.report["inputs"]) != 1:
            raise UsageError(
                f"the library takes {len(self.report['inputs'])} inputs, samples have one", where=self.report["name"]
            )
        return np.concatenate([self._run_one(sample[None]) for sample in inputs])

    def _run_one(self, sample: Array) -> Array:
        (taken,), given = self.report["inputs"], self.report["outputs"][0]
        shape = tuple(taken["shape"])
        moved = (sample.shape[0], *sample.shape[2:], sample.shape[1]) if sample.ndim == 4 else sample.shape
        image = sample.transpose(0, 2, 3, 1) if sample.ndim == 4 and moved == shape else sample
        if image.shape != shape:
            raise UsageError(
                f"the library takes {_times(shape)}, the sample is {_times(sample.shape)}",
                hint="give samples as the model was exported for",
            )
        output = dequantized(self.run_stored([quantized(image, taken)])[0], given)
        return output.transpose(0, 3, 1, 2) if output.ndim == 4 else output


def quantized(values: Array, end: dict[str, Any]) -> Array:
    """Float values as an end of the library stores them."""
    if end["scale"] is None or end["type"] == "float32":
        return values.astype(end["type"])
    limits = np.iinfo(end["type"])
    scale = float(np.float32(end["scale"]))
    levels: Array = np.clip(np.round(values / scale) + end["zero_point"], limits.min, limits.max).astype(end["type"])
    return levels


def dequantized(values: Array, end: dict[str, Any]) -> Array:
    """Stored values of an end of the library as float32."""
    if end["scale"] is None or end["type"] == "float32":
        return values.astype(np.float32)
    floats: Array = ((values.astype(np.float32) - end["zero_point"]) * end["scale"]).astype(np.float32)
    return floats


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
