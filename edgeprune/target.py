"""A device as a file: `targets/<name>.toml` holds its cited facts, the runtimes it runs and where their profiles lie.

Adding a device is adding a file. A user's own goes by path (`--target ./my-board.toml`) or into the folder that
`EDGEPRUNE_TARGETS` names, which is searched first.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from edgeprune.data_files import data_folder
from edgeprune.errors import UsageError, did_you_mean
from edgeprune.values import Value

TARGET_SCHEMA = "edgeprune.target/1"
FOLDER_VARIABLE = "EDGEPRUNE_TARGETS"


class Cpu(Value):
    """The cores an inference runs on.

    Attributes:
        flash_wait_states: Cycles that a read of flash waits at this clock where no cache holds it.
        flash_line_bytes: Bytes that each such read brings.
    """

    core: str
    cores: int = Field(ge=1)
    clock_hz: int | None = Field(None, gt=0)
    isa: str
    flash_wait_states: int | None = Field(None, ge=0)
    flash_line_bytes: int | None = Field(None, gt=0)


class Memory(Value):
    """What there is for the model; None where it is not a fixed fact (this machine).

    Attributes:
        flash_address: Where a microcontroller's flash begins.
        ram_address: Where its largest piece of RAM begins.
        ram_block_bytes: The size of that piece, where it is not all of `ram_bytes`.
    """

    ram_bytes: int | None = Field(None, gt=0)
    flash_bytes: int | None = Field(None, gt=0)
    flash_address: int | None = Field(None, ge=0, lt=1 << 32)
    ram_address: int | None = Field(None, ge=0, lt=1 << 32)
    ram_block_bytes: int | None = Field(None, gt=0)


class Emulation(Value):
    """How QEMU's user mode stands in for the cores of a Linux board, of one kind: those an inference runs on.

    Attributes:
        cpu: QEMU's model of the core.
        part: Arm's number of the core, as in /proc/cpuinfo.
        variant, revision: Of the core; r0p3 is 0 and 3.
        features: What the board's /proc/cpuinfo lists. Runtimes choose their kernels by it and by `part`.
        cores: Of this kind.
        l1_bytes, l1_ways: A core's first-level data cache, of lines of 64 bytes.
        l2_bytes, l2_ways: The next level.
        profile: Stem of the fitted cycles; empty when there are none, and no latency then.
    """

    cpu: str = Field(pattern=r"^(cortex|neoverse)-[a-z0-9]+$")  # never `max`, whose newest instructions answer wrongly
    part: str = Field(pattern=r"^0xd[0-9a-f]{2}$")
    variant: int = Field(0, ge=0, le=15)
    revision: int = Field(0, ge=0, le=15)
    features: tuple[str, ...] = Field(min_length=1)
    cores: int = Field(ge=1)
    l1_bytes: int = Field(gt=0)
    l1_ways: int = Field(ge=1, le=16)
    l2_bytes: int = Field(gt=0)
    l2_ways: int = Field(ge=1, le=16)
    profile: str = ""


class Power(Value):
    """What the device draws while it computes: the 10 %, 50 % and 90 % quantiles of published energy over time."""

    low_w: float = Field(gt=0)
    typical_w: float = Field(gt=0)
    high_w: float = Field(gt=0)
    results: int = Field(ge=1)  # published ones that the quantiles are of

    @model_validator(mode="after")
    def _ordered(self) -> Power:
        if not self.low_w <= self.typical_w <= self.high_w:
            raise ValueError("low, typical and high power are out of order")
        return self


class Runtime(Value):
    """One runtime that the device runs.

    Attributes:
        backend: The backend whose artifact the runtime takes.
        threads: Threads a verdict rests on unless the user says otherwise.
        precisions: What may be deployed, the preferred one first.
        channel_step: Widths are multiples of this, so that no lane of the kernels runs empty.
        profile: Stem of the device profile; empty when there is none.
        emulated: Whether files are executed on an emulated core where they are profiled. The device model is then what
            plans start from, and the counts correct it.
        arguments: What the compiler that estimates is called with, of a runtime that has one (`vela`).
    """

    backend: Literal["tflite", "onnxruntime", "openvino", "c"]
    threads: int = Field(1, ge=1)
    precisions: tuple[Literal["int8", "fp32"], ...] = ("int8", "fp32")
    channel_step: int = Field(1, ge=1)
    profile: str = ""
    emulated: bool = False
    arguments: tuple[str, ...] = ()


class Citation(Value):
    """Where a fact was read: the keys it covers and the document."""

    fields: tuple[str, ...]
    document: str
    note: str = ""


class Target(Value):
    """A device the fit can aim at.

    Attributes:
        latency: `measured` when this machine is the target, else `estimated` unless a device is connected.
    """

    schema_: str = Field(TARGET_SCHEMA, alias="schema", pattern=r"^edgeprune\.target/1$")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    aliases: tuple[str, ...] = ()
    class_: Literal["host", "board", "mcu", "phone"] = Field(alias="class")
    description: str
    latency: Literal["measured", "estimated"] = "estimated"
    default_runtime: str
    cpu: Cpu
    memory: Memory
    power: Power | None = None  # None: nothing is published of it
    emulation: Emulation | None = None  # None: there is no emulator of its cores
    runtimes: dict[str, Runtime] = Field(min_length=1)
    source: tuple[Citation, ...] = ()
    _path: Path | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _default_is_known(self) -> Target:
        if self.default_runtime not in self.runtimes:
            raise ValueError(f"default_runtime {self.default_runtime!r} is not one of {', '.join(self.runtimes)}")
        return self

    @property
    def path(self) -> Path | None:
        """The file it was read from."""
        return self._path

    def runtime(self, name: str | None = None) -> Runtime:
        """The runtime of that name; None is the default one.

        Raises:
            UsageError: The device does not run it.
        """
        wanted = name or self.default_runtime
        if wanted not in self.runtimes:
            raise UsageError(
                f"target {self.name} does not run {wanted!r}",
                where="--runtime",
                hint=did_you_mean(wanted, self.runtimes),
            )
        return self.runtimes[wanted]


def target_names() -> tuple[str, ...]:
    """Names of all targets that can be given by name, aliases not counted."""
    return tuple(sorted(_target_files()))


def load_target(name_or_path: str) -> Target:
    """The target of a name, an alias, or an explicit .toml file.

    Raises:
        UsageError: Unknown name (with near ones), missing file, or a file that is not a valid target.
    """
    if name_or_path.endswith(".toml"):
        return _read(Path(name_or_path))
    files = _target_files()
    if name_or_path in files:
        return _read(files[name_or_path])
    by_alias = {alias: file for file in files.values() for alias in _aliases(file)}
    if name_or_path in by_alias:
        return _read(by_alias[name_or_path])
    raise UsageError(
        f"unknown target {name_or_path!r}",
        where="--target",
        hint=did_you_mean(name_or_path, [*files, *by_alias]),
    )


def _target_files() -> dict[str, Path]:
    folders = [data_folder("targets")]
    if own := os.environ.get(FOLDER_VARIABLE):
        if not Path(own).is_dir():
            raise UsageError(f"no such folder: {own}", where=FOLDER_VARIABLE)
        folders.append(Path(own))
    return {file.stem: file for folder in folders for file in sorted(folder.glob("*.toml"))}


def _aliases(file: Path) -> tuple[str, ...]:
    return tuple(_tree(file).get("aliases", ()))


def _tree(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no such target file: {file}", where="--target") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise UsageError(f"not valid TOML: {err}", where=str(file)) from None


def _read(file: Path) -> Target:
    tree = _tree(file)
    try:
        target = Target.model_validate(tree)
    except ValidationError as err:
        first = err.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"not a valid target: {key or 'file'}: {first['msg']}", where=str(file)) from None
    if target.name != file.stem:
        raise UsageError(f"target {target.name!r} lies in {file.name}", where=str(file), hint="name both alike")
    target._path = file
    return target
