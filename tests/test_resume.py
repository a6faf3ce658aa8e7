"""kill -9 at random moments: the resumed fit ends like an uninterrupted one."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgeprune.record import read_record
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
