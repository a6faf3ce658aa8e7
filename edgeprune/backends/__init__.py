"""Backends: one file per runtime. Each exports a model, runs the file and times its operators.

A backend is a module in this package; its file name is its name and nothing lists it elsewhere. It fulfils
`Backend` with module-level names. Third-party runtimes are imported inside functions only, so that this package
loads without them; what is missing is said by `missing()`.
"""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import numpy as np

from edgeprune.device.networks import Network
from edgeprune.device.ops import Op
from edgeprune.errors import QualityError, UnsupportedError, UsageError, did_you_mean
from edgeprune.values import Value

if TYPE_CHECKING:
    import torch

    from edgeprune.quantization.ranges import RangePolicy
    from edgeprune.target import Target

Array = np.ndarray[Any, np.dtype[Any]]
Precision = Literal["int8", "fp32"]


class Artifact(Value):
    """An exported file.

    Attributes:
        backend: Name of the backend that wrote it and can run it.
        path: The file (for OpenVINO the .xml, its .bin lies beside it; of a C library its report, which lists all).
        precision: What was asked for; the gates prove that the file holds to it.
        size_bytes: All files of the artifact.
        sha256: Over all files of the artifact, in their order.
        float_ops: Operators left in float in an int8 artifact, by name: the listed exceptions.
        notes: Anything a reader of the record should know.
    """

    backend: str
    path: Path
    precision: Precision
    size_bytes: int
    sha256: str
    float_ops: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Inspection(Value):
    """What a file holds, as its runtime runs it; the gates judge by it.

    Attributes:
        input_types, output_types: Number formats of the file's own inputs and outputs, such as int8.
        integer_macs, float_macs: Multiply-accumulates done in each kind of arithmetic.
        float_ops: Operators that compute in float, as `TYPE name`.
        layout_ops: Operators that only change the layout of an activation, as `TYPE name`.
        faults: What contradicts the format's rules, such as a bias scale that the runtime would not use.
    """

    input_types: tuple[str, ...]
    output_types: tuple[str, ...]
    integer_macs: int
    float_macs: int
    float_ops: tuple[str, ...] = ()
    layout_ops: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


class Session(Protocol):
    """A loaded artifact. Images are NCHW float32 outside, whatever the file's layout and number format."""

    runtime: str
    runtime_version: str
    threads: int
    precision: str  # what the runtime really computes in

    def run(self, inputs: Array) -> Array:
        """Outputs (n, ...) float32 for inputs (n, ...) float32, one sample at a time, as on the device."""
        ...


class Backend(Protocol):
    """What a file in this package provides.

    Attributes:
        NAME: The file's name.
        EXTRA: The extra that installs it; empty when the core does.
        SUFFIXES: Endings of the files it runs.
        RUNTIME: The runtime's name as targets spell it.
        PRECISIONS: What it exports in.
        WEIGHT_LIMIT: Largest magnitude of an int8 weight that it writes.
        FLOAT_LAYERS: Why no layer of an int8 file can be left in float; empty where it can.
        ON_REQUEST: Whether a model is exported for it only where it is asked for or deployed to.
    """

    NAME: str
    EXTRA: str
    SUFFIXES: tuple[str, ...]
    RUNTIME: str
    PRECISIONS: tuple[Precision, ...]
    WEIGHT_LIMIT: int
    FLOAT_LAYERS: str
    ON_REQUEST: bool

    def missing(self) -> str:
        """Why it cannot run files here; empty when it can."""
        ...

    def export(
        self,
        model: torch.nn.Module,
        example: Array,
        folder: Path,
        precision: Precision,
        calibration: Array | None,
        ranges: RangePolicy | None,
        target: Target | None = None,
        in_float: Collection[str] = (),
    ) -> Artifact:
        """Write the artifact into `folder`. Calibration samples (n, ...) and a range policy are needed for int8.

        `target` decides where the format has a choice, such as which kernels a C library holds. `in_float` are the
        dotted paths of the weights in the model whose layers stay float in an int8 file.
        """
        ...

    def load(self, path: Path, threads: int = 1) -> Session: ...

    def read_ops(self, path: Path) -> tuple[Op, ...]:
        """The fused operators in the file, in order, as the runtime runs them."""
        ...

    def inspect(self, path: Path) -> Inspection:
        """The number formats and faults of the file."""
        ...

    def time_ops(self, path: Path, inputs: Array | None, runs: int, threads: int) -> tuple[tuple[str, str, float], ...]:
        """(name, type, mean seconds per inference) by the runtime's own profiler; empty when it has none.

        Without inputs (n, ...) float32, noise of the file's input shape is used.
        """
        ...


class Folder(Backend, Protocol):
    """A backend whose artifact is a folder of files, one of which lists the others."""

    def files(self, path: Path) -> tuple[Path, ...]:
        """All files of the artifact, in a fixed order, itself included."""
        ...


class Revealing(Backend, Protocol):
    """A backend that can show what a file's activations hold on the way."""

    def values(self, path: Path, samples: Array) -> dict[str, Array]:
        """Every activation (n, ...) float32 by its name in the file, in execution order, for samples (n, ...) float32.

        Images are NCHW, whatever the file's layout.
        """
        ...


class Writer(Backend, Protocol):
    """A backend that can also write files from sizes alone, which is what a calibration times."""

    def write_network(self, network: Network, path: Path, precision: Precision) -> None:
        """Write the network with random weights; the same network gives the same bytes."""
        ...


def names() -> tuple[str, ...]:
    """Names of all backends, installed or not."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def get(name: str) -> Backend:
    """The backend of that name, whether or not its runtime is installed.

    Raises:
        UsageError: No such backend.
    """
    if name not in names():
        raise UsageError(f"unknown backend {name!r}", hint=did_you_mean(name, names()))
    return cast(Backend, importlib.import_module(f"{__name__}.{name}"))


def revealing(name: str) -> Revealing:
    """The backend, if it can show what activations hold.

    Raises:
        UnsupportedError: Its runtime keeps them to itself.
    """
    if not hasattr(get(name), "values"):
        raise UnsupportedError(
            f"a {format_of(name)} file keeps its activations to itself", hint="look at the .tflite file it is made of"
        )
    return cast(Revealing, get(name))


def installed() -> tuple[str, ...]:
    """Names of the backends that can run files here and need no asking."""
    return tuple(name for name in names() if not get(name).ON_REQUEST and not get(name).missing())


def format_of(name: str) -> str:
    """The name of a backend's file format, as users and records spell it."""
    return {"onnxruntime": "onnx"}.get(name, name)


def of_format(format: str) -> str:
    """The backend that writes a format, as users spell it; a backend's own name will do.

    Raises:
        UsageError: There is none.
    """
    known = {spelled: name for name in names() for spelled in (name, format_of(name))}
    if format not in known:
        hint = did_you_mean(format, [format_of(name) for name in names()])
        raise UsageError(f"unknown format {format!r}", where="--format", hint=hint)
    return known[format]


def writers() -> dict[str, Writer]:
    """The backends that can write networks, by name."""
    return {name: cast(Writer, get(name)) for name in names() if hasattr(get(name), "write_network")}


def for_file(path: Path) -> Backend:
    """The backend that runs this kind of file, by its ending.

    Raises:
        UsageError: No backend runs it.
    """
    endings: dict[str, Callable[[], Backend]] = {}
    for name in names():
        for ending in get(name).SUFFIXES:
            endings[ending] = lambda name=name: get(name)  # type: ignore[misc]
    for ending, found in endings.items():
        if path.name.lower().endswith(ending):
            return found()
    raise UsageError(f"no backend runs {path.name!r}", hint=f"known endings: {', '.join(sorted(endings))}")


def files(backend: str, path: Path) -> tuple[Path, ...]:
    """All files of an artifact, in a fixed order: one, unless the format is spread over several."""
    module = get(backend)
    if hasattr(module, "files"):
        return cast(Folder, module).files(path)
    return (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,)


def place(artifact: Artifact) -> Path:
    """The artifact's path within the folder that it was exported into: a folder of files has one of its own there."""
    path = artifact.path
    return Path(path.parent.name, path.name) if hasattr(get(artifact.backend), "files") else Path(path.name)


def describe(backend: str, path: Path, precision: Precision, **more: Any) -> Artifact:
    """The `Artifact` of files just written: size and hash over all its files.

    Raises:
        QualityError: A file is not there.
    """
    found = files(backend, path)
    if missing := [file.name for file in found if not file.is_file()]:
        raise QualityError(f"the converter ended without writing {', '.join(missing)}", where=str(path.parent))
    digest = hashlib.sha256()
    for file in found:
        digest.update(file.read_bytes())
    size = sum(file.stat().st_size for file in found)
    return Artifact(backend=backend, path=path, precision=precision, size_bytes=size, sha256=digest.hexdigest(), **more)


def noise(shape: tuple[int, ...]) -> Array:
    """A repeatable float32 input for timing, where no real one is given."""
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)
