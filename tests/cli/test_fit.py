"""`edgeprune fit`: flags become a job, the record becomes text or JSON and an exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from edgeprune.documents import FitRecord
from edgeprune.errors import MissingExtraError, NoRoomError
from edgeprune.progress import SILENT, Progress
from edgeprune.record import create
from edgeprune.spec import Spec, load_spec
from tests.cli.conftest import Command
from tests.report.made_up import infeasible_record, made_up_record, missed_record

ROOT = Path(__file__).parents[2]


@pytest.fixture
def jobs(stand_in: Any) -> list[Any]:
    """What the pipeline was asked for; it answers with a made-up record."""
    asked: list[Any] = []

    def answer(job: Any, progress: Progress) -> FitRecord:
        asked.append(job)
        print("a library chats on stdout")
        os.write(1, b"compiled code too\n")
        progress.note("tuning")
        return made_up_record()

    stand_in("pipeline", fit=answer, resume=answer)
    return asked


def test_all_flags_arrive_in_the_job(command: Command, jobs: list[Spec]) -> None:
    line = (
        "fit --model nets.py:make --model-arg width=8 --model-arg act=relu --weights w.safetensors --data npz:t.npz "
        "--task classify --target rpi4 --runtime tflite --threads 2 --latency 20ms --at p99 --ram 1MiB --size 2MB "
        "--max-drop 1pp --epochs 2 --rounds 1 --seed 7 --step 4 --no-distill --format onnx --format tflite --out here "
        "--set fit.batch_size=32 -o fit.race_steps=0"
    )
    assert command(*line.split()).code == 0
    (spec,) = jobs
    assert spec.model.entry == "nets.py:make" and spec.model.args == {"width": 8, "act": "relu"}
    assert spec.model.weights == Path("w.safetensors") and spec.data.source == "npz:t.npz"
    assert (spec.target.name, spec.target.runtime, spec.target.threads) == ("rpi4", "tflite", 2)
    budget = spec.budget
    assert (budget.latency, budget.at, budget.ram, budget.size, budget.max_drop) == (
        "20ms",
        "p99",
        "1MiB",
        "2MB",
        "1pp",
    )
    fit = spec.fit
    assert (fit.epochs, fit.rounds, fit.seed, fit.step, fit.distill) == (2, 1, 7, 4, False)
    assert (fit.formats, fit.batch_size, fit.race_steps, spec.out) == (("onnx", "tflite"), 32, 0, Path("here"))


def test_the_job_file_of_the_folder_makes_the_bare_command_work(command: Command, jobs: list[Spec]) -> None:
    text = '[model]\nentry = "nets.py:make"\n[data]\nsource = "npz:t.npz"\n[budget]\nlatency = "20ms"\n'
    Path("edgeprune.toml").write_text(text)
    done = command("fit")
    assert done.code == 0 and jobs[0].model.entry == "nets.py:make" and "demo" not in done.err


def test_the_demo_says_so_in_its_first_line(command: Command, jobs: list[Spec]) -> None:
    done = command("fit", "--target", "rpi4", "--latency", "20ms")
    assert "built-in demo" in done.err.splitlines()[0] and jobs[0].is_demo
    assert done.out.splitlines()[0].startswith("demo: met: 16.9 ms on rpi4 (estimated;")


def test_stdout_holds_the_result_and_nothing_else(command: Command, jobs: list[Spec]) -> None:
    done = command("fit", "--latency", "20ms", "--json")
    assert FitRecord.model_validate_json(done.out) == made_up_record()
    assert json.loads(done.out)["workload"] == "demo"
    assert "compiled code too" in done.err and "tuning" in done.err and jobs


@pytest.mark.parametrize(("record", "code"), [(made_up_record(), 0), (missed_record(), 4), (infeasible_record(), 3)])
def test_the_verdict_is_the_exit_code(command: Command, stand_in: Any, record: FitRecord, code: int) -> None:
    stand_in("pipeline", fit=lambda *_: record)
    done = command("fit", "--latency", "20ms")
    assert done.code == code and record.verdict in done.out.splitlines()[0]


def test_quiet_hands_in_the_silent_progress(command: Command, stand_in: Any) -> None:
    seen: list[Progress] = []
    stand_in("pipeline", fit=lambda _, progress: seen.append(progress) or made_up_record())
    done = command("fit", "--latency", "20ms", "--quiet")
    assert done.code == 0 and seen == [SILENT]


def test_a_dry_run_prints_a_job_file_that_gives_the_same_job(command: Command, jobs: list[Spec]) -> None:
    done = command("fit", "--latency", "20ms", "--target", "rpi4", "--dry-run")
    Path("again.toml").write_text(done.out)
    assert done.code == 0 and jobs == []
    assert load_spec(Path("again.toml"), {}) == load_spec(None, {"budget.latency": "20ms", "target.name": "rpi4"})


def test_the_criterion_is_a_key_of_the_job(command: Command, jobs: list[Spec]) -> None:
    assert command("fit", "--macs", "1M", "--criterion", "taylor_per_site").code == 0
    assert jobs[0].fit.criterion == "taylor_per_site"


def test_a_limit_on_flash_is_one_on_size(command: Command, jobs: list[Spec]) -> None:
    assert command("fit", "--flash", "512KiB").code == 0
    assert jobs[0].budget.size == "512KiB"


def test_resume_continues_the_folder_and_takes_no_other_flags(command: Command, jobs: list[Any]) -> None:
    assert command("fit", "--resume", "runs/x").code == 0
    assert jobs == [Path("runs/x")]
    done = command("fit", "--resume", "runs/x", "--latency", "20ms")
    assert done.code == 2 and "a resumed run keeps its own job" in done.err


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("fit", "no budget", "--latency 20ms"),
        ("fit --latency 20", "'20' has no unit", "write 20ms or 20s"),
        ("fit --size 1MB --flash 1MB", "--size and --flash are one limit", "give one of them"),
        ("fit --latency 20ms --ram 256K", "'256K' has no clear unit", "write 256kB"),
        ("fit --latency 20ms --max-drop 1", "'1' has no clear unit", "write 1pp"),
        ("fit --latency 20ms --at p95", "budget.at: ", "p90"),
        ("fit --latency 20ms --model nets.py:make", "a model without data", "add --data"),
        ("fit --latency 20ms --set epochs", "cannot read 'epochs'", "fit.epochs=2"),
        ("fit --latency 20ms --set fit.epoch=2", "unknown key 'fit.epoch'", "did you mean epochs"),
        ("fit --latency 20ms --model m.py:f --data npz:x --model-arg width", "cannot read 'width'", "width=32"),
        ("fit --config none.toml", "no such file: none.toml", ""),
    ],
)
def test_bad_input_is_refused_before_anything_runs(
    command: Command, jobs: list[Spec], line: str, message: str, hint: str
) -> None:
    done = command(*line.split())
    assert done.code == 2 and jobs == [] and done.out == ""
    assert message in done.err and hint in done.err and "Traceback" not in done.err


def test_a_missing_extra_ends_with_7_and_the_install_line(command: Command, stand_in: Any) -> None:
    def fit(*_: object) -> None:
        raise MissingExtraError("export to TFLite needs the extra 'tflite'", hint='pip install "edgeprune[tflite]"')

    stand_in("pipeline", fit=fit)
    done = command("fit", "--latency", "20ms")
    assert done.code == 7 and 'hint: pip install "edgeprune[tflite]"' in done.err


def test_a_full_disk_ends_with_11(command: Command, stand_in: Any) -> None:
    def fit(*_: object) -> None:
        raise NoRoomError("the disk is full", where="runs/x")

    stand_in("pipeline", fit=fit)
    assert command("fit", "--latency", "20ms").code == 11


def test_ctrl_c_ends_with_130_and_the_command_that_continues(command: Command, stand_in: Any) -> None:
    def fit(spec: Spec, _: Progress) -> None:
        with create(spec, "demo"):
            raise KeyboardInterrupt

    stand_in("pipeline", fit=fit)
    done = command("fit", "--latency", "20ms", "--out", "mine")
    (run,) = Path("mine").iterdir()
    assert done.code == 130
    assert done.err.endswith(f"error: interrupted\nat {run}\nhint: continue with edgeprune fit --resume {run}\n")


def test_ctrl_c_before_the_first_write_says_so(command: Command, stand_in: Any) -> None:
    def fit(*_: object) -> None:
        raise KeyboardInterrupt

    stand_in("pipeline", fit=fit)
    done = command("fit", "--latency", "20ms")
    assert done.code == 130 and "nothing was written yet" in done.err


def test_a_terminated_fit_ends_with_143_and_the_command_that_continues(tmp_path: Path) -> None:
    script = """
        import sys, time, types
        from edgeprune.cli.main import run
        from edgeprune.record import create

        def fit(spec, progress):
            with create(spec, "demo"):
                print("started", file=sys.stderr, flush=True)
                time.sleep(60)

        module = types.ModuleType("edgeprune.pipeline")
        module.fit = fit
        sys.modules["edgeprune.pipeline"] = module
        sys.exit(run(["fit", "--latency", "20ms", "--out", sys.argv[1]]))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "started" in line:
            break
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143 and f"--resume {tmp_path}/" in err and "error: terminated" in err
