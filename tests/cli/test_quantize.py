"""`edgeprune quantize`: files, the steps that were tried, and the exit code that says whether int8 holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.test_export import MODEL


@pytest.mark.slow
def test_a_plain_file_that_holds_is_written_with_its_drop(command: Command) -> None:
    done = command("quantize", *MODEL, "--format", "onnx", "--json", "--quiet")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["schema"] == "edgeprune.quantize/1" and record["holds"]
    assert [(row["step"], row["kept"]) for row in record["steps"]] == [("plain", True)]
    (artifact,) = record["artifacts"]
    assert artifact["name"] == "onnx" and Path(artifact["path"]) == Path("quantized/onnx/model.onnx")
    assert Path(artifact["path"]).is_file() and artifact["validation_drop"] <= 0.005


@pytest.mark.slow
def test_what_does_not_hold_is_written_all_the_same_and_said(command: Command) -> None:
    more = ["--format", "onnx", "--max-drop", "0.0001pp", "--steps", "none", "--quiet"]
    done = command("quantize", *MODEL, *more, "--set", "quantize.max_drop=1pp", "--out", "here")
    assert done.code in (0, 4) and "plain (kept, the best)" in done.out
    assert str(Path("here", "onnx", "model.onnx")) in done.out


@pytest.mark.slow
def test_a_file_is_inspected_against_its_model(command: Command) -> None:
    assert command("export", *MODEL, "--format", "onnx", "--quiet").code == 0
    entry, *rest = MODEL
    file = str(Path("exported", "onnx", "model.onnx"))
    done = command("inspect", file, entry.replace("--model", "--against"), *rest)
    assert done.code == 0, done.err
    assert "the worst first" in done.out and "channels scaled" in done.out
    done = command("inspect", file, entry.replace("--model", "--against"), *rest, "--json")
    assert json.loads(done.out)["schema"] == "edgeprune.against/1"


def test_a_file_without_its_model_is_refused(command: Command) -> None:
    done = command("inspect", "model.onnx", *MODEL)
    assert done.code == 2 and "against its float model" in done.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--format", "onx"], "unknown format 'onx'"),
        (["--steps", "magic"], "quantize.steps.0"),
        (["--max-drop", "0.5"], "no clear unit"),
    ],
)
def test_bad_flags_are_refused(command: Command, more: list[str], message: str) -> None:
    done = command("quantize", *MODEL, *more)
    assert done.code == 2 and message in done.err


def test_a_run_names_its_own_model(command: Command, tmp_path: Path) -> None:
    done = command("quantize", str(tmp_path), *MODEL)
    assert done.code == 2 and "a run names its own model and data" in done.err
    done = command("quantize", str(tmp_path))
    assert done.code == 2 and "not a run folder" in done.err
