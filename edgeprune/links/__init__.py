"""Links: one file per way to reach a device. Each runs scripts there and carries files, whatever they are.

A link is a module in this package; its file name is the word that addresses begin with, and nothing lists it elsewhere.
It provides `FORM`, how its addresses are written, and `connect`, which checks an address and returns a `Link`. Nothing
is sent before the first call of a link, and nothing stays open between calls.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Protocol, cast

from edgeprune.children import Ended
from edgeprune.device_facts import Facts
from edgeprune.errors import UsageError


class Link(Protocol):
    """A device within reach. Every call has a time limit, after which what it started is ended on both sides.

    All calls raise DeviceError where the device is not reached or the link breaks, and MissingExtraError where the
    program that reaches it is not installed.
    """

    @property
    def name(self) -> str:
        """The device's, in messages and of its lock."""
        ...

    @property
    def python(self) -> str:
        """The Python to run there."""
        ...

    def describe(self, folder: str = "/", *, timeout_s: float = ...) -> Facts:
        """What the device is; free room is that of `folder`."""
        ...

    def run(self, script: str, *arguments: str, timeout_s: float = ...) -> Ended:
        """Run a constant script; its arguments are $1, $2, … Its status, stdout and stderr arrive exactly."""
        ...

    def push(self, file: Path, to: str, *, timeout_s: float | None = None) -> None:
        """Copy a file to an absolute path there, whole or not at all."""
        ...

    def pull(self, file: str, to: Path, *, timeout_s: float | None = None) -> None:
        """Copy a file at an absolute path there to this machine, whole or not at all."""
        ...


class Kind(Protocol):
    """What a file in this package provides.

    Attributes:
        FORM: How its addresses are written.
    """

    FORM: str

    def connect(self, address: str, python: str | None = None) -> Link:
        """The link to an address; `python` is the one to run there.

        Raises:
            UsageError: It is no address of this kind.
        """
        ...


def names() -> tuple[str, ...]:
    """The kinds of links there are."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def get(name: str) -> Kind:
    """The kind of that name, one of `names()`."""
    return cast(Kind, importlib.import_module(f"{__name__}.{name}"))


def connect(address: str, python: str | None = None) -> Link:
    """The link to the device of an address such as `ssh://pi@board`.

    Raises:
        UsageError: No link has such addresses.
    """
    kind = address.partition(":")[0]
    if kind not in names():
        forms = ", ".join(get(name).FORM for name in names())
        raise UsageError(f"no link has the address {address!r}", where="--device", hint=f"known: {forms}")
    return get(kind).connect(address, python)
