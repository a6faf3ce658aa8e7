"""`edgeprune inspect`: what can be pruned in a model, what cannot and why, and what it costs as it is."""

from __future__ import annotations

import json as json_format
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeprune.cli import options
from edgeprune.cli.terminal import only_results_on_stdout, table
from edgeprune.errors import UsageError

if TYPE_CHECKING:
    import torch

    from edgeprune.cost import Measurement
    from edgeprune.spec import Spec


def inspect(
    model: options.Model = None,
    model_arg: options.ModelArgs = None,
    weights: options.Weights = None,
    data: options.Data = None,
    shape: Annotated[
        str | None, typer.Option("--input", metavar="1x3x32x32", help="Input shape, instead of --data.")
    ] = None,
    config: options.Config = None,
    target: options.Target = None,
    runtime: options.Runtime = None,
    threads: options.Threads = None,
    settings: options.Settings = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show the channel groups of a model, what is frozen and why, and what it costs on a target."""
    from edgeprune.spec import load_spec

    sizes = _parsed_shape(shape)
    flags = {
        "model__entry": model,
        "model__weights": weights,
        "data__source": data,
        "target__name": target,
        "target__runtime": runtime,
        "target__threads": threads,
    }
    spec = load_spec(config, options.overrides(settings, model_arg, **flags), needs_data=sizes is None)
    with only_results_on_stdout(debug=debug):
        network, example = _loaded(spec, sizes)
        document = _inspected(spec, network, example)
    typer.echo(json_format.dumps(document, indent=2) if json else _shown(document))


def _parsed_shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    if re.fullmatch(r"[1-9][0-9]*(x[1-9][0-9]*)+", text) is None:
        raise UsageError(
            f"cannot read the shape {text!r}", where="--input", hint="write it like 1x3x32x32, batch first"
        )
    return tuple(int(size) for size in text.split("x"))


def _loaded(spec: Spec, sizes: tuple[int, ...] | None) -> tuple[torch.nn.Module, torch.Tensor]:
    if sizes is None:
        from edgeprune.workload.load import load_workload

        workload = load_workload(spec)
        return workload.model, workload.example
    import torch

    from edgeprune.workload.models import load_model

    return load_model(spec.model), torch.zeros(sizes)


def _inspected(spec: Spec, network: torch.nn.Module, example: torch.Tensor) -> dict[str, Any]:
    import torch

    from edgeprune.device.estimate import estimate
    from edgeprune.device.fusion import fuse
    from edgeprune.pruning.dead import dead_channels
    from edgeprune.pruning.groups import channel_groups
    from edgeprune.pruning.trace import trace
    from edgeprune.target import load_target

    captured = trace(network, example)
    graph = captured.graph
    groups = channel_groups(graph)
    noise = torch.randn((2, *example.shape[1:]), generator=torch.Generator().manual_seed(0)).to(example)
    dead = dead_channels(captured, groups, (noise,))
    ops = fuse(graph)
    target = load_target(spec.target.name)
    name = spec.target.runtime or target.default_runtime
    runtime = target.runtime(name)
    precision = runtime.precisions[0]
    cost = estimate(ops, target, name, precision, spec.target.threads or runtime.threads)
    return {
        "schema": "edgeprune.inspect/1",
        "model": spec.model.entry or "demo",
        "input": list(example.shape),
        "parameters": graph.parameter_count,
        "macs": sum(op.macs for op in ops),
        "groups": [
            {
                "name": g.name,
                "width": g.width,
                "dead": len(dead.get(g.name, ())),
                "removable": g.removable,
                "layers": sorted({path.rpartition(".")[0] for path, _ in g.members}),
            }
            for g in groups.groups
        ],
        "frozen": [{"name": f.name, "width": f.width, "reasons": list(f.reasons)} for f in groups.frozen],
        "dense": _cost(cost),
    }


def _cost(measurement: Measurement) -> dict[str, Any]:
    from edgeprune.documents import figure

    row = figure(
        measurement.cost,
        measurement.target,
        runtime=measurement.runtime,
        threads=measurement.threads,
        precision=measurement.precision,
    )
    return {**row.model_dump(mode="json"), "size_bytes": measurement.cost.size_bytes}


def _shown(document: dict[str, Any]) -> str:
    from edgeprune.units import format_size, format_time

    cost = document["dense"]
    latency = "latency not known"
    if cost["latency_ns"] is not None:
        low, high = cost["latency_interval_ns"] or (cost["latency_ns"],) * 2
        latency = f"{format_time(cost['latency_ns'] / 1e9)} ({format_time(low / 1e9)} to {format_time(high / 1e9)})"
    on = f"on {cost['target']} ({cost['runtime']}, {cost['precision']}, {cost['threads']} threads, {cost['source']})"
    memory = "" if cost["ram_bytes"] is None else f", ram {format_size(cost['ram_bytes'])} ({cost['ram_kind']})"
    size = "" if cost["size_bytes"] is None else f", size {format_size(cost['size_bytes'])}"
    head = [
        f"{document['model']}: input {'x'.join(map(str, document['input']))}, "
        f"{document['parameters']:,} parameters, {document['macs'] / 1e6:,.1f} M multiply-accumulates",
        f"dense {on}: {latency}{memory}{size}",
    ]
    groups = [
        (g["name"], str(g["width"]), str(g["dead"]), "yes" if g["removable"] else "", _some(g["layers"]))
        for g in document["groups"]
    ]
    frozen = [(f["name"], str(f["width"]), "; ".join(f["reasons"])) for f in document["frozen"]]
    parts = ["\n".join(head), table(("group", "channels", "dead", "removable", "layers"), groups, right=(1, 2))]
    if frozen:
        parts.append(table(("frozen", "channels", "why"), frozen, right=(1,)))
    return "\n\n".join(parts)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:4])
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"
