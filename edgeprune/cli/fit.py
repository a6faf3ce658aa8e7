"""`edgeprune fit`: the whole flow, from a model and a budget to checked artifacts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from edgeprune.cli import options
from edgeprune.cli.budget_only import show_plan
from edgeprune.cli.terminal import only_results_on_stdout, progress
from edgeprune.errors import EdgepruneError, UsageError

if TYPE_CHECKING:
    from edgeprune.documents import FitRecord
    from edgeprune.spec import Spec

_Only = tuple[tuple[int, ...] | None, Path | None]
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
    device: options.FitDevice = None,
    python: options.DevicePython = None,
    require: options.Require = None,
    latency: Annotated[str | None, typer.Option(metavar="TIME", help="Limit, with its unit: 20ms.")] = None,
    at: options.At = None,
    ram: options.Ram = None,
    size: options.Size = None,
    flash: options.Flash = None,
    macs: options.Macs = None,
    energy: options.Energy = None,
    max_drop: options.MaxDrop = None,
    epochs: options.Epochs = None,
    rounds: Annotated[int | None, typer.Option(metavar="N", help="At most so many plans are trained.")] = None,
    seed: options.Seed = None,
    step: options.Step = None,
    criterion: options.Criterion = None,
    freeze: options.Freeze = None,
    distill: options.Distill = None,
    formats: options.Formats = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the run folders (runs).")] = None,
    resume: options.Resume = None,
    budget_only: options.BudgetOnly = False,
    shape: options.Input = None,
    plan: Annotated[Path | None, typer.Option(metavar="FILE", help="With --budget-only: write the plan here.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the job and print it with every default.")] = False,
    settings: options.Settings = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Prune, fine-tune, quantise, export and profile a model until it meets a budget on a device.

    Without --model and without an edgeprune.toml in this folder it runs the built-in demo.
    """
    only = _only(shape, plan or (out and out / "plan.json"), budget_only, plan is not None)
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
        target__device=device,
        target__python=python,
        budget__require=require,
        budget__latency=latency,
        budget__at=at,
        budget__ram=ram,
        budget__size=options.one_size(size, flash),
        budget__macs=macs,
        budget__energy=energy,
        budget__max_drop=max_drop,
        fit__epochs=epochs,
        fit__rounds=rounds,
        fit__seed=seed,
        fit__step=step,
        fit__criterion=criterion,
        fit__freeze=tuple(freeze or ()),
        fit__distill=distill,
        fit__formats=tuple(formats or ()),
        out=out,
    )
    if resume is not None:
        _end(_resume(resume, (given, config, budget_only), quiet=quiet, debug=debug), json=json)
    _carry_out(_spec(config, given, budget_only), only, dry_run=dry_run, json=json, quiet=quiet, debug=debug)


def _carry_out(
    spec: Spec,
    only: _Only | None,
    *,
    dry_run: bool,
    json: bool,
    quiet: bool,
    debug: bool,
) -> None:
    """Fit; or print the job; or only the plan, for these input sizes and into this file."""
    if dry_run:
        return _show_job(spec)
    if only is not None:
        raise typer.Exit(show_plan(spec, *only, json=json, quiet=quiet, debug=debug))
    _end(_fit(spec, quiet=quiet, debug=debug), json=json)


def _spec(config: Path | None, given: dict[str, Any], budget_only: bool) -> Spec:
    from edgeprune.spec import load_spec

    spec = load_spec(config, given, needs_data=not budget_only)
    _check_budget(spec)
    return spec


def _show_job(spec: Spec) -> None:
    from edgeprune.spec import resolved_toml

    typer.echo(resolved_toml(spec), nl=False)


def _check_alone(given: dict[str, Any], config: Path | None, budget_only: bool) -> None:
    if config is not None or budget_only or any(value not in (None, ()) for value in given.values()):
        raise UsageError("a resumed run keeps its own job", where="--resume", hint="give --resume RUN alone")


def _only(text: str | None, plan: Path | None, budget_only: bool, asked: bool) -> _Only | None:
    """Input sizes and the plan's file of a job without training; `asked` where --plan names the file."""
    if not budget_only and (text or asked):
        raise UsageError("only a job without training takes --input and --plan", where="fit", hint="add --budget-only")
    return (options.parsed_shape(text), plan) if budget_only else None


def _check_budget(spec: Spec) -> None:
    if not spec.budget.limits_cost:
        raise UsageError(
            "no budget: nothing says how small or fast the model must be",
            where="fit",
            hint="add --latency 20ms, --ram 256KiB, --size 1MB, --energy 5mJ or --macs 40M, and --target NAME",
        )


def _fit(spec: Spec, *, quiet: bool, debug: bool) -> FitRecord:
    if spec.is_demo:
        typer.echo(DEMO, err=True)
    with only_results_on_stdout(debug=debug), resumable(spec.out):
        from edgeprune import pipeline

        return pipeline.fit(spec, progress(quiet=quiet))


def _resume(path: Path, besides: tuple[dict[str, Any], Path | None, bool], *, quiet: bool, debug: bool) -> FitRecord:
    _check_alone(*besides)
    with only_results_on_stdout(debug=debug), resumable(path.parent):
        from edgeprune import pipeline

        return pipeline.resume(path, progress(quiet=quiet))


def _end(record: FitRecord, *, json: bool) -> NoReturn:
    """Print the record, of several processes in the first only, and end with its exit code."""
    from edgeprune.report.summary import summary
    from edgeprune.training.ranks import launched

    if launched().leads:
        typer.echo(record.to_json() if json else summary(record), nl=False)
    raise typer.Exit(record.exit_code)


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
