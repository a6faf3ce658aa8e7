"""What emulated boards need on this machine: tools of the system, a root file system, the runtimes' packages.

One root and one set of packages serve all boards; a board's own root is links into it and the files that its kernel
would show. All of it lies in one folder, `EDGEPRUNE_BOARDS` or `edgeprune/boards` in the user's cache, and is made by
`set_up` alone, which the user has been asked about: nothing is ever brought by the way.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from edgeprune.boards import overlay
from edgeprune.errors import DeviceError, MissingExtraError
from edgeprune.progress import Progress
from edgeprune.runner import marked
from edgeprune.target import Target

FOLDER_VARIABLE = "EDGEPRUNE_BOARDS"
QEMU = "qemu-aarch64"
SUITE, PYTHON = "bookworm", "3.11"  # of the root: of Debian 12, whose C library the packages' builds run with
# Programs by the package of the system that brings each.
TOOLS = {QEMU: "qemu-user", "mmdebstrap": "mmdebstrap", "cc": "gcc libc6-dev"}
_NEEDED_LATER = (QEMU, "cc")  # not only for setting up
_ROOT_PACKAGES = ("python3-minimal", "libpython3.11-stdlib", "libstdc++6", "libgomp1", "libatomic1")
_ROOT_LINKS = ("etc", "lib", "usr")
_COMPILED = ("numpy", "ai-edge-litert", "onnxruntime", "openvino")
_PLAIN = ("flatbuffers", "protobuf", "backports.strenum", "tqdm", "typing-extensions", "packaging")
# Older builds run on a newer C library, but pip takes each name as it is.
_PLATFORMS = ("2014", "_2_17", "_2_27", "_2_28", "_2_31", "_2_34", "_2_35")
_RUNTIMES = {"tflite": "ai-edge-litert", "onnxruntime": "onnxruntime", "openvino": "openvino"}
_SCRIPTS = Path(marked.__file__).parent
_LOADING = """
import sys
sys.path.insert(0, sys.argv[1])
import bench, ctypes, marked, numpy.random, zipfile
bench.runtime_version(sys.argv[2])
"""
_REST_S = 600
# About what a setup brings, as it was on one day.
SIZES = {"root": ("35 MB", "75 MB"), "packages": ("82 MB", "248 MB"), "tools": ("12 MB", "97 MB")}


@dataclass(frozen=True)
class Kit:
    """An emulated board's files.

    Attributes:
        root: What `qemu-aarch64 -L` looks under first.
        site: The runtimes' packages.
        programs: A folder for the front of PATH: `python3` and `uname` as they are on the board.
        versions: Of the packages.
    """

    target: Target
    root: Path
    site: Path
    programs: Path
    versions: Mapping[str, str]

    @property
    def python(self) -> Path:
        """The board's own Python, an aarch64 program."""
        return self.root / "usr" / "bin" / "python3"

    @property
    def bytecode(self) -> Path:
        """What the board's Python has compiled of its modules."""
        return self.site.parent / "bytecode"

    def command(self, *options: str, name: str = "python3", compiling: bool = False) -> list[str]:
        """What runs the board's Python here, with further options of QEMU; the guest is told that it is `name`."""
        cpu = overlay.emulation_of(self.target).cpu
        command = [shutil.which(QEMU) or QEMU, "-cpu", cpu, "-L", str(self.root), "-0", name, *options]
        # Never where the sources are: a path that does not exist under the root is taken for one of this machine's.
        settings = {"HOME": "/usr", "PATH": str(self.site), "PYCACHEPREFIX": str(self.bytecode)}
        settings |= {} if compiling else {"DONTWRITEBYTECODE": "1"}
        command += ["-U", "PYTHONDONTWRITEBYTECODE"] if compiling else []
        command += [word for key, value in settings.items() for word in ("-E", f"PYTHON{key}={value}")]
        return [*command, str(self.python)]


def folder() -> Path:
    """Where everything lies."""
    if own := os.environ.get(FOLDER_VARIABLE):
        return Path(own).absolute()
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache.startswith("/") else Path.home() / ".cache") / "edgeprune" / "boards"


@cache
def qemu_version() -> str:
    """Such as `qemu-aarch64 7.2.22`."""
    done = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=False)
    words = done.stdout.split()
    return " ".join([QEMU, *words[2:3]])


def missing_tools(names: Sequence[str] = tuple(TOOLS)) -> dict[str, str]:
    """Programs that are not installed, by the packages of the system that bring them."""
    return {name: TOOLS[name] for name in names if shutil.which(name) is None}


def install_command(tools: Mapping[str, str]) -> list[str]:
    """What installs the packages of `missing_tools` on Debian and its kin."""
    packages = sorted({package for names in tools.values() for package in names.split()})
    return ["apt-get", "install", "-y", "--no-install-recommends", *packages]


def host_versions() -> dict[str, str]:
    """Versions here of the packages that a board needs to answer like this machine."""
    found = {}
    for name in _COMPILED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def installed() -> dict[str, object] | None:
    """What the setup wrote of itself; None where there was none."""
    try:
        found: dict[str, object] = json.loads((folder() / "setup.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return found


def is_set_up(target: Target) -> bool:
    """Whether a target's emulated board was set up, of whatever versions."""
    return installed() is not None and (folder() / target.name / "root" / "proc" / "cpuinfo").is_file()


def kit_of(target: Target, *, counting: bool = True) -> Kit:
    """The files of a target's emulated board.

    Args:
        counting: Whether a compiler is needed too, for the plug-in that counts.

    Raises:
        MissingExtraError: A tool is not installed, or the board is not set up, or was for other versions.
        UnsupportedError: Nothing emulates the target.
    """
    overlay.emulation_of(target)
    hint = f"edgeprune emulate setup {target.name}"
    if tools := missing_tools(_NEEDED_LATER if counting else _NEEDED_LATER[:1]):
        how = shlex.join(install_command(tools))
        raise MissingExtraError(f"not installed here: {', '.join(tools)}", hint=f"{hint}; by hand, as root: {how}")
    state = installed()
    if state is None or not is_set_up(target):
        raise MissingExtraError(f"no emulated {target.name} is set up in {folder()}", hint=hint)
    raw = state.get("versions")
    versions = {str(key): str(value) for key, value in raw.items()} if isinstance(raw, dict) else {}
    others = [
        f"{name} {versions.get(name, 'none')}, here {own}"
        for name, own in host_versions().items()
        if versions.get(name) != own
    ]
    if others:
        raise MissingExtraError(f"the emulated boards have {'; '.join(others)}", hint=f"make both alike: {hint}")
    return _kit(target, versions)


def set_up(target: Target, progress: Progress) -> float:
    """Bring what is missing for a target's emulated board; the seconds it took.

    Tools of the system are installed where this is root's process on a system with apt-get.

    Raises:
        DeviceError: A download or an installation failed.
        MissingExtraError: A tool is not installed and cannot be installed from here.
        UnsupportedError: Nothing emulates the target.
    """
    begun = time.monotonic()
    overlay.emulation_of(target)
    install_tools(progress)
    if not up_to_date():
        _bring(progress)
    lay_out(target)
    _compile_modules(_kit(target), progress)
    return time.monotonic() - begun


def lay_out(target: Target) -> None:
    """Write a board's own few files anew, beside the root and the packages that all boards share.

    Raises:
        UnsupportedError: Nothing emulates the target.
    """
    texts, place = overlay.files(target), folder() / target.name
    shutil.rmtree(place, ignore_errors=True)
    for name, text in texts.items():
        path = place / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in _ROOT_LINKS:
        (place / "root" / name).symlink_to(folder() / "root" / name)
    _write_programs(_kit(target))


def _kit(target: Target, versions: Mapping[str, str] | None = None) -> Kit:
    place = folder() / target.name
    return Kit(target, place / "root", folder() / "site", place / "bin", versions or {})


def up_to_date() -> bool:
    """Whether root and packages are there, of the versions that are installed here."""
    state = installed()
    return state is not None and state.get("versions") == host_versions() and (folder() / "site" / "numpy").is_dir()


def install_tools(progress: Progress) -> None:
    """Install the tools of the system that are missing.

    Raises:
        DeviceError: The installation failed.
        MissingExtraError: It cannot be done from here.
    """
    tools = missing_tools()
    if not tools:
        return
    command = install_command(tools)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise MissingExtraError(
            f"not installed here: {', '.join(tools)}", hint=f"as root: {shlex.join(command)}, then repeat"
        )
    progress.note(shlex.join(command))
    _run(["apt-get", "update", "-qq"])
    _run([*command[:2], "-qq", *command[2:]])


def _bring(progress: Progress) -> None:
    """Root and packages, made beside what is there and put in its place."""
    here, versions = folder(), host_versions()
    here.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=here, prefix="setup-") as scratch:
        made = Path(scratch)
        progress.note(f"a root file system of Debian {SUITE}, arm64")
        mode = "root" if os.geteuid() == 0 else "unshare"
        options = [
            f"--mode={mode}",
            "--variant=extract",
            "--architectures=arm64",
            f"--include={','.join(_ROOT_PACKAGES)}",
        ]
        drop = [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale", "info")]
        _run(["mmdebstrap", "--quiet", *options, *drop, SUITE, str(made / "root")])
        progress.note("packages: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
        _download(made / "wheels", versions)
        for wheel in sorted((made / "wheels").glob("*.whl")):
            shutil.unpack_archive(wheel, made / "site", "zip")
        (here / "setup.json").unlink(missing_ok=True)
        shutil.rmtree(here / "bytecode", ignore_errors=True)
        for name in ("root", "site"):
            shutil.rmtree(here / name, ignore_errors=True)
            (made / name).rename(here / name)
    state = {"suite": SUITE, "python": PYTHON, "versions": versions}
    (here / "setup.json").write_text(json.dumps(state, indent=2) + "\n")


def _download(to: Path, versions: Mapping[str, str]) -> None:
    """The packages for the root's Python and an aarch64 Linux, the compiled ones of the versions that are here."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    pip += ["--only-binary=:all:", "--python-version", PYTHON, "--dest", str(to)]
    platforms = [word for tag in _PLATFORMS for word in ("--platform", f"manylinux{tag}_aarch64")]
    _run([*pip, *platforms, *(f"{name}=={version}" for name, version in versions.items())])
    _run([*pip, "--platform", "any", *_PLAIN])


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_REST_S, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{command[0]} did not finish within {_REST_S} s", hint=shlex.join(command)) from None
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise DeviceError(f"{command[0]} failed: {last[:300]}", hint=f"by hand: {shlex.join(command)}")


def _compile_modules(kit: Kit, progress: Progress) -> None:
    """Import each runtime once, which also shows that it can be, so that no later run has to compile its modules."""
    if kit.bytecode.is_dir():
        return
    progress.note("loading each runtime once")
    for runtime, package in _RUNTIMES.items():
        if package in host_versions():
            _run([*kit.command(compiling=True), "-c", _LOADING, str(_SCRIPTS), runtime])


def _write_programs(kit: Kit) -> None:
    """Programs of the board for PATH: its Python, and a `uname` that tells of its architecture."""
    kit.programs.mkdir(parents=True)
    python, real = shlex.join(kit.command(name=str(kit.programs / "python3"))), shutil.which("uname") or "uname"
    texts = {
        "python3": f'#!/bin/sh\nexec {python} "$@"\n',
        "uname": f'#!/bin/sh\n[ "$*" = -m ] && echo aarch64 && exit\nexec {shlex.quote(real)} "$@"\n',
    }
    for name, text in texts.items():
        (kit.programs / name).write_text(text)
        (kit.programs / name).chmod(0o755)
