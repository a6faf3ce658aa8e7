"""Opens a model file in a process of its own: a damaged or hostile file can end that process and nothing else.

    python -m edgeprune.runner.opener contents tflite model.tflite
    python -m edgeprune.runner.opener times tflite model.tflite RUNS THREADS [INPUTS.npy]

The child prints one JSON document. `read_contents` and `read_times` start it and read the answer.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune import backends
from edgeprune.backends import Inspection
from edgeprune.device.ops import Op
from edgeprune.errors import EdgepruneError, MissingExtraError, UsageError

Times = tuple[tuple[str, str, float], ...]

_CPU_LIMIT_S = 300
_MEMORY_LIMIT_BYTES = 16 * 2**30
_TIMEOUT_S = 600


@dataclass(frozen=True)
class Contents:
    """What is in a file. `arena_bytes` is None where the runtime plans no arena that can be asked for."""

    ops: tuple[Op, ...]
    inspection: Inspection
    arena_bytes: int | None


def read_contents(path: Path, backend: str, *, arena: bool = False) -> Contents:
    """Operators, number formats and, where asked for, the arena of a model file, read in a child process.

    Raises:
        MissingExtraError: The runtime is not installed.
        UsageError: The file cannot be read.
    """
    answer = _ask("arena" if arena else "contents", backend, str(path))
    ops = tuple(Op(**_tuples(fields)) for fields in answer["ops"])
    return Contents(ops, Inspection.model_validate(answer["inspection"]), answer["arena_bytes"])


def read_times(path: Path, backend: str, runs: int, threads: int, inputs: Path | None = None) -> Times:
    """(name, type, mean seconds per inference) of each operator, measured in a child process.

    Args:
        inputs: .npy file of samples (n, ...) float32; noise when None.

    Raises:
        MissingExtraError: The runtime is not installed.
        UsageError: The file cannot be read.
    """
    extra = [str(inputs)] if inputs else []
    answer = _ask("times", backend, str(path), str(runs), str(threads), *extra)
    return tuple((str(name), str(kind), float(seconds)) for name, kind, seconds in answer["times"])


def child_environment() -> dict[str, str]:
    """The environment in which a child finds this package, installed or not."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH", "")])]
    own = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}  # the last line is the error
    return {**own, "PYTHONPATH": os.pathsep.join(paths)}


def _ask(*arguments: str) -> Any:
    command = [sys.executable, "-m", __name__, *arguments]
    where = arguments[2]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False, env=child_environment())
    except subprocess.TimeoutExpired:
        raise UsageError(f"opening it took more than {_TIMEOUT_S} s", where=where) from None
    if done.returncode < 0:
        raise UsageError(
            f"opening it ended its process with signal {-done.returncode}", where=where, hint="the file is damaged"
        )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no answer"])[-1]
        raise UsageError(f"cannot open it: {last[:300]}", where=where) from None
    if "error" in answer:
        kind = MissingExtraError if answer["error"] == "MISSING_EXTRA" else UsageError
        raise kind(answer["message"], where=answer["where"] or where, hint=answer["hint"])
    return answer


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _answer(question: str, backend_name: str, file: str, *rest: str) -> dict[str, Any]:
    backend, path = backends.get(backend_name), Path(file)
    if question == "times":
        runs, threads = int(rest[0]), int(rest[1])
        samples = np.load(rest[2], allow_pickle=False) if len(rest) > 2 else None
        return {"times": backend.time_ops(path, samples, runs, threads)}
    plan = getattr(backend, "arena_bytes", None) if question == "arena" else None
    return {
        "ops": [asdict(op) for op in backend.read_ops(path)],
        "inspection": backend.inspect(path).model_dump(),
        "arena_bytes": plan(path) if plan else None,
    }


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_LIMIT_S, _CPU_LIMIT_S))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT_BYTES, _MEMORY_LIMIT_BYTES))


def _main(arguments: list[str]) -> None:
    document = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _limit()
    try:
        answer = _answer(*arguments)
    except EdgepruneError as error:
        answer = {"error": error.code, "message": error.message, "where": error.where, "hint": error.hint}
    json.dump(answer, document)
    document.close()


if __name__ == "__main__":
    _main(sys.argv[1:])
