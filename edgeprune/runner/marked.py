"""Runs a model file a few times with marks around each inference, for who counts instructions. Lies beside bench.py.

    python marked.py --runtime tflite --model model.tflite --runs 3 --outputs outputs.npz

A mark is a system call that does nothing and that nobody else makes; QEMU's plug-in (`boards/count.c`) writes its
counts there. Marks 0 and 1 stand around nothing, 2 and 3 around the first inference, and so on. Before the model is
loaded and after the last inference the script prints a line of JSON and waits for a line of stdin, so that its memory
can be looked at. On another machine than an aarch64 one there are no marks. Exit status 7: no such runtime.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import importlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

MARK = 0x45504D4B
_GETPRIORITY = 141  # of aarch64


def _bench() -> Any:
    """The script beside this one, as whatever it can be imported."""
    return importlib.import_module("edgeprune.runner.bench" if __package__ else "bench")


def marker() -> Any:
    """`mark(number)`: tells whoever counts that this moment is reached."""
    if platform.machine() != "aarch64":
        return lambda number: None
    call = ctypes.CDLL(None).syscall
    call.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_long)
    return lambda number: call(_GETPRIORITY, MARK, number)


def settle() -> None:
    """Give back what is free, so that memory used from now on shows; glibc alone can be asked to."""
    gc.collect()
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def say(stream: Any, **facts: Any) -> None:
    """Print a line and wait for one."""
    stream.write(json.dumps(facts) + "\n")
    stream.flush()
    sys.stdin.readline()


def main(arguments: list[str]) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--outputs", required=True, help=".npz file of the answers")
    parser.add_argument("--inputs", help=".npy with samples (n, ...) float32, images NCHW; noise when not given")
    parser.add_argument("--no-delegates", action="store_true", help="TFLite's own kernels instead of XNNPACK's")
    options = parser.parse_args(arguments)
    bench = _bench()
    try:
        version = bench.runtime_version(options.runtime)
    except ImportError as error:
        print(f"{options.runtime} is not installed: {error}", file=sys.stderr)
        return int(bench.EXIT_NO_RUNTIME)
    lines = os.fdopen(os.dup(1), "w")  # runtimes write to stdout as they load
    os.dup2(2, 1)
    settle()
    say(lines, at="imported", version=version, machine=platform.machine(), loaded=_libraries())
    samples = np.load(options.inputs, allow_pickle=False) if options.inputs else None
    more = {"delegates": False} if options.no_delegates else {}
    loaded = bench.LOADERS[options.runtime](options.model, 1, samples, **more)
    mark = marker()
    mark(0)
    mark(1)
    for run in range(options.runs):
        mark(2 * run + 2)
        loaded.call()
        mark(2 * run + 3)
    say(lines, at="ran", precision=loaded.precision())
    np.savez(options.outputs, *loaded.outputs())
    return 0


def _libraries() -> list[str]:
    """Shared objects that are mapped into this process."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return sorted({line.split(maxsplit=5)[5] for line in maps if ".so" in line})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
