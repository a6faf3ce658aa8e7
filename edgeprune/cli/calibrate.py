"""`edgeprune calibrate`: the latency model of the machine at hand, measured."""

from __future__ import annotations

import json as json_format
from typing import TYPE_CHECKING, Annotated, cast

import typer

from edgeprune.cli import options
from edgeprune.cli.terminal import only_results_on_stdout, progress, table
from edgeprune.errors import EdgepruneError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from edgeprune.backends import Precision
    from edgeprune.calibration.store import Calibration


class InterruptedCalibration(EdgepruneError):
    """Stopped by the user or the system; the batches that were timed are kept."""

    exit_code = 130


def calibrate(
    target: options.Target = None,
    runtime: options.Runtime = None,
    threads: options.Threads = None,
    precision: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="int8 or fp32; repeatable; default: all of the runtime.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A third of the networks, two rounds instead of three.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do not continue an interrupted calibration.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Measure the latency model of this machine, in minutes, for all later fits on it.

    Small networks run in the real runtime, in turns. The result lies in a folder of yours and is used by fit, inspect
    and profile while machine, runtime version, precision and threads agree. The same command continues what was
    interrupted. The machine should be idle.
    """
    from edgeprune.target import load_target

    chosen = load_target(target or "host")
    offered = chosen.runtime(runtime)
    wanted = tuple(precision or offered.precisions)
    if unknown := [name for name in wanted if name not in ("int8", "fp32")]:
        raise UsageError(f"unknown precision {unknown[0]!r}", where="--precision", hint="int8 or fp32")
    found = []
    with only_results_on_stdout(debug=debug):
        from edgeprune.calibration import store
        from edgeprune.calibration.calibrate import calibrate as measure

        for name in wanted:
            try:
                found.append(
                    measure(
                        chosen,
                        runtime=runtime,
                        precision=cast("Precision", name),
                        threads=threads,
                        quick=quick,
                        fresh=fresh,
                        progress=progress(quiet=quiet),
                    )
                )
            except (KeyboardInterrupt, SystemExit) as err:
                raise _interrupted(err) from None
        files = [store.path_of(c.target, c.runtime, c.precision, c.threads, c.machine) for c in found]
    if json:
        trees = [{"file": str(path), **c.model_dump(mode="json", by_alias=True)} for path, c in zip(files, found)]
        typer.echo(json_format.dumps({"schema": "edgeprune.calibrated/1", "calibrations": trees}, indent=1))
    else:
        typer.echo("\n\n".join(_shown(path, calibration) for path, calibration in zip(files, found)))


def _interrupted(err: BaseException) -> BaseException:
    if isinstance(err, SystemExit) and err.code != 143:
        return err
    terminated = isinstance(err, SystemExit)
    stop = InterruptedCalibration(
        "terminated" if terminated else "interrupted", where="calibrate", hint="the same command continues"
    )
    stop.exit_code = 143 if terminated else 130
    return stop


def _shown(path: Path, calibration: Calibration) -> str:
    model, judged = calibration.model, calibration.judged
    clock = f", {' to '.join(dict.fromkeys(calibration.clock_mhz))} MHz" if calibration.clock_mhz else ""
    spreads = sorted(row.spread for row in calibration.rows)
    facts = [
        ("machine", f"{calibration.machine.cpu}, {calibration.machine.cores} cores{clock}"),
        ("runtime", f"{calibration.runtime_version}, {calibration.precision}, {calibration.threads} thread(s)"),
        ("timed", f"{len(spreads)} networks in {calibration.rounds} rounds"),
        ("spread", f"{_percent(spreads[len(spreads) // 2])} between rounds, median over the networks"),
        (
            "judged",
            f"{judged.networks} networks, their family left out: off by {_percent(judged.median)} in the median, "
            f"{_percent(judged.p90)} at the 90th percentile; rank correlation {judged.rank_correlation:.3f}",
        ),
        ("band", f"{model.band.low:.2f} to {model.band.high:.2f} of an estimate (80 %)"),
        ("file", str(path)),
    ]
    rows = [
        (name, str(law.rows), "x".join(map(str, law.tiles)) if max(law.tiles) > 1 else "", _percent(law.error))
        for name, law in model.laws.items()
    ]
    header = ("operator", "networks", "tile", "off by")
    return "\n".join(f"{key:<8} {value}" for key, value in facts) + "\n\n" + table(header, rows, right=(1, 3))


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"
