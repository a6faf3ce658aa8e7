"""Calibrations on disk: one JSON file per target, runtime, precision, threads and machine, in a folder of the user's.

The folder is `EDGEPRUNE_CALIBRATIONS`, else `edgeprune/calibrations` where the system keeps a user's data
(`XDG_DATA_HOME`, else `~/.local/share`). A calibration holds for the machine and the runtime version that it was
measured on; for others it is not used, and the reader is told.
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, ValidationError

from edgeprune.backends import Precision
from edgeprune.calibration.laws import Judged
from edgeprune.calibration.rounds import Row
from edgeprune.device.calibrated import CalibratedModel
from edgeprune.device.latency import DeviceModel
from edgeprune.device.profiles import load_latency_model
from edgeprune.errors import UsageError
from edgeprune.record import write_text
from edgeprune.runner.bench import cpu_name, installed_version
from edgeprune.target import Target
from edgeprune.values import Value

FOLDER_VARIABLE = "EDGEPRUNE_CALIBRATIONS"


class Machine(Value):
    """What a calibration was measured on."""

    cpu: str
    cores: int
    system: str


class Calibration(Value):
    """A finished calibration.

    Attributes:
        runtime_version: Package and version.
        clock_mhz: Lowest and highest clock seen between the batches; empty where the system does not tell.
        date: When it was finished, UTC.
        edgeprune: The version that measured.
        design: Fingerprint of the networks that were timed.
        rows: Every network's time.
        judged: Errors on whole networks whose family was left out.
    """

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["edgeprune.calibration/1"] = Field("edgeprune.calibration/1", alias="schema")
    target: str
    machine: Machine
    runtime: str
    runtime_version: str
    precision: Precision
    threads: int
    clock_mhz: tuple[str, ...]
    date: str
    edgeprune: str
    design: str
    rounds: int
    rows: tuple[Row, ...]
    judged: Judged
    model: CalibratedModel


@dataclass(frozen=True)
class Found:
    """The device model to use, and what must be said about where it is from; empty when nothing was calibrated."""

    model: DeviceModel | None
    note: str = ""
    calibrated: bool = False


def this_machine() -> Machine:
    """The machine that this process runs on."""
    return Machine(cpu=cpu_name(), cores=len(os.sched_getaffinity(0)), system=platform.system())


def folder() -> Path:
    """Where calibrations lie; it need not exist."""
    if own := os.environ.get(FOLDER_VARIABLE):
        return Path(own)
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "edgeprune" / "calibrations"


def path_of(target: str, runtime: str, precision: str, threads: int, machine: Machine) -> Path:
    """The file of one calibration."""
    name = re.sub(r"[^a-z0-9]+", "-", f"{machine.cpu} {machine.cores} cores".lower()).strip("-")
    return folder() / f"{target}.{runtime}.{precision}.{threads}.{name}.json"


def save(calibration: Calibration) -> Path:
    """Write a calibration, whole or not at all; returns its file.

    Raises:
        NoRoomError: The disk is full.
        UsageError: The folder cannot be written.
    """
    own = calibration
    path = path_of(own.target, own.runtime, own.precision, own.threads, own.machine)
    write_text(path, own.model_dump_json(by_alias=True, indent=1) + "\n")
    return path


def read(path: Path) -> Calibration:
    """A calibration's file.

    Raises:
        UsageError: It is not one, or of another version.
    """
    try:
        return Calibration.model_validate_json(path.read_bytes())
    except ValidationError as err:
        first = err.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"not a calibration: {key or 'file'}: {first['msg']}",
            where=str(path),
            hint="delete it, or measure again: edgeprune calibrate",
        ) from None


def find(target: Target, runtime: str, precision: str, threads: int) -> Found:
    """This machine's calibration where the target is this machine and it fits, else the shipped device model.

    Raises:
        UsageError: A file that should be a calibration is not one.
    """
    shipped = load_latency_model(target, runtime, precision, threads)
    if target.latency != "measured":
        return Found(shipped)
    path = path_of(target.name, runtime, precision, threads, this_machine())
    if not path.is_file():
        stem = f"{target.name}.{runtime}.{precision}.{threads}."
        others = [other for other in sorted(folder().glob(f"{stem}*.json")) if not other.name.endswith(".partial.json")]
        return Found(shipped, f"not used, of another machine: calibration {others[0]}" if others else "")
    calibration = read(path)
    installed = installed_version(runtime)
    if calibration.runtime_version != installed:
        note = f"not used, of {calibration.runtime_version} where {installed} is installed: calibration {path}"
        return Found(shipped, f"{note}; edgeprune calibrate --target {target.name} measures again")
    return Found(calibration.model, f"device model: calibration of {calibration.date[:10]}, {path}", calibrated=True)
