"""A board to deploy to that can be made to fail: this machine's shell with a folder as the device's disk.

Its link frames answers as the real ones do, and starts a shell for each script without their many processes; over the
real ones a few whole deployments are tried.

Its boot id, uptime and clock are files. The link can be cut after any byte of the whole conversation, the power before
any command that changes something, an answer can be replaced, and anything can be done between two calls. What it runs
releases with is a small program that passes every model but one which says that it is wrong, and notes what it tested.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from edgeprune.children import Ended, TimeOutError, run_child
from edgeprune.deploy import flow, trial
from edgeprune.deploy.bundle import Bundle, file_row, sealed
from edgeprune.deploy.documents import DeployRecord
from edgeprune.deploy.manifest import Golden, Manifest, read_manifest, release_id, same_release
from edgeprune.device_shell import DeviceShell, Program, header
from edgeprune.errors import DeviceError, EdgepruneError

APP = "app"
MARK = "edgeprune-board"
# Says that all is well of any model without the word `wrong`, and notes the folder that it did so in.
PYTHON = """#!/bin/sh
hash=$(sha256sum <model.tflite)
errors='[0.0]'
grep -q wrong model.tflite && errors='[9.0]'
case $errors in *0.0*) pwd -P >>"{log}" ;; esac
cat <<END
{{"schema": "edgeprune.check/1", "runtime_version": "fake 1", "machine": "paper", "vectors": 2,
 "sha256": {{"model.tflite": "${{hash%% *}}"}}, "errors": [$errors, $errors], "same": [[true], [true]],
 "margins": [[5.0], [5.0]]}}
END
"""
CHANGING = ("mv", "ln", "rm", "mkdir", "chmod", "cat", "printf")
STRIKE = """
strike() {{ left=$(($(command cat {fuse}) - 1)); echo "$left" >{fuse}; [ "$left" -ne 0 ] || kill -s KILL 0; }}
"""


@dataclass
class Board:
    """The device and what is wrong with the way to it.

    Attributes:
        cut: After so many bytes, both ways together, the link breaks. None: never.
        fuse: Before this many changing commands from now the power fails. None: never.
        dead: Whether the link stays broken.
        stays: Whether a broken link stays broken.
        replaced: What call number n answers instead, as bytes on stdout.
        before: Called with each call's number, from 0, and its script.
        carried: Bytes so far; segments: (what, begin, length) of each stretch of them.
    """

    folder: Path
    cut: int | None = None
    fuse: int | None = None
    stays: bool = True
    dead: bool = False
    replaced: dict[int, bytes] = field(default_factory=dict)
    before: Callable[[int, str], None] = lambda number, script: None
    calls: int = 0
    carried: int = 0
    segments: list[tuple[str, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "boot").exists():
            self.set(boot="first", uptime="1000.00 4000.00", clock="")
            (self.folder / "python").write_text(PYTHON.format(log=self.folder / "tested"))
            (self.folder / "python").chmod(0o755)

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def app(self) -> Path:
        return self.root / APP

    @property
    def link(self) -> Wire:
        program = Program(("/bin/sh",), "a POSIX shell", lambda ended: DeviceError("no shell answered"))
        return Wire("board", program, str(self.folder / "python"), board=self)

    def set(self, **values: str) -> None:
        for name, value in values.items():
            (self.folder / name).write_text(f"{value}\n" if value else "")

    def reboot(self) -> None:
        self.set(boot=(self.folder / "boot").read_text().strip() + "x", uptime="5.00 20.00")

    def copy(self, folder: Path, **changes: object) -> Board:
        """The same board as it is now, elsewhere."""
        shutil.copytree(self.folder, folder, symlinks=True)
        (folder / "python").write_text(PYTHON.format(log=folder / "tested"))
        log = folder / "tested"
        if log.exists():
            log.write_text(log.read_text().replace(str(self.folder.resolve()), str(folder.resolve())))
        return Board(folder, **changes)  # type: ignore[arg-type]

    def sound(self) -> Board:
        """The same board on a link that works."""
        return Board(self.folder)

    def current(self) -> str:
        """The release that is current, after making sure that it is a complete one that was tested."""
        link = self.app / "current"
        if not link.is_symlink():
            assert not link.exists()
            return ""
        name = link.readlink().name
        assert whole(self.app / "releases" / name) and str(link.resolve()) in self.tested()
        return name

    def tested(self) -> list[str]:
        log = self.folder / "tested"
        return log.read_text().splitlines() if log.exists() else []

    def translated(self, script: str) -> str:
        for asked, file in (("/proc/sys/kernel/random/boot_id", "boot"), ("/proc/uptime", "uptime")):
            script = script.replace(asked, str(self.folder / file))
        if (self.folder / "clock").read_text():
            script = script.replace("$(date +%s)", f"$(cat {self.folder / 'clock'})")
        script = f"sync() {{ :; }}\n{script}"  # the disks of test machines are busy
        if self.fuse is None:
            return script
        fuse = self.folder / "fuse"
        if not fuse.exists():
            fuse.write_text(str(self.fuse))
        doubles = "\n".join(f'{name}() {{ strike; command {name} "$@"; }}' for name in CHANGING)
        script = script.replace("sync() { :; }", "sync() { strike; }", 1)
        return STRIKE.format(fuse=fuse) + doubles + "\n" + script

    def carry(self, wire: Wire, script: str, arguments: tuple[str, ...], data: bytes | None, limit_s: float) -> Ended:
        number, self.calls = self.calls, self.calls + 1
        self.before(number, script)
        if self.dead:
            raise DeviceError("board does not answer", where="board")
        head = header(script, arguments, MARK, fed=data is not None)
        sent = self._passes("head", len(head))
        if sent < len(head):
            raise self._broken()  # half a line is never evaluated, see test_device_shell
        sent = self._passes("data", len(data or b""))
        try:
            ran = run_child(
                ["/bin/sh", "-c", self.translated(script), "sh", *arguments],
                data=io.BytesIO((data or b"")[:sent]),
                timeout_s=limit_s,
                folder=self.folder,
            )
        except TimeOutError:
            raise DeviceError("board did not finish", where="board") from None
        begin, status = f"\n{MARK} begin\n".encode(), ran.status if ran.status >= 0 else 128 - ran.status
        ended = Ended(0, begin + ran.stdout + f"\n{MARK} end {status}\n".encode(), begin + ran.stderr)
        if self.fuse is not None and int((self.folder / "fuse").read_text()) <= 0:
            self.fuse = None
            self.reboot()
            raise self._broken()
        if sent < len(data or b""):
            raise self._broken()
        if number in self.replaced:
            ended = Ended(ended.status, self.replaced[number], ended.stderr)
        back = self._passes("answer", len(ended.stdout))
        if back < len(ended.stdout):
            self.dead = self.stays
            return Ended(-9, ended.stdout[:back], ended.stderr)
        return ended

    def _passes(self, what: str, length: int) -> int:
        """How many of the next bytes come through."""
        self.segments.append((what, self.carried, length))
        begin, self.carried = self.carried, self.carried + length
        if self.cut is None or self.cut >= begin + length or self.cut < begin:
            return length
        return self.cut - begin

    def _broken(self) -> DeviceError:
        self.dead = self.stays
        return DeviceError("the link to board broke", where="board")


@dataclass(frozen=True)
class Wire(DeviceShell):
    """The link to a board."""

    board: Board | None = None

    def _ask(self, script: str, arguments: tuple[str, ...], data: BinaryIO | None, timeout_s: float) -> Ended:
        assert self.board is not None
        content = None if data is None else data.read()
        return self._answer(self.board.carry(self, script, arguments, content, timeout_s), MARK)


def bundle(folder: Path, model: str) -> Bundle:
    """A release of a few small files, whose model is this text."""
    folder.mkdir()
    for name, text in {"model.tflite": model, "golden.npz": "g", "check.py": "#", "example.py": "#!"}.items():
        (folder / name).write_text(text)
    golden = Golden(real=1, vectors=2, runtime_version="fake 1", exact=False, tolerances=(1.0,))
    manifest = Manifest(
        edgeprune="0",
        app=APP,
        model="model.tflite",
        backend="tflite",
        precision="int8",
        threads=1,
        target="",
        files={file.name: file_row(file) for file in sorted(folder.iterdir())},
        golden=golden,
        licence="none",
    )
    return sealed(folder, manifest)


def put(board: Board, release: Bundle, **options: object) -> DeployRecord:
    """Deploy a release to a board."""
    chosen = flow.Options(**{"root": str(board.root), "patience_s": 0.0, **options})  # type: ignore[arg-type]
    return flow.deploy(board.link, release, trial.by_python, trial.not_timed, chosen)


def tried(board: Board, release: Bundle, **options: object) -> int:
    """The exit code that a deployment would end with."""
    try:
        put(board, release, **options)
    except EdgepruneError as error:
        return error.exit_code
    return 0


def whole(folder: Path) -> bool:
    """Whether a folder holds a release and nothing else, seen from outside."""
    document = (folder / "manifest.json").read_bytes()
    manifest = read_manifest(document, str(folder))
    assert same_release(folder.name, release_id(document))
    hashes = {name: row.sha256 for name, row in manifest.files.items()}
    hashes["manifest.json"] = hashlib.sha256(document).hexdigest()
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()} == hashes


def state(board: Board) -> dict[str, object]:
    """What state.json says."""
    found: dict[str, object] = json.loads((board.app / "state.json").read_text())
    return found
