"""Android phones by the adb program, always by serial number.

Scripts go through `adb shell`, whose exit status must be the one that the script itself reports; files through
`adb push` and `adb pull`, which check what arrives. adb starts its own server on this machine when none runs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgeprune.children import Ended, TimeOutError, TooMuchError, run_child
from edgeprune.device_shell import LINE, DeviceShell, Program, absolute, transfer_s
from edgeprune.errors import DeviceError, EdgepruneError, MissingExtraError, UsageError

FORM = "adb:SERIAL"
_ADDRESS = re.compile(r"adb:(?P<serial>[A-Za-z0-9][A-Za-z0-9._:-]*)")
# What adb says, what it means, and the next step; the first that is found counts.
_FAULTS = (
    (
        "device unauthorized",
        "{name} has not allowed this computer",
        "unlock the phone and allow debugging, then repeat",
    ),
    ("device offline", "{name} is offline", "plug it in again, or: adb reconnect"),
    ("insufficient permissions", "this user may not open {name}", "see adb devices -l, which says why"),
    ("no permissions", "this user may not open {name}", "see adb devices -l, which says why"),
    ("device '{serial}' not found", "there is no device {name}", "adb devices lists those there are"),
    ("no devices/emulators found", "there is no device {name}", "adb devices lists those there are"),
    ("device still", "{name} is not ready yet", "repeat in a moment"),
    ("cannot connect to daemon", "adb does not reach its own server", "adb kill-server, then repeat"),
    ("failed to start daemon", "adb does not reach its own server", "adb kill-server, then repeat"),
)


@dataclass(frozen=True)
class Phone(DeviceShell):
    """The shell of an Android device, with adb's own transfer of files."""

    def push(self, file: Path, to: str, *, timeout_s: float | None = None) -> None:
        """Copy a file to an absolute path there, whole or not at all.

        Raises:
            DeviceError: It cannot be written, or as in `run`.
        """
        self._copy("push", str(file.absolute()), absolute(to) + ".part", timeout_s or transfer_s(file.stat().st_size))
        ended = self.run('mv -f "$1.part" "$1"', to)
        if ended.status != 0:
            raise DeviceError(f"{self.name} did not take the file: {ended.last_line}", where=to)

    def pull(self, file: str, to: Path, *, timeout_s: float | None = None) -> None:
        """Copy a file at an absolute path there to this machine, whole or not at all.

        Raises:
            DeviceError: It cannot be read, or as in `run`.
        """
        part = to.absolute().with_name(to.name + ".part")
        self._copy("pull", absolute(file), str(part), timeout_s or transfer_s(2**28))
        part.replace(to)

    def _copy(self, verb: str, source: str, destination: str, timeout_s: float) -> None:
        adb = self.program.command[:3]
        try:
            ended = run_child([*adb, verb, source, destination], timeout_s=timeout_s)
        except FileNotFoundError:
            raise MissingExtraError(
                "the program adb is not installed", hint=f"install {self.program.package}"
            ) from None
        except (TimeOutError, TooMuchError):
            raise DeviceError(f"{self.name} did not finish within {timeout_s:g} s", where=self.name) from None
        if ended.status != 0:
            raise _known(self.name, ended) or DeviceError(
                f"adb {verb} failed: {_said(ended)}", where=f"{self.name}, {source}"
            )

    def _answer(self, ended: Ended, mark: str) -> Ended:
        answer = super()._answer(ended, mark)
        if ended.status != answer.status:
            raise DeviceError(
                f"adb ended with status {ended.status} where the script on {self.name} ended with {answer.status}",
                where=self.name,
                hint="the link broke at the last moment, or the device is older than Android 7",
            )
        return answer


def connect(address: str, python: str | None = None) -> Phone:
    """The link to `adb:SERIAL`.

    Raises:
        UsageError: It is no such address.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise UsageError(
            f"cannot read the address {address!r}",
            where="--device",
            hint=f"write it as {FORM}, with a serial number that adb devices lists",
        )
    name = f"adb:{found['serial']}"

    def fault(ended: Ended) -> EdgepruneError:
        return _known(name, ended) or DeviceError(
            f"no shell answered at {name}: {_said(ended)} (status {ended.status})",
            where=name,
            hint=f"try by hand: adb -s {found['serial']} shell true",
        )

    program = Program(("adb", "-s", found["serial"], "shell", "-T", LINE), "the Android platform tools", fault)
    return Phone(name, program, python or "python3")


def _known(name: str, ended: Ended) -> EdgepruneError | None:
    """The error for what adb itself is known to complain about."""
    said = ended.stderr.decode(errors="replace")
    for text, message, hint in _FAULTS:
        if text.format(serial=name.removeprefix("adb:")) in said:
            return DeviceError(message.format(name=name), where=name, hint=hint)
    return None


def _said(ended: Ended) -> str:
    """adb's complaint, which goes to stdout where it is about a file."""
    text = (ended.stderr.strip() or ended.stdout.strip()).decode(errors="replace")
    return text.splitlines()[-1][:300] if text else "no message"
