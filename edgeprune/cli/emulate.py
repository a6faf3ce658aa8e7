"""`edgeprune emulate`: what emulated Linux boards need on this machine, what of it is there, and bringing it."""

from __future__ import annotations

import json as json_format
import shlex
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeprune.cli import options
from edgeprune.cli.terminal import progress, table

if TYPE_CHECKING:
    from edgeprune.target import Target

app = typer.Typer(help="Set up emulated Linux boards, or say what is there.", no_args_is_help=True)


@app.command()
def setup(
    name: Annotated[str, typer.Argument(metavar="TARGET", help="A board that edgeprune emulate status lists.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    debug: options.Debug = False,
) -> None:
    """Download a root file system and the runtimes' packages for an emulated board, after asking.

    All of it lies in one folder of the user's cache, or in that which EDGEPRUNE_BOARDS names. One download serves all
    boards. Missing tools of the system are installed with apt-get where root asks for it, else named.
    """
    from edgeprune.boards import kit
    from edgeprune.boards.overlay import emulation_of
    from edgeprune.errors import UsageError
    from edgeprune.target import load_target

    target = load_target(name)
    emulation_of(target)
    plan = _plan()
    if not yes:
        typer.echo("\n".join(plan or ["Nothing is downloaded: only the board's own few files are written."]), err=True)
        if not sys.stdin.isatty():
            raise UsageError("nobody is there to ask", where="emulate setup", hint="say --yes")
        if not typer.confirm("Go on?", err=True):
            raise UsageError("nothing was set up: the answer was no", where="emulate setup")
    seconds = kit.set_up(target, progress(quiet=False))
    typer.echo(f"an emulated {target.name} is in {kit.folder()}, set up in {seconds:.0f} s")
    typer.echo(f"hint: edgeprune profile model.tflite --target {target.name} --device emulator", err=True)


def _plan() -> list[str]:
    """What a setup would bring, a line each."""
    from edgeprune.boards import kit

    lines = []
    if tools := kit.missing_tools():
        download, installed = kit.SIZES["tools"]
        command = shlex.join(kit.install_command(tools))
        lines.append(f"install on this system (about {download}, {installed} installed): {command}")
    if not kit.up_to_date():
        for part, what in (("root", f"Debian {kit.SUITE} for arm64"), ("packages", _packages())):
            download, unpacked = kit.SIZES[part]
            lines.append(f"download {what} (about {download}, {unpacked} unpacked)")
        lines.append(f"all of it into {kit.folder()}")
    return lines


def _packages() -> str:
    from edgeprune.boards import kit

    return ", ".join(f"{name} {version}" for name, version in kit.host_versions().items())


@app.command()
def status(json: options.Json = False, debug: options.Debug = False) -> None:
    """Say which boards can be emulated, what is set up, and what is missing."""
    from edgeprune.boards import kit
    from edgeprune.target import load_target, target_names

    boards = [target for name in target_names() if (target := load_target(name)).emulation is not None]
    tools = {name: "missing" if name in kit.missing_tools() else "installed" for name in kit.TOOLS}
    state = kit.installed()
    rows = [(target, *_standing(target)) for target in boards]
    if json:
        document: dict[str, Any] = {
            "schema": "edgeprune.emulation/1",
            "folder": str(kit.folder()),
            "tools": tools,
            "versions": None if state is None else state["versions"],
            "boards": {
                target.name: {"ready": not why, "latency": known, "missing": why} for target, known, why in rows
            },
        }
        typer.echo(json_format.dumps(document, indent=2))
        return
    typer.echo(f"folder: {kit.folder()}\n")
    typer.echo(table(("tool", "state"), list(tools.items())))
    cells = [
        (target.name, target.emulation.cpu, "estimated" if known else "not known", why or "ready")
        for target, known, why in rows
        if target.emulation
    ]
    typer.echo("\n" + table(("board", "emulated core", "latency", "state"), cells))


def _standing(target: Target) -> tuple[bool, str]:
    """Whether a latency is known of the default runtime, and why the board cannot be used; empty where it can."""
    from edgeprune.boards import kit
    from edgeprune.boards.latency import load_counted_model
    from edgeprune.errors import MissingExtraError

    known = load_counted_model(target, target.default_runtime, "int8", target.runtime().threads) is not None
    try:
        kit.kit_of(target)
    except MissingExtraError as error:
        return known, error.message
    return known, ""
