"""Work in a child process that says when each of its stages is done, so that one that takes too long can be stopped."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from bench.cells import Result


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        stages: What each finished stage said.
        failed: The stage that did not finish; empty: all did.
        reason: Why it did not.
        late: Whether it was stopped at its limit.
    """

    stages: Mapping[str, Result]
    failed: str = ""
    reason: str = ""
    late: bool = False


def staged(line: Sequence[str], limits_s: Mapping[str, float], environment: Mapping[str, str], folder: Path) -> Ended:
    """Run a command line that calls `reporting`, with a limit in seconds per stage; it never outlives this call."""
    done: dict[str, Result] = {}
    variables = {**os.environ, **environment}
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(line, stdout=subprocess.PIPE, stderr=errors, cwd=folder, env=variables) as child,
    ):
        assert child.stdout is not None
        lines = _Lines(child.stdout)
        try:
            for stage, limit_s in limits_s.items():
                said = lines.read(time.monotonic() + limit_s)
                if said is None:
                    return Ended(done, stage, f"no result within {limit_s:g} s", late=True)
                if not said:
                    return Ended(done, stage, _last_words(child, errors))
                answer = json.loads(said)
                if "failure" in answer:
                    return Ended(done, stage, answer["failure"])
                done[stage] = answer
        finally:
            child.kill()
    return Ended(done)


@dataclass
class _Lines:
    """The lines of a pipe, each awaited up to a point in time."""

    stream: IO[bytes]
    rest: bytes = field(default=b"")

    def read(self, deadline_s: float) -> str | None:
        """The next line; None when the time is over, nothing at the end."""
        while b"\n" not in self.rest:
            ready, _, _ = select.select([self.stream], [], [], max(0.0, deadline_s - time.monotonic()))
            if not ready:
                return None
            more = os.read(self.stream.fileno(), 65536)
            if not more:
                return ""
            self.rest += more
        text, _, self.rest = self.rest.partition(b"\n")
        return text.decode()


def _last_words(child: subprocess.Popen[bytes], errors: IO[bytes]) -> str:
    status = child.wait()
    errors.seek(0)
    words = [text.strip() for text in errors.read().decode(errors="replace").splitlines() if text.strip()]
    return f"the process ended with status {status}" + (f": {words[-1]}" if words else "")


def reporting(stages: Mapping[str, Callable[[], Result]]) -> int:
    """The child's side: compute each stage and say so on stdout, where nothing else goes; the exit status."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for compute in stages.values():
        try:
            said = compute()
        except Exception as err:  # whatever it is, it is this model's result
            traceback.print_exc(file=sys.stderr)
            said = {"failure": described(err)}
        print(json.dumps(said), file=out, flush=True)
        if "failure" in said:
            return 1
    return 0


def described(err: BaseException) -> str:
    """An error in one line."""
    text = next((line.strip() for line in str(err).splitlines() if line.strip()), "")
    return f"{type(err).__name__}: {text}"[:300]
