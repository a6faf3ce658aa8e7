"""Damages .tflite files at random and reads them: each is refused by name or read into a model that keeps its promises.

    python -m bench.fuzz_tflite --seconds 600 [--seed 0] [FILE...]

Files are mutated copies of small models of every operator, and of the files given. They are read in a child process
with limited memory, so that a crash ends that process only and is counted. Which file is which follows from seed and
number alone: `--first NUMBER --files 1` makes one again. Prints one line of JSON, leaves no results; the exit status is
1 where anything was found.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from math import isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np

from bench.cells import ROOT
from edgeprune.backends.c.model import Model, Quantization
from edgeprune.backends.c.reader import read
from edgeprune.errors import EdgepruneError

Random = np.random.Generator

SLOWEST_S = 2.0  # a read beyond this is a finding
_MEMORY_BYTES = 2**30  # that reading may take beyond what the process has when it starts
_BATCH = 2000  # files of one child
_TIMEOUT_S = 300.0  # of one child
_WORDS = (0, 1, 2, 3, 4, 7, 8, 127, 128, 255, 2**15, 2**16 - 1, 2**16, 2**20, 2**28, 2**31 - 1, 2**31, 2**32 - 1)


@dataclass
class Counts:
    """What became of the files; `findings` are those that neither were refused nor kept their promises."""

    files: int = 0
    accepted: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    slowest_s: float = 0.0
    peak_mib: int = 0
    findings: list[str] = field(default_factory=list)


def main(arguments: Sequence[str]) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz_tflite", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", nargs="*", type=Path, metavar="FILE", help="more files to start from")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--seed", type=int, default=0, help="of all mutations (0)")
    parser.add_argument("--first", type=int, default=0, help="number of the first file (0)")
    parser.add_argument("--files", type=int, default=2**62, help="at most so many files")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)  # where it says which file it is at
    options = parser.parse_args(arguments)
    if options.child:
        print(json.dumps(asdict(_in_child(options))))
        return 0
    started = time.monotonic()
    total = Counts()
    while time.monotonic() < started + options.seconds and total.files < options.files:
        batch = min(_BATCH, options.files - total.files)
        _add(total, _batch(options.corpus, options.seed, options.first + total.files, batch))
    seconds = round(time.monotonic() - started, 1)
    print(json.dumps({"seconds": seconds, "seed": options.seed, **asdict(total)}))
    return 1 if total.findings else 0


def fuzz(corpus: Sequence[bytes], seed: int, numbers: Sequence[int], path: Path, at: int | None = None) -> Counts:
    """Mutate, write to `path` and read the files of these numbers.

    Args:
        at: Descriptor of a file that is told the number before each read, for whoever outlives this process.
    """
    counts, refused = Counts(), Counter[str]()
    for number in numbers:
        path.write_bytes(mutated(corpus, np.random.default_rng((seed, number))))
        if at is not None:
            os.pwrite(at, f"{number:<20}".encode(), 0)
        began = time.perf_counter()
        try:
            model = read(path)
        except EdgepruneError as error:
            refused[error.code] += 1
        except Exception:
            counts.findings.append(f"{number}: {traceback.format_exc(limit=-3)}")
        else:
            counts.accepted += 1
            counts.findings += [f"{number}: {broken}" for broken in broken_promises(model)]
        taken = time.perf_counter() - began
        counts.slowest_s = max(counts.slowest_s, round(taken, 3))
        if taken > SLOWEST_S:
            counts.findings.append(f"{number}: took {taken:.1f} s")
        counts.files += 1
    counts.refused = dict(refused)
    counts.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return counts


def broken_promises(model: Model) -> list[str]:
    """What does not hold of a model though its reader says so; checked anew, by other code."""
    broken: list[str] = []
    ready = set(model.inputs) | {
        i for i, tensor in enumerate(model.tensors) if tensor.data is not None or tensor.variable
    }
    for index, tensor in enumerate(model.tensors):
        data, quantization = tensor.data, tensor.quantization
        if data is not None and (data.shape != tensor.shape or data.dtype != np.dtype(tensor.dtype)):
            broken.append(f"tensor {index}: its data has another shape or type")
        if min(tensor.shape, default=1) < 0 or prod(tensor.shape) * np.dtype(tensor.dtype).itemsize > 2**28:
            broken.append(f"tensor {index}: its shape {tensor.shape} is out of range")
        if quantization is not None:
            if not all(isfinite(scale) and scale > 0 for scale in quantization.scales):
                broken.append(f"tensor {index}: a scale is not positive")
            span = {"int8": 128, "uint8": 256}.get(tensor.dtype, 1)
            if not all(-span <= zero < span for zero in quantization.zero_points):
                broken.append(f"tensor {index}: a zero point is out of range")
            if len(quantization.scales) > 1 and tensor.shape[quantization.axis] != len(quantization.scales):
                broken.append(f"tensor {index}: its scales do not fit its axis")
    for position, operator in enumerate(model.operators):
        if not ready.issuperset(i for i in operator.inputs if i is not None):
            broken.append(f"operator {position}: it reads what is not made yet")
        if not ready.isdisjoint(operator.outputs):
            broken.append(f"operator {position}: it makes what is there")
        if any(model.tensors[index].dtype == "float32" for index in operator.outputs):
            broken.append(f"operator {position}: it computes in floating point")
        ready.update(operator.outputs)
    return broken if ready.issuperset(model.outputs) else [*broken, "an output is not made"]


def mutated(corpus: Sequence[bytes], random: Random) -> bytes:
    """One file: a small model with wrong values well written, or the bytes of one of the corpus damaged."""
    if random.random() < 0.3:
        return _written(_edited(_model(int(random.integers(200))), random))
    data = bytearray(corpus[random.integers(len(corpus))])
    for _ in range(int(random.choice([1, 1, 1, 2, 4, 16]))):
        if len(data) < 16:
            break
        _MUTATIONS[random.integers(len(_MUTATIONS))](data, corpus, random)
    return bytes(data)


def _place(data: bytearray, width: int, random: Random) -> int:
    """A place for a number of so many bytes; most lie near the front, where the structure is."""
    reach = len(data) if random.random() < 0.5 else min(len(data), 4096)
    return int(random.integers(max(1, reach // width))) * width


def _flip(data: bytearray, corpus: Sequence[bytes], random: Random) -> None:
    data[_place(data, 1, random)] ^= 1 << int(random.integers(8))


def _replace_byte(data: bytearray, corpus: Sequence[bytes], random: Random) -> None:
    data[_place(data, 1, random)] = int(random.integers(256))


def _replace_word(data: bytearray, corpus: Sequence[bytes], random: Random) -> None:
    """A length, an offset, a size, an index that lies."""
    width = int(random.choice([2, 4, 4, 8]))
    at = _place(data, width, random)
    value = int(random.choice([*_WORDS, len(data), len(data) // 4]))
    data[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")


def _shift_word(data: bytearray, corpus: Sequence[bytes], random: Random) -> None:
    """An offset that leads beside, or back to where it was reached from."""
    at = _place(data, 4, random)
    value = int.from_bytes(data[at : at + 4], "little") + int(random.integers(-16, 17)) * int(random.choice([1, 4, 64]))
    data[at : at + 4] = (value % 2**32).to_bytes(4, "little")


def _cut(data: bytearray, corpus: Sequence[bytes], random: Random) -> None:
    del data[int(random.integers(len(data))) :]


def _remove(data: bytearray, corpus: Sequence[bytes], random: Random) -> None:
    at = _place(data, 1, random)
    del data[at : at + int(random.integers(1, 32))]


def _splice(data: bytearray, corpus: Sequence[bytes], random: Random) -> None:
    """A piece of another file, over what is there or pushed in between."""
    other = corpus[random.integers(len(corpus))]
    start, length = int(random.integers(len(other))), int(random.integers(1, 128))
    piece, at = other[start : start + length], _place(data, 4, random)
    data[at : at + (len(piece) if random.random() < 0.7 else 0)] = piece


_MUTATIONS = (_flip, _replace_byte, _replace_word, _replace_word, _shift_word, _cut, _remove, _splice)


@cache
def _model(number: int) -> Model:
    from tests.backends.c.examples import KINDS, example, network

    random = np.random.default_rng(number)
    return example(KINDS[number % len(KINDS)], random) if number % 4 else network(random)


def _edited(model: Model, random: Random) -> Model:
    """The model with some of its values wrong, or not quite."""
    for _ in range(int(random.choice([1, 1, 2, 3]))):
        if random.random() < 0.5:
            tensors = list(model.tensors)
            at = int(random.integers(len(tensors)))
            tensors[at] = replace(tensors[at], **_tensor_change(model, at, random))
            model = replace(model, tensors=tuple(tensors))
        else:
            operators = list(model.operators)
            at = int(random.integers(len(operators)))
            operators[at] = replace(operators[at], **_operator_change(model, at, random))
            model = replace(model, operators=tuple(operators))
    return model


def _number(random: Random) -> int:
    """Mostly small, sometimes as large as an int32 may be."""
    return int(random.integers(-2, 9)) if random.random() < 0.8 else int(random.choice(_WORDS)) % 2**32 - 2**31


def _tensor_change(model: Model, at: int, random: Random) -> dict[str, Any]:
    tensor = model.tensors[at]
    shape = list(tensor.shape) or [1]
    shape[random.integers(len(shape))] = _number(random)
    scales = tuple(float(random.choice([0.5, 0, -1, np.nan, np.inf, 1e-45, 3e38])) for _ in range(random.integers(3)))
    quantization = Quantization(scales, tuple(_number(random) for _ in scales), _number(random))
    changes: list[dict[str, Any]] = [
        {"shape": tuple(shape)},
        {"shape": tensor.shape[:-1] if random.random() < 0.5 else (*tensor.shape, 1)},
        {"quantization": quantization if random.random() < 0.8 else None},
        {"dtype": str(random.choice(["int8", "uint8", "int16", "int32", "int64", "bool", "float32"]))},
        {"variable": not tensor.variable},
    ]
    if tensor.data is not None and tensor.data.size:
        data = tensor.data.copy()
        data.ravel()[random.integers(data.size)] = _number(random) % 128
        changes += 3 * [{"data": data}] + [{"data": None}]
    change: dict[str, Any] = changes[random.integers(len(changes))]
    return change


def _operator_change(model: Model, at: int, random: Random) -> dict[str, Any]:
    operator = model.operators[at]
    end = str(random.choice(["inputs", "outputs"]))
    indices = list(getattr(operator, end))
    choice = random.random()
    if choice < 0.3 and indices:
        indices[random.integers(len(indices))] = int(random.integers(-1, len(model.tensors) + 1))
        return {end: tuple(indices)}
    if choice < 0.4:
        return {end: tuple(indices[:-1] if random.random() < 0.5 else [*indices, *indices[:1]])}
    if choice < 0.5:
        return {"version": _number(random)}
    numbers = [name for name, value in operator.options.items() if not isinstance(value, str)]
    if not numbers:
        return {"intermediates": (0,) * int(random.integers(7))}
    name = str(random.choice(numbers))
    kind = type(operator.options[name])
    return {"options": {**operator.options, name: kind(_number(random))}}


def _written(model: Model) -> bytes:
    from tests.backends.c.files import write

    with tempfile.TemporaryDirectory(dir=_memory_folder()) as folder:
        return write(model, Path(folder) / "model.tflite").read_bytes()


def _memory_folder() -> str | None:
    """A folder without a disk, where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def seeds() -> list[bytes]:
    """Files of small models to start from."""
    return [_written(_model(number)) for number in range(200)]


def _in_child(options: argparse.Namespace) -> Counts:
    corpus = seeds() + 4 * [path.read_bytes() for path in options.corpus]
    with tempfile.TemporaryDirectory(dir=_memory_folder()) as folder, options.child.open("r+b") as at:
        fuzz(corpus, options.seed, [options.first], Path(folder) / "model.tflite")  # everything is imported then
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + _MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        numbers = range(options.first, options.first + options.files)
        return fuzz(corpus, options.seed, numbers, Path(folder) / "model.tflite", at.fileno())


def _batch(corpus: Sequence[Path], seed: int, first: int, count: int) -> Counts:
    """The files of some numbers in a child; where it ends early, those up to the one that ended it."""
    with tempfile.NamedTemporaryFile() as at:
        words = ["--child", at.name, "--seed", str(seed), "--first", str(first), "--files", str(count)]
        command = [sys.executable, "-m", "bench.fuzz_tflite", *words, *map(str, corpus)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False, cwd=ROOT)
            if done.returncode == 0:
                return Counts(**json.loads(done.stdout))
            ending = f"ended with status {done.returncode}: {done.stderr.decode(errors='replace')[-500:]}"
        except subprocess.TimeoutExpired:
            ending = f"did not end in {_TIMEOUT_S:.0f} s"
        number = int(Path(at.name).read_text() or first)
        return Counts(files=number - first + 1, findings=[f"{number}: its process {ending}"])


def _add(total: Counts, more: Counts) -> None:
    total.files += more.files
    total.accepted += more.accepted
    total.refused = dict(Counter(total.refused) + Counter(more.refused))
    total.slowest_s = max(total.slowest_s, more.slowest_s)
    total.peak_mib = max(total.peak_mib, more.peak_mib)
    total.findings += more.findings


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
