"""`edgeprune sweep`: one model fitted to many budgets on many targets, and the front that they make."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeprune.cli import options
from edgeprune.cli.fit import DEMO, resumable
from edgeprune.cli.terminal import only_results_on_stdout, progress, table
from edgeprune.errors import UsageError

if TYPE_CHECKING:
    from edgeprune.front.documents import SweepRecord
    from edgeprune.front.grid import Point
    from edgeprune.spec import Spec

Targets = Annotated[str | None, typer.Option("--target", metavar="NAME,NAME", help="Devices: see edgeprune targets.")]
Latencies = Annotated[
    str | None,
    typer.Option(metavar="TIMES", help="5ms:40ms:6 (a geometric series of 6) or a list such as 5ms,10ms,20ms."),
]
Rams = Annotated[str | None, typer.Option(metavar="SIZES", help="Limits on peak memory, written alike.")]
Sizes = Annotated[str | None, typer.Option(metavar="SIZES", help="Limits on the file, written alike.")]
Rounds = Annotated[int | None, typer.Option(metavar="N", help="At most so many rounds per point.")]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the sweep's folder (runs).")]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Points beside each other; default: CPUs, or 1 where costs are measured."),
]
Cpus = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="CPU threads each point computes with (1); part of the job.")
]
Cluster = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Scheduler of your Dask cluster, such as tcp://host:8786.")
]
Resume = Annotated[
    Path | None, typer.Option(metavar="SWEEP", help="Go on with a sweep; takes --jobs or --cluster, nothing else.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check the job and list its points.")]


def sweep(
    model: options.Model = None,
    model_arg: options.ModelArgs = None,
    weights: options.Weights = None,
    trust_model: options.TrustModel = None,
    data: options.Data = None,
    task: options.Task = None,
    config: options.Config = None,
    target: Targets = None,
    runtime: options.Runtime = None,
    threads: options.Threads = None,
    latency: Latencies = None,
    at: options.At = None,
    ram: Rams = None,
    size: Sizes = None,
    max_drop: options.MaxDrop = None,
    epochs: options.Epochs = None,
    rounds: Rounds = None,
    seed: options.Seed = None,
    step: options.Step = None,
    distill: options.Distill = None,
    formats: options.Formats = None,
    out: Out = None,
    jobs: Jobs = None,
    cpus: Cpus = None,
    cluster: Cluster = None,
    resume: Resume = None,
    dry_run: DryRun = False,
    settings: options.Settings = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Fit a model to many budgets on many targets, and show what accuracy each cost buys.

    Every combination of target and limits is a fit of its own, with its own run folder. What does not depend on the
    limits is computed once. Killed at any moment, --resume goes on with what is left.

    Ends with 0 when every budget is met, else with the code of the first point that failed, else with 3 when a cost
    limit is not held or out of reach, else with 4.
    """
    given = options.overrides(
        settings,
        model_arg,
        model__entry=model,
        model__weights=weights,
        model__trust=trust_model,
        data__source=data,
        task=task,
        target__runtime=runtime,
        target__threads=threads,
        budget__at=at,
        budget__max_drop=max_drop,
        fit__epochs=epochs,
        fit__rounds=rounds,
        fit__seed=seed,
        fit__step=step,
        fit__distill=distill,
        fit__formats=tuple(formats or ()),
        out=out,
    )
    swept = {"latency": latency, "ram": ram, "size": size}
    shown = progress(quiet=quiet)
    if resume is not None:
        _refuse(dry_run or None, config, target, cpus, *swept.values(), *given.values())
        with only_results_on_stdout(debug=debug), resumable(resume.parent, "sweep"):
            from edgeprune.front.flow import resume_sweep

            record = resume_sweep(resume, jobs=jobs, cluster=cluster, progress=shown)
        return _show(record, json=json)
    spec, points = _points(config, given, target, swept)
    if dry_run:
        return typer.echo(_listed(points, json=json), nl=False)
    if spec.is_demo:
        typer.echo(DEMO, err=True)
    with only_results_on_stdout(debug=debug), resumable(spec.out, "sweep"):
        from edgeprune.front.flow import sweep as run

        record = run(points, _name(spec), spec.out, jobs=jobs, cpus=cpus or 1, cluster=cluster, progress=shown)
    return _show(record, json=json)


def _refuse(*others: object) -> None:
    if any(value not in (None, ()) for value in others):
        hint = "beside it only --jobs or --cluster"
        raise UsageError("a resumed sweep keeps its own job", where="--resume", hint=hint)


def _points(
    config: Path | None, given: dict[str, object], target: str | None, swept: dict[str, str | None]
) -> tuple[Spec, tuple[Point, ...]]:
    """The job of all points, and the points."""
    from edgeprune.front.grid import grid, limits
    from edgeprune.spec import load_spec

    spec = load_spec(config, given)
    targets = [name.strip() for name in (target or "").split(",") if name.strip()]
    wanted = {what: limits(text, what) for what, text in swept.items() if text is not None}
    return spec, grid(spec, targets, wanted)


def _name(spec: Spec) -> str:
    return "demo" if spec.model.entry is None else Path(spec.model.entry.rpartition(":")[2]).stem


def _listed(points: tuple[Point, ...], *, json: bool) -> str:
    rows = [
        (p.name, p.target, *(getattr(p.spec.budget, key) or "" for key in ("latency", "ram", "size"))) for p in points
    ]
    heads = ("point", "target", "latency", "ram", "size")
    if json:
        named = [dict(zip(heads, row, strict=True)) for row in rows]
        return json_format.dumps({"schema": "edgeprune.sweep-points/1", "points": named}, indent=2) + "\n"
    return table(heads, rows, right=(2, 3, 4)) + "\n"


def _show(record: SweepRecord, *, json: bool) -> None:
    from edgeprune.report.front import front_summary

    typer.echo(record.to_json() if json else front_summary(record), nl=False)
    raise typer.Exit(record.exit_code)
