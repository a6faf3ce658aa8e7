"""The command as a whole: errors become three lines and an exit code, help is quick and loads no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import edgeprune
from edgeprune import errors
from edgeprune.cli.main import EXIT_CODES, app
from tests.cli.conftest import Command

ROOT = Path(__file__).parents[2]


def test_the_version_and_the_exit_codes_are_printed(command: Command) -> None:
    assert command("--version").out == f"edgeprune {edgeprune.__version__}\n"
    listed = command("--help-exit-codes")
    assert listed.code == 0 and [int(line.split()[0]) for line in listed.out.splitlines()] == [c for c, _ in EXIT_CODES]


def test_every_error_class_has_a_listed_exit_code() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert {kind.exit_code for kind in kinds} <= {code for code, _ in EXIT_CODES}  # type: ignore[attr-defined]


def test_help_loads_neither_torch_nor_rich_nor_the_values() -> None:
    script = (
        "import sys; from edgeprune.cli.main import run; code = run(['--help']);"
        "print(sorted(set(sys.modules) & {'torch', 'numpy', 'scipy', 'rich', 'pydantic', 'onnx'}), code);"
        "print(len(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    *_, heavy, loaded = done.stdout.splitlines()
    assert heavy == "[] 0" and int(loaded) < 300  # a third of a second of processor time


def test_no_arguments_show_the_help(command: Command) -> None:
    done = command()
    assert "Usage: edgeprune" in done.out + done.err


def test_the_module_runs_as_the_command() -> None:
    line = [sys.executable, "-m", "edgeprune", "fit", "--latency", "20"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: latency: '20' has no unit\nhint: write 20ms or 20s\n"


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["fitt"], "No such command 'fitt'. Did you mean 'fit'?", "edgeprune --help"),
        (["fit", "--latencyy", "20ms"], "No such option: --latencyy", "edgeprune fit --help"),
        (["fit", "--epochs", "many"], "Invalid value for '--epochs'", "edgeprune fit --help"),
        (["report"], "Missing argument 'RUN'", "edgeprune report --help"),
    ],
)
def test_a_mistyped_command_line_is_one_message_and_the_help_to_read(
    command: Command, arguments: list[str], message: str, hint: str
) -> None:
    done = command(*arguments)
    assert done.code == 2 and done.err.startswith(f"error: {message}") and done.err.endswith(f"hint: {hint}\n")
    document = json.loads(command(*arguments, "--json").out)
    assert (document["code"], document["exit_code"], document["hint"]) == ("USAGE", 2, hint)


def test_an_error_says_what_where_and_next_and_json_says_the_same(command: Command, stand_in: Any) -> None:
    def fit(*_: object) -> None:
        raise errors.BudgetError("latency: needs 4.1 ms, budget 1 ms", where="stem.conv", hint="allow 5 ms")

    stand_in("pipeline", fit=fit)
    done = command("fit", "--latency", "1ms", "--json")
    assert done.code == 3
    assert done.err.endswith("error: latency: needs 4.1 ms, budget 1 ms\nat stem.conv\nhint: allow 5 ms\n")
    assert json.loads(done.out) == {
        "schema": "edgeprune.error/1",
        "code": "BUDGET",
        "exit_code": 3,
        "message": "latency: needs 4.1 ms, budget 1 ms",
        "where": "stem.conv",
        "hint": "allow 5 ms",
    }


def test_a_bug_is_called_one_and_its_traceback_waits_for_debug(command: Command, stand_in: Any) -> None:
    def fit(*_: object) -> None:
        raise KeyError("no such thing")

    stand_in("pipeline", fit=fit)
    plain, debug = (command("fit", "--latency", "1ms", *more) for more in ((), ("--debug",)))
    assert plain.code == debug.code == 1
    assert "error: a bug in edgeprune: KeyError: 'no such thing'" in plain.err and "Traceback" not in plain.err
    assert "Traceback" in debug.err and "raise KeyError" in debug.err


def test_every_verb_explains_itself(command: Command) -> None:
    verbs = [c.callback.__name__ for c in app.registered_commands if c.callback] + ["targets"]
    for verb in verbs:
        done = command(verb, "--help")
        assert done.code == 0 and f"Usage: edgeprune {verb}" in done.out and done.err == ""
