"""Per-operator times of a .tflite file through the C profiler inside LiteRT's library.

The Python interpreter has no profiler. The library exports one in C whose event layout is not promised, so it is
called in a child process, its answer is checked for sense, and no answer means an empty table.
"""

from __future__ import annotations

import ctypes as c
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

_CPU = 1
_DELEGATE_OP, _WHOLE_CALL = 8, 1
_EVENT_WORDS = 13  # of 8 bytes, in ai-edge-litert 2.3
_TIMEOUT_S = 120


def time_in_child(path: Path, runs: int, threads: int) -> tuple[tuple[str, str, float], ...]:
    """(name, type, mean seconds per inference) of each operator XNNPACK ran; empty when the profiler fails."""
    command = [sys.executable, "-m", __name__, str(path), str(runs), str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return ()
    if done.returncode != 0:
        return ()
    try:
        rows = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return ()
    return tuple((str(name), str(kind), float(seconds)) for name, kind, seconds in rows)


class _Library:
    """The C interface: every call returns a status that must be zero."""

    def __init__(self) -> None:
        import ai_edge_litert

        self._functions = c.CDLL(str(Path(ai_edge_litert.__file__).parent / "libLiteRt.so"))

    def __call__(self, name: str, *arguments: Any) -> None:
        status = getattr(self._functions, "LiteRt" + name)(*arguments)
        if status:
            raise RuntimeError(f"{name} returned {status}")


def profile(path: Path, runs: int, threads: int) -> list[tuple[str, str, float]]:
    """The table, in this process. A layout that does not fit raises or crashes: call it in a child."""
    call = _Library()
    environment, model, options, signature = c.c_void_p(), c.c_void_p(), c.c_void_p(), c.c_void_p()
    compiled, profiler = c.c_void_p(), c.c_void_p()
    call("CreateEnvironment", 0, None, c.byref(environment))
    call("CreateModelFromFile", environment, str(path).encode(), c.byref(model))
    call("CreateOptions", c.byref(options))
    call("SetOptionsHardwareAccelerators", options, _CPU)
    keep = [
        _add_options(call, options, b"runtime_options_string", b"enable_profiling = true\n"),
        _add_options(call, options, b"xnnpack", f"num_threads = {threads}\n".encode()),
    ]
    call("CreateCompiledModel", environment, model, options, c.byref(compiled))
    call("CompiledModelGetProfiler", compiled, c.byref(profiler))
    call("GetModelSignature", model, c.c_size_t(0), c.byref(signature))
    inputs = _buffers(call, environment, compiled, signature, "Input")
    outputs = _buffers(call, environment, compiled, signature, "Output")
    for index in range(5 + runs):
        if index == 5:
            call("ResetProfiler", profiler)
            call("StartProfiler", profiler)
        call("RunCompiledModel", compiled, c.c_size_t(0), *inputs, *outputs)
    call("StopProfiler", profiler)
    del keep
    return _table(_events(call, profiler), runs)


def _add_options(call: _Library, options: c.c_void_p, identifier: bytes, text: bytes) -> Any:
    libc = c.CDLL(None)
    libc.strdup.restype = c.c_void_p
    deleter = c.CFUNCTYPE(None, c.c_void_p)(lambda pointer: None)
    opaque = c.c_void_p()
    payload = c.c_void_p(libc.strdup(text))
    call("CreateOpaqueOptions", c.c_char_p(identifier), payload, deleter, c.byref(opaque))
    call("AddOpaqueOptions", options, opaque)
    return deleter


def _buffers(
    call: _Library, environment: c.c_void_p, compiled: c.c_void_p, signature: c.c_void_p, kind: str
) -> tuple[c.c_size_t, Any]:
    count = c.c_size_t()
    call(f"GetNumSignature{kind}s", signature, c.byref(count))
    buffers = (c.c_void_p * count.value)()
    for index in range(count.value):
        tensor, requirements, buffer = c.c_void_p(), c.c_void_p(), c.c_void_p()
        tensor_type = (c.c_char * 256)()
        call(f"GetSignature{kind}TensorByIndex", signature, c.c_size_t(index), c.byref(tensor))
        call("GetRankedTensorType", tensor, tensor_type)
        zero, number = c.c_size_t(0), c.c_size_t(index)
        call(f"GetCompiledModel{kind}BufferRequirements", compiled, zero, number, c.byref(requirements))
        call("CreateManagedTensorBufferFromRequirements", environment, tensor_type, requirements, c.byref(buffer))
        buffers[index] = buffer
    return count, buffers


def _events(call: _Library, profiler: c.c_void_p) -> list[tuple[str, int, float]]:
    """(tag, type, seconds) of every event."""
    count = c.c_int()
    call("GetNumProfilerEvents", profiler, c.byref(count))
    # Room for events of twice the known size and more: a short buffer would corrupt the heap.
    raw = (c.c_uint64 * (count.value * 32))()
    call("GetProfilerEvents", profiler, c.c_int(count.value), raw)
    events = []
    for index in range(count.value):
        tag, kind, _start, elapsed = raw[index * _EVENT_WORDS : index * _EVENT_WORDS + 4]
        kind &= 0xFFFFFFFF
        if kind in (_DELEGATE_OP, _WHOLE_CALL):
            name = c.string_at(tag).decode(errors="replace")
            events.append((name, kind, elapsed * 1e-6))
    return events


def _table(events: list[tuple[str, int, float]], runs: int) -> list[tuple[str, str, float]]:
    """Mean per position in the run: the operators of one inference come in the same order every time."""
    operators = [(name, seconds) for name, kind, seconds in events if kind == _DELEGATE_OP]
    if not operators or len(operators) % runs:
        return []
    per_run = len(operators) // runs
    seconds_at: dict[int, list[float]] = defaultdict(list)
    for index, (name, seconds) in enumerate(operators):
        if name != operators[index % per_run][0] or not 0 <= seconds < _TIMEOUT_S:
            return []
        seconds_at[index % per_run].append(seconds)
    return [(f"{at}", operators[at][0], sum(seconds_at[at]) / runs) for at in range(per_run)]


if __name__ == "__main__":
    print(json.dumps(profile(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
