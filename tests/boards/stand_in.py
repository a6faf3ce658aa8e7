"""An emulated board without QEMU: a program of its name that runs this machine's Python instead."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import pytest

from edgeprune.boards import kit

QEMU = """#!/bin/sh
[ "$1" = --version ] && echo "qemu-aarch64 version 7.2.22 (stand-in)" && exit
while [ $# -gt 0 ]; do
  case $1 in
    -cpu | -L | -0 | -plugin | -seed | -U) shift 2 ;;
    -E) case $2 in PYTHONHOME=* | PYTHONPATH=*) ;; *) export "$2" ;; esac; shift 2 ;;
    *) break ;;
  esac
done
shift
exec {python} "$@"
"""


def board(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = "rpi4") -> Path:
    """Set up a stand-in for a board in a folder, and put its QEMU on PATH; where the boards lie."""
    from edgeprune.target import load_target

    boards, programs = folder / "the boards", folder / "qemu"
    programs.mkdir()
    program = programs / kit.QEMU
    program.write_text(QEMU.format(python=shlex.quote(sys.executable)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv(kit.FOLDER_VARIABLE, str(boards))
    for part in ("root/usr/bin", "root/lib", "root/etc", "site/numpy", "bytecode"):
        (boards / part).mkdir(parents=True)
    (boards / "setup.json").write_text(json.dumps({"versions": kit.host_versions()}))
    kit.lay_out(load_target(name))
    return boards
