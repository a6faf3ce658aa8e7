"""One release to one device, or to many: some first, then the others, until too many have failed."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import Field, ValidationError

from edgeprune.deploy import flow, trial
from edgeprune.deploy.bundle import Bundle
from edgeprune.deploy.documents import DeployRecord
from edgeprune.deploy.flow import Options
from edgeprune.errors import EdgepruneError, UsageError
from edgeprune.links import connect
from edgeprune.progress import SILENT, Progress
from edgeprune.target import Target
from edgeprune.values import Value


class Place(Value):
    """Where a device hangs, and what is particular to it."""

    address: str
    python: str | None = None
    root: str | None = None
    benchmark_binary: str | None = None


class _File(Value):
    device: tuple[Place, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Settings:
    """How to deploy to any of them.

    Attributes:
        target: What the devices are; None: whatever they are.
        budget_ns: What the release's latency there is held against; None: it is only told.
        timed: Whether it is timed at all.
        untested: Whether a release may go untested to a device that can run nothing.
    """

    options: Options = field(default_factory=Options)
    target: Target | None = None
    budget_ns: int | None = None
    timed: bool = True
    untested: bool = False


def read_fleet(file: Path) -> tuple[Place, ...]:
    """The devices of a fleet file, in its order.

    Raises:
        UsageError: It cannot be read, has keys that are not known, no device, or one twice.
    """
    try:
        found = _File.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"cannot read the fleet: {error.strerror}", where=str(file)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"not valid TOML: {error}", where=str(file)) from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        hint = (
            'each device is [[device]] with address = "ssh://…", and python, root, benchmark_binary where they differ'
        )
        raise UsageError(f"not a fleet: {key}: {first['msg']}", where=str(file), hint=hint) from None
    seen: set[tuple[str, str | None]] = set()
    for place in found.device:
        connect(place.address, place.python)
        if (place.address, place.root) in seen:
            raise UsageError(f"{place.address} is there twice", where=str(file))
        seen.add((place.address, place.root))
    return found.device


def deploy_to(place: Place, bundle: Bundle, settings: Settings, progress: Progress = SILENT) -> DeployRecord:
    """Deploy to one device.

    Raises:
        EdgepruneError: As `trial.preflight` and `flow.deploy`.
    """
    link, binary = connect(place.address, place.python), place.benchmark_binary
    facts, test, notes = trial.preflight(link, bundle.manifest, settings.target, binary, settings.untested, progress)
    timing: trial.Timing = trial.not_timed
    if settings.timed and test is trial.by_python:
        timing = trial.timed_by_python(settings.budget_ns)
    elif settings.timed and binary:
        timing = trial.timed_by_binary(binary, settings.budget_ns)
    options = at_place(settings.options, place)
    record = flow.deploy(link, bundle, test, timing, options, progress)
    return record.model_copy(update={"model": facts.model, "notes": (*notes, *record.notes)})


def rollback_at(place: Place, app: str, settings: Settings, progress: Progress = SILENT) -> DeployRecord:
    """Go back to the previous release on one device.

    Raises:
        EdgepruneError: As `trial.chosen` and `flow.rollback`.
    """
    link = connect(place.address, place.python)
    test = trial.chosen(link, link.describe(), None, place.benchmark_binary, settings.untested, progress)
    return flow.rollback(link, app, test, at_place(settings.options, place), progress)


def at_place(options: Options, place: Place) -> Options:
    """The options with what is particular to a device."""
    return options if place.root is None else replace(options, root=place.root)


def in_turn(
    places: Sequence[Place], deploy_one: Callable[[Place], DeployRecord], canary: int, max_failures: int, app: str
) -> Iterator[DeployRecord]:
    """What happened to each device, in turn. The first `canary` must all succeed; then so many may fail.

    Args:
        max_failures: The failure of this number, of those after the canaries, is the last: the rest is left out.
    """
    failures, stopped = 0, False
    for number, place in enumerate(places):
        if stopped:
            yield DeployRecord(device=place.address, app=app, outcome="left out")
            continue
        try:
            yield deploy_one(place)
        except EdgepruneError as error:
            failures += 1
            stopped = number < canary or failures >= max_failures
            yield DeployRecord(
                device=place.address,
                app=app,
                outcome="failed",
                exit_code=error.exit_code,
                error=error.message,
                notes=(error.hint,) if error.hint else (),
            )


def exit_code(records: Sequence[DeployRecord]) -> int:
    """0 where every device holds the release; 10 where one's state is unknown, else what the first that failed says."""
    codes = [record.exit_code for record in records if record.exit_code]
    if not codes:
        return 0
    return 10 if 10 in codes else codes[0]
