"""`edgeprune deploy`, `verify` and `keys` from end to end on this machine, and what they refuse."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Command


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    file = tmp_path / "inputs.npy"
    np.save(file, np.random.default_rng(0).standard_normal((8, 16, 16, 16)).astype(np.float32))
    return file


def test_a_file_is_deployed_verified_and_taken_back(
    command: Command, small_tflite: Path, inputs: Path, tmp_path: Path
) -> None:
    there = ("--device", "local", "--root", str(tmp_path / "root"), "--name", "net", "-q")
    words = ("deploy", str(small_tflite), *there, "--inputs", str(inputs))
    first = command(*words, "--json", "--no-latency-check")
    assert first.code == 0, first.err
    record = json.loads(first.out)
    assert (record["schema"], record["outcome"]) == ("edgeprune.deploy/1", "deployed")
    assert record["self_test"]["exact"] and record["self_test"]["vectors"] == 11
    second = command(*words, "--threads", "2", "--latency", "10s")
    assert second.code == 0 and "11 vectors, equal to the last bit" in second.out and "budget 10 s" in second.out
    refused = command(*words, "--threads", "3", "--latency", "1ns")
    assert refused.code == 3 and "the median of" in refused.err
    found = command("verify", *there, "--json")
    assert found.code == 0 and json.loads(found.out)["previous"] == record["release"]
    back = command("deploy", "--rollback", *there)
    assert back.code == 0 and f"rolled back: net {record['release']}" in back.out
    (tmp_path / "root" / "net" / "current" / "model.tflite").write_bytes(b"x")
    broken = command("verify", *there)
    assert broken.code == 8 and "'model.tflite' is changed" in broken.err


def test_a_dry_run_asks_no_device(command: Command, small_tflite: Path, inputs: Path) -> None:
    words = ("deploy", str(small_tflite), "--inputs", str(inputs), "--device", "ssh://nowhere.invalid", "--dry-run")
    done = command(*words)
    assert done.code == 0 and "11 test vectors, 8 of them real" in done.out
    assert "would go to ssh://nowhere.invalid" in done.out and "model.tflite" in done.out


@pytest.mark.slow
def test_a_fleet_prints_one_line_for_each_device(
    command: Command, small_tflite: Path, inputs: Path, tmp_path: Path, phone: str
) -> None:
    python = f'python = "{sys.executable}"\n'
    rows = [f'[[device]]\naddress = "local"\n{python}root = "{tmp_path}/a"\n', '[[device]]\naddress = "adb:gone-1"\n']
    (tmp_path / "fleet.toml").write_text("".join([*rows, '[[device]]\naddress = "adb:phone-1"\n']))
    words = ("deploy", str(small_tflite), "--inputs", str(inputs), "--devices", "fleet.toml", "--no-latency-check")
    done = command(*words, "--json", "-q")
    records = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 5 and [record["outcome"] for record in records] == ["deployed", "failed", "left out"]
    assert "there is no device adb:gone-1" in records[1]["error"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("deploy", 2, "one device or a fleet"),
        ("deploy m.tflite --device local --devices f", 2, "one device or a fleet"),
        ("deploy --device local", 2, "nothing to deploy"),
        ("deploy none --device local", 2, "no such file: none"),
        ("deploy m.tflite --device local", 2, "a bare model file needs real inputs"),
        ("deploy m.tflite --rollback --device local", 2, "--rollback takes the app's name"),
        ("deploy --rollback --device local", 2, "--rollback takes the app's name"),
        ("deploy m.tflite --device local --health 'x", 2, "cannot read the command"),
        ("deploy m.tflite --device local --latency 20", 2, "20"),
        ("deploy m.tflite --device local --target none", 2, "unknown target 'none'"),
        ("deploy . --device local", 2, "not a run folder"),
        ("verify --device local --name x --root /nonexistent", 2, "host has no app x"),
        ("verify --device local --name ../x", 2, "not a name"),
        ("verify --device local --name x --python /none", 7, "host has no Python to test a release with"),
    ],
)
def test_what_is_wrong_ends_with_its_own_code(
    command: Command, tmp_path: Path, words: str, code: int, message: str
) -> None:
    (tmp_path / "m.tflite").write_bytes(b"x")
    done = command(*words.split(" "))
    assert done.code == code and message in done.err and done.out == ""


def test_keys_are_made_and_sign(command: Command, small_tflite: Path, inputs: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="needs the extra sign")
    made = command("keys", "new", "edge")
    assert made.code == 0 and "edge signs, edge.pub checks" in made.out
    words = ("deploy", str(small_tflite), "--inputs", str(inputs), "--device", "local", "--root", str(tmp_path / "r"))
    assert command(*words, "--key", "edge.pub").code == 8  # must be signed, and nothing signs it
    done = command(*words, "--sign", "edge", "--key", "edge.pub", "--no-latency-check", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["signed_by"] in made.out


def test_without_the_library_keys_say_what_to_install(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    done = command("keys", "new", "edge")
    assert done.code == 7 and 'pip install "edgeprune[sign]"' in done.err
