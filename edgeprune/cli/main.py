"""The `edgeprune` command: its verbs, and the one place where errors become text and exit codes.

stdout carries the result and nothing else, stderr the progress and the errors. No verb's heavy parts are imported
before that verb runs, so `edgeprune --help` loads no torch.
"""

from __future__ import annotations

import json
import signal
import sys
import traceback
from typing import Annotated, Any

import typer

import edgeprune
from edgeprune.cli import (
    calibrate,
    deploy,
    doctor,
    emulate,
    explain,
    export,
    fit,
    flash,
    inspect,
    keys,
    profile,
    prune,
    quantize,
    report,
    sweep,
    targets,
    verify,
)
from edgeprune.errors import EdgepruneError, UsageError

EXIT_CODES = (
    (0, "done, and every stated goal held"),
    (1, "a bug in edgeprune"),
    (2, "bad flag, job file, unit, target, data or model"),
    (3, "the budget was not met; the best model reached is kept"),
    (4, "quality: too large a drop, or an artifact gives wrong answers"),
    (5, "a device or the link to it does not answer"),
    (6, "a measurement was disturbed and cannot be trusted"),
    (7, "an optional package is not installed; the install line is printed"),
    (8, "refused for safety"),
    (9, "deployment failed, the device is back on the old release"),
    (10, "deployment state unknown"),
    (11, "disk or memory is full; resumable"),
    (130, "interrupted; resumable (143 when terminated)"),
)

app = typer.Typer(
    name="edgeprune",
    help="Fit a PyTorch model to a device and a latency, memory and size budget, and prove it.",
    epilog="Exit codes: edgeprune --help-exit-codes",
    no_args_is_help=True,
    rich_markup_mode=None,  # loading rich doubles the time that --help takes
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command(short_help="Model and budget in, checked artifacts out.")(fit.fit)
app.command(short_help="Many budgets and targets in, the front of accuracy out.")(sweep.sweep)
app.command(short_help="Model and limits in, the pruned model out, untrained.")(prune.prune)
app.command(short_help="What can be pruned, what cannot and why, what it costs.")(inspect.inspect)
app.command(short_help="What a run pruned, what it was worth, what it bought.")(explain.explain)
app.command(short_help="A model as it is to ONNX, TFLite, OpenVINO.")(export.export)
app.command(short_help="Int8 files that lose no more than is allowed.")(quantize.quantize)
app.command(short_help="What one model file costs on one target.")(profile.profile)
app.command(short_help="A run's model onto a device, tested there, with a way back.")(deploy.deploy)
app.command(short_help="A run's C library onto a microcontroller, tested there.")(flash.flash)
app.command(short_help="Whether a device has what was deployed, and it works.")(verify.verify)
app.add_typer(keys.app, name="keys", short_help="The keys that releases are signed with.")
app.command(short_help="The latency model of this machine, measured.")(calibrate.calibrate)
app.add_typer(targets.app, name="targets", short_help="The devices a fit can aim at.")
app.add_typer(emulate.app, name="emulate", short_help="Emulated Linux boards: what is there, and setting up.")
app.command(short_help="The report of a finished run, again.")(report.report)
app.command(short_help="What is installed, what is missing, how to get it.")(doctor.doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgeprune {edgeprune.__version__}")
        raise typer.Exit


def _print_exit_codes(wanted: bool) -> None:
    if wanted:
        for code, meaning in EXIT_CODES:
            typer.echo(f"{code:>4}  {meaning}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    exit_codes: Annotated[
        bool,
        typer.Option("--help-exit-codes", callback=_print_exit_codes, is_eager=True, help="List the exit codes."),
    ] = False,
) -> None:
    """Fit a PyTorch model to a device and a latency, memory and size budget, and prove it."""


def main() -> None:
    """Run the command line of this process and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line; returns the exit code, never raises."""
    debug, as_json = "--debug" in arguments, "--json" in arguments
    signal.signal(signal.SIGTERM, _terminated)
    try:
        result: Any = app(args=arguments, prog_name="edgeprune", standalone_mode=False)
    except EdgepruneError as err:
        return _report(err, debug=debug, as_json=as_json)
    except typer.TyperException as err:
        verb = next((word for word in arguments if not word.startswith("-")), "")
        known = verb in {command.callback.__name__ for command in app.registered_commands if command.callback}
        help_for = f"edgeprune {verb} --help" if known else "edgeprune --help"
        return _report(UsageError(err.format_message(), hint=help_for), debug=debug, as_json=as_json)
    except SystemExit as err:  # a terminated process, a closed pipe
        return err.code if isinstance(err.code, int) else 1
    except Exception as err:
        bug = EdgepruneError(
            f"a bug in edgeprune: {type(err).__name__}: {err}",
            hint="run again with --debug for the traceback and report it with the command line",
        )
        bug.__cause__ = err
        return _report(bug, debug=debug, as_json=as_json)
    return result if isinstance(result, int) else 0


def _terminated(*_: object) -> None:
    raise SystemExit(143)


def _report(err: EdgepruneError, *, debug: bool, as_json: bool) -> int:
    """One line each for what, where and the next step; with --json the same as a document on stdout."""
    if debug:
        traceback.print_exception(err)
    lines = [f"error: {err.message}"]
    lines += [f"at {err.where}"] if err.where else []
    lines += [f"hint: {err.hint}"] if err.hint else []
    typer.echo("\n".join(lines), err=True)
    if as_json:
        document = {
            "schema": "edgeprune.error/1",
            "code": err.code,
            "exit_code": err.exit_code,
            "message": err.message,
            "where": err.where,
            "hint": err.hint,
        }
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
    return err.exit_code
