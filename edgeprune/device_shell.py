"""A POSIX shell on a device, whatever carries it there: constant scripts with quoted arguments, and files.

What the far side runs is one constant line (`LINE`), so that no login shell, whichever it is, ever parses a value. It
reads one line from stdin: the arguments, quoted, and the script, with everything but plain ASCII as octal escapes. The
answer stands between two marks with a random name, so that what a login shell prints of its own is not taken for it,
and the last mark carries the exit status, so that a link's own failure is not taken for the script's.

A script runs in a session of its own while the far side watches stdin, which stays open: when the link ends, by a
time-out or by itself, everything that the script started is killed.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgeprune.children import Ended, TimeOutError, TooMuchError, run_child
from edgeprune.device_facts import SCRIPT, Facts, read_facts
from edgeprune.errors import DeviceError, EdgepruneError, MissingExtraError

LINE = """sh -c 'IFS= read -r header && eval "$(printf %b "$header")"'"""
SHORT_S = 30.0  # for what takes a moment: describing, making and removing folders
_SLOWEST = 100_000  # bytes per second that a transfer must reach
_HEADER_BYTES = 100_000  # what Linux takes as one argument, with room to spare

_BEGIN = r"""
printf '\n%s begin\n' "$mark"
printf '\n%s begin\n' "$mark" >&2
"""
_END = r"""
printf '\n%s end %s\n' "$mark" "$status"
printf '\n%s end\n' "$mark" >&2
exit "$status"
"""
_WATCHED = r"""
exec 3<&0
if command -v setsid >/dev/null 2>&1; then
  setsid sh -c "$script" sh "$@" </dev/null 3<&- &
else
  sh -c "$script" sh "$@" </dev/null 3<&- &
fi
child=$!
{ IFS= read -r nothing <&3; kill -s KILL -- "-$child" || kill -s KILL "$child"; } >/dev/null 2>&1 &
watch=$!
wait "$child"
status=$?
kill "$watch" 2>/dev/null
"""
_FED = r"""
sh -c "$script" sh "$@"
status=$?
"""

_RECEIVE = r"""
umask 077
cat >"$1.part" || exit 1
arrived=$(wc -c <"$1.part") || exit 1
if [ "$arrived" -ne "$2" ]; then
  rm -f "$1.part"
  echo "$arrived of $2 bytes arrived" >&2
  exit 1
fi
mv -f "$1.part" "$1"
"""
_SEND = r"""
exec cat "$1"
"""


@dataclass(frozen=True)
class Program:
    """The program that reaches the device.

    Attributes:
        command: Runs `LINE` there, with its stdin, stdout and stderr.
        package: Where it is from, for who does not have it.
        fault: What it means when the shell there never answered: the error to raise.
    """

    command: tuple[str, ...]
    package: str
    fault: Callable[[Ended], EdgepruneError]
    environment: Mapping[str, str] | None = None


@dataclass(frozen=True)
class DeviceShell:
    """A link (see `edgeprune.links.Link`) to whatever has a POSIX shell.

    Attributes:
        name: The device's, in messages and of its lock.
        python: The Python to run there.
        own_folder: Whether each script begins in a new folder on this machine, removed afterwards.
    """

    name: str
    program: Program
    python: str = "python3"
    own_folder: bool = False

    def run(self, script: str, *arguments: str, timeout_s: float = SHORT_S) -> Ended:
        """Run a constant script; its arguments are $1, $2, …

        Raises:
            DeviceError: The device is not reached, the link breaks, or it takes too long.
            MissingExtraError: The program that reaches it is not installed.
            ValueError: An argument holds a null character, or all are too long.
        """
        return self._ask(script, arguments, None, timeout_s)

    def push(self, file: Path, to: str, *, timeout_s: float | None = None) -> None:
        """Copy a file to an absolute path there, whole or not at all.

        Raises:
            DeviceError: It cannot be written, or as in `run`.
        """
        size = file.stat().st_size
        with file.open("rb") as data:
            ended = self._ask(_RECEIVE, (absolute(to), str(size)), data, timeout_s or transfer_s(size))
        if ended.status != 0:
            raise DeviceError(f"{self.name} did not take the file: {ended.last_line}", where=to)

    def pull(self, file: str, to: Path, *, timeout_s: float | None = None) -> None:
        """Copy a file at an absolute path there to this machine, whole or not at all.

        Raises:
            DeviceError: It cannot be read, or as in `run`.
        """
        ended = self._ask(_SEND, (absolute(file),), None, timeout_s or transfer_s(2**28))
        if ended.status != 0:
            raise DeviceError(f"{self.name} did not send the file: {ended.last_line}", where=file)
        part = to.with_name(to.name + ".part")
        part.write_bytes(ended.stdout)
        part.replace(to)

    def describe(self, folder: str = "/", *, timeout_s: float = SHORT_S) -> Facts:
        """What the device is; free room is that of `folder`.

        Raises:
            DeviceError: As in `run`.
        """
        return read_facts(self.run(SCRIPT, folder, self.python, timeout_s=timeout_s).stdout.decode(errors="replace"))

    def _ask(self, script: str, arguments: tuple[str, ...], data: BinaryIO | None, timeout_s: float) -> Ended:
        mark = f"edgeprune-{secrets.token_hex(12)}"
        head = header(script, arguments, mark, fed=data is not None)
        try:
            with tempfile.TemporaryDirectory() if self.own_folder else contextlib.nullcontext() as folder:
                ended = run_child(
                    self.program.command,
                    head=head,
                    data=data,
                    timeout_s=timeout_s,
                    environment=self.program.environment,
                    folder=None if folder is None else Path(folder),
                )
        except FileNotFoundError:
            raise MissingExtraError(
                f"the program {self.program.command[0]} is not installed", hint=f"install {self.program.package}"
            ) from None
        except TimeOutError:
            raise DeviceError(f"{self.name} did not finish within {timeout_s:g} s", where=self.name) from None
        except TooMuchError:
            raise DeviceError(f"{self.name} sent far more than was asked for", where=self.name) from None
        return self._answer(ended, mark)

    def _answer(self, ended: Ended, mark: str) -> Ended:
        """What the script itself ended with and wrote."""
        begun, stdout, status = _between(ended.stdout, mark)
        if not begun:
            raise self.program.fault(ended)
        if status is None:
            said = f": {ended.last_line}" if ended.last_line != f"{mark} begin" else ""
            raise DeviceError(
                f"the link to {self.name} broke before the answer was complete{said}",
                where=self.name,
                hint="is the device still on, and its network or cable steady?",
            )
        apart, stderr, _ = _between(ended.stderr, mark)
        if not apart:
            raise DeviceError(
                f"{self.name} mixes stderr into stdout", where=self.name, hint="Android 7 or later does not"
            )
        return Ended(status, stdout, stderr)


def header(script: str, arguments: tuple[str, ...], mark: str, *, fed: bool) -> bytes:
    """The line of stdin that `LINE` reads: sets the arguments, then runs the script, fed with what follows or watched.

    Raises:
        ValueError: An argument holds a null character, or all are too long.
    """
    if any("\0" in argument for argument in arguments):
        raise ValueError("an argument holds a null character")
    words = " ".join(map(shlex.quote, arguments))
    text = f"set -- {words}\nmark={shlex.quote(mark)} script={shlex.quote(script)}\n"
    text += _BEGIN + (_FED if fed else _WATCHED) + _END
    plain = b"".join(_escaped(byte) for byte in text.encode(errors="surrogateescape")) + b"\n"
    if len(plain) > _HEADER_BYTES:
        raise ValueError(f"script and arguments are {len(plain)} bytes, at most {_HEADER_BYTES} are sent")
    return plain


def absolute(path: str) -> str:
    """The path itself.

    Raises:
        ValueError: It is not absolute: where a relative one lies depends on the link.
    """
    if not path.startswith("/"):
        raise ValueError(f"not an absolute path: {path!r}")
    return path


def transfer_s(size: int) -> float:
    """The longest that copying so many bytes may take."""
    return SHORT_S + size / _SLOWEST


def _escaped(byte: int) -> bytes:
    """As `printf %b` writes it back."""
    return bytes([byte]) if 32 <= byte < 127 and byte != ord("\\") else b"\\0%03o" % byte


def _between(text: bytes, mark: str) -> tuple[bool, bytes, int | None]:
    """(whether the first mark is there, what stands between it and the last one, the status that this carries)."""
    _, first, rest = text.partition(f"\n{mark} begin\n".encode())
    ends = list(re.finditer(f"\n{mark} end( [0-9]+)?\n".encode(), rest))
    last = next((end for end in ends if end[1]), ends[-1] if ends else None)
    if last is None:
        return bool(first), rest, None
    return bool(first), rest[: last.start()], int(last[1]) if last[1] else None
