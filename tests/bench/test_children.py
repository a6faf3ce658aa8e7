"""Children that finish, fail, hang, crash and chatter."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from bench.cells import ROOT
from bench.children import Ended, staged

LIMITS = {"first": 20.0, "second": 20.0}


def run(second: str, limits: dict[str, float] = LIMITS) -> Ended:
    """A child whose first stage answers 1 and whose second is the given expression."""
    script = f"""
import os, sys, time
from bench.children import reporting
first = lambda: (print("chatter"), os.system("echo more"), {{"n": 1}})[2]
sys.exit(reporting({{"first": first, "second": lambda: {second}}}))
"""
    return staged([sys.executable, "-c", script], limits, {"PYTHONPATH": str(ROOT), "ANSWER": "42"}, Path(ROOT))


def test_what_the_stages_say_comes_back_and_nothing_else() -> None:
    ended = run("{'answer': int(os.environ['ANSWER'])}")
    assert ended == Ended({"first": {"n": 1}, "second": {"answer": 42}})


def test_an_error_is_the_reason_of_its_stage() -> None:
    ended = run("{}['missing']")
    assert ended == Ended({"first": {"n": 1}}, "second", "KeyError: 'missing'")


def test_a_stage_that_takes_too_long_is_stopped() -> None:
    started = time.monotonic()
    ended = run("time.sleep(60)", {"first": 20.0, "second": 0.5})
    assert (ended.failed, ended.reason, ended.late) == ("second", "no result within 0.5 s", True)
    assert time.monotonic() - started < 20


def test_a_crash_names_its_status_and_last_words() -> None:
    ended = run("(sys.stderr.write('out of luck'), sys.stderr.flush(), os._exit(3))")
    assert (ended.failed, ended.reason) == ("second", "the process ended with status 3: out of luck")
