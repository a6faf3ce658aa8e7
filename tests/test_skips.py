"""The guard against tests that drop out unseen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import unexpected


def test_listed_reasons_pass_and_others_do_not() -> None:
    reasons = ["needs a GPU", "needs the shared data in ../shared", "could not be bothered"]
    assert unexpected(reasons) == ["could not be bothered"]


@pytest.mark.parametrize(("reason", "code"), [("needs a GPU", 0), ("tired", 1)])
def test_a_run_with_an_unlisted_skip_fails(tmp_path: Path, root: Path, reason: str, code: int) -> None:
    file = tmp_path / "test_it.py"
    file.write_text(f"import pytest\ndef test_one(): pytest.skip({reason!r})\ndef test_two(): assert True\n")
    line = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:anyio", "--rootdir", str(tmp_path)]
    line += ["-c", "/dev/null", str(file), "--no-unexpected-skips"]
    done = subprocess.run(line, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert ("unexpected skip: tired" in done.stdout) == bool(code)
