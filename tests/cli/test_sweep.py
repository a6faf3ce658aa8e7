"""`edgeprune sweep`: flags become points, the record becomes text or JSON and an exit code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from edgeprune.front.documents import SweepRecord
from edgeprune.front.folder import created, write_record
from edgeprune.front.grid import Point
from tests.cli.conftest import Command
from tests.front.made_up import made_up_sweep


@pytest.fixture
def asked(stand_in: Any) -> list[Any]:
    """What the flow was asked for; it answers with a made-up record."""
    calls: list[Any] = []

    def answer(what: Any, *place: Any, **options: Any) -> SweepRecord:
        calls.append((what, options | ({"name": place[0], "out": place[1]} if place else {})))
        os.write(1, b"compiled code chats\n")
        options["progress"].note("preparing")
        return made_up_sweep()

    stand_in("front.flow", sweep=answer, resume_sweep=answer)
    return calls


def test_all_flags_arrive_in_the_points(command: Command, asked: list[Any]) -> None:
    line = (
        "sweep --model nets.py:make --weights w.safetensors --data npz:t.npz --target rpi4,rpi5 --latency 5ms:40ms:2 "
        "--ram 1MiB,2MiB --size 2MB --at p50 --max-drop 1pp --epochs 2 --rounds 1 --seed 7 --step 4 --no-distill "
        "--format onnxruntime --out here --jobs 2 --cpus 3 --set fit.batch_size=32"
    )
    done = command(*line.split())
    ((points, options),) = asked
    assert done.code == 6 and len(points) == 8
    assert points[0].name == "rpi4-5ms-1MiB-2MB" and points[-1].name == "rpi5-40ms-2MiB-2MB"
    spec = points[-1].spec
    budget = (spec.budget.latency, spec.budget.ram, spec.budget.size, spec.budget.at, spec.budget.max_drop)
    assert budget == ("40ms", "2MiB", "2MB", "p50", "1pp")
    fit = spec.fit
    assert (fit.epochs, fit.rounds, fit.seed, fit.step, fit.distill, fit.batch_size) == (2, 1, 7, 4, False, 32)
    assert spec.model.entry == f"{Path.cwd()}/nets.py:make" and fit.formats == ("onnxruntime",)
    options.pop("progress")
    assert options == {"name": "make", "out": Path("here"), "jobs": 2, "cpus": 3, "cluster": None}


def test_stdout_holds_the_result_and_nothing_else(command: Command, asked: list[Any]) -> None:
    done = command("sweep", "--target", "rpi4", "--latency", "5ms", "--json")
    assert SweepRecord.model_validate_json(done.out) == made_up_sweep()
    assert "built-in demo" in done.err and "compiled code chats" in done.err and "preparing" in done.err
    text = command("sweep", "--target", "rpi4", "--latency", "5ms", "--quiet")
    assert text.out.startswith("digits: 4 of 7 budgets met") and "preparing" not in text.err and len(asked) == 2


def test_a_dry_run_lists_the_points(command: Command, asked: list[Any]) -> None:
    line = ("sweep", "--target", "rpi4", "--latency", "5ms:40ms:4", "--dry-run")
    text = command(*line).out.splitlines()
    assert [line.split()[0] for line in text] == ["point", "rpi4-5ms", "rpi4-10ms", "rpi4-20ms", "rpi4-40ms"]
    named = json.loads(command(*line, "--json").out)["points"]
    assert [point["latency"] for point in named] == ["5ms", "10ms", "20ms", "40ms"] and asked == []


def test_resume_takes_only_where_to_run(command: Command, asked: list[Any]) -> None:
    assert command("sweep", "--resume", "runs/x", "--jobs", "1").code == 6
    ((folder, options),) = asked
    assert folder == Path("runs/x") and options["jobs"] == 1 and options["cluster"] is None
    for more in (("--latency", "5ms"), ("--target", "rpi4"), ("--cpus", "2"), ("--dry-run",), ("--seed", "1")):
        done = command("sweep", "--resume", "runs/x", *more)
        assert done.code == 2 and "a resumed sweep keeps its own job" in done.err
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sweep --target rpi4", "no budget"),
        ("sweep --target rpi4 --latency 5ms:40ms", "cannot read '5ms:40ms'"),
        ("sweep --target rpi4,pi --latency 5ms", "unknown target 'pi'"),
        ("sweep --target rpi4 --latency 5ms --jobs 0", "--jobs"),
        ("sweep --latency 5ms --set budget.latency=5ms:6ms:2", "cannot read '5ms:6ms:2'"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(command: Command, asked: list[Any], line: str, message: str) -> None:
    done = command(*line.split())
    assert done.code == 2 and message in done.err and asked == [] and done.out == ""


def test_ctrl_c_ends_with_130_and_the_command_that_continues(command: Command, stand_in: Any) -> None:
    def interrupted(points: tuple[Point, ...], name: str, out: Path, *, cpus: int, **_: Any) -> None:
        with created(out, name, points, cpus):
            raise KeyboardInterrupt

    stand_in("front.flow", sweep=interrupted)
    done = command("sweep", "--target", "rpi4", "--latency", "5ms", "--out", "mine")
    (folder,) = Path("mine").iterdir()
    assert done.code == 130 and done.err.endswith(f"hint: continue with edgeprune sweep --resume {folder}\n")


def test_a_sweeps_report_is_made_again(command: Command, stand_in: Any, tmp_path: Path) -> None:
    from edgeprune.front.grid import grid
    from edgeprune.spec import Spec

    with created(tmp_path / "runs", "x", grid(Spec(), ("rpi4",), {"latency": ("5ms",)}), 1) as folder:
        unfinished = command("report", str(folder))
        assert unfinished.code == 2 and f"hint: edgeprune sweep --resume {folder}" in unfinished.err
        write_record(folder, made_up_sweep())
    assert command("report", str(folder)).out.startswith("digits: 4 of 7 budgets met")
    assert (folder / "report.html").is_file() and (folder / "report.md").is_file()
    assert command("report", str(folder), "--markdown").out == (folder / "report.md").read_text()
    assert SweepRecord.model_validate_json(command("report", str(folder), "--json").out) == made_up_sweep()
