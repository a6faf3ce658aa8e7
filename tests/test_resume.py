"""kill -9 at random moments: the resumed fit ends like an uninterrupted one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from edgeprune.documents import FitRecord
from edgeprune.record import read_record
from edgeprune.spec import Spec, resolved_toml
from edgeprune.training.checkpoint import read_tensors
from edgeprune.training.resume import Position
from tests.digits import digits, trained
from tests.test_pipeline import same_result

KILLS = 20

# The spec's entries are never opened: the workload is put in its place, in every process alike.
PROGRAM = """
import sys
from pathlib import Path
from edgeprune import pipeline
from tests.digits import workload
from tests.test_pipeline import spec
pipeline.load_workload = lambda _: workload()
out = Path(sys.argv[1])
folders = [folder for folder in out.iterdir() if (folder / "spec.json").is_file()]
pipeline.resume(folders[0]) if folders else pipeline.fit(spec(out))
"""


@pytest.mark.slow
def test_a_fit_killed_at_random_points_resumes_to_the_same_result(tmp_path: Path, root: Path) -> None:
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    whole.mkdir()
    torn.mkdir()
    subprocess.run([sys.executable, "-c", PROGRAM, str(whole)], cwd=root, check=True, timeout=600, capture_output=True)
    chance = random.Random(0)
    killed = 0
    for _ in range(KILLS):
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(torn)], cwd=root, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=chance.uniform(3, 14))
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
    subprocess.run([sys.executable, "-c", PROGRAM, str(torn)], cwd=root, check=True, timeout=600, capture_output=True)
    assert killed > 0
    (left,), (right,) = [list(folder.iterdir()) for folder in (whole, torn)]
    assert same_result(read_record(left), read_record(right))


def job(folder: Path, epochs: int = 3) -> Path:
    """A job in files whose training takes most of its time and writes its state after every step."""
    save_file(trained(), folder / "digits.safetensors")
    sets = {
        f"{axis}{suffix}": getattr(digits()[role], axis).numpy()
        for role, suffix in (("train", ""), ("validation", "_val"), ("test", "_test"))
        for axis in "xy"
    }
    np.savez(folder / "digits.npz", **sets)
    spec = Spec.model_validate(
        {
            "model": {"entry": f"{Path(__file__).parent / 'digits.py'}:Net", "weights": folder / "digits.safetensors"},
            "data": {"source": f"npz:{folder / 'digits.npz'}", "crop": 1},
            "target": {"name": str(Path(__file__).parent / "golden" / "test-board.toml")},
            "budget": {"latency": "250us"},
            "fit": {
                "schedule": "one-shot",
                "epochs": epochs,
                "race_steps": 0,
                "formats": ("onnxruntime",),
                "curves": False,
            },
            "train": {"checkpoint_s": 0.0},
        }
    )
    (folder / "job.toml").write_text(resolved_toml(spec))
    return folder / "job.toml"


@pytest.mark.slow
def test_a_fit_killed_in_the_middle_of_epochs_ends_with_the_same_bits(tmp_path: Path) -> None:
    config, command = job(tmp_path), [sys.executable, "-m", "edgeprune", "fit"]

    def result(out: Path) -> bytes:
        (run,) = out.iterdir()
        return (run / "round-1-model" / "model.safetensors").read_bytes()

    whole, torn = tmp_path / "whole", tmp_path / "torn"
    subprocess.run([*command, "--config", str(config), "--out", str(whole)], check=True, capture_output=True)
    seen: list[int] = []
    for steps in (3, 19, 40):  # 17 steps are an epoch
        resume = ["--resume", str(next(torn.iterdir()))] if seen else ["--config", str(config), "--out", str(torn)]
        process = subprocess.Popen([*command, *resume], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while process.poll() is None and (step := written_step(torn)) < steps:
                time.sleep(0.005)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        seen.append(step)
    assert seen == sorted(set(seen)) and len({step % 17 for step in seen} - {0}) > 1
    subprocess.run([*command, "--resume", str(next(torn.iterdir()))], check=True, capture_output=True)
    assert result(torn) == result(whole)


def written_step(out: Path) -> int:
    """The step that the training below `out` would go on from; 0 before it has begun."""
    files = list(out.glob("*/unfinished/*/training.safetensors"))
    return Position.model_validate_json(read_tensors(files[0])[1]["training"]).step if files else 0


@pytest.mark.slow
def test_two_processes_of_torchrun_find_the_plan_of_one(tmp_path: Path, root: Path) -> None:
    config = str(job(tmp_path, epochs=1))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    fit = ["-m", "edgeprune", "fit", "--json", "--quiet", "--config", config, "--out"]
    runs = []
    for start in ([sys.executable], launcher):
        out = tmp_path / str(len(runs))
        done = subprocess.run(
            [*start, *fit, str(out)], cwd=root, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        (run,) = out.iterdir()
        assert FitRecord.model_validate_json(done.stdout) == read_record(run), "one process prints, and writes one run"
        runs.append(run)
    plans = [(run / "plan.json").read_text() for run in runs]
    scores = [json.loads((run / "stages" / "importance.json").read_text())["scores"] for run in runs]
    one, two = (read_record(run).metric for run in runs)
    assert plans[0] == plans[1] and scores[0] == scores[1] and abs(one.pruned - two.pruned) < 0.05
