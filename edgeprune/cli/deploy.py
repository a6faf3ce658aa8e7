"""`edgeprune deploy`: a checked release onto devices, and the way back."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeprune.cli import options
from edgeprune.cli.terminal import only_results_on_stdout, progress, table
from edgeprune.errors import UsageError

if TYPE_CHECKING:
    from edgeprune.deploy.bundle import Bundle
    from edgeprune.deploy.documents import DeployRecord
    from edgeprune.deploy.fleet import Place, Settings
    from edgeprune.deploy.origin import Origin
    from edgeprune.deploy.self_test import TestRow
    from edgeprune.progress import Progress

Artifact = Annotated[
    Path | None, typer.Argument(metavar="[RUN|MODEL]", help="Folder of a run, or a model file with --inputs.")
]
Devices = Annotated[
    Path | None, typer.Option("--devices", metavar="FILE", help="fleet.toml: many devices, instead of --device.")
]
AsTarget = Annotated[
    str | None, typer.Option("--target", metavar="NAME", help="What the device is, where it is not the run's target.")
]
Inputs = Annotated[
    Path | None,
    typer.Option(
        "--inputs", metavar="FILE", help=".npy of real inputs (n, ...) float32, NCHW; default: of the run's data."
    ),
]
Latency = Annotated[
    str | None,
    typer.Option("--latency", metavar="TIME", help="Limit on the device: 20ms; default: the run's, on its target."),
]
Health = Annotated[
    str | None,
    typer.Option("--health", metavar="COMMAND", help="Program there, whole path, and arguments; a failure goes back."),
]


def deploy(
    artifact: Artifact = None,
    device: options.Device = None,
    devices: Devices = None,
    name: options.AppName = None,
    root: options.Root = None,
    python: options.DevicePython = None,
    benchmark_binary: options.BenchmarkBinary = None,
    target: AsTarget = None,
    runtime: options.Runtime = None,
    threads: options.Threads = None,
    inputs: Inputs = None,
    latency: Latency = None,
    latency_check: Annotated[bool, typer.Option("--latency-check/--no-latency-check", help="Time it there.")] = True,
    health: Health = None,
    health_time: Annotated[str, typer.Option(metavar="TIME", help="Limit on the health command.")] = "30s",
    sign: Annotated[Path | None, typer.Option(metavar="KEYFILE", help="Sign the release with this key.")] = None,
    key: options.Key = None,
    no_signature: options.NoSignature = False,
    untested: options.Untested = False,
    any_clock: Annotated[bool, typer.Option("--any-clock", help="The device's clock may be wrong.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to the previous release.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent; ask no device.")] = False,
    canary: Annotated[int, typer.Option(min=0, metavar="N", help="Of a fleet, so many first.")] = 1,
    max_failures: Annotated[int, typer.Option(min=1, metavar="N", help="Of a fleet, stop at so many.")] = 1,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Put a run's model on a device, test it there, and make it current by one rename.

    What was current stays so until the new release has passed its self-test on the device, and comes back where the
    health command fails. docs/deploy.md says what happens there.
    """
    from edgeprune.deploy.fleet import Settings
    from edgeprune.deploy.flow import Options
    from edgeprune.target import load_target
    from edgeprune.units import parse_time

    places = _places(device, devices, python, root, benchmark_binary)
    settings = Settings(
        options=Options(
            root=root,
            health=_words(health),
            health_s=parse_time(health_time, "--health-time"),
            key=key,
            unsigned=no_signature,
            any_clock=any_clock,
        ),
        target=load_target(target) if target else None,
        budget_ns=round(parse_time(latency, "--latency") * 1e9) if latency else None,
        timed=latency_check,
        untested=untested,
    )
    report = progress(quiet=quiet)
    if rollback:
        if artifact is not None or not name:
            raise UsageError("--rollback takes the app's name and no run", where="--rollback", hint="--name APP")
        raise typer.Exit(_each(places, name, _back(name, settings, report), canary, max_failures, devices, json))
    with tempfile.TemporaryDirectory() as scratch:
        with only_results_on_stdout(debug=debug):
            origin = _origin(artifact, settings, runtime, threads, inputs, name)
            bundle = _bundled(origin, Path(scratch), sign, key, report)
        if dry_run:
            typer.echo(_plan(bundle, places, json), nl=False)
            return
        one = _forth(bundle, _for_origin(settings, origin), report)
        raise typer.Exit(_each(places, origin.app, one, canary, max_failures, devices, json))


def _places(
    device: str | None, devices: Path | None, python: str | None, root: str | None, binary: str | None
) -> tuple[Place, ...]:
    from edgeprune.deploy.fleet import Place, read_fleet

    if (device is None) == (devices is None):
        raise UsageError("one device or a fleet", where="--device", hint="--device ADDRESS, or --devices fleet.toml")
    if devices is None:
        return (Place(address=device or "", python=python, root=root, benchmark_binary=binary),)
    return tuple(
        Place(
            address=place.address,
            python=place.python or python,
            root=place.root or root,
            benchmark_binary=place.benchmark_binary or binary,
        )
        for place in read_fleet(devices)
    )


def _words(health: str | None) -> tuple[str, ...]:
    """The words of the health command, split here: no shell on the device sees them as anything else."""
    try:
        return tuple(shlex.split(health or ""))
    except ValueError as error:
        raise UsageError(f"cannot read the command: {error}", where="--health") from None


def _origin(
    artifact: Path | None,
    settings: Settings,
    runtime: str | None,
    threads: int | None,
    inputs: Path | None,
    name: str | None,
) -> Origin:
    from edgeprune.deploy.origin import from_file, from_run, read_samples

    if artifact is None:
        raise UsageError("nothing to deploy", where="deploy", hint="name the folder of a run, or a model file")
    samples = read_samples(inputs) if inputs else None
    if artifact.is_dir():
        return from_run(artifact, runtime, threads, samples, name)
    if not artifact.is_file():
        raise UsageError(f"no such file: {artifact}", where="deploy")
    return from_file(artifact, settings.target, threads, samples, name)


def _for_origin(settings: Settings, origin: Origin) -> Settings:
    """The run's target and budget, where nothing else was said."""
    own = settings.target is None or (origin.target is not None and settings.target.name == origin.target.name)
    limit = origin.budget.latency_ns if origin.budget and own else None
    return replace(settings, target=settings.target or origin.target, budget_ns=settings.budget_ns or limit)


def _bundled(origin: Origin, folder: Path, sign: Path | None, key: Path | None, report: Progress) -> Bundle:
    """The release, whose signature is checked before anything is sent."""
    from edgeprune.deploy.bundle import make_bundle
    from edgeprune.deploy.manifest import SIGNATURE
    from edgeprune.deploy.signing import check_signature

    report.note(f"keeping the answers of {origin.path.name} to {len(origin.samples)} real inputs")
    bundle = make_bundle(origin, folder, sign)
    if key is not None:
        signature = (folder / SIGNATURE).read_bytes() if sign else None
        check_signature(bundle.document, bundle.manifest, signature, key, "the release")
    return bundle


def _forth(bundle: Bundle, settings: Settings, report: Progress) -> Callable[[Place], DeployRecord]:
    from edgeprune.deploy.fleet import deploy_to

    return lambda place: deploy_to(place, bundle, settings, report)


def _back(name: str, settings: Settings, report: Progress) -> Callable[[Place], DeployRecord]:
    from edgeprune.deploy.fleet import rollback_at

    return lambda place: rollback_at(place, name, settings, report)


def _each(
    places: tuple[Place, ...],
    app: str,
    one: Callable[[Place], DeployRecord],
    canary: int,
    max_failures: int,
    fleet: Path | None,
    as_json: bool,
) -> int:
    """Deploy to the one device, or to those of the fleet in turn, and say what happened; the exit code."""
    from edgeprune.deploy.fleet import exit_code, in_turn

    if fleet is None:
        record = one(places[0])
        typer.echo(record.model_dump_json(by_alias=True, indent=2) if as_json else deployment_text(record))
        return 0
    records = []
    for record in in_turn(places, one, canary, max_failures, app):
        records.append(record)
        typer.echo(record.model_dump_json(by_alias=True) if as_json else deployment_text(record))
    return exit_code(records)


def _plan(bundle: Bundle, places: tuple[Place, ...], as_json: bool) -> str:
    from edgeprune.units import format_size

    if as_json:
        return bundle.document.decode()
    files = [(name, format_size(row.bytes), row.sha256[:16]) for name, row in bundle.manifest.files.items()]
    golden = bundle.manifest.golden
    lines = [
        f"release {bundle.name} of {bundle.manifest.app}, {format_size(bundle.size_bytes)}, "
        f"{f'signed with {bundle.manifest.signed_by}' if bundle.manifest.signed_by else 'not signed'}",
        table(("file", "size", "sha256"), files, right=(1,)),
        f"{golden.vectors} test vectors, {golden.real} of them real",
        *(f"would go to {place.address}" for place in places),
    ]
    return "\n".join(lines) + "\n"


def deployment_text(record: DeployRecord) -> str:
    """What happened to one device, in a few lines."""
    from edgeprune.units import format_size, format_time

    if record.outcome in ("failed", "left out"):
        lines = [f"{record.device}: {record.outcome}" + (f": {record.error}" if record.error else "")]
    else:
        lines = [f"{record.device}: {record.outcome}: {record.app} {record.release}"]
        lines += [f"  in {record.folder}, {format_size(record.sent_bytes)} sent"]
        lines += [f"  previous: {record.previous}"] if record.previous else []
        lines += [f"  signed with {record.signed_by}"] if record.signed_by else []
    if record.self_test:
        lines += [f"  self-test: {tested_text(record.self_test)}"]
    if record.latency:
        row = record.latency
        limit = "" if row.budget_ns is None else f", budget {format_time(row.budget_ns * 1e-9)}"
        lines += [f"  latency: {format_time(row.latency_ns * 1e-9)}, {row.statistic} of {row.runs} runs{limit}"]
    return "\n".join([*lines, *(f"  note: {note}" for note in record.notes)])


def tested_text(row: TestRow) -> str:
    """How a release answered."""
    near = "equal to the last bit" if row.exact else f"within {row.largest_error * 100:.0f} % of what is allowed"
    return f"{row.vectors} vectors, {near} ({row.runtime_version}, {row.machine})"
