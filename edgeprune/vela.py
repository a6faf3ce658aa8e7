"""What an int8 .tflite file costs on an Arm Ethos-U, as that NPU's own compiler estimates it.

The compiler is the program `vela` of the package `ethos-u-vela`, run as a process of its own. Its figures are a static
estimate: nothing is executed, and operators that it leaves on the CPU take no time in them.
"""

from __future__ import annotations

import csv
import math
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeprune.cost import Cost, Measurement, OpCost, Source
from edgeprune.errors import UnsupportedError, UsageError, missing_extra
from edgeprune.progress import SILENT, Progress
from edgeprune.target import Target

RUNTIME = "vela"
_TIMEOUT_S = 300
_CPU, _NPU = "CPU", "NPU"


def command() -> str | None:
    """The program, beside this Python or on the path; None where there is none."""
    beside = Path(sys.executable).with_name("vela")
    return str(beside) if beside.is_file() else shutil.which("vela")


def profile_vela(path: Path, target: Target, runtime: str = RUNTIME, progress: Progress = SILENT) -> Measurement:
    """The compiler's estimate, op by op: latency at its clock, SRAM, and flash with weights as it stores them.

    Raises:
        MissingExtraError: The program is not installed.
        UnsupportedError: It puts nothing on the NPU.
        UsageError: It refuses the file, or takes too long.
    """
    program = command()
    if program is None:
        raise missing_extra("ethos", "estimating for an Ethos-U")
    progress.note(f"compiling {path.name} with vela for {target.name}")
    version = _run([program, "--version"], path).strip()
    with tempfile.TemporaryDirectory() as folder:
        # Under a name of ours, so that none of theirs is taken for an option.
        copy = Path(folder) / "model.tflite"
        shutil.copyfile(path, copy)
        options = [*target.runtime(runtime).arguments, "--verbose-performance", "--output-dir", folder]
        _run([program, str(copy), *options], path)
        (summary,) = _table(Path(folder), "model_summary_*.csv", path)
        rows = _table(Path(folder), "model_per-layer.csv", path)
    return _measurement(summary, rows, target, runtime, version, path)


def _run(command: Sequence[str], path: Path) -> str:
    """What the program prints."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise UsageError(f"vela took more than {_TIMEOUT_S} s", where=str(path)) from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines() or ["no message"]
        raise UsageError(f"vela refuses it (status {done.returncode}): {said[-1][:300]}", where=str(path))
    return done.stdout.decode(errors="replace")


def _table(folder: Path, pattern: str, path: Path) -> list[dict[str, str]]:
    """The rows of the only file of that name."""
    found = sorted(folder.glob(pattern))
    rows = list(csv.DictReader(found[0].read_text(encoding="utf-8").splitlines())) if len(found) == 1 else []
    if not rows:
        raise UsageError(f"vela wrote no {pattern}", where=str(path), hint="is it another version than 5?")
    return rows


def _number(row: Mapping[str, str], name: str, path: Path) -> float:
    try:
        value = float(row[name])
    except (KeyError, TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        told = f"what vela wrote has no {name}"
        raise UsageError(told, where=str(path), hint="is it another version than 5?")
    return value


def _measurement(
    summary: Mapping[str, str],
    rows: Sequence[Mapping[str, str]],
    target: Target,
    runtime: str,
    version: str,
    path: Path,
) -> Measurement:
    on_npu = [row for row in rows if row.get("Target") == _NPU]
    on_cpu = [row for row in rows if row.get("Target") == _CPU]
    if not on_npu:
        raise UnsupportedError(
            f"vela puts none of its {len(on_cpu)} operators on the NPU",
            where=str(path),
            hint="only integer ones run there",
        )
    clock_hz = _number(summary, "core_clock", path)
    kib = {name: _number(summary, f"{name}_memory_used", path) for name in ("sram", "on_chip_flash", "off_chip_flash")}
    cost = Cost(
        source=Source.ESTIMATED,
        latency_s=_number(summary, "cycles_total", path) / clock_hz,
        ram_bytes=round(kib["sram"] * 1024),
        ram_kind="arena",
        size_bytes=round((kib["on_chip_flash"] + kib["off_chip_flash"]) * 1024),
        macs=round(_number(summary, "nn_macs", path)),
    )
    return Measurement(
        cost=cost,
        target=target.name,
        runtime=runtime,
        runtime_version=version,
        threads=1,
        precision="int8",
        ops=_operators(rows, clock_hz, path),
        environment={name: summary[name] for name in ("accelerator_configuration", "system_config", "memory_mode")},
        notes=_notes(version, on_cpu),
    )


def _operators(rows: Sequence[Mapping[str, str]], clock_hz: float, path: Path) -> tuple[OpCost, ...]:
    """The operators in the compiler's order, parts of one under the name that they share."""
    found: dict[str, OpCost] = {}
    for row in rows:
        kind, name = row["Original Operator"], row["Name"]
        cycles, macs = _number(row, "Op Cycles", path), round(_number(row, "MAC Count", path))
        latency_s = cycles / clock_hz if row["Target"] == _NPU else None
        if name in found and latency_s is not None:
            before = found[name]
            latency_s, macs = latency_s + (before.latency_s or 0.0), macs + before.macs
            kind = before.kind
        found[name] = OpCost(name=name, kind=kind, latency_s=latency_s, macs=macs)
    return tuple(found.values())


def _notes(version: str, on_cpu: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    note = f"the compiler's estimate (vela {version}), not measured; operators on the CPU are not counted"
    kinds = Counter(row["Original Operator"] for row in on_cpu)
    left = ", ".join(f"{kind} ({count})" for kind, count in sorted(kinds.items()))
    return (note, f"on the CPU: {left}") if left else (note,)
