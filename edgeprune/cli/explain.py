"""`edgeprune explain`: what a run pruned, what that was worth, what it bought, and why the rest stayed."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli import options


def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Say what a run pruned, what it was worth, what latency, RAM and size it bought, and what held it back.

    It needs the run folder alone, no model code.
    """
    from edgeprune.record import read_record
    from edgeprune.report.explain import explain_text, explanation

    record = read_record(run)
    typer.echo(json_format.dumps(explanation(record), indent=2) + "\n" if json else explain_text(record), nl=False)
