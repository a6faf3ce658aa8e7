"""From a model to a release on a board over ssh whose commands run the aarch64 runtime."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from edgeprune.boards.execution import execute
from edgeprune.boards.kit import Kit
from tests.cli.conftest import Command
from tests.digits import job_files

pytestmark = pytest.mark.slow
AARCH64 = 183  # e_machine


def test_a_model_is_fitted_deployed_verified_and_taken_back_on_the_board(
    aarch64_board: tuple[str, Path],
    any_machine: None,
    real_board: Kit,
    command: Command,
    tmp_path: Path,
) -> None:
    there, log = ("--device", aarch64_board[0]), aarch64_board[1]
    model, data = job_files(tmp_path).values()
    job = ("--model", str(model["entry"]), "--weights", str(model["weights"]), "--data", str(data["source"]))
    settings = ("schedule=one-shot", "race_steps=4", "calibration_samples=32", "step=8")
    quick = (*(word for setting in settings for word in ("-o", f"fit.{setting}")), "--epochs", "1", "--rounds", "1")
    asked = ("--target", "rpi4", "--latency", "60s", "--at", "p50", "--macs", "2.5M", "--format", "tflite")
    done = command("fit", *job, *asked, *there, *quick, "--require", "measured", "--out", "runs", "--json", "-q")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert (record["verdict"], record["source"], record["target"]) == ("met", "measured", "rpi4")
    artifact = Path(record["artifacts"]["tflite"])

    root = tmp_path / "root"
    place = (*there, "--root", str(root), "--name", "digits", "-q")
    first = command("deploy", record["run"], *place, "--json")
    assert first.code == 0, first.err
    released = json.loads(first.out)
    assert released["outcome"] == "deployed" and released["self_test"]["exact"]
    second = command("deploy", record["run"], *place, "--threads", "2", "--no-latency-check", "--json")
    assert second.code == 0 and json.loads(second.out)["release"] != released["release"], second.err
    found = command("verify", *place, "--json")
    assert found.code == 0 and json.loads(found.out)["previous"] == released["release"], found.err
    back = command("deploy", "--rollback", *place)
    assert back.code == 0 and f"rolled back: digits {released['release']}" in back.out, back.err

    # All of that ran in an aarch64 process, and what lies there now runs as A64 instructions.
    words = log.read_text()
    assert "--model" in words and "check.py" in words and "bench.py" in words
    assert struct.unpack_from("<H", real_board.python.read_bytes(), 18) == (AARCH64,)
    deployed = root / "digits" / "current" / "model.tflite"
    assert deployed.read_bytes() == artifact.read_bytes()
    run = execute(deployed, "tflite", real_board)
    libraries = [Path(name) for name in run.libraries if "ai_edge_litert" in name]
    assert libraries and {struct.unpack_from("<H", path.read_bytes(), 18)[0] for path in libraries} == {AARCH64}
    assert run.tallies[-1].instructions > 100_000 and run.tallies[-1].classes["long_multiply"] > 0
