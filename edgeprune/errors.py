"""Every error a user can meet, with the exit code the command line ends with.

EdgepruneError
├─ UsageError           2   bad flag, job file, unit, target name, data or model given by the user
│  └─ UnsupportedError  2   an operator, layout or format that a stage cannot handle (named)
├─ BudgetError          3   the budget cannot be met (best reachable cost, binding layers)
├─ QualityError         4   wrong or worse answers: export mismatch, accuracy floor, non-finite training
├─ DeviceError          5   a device or link does not answer
├─ MeasurementError     6   a measurement was disturbed and cannot be trusted
├─ MissingExtraError    7   an optional package or tool is not installed
├─ TrustError           8   refused for safety
├─ DeployError          9   a deployment failed, the device is on the old release, which was tested again
├─ UnknownStateError    10  it is not known which release a device is on
└─ NoRoomError         11   disk or memory is full; the last good state is kept

A message says *what* with numbers and units, `where` names the file, key or node, `hint` is the next step.
Inner code raises the narrow fact; the command line renders it once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EdgepruneError(Exception):
    """Base of all errors meant for the user.

    Args:
        message: What went wrong, with numbers and units.
        where: File and key, node or path it happened at.
        hint: The next step, usually a command or an allowed value.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    @property
    def code(self) -> str:
        """Stable name for machines, such as `USAGE` or `MISSING_EXTRA`."""
        name = type(self).__name__.removesuffix("Error")
        return "".join("_" + c if c.isupper() and i else c for i, c in enumerate(name)).upper()


class UsageError(EdgepruneError):
    """The user's input cannot be used as given."""

    exit_code = 2


class UnsupportedError(UsageError):
    """A stage cannot handle an operator, layout or format; the message names it."""


class BudgetError(EdgepruneError):
    """The budget is out of reach; the message holds the smallest reachable cost."""

    exit_code = 3


class QualityError(EdgepruneError):
    """An artifact or a trained model gives wrong, worse or non-finite answers."""

    exit_code = 4


class DeviceError(EdgepruneError):
    """A device or the link to it does not answer."""

    exit_code = 5


class MeasurementError(EdgepruneError):
    """A measurement was disturbed and its retry too."""

    exit_code = 6


class MissingExtraError(EdgepruneError):
    """An optional package or tool is not installed; the hint holds the install line."""

    exit_code = 7


class TrustError(EdgepruneError):
    """Refused because it could run code or escape a folder."""

    exit_code = 8


class DeployError(EdgepruneError):
    """A deployment failed after its release had become current; the old one is back and passes its self-test."""

    exit_code = 9


class UnknownStateError(EdgepruneError):
    """A deployment broke off, and neither the new nor the old release could be confirmed on the device."""

    exit_code = 10


class NoRoomError(EdgepruneError):
    """Disk or memory is full; what was written before is intact."""

    exit_code = 11


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint naming the closest known names, or all of them when none is close."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known: {', '.join(names)}" if names else ""


def missing_extra(extra: str, needed_for: str) -> MissingExtraError:
    """The error for an optional package that is not installed."""
    return MissingExtraError(
        f"{needed_for} needs the extra '{extra}', which is not installed",
        hint=f'pip install "edgeprune[{extra}]"',
    )
