"""`edgeprune prune`: a model cut down to a limit by a criterion, exactly and without training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeprune.cli import options
from edgeprune.cli.terminal import only_results_on_stdout, progress, table
from edgeprune.errors import UsageError

if TYPE_CHECKING:
    from edgeprune.plan_document import PrunedDocument
    from edgeprune.spec import Spec

_MACS = typer.Option("--macs", metavar="COUNT|SHARE", help="Limit on multiply-accumulates: 40M, or 50% of the model's.")


def _list_criteria(wanted: bool) -> None:
    if wanted:
        from edgeprune.pruning.importance import CRITERIA

        rows = [(name, one.needs, one.about) for name, one in CRITERIA.items()]
        typer.echo(table(("criterion", "looks at", ""), rows))
        raise typer.Exit


def prune(
    model: options.Model = None,
    model_arg: options.ModelArgs = None,
    weights: options.Weights = None,
    trust_model: options.TrustModel = None,
    data: options.Data = None,
    task: options.Task = None,
    config: options.Config = None,
    shape: options.Input = None,
    criterion: options.Criterion = None,
    macs: Annotated[str | None, _MACS] = None,
    latency: Annotated[str | None, typer.Option(metavar="TIME", help="Limit by the device model: 20ms.")] = None,
    ram: options.Ram = None,
    size: options.Size = None,
    flash: options.Flash = None,
    target: options.Target = None,
    runtime: options.Runtime = None,
    step: options.Step = None,
    freeze: options.Freeze = None,
    seed: options.Seed = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of what is written.")] = Path("pruned"),
    list_criteria: Annotated[
        bool,
        typer.Option("--list-criteria", callback=_list_criteria, is_eager=True, help="List the criteria and end."),
    ] = False,
    settings: options.Settings = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Score channels by a criterion, solve for the limits, cut and check the model, and write it. Nothing is trained.

    Without data the criterion must be one that looks at weights, and --input gives the shape.
    """
    sizes, (count, share) = options.parsed_shape(shape), _macs_of(macs)
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
        budget__latency=latency,
        budget__ram=ram,
        budget__size=options.one_size(size, flash),
        budget__macs=count,
        fit__criterion=criterion,
        fit__step=step,
        fit__freeze=tuple(freeze or ()),
        fit__seed=seed,
    )
    spec = _spec(config, given, share, sizes)
    with only_results_on_stdout(debug=debug):
        document = _pruned(spec, sizes, share, out, quiet=quiet)
    from edgeprune.report.budget import pruned_text

    typer.echo(document.to_json() if json else pruned_text(document), nl=False)
    raise typer.Exit(document.exit_code)


def _macs_of(text: str | None) -> tuple[str | None, float | None]:
    """A count of multiply-accumulates as text, or a share of the model's.

    Raises:
        UsageError: A share that is not above 0 and at most 100 %.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", text or "")
    if found is None:
        return text, None
    share = float(found[1]) / 100
    if not 0 < share <= 1:
        raise UsageError(f"{text} is not above 0 % and at most 100 %", where="--macs", hint="write it like 50%")
    return None, share


def _spec(config: Path | None, given: dict[str, object], share: float | None, sizes: tuple[int, ...] | None) -> Spec:
    from edgeprune.spec import load_spec

    spec = load_spec(config, given, needs_data=False)
    if share is None and not spec.budget.limits_cost:
        raise UsageError(
            "no limit: nothing says how small the model must be", where="prune", hint="add --macs 50% or --size 1MB"
        )
    if spec.data.source is None and not spec.is_demo and sizes is None:
        raise UsageError(
            "neither data nor an input shape", where="prune", hint="add --data SOURCE or --input 1x3x224x224"
        )
    return spec


def _pruned(
    spec: Spec, sizes: tuple[int, ...] | None, share: float | None, out: Path, *, quiet: bool
) -> PrunedDocument:
    import torch

    from edgeprune.prune_only import prune_to_budget, write_cut
    from edgeprune.workload.load import load_workload
    from edgeprune.workload.models import load_model

    shown = progress(quiet=quiet)
    if spec.data.source is None and not spec.is_demo:
        assert sizes is not None
        cut = prune_to_budget(spec, load_model(spec.model), torch.zeros(sizes), macs_share=share, progress=shown)
    else:
        workload = load_workload(spec)
        cut = prune_to_budget(spec, workload.model, workload.example, workload, macs_share=share, progress=shown)
    return write_cut(cut, out)
