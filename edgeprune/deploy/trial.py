"""How a release is tried on a device: by its own scripts and Python, by TFLite's benchmark program, or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.benchmark_binary import program_there, read_report
from edgeprune.deploy import steps
from edgeprune.deploy.manifest import GOLDEN, Manifest
from edgeprune.deploy.self_test import (
    MIN_TIME_S,
    RUNS,
    TEST_S,
    LatencyRow,
    TestRow,
    check_words,
    judged,
    judged_latency,
    latency_words,
    verdict,
    within,
)
from edgeprune.deploy.session import Release, Session
from edgeprune.device_facts import Facts, is_arm, unlike
from edgeprune.device_lock import device_lock
from edgeprune.errors import DeviceError, MissingExtraError, QualityError, UsageError
from edgeprune.links import Link
from edgeprune.on_device import There, held, needs_runtime
from edgeprune.progress import Progress
from edgeprune.runner import check
from edgeprune.target import Target

Test = Callable[[Session, Release, bool], TestRow | None]  # the last says whether the lock is held
Timing = Callable[[Session, Release], LatencyRow | None]

# Runs the program on every input of a file of many, and prints all outputs one after the other.
_ANSWERS = r"""
cd "$1" || exit 1
program=$2 inputs=$3 size=$4 count=$5
shift 5
number=0
while [ "$number" -lt "$count" ]; do
  dd if="$inputs" of=input.bin bs="$size" skip="$number" count=1 2>/dev/null || exit 1
  rm -f output.bin
  "$program" "$@" >&2 || exit
  [ -f output.bin ] || { echo "it wrote no outputs: --output_filepath is not known to it" >&2; exit 1; }
  cat output.bin
  number=$((number + 1))
done
"""


def preflight(
    link: Link, manifest: Manifest, target: Target | None, binary: str | None, untested: bool, progress: Progress
) -> tuple[Facts, Test, tuple[str, ...]]:
    """What the device is, how releases are tested there, and what must be said of it.

    Args:
        target: What the release is for; None is anything.
        binary: TFLite's benchmark_model, here or there, for a device without Python.
        untested: Whether a release may go untested where neither is there.

    Raises:
        DeviceError: It is not reached or does not say what it is.
        MissingExtraError: It has no way to run the release's model.
        UsageError: It has another architecture than the target.
    """
    progress.note(f"asking {link.name} what it is")
    facts = link.describe()
    if not facts.machine:
        raise DeviceError(f"{link.name} does not say what it is", where=link.name)
    if target is not None and target.class_ != "host" and is_arm(facts.machine) != is_arm(target.cpu.isa):
        raise UsageError(
            f"{link.name} is {facts.machine}, the release is for {target.name}, which is {target.cpu.isa}",
            where="--device",
            hint="where that is meant: --target NAME says what the device is",
        )
    other = unlike(facts, target) if target is not None else ""
    notes = (f"{link.name} does not look like {target.name}: {other}",) if target and other else ()
    return facts, chosen(link, facts, manifest.backend, binary, untested, progress), notes


def chosen(
    link: Link, facts: Facts, backend: str | None, binary: str | None, untested: bool, progress: Progress
) -> Test:
    """How releases are tested on a device: by Python where it has one that can, else as the user allows.

    Args:
        backend: Whose runtime it must have; None where that is not known yet.

    Raises:
        MissingExtraError: There is no way that the user allows.
    """
    if facts.python and not binary:
        if backend is not None:
            needs_runtime(There(link, "/", facts, progress), backend)
        return by_python
    if binary:
        return by_binary(binary)
    if untested:
        return not_at_all
    raise MissingExtraError(
        f"{link.name} has no Python to test a release with",
        where=link.python,
        hint="--python PATH, or --benchmark-binary PATH for .tflite files, or --untested to go without a test",
    )


def by_python(session: Session, release: Release, held_lock: bool) -> TestRow | None:
    """The release's own self-test.

    Raises:
        As `self_test.judged`.
    """
    words = check_words(session.link.python, release.manifest)
    ended = session.do(steps.run_in(release.name, words, TEST_S, held=held_lock))
    return judged(ended, release.manifest, _where(session, release))


def timed_by_python(budget_ns: int | None) -> Timing:
    """The release's own timing, held against the budget."""

    def timing(session: Session, release: Release) -> LatencyRow | None:
        words = latency_words(session.link.python, release.manifest)
        with device_lock(session.link.name, session.progress):
            ended = session.do(steps.run_in(release.name, words, TEST_S, held=True))
        return judged_latency(ended, release.manifest, budget_ns, _where(session, release))

    return timing


def not_at_all(session: Session, release: Release, held_lock: bool) -> TestRow | None:
    """No test, as the user has said."""
    return None


def not_timed(session: Session, release: Release) -> LatencyRow | None:
    """No timing."""
    return None


def by_binary(binary: str) -> Test:
    """The test by TFLite's benchmark program, which writes outputs down; they are compared here."""

    def test(session: Session, release: Release, held_lock: bool) -> TestRow | None:
        manifest, where = release.manifest, _where(session, release)
        if manifest.backend != "tflite":
            raise UsageError("a benchmark binary runs .tflite files only", where="--benchmark-binary")
        if held_lock:
            session.do(steps.renew(2 * TEST_S))
        with tempfile.TemporaryDirectory() as scratch:
            there_folder = f"{session.folder}/releases/{release.name}"
            golden, inputs = Path(scratch, GOLDEN), Path(scratch, "inputs.bin")
            session.link.pull(f"{there_folder}/{GOLDEN}", golden)
            with np.load(golden, allow_pickle=False) as arrays:
                kept = [arrays[f"output_{index}"] for index in range(len(arrays.files) - 1)]
                vectors = arrays["inputs"]
            inputs.write_bytes(vectors.tobytes())
            with held(session.link, [inputs], session.progress) as there:
                program, version = program_there(there, Path(binary))
                options = [
                    f"--graph={there_folder}/{manifest.model}",
                    f"--num_threads={manifest.threads}",
                    "--num_runs=1",
                    "--warmup_runs=0",
                    "--input_layer=input",
                    f"--input_layer_shape={','.join(map(str, (1, *vectors.shape[1:])))}",
                    "--input_layer_value_files=input:input.bin",
                    "--output_filepath=output.bin",
                ]
                size, count = str(vectors[0].nbytes), str(len(vectors))
                words = (there.folder, program, there.send([inputs]), size, count, *options)
                ended = session.link.run(_ANSWERS, *words, timeout_s=TEST_S)
                machine = there.facts.machine
        if ended.status != 0:
            raise QualityError(f"the benchmark binary ended badly: {ended.last_line}", where=where)
        found = compared(ended.stdout, kept, where)
        return verdict({**found, "runtime_version": version, "machine": machine}, manifest, where)

    return test


def timed_by_binary(binary: str, budget_ns: int | None) -> Timing:
    """The benchmark program's own timing: a mean, held against the budget."""

    def timing(session: Session, release: Release) -> LatencyRow | None:
        with held(session.link, [], session.progress) as there:
            program, _ = program_there(there, Path(binary))
            options = [
                f"--graph={session.folder}/releases/{release.name}/{release.manifest.model}",
                f"--num_threads={release.manifest.threads}",
                f"--num_runs={RUNS}",
                f"--min_secs={MIN_TIME_S}",
            ]
            ended = there.program(program, *options)
        if ended.status != 0:
            raise QualityError(f"the benchmark binary ended badly: {ended.last_line}", where=_where(session, release))
        report = read_report((ended.stdout + b"\n" + ended.stderr).decode(errors="replace"))
        mean_ns = round(report.mean_s * 1e9)
        row = LatencyRow(latency_ns=mean_ns, statistic="mean", runs=report.runs, budget_ns=budget_ns)
        return within(row, _where(session, release))

    return timing


def compared(answers: bytes, kept: list[np.ndarray[Any, np.dtype[Any]]], where: str) -> dict[str, Any]:
    """The distances of raw outputs, vector after vector and output after output, from the kept ones.

    Args:
        kept: For each output its values (vectors, ...).

    Raises:
        QualityError: There are more or fewer bytes than the kept outputs have.
    """
    expected = sum(values.nbytes for values in kept)
    if len(answers) != expected:
        raise QualityError(f"the outputs are {len(answers)} bytes, those kept {expected}", where=where)
    errors, same, margins, offset = [], [], [], 0
    for number in range(len(kept[0])):
        pairs = []
        for values in kept:
            size = values[number].nbytes
            answer = np.frombuffer(answers[offset : offset + size], values.dtype).astype(np.float64)
            pairs.append((answer, values[number].reshape(-1).astype(np.float64)))
            offset += size
        errors.append([check.distance(answer, value) for answer, value in pairs])
        same.append([int(answer.argmax()) == int(value.argmax()) for answer, value in pairs])
        margins.append([check.margin(value) for _, value in pairs])
    return {"vectors": len(kept[0]), "errors": errors, "same": same, "margins": margins}


def _where(session: Session, release: Release) -> str:
    return f"{session.link.name}, {session.folder}/releases/{release.name}"
