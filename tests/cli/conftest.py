"""Runs a command line in this process and catches what it writes to the real file descriptors."""

from __future__ import annotations

import signal
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import edgeprune
from edgeprune.cli.main import run


@dataclass(frozen=True)
class Done:
    """What a command line ended with."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """`command("fit", "--latency", "20ms")`, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)

    def call(*arguments: str) -> Done:
        capfd.readouterr()
        code = run(list(arguments))
        sys.stdout.flush()
        return Done(code, *capfd.readouterr())

    yield call
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`stand_in("pipeline", fit=function)`: a module of edgeprune with these names only."""

    def put(name: str, **names: Any) -> None:
        module = types.ModuleType(f"edgeprune.{name}")
        for key, value in names.items():
            setattr(module, key, value)
        monkeypatch.setitem(sys.modules, f"edgeprune.{name}", module)
        if "." not in name:
            monkeypatch.setattr(edgeprune, name, module, raising=False)

    return put
