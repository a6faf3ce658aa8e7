"""What a model file costs on a Linux board that is not there: run in the board's own runtime, counted, compared.

Instructions and answers are exact; misses are of simulated caches, memory is that of the process on this machine, and
latency is an estimate from all of these. How long the run takes here says nothing of the board and is not kept.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeprune.boards.execution import Executed, execute
from edgeprune.boards.kit import is_set_up, kit_of, qemu_version
from edgeprune.boards.latency import CountedModel, load_counted_model
from edgeprune.boards.overlay import emulation_of
from edgeprune.cost import BoardCounts, Cost, Measurement, Source
from edgeprune.errors import MissingExtraError, UsageError
from edgeprune.links.emulator import EmulatedBoard
from edgeprune.measured import file_bytes
from edgeprune.progress import SILENT, Progress
from edgeprune.runner.opener import read_contents
from edgeprune.target import Target

_ALIKE = 0.01  # of the largest answer: a greater distance is worth a note


def profile_on_board(
    path: Path,
    target: Target,
    device: EmulatedBoard,
    runtime: str,
    threads: int,
    *,
    inputs: Path | None = None,
    progress: Progress = SILENT,
) -> Measurement:
    """The cost of a model file on a target's emulated board, from one thread's counts.

    Args:
        threads: Those that the latency is estimated for.
        inputs: .npy file of samples (n, ...) float32, of which the first is run; noise when None.

    Raises:
        DeviceError: The emulator does not answer.
        MissingExtraError: The board is not set up, or a tool is missing.
        UnsupportedError: Nothing emulates the target.
        UsageError: The runtime cannot run the file there or here, or the device is another board.
    """
    _is_of(device, target)
    backend = target.runtime(runtime).backend
    kit, emulated = kit_of(target), emulation_of(target)
    macs = sum(op.macs for op in read_contents(path, backend).ops)
    progress.note(f"executing {path.name} on {runtime} of an emulated {target.name}")
    found = execute(path, backend, kit, inputs=inputs)
    here = execute(path, backend, None, runs=1, inputs=inputs)
    model = load_counted_model(target, runtime, found.precision, threads)
    counts = _counts(found, here)
    return Measurement(
        cost=_cost(found, path, target, model).model_copy(update={"macs": macs}),
        target=target.name,
        runtime=runtime,
        runtime_version=found.version,
        threads=threads,
        precision=found.precision,
        board=counts,
        environment={
            "device": device.name,
            "emulator": qemu_version(),
            "core": f"{emulated.cpu} ({emulated.part})",
            "machine": found.machine,
            "system": f"Debian, {kit.root}",
        },
        notes=_notes(target, runtime, threads, found, here, counts, model),
    )


def emulated_target(device: EmulatedBoard, target: Target, runtime: str, threads: int | None = None) -> Target:
    """The target whose files of that runtime are run on its emulated board.

    Raises:
        MissingExtraError: The board is not set up, or a tool is missing.
        UnsupportedError: Nothing emulates the target.
        UsageError: The device is another board, or no latency is known of it.
    """
    _is_of(device, target)
    kit_of(target)
    offered = target.runtime(runtime)
    if load_counted_model(target, runtime, "int8", threads or offered.threads) is None:
        raise UsageError(
            f"no latency is known of {runtime} on an emulated {target.name}, {threads or offered.threads} thread(s)",
            where="--device emulator",
            hint="profile counts there all the same; a fit needs another device, or none",
        )
    runtimes = {**target.runtimes, runtime: offered.model_copy(update={"emulated": True})}
    return target.model_copy(update={"runtimes": runtimes})


def at_hand(target: Target, runtime: str, threads: int, progress: Progress) -> bool:
    """Whether the target's emulated board says more of it than an estimate, and is set up here.

    One that is set up but cannot be used is told to `progress`.
    """
    offered = target.runtime(runtime)
    if target.latency == "measured" or offered.emulated or not is_set_up(target):
        return False
    if load_counted_model(target, runtime, "int8", threads) is None:
        return False
    try:
        kit_of(target)
    except MissingExtraError as error:
        progress.note(f"estimated, since the emulated {target.name} cannot be used: {error.message}")
        return False
    return True


def _is_of(device: EmulatedBoard, target: Target) -> None:
    if device.target.name != target.name:
        raise UsageError(
            f"{device.name} is not the target {target.name}",
            where="--device",
            hint=f"write --device emulator, or --target {device.target.name}",
        )


def _counts(found: Executed, here: Executed) -> BoardCounts:
    tally = found.tallies[-1]
    board, host = (
        np.concatenate([output.ravel() for output in run.outputs]).astype(np.float64) for run in (found, here)
    )
    return BoardCounts(
        instructions=tally.instructions,
        classes={name: count for name, count in tally.classes.items() if count},
        l1_misses=tally.l1_misses,
        l2_misses=tally.l2_misses,
        read_bytes=tally.read_bytes,
        written_bytes=tally.written_bytes,
        values=board.size,
        differing=int(np.sum(board != host)),
        difference=float(np.max(np.abs(board - host), initial=0.0)),
        largest=float(np.max(np.abs(host), initial=0.0)),
    )


def _cost(found: Executed, path: Path, target: Target, model: CountedModel | None) -> Cost:
    latency_s = interval_s = None
    if model is not None and target.cpu.clock_hz:
        latency_s = model.cycles_of(found.tallies[-1]) / target.cpu.clock_hz
        interval_s = (latency_s * model.band.low, latency_s * model.band.high)
    return Cost(
        source=Source.EMULATED,
        latency_s=latency_s,
        latency_interval_s=interval_s,
        ram_bytes=found.anonymous_bytes,
        ram_kind="process",
        size_bytes=file_bytes(path),
    )


def _notes(
    target: Target,
    runtime: str,
    threads: int,
    found: Executed,
    here: Executed,
    counts: BoardCounts,
    model: CountedModel | None,
) -> tuple[str, ...]:
    notes = [model.source] if model else [_unknown(target, runtime, found.precision, threads)]
    notes.append("memory: working memory of the runtime without the file's own pages, one thread")
    if found.version != here.version:
        notes.append(f"compared with {here.version} on this machine")
    if counts.difference > _ALIKE * counts.largest:
        share = counts.difference / counts.largest * 100 if counts.largest else 100.0
        notes.append(f"answers differ from this machine's by up to {share:.1f} % of the largest")
    return tuple(notes)


def _unknown(target: Target, runtime: str, precision: str, threads: int) -> str:
    return f"no latency: nothing is fitted for {runtime}, {precision}, {threads} thread(s) on an emulated {target.name}"
