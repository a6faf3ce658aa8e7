"""`edgeprune fit`: the whole flow, from a model and a budget to checked artifacts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeprune.cli import options
from edgeprune.cli.terminal import only_results_on_stdout, progress
from edgeprune.errors import EdgepruneError, UsageError

if TYPE_CHECKING:
    from edgeprune.documents import FitRecord
    from edgeprune.spec import Spec

DEMO = "no --model and no edgeprune.toml: this is the built-in demo, a small network on scenes of handwritten digits"


class InterruptedFit(EdgepruneError):
    """Stopped by the user or the system between two writes; what is finished is kept."""

    exit_code = 130


def fit(
    model: options.Model = None,
    model_arg: options.ModelArgs = None,
    weights: options.Weights = None,
    trust_model: options.TrustModel = None,
    data: options.Data = None,
    task: options.Task = None,
    config: options.Config = None,
    target: options.Target = None,
    runtime: options.Runtime = None,
    threads: options.Threads = None,
    latency: Annotated[str | None, typer.Option(metavar="TIME", help="Limit, with its unit: 20ms.")] = None,
    at: options.At = None,
    ram: Annotated[str | None, typer.Option(metavar="SIZE", help="Limit on peak memory: 256KiB.")] = None,
    size: Annotated[str | None, typer.Option(metavar="SIZE", help="Limit on the file: 1MB.")] = None,
    max_drop: options.MaxDrop = None,
    epochs: options.Epochs = None,
    rounds: Annotated[int | None, typer.Option(metavar="N", help="At most so many rounds.")] = None,
    seed: options.Seed = None,
    step: options.Step = None,
    distill: options.Distill = None,
    formats: options.Formats = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the run folders (runs).")] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Continue an interrupted run; no other flags.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the job and print it with every default.")] = False,
    settings: options.Settings = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Prune, fine-tune, quantise, export and profile a model until it meets a budget on a device.

    Without --model and without an edgeprune.toml in this folder it runs the built-in demo.
    """
    from edgeprune.spec import load_spec, resolved_toml

    given = options.overrides(
        settings,
        model_arg,
        model__entry=model,
        model__weights=weights,
        model__trust=trust_model,
        data__source=data,
        task=task,
        target__name=target,
        target__runtime=runtime,
        target__threads=threads,
        budget__latency=latency,
        budget__at=at,
        budget__ram=ram,
        budget__size=size,
        budget__max_drop=max_drop,
        fit__epochs=epochs,
        fit__rounds=rounds,
        fit__seed=seed,
        fit__step=step,
        fit__distill=distill,
        fit__formats=tuple(formats or ()),
        out=out,
    )
    if resume is not None:
        if config is not None or any(value not in (None, ()) for value in given.values()):
            raise UsageError("a resumed run keeps its own job", where="--resume", hint="give --resume RUN alone")
        record = _resume(resume, quiet=quiet, debug=debug)
    else:
        spec = load_spec(config, given)
        _check_budget(spec)
        if dry_run:
            typer.echo(resolved_toml(spec), nl=False)
            return
        record = _fit(spec, quiet=quiet, debug=debug)
    _show(record, json=json)
    raise typer.Exit(record.exit_code)


def _check_budget(spec: Spec) -> None:
    budget = spec.budget
    if budget.latency is None and budget.ram is None and budget.size is None:
        raise UsageError(
            "no budget: nothing says how small or fast the model must be",
            where="fit",
            hint="add --latency 20ms, --ram 256KiB or --size 1MB, and --target NAME",
        )


def _fit(spec: Spec, *, quiet: bool, debug: bool) -> FitRecord:
    if spec.is_demo:
        typer.echo(DEMO, err=True)
    with only_results_on_stdout(debug=debug), resumable(spec.out):
        from edgeprune import pipeline

        return pipeline.fit(spec, progress(quiet=quiet))


def _resume(path: Path, *, quiet: bool, debug: bool) -> FitRecord:
    with only_results_on_stdout(debug=debug), resumable(path.parent):
        from edgeprune import pipeline

        return pipeline.resume(path, progress(quiet=quiet))


def _show(record: FitRecord, *, json: bool) -> None:
    from edgeprune.report.summary import summary

    typer.echo(record.to_json() if json else summary(record), nl=False)


@contextlib.contextmanager
def resumable(out: Path, verb: str = "fit") -> Iterator[None]:
    """Ctrl-C and termination end with the command that continues what this process was writing below `out`."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as err:
        from edgeprune.record import written_by

        terminated = isinstance(err, SystemExit)
        if isinstance(err, SystemExit) and err.code != 143:
            raise
        run = written_by(out, os.getpid())
        stop = InterruptedFit(
            "terminated" if terminated else "interrupted",
            where=str(run or out),
            hint=f"continue with edgeprune {verb} --resume {run}" if run else "nothing was written yet; start again",
        )
        stop.exit_code = 143 if terminated else 130
        raise stop from None
