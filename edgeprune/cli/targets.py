"""`edgeprune targets`: the devices that a fit can aim at, and the cited facts about each."""

from __future__ import annotations

import json as json_format
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeprune.cli import options
from edgeprune.cli.terminal import table

if TYPE_CHECKING:
    from edgeprune.target import Target

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
    rows = [(t.name, t.class_, t.default_runtime, str(t.runtime().threads), t.latency, t.description) for t in found]
    typer.echo(table(("name", "class", "runtime", "threads", "latency", "description"), rows, right=(3,)))


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name, alias or a .toml file.")],
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show one device: its facts, the runtimes it runs, and where the facts come from."""
    from edgeprune.target import load_target

    target = load_target(name)
    typer.echo(_document("edgeprune.target-shown/1", target=_tree(target)) if json else _shown(target))


def _shown(target: Target) -> str:
    from edgeprune.units import format_size

    cpu, memory = target.cpu, target.memory
    clock = f" at {cpu.clock_hz / 1e6:g} MHz" if cpu.clock_hz else ""
    also = f" (also {', '.join(target.aliases)})" if target.aliases else ""
    facts = [
        ("name", f"{target.name}{also}"),
        ("what", target.description),
        ("cpu", f"{cpu.cores} x {cpu.core}{clock}, {cpu.isa}"),
        ("ram", format_size(memory.ram_bytes) if memory.ram_bytes else "not fixed"),
        ("flash", format_size(memory.flash_bytes) if memory.flash_bytes else "not fixed"),
        ("latency", target.latency),
    ]
    runtimes = [
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
    parts = ["\n".join(f"{key:<8} {value}" for key, value in facts), table(header, runtimes, right=(2, 4))]
    if target.source:
        parts.append("\n".join(f"{', '.join(c.fields)}: {c.document}" for c in target.source))
    return "\n\n".join(parts)


def _tree(target: Target) -> Any:
    return target.model_dump(mode="json", by_alias=True)


def _document(schema: str, **content: Any) -> str:
    return json_format.dumps({"schema": schema, **content}, indent=2, ensure_ascii=False)
