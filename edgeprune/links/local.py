"""This machine as a device: a child shell in a folder of its own, removed after each script."""

from __future__ import annotations

import sys

from edgeprune.children import Ended
from edgeprune.device_shell import LINE, DeviceShell, Program
from edgeprune.errors import DeviceError, EdgepruneError, UsageError

FORM = "local"


def connect(address: str, python: str | None = None) -> DeviceShell:
    """The link to this machine; its Python is the one that runs edgeprune.

    Raises:
        UsageError: Something follows the word `local`.
    """
    if address != FORM:
        raise UsageError(f"cannot read the address {address!r}", where="--device", hint=f"write it as {FORM}")
    program = Program(("/bin/sh", "-c", LINE), "a POSIX shell", _fault)
    return DeviceShell("host", program, python or sys.executable, own_folder=True)


def _fault(ended: Ended) -> EdgepruneError:
    return DeviceError(f"the shell of this machine did not answer: {ended.last_line}", where="/bin/sh")
