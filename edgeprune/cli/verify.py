"""`edgeprune verify`: whether a device has what was deployed, whole, signed and answering as it should."""

from __future__ import annotations

from typing import Annotated

import typer

from edgeprune.cli import options
from edgeprune.cli.deploy import tested_text
from edgeprune.cli.terminal import progress


def verify(
    device: Annotated[str, typer.Option(metavar="ADDRESS", help="ssh://user@host, adb:SERIAL or local.")],
    name: Annotated[str, typer.Option("--name", metavar="APP", help="The app, as it was deployed.")],
    root: options.Root = None,
    python: options.DevicePython = None,
    benchmark_binary: options.BenchmarkBinary = None,
    key: options.Key = None,
    no_signature: options.NoSignature = False,
    untested: options.Untested = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Hash everything on a device against its manifests, check signatures, and run the current release's self-test.

    It changes nothing there. After a deployment of unknown state it says which release is current.
    """
    from edgeprune.deploy import flow, trial
    from edgeprune.links import connect
    from edgeprune.units import format_size

    report = progress(quiet=quiet)
    link = connect(device, python)
    test = trial.chosen(link, link.describe(), None, benchmark_binary, untested, report)
    record = flow.verify(link, name, test, flow.Options(root=root, key=key, unsigned=no_signature), report)
    if json:
        typer.echo(record.model_dump_json(by_alias=True, indent=2))
        return
    lines = [f"{record.device}: {record.app} in {record.folder}: whole"]
    for row in record.releases:
        role = {record.current: "current", record.previous: "previous"}.get(row.name, "kept")
        signed = f", signed with {row.signed_by}" if row.signed_by else ""
        lines.append(f"  {role}: {row.name}, {format_size(row.bytes)}{signed}")
    lines += [f"  self-test: {tested_text(record.self_test)}"] if record.self_test else []
    typer.echo("\n".join([*lines, *(f"  note: {note}" for note in record.notes)]))
