"""`edgeprune keys`: the key pairs that releases are signed with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli import options

app = typer.Typer(
    help="The keys that releases are signed with.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.command()
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The private key; the public one is FILE.pub.")],
    debug: options.Debug = False,
) -> None:
    """Make a key pair: FILE signs and stays here, readable by you only; FILE.pub checks and may go anywhere."""
    from edgeprune.deploy.signing import new_keys

    identity = new_keys(file)
    typer.echo(f"key {identity}: {file} signs, {file}.pub checks")
