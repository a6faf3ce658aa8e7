"""`edgeprune targets`: the devices that a fit can aim at, how well each is known, and the cited facts about it."""

from __future__ import annotations

import json as json_format
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeprune.cli import options
from edgeprune.cli.terminal import table

if TYPE_CHECKING:
    from edgeprune.device.standing import Standing
    from edgeprune.target import Target

NO_MODEL = "no latency model: RAM and size only"

app = typer.Typer(help="List the devices that a fit can aim at, or show one.", invoke_without_command=True)


@app.callback()
def targets(context: typer.Context, json: options.Json = False, debug: options.Debug = False) -> None:
    """List the devices that a fit can aim at, or show one."""
    if context.invoked_subcommand is not None:
        return
    from edgeprune.target import load_target, target_names

    found = [load_target(name) for name in target_names()]
    if json:
        typer.echo(_document("edgeprune.targets/1", targets=[_tree(target) for target in found]))
        return
    header = ("name", "class", "core", "RAM", "runtime", "threads", "estimate of latency (default runtime)")
    typer.echo(table(header, [_row(target) for target in found], right=(3, 5)))


def _row(target: Target) -> tuple[str, ...]:
    from edgeprune.device.standing import standings

    name, runtime = target.default_runtime, target.runtime()
    models = [model for model in standings(target, name) if model.threads == runtime.threads]
    known = "measured on this machine" if target.latency == "measured" else _worst(models)
    return (target.name, target.class_, target.cpu.core, _ram(target), name, str(runtime.threads), known)


def _worst(models: Sequence[Standing]) -> str:
    """The least sure of the models, so that nothing is promised that one precision does not keep."""
    if not models:
        return NO_MODEL
    worst = max(models, key=lambda model: model.band.high / model.band.low)
    rests = f"{worst.results} {'counted steps' if worst.executed else 'results'} ({worst.precision})"
    return f"{_error(worst)}, band {worst.band.low:.2f}-{worst.band.high:.2f}, {rests}"


def _error(model: Standing) -> str:
    if model.error is None:
        return "not judged"
    return f"{model.error:.1%} off an execution" if model.executed else f"off by {model.error:.0%}"


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name, alias or a .toml file.")],
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show one device: its cited facts, the runtimes it runs, and how far its latency models can be trusted."""
    from edgeprune.target import load_target

    target = load_target(name)
    typer.echo(_document("edgeprune.target-shown/1", target=_tree(target)) if json else _shown(target))


def _shown(target: Target) -> str:
    parts = (_facts(target), _runtimes(target), _models(target), _calibrations(target), _sources(target))
    return "\n\n".join(part for part in parts if part)


def _facts(target: Target) -> str:
    from edgeprune.units import format_size

    cpu, memory = target.cpu, target.memory
    clock = f" at {cpu.clock_hz / 1e6:g} MHz" if cpu.clock_hz else ""
    also = f" (also {', '.join(target.aliases)})" if target.aliases else ""
    facts = [
        ("name", f"{target.name}{also}"),
        ("what", target.description),
        ("cpu", f"{cpu.cores} x {cpu.core}{clock}, {cpu.isa}"),
        ("ram", _ram(target)),
        ("flash", format_size(memory.flash_bytes) if memory.flash_bytes else "not fixed"),
        ("power", _power(target)),
        ("latency", target.latency),
    ]
    return "\n".join(f"{key:<8} {value}" for key, value in facts)


def _power(target: Target) -> str:
    power = target.power
    if power is None:
        return "not published: no limit on energy"
    ends = f"{power.low_w * 1e3:.3g} to {power.high_w * 1e3:.3g} mW"
    return f"{power.typical_w * 1e3:.3g} mW while computing ({ends} in {power.results} results)"


def _ram(target: Target) -> str:
    from edgeprune.units import format_size

    return format_size(target.memory.ram_bytes) if target.memory.ram_bytes else "not fixed"


def _runtimes(target: Target) -> str:
    rows = [
        (
            name + (" (default)" if name == target.default_runtime else ""),
            runtime.backend,
            str(runtime.threads),
            ", ".join(runtime.precisions),
            str(runtime.channel_step),
            runtime.profile or "none",
        )
        for name, runtime in target.runtimes.items()
    ]
    header = ("runtime", "artifact", "threads", "precisions", "step", "device model")
    return table(header, rows, right=(2, 4))


def _models(target: Target) -> str:
    """Every latency model with how it was judged and where it comes from."""
    from edgeprune.device.standing import standings

    lines = []
    for name in target.runtimes:
        models = standings(target, name)
        lines += [] if models else [f"{name}: {NO_MODEL}"]
        for model in models:
            band = f"80 % band {model.band.low:.2f}-{model.band.high:.2f}"
            of = f" ({model.judged})" if model.judged else ""
            lines.append(f"{name}, {model.precision}, {model.threads} thread(s): {_error(model)}{of}, {band}")
            lines.append(f"    {model.source}")
    return "\n".join(lines)


def _sources(target: Target) -> str:
    noted = [(citation, f" ({citation.note})" if citation.note else "") for citation in target.source]
    return "\n".join(f"{', '.join(cited.fields)}: {cited.document}{note}" for cited, note in noted)


def _calibrations(target: Target) -> str:
    """What there is of this machine's own, per runtime and precision at the default threads."""
    from edgeprune.calibration.store import find

    notes = []
    for name, runtime in target.runtimes.items():
        for precision in runtime.precisions:
            if note := find(target, name, precision, runtime.threads).note:
                notes.append(f"{name}, {precision}: {note}")
    return "\n".join(notes)


def _tree(target: Target) -> Any:
    from edgeprune.device.standing import standings

    models = [model.model_dump(mode="json") for name in target.runtimes for model in standings(target, name)]
    return {**target.model_dump(mode="json", by_alias=True), "latency_models": models}


def _document(schema: str, **content: Any) -> str:
    return json_format.dumps({"schema": schema, **content}, indent=2, ensure_ascii=False)
