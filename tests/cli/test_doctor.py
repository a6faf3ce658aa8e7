"""`edgeprune doctor`: true to the project file, and useful when parts are missing."""

from __future__ import annotations

import json
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from edgeprune import backends
from edgeprune.cli import doctor
from tests.cli.conftest import Command

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9-]", requirement)[0] for requirement in requirements}


def test_the_lists_are_those_of_the_project_file() -> None:
    assert set(doctor.CORE) == names(PROJECT["dependencies"])
    extras = PROJECT["optional-dependencies"]
    assert {extra.name: set(extra.packages) for extra in doctor.EXTRAS} == {
        name: names(extras[name]) for name in extras if name not in ("all", "dev")
    }


def test_everything_installed_is_listed_with_its_version(command: Command) -> None:
    done = command("doctor", "--json")
    document = json.loads(done.out)
    assert done.code == 0 and document["core"]["torch"] == metadata.version("torch")
    assert set(document["backends"]) == set(backends.names())


def test_a_missing_extra_is_shown_with_what_it_brings_and_its_command(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "openvino" else real(name))
    done = command("doctor")
    (line,) = [line for line in done.out.splitlines() if "missing openvino" in line]
    assert done.code == 0 and "export to OpenVINO" in line and 'pip install "edgeprune[openvino]"' in line


def test_an_incomplete_core_ends_with_7(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "torch" else "1")
    done = command("doctor")
    assert done.code == 7 and "the core is incomplete (torch)" in done.err


def test_emulated_boards_are_named(
    command: Command, emulated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert json.loads(command("doctor", "--json").out)["emulated_boards"] == ["rpi4"]
    assert "emulated Linux boards: rpi4; see edgeprune emulate status" in command("doctor").out
    monkeypatch.setenv("EDGEPRUNE_BOARDS", str(tmp_path / "none"))
    assert "emulated Linux boards: none set up" in command("doctor").out
