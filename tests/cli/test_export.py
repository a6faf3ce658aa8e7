"""`edgeprune export`: the files are written, checked against torch, and listed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command

EXAMPLE = Path(__file__).parents[2] / "examples" / "quickstart"
MODEL = [
    f"--model={EXAMPLE / 'nets.py'}:make",
    f"--weights={EXAMPLE / 'w.safetensors'}",
    f"--data=npz:{EXAMPLE / 'train.npz'}",
]


def test_an_onnx_file_is_written_and_close_to_torch(command: Command) -> None:
    done = command("export", *MODEL, "--format", "onnx", "--json", "--quiet")
    assert done.code == 0, done.err
    (artifact,) = json.loads(done.out)["artifacts"].values()
    assert Path(artifact["path"]).is_file() and artifact["precision"] == "int8"
    assert artifact["gates"]["snr_db"] > 15 and artifact["gates"]["argmax_agreement"] > 0.95


@pytest.mark.slow
def test_a_float_file_is_listed_with_its_precision(command: Command) -> None:
    done = command("export", *MODEL, "--format", "onnx", "--precision", "fp32", "--out", "here")
    assert done.code == 0, done.err
    assert "fp32" in done.out and str(Path("here", "onnx")) in done.out


@pytest.mark.slow
def test_a_c_library_is_written_only_where_it_is_asked_for(command: Command) -> None:
    done = command("export", *MODEL, "--format", "c", "--json", "--quiet")
    assert done.code == 0, done.err
    (artifact,) = json.loads(done.out)["artifacts"].values()
    assert Path(artifact["path"]) == Path("exported/c/model/model.c.json") and Path(artifact["path"]).is_file()
    assert artifact["gates"]["snr_db"] > 15 and artifact["gates"]["argmax_agreement"] > 0.95


@pytest.mark.parametrize(
    ("more", "message", "hint"),
    [
        (["--format", "onx"], "unknown format 'onx'", "did you mean onnx"),
        (["--precision", "int4"], "unknown precision 'int4'", "int8 or fp32"),
    ],
)
def test_an_unknown_format_or_precision_is_refused(command: Command, more: list[str], message: str, hint: str) -> None:
    done = command("export", *MODEL, *more)
    assert done.code == 2 and message in done.err and hint in done.err
