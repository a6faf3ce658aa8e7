"""`edgeprune quantize`: a float model as int8 files that lose no more than is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeprune.cli import options
from edgeprune.cli.terminal import only_results_on_stdout, progress, table
from edgeprune.errors import UsageError

if TYPE_CHECKING:
    from edgeprune.quantize_document import QuantizeRecord


def quantize(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", help="A finished run, whose tuned model is taken; or give --model."),
    ] = None,
    model: options.Model = None,
    model_arg: options.ModelArgs = None,
    weights: options.Weights = None,
    trust_model: options.TrustModel = None,
    data: options.Data = None,
    task: options.Task = None,
    config: options.Config = None,
    formats: options.Formats = None,
    max_drop: Annotated[
        str | None,
        typer.Option(metavar="DROP", help="Limit on what int8 may lose on validation: 0.5pp (the default) or 1%."),
    ] = None,
    steps: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="What may be tried: equalise,ranges,correct,train,mix (all, in this order) or none."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=0, metavar="N", help="Of training on the int8 grid (2).")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder that the files are written to.")] = Path("quantized"),
    settings: options.Settings = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:
    """Write int8 files that hold: plain ones if they do, else what it takes, cheapest first; every step is listed."""
    backends = options.backends_of(formats)
    flags = {
        "quantize__max_drop": max_drop,
        "quantize__steps": None if steps is None else tuple(filter(None, steps.replace("none", "").split(","))),
        "quantize__epochs": epochs,
    }
    job = {
        "model__entry": model,
        "model__weights": weights,
        "model__trust": trust_model,
        "data__source": data,
        "task": task,
    }
    if run is not None and (config is not None or model_arg or any(value is not None for value in job.values())):
        raise UsageError("a run names its own model and data", where=str(run), hint="leave out RUN or the other flags")
    given, more = options.overrides(settings, model_arg, **job), options.overrides(None, None, **flags)
    with only_results_on_stdout(debug=debug):
        record = _quantized(run, config, given, more, backends, out, quiet)
    typer.echo(record.to_json() if json else _shown(record) + "\n", nl=False)
    return record.exit_code


def _quantized(
    run: Path | None,
    config: Path | None,
    given: dict[str, Any],
    more: dict[str, Any],
    backends: tuple[str, ...],
    out: Path,
    quiet: bool,
) -> QuantizeRecord:
    """The job is `given` with `more` on top, where an empty list counts too."""
    from dataclasses import replace

    from edgeprune.quantized import from_model, from_run, quantize
    from edgeprune.spec import changed, load_spec

    source = from_model(load_spec(config, given)) if run is None else from_run(run)
    spec = changed(source.spec, more if run is None else {**given, **more})
    return quantize(replace(source, spec=spec), backends, out, progress(quiet=quiet))


def _shown(record: QuantizeRecord) -> str:
    from edgeprune.report.quantize import artifacts_table, steps_text

    verdict = "holds" if record.holds else "does not hold"
    head = (
        f"int8 {verdict}: at most {record.max_drop} of {record.metric} may be lost on validation "
        f"({record.samples['validation']:,} samples; float {record.validation:.4f})"
    )
    columns, rows = artifacts_table(record)
    return "\n\n".join((head, steps_text(record.steps), table(columns, rows, right=(2, 3, 4, 5))))
