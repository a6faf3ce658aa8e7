"""Timing files on a device over a link: what is checked first, what is sent and run, and that nothing stays there.

Everything lies in one folder that only this measurement uses and that is removed at the end, whatever happened. Nothing
is installed on the device: what it lacks is named, with the command that would bring it.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeprune import backends
from edgeprune.children import Ended
from edgeprune.device_facts import Facts, unlike
from edgeprune.device_lock import device_lock
from edgeprune.errors import DeviceError, MissingExtraError, NoRoomError, UsageError
from edgeprune.links import Link
from edgeprune.progress import Progress
from edgeprune.runner import bench
from edgeprune.target import Target
from edgeprune.timing import BENCH, Place, Turns
from edgeprune.units import format_size

# Packages that bring a backend's runtime, the preferred one first.
RUNTIMES = {
    "tflite": ("ai-edge-litert", "tflite-runtime"),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino",),
}
_SPARE_BYTES = 16 * 2**20
_RUN_S = 600.0
_COOL_STEP_S = 5.0
_COOL_STEPS, _BLIND_STEPS = 24, 4  # until it is as cool as before, or so many where it does not tell
_COOL_WITHIN_C = 2.0

_MAKE_FOLDER = r"""
umask 077
for base in "$TMPDIR" /data/local/tmp /tmp "$HOME"; do
  [ -n "$base" ] && [ -d "$base" ] && [ -w "$base" ] || continue
  folder=$(mktemp -d "$base/edgeprune.XXXXXX" 2>/dev/null) || continue
  printf %s "$folder"
  exit 0
done
exit 1
"""
_REMOVE_FOLDER = r"""
case $1 in
  */edgeprune.??????) rm -rf "$1" ;;
  *) exit 1 ;;
esac
"""
_RUN = r"""
cd "$1" || exit 1
shift
exec "$@"
"""


@dataclass(frozen=True)
class There:
    """A device that is held: nobody else here measures on it meanwhile.

    Attributes:
        folder: Of its own, on the device.
        facts: As it was before anything ran.
        sent: Files that lie there already, by where they came from.
    """

    link: Link
    folder: str
    facts: Facts
    progress: Progress
    sent: dict[Path, str] = field(default_factory=dict)

    def send(self, files: Sequence[Path]) -> str:
        """Copy the files of one artifact, side by side and once; the name there of the first."""
        if files[0] not in self.sent:
            stem = f"file-{len(self.sent)}"
            for file in files:
                self.link.push(file, f"{self.folder}/{stem}{file.suffix}")
            self.sent[files[0]] = f"{stem}{files[0].suffix}"
        return self.sent[files[0]]

    def program(self, *words: str, timeout_s: float = _RUN_S) -> Ended:
        """Run a program in the folder; how it ended."""
        return self.link.run(_RUN, self.folder, *words, timeout_s=timeout_s)


@contextlib.contextmanager
def held(link: Link, files: Iterable[Path], progress: Progress) -> Iterator[There]:
    """A device with a folder for these files, held while the block runs.

    Raises:
        DeviceError: It is not reached, or no folder can be made there.
        MissingExtraError: The program that reaches it is not installed.
        NoRoomError: The files do not fit there.
    """
    needed = 2 * sum(file.stat().st_size for file in files) + _SPARE_BYTES
    with device_lock(link.name, progress):
        progress.note(f"asking {link.name} what it is")
        made = link.run(_MAKE_FOLDER)
        folder = made.stdout.decode(errors="replace")
        if made.status != 0 or not re.fullmatch(r"/.*/edgeprune\.\w{6}", folder, re.DOTALL):
            raise DeviceError(f"{link.name} has no folder that can be written", where="/tmp, /data/local/tmp, $HOME")
        try:
            facts = link.describe(folder)
            if facts.free_bytes is not None and facts.free_bytes < needed:
                free, wanted = format_size(facts.free_bytes), format_size(needed)
                raise NoRoomError(f"{link.name} has {free} free, {wanted} are needed", where=folder)
            yield There(link, folder, facts, progress)
        finally:
            _remove(link, folder, progress)


def _remove(link: Link, folder: str, progress: Progress) -> None:
    """Never an error of its own: the measurement has ended, well or not, and the device may be gone."""
    try:
        left = link.run(_REMOVE_FOLDER, folder).status != 0
    except DeviceError:
        left = True
    if left:
        progress.note(f"{folder} on {link.name} could not be removed")


def needs_runtime(there: There, backend: str) -> None:
    """Check that the device has a Python with numpy and a runtime for the backend's files.

    Raises:
        MissingExtraError: It has not; the hint says what to install there.
    """
    facts, name, python = there.facts, there.link.name, there.link.python
    runtimes = RUNTIMES[backend]
    install = f"on the device: {python} -m pip install numpy {runtimes[0]}"
    if not facts.python:
        hint = f"install Python 3.9 or later there, then {install}; or name another with --python"
        if backend == "tflite":
            hint += "; without any Python: --benchmark-binary"
        raise MissingExtraError(f"{name} has no Python", where=python, hint=hint)
    if not facts.runs_python:
        hint = "name a newer one with --python"
        raise MissingExtraError(f"{name} has Python {facts.python}, 3.9 or later is needed", where=python, hint=hint)
    missing = [] if "numpy" in facts.packages else ["numpy"]
    missing += [] if set(runtimes) & set(facts.packages) else [" or ".join(runtimes)]
    if missing:
        raise MissingExtraError(
            f"{name} has no {' and no '.join(missing)} in its Python {facts.python}",
            where=python,
            hint=f"{install}; of a virtual environment there: --python FOLDER/bin/python",
        )


def reached(link: Link, target: Target, runtime: str, progress: Progress) -> tuple[Target, str]:
    """The target as it is where a device is linked: measured. With it, how the device differs; empty where it does not.

    Raises:
        DeviceError: The device is not reached.
        MissingExtraError: It lacks what the runtime needs.
        UsageError: The runtime is none of a board or a phone.
    """
    backend = linkable(target, runtime, link)
    with held(link, [], progress) as there:
        needs_runtime(there, backend)
    other = unlike(there.facts, target)
    return target.model_copy(update={"latency": "measured"}), other and f"{link.name} does not look like it: {other}"


def linkable(target: Target, runtime: str, link: Link) -> str:
    """The backend whose files the target's runtime takes from a linked device.

    Raises:
        UsageError: No board or phone runs it.
    """
    backend = target.runtime(runtime).backend
    if backend not in RUNTIMES or target.class_ == "mcu":
        raise UsageError(
            f"{runtime} is no runtime that {link.name} can run",
            where="--device",
            hint=f"target {target.name} is a {target.class_}; leave one of --device and --target out",
        )
    return backend


def place_of(there: There) -> Place:
    """The device as a place where files are timed by the runner script."""

    def run(turns: Turns) -> Mapping[str, Any]:
        def sent(path: Path) -> str:
            return there.send([path] if path == turns.samples else backends.files(turns.runtime, path))

        script = there.send([BENCH])
        ended = there.program(there.link.python, "-B", script, *turns.options(sent))
        return _document(ended, there.link, turns.runtime, turns.where)

    return Place(there.link.name, run, lambda: cool(there))


def _document(ended: Ended, link: Link, runtime: str, where: str) -> Mapping[str, Any]:
    """What the runner printed, where it ended well.

    Raises:
        DeviceError: Its Python cannot be started, or what came back is no document of the runner's.
        MissingExtraError: The runtime cannot be loaded there.
        UsageError: The runtime cannot run a file there.
    """
    if ended.status == bench.EXIT_NO_RUNTIME:
        hint = f"on the device: {link.python} -m pip install numpy {RUNTIMES[runtime][0]}"
        raise MissingExtraError(f"{runtime} cannot be loaded on {link.name}: {ended.last_line}", hint=hint)
    if ended.status in (126, 127):
        raise DeviceError(f"{link.name} cannot start {link.python}: {ended.last_line}", where=link.name)
    if ended.status > 128:
        signal = ended.status - 128
        hint = {4: "this build of the runtime is for another CPU", 9: "is its memory large enough?"}.get(signal, "")
        raise UsageError(f"{runtime} on {link.name} was ended by signal {signal}", where=where, hint=hint)
    if ended.status != 0:
        message = f"{runtime} on {link.name} cannot run it (status {ended.status}): {ended.last_line}"
        raise UsageError(message, where=where)
    try:
        document = json.loads(ended.stdout)
        genuine = document["schema"] == bench.SCHEMA
    except (ValueError, TypeError, KeyError):
        genuine = False
    if not genuine:
        raise DeviceError(f"{link.name} answered with no document of the runner's", where=where)
    return dict(document)


def cool(there: There) -> None:
    """Wait until the device is as cool as it was before anything ran, at most two minutes."""
    before_c = there.facts.temperature_c
    there.progress.note(f"letting {there.link.name} cool down")
    for _ in range(_COOL_STEPS if before_c is not None else _BLIND_STEPS):
        time.sleep(_COOL_STEP_S)
        now_c = None if before_c is None else there.link.describe(there.folder).temperature_c
        if before_c is not None and now_c is not None and now_c <= before_c + _COOL_WITHIN_C:
            return


def described(facts: Facts, name: str) -> dict[str, str]:
    """The facts as a measurement's record of where it was taken."""
    found = {
        "device": name,
        "model": facts.model,
        "machine": facts.machine,
        "operating_system": facts.system,
        "kernel": facts.kernel,
        "cores": f"{facts.cores} ({', '.join(facts.core_names or facts.parts) or facts.cpu or 'unknown'})",
        "clock_max_mhz": "" if facts.clock_hz is None else f"{facts.clock_hz / 1e6:.0f}",
        "governor": facts.governor,
        "memory_bytes": "" if facts.memory_bytes is None else str(facts.memory_bytes),
    }
    return {key: value for key, value in found.items() if value}


def as_target(link: Link) -> Target:
    """The device at a link as a target of its own, where the user names none.

    Threads are its fastest cores. Nothing is estimated for it: it has no device models.

    Raises:
        DeviceError: It is not reached.
    """
    facts = link.describe()
    runtime = {"threads": facts.fast_cores}
    return Target.model_validate(
        {
            "name": re.sub(r"[^a-z0-9]+", "-", (facts.model or link.name).lower()).strip("-") or "device",
            "class": "phone" if facts.system.startswith("Android") else "board",
            "description": facts.model or link.name,
            "latency": "measured",
            "default_runtime": "tflite",
            "cpu": {
                "core": " and ".join(facts.core_names) or facts.cpu or "unknown",
                "cores": facts.cores,
                "clock_hz": facts.clock_hz,
                "isa": facts.machine or "unknown",
            },
            "memory": {"ram_bytes": facts.memory_bytes},
            "runtimes": {name: {"backend": name, **runtime} for name in RUNTIMES},
        }
    )
