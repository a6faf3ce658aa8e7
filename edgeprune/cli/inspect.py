"""`edgeprune inspect`: what can be pruned in a model, what cannot and why, and what it costs as it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeprune.cli import options
from edgeprune.cli.against import show_against
from edgeprune.cli.terminal import only_results_on_stdout, table
from edgeprune.errors import UsageError

if TYPE_CHECKING:
    import torch

    from edgeprune.cost import Measurement
    from edgeprune.documents import InspectedCost, InspectRecord
    from edgeprune.spec import Spec


def inspect(
    artifact: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="An exported file, to compare with --against.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="ENTRY", help="The float model of FILE, like --model: dB per layer."),
    ] = None,
    model: options.Model = None,
    model_arg: options.ModelArgs = None,
    weights: options.Weights = None,
    trust_model: options.TrustModel = None,
    data: options.Data = None,
    shape: options.Input = None,
    config: options.Config = None,
    target: options.Target = None,
    runtime: options.Runtime = None,
    threads: options.Threads = None,
    by_head: Annotated[
        bool, typer.Option("--by-head", help="Whole attention heads and whole groups, not thinner ones.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the picture as one HTML file.")
    ] = None,
    settings: options.Settings = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show the channel groups of a model, what is frozen and why, and what it costs on a target.

    With FILE and --against: the signal-to-noise ratio of the file's activations, the worst layer first.
    """
    from edgeprune.spec import load_spec

    if (artifact is None) != (against is None):
        raise UsageError("a file is inspected against its float model", hint="give both FILE and --against ENTRY")
    model = against or model
    sizes = options.parsed_shape(shape)
    flags = {
        "model__entry": model,
        "model__weights": weights,
        "model__trust": trust_model,
        "data__source": data,
        "target__name": target,
        "target__runtime": runtime,
        "target__threads": threads,
    }
    spec = load_spec(config, options.overrides(settings, model_arg, **flags), needs_data=sizes is None)
    if artifact is not None:
        typer.echo(show_against(artifact, spec, json=json, debug=debug), nl=False)
        return
    with only_results_on_stdout(debug=debug):
        network, example = _loaded(spec, sizes)
        record = _inspected(spec, network, example, by_head)
    if html is not None:
        from edgeprune.record import write_text
        from edgeprune.report.picture import render_picture

        write_text(html, render_picture(record))
    typer.echo(record.to_json() if json else _shown(record) + "\n", nl=False)


def _loaded(spec: Spec, sizes: tuple[int, ...] | None) -> tuple[torch.nn.Module, torch.Tensor]:
    if sizes is None:
        from edgeprune.workload.load import load_workload

        workload = load_workload(spec)
        return workload.model, workload.example
    import torch

    from edgeprune.workload.models import load_model

    return load_model(spec.model), torch.zeros(sizes)


def _inspected(spec: Spec, network: torch.nn.Module, example: torch.Tensor, by_head: bool) -> InspectRecord:
    from functools import partial

    from edgeprune.calibration.store import find
    from edgeprune.device.estimate import estimate
    from edgeprune.device.fusion import fuse
    from edgeprune.documents import FrozenGroupRow, InspectRecord
    from edgeprune.pruning.check import vetted
    from edgeprune.pruning.dead import dead_channels
    from edgeprune.pruning.groups import channel_groups
    from edgeprune.pruning.opening import open_model, varied
    from edgeprune.pruning.overview import group_rows, layer_rows
    from edgeprune.target import load_target

    opened = open_model(network, example)
    graph = opened.captured.graph
    inputs = varied((example,))
    groups = vetted(opened.captured, channel_groups(graph, by_head), inputs)
    dead = dead_channels(opened.captured, groups, inputs)
    ops = fuse(graph)
    target = load_target(spec.target.name)
    name = spec.target.runtime or target.default_runtime
    runtime = target.runtime(name)
    threads = spec.target.threads or runtime.threads
    precision = runtime.precisions[0]
    found = find(target, name, precision, threads)
    cost = partial(estimate, target=target, runtime=name, precision=precision, threads=threads, latency=found.model)
    dense = cost(ops)
    return InspectRecord(
        model=spec.model.entry or "demo",
        input=tuple(example.shape),
        parameters=graph.parameter_count,
        macs=sum(op.macs for op in ops),
        by_head=by_head,
        groups=group_rows(groups, ops, cost, dead),
        frozen=tuple(FrozenGroupRow(name=f.name, width=f.width, reasons=f.reasons) for f in groups.frozen),
        layers=layer_rows(groups, ops, dense),
        dense=_cost(dense),
        notes=(*opened.notes, *([found.note] if found.note else [])),
    )


def _cost(measurement: Measurement) -> InspectedCost:
    from edgeprune.documents import InspectedCost, figure

    row = figure(
        measurement.cost,
        measurement.target,
        runtime=measurement.runtime,
        threads=measurement.threads,
        precision=measurement.precision,
    )
    return InspectedCost(**row.model_dump(), size_bytes=measurement.cost.size_bytes)


def _shown(record: InspectRecord) -> str:
    from edgeprune.report.explain import by_reason
    from edgeprune.report.picture import head_lines, letter, picture_text, share_text

    groups = [
        (
            letter(i),
            group.name,
            str(group.width),
            str(group.unit),
            str(group.dead),
            "yes" if group.removable else "",
            f"{group.parameters:,}",
            f"{group.macs / 1e6:,.1f} M",
            share_text(group.latency_share),
            _some(group.layers),
        )
        for i, group in enumerate(record.groups)
    ]
    header = ("", "group", "channels", "unit", "dead", "removable", "parameters", "MACs", "latency", "layers")
    parts = ["\n".join((*head_lines(record), *record.notes)), table(header, groups, right=(2, 3, 4, 6, 7, 8))]
    parts.append("parameters, MACs and latency: what goes with all but one channel of the group, alone (estimated)")
    if record.layers:
        parts.append(picture_text(record))
    if record.frozen:
        reasons = by_reason((entry.name, entry.width, "; ".join(entry.reasons)) for entry in record.frozen)
        parts.append("\n".join(["frozen:", *(f"  {text}" for text in reasons)]))
    return "\n\n".join(parts)


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
