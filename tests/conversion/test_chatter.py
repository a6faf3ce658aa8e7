import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from edgeprune.conversion.chatter import quiet
from edgeprune.errors import QualityError, UnsupportedError, UsageError


def test_nothing_reaches_the_terminal_neither_from_python_nor_from_c(capfd: Any) -> None:
    print("before")
    with quiet("converting"):
        print("progress")
        print("warning", file=sys.stderr)
        os.write(1, b"from C++\n")
        os.write(2, b"from C++\n")
        subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        logging.getLogger().warning("logged")
    print("after")
    captured = capfd.readouterr()
    assert captured.out == "before\nafter\n" and captured.err == ""


def test_a_failure_tells_the_reason_and_the_last_lines() -> None:
    with (
        pytest.raises(UnsupportedError, match="converting failed: RuntimeError: no kernel for Foo") as caught,
        quiet("converting"),
    ):
        for step in range(20):
            print("step", step)
        raise RuntimeError("no kernel for Foo\nat node foo_3")
    assert "step 19" in caught.value.hint and "at node foo_3" in caught.value.hint
    assert "step 3\n" not in caught.value.hint
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_the_kind_of_error_can_be_chosen_and_our_own_pass_through() -> None:
    with (
        pytest.raises(UsageError, match="loading failed: ValueError: x") as caught,
        quiet("loading", refuse=UsageError),
    ):
        raise ValueError("x")
    assert type(caught.value) is UsageError
    with pytest.raises(QualityError, match="^ours$"), quiet("loading"):
        raise QualityError("ours")
    with pytest.raises(MemoryError), quiet("loading"):
        raise MemoryError


def test_descriptors_and_log_handlers_are_as_before() -> None:
    before, handlers = _open_files(), logging.root.handlers[:]
    with quiet("converting"):
        logging.root.addHandler(logging.StreamHandler())
    assert _open_files() == before
    assert logging.root.handlers == handlers


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
